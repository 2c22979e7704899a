//! The plan of `up`: what is missing is made, what changed is replaced one node after another, the rest is left alone.

use std::collections::BTreeMap;

use super::adopt;
use super::{
    Action, Kind, NodeState, Observed, ObservedNode, Plan, Recreate, Step, UpOptions, begin,
    configure, rank, rolling_rank, state_text, step, stores,
};
use crate::error::{Error, Exit};
use crate::properties;
use crate::topology::{Desired, Node, Role, volume_words};

/// Ports and names that someone else holds, as an error; nothing was changed by it.
fn refuse_conflicts(desired: &Desired, observed: &Observed) -> Result<(), Error> {
    // A name that a container made by hand has explains its ports too.
    let by_hand = observed
        .conflicts
        .iter()
        .find(|c| c.adoptable && c.what.contains("name"));
    let Some(first) = by_hand.or(observed.conflicts.first()) else {
        return Ok(());
    };
    refuse_half_adoption(desired, observed)?;
    let port = first.what.contains("port");
    let mut error = if port {
        Error::new(
            "RMQ-E021",
            Exit::Conflict,
            format!("{} is taken", first.what),
        )
    } else {
        Error::new(
            "RMQ-E014",
            Exit::Conflict,
            format!("{} is in use, and rmqctl did not create it", first.what),
        )
    };
    for conflict in &observed.conflicts {
        error = error.detail(format!(
            "node {} needs {}; held by {}",
            conflict.node, conflict.what, conflict.holder
        ));
    }
    error = error.detail("nothing was changed");
    let by_hand: Vec<&str> = observed
        .conflicts
        .iter()
        .filter(|c| c.adoptable)
        .filter_map(|c| c.container.as_deref())
        .collect();
    error = match by_hand.as_slice() {
        [] => error,
        [one] => error.hint(desired.suggest(&format!("adopt {one}   takes it over, messages too"))),
        _ => error.hint(desired.suggest("adopt --all   takes them over, messages too")),
    };
    if observed.conflicts.iter().any(|c| c.what.contains("port")) {
        error = error
            .hint("stop what holds it")
            .hint(desired.suggest("up --port-offset 100"));
    }
    if !observed.conflicts.iter().all(|c| c.what.contains("port")) {
        error = error
            .hint("remove or rename it")
            .hint("use another cluster name: rmqctl --name dev up --port-offset 100");
    }
    Err(error)
}

/// A node whose messages are still in a container that was set aside would start empty.
fn refuse_half_adoption(desired: &Desired, observed: &Observed) -> Result<(), Error> {
    let half: Vec<(&str, &str)> = observed
        .conflicts
        .iter()
        .filter_map(|c| {
            let container = c.container.as_deref()?;
            adopt::of_aside(container)?;
            Some((c.node.as_str(), container))
        })
        .collect();
    let Some((node, _)) = half.first() else {
        return Ok(());
    };
    let lines = half
        .iter()
        .map(|(node, container)| format!("{node}: its messages are in {container}"));
    Err(Error::new(
        "RMQ-E023",
        Exit::Conflict,
        format!("the adoption of {node} has not ended"),
    )
    .lines(lines.collect::<Vec<_>>())
    .detail("nothing was changed")
    .hint(desired.suggest("adopt --all   goes on"))
    .hint(desired.suggest("adopt --all --undo   puts the old containers back")))
}

/// A subnet is fixed when its network is made, and all nodes are in that.
fn refuse_other_subnet(desired: &Desired, observed: &Observed) -> Result<(), Error> {
    match (&desired.subnet, &observed.subnet) {
        (Some(wanted), Some(there)) if wanted != there => Err(Error::new(
            "RMQ-E015",
            Exit::Conflict,
            format!(
                "{} has the subnet {there}; it cannot become {wanted}",
                desired.ground()
            ),
        )
        .detail("nothing was changed")
        .hint(desired.suggest("down, then this again   makes it anew; messages stay"))),
        _ => Ok(()),
    }
}

