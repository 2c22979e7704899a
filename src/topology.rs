//! Spec -> named nodes with role, ports, volumes, properties and a config hash: the desired state. Pure.
//!
//! Names and ports are a closed form of a node's number, so that no node moves when a cluster grows.

mod apache;
mod places;
mod subnet;

pub use places::forget_missing;
pub use subnet::Subnet;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

use self::places::{Place, check_names, check_ports, letters, numbered, places, slot};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec::{
    self, ClusterSpec, DEFAULT_NAME, Ephemeral, Mode, NodeSpec, Profile, Properties, unknown_name,
};

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
    /// Volume that holds the store: `rmqmaster1-store`.
    pub volume: Option<String>,
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

impl Node {
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
    if let (Site::Loopback { .. }, Some(image)) = (site, spec.engine.image()) {
        return Err(Error::new(
            "RMQ-E107",
            Exit::Spec,
            format!("plain processes cannot run the image {image}"),
        )
        .hint("--runtime docker")
        .hint("--engine bundled"));
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

struct Builder<'a> {
    spec: &'a ClusterSpec,
    site: &'a Site,
    prefix: String,
    network: String,
    gateway: Option<Ipv4Addr>,
    /// What clients outside the network are told.
    advertise: String,
}

impl Builder<'_> {
    fn offset(&self, base: u32, node: &str) -> Result<u16, Error> {
        u16::try_from(base + u32::from(self.spec.port_offset)).map_err(|_| {
            Error::new(
                "RMQ-E105",
                Exit::Spec,
                format!(
                    "{node} would have port {}, above 65535",
                    base + u32::from(self.spec.port_offset)
                ),
            )
            .detail("brokers stand 1000 ports apart from 10911; 55 of them fit below 65536")
            .hint("fewer brokers, or a smaller --port-offset")
        })
    }

    fn own(&self, name: &str) -> Option<&NodeSpec> {
        self.spec.nodes.get(name)
    }

    /// What all kinds of nodes have in common; ends with the hash.
    fn node(
        &self,
        role: Role,
        name: String,
        broker: Option<BrokerId>,
        ports: Vec<Port>,
        file: Option<(String, String)>,
    ) -> Node {
        let own = self.own(&name);
        let memory = own.and_then(|n| n.memory).or(self.spec.memory);
        let cpus = own.and_then(|n| n.cpus).or(self.spec.cpus);
        let conf_path = file
            .as_ref()
            .map(|(file, _)| self.site.conf_path(&name, file));
        let mut command = vec!["engine".to_owned(), role.engine().to_owned()];
        if let Some(path) = &conf_path {
            command.extend(["-c".to_owned(), path.display().to_string()]);
        }
        // A process' supervisor ends it; in a container there is nobody else.
        if let (Some(ephemeral), Site::Network) = (self.spec.ephemeral, self.site) {
            command.extend(["--until".to_owned(), ephemeral.until.to_string()]);
        }
        let aliases = match (role, name.as_str()) {
            // `namesrv` is what RocketMQ's images call it; `rmqserver` is the name of older recipes.
            (Role::Namesrv, "rmqnamesrv") => vec!["namesrv".to_owned(), "rmqserver".to_owned()],
            _ => Vec::new(),
        };
        Node {
            container: format!("{}{name}", self.prefix),
            aliases,
            role,
            broker,
            ports,
            image: None,
            volume: (role != Role::Console && self.spec.ephemeral.is_none())
                .then(|| format!("{}{name}-store", self.prefix)),
            conf_path,
            store_path: (role != Role::Console).then(|| self.site.store_path(&name)),
            file,
            memory,
            // A billionth of a core is the daemon's unit; a spec's cores are checked to be finite and not negative.
            nano_cpus: cpus.map(|cores| (cores * 1e9).round() as i64),
            command,
            env: self.spec.env.clone(),
            config_hash: String::new(),
            name,
        }
    }

    fn hashed(&self, mut node: Node) -> Node {
        if let Some(image) = self.spec.engine.image() {
            apache::convert(&mut node, image);
        }
        let json = serde_json::to_vec(&(
            &node,
            &self.network,
            self.spec.bind,
            self.gateway,
            self.spec.stop_timeout_seconds,
            &self.spec.labels,
        ))
        .expect("a node has string keys and no floats");
        let digest = Sha256::digest(&json);
        node.config_hash = digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        node
    }

