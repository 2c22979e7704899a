//! One look at a daemon: this cluster's things, and who holds the names and ports that the desired state needs.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use futures_util::StreamExt;

use super::super::time::unix_seconds;
use super::super::{RuntimeError, broker_text, held_by_own, label, ports, proc_memory};
use super::{Docker, cluster_of, holder_words};
use crate::plan::{Conflict, NodeState, Observed, ObservedNode, adopt};
use crate::topology::Desired;

/// Inspects and stats at once; the daemon serves them in parallel, but a big cluster must not open a hundred connections.
const PARALLEL: usize = 8;

/// The image that new nodes get.
struct Present {
    tag: String,
    sha256: String,
}

impl Docker {
    pub(super) async fn look(&self, desired: &Desired) -> Result<Observed, RuntimeError> {
        let all = query::ListContainersOptionsBuilder::new().all(true).build();
        let (containers, networks, volumes, image, spec) = tokio::join!(
            self.containers(all),
            self.networks_named(&desired.network),
            self.api.list_volumes(None::<query::ListVolumesOptions>),
            self.present_image(desired),
            self.find_spec(&desired.cluster),
        );
        let failed = |what: &'static str| move |e: Error| RuntimeError::failed("list", what, e);
        let containers = containers.map_err(failed("containers"))?;
        let volumes = volumes
            .map_err(failed("volumes"))?
            .volumes
            .unwrap_or_default();
        let networks = networks?;
        let present = image?;

        let (own, foreign): (Vec<_>, Vec<_>) = containers
            .into_iter()
            .partition(|c| cluster_of(&c.labels) == Some(&desired.cluster));
        let own_networks: Vec<&String> = networks.iter().filter_map(|n| n.id.as_ref()).collect();
        let ids: Vec<String> = own.into_iter().filter_map(|c| c.id).collect();
        let mut inspects = futures_util::stream::iter(ids)
            .map(|id| async move { self.inspect(&id).await })
            .buffer_unordered(PARALLEL);
        let mut nodes = Vec::new();
        while let Some(inspect) = inspects.next().await {
            // Removed since the list: not there.
            if let Some(container) = inspect.map_err(failed("containers"))? {
                nodes.extend(observed_node(container, &own_networks, present.as_ref()));
            }
        }
        nodes.sort_by(|a, b| a.container.cmp(&b.container));

        let mut conflicts = self.conflicts_of(desired, &nodes, &foreign);
        let foreign_network = networks
            .iter()
            .find(|n| cluster_of(&n.labels) != Some(&desired.cluster));
        if let Some(foreign) = foreign_network {
            conflicts.push(Conflict {
                what: format!("network {}", desired.network),
                holder: holder_words(&foreign.labels),
                node: desired.cluster.clone(),
                ..Conflict::default()
            });
        }
        let (own, foreign): (Vec<_>, Vec<_>) = volumes
            .into_iter()
            .partition(|v| v.labels.get(label::CLUSTER) == Some(&desired.cluster));
        for node in &desired.nodes {
            let holder = foreign
                .iter()
                .find(|v| Some(&v.name) == node.volume.as_ref());
            if let Some(volume) = holder {
                conflicts.push(Conflict {
                    what: format!("volume {}", volume.name),
                    holder: holder_words(&Some(volume.labels.clone())),
                    node: node.name.clone(),
                    ..Conflict::default()
                });
            }
        }
        let mut volumes: Vec<String> = own
            .into_iter()
            .filter(|v| v.labels.get(label::VOLUME_KIND).map(String::as_str) == Some("store"))
            .map(|v| v.name)
            .collect();
        volumes.sort();
        let subnet = networks
            .iter()
            .flat_map(|n| n.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten()))
            .filter_map(|pool| pool.subnet.clone())
            .find(|subnet| !subnet.contains(':'));
        let mut observed = Observed {
            nodes,
            subnet,
            // Two of the name are none: no container can start in them. Creating the network leaves one.
            network: (foreign_network.is_none() && networks.len() == 1)
                .then(|| desired.network.clone()),
            volumes,
            image: present.map(|present| present.tag),
            spec: spec?,
            conflicts,
            ..Observed::default()
        };
        self.look_at_data_dirs(desired, &mut observed).await?;
        Ok(observed)
    }

    /// The tag of this engine's image, when it is loaded. A binary that cannot be an image is no fault of looking: creating
    /// a node with it is, and says so then.
    async fn present_image(&self, desired: &Desired) -> Result<Option<Present>, RuntimeError> {
        if let Some(image) = desired.engine_image() {
            let about = self.present_named(image).await?;
            return Ok(about.map(|about| Present {
                tag: image.to_owned(),
                sha256: about.sha256,
            }));
        }
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(RuntimeError::Image { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(self.has_image(&engine).await?.then(|| Present {
            tag: engine.tag(),
            sha256: engine.sha256.clone(),
        }))
    }

    fn conflicts_of(
        &self,
        desired: &Desired,
        own: &[ObservedNode],
        foreign: &[api::ContainerSummary],
    ) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for node in &desired.nodes {
            let mut conflict =
                |what: String, holder: String, of: Option<&api::ContainerSummary>| {
                    conflicts.push(Conflict {
                        what,
                        holder,
                        node: node.name.clone(),
                        container: of.and_then(name_of).map(str::to_owned),
                        adoptable: of.is_some_and(|c| {
                            name_of(c) == Some(&node.container) && looks_like_a_node(c)
                        }),
                    });
                };
            let words = |c: &api::ContainerSummary| {
                format!(
                    "container {} ({}), {}",
                    name_of(c).unwrap_or("?"),
                    image_of(c),
                    holder_words(&c.labels)
                )
            };
            if let Some(other) = foreign.iter().find(|c| name_of(c) == Some(&node.container)) {
                let what = format!("container name {}", node.container);
                conflict(what, words(other), Some(other));
            }
            let aside = foreign.iter().find(|c| {
                let becomes = name_of(c).and_then(adopt::of_aside);
                becomes.is_some_and(|(_, container)| container == node.container)
            });
            if let Some(aside) = aside {
                let what = format!("the store of {}", node.name);
                conflict(what, words(aside), Some(aside));
            }
            let holds_its_ports = own.iter().any(|n| {
                // What a node holds in a state that we do not know is not a stranger's.
                n.container == node.container && !matches!(n.state, NodeState::Exited(_))
            });
            if holds_its_ports {
                continue;
            }
            for port in node.ports.iter().filter_map(|p| p.host) {
                let container = foreign.iter().find(|c| publishes(c, desired.bind, port));
                let holder = match container {
                    Some(c) => Some(words(c)),
                    None if held_by_own(port, own, desired) => None,
                    None if self.local => ports::holder(desired.bind, port),
                    None => None,
                };
                if let Some(holder) = holder {
                    conflict(format!("host port {port}"), holder, container);
                }
            }
        }
        conflicts
    }

    /// Memory of each running container among these, by name.
    pub(super) async fn memory_of(
        &self,
        containers: &[String],
    ) -> Result<BTreeMap<String, u64>, RuntimeError> {
        // The names are cloned into the futures: borrowed ones would tie the stream to the slice's lifetime.
        let answers = futures_util::stream::iter(containers.to_vec())
            .map(|name| async move {
                let memory = match self.memory_seen_from_here(&name).await {
                    Some(memory) => memory,
                    None => self.memory_by_stats(&name).await?,
                };
                Some((name, memory))
            })
            .buffer_unordered(PARALLEL);
        Ok(answers
            .filter_map(|answer| async move { answer })
            .collect()
            .await)
    }

    /// Reads the engine's own /proc entry, where it can be seen. The stats call
    /// takes a whole second, as older daemons wait for their next sample.
    async fn memory_seen_from_here(&self, name: &str) -> Option<u64> {
        proc_memory(self.pid_seen_from_here(name).await?)
    }

    /// The container's first process, where the daemon is on this host and not in a virtual machine on it.
    pub(super) async fn pid_seen_from_here(&self, name: &str) -> Option<u32> {
        if !self.local {
            return None;
        }
        let inspect = self.inspect(name).await.ok()??;
        // Of another's image, process 1 is a shell that waits for the engine.
        let labels = inspect.config.as_ref()?.labels.as_ref()?;
        if !labels.contains_key(label::ENGINE_SHA256) {
            return None;
        }
        let pid = u32::try_from(inspect.state?.pid?)
            .ok()
            .filter(|pid| *pid > 0)?;
        // The pid is the daemon's; it means this process only if the process is in the container's control group.
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        groups.contains(&inspect.id?).then_some(pid)
    }

    async fn memory_by_stats(&self, name: &str) -> Option<u64> {
        let options = query::StatsOptionsBuilder::new()
            .stream(false)
            .one_shot(true)
            .build();
        let mut stats = std::pin::pin!(self.api.stats(name, Some(options)));
        own_memory(stats.next().await?.ok()?.memory_stats?)
    }
}

