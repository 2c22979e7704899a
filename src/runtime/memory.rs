//! A runtime that keeps everything in maps and fails at the nth call, for tests of planning and executing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use rocketmq_protocol::partition::Order;
use tokio::sync::mpsc::{Receiver, Sender};

use super::describe::{About, Description};
use super::{
    Boxed, Disturbance, EngineImageAbout, Input, Leftover, LogLine, LogRange, NodeEnd, Output,
    Runtime, RuntimeError,
};
use crate::plan::{Action, Conflict, Moving, NodeState, Observed, ObservedNode};
use crate::probe::Dial;
use crate::topology::{Desired, Node, Site};

/// Things in maps.
#[derive(Default)]
pub struct Memory {
    world: Mutex<World>,
}

#[derive(Default)]
struct World {
    nodes: BTreeMap<String, ObservedNode>,
    files: BTreeMap<String, String>,
    network: Option<String>,
    volumes: BTreeSet<String>,
    image: Option<String>,
    spec: Option<String>,
    conflicts: Vec<Conflict>,
    /// Containers made by hand, and whether they run.
    strangers: BTreeMap<String, bool>,
    /// Which of them each volume was filled from.
    filled: BTreeMap<String, String>,
    /// Calls of `apply` so far.
    calls: usize,
    fail_at: Option<usize>,
}

impl Memory {
    /// The `n`th call of `apply` from now on, counted from 1, fails and changes nothing.
    pub fn fail_at(&self, n: usize) {
        let mut world = self.lock();
        world.fail_at = Some(world.calls + n);
    }
    /// Changes a node behind the planner's back.
    pub fn damage(&self, container: &str, change: impl FnOnce(&mut ObservedNode)) {
        if let Some(node) = self.lock().nodes.get_mut(container) {
            change(node);
        }
    }
    /// Removes a volume.
    pub fn lose_volume(&self, name: &str) {
        self.lock().volumes.remove(name);
    }
    /// Removes the network, and the spec with it. What was made in it starts no more.
    pub fn lose_network(&self) {
        let mut world = self.lock();
        (world.network, world.spec) = (None, None);
        for node in world.nodes.values_mut() {
            node.cut_off = node.state != NodeState::Exited(None);
        }
    }
    /// Forgets the spec.
    pub fn lose_spec(&self) {
        self.lock().spec = None;
    }
    /// Removes the engine's image.
    pub fn lose_image(&self) {
        self.lock().image = None;
    }
    /// What strangers hold from now on.
    pub fn hold(&self, conflicts: Vec<Conflict>) {
        self.lock().conflicts = conflicts;
    }
    /// A container made by hand, which runs.
    pub fn by_hand(&self, container: &str) {
        self.lock().strangers.insert(container.to_owned(), true);
    }
    /// Containers made by hand, each with whether it runs.
    pub fn strangers_now(&self) -> BTreeMap<String, bool> {
        self.lock().strangers.clone()
    }
    /// What each volume was filled from.
    pub fn filled(&self) -> BTreeMap<String, String> {
        self.lock().filled.clone()
    }
    /// Removes a node behind the planner's back.
    pub fn lose(&self, container: &str) {
        self.lock().nodes.remove(container);
    }
    fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.world
            .lock()
            .expect("no test panics while it holds the lock")
    }

    fn act(&self, desired: &Desired, action: &Action) -> Result<(), RuntimeError> {
        let mut world = self.lock();
        world.calls += 1;
        if world.fail_at == Some(world.calls) {
            let call = world.calls;
            return Err(RuntimeError::failed(
                "apply",
                &action.to_string(),
                format!("call {call} was told to fail"),
            ));
        }
        let absent =
            |what: &str| RuntimeError::failed("apply", &action.to_string(), format!("no {what}"));
        match action {
            Action::EnsureImage => world.image = Some("memory".into()),
            Action::CreateNetwork => {
                world.network = Some(desired.network.clone());
                world.spec = Some(desired.spec.clone());
            }
            Action::StoreSpec => world.spec = Some(desired.spec.clone()),
            Action::AwaitNode(_) | Action::Drain(_) | Action::Reopen(_) => {}
            Action::CreateVolume(name) => {
                world.volumes.insert(name.clone());
            }
            Action::CreateNode(node) => {
                if world.network.is_none() {
                    return Err(absent("network"));
                }
                if let Some(volume) = node.volume.as_ref().filter(|v| !world.volumes.contains(*v)) {
                    return Err(absent(&format!("volume {volume}")));
                }
                if world.nodes.contains_key(&node.container)
                    || world.strangers.contains_key(&node.container)
                {
                    return Err(absent("free name"));
                }
                let observed = ObservedNode {
                    id: format!("id-{}", world.calls),
                    name: node.name.clone(),
                    container: node.container.clone(),
                    config_hash: node.config_hash.clone(),
                    broker: node.broker.as_ref().map(|_| node.broker_text()),
                    state: NodeState::Exited(None),
                    image: world.image.clone(),
                    version: None,
                    started_at: None,
                    restarts: 0,
                    ports: node.ports.iter().filter_map(|p| p.host).collect(),
                    cut_off: false,
                    oom_killed: false,
                };
                world.nodes.insert(node.container.clone(), observed);
                keep_file(&mut world, node);
            }
            Action::Configure(node) => {
                if !world.nodes.contains_key(&node.container) {
                    return Err(absent("node"));
                }
                keep_file(&mut world, node);
            }
            Action::StartNode(container) => {
                let others = world.nodes.values().filter(|n| n.container != *container);
                let taken: Vec<u16> = others
                    .filter(|n| !matches!(n.state, NodeState::Exited(_)))
                    .flat_map(|n| n.ports.clone())
                    .collect();
                let node = world
                    .nodes
                    .get_mut(container)
                    .ok_or_else(|| absent("node"))?;
                if node.ports.iter().any(|port| taken.contains(port)) {
                    return Err(absent("free port"));
                }
                // As a daemon does.
                if node.cut_off {
                    return Err(absent("network of its"));
                }
                if node.state == NodeState::Other("dead".into()) {
                    return Err(absent("life in it"));
                }
                node.state = NodeState::Running;
                node.started_at = Some(1);
            }
            Action::StopNode(container) => {
                if let Some(node) = world.nodes.get_mut(container) {
                    node.state = NodeState::Exited(Some(0));
                    node.started_at = None;
                }
            }
            Action::RemoveNode(container) => {
                world.nodes.remove(container);
                world.files.remove(container);
            }
            Action::RemoveNetwork => {
                if !world.nodes.is_empty() {
                    return Err(absent("network free of nodes"));
                }
                world.network = None;
                world.spec = None;
            }
            Action::RemoveVolume(name) => {
                world.volumes.remove(name);
                world.filled.remove(name);
            }
            Action::MoveForeign(moved) => {
                let found = moved.from.iter().chain([&moved.to]);
                let name = found
                    .into_iter()
                    .find(|name| world.strangers.contains_key(*name))
                    .ok_or_else(|| absent("container to rename"))?;
                let mut runs = world.strangers.remove(name).unwrap_or_default();
                match moved.how {
                    Moving::Stop => runs = false,
                    Moving::Rename => {}
                    Moving::Start => runs = true,
                }
                if world.nodes.contains_key(&moved.to) {
                    return Err(absent("free name"));
                }
                world.strangers.insert(moved.to.clone(), runs);
            }
            Action::CopyStore(copy) => {
                if world.strangers.get(&copy.from) != Some(&false) {
                    return Err(absent("stopped container to copy"));
                }
                let volume = copy.carrier.volume.clone().unwrap_or_default();
                if !world.volumes.contains(&volume) {
                    return Err(absent("volume to fill"));
                }
                world.filled.insert(volume, copy.from.clone());
            }
            Action::RemoveForeign(name) => {
                world.strangers.remove(name);
            }
        }
        Ok(())
    }
}