/// What `up` does. `previous` is the state that the running nodes were made from, if it is known: it only words the causes.
pub fn up(
    desired: &Desired,
    previous: Option<&Desired>,
    observed: &Observed,
    options: UpOptions,
) -> Result<Plan, Error> {
    refuse_conflicts(desired, observed)?;
    refuse_other_subnet(desired, observed)?;
    stores::refuse_other_place(desired, previous, observed)?;
    let mut plan = Plan::default();
    let found: BTreeMap<&str, &ObservedNode> = observed
        .nodes
        .iter()
        .map(|n| (n.container.as_str(), n))
        .collect();
    let network = desired.ground();
    let mut base = Vec::new();
    if observed.network.is_none() {
        plan.note(
            network,
            Kind::Create,
            desired.subnet.clone().unwrap_or_default(),
        );
        base.push(step(Action::CreateNetwork, "it does not exist"));
    } else {
        plan.note(network, Kind::Unchanged, "");
    }

    let mut create: Vec<&Node> = Vec::new();
    let mut start: Vec<(&Node, &ObservedNode, String)> = Vec::new();
    let mut replace: Vec<Replacement<'_>> = Vec::new();
    for node in &desired.nodes {
        let Some(seen) = found.get(node.container.as_str()) else {
            plan.note(&node.name, Kind::Create, describe(node, observed));
            create.push(node);
            continue;
        };
        let moves_from = moves_from(node, seen, desired, observed)?;
        let cause = match (stale(node, seen, previous, observed), options.recreate) {
            (Some(cause), _) => Some(cause),
            (None, Recreate::Always) => Some("--recreate always".to_owned()),
            (None, _) => None,
        };
        if let (Some(cause), false) = (&cause, options.recreate == Recreate::Never) {
            let cause = match &moves_from {
                Some(old) => format!(
                    "goes from {old} to {}: its copy of {old} is dropped, it copies anew",
                    node.broker_text()
                ),
                None => cause.clone(),
            };
            plan.note(&node.name, Kind::Recreate, &cause);
            replace.push(Replacement {
                node,
                cause,
                moves: moves_from.is_some(),
            });
        } else if matches!(seen.state, NodeState::Running | NodeState::Restarting) {
            let left = cause.map(|cause| format!("left as it is (--recreate never): {cause}"));
            plan.note(&node.name, Kind::Unchanged, left.unwrap_or_default());
        } else {
            let cause = state_text(&seen.state);
            plan.note(&node.name, Kind::Start, &cause);
            start.push((node, seen, cause));
        }
    }
    let to_run: Vec<&Node> = create
        .iter()
        .copied()
        .chain(start.iter().map(|(node, ..)| *node))
        .chain(replace.iter().map(|r| r.node))
        .collect();
    stores::refuse_faults(observed, &to_run)?;
    stores::refuse_memory_loss(desired, to_run, observed)?;
    let wanted: Vec<&str> = desired.nodes.iter().map(|n| n.container.as_str()).collect();
    let orphans: Vec<&ObservedNode> = observed
        .nodes
        .iter()
        .filter(|n| !wanted.contains(&n.container.as_str()))
        .collect();
    for orphan in &orphans {
        let kind = if options.remove_orphans {
            Kind::Remove
        } else {
            Kind::Orphan
        };
        plan.note(
            &orphan.name,
            kind,
            "the spec does not name it; its volume stays",
        );
    }

    let new: Vec<&Node> = create
        .iter()
        .copied()
        .chain(replace.iter().map(|r| r.node))
        .collect();
    if observed.image.is_none() && new.iter().any(|node| node.image.is_none()) {
        base.push(step(Action::EnsureImage, "nodes are to be created"));
    }
    for volume in new
        .iter()
        .filter_map(|node| node.volume.as_ref())
        .filter(|v| !observed.volumes.contains(v))
    {
        base.push(step(
            Action::CreateVolume(volume.clone()),
            "it does not exist",
        ));
    }
    plan.stage(base);
    if observed.spec.as_deref() != Some(&desired.spec) {
        plan.stage([step(Action::StoreSpec, "the spec changed")]);
    }
    if options.remove_orphans {
        plan.stage(orphans.iter().map(|o| {
            step(
                Action::StopNode(o.container.clone()),
                "the spec does not name it",
            )
        }));
    }

    replace.sort_by_key(|r| rolling_rank(r.node.role, options.order));
    let seen = |r: &Replacement<'_>| found[r.node.container.as_str()];
    let rests = |r: &Replacement<'_>| matches!(seen(r).state, NodeState::Exited(_));
    let rolling = !replace.iter().any(|r| !rests(r) && r.gets_ports(seen(r)));
    // What rests needs no turn of its own, and others wait for it: a slave that is replaced waits for its master.
    let (at_once, replace): (Vec<_>, Vec<_>) =
        replace.into_iter().partition(|r| !rolling || rests(r));
    if !at_once.is_empty() {
        for each in [Replacement::stop, Replacement::remove] {
            plan.stage(at_once.iter().map(each));
        }
        for each in [Replacement::drop_copy, Replacement::make_room] {
            plan.stage(at_once.iter().filter_map(each));
        }
        create.extend(at_once.iter().map(|r| r.node));
    }
    // In one stage, in start order: a broker asks for its name server, and a slave for its master, until they are there, so
    // that nothing is gained by waiting for a whole rank to start. On two cores six containers start in 2.2 s so, and in 3.4 s
    // rank by rank.
    let mut chains: Vec<(&Node, Vec<Step>)> = Vec::new();
    for node in create {
        let made = step(
            Action::CreateNode(Box::new(node.clone())),
            "it does not exist",
        );
        chains.push((node, vec![made, begin(node, "created")]));
    }
    for (node, seen, cause) in start {
        let mut chain = Vec::new();
        if seen.state == NodeState::Exited(None) {
            // Whoever made it may have been killed before the file was in it.
            chain.extend(configure(node, "it never ran"));
        }
        chain.push(begin(node, &cause));
        chains.push((node, chain));
    }
    chains.sort_by_key(|(node, _)| rank(node.role));
    plan.stage(chains.into_iter().flat_map(|(_, chain)| chain));
    for replaced in &replace {
        let Replacement { node, cause, .. } = replaced;
        plan.stage([replaced.stop()]);
        plan.stage([replaced.remove()]);
        plan.stage(replaced.drop_copy());
        plan.stage(replaced.make_room());
        plan.stage([step(Action::CreateNode(Box::new((*node).clone())), cause)]);
        plan.stage([begin(node, "created")]);
        plan.stage(await_group(node, desired, observed));
    }
    if options.remove_orphans {
        // Last: a slave that leaves a master's group for another's drops its copy only while that master is still there.
        plan.stage(orphans.iter().map(|o| {
            step(
                Action::RemoveNode(o.container.clone()),
                "the spec does not name it",
            )
        }));
    }
    reopen(&mut plan, desired, observed);
    Ok(plan)
}

