use super::*;
use crate::plan::tests::converges::walk_on_memory;
use crate::plan::tests::{at_network, cluster, running, steps};
use crate::plan::undo;
use crate::runtime::Runtime;
use crate::runtime::memory::Memory;

const DRAINED: ScaleOptions = ScaleOptions {
    drain: true,
    settle: Duration::from_secs(35),
    volumes: false,
};

/// The plan from a cluster of `before` masters and slaves to one of `after`.
fn planned(before: (u32, u32), after: (u32, u32), options: ScaleOptions) -> Plan {
    let (before, after) = (
        at_network(&cluster(before.0, before.1)),
        at_network(&cluster(after.0, after.1)),
    );
    scale(&after, Some(&before), &before, &running(&before), options).unwrap()
}

#[test]
fn growing_is_up_with_more() {
    let plan = planned((1, 1), (2, 2), DRAINED);
    assert_eq!(
        steps(&plan),
        "create volume rmqmaster2-store, create volume rmqslave2-store
keep the spec
create rmqmaster2, start rmqmaster2, create rmqslave2, start rmqslave2
"
    );
}

#[test]
fn masters_are_emptied_together_and_stop_before_the_kept_spec_forgets_them() {
    let plan = planned((3, 3), (1, 1), DRAINED);
    assert_eq!(
        steps(&plan),
        "drain rmqmaster2, rmqmaster3
stop rmqmaster2, stop rmqmaster3
keep the spec
stop rmqslave2, stop rmqslave3
remove rmqmaster2, remove rmqmaster3, remove rmqslave2, remove rmqslave3
"
    );
    assert_eq!(
        plan.to_string().lines().last(),
        Some("  5 unchanged · 4 to remove.")
    );
    let drain = &plan.stages[0][0].action;
    let Action::Drain(departure) = drain else {
        panic!("{drain}")
    };
    let copies: Vec<(String, &str)> = departure
        .groups
        .iter()
        .map(|g| (g.name(), g.slaves[0].name.as_str()))
        .collect();
    assert_eq!(
        copies,
        [
            ("broker-b".to_owned(), "rmqslave2"),
            ("broker-c".to_owned(), "rmqslave3")
        ]
    );
}

#[test]
fn slaves_are_copies_and_go_without_ado() {
    assert_eq!(
        steps(&planned((2, 4), (2, 2), DRAINED)),
        "keep the spec
stop rmqslave3, stop rmqslave4
remove rmqslave3, remove rmqslave4
"
    );
}

#[test]
fn a_master_that_waits_for_its_last_slave_stops_waiting_before_the_slave_goes() {
    let mut spec = cluster(1, 1);
    spec.replication = crate::spec::Mode::Sync;
    let before = at_network(&spec);
    spec.slaves = 0;
    let after = at_network(&spec);
    let plan = scale(&after, Some(&before), &before, &running(&before), DRAINED).unwrap();
    let text = steps(&plan);
    let at = |what: &str| {
        text.find(what)
            .unwrap_or_else(|| panic!("no {what} in {text}"))
    };
    assert!(at("create rmqmaster1") < at("stop rmqslave1"), "{text}");
}

#[test]
fn a_slave_that_gets_another_master_drops_its_copy_once_its_old_master_is_empty() {
    let plan = planned((2, 2), (1, 2), DRAINED);
    assert_eq!(
        steps(&plan),
        "drain rmqmaster2
stop rmqmaster2
keep the spec
stop rmqslave2
remove rmqslave2
remove volume rmqslave2-store
create volume rmqslave2-store
create rmqslave2
start rmqslave2
wait for rmqslave2
remove rmqmaster2
"
    );
    let told = plan.to_string();
    assert!(
        told.contains("goes from broker-b:1 to broker-a:2: its copy of broker-b:1 is dropped"),
        "{told}"
    );
}

#[test]
fn a_slave_keeps_what_may_be_the_only_copy() {
    let (before, after) = (at_network(&cluster(2, 2)), at_network(&cluster(1, 2)));
    let mut seen = running(&before);
    seen.nodes.retain(|n| n.name != "rmqmaster2");
    let error = scale(&after, Some(&before), &before, &seen, DRAINED).unwrap_err();
    assert_eq!(
        error.title,
        "rmqslave2 would be broker-a:2, and is broker-b:1, whose master is gone"
    );
}

