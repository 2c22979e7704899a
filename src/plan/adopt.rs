//! The plan of `adopt`: containers that somebody made by hand become nodes, with what they stored.
//!
//! How far an adoption came is read from names, since labels of a container that stands cannot change: `rmqmaster1` is in use,
//! `rmqmaster1-adopting` was set aside and what was copied of it may be half, `rmqmaster1-before-adopt` was copied whole. A new node
//! starts only after that, so a volume that may hold new messages is never taken for a half copy.

use super::{
    Action, Conflict, Kind, NodeState, Observed, Plan, Recreate, Step, UpOptions, rank, step,
    up::up,
};
use crate::error::{Error, Exit};
use crate::topology::{Desired, Node, Role, data_dir, volume_words};

/// Ends the name of a container that was set aside.
const ASIDE: &str = "-adopting";
/// Stands between that and the node's container, where the old one was called otherwise.
const AS: &str = "-as-";
/// Ends the name of a container whose node is there.
const KEPT: &str = "-before-adopt";

/// Name of `old` while what it stored is copied for the node in `container`.
pub fn aside_name(old: &str, container: &str) -> String {
    match old == container {
        true => format!("{old}{ASIDE}"),
        false => format!("{old}{ASIDE}{AS}{container}"),
    }
}

/// What a container was called that bears a name of [`aside_name`], and the container of the node that it is to become.
pub fn of_aside(name: &str) -> Option<(&str, &str)> {
    let (old, rest) = name.rsplit_once(ASIDE)?;
    match rest {
        "" => Some((old, old)),
        rest => Some((old, rest.strip_prefix(AS)?)),
    }
}

/// Name of `old` from when its node has all of it.
pub fn kept_name(old: &str) -> String {
    format!("{old}{KEPT}")
}

/// What a container was called that bears a name of [`kept_name`].
pub fn of_kept(name: &str) -> Option<&str> {
    name.strip_suffix(KEPT)
}

/// How far the adoption of a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is called what it always was.
    InUse,
    /// It was set aside; a copy of it may be half.
    Aside,
    /// Its node's volume has all of it.
    Kept,
}

/// A container that becomes a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Name of the node.
    pub node: String,
    /// What the container is called when nobody adopts it.
    pub old: String,
    #[allow(missing_docs)]
    pub phase: Phase,
    /// Whether it runs, or did before an adoption that did not end: then it is started when it is put back.
    pub runs: bool,
    /// What it runs, for a person.
    pub image: String,
    /// What is copied into the node's store.
    pub copies: Vec<StoreCopy>,
}

impl Adoption {
    /// What the container is called now.
    pub fn name(&self, container: &str) -> String {
        match self.phase {
            Phase::InUse => self.old.clone(),
            Phase::Aside => aside_name(&self.old, container),
            Phase::Kept => kept_name(&self.old),
        }
    }
}

/// A file or directory of a container that goes into a node's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreCopy {
    /// Path in the old container.
    pub from: String,
    /// Path below the node's store; empty for the store itself.
    pub to: String,
    /// Whether it is one file.
    pub is_file: bool,
    /// Names directly below it that are left out, since another copy brings them.
    pub without: Vec<String>,
}

/// A container of somebody else's that gets another name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignMove {
    /// Name of the node that it becomes.
    pub node: String,
    /// Its name, the first of these that there is.
    pub from: Vec<String>,
    #[allow(missing_docs)]
    pub to: String,
    #[allow(missing_docs)]
    pub how: Moving,
}

/// What else is done to a container that gets another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// It is stopped first, and a daemon that starts anew leaves it so.
    Stop,
    /// Nothing.
    Rename,
    /// It is started when it has its name.
    Start,
}

/// What is copied from where, through a container that never starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyStore {
    /// The old container.
    pub from: String,
    /// A container made for the upload, with the node's volume and nothing else of it.
    pub carrier: Node,
    #[allow(missing_docs)]
    pub copies: Vec<StoreCopy>,
}

