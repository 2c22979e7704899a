//! What a cluster must be told so that adopted nodes are what they were: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::old::{OldBroker, is_place};
use crate::commands::engine;
use crate::properties;
use crate::spec::{self, Draft, NodeSpec, Properties, Verdict};
use crate::topology::{Node, Role};

/// Properties that rmqctl writes for reasons of its own: they follow from the topology, or let more be read than before.
const RMQCTLS: [&str; 3] = ["brokerRole", "inSyncReplicas", "slaveReadEnable"];

/// What became of one broker's properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What the node is to have, where that is not what it would have anyway.
    pub kept: Properties,
    /// Lines that are left out, each with why.
    pub dropped: Vec<String>,
    /// Lines that the engine cannot follow, each with why.
    pub refused: Vec<String>,
}

/// Compares what a broker had with what its node would have. `bundled`: whether the engine is ours.
pub fn take(old: &OldBroker, node: &Node, bundled: bool) -> Taken {
    let text = node.file.as_ref().map_or("", |(_, text)| text);
    let planned = properties::read(text).unwrap_or_default();
    let had = engine::effective(Role::Master, &old.said);
    let has = engine::effective(Role::Master, &planned);
    let mut taken = Taken::default();
    let mut keep = |key: &str, value: &str| {
        taken.kept.insert(key.to_owned(), spec::padded(key, value));
    };
    // What nobody said was RocketMQ's default, and rmqctl's may be another.
    for key in planned.keys() {
        if spec::decided(key).is_some() || is_place(key) || RMQCTLS.contains(&key.as_str()) {
            continue;
        }
        if let (Some(was), Some(would)) = (had.get(key), has.get(key))
            && was != would
        {
            keep(key, was);
        }
    }
    // Files say more than properties, which may have been changed since.
    let mut measured = Vec::new();
    for (key, found) in [
        ("mappedFileSizeCommitLog", old.log_file),
        ("mappedFileSizeConsumeQueue", old.queue_file),
    ] {
        let Some(size) = found.filter(|size| *size > 0) else {
            continue;
        };
        measured.push(key);
        let size = size.to_string();
        match has.get(key) == Some(&size) {
            true => drop(taken.kept.remove(key)),
            false => drop(taken.kept.insert(key.to_owned(), size)),
        }
    }
    let rocksdb = |key: &str, value: &str| match key {
        "storeType" => value.to_ascii_lowercase().contains("rocksdb"),
        "configManagerVersion" => value.eq_ignore_ascii_case("v2"),
        _ => false,
    };
    for (key, value) in &old.said {
        if rocksdb(key, value) && bundled {
            let why = format!(
                "{key}={value}: its offsets and topics are in RocksDB, which this engine does not read"
            );
            taken.refused.push(why);
            continue;
        }
        let is_role = key == "brokerRole" && (value == "SLAVE" || node.role == Role::Slave);
        if spec::decided(key).is_some()
            || is_place(key)
            || is_role
            || measured.contains(&key.as_str())
            || taken.kept.contains_key(key)
        {
            continue;
        }
        match engine::lint(key, value) {
            Verdict::Unknown(_) => taken
                .dropped
                .push(format!("{key}={value}: no property of a broker")),
            Verdict::Wrong(why) if bundled => taken.refused.push(format!("{key}: {why}")),
            Verdict::NoEffect if bundled => {
                taken
                    .dropped
                    .push(format!("{key}={value}: it has no effect in this engine"));
            }
            _ if had.get(key) == has.get(key) => {}
            _ => drop(taken.kept.insert(key.clone(), spec::padded(key, value))),
        }
    }
    taken
}

