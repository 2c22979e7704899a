//! Which brokers a spec's counts make: their numbers, names, groups and places in the port table.

use std::collections::BTreeMap;

use super::{Node, Role};
use crate::error::{Error, Exit};
use crate::spec::naming::{dealt, letters};
use crate::spec::{ClusterSpec, unknown_name};

/// Place of a broker in the port table: master 1 is 0, slave 1 is 1, then slaves and masters take turns.
pub fn slot(role: Role, number: u32) -> u32 {
    match (role, number) {
        (Role::Master, 1) => 0,
        (Role::Master, k) => 2 * k - 1,
        (_, 1) => 1,
        (_, k) => 2 * k - 2,
    }
}

pub fn numbered(role: Role, number: u32) -> String {
    match (role, number) {
        // One name server and one console have no number; a second name server has.
        (Role::Console, _) | (Role::Namesrv, 1) => role.stem().to_owned(),
        _ => format!("{}{number}", role.stem()),
    }
}

/// One broker's numbers: its own, its master's, its id.
pub struct Place {
    pub role: Role,
    pub number: u32,
    pub master: u32,
    pub id: u32,
}

pub fn places(spec: &ClusterSpec) -> impl Iterator<Item = Place> {
    let masters = spec.masters;
    let master = |number| Place {
        role: Role::Master,
        number,
        master: number,
        id: 0,
    };
    let slave = move |number| {
        let (master, id) = dealt(number, masters);
        Place {
            role: Role::Slave,
            number,
            master,
            id,
        }
    };
    (1..=masters)
        .map(master)
        .chain((1..=spec.slaves).map(slave))
}

/// Names of a spec's nodes, and of its brokers.
fn all_names(spec: &ClusterSpec) -> (Vec<String>, Vec<String>) {
    let mut names: Vec<String> = places(spec)
        .map(|place| numbered(place.role, place.number))
        .collect();
    names.extend((1..=spec.namesrvs).map(|k| numbered(Role::Namesrv, k)));
    names.push(numbered(Role::Console, 1));
    let brokers = (1..=spec.masters).map(|k| format!("broker-{}", letters(k)));
    (names, brokers.collect())
}

/// Drops what a spec says of nodes and brokers that its counts do not make.
pub fn forget_missing(spec: &mut ClusterSpec) {
    let (names, brokers) = all_names(spec);
    spec.nodes.retain(|name, _| names.contains(name));
    spec.brokers.retain(|name, _| brokers.contains(name));
    // One that was to be on brokers which went is not to be on all others.
    spec.topics.retain(|topic| {
        topic.brokers.is_empty() || topic.brokers.iter().any(|b| brokers.contains(b))
    });
    for topic in &mut spec.topics {
        topic.brokers.retain(|name| brokers.contains(name));
    }
}

/// Refuses a spec that speaks of nodes or brokers which its counts do not make.
pub fn check_names(spec: &ClusterSpec) -> Result<(), Error> {
    // Ports end below 65536; the exact check is in `desired`, this one keeps a typo from making a million names.
    if spec.masters > 60 || spec.slaves > 60 {
        return Err(Error::new(
            "RMQ-E105",
            Exit::Spec,
            format!(
                "{} masters and {} slaves: the port table ends before them",
                spec.masters, spec.slaves
            ),
        )
        .detail("brokers stand 1000 ports apart from 10911; 55 of them fit below 65536"));
    }
    let (names, brokers) = all_names(spec);
    if let Some(name) = spec.nodes.keys().find(|name| !names.contains(name)) {
        return Err(unknown_name("node", name, names.iter().map(String::as_str)));
    }
    let of_topics = spec.topics.iter().flat_map(|topic| &topic.brokers);
    if let Some(name) = spec
        .brokers
        .keys()
        .chain(of_topics)
        .find(|name| !brokers.contains(name))
    {
        return Err(unknown_name(
            "broker",
            name,
            brokers.iter().map(String::as_str),
        ));
    }
    Ok(())
}

/// Two nodes that publish one port cannot both start.
pub fn check_ports(nodes: &[Node]) -> Result<(), Error> {
    let mut taken: BTreeMap<u16, &str> = BTreeMap::new();
    for node in nodes {
        for port in &node.ports {
            // HA ports stay inside, where each container has its own; as processes they share one host.
            let number = port.host.unwrap_or(port.container);
            if let Some(other) = taken.insert(number, &node.name)
                && other != node.name
            {
                return Err(Error::new(
                    "RMQ-E105",
                    Exit::Spec,
                    format!("{} and {} would both have port {number}", other, node.name),
                )
                .hint("change nodes.NODE.ports.main, expose.console or the port offset"));
            }
        }
    }
    Ok(())
}
