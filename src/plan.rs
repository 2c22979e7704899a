//! Desired x observed -> ordered actions, each with its cause. Pure; its `Display` is the dry run. Never calls a runtime.

pub mod adopt;
mod lifecycle;
mod scale;
mod stores;
mod undo;
mod up;

pub use adopt::{Adoption, CopyStore, ForeignMove, Moving, Phase, StoreCopy, adopt, put_back};
pub use lifecycle::{down, restart, start, stop};
pub use scale::{ScaleOptions, departing, scale};
pub use stores::refuse_memory_loss;
pub use undo::undo;
pub use up::up;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::topology::{Desired, Node, Role, volume_words};

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
    /// A broker's place as it was created: `broker-a:1`. `None`: no broker, or made by an rmqctl that did not say.
    pub broker: Option<String>,
    pub state: NodeState,
    pub image: Option<String>,
    /// Version of the `rmqctl` that made it, which is its engine's.
    pub version: Option<String>,
    /// Unix seconds of the last start; `None` while it is not running.
    pub started_at: Option<u64>,
    /// How often it came back by itself since it was created.
    pub restarts: u32,
    /// Host ports that it was made with, and holds while it runs.
    pub ports: Vec<u16>,
    /// The network it was made in is gone, even if another has its name by now: it cannot start.
    pub cut_off: bool,
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
    /// Directories of the host that nodes cannot keep their stores in as they are.
    pub store_faults: Vec<StoreFault>,
    /// Those of `volumes` that are directories with a store which rmqctl did not make there: used, and never removed.
    pub found_stores: Vec<String>,
    /// Brokers, by node, that say they hold no message. Asked only where a plan may depend on it.
    pub empty: Vec<String>,
    /// Brokers that the name servers tell clients not to send to. No runtime knows it: commands ask the name servers.
    pub closed: Vec<String>,
}

/// Something of another's in our way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflict {
    /// `container name rmqmaster1`, `host port 10911`.
    pub what: String,
    /// Who holds it.
    pub holder: String,
    /// Which node wanted it.
    pub node: String,
    /// Name of the container that holds it, where it is one.
    pub container: Option<String>,
    /// That container looks as if somebody had made the node by hand.
    pub adoptable: bool,
}

/// Why a directory of the host cannot hold a node's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFault {
    /// Whose store it is to be.
    pub node: String,
    #[allow(missing_docs)]
    pub dir: PathBuf,
    /// What is wrong, to be read after the directory: `is uid 0's`.
    pub why: String,
    /// The command that mends it, and the path that it is given.
    pub mend: Option<(String, PathBuf)>,
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
    /// Waits through the protocol until masters that go hold nothing that anybody wants. No runtime sees it either.
    Drain(Box<Departure>),
    /// Has the name servers tell clients again that these brokers take sends. No runtime sees it.
    Reopen(Vec<String>),
    StartNode(String),
    StopNode(String),
    RemoveNode(String),
    RemoveNetwork,
    RemoveVolume(String),
    /// Gives a container that is not ours another name; only `adopt` does, with those that it was told to take.
    MoveForeign(Box<ForeignMove>),
    /// Fills a node's volume from such a container.
    CopyStore(Box<CopyStore>),
    /// Removes such a container, whose node is there; volumes that have a name stay.
    RemoveForeign(String),
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
            | Action::Drain(_)
            | Action::Reopen(_)
            | Action::RemoveNetwork
            | Action::RemoveVolume(_)
            | Action::MoveForeign(_)
            | Action::CopyStore(_)
            | Action::RemoveForeign(_) => None,
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::EnsureImage => write!(f, "engine image"),
            Action::CreateNetwork => write!(f, "create network"),
            Action::CreateVolume(volume) => write!(f, "create {}", volume_words(volume)),
            Action::CreateNode(node) => write!(f, "create {}", node.container),
            Action::Configure(node) => write!(f, "configure {}", node.container),
            Action::StoreSpec => write!(f, "keep the spec"),
            Action::AwaitNode(name) => write!(f, "wait for {name}"),
            Action::Drain(departure) => {
                let masters: Vec<&str> = departure
                    .groups
                    .iter()
                    .map(|leaving| leaving.master.container.as_str())
                    .collect();
                write!(f, "drain {}", masters.join(", "))
            }
            Action::Reopen(brokers) => write!(f, "open {} for sends", brokers.join(", ")),
            Action::StartNode(name) => write!(f, "start {name}"),
            Action::StopNode(name) => write!(f, "stop {name}"),
            Action::RemoveNode(name) => write!(f, "remove {name}"),
            Action::RemoveNetwork => write!(f, "remove network"),
            Action::RemoveVolume(volume) => write!(f, "remove {}", volume_words(volume)),
            Action::MoveForeign(moved) => {
                let from = moved.from.first().map_or("", String::as_str);
                write!(f, "rename {from} to {}", moved.to)
            }
            Action::CopyStore(copy) => write!(f, "copy the store of {}", copy.from),
            Action::RemoveForeign(name) => write!(f, "remove {name}"),
        }
    }
}