/// What all brokers are to have in common, and what each has of its own besides. Common ones hold for brokers to come as well: a slave's
/// files must be as large as its master's.
pub fn share(all: &BTreeMap<String, Properties>, alone: bool) -> Draft {
    let mut draft = Draft {
        origin: "the adopted containers".to_owned(),
        ..Draft::default()
    };
    if alone && let Some((_, first)) = all.iter().next() {
        draft.properties = first
            .iter()
            .filter(|(key, value)| all.values().all(|other| other.get(*key) == Some(value)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
    }
    for (node, properties) in all {
        let own: Properties = properties
            .iter()
            .filter(|(key, _)| !draft.properties.contains_key(*key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !own.is_empty() {
            let spec = NodeSpec {
                properties: own,
                ..NodeSpec::default()
            };
            draft.nodes.insert(node.clone(), spec);
        }
    }
    draft
}

/// The one address that masters told their clients, where they were told one and agree. A loopback one is the default; one of Docker's own
/// networks ends with its container.
pub fn advertised(all: &[&OldBroker]) -> Option<String> {
    let is_dockers = |old: &OldBroker, said: &str| {
        let usual = said.parse::<Ipv4Addr>().is_ok_and(|ip| {
            let [a, b, ..] = ip.octets();
            a == 172 && (16..32).contains(&b)
        });
        old.addresses.iter().any(|own| own == said) || (old.addresses.is_empty() && usual)
    };
    let said: BTreeSet<&String> = all
        .iter()
        .filter_map(|old| {
            old.said
                .get("brokerIP1")
                .filter(|said| !is_dockers(old, said))
        })
        .collect();
    let mut said = said.into_iter();
    match (said.next(), said.next()) {
        (Some(one), None) if !spec::is_loopback(one) => Some(one.clone()),
        _ => None,
    }
}

/// How a broker of another name or id than its node's cannot become it; `rename` lets it have the node's, but a copy of one master's log
/// never becomes another's.
pub fn mismatch(old: &OldBroker, node: &Node, rename: bool) -> Option<String> {
    let broker = node.broker.as_ref()?;
    if old.name == broker.name && old.id == broker.id {
        return None;
    }
    let other_role = (old.id == 0) != (broker.id == 0);
    if rename && !other_role {
        return None;
    }
    Some(format!(
        "{} would be {}:{}, and its container is {}:{}{}",
        node.name,
        broker.name,
        broker.id,
        old.name,
        old.id,
        if other_role {
            ", which is another role"
        } else {
            ""
        }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::{Site, desired};

    fn master() -> Node {
        let spec = ClusterSpec::defaults("rmq", Profile::Prod, "/x".into());
        desired(&spec, &Site::Network).unwrap().nodes[1].clone()
    }

    fn old(said: &[(&str, &str)]) -> OldBroker {
        OldBroker {
            said: said
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            name: "broker-a".into(),
            ..OldBroker::default()
        }
    }

    fn kept(old: &OldBroker) -> Vec<String> {
        let taken = take(old, &master(), true);
        taken.kept.iter().map(|(k, v)| format!("{k}={v}")).collect()
    }

    #[test]
    fn what_nobody_said_stays_rocketmqs_default() {
        // Messages would be deleted a day earlier otherwise.
        assert_eq!(kept(&old(&[])), ["fileReservedTime=72"]);
        assert_eq!(kept(&old(&[("fileReservedTime", "48")])), [""; 0]);
    }

    #[test]
    fn what_was_said_is_kept_and_what_follows_from_the_topology_is_not() {
        let old = old(&[
            ("brokerName", "broker-a"),
            ("namesrvAddr", "namesrv:9876"),
            ("storePathRootDir", "/home/rocketmq/store"),
            ("storePathIndex", "/x"),
            ("brokerRole", "SYNC_MASTER"),
            ("deleteWhen", "4"),
            ("maxMessageSize", "8388608"),
            ("fileReservedTime", "120"),
            ("brokerRoel", "x"),
            ("sendMessageThreadPoolNums", "4"),
        ]);
        assert_eq!(
            kept(&old),
            [
                "brokerRole=SYNC_MASTER",
                "deleteWhen=04",
                "fileReservedTime=120",
                "maxMessageSize=8388608"
            ]
        );
        let dropped = take(&old, &master(), true).dropped;
        assert_eq!(dropped.len(), 2, "{dropped:?}");
    }

    #[test]
    fn sizes_are_those_of_the_files_that_there_are() {
        let mut broker = old(&[
            ("fileReservedTime", "48"),
            ("mappedFileSizeCommitLog", "4096000"),
        ]);
        broker.log_file = Some(1 << 26);
        broker.queue_file = Some(6_000_000);
        assert_eq!(kept(&broker), ["mappedFileSizeCommitLog=67108864"]);
        broker.log_file = Some(1 << 30);
        assert_eq!(kept(&broker), [""; 0]);
    }

    #[test]
    fn what_the_engine_cannot_do_is_refused() {
        let refused = |key: &str, value: &str| take(&old(&[(key, value)]), &master(), true).refused;
        assert_eq!(refused("flushDiskType", "SOMETIMES").len(), 1);
        assert!(refused("maxMessageSize", "1024").is_empty());
    }

    #[test]
    fn common_properties_are_everybodys_and_a_cluster_that_stands_keeps_its_own() {
        let one = |pairs: &[(&str, &str)]| -> Properties {
            pairs
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect()
        };
        let all = BTreeMap::from([
            ("rmqmaster1".to_owned(), one(&[("a", "1"), ("b", "1")])),
            ("rmqslave1".to_owned(), one(&[("a", "1"), ("b", "2")])),
        ]);
        let draft = share(&all, true);
        assert_eq!(draft.properties, one(&[("a", "1")]));
        assert_eq!(draft.nodes["rmqslave1"].properties, one(&[("b", "2")]));
        let draft = share(&all, false);
        assert!(draft.properties.is_empty());
        assert_eq!(draft.nodes["rmqmaster1"].properties.len(), 2);
    }

    #[test]
    fn a_broker_of_another_name_needs_a_yes_and_of_another_role_never_fits() {
        let mut broker = old(&[]);
        assert_eq!(mismatch(&broker, &master(), false), None);
        broker.name = "broker-1".into();
        let said = mismatch(&broker, &master(), false).unwrap();
        assert_eq!(
            said,
            "rmqmaster1 would be broker-a:0, and its container is broker-1:0"
        );
        assert_eq!(mismatch(&broker, &master(), true), None);
        broker.id = 1;
        assert!(
            mismatch(&broker, &master(), true)
                .unwrap()
                .contains("another role")
        );
    }

    #[test]
    fn an_address_is_advertised_when_all_say_the_same() {
        let (a, b) = (
            old(&[("brokerIP1", "10.0.0.5")]),
            old(&[("brokerIP1", "10.0.0.6")]),
        );
        assert_eq!(advertised(&[&a, &old(&[])]).as_deref(), Some("10.0.0.5"));
        assert_eq!(advertised(&[&a, &b]), None);
        assert_eq!(advertised(&[&old(&[("brokerIP1", "127.0.0.1")])]), None);
        let mut own = old(&[("brokerIP1", "172.17.0.3")]);
        assert_eq!(advertised(&[&own]), None);
        own.addresses = vec!["172.18.0.9".into()];
        assert_eq!(advertised(&[&own]).as_deref(), Some("172.17.0.3"));
        own.addresses = vec!["172.17.0.3".into()];
        assert_eq!(advertised(&[&own]), None);
    }
}
