//! One node at a time: its ports, its properties, its command line, and the hash over all of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::places::{Place, numbered, slot};
use super::{BrokerId, CONTAINER_MEMORY, Node, Port, Role, Site, apache};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec::naming::{dealt, letters};
use crate::spec::{ClusterSpec, Mode, NodeSpec, Profile, Properties, Storage};

/// What a name server keeps in memory at most, where stores are there.
const NAMESRV_TMPFS: u64 = 16 << 20;

/// Makes the nodes of a spec at a site.
pub(super) struct Builder<'a> {
    pub spec: &'a ClusterSpec,
    pub site: &'a Site,
    pub prefix: String,
    pub network: String,
    pub gateway: Option<Ipv4Addr>,
    /// What clients outside the network are told.
    pub advertise: String,
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
        let container = format!("{}{name}", self.prefix);
        let has_store = role != Role::Console;
        let (mut volume, mut tmpfs) = (None, None);
        match &self.spec.storage {
            _ if !has_store => {}
            // One that ends by itself has a volume without a name, which goes with it.
            Storage::Volume if self.spec.ephemeral.is_some() => {}
            Storage::Volume => volume = Some(format!("{container}-store")),
            Storage::Host { path } => volume = Some(path.join(&container).display().to_string()),
            Storage::Tmpfs { .. } => {
                tmpfs = match role {
                    // Its table of order topics.
                    Role::Namesrv => Some(NAMESRV_TMPFS),
                    _ => self.spec.storage.tmpfs_bytes(self.spec.profile),
                };
            }
        }
        Node {
            container,
            aliases,
            role,
            broker,
            ports,
            image: None,
            engine_image: self.spec.engine_image.clone(),
            volume,
            tmpfs,
            conf_path,
            store_path: has_store.then(|| self.store_path(&name)),
            file,
            memory,
            // A billionth of a core is the daemon's unit; a spec's cores are checked to be finite and not negative.
            nano_cpus: cpus.map(|cores| (cores * 1e9).round() as i64),
            command,
            env: self.env(),
            config_hash: String::new(),
            name,
        }
    }

    /// The user's variables, and the zone unless one of them says it.
    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.spec.env.clone();
        if let Some(zone) = &self.spec.tz {
            env.entry("TZ".to_owned()).or_insert_with(|| zone.clone());
        }
        env
    }

    /// Where a node finds its store: in its container, or on this host.
    fn store_path(&self, name: &str) -> PathBuf {
        match (&self.spec.storage, self.site) {
            // By the container's name, so that clusters may share a data directory.
            (Storage::Host { path }, Site::Loopback { .. }) => {
                path.join(format!("{}{name}", self.prefix))
            }
            (Storage::Tmpfs { .. }, Site::Network) => PathBuf::from(CONTAINER_MEMORY),
            _ => self.site.store_path(name),
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

    pub fn namesrv(&self, number: u32) -> Result<Node, Error> {
        let name = numbered(Role::Namesrv, number);
        let listen = self.namesrv_port(number)?;
        let host = self.offset(9875 + number, &name)?;
        let values = Properties::from([
            ("bindAddress".to_owned(), self.bind_address()),
            ("listenPort".to_owned(), listen.to_string()),
            (
                "kvConfigPath".to_owned(),
                self.store_path(&name)
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

    pub fn console(&self) -> Result<Node, Error> {
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

    pub fn broker(&self, place: &Place) -> Result<Node, Error> {
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
            .filter(|k| dealt(*k, self.spec.masters).0 == place.master)
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
        let store = self.store_path(name);
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
