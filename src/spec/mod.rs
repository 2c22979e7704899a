//! What the user wrote, flags and cluster.yaml merged in one place and validated once.
//!
//! "Typed" and "meant" are two types: a [`Draft`] holds only what was said, in a file or by flags; a [`ClusterSpec`] has
//! every value. Drafts are laid over a base, later over earlier: defaults (or the running cluster's spec), file, flags.

mod engine;
mod ephemeral;
mod flags;
mod lint;
pub mod naming;
mod storage;
mod topic;
mod typed;
mod validate;
pub mod yaml;
pub mod zone;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Exit, nearest};
pub use engine::{Engine, OWN_IMAGE, parse_image};
pub use ephemeral::Ephemeral;
pub use flags::SpecFlags;
pub use lint::{decided, warnings};
pub use storage::{Storage, StorageKind};
pub use topic::{DEFAULT_QUEUES, TopicSpec};
pub use typed::{DEFAULT_NAME, padded, parse_duration, parse_memory, quoted, suggest};
pub use validate::is_loopback;

/// Broker properties by their Java names.
pub type Properties = BTreeMap<String, String>;

/// What the engine says of one property; `commands::engine` asks it, since no other file knows the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has a row, and takes this value.
    Good,
    /// RocketMQ knows it; this engine accepts it without effect.
    NoEffect,
    /// No such property; the nearest one's name.
    Unknown(Option<String>),
    /// The value is wrong; why, naming the allowed ones.
    Wrong(String),
}

/// Asks for the verdict on `key` and `value`.
pub type Lint = fn(&str, &str) -> Verdict;

/// A set of defaults. It never overrides what was said.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Small segment files that do not eat a laptop's disk.
    #[default]
    Dev,
    /// As dev, without the console.
    Ci,
    /// RocketMQ's own sizes: 1 GiB commit log segments.
    Prod,
}

/// `async` or `sync`, of replication and of flushing.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Mode {
    #[default]
    Async,
    Sync,
}

/// What one node has of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NodeSpec {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: Properties,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// `listenPort`; the VIP port and the HA port follow from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_port: Option<u16>,
}

/// A whole cluster, every value decided. Its canonical JSON is kept with the running cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ClusterSpec {
    pub name: String,
    #[serde(default, skip_serializing_if = "Engine::is_bundled")]
    pub engine: Engine,
    /// The image of rmqctl's engine that nodes run; `None`: the one that is made from the running binary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_image: Option<String>,
    pub profile: Profile,
    pub namesrvs: u32,
    pub masters: u32,
    /// Total, dealt round-robin to the masters.
    pub slaves: u32,
    pub console: bool,
    pub replication: Mode,
    pub flush: Mode,
    /// Docker network; `None`: named after the cluster.
    pub network: Option<String>,
    pub subnet: Option<String>,
    pub bind: IpAddr,
    /// Host or address that clients outside the network are told.
    pub advertise: String,
    pub port_offset: u16,
    /// Host port of the console before the offset.
    pub console_port: u16,
    /// Bytes, each node; `None`: no limit.
    pub memory: Option<u64>,
    /// Cores, each node; `None`: no limit.
    pub cpus: Option<f64>,
    pub stop_timeout_seconds: u64,
    /// Time zone of the nodes; `None`: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Where stores lie.
    #[serde(default, skip_serializing_if = "Storage::is_volume")]
    pub storage: Storage,
    pub env: BTreeMap<String, String>,
    /// Of all brokers.
    pub properties: Properties,
    /// By node name.
    pub nodes: BTreeMap<String, NodeSpec>,
    /// Properties by broker name.
    pub brokers: BTreeMap<String, Properties>,
    /// Made once the brokers are ready; one that is no longer named stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<TopicSpec>,
    pub labels: BTreeMap<String, String>,
    /// Absolute directory of the generated files.
    pub conf_dir: PathBuf,
    /// Seconds that `up` and `restart` wait for readiness.
    pub wait_timeout_seconds: u64,
    /// When it ends by itself; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
}

