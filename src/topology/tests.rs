use super::*;
use crate::spec::{Mode, NodeSpec, Profile, Properties};

fn spec(masters: u32, slaves: u32) -> ClusterSpec {
    let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
    (spec.masters, spec.slaves) = (masters, slaves);
    spec
}

fn table(spec: &ClusterSpec) -> String {
    let all = desired(spec, &Site::Network).unwrap();
    all.nodes
        .iter()
        .map(|n| {
            let ports: Vec<String> = n
                .ports
                .iter()
                .filter_map(|p| p.host)
                .map(|p| p.to_string())
                .collect();
            format!(
                "{} {} {} {}\n",
                n.container,
                n.broker_text(),
                ports.join("/"),
                n.file.as_ref().map_or("-", |f| &f.0)
            )
        })
        .collect()
}

#[test]
fn ports_and_names_are_those_of_the_users_table() {
    assert_eq!(
        table(&spec(3, 4)),
        "rmqnamesrv - 9876 namesrv.properties\n\
             rmqmaster1 broker-a:0 10911/10909 broker-a-master.properties\n\
             rmqmaster2 broker-b:0 13911/13909 broker-b-master.properties\n\
             rmqmaster3 broker-c:0 15911/15909 broker-c-master.properties\n\
             rmqslave1 broker-a:1 11911/11909 broker-a-slave1.properties\n\
             rmqslave2 broker-b:1 12911/12909 broker-b-slave1.properties\n\
             rmqslave3 broker-c:1 14911/14909 broker-c-slave1.properties\n\
             rmqslave4 broker-a:2 16911/16909 broker-a-slave2.properties\n\
             rmqconsole - 8181 -\n"
    );
}

#[test]
fn one_master_takes_all_slaves() {
    let table = table(&spec(1, 2));
    assert!(
        table.contains("rmqslave1 broker-a:1 11911")
            && table.contains("rmqslave2 broker-a:2 12911"),
        "{table}"
    );
}

#[test]
fn a_named_cluster_has_a_prefix_outside_and_the_same_names_inside() {
    let mut other = spec(1, 1);
    other.name = "ci42".into();
    other.port_offset = 100;
    other.namesrvs = 2;
    let all = desired(&other, &Site::Network).unwrap();
    assert_eq!(
        (
            all.network.as_str(),
            all.nodes[0].container.as_str(),
            all.nodes[0].name.as_str(),
            all.nodes[2].volume.as_deref()
        ),
        (
            "ci42-rmqnetwork",
            "ci42-rmqnamesrv",
            "rmqnamesrv",
            Some("ci42-rmqmaster1-store")
        )
    );
    assert_eq!(all.namesrv_addrs(), ["127.0.0.1:9976", "127.0.0.1:9977"]);
    let text = &all.nodes[2].file.as_ref().unwrap().1;
    assert!(
        text.contains("\nnamesrvAddr=rmqnamesrv:9876;rmqnamesrv2:9876\n"),
        "{text}"
    );
    assert!(
        text.contains("\nlistenPort=11011\n")
            && text.contains("\nbrokerInternalAddr=rmqmaster1:11011\n"),
        "{text}"
    );
}

#[test]
fn adding_a_slave_changes_no_other_node() {
    let before = desired(&spec(2, 2), &Site::Network).unwrap();
    let after = desired(&spec(2, 3), &Site::Network).unwrap();
    let new: Vec<&str> = after
        .nodes
        .iter()
        .filter(|n| !before.nodes.contains(n))
        .map(|n| n.name.as_str())
        .collect();
    assert_eq!(new, ["rmqslave3"]);
}