/// A node that is made anew.
struct Replacement<'a> {
    node: &'a Node,
    cause: String,
    /// It becomes another master's slave: what it has is a copy of the wrong log.
    moves: bool,
}

impl Replacement<'_> {
    /// Whether it is to get ports that it has not. Then the nodes cannot take turns: those that wait look for the others where
    /// they will be, and the port that one needs may be another's still.
    fn gets_ports(&self, seen: &ObservedNode) -> bool {
        let mut wanted = self.node.ports.iter().filter_map(|p| p.host);
        !seen.ports.is_empty() && wanted.any(|port| !seen.ports.contains(&port))
    }

    fn stop(&self) -> Step {
        step(Action::StopNode(self.node.container.clone()), &self.cause)
    }

    fn remove(&self) -> Step {
        step(Action::RemoveNode(self.node.container.clone()), &self.cause)
    }

    fn drop_copy(&self) -> Option<Step> {
        let volume = self.node.volume.as_ref().filter(|_| self.moves)?;
        Some(step(Action::RemoveVolume(volume.clone()), &self.cause))
    }

    fn make_room(&self) -> Option<Step> {
        let volume = self.node.volume.as_ref().filter(|_| self.moves)?;
        Some(step(Action::CreateVolume(volume.clone()), &self.cause))
    }
}

