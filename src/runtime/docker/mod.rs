//! Nodes as containers of a Docker daemon, through its API.
//!
//! Owns containers, one bridge network, named volumes for the stores, and one image, all labelled `io.rmqctl.cluster`. Things
//! without that label, or with another cluster's, are never changed. What stands is read back from the daemon each time; there
//! is no state file.

mod address;
mod attach;
mod connect;
mod describe;
mod disturb;
mod hostdir;
pub mod images;
mod inside;
mod leftover;
mod lenient;
mod log;
mod node;
mod observe;
mod ssh;
mod stranger;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::errors::Error;
use bollard::models as api;
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::StreamExt;
use rocketmq_protocol::partition::Order;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{Receiver, Sender};

use self::attach::Attached;
use super::describe::{About, Description};
use super::image::{Engine, hex};
use super::stranger::{Glance, Stranger};
use super::{
    Boxed, Disturbance, EngineImageAbout, Input, Leftover, LogLine, LogRange, NodeEnd, Output,
    Runtime, RuntimeError, created_by, label,
};
use crate::plan::{Action, Observed};
use crate::probe::Dial;
use crate::topology::{Desired, Node, Site, data_dir};

/// A Docker daemon.
pub struct Docker {
    api: bollard::Docker,
    os: String,
    arch: String,
    local: bool,
    machine: Option<String>,
    podman: bool,
    /// Kept as long as the client that speaks through it.
    _bridge: Option<ssh::Bridge>,
    engine: OnceCell<Arc<Engine>>,
    /// Asked only where stores are directories of the host.
    traits: OnceCell<hostdir::Traits>,
    /// Whether this process holds what it starts.
    holds: AtomicBool,
    /// Containers of ephemeral clusters that this process started, by name.
    attached: Mutex<BTreeMap<String, Attached>>,
}

impl Docker {
    /// Connects as the `docker` command would: `-H`, `--context`, `DOCKER_HOST`, the current context, the default socket; where
    /// nobody answers at that, to Podman.
    pub async fn connect(
        host: Option<&str>,
        context: Option<&str>,
    ) -> Result<Docker, RuntimeError> {
        connect::connect(host, context).await.map(Docker::of)
    }

    /// Connects to Podman's service, at its usual sockets or where `-H` says.
    pub async fn connect_podman(host: Option<&str>) -> Result<Docker, RuntimeError> {
        connect::connect_podman(host).await.map(Docker::of)
    }

    fn of(daemon: connect::Daemon) -> Docker {
        Docker {
            api: daemon.client,
            os: daemon.os,
            arch: daemon.arch,
            local: daemon.local,
            machine: daemon.machine,
            podman: daemon.podman,
            _bridge: daemon.bridge,
            engine: OnceCell::new(),
            traits: OnceCell::new(),
            holds: AtomicBool::new(false),
            attached: Mutex::default(),
        }
    }

    /// The running binary, read and hashed once.
    async fn engine(&self) -> Result<Arc<Engine>, RuntimeError> {
        self.engine
            .get_or_try_init(|| async {
                let engine = tokio::task::spawn_blocking(Engine::read)
                    .await
                    .map_err(|e| RuntimeError::failed("read", "the running binary", e))??;
                engine.fits(&self.os, &self.arch)?;
                Ok(Arc::new(engine))
            })
            .await
            .cloned()
    }

    /// Whether the image of this engine is there. The label is compared, not an id: ids differ between image stores.
    async fn has_image(&self, engine: &Engine) -> Result<bool, RuntimeError> {
        let tag = engine.tag();
        let Some(image) = found(self.api.inspect_image(&tag).await)
            .map_err(|e| RuntimeError::failed("inspect image", &tag, e))?
        else {
            return Ok(false);
        };
        let labels = image.config.and_then(|c| c.labels).unwrap_or_default();
        Ok(labels.get(label::ENGINE_SHA256) == Some(&engine.sha256))
    }

