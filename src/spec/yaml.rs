//! cluster.yaml: the only file that knows the YAML library. Unknown keys are errors with their place and the nearest key.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Visitor};

use super::storage::absolute;
use super::{
    DEFAULT_QUEUES, Draft, Engine as Kind, Mode, NodeSpec, OWN_IMAGE, Profile, Properties, Storage,
    StorageKind, TopicSpec, padded, parse_duration, parse_image, parse_memory, zone,
};
use crate::error::{Error, Exit, nearest};

/// A file larger than this is not a cluster; the parser never sees it.
const SIZE_MAX: u64 = 1 << 20;

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct File {
    /// Version of this form: 1
    version: Option<u32>,
    /// Name of the cluster; containers, network and volumes carry it
    name: Option<String>,
    /// Set of defaults; it never overrides what is said
    profile: Option<Profile>,
    /// How many nodes of which kind
    topology: Topology,
    /// sync: a send is acknowledged when a slave has it too
    replication: Option<Mode>,
    /// sync: a send is acknowledged when it is on disk
    flush: Option<Mode>,
    /// The Docker network of the nodes
    network: Network,
    /// What of the nodes is reached from outside, and how
    expose: Expose,
    /// What every node gets
    engine: Engine,
    /// Where the nodes' stores lie
    storage: Store,
    /// Properties of all brokers, by their Java names
    #[schemars(schema_with = "broker_properties")]
    properties: BTreeMap<String, Value>,
    /// The few nodes that differ, by name (rmqmaster1)
    nodes: BTreeMap<String, Node>,
    /// Groups that differ, by broker name (broker-a)
    brokers: BTreeMap<String, Broker>,
    /// Topics made once the brokers are ready
    topics: Vec<Topic>,
    /// How long `up` waits
    wait: Wait,
    /// Labels of your own on every container, network and volume
    labels: BTreeMap<String, Value>,
    /// Directory of the generated properties files; relative to this file
    conf_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Topology {
    /// Name servers, 1 to 9
    namesrvs: Option<u32>,
    /// Master brokers
    masters: Option<u32>,
    /// Slave brokers in all, dealt round-robin to the masters
    slaves: Option<u32>,
    /// Slave brokers of each master, in place of slaves
    slaves_per_master: Option<u32>,
    /// Whether there is a web console
    console: Option<bool>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Network {
    /// Name of the network
    name: Option<String>,
    /// As 172.28.0.0/16; Docker picks one otherwise
    subnet: Option<String>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Expose {
    /// Address of this host that ports are published on
    bind: Option<IpAddr>,
    /// Host or address that clients outside the network are told; auto is 127.0.0.1
    advertise: Option<String>,
    /// Added to every published port
    port_offset: Option<u16>,
    /// Host port of the console, before the offset
    console: Option<u16>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Engine {
    /// Engine of brokers and name servers: bundled, or Apache's image as apache or apache:TAG
    kind: Option<String>,
    /// An image of rmqctl's engine for all nodes, in place of the one made from the program; beside `kind: apache` one laid out as Apache's
    image: Option<String>,
    /// Memory limit: 512m, 1g
    memory: Option<Value>,
    /// CPU limit, in cores: 1.5
    cpus: Option<f64>,
    /// Time that a node gets to stop before it is killed: 60s
    stop_timeout: Option<Value>,
    /// Time zone, whose hours deleteWhen counts: Asia/Shanghai. In a new cluster this host's when none is said
    tz: Option<String>,
    /// Environment variables
    env: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Store {
    /// volume: one of Docker's for each node; host: a directory for each node below path; tmpfs: memory, lost when a node stops
    kind: Option<StorageKind>,
    /// With host: the directory; relative to this file
    path: Option<PathBuf>,
    /// With tmpfs: bytes of each store at most: 1g
    size: Option<Value>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Node {
    /// Properties of this node
    #[schemars(schema_with = "broker_properties")]
    properties: BTreeMap<String, Value>,
    /// Memory limit: 512m, 1g
    memory: Option<Value>,
    /// CPU limit, in cores: 1.5
    cpus: Option<f64>,
    /// Ports that differ
    ports: Ports,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Ports {
    /// listenPort; the VIP port is two below, the HA port one above
    main: Option<u16>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Broker {
    /// Properties of this master and its slaves
    #[schemars(schema_with = "broker_properties")]
    properties: BTreeMap<String, Value>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Topic {
    /// Its name
    name: String,
    /// Queues on each broker (8)
    queues: Option<u32>,
    /// Names of the brokers that have it (broker-a); all when none is named
    #[serde(default)]
    brokers: Vec<String>,
}

#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Wait {
    /// Deadline for all nodes together: 60s
    timeout: Option<Value>,
}

/// A scalar as text: people write `72`, `true` and `04` without quotes.
#[derive(Clone, Debug)]
struct Value(String);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: de::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true or false")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                Ok(Value(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                Ok(Value(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                Ok(Value(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                Ok(Value(v.to_string()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                Ok(Value(v.to_owned()))
            }
        }
        from.deserialize_any(Scalar)
    }
}

impl schemars::JsonSchema for Value {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Value".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

/// Where [`schema`] puts what the engine knows of properties.
const PROPERTIES: &str = "BrokerProperties";

fn broker_properties(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "$ref": format!("#/$defs/{PROPERTIES}") })
}

/// JSON schema of a cluster file, from the very types that read it. `properties` is the schema of a set of broker properties,
/// which only the engine knows.
pub fn schema(properties: serde_json::Value) -> serde_json::Value {
    let mut schema = schemars::schema_for!(File).to_value();
    schema["title"] = "A RocketMQ cluster, as rmqctl reads it".into();
    schema["$defs"][PROPERTIES] = properties;
    schema
}

/// Reads a cluster file; `-` is standard input. Paths in it are relative to it.
pub fn load(path: &Path, cwd: &Path) -> Result<Draft, Error> {
    let unreadable = |reason: std::io::Error| {
        Error::new(
            "RMQ-E101",
            Exit::Spec,
            format!("cannot read {}", path.display()),
        )
        .detail(reason.to_string())
        .hint("rmqctl init   (writes a starter cluster.yaml)")
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .take(SIZE_MAX + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(SIZE_MAX + 1)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
    }
    let shown = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    if text.len() as u64 > SIZE_MAX {
        return Err(Error::new(
            "RMQ-E101",
            Exit::Spec,
            format!("{shown} is larger than {SIZE_MAX} bytes"),
        ));
    }
    let dir = cwd
        .join(path)
        .parent()
        .map_or_else(|| cwd.to_owned(), Path::to_owned);
    draft(&shown, &text, &dir)
}

/// What a cluster file says. `dir` is where its relative paths start.
pub fn draft(origin: &str, text: &str, dir: &Path) -> Result<Draft, Error> {
    // An empty file says nothing, which is allowed; the library reads it as null, which is no map.
    let blank = text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let file: File = if blank {
        File::default()
    } else {
        from_str(origin, text)?
    };
    if let Some(version) = file.version.filter(|version| *version != 1) {
        return Err(at_key(
            origin,
            text,
            None,
            "version",
            &format!("version {version} of"),
            "this rmqctl reads version 1",
        ));
    }
    let memory = |value: Option<Value>| match value {
        Some(Value(typed)) => parse_memory(&typed)
            .map(Some)
            .map_err(|why| at_key(origin, text, None, "memory", "wrong value of", &why)),
        None => Ok(None),
    };
    let duration = |value: Option<Value>, key: &str| match value {
        Some(Value(typed)) => parse_duration(&typed)
            .map(Some)
            .map_err(|why| at_key(origin, text, None, key, "wrong value of", &why)),
        None => Ok(None),
    };
    let mut nodes = BTreeMap::new();
    for (name, node) in file.nodes {
        let spec = NodeSpec {
            properties: properties(node.properties),
            memory: memory(node.memory)?,
            cpus: node.cpus,
            main_port: node.ports.main,
        };
        nodes.insert(name, spec);
    }
    let kind = match &file.engine.kind {
        Some(typed) => Some(
            Kind::parse(typed)
                .map_err(|why| at_key(origin, text, None, "kind", "wrong value of", &why))?,
        ),
        None => None,
    };
    let image = match &file.engine.image {
        Some(typed) => Some(
            parse_image(typed)
                .map_err(|why| at_key(origin, text, None, "image", "wrong value of", &why))?,
        ),
        None => None,
    };
    // Beside `kind: apache` it is one laid out as Apache's; else one of ours.
    let (engine, engine_image) = match (kind, image) {
        (Some(Kind::Apache(_)), Some(image)) if image != OWN_IMAGE => {
            (Some(Kind::Apache(image)), None)
        }
        (kind, image) => (kind, image),
    };
    let tz =
        match &file.engine.tz {
            Some(typed) => Some(zone::parse(typed).map_err(|why| {
                at_key(origin, text, Some("engine"), "tz", "wrong value of", &why)
            })?),
            None => None,
        };
    let storage = storage(origin, text, file.storage, dir)?;
    Ok(Draft {
        origin: origin.to_owned(),
        text: Some(text.to_owned()),
        name: file.name,
        engine,
        engine_image,
        profile: file.profile,
        namesrvs: file.topology.namesrvs,
        masters: file.topology.masters,
        slaves: file.topology.slaves,
        slaves_per_master: file.topology.slaves_per_master,
        console: file.topology.console,
        replication: file.replication,
        flush: file.flush,
        network: file.network.name,
        subnet: file.network.subnet,
        bind: file.expose.bind,
        advertise: file.expose.advertise,
        port_offset: file.expose.port_offset,
        console_port: file.expose.console,
        memory: memory(file.engine.memory)?,
        cpus: file.engine.cpus,
        stop_timeout: duration(file.engine.stop_timeout, "stopTimeout")?,
        tz,
        storage,
        env: texts(file.engine.env),
        properties: properties(file.properties),
        nodes,
        brokers: file
            .brokers
            .into_iter()
            .map(|(name, b)| (name, properties(b.properties)))
            .collect(),
        topics: file
            .topics
            .into_iter()
            .map(|topic| TopicSpec {
                name: topic.name,
                queues: topic.queues.unwrap_or(DEFAULT_QUEUES),
                brokers: topic.brokers,
            })
            .collect(),
        labels: texts(file.labels),
        conf_dir: file.conf_dir.map(|path| dir.join(path)),
        wait_timeout: duration(file.wait.timeout, "timeout")?,
        ephemeral: None,
    })
}

/// What a file says of stores: the kind, and no more than belongs to it.
fn storage(origin: &str, text: &str, said: Store, dir: &Path) -> Result<Option<Storage>, Error> {
    let at = |key: &str, title: &str, note: &str| {
        Err(at_key(origin, text, Some("storage"), key, title, note))
    };
    let size = match said.size {
        Some(Value(typed)) => match parse_memory(&typed) {
            Ok(bytes) => Some(bytes),
            Err(why) => return at("size", "wrong value of", &why),
        },
        None => None,
    };
    match (said.kind, said.path, size) {
        (None, None, None) => Ok(None),
        (None, Some(_), _) => at("path", "no kind beside", "add `kind: host`"),
        (None, _, Some(_)) => at("size", "no kind beside", "add `kind: tmpfs`"),
        (Some(StorageKind::Host), None, _) => at("kind", "no path beside", "add `path: ./data`"),
        (Some(StorageKind::Host), _, Some(_)) => {
            at("size", "needless", "a directory has its disk's size")
        }
        (Some(StorageKind::Host), Some(path), None) => Ok(Some(Storage::Host {
            path: absolute(dir, &path),
        })),
        (Some(_), Some(_), _) => at("path", "needless", "it is for `kind: host`"),
        (Some(StorageKind::Volume), _, Some(_)) => {
            at("size", "needless", "a volume has its disk's size")
        }
        (Some(StorageKind::Volume), None, None) => Ok(Some(Storage::Volume)),
        (Some(StorageKind::Tmpfs), None, size) => Ok(Some(Storage::Tmpfs { size })),
    }
}

fn texts(values: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    values
        .into_iter()
        .map(|(key, Value(text))| (key, text))
        .collect()
}

fn properties(values: BTreeMap<String, Value>) -> Properties {
    values
        .into_iter()
        .map(|(key, Value(text))| {
            let text = padded(&key, &text);
            (key, text)
        })
        .collect()
}

/// Parses YAML text; the error shows its line.
fn from_str<T: DeserializeOwned>(origin: &str, text: &str) -> Result<T, Error> {
    serde_yaml::from_str(text).map_err(|reason| explain(origin, text, &reason))
}

/// YAML of a value, for `-o yaml`.
pub fn to_string<T: serde::Serialize>(value: &T) -> String {
    serde_yaml::to_string(value).expect("our outputs have string keys and finite numbers only")
}

/// YAML as a value, for tests that read back what was written.
#[cfg(test)]
pub fn value(text: &str) -> Result<serde_json::Value, String> {
    serde_yaml::from_str(text).map_err(|reason| reason.to_string())
}

fn explain(origin: &str, text: &str, reason: &serde_yaml::Error) -> Error {
    let message = reason.to_string();
    let (line, column) = reason
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    // "topology: unknown field `slavez`, expected one of `masters`, `slaves` at line 3 column 3"
    let said = message.split(" at line ").next().unwrap_or(&message);
    let mut quoted = said.split('`').skip(1).step_by(2);
    if let (true, Some(key)) = (said.contains("unknown field"), quoted.next()) {
        let known: Vec<&str> = quoted.collect();
        let note = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        // The library points at the mapping or at the key, by its version; the key's own line is what helps.
        let line = (line.saturating_sub(1)..text.lines().count())
            .find(|n| key_of(text.lines().nth(*n).unwrap_or_default()) == Some(key))
            .map_or(line, |n| n + 1);
        return pointing(
            origin,
            text,
            line,
            key,
            &format!("unknown key \"{key}\""),
            &note,
        );
    }
    let excerpt = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let error = Error::new(
        "RMQ-E102",
        Exit::Spec,
        format!("{origin}:{line}:{column}  {said}"),
    );
    if excerpt.trim().is_empty() {
        error
    } else {
        error.detail(format!("{line:>4} | {excerpt}"))
    }
}

/// An error at `key` of the file, inside the section `owner` if there is one.
pub fn at_key(
    origin: &str,
    text: &str,
    owner: Option<&str>,
    key: &str,
    title: &str,
    note: &str,
) -> Error {
    let from = owner
        .and_then(|owner| {
            text.lines()
                .position(|line| key_of(line) == Some(owner) || line.contains(owner))
        })
        .unwrap_or(0);
    let found = text
        .lines()
        .enumerate()
        .skip(from)
        .find(|(_, line)| key_of(line) == Some(key) || line.contains(&format!("{key}:")))
        .map_or(1, |(n, _)| n + 1);
    pointing(
        origin,
        text,
        found,
        key,
        &format!("{title} \"{key}\""),
        note,
    )
}

/// The key that a line of block style gives.
fn key_of(line: &str) -> Option<&str> {
    let line = line.trim_start().trim_start_matches("- ");
    line.split_once(':')
        .map(|(key, _)| key.trim().trim_matches(['"', '\'']))
}

fn pointing(origin: &str, text: &str, line: usize, key: &str, title: &str, note: &str) -> Error {
    let excerpt = text.lines().nth(line - 1).unwrap_or_default();
    let column = excerpt
        .find(key)
        .map_or(1, |at| excerpt[..at].chars().count() + 1);
    let mut error = Error::new(
        "RMQ-E102",
        Exit::Spec,
        format!("{origin}:{line}:{column}  {title}"),
    );
    if line > 1 {
        let before = text.lines().nth(line - 2).unwrap_or_default();
        error = error.detail(format!("{:>4} | {before}", line - 1));
    }
    error
        .detail(format!("{line:>4} | {excerpt}"))
        .detail(format!(
            "     | {}{} {note}",
            " ".repeat(column - 1),
            "^".repeat(key.chars().count())
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, want: &str) {
        let error = draft("cluster.yaml", text, Path::new("/x")).unwrap_err();
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn the_documented_file_is_read_whole() {
        let text = include_str!("../../templates/cluster.yaml");
        let said = draft("cluster.yaml", text, Path::new("/x")).unwrap();
        assert_eq!(
            (said.masters, said.slaves, said.console),
            (Some(2), Some(2), Some(true))
        );
        assert_eq!(said.properties["deleteWhen"], "04");
    }

    #[test]
    fn a_leading_zero_survives_with_and_without_quotes_and_comes_back_when_it_was_dropped() {
        for hour in ["04", "\"04\"", "4"] {
            let said = draft(
                "c",
                &format!("properties:\n  deleteWhen: {hour}\n"),
                Path::new("/x"),
            )
            .unwrap();
            assert_eq!(said.properties["deleteWhen"], "04", "written as {hour}");
        }
    }

    #[test]
    fn an_unknown_key_is_shown_in_its_line_with_the_nearest_one() {
        check_error(
            "name: rmq\ntopology:\n  masters: 2\n  slavez: 2\n",
            "error[RMQ-E102]: cluster.yaml:4:3  unknown key \"slavez\"\n     3 |   masters: 2\n     4 |   slavez: 2\n       \
             |   ^^^^^^ did you mean `slaves`?\n",
        );
    }

    #[test]
    fn an_unknown_key_like_no_other_lists_those_that_are_known() {
        check_error(
            "wait: {until: ready}\n",
            "error[RMQ-E102]: cluster.yaml:1:8  unknown key \"until\"\n     1 | wait: {until: ready}\n       \
             |        ^^^^^ known here: timeout\n",
        );
    }

    #[test]
    fn a_value_of_a_wrong_kind_is_shown_in_its_line() {
        check_error(
            "topology:\n  masters: two\n",
            "error[RMQ-E102]: cluster.yaml:2:12  topology.masters: invalid type: string \"two\", expected u32\n     \
             2 |   masters: two\n",
        );
        check_error(
            "engine: {memory: lots}\n",
            "error[RMQ-E102]: cluster.yaml:1:10  wrong value of \"memory\"\n     1 | engine: {memory: lots}\n       \
             |          ^^^^^^ `lots` is not a size such as 512m, 1g or 268435456\n",
        );
    }

    #[test]
    fn an_image_is_ours_unless_it_stands_beside_apaches_kind() {
        let said = |text: &str| {
            let said = draft("c", text, Path::new("/x")).unwrap();
            (said.engine, said.engine_image)
        };
        let image = || "r.example/mq:1".to_owned();
        assert_eq!(
            said("engine: {image: 'r.example/mq:1'}"),
            (None, Some(image()))
        );
        assert_eq!(
            said("engine: {kind: bundled, image: 'r.example/mq:1'}"),
            (Some(Kind::Bundled), Some(image()))
        );
        assert_eq!(
            said("engine: {kind: apache, image: 'r.example/mq:1'}"),
            (Some(Kind::Apache(image())), None)
        );
        let error = draft("c", "engine: {image: -x}", Path::new("/x")).unwrap_err();
        assert!(
            error.to_string().contains("no image's reference"),
            "{error}"
        );
    }

    #[test]
    fn a_time_zone_that_is_none_is_shown_in_its_line() {
        let said = draft("c", "engine: {tz: asia/shanghai}\n", Path::new("/x")).unwrap();
        assert_eq!(said.tz.as_deref(), Some("Asia/Shanghai"));
        check_error(
            "engine:\n  tz: Asia/Shangai\n",
            "error[RMQ-E102]: cluster.yaml:2:3  wrong value of \"tz\"\n     1 | engine:\n     2 |   tz: Asia/Shangai\n       \
             |   ^^ `Asia/Shangai` is not a time zone: did you mean `Asia/Shanghai`?\n",
        );
    }

    #[test]
    fn a_store_has_a_kind_and_only_what_belongs_to_it() {
        let storage = |text: &str| draft("c", text, Path::new("/x")).unwrap().storage;
        assert_eq!(
            storage("storage: {kind: host, path: ./data}\n"),
            Some(Storage::Host {
                path: "/x/data".into()
            })
        );
        assert_eq!(
            storage("storage: {kind: tmpfs, size: 2g}\n"),
            Some(Storage::Tmpfs {
                size: Some(2 << 30)
            })
        );
        assert_eq!(storage("storage: {kind: volume}\n"), Some(Storage::Volume));
        assert_eq!(storage("name: x\n"), None);
        for (text, note) in [
            ("storage: {kind: host}", "add `path: ./data`"),
            ("storage: {path: ./data}", "add `kind: host`"),
            ("storage: {kind: volume, path: x}", "it is for `kind: host`"),
            ("storage: {kind: tmpfs, size: lots}", "is not a size"),
            ("storage: {kind: disk}", "unknown variant `disk`"),
        ] {
            let error = draft("c", text, Path::new("/x")).unwrap_err();
            assert!(error.to_string().contains(note), "{text}: {error}");
        }
    }

    #[test]
    fn an_empty_file_says_nothing() {
        let said = draft("c", "# nothing\n\n", Path::new("/x")).unwrap();
        assert_eq!(
            Draft {
                text: None,
                origin: String::new(),
                ..said
            },
            Draft::default()
        );
    }

    #[test]
    fn a_version_of_the_future_is_refused() {
        check_error(
            "version: 2\n",
            "error[RMQ-E102]: cluster.yaml:1:1  version 2 of \"version\"\n     1 | version: 2\n       \
             | ^^^^^^^ this rmqctl reads version 1\n",
        );
    }
}
