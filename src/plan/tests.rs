use super::*;
use crate::spec::{ClusterSpec, Profile};
use crate::topology::{Site, desired};

pub(super) fn cluster(masters: u32, slaves: u32) -> ClusterSpec {
    let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
    (spec.masters, spec.slaves) = (masters, slaves);
    spec
}

pub(super) fn at_network(spec: &ClusterSpec) -> Desired {
    desired(spec, &Site::Network).unwrap()
}

/// Everything of `desired` as it is after `up`.
pub(super) fn running(desired: &Desired) -> Observed {
    let node = |n: &Node| ObservedNode {
        id: format!("id-{}", n.name),
        name: n.name.clone(),
        container: n.container.clone(),
        config_hash: n.config_hash.clone(),
        broker: n.broker.as_ref().map(|_| n.broker_text()),
        state: NodeState::Running,
        image: Some("engine:1".into()),
        version: None,
        started_at: Some(1),
        restarts: 0,
        ports: n.host_ports().collect(),
        cut_off: false,
        oom_killed: false,
    };
    Observed {
        nodes: desired.nodes.iter().map(node).collect(),
        network: Some(desired.network.clone()),
        subnet: None,
        volumes: desired
            .nodes
            .iter()
            .filter_map(|n| n.volume.clone())
            .collect(),
        image: Some("engine:1".into()),
        spec: Some(desired.spec.clone()),
        conflicts: Vec::new(),
        closed: Vec::new(),
        store_faults: Vec::new(),
        found_stores: Vec::new(),
        empty: Vec::new(),
    }
}

fn check_text(plan: &Plan, want: &str) {
    let mask = |text: &str| -> String {
        // Hashes change with every template; that they are told is what matters.
        text.lines()
            .map(|line| match line.find("(config hash ") {
                Some(at) => format!("{}(config hash)\n", &line[..at]),
                None => format!("{line}\n"),
            })
            .collect()
    };
    assert_eq!(mask(&plan.to_string()), want);
}

pub(super) fn steps(plan: &Plan) -> String {
    plan.stages
        .iter()
        .map(|stage| {
            stage
                .iter()
                .map(|s| s.action.to_string())
                .collect::<Vec<_>>()
                .join(", ")
                + "\n"
        })
        .collect()
}

#[test]
fn up_from_nothing_makes_everything_in_order() {
    let all = at_network(&cluster(1, 1));
    let plan = up(&all, None, &Observed::default(), UpOptions::default()).unwrap();
    check_text(
        &plan,
        "+ network rmqnetwork         create
+ rmqnamesrv                 create     9876   volume rmqnamesrv-store
+ rmqmaster1                 create     broker-a:0  10911/10909   volume rmqmaster1-store
+ rmqslave1                  create     broker-a:1  11911/11909   volume rmqslave1-store
+ rmqconsole                 create     8181→8080
  5 to create.
",
    );
    assert_eq!(
        steps(&plan),
        "create network, engine image, create volume rmqnamesrv-store, create volume rmqmaster1-store, create volume rmqslave1-store
keep the spec
create rmqnamesrv, start rmqnamesrv, create rmqmaster1, start rmqmaster1, create rmqslave1, start rmqslave1, create rmqconsole, start rmqconsole
"
    );
}

#[test]
fn a_node_that_was_made_but_never_ran_gets_its_file_before_it_starts() {
    let all = at_network(&cluster(1, 0));
    let mut seen = running(&all);
    for node in &mut seen.nodes {
        node.state = NodeState::Exited(None);
    }
    let steps_of_up = steps(&up(&all, Some(&all), &seen, UpOptions::default()).unwrap());
    assert_eq!(
        steps_of_up,
        "configure rmqnamesrv, start rmqnamesrv, configure rmqmaster1, start rmqmaster1, start rmqconsole\n"
    );
    let nodes: Vec<&Node> = all.nodes.iter().collect();
    assert_eq!(steps(&start(&nodes, &seen)), steps_of_up);
}

#[test]
fn up_again_finds_nothing_to_do() {
    let all = at_network(&cluster(2, 2));
    let plan = up(&all, Some(&all), &running(&all), UpOptions::default()).unwrap();
    assert!(plan.is_nothing() && plan.stages.is_empty(), "{plan}");
}

