//! Spec -> named nodes with role, ports, volumes, properties and a config hash: the desired state. Pure.
//!
//! Names and ports are a closed form of a node's number, so that no node moves when a cluster grows.

mod apache;
mod build;
mod places;
mod subnet;

pub use places::forget_missing;
pub use subnet::Subnet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::build::Builder;
use self::places::{check_names, check_ports, places};
use crate::error::{Error, Exit};
use crate::spec::{self, ClusterSpec, DEFAULT_NAME, Ephemeral, Storage, unknown_name};

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Role {
    Namesrv,
    Master,
    Slave,
    Console,
}

/// A broker's place: name and id (0 is the master).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[allow(missing_docs)]
pub struct BrokerId {
    pub name: String,
    pub id: u64,
}

/// One port that a node listens on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Port {
    /// `main`, `vip`, `ha`, `namesrv`, `console`.
    pub purpose: &'static str,
    /// Inside the node.
    pub container: u16,
    /// On the host; `None`: not published.
    pub host: Option<u16>,
}

/// One node as it shall be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Node {
    /// Name without the cluster's prefix: `rmqmaster1`. Also the alias in the network.
    pub name: String,
    /// Container's name: `rmqmaster1` or `ci42-rmqmaster1`.
    pub container: String,
    /// Further aliases in the network: `namesrv` for the name server.
    pub aliases: Vec<String>,
    #[allow(missing_docs)]
    pub role: Role,
    /// Masters and slaves only.
    pub broker: Option<BrokerId>,
    #[allow(missing_docs)]
    pub ports: Vec<Port>,
    /// The image that it runs, where that is not the engine's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The image of rmqctl's engine that it runs, where that is not the one made from the running binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
    /// What holds the store: a volume's name (`rmqmaster1-store`), or a directory of the host (see [`data_dir`]).
    pub volume: Option<String>,
    /// Bytes that the store may take in memory; it then has no volume, and goes with the node's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs: Option<u64>,
    /// The properties file's name in the conf dir (`broker-a-master.properties`) and its text, the user's edits in it.
    /// Console has none. The Docker runtime appends `internalSubnet` and `internalGateway` to a name server's text when
    /// it uploads it, since it alone knows the network's.
    pub file: Option<(String, String)>,
    /// Where the file goes: `/etc/rmq/…` in a container, the node's directory of the process runtime. Also in `command`.
    pub conf_path: Option<PathBuf>,
    /// Directory of the store, in the container (where the volume is mounted) or on this host. Brokers and name servers.
    pub store_path: Option<PathBuf>,
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// CPU limit in billionths of a core.
    pub nano_cpus: Option<i64>,
    /// Arguments of the binary: `engine broker -c /etc/rmq/broker-a-master.properties`.
    pub command: Vec<String>,
    #[allow(missing_docs)]
    pub env: BTreeMap<String, String>,
    /// sha256 over everything above that needs a new container when it changes, first 16 hex digits.
    pub config_hash: String,
}

/// The cluster as it shall be: name servers, masters, slaves, console, in start order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Desired {
    /// `rmq` unless `--name`.
    pub cluster: String,
    pub network: String,
    /// What kind of place the nodes run in.
    pub site: Site,
    pub subnet: Option<String>,
    pub bind: IpAddr,
    /// The network's gateway, where ports are published on it too: a name server that knows one address of a broker is told
    /// this one, which the host and the network both reach.
    pub gateway: Option<Ipv4Addr>,
    /// What clients outside the network are told: `127.0.0.1` unless `--advertise`.
    pub advertise: String,
    pub conf_dir: PathBuf,
    pub stop_timeout: Duration,
    pub labels: BTreeMap<String, String>,
    /// When it ends by itself; its nodes then have no volumes that outlive them.
    pub ephemeral: Option<Ephemeral>,
    /// The resolved spec as canonical JSON, kept by the runtime so that later commands need no file and no flags.
    pub spec: String,
    pub nodes: Vec<Node>,
}

