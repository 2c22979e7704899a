//! Where nodes run. [`docker`] and [`process`] are real; `memory` keeps everything in maps and fails at the nth call, for tests.
//!
//! A runtime looks ([`Runtime::observe`]) and does one thing at a time ([`Runtime::apply`]); it decides nothing. It never touches a
//! container, network, volume or process that does not carry this cluster's label.

pub mod describe;
pub mod docker;
pub mod hostdir;
pub mod image;
mod leftover;
#[cfg(test)]
pub mod memory;
mod pid;
pub mod ports;
pub mod process;
pub mod stranger;
mod time;

use std::collections::BTreeMap;
use std::time::SystemTime;

use bytes::Bytes;
use rocketmq_protocol::partition::Order;
use tokio::sync::mpsc::{Receiver, Sender};

use self::describe::{About, Description};
pub use leftover::{Leftover, LeftoverKind};
use stranger::{Glance, Stranger};

use crate::plan::{Action, NodeState, Observed, ObservedNode};
use crate::probe::Dial;
use crate::topology::{Desired, Node, Role, Site};

/// Label keys on containers, networks, volumes and images; the process runtime keeps the same ones in its node files.
pub mod label {
    /// The cluster a thing belongs to; what lacks it is not ours.
    pub const CLUSTER: &str = "io.rmqctl.cluster";
    /// Node name without the cluster's prefix.
    pub const NODE: &str = "io.rmqctl.node";
    /// `namesrv`, `master`, `slave`, `console`.
    pub const ROLE: &str = "io.rmqctl.role";
    /// Broker name.
    pub const BROKER: &str = "io.rmqctl.broker";
    /// Broker id, 0 for the master.
    pub const BROKER_ID: &str = "io.rmqctl.broker-id";
    /// [`Node::config_hash`](crate::topology::Node::config_hash) at creation.
    pub const CONFIG_HASH: &str = "io.rmqctl.config-hash";
    /// Version of the `rmqctl` that made it.
    pub const VERSION: &str = "io.rmqctl.version";
    /// `user@host` that made it.
    pub const CREATED_BY: &str = "io.rmqctl.created-by";
    /// Unix seconds at which an ephemeral cluster ends.
    pub const EXPIRES_AT: &str = "io.rmqctl.expires-at";
    /// The resolved spec as JSON, on the network or on the spec volume that supersedes it.
    pub const SPEC: &str = "io.rmqctl.spec";
    /// What a volume is for: `store`, `conf`, `spec`.
    pub const VOLUME_KIND: &str = "io.rmqctl.volume";
    /// Content hash of the engine in an image, and of the image a container was made from.
    pub const ENGINE_SHA256: &str = "io.rmqctl.engine.sha256";
    /// [`STORE_FORMAT`](super::image::STORE_FORMAT) of the engine in an image; the daemon passes it on to containers.
    pub const STORE_FORMAT: &str = "io.rmqctl.store-format";
}

