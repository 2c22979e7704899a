//! `start`, `stop`, `restart`: nodes that exist, all or by name.

use std::time::{Duration, Instant, SystemTime};

use super::up::check_files;
use super::{Cluster, Session, Timeout, ephemeral};
use crate::error::Error;
use crate::plan::{self, NodeState};
use crate::properties;
use crate::ready::{self, Wait};
use crate::topology::{Node, Role};

/// Start nodes that were stopped, and wait until they are ready
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl start                 all that does not run
  rmqctl start rmqslave1 --no-wait")]
pub struct Start {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    #[command(flatten)]
    timeout: Timeout,
    /// Return as soon as they are started
    #[arg(long)]
    no_wait: bool,
}

/// Stop nodes: the console first, then masters, slaves, name servers; they stay stopped until `start`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl stop                  the whole cluster
  rmqctl stop broker-b         a master and its slaves")]
pub struct Stop {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    #[command(flatten)]
    timeout: Timeout,
}

/// Restart nodes one after another: slaves, then masters, each in sync before the next stops; edited files take effect
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl restart               rolling: no message is lost, no send fails for good
  rmqctl restart rmqmaster1    takes its edited properties file into use
  rmqctl restart --all-at-once --timeout 2m")]
pub struct Restart {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// All at once: faster, and the cluster is away meanwhile
    #[arg(long)]
    all_at_once: bool,
    #[command(flatten)]
    timeout: Timeout,
}

/// `start`
pub async fn start(args: Start, session: &Session<'_>) -> Result<u8, Error> {
    let (began, since) = (Instant::now(), SystemTime::now());
    let cluster = session.cluster().await?;
    ephemeral::refuse_stop(&cluster.desired)?;
    let chosen = cluster.desired.select(&args.nodes)?;
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let observed = cluster.observe().await?;
    let rests = |node: &&&Node| {
        let mut seen = observed.nodes.iter();
        seen.any(|n| n.container == node.container && matches!(n.state, NodeState::Exited(_)))
    };
    let resting = chosen.iter().filter(rests).copied();
    plan::refuse_memory_loss(&cluster.desired, resting, &observed)?;
    let plan = plan::start(&chosen, &observed);
    let timeout = args.timeout.of(&cluster.spec);
    let outcome = session
        .walk(&plan, cluster.runtime.as_ref(), &cluster.desired, timeout)
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("stop   stops what was started"),
    )?;
    let started = plan.named(plan::Kind::Start);
    if !args.no_wait && !started.is_empty() {
        await_nodes(session, &cluster, &started, timeout, since).await?;
    }
    session.ui.clear();
    let text = match started.len() {
        0 => "all that was named runs; nothing to do".to_owned(),
        count => format!("{count} started in {:.1}s", began.elapsed().as_secs_f64()),
    };
    session
        .ui
        .note(&format!("Cluster {}: {text}.", cluster.spec.name));
    Ok(0)
}

/// `stop`
pub async fn stop(args: Stop, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let chosen = cluster.desired.select(&args.nodes)?;
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let observed = cluster.observe().await?;
    plan::refuse_memory_loss(&cluster.desired, chosen.iter().copied(), &observed)?;
    let plan = plan::stop(&chosen, &observed);
    let outcome = session
        .walk(
            &plan,
            cluster.runtime.as_ref(),
            &cluster.desired,
            args.timeout.of(&cluster.spec),
        )
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("start   starts what was stopped"),
    )?;
    session.ui.clear();
    let text = match plan.named(plan::Kind::Stop).len() {
        0 => "nothing that was named runs; nothing to do.".to_owned(),
        count => format!(
            "{count} stopped.   {} brings them back.",
            session.again("start")
        ),
    };
    session
        .ui
        .note(&format!("Cluster {}: {text}", cluster.spec.name));
    Ok(0)
}

/// `restart`
pub async fn restart(args: Restart, session: &Session<'_>) -> Result<u8, Error> {
    let (began, since) = (Instant::now(), SystemTime::now());
    let mut cluster = session.cluster().await?;
    ephemeral::refuse_stop(&cluster.desired)?;
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let generated = cluster.desired.clone();
    let edits = properties::reconcile(
        &mut cluster.desired,
        Some(&generated),
        cluster.spec.ephemeral.is_some(),
    )?;
    check_files(&cluster.desired, &edits)?;
    let chosen = cluster.desired.select(&args.nodes)?;
    let observed = cluster.observe().await?;
    plan::refuse_memory_loss(&cluster.desired, chosen.iter().copied(), &observed)?;
    let plan = plan::restart(&cluster.desired, &chosen, &observed, args.all_at_once);
    let timeout = args.timeout.of(&cluster.spec);
    let outcome = session
        .walk(&plan, cluster.runtime.as_ref(), &cluster.desired, timeout)
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("status   shows what runs"),
    )?;
    let restarted = plan.named(plan::Kind::Restart);
    if args.all_at_once {
        await_nodes(session, &cluster, &restarted, timeout, since).await?;
    }
    session.ui.clear();
    for edit in edits
        .iter()
        .filter(|edit| restarted.contains(&edit.node.as_str()))
    {
        session.ui.note(&format!(
            "your edit of {} ({}) is used",
            edit.file,
            edit.changes.join(", ")
        ));
    }
    let seconds = began.elapsed().as_secs_f64();
    session.ui.note(&format!(
        "Cluster {}: {} restarted in {seconds:.1}s.",
        cluster.spec.name,
        restarted.len()
    ));
    Ok(0)
}

/// Waits until the nodes are ready; where a master does not run, its slaves have nothing to catch up with.
pub(super) async fn await_nodes(
    session: &Session<'_>,
    cluster: &Cluster,
    names: &[&str],
    timeout: Duration,
    since: SystemTime,
) -> Result<(), Error> {
    let observed = cluster.observe().await?;
    let runs = |node: &Node| {
        observed
            .nodes
            .iter()
            .any(|n| n.container == node.container && n.state == plan::NodeState::Running)
    };
    let synced = cluster
        .desired
        .nodes
        .iter()
        .filter(|n| n.role == Role::Master)
        .all(runs);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let wait = Wait {
        runtime: cluster.runtime.as_ref(),
        desired: &cluster.desired,
        names: &names,
        synced,
        timeout,
        since,
        interrupt: &session.interrupt,
        on_ready: &|name, how, after| {
            session
                .ui
                .done(name, &format!("{how}  {:.1}s", after.as_secs_f64()))
        },
    };
    ready::wait(&wait).await.map(|_| ())
}