#[test]
fn sync_replication_waits_for_a_slave_only_where_there_is_one() {
    let mut sync = spec(2, 1);
    sync.replication = Mode::Sync;
    let all = desired(&sync, &Site::Network).unwrap();
    let text = |name: &str| {
        all.nodes
            .iter()
            .find(|n| n.name == name)
            .unwrap()
            .file
            .clone()
            .unwrap()
            .1
    };
    assert!(
        text("rmqmaster1").contains("\nbrokerRole=SYNC_MASTER\n")
            && text("rmqmaster1").contains("\ninSyncReplicas=2\n")
    );
    assert!(text("rmqmaster2").contains("\ninSyncReplicas=1\n"));
    assert!(text("rmqslave1").contains("\nbrokerRole=SLAVE\n"));
}

#[test]
fn a_node_beats_its_broker_which_beats_all_which_beats_the_profile() {
    let mut spec = spec(1, 1);
    let one = |value: &str| Properties::from([("fileReservedTime".to_owned(), value.to_owned())]);
    spec.properties = one("1");
    spec.brokers.insert("broker-a".into(), one("2"));
    spec.nodes.insert(
        "rmqslave1".into(),
        NodeSpec {
            properties: one("3"),
            ..NodeSpec::default()
        },
    );
    let all = desired(&spec, &Site::Network).unwrap();
    assert!(
        all.nodes[1]
            .file
            .as_ref()
            .unwrap()
            .1
            .contains("\nfileReservedTime=2\n")
    );
    assert!(
        all.nodes[2]
            .file
            .as_ref()
            .unwrap()
            .1
            .contains("\nfileReservedTime=3\n")
    );
}

#[test]
fn nodes_are_found_by_every_name_they_have() {
    let all = desired(&spec(2, 2), &Site::Network).unwrap();
    let find = |typed: &str| -> Vec<String> {
        all.select(&[typed.to_owned()])
            .unwrap()
            .iter()
            .map(|n| n.name.clone())
            .collect()
    };
    assert_eq!(find("master1"), ["rmqmaster1"]);
    assert_eq!(find("broker-a"), ["rmqmaster1", "rmqslave1"]);
    assert_eq!(find("broker-b:1"), ["rmqslave2"]);
    assert_eq!(
        all.select(&["rmqmastr1".to_owned()])
            .unwrap_err()
            .to_string(),
        "error[RMQ-E111]: no node `rmqmastr1`\n  there are: rmqnamesrv, rmqmaster1, rmqmaster2, rmqslave1, rmqslave2, rmqconsole\n\
             hint: did you mean `rmqmaster1`?\n"
    );
}

#[test]
fn a_cluster_that_does_not_fit_below_65536_is_refused() {
    assert!(desired(&spec(27, 28), &Site::Network).is_ok());
    let error = desired(&spec(28, 28), &Site::Network).unwrap_err();
    assert_eq!(
        (error.id, error.title.as_str()),
        ("RMQ-E105", "rmqmaster28 would have port 65911, above 65535")
    );
}

#[test]
fn two_nodes_on_one_port_are_refused() {
    let mut spec = spec(1, 1);
    spec.nodes.insert(
        "rmqslave1".into(),
        NodeSpec {
            main_port: Some(10911),
            ..NodeSpec::default()
        },
    );
    let error = desired(&spec, &Site::Network).unwrap_err();
    assert_eq!(
        error.title,
        "rmqmaster1 and rmqslave1 would both have port 10911"
    );
}

#[test]
fn processes_share_one_host_so_addresses_are_loopback_and_paths_are_their_own() {
    let all = desired(
        &spec(1, 1),
        &Site::Loopback {
            dir: "/run/x".into(),
        },
    )
    .unwrap();
    let text = &all.nodes[2].file.as_ref().unwrap().1;
    for line in [
        "namesrvAddr=127.0.0.1:9876",
        "brokerIP2=127.0.0.1",
        "bindAddress=127.0.0.1",
        "storePathRootDir=/run/x/rmqslave1/store",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    assert!(!text.contains("brokerInternalAddr"));
    assert_eq!(
        all.nodes[2].command,
        [
            "engine",
            "broker",
            "-c",
            "/run/x/rmqslave1/broker-a-slave1.properties"
        ]
    );
}
