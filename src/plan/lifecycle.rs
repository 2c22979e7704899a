//! The plans of `start`, `stop`, `restart` and `down`: nodes that stand already, in the order that loses nothing.

use super::{
    Action, Kind, NodeState, Observed, Order, Plan, begin, configure, rank, rolling_rank,
    state_text, step, up::await_group,
};
use crate::topology::{Desired, Node, Role, volume_words};

/// What `start` does: named nodes that do not run, in start order.
pub fn start(chosen: &[&Node], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let mut chosen: Vec<&Node> = chosen.to_vec();
    chosen.sort_by_key(|node| rank(node.role));
    let mut steps = Vec::new();
    for node in chosen {
        let Some(seen) = observed
            .nodes
            .iter()
            .find(|n| n.container == node.container)
        else {
            continue;
        };
        if matches!(seen.state, NodeState::Running | NodeState::Restarting) {
            plan.note(&node.name, Kind::Unchanged, "it runs");
        } else {
            plan.note(&node.name, Kind::Start, state_text(&seen.state));
            if seen.state == NodeState::Exited(None) {
                steps.extend(configure(node, "it never ran"));
            }
            steps.push(begin(node, "asked for"));
        }
    }
    plan.stage(steps);
    plan
}

/// What `stop` does: named nodes that run, console first, name servers last.
pub fn stop(chosen: &[&Node], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    stop_stages(
        &mut plan,
        chosen
            .iter()
            .map(|n| (n.container.as_str(), n.name.as_str(), n.role)),
        observed,
    );
    plan
}

fn stop_stages<'a>(
    plan: &mut Plan,
    nodes: impl Iterator<Item = (&'a str, &'a str, Role)> + Clone,
    observed: &Observed,
) {
    for rank_now in (0..=rank(Role::Console)).rev() {
        let mut steps = Vec::new();
        for (container, name, _) in nodes
            .clone()
            .filter(|(_, _, role)| stop_rank(*role) == rank_now)
        {
            let Some(seen) = observed.nodes.iter().find(|n| n.container == container) else {
                continue;
            };
            if matches!(seen.state, NodeState::Exited(_)) {
                plan.note(name, Kind::Unchanged, state_text(&seen.state));
            } else {
                plan.note(name, Kind::Stop, "");
                steps.push(step(Action::StopNode(container.to_owned()), "asked for"));
            }
        }
        plan.stage(steps);
    }
}

/// Masters stop before their slaves, so that a slave has got the last bytes; the highest stops first.
fn stop_rank(role: Role) -> u8 {
    match role {
        Role::Master => rank(Role::Slave),
        Role::Slave => rank(Role::Master),
        role => rank(role),
    }
}

/// What `restart` does: one after another, each ready before the next stops, each with the file as the user left it.
pub fn restart(
    desired: &Desired,
    chosen: &[&Node],
    observed: &Observed,
    all_at_once: bool,
) -> Plan {
    let mut plan = Plan::default();
    let mut nodes: Vec<&Node> = chosen
        .iter()
        .copied()
        .filter(|node| observed.nodes.iter().any(|n| n.container == node.container))
        .collect();
    nodes.sort_by_key(|node| rolling_rank(node.role, Order::default()));
    let rests = |node: &Node| {
        let mut seen = observed.nodes.iter();
        seen.any(|n| n.container == node.container && matches!(n.state, NodeState::Exited(_)))
    };
    for node in &nodes {
        plan.note(
            &node.name,
            Kind::Restart,
            node.broker
                .as_ref()
                .map_or(String::new(), |_| node.broker_text()),
        );
    }
    let stop = |node: &Node| step(Action::StopNode(node.container.clone()), "restart");
    if all_at_once {
        plan.stage(nodes.iter().map(|n| stop(n)));
        plan.stage(nodes.iter().filter_map(|n| configure(n, "restart")));
        plan.stage(nodes.iter().map(|n| begin(n, "restart")));
        return plan;
    }
    // One that does not run, as an interrupted restart leaves it, has nothing to lose and others wait for it: a slave that is
    // restarted waits for its master.
    let (mut resting, running): (Vec<&Node>, Vec<&Node>) =
        nodes.into_iter().partition(|node| rests(node));
    resting.sort_by_key(|node| rank(node.role));
    let starts = |node: &&Node| {
        let start = begin(node, "it does not run");
        configure(node, "restart").into_iter().chain([start])
    };
    plan.stage(resting.iter().flat_map(starts));
    let has_nobody_to_follow = |node: &Node| {
        let group = |n: &Node| n.broker.as_ref().map(|b| b.name.clone());
        let mut masters = desired.nodes.iter().filter(|n| n.role == Role::Master);
        node.role == Role::Slave
            && masters.any(|master| {
                group(master) == group(node)
                    && !runs(master, observed)
                    && !resting.iter().any(|n| n.name == master.name)
            })
    };
    let ready = |node: &Node| {
        step(
            Action::AwaitNode(node.container.clone()),
            "the next one stops when this one is ready",
        )
    };
    let awaited = resting.iter().filter(|node| !has_nobody_to_follow(node));
    plan.stage(awaited.map(|node| ready(node)));
    for node in running {
        plan.stage([stop(node)]);
        plan.stage(configure(node, "restart"));
        plan.stage([begin(node, "restart")]);
        if !has_nobody_to_follow(node) {
            plan.stage(await_group(node, desired, observed));
        }
    }
    plan
}

fn runs(node: &Node, observed: &Observed) -> bool {
    let mut seen = observed.nodes.iter();
    seen.any(|n| {
        n.container == node.container
            && matches!(n.state, NodeState::Running | NodeState::Restarting)
    })
}

/// What `down` does: everything of the cluster that was found, and the volumes if asked.
pub fn down(desired: &Desired, observed: &Observed, volumes: bool) -> Plan {
    let mut plan = Plan::default();
    let role = |container: &str| {
        let known = desired
            .nodes
            .iter()
            .find(|n| n.container == container)
            .map(|n| n.role);
        // One that the spec no longer names is a broker or a console; it stops with the consoles.
        known.unwrap_or(Role::Console)
    };
    let nodes = observed
        .nodes
        .iter()
        .map(|n| (n.container.as_str(), n.name.as_str(), role(&n.container)));
    if desired.ephemeral.is_none() {
        stop_stages(&mut plan, nodes, observed);
    }
    plan.changes.clear();
    plan.stage(
        observed
            .nodes
            .iter()
            .map(|n| step(Action::RemoveNode(n.container.clone()), "down")),
    );
    for node in &observed.nodes {
        plan.note(&node.name, Kind::Remove, "");
    }
    let mut stores = Vec::new();
    if observed.network.is_some() {
        plan.note(desired.ground(), Kind::Remove, "");
    }
    for volume in &observed.volumes {
        let found = observed.found_stores.contains(volume);
        let (kind, fate) = match (volumes, found) {
            (true, false) => (Kind::Remove, "with its messages"),
            (true, true) => (
                Kind::Unchanged,
                "it stays: the store was there before rmqctl",
            ),
            (false, _) => (Kind::Unchanged, "its messages stay"),
        };
        plan.note(volume_words(volume), kind, fate);
        if kind == Kind::Remove {
            stores.push(step(Action::RemoveVolume(volume.clone()), "down --volumes"));
        }
    }
    plan.stage(stores);
    // Also where the network is gone already: with it goes what only served the cluster, as the spec that is kept. Last, since the
    // spec tells a second run, after one that was killed, which runtime the rest is on.
    plan.stage([step(Action::RemoveNetwork, "down")]);
    plan
}
