//! Nodes as plain processes on this host, for where there is no Docker: same topology, same commands.
//!
//! A node is one engine process and the small process that starts it again when it ends ([`supervisor`]). What stands is read from
//! the files of [`dir`] and from /proc; a pid counts only together with its start time. Memory and CPU limits need control groups
//! and are not enforced here.

mod describe;
mod dir;
mod disturb;
mod inside;
mod leftover;
mod log;
mod stray;
mod supervisor;
mod watch;

pub use supervisor::supervise;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rocketmq_protocol::partition::Order;
use tokio::process::ChildStdin;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{Receiver, Sender};

use self::describe::about_host;
use self::dir::{LastEnd, NodeDir, NodeFile, StateDir};
use self::watch::Watch;
use super::describe::{About, Description};
use super::hostdir::{self, RunsAs};
use super::image::Engine;
use super::pid::Process;
use super::{
    Boxed, Disturbance, EngineImageAbout, Input, Leftover, LogLine, LogRange, NodeEnd, Output,
    Runtime, RuntimeError, broker_text, created_by, held_by_own, label, ports, role_word,
};
use crate::plan::{Action, Conflict, NodeState, Observed, ObservedNode};
use crate::probe::{self, Dial};
use crate::topology::{Desired, Node, Site, data_dir};

/// What a supervisor may take beyond its node's stop timeout before it is killed itself.
const SUPERVISOR_PATIENCE: Duration = Duration::from_secs(10);

/// This host.
pub struct Processes {
    state: StateDir,
    engine: OnceCell<Arc<Engine>>,
    /// Whether this process holds what it starts.
    holds: AtomicBool,
    /// The inputs of supervisors it holds: the kernel closes them with this process.
    held: Mutex<Vec<ChildStdin>>,
}

impl Processes {
    /// Uses `$XDG_STATE_HOME/rmqctl`, else `~/.local/state/rmqctl`.
    pub fn open() -> Result<Processes, RuntimeError> {
        StateDir::find().map(Processes::at)
    }

    fn at(state: StateDir) -> Processes {
        Processes {
            state,
            engine: OnceCell::new(),
            holds: AtomicBool::new(false),
            held: Mutex::default(),
        }
    }

    async fn engine(&self) -> Result<Arc<Engine>, RuntimeError> {
        self.engine
            .get_or_try_init(|| async {
                let engine = tokio::task::spawn_blocking(Engine::read)
                    .await
                    .map_err(|e| RuntimeError::failed("read", "the running binary", e))?;
                engine.map(Arc::new)
            })
            .await
            .cloned()
    }