#[test]
fn one_more_slave_is_created_and_a_changed_property_recreates_its_node_only() {
    let before = at_network(&cluster(2, 2));
    let mut spec = cluster(2, 3);
    let own = crate::spec::NodeSpec {
        properties: [("fileReservedTime".to_owned(), "72".to_owned())].into(),
        ..Default::default()
    };
    spec.nodes.insert("rmqmaster1".into(), own);
    let plan = up(
        &at_network(&spec),
        Some(&before),
        &running(&before),
        UpOptions::default(),
    )
    .unwrap();
    check_text(
        &plan,
        "  network rmqnetwork         unchanged
  rmqnamesrv                 unchanged
~ rmqmaster1                 recreate   fileReservedTime 48 → 72   (config hash)
  rmqmaster2                 unchanged
  rmqslave1                  unchanged
  rmqslave2                  unchanged
+ rmqslave3                  create     broker-a:2  14911/14909   volume rmqslave3-store
  rmqconsole                 unchanged
  6 unchanged · 1 to recreate (rolling, data kept) · 1 to create.
",
    );
    assert_eq!(
        steps(&plan),
        "create volume rmqslave3-store
keep the spec
create rmqslave3, start rmqslave3
stop rmqmaster1
remove rmqmaster1
create rmqmaster1
start rmqmaster1
wait for rmqmaster1, wait for rmqslave1
"
    );
}

#[test]
fn a_new_engine_replaces_slaves_before_masters_one_at_a_time() {
    let all = at_network(&cluster(1, 1));
    let mut seen = running(&all);
    seen.image = Some("engine:2".into());
    let plan = up(&all, Some(&all), &seen, UpOptions::default()).unwrap();
    let stops: Vec<String> = steps(&plan)
        .lines()
        .filter(|l| l.starts_with("stop") || l.starts_with("wait"))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        stops,
        [
            "stop rmqconsole",
            "wait for rmqconsole",
            "stop rmqnamesrv",
            "wait for rmqnamesrv",
            "stop rmqslave1",
            "wait for rmqslave1",
            "stop rmqmaster1",
            "wait for rmqmaster1, wait for rmqslave1",
        ]
    );
}

#[test]
fn nodes_whose_ports_change_hands_all_stop_before_the_first_starts() {
    let before = at_network(&cluster(1, 1));
    let mut moved = cluster(1, 1);
    moved.port_offset = 1000;
    let plan = up(
        &at_network(&moved),
        Some(&before),
        &running(&before),
        UpOptions::default(),
    )
    .unwrap();
    assert!(
        steps(&plan).starts_with(
            "keep the spec\nstop rmqconsole, stop rmqnamesrv, stop rmqslave1, stop rmqmaster1\nremove rmqconsole, remove rmqnamesrv"
        ),
        "{}",
        steps(&plan)
    );
}

#[test]
fn a_node_no_longer_asked_for_is_left_alone_unless_told_otherwise() {
    let before = at_network(&cluster(1, 2));
    let after = at_network(&cluster(1, 1));
    let plan = up(
        &after,
        Some(&before),
        &running(&before),
        UpOptions::default(),
    )
    .unwrap();
    assert_eq!(
        (plan.named(Kind::Orphan), plan.is_nothing()),
        (vec!["rmqslave2"], true)
    );
    let plan = up(
        &after,
        Some(&before),
        &running(&before),
        UpOptions {
            remove_orphans: true,
            ..UpOptions::default()
        },
    )
    .unwrap();
    assert_eq!(
        steps(&plan),
        "keep the spec\nstop rmqslave2\nremove rmqslave2\n"
    );
}

#[test]
fn another_subnet_than_the_networks_is_refused() {
    let mut spec = cluster(1, 0);
    spec.subnet = Some("172.28.0.0/16".into());
    let all = at_network(&spec);
    let mut seen = running(&all);
    seen.subnet = spec.subnet.clone();
    assert!(up(&all, Some(&all), &seen, UpOptions::default()).is_ok());
    seen.subnet = Some("172.18.0.0/16".into());
    assert_eq!(
        up(&all, Some(&all), &seen, UpOptions::default())
            .unwrap_err()
            .to_string(),
        "error[RMQ-E015]: network rmqnetwork has the subnet 172.18.0.0/16; it cannot become 172.28.0.0/16
  nothing was changed
hint: rmqctl down, then this again   makes it anew; messages stay
"
    );
}

