//! Desired x observed -> ordered actions, each with its cause. Pure; its `Display` is the dry run. Never calls a runtime.

mod lifecycle;

pub use lifecycle::{down, restart, start, stop};

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Exit};
use crate::properties;
use crate::topology::{Desired, Node, Role};

/// A running or stopped node as a runtime found it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ObservedNode {
    /// Runtime's own id: container id, or pid.
    pub id: String,
    pub name: String,
    pub container: String,
    /// From its label.
    pub config_hash: String,
    pub state: NodeState,
    pub image: Option<String>,
    /// Version of the `rmqctl` that made it, which is its engine's.
    pub version: Option<String>,
    /// Unix seconds of the last start; `None` while it is not running.
    pub started_at: Option<u64>,
    /// How often it came back by itself since it was created.
    pub restarts: u32,
    /// The last end was for memory.
    pub oom_killed: bool,
}

/// What a node is doing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NodeState {
    Running,
    Restarting,
    Paused,
    /// Never started, or ended with this exit code.
    Exited(Option<i64>),
    Other(String),
}

/// What a runtime saw of one cluster, its own things only, plus who holds names and ports that we want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Observed {
    pub nodes: Vec<ObservedNode>,
    pub network: Option<String>,
    /// The network's IPv4 subnet, where the runtime has such a thing.
    pub subnet: Option<String>,
    pub volumes: Vec<String>,
    /// Tag of the engine image that new nodes would get, when it is there already; a process runtime has its binary's hash.
    pub image: Option<String>,
    /// [`Desired::spec`](crate::topology::Desired::spec) of the last `up`, from the network's label or the run directory.
    pub spec: Option<String>,
    /// Names or host ports that the desired state needs and something foreign holds.
    pub conflicts: Vec<Conflict>,
}

/// Something of another's in our way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `container name rmqmaster1`, `host port 10911`.
    pub what: String,
    /// Who holds it.
    pub holder: String,
    /// Which node wanted it.
    pub node: String,
}

/// One call of a runtime. A `String` of a node is its container's name (`ci42-rmqmaster1`), of a volume the volume's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Action {
    EnsureImage,
    CreateNetwork,
    CreateVolume(String),
    CreateNode(Box<Node>),
    /// Puts `node.file` into a stopped node, for a restart that applies what the user edited.
    Configure(Box<Node>),
    /// Writes [`Desired::spec`](crate::topology::Desired::spec) where `Runtime::stored_spec` finds it.
    /// (Docker cannot change a network's label: a label of the containers, or a small volume, may hold it.)
    StoreSpec,
    /// Waits through the protocol until the node is ready. `execute` asks the probe; no runtime sees it.
    AwaitNode(String),
    StartNode(String),
    StopNode(String),
    RemoveNode(String),
    RemoveNetwork,
    RemoveVolume(String),
}

impl Action {
    /// The container that it does something to.
    pub fn container(&self) -> Option<&str> {
        match self {
            Action::CreateNode(node) | Action::Configure(node) => Some(&node.container),
            Action::StartNode(name)
            | Action::StopNode(name)
            | Action::RemoveNode(name)
            | Action::AwaitNode(name) => Some(name),
            Action::EnsureImage
            | Action::CreateNetwork
            | Action::CreateVolume(_)
            | Action::StoreSpec
            | Action::RemoveNetwork
            | Action::RemoveVolume(_) => None,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::EnsureImage => write!(f, "engine image"),
            Action::CreateNetwork => write!(f, "create network"),
            Action::CreateVolume(volume) => write!(f, "create volume {volume}"),
            Action::CreateNode(node) => write!(f, "create {}", node.container),
            Action::Configure(node) => write!(f, "configure {}", node.container),
            Action::StoreSpec => write!(f, "keep the spec"),
            Action::AwaitNode(name) => write!(f, "wait for {name}"),
            Action::StartNode(name) => write!(f, "start {name}"),
            Action::StopNode(name) => write!(f, "stop {name}"),
            Action::RemoveNode(name) => write!(f, "remove {name}"),
            Action::RemoveNetwork => write!(f, "remove network"),
            Action::RemoveVolume(volume) => write!(f, "remove volume {volume}"),
        }
    }
}

/// An action and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Step {
    pub action: Action,
    pub cause: String,
}

/// Ordered steps. In a stage, those of one node go one after the other as they stand, and all else in parallel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each begins when the one before has ended.
    pub stages: Vec<Vec<Step>>,
    /// What a person reads, one line a thing, unchanged ones too.
    pub changes: Vec<Change>,
}

