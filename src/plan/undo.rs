//! What takes a run back that failed: its own creations, in reverse order, and nothing that stood before.

use super::{Action, Plan, Step, step};

/// The way back from `touched`, the steps that were done and those that failed half-way. Nodes and volumes that a fresh `up` made go
/// again. In a cluster that stood already nothing is removed: the same command, given again, goes on. Masters that were emptied
/// and still run take sends again.
pub fn undo(touched: &[Step]) -> Plan {
    let mut plan = Plan::default();
    let actions = || touched.iter().map(|step| &step.action);
    let back = |action| step(action, "taken back");
    let reopen: Vec<String> = actions()
        .filter_map(|action| match action {
            Action::Drain(departure) => Some(&departure.groups),
            _ => None,
        })
        .flatten()
        .filter(|leaving| {
            let stopped =
                |a: &Action| matches!(a, Action::StopNode(c) if *c == leaving.master.container);
            !actions().any(stopped)
        })
        .map(|leaving| leaving.name())
        .collect();
    if !reopen.is_empty() {
        plan.stage([back(Action::Reopen(reopen))]);
    }
    if !actions().any(|action| matches!(action, Action::CreateNetwork)) {
        return plan;
    }
    let created = |each: fn(String) -> Action| {
        let nodes = actions().rev().filter_map(move |action| match action {
            Action::CreateNode(node) => Some(back(each(node.container.clone()))),
            _ => None,
        });
        nodes.collect::<Vec<Step>>()
    };
    plan.stage(created(Action::StopNode));
    plan.stage(created(Action::RemoveNode));
    plan.stage(actions().rev().filter_map(|action| match action {
        Action::CreateVolume(volume) => Some(back(Action::RemoveVolume(volume.clone()))),
        _ => None,
    }));
    plan.stage([back(Action::RemoveNetwork)]);
    plan
}