    async fn ensure_image(&self) -> Result<(), RuntimeError> {
        let engine = self.engine().await?;
        if self.has_image(&engine).await? {
            return Ok(());
        }
        let tag = engine.tag();
        let archive = engine.clone();
        let parts = tokio::task::spawn_blocking(move || archive.archive())
            .await
            .map_err(|e| RuntimeError::failed("build image", &tag, e))??;
        let parts = futures_util::stream::iter(parts.into_iter().map(Ok::<_, std::io::Error>));
        let options = query::ImportImageOptionsBuilder::new().quiet(true).build();
        let api = self.api.clone().with_timeout(Duration::from_secs(300));
        let mut answers =
            std::pin::pin!(api.import_image(options, bollard::body_try_stream(parts), None));
        let mut refusal = None;
        while let Some(answer) = answers.next().await {
            // bollard may end a good stream with a false decoding error, so the image itself is asked for below.
            if let Err(e) = answer {
                refusal = Some(e);
            }
        }
        match (self.has_image(&engine).await?, refusal) {
            (true, _) => {
                // A loaded image has no time of its own, and a daemon notes the time of a tag only where it was asked for it.
                // `prune --older-than` reads it; an image without it is never taken for an old one, so a refusal matters little.
                if let Some((name, version)) = tag.split_once(':') {
                    let options = query::TagImageOptionsBuilder::new()
                        .repo(name)
                        .tag(version)
                        .build();
                    let _ = self.api.tag_image(&tag, Some(options)).await;
                }
                Ok(())
            }
            (false, Some(e)) => Err(RuntimeError::failed("load image", &tag, e)),
            (false, None) => Err(RuntimeError::failed(
                "load image",
                &tag,
                "the daemon took it but does not show it",
            )),
        }
    }

    /// Creates the network unless it stands. Docker before 25 lets two networks have one name, and then starts no container
    /// in either, so: list, create, list again, and leave the oldest.
    async fn create_network(&self, desired: &Desired) -> Result<(), RuntimeError> {
        if self.own_network(desired).await?.is_none() {
            self.make_network(desired).await?;
        }
        let mut all = self.networks_named(&desired.network).await?;
        sort_by_age(&mut all);
        for younger in all.iter().skip(1) {
            if cluster_of(&younger.labels) == Some(&desired.cluster) {
                self.delete_network(younger).await?;
            }
        }
        // The older one may be a parallel run's of this cluster, or a stranger's.
        oldest_own(desired, all).map(drop)
    }

