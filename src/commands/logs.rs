//! `logs`: lines of one or more nodes, merged by time, each with its node's name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::{Cluster, Session};
use crate::error::Error;
use crate::runtime::{LogLine, LogRange};
use crate::spec::parse_duration;
use crate::topology::Node;

/// Show what nodes printed, merged by time
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl logs rmqmaster1 --tail 100
  rmqctl logs broker-a --since 5m          a master and its slaves
  rmqctl logs -f | grep WARN               goes on over restarts of the nodes")]
pub struct Logs {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// Go on with what they print from now on, over their restarts too, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only the last N lines of each
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Only what was printed in the last 5m, 1h …
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    since: Option<Duration>,
    /// Lines without the node's name
    #[arg(long)]
    no_prefix: bool,
}

/// Lines on their way from one node to the terminal; a node that prints faster than the terminal takes waits.
const LINES_WAITING_MAX: usize = 256;
/// How long lines of several nodes are held back to be put in order while following.
const ORDER_WINDOW: Duration = Duration::from_millis(50);

/// A line, and which of the nodes said it.
type Said = (usize, LogLine);

/// `logs`
pub async fn logs(args: Logs, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let observed = cluster.observe().await?;
    let chosen = cluster.desired.select(&args.nodes)?;
    let present: Vec<&Node> = chosen
        .into_iter()
        .filter(|n| observed.nodes.iter().any(|o| o.container == n.container))
        .collect();
    let range = LogRange {
        tail: args.tail,
        after: args.since.map(nanos_before_now),
        follow: args.follow,
    };
    let (send, lines) = mpsc::channel(LINES_WAITING_MAX);
    let read = present
        .iter()
        .enumerate()
        .map(|(speaker, node)| one(&cluster, node, speaker, range, send.clone()));
    let read = futures_util::future::try_join_all(read);
    // The readers hold the other ends: when they are through, the printer is.
    drop(send);
    let wide = present.iter().map(|n| n.name.len()).max().unwrap_or(0);
    let print = |(speaker, line): &Said| match args.no_prefix {
        true => session.ui.out(&format!("{}\n", line.text)),
        false => session
            .ui
            .says(*speaker, &present[*speaker].name, wide, &line.text),
    };
    let both = async { tokio::join!(read, in_order(lines, args.follow, &print)).0 };
    tokio::select! {
        all = both => { all?; }
        // What one follows has no other end.
        () = session.interrupt.requested() => if !args.follow {
            return Err(session.interrupt.error());
        },
    }
    Ok(0)
}

fn nanos_before_now(span: Duration) -> u64 {
    let at = SystemTime::now().checked_sub(span).unwrap_or(UNIX_EPOCH);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Reads one node's log; while following, again each time the node has come back.
async fn one(
    cluster: &Cluster,
    node: &Node,
    speaker: usize,
    mut range: LogRange,
    to: mpsc::Sender<Said>,
) -> Result<(), Error> {
    let runtime = cluster.runtime.as_ref();
    let mut failed_before = false;
    loop {
        let (send, mut lines) = mpsc::channel(LINES_WAITING_MAX);
        let read = runtime.follow_log(&node.container, range, send);
        let mut last = range.after;
        let pass = async {
            while let Some(mut line) = lines.recv().await {
                // A line that has no time, as of a backtrace, goes with the one before it.
                line.at = line.at.or(last);
                last = line.at;
                if to.send((speaker, line)).await.is_err() {
                    break;
                }
            }
        };
        let (read, ()) = tokio::join!(read, pass);
        // A node that is being replaced may have no log for a moment; a second failure is one.
        if !range.follow || read.is_err() && failed_before {
            return read.map_err(Error::from);
        }
        failed_before = read.is_err();
        if !runtime
            .next_start(&cluster.desired, &node.container)
            .await?
        {
            return read.map_err(Error::from);
        }
        range = LogRange {
            tail: None,
            after: last.or(range.after),
            follow: true,
        };
    }
}

/// Prints lines in the order of their times: all of them when they end, or as they come, those that come together in order.
async fn in_order(mut lines: mpsc::Receiver<Said>, live: bool, print: &dyn Fn(&Said)) {
    let mut held: Vec<Said> = Vec::new();
    loop {
        let next = match live && !held.is_empty() {
            // More that come within the window may be earlier.
            true => tokio::time::timeout(ORDER_WINDOW, lines.recv()).await,
            false => Ok(lines.recv().await),
        };
        match next {
            Ok(Some(line)) => {
                held.push(line);
                if !live || held.len() < LINES_WAITING_MAX {
                    continue;
                }
            }
            Ok(None) => {
                flush(&mut held, print);
                return;
            }
            Err(_) => {}
        }
        flush(&mut held, print);
    }
}

fn flush(held: &mut Vec<Said>, print: &dyn Fn(&Said)) {
    // Stable: lines of one time stay as they came.
    held.sort_by_key(|(_, line)| line.at);
    held.drain(..).for_each(|line| print(&line));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[tokio::test]
    async fn lines_of_several_nodes_are_merged_by_time() {
        for live in [false, true] {
            let (send, lines) = mpsc::channel(8);
            let line = |at, text: &str| LogLine {
                at: Some(at),
                text: text.into(),
            };
            for said in [
                (0, line(1, "a")),
                (0, line(4, "d")),
                (1, line(2, "b")),
                (1, line(2, "c")),
            ] {
                send.send(said).await.unwrap();
            }
            drop(send);
            let got = Mutex::new(String::new());
            in_order(lines, live, &|(_, line)| {
                got.lock().unwrap().push_str(&line.text)
            })
            .await;
            assert_eq!(got.into_inner().unwrap(), "abcd", "live: {live}");
        }
    }
}
