use super::*;
use crate::doctor::Verdict;
use crate::doctor::facts::Reach;
use crate::plan::{Conflict, Observed};
use crate::probe::{Dial, NodeView};
use crate::runtime::describe::{Description, Network};
use crate::runtime::{Leftover, LeftoverKind};
use crate::spec::{ClusterSpec, Profile};
use crate::topology::desired;

fn cluster() -> Desired {
    let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
    spec.masters = 1;
    spec.slaves = 1;
    desired(&spec, &Site::Network).unwrap()
}

/// All as it shall be.
fn well(desired: &Desired) -> Facts {
    let mut facts = Facts {
        runtime: "docker",
        observed: Observed {
            network: Some(desired.network.clone()),
            subnet: Some("172.28.0.0/16".into()),
            image: Some("rmqctl/engine:x".into()),
            ..Observed::default()
        },
        ..Facts::default()
    };
    let mut addresses: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for node in &desired.nodes {
        facts.observed.nodes.push(ObservedNode {
            id: "0".into(),
            name: node.name.clone(),
            container: node.container.clone(),
            broker: None,
            cut_off: false,
            ports: Vec::new(),
            config_hash: node.config_hash.clone(),
            state: NodeState::Running,
            image: Some("rmqctl/engine:x".into()),
            version: None,
            started_at: Some(1),
            restarts: 0,
            oom_killed: false,
        });
        let address = node
            .port("main")
            .and_then(|p| p.host)
            .map(|port| format!("127.0.0.1:{port}"));
        facts.view.nodes.insert(
            node.name.clone(),
            NodeView {
                answers: true,
                registered: address.clone(),
                lag: (node.role == Role::Slave).then_some(0),
                version: node.broker.as_ref().map(|_| "V5_3_3".into()),
                ..NodeView::default()
            },
        );
        let end = Network {
            name: desired.network.clone(),
            address: None,
            gateway: Some("172.28.0.1".into()),
            aliases: vec![],
        };
        let described = Description {
            networks: vec![end],
            ..Description::default()
        };
        facts.descriptions.insert(node.name.clone(), described);
        if let Some((_, text)) = &node.file {
            let text = match node.role {
                Role::Namesrv => {
                    format!("{text}\ninternalSubnet=172.28.0.0/16\ninternalGateway=172.28.0.1\n")
                }
                _ => text.clone(),
            };
            facts.files.insert(node.name.clone(), text);
        }
        if let (Some(broker), Some(address)) = (&node.broker, address) {
            addresses
                .entry(broker.name.clone())
                .or_default()
                .insert(broker.id.to_string(), address);
            let info = [("commitLogDiskRatio".to_owned(), "0.40".to_owned())];
            facts.brokers.insert(
                node.name.clone(),
                BrokerFacts {
                    info: info.into(),
                    follows: (node.role == Role::Slave).then(|| "rmqmaster1:10912".into()),
                    ..BrokerFacts::default()
                },
            );
        }
    }
    facts.routes.insert("rmqnamesrv".into(), addresses);
    let shown = ["broker-a:0", "broker-a:1"].map(|name| (name.to_owned(), None));
    facts.console = Some(Ok(shown.into()));
    facts
}

/// The one check that did not come out well.
fn only(desired: &Desired, facts: &Facts, id: &str) -> Check {
    let mut bad: Vec<Check> = judge(desired, facts)
        .into_iter()
        .filter(|check| check.verdict != Verdict::Good)
        .collect();
    let ids: Vec<&str> = bad.iter().map(|check| check.id).collect();
    assert_eq!(ids, [id], "{bad:#?}");
    let check = bad.remove(0);
    assert!(
        !check.remedies.is_empty() || id == "versions",
        "{id} says nothing of what mends it"
    );
    check
}

fn observed<'a>(facts: &'a mut Facts, name: &str) -> &'a mut ObservedNode {
    facts
        .observed
        .nodes
        .iter_mut()
        .find(|n| n.name == name)
        .unwrap()
}