    async fn make_network(&self, desired: &Desired) -> Result<(), RuntimeError> {
        let name = &desired.network;
        let mut labels = cluster_labels(desired);
        labels.insert(label::SPEC.into(), desired.spec.clone());
        let ipam = desired.subnet.as_ref().map(|subnet| api::Ipam {
            config: Some(vec![api::IpamConfig {
                subnet: Some(subnet.clone()),
                ..Default::default()
            }]),
            ..Default::default()
        });
        let request = api::NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".into()),
            ipam,
            labels: Some(labels),
            ..Default::default()
        };
        let made = self.api.create_network(request).await;
        made.map(drop)
            .map_err(|e| RuntimeError::failed("create network", name, e))
    }

    /// By its id: the name may be another's too.
    async fn delete_network(&self, network: &api::Network) -> Result<(), RuntimeError> {
        let id = network.id.as_deref().unwrap_or_default();
        let name = network.name.as_deref().unwrap_or(id);
        found(self.api.remove_network(id).await)
            .map(drop)
            .map_err(|e| RuntimeError::failed("remove network", name, e))
    }

    /// All networks of exactly this name; the daemon's filter matches parts of names.
    async fn networks_named(&self, name: &str) -> Result<Vec<api::Network>, RuntimeError> {
        let filters = HashMap::from([("name", vec![name])]);
        let options = query::ListNetworksOptionsBuilder::new()
            .filters(&filters)
            .build();
        let mut all = self
            .api
            .list_networks(Some(options))
            .await
            .map_err(|e| RuntimeError::failed("list networks named", name, e))?;
        all.retain(|n| n.name.as_deref() == Some(name));
        Ok(all)
    }

    /// The cluster's network, `None` when there is none of the name; a foreign one of the name is an error.
    async fn own_network(&self, desired: &Desired) -> Result<Option<api::Network>, RuntimeError> {
        oldest_own(desired, self.networks_named(&desired.network).await?)
    }

    async fn create_volume(&self, desired: &Desired, name: &str) -> Result<(), RuntimeError> {
        if let Some(dir) = data_dir(name) {
            return self.make_data_dir(desired, dir).await;
        }
        if self.own_volume(desired, name).await?.is_some() {
            return Ok(());
        }
        let mut labels = cluster_labels(desired);
        labels.insert(label::VOLUME_KIND.into(), "store".into());
        if let Some(node) = desired
            .nodes
            .iter()
            .find(|n| n.volume.as_deref() == Some(name))
        {
            labels.extend(node_labels(node));
            // A volume outlives the configurations of its node.
            labels.remove(label::CONFIG_HASH);
        }
        self.make_volume(name, labels).await
    }

    async fn make_volume(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), RuntimeError> {
        let request = api::VolumeCreateRequest {
            name: Some(name.into()),
            labels: Some(labels),
            ..Default::default()
        };
        let made = self.api.create_volume(request).await;
        made.map(drop)
            .map_err(|e| RuntimeError::failed("create volume", name, e))
    }

    /// The volume if it is this cluster's; a foreign one of the name is an error.
    async fn own_volume(
        &self,
        desired: &Desired,
        name: &str,
    ) -> Result<Option<api::Volume>, RuntimeError> {
        let volume = found(self.api.inspect_volume(name).await)
            .map_err(|e| RuntimeError::failed("inspect volume", name, e))?;
        match volume {
            Some(v) if v.labels.get(label::CLUSTER) != Some(&desired.cluster) => {
                Err(RuntimeError::NotOurs {
                    object: format!("volume {name}"),
                    cluster: desired.cluster.clone(),
                    holder: holder_words(&Some(v.labels)),
                })
            }
            other => Ok(other),
        }
    }

    async fn remove_volume(&self, desired: &Desired, name: &str) -> Result<(), RuntimeError> {
        if let Some(dir) = data_dir(name) {
            // Elsewhere it is not ours to reach.
            return match self.local {
                true => super::hostdir::remove(dir, &desired.cluster),
                false => Ok(()),
            };
        }
        if self.own_volume(desired, name).await?.is_none() {
            return Ok(());
        }
        found(
            self.api
                .remove_volume(name, None::<query::RemoveVolumeOptions>)
                .await,
        )
        .map(drop)
        .map_err(|e| RuntimeError::failed("remove volume", name, e))
    }

    /// This cluster's volumes of one kind, newest first.
    async fn volumes(&self, cluster: &str, kind: &str) -> Result<Vec<api::Volume>, RuntimeError> {
        let cluster = format!("{}={cluster}", label::CLUSTER);
        let kind = format!("{}={kind}", label::VOLUME_KIND);
        let filters = HashMap::from([("label", vec![cluster, kind])]);
        let options = query::ListVolumesOptionsBuilder::new()
            .filters(&filters)
            .build();
        let mut all = self
            .api
            .list_volumes(Some(options))
            .await
            .map_err(|e| RuntimeError::failed("list volumes of", "the cluster", e))?
            .volumes
            .unwrap_or_default();
        all.sort_by(|a, b| b.created_at.cmp(&a.created_at));
        Ok(all)
    }

    /// Keeps the spec. A network's labels cannot be changed, so a spec other than the one the network was made with is the
    /// label of an empty volume named for its content; the new one stands before the old ones go.
    async fn store_spec(&self, desired: &Desired) -> Result<(), RuntimeError> {
        let on_network = self
            .own_network(desired)
            .await?
            .and_then(|n| n.labels?.remove(label::SPEC));
        let hash = hex(&Sha256::digest(desired.spec.as_bytes()));
        let name = format!("{}-spec-{}", desired.network, &hash[..8]);
        let keep = on_network.as_ref() != Some(&desired.spec);
        let stale: Vec<api::Volume> = self
            .volumes(&desired.cluster, "spec")
            .await?
            .into_iter()
            .filter(|v| !keep || v.name != name)
            .collect();
        if keep {
            let mut labels = cluster_labels(desired);
            labels.insert(label::VOLUME_KIND.into(), "spec".into());
            labels.insert(label::SPEC.into(), desired.spec.clone());
            self.make_volume(&name, labels).await?;
        }
        for volume in stale {
            self.remove_volume(desired, &volume.name).await?;
        }
        Ok(())
    }

    /// Removes what only served the cluster (configuration volumes whose containers somebody removed by hand, spec volumes),
    /// and the network last: as long as it stands, an interrupted `down` finds the cluster again.
    async fn remove_network(&self, desired: &Desired) -> Result<(), RuntimeError> {
        for kind in ["conf", "spec"] {
            for volume in self.volumes(&desired.cluster, kind).await? {
                self.remove_volume(desired, &volume.name).await?;
            }
        }
        for network in self.networks_named(&desired.network).await? {
            if cluster_of(&network.labels) == Some(&desired.cluster) {
                self.delete_network(&network).await?;
            }
        }
        Ok(())
    }

    async fn find_spec(&self, cluster: &str) -> Result<Option<String>, RuntimeError> {
        let filters = HashMap::from([("label", vec![format!("{}={cluster}", label::CLUSTER)])]);
        let options = query::ListNetworksOptionsBuilder::new()
            .filters(&filters)
            .build();
        let (volumes, networks) = tokio::join!(
            self.volumes(cluster, "spec"),
            self.api.list_networks(Some(options))
        );
        let on_volume = volumes?
            .into_iter()
            .find_map(|mut v| v.labels.remove(label::SPEC));
        let networks =
            networks.map_err(|e| RuntimeError::failed("list networks of", cluster, e))?;
        let on_network = networks
            .into_iter()
            .find_map(|n| n.labels?.remove(label::SPEC));
        Ok(on_volume.or(on_network))
    }

    async fn cluster_names(&self) -> Result<Vec<String>, RuntimeError> {
        let filters = HashMap::from([("label", vec![label::CLUSTER])]);
        let networks = query::ListNetworksOptionsBuilder::new()
            .filters(&filters)
            .build();
        let containers = query::ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let (networks, containers) = tokio::join!(
            self.api.list_networks(Some(networks)),
            self.containers(containers)
        );
        let failed = |e: Error| RuntimeError::failed("list", "clusters", e);
        let of_networks = networks.map_err(failed)?.into_iter().map(|n| n.labels);
        let of_containers = containers.map_err(failed)?.into_iter().map(|c| c.labels);
        let names: std::collections::BTreeSet<String> = of_networks
            .chain(of_containers)
            .filter_map(|labels| labels?.remove(label::CLUSTER))
            .collect();
        Ok(names.into_iter().collect())
    }

    /// Whether the end of a container at `at` (Unix seconds) concerns the node: not when the container is gone, as one that a
    /// newer one replaced, nor when it was stopped and started again by hand, which alone sets the count of restarts to 0.
    async fn was_no_stop_of_ours(&self, id: &str, at: i64) -> Result<bool, RuntimeError> {
        let inspect = self.inspect(id).await;
        let Some(inspect) = inspect.map_err(|e| RuntimeError::failed("inspect", id, e))? else {
            return Ok(false);
        };
        let state = inspect.state.unwrap_or_default();
        let started = state
            .started_at
            .as_deref()
            .and_then(super::time::unix_seconds);
        let runs_since = state.running == Some(true)
            && started.is_some_and(|started| i64::try_from(started).is_ok_and(|s| s >= at));
        Ok(!(runs_since && inspect.restart_count == Some(0)))
    }

    async fn first_end_of(
        &self,
        desired: &Desired,
        since: SystemTime,
    ) -> Result<NodeEnd, RuntimeError> {
        let filters = HashMap::from([
            ("type", vec!["container".to_string()]),
            ("event", vec!["die".to_string()]),
            (
                "label",
                vec![format!("{}={}", label::CLUSTER, desired.cluster)],
            ),
        ]);
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        let options = query::EventsOptionsBuilder::new()
            .since(&since)
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.api.events(Some(options)));
        while let Some(event) = events.next().await {
            let event = event.map_err(|e| RuntimeError::failed("watch", &desired.cluster, e))?;
            let at = event.time.unwrap_or_default();
            let actor = event.actor.unwrap_or_default();
            let mut attributes = actor.attributes.unwrap_or_default();
            let (Some(id), Some(container)) = (actor.id, attributes.remove("name")) else {
                continue;
            };
            let ours = desired.nodes.iter().any(|n| n.container == container);
            if ours && self.was_no_stop_of_ours(&id, at).await? {
                let exit_code = attributes.get("exitCode").and_then(|c| c.parse().ok());
                return Ok(NodeEnd {
                    container,
                    exit_code,
                });
            }
        }
        Err(RuntimeError::failed(
            "watch",
            &desired.cluster,
            "the daemon ended the event stream",
        ))
    }
}