/// What can run nodes. Futures are boxed so that commands hold a `Box<dyn Runtime>`.
pub trait Runtime: Send + Sync {
    /// Looks once at everything of this cluster, and at who holds what the desired state needs.
    fn observe<'a>(&'a self, desired: &'a Desired) -> Boxed<'a, Observed>;
    /// One action, one or few API calls. Every action may be repeated: what already stands is left alone.
    fn apply<'a>(&'a self, desired: &'a Desired, action: &'a Action) -> Boxed<'a, ()>;
    /// From now on, nodes of ephemeral clusters that it starts end when this process does, however it ends.
    fn hold(&self);
    /// What of ours no node here needs.
    fn leftovers(&self) -> Boxed<'_, Vec<Leftover>>;
    /// Removes a thing that [`Runtime::leftovers`] found.
    fn discard<'a>(&'a self, leftover: &'a Leftover) -> Boxed<'a, ()>;
    /// Names and paths that nodes of this runtime get.
    fn site(&self, cluster: &str) -> Site;
    /// The properties file as the node has it; `None` when there is no such node or file.
    fn file_of<'a>(&'a self, node: &'a Node) -> Boxed<'a, Option<String>>;
    /// `docker`, `podman` or `process`.
    fn kind(&self) -> &'static str;
    /// Name or address of the machine that nodes run on, where it is not this one.
    fn machine(&self) -> Option<&str> {
        None
    }
    /// Brings about an image that is not the engine's own, and tells how that goes. One that is there is not asked for again.
    fn fetch_image<'a>(&'a self, image: &'a str, tell: &'a (dyn Fn(&str) + Sync)) -> Boxed<'a, ()>;
    /// What an image of rmqctl's engine says of itself; one that is none is an error, and so is one that is not there.
    fn engine_of<'a>(&'a self, image: &'a str) -> Boxed<'a, EngineImageAbout>;
    /// What `Action::StoreSpec` kept; `None` when there is no such cluster.
    fn stored_spec<'a>(&'a self, cluster: &'a str) -> Boxed<'a, Option<String>>;
    /// Names of all clusters here.
    fn clusters<'a>(&'a self) -> Boxed<'a, Vec<String>>;
    /// Memory in use, in bytes, of the running nodes among `containers`, by container name. Those it cannot ask are left
    /// out. It is the nodes' own memory; page cache of their stores, which the kernel drops when it needs to, is not in it.
    fn memory<'a>(&'a self, containers: &'a [String]) -> Boxed<'a, BTreeMap<String, u64>>;
    /// Sends the node's log lines that `range` names, and while it follows those that come, until the node ends or the receiver
    /// is dropped.
    fn follow_log<'a>(
        &'a self,
        container: &'a str,
        range: LogRange,
        lines: Sender<LogLine>,
    ) -> Boxed<'a, ()>;
    /// Resolves when the node runs, now or later; `false` when there is no such node any more.
    fn next_start<'a>(&'a self, desired: &'a Desired, container: &'a str) -> Boxed<'a, bool>;
    /// Last `tail` log lines of a node, oldest first.
    fn log_tail<'a>(&'a self, container: &'a str, tail: usize) -> Boxed<'a, Vec<String>>;
    /// Resolves when the first node of the cluster ends, also when it ended after `since` and before this call. For a
    /// readiness loop to race against; it never resolves while all live, so give it a deadline.
    fn first_end<'a>(&'a self, desired: &'a Desired, since: SystemTime) -> Boxed<'a, NodeEnd>;
    /// Hurts a running node, or ends what an earlier call did; each may be repeated. Another cluster's node is an error.
    fn disturb<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        how: Disturbance,
    ) -> Boxed<'a, ()>;
    /// Gives a running node of the bundled engine an order about a peer, from where it takes one: beside it.
    fn order<'a>(&'a self, desired: &'a Desired, node: &'a Node, order: &'a Order)
    -> Boxed<'a, ()>;
    /// All that is known of one node; `None` when there is no such node. Another cluster's is an error.
    fn describe<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
    ) -> Boxed<'a, Option<Description>>;
    /// What the runtime says of itself.
    fn about(&self) -> Boxed<'_, About>;
    /// Runs a command where the node is; its exit code. A runtime that cannot give it this program's own streams takes what it is to
    /// read, and sends what it prints.
    fn exec<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        command: &'a [String],
        input: Option<Input>,
        output: Sender<Output>,
    ) -> Boxed<'a, i64>;
    /// Sends a file of the node, or a directory with all below it, as a tar archive.
    fn copy_out<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        path: &'a str,
        archive: Sender<Bytes>,
    ) -> Boxed<'a, ()>;
    /// Unpacks a tar archive in a directory of the node; [`image::UID`] owns what it holds.
    fn copy_in<'a>(
        &'a self,
        desired: &'a Desired,
        container: &'a str,
        dir: &'a str,
        archive: Receiver<Bytes>,
    ) -> Boxed<'a, ()>;
    /// Containers that no rmqctl made, for whoever would adopt them.
    fn strangers(&self) -> Boxed<'_, Vec<Stranger>> {
        let kind = self.kind();
        Box::pin(async move { Err(stranger::unsupported(kind)) })
    }
    /// What lies at a path of such a container; `None` when nothing does.
    fn glance<'a>(&'a self, container: &'a str, path: &'a str) -> Boxed<'a, Option<Glance>> {
        let (kind, _) = (self.kind(), (container, path));
        Box::pin(async move { Err(stranger::unsupported(kind)) })
    }
    /// Opens a TCP connection to each `host:port` from where `container` runs: what a program beside it would meet.
    fn dial_inside<'a>(
        &'a self,
        container: &'a str,
        addresses: &'a [String],
    ) -> Boxed<'a, Vec<Dial>>;
}