#[test]
fn a_taken_port_names_its_holder_and_changes_nothing() {
    let all = at_network(&cluster(1, 1));
    let conflict = Conflict {
        what: "host port 10911".into(),
        holder: "container rmqbroker (apache/rocketmq:5.3.2), not made by rmqctl".into(),
        node: "rmqmaster1".into(),
        ..Conflict::default()
    };
    let seen = Observed {
        conflicts: vec![conflict],
        ..Observed::default()
    };
    assert_eq!(
        up(&all, None, &seen, UpOptions::default()).unwrap_err().to_string(),
        "error[RMQ-E021]: host port 10911 is taken
  node rmqmaster1 needs host port 10911; held by container rmqbroker (apache/rocketmq:5.3.2), not made by rmqctl
  nothing was changed
hint: stop what holds it   ·   or: rmqctl up --port-offset 100
"
    );
}

#[test]
fn restart_rolls_over_slaves_then_masters_and_stop_ends_with_the_name_server() {
    let all = at_network(&cluster(1, 1));
    let brokers = all.select(&["broker-a".to_owned()]).unwrap();
    assert_eq!(
        steps(&restart(&all, &brokers, &running(&all), false)),
        "stop rmqslave1
configure rmqslave1
start rmqslave1
wait for rmqslave1
stop rmqmaster1
configure rmqmaster1
start rmqmaster1
wait for rmqmaster1, wait for rmqslave1
"
    );
    let nodes: Vec<&Node> = all.nodes.iter().collect();
    assert_eq!(
        steps(&stop(&nodes, &running(&all))),
        "stop rmqconsole\nstop rmqmaster1\nstop rmqslave1\nstop rmqnamesrv\n"
    );
}

#[test]
fn restart_starts_what_rests_first_and_a_slave_whose_master_rests_waits_for_nobody() {
    let all = at_network(&cluster(1, 1));
    let brokers = all.select(&["broker-a".to_owned()]).unwrap();
    let mut seen = running(&all);
    let master = seen.nodes.iter_mut().find(|n| n.name == "rmqmaster1");
    master.unwrap().state = NodeState::Exited(Some(0));
    assert_eq!(
        steps(&restart(&all, &brokers, &seen, false)),
        "configure rmqmaster1, start rmqmaster1
wait for rmqmaster1
stop rmqslave1
configure rmqslave1
start rmqslave1
wait for rmqslave1
"
    );
    let slave = all.select(&["rmqslave1".to_owned()]).unwrap();
    assert_eq!(
        steps(&restart(&all, &slave, &seen, false)),
        "stop rmqslave1\nconfigure rmqslave1\nstart rmqslave1\n"
    );
}

#[test]
fn a_node_whose_network_was_removed_is_made_anew() {
    let all = at_network(&cluster(1, 0));
    let mut seen = running(&all);
    seen.network = None;
    let master = seen.nodes.iter_mut().find(|n| n.name == "rmqmaster1");
    let master = master.unwrap();
    (master.state, master.cut_off) = (NodeState::Exited(Some(0)), true);
    let plan = up(&all, Some(&all), &seen, UpOptions::default()).unwrap();
    assert_eq!(
        steps(&plan),
        "create network
stop rmqmaster1
remove rmqmaster1
create rmqmaster1, start rmqmaster1
"
    );
    assert_eq!(plan.named(Kind::Recreate), ["rmqmaster1"]);
}

#[test]
fn what_rests_is_made_anew_at_once_and_a_replaced_slave_waits_for_a_master_that_runs() {
    let before = at_network(&cluster(1, 1));
    let mut spec = cluster(1, 1);
    spec.properties
        .insert("fileReservedTime".into(), "72".into());
    let mut seen = running(&before);
    let master = seen.nodes.iter_mut().find(|n| n.name == "rmqmaster1");
    master.unwrap().state = NodeState::Exited(Some(0));
    let plan = up(
        &at_network(&spec),
        Some(&before),
        &seen,
        UpOptions::default(),
    );
    assert_eq!(
        steps(&plan.unwrap()),
        "keep the spec
stop rmqmaster1
remove rmqmaster1
create rmqmaster1, start rmqmaster1
stop rmqslave1
remove rmqslave1
create rmqslave1
start rmqslave1
wait for rmqslave1
"
    );
}