#[test]
fn a_leaving_master_that_an_interrupted_run_stopped_is_asked_again() {
    let (before, after) = (at_network(&cluster(2, 0)), at_network(&cluster(1, 0)));
    let mut seen = running(&before);
    let master = seen.nodes.iter_mut().find(|n| n.name == "rmqmaster2");
    master.unwrap().state = NodeState::Exited(Some(0));
    // The kept spec may name it no longer; the larger cluster tells what it is.
    let plan = scale(&after, Some(&after), &before, &seen, DRAINED).unwrap();
    assert!(
        steps(&plan).starts_with("start rmqmaster2\ndrain rmqmaster2\nstop rmqmaster2\n"),
        "{}",
        steps(&plan)
    );
}

#[test]
fn force_empties_nothing_and_volumes_go_only_when_told() {
    let options = ScaleOptions {
        drain: false,
        volumes: true,
        ..DRAINED
    };
    assert_eq!(
        steps(&planned((2, 0), (1, 0), options)),
        "stop rmqmaster2
keep the spec
remove rmqmaster2
remove volume rmqmaster2-store
"
    );
}

#[test]
fn a_run_that_ends_between_emptying_and_stopping_lets_the_master_take_sends_again() {
    let plan = planned((2, 0), (1, 0), DRAINED);
    let drained = &plan.stages[0];
    assert_eq!(steps(&undo(drained)), "open broker-b for sends\n");
    let stopped: Vec<Step> = plan.stages[..2].concat();
    assert_eq!(steps(&undo(&stopped)), "");
}

#[test]
fn a_new_cluster_is_taken_back_whole_and_volumes_that_were_there_stay() {
    let all = at_network(&cluster(1, 0));
    let seen = Observed {
        volumes: vec!["rmqmaster1-store".into()],
        ..Observed::default()
    };
    let plan = up(&all, None, &seen, UpOptions::default()).unwrap();
    let touched: Vec<Step> = plan.stages.concat();
    assert_eq!(
        steps(&undo(&touched)),
        "stop rmqconsole, stop rmqmaster1, stop rmqnamesrv
remove rmqconsole, remove rmqmaster1, remove rmqnamesrv
remove volume rmqnamesrv-store
remove network
"
    );
    let later: Vec<Step> = touched
        .into_iter()
        .filter(|step| step.action != Action::CreateNetwork)
        .collect();
    assert_eq!(steps(&undo(&later)), "", "the cluster stood before");
}

#[test]
fn what_a_killed_scale_left_closed_is_opened_by_up() {
    let all = at_network(&cluster(2, 0));
    let mut seen = running(&all);
    seen.closed = vec!["broker-b".into()];
    let plan = up(&all, Some(&all), &seen, UpOptions::default()).unwrap();
    assert_eq!(steps(&plan), "open broker-b for sends\n");
    assert!(!plan.is_nothing());
}

mod converges {
    use proptest::prelude::*;

    use super::*;

    async fn scale_once(memory: &Memory, desired: &Desired, all: &Desired) -> Plan {
        let observed = memory.observe(desired).await.unwrap();
        let plan = scale(desired, None, all, &observed, DRAINED).unwrap();
        walk_on_memory(memory, desired, plan).await
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// From any counts to any others, broken off at any step and given again: it gets there, then has nothing to do, and no
        /// volume of a master is gone.
        #[test]
        fn scale_converges_from_any_step(
            before in (1..5u32, 0..6u32), after in (1..5u32, 0..6u32), fail_at in 1..40usize
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let memory = Memory::default();
                let all = at_network(&cluster(before.0.max(after.0), before.1.max(after.1)));
                let first = at_network(&cluster(before.0, before.1));
                // Slaves of the larger cluster may have other masters; names and ports are the same.
                let plan = up(&first, None, &Observed::default(), UpOptions::default()).unwrap();
                walk_on_memory(&memory, &first, plan).await;
                let desired = at_network(&cluster(after.0, after.1));
                memory.fail_at(fail_at);
                scale_once(&memory, &desired, &all).await;
                memory.fail_at(0);
                scale_once(&memory, &desired, &all).await;
                let plan = scale_once(&memory, &desired, &all).await;
                prop_assert!(plan.is_nothing() && plan.stages.iter().all(Vec::is_empty), "{plan}\n{}", steps(&plan));
                let observed = memory.observe(&desired).await.unwrap();
                prop_assert_eq!(observed.nodes.len(), desired.nodes.len());
                prop_assert!(observed.nodes.iter().all(|n| n.state == NodeState::Running));
                for number in 1..=before.0.max(after.0) {
                    let volume = format!("rmqmaster{number}-store");
                    prop_assert!(observed.volumes.contains(&volume), "{} is gone", volume);
                }
                Ok(())
            })?;
        }
    }
}
