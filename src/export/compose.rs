//! A Compose file: the containers, network and volumes that `up` makes, by the same names.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Ipam, Map, Pool, Source, conf_files, conf_path, cores, dollars, file_name, store_path,
};
use crate::error::Error;
use crate::spec::yaml;
use crate::topology::{Node, Role};

const HEAD: &str = include_str!("../../templates/export/compose.head");

/// Where the properties files are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Conf {
    /// In `conf/`, mounted: every Compose reads that.
    Beside,
    /// In the file itself: Compose 2.23.1 or newer.
    Inline,
}

#[derive(Serialize)]
struct File {
    services: Map<Service>,
    networks: BTreeMap<&'static str, Network>,
    volumes: Map<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    configs: Option<Map<Content>>,
}

#[derive(Serialize)]
struct Service {
    image: String,
    container_name: String,
    hostname: String,
    command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    environment: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
    networks: BTreeMap<&'static str, Endpoint>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tmpfs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    configs: Vec<ConfigMount>,
    restart: &'static str,
    stop_grace_period: String,
    read_only: bool,
    cap_drop: [&'static str; 1],
    security_opt: [&'static str; 1],
    pids_limit: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memswap_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<String>,
    logging: Logging,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

#[derive(Serialize)]
struct Endpoint {
    aliases: Vec<String>,
}

#[derive(Serialize)]
struct Network {
    name: String,
    driver: &'static str,
    ipam: Ipam,
}

#[derive(Serialize)]
struct Named {
    name: String,
}

#[derive(Serialize)]
struct Content {
    content: String,
}

#[derive(Serialize)]
struct ConfigMount {
    source: String,
    target: String,
}

#[derive(Serialize)]
struct Logging {
    driver: &'static str,
    options: BTreeMap<&'static str, &'static str>,
}

/// The network's key in the file; its name is the user's.
const NETWORK: &str = "rocketmq";

/// The file.
pub fn text(source: Source<'_>, conf: Conf) -> Result<String, Error> {
    let desired = source.desired;
    let network = super::network(desired)?;
    let services = desired
        .nodes
        .iter()
        .map(|node| (node.name.clone(), service(source, node, conf)));
    let volumes = super::volumes(desired).map(|name| (name.clone(), Named { name: name.clone() }));
    let configs = conf_files(desired)?.into_iter().map(|(node, text)| {
        let content = dollars(&text);
        (file_name(node).to_owned(), Content { content })
    });
    let file = File {
        services: services.collect(),
        networks: BTreeMap::from([(
            NETWORK,
            Network {
                name: desired.network.clone(),
                driver: "bridge",
                ipam: Ipam {
                    config: [Pool {
                        subnet: network.text,
                        gateway: Some(network.gateway),
                    }],
                },
            },
        )]),
        volumes: volumes.collect(),
        configs: (conf == Conf::Inline).then(|| configs.collect()),
    };
    Ok(super::head(source, HEAD)? + &yaml::to_string(&file))
}

fn service(source: Source<'_>, node: &Node, conf: Conf) -> Service {
    let desired = source.desired;
    let mut volumes = Vec::new();
    let mut configs = Vec::new();
    if node.file.is_some() {
        let (name, target) = (file_name(node), conf_path(node));
        match conf {
            Conf::Beside => volumes.push(format!("./conf/{name}:{target}:ro")),
            Conf::Inline => configs.push(ConfigMount {
                source: name.to_owned(),
                target,
            }),
        }
    }
    volumes.extend(
        node.volume
            .as_ref()
            .map(|volume| format!("{}:{}", dollars(volume), store_path(node))),
    );
    let namesrvs = desired
        .nodes
        .iter()
        .take_while(|other| other.role == Role::Namesrv)
        .map(|other| other.name.clone());
    let ports = node.ports.iter().filter_map(|port| {
        Some(format!(
            "{}:{}:{}",
            desired.bind, port.host?, port.container
        ))
    });
    Service {
        image: source.engine.to_owned(),
        container_name: node.container.clone(),
        hostname: node.name.clone(),
        command: node.command.iter().map(|word| dollars(word)).collect(),
        environment: node
            .env
            .iter()
            .map(|(key, value)| format!("{key}={}", dollars(value)))
            .collect(),
        depends_on: match node.role {
            Role::Namesrv => Vec::new(),
            _ => namesrvs.collect(),
        },
        networks: BTreeMap::from([(
            NETWORK,
            Endpoint {
                aliases: std::iter::once(&node.name)
                    .chain(&node.aliases)
                    .cloned()
                    .collect(),
            },
        )]),
        ports: ports.collect(),
        volumes,
        tmpfs: node
            .tmpfs
            .iter()
            .map(|bytes| format!("{}:{}", store_path(node), super::memory_options(*bytes)))
            .collect(),
        configs,
        restart: super::restart(node),
        stop_grace_period: format!("{}s", desired.stop_timeout.as_secs()),
        read_only: true,
        cap_drop: ["ALL"],
        security_opt: ["no-new-privileges:true"],
        pids_limit: 1024,
        mem_limit: node.memory,
        memswap_limit: node.memory,
        cpus: node.nano_cpus.map(cores),
        logging: Logging {
            driver: "json-file",
            options: BTreeMap::from([("max-size", "10m"), ("max-file", "3")]),
        },
        labels: desired
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={}", dollars(value)))
            .collect(),
    }
}