/// What a container is doing.
pub(super) fn node_state(state: &api::ContainerState) -> NodeState {
    use api::ContainerStateStatusEnum as Status;
    match state.status {
        Some(Status::RUNNING) => NodeState::Running,
        Some(Status::RESTARTING) => NodeState::Restarting,
        Some(Status::PAUSED) => NodeState::Paused,
        Some(Status::EXITED) => NodeState::Exited(state.exit_code),
        Some(Status::CREATED) => NodeState::Exited(None),
        Some(Status::EMPTY) | None => NodeState::Other("unknown".into()),
        Some(other) => NodeState::Other(other.to_string()),
    }
}

/// What one of our containers is; `None` if it lost its labels or name in between.
fn observed_node(
    container: api::ContainerInspectResponse,
    networks: &[&String],
    present: Option<&Present>,
) -> Option<ObservedNode> {
    let attached = container.network_settings.and_then(|n| n.networks);
    let attached = attached.unwrap_or_default().into_values();
    let mut attached = attached
        .filter_map(|endpoint| endpoint.network_id)
        .filter(|id| !id.is_empty());
    let bindings = container.host_config.and_then(|h| h.port_bindings);
    let bindings = bindings.unwrap_or_default().into_values().flatten();
    let ports = bindings
        .flatten()
        .filter_map(|binding| binding.host_port?.parse().ok());
    let config = container.config?;
    let labels = config.labels.unwrap_or_default();
    let state = container.state.unwrap_or_default();
    let node_state = node_state(&state);
    Some(ObservedNode {
        id: container.id?,
        name: labels.get(label::NODE)?.clone(),
        container: container.name?.trim_start_matches('/').to_string(),
        config_hash: labels.get(label::CONFIG_HASH).cloned().unwrap_or_default(),
        broker: broker_text(|key| labels.get(key)),
        started_at: matches!(node_state, NodeState::Running | NodeState::Paused)
            .then(|| state.started_at.as_deref().and_then(unix_seconds))
            .flatten(),
        state: node_state,
        image: config.image.map(|image| named(image, &labels, present)),
        version: labels.get(label::VERSION).cloned(),
        restarts: container
            .restart_count
            .and_then(|n| n.try_into().ok())
            .unwrap_or_default(),
        ports: ports.collect(),
        cut_off: attached.any(|id| !networks.contains(&&id)),
        oom_killed: state.oom_killed.unwrap_or_default(),
    })
}