#[test]
fn down_removes_what_only_served_a_cluster_whose_network_is_gone() {
    let all = at_network(&cluster(1, 0));
    let seen = Observed {
        spec: Some(all.spec.clone()),
        ..Observed::default()
    };
    assert_eq!(steps(&down(&all, &seen, false)), "remove network\n");
}

#[test]
fn down_keeps_volumes_and_down_with_volumes_does_not() {
    let all = at_network(&cluster(1, 0));
    let plan = down(&all, &running(&all), false);
    check_text(
        &plan,
        "- rmqnamesrv                 remove
- rmqmaster1                 remove
- rmqconsole                 remove
- network rmqnetwork         remove
  volume rmqnamesrv-store    unchanged  its messages stay
  volume rmqmaster1-store    unchanged  its messages stay
  2 unchanged · 4 to remove.
",
    );
    let steps = steps(&down(&all, &running(&all), true));
    assert!(
        steps.ends_with(
            "remove volume rmqnamesrv-store, remove volume rmqmaster1-store\nremove network\n"
        ),
        "{steps}"
    );
}

pub(super) mod converges {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;
    use crate::execute::{Walk, execute};
    use crate::interrupt::Interrupt;
    use crate::runtime::Runtime;
    use crate::runtime::memory::Memory;

    fn specs() -> impl Strategy<Value = ClusterSpec> {
        (1..4u32, 0..5u32, 1..3u32, any::<bool>(), 0..3u16, 24..26u32).prop_map(
            |(masters, slaves, namesrvs, console, offset, hours)| {
                let mut spec = cluster(masters, slaves);
                (spec.namesrvs, spec.console, spec.port_offset) =
                    (namesrvs, console, offset * 1000);
                spec.properties
                    .insert("fileReservedTime".into(), hours.to_string());
                spec
            },
        )
    }

    /// What happens to clusters.
    #[derive(Clone, Copy, Debug)]
    enum Damage {
        Lost,
        LostWithItsVolume,
        Stopped,
        Paused,
        Unknown,
        Dead,
        NeverRan,
        OtherConfig,
        NetworkLost,
        SpecLost,
        ImageLost,
    }

    fn damages() -> impl Strategy<Value = Damage> {
        use Damage::*;
        prop::sample::select(vec![
            Lost,
            LostWithItsVolume,
            Stopped,
            Paused,
            Unknown,
            Dead,
            NeverRan,
            OtherConfig,
            NetworkLost,
            SpecLost,
            ImageLost,
        ])
    }

    impl Damage {
        fn happens(self, memory: &Memory, node: &Node) {
            let state = |state| memory.damage(&node.container, |n| n.state = state);
            match self {
                Damage::Lost => memory.lose(&node.container),
                Damage::LostWithItsVolume => {
                    memory.lose(&node.container);
                    node.volume.iter().for_each(|v| memory.lose_volume(v));
                }
                Damage::Stopped => state(NodeState::Exited(Some(137))),
                Damage::Paused => state(NodeState::Paused),
                Damage::Unknown => state(NodeState::Other("unknown".into())),
                Damage::Dead => state(NodeState::Other("dead".into())),
                Damage::NeverRan => state(NodeState::Exited(None)),
                Damage::OtherConfig => {
                    memory.damage(&node.container, |n| n.config_hash = "else".into());
                }
                Damage::NetworkLost => memory.lose_network(),
                Damage::SpecLost => memory.lose_spec(),
                Damage::ImageLost => memory.lose_image(),
            }
        }
    }

    /// One `up` on the memory runtime; returns the plan that it walked.
    async fn up_once(
        runtime: &Memory,
        desired: &Desired,
        previous: Option<&Desired>,
    ) -> Result<Plan, Error> {
        let observed = runtime.observe(desired).await.unwrap();
        let options = UpOptions {
            remove_orphans: true,
            ..UpOptions::default()
        };
        let plan = up(desired, previous, &observed, options)?;
        Ok(walk_on_memory(runtime, desired, plan).await)
    }