#[test]
fn a_cluster_that_is_well_has_no_fault() {
    let desired = cluster();
    let bad: Vec<Check> = judge(&desired, &well(&desired))
        .into_iter()
        .filter(|check| check.verdict != Verdict::Good)
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn a_node_that_does_not_run_is_a_fault_that_can_be_fixed() {
    let desired = cluster();
    let mut facts = well(&desired);
    observed(&mut facts, "rmqslave1").state = NodeState::Exited(Some(137));
    facts.descriptions.get_mut("rmqslave1").unwrap().exit_code = Some(137);
    let check = only(&desired, &facts, "nodes");
    assert_eq!((check.verdict, check.fixable), (Fault, true));
    assert!(check.details[0].contains("exited (137)") && check.details[0].contains("SIGKILL"));
    assert!(
        check.remedies.iter().any(|r| r == "rmqctl why rmqslave1"),
        "{check:?}"
    );
}

#[test]
fn a_full_disk_is_said_as_such_before_brokers_refuse() {
    let desired = cluster();
    let mut facts = well(&desired);
    let mut fill = |ratio: &str| {
        let broker = facts.brokers.get_mut("rmqmaster1").unwrap();
        broker
            .info
            .insert("commitLogDiskRatio".into(), ratio.into());
        broker.config = Some([("diskMaxUsedSpaceRatio".to_owned(), "90".to_owned())].into());
        only(&desired, &facts, "disk")
    };
    let check = fill("0.92");
    assert_eq!((check.verdict, check.found.as_str()), (Fault, "DISK 92 %"));
    assert_eq!(fill("0.85").verdict, Warning);
}

#[test]
fn an_address_that_nobody_reaches_and_an_identity_that_nobody_knows_are_faults() {
    let desired = cluster();
    let mut facts = well(&desired);
    let wrong = Some("172.28.0.3:10911".to_owned());
    facts.view.nodes.get_mut("rmqmaster1").unwrap().registered = wrong;
    let check = only(&desired, &facts, "registration");
    assert!(check.details[0].contains("registered 172.28.0.3:10911, not 127.0.0.1:10911"));

    let mut facts = well(&desired);
    let strangers = [("0".to_owned(), "10.0.0.9:10911".to_owned())].into();
    facts
        .routes
        .get_mut("rmqnamesrv")
        .unwrap()
        .insert("broker-x".into(), strangers);
    let check = only(&desired, &facts, "registration");
    assert!(check.details[0].contains("broker-x:0 at 10.0.0.9:10911"));
}

#[test]
fn what_is_not_reached_says_from_where() {
    let desired = cluster();
    let mut facts = well(&desired);
    let reach = |purpose, to: &str| Reach {
        from: "rmqnamesrv".into(),
        to: to.into(),
        purpose,
        dial: Dial {
            address: format!("{to}:1"),
            fault: Some("connection refused".into()),
        },
    };
    facts.reach = vec![reach("main", "rmqmaster1")];
    let check = only(&desired, &facts, "reachability");
    assert_eq!(
        check.details,
        ["rmqnamesrv -> rmqmaster1 at rmqmaster1:1: connection refused"]
    );
    facts.reach = vec![reach("vip", "rmqmaster1")];
    assert_eq!(only(&desired, &facts, "vip").verdict, Warning);
}

#[test]
fn a_slave_that_follows_another_master_or_none_is_a_fault_and_one_behind_is_not() {
    let desired = cluster();
    let mut facts = well(&desired);
    facts.brokers.get_mut("rmqslave1").unwrap().follows = Some("rmqmaster2:13912".into());
    let check = only(&desired, &facts, "replication");
    assert_eq!(check.verdict, Fault);
    assert!(
        check.details[0].contains("follows rmqmaster2:13912"),
        "{check:?}"
    );

    let mut facts = well(&desired);
    facts.view.nodes.get_mut("rmqslave1").unwrap().lag = Some(12);
    assert_eq!(only(&desired, &facts, "replication").verdict, Warning);
    facts.view.nodes.get_mut("rmqslave1").unwrap().lag = None;
    assert_eq!(only(&desired, &facts, "replication").verdict, Fault);
}

#[test]
fn a_name_server_that_takes_another_subnet_for_its_own_is_a_fault() {
    let desired = cluster();
    let mut facts = well(&desired);
    facts.observed.subnet = Some("172.30.0.0/16".into());
    let check = only(&desired, &facts, "network");
    assert!(
        check.details[0]
            .contains("internalSubnet is 172.28.0.0/16, but the network's is 172.30.0.0/16")
    );
}

#[test]
fn a_foreign_process_on_a_port_is_named() {
    let desired = cluster();
    let mut facts = well(&desired);
    facts.observed.conflicts.push(Conflict {
        what: "host port 10911".into(),
        holder: "process java (pid 4711)".into(),
        node: "rmqmaster1".into(),
        ..Conflict::default()
    });
    let check = only(&desired, &facts, "ports");
    assert_eq!(
        check.details,
        ["rmqmaster1 needs host port 10911, held by process java (pid 4711)"]
    );
}

#[test]
fn two_programs_with_one_client_id_are_told() {
    let desired = cluster();
    let mut facts = well(&desired);
    let client = |id: &str, port: u16| (id.to_owned(), format!("127.0.0.1:{port}"));
    let group = |clients: Vec<(String, String)>| [("orders".to_owned(), clients)].into();
    facts.brokers.get_mut("rmqmaster1").unwrap().consumers =
        group(vec![client("10.0.0.5@7", 1), client("10.0.0.5@8", 2)]);
    facts.brokers.get_mut("rmqslave1").unwrap().consumers = group(vec![client("10.0.0.5@7", 3)]);
    assert!(
        judge(&desired, &facts)
            .iter()
            .all(|c| c.verdict == Verdict::Good)
    );
    facts.brokers.get_mut("rmqmaster1").unwrap().consumers =
        group(vec![client("10.0.0.5@7", 1), client("10.0.0.5@7", 2)]);
    assert!(
        only(&desired, &facts, "clients").details[0].contains("10.0.0.5@7 is connected 2 times")
    );
}

#[test]
fn settings_that_a_node_does_not_run_with_are_named() {
    let desired = cluster();
    let mut facts = well(&desired);
    let text = facts.files["rmqmaster1"].clone();
    facts.edited.insert(
        "rmqmaster1".into(),
        text.replace("fileReservedTime=48", "fileReservedTime=72"),
    );
    assert!(only(&desired, &facts, "settings").details[0].contains("fileReservedTime 48 → 72"));
    facts.edited.clear();
    let running = [("fileReservedTime".to_owned(), "24".to_owned())];
    facts.brokers.get_mut("rmqmaster1").unwrap().config = Some(running.into());
    assert!(
        only(&desired, &facts, "settings").details[0]
            .contains("runs with fileReservedTime=24, its file says 48")
    );
}

#[test]
fn what_the_spec_does_not_name_and_a_clock_that_is_off_are_warnings() {
    let desired = cluster();
    let mut facts = well(&desired);
    facts.observed.volumes = vec!["rmqslave9-store".into()];
    let check = only(&desired, &facts, "leftovers");
    assert_eq!(check.verdict, Warning);

    let mut facts = well(&desired);
    (facts.now, facts.about.clock) = (1000, Some(1002));
    assert!(
        judge(&desired, &facts)
            .iter()
            .all(|c| c.verdict == Verdict::Good)
    );
    facts.about.clock = Some(940);
    assert!(only(&desired, &facts, "clock").details[0].contains("60 s apart"));
}

#[test]
fn a_partition_on_purpose_is_told_once_with_what_ends_it() {
    let desired = cluster();
    let mut facts = well(&desired);
    for (node, peer) in [("rmqslave1", "rmqnamesrv"), ("rmqnamesrv", "rmqslave1")] {
        let view = facts.view.nodes.get_mut(node).unwrap();
        view.cut_off.push(peer.into());
    }
    let check = only(&desired, &facts, "partitions");
    assert_eq!(
        check.details,
        ["rmqnamesrv and rmqslave1 do not reach each other"]
    );
    assert_eq!(check.remedies, ["rmqctl chaos heal rmqnamesrv rmqslave1"]);
}

#[test]
fn an_orphan_network_is_a_leftover_that_fix_removes() {
    let desired = cluster();
    let mut facts = well(&desired);
    facts.networks.push(Leftover {
        kind: LeftoverKind::Network,
        name: "ci7-rmqnetwork".into(),
        cluster: Some("ci7".into()),
        created_at: None,
        has_messages: false,
    });
    let check = only(&desired, &facts, "leftovers");
    assert_eq!(
        check.details,
        ["network ci7-rmqnetwork of cluster ci7 has no node and no messages"]
    );
    assert!(check.fixable);
    assert_eq!(
        check.remedies,
        ["rmqctl doctor --fix   removes such networks"]
    );
}
