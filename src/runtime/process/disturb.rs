//! Kills and pauses of nodes on purpose.

use rocketmq_protocol::partition::Order;
use rustix::process::Signal;

use super::dir::{LastEnd, NodeDir, NodeFile, RunFile};
use super::watch::Watch;
use super::{Processes, stray, supervisor};
use crate::probe;
use crate::runtime::pid::Process;
use crate::runtime::{Disturbance, RuntimeError, no_orders, order_address};
use crate::topology::{Desired, Node};

/// Exit code of what SIGKILL ended.
const KILLED: i64 = 128 + 9;

impl Processes {
    pub(super) async fn disturb_node(
        &self,
        desired: &Desired,
        container: &str,
        how: Disturbance,
    ) -> Result<(), RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed(how.word(), container, e);
        let absent = |what: &str| RuntimeError::failed(how.word(), container, what);
        if how == Disturbance::Isolate {
            return Err(RuntimeError::Unsupported {
                what: format!("{} {container}", how.word()),
                runtime: "process",
                reason: "all nodes share this host's loopback, and there is no network to take one off",
                hint: "`chaos partition A B` cuts two nodes off from each other; `chaos pause` makes a node that hangs, `chaos kill --for` one that is away",
            });
        }
        let (dir, node) = self
            .own_node(desired, container)?
            .ok_or_else(|| absent("no such node"))?;
        // There is no network that it could have left.
        if how == Disturbance::Rejoin {
            return Ok(());
        }
        let Some(run) = dir.run().map_err(failed)? else {
            return match how {
                Disturbance::Crash | Disturbance::Pause => Err(absent("it never ran")),
                _ => Ok(()),
            };
        };
        if how == Disturbance::Kill {
            return kill_for_good(&dir, &node, run).await.map_err(failed);
        }
        let child = run.child.and_then(Process::open);
        match (how, child) {
            (Disturbance::Crash, Some(child)) => {
                child.signal(Signal::KILL).map_err(failed)?;
                child.ended().await.map_err(failed)
            }
            (Disturbance::Pause, Some(child)) => child.signal(Signal::STOP).map_err(failed),
            (Disturbance::Crash | Disturbance::Pause, None) => Err(absent("it does not run")),
            (_, Some(child)) => child.signal(Signal::CONT).map_err(failed),
            // What ended meanwhile stands still no longer.
            (_, None) => Ok(()),
        }
    }
}

impl Processes {
    /// The node listens where its clients reach it; who connects from this host is beside it.
    pub(super) async fn give_order(
        &self,
        desired: &Desired,
        node: &Node,
        order: &Order,
    ) -> Result<(), RuntimeError> {
        let failed =
            |reason: String| RuntimeError::failed("give an order to", &node.container, reason);
        if let Some(error) = no_orders(node, "process") {
            return Err(error);
        }
        let (dir, _) = self
            .own_node(desired, &node.container)?
            .ok_or_else(|| failed("no such node".into()))?;
        let run = dir.run().map_err(|e| failed(e.to_string()))?;
        if !run.is_some_and(|run| run.child.is_some_and(|child| child.lives())) {
            return Err(failed("it does not run".into()));
        }
        let host = match desired.bind.is_unspecified() {
            true => "127.0.0.1".to_owned(),
            false => desired.bind.to_string(),
        };
        let address =
            order_address(node, &host).ok_or_else(|| failed("it listens nowhere".into()))?;
        probe::order(&address, order).await.map_err(failed)
    }

    /// Watches first and looks then, so that no start is missed in between.
    pub(super) async fn await_start(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<bool, RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed("watch", container, e);
        loop {
            let Some((dir, _)) = self.own_node(desired, container)? else {
                return Ok(false);
            };
            // A supervisor replaces `run.json` at each start.
            let watch = Watch::replacements(&dir.0).map_err(failed)?;
            let run = dir.run().map_err(failed)?;
            if run.is_some_and(|run| run.supervisor.lives()) {
                return Ok(true);
            }
            watch.changed().await.map_err(failed)?;
        }
    }
}

/// Kills the supervisor, which would start the node again, then the node, whether it is written down or was just started.
pub(super) async fn kill_for_good(
    dir: &NodeDir,
    node: &NodeFile,
    mut run: RunFile,
) -> std::io::Result<()> {
    if let Some(supervisor) = run.supervisor.open() {
        supervisor.signal(Signal::KILL)?;
        supervisor.ended().await?;
        // It may have started the node anew since it was read.
        run = dir.run()?.unwrap_or(run);
    }
    let mut killed = stray::kill(dir, node).await?;
    if let Some(child) = run.child.take().and_then(Process::open) {
        child.signal(Signal::KILL)?;
        child.ended().await?;
        killed = true;
    }
    if killed {
        // The supervisor would have written this.
        run.last_end = Some(LastEnd {
            code: KILLED,
            at_ms: supervisor::now_ms(),
        });
    }
    dir.write_run(&run)
}