    fn bind_address(&self) -> String {
        match self.site {
            Site::Network => "0.0.0.0".to_owned(),
            Site::Loopback { .. } => self.spec.bind.to_string(),
        }
    }

    /// Name server k's port where its peers dial it.
    fn namesrv_port(&self, number: u32) -> Result<u16, Error> {
        match self.site {
            // Each container has its own 9876, so that an address in the network is the same in every cluster.
            Site::Network => Ok(9876),
            Site::Loopback { .. } => self.offset(9875 + number, "a name server"),
        }
    }

    fn namesrvs(&self) -> Result<Vec<String>, Error> {
        (1..=self.spec.namesrvs)
            .map(|k| {
                Ok(format!(
                    "{}:{}",
                    self.site.host(&numbered(Role::Namesrv, k)),
                    self.namesrv_port(k)?
                ))
            })
            .collect()
    }

    fn namesrv(&self, number: u32) -> Result<Node, Error> {
        let name = numbered(Role::Namesrv, number);
        let listen = self.namesrv_port(number)?;
        let host = self.offset(9875 + number, &name)?;
        let values = Properties::from([
            ("bindAddress".to_owned(), self.bind_address()),
            ("listenPort".to_owned(), listen.to_string()),
            (
                "kvConfigPath".to_owned(),
                self.site
                    .store_path(&name)
                    .join("kvConfig.json")
                    .display()
                    .to_string(),
            ),
        ]);
        let file = (
            format!("{}.properties", &name[3..]),
            properties::namesrv(&name, &values),
        );
        let ports = vec![Port {
            purpose: "namesrv",
            container: listen,
            host: Some(host),
        }];
        Ok(self.hashed(self.node(Role::Namesrv, name, None, ports, Some(file))))
    }

    fn console(&self) -> Result<Node, Error> {
        let name = numbered(Role::Console, 1);
        let host = self.offset(u32::from(self.spec.console_port), &name)?;
        let (listen, address) = match self.site {
            Site::Network => (8080, "0.0.0.0".to_owned()),
            Site::Loopback { .. } => (host, self.spec.bind.to_string()),
        };
        let ports = vec![Port {
            purpose: "console",
            container: listen,
            host: Some(host),
        }];
        let mut node = self.node(Role::Console, name, None, ports, None);
        node.command.extend([
            "--namesrv".to_owned(),
            self.namesrvs()?.join(";"),
            "--listen".to_owned(),
            format!("{address}:{listen}"),
        ]);
        // The console answers only to host names it knows.
        if self.spec.advertise != "127.0.0.1" {
            node.command
                .extend(["--allow-host".to_owned(), self.spec.advertise.clone()]);
        }
        Ok(self.hashed(node))
    }

    fn broker(&self, place: &Place) -> Result<Node, Error> {
        let name = numbered(place.role, place.number);
        let group = format!("broker-{}", letters(place.master));
        let main = match self.own(&name).and_then(|n| n.main_port) {
            Some(port) => port,
            None => self.offset(10911 + 1000 * slot(place.role, place.number), &name)?,
        };
        let (vip, ha) = (main.checked_sub(2), main.checked_add(1));
        let (Some(vip), Some(ha)) = (vip.filter(|port| *port > 0), ha) else {
            return Err(Error::new(
                "RMQ-E105",
                Exit::Spec,
                format!("{name} cannot have port {main}"),
            )
            .detail("its VIP port is two below, and its HA port one above"));
        };
        let values = self.broker_values(place, &name, &group, main);
        let suffix = match place.role {
            Role::Master => "master".to_owned(),
            _ => format!("slave{}", place.id),
        };
        let file = (
            format!("{group}-{suffix}.properties"),
            properties::broker(&format!("{name}, {group}:{}", place.id), &values),
        );
        let ports = vec![
            Port {
                purpose: "main",
                container: main,
                host: Some(main),
            },
            Port {
                purpose: "vip",
                container: vip,
                host: Some(vip),
            },
            Port {
                purpose: "ha",
                container: ha,
                host: None,
            },
        ];
        let broker = BrokerId {
            name: group,
            id: u64::from(place.id),
        };
        Ok(self.hashed(self.node(place.role, name, Some(broker), ports, Some(file))))
    }