/// What kind of place the nodes run in: it decides names, addresses and paths in their properties.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Site {
    /// Containers in a network of their own, which know each other by name.
    Network,
    /// Processes on 127.0.0.1; a node's files are in `dir/<node name>/`, its store in `dir/<node name>/store`.
    Loopback {
        /// The cluster's directory, absolute.
        dir: PathBuf,
    },
}

/// User and group of the engine in a container. The Apache image's `rocketmq` user has the same ids, so that a store
/// volume can be handed from one to the other without a chown.
pub const CONTAINER_UID: u64 = 3000;

/// Where the engine is in its image.
pub const CONTAINER_BINARY: &str = "/rmqctl";

/// Where a container's store volume is mounted. The image has this directory, owned by the engine's user.
pub const CONTAINER_STORE: &str = "/var/lib/rmq/store";

/// Where a container's store in memory is. The image has no such directory, so that a runtime that cannot say whose the memory is
/// (a swarm) does not give it that one's mode.
const CONTAINER_MEMORY: &str = "/var/lib/rmq/memory";

/// Options of a store in memory: its size, and the engine's user as its owner. By a mode alone it would be root's after the first
/// start of its container: the runtime then gives it the mode of the directory that it left behind.
pub fn memory_options(bytes: u64) -> String {
    format!("size={bytes},mode=0750,uid={CONTAINER_UID},gid={CONTAINER_UID}")
}

impl Site {
    /// Host name of a node as its peers dial it.
    fn host<'a>(&self, node: &'a str) -> &'a str {
        match self {
            Site::Network => node,
            Site::Loopback { .. } => "127.0.0.1",
        }
    }

    fn conf_path(&self, node: &str, file: &str) -> PathBuf {
        match self {
            Site::Network => PathBuf::from("/etc/rmq").join(file),
            Site::Loopback { dir } => dir.join(node).join(file),
        }
    }

    fn store_path(&self, node: &str) -> PathBuf {
        match self {
            Site::Network => PathBuf::from(CONTAINER_STORE),
            Site::Loopback { dir } => dir.join(node).join("store"),
        }
    }
}

impl Role {
    /// `rmqmaster`, to which a node's number is added.
    fn stem(self) -> &'static str {
        match self {
            Role::Namesrv => "rmqnamesrv",
            Role::Master => "rmqmaster",
            Role::Slave => "rmqslave",
            Role::Console => "rmqconsole",
        }
    }

    /// The number in a node's name, if it is of this role: 3 of `rmqmaster3`.
    pub fn number_of(self, name: &str) -> Option<u32> {
        name.strip_prefix(self.stem())?.parse().ok()
    }

    /// As labels and tables have it.
    pub fn word(self) -> &'static str {
        &self.stem()[3..]
    }
}

/// The directory of the host that a name in the place of a volume's is. Volumes have no `/` in their names.
pub fn data_dir(volume: &str) -> Option<&Path> {
    volume.starts_with('/').then(|| Path::new(volume))
}

/// A path as a shell takes it.
pub fn quoted_path(path: &Path) -> String {
    spec::quoted(&path.display().to_string())
}

/// A store's place in words: `volume rmqmaster1-store`, `directory /srv/rmq/rmqmaster1`.
pub fn volume_words(volume: &str) -> String {
    match data_dir(volume) {
        Some(_) => format!("directory {volume}"),
        None => format!("volume {volume}"),
    }
}

impl Node {
    /// The directory of the host that holds its store, where that is none of the runtime's volumes.
    pub fn data_dir(&self) -> Option<&Path> {
        self.volume.as_deref().and_then(data_dir)
    }

    /// The name that its volume has, or would have.
    pub fn volume_name(&self) -> String {
        format!("{}-store", self.container)
    }

    /// Ports of the host that it takes; of a plain process all are the host's.
    pub fn host_ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().map(|p| p.host.unwrap_or(p.container))
    }

    /// The port of this purpose.
    pub fn port(&self, purpose: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.purpose == purpose)
    }

    /// `broker-a:0`, or `-`.
    pub fn broker_text(&self) -> String {
        self.broker
            .as_ref()
            .map_or_else(|| "-".to_owned(), |b| format!("{}:{}", b.name, b.id))
    }
}

