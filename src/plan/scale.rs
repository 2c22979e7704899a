//! The plan of `scale`: what is new comes as with `up`; what goes is emptied before it is taken away.

use std::time::Duration;

use super::{
    Action, Departure, Kind, Leaving, NodeState, Observed, ObservedNode, Plan, Step, UpOptions,
    step, up,
};
use crate::error::Error;
use crate::topology::{Desired, Node, Role};

/// How brokers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleOptions {
    /// Masters are emptied first; without, what nobody has read goes with them.
    pub drain: bool,
    /// [`Departure::settle`].
    pub settle: Duration,
    /// Their volumes go too.
    pub volumes: bool,
}

/// Brokers that stand and that the spec no longer names, each as it is: names and ports are a closed form of a node's number, so
/// that `all`, a cluster large enough to have them, tells them.
fn leaving<'a>(
    desired: &Desired,
    all: &'a Desired,
    observed: &'a Observed,
) -> Vec<(&'a Node, &'a ObservedNode)> {
    let stays = |container: &str| desired.nodes.iter().any(|n| n.container == container);
    let gone = observed.nodes.iter().filter(|n| !stays(&n.container));
    gone.filter_map(|seen| {
        let node = all.nodes.iter().find(|n| n.container == seen.container)?;
        node.broker.is_some().then_some((node, seen))
    })
    .collect()
}

/// The groups whose master leaves, with those of their slaves that run.
pub fn departing(desired: &Desired, all: &Desired, observed: &Observed) -> Vec<Leaving> {
    let group = |seen: &ObservedNode| {
        let (group, _) = seen.broker.as_ref()?.rsplit_once(':')?;
        Some(group.to_owned())
    };
    leaving(desired, all, observed)
        .into_iter()
        .filter(|(node, _)| node.role == Role::Master)
        .map(|(master, _)| {
            let name = master.broker.as_ref().map(|broker| broker.name.clone());
            let copies = observed.nodes.iter().filter(|seen| {
                seen.container != master.container
                    && seen.state == NodeState::Running
                    && group(seen) == name
            });
            Leaving {
                master: master.clone(),
                slaves: copies
                    .filter_map(|seen| all.nodes.iter().find(|n| n.container == seen.container))
                    .cloned()
                    .collect(),
            }
        })
        .collect()
}

/// What `scale` does. `all` is a cluster large enough to have every broker that stands.
pub fn scale(
    desired: &Desired,
    previous: Option<&Desired>,
    all: &Desired,
    observed: &Observed,
    options: ScaleOptions,
) -> Result<Plan, Error> {
    let mut plan = up(desired, previous, observed, UpOptions::default())?;
    let going = leaving(desired, all, observed);
    if going.is_empty() {
        return Ok(plan);
    }
    let of = |role: Role| {
        going
            .iter()
            .copied()
            .filter(move |(node, _)| node.role == role)
    };
    let mut before = Plan::default();
    let groups = departing(desired, all, observed);
    if options.drain && !groups.is_empty() {
        // One that an interrupted run has stopped already is asked again.
        before.stage(
            of(Role::Master)
                .filter(|(_, seen)| seen.state != NodeState::Running)
                .map(|(node, _)| step(Action::StartNode(node.container.clone()), "to be emptied")),
        );
        let departure = Departure {
            groups,
            settle: options.settle,
        };
        before.stage([step(Action::Drain(Box::new(departure)), "it goes")]);
    }
    // At once, so that nobody sends to it any more; the kept spec still names it, so that `up` would bring it back.
    before.stage(of(Role::Master).map(|(node, _)| stop(node)));
    before.stages.append(&mut plan.stages);
    plan.stages = before.stages;
    plan.stage(of(Role::Slave).map(|(node, _)| stop(node)));
    plan.stage(
        going
            .iter()
            .map(|(node, _)| step(Action::RemoveNode(node.container.clone()), "it goes")),
    );
    let volumes = going.iter().filter_map(|(node, _)| node.volume.as_ref());
    let volumes = volumes.filter(|volume| observed.volumes.contains(volume));
    if options.volumes {
        plan.stage(volumes.map(|v| step(Action::RemoveVolume(v.clone()), "--volumes")));
    }
    for (node, seen) in &going {
        plan.changes.retain(|change| change.what != node.name);
        let place = seen.broker.clone().unwrap_or_default();
        let emptied = match node.role {
            Role::Master if options.drain => "emptied first",
            Role::Master => "NOT emptied",
            _ => "a copy",
        };
        let volume = match (&node.volume, options.volumes) {
            (Some(volume), true) => format!("volume {volume} goes too"),
            (Some(volume), false) => format!("volume {volume} stays"),
            (None, _) => String::new(),
        };
        plan.note(
            &node.name,
            Kind::Remove,
            format!("{place}  {emptied}   {volume}").trim_end(),
        );
    }
    Ok(plan)
}

fn stop(node: &Node) -> Step {
    step(Action::StopNode(node.container.clone()), "it goes")
}

#[cfg(test)]
mod tests;
