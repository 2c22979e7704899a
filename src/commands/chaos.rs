//! `chaos`: nodes that die, hang or are cut off on purpose, to see what the cluster and its clients make of it.

use std::time::Duration;

use rocketmq_protocol::partition::Order;

use super::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::plan::{self, NodeState, Observed};
use crate::probe;
use crate::runtime::Disturbance;
use crate::spec::parse_duration;
use crate::topology::Node;

/// How long a node may take to say whom it is cut off from.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Kill, pause or cut off nodes on purpose, and heal them again
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl chaos kill rmqmaster1              it dies as by kill -9, and comes back by itself
  rmqctl chaos kill broker-a:0 --for 30s    it is away for 30 s; Ctrl-C brings it back earlier
  rmqctl chaos pause rmqslave1 --for 5s     it hangs with its connections open
  rmqctl chaos partition rmqslave1 rmqmaster1 --for 10s     the two do not reach each other; all others do
  rmqctl chaos partition broker-a rmqnamesrv                no node of the group reaches the name server
  rmqctl chaos partition rmqmaster1         it runs, and nobody reaches it (Docker)
  rmqctl chaos heal rmqslave1 rmqmaster1    what is between the two ends
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
    /// Cut two nodes off from each other, or take one off the network
    ///
    /// With two names, the engine itself drops the peer: connections between the two are closed and none is made, both ways,
    /// while each serves clients and all other nodes. It works on Docker and on plain processes, needs no rights on the machine,
    /// and is not kept over a restart of a node. A group's name means each of its nodes.
    ///
    /// With one name (Docker only), the node runs, but reaches nobody, and its published ports answer no more.
    Partition(Partition),
    /// End pauses and partitions, and start nodes that do not run; all nodes when none is named
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
struct Partition {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1
    #[arg(value_name = "NODE")]
    node: String,
    /// The node, or group, that it is cut off from
    #[arg(value_name = "FROM")]
    from: Option<String>,
    /// Heal after this time, or at Ctrl-C. Nodes that are cut off from each other heal by themselves, whatever becomes of rmqctl
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    lasts: Option<Duration>,
}

#[derive(Debug, clap::Args)]
struct Heal {
    /// One: all that holds it. Several: what holds each, and partitions between them. None: all
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// The same as no name
    #[arg(long, conflicts_with = "nodes")]
    all: bool,
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
        What::Partition(Partition {
            node,
            from: None,
            lasts,
        }) => {
            let done = format!("is off {}", cluster.desired.network);
            let hurt = Hurt {
                named: Named { nodes: vec![node] },
                lasts,
            };
            disturb(&cluster, session, &hurt, Disturbance::Isolate, &done).await
        }
        What::Partition(Partition {
            node,
            from: Some(from),
            lasts,
        }) => partition(&cluster, session, &node, &from, lasts).await,
        What::Unpause(named) => {
            let chosen = cluster.desired.select(&named.nodes)?;
            each(&cluster, session, &chosen, Disturbance::Unpause, "goes on").await?;
            Ok(0)
        }
        What::Heal(named) => {
            let chosen = cluster.desired.select(&named.nodes)?;
            // What is started below holds nothing yet, and cannot be asked at once.
            let before = cluster.observe().await?;
            heal(&cluster, session, &chosen).await?;
            let wide = named.nodes.len() < 2;
            reconnect(&cluster, session, &chosen, wide, &before).await?;
            said_healed(session, &chosen);
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
        for_a_time(session, lasts).await;
    }
    let healing = heal(cluster, session, &chosen).await;
    if healing.is_ok() {
        said_healed(session, &chosen);
    }
    hurting.and(healing)?;
    unless_interrupted(session)
}

/// Waits so long, or until Ctrl-C or SIGTERM.
async fn for_a_time(session: &Session<'_>, lasts: Duration) {
    session
        .ui
        .note(&format!("for {lasts:?}; Ctrl-C heals earlier"));
    tokio::select! {
        () = tokio::time::sleep(lasts) => {}
        () = session.interrupt.requested() => {}
    }
}

fn unless_interrupted(session: &Session<'_>) -> Result<u8, Error> {
    if session.interrupt.is_requested() {
        return Err(session.interrupt.error().detail("healed before the time"));
    }
    Ok(0)
}