fn keep_file(world: &mut World, node: &crate::topology::Node) {
    if let Some((_, text)) = &node.file {
        world.files.insert(node.container.clone(), text.clone());
    }
}

impl Runtime for Memory {
    fn observe<'a>(&'a self, _desired: &'a Desired) -> Boxed<'a, Observed> {
        Box::pin(async move {
            let world = self.lock();
            Ok(Observed {
                nodes: world.nodes.values().cloned().collect(),
                network: world.network.clone(),
                subnet: None,
                volumes: world.volumes.iter().cloned().collect(),
                image: world.image.clone(),
                spec: world.spec.clone(),
                conflicts: world.conflicts.clone(),
                closed: Vec::new(),
                store_faults: Vec::new(),
                found_stores: Vec::new(),
                empty: Vec::new(),
            })
        })
    }

    fn apply<'a>(&'a self, desired: &'a Desired, action: &'a Action) -> Boxed<'a, ()> {
        Box::pin(async move { self.act(desired, action) })
    }

    fn file_of<'a>(&'a self, node: &'a Node) -> Boxed<'a, Option<String>> {
        Box::pin(async move { Ok(self.lock().files.get(&node.container).cloned()) })
    }

    fn hold(&self) {}

    fn leftovers(&self) -> Boxed<'_, Vec<Leftover>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn discard<'a>(&'a self, _leftover: &'a Leftover) -> Boxed<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn site(&self, _cluster: &str) -> Site {
        Site::Network
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn fetch_image<'a>(
        &'a self,
        _image: &'a str,
        _tell: &'a (dyn Fn(&str) + Sync),
    ) -> Boxed<'a, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn engine_of<'a>(&'a self, image: &'a str) -> Boxed<'a, EngineImageAbout> {
        let about = EngineImageAbout {
            version: "memory".into(),
            sha256: image.into(),
            store_format: 1,
        };
        Box::pin(std::future::ready(Ok(about)))
    }

    fn stored_spec<'a>(&'a self, _cluster: &'a str) -> Boxed<'a, Option<String>> {
        Box::pin(async move { Ok(self.lock().spec.clone()) })
    }

    fn clusters<'a>(&'a self) -> Boxed<'a, Vec<String>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    fn memory<'a>(&'a self, containers: &'a [String]) -> Boxed<'a, BTreeMap<String, u64>> {
        Box::pin(async move {
            Ok(containers
                .iter()
                .map(|name| (name.clone(), 1 << 20))
                .collect())
        })
    }

    fn follow_log<'a>(
        &'a self,
        container: &'a str,
        _range: LogRange,
        lines: Sender<LogLine>,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            // A receiver that is gone wants no more lines.
            let text = format!("{container} says nothing");
            let _ = lines.send(LogLine { at: None, text }).await;
            Ok(())
        })
    }

    fn next_start<'a>(&'a self, _desired: &'a Desired, container: &'a str) -> Boxed<'a, bool> {
        Box::pin(async move {
            let state = self.lock().nodes.get(container).map(|n| n.state.clone());
            match state {
                None => Ok(false),
                Some(NodeState::Running) => Ok(true),
                Some(_) => std::future::pending().await,
            }
        })
    }

    fn log_tail<'a>(&'a self, container: &'a str, _tail: usize) -> Boxed<'a, Vec<String>> {
        Box::pin(async move { Ok(vec![format!("{container} says nothing")]) })
    }

    fn first_end<'a>(&'a self, desired: &'a Desired, _since: SystemTime) -> Boxed<'a, NodeEnd> {
        Box::pin(async move {
            let ended = self
                .lock()
                .nodes
                .values()
                .find_map(|node| match node.state {
                    NodeState::Exited(Some(code))
                        if desired.nodes.iter().any(|n| n.container == node.container) =>
                    {
                        Some(NodeEnd {
                            container: node.container.clone(),
                            exit_code: Some(code),
                        })
                    }
                    _ => None,
                });
            match ended {
                Some(end) => Ok(end),
                None => std::future::pending().await,
            }
        })
    }

    fn disturb<'a>(
        &'a self,
        _desired: &'a Desired,
        container: &'a str,
        how: Disturbance,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            let mut world = self.lock();
            let node = world
                .nodes
                .get_mut(container)
                .ok_or_else(|| RuntimeError::failed(how.word(), container, "no such node"))?;
            match how {
                Disturbance::Crash => node.restarts += 1,
                Disturbance::Kill => {
                    node.state = NodeState::Exited(Some(137));
                    node.started_at = None;
                }
                Disturbance::Pause => node.state = NodeState::Paused,
                Disturbance::Unpause => node.state = NodeState::Running,
                // Nothing is dialled here, so nothing tells an isolated node from another.
                Disturbance::Isolate | Disturbance::Rejoin => {}
            }
            Ok(())
        })
    }

    fn order<'a>(
        &'a self,
        _desired: &'a Desired,
        node: &'a Node,
        _order: &'a Order,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            let state = self
                .lock()
                .nodes
                .get(&node.container)
                .map(|n| n.state.clone());
            match state {
                // Nobody connects to anybody here.
                Some(NodeState::Running) => Ok(()),
                _ => Err(RuntimeError::failed(
                    "give an order to",
                    &node.container,
                    "it does not run",
                )),
            }
        })
    }

    fn describe<'a>(
        &'a self,
        _desired: &'a Desired,
        container: &'a str,
    ) -> Boxed<'a, Option<Description>> {
        Box::pin(async move {
            let world = self.lock();
            Ok(world.nodes.get(container).map(|node| Description {
                state: crate::plan::state_text(&node.state),
                id: node.id.clone(),
                restarts: node.restarts,
                ..Description::default()
            }))
        })
    }

    fn about(&self) -> Boxed<'_, About> {
        Box::pin(async { Ok(About::default()) })
    }

    fn exec<'a>(
        &'a self,
        _desired: &'a Desired,
        container: &'a str,
        command: &'a [String],
        _input: Option<Input>,
        output: Sender<Output>,
    ) -> Boxed<'a, i64> {
        Box::pin(async move {
            let said = format!("{container}: {}\n", command.join(" "));
            let _ = output.send(Output::Out(said.into())).await;
            Ok(0)
        })
    }

    fn copy_out<'a>(
        &'a self,
        _desired: &'a Desired,
        container: &'a str,
        _path: &'a str,
        _archive: Sender<Bytes>,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            Err(RuntimeError::failed(
                "copy from",
                container,
                "it has no files",
            ))
        })
    }

    fn copy_in<'a>(
        &'a self,
        _desired: &'a Desired,
        container: &'a str,
        _dir: &'a str,
        _archive: Receiver<Bytes>,
    ) -> Boxed<'a, ()> {
        Box::pin(async move {
            Err(RuntimeError::failed(
                "copy to",
                container,
                "it has no files",
            ))
        })
    }

    fn dial_inside<'a>(
        &'a self,
        _container: &'a str,
        addresses: &'a [String],
    ) -> Boxed<'a, Vec<Dial>> {
        let dials = addresses
            .iter()
            .map(|address| Dial {
                address: address.clone(),
                fault: None,
            })
            .collect();
        Box::pin(async move { Ok(dials) })
    }
}