/// What happens to one thing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// `network rmqnetwork`, or a node's name.
    pub what: String,
    /// Which way it goes.
    pub kind: Kind,
    /// Why, or how it will be.
    pub detail: String,
}

/// Ways that a thing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Kind {
    Unchanged,
    /// Runs though the spec does not name it, and is left alone.
    Orphan,
    Start,
    Restart,
    Stop,
    Recreate,
    Create,
    Remove,
}

impl Kind {
    fn sign(self) -> char {
        match self {
            Kind::Unchanged => ' ',
            Kind::Orphan => '?',
            Kind::Start | Kind::Restart | Kind::Stop | Kind::Recreate => '~',
            Kind::Create => '+',
            Kind::Remove => '-',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Unchanged => "unchanged",
            Kind::Orphan => "orphan",
            Kind::Start => "start",
            Kind::Restart => "restart",
            Kind::Stop => "stop",
            Kind::Recreate => "recreate",
            Kind::Create => "create",
            Kind::Remove => "remove",
        }
    }
}

impl Plan {
    /// Whether every thing is as it shall be. (The spec kept with the cluster may still be written anew.)
    pub fn is_nothing(&self) -> bool {
        self.changes
            .iter()
            .all(|c| matches!(c.kind, Kind::Unchanged | Kind::Orphan))
    }

    /// Names of the things that go this way.
    pub fn named(&self, kind: Kind) -> Vec<&str> {
        self.changes
            .iter()
            .filter(|c| c.kind == kind)
            .map(|c| c.what.as_str())
            .collect()
    }

    /// Gives nodes that are to be created the file as it stands in `desired`, the user's edits in it.
    pub fn use_files_of(&mut self, desired: &Desired) {
        for step in self.stages.iter_mut().flatten() {
            if let Action::CreateNode(node) | Action::Configure(node) = &mut step.action
                && let Some(edited) = desired.nodes.iter().find(|n| n.name == node.name)
            {
                node.file.clone_from(&edited.file);
            }
        }
    }

    fn note(&mut self, what: impl Into<String>, kind: Kind, detail: impl Into<String>) {
        self.changes.push(Change {
            what: what.into(),
            kind,
            detail: detail.into(),
        });
    }

    /// Adds a stage; an empty one is none.
    fn stage(&mut self, steps: impl IntoIterator<Item = Step>) {
        let steps: Vec<Step> = steps.into_iter().collect();
        if !steps.is_empty() {
            self.stages.push(steps);
        }
    }

    fn summary(&self) -> String {
        let kinds = [
            Kind::Unchanged,
            Kind::Orphan,
            Kind::Stop,
            Kind::Start,
            Kind::Restart,
            Kind::Recreate,
            Kind::Create,
            Kind::Remove,
        ];
        let parts: Vec<String> = kinds
            .into_iter()
            .filter_map(|kind| {
                let count = self.named(kind).len();
                let text = match kind {
                    Kind::Unchanged => format!("{count} unchanged"),
                    Kind::Orphan => {
                        format!("{count} not in the spec, left alone (--remove-orphans removes)")
                    }
                    Kind::Recreate => format!("{count} to recreate (rolling, data kept)"),
                    kind => format!("{count} to {}", kind.word()),
                };
                (count > 0).then_some(text)
            })
            .collect();
        parts.join(" · ")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self
            .changes
            .iter()
            .map(|c| c.what.chars().count())
            .max()
            .unwrap_or(0)
            .max(26);
        for change in &self.changes {
            let Change { what, kind, detail } = change;
            let line = format!("{} {what:<wide$} {:<10} {detail}", kind.sign(), kind.word());
            writeln!(f, "{}", line.trim_end())?;
        }
        writeln!(f, "  {}.", self.summary())
    }
}

/// What `up` may do beyond making what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpOptions {
    /// Stop and remove nodes that the spec does not name. Their volumes stay.
    pub remove_orphans: bool,
}

/// Places in start order; stopping goes the other way.
fn rank(role: Role) -> u8 {
    match role {
        Role::Namesrv => 0,
        Role::Master => 1,
        Role::Slave => 2,
        Role::Console => 3,
    }
}

/// Order in which nodes are replaced or restarted one after another: slaves before their masters, so that a master that
/// stops has a slave in sync which serves its messages meanwhile.
fn rolling_rank(role: Role) -> u8 {
    match role {
        Role::Console => 0,
        Role::Namesrv => 1,
        Role::Slave => 2,
        Role::Master => 3,
    }
}