/// The place that a slave leaves for another master's. Its copy may go only where the log that it copied is.
fn moves_from(
    node: &Node,
    seen: &ObservedNode,
    desired: &Desired,
    observed: &Observed,
) -> Result<Option<String>, Error> {
    let (Some(broker), Some(was)) = (&node.broker, &seen.broker) else {
        return Ok(None);
    };
    let group = was
        .rsplit_once(':')
        .map_or(was.as_str(), |(group, _)| group);
    if node.role != Role::Slave || group == broker.name {
        return Ok(None);
    }
    let master = format!("{group}:0");
    let stands = observed
        .nodes
        .iter()
        .any(|n| n.broker.as_ref() == Some(&master));
    // Lost, but made anew from its volume.
    let returns = desired.nodes.iter().any(|n| {
        n.broker_text() == master
            && n.volume
                .as_ref()
                .is_some_and(|volume| observed.volumes.contains(volume))
    });
    if stands || returns {
        return Ok(Some(was.clone()));
    }
    Err(Error::new(
        "RMQ-E016",
        Exit::Conflict,
        format!(
            "{} would be {}, and is {was}, whose master is gone",
            node.name,
            node.broker_text()
        ),
    )
    .detail("what it holds may be the only copy of that log; nothing was changed")
    .hint(format!(
        "bring {master} back: the counts of masters and slaves as they were"
    ))
    .hint(format!(
        "give the copy up: remove {} and its volume",
        node.container
    )))
}

/// Brokers that a `scale` which did not end left closed for sends.
fn reopen(plan: &mut Plan, desired: &Desired, observed: &Observed) {
    let closed: Vec<&Node> = desired
        .nodes
        .iter()
        .filter(|n| n.role == Role::Master)
        .filter(|n| {
            n.broker
                .as_ref()
                .is_some_and(|b| observed.closed.contains(&b.name))
        })
        .collect();
    let cause =
        "name servers tell clients not to send to it (a scale that did not end, or wipeWritePerm)";
    for master in &closed {
        plan.changes
            .retain(|c| c.what != master.name || c.kind != Kind::Unchanged);
        plan.note(&master.name, Kind::Open, cause);
    }
    let brokers: Vec<String> = closed
        .iter()
        .filter_map(|n| Some(n.broker.as_ref()?.name.clone()))
        .collect();
    if !brokers.is_empty() {
        plan.stage([step(Action::Reopen(brokers), cause)]);
    }
}

/// Waits for a node that was started again and, behind a master, for the slaves that run: its stop broke their streams, and the
/// next node must not stop before they follow again.
pub(super) fn await_group<'a>(
    node: &'a Node,
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = Step> + 'a {
    let broker = (node.role == Role::Master)
        .then_some(node.broker.as_ref())
        .flatten();
    let runs = |slave: &Node| {
        let seen = observed
            .nodes
            .iter()
            .find(|n| n.container == slave.container);
        seen.is_some_and(|n| n.state == NodeState::Running)
    };
    let follows = move |slave: &&Node| {
        slave.role == Role::Slave
            && broker
                .is_some_and(|broker| slave.broker.as_ref().is_some_and(|b| b.name == broker.name))
            && runs(slave)
    };
    let wait = |node: &Node, cause| step(Action::AwaitNode(node.container.clone()), cause);
    std::iter::once(wait(node, "the next one stops when this one is ready")).chain(
        desired
            .nodes
            .iter()
            .filter(follows)
            .map(move |slave| wait(slave, "it follows its master again")),
    )
}

fn describe(node: &Node, observed: &Observed) -> String {
    let ports: Vec<String> = node
        .ports
        .iter()
        .filter_map(|p| {
            p.host.map(|host| {
                if host == p.container {
                    host.to_string()
                } else {
                    format!("{host}→{}", p.container)
                }
            })
        })
        .collect();
    let mut text = match &node.broker {
        Some(_) => format!("{}  {}", node.broker_text(), ports.join("/")),
        None => ports.join("/"),
    };
    if let Some(volume) = &node.volume {
        let kept = if observed.volumes.contains(volume) {
            " (kept)"
        } else {
            ""
        };
        text += &format!("   {}{kept}", volume_words(volume));
    }
    if let Some(bytes) = node.tmpfs {
        text += &format!("   memory, {} MiB at most", bytes >> 20);
    }
    text
}