/// What an image of rmqctl's engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EngineImageAbout {
    pub version: String,
    /// Content hash.
    pub sha256: String,
    /// What it writes: [`image::STORE_FORMAT`] of its time.
    pub store_format: u32,
}

/// Which lines of a log are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogRange {
    /// The last so many; all when `None`.
    pub tail: Option<usize>,
    /// Later than this, Unix nanoseconds.
    pub after: Option<u64>,
    /// And those that come.
    pub follow: bool,
}

impl LogRange {
    /// Whether a line of this time is wanted; one that has no time is.
    fn wants(&self, at: Option<u64>) -> bool {
        at.is_none_or(|at| self.after.is_none_or(|after| at > after))
    }
}

/// A line of a node's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Unix nanoseconds; `None` where neither the runtime nor the line says.
    pub at: Option<u64>,
    #[allow(missing_docs)]
    pub text: String,
}

/// What a command in a node reads.
#[derive(Debug)]
pub struct Input {
    /// Its standard input ends with these.
    pub bytes: Receiver<Bytes>,
    /// It runs at a terminal of this size, rows and columns, and of those that follow.
    pub terminal: Option<Receiver<(u16, u16)>>,
}

/// What a command in a node printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// On its standard output.
    Out(Bytes),
    /// On its standard error.
    Err(Bytes),
}

/// What is done to a node to see how the cluster and its clients bear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Its process dies as by SIGKILL; what restarts nodes after a crash brings it back.
    Crash,
    /// The same, and it stays down until it is started (`Action::StartNode`).
    Kill,
    /// It stands still with its connections open, as a machine that hangs.
    Pause,
    /// It goes on after a pause.
    Unpause,
    /// Nobody reaches it and it reaches nobody, while it runs.
    Isolate,
    /// It is reached again.
    Rejoin,
}

impl Disturbance {
    /// The verb of an error message.
    fn word(self) -> &'static str {
        match self {
            Disturbance::Crash | Disturbance::Kill => "kill",
            Disturbance::Pause => "pause",
            Disturbance::Unpause => "unpause",
            Disturbance::Isolate => "isolate",
            Disturbance::Rejoin => "rejoin",
        }
    }
}

/// A node that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEnd {
    /// Its container's name.
    pub container: String,
    /// Its exit code, where the runtime knows it; 128 + n for signal n.
    pub exit_code: Option<i64>,
}

/// Why a node can be given no orders about its peers.
fn no_orders(node: &Node, runtime: &'static str) -> Option<RuntimeError> {
    let what = format!("cut {} off from single nodes", node.container);
    let unsupported = |reason, hint| {
        Some(RuntimeError::Unsupported {
            what,
            runtime,
            reason,
            hint,
        })
    };
    match (node.role, &node.image) {
        (Role::Console, _) => unsupported(
            "the console is a client of the others and takes no orders",
            "`chaos pause` or `chaos kill` it",
        ),
        (_, Some(_)) => unsupported(
            "the bundled engine itself drops a peer, and Apache's cannot",
            "`chaos partition` with one node takes that off the network",
        ),
        _ => None,
    }
}