impl Desired {
    /// Addresses of the name servers as clients outside the network dial them.
    pub fn namesrv_addrs(&self) -> Vec<String> {
        self.published("namesrv")
    }

    /// URL of the console, if there is one.
    pub fn console_url(&self) -> Option<String> {
        self.published("console")
            .pop()
            .map(|addr| format!("http://{addr}"))
    }

    /// Every `host:port` by which the other nodes may know this one.
    pub fn inside_addresses(&self, node: &Node) -> Vec<String> {
        let host = self.site.host(&node.name);
        let ports = node.ports.iter().map(|port| port.container);
        ports.map(|port| format!("{host}:{port}")).collect()
    }

    /// What holds the nodes together, in words: `network rmqnetwork`, or the directory of processes.
    pub fn ground(&self) -> String {
        match &self.site {
            Site::Network => format!("network {}", self.network),
            Site::Loopback { dir } => format!("directory {}", dir.display()),
        }
    }

    /// Name of the node that is this container; the container's own where no node is.
    pub fn node_name<'a>(&'a self, container: &'a str) -> &'a str {
        let node = self.nodes.iter().find(|n| n.container == container);
        node.map_or(container, |n| n.name.as_str())
    }

    /// A command line that a hint suggests for this cluster.
    pub fn suggest(&self, rest: &str) -> String {
        spec::suggest(&self.cluster, rest)
    }

    /// Addresses of the host that ports are published on.
    pub fn published_on(&self) -> Vec<IpAddr> {
        std::iter::once(self.bind)
            .chain(self.gateway.map(IpAddr::V4))
            .collect()
    }

    /// The image of rmqctl's engine that was asked for by its reference.
    pub fn engine_image(&self) -> Option<&str> {
        self.nodes
            .iter()
            .find_map(|node| node.engine_image.as_deref())
    }

    /// The image that brokers run, where it is not the engine's own.
    pub fn foreign_image(&self) -> Option<&str> {
        self.nodes.iter().find_map(|node| node.image.as_deref())
    }

    fn published(&self, purpose: &str) -> Vec<String> {
        self.nodes
            .iter()
            .filter_map(|node| node.port(purpose)?.host)
            .map(|port| format!("{}:{port}", self.advertise))
            .collect()
    }

    /// The nodes that `typed` names: `rmqmaster1`, `master1`, `ci42-rmqmaster1`, `broker-a` (its group) or `broker-a:1`.
    pub fn select(&self, typed: &[String]) -> Result<Vec<&Node>, Error> {
        if typed.is_empty() {
            return Ok(self.nodes.iter().collect());
        }
        let mut chosen: Vec<&str> = Vec::new();
        for name in typed {
            let matching: Vec<&Node> = self
                .nodes
                .iter()
                .filter(|node| node.is_called(name))
                .collect();
            if matching.is_empty() {
                return Err(unknown_name(
                    "node",
                    name,
                    self.nodes.iter().map(|n| n.name.as_str()),
                ));
            }
            chosen.extend(matching.iter().map(|node| node.name.as_str()));
        }
        Ok(self
            .nodes
            .iter()
            .filter(|node| chosen.contains(&node.name.as_str()))
            .collect())
    }
}

impl Node {
    fn is_called(&self, typed: &str) -> bool {
        self.name == typed
            || self.container == typed
            || self.name.strip_prefix("rmq") == Some(typed)
            || self
                .broker
                .as_ref()
                .is_some_and(|b| b.name == typed || format!("{}:{}", b.name, b.id) == typed)
    }
}