/// What was said, in a file or by flags; `None` and empty: not said.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Draft {
    /// Where it was said, for messages: `cluster.yaml` or `the command line`.
    pub origin: String,
    /// The file's text, so that an error can show its line.
    pub text: Option<String>,
    pub name: Option<String>,
    pub engine: Option<Engine>,
    /// A reference, or [`OWN_IMAGE`].
    pub engine_image: Option<String>,
    pub profile: Option<Profile>,
    pub namesrvs: Option<u32>,
    pub masters: Option<u32>,
    pub slaves: Option<u32>,
    pub slaves_per_master: Option<u32>,
    pub console: Option<bool>,
    pub replication: Option<Mode>,
    pub flush: Option<Mode>,
    pub network: Option<String>,
    pub subnet: Option<String>,
    pub bind: Option<IpAddr>,
    pub advertise: Option<String>,
    pub port_offset: Option<u16>,
    pub console_port: Option<u16>,
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
    pub stop_timeout: Option<Duration>,
    pub tz: Option<String>,
    pub storage: Option<Storage>,
    pub env: BTreeMap<String, String>,
    pub properties: Properties,
    pub nodes: BTreeMap<String, NodeSpec>,
    pub brokers: BTreeMap<String, Properties>,
    pub topics: Vec<TopicSpec>,
    pub labels: BTreeMap<String, String>,
    pub conf_dir: Option<PathBuf>,
    pub wait_timeout: Option<Duration>,
    pub ephemeral: Option<Ephemeral>,
}

impl ClusterSpec {
    /// A cluster nobody said anything about, but for its name.
    pub fn defaults(name: &str, profile: Profile, conf_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            engine: Engine::Bundled,
            engine_image: None,
            profile,
            namesrvs: 1,
            masters: 1,
            slaves: 1,
            console: profile != Profile::Ci,
            replication: Mode::Async,
            flush: Mode::Async,
            network: None,
            subnet: None,
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise: "127.0.0.1".to_owned(),
            port_offset: 0,
            console_port: 8181,
            memory: None,
            cpus: None,
            stop_timeout_seconds: 60,
            tz: None,
            storage: Storage::Volume,
            env: BTreeMap::new(),
            properties: BTreeMap::new(),
            nodes: BTreeMap::new(),
            brokers: BTreeMap::new(),
            topics: Vec::new(),
            labels: BTreeMap::new(),
            conf_dir,
            wait_timeout_seconds: 60,
            ephemeral: None,
        }
    }

    /// Lays `draft` over this spec. An empty property value takes the property back.
    pub fn apply(&mut self, draft: &Draft) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        fn merge(to: &mut Properties, from: &Properties) {
            for (key, value) in from {
                if value.is_empty() {
                    to.remove(key);
                } else {
                    to.insert(key.clone(), value.clone());
                }
            }
        }
        if let Some(engine) = &draft.engine {
            // A deadline that nobody chose is the engine's.
            if self.wait_timeout_seconds == self.engine.wait_seconds() {
                self.wait_timeout_seconds = engine.wait_seconds();
            }
            self.engine = engine.clone();
        }
        if let Some(image) = &draft.engine_image {
            self.engine_image = (image != OWN_IMAGE).then(|| image.clone());
        }
        set(&mut self.profile, &draft.profile);
        set(&mut self.namesrvs, &draft.namesrvs);
        set(&mut self.masters, &draft.masters);
        set(&mut self.slaves, &draft.slaves);
        if let Some(each) = draft.slaves_per_master {
            self.slaves = self.masters.saturating_mul(each);
        }
        set(&mut self.console, &draft.console);
        set(&mut self.replication, &draft.replication);
        set(&mut self.flush, &draft.flush);
        if draft.network.is_some() {
            self.network.clone_from(&draft.network);
        }
        if draft.subnet.is_some() {
            self.subnet.clone_from(&draft.subnet);
        }
        if let Some(advertise) = &draft.advertise {
            self.advertise = match advertise.as_str() {
                "auto" | "loopback" => "127.0.0.1".to_owned(),
                host => host.to_owned(),
            };
            // An address that others dial is of no use while the ports answer on loopback only.
            self.bind = if is_loopback(&self.advertise) {
                IpAddr::V4(Ipv4Addr::LOCALHOST)
            } else {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            };
        }
        set(&mut self.bind, &draft.bind);
        set(&mut self.port_offset, &draft.port_offset);
        set(&mut self.console_port, &draft.console_port);
        self.memory = draft.memory.or(self.memory);
        self.cpus = draft.cpus.or(self.cpus);
        if let Some(timeout) = draft.stop_timeout {
            self.stop_timeout_seconds = timeout.as_secs();
        }
        if let Some(timeout) = draft.wait_timeout {
            self.wait_timeout_seconds = timeout.as_secs().max(1);
        }
        set(&mut self.conf_dir, &draft.conf_dir);
        set(&mut self.storage, &draft.storage);
        if draft.tz.is_some() {
            self.tz.clone_from(&draft.tz);
        }
        self.ephemeral = draft.ephemeral.or(self.ephemeral);
        self.env.extend(draft.env.clone());
        self.labels.extend(draft.labels.clone());
        merge(&mut self.properties, &draft.properties);
        for (name, from) in &draft.nodes {
            let node = self.nodes.entry(name.clone()).or_default();
            merge(&mut node.properties, &from.properties);
            node.memory = from.memory.or(node.memory);
            node.cpus = from.cpus.or(node.cpus);
            node.main_port = from.main_port.or(node.main_port);
        }
        for (name, from) in &draft.brokers {
            // One broker of a group is a node, whose number follows from the counts.
            match naming::node_of(name, self.masters) {
                Some(node) => merge(&mut self.nodes.entry(node).or_default().properties, from),
                None => merge(self.brokers.entry(name.clone()).or_default(), from),
            }
        }
        for topic in &draft.topics {
            self.topics.retain(|known| known.name != topic.name);
            self.topics.push(topic.clone());
        }
        self.nodes.retain(|_, node| *node != NodeSpec::default());
        self.brokers.retain(|_, properties| !properties.is_empty());
    }

    /// Reads what [`ClusterSpec::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|reason| {
            Error::new(
                "RMQ-E106",
                Exit::Spec,
                "the spec kept with the cluster cannot be read",
            )
            .detail(reason.to_string())
            .detail("it was written by another version of rmqctl")
            .hint("rmqctl up -f cluster.yaml   (writes it anew)")
        })
    }

    /// Canonical JSON: keys in the order of the fields, no spaces.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a spec has string keys and finite numbers only")
    }
}

