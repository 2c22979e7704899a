//! A Swarm stack. Ports are published by the machine that runs the task (`mode: host`): the routing mesh would answer a broker's
//! port on every machine, and a remapped or balanced port sends clients to the wrong broker.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    Ipam, Map, Pool, Source, conf_files, conf_path, cores, dollars, file_name, store_path,
};
use crate::error::Error;
use crate::spec::yaml;
use crate::topology::Node;

const HEAD: &str = include_str!("../../templates/export/stack.head");
/// The network's key in the file; its name is the user's.
const NETWORK: &str = "rocketmq";

#[derive(Serialize)]
struct File {
    version: &'static str,
    services: Map<Service>,
    networks: BTreeMap<&'static str, Network>,
    volumes: Map<Named>,
    configs: Map<Config>,
}

#[derive(Serialize)]
struct Service {
    image: String,
    hostname: String,
    command: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    environment: Vec<String>,
    networks: BTreeMap<&'static str, Endpoint>,
    ports: Vec<Port>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Mount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    configs: Vec<ConfigMount>,
    stop_grace_period: String,
    read_only: bool,
    cap_drop: [&'static str; 1],
    deploy: Deploy,
}

/// A volume in its short form, memory in its long one: a stack has no other.
#[derive(Serialize)]
#[serde(untagged)]
enum Mount {
    Short(String),
    Memory {
        r#type: &'static str,
        target: String,
        tmpfs: Size,
    },
}

#[derive(Serialize)]
struct Size {
    size: u64,
}

#[derive(Serialize)]
struct Endpoint {
    aliases: Vec<String>,
}

#[derive(Serialize)]
struct Port {
    target: u16,
    published: u16,
    protocol: &'static str,
    mode: &'static str,
}

#[derive(Serialize)]
struct ConfigMount {
    source: String,
    target: String,
}

#[derive(Serialize)]
struct Deploy {
    replicas: u8,
    endpoint_mode: &'static str,
    placement: Placement,
    update_config: UpdateConfig,
    restart_policy: RestartPolicy,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

#[derive(Serialize)]
struct Placement {
    constraints: Vec<String>,
}

#[derive(Serialize)]
struct UpdateConfig {
    order: &'static str,
}

#[derive(Serialize)]
struct RestartPolicy {
    condition: &'static str,
}

#[derive(Serialize)]
struct Resources {
    limits: Limits,
}

#[derive(Serialize)]
struct Limits {
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<String>,
}

#[derive(Serialize)]
struct Network {
    name: String,
    driver: &'static str,
    attachable: bool,
    ipam: Ipam,
}

#[derive(Serialize)]
struct Named {
    name: String,
}

#[derive(Serialize)]
struct Config {
    name: String,
    file: String,
}

/// The file.
pub fn text(source: Source<'_>) -> Result<String, Error> {
    let desired = source.desired;
    let network = super::network(desired)?;
    let services = desired
        .nodes
        .iter()
        .map(|node| (node.name.clone(), service(source, node)));
    let volumes = super::volumes(desired).map(|name| (name.clone(), Named { name: name.clone() }));
    let configs = conf_files(desired)?.into_iter().map(|(node, text)| {
        // A config of a swarm cannot be changed, only replaced by one of another name.
        let hash: String = Sha256::digest(text.as_bytes())
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let config = Config {
            name: format!("{}-{hash}", node.container),
            file: format!("./conf/{}", file_name(node)),
        };
        (node.name.clone(), config)
    });
    let file = File {
        version: "3.8",
        services: services.collect(),
        networks: BTreeMap::from([(
            NETWORK,
            Network {
                name: desired.network.clone(),
                driver: "overlay",
                attachable: true,
                // An overlay chooses its own gateway, and no caller comes through it.
                ipam: Ipam {
                    config: [Pool {
                        subnet: network.text,
                        gateway: None,
                    }],
                },
            },
        )]),
        volumes: volumes.collect(),
        configs: configs.collect(),
    };
    Ok(super::head(source, HEAD)? + &yaml::to_string(&file))
}

fn service(source: Source<'_>, node: &Node) -> Service {
    let desired = source.desired;
    let ports = node.ports.iter().filter_map(|port| {
        Some(Port {
            target: port.container,
            published: port.host?,
            protocol: "tcp",
            mode: "host",
        })
    });
    let limits = Limits {
        memory: node.memory.map(|bytes| bytes.to_string()),
        cpus: node.nano_cpus.map(cores),
    };
    let place = node.name.to_uppercase();
    Service {
        image: source.engine.to_owned(),
        hostname: node.name.clone(),
        command: node.command.iter().map(|word| dollars(word)).collect(),
        environment: node
            .env
            .iter()
            .map(|(key, value)| format!("{key}={}", dollars(value)))
            .collect(),
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
        volumes: node
            .volume
            .iter()
            .map(|volume| Mount::Short(format!("{}:{}", dollars(volume), store_path(node))))
            .chain(node.tmpfs.map(|size| Mount::Memory {
                r#type: "tmpfs",
                target: store_path(node),
                tmpfs: Size { size },
            }))
            .collect(),
        configs: node
            .file
            .iter()
            .map(|_| ConfigMount {
                source: node.name.clone(),
                target: conf_path(node),
            })
            .collect(),
        stop_grace_period: format!("{}s", desired.stop_timeout.as_secs()),
        read_only: true,
        cap_drop: ["ALL"],
        deploy: Deploy {
            replicas: 1,
            // A name leads to its node itself: a virtual address between them would hide who asks.
            endpoint_mode: "dnsrr",
            placement: Placement {
                // A volume is on one machine, so each node is on the machine that its variable names.
                constraints: vec![format!("${{{place}_ON:-node.platform.os==linux}}")],
            },
            // Two of one node would share a store and a port.
            update_config: UpdateConfig {
                order: "stop-first",
            },
            restart_policy: RestartPolicy {
                condition: match super::restart(node) {
                    "always" => "any",
                    _ => "none",
                },
            },
            resources: (limits.memory.is_some() || limits.cpus.is_some())
                .then_some(Resources { limits }),
            labels: desired
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={}", dollars(value)))
                .collect(),
        },
    }
}
