//! `logs`: lines of one or more nodes, each with its node's name.

use tokio::sync::mpsc;

use super::Session;
use crate::error::Error;

/// Show what nodes printed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl logs --tail 20                    the last lines of every node
  rmqctl logs -f rmqmaster1 rmqslave1      and what comes, until Ctrl-C")]
pub struct Logs {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// Go on with what they print from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Lines without the node's name
    #[arg(long)]
    no_prefix: bool,
}

/// Lines on their way from one node to the terminal; a node that prints faster than the terminal takes waits.
const LINES_WAITING_MAX: usize = 256;

/// `logs`
pub async fn logs(args: Logs, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let observed = cluster.observe().await?;
    let chosen = cluster.desired.select(&args.nodes)?;
    let present: Vec<_> = chosen
        .into_iter()
        .filter(|n| observed.nodes.iter().any(|o| o.container == n.container))
        .collect();
    let wide = present.iter().map(|n| n.name.len()).max().unwrap_or(0);
    let shown = present.iter().map(|node| async {
        let (send, mut lines) = mpsc::channel(LINES_WAITING_MAX);
        let read = cluster
            .runtime
            .follow_log(&node.container, args.tail, args.follow, send);
        let print = async {
            while let Some(line) = lines.recv().await {
                if args.no_prefix {
                    session.ui.out(&format!("{line}\n"));
                } else {
                    session.ui.out(&format!("{:<wide$} | {line}\n", node.name));
                }
            }
        };
        tokio::join!(read, print).0
    });
    // Whole logs come node by node, live ones as they come.
    if args.follow {
        tokio::select! {
            all = futures_util::future::try_join_all(shown) => { all?; }
            () = session.interrupt.requested() => {}
        }
    } else {
        for one in shown {
            tokio::select! {
                done = one => done?,
                () = session.interrupt.requested() => return Err(session.interrupt.error()),
            }
        }
    }
    Ok(0)
}