/// A container's image, with the engine's hash where its tag is another engine's by now.
fn named(image: String, labels: &HashMap<String, String>, present: Option<&Present>) -> String {
    let made_of = labels.get(label::ENGINE_SHA256);
    let moved = present.filter(|present| present.tag == image);
    match (moved, made_of) {
        (Some(present), Some(sha256)) if *sha256 != present.sha256 => {
            let short: String = sha256.chars().take(8).collect();
            format!("{image} ({short})")
        }
        _ => image,
    }
}

/// Its own name; one that others link to has more, each below the name of another.
fn name_of(container: &api::ContainerSummary) -> Option<&str> {
    let mut names = container.names.iter().flatten();
    names.find_map(|name| Some(name.trim_start_matches('/')).filter(|name| !name.contains('/')))
}

/// Whether somebody may have made a node by hand: `adopt` looks closer.
fn looks_like_a_node(container: &api::ContainerSummary) -> bool {
    let command = container.command.as_deref().unwrap_or_default();
    let signs = ["rocketmq", "rmq", "mqbroker", "mqnamesrv", "engine "];
    cluster_of(&container.labels).is_none()
        && signs
            .iter()
            .any(|sign| image_of(container).contains(sign) || command.contains(sign))
}

fn image_of(container: &api::ContainerSummary) -> &str {
    container.image.as_deref().unwrap_or("image unknown")
}