/// Cuts each node that one name means off from each that the other means.
async fn partition(
    cluster: &Cluster,
    session: &Session<'_>,
    one: &str,
    other: &str,
    lasts: Option<Duration>,
) -> Result<u8, Error> {
    let select = |name: &str| cluster.desired.select(&[name.to_owned()]);
    let (near, far) = (select(one)?, select(other)?);
    if let Some(both) = near.iter().find(|node| far.contains(node)) {
        let title = format!("{} is on both sides", both.name);
        return Err(
            Error::new("RMQ-E086", Exit::Usage, title).hint(session.again(&format!(
                "chaos partition {}   takes it off the network",
                both.name
            ))),
        );
    }
    let pairs: Vec<(&Node, &Node)> = near
        .iter()
        .flat_map(|a| far.iter().map(|b| (*a, *b)))
        .collect();
    let cutting = cut(cluster, session, &pairs, lasts).await;
    let Some(lasts) = lasts.filter(|_| cutting.is_ok()) else {
        if cutting.is_err() {
            // Half a cut is none that was asked for.
            if let Err(error) = mend(cluster, &pairs).await {
                session.ui.warn(&error.title);
            }
        } else {
            let heal = format!("chaos heal {one} {other}   ends it; so does a restart of both");
            session.ui.note(&session.again(&heal));
        }
        return cutting.map(|()| 0);
    };
    for_a_time(session, lasts).await;
    mend(cluster, &pairs).await?;
    for (a, b) in &pairs {
        session
            .ui
            .done(&a.name, &format!("reaches {} again", b.name));
    }
    unless_interrupted(session)
}

async fn cut(
    cluster: &Cluster,
    session: &Session<'_>,
    pairs: &[(&Node, &Node)],
    lasts: Option<Duration>,
) -> Result<(), Error> {
    let (runtime, desired) = (cluster.runtime.as_ref(), &cluster.desired);
    let _lock = session.lock(runtime, &cluster.spec.name).await?;
    let away_from = |peer: &Node| Order::Cut {
        peer: peer.name.clone(),
        addresses: desired.inside_addresses(peer),
        lasts_ms: lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)),
    };
    for (a, b) in pairs {
        runtime.order(desired, a, &away_from(b)).await?;
        runtime.order(desired, b, &away_from(a)).await?;
        session
            .ui
            .done(&a.name, &format!("and {} do not reach each other", b.name));
    }
    Ok(())
}

/// Tells both ends of each pair, and all of them whatever one answers; the first fault is the result. A node that does not run
/// holds nothing.
async fn mend(cluster: &Cluster, pairs: &[(&Node, &Node)]) -> Result<(), Error> {
    let (runtime, desired) = (cluster.runtime.as_ref(), &cluster.desired);
    let observed = cluster.observe().await?;
    let runs = |node: &Node| {
        let seen = observed.nodes.iter();
        let mut seen = seen.filter(|n| n.container == node.container);
        seen.any(|n| n.state == NodeState::Running)
    };
    let mut result = Ok(());
    for (node, peer) in pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
        if !runs(node) {
            continue;
        }
        let order = Order::Heal {
            peer: Some(peer.name.clone()),
        };
        let told = runtime.order(desired, node, &order).await;
        result = result.and(told.map_err(Error::from));
    }
    result
}

/// Ends the partitions of the chosen nodes: with `wide` all of each, else those between them.
async fn reconnect(
    cluster: &Cluster,
    session: &Session<'_>,
    chosen: &[&Node],
    wide: bool,
    before: &Observed,
) -> Result<(), Error> {
    let desired = &cluster.desired;
    let view = probe::look(desired, ANSWER_TIMEOUT).await;
    let is_chosen = |name: &str| chosen.iter().any(|node| node.name == name);
    let mut pairs: Vec<(&Node, &Node)> = Vec::new();
    for node in &desired.nodes {
        for peer in view.cut_off_from(&node.name) {
            let meant = match wide {
                true => is_chosen(&node.name) || is_chosen(peer),
                false => is_chosen(&node.name) && is_chosen(peer),
            };
            let peer = desired.nodes.iter().find(|n| n.name == peer);
            if let Some(peer) = peer.filter(|_| meant)
                && !pairs.contains(&(peer, node))
            {
                pairs.push((node, peer));
            }
        }
        let ran = before.nodes.iter().find(|n| n.container == node.container);
        let ran = ran.is_some_and(|n| n.state == NodeState::Running);
        let answers = view.nodes.get(&node.name).is_some_and(|seen| seen.answers);
        if is_chosen(&node.name) && ran && !answers {
            session.ui.warn(&format!(
                "{} does not answer: it cannot be asked whom it is cut off from",
                node.name
            ));
        }
    }
    mend(cluster, &pairs).await
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
    // One that another rmqctl is restarting right now is that one's: started in between, it would run with its old file.
    let _lock = session
        .unhurried()
        .lock(runtime, &cluster.spec.name)
        .await?;
    let plan = plan::start(chosen, &cluster.observe().await?);
    for step in plan.stages.iter().flatten() {
        runtime.apply(&cluster.desired, &step.action).await?;
    }
    Ok(())
}

fn said_healed(session: &Session<'_>, chosen: &[&Node]) {
    for node in chosen {
        session.ui.done(&node.name, "healed");
    }
    session.ui.note(&format!(
        "{}   waits until it is ready",
        session.again("wait")
    ));
}