/// Why a node must be made anew, if it must.
fn stale(
    node: &Node,
    seen: &ObservedNode,
    previous: Option<&Desired>,
    observed: &Observed,
) -> Option<String> {
    if seen.config_hash != node.config_hash {
        let short = |hash: &str| hash.chars().take(4).collect::<String>();
        let hashes = format!(
            "(config hash {}… → {}…)",
            short(&seen.config_hash),
            short(&node.config_hash)
        );
        let old = previous.and_then(|p| p.nodes.iter().find(|n| n.name == node.name));
        let causes = old
            .filter(|old| old.config_hash == seen.config_hash)
            .map(|old| causes(old, node))
            .unwrap_or_default();
        return Some(if causes.is_empty() {
            format!("settings changed   {hashes}")
        } else {
            format!("{causes}   {hashes}")
        });
    }
    if seen.cut_off {
        return Some("its network was removed".to_owned());
    }
    if seen.state == NodeState::Other("dead".to_owned()) {
        return Some("its container is dead: a removal failed half-way".to_owned());
    }
    let named = node.image.as_ref().or(node.engine_image.as_ref());
    let wanted = match named {
        Some(image) => &Some(image.clone()),
        None => &observed.image,
    };
    match (&seen.image, wanted) {
        (Some(has), Some(wanted)) if has != wanted => Some(format!("engine {has} → {wanted}")),
        (Some(has), None) => Some(format!("engine {has} → this rmqctl's")),
        _ => None,
    }
}

fn causes(old: &Node, new: &Node) -> String {
    let text = |node: &Node| {
        node.file
            .as_ref()
            .map(|(_, text)| text.clone())
            .unwrap_or_default()
    };
    let mut said = properties::differences(&text(old), &text(new));
    if old.image != new.image {
        let engine = |node: &Node| node.image.clone().unwrap_or("bundled".to_owned());
        said.insert(0, format!("engine {} → {}", engine(old), engine(new)));
    }
    if old.engine_image != new.engine_image {
        let image = |node: &Node| node.engine_image.clone().unwrap_or("of rmqctl".to_owned());
        said.insert(0, format!("engine image {} → {}", image(old), image(new)));
    }
    if old.memory != new.memory {
        let limit = |m: Option<u64>| {
            m.map_or("no limit".to_owned(), |bytes| {
                format!("{} MiB", bytes >> 20)
            })
        };
        said.push(format!(
            "memory {} → {}",
            limit(old.memory),
            limit(new.memory)
        ));
    }
    if (&old.volume, old.tmpfs) != (&new.volume, new.tmpfs) {
        said.push("the store's place".to_owned());
    }
    if old.nano_cpus != new.nano_cpus {
        let limit = |c: Option<i64>| {
            c.map_or("no limit".to_owned(), |nano| {
                format!("{}", nano as f64 / 1e9)
            })
        };
        said.push(format!(
            "cpus {} → {}",
            limit(old.nano_cpus),
            limit(new.nano_cpus)
        ));
    }
    let (mut old_env, mut new_env) = (old.env.clone(), new.env.clone());
    let zone = |env: &mut BTreeMap<String, String>| env.remove("TZ").unwrap_or("UTC".to_owned());
    let zones = (zone(&mut old_env), zone(&mut new_env));
    if zones.0 != zones.1 {
        said.push(format!("time zone {} → {}", zones.0, zones.1));
    }
    if old_env != new_env {
        said.push("environment".to_owned());
    }
    if said.is_empty() && old.ports != new.ports {
        said.push("ports".to_owned());
    }
    if said.is_empty() && old.command != new.command {
        said.push("arguments".to_owned());
    }
    said.join(", ")
}
