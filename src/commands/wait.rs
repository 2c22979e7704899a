//! `wait`: for scripts that start a cluster elsewhere.

use std::time::{Duration, SystemTime};

use super::up::WaitFor;
use super::{Session, Timeout};
use crate::error::Error;
use crate::ready::{self, Wait};

/// Wait until the cluster is ready
#[derive(Debug, clap::Args)]
pub struct WaitArgs {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// When they count as ready
    #[arg(long = "for", value_name = "STATE", default_value = "synced")]
    wait_for: WaitFor,
    #[command(flatten)]
    timeout: Timeout,
}

/// `wait`
pub async fn wait(args: WaitArgs, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let names: Vec<String> = cluster
        .desired
        .select(&args.nodes)?
        .iter()
        .map(|n| n.name.clone())
        .collect();
    let on_ready = |name: &str, how: &str, after: Duration| {
        session
            .ui
            .done(name, &format!("{how}  {:.1}s", after.as_secs_f64()))
    };
    let wait = Wait {
        runtime: cluster.runtime.as_ref(),
        desired: &cluster.desired,
        names: &names,
        synced: args.wait_for == WaitFor::Synced,
        timeout: args.timeout.of(&cluster.spec),
        since: SystemTime::now(),
        interrupt: &session.interrupt,
        on_ready: &on_ready,
    };
    ready::wait(&wait).await?;
    Ok(0)
}