fn step(action: Action, cause: impl Into<String>) -> Step {
    Step {
        action,
        cause: cause.into(),
    }
}

fn begin(node: &Node, cause: &str) -> Step {
    step(Action::StartNode(node.container.clone()), cause)
}

/// Puts the node's file into it, where it has one.
fn configure(node: &Node, cause: &str) -> Option<Step> {
    node.file.as_ref()?;
    Some(step(Action::Configure(Box::new(node.clone())), cause))
}

/// Ports and names that someone else holds, as an error; nothing was changed by it.
fn refuse_conflicts(desired: &Desired, observed: &Observed) -> Result<(), Error> {
    let Some(first) = observed.conflicts.first() else {
        return Ok(());
    };
    let port = first.what.contains("port");
    let mut error = if port {
        Error::new(
            "RMQ-E021",
            Exit::Conflict,
            format!("{} is taken", first.what),
        )
    } else {
        Error::new(
            "RMQ-E014",
            Exit::Conflict,
            format!("{} is in use, and rmqctl did not create it", first.what),
        )
    };
    for conflict in &observed.conflicts {
        error = error.detail(format!(
            "node {} needs {}; held by {}",
            conflict.node, conflict.what, conflict.holder
        ));
    }
    error = error.detail("nothing was changed");
    if observed.conflicts.iter().any(|c| c.what.contains("port")) {
        error = error
            .hint("stop what holds it")
            .hint(desired.suggest("up --port-offset 100"));
    }
    if !observed.conflicts.iter().all(|c| c.what.contains("port")) {
        error = error
            .hint("remove or rename it")
            .hint("use another cluster name: rmqctl --name dev up --port-offset 100");
    }
    Err(error)
}

/// A subnet is fixed when its network is made, and all nodes are in that.
fn refuse_other_subnet(desired: &Desired, observed: &Observed) -> Result<(), Error> {
    match (&desired.subnet, &observed.subnet) {
        (Some(wanted), Some(there)) if wanted != there => Err(Error::new(
            "RMQ-E015",
            Exit::Conflict,
            format!(
                "{} has the subnet {there}; it cannot become {wanted}",
                desired.ground()
            ),
        )
        .detail("nothing was changed")
        .hint(desired.suggest("down, then this again   makes it anew; messages stay"))),
        _ => Ok(()),
    }
}

