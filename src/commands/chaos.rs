//! `chaos`: nodes that die, hang or are cut off on purpose, to see what the cluster and its clients make of it.

use std::time::Duration;

use super::{Cluster, Session};
use crate::error::Error;
use crate::plan;
use crate::runtime::Disturbance;
use crate::spec::parse_duration;
use crate::topology::Node;

/// Kill, pause or cut off nodes on purpose, and heal them again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl chaos kill rmqmaster1              it dies as by kill -9, and comes back by itself
  rmqctl chaos kill broker-a:0 --for 30s    it is away for 30 s; Ctrl-C brings it back earlier
  rmqctl chaos pause rmqslave1 --for 5s     it hangs with its connections open
  rmqctl chaos partition rmqmaster1         it runs, and nobody reaches it (Docker)
  rmqctl chaos heal                         all is as before")]
pub struct Chaos {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// End the process as kill -9 does; it is restarted as after any crash, or with --for after that time
    Kill(Hurt),
    /// Stop the process in its tracks, connections open, as a machine that hangs
    Pause(Hurt),
    /// Let paused nodes go on
    Unpause(Named),
    /// Take nodes off the network: they run, but reach nobody, and their published ports answer no more. Docker only
    Partition(Hurt),
    /// End every pause and partition, and start nodes that do not run; all nodes when none is named
    Heal(Heal),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1
    #[arg(required = true, value_name = "NODE")]
    nodes: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Hurt {
    #[command(flatten)]
    named: Named,
    /// Heal after this time, or at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Heal {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
}

/// `chaos`
pub async fn chaos(args: Chaos, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let restarter = match cluster.runtime.kind() {
        "docker" => "Docker",
        "podman" => "Podman",
        _ => "its supervisor",
    };
    match args.what {
        What::Kill(hurt) => match hurt.lasts {
            None => {
                let done = format!("killed; {restarter} starts it again");
                disturb(&cluster, session, &hurt, Disturbance::Crash, &done).await
            }
            Some(_) => disturb(&cluster, session, &hurt, Disturbance::Kill, "killed").await,
        },
        What::Pause(hurt) => {
            disturb(&cluster, session, &hurt, Disturbance::Pause, "stands still").await
        }
        What::Partition(hurt) => {
            let done = format!("is off {}", cluster.desired.network);
            disturb(&cluster, session, &hurt, Disturbance::Isolate, &done).await
        }
        What::Unpause(named) => {
            let chosen = cluster.desired.select(&named.nodes)?;
            each(&cluster, session, &chosen, Disturbance::Unpause, "goes on").await?;
            Ok(0)
        }
        What::Heal(named) => {
            let chosen = cluster.desired.select(&named.nodes)?;
            heal(&cluster, session, &chosen).await?;
            Ok(0)
        }
    }
}

async fn disturb(
    cluster: &Cluster,
    session: &Session<'_>,
    hurt: &Hurt,
    how: Disturbance,
    done: &str,
) -> Result<u8, Error> {
    let chosen = cluster.desired.select(&hurt.named.nodes)?;
    let hurting = each(cluster, session, &chosen, how, done).await;
    let Some(lasts) = hurt.lasts else {
        if hurting.is_ok() && how != Disturbance::Crash {
            session
                .ui
                .note(&format!("{}   ends it", session.again("chaos heal")));
        }
        return hurting.map(|()| 0);
    };
    // What an error or a Ctrl-C leaves hurt is healed too: it was asked for a time only.
    if hurting.is_ok() {
        session
            .ui
            .note(&format!("for {lasts:?}; Ctrl-C heals earlier"));
        tokio::select! {
            () = tokio::time::sleep(lasts) => {}
            () = session.interrupt.requested() => {}
        }
    }
    let healing = heal(cluster, session, &chosen).await;
    hurting.and(healing)?;
    if session.interrupt.is_requested() {
        return Err(session.interrupt.error().detail("healed before the time"));
    }
    Ok(0)
}

/// Does one thing to each node, in the order they stand in.
async fn each(
    cluster: &Cluster,
    session: &Session<'_>,
    chosen: &[&Node],
    how: Disturbance,
    done: &str,
) -> Result<(), Error> {
    let runtime = cluster.runtime.as_ref();
    let _lock = session.lock(runtime, &cluster.spec.name).await?;
    for node in chosen {
        runtime
            .disturb(&cluster.desired, &node.container, how)
            .await?;
        session.ui.done(&node.name, done);
    }
    Ok(())
}

/// Ends whatever holds the nodes. Not stopped by a Ctrl-C: it is what one asks for.
async fn heal(cluster: &Cluster, session: &Session<'_>, chosen: &[&Node]) -> Result<(), Error> {
    let runtime = cluster.runtime.as_ref();
    for node in chosen {
        for how in [Disturbance::Rejoin, Disturbance::Unpause] {
            runtime
                .disturb(&cluster.desired, &node.container, how)
                .await?;
        }
    }
    let plan = plan::start(chosen, &cluster.observe().await?);
    for step in plan.stages.iter().flatten() {
        runtime.apply(&cluster.desired, &step.action).await?;
    }
    for node in chosen {
        session.ui.done(&node.name, "healed");
    }
    session.ui.note(&format!(
        "{}   waits until it is ready",
        session.again("wait")
    ));
    Ok(())
}