/// Where a node takes orders, seen from beside it: on `host`, its own main port.
fn order_address(node: &Node, host: &str) -> Option<String> {
    let port = node.port("main").or_else(|| node.port("namesrv"))?;
    Some(crate::probe::join(host, port.container))
}

/// A boxed future of a runtime's answer.
pub type Boxed<'a, T> =
    std::pin::Pin<Box<dyn Future<Output = Result<T, RuntimeError>> + Send + 'a>>;

/// What went wrong at a runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// There is no daemon to talk to, or it does not talk to us (RMQ-E002).
    #[error("no Docker daemon at {host} ({source_of_host}): {reason}")]
    NoDaemon {
        /// Address tried, as a URL.
        host: String,
        /// Where the address came from: `DOCKER_HOST`, `context "x"`, `default`.
        source_of_host: String,
        /// The system's words.
        reason: String,
        /// What to do.
        hint: String,
        /// There is no daemon at all, so `--runtime auto` may run plain processes; false when one is there and refuses us.
        absent: bool,
    },
    /// The daemon is older than what we need (RMQ-E003).
    #[error(
        "Docker {version} at {host} speaks API {api}; rmqctl needs 1.41 (Docker 20.10) or newer"
    )]
    TooOld {
        /// Address asked.
        host: String,
        /// The daemon's version.
        version: String,
        /// Its highest API version.
        api: String,
    },
    /// The running binary cannot be the engine's image (RMQ-E004).
    #[error("the engine image cannot be built from {binary}: {reason}")]
    Image {
        /// The binary looked at.
        binary: String,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// An image of another's is not there and cannot be pulled (RMQ-E006).
    #[error("the image {image} is not on this daemon, and could not be pulled")]
    NoImage {
        /// Its reference.
        image: String,
        /// What the daemon said.
        reason: String,
    },
    /// An image that is not one of rmqctl's engine (RMQ-E007).
    #[error("{image} is no image of rmqctl's engine")]
    NotEngine {
        /// Its reference.
        image: String,
        /// What it lacks.
        reason: String,
    },
    /// A thing of that name is another's; nothing was changed.
    #[error("{object} is not of cluster {cluster} ({holder}); it was left alone")]
    NotOurs {
        /// `container rmqmaster1`.
        object: String,
        /// The cluster that wanted it.
        cluster: String,
        /// Whose it is.
        holder: String,
    },
    /// This kind of runtime has nothing to do it with (RMQ-E005).
    #[error("the {runtime} runtime cannot {what}: {reason}")]
    Unsupported {
        /// `isolate rmqmaster1`.
        what: String,
        /// `docker` or `process`.
        runtime: &'static str,
        /// Why.
        reason: &'static str,
        /// What comes nearest.
        hint: &'static str,
    },
    /// Anything else: what was done, on what, and what came back.
    #[error("{action} {object}: {reason}")]
    Failed {
        /// `create container`.
        action: String,
        /// Name of the thing.
        object: String,
        /// What came back.
        reason: String,
    },
}

impl RuntimeError {
    /// An action on an object that failed for `reason`.
    pub fn failed(action: &str, object: &str, reason: impl std::fmt::Display) -> RuntimeError {
        RuntimeError::Failed {
            action: action.into(),
            object: object.into(),
            reason: reason.to_string(),
        }
    }