    async fn look(&self, desired: &Desired) -> Result<Observed, RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed("look at", &desired.cluster, e);
        let mut observed = Observed::default();
        let mut orphans = Vec::new();
        for dir in self.state.nodes(&desired.cluster).map_err(failed)? {
            observed.volumes.extend(dir.volume());
            let Some(file) = dir.node().map_err(failed)? else {
                continue;
            };
            let mut node = observed_node(&dir, file.clone()).map_err(failed)?;
            if matches!(node.state, NodeState::Exited(_)) {
                let strays = stray::find(&dir, &file).map_err(failed)?;
                if strays.is_starting() {
                    // Whoever started it was killed before this could be written down.
                    node.state = NodeState::Restarting;
                } else if !strays.is_empty() {
                    // The next start ends it first.
                    orphans.push(node.container.clone());
                }
            }
            observed.nodes.push(node);
        }
        observed.spec = self.spec_of(&desired.cluster)?;
        observed.network = observed.spec.is_some().then(|| desired.network.clone());
        let engine = self.engine().await?;
        let kept = self.state.0.join("bin").join(binary_name(&engine));
        observed.image = kept.exists().then(|| engine.tag());
        observed.conflicts = self
            .conflicts_of(desired, &observed.nodes, &orphans)
            .map_err(failed)?;
        hostdir::look(desired, runs_as_us(), &mut observed);
        Ok(observed)
    }

    fn conflicts_of(
        &self,
        desired: &Desired,
        own: &[ObservedNode],
        orphans: &[String],
    ) -> std::io::Result<Vec<Conflict>> {
        let mut conflicts = Vec::new();
        for node in &desired.nodes {
            let conflict = |what: String, holder: String| Conflict {
                what,
                holder,
                node: node.name.clone(),
                ..Conflict::default()
            };
            let other = self.state.find_node(&node.container)?;
            let cluster = other.and_then(|(_, other)| other.labels.get(label::CLUSTER).cloned());
            if let Some(cluster) = cluster.filter(|c| *c != desired.cluster) {
                conflicts.push(conflict(
                    format!("node name {}", node.container),
                    format!("cluster {cluster}"),
                ));
            }
            let runs = own
                .iter()
                .any(|n| n.container == node.container && !matches!(n.state, NodeState::Exited(_)));
            if runs || orphans.contains(&node.container) {
                continue;
            }
            // Unlike a container's, every port is the host's, the HA port too.
            let ports = node.host_ports();
            for port in ports.filter(|port| !held_by_own(*port, own, desired)) {
                if let Some(holder) = ports::holder(desired.bind, port) {
                    conflicts.push(conflict(format!("host port {port}"), holder));
                }
            }
        }
        Ok(conflicts)
    }

    fn spec_of(&self, cluster: &str) -> Result<Option<String>, RuntimeError> {
        match std::fs::read_to_string(self.state.spec(cluster)) {
            Ok(spec) => Ok(Some(spec)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(RuntimeError::failed("read the spec of", cluster, e)),
        }
    }

    async fn act(&self, desired: &Desired, action: &Action) -> Result<(), RuntimeError> {
        match action {
            Action::EnsureImage => self.ensure_binary().await,
            Action::CreateNetwork | Action::StoreSpec => self.store_spec(desired),
            Action::CreateVolume(name) => {
                let node = desired
                    .nodes
                    .iter()
                    .find(|n| n.volume.as_ref() == Some(name));
                let node = node
                    .ok_or_else(|| RuntimeError::failed("create volume", name, "no node has it"))?;
                if let Some(dir) = data_dir(name) {
                    return hostdir::make(dir, &desired.cluster, &node.name, runs_as_us());
                }
                make_private(&self.node_dir(desired, node).0)
                    .and_then(|()| self.node_dir(desired, node).make_volume(name))
                    .map_err(|e| RuntimeError::failed("create volume", name, e))
            }
            Action::CreateNode(node) => self.create_node(desired, node).await,
            Action::Configure(node) => configure(node),
            // Asked of the cluster, not of us.
            Action::AwaitNode(_) | Action::Drain(_) | Action::Reopen(_) => Ok(()),
            Action::StartNode(container) => self.start_node(desired, container).await,
            Action::StopNode(container) => self.stop_node(desired, container).await,
            Action::RemoveNode(container) => self.remove_node(desired, container).await,
            Action::RemoveNetwork => {
                let failed = |e| RuntimeError::failed("remove", &desired.cluster, e);
                self.state.sweep(&desired.cluster).map_err(failed)?;
                dir::remove_file(&self.state.spec(&desired.cluster)).map_err(failed)?;
                dir::remove_if_empty(&self.state.cluster(&desired.cluster)).map_err(failed)
            }
            Action::RemoveVolume(name) => self.remove_volume(desired, name),
            Action::MoveForeign(_) | Action::CopyStore(_) | Action::RemoveForeign(_) => {
                Err(super::stranger::unsupported("process"))
            }
        }
    }

    /// Keeps the running binary where nodes can run it from, and drops kept ones that no node uses.
    async fn ensure_binary(&self) -> Result<(), RuntimeError> {
        let engine = self.engine().await?;
        let bin = self.state.0.join("bin");
        let failed = |e: std::io::Error| {
            RuntimeError::failed("keep the engine in", &bin.display().to_string(), e)
        };
        make_private(&self.state.0).map_err(failed)?;
        let kept = supervisor::keep_binary(&bin, &engine)?;
        let mut used = vec![kept];
        for cluster in self.state.clusters().map_err(failed)? {
            for dir in self.state.nodes(&cluster).map_err(failed)? {
                used.extend(dir.node().map_err(failed)?.map(|n| n.binary));
            }
        }
        for entry in std::fs::read_dir(&bin).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if !used.contains(&path) {
                dir::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn store_spec(&self, desired: &Desired) -> Result<(), RuntimeError> {
        make_private(&self.state.cluster(&desired.cluster))
            .and_then(|()| {
                dir::replace(&self.state.spec(&desired.cluster), desired.spec.as_bytes())
            })
            .map_err(|e| RuntimeError::failed("keep the spec of", &desired.cluster, e))
    }

    fn node_dir(&self, desired: &Desired, node: &Node) -> NodeDir {
        NodeDir(self.state.cluster(&desired.cluster).join(&node.name))
    }

    async fn create_node(&self, desired: &Desired, node: &Node) -> Result<(), RuntimeError> {
        let engine = self.engine().await?;
        let failed = |e: std::io::Error| RuntimeError::failed("create", &node.container, e);
        let dir = self.node_dir(desired, node);
        if dir.node().map_err(failed)?.is_some() {
            return Err(RuntimeError::failed(
                "create",
                &node.container,
                "it exists already",
            ));
        }
        make_private(&dir.0).map_err(failed)?;
        if let Some(store) = &node.store_path {
            std::fs::create_dir_all(store).map_err(failed)?;
        }
        configure(node)?;
        let mut labels = desired.labels.clone();
        let own = [
            (label::CLUSTER, desired.cluster.clone()),
            (label::NODE, node.name.clone()),
            (label::ROLE, role_word(node.role).to_string()),
            (label::CONFIG_HASH, node.config_hash.clone()),
            (label::VERSION, env!("CARGO_PKG_VERSION").to_string()),
            (label::CREATED_BY, created_by()),
            (label::ENGINE_SHA256, engine.sha256.clone()),
        ];
        labels.extend(own.map(|(key, value)| (key.to_string(), value)));
        if let Some(ephemeral) = desired.ephemeral {
            labels.insert(label::EXPIRES_AT.into(), ephemeral.until.to_string());
        }
        if let Some(broker) = &node.broker {
            labels.insert(label::BROKER.into(), broker.name.clone());
            labels.insert(label::BROKER_ID.into(), broker.id.to_string());
        }
        // Last: a node without this file was not created.
        dir.write_node(&NodeFile {
            labels,
            name: node.name.clone(),
            container: node.container.clone(),
            config_hash: node.config_hash.clone(),
            ports: node.host_ports().collect(),
            image: engine.tag(),
            binary: self.state.0.join("bin").join(binary_name(&engine)),
            command: node.command.clone(),
            env: node.env.clone(),
            stop_timeout: desired.stop_timeout,
            until: desired.ephemeral.map(|ephemeral| ephemeral.until),
            data_dir: node.data_dir().map(Path::to_path_buf),
        })
        .map_err(failed)
    }

    /// The node of this container name if it is this cluster's; another cluster's is an error.
    fn own_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<Option<(NodeDir, NodeFile)>, RuntimeError> {
        let found = self
            .state
            .find_node(container)
            .map_err(|e| RuntimeError::failed("look for", container, e))?;
        if let Some((_, node)) = &found {
            let cluster = node.labels.get(label::CLUSTER);
            if cluster != Some(&desired.cluster) {
                return Err(RuntimeError::NotOurs {
                    object: format!("node {container}"),
                    cluster: desired.cluster.clone(),
                    holder: format!(
                        "it belongs to cluster {}",
                        cluster.map_or("?", String::as_str)
                    ),
                });
            }
        }
        Ok(found)
    }

    async fn start_node(&self, desired: &Desired, container: &str) -> Result<(), RuntimeError> {
        let (dir, node) = self
            .own_node(desired, container)?
            .ok_or_else(|| RuntimeError::failed("start", container, "no such node"))?;
        let run = dir
            .run()
            .map_err(|e| RuntimeError::failed("start", container, e))?;
        if run.as_ref().is_some_and(|run| run.supervisor.lives()) {
            return self
                .disturb_node(desired, container, Disturbance::Unpause)
                .await;
        }
        if run.and_then(|run| run.child).is_some_and(Process::lives) {
            // Its supervisor was killed: it would not come back by itself, and two engines must not have one store.
            self.stop_node(desired, container).await?;
        }
        stray::stop(&dir, &node)
            .await
            .map_err(|e| RuntimeError::failed("start", container, e))?;
        let hold = node.until.is_some() && self.holds.load(Ordering::Relaxed);
        let input = supervisor::launch(&dir, &node, hold).await?;
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(input);
        Ok(())
    }

    async fn stop_node(&self, desired: &Desired, container: &str) -> Result<(), RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed("stop", container, e);
        let Some((dir, node)) = self.own_node(desired, container)? else {
            return Ok(());
        };
        let Some(mut run) = dir.run().map_err(failed)? else {
            // Written down by the supervisor: one that is only starting has not done so yet.
            return stray::stop(&dir, &node).await.map_err(failed);
        };
        if let Some(supervisor) = run.supervisor.open() {
            let killed = supervisor
                .stop(node.stop_timeout + SUPERVISOR_PATIENCE)
                .await
                .map_err(failed)?;
            if !killed {
                return Ok(());
            }
            run = dir.run().map_err(failed)?.unwrap_or(run);
        }
        if let Some(child) = run.child.and_then(Process::open) {
            child.stop(node.stop_timeout).await.map_err(failed)?;
        }
        stray::stop(&dir, &node).await.map_err(failed)?;
        run.child = None;
        dir.write_run(&run).map_err(failed)
    }

    async fn remove_node(&self, desired: &Desired, container: &str) -> Result<(), RuntimeError> {
        self.stop_node(desired, container).await?;
        match self.own_node(desired, container)? {
            Some((dir, _)) => dir
                .remove_node()
                .map_err(|e| RuntimeError::failed("remove", container, e)),
            None => Ok(()),
        }
    }

    fn remove_volume(&self, desired: &Desired, name: &str) -> Result<(), RuntimeError> {
        if let Some(dir) = data_dir(name) {
            return hostdir::remove(dir, &desired.cluster);
        }
        let failed = |e: std::io::Error| RuntimeError::failed("remove volume", name, e);
        for dir in self.state.nodes(&desired.cluster).map_err(failed)? {
            if dir.volume().as_deref() != Some(name) {
                continue;
            }
            if dir.node().map_err(failed)?.is_some() {
                return Err(RuntimeError::failed(
                    "remove volume",
                    name,
                    "its node still exists",
                ));
            }
            dir.remove_volume().map_err(failed)?;
        }
        dir::remove_if_empty(&self.state.cluster(&desired.cluster)).map_err(failed)
    }

    async fn first_end_of(
        &self,
        desired: &Desired,
        since: SystemTime,
    ) -> Result<NodeEnd, RuntimeError> {
        let since_ms = since
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let failed = |e: std::io::Error| RuntimeError::failed("watch", &desired.cluster, e);
        let dirs: Vec<(&Node, NodeDir)> = desired
            .nodes
            .iter()
            .map(|node| (node, self.node_dir(desired, node)))
            .filter(|(_, dir)| dir.0.is_dir())
            .collect();
        // Supervisors replace `run.json` at each end. Watched before the first read, so that none is missed in between.
        let watches = dirs.iter().map(|(_, dir)| Watch::replacements(&dir.0));
        let watches = watches
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(failed)?;
        loop {
            let changes: FuturesUnordered<_> = watches.iter().map(Watch::changed).collect();
            let ends = FuturesUnordered::new();
            for (node, dir) in &dirs {
                let Some(run) = dir.run().map_err(failed)? else {
                    continue;
                };
                let ended = |end: Option<LastEnd>| NodeEnd {
                    container: node.container.clone(),
                    exit_code: end.map(|end| end.code),
                };
                if let Some(end) = run.last_end.filter(|end| u128::from(end.at_ms) >= since_ms) {
                    return Ok(ended(Some(end)));
                }
                // While the supervisor lives it tells of the node's end; a node without one is watched itself.
                let tells = run
                    .supervisor
                    .open()
                    .or_else(|| run.child.and_then(Process::open));
                match tells {
                    Some(process) => ends.push(async move { process.ended().await }),
                    None => return Ok(ended(run.last_end)),
                }
            }
            match futures_util::stream::select(changes, ends).next().await {
                Some(event) => event.map_err(failed)?,
                None => return std::future::pending().await,
            }
        }
    }
}

impl Runtime for Processes {
    fn observe<'a>(&'a self, desired: &'a Desired) -> Boxed<'a, Observed> {
        Box::pin(self.look(desired))
    }

    fn apply<'a>(&'a self, desired: &'a Desired, action: &'a Action) -> Boxed<'a, ()> {
        Box::pin(self.act(desired, action))
    }

    fn file_of<'a>(&'a self, node: &'a Node) -> Boxed<'a, Option<String>> {
        Box::pin(async move {
            let Some(path) = &node.conf_path else {
                return Ok(None);
            };
            match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(RuntimeError::failed("read", &path.display().to_string(), e)),
            }
        })
    }

    fn leftovers(&self) -> Boxed<'_, Vec<Leftover>> {
        Box::pin(self.find_leftovers())
    }

    fn discard<'a>(&'a self, leftover: &'a Leftover) -> Boxed<'a, ()> {
        Box::pin(async move { self.discard_leftover(leftover) })
    }

    fn hold(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }

    fn site(&self, cluster: &str) -> Site {
        Site::Loopback {
            dir: self.state.cluster(cluster),
        }
    }

    fn kind(&self) -> &'static str {
        "process"
    }

    fn fetch_image<'a>(
        &'a self,
        image: &'a str,
        _tell: &'a (dyn Fn(&str) + Sync),
    ) -> Boxed<'a, ()> {
        // No plan for processes names one: the topology refuses it.
        let refused = RuntimeError::failed("run", image, "processes have no images");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn engine_of<'a>(&'a self, image: &'a str) -> Boxed<'a, EngineImageAbout> {
        // Nor does any ask for one.
        let refused = RuntimeError::failed("run", image, "processes have no images");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn stored_spec<'a>(&'a self, cluster: &'a str) -> Boxed<'a, Option<String>> {
        Box::pin(async move { self.spec_of(cluster) })
    }

    fn clusters<'a>(&'a self) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            self.state
                .clusters()
                .map_err(|e| RuntimeError::failed("list", "clusters", e))
        })
    }

    fn memory<'a>(&'a self, containers: &'a [String]) -> Boxed<'a, BTreeMap<String, u64>> {
        Box::pin(async move {
            let mut memory = BTreeMap::new();
            for container in containers {
                let found = self.state.find_node(container);
                let found = found.map_err(|e| RuntimeError::failed("look for", container, e))?;
                let run = found.and_then(|(dir, _)| dir.run().ok()?);
                // The supervisor is part of what the node costs.
                if let Some((run, child)) =
                    run.and_then(|run| Some((run.clone(), run.child?.memory()?)))
                {
                    let supervisor = run.supervisor.memory().unwrap_or_default();
                    memory.insert(container.clone(), child + supervisor);
                }
            }
            Ok(memory)
        })
    }

    fn follow_log<'a>(
        &'a self,
        container: &'a str,
        range: LogRange,
        lines: Sender<LogLine>,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            let failed = |e: std::io::Error| RuntimeError::failed("read the log of", container, e);
            let (dir, _) = self
                .state
                .find_node(container)
                .map_err(failed)?
                .ok_or_else(|| {
                    RuntimeError::failed("read the log of", container, "no such node")
                })?;
            let supervisor = dir
                .run()
                .map_err(failed)?
                .and_then(|run| run.supervisor.open());
            let until = supervisor.filter(|_| range.follow);
            log::send(&dir.log(), range, until.as_ref(), &lines)
                .await
                .map_err(failed)
        })
    }

    fn next_start<'a>(&'a self, desired: &'a Desired, container: &'a str) -> Boxed<'a, bool> {
        Box::pin(self.await_start(desired, container))
    }

    fn log_tail<'a>(&'a self, container: &'a str, tail: usize) -> Boxed<'a, Vec<String>> {
        Box::pin(async move {
            let failed = |e: std::io::Error| RuntimeError::failed("read the log of", container, e);
            match self.state.find_node(container).map_err(failed)? {
                Some((dir, _)) => log::tail(&dir.log(), tail)
                    .map(|(lines, _)| lines)
                    .map_err(failed),
                None => Ok(Vec::new()),
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
        Box::pin(async move { self.describe_node(desired, container) })
    }

    fn about(&self) -> Boxed<'_, About> {
        Box::pin(async { Ok(about_host(&self.state.0)) })
    }

    fn exec<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        command: &'a [String],
        _input: Option<Input>,
        output: Sender<Output>,
    ) -> Boxed<'a, i64> {
        Box::pin(async move {
            // It has this program's own streams.
            drop(output);
            self.run_beside(desired, container, command).await
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

    fn dial_inside<'a>(
        &'a self,
        _container: &'a str,
        addresses: &'a [String],
    ) -> Boxed<'a, Vec<Dial>> {
        // A process' inside is this host.
        Box::pin(async move { Ok(probe::dial_all(addresses).await) })
    }
}