/// What `up` does. `previous` is the state that the running nodes were made from, if it is known: it only words the causes.
pub fn up(
    desired: &Desired,
    previous: Option<&Desired>,
    observed: &Observed,
    options: UpOptions,
) -> Result<Plan, Error> {
    refuse_conflicts(desired, observed)?;
    refuse_other_subnet(desired, observed)?;
    let mut plan = Plan::default();
    let found: BTreeMap<&str, &ObservedNode> = observed
        .nodes
        .iter()
        .map(|n| (n.container.as_str(), n))
        .collect();
    let network = desired.ground();
    let mut base = Vec::new();
    if observed.network.is_none() {
        plan.note(
            network,
            Kind::Create,
            desired.subnet.clone().unwrap_or_default(),
        );
        base.push(step(Action::CreateNetwork, "it does not exist"));
    } else {
        plan.note(network, Kind::Unchanged, "");
    }

    let mut create: Vec<&Node> = Vec::new();
    let mut start: Vec<(&Node, &ObservedNode, String)> = Vec::new();
    let mut replace: Vec<(&Node, String)> = Vec::new();
    for node in &desired.nodes {
        let Some(seen) = found.get(node.container.as_str()) else {
            plan.note(&node.name, Kind::Create, describe(node, observed));
            create.push(node);
            continue;
        };
        if let Some(cause) = stale(node, seen, previous, observed) {
            plan.note(&node.name, Kind::Recreate, &cause);
            replace.push((node, cause));
        } else if matches!(seen.state, NodeState::Running | NodeState::Restarting) {
            plan.note(&node.name, Kind::Unchanged, "");
        } else {
            let cause = state_text(&seen.state);
            plan.note(&node.name, Kind::Start, &cause);
            start.push((node, seen, cause));
        }
    }
    let wanted: Vec<&str> = desired.nodes.iter().map(|n| n.container.as_str()).collect();
    let orphans: Vec<&ObservedNode> = observed
        .nodes
        .iter()
        .filter(|n| !wanted.contains(&n.container.as_str()))
        .collect();
    for orphan in &orphans {
        let kind = if options.remove_orphans {
            Kind::Remove
        } else {
            Kind::Orphan
        };
        plan.note(
            &orphan.name,
            kind,
            "the spec does not name it; its volume stays",
        );
    }

    if observed.image.is_none() && !(create.is_empty() && replace.is_empty()) {
        base.push(step(Action::EnsureImage, "nodes are to be created"));
    }
    let new: Vec<&Node> = create
        .iter()
        .copied()
        .chain(replace.iter().map(|(node, _)| *node))
        .collect();
    for volume in new
        .iter()
        .filter_map(|node| node.volume.as_ref())
        .filter(|v| !observed.volumes.contains(v))
    {
        base.push(step(
            Action::CreateVolume(volume.clone()),
            "it does not exist",
        ));
    }
    plan.stage(base);
    if observed.spec.as_deref() != Some(&desired.spec) {
        plan.stage([step(Action::StoreSpec, "the spec changed")]);
    }
    if options.remove_orphans {
        plan.stage(orphans.iter().map(|o| {
            step(
                Action::StopNode(o.container.clone()),
                "the spec does not name it",
            )
        }));
        plan.stage(orphans.iter().map(|o| {
            step(
                Action::RemoveNode(o.container.clone()),
                "the spec does not name it",
            )
        }));
    }

    replace.sort_by_key(|(node, _)| rolling_rank(node.role));
    let rolling = !ports_change_hands(&replace, previous);
    if !rolling {
        // One of them needs a port that another still holds: all stop before the first starts.
        plan.stage(
            replace
                .iter()
                .map(|(n, why)| step(Action::StopNode(n.container.clone()), why)),
        );
        plan.stage(
            replace
                .iter()
                .map(|(n, why)| step(Action::RemoveNode(n.container.clone()), why)),
        );
        create.extend(replace.iter().map(|(node, _)| *node));
    }
    // In one stage, in start order: a broker asks for its name server, and a slave for its master, until they are there, so
    // that nothing is gained by waiting for a whole rank to start. On two cores six containers start in 2.2 s so, and in 3.4 s
    // rank by rank.
    let mut chains: Vec<(&Node, Vec<Step>)> = Vec::new();
    for node in create {
        let made = step(
            Action::CreateNode(Box::new(node.clone())),
            "it does not exist",
        );
        chains.push((node, vec![made, begin(node, "created")]));
    }
    for (node, seen, cause) in start {
        let mut chain = Vec::new();
        if seen.state == NodeState::Exited(None) {
            // Whoever made it may have been killed before the file was in it.
            chain.extend(configure(node, "it never ran"));
        }
        chain.push(begin(node, &cause));
        chains.push((node, chain));
    }
    chains.sort_by_key(|(node, _)| rank(node.role));
    plan.stage(chains.into_iter().flat_map(|(_, chain)| chain));
    if rolling {
        for (node, cause) in &replace {
            let name = || node.container.clone();
            plan.stage([step(Action::StopNode(name()), cause)]);
            plan.stage([step(Action::RemoveNode(name()), cause)]);
            plan.stage([step(Action::CreateNode(Box::new((*node).clone())), cause)]);
            plan.stage([step(Action::StartNode(name()), "created")]);
            plan.stage(await_group(node, desired, observed));
        }
    }
    Ok(plan)
}

/// Waits for a node that was started again and, behind a master, for the slaves that run: its stop broke their streams, and the
/// next node must not stop before they follow again.
fn await_group<'a>(
    node: &'a Node,
    desired: &'a Desired,
    observed: &'a Observed,
) -> impl Iterator<Item = Step> + 'a {
    let broker = (node.role == Role::Master)
        .then_some(node.broker.as_ref())
        .flatten();
    let runs = |slave: &Node| {
        let seen = observed
            .nodes
            .iter()
            .find(|n| n.container == slave.container);
        seen.is_some_and(|n| n.state == NodeState::Running)
    };
    let follows = move |slave: &&Node| {
        slave.role == Role::Slave
            && broker
                .is_some_and(|broker| slave.broker.as_ref().is_some_and(|b| b.name == broker.name))
            && runs(slave)
    };
    let wait = |node: &Node, cause| step(Action::AwaitNode(node.container.clone()), cause);
    std::iter::once(wait(node, "the next one stops when this one is ready")).chain(
        desired
            .nodes
            .iter()
            .filter(follows)
            .map(move |slave| wait(slave, "it follows its master again")),
    )
}