/// The spec of a cluster from what runs (`stored`), a file and flags. With a file, file and flags are the whole spec;
/// without one, what is not said stays as it is.
pub fn resolve(
    name: &str,
    stored: Option<&ClusterSpec>,
    file: Option<&Draft>,
    flags: &Draft,
    default_conf_dir: PathBuf,
    lint: Lint,
) -> Result<ClusterSpec, Error> {
    let profile = flags
        .profile
        .or_else(|| file.and_then(|f| f.profile))
        .unwrap_or_default();
    let conf_dir = stored.map_or(default_conf_dir, |s| s.conf_dir.clone());
    let mut spec = match (stored, file) {
        (Some(stored), None) => stored.clone(),
        _ => ClusterSpec::defaults(name, profile, conf_dir),
    };
    name.clone_into(&mut spec.name);
    for draft in file.into_iter().chain([flags]) {
        if draft.slaves.is_some() && draft.slaves_per_master.is_some() {
            return Err(Error::new(
                "RMQ-E104",
                Exit::Spec,
                format!("{} gives both slaves and slaves per master", draft.origin),
            )
            .detail("--slaves N is the total, dealt round-robin to the masters; --slaves-per-master N is for each"));
        }
        lint::check_properties(draft, lint)?;
        spec.apply(draft);
    }
    spec.validate()?;
    Ok(spec)
}