impl Runtime for Docker {
    fn observe<'a>(&'a self, desired: &'a Desired) -> Boxed<'a, Observed> {
        Box::pin(self.look(desired))
    }

    fn apply<'a>(&'a self, desired: &'a Desired, action: &'a Action) -> Boxed<'a, ()> {
        Box::pin(async move {
            match action {
                Action::EnsureImage => match desired.engine_image() {
                    Some(image) => self.engine_about(image).await.map(drop),
                    None => self.ensure_image().await,
                },
                Action::CreateNetwork => self.create_network(desired).await,
                Action::CreateVolume(name) => self.create_volume(desired, name).await,
                Action::CreateNode(node) => self.create_node(desired, node).await,
                Action::Configure(node) => self.configure(desired, node).await,
                Action::StoreSpec => self.store_spec(desired).await,
                // Asked of the cluster, not of the daemon.
                Action::AwaitNode(_) | Action::Drain(_) | Action::Reopen(_) => Ok(()),
                Action::StartNode(container) => self.start_node(desired, container).await,
                Action::StopNode(container) => self.stop_node(desired, container).await,
                Action::RemoveNode(container) => self.remove_node(desired, container).await,
                Action::RemoveNetwork => self.remove_network(desired).await,
                Action::RemoveVolume(name) => self.remove_volume(desired, name).await,
                Action::MoveForeign(moved) => self.move_foreign(desired, moved).await,
                Action::CopyStore(copy) => self.copy_store(desired, copy).await,
                Action::RemoveForeign(name) => self.remove_foreign(name).await,
            }
        })
    }

    fn file_of<'a>(&'a self, node: &'a Node) -> Boxed<'a, Option<String>> {
        Box::pin(self.read_file(node))
    }

    fn leftovers(&self) -> Boxed<'_, Vec<Leftover>> {
        Box::pin(self.find_leftovers())
    }

    fn discard<'a>(&'a self, leftover: &'a Leftover) -> Boxed<'a, ()> {
        Box::pin(self.discard_leftover(leftover))
    }

    fn hold(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }

    fn site(&self, _cluster: &str) -> Site {
        Site::Network
    }

    fn kind(&self) -> &'static str {
        match self.podman {
            true => "podman",
            false => "docker",
        }
    }

    fn machine(&self) -> Option<&str> {
        self.machine.as_deref()
    }

    fn fetch_image<'a>(&'a self, image: &'a str, tell: &'a (dyn Fn(&str) + Sync)) -> Boxed<'a, ()> {
        Box::pin(self.pull(image, tell))
    }

    fn engine_of<'a>(&'a self, image: &'a str) -> Boxed<'a, EngineImageAbout> {
        Box::pin(self.engine_about(image))
    }

    fn stored_spec<'a>(&'a self, cluster: &'a str) -> Boxed<'a, Option<String>> {
        Box::pin(self.find_spec(cluster))
    }

    fn clusters<'a>(&'a self) -> Boxed<'a, Vec<String>> {
        Box::pin(self.cluster_names())
    }

    fn memory<'a>(&'a self, containers: &'a [String]) -> Boxed<'a, BTreeMap<String, u64>> {
        Box::pin(self.memory_of(containers))
    }

    fn follow_log<'a>(
        &'a self,
        container: &'a str,
        range: LogRange,
        lines: Sender<LogLine>,
    ) -> Boxed<'a, ()> {
        Box::pin(self.send_log(container, range, lines))
    }

    fn next_start<'a>(&'a self, desired: &'a Desired, container: &'a str) -> Boxed<'a, bool> {
        Box::pin(self.await_start(desired, container))
    }

    fn log_tail<'a>(&'a self, container: &'a str, tail: usize) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            let lines = self.last_lines(container, tail).await;
            let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
            match (lines, attached.get(container)) {
                // It is gone, and took its log with it.
                (Err(_), Some(attached)) => Ok(attached.last_lines(tail)),
                (lines, _) => lines,
            }
        })
    }

    fn first_end<'a>(&'a self, desired: &'a Desired, since: SystemTime) -> Boxed<'a, NodeEnd> {
        Box::pin(self.first_end_of(desired, since))
    }

    fn disturb<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        how: Disturbance,
    ) -> Boxed<'a, ()> {
        Box::pin(self.disturb_node(desired, container, how))
    }

    fn order<'a>(
        &'a self,
        desired: &'a Desired,
        node: &'a Node,
        order: &'a Order,
    ) -> Boxed<'a, ()> {
        Box::pin(self.give_order(desired, node, order))
    }

    fn describe<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
    ) -> Boxed<'a, Option<Description>> {
        Box::pin(self.describe_node(desired, container))
    }

    fn about(&self) -> Boxed<'_, About> {
        Box::pin(self.about_daemon())
    }

    fn exec<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        command: &'a [String],
        input: Option<Input>,
        output: Sender<Output>,
    ) -> Boxed<'a, i64> {
        Box::pin(async move {
            self.must_own(desired, container).await?;
            self.run_in(container, command, input, &output).await
        })
    }

    fn copy_out<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        path: &'a str,
        archive: Sender<Bytes>,
    ) -> Boxed<'a, ()> {
        Box::pin(self.archive_out(desired, container, path, archive))
    }

    fn copy_in<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        dir: &'a str,
        archive: Receiver<Bytes>,
    ) -> Boxed<'a, ()> {
        Box::pin(self.archive_in(desired, container, dir, archive))
    }

    fn strangers(&self) -> Boxed<'_, Vec<Stranger>> {
        Box::pin(self.find_strangers())
    }

    fn glance<'a>(&'a self, container: &'a str, path: &'a str) -> Boxed<'a, Option<Glance>> {
        Box::pin(self.glance_at(container, path))
    }

    fn dial_inside<'a>(
        &'a self,
        container: &'a str,
        addresses: &'a [String],
    ) -> Boxed<'a, Vec<Dial>> {
        Box::pin(self.dial_from(container, addresses))
    }
}