    /// What a person may try next.
    pub fn hint(&self) -> Option<String> {
        match self {
            RuntimeError::NoDaemon { hint, .. } | RuntimeError::Image { hint, .. } => {
                Some(hint.clone())
            }
            RuntimeError::TooOld { .. } => {
                Some("upgrade Docker, or run the nodes as processes: --runtime process".into())
            }
            RuntimeError::NoImage { image, .. } => Some(format!(
                "docker pull {image}   ·   or, without a registry: docker load -i FILE"
            )),
            RuntimeError::NotEngine { .. } => Some(
                "rmqctl image load, or rmqctl image save FILE and docker load -i FILE, makes one; Apache's is --engine apache".into(),
            ),
            RuntimeError::NotOurs { .. } => {
                Some("remove or rename it, or use another cluster name: --name NAME".into())
            }
            RuntimeError::Failed { reason, .. }
                if reason.contains("port is already allocated")
                    || reason.contains("address already in use") =>
            {
                Some("something took the port meanwhile: run the command again to see who, or use --port-offset N".into())
            }
            RuntimeError::Unsupported { hint, .. } => Some((*hint).into()),
            RuntimeError::Failed { reason, .. }
                if reason.contains("network") && reason.contains("not found") =>
            {
                Some("the network it was made in is gone: `up` makes the node anew, and its messages stay".into())
            }
            RuntimeError::Failed { .. } => None,
        }
    }
}

/// Which runtime a user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where the cluster already is; else Docker if a daemon is there; else processes.
    #[default]
    Auto,
    /// Docker or nothing.
    Docker,
    /// Podman or nothing.
    Podman,
    /// Plain processes on this host.
    Process,
}

/// Opens the runtime for `cluster`. `host` and `context` are `-H` and `--context`.
pub async fn open(
    choice: Choice,
    cluster: &str,
    host: Option<&str>,
    context: Option<&str>,
) -> Result<Box<dyn Runtime>, RuntimeError> {
    let processes = || process::Processes::open().map(|p| Box::new(p) as Box<dyn Runtime>);
    match choice {
        Choice::Process => processes(),
        Choice::Podman => Ok(Box::new(docker::Docker::connect_podman(host).await?)),
        Choice::Docker => Ok(Box::new(docker::Docker::connect(host, context).await?)),
        Choice::Auto => match docker::Docker::connect(host, context).await {
            Ok(docker) => {
                // A cluster raised with `--runtime process` on a machine that has Docker is found again without the flag.
                if docker.stored_spec(cluster).await?.is_none() {
                    let here = processes()?;
                    if here.stored_spec(cluster).await?.is_some() {
                        return Ok(here);
                    }
                }
                Ok(Box::new(docker))
            }
            // An address asked for on this command line is meant: falling back would hide that it is wrong.
            Err(RuntimeError::NoDaemon { absent: true, .. })
                if host.is_none() && context.is_none() =>
            {
                processes()
            }
            Err(e) => Err(e),
        },
    }
}

/// `user@host`, for the label that says who made a thing.
pub fn created_by() -> String {
    let user = std::env::var("USER")
        .ok()
        .filter(|u| !u.is_empty())
        .unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    format!("{user}@{}", host.as_deref().map_or("localhost", str::trim))
}

/// A process' own memory in bytes: page cache and the program's text are not counted (`RssAnon`).
fn proc_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Whether one of the cluster's own running nodes holds a host port that another is to get: the plan gives it away in time.
fn held_by_own(port: u16, own: &[ObservedNode], desired: &Desired) -> bool {
    let stays = |n: &ObservedNode| desired.nodes.iter().any(|d| d.container == n.container);
    own.iter()
        .any(|n| !matches!(n.state, NodeState::Exited(_)) && n.ports.contains(&port) && stays(n))
}

/// `broker-a:1` from the labels of a node.
fn broker_text<'a>(get: impl Fn(&str) -> Option<&'a String>) -> Option<String> {
    Some(format!(
        "{}:{}",
        get(label::BROKER)?,
        get(label::BROKER_ID)?
    ))
}

/// A role as labels have it.
fn role_word(role: crate::topology::Role) -> &'static str {
    use crate::topology::Role;
    match role {
        Role::Namesrv => "namesrv",
        Role::Master => "master",
        Role::Slave => "slave",
        Role::Console => "console",
    }
}
