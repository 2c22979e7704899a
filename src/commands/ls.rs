//! `ls`: every cluster of this runtime.

use super::{Cluster, Session, ephemeral};
use crate::error::{Error, Exit};
use crate::lease;
use crate::plan::NodeState;
use crate::ui::{self, Format};

/// List every cluster here
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl ls                    every cluster of this runtime
  rmqctl ls -o name            their names, one a line")]
pub struct Ls {
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Ls {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    cluster: String,
    runtime: &'static str,
    masters: u32,
    slaves: u32,
    running: usize,
    nodes: usize,
    /// `running`, `degraded`, `stopped`, `expired`, or `unreadable`: another version of rmqctl made it.
    state: &'static str,
    namesrv: String,
    /// Unix seconds at which it ends by itself.
    expires_at: Option<u64>,
    /// Until then.
    expires_in_seconds: Option<u64>,
}

/// `ls`
pub async fn ls(args: Ls, session: &Session<'_>) -> Result<u8, Error> {
    let names = session.open(session.name()).await?.clusters().await?;
    let mut rows = Vec::new();
    for name in names {
        let runtime = session.open(&name).await?;
        let kind = runtime.kind();
        let cluster = match Cluster::find(runtime, &name).await {
            Ok(Some(cluster)) => cluster,
            Ok(None) => continue,
            // One that another version of rmqctl made must not hide the others.
            Err(error) if error.exit == Exit::Spec => {
                session.ui.warn(&format!("{name}: {}", error.title));
                rows.push(Row {
                    cluster: name,
                    runtime: kind,
                    state: "unreadable",
                    ..Row::default()
                });
                continue;
            }
            Err(error) => return Err(error),
        };
        let observed = cluster.observe().await?;
        let running = observed
            .nodes
            .iter()
            .filter(|n| n.state == NodeState::Running)
            .count();
        let nodes = cluster.desired.nodes.len();
        let expires_at = cluster.spec.ephemeral.map(|ephemeral| ephemeral.until);
        let state = match running {
            _ if ephemeral::is_over(cluster.runtime.as_ref(), &cluster.spec) => "expired",
            0 => "stopped",
            running if running < nodes => "degraded",
            _ => "running",
        };
        rows.push(Row {
            cluster: name,
            runtime: cluster.runtime.kind(),
            masters: cluster.spec.masters,
            slaves: cluster.spec.slaves,
            running,
            nodes,
            state,
            namesrv: cluster.desired.namesrv_addrs().join(";"),
            expires_at,
            expires_in_seconds: expires_at.map(|at| at.saturating_sub(lease::now())),
        });
    }
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&rows, args.output),
        Format::Name => rows
            .iter()
            .for_each(|row| session.ui.out(&format!("{}\n", row.cluster))),
        Format::Table | Format::Wide => {
            let cells: Vec<Vec<String>> = rows
                .iter()
                .map(|r| {
                    let brokers = format!("{} masters, {} slaves", r.masters, r.slaves);
                    vec![
                        r.cluster.clone(),
                        r.runtime.to_owned(),
                        r.state.to_owned(),
                        format!("{}/{}", r.running, r.nodes),
                        brokers,
                        r.namesrv.clone(),
                        r.expires_in_seconds.map_or("-".to_owned(), ui::span),
                    ]
                })
                .collect();
            session.ui.out(&ui::table(
                &[
                    "CLUSTER", "RUNTIME", "STATE", "RUNNING", "BROKERS", "NAMESRV", "EXPIRES",
                ],
                &cells,
                |_, _| None,
            ));
        }
    }
    Ok(0)
}