/// The container that carries a node's volume while it is filled. It is no node of the spec, so that nothing starts it, and has the
/// cluster's labels, so that `down` finds it.
fn carrier(node: &Node) -> Node {
    Node {
        name: format!("{}-copy", node.name),
        container: carrier_name(node),
        aliases: Vec::new(),
        broker: None,
        ports: Vec::new(),
        file: None,
        conf_path: None,
        ..node.clone()
    }
}

fn carrier_name(node: &Node) -> String {
    format!("{}-copy", node.container)
}

/// The adoptions with their nodes, in start order.
fn pairs<'a>(desired: &'a Desired, adoptions: &'a [Adoption]) -> Vec<(&'a Node, &'a Adoption)> {
    let mut all: Vec<(&Node, &Adoption)> = adoptions
        .iter()
        .filter_map(|adoption| {
            let mut nodes = desired.nodes.iter();
            Some((nodes.find(|n| n.name == adoption.node)?, adoption))
        })
        .collect();
    all.sort_by_key(|(node, _)| rank(node.role));
    all
}

/// What `adopt` does: as `up` with a cluster that has the adopted nodes, but the old containers are set aside first, and what they stored
/// is in the volumes before a node starts.
pub fn adopt(
    desired: &Desired,
    previous: Option<&Desired>,
    observed: &Observed,
    adoptions: &[Adoption],
) -> Result<Plan, Error> {
    let pairs = pairs(desired, adoptions);
    let ours: Vec<String> = pairs
        .iter()
        .map(|(node, adoption)| adoption.name(&node.container))
        .collect();
    refuse_second_store(&pairs, observed)?;
    let mut observed = observed.clone();
    observed.conflicts.retain(|c| !is_held_by(c, &ours));
    let options = UpOptions {
        recreate: Recreate::Auto,
        ..UpOptions::default()
    };
    let mut plan = up(desired, previous, &observed, options)?;

    let to_copy: Vec<&(&Node, &Adoption)> = pairs
        .iter()
        .filter(|(node, adoption)| must_copy(node, adoption, &observed))
        .collect();
    for (node, adoption) in &pairs {
        if let Some(change) = plan.changes.iter_mut().find(|c| c.what == node.name)
            && change.kind == Kind::Create
        {
            change.kind = Kind::Adopt;
            change.detail = describe(node, adoption, &change.detail);
        }
    }

    // A volume may stand only after the old container was set aside: one beside a container in use is another store.
    let theirs: Vec<&String> = to_copy
        .iter()
        .filter_map(|(node, _)| node.volume.as_ref())
        .collect();
    for stage in &mut plan.stages {
        stage.retain(|s| !matches!(&s.action, Action::CreateVolume(v) if theirs.contains(&v)));
    }
    plan.stages.retain(|stage| !stage.is_empty());
    let is_ground = |s: &Step| {
        matches!(
            s.action,
            Action::EnsureImage
                | Action::CreateNetwork
                | Action::CreateVolume(_)
                | Action::StoreSpec
        )
    };
    let at = plan
        .stages
        .iter()
        .position(|stage| !stage.iter().all(is_ground))
        .unwrap_or(plan.stages.len());
    let rest = plan.stages.split_off(at);

    let cause = "it becomes a node";
    // Consoles first, name servers last, so that brokers stop in a cluster that is whole.
    for now in (0..=rank(Role::Console)).rev() {
        let of_rank = pairs.iter().filter(|(node, adoption)| {
            // Masters stop before their slaves, which have the last bytes then.
            let turn = match node.role {
                Role::Master => rank(Role::Slave),
                Role::Slave => rank(Role::Master),
                role => rank(role),
            };
            turn == now && adoption.phase != Phase::Kept
        });
        plan.stage(of_rank.map(|(node, adoption)| {
            let aside = aside_name(&adoption.old, &node.container);
            step(
                Action::MoveForeign(Box::new(ForeignMove {
                    node: node.name.clone(),
                    // An interrupted run may have left it stopped under either name.
                    from: vec![adoption.name(&node.container), aside.clone()],
                    to: aside,
                    how: Moving::Stop,
                })),
                cause,
            )
        }));
    }
    let half = "what an earlier run copied may be half";
    plan.stage(
        to_copy
            .iter()
            .map(|(node, _)| carrier_name(node))
            .filter(|carrier| observed.nodes.iter().any(|n| n.container == *carrier))
            .map(|carrier| step(Action::RemoveNode(carrier), half)),
    );
    let volumes = || theirs.iter().copied();
    plan.stage(
        volumes()
            .filter(|v| observed.volumes.contains(v))
            .map(|v| step(Action::RemoveVolume(v.clone()), half)),
    );
    plan.stage(volumes().map(|v| step(Action::CreateVolume(v.clone()), cause)));
    plan.stage(
        to_copy
            .iter()
            .filter(|(_, adoption)| !adoption.copies.is_empty())
            .map(|(node, adoption)| {
                let from = match adoption.phase {
                    Phase::Kept => kept_name(&adoption.old),
                    _ => aside_name(&adoption.old, &node.container),
                };
                step(
                    Action::CopyStore(Box::new(CopyStore {
                        from,
                        carrier: carrier(node),
                        copies: adoption.copies.clone(),
                    })),
                    cause,
                )
            }),
    );
    plan.stage(
        pairs
            .iter()
            .filter(|(_, adoption)| adoption.phase != Phase::Kept)
            .map(|(node, adoption)| {
                step(
                    Action::MoveForeign(Box::new(ForeignMove {
                        node: node.name.clone(),
                        from: vec![aside_name(&adoption.old, &node.container)],
                        to: kept_name(&adoption.old),
                        how: Moving::Rename,
                    })),
                    "its node has all of it",
                )
            }),
    );
    plan.stages.extend(rest);
    Ok(plan)
}