fn describe(node: &Node, observed: &Observed) -> String {
    let ports: Vec<String> = node
        .ports
        .iter()
        .filter_map(|p| {
            p.host.map(|host| {
                if host == p.container {
                    host.to_string()
                } else {
                    format!("{host}→{}", p.container)
                }
            })
        })
        .collect();
    let mut text = match &node.broker {
        Some(_) => format!("{}  {}", node.broker_text(), ports.join("/")),
        None => ports.join("/"),
    };
    if let Some(volume) = &node.volume {
        let kept = if observed.volumes.contains(volume) {
            " (kept)"
        } else {
            ""
        };
        text += &format!("   volume {volume}{kept}");
    }
    text
}

/// Why a node must be made anew, if it must.
fn stale(
    node: &Node,
    seen: &ObservedNode,
    previous: Option<&Desired>,
    observed: &Observed,
) -> Option<String> {
    if seen.config_hash != node.config_hash {
        let short = |hash: &str| hash.chars().take(4).collect::<String>();
        let hashes = format!(
            "(config hash {}… → {}…)",
            short(&seen.config_hash),
            short(&node.config_hash)
        );
        let old = previous.and_then(|p| p.nodes.iter().find(|n| n.name == node.name));
        let causes = old
            .filter(|old| old.config_hash == seen.config_hash)
            .map(|old| causes(old, node))
            .unwrap_or_default();
        return Some(if causes.is_empty() {
            format!("settings changed   {hashes}")
        } else {
            format!("{causes}   {hashes}")
        });
    }
    match (&seen.image, &observed.image) {
        (Some(has), Some(wanted)) if has != wanted => Some(format!("engine {has} → {wanted}")),
        (Some(has), None) => Some(format!("engine {has} → this rmqctl's")),
        _ => None,
    }
}

fn causes(old: &Node, new: &Node) -> String {
    let text = |node: &Node| {
        node.file
            .as_ref()
            .map(|(_, text)| text.clone())
            .unwrap_or_default()
    };
    let mut said = properties::differences(&text(old), &text(new));
    if old.memory != new.memory {
        let limit = |m: Option<u64>| {
            m.map_or("no limit".to_owned(), |bytes| {
                format!("{} MiB", bytes >> 20)
            })
        };
        said.push(format!(
            "memory {} → {}",
            limit(old.memory),
            limit(new.memory)
        ));
    }
    if old.nano_cpus != new.nano_cpus {
        let limit = |c: Option<i64>| {
            c.map_or("no limit".to_owned(), |nano| {
                format!("{}", nano as f64 / 1e9)
            })
        };
        said.push(format!(
            "cpus {} → {}",
            limit(old.nano_cpus),
            limit(new.nano_cpus)
        ));
    }
    if old.env != new.env {
        said.push("environment".to_owned());
    }
    if said.is_empty() && old.ports != new.ports {
        said.push("ports".to_owned());
    }
    if said.is_empty() && old.command != new.command {
        said.push("arguments".to_owned());
    }
    said.join(", ")
}

/// Whether a node that is replaced needs a port which another of them held.
fn ports_change_hands(replace: &[(&Node, String)], previous: Option<&Desired>) -> bool {
    let Some(previous) = previous else {
        return false;
    };
    let held = |name: &str| -> Vec<u16> {
        let node = previous.nodes.iter().find(|n| n.name == name);
        node.map(|n| {
            n.ports
                .iter()
                .map(|p| p.host.unwrap_or(p.container))
                .collect()
        })
        .unwrap_or_default()
    };
    replace.iter().any(|(node, _)| {
        let others: Vec<u16> = replace
            .iter()
            .filter(|(n, _)| n.name != node.name)
            .flat_map(|(n, _)| held(&n.name))
            .collect();
        node.ports
            .iter()
            .any(|p| others.contains(&p.host.unwrap_or(p.container)))
    })
}

/// A state in words.
pub fn state_text(state: &NodeState) -> String {
    match state {
        NodeState::Running => "running".to_owned(),
        NodeState::Restarting => "restarting".to_owned(),
        NodeState::Paused => "paused".to_owned(),
        NodeState::Exited(Some(code)) => format!("exited ({code})"),
        NodeState::Exited(None) => "not started".to_owned(),
        NodeState::Other(state) => state.clone(),
    }
}

#[cfg(test)]
mod tests;