/// An error for a name that is none of `names`.
pub fn unknown_name<'a>(
    what: &str,
    typed: &str,
    names: impl IntoIterator<Item = &'a str> + Clone,
) -> Error {
    let list: Vec<&str> = names.clone().into_iter().collect();
    let error = Error::new("RMQ-E111", Exit::Spec, format!("no {what} `{typed}`"))
        .detail(format!("there are: {}", list.join(", ")));
    match nearest(typed, names) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &str, _: &str) -> Verdict {
        Verdict::Good
    }

    fn flags(sets: &[&str]) -> Draft {
        let mut draft = Draft {
            origin: "the command line".into(),
            ..Draft::default()
        };
        for set in sets {
            typed::parse_set(&mut draft, set).unwrap();
        }
        draft
    }

    #[test]
    fn without_a_file_what_is_not_said_stays_as_it_is() {
        let mut stored = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        stored.masters = 2;
        stored.memory = Some(1 << 30);
        let said = Draft {
            slaves: Some(3),
            ..flags(&["fileReservedTime=72"])
        };
        let spec = resolve("rmq", Some(&stored), None, &said, "/y".into(), any).unwrap();
        let mut want = stored;
        want.slaves = 3;
        want.properties
            .insert("fileReservedTime".into(), "72".into());
        assert_eq!(spec, want);
    }

    #[test]
    fn set_takes_a_node_a_broker_or_all_and_an_empty_value_takes_back() {
        let draft = flags(&[
            "deleteWhen=4",
            "fileReservedTime=1@rmqmaster1",
            "maxMessageSize=9@broker-a",
            "a=b@c",
        ]);
        assert_eq!(
            draft.properties,
            BTreeMap::from([
                ("deleteWhen".into(), "04".into()),
                ("a".into(), "b@c".into())
            ])
        );
        assert_eq!(
            draft.nodes["rmqmaster1"].properties["fileReservedTime"],
            "1"
        );
        assert_eq!(draft.brokers["broker-a"]["maxMessageSize"], "9");
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.apply(&draft);
        spec.apply(&flags(&["deleteWhen=", "fileReservedTime=@rmqmaster1"]));
        assert!(!spec.properties.contains_key("deleteWhen"));
        assert!(spec.nodes.is_empty());

        (spec.masters, spec.slaves) = (2, 4);
        spec.apply(&flags(&[
            "fileReservedTime=7@broker-b:2",
            "fileReservedTime=8@broker-a:0",
        ]));
        assert_eq!(spec.nodes["rmqslave4"].properties["fileReservedTime"], "7");
        assert_eq!(spec.nodes["rmqmaster1"].properties["fileReservedTime"], "8");
        spec.apply(&flags(&[
            "fileReservedTime=@broker-b:2",
            "fileReservedTime=@broker-a:0",
        ]));
        assert!(spec.nodes.is_empty(), "an empty value takes it back");
    }

    #[test]
    fn a_property_that_the_topology_decides_is_refused_with_what_to_use() {
        let error =
            resolve("rmq", None, None, &flags(&["brokerId=7"]), "/x".into(), any).unwrap_err();
        assert_eq!(
            error.to_string(),
            "error[RMQ-E103]: the command line: the topology decides `brokerId`\n  ids follow from the number of slaves\n"
        );
    }

    #[test]
    fn an_image_is_kept_until_the_own_one_is_asked_for() {
        let image = |reference: &str| Draft {
            engine_image: Some(reference.into()),
            ..Draft::default()
        };
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.apply(&image("r.example/engine:1"));
        spec.apply(&Draft::default());
        assert_eq!(spec.engine_image.as_deref(), Some("r.example/engine:1"));
        spec.apply(&image(OWN_IMAGE));
        assert_eq!(spec.engine_image, None);
    }

    #[test]
    fn advertising_another_host_opens_the_ports_unless_bind_says_otherwise() {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.apply(&Draft {
            advertise: Some("10.0.0.5".into()),
            ..Draft::default()
        });
        assert_eq!(
            (spec.bind.to_string(), spec.advertise.as_str()),
            ("0.0.0.0".into(), "10.0.0.5")
        );
        spec.apply(&Draft {
            bind: "10.0.0.5".parse().ok(),
            ..Draft::default()
        });
        assert_eq!(spec.bind.to_string(), "10.0.0.5");
    }

    #[test]
    fn a_spec_survives_its_json() {
        let mut spec = ClusterSpec::defaults("ci42", Profile::Prod, "/x".into());
        spec.cpus = Some(1.5);
        spec.apply(&flags(&["fileReservedTime=1@rmqmaster1"]));
        assert_eq!(ClusterSpec::from_json(&spec.to_json()), Ok(spec));
    }
}