/// The desired state of a spec at a site.
pub fn desired(spec: &ClusterSpec, site: &Site) -> Result<Desired, Error> {
    check_names(spec)?;
    let prefix = if spec.name == DEFAULT_NAME {
        String::new()
    } else {
        format!("{}-", spec.name)
    };
    let network = spec
        .network
        .clone()
        .unwrap_or_else(|| format!("{prefix}rmqnetwork"));
    let image = spec.engine.image().or(spec.engine_image.as_deref());
    if let (Site::Loopback { .. }, Some(image)) = (site, image) {
        return Err(Error::new(
            "RMQ-E107",
            Exit::Spec,
            format!("plain processes cannot run the image {image}"),
        )
        .hint("--runtime docker")
        .hint("--engine bundled --image bundled"));
    }
    if let (Some(_), Some(image)) = (spec.ephemeral, spec.engine.image()) {
        return Err(Error::new(
            "RMQ-E107",
            Exit::Spec,
            format!("the image {image} cannot run a cluster that ends by itself"),
        )
        .detail("the bundled engine keeps the time; in another's nobody does")
        .hint("--engine bundled")
        .hint("up without --rm, and down"));
    }
    check_storage(spec, site)?;
    // A foreign name server knows one address of a broker. 127.0.0.1 would be each container itself, for slaves and the console.
    let subnet = match (&spec.subnet, spec.engine.image()) {
        (Some(text), Some(_)) => Some(Subnet::parse(text)?),
        (None, Some(_)) => Some(Subnet::of_cluster(&spec.name)),
        (_, None) => None,
    };
    let gateway = subnet
        .as_ref()
        .filter(|_| spec::is_loopback(&spec.advertise))
        .map(|subnet| subnet.gateway);
    let builder = Builder {
        spec,
        site,
        prefix,
        network,
        gateway,
        advertise: gateway.map_or_else(|| spec.advertise.clone(), |ip| ip.to_string()),
    };
    let mut nodes = Vec::new();
    for number in 1..=spec.namesrvs {
        nodes.push(builder.namesrv(number)?);
    }
    for place in places(spec) {
        nodes.push(builder.broker(&place)?);
    }
    if spec.console {
        nodes.push(builder.console()?);
    }
    check_ports(&nodes)?;
    check_data_dirs(spec, &nodes)?;
    Ok(Desired {
        cluster: spec.name.clone(),
        network: builder.network,
        site: site.clone(),
        subnet: match subnet.filter(|_| gateway.is_some()) {
            Some(subnet) => Some(subnet.text),
            None => spec.subnet.clone(),
        },
        bind: spec.bind,
        gateway,
        advertise: builder.advertise.clone(),
        conf_dir: spec.conf_dir.clone(),
        stop_timeout: Duration::from_secs(spec.stop_timeout_seconds),
        labels: spec.labels.clone(),
        ephemeral: spec.ephemeral,
        spec: spec.to_json(),
        nodes,
    })
}

/// Refuses stores where this kind of place has none.
fn check_storage(spec: &ClusterSpec, site: &Site) -> Result<(), Error> {
    let Site::Loopback { dir } = site else {
        return Ok(());
    };
    let bad = |title: String| Error::new("RMQ-E108", Exit::Spec, title);
    match &spec.storage {
        Storage::Tmpfs { .. } => Err(bad("plain processes have no stores in memory".to_owned())
            .detail("a tmpfs is mounted in a container; a process has this host's directories")
            .hint("--runtime docker")
            .hint("storage: {kind: host, path: /dev/shm/rmq}   (memory too; it is not emptied when a node stops)")),
        Storage::Host { path } if dir.parent().is_some_and(|state| path.starts_with(state)) => {
            Err(bad(format!(
                "the data directory {} is where rmqctl keeps the state of processes",
                path.display()
            ))
            .hint("--data-dir ./rmq/data"))
        }
        _ => Ok(()),
    }
}

/// The generated files must not lie in a directory that a node writes, and that `down --volumes` empties.
fn check_data_dirs(spec: &ClusterSpec, nodes: &[Node]) -> Result<(), Error> {
    let holds = |node: &&Node| {
        node.data_dir()
            .is_some_and(|dir| spec.conf_dir.starts_with(dir))
    };
    match nodes.iter().find(holds) {
        Some(node) => Err(Error::new(
            "RMQ-E108",
            Exit::Spec,
            format!(
                "the generated files in {} would lie in the store of {}",
                spec.conf_dir.display(),
                node.name
            ),
        )
        .hint("--conf-dir and --data-dir side by side: --data-dir ./rmq/data")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