    /// A broker's properties: what the topology decides over what was said (node over broker over all) over the profile.
    fn broker_values(&self, place: &Place, name: &str, group: &str, main: u16) -> Properties {
        let slaves_of_group = (1..=self.spec.slaves)
            .filter(|k| (k - 1) % self.spec.masters + 1 == place.master)
            .count();
        let mut said = self.spec.properties.clone();
        said.extend(self.spec.brokers.get(group).cloned().unwrap_or_default());
        said.extend(
            self.own(name)
                .map(|n| n.properties.clone())
                .unwrap_or_default(),
        );

        let mut values = profile(self.spec.profile);
        let role = match (place.role, said.remove("brokerRole")) {
            (Role::Slave, _) => "SLAVE".to_owned(),
            (_, Some(role)) => role,
            (_, None) => match self.spec.replication {
                Mode::Async => "ASYNC_MASTER".to_owned(),
                Mode::Sync => "SYNC_MASTER".to_owned(),
            },
        };
        // RocketMQ 5 waits for nobody unless this says 2, whatever brokerRole says.
        let in_sync = if role == "SYNC_MASTER" && slaves_of_group > 0 {
            2
        } else {
            1
        };
        let mut set = |key: &str, value: String| values.insert(key.to_owned(), value);
        set("brokerRole", role);
        set("inSyncReplicas", in_sync.to_string());
        set(
            "flushDiskType",
            if self.spec.flush == Mode::Sync {
                "SYNC_FLUSH"
            } else {
                "ASYNC_FLUSH"
            }
            .to_owned(),
        );
        set("brokerClusterName", "DefaultCluster".to_owned());
        set("deleteWhen", "04".to_owned());
        set("fileReservedTime", "48".to_owned());
        set("autoCreateTopicEnable", "true".to_owned());
        set("autoCreateSubscriptionGroup", "true".to_owned());
        set("enablePropertyFilter", "false".to_owned());
        set("slaveReadEnable", "true".to_owned());
        values.extend(said);
        let mut set = |key: &str, value: String| values.insert(key.to_owned(), value);
        set("brokerName", group.to_owned());
        set("brokerId", place.id.to_string());
        let namesrvs = self.namesrvs().unwrap_or_default();
        set("namesrvAddr", namesrvs.join(";"));
        set("bindAddress", self.bind_address());
        set("listenPort", main.to_string());
        set("haListenPort", (main + 1).to_string());
        set("brokerIP1", self.advertise.clone());
        set("brokerIP2", self.site.host(name).to_owned());
        let store = self.site.store_path(name);
        set("storePathRootDir", store.display().to_string());
        if !self.spec.engine.is_bundled() {
            // Older Java brokers keep the log in the user's home unless they are told.
            set(
                "storePathCommitLog",
                store.join("commitlog").display().to_string(),
            );
        } else if *self.site == Site::Network {
            set("brokerInternalAddr", format!("{name}:{main}"));
        }
        values
    }
}

impl Role {
    /// Subcommand of `rmqctl engine`.
    fn engine(self) -> &'static str {
        match self {
            Role::Namesrv => "namesrv",
            Role::Master | Role::Slave => "broker",
            Role::Console => "console",
        }
    }
}

/// A profile's defaults of broker properties.
fn profile(profile: Profile) -> Properties {
    let rows: &[(&str, &str)] = match profile {
        // Files are allocated whole: RocketMQ's sizes would take 1.4 GiB of a laptop for the first message.
        Profile::Dev | Profile::Ci => &[
            ("mappedFileSizeCommitLog", "67108864"),
            ("mappedFileSizeConsumeQueue", "600000"),
            ("maxHashSlotNum", "500000"),
            ("maxIndexNum", "2000000"),
            // A developer's disk is often nearly full, and RocketMQ then refuses sends as if it were broken.
            ("diskMaxUsedSpaceRatio", "90"),
            ("diskSpaceCleanForciblyRatio", "95"),
            ("diskSpaceWarningLevelRatio", "98"),
        ],
        Profile::Prod => &[
            ("mappedFileSizeCommitLog", "1073741824"),
            ("mappedFileSizeConsumeQueue", "6000000"),
            ("maxHashSlotNum", "5000000"),
            ("maxIndexNum", "20000000"),
            ("diskMaxUsedSpaceRatio", "75"),
            ("diskSpaceCleanForciblyRatio", "85"),
            ("diskSpaceWarningLevelRatio", "90"),
        ],
    };
    rows.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