/// Beside a container in use, a volume of its node is of another life of the cluster: one of the two stores would be lost.
fn refuse_second_store(pairs: &[(&Node, &Adoption)], observed: &Observed) -> Result<(), Error> {
    let two: Vec<(&Node, &String)> = pairs
        .iter()
        .filter(|(_, adoption)| adoption.phase == Phase::InUse)
        .filter_map(|(node, _)| Some((*node, node.volume.as_ref()?)))
        .filter(|(_, volume)| observed.volumes.contains(volume))
        .collect();
    let Some((node, volume)) = two.first() else {
        return Ok(());
    };
    let volumes: Vec<&str> = two
        .iter()
        .map(|(_, volume)| volume.as_str())
        .filter(|volume| data_dir(volume).is_none())
        .collect();
    let lines = two.iter().map(|(node, volume)| {
        format!(
            "{}: {}, and what its container stored; one of the two would be lost",
            node.name,
            volume_words(volume)
        )
    });
    let error = Error::new(
        "RMQ-E024",
        Exit::Conflict,
        format!(
            "{} has a store already: {}",
            node.name,
            volume_words(volume)
        ),
    )
    .lines(lines.collect::<Vec<_>>())
    .detail("nothing was changed");
    let error = match volumes.as_slice() {
        [] => error.hint("--data-dir PATH   where another directory may hold them"),
        some => error.hint(format!(
            "docker volume rm {}   where it is not wanted",
            some.join(" ")
        )),
    };
    Err(error.hint("rmqctl --name NAME adopt …   into a cluster of another name"))
}

/// Whether the node's volume is still to be filled.
fn must_copy(node: &Node, adoption: &Adoption, observed: &Observed) -> bool {
    let Some(volume) = &node.volume else {
        return false;
    };
    match adoption.phase {
        Phase::InUse | Phase::Aside => true,
        // It was removed since: then the old container has the only copy again.
        Phase::Kept => {
            !observed.volumes.contains(volume)
                && !observed.nodes.iter().any(|n| n.container == node.container)
        }
    }
}

fn is_held_by(conflict: &Conflict, ours: &[String]) -> bool {
    conflict
        .container
        .as_ref()
        .is_some_and(|container| ours.contains(container))
}

fn describe(node: &Node, adoption: &Adoption, made: &str) -> String {
    let made = made.trim_end_matches(" (kept)");
    let from = match adoption.copies.first() {
        Some(copy) => format!(" ← {}:{}", adoption.name(&node.container), copy.from),
        None if node.broker.is_some() => " (it stored nothing)".to_owned(),
        None => String::new(),
    };
    format!("{made}{from}   from {}", adoption.image)
}