/// A process writes as its user.
fn runs_as_us() -> RunsAs {
    RunsAs::User(rustix::process::geteuid().as_raw())
}

fn binary_name(engine: &Engine) -> String {
    format!("rmqctl-{}", &engine.sha256[..8])
}

/// Makes a directory that only this user may look into: stores hold other people's messages.
fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn configure(node: &Node) -> Result<(), RuntimeError> {
    let (Some((_, text)), Some(path)) = (&node.file, &node.conf_path) else {
        return Ok(());
    };
    let dir = path.parent().unwrap_or(Path::new("/"));
    make_private(dir)
        .and_then(|()| dir::replace(path, text.as_bytes()))
        .map_err(|e| RuntimeError::failed("configure", &node.container, e))
}

fn observed_node(dir: &NodeDir, node: NodeFile) -> std::io::Result<ObservedNode> {
    let run = dir.run()?;
    let supervised = run.as_ref().is_some_and(|run| run.supervisor.lives());
    let child = run.as_ref().and_then(|run| run.child).filter(|c| c.lives());
    let state = match (child, supervised) {
        (Some(child), _) if child.stands_still() => NodeState::Paused,
        (Some(_), _) => NodeState::Running,
        (None, true) => NodeState::Restarting,
        (None, false) => NodeState::Exited(
            run.as_ref()
                .and_then(|run| run.last_end)
                .map(|end| end.code),
        ),
    };
    let run = run.as_ref();
    Ok(ObservedNode {
        id: child
            .or(run.map(|run| run.supervisor).filter(|_| supervised))
            .map(|process| process.pid.to_string())
            .unwrap_or_default(),
        name: node.name,
        container: node.container,
        config_hash: node.config_hash,
        broker: broker_text(|key| node.labels.get(key)),
        image: Some(node.image),
        version: node.labels.get(label::VERSION).cloned(),
        started_at: run.filter(|_| child.is_some()).map(|run| run.started_at),
        restarts: run.map(|run| run.restarts).unwrap_or_default(),
        ports: node.ports,
        cut_off: false,
        // The kernel's log would know; a process' exit does not tell it from any other kill.
        oom_killed: false,
        state,
    })
}