/// A broker group whose master goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Leaving {
    pub master: Node,
    /// Those that run: they must have all before it stops.
    pub slaves: Vec<Node>,
}

impl Leaving {
    /// `broker-b`.
    pub fn name(&self) -> String {
        let broker = self.master.broker.as_ref();
        broker.map_or_else(|| self.master.name.clone(), |broker| broker.name.clone())
    }
}

/// Groups that go together, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Each is drained by the time that all are.
    pub groups: Vec<Leaving>,
    /// How long nobody may have sent to them, where somebody might: clients ask for routes now and then only.
    pub settle: Duration,
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
    /// Takes sends again.
    Open,
    Start,
    Restart,
    Stop,
    Recreate,
    Create,
    /// A container made by hand becomes the node.
    Adopt,
    /// The container that was to become the node is again what it was.
    PutBack,
    Remove,
}

impl Kind {
    fn sign(self) -> char {
        match self {
            Kind::Unchanged => ' ',
            Kind::Orphan => '?',
            Kind::Open
            | Kind::Start
            | Kind::Restart
            | Kind::Stop
            | Kind::Recreate
            | Kind::Adopt
            | Kind::PutBack => '~',
            Kind::Create => '+',
            Kind::Remove => '-',
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Unchanged => "unchanged",
            Kind::Orphan => "orphan",
            Kind::Open => "open",
            Kind::Start => "start",
            Kind::Restart => "restart",
            Kind::Stop => "stop",
            Kind::Recreate => "recreate",
            Kind::Create => "create",
            Kind::Adopt => "adopt",
            Kind::PutBack => "put back",
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
            Kind::Open,
            Kind::Stop,
            Kind::Start,
            Kind::Restart,
            Kind::Recreate,
            Kind::Create,
            Kind::Adopt,
            Kind::PutBack,
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
    /// Which nodes that stand already are made anew.
    pub recreate: Recreate,
    /// Who is replaced first.
    pub order: Order,
}

/// Which nodes that stand already are made anew; their messages stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Recreate {
    /// Those that are not as asked for.
    #[default]
    Auto,
    /// None: they stay as they are.
    Never,
    /// All.
    Always,
}

/// Who is replaced first when brokers are replaced one after another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// A master that stops has a slave in sync, of the new engine already, which serves its messages meanwhile.
    #[default]
    SlavesFirst,
    /// Masters, then slaves.
    MastersFirst,
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

/// Order in which nodes are replaced or restarted one after another.
fn rolling_rank(role: Role, order: Order) -> u8 {
    match (role, order) {
        (Role::Console, _) => 0,
        (Role::Namesrv, _) => 1,
        (Role::Slave, Order::SlavesFirst) | (Role::Master, Order::MastersFirst) => 2,
        (Role::Master | Role::Slave, _) => 3,
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