/// `None` for 404.
fn found<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(None),
        Err(e) => Err(e),
    }
}

fn sort_by_age(networks: &mut [api::Network]) {
    networks.sort_by_key(|n| (n.created.clone(), n.id.clone()));
}

/// The cluster's network among all of its name; a stranger's among them is an error.
fn oldest_own(
    desired: &Desired,
    mut all: Vec<api::Network>,
) -> Result<Option<api::Network>, RuntimeError> {
    let foreign = all
        .iter()
        .find(|n| cluster_of(&n.labels) != Some(&desired.cluster));
    if let Some(foreign) = foreign {
        return Err(RuntimeError::NotOurs {
            object: format!("network {}", desired.network),
            cluster: desired.cluster.clone(),
            holder: holder_words(&foreign.labels),
        });
    }
    sort_by_age(&mut all);
    Ok(all.into_iter().next())
}

fn cluster_of(labels: &Option<HashMap<String, String>>) -> Option<&String> {
    labels.as_ref()?.get(label::CLUSTER)
}

/// Whose a thing with these labels is.
fn holder_words(labels: &Option<HashMap<String, String>>) -> String {
    match cluster_of(labels) {
        Some(other) => format!("it belongs to cluster {other}"),
        None => "rmqctl did not make it: it has no io.rmqctl.* labels".into(),
    }
}

/// Labels of everything of a cluster. Compose's two make Docker Desktop group the nodes.
fn cluster_labels(desired: &Desired) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = desired
        .labels
        .iter()
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    labels.insert(label::CLUSTER.into(), desired.cluster.clone());
    labels.insert(label::VERSION.into(), env!("CARGO_PKG_VERSION").into());
    labels.insert(label::CREATED_BY.into(), created_by());
    if let Some(ephemeral) = desired.ephemeral {
        labels.insert(label::EXPIRES_AT.into(), ephemeral.until.to_string());
    }
    labels.insert("com.docker.compose.project".into(), desired.cluster.clone());
    labels
}

fn node_labels(node: &crate::topology::Node) -> Vec<(String, String)> {
    let mut labels = vec![
        (label::NODE.into(), node.name.clone()),
        (label::ROLE.into(), super::role_word(node.role).to_string()),
        (label::CONFIG_HASH.into(), node.config_hash.clone()),
        ("com.docker.compose.service".into(), node.name.clone()),
    ];
    if let Some(broker) = &node.broker {
        labels.push((label::BROKER.into(), broker.name.clone()));
        labels.push((label::BROKER_ID.into(), broker.id.to_string()));
    }
    labels
}
