//! One node's container: created locked down, its properties file uploaded before it starts, stopped with its own time, removed
//! only when it is this cluster's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use futures_util::{StreamExt, TryStreamExt};

use super::super::{RuntimeError, image, label};
use super::hostdir::{Binding, bind_text, store_mount};
use super::{Docker, cluster_labels, found, holder_words, node_labels};
use crate::properties;
use crate::topology::{CONTAINER_UID, Desired, Node, Role, memory_options};

/// How long the daemon may take to remove a container that has ended.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(30);

impl Docker {
    pub(super) async fn create_node(
        &self,
        desired: &Desired,
        node: &Node,
    ) -> Result<(), RuntimeError> {
        let name = &node.container;
        let failed = |e: Error| RuntimeError::failed("create container", name, e);
        let mut labels = cluster_labels(desired);
        labels.extend(node_labels(node));
        let image = match (&node.image, &node.engine_image) {
            (Some(image), _) => image.clone(),
            (None, Some(image)) => {
                let about = self.engine_about(image).await?;
                labels.insert(label::ENGINE_SHA256.into(), about.sha256);
                labels.insert(label::VERSION.into(), about.version);
                image.clone()
            }
            (None, None) => {
                let engine = self.engine().await?;
                labels.insert(label::ENGINE_SHA256.into(), engine.sha256.clone());
                engine.tag()
            }
        };
        let binding = self.binding(node).await?;
        let body = container_body(desired, node, image, labels, binding.as_ref());
        let options = query::CreateContainerOptionsBuilder::new()
            .name(name)
            .build();
        let created = self
            .api
            .create_container(Some(options), body)
            .await
            .map_err(failed)?;
        if let Err(error) = self.configure(desired, node).await {
            // A container without its file would start with defaults; the file's failure is what the user must see.
            let options = query::RemoveContainerOptionsBuilder::new()
                .v(true)
                .force(true)
                .build();
            if let Err(also) = self.api.remove_container(&created.id, Some(options)).await {
                tracing::warn!(container = %name, error = %also, "the unconfigured container could not be removed");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Uploads the node's properties file as an uncompressed tar (the daemon unpacks compressed ones with the container's own
    /// tools, GHSA-x86f-5xw2-fm2r).
    pub(super) async fn configure(
        &self,
        desired: &Desired,
        node: &Node,
    ) -> Result<(), RuntimeError> {
        let (Some((_, text)), Some(path)) = (&node.file, &node.conf_path) else {
            return Ok(());
        };
        let failed = |reason: String| RuntimeError::failed("configure", &node.container, reason);
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(format!(
                "{} names no file in a directory",
                path.display()
            )));
        };
        self.own_container(desired, &node.container)
            .await?
            .ok_or_else(|| failed("no such container".into()))?;
        let text = match node.role {
            // Another's name server has no such properties.
            Role::Namesrv if node.image.is_none() => {
                format!("{text}{}", self.split_horizon(desired).await?)
            }
            _ => text.clone(),
        };
        if let Some(store) = node.store_path.as_ref().filter(|_| self.gives_store(node)) {
            self.give_store(&node.container, store).await?;
        }
        let tar = image::config_tar(&[(&name.to_string_lossy(), &text)]);
        let options = query::UploadToContainerOptionsBuilder::new()
            .path(&dir.to_string_lossy())
            .build();
        self.api
            .upload_to_container(&node.container, Some(options), bollard::body_full(tar))
            .await
            .map_err(|e| failed(e.to_string()))
    }

    /// Makes the engine's user the owner of a store's directory. A fresh volume takes the owner of the directory that it covers in
    /// the image, and another's image has none there. An upload sets it without a shell or root in the container.
    async fn give_store(&self, container: &str, store: &Path) -> Result<(), RuntimeError> {
        let options = query::UploadToContainerOptionsBuilder::new()
            .path("/")
            .build();
        let tar = bollard::body_full(image::owned_dir_tar(store));
        self.api
            .upload_to_container(container, Some(options), tar)
            .await
            .map_err(|e| RuntimeError::failed("prepare the store of", container, e))
    }

    /// What [`Docker::configure`] put into the container.
    pub(super) async fn read_file(&self, node: &Node) -> Result<Option<String>, RuntimeError> {
        let Some(path) = &node.conf_path else {
            return Ok(None);
        };
        let shown = format!("{} of {}", path.display(), node.container);
        let options = query::DownloadFromContainerOptionsBuilder::new()
            .path(&path.to_string_lossy())
            .build();
        let pieces = self
            .api
            .download_from_container(&node.container, Some(options))
            .try_collect::<Vec<_>>()
            .await;
        let archive = found(pieces).map_err(|e| RuntimeError::failed("read", &shown, e))?;
        archive
            .map(|pieces| image::first_file(&pieces.concat()))
            .transpose()
            .map_err(|e| RuntimeError::failed("read", &shown, e))
    }

    /// The two properties by which a name server tells callers inside the network from those that come through its gateway
    /// (published ports). Only the daemon knows them, and only once the network stands.
    async fn split_horizon(&self, desired: &Desired) -> Result<String, RuntimeError> {
        let network = self.own_network(desired).await?;
        let pools = network.and_then(|n| n.ipam?.config).unwrap_or_default();
        let (subnet, gateway) = pools
            .into_iter()
            .filter_map(|pool| Some((pool.subnet?, pool.gateway?)))
            .find(|(subnet, _)| !subnet.contains(':'))
            .ok_or_else(|| {
                RuntimeError::failed(
                    "read",
                    &desired.network,
                    "the network has no IPv4 subnet and gateway",
                )
            })?;
        // Some daemons write the gateway with a prefix length.
        let gateway = gateway.split('/').next().unwrap_or_default();
        Ok(properties::split_horizon(&subnet, gateway))
    }

    pub(super) async fn start_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<(), RuntimeError> {
        let failed = |reason: String| RuntimeError::failed("start", container, reason);
        let state = self
            .own_container(desired, container)
            .await?
            .ok_or_else(|| failed("no such container".into()))?;
        if state.paused == Some(true) {
            return self
                .api
                .unpause_container(container)
                .await
                .map_err(|e| failed(e.to_string()));
        }
        if state.running == Some(true) {
            return Ok(());
        }
        if desired.ephemeral.is_some() {
            self.attach(container, self.holds.load(Ordering::Relaxed))
                .await?;
        }
        self.api
            .start_container(container, None::<query::StartContainerOptions>)
            .await
            .map_err(|e| failed(e.to_string()))
    }

    pub(super) async fn stop_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<(), RuntimeError> {
        let Some(state) = self.own_container(desired, container).await? else {
            return Ok(());
        };
        if state.running != Some(true) && state.restarting != Some(true) {
            return Ok(());
        }
        let failed = |e: Error| RuntimeError::failed("stop", container, e);
        if state.paused == Some(true) {
            // A paused process cannot act on SIGTERM.
            self.api
                .unpause_container(container)
                .await
                .map_err(failed)?;
        }
        let seconds = whole_seconds(desired.stop_timeout);
        let options = query::StopContainerOptionsBuilder::new().t(seconds).build();
        // The daemon answers when the container has ended.
        let patient = desired.stop_timeout + Duration::from_secs(30);
        let api = self.api.clone().with_timeout(patient);
        let stopped = api.stop_container(container, Some(options));
        let stopped = if desired.ephemeral.is_some() {
            // It goes when it has ended; its volumes are free only when it is gone.
            let (gone, stopped) = tokio::join!(self.await_removal(container, patient), stopped);
            gone.map(|()| stopped)?
        } else {
            stopped.await
        };
        found(stopped).map(drop).map_err(failed)
    }

    pub(super) async fn remove_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<(), RuntimeError> {
        if self.own_container(desired, container).await?.is_none() {
            return Ok(());
        }
        // `v` removes the anonymous configuration volume; named volumes stay.
        let options = query::RemoveContainerOptionsBuilder::new()
            .v(true)
            .force(true)
            .build();
        let failed = |e: Error| RuntimeError::failed("remove", container, e);
        match self.api.remove_container(container, Some(options)).await {
            // It was to go when it ended, and the daemon is at it.
            Err(Error::DockerResponseServerError {
                status_code: 409, ..
            }) if desired.ephemeral.is_some() => {
                self.await_removal(container, REMOVAL_TIMEOUT).await
            }
            answer => found(answer).map(drop).map_err(failed),
        }
    }

    async fn await_removal(&self, container: &str, patience: Duration) -> Result<(), RuntimeError> {
        let failed = |reason: String| RuntimeError::failed("remove", container, reason);
        let options = query::WaitContainerOptionsBuilder::new()
            .condition("removed")
            .build();
        let mut waits = std::pin::pin!(self.api.wait_container(container, Some(options)));
        match tokio::time::timeout(patience, waits.next()).await {
            // Its exit code comes as an error when it is not 0; either way it is gone, and 404 says so too.
            Ok(_) => Ok(()),
            Err(_) => Err(failed(format!(
                "the daemon was still at it after {} s",
                patience.as_secs()
            ))),
        }
    }

    /// State of the container if it is this cluster's, `None` when there is none; another's of the name is an error.
    pub(super) async fn own_container(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<Option<api::ContainerState>, RuntimeError> {
        let inspect = self
            .inspect(container)
            .await
            .map_err(|e| RuntimeError::failed("inspect", container, e))?;
        let Some(inspect) = inspect else {
            return Ok(None);
        };
        let labels = inspect.config.and_then(|c| c.labels);
        if super::cluster_of(&labels) != Some(&desired.cluster) {
            return Err(RuntimeError::NotOurs {
                object: format!("container {container}"),
                cluster: desired.cluster.clone(),
                holder: holder_words(&labels),
            });
        }
        Ok(Some(inspect.state.unwrap_or_default()))
    }
}

/// Docker's stop timeouts are whole seconds; rounding down could undercut the engine's own.
pub(super) fn whole_seconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// How a node stands in its network: by its bare name and its aliases.
pub(super) fn endpoint(node: &Node) -> api::EndpointSettings {
    let names = std::iter::once(&node.name).chain(&node.aliases);
    api::EndpointSettings {
        aliases: Some(names.cloned().collect()),
        ..Default::default()
    }
}

/// What a node's container is made of.
fn container_body(
    desired: &Desired,
    node: &Node,
    image: String,
    labels: HashMap<String, String>,
    binding: Option<&Binding>,
) -> api::ContainerCreateBody {
    let published = || node.ports.iter().filter_map(|p| Some((p, p.host?)));
    let bindings: HashMap<String, Option<Vec<api::PortBinding>>> = published()
        .map(|(port, host)| {
            let bindings = desired
                .published_on()
                .into_iter()
                .map(|ip| api::PortBinding {
                    host_ip: Some(ip.to_string()),
                    host_port: Some(host.to_string()),
                });
            (format!("{}/tcp", port.container), Some(bindings.collect()))
        })
        .collect();
    let ends_itself = desired.ephemeral.is_some().then_some(true);
    api::ContainerCreateBody {
        image: Some(image),
        // A holder's input: the daemon closes it when the one client that attached is gone.
        open_stdin: ends_itself,
        stdin_once: ends_itself,
        attach_stdin: ends_itself,
        // Our image says so itself; another's may start as root. A directory of the host is its owner's to write.
        user: match &node.image {
            Some(_) => Some(format!("{CONTAINER_UID}:{CONTAINER_UID}")),
            None => binding.and_then(|binding| binding.user.clone()),
        },
        cmd: Some(node.command.clone()),
        hostname: Some(node.name.clone()),
        env: Some(node.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        labels: Some(labels.clone()),
        exposed_ports: Some(
            node.ports
                .iter()
                .map(|p| format!("{}/tcp", p.container))
                .collect(),
        ),
        stop_signal: Some("SIGTERM".into()),
        stop_timeout: Some(i64::from(whole_seconds(desired.stop_timeout))),
        host_config: Some(host_config(desired, node, bindings, &labels, binding)),
        networking_config: Some(api::NetworkingConfig {
            endpoints_config: Some(HashMap::from([(desired.network.clone(), endpoint(node))])),
        }),
        ..Default::default()
    }
}

fn host_config(
    desired: &Desired,
    node: &Node,
    bindings: HashMap<String, Option<Vec<api::PortBinding>>>,
    labels: &HashMap<String, String>,
    binding: Option<&Binding>,
) -> api::HostConfig {
    // One that ends by itself is not started again, and leaves nothing: its volumes are anonymous and go with it.
    let ends_itself = desired.ephemeral.is_some();
    // A master that comes back without what it held in memory is behind its slaves, which cannot follow it then.
    let stays_down = node.tmpfs.is_some() && node.role == Role::Master;
    let store = node.store_path.as_deref();
    let memory = node.memory.and_then(|bytes| i64::try_from(bytes).ok());
    api::HostConfig {
        restart_policy: Some(api::RestartPolicy {
            name: Some(if ends_itself || stays_down {
                api::RestartPolicyNameEnum::NO
            } else {
                api::RestartPolicyNameEnum::ALWAYS
            }),
            maximum_retry_count: None,
        }),
        auto_remove: Some(ends_itself),
        network_mode: Some(desired.network.clone()),
        port_bindings: Some(bindings),
        mounts: Some(mounts(node, labels, binding)),
        tmpfs: store
            .zip(node.tmpfs)
            .map(|(target, bytes)| (target.display().to_string(), memory_options(bytes)))
            .map(|memory| HashMap::from([memory])),
        binds: store
            .and_then(|target| bind_text(node, target, binding))
            .map(|bind| vec![bind]),
        memory,
        // Equal to the limit: no swap. A broker that swaps is worse than one that is restarted.
        memory_swap: memory,
        nano_cpus: node.nano_cpus,
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        // Apache's scripts and logs write into the user's home.
        readonly_rootfs: Some(node.image.is_none()),
        pids_limit: Some(1024),
        // No `ulimits`: a daemon that has fewer files itself than we would ask for could not start the container at all.
        log_config: Some(api::HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from([
                ("max-size".to_string(), "10m".to_string()),
                ("max-file".to_string(), "3".to_string()),
            ])),
        }),
        ..Default::default()
    }
}

/// The root is read-only, so what is written is a volume: the store (named, it outlives the container), and the configuration's
/// directory (anonymous; the daemon refuses uploads into a read-only root, and this goes with the container).
fn mounts(
    node: &Node,
    labels: &HashMap<String, String>,
    binding: Option<&Binding>,
) -> Vec<api::Mount> {
    let labelled = |kind: &str| {
        let mut labels = labels.clone();
        labels.insert(label::VOLUME_KIND.into(), kind.into());
        api::MountVolumeOptions {
            labels: Some(labels),
            ..Default::default()
        }
    };
    let conf = node
        .file
        .as_ref()
        .and(node.conf_path.as_deref())
        .and_then(Path::parent)
        .map(|dir| api::Mount {
            typ: Some(api::MountType::VOLUME),
            target: Some(dir.display().to_string()),
            read_only: Some(false),
            volume_options: Some(labelled("conf")),
            ..Default::default()
        });
    let store = node
        .store_path
        .as_deref()
        .and_then(|dir| store_mount(node, dir, binding, labelled));
    conf.into_iter().chain(store).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{BrokerId, Port};
    use std::collections::BTreeMap;

    fn master() -> (Desired, Node) {
        let port = |purpose, container, host| Port {
            purpose,
            container,
            host,
        };
        let node = Node {
            name: "rmqmaster1".into(),
            container: "ci42-rmqmaster1".into(),
            aliases: vec![],
            role: Role::Master,
            broker: Some(BrokerId {
                name: "broker-a".into(),
                id: 0,
            }),
            ports: vec![
                port("main", 10911, Some(10911)),
                port("vip", 10909, Some(10909)),
                port("ha", 10912, None),
            ],
            image: None,
            engine_image: None,
            volume: Some("ci42-rmqmaster1-store".into()),
            tmpfs: None,
            file: Some(("broker-a-master.properties".into(), "brokerId=0\n".into())),
            conf_path: Some("/etc/rmq/broker-a-master.properties".into()),
            store_path: Some("/store".into()),
            memory: Some(256 << 20),
            nano_cpus: Some(500_000_000),
            command: [
                "engine",
                "broker",
                "-c",
                "/etc/rmq/broker-a-master.properties",
            ]
            .map(String::from)
            .to_vec(),
            env: BTreeMap::new(),
            config_hash: "00ff".into(),
        };
        let desired = Desired {
            cluster: "ci42".into(),
            network: "ci42-rmqnetwork".into(),
            site: crate::topology::Site::Network,
            subnet: None,
            bind: "127.0.0.1".parse().unwrap(),
            gateway: None,
            advertise: "127.0.0.1".into(),
            conf_dir: "rmq/conf".into(),
            stop_timeout: Duration::from_millis(30_500),
            labels: BTreeMap::new(),
            ephemeral: None,
            spec: "{}".into(),
            nodes: vec![node.clone()],
        };
        (desired, node)
    }

    fn body() -> api::ContainerCreateBody {
        let (desired, node) = master();
        let mut labels = cluster_labels(&desired);
        labels.extend(node_labels(&node));
        container_body(&desired, &node, "rmqctl/engine:x".into(), labels, None)
    }

    #[test]
    fn every_published_port_is_one_to_one_on_the_bind_address_and_ha_is_not_published() {
        let host = body().host_config.unwrap();
        let mut bound: Vec<String> = host
            .port_bindings
            .unwrap()
            .into_iter()
            .flat_map(|(inside, outside)| {
                outside.into_iter().flatten().map(move |b| {
                    format!("{}:{}->{inside}", b.host_ip.unwrap(), b.host_port.unwrap())
                })
            })
            .collect();
        bound.sort();
        assert_eq!(
            bound,
            ["127.0.0.1:10909->10909/tcp", "127.0.0.1:10911->10911/tcp"]
        );
    }

    #[test]
    fn a_container_has_no_privileges_and_writes_only_its_volumes() {
        let host = body().host_config.unwrap();
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert_eq!(host.security_opt.unwrap(), ["no-new-privileges:true"]);
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(
            (host.privileged, host.binds, host.links),
            (None, None, None)
        );
        let mounts: Vec<_> = host
            .mounts
            .unwrap()
            .into_iter()
            .map(|m| (m.typ.unwrap(), m.source, m.target.unwrap()))
            .collect();
        assert_eq!(
            mounts,
            [
                (api::MountType::VOLUME, None, "/etc/rmq".into()),
                (
                    api::MountType::VOLUME,
                    Some("ci42-rmqmaster1-store".into()),
                    "/store".into()
                ),
            ]
        );
        assert_eq!(host.memory, host.memory_swap);
    }

    #[test]
    fn a_master_in_memory_owns_it_and_is_not_started_again_without_what_it_held() {
        let (desired, mut node) = master();
        (node.volume, node.tmpfs) = (None, Some(256 << 20));
        let labels = cluster_labels(&desired);
        let host = container_body(&desired, &node, "x".into(), labels, None)
            .host_config
            .unwrap();
        assert_eq!(
            host.tmpfs.unwrap()["/store"],
            "size=268435456,mode=0750,uid=3000,gid=3000"
        );
        assert_eq!(host.mounts.unwrap().len(), 1, "the configuration's");
        assert_eq!(
            host.restart_policy.unwrap().name,
            Some(api::RestartPolicyNameEnum::NO)
        );
    }

    #[test]
    fn a_node_has_its_bare_name_in_the_network_and_the_clusters_labels() {
        let body = body();
        let endpoints = body.networking_config.unwrap().endpoints_config.unwrap();
        assert_eq!(
            endpoints["ci42-rmqnetwork"].aliases.as_deref().unwrap(),
            ["rmqmaster1"]
        );
        let labels = body.labels.unwrap();
        let wanted = [
            (label::CLUSTER, "ci42"),
            (label::NODE, "rmqmaster1"),
            (label::ROLE, "master"),
            (label::BROKER, "broker-a"),
            (label::BROKER_ID, "0"),
            (label::CONFIG_HASH, "00ff"),
        ];
        for (key, value) in wanted {
            assert_eq!(labels[key], value, "{key}");
        }
        assert_eq!(
            body.stop_timeout,
            Some(31),
            "rounded up, never under the engine's own"
        );
    }
}