/// What puts the old containers back: nodes that were made for them go, with the copies of their stores but for those in `keep`, and each is
/// called what it was and runs if it did. The network goes if `before` had none.
pub fn put_back(
    desired: &Desired,
    observed: &Observed,
    before: &Observed,
    adoptions: &[Adoption],
    keep: &[String],
) -> Plan {
    let mut plan = Plan::default();
    let cause = "put back";
    let pairs = pairs(desired, adoptions);
    let stood = |container: &String| before.nodes.iter().any(|n| n.container == *container);
    let new: Vec<String> = pairs
        .iter()
        .flat_map(|(node, _)| [node.container.clone(), carrier_name(node)])
        .filter(|container| observed.nodes.iter().any(|n| n.container == *container))
        .filter(|container| !stood(container) || container.ends_with("-copy"))
        .collect();
    let runs = |container: &String| {
        let mut nodes = observed.nodes.iter();
        nodes.any(|n| n.container == *container && !matches!(n.state, NodeState::Exited(_)))
    };
    let stop = new.iter().filter(|container| runs(container));
    plan.stage(stop.map(|c| step(Action::StopNode(c.clone()), cause)));
    plan.stage(
        new.iter()
            .map(|c| step(Action::RemoveNode(c.clone()), cause)),
    );
    plan.stage(
        pairs
            .iter()
            .filter(|(_, adoption)| adoption.phase != Phase::Kept)
            .filter_map(|(node, _)| node.volume.as_ref())
            .filter(|v| observed.volumes.contains(v) && !keep.contains(v))
            .map(|v| step(Action::RemoveVolume(v.clone()), cause)),
    );
    // Links want the container that they name to run.
    for now in 0..=rank(Role::Console) {
        let of_rank = pairs
            .iter()
            .filter(|(node, adoption)| rank(node.role) == now && adoption.phase != Phase::Kept);
        plan.stage(of_rank.map(|(node, adoption)| {
            let how = match adoption.runs {
                true => Moving::Start,
                false => Moving::Rename,
            };
            step(
                Action::MoveForeign(Box::new(ForeignMove {
                    node: node.name.clone(),
                    from: vec![
                        adoption.old.clone(),
                        aside_name(&adoption.old, &node.container),
                        kept_name(&adoption.old),
                    ],
                    to: adoption.old.clone(),
                    how,
                })),
                cause,
            )
        }));
    }
    for (node, adoption) in pairs {
        if adoption.phase != Phase::Kept {
            plan.note(&node.name, Kind::PutBack, &adoption.old);
        }
    }
    if before.network.is_none() && observed.network.is_some() {
        plan.stage([step(Action::RemoveNetwork, cause)]);
    }
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{at_network, cluster, steps};
    use super::*;
    use crate::execute::{Outcome, Walk, execute};
    use crate::interrupt::Interrupt;
    use crate::runtime::Runtime;
    use crate::runtime::memory::Memory;

    const OLD: [&str; 3] = ["rmqnamesrv", "rmqmaster1", "rmqslave1"];

    fn desired() -> Desired {
        let mut spec = cluster(1, 1);
        spec.console = false;
        at_network(&spec)
    }

    /// What a command would find of the containers as they are called now.
    fn adoptions(memory: &Memory) -> Vec<Adoption> {
        let there = memory.strangers_now();
        let phase = |old: &str| {
            [
                (Phase::InUse, old.to_owned()),
                (Phase::Aside, aside_name(old, old)),
                (Phase::Kept, kept_name(old)),
            ]
            .into_iter()
            .find(|(_, name)| there.contains_key(name))
            .map(|(phase, name)| (phase, there[&name]))
        };
        OLD.iter()
            .filter_map(|old| {
                let (phase, runs) = phase(old)?;
                Some(Adoption {
                    node: (*old).to_owned(),
                    old: (*old).to_owned(),
                    phase,
                    runs: runs || phase == Phase::Aside,
                    image: "apache/rocketmq:5.3.2".into(),
                    copies: vec![StoreCopy {
                        from: "/home/rocketmq/store".into(),
                        to: String::new(),
                        is_file: false,
                        without: Vec::new(),
                    }],
                })
            })
            .collect()
    }

    fn by_hand() -> Memory {
        let memory = Memory::default();
        for old in OLD {
            memory.by_hand(old);
        }
        memory
    }

    /// Walks without waiting through the protocol: nothing listens behind a map.
    async fn walk(plan: &Plan, memory: &Memory, desired: &Desired) -> Outcome {
        let walk = Walk {
            runtime: memory,
            desired,
            parallel: 1,
            await_timeout: std::time::Duration::ZERO,
            interrupt: &Interrupt::never(),
            on_step: &|_, _| {},
            on_progress: &|_, _| {},
        };
        execute(plan, &walk).await
    }

    async fn once(memory: &Memory, desired: &Desired) -> bool {
        let observed = memory.observe(desired).await.unwrap();
        let plan = adopt(desired, None, &observed, &adoptions(memory)).unwrap();
        walk(&plan, memory, desired).await.failed.is_empty()
    }

    async fn assert_adopted(memory: &Memory, desired: &Desired, after: usize) {
        let observed = memory.observe(desired).await.unwrap();
        let running = observed
            .nodes
            .iter()
            .filter(|n| n.state == NodeState::Running);
        assert_eq!(
            running.count(),
            3,
            "after a failure at call {after}: {observed:?}"
        );
        let kept: BTreeMap<String, bool> = OLD.iter().map(|old| (kept_name(old), false)).collect();
        assert_eq!(
            memory.strangers_now(),
            kept,
            "after a failure at call {after}"
        );
        assert_eq!(memory.filled().len(), 3, "after a failure at call {after}");
    }

    #[test]
    fn old_containers_are_set_aside_and_copied_before_a_node_starts() {
        let all = desired();
        let memory = by_hand();
        let plan = adopt(&all, None, &Observed::default(), &adoptions(&memory)).unwrap();
        assert_eq!(
            steps(&plan),
            "create network, engine image
keep the spec
rename rmqmaster1 to rmqmaster1-adopting
rename rmqslave1 to rmqslave1-adopting
rename rmqnamesrv to rmqnamesrv-adopting
create volume rmqnamesrv-store, create volume rmqmaster1-store, create volume rmqslave1-store
copy the store of rmqnamesrv-adopting, copy the store of rmqmaster1-adopting, copy the store of rmqslave1-adopting
rename rmqnamesrv-adopting to rmqnamesrv-before-adopt, rename rmqmaster1-adopting to rmqmaster1-before-adopt, rename rmqslave1-adopting to rmqslave1-before-adopt
create rmqnamesrv, start rmqnamesrv, create rmqmaster1, start rmqmaster1, create rmqslave1, start rmqslave1
"
        );
        let text = plan.to_string();
        assert!(
            text.contains("~ rmqmaster1                 adopt      broker-a:0  10911/10909   volume rmqmaster1-store ← rmqmaster1:/home/rocketmq/store   from apache/rocketmq:5.3.2"),
            "{text}"
        );
        assert!(text.contains("3 to adopt"), "{text}");
    }

    #[tokio::test]
    async fn killed_anywhere_the_same_command_goes_on() {
        let all = desired();
        let total = {
            let memory = by_hand();
            let plan = adopt(&all, None, &Observed::default(), &adoptions(&memory)).unwrap();
            plan.stages.iter().flatten().count()
        };
        for at in 1..=total {
            let memory = by_hand();
            memory.fail_at(at);
            assert!(!once(&memory, &all).await, "call {at} was to fail");
            assert!(once(&memory, &all).await, "again after call {at}");
            assert_adopted(&memory, &all, at).await;
            let observed = memory.observe(&all).await.unwrap();
            let plan = adopt(&all, Some(&all), &observed, &adoptions(&memory)).unwrap();
            assert!(plan.is_nothing(), "after call {at}: {plan}");
        }
    }

    #[tokio::test]
    async fn failed_anywhere_the_old_containers_run_again_and_nothing_is_left() {
        let all = desired();
        for at in 1..=20 {
            let memory = by_hand();
            let before = memory.observe(&all).await.unwrap();
            let found = adoptions(&memory);
            memory.fail_at(at);
            let plan = adopt(&all, None, &before, &found).unwrap();
            walk(&plan, &memory, &all).await;
            memory.fail_at(usize::MAX >> 1);
            let observed = memory.observe(&all).await.unwrap();
            let back = put_back(&all, &observed, &before, &found, &[]);
            assert!(
                walk(&back, &memory, &all).await.failed.is_empty(),
                "after call {at}"
            );
            let want: BTreeMap<String, bool> =
                OLD.iter().map(|old| ((*old).into(), true)).collect();
            assert_eq!(memory.strangers_now(), want, "after call {at}");
            let left = memory.observe(&all).await.unwrap();
            assert_eq!(
                (left.nodes.len(), left.volumes.len(), left.network),
                (0, 0, None),
                "after call {at}"
            );
        }
    }

    #[tokio::test]
    async fn a_volume_that_may_have_new_messages_is_not_filled_again() {
        let all = desired();
        let memory = by_hand();
        assert!(once(&memory, &all).await);
        for node in &all.nodes {
            memory.lose(&node.container);
        }
        let observed = memory.observe(&all).await.unwrap();
        let plan = adopt(&all, Some(&all), &observed, &adoptions(&memory)).unwrap();
        assert_eq!(
            steps(&plan),
            "create rmqnamesrv, start rmqnamesrv, create rmqmaster1, start rmqmaster1, create rmqslave1, start rmqslave1\n"
        );
        // Where it was removed, the old container has the only copy.
        memory.lose_volume("rmqmaster1-store");
        let observed = memory.observe(&all).await.unwrap();
        let plan = adopt(&all, Some(&all), &observed, &adoptions(&memory)).unwrap();
        assert!(
            steps(&plan).contains("copy the store of rmqmaster1-before-adopt\n"),
            "{}",
            steps(&plan)
        );
    }

    #[test]
    fn a_second_store_and_a_half_adoption_are_refused() {
        let all = desired();
        let memory = by_hand();
        let seen = Observed {
            volumes: vec!["rmqmaster1-store".into()],
            ..Observed::default()
        };
        let refused = adopt(&all, None, &seen, &adoptions(&memory)).unwrap_err();
        assert_eq!(refused.id, "RMQ-E024");
        let aside = Conflict {
            what: "the store of rmqmaster1".into(),
            node: "rmqmaster1".into(),
            container: Some("rmqmaster1-adopting".into()),
            ..Conflict::default()
        };
        let seen = Observed {
            conflicts: vec![aside],
            ..Observed::default()
        };
        let refused = up(&all, None, &seen, UpOptions::default()).unwrap_err();
        assert_eq!(refused.id, "RMQ-E023");
        assert!(
            refused.to_string().contains("adopt --all --undo"),
            "{refused}"
        );
    }

    #[test]
    fn up_names_adopt_where_a_container_made_by_hand_has_the_name() {
        let all = desired();
        let held = |name: &str| Conflict {
            what: format!("container name {name}"),
            node: name.into(),
            container: Some(name.into()),
            adoptable: true,
            ..Conflict::default()
        };
        let refused = |names: &[&str]| {
            let seen = Observed {
                conflicts: names.iter().map(|name| held(name)).collect(),
                ..Observed::default()
            };
            up(&all, None, &seen, UpOptions::default())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&["rmqmaster1"]).contains("hint: rmqctl adopt rmqmaster1 "));
        assert!(refused(&["rmqmaster1", "rmqslave1"]).contains("hint: rmqctl adopt --all "));
    }

    #[test]
    fn names_say_what_a_container_was_and_what_it_becomes() {
        for (old, container) in [("rmqmaster1", "rmqmaster1"), ("mq", "x-rmqmaster1")] {
            let aside = aside_name(old, container);
            assert_eq!(of_aside(&aside), Some((old, container)), "{aside}");
        }
        assert_eq!(of_aside("rmqmaster1"), None);
        assert_eq!(of_kept(&kept_name("mq")), Some("mq"));
    }
}