    /// Walks a plan on the memory runtime as far as it goes; returns it without the steps that ask a network, where none is.
    pub(in crate::plan) async fn walk_on_memory(
        runtime: &Memory,
        desired: &Desired,
        mut plan: Plan,
    ) -> Plan {
        for stage in &mut plan.stages {
            stage.retain(|step| {
                !matches!(
                    step.action,
                    Action::AwaitNode(_) | Action::Drain(_) | Action::Reopen(_)
                )
            });
        }
        let interrupt = Interrupt::never();
        let walk = Walk {
            runtime,
            desired,
            parallel: 4,
            await_timeout: Duration::ZERO,
            interrupt: &interrupt,
            on_step: &|_, _| {},
            on_progress: &|_, _| {},
        };
        let _ = execute(&plan, &walk).await;
        plan
    }

    proptest! {
        /// Whatever stood before, however the first try broke, and whatever was damaged since, another try that broke on top
        /// of it: `up` gets there, and the next one has nothing to do.
        #[test]
        fn up_converges_from_any_state_and_then_has_nothing_to_do(
            before in specs(), after in specs(), breaks in 1..40usize, again in 1..40usize,
            damages in prop::collection::vec((0..12usize, damages()), 0..5)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let memory = Memory::default();
                let (before, after) = (at_network(&before), at_network(&after));
                up_once(&memory, &before, None).await.unwrap();
                memory.fail_at(breaks);
                up_once(&memory, &after, Some(&before)).await.unwrap();
                memory.fail_at(0);
                for (which, damage) in &damages {
                    let nodes = if which % 2 == 0 { &after.nodes } else { &before.nodes };
                    damage.happens(&memory, &nodes[which % nodes.len()]);
                }
                memory.fail_at(again);
                if let Err(refused) = up_once(&memory, &after, Some(&after)).await {
                    // A slave that is to follow another master may have the only copy of the lost one's log: with its volume, or
                    // with its container where the spec no longer names it, so that nothing says whose that volume is.
                    let lost = damages.iter().any(|(_, d)| matches!(d, Damage::Lost | Damage::LostWithItsVolume));
                    prop_assert!(lost && refused.id == "RMQ-E016", "{refused}");
                    return Ok(());
                }
                memory.fail_at(0);
                let last = up_once(&memory, &after, None).await.unwrap();
                let observed = memory.observe(&after).await.unwrap();
                let plan = up(&after, Some(&after), &observed, UpOptions { remove_orphans: true, ..UpOptions::default() }).unwrap();
                prop_assert!(
                    plan.is_nothing() && plan.stages.is_empty(),
                    "{plan}\n{}after\n{last}\n{}", steps(&plan), steps(&last)
                );
                prop_assert_eq!(observed.nodes.len(), after.nodes.len());
                prop_assert!(observed.nodes.iter().all(|n| n.state == NodeState::Running));
                Ok(())
            })?;
        }

        /// What a stranger holds stops `up` before it changes anything, and holds it up no longer than it is held.
        #[test]
        fn a_strangers_thing_stops_up_before_anything_is_changed(spec in specs(), which in 0..12usize) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let memory = Memory::default();
                let all = at_network(&spec);
                let node = &all.nodes[which % all.nodes.len()];
                memory.hold(vec![Conflict {
                    what: format!("container name {}", node.container),
                    holder: "a stranger".into(),
                    node: node.name.clone(),
                    ..Conflict::default()
                }]);
                let observed = memory.observe(&all).await.unwrap();
                let refused = up(&all, None, &observed, UpOptions::default()).unwrap_err();
                prop_assert_eq!(refused.exit, crate::error::Exit::Conflict);
                memory.hold(Vec::new());
                up_once(&memory, &all, None).await.unwrap();
                let observed = memory.observe(&all).await.unwrap();
                prop_assert!(up(&all, None, &observed, UpOptions::default()).unwrap().stages.is_empty());
                Ok(())
            })?;
        }
    }
}