/// Whether a container publishes `port` on an address that overlaps with `bind`.
fn publishes(container: &api::ContainerSummary, bind: IpAddr, port: u16) -> bool {
    container.ports.iter().flatten().any(|p| {
        let ip: Option<IpAddr> = p.ip.as_ref().and_then(|ip| ip.parse().ok());
        let overlaps =
            ip.is_none_or(|ip| ip == bind || ip.is_unspecified() || bind.is_unspecified());
        p.public_port == Some(port) && overlaps
    })
}

/// A container's own memory: anonymous pages (`anon` under cgroup v2, `rss` under v1). Elsewhere what `docker stats` shows:
/// usage less the page cache that was not used lately.
fn own_memory(memory: api::ContainerMemoryStats) -> Option<u64> {
    let stats = memory.stats.unwrap_or_default();
    let own = stats
        .get("anon")
        .or_else(|| stats.get("total_rss"))
        .copied();
    own.or_else(|| {
        let cache = stats
            .get("inactive_file")
            .or_else(|| stats.get("total_inactive_file"));
        Some(memory.usage?.saturating_sub(cache.copied().unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_was_moved_is_told_from_what_a_container_was_made_of() {
        let present = Present {
            tag: "r/engine:latest".into(),
            sha256: "bbbbbbbbbbbb".into(),
        };
        let name = |image: &str, sha256: &str| {
            let labels = HashMap::from([(label::ENGINE_SHA256.to_owned(), sha256.to_owned())]);
            named(image.to_owned(), &labels, Some(&present))
        };
        assert_eq!(name("r/engine:latest", "bbbbbbbbbbbb"), "r/engine:latest");
        assert_eq!(
            name("r/engine:latest", "aaaaaaaaaaaa"),
            "r/engine:latest (aaaaaaaa)"
        );
        assert_eq!(name("r/engine:1", "aaaaaaaaaaaa"), "r/engine:1");
    }

    #[test]
    fn a_published_port_overlaps_on_the_same_address_or_on_all() {
        let container = |ip: &str| api::ContainerSummary {
            ports: Some(vec![api::PortSummary {
                ip: Some(ip.into()),
                private_port: 1,
                public_port: Some(10911),
                typ: None,
            }]),
            ..Default::default()
        };
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(publishes(&container("127.0.0.1"), loopback, 10911));
        assert!(publishes(&container("0.0.0.0"), loopback, 10911));
        assert!(publishes(
            &container("10.0.0.5"),
            "0.0.0.0".parse().unwrap(),
            10911
        ));
        assert!(!publishes(&container("10.0.0.5"), loopback, 10911));
        assert!(!publishes(&container("127.0.0.1"), loopback, 10912));
    }

    #[test]
    fn a_container_that_others_link_to_is_called_by_its_own_name() {
        let container = api::ContainerSummary {
            names: Some(
                ["/rmqmaster1/namesrv", "/rmqnamesrv"]
                    .map(String::from)
                    .to_vec(),
            ),
            ..Default::default()
        };
        assert_eq!(name_of(&container), Some("rmqnamesrv"));
    }

    #[test]
    fn memory_is_the_nodes_own_without_its_page_cache() {
        let memory = |stats: &[(&str, u64)]| api::ContainerMemoryStats {
            usage: Some(100),
            stats: Some(
                stats
                    .iter()
                    .map(|(k, v)| (k.to_string(), *v))
                    .collect::<HashMap<_, _>>(),
            ),
            ..Default::default()
        };
        assert_eq!(
            own_memory(memory(&[("anon", 20), ("inactive_file", 50)])),
            Some(20)
        );
        assert_eq!(
            own_memory(memory(&[("total_rss", 21), ("total_inactive_file", 50)])),
            Some(21)
        );
        assert_eq!(own_memory(memory(&[("inactive_file", 50)])), Some(50));
        assert_eq!(own_memory(memory(&[])), Some(100));
    }
}
