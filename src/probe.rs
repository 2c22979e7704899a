//! Asks the cluster over the wire: registered? slave caught up? reachable? No readiness loop here: one look per call.
//!
//! It speaks RocketMQ's protocol as any client does, so that what it finds is what a client will find. The engine's own health check
//! ([`health`]) is here too, for the container to ask itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use rocketmq_protocol::partition::{self, Order};
use rocketmq_protocol::{Command, ExtFields};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use crate::client::join;
use crate::client::{self, Peer, words};
use crate::topology::{BrokerId, Desired, Node, Role};

/// How dialling one address went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// `host:port` as dialled.
    pub address: String,
    /// Why it failed; `None` when it was reached.
    pub fault: Option<String>,
}

/// Request codes used here (`apache/rocketmq: remoting/.../protocol/RequestCode.java`).
const GET_BROKER_RUNTIME_INFO: i32 = 28;
const GET_ROUTEINFO_BY_TOPIC: i32 = 105;
const GET_BROKER_CLUSTER_INFO: i32 = 106;
const GET_BROKER_HA_STATUS: i32 = 907;

/// Answer codes (`apache/rocketmq: remoting/.../protocol/ResponseCode.java`).
const SUCCESS: i32 = 0;
const TOPIC_NOT_EXIST: i32 = 17;

/// How long a [`dial`] may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take over an order.
const ORDER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the health check waits for each answer; the image gives it five seconds in all.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// What a cluster said of itself, asked from the host. Keys are node names (`rmqmaster1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By node name; every desired node is in it.
    pub nodes: BTreeMap<String, NodeView>,
}

/// What one node said, and what the name servers say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// The node answered on the address that clients are told.
    pub answers: bool,
    /// Broker: the address that every name server hands out for its name and id. `None`: not registered with all.
    pub registered: Option<String>,
    /// Broker: end of its commit log, in bytes.
    pub max_offset: Option<i64>,
    /// Master: slaves connected now.
    pub slaves: u32,
    /// Slave: bytes behind its master; `None` while not known. A slave is in sync at 0.
    pub lag: Option<i64>,
    /// Engine's version as it reports it.
    pub version: Option<String>,
    /// Nodes that it says it is cut off from on purpose.
    pub cut_off: Vec<String>,
    /// Why it is not ready, for a person: `127.0.0.1:10911: connection refused`.
    pub fault: Option<String>,
}

impl View {
    /// The nodes that nothing passes to from `node`, nor back, on purpose: those that it says, and those that say so of it.
    pub fn cut_off_from(&self, node: &str) -> BTreeSet<&str> {
        let own = self.nodes.get(node).map(|view| &view.cut_off);
        let own = own.into_iter().flatten().map(String::as_str);
        let others = self.nodes.iter();
        let others = others.filter(|(_, view)| view.cut_off.iter().any(|peer| peer == node));
        own.chain(others.map(|(name, _)| name.as_str())).collect()
    }

    /// Why nothing passes between a node and others, if that is made on purpose, and what ends it.
    pub fn partition_of(&self, desired: &Desired, node: &str) -> Option<String> {
        let peers = self.cut_off_from(node);
        let first = peers.first()?;
        let names: Vec<&str> = peers.iter().copied().collect();
        let ends = match names.len() {
            1 => desired.suggest(&format!("chaos heal {node} {first}")),
            _ => desired.suggest(&format!("chaos heal {node}")),
        };
        Some(format!(
            "is cut off from {} by `chaos partition`; `{ends}` ends it",
            names.join(", ")
        ))
    }
}

/// Asks every node once, all together, each answer within `each`.
pub async fn look(desired: &Desired, each: Duration) -> View {
    let answers = desired.nodes.iter().map(|node| async move {
        let answer = match main_port(node) {
            Some(port) => ask_node(node, &join(&desired.advertise, port), each).await,
            None => Err("it publishes no port".to_string()),
        };
        (node, answer)
    });
    let answers = futures_util::future::join_all(answers).await;
    let mut view = View {
        nodes: conclude(answers, desired),
    };
    blame_partitions(&mut view, desired);
    view
}

/// Says of what does not work between nodes that it was made on purpose, where it was.
fn blame_partitions(view: &mut View, desired: &Desired) {
    for node in desired.nodes.iter().filter(|node| node.broker.is_some()) {
        let cut_off = view.partition_of(desired, &node.name);
        let (Some(cut_off), Some(seen)) = (cut_off, view.nodes.get_mut(&node.name)) else {
            continue;
        };
        let alone = node.role == Role::Slave && seen.lag.is_none();
        if seen.answers && (alone || seen.registered.is_none()) {
            seen.fault = Some(cut_off);
        }
    }
}

/// Which of the topics some name server has no route for yet, each with why. With a route, clients can send and pull.
pub async fn missing_routes(
    desired: &Desired,
    topics: &[String],
    each: Duration,
) -> BTreeMap<String, String> {
    let namesrvs = desired.namesrv_addrs();
    let asked = namesrvs
        .iter()
        .flat_map(|address| topics.iter().map(move |topic| (address, topic)));
    let answers = asked.map(|(address, topic)| async move {
        let answer = tokio::time::timeout(each, ask_route(address, topic)).await;
        let fault = match answer {
            Ok(Ok(())) => return None,
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".to_owned(),
        };
        Some((topic.clone(), format!("{address}: {fault}")))
    });
    let answers = futures_util::future::join_all(answers).await;
    answers.into_iter().flatten().collect()
}

async fn ask_route(address: &str, topic: &str) -> Result<(), String> {
    let mut peer = Peer::connect(address).await?;
    let question = Command::request(
        GET_ROUTEINFO_BY_TOPIC,
        ExtFields::new().with("topic", topic),
    );
    let answer = peer.call(question).await?;
    match answer.code {
        SUCCESS => Ok(()),
        TOPIC_NOT_EXIST => Err("it has no route".to_owned()),
        code => Err(format!(
            "it answers code {code}: {}",
            answer.remark.unwrap_or_default()
        )),
    }
}

/// What one node answered.
enum Answer {
    Namesrv(ClusterInfo, Vec<String>),
    Broker(RuntimeInfo, HaRuntimeInfo, Vec<String>),
    Console,
}

/// ClusterInfo's part that matters here: broker name -> id -> address.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClusterInfo {
    broker_addr_table: BTreeMap<String, BrokerData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BrokerData {
    broker_addrs: BTreeMap<String, String>,
}

/// KVTable of code 28.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeInfo {
    table: BTreeMap<String, String>,
}

/// HARuntimeInfo of code 907.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HaRuntimeInfo {
    ha_connection_info: Vec<serde::de::IgnoredAny>,
    ha_client_runtime_info: HaClientRuntimeInfo,
}

/// A slave's side of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HaClientRuntimeInfo {
    /// The stream from the master stands. Our engine says so; Java's field of the name is never set in 5.5.
    activated: bool,
}

async fn ask_node(node: &Node, address: &str, each: Duration) -> Result<Answer, String> {
    let asked = async {
        if node.role == Role::Console {
            return http_ok(address).await.map(|()| Answer::Console);
        }
        let mut peer = Peer::connect(address).await?;
        if node.role == Role::Namesrv {
            let (info, ext) = peer.ask_all(GET_BROKER_CLUSTER_INFO).await?;
            return Ok(Answer::Namesrv(info, partition::cut_off(&ext)));
        }
        let (info, ext) = peer.ask_all(GET_BROKER_RUNTIME_INFO).await?;
        // A broker that cannot say how copying goes serves all the same; then nothing is known of it.
        let ha = peer.ask(GET_BROKER_HA_STATUS).await.unwrap_or_default();
        Ok(Answer::Broker(info, ha, partition::cut_off(&ext)))
    };
    tokio::time::timeout(each, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {each:?}")))
        .map_err(|reason| format!("{address}: {reason}"))
}

/// Puts the answers side by side: a broker is registered when every name server says so, a slave's lag is against its master.
fn conclude(
    answers: Vec<(&Node, Result<Answer, String>)>,
    desired: &Desired,
) -> BTreeMap<String, NodeView> {
    let mut views = BTreeMap::new();
    let mut following = BTreeSet::new();
    let mut routes: Vec<(&str, Option<ClusterInfo>)> = Vec::new();
    for (node, answer) in answers {
        let mut view = NodeView {
            answers: answer.is_ok(),
            ..Default::default()
        };
        match answer {
            Ok(Answer::Namesrv(info, cut_off)) => {
                view.cut_off = cut_off;
                routes.push((&node.name, Some(info)));
            }
            Ok(Answer::Broker(info, ha, cut_off)) => {
                view.cut_off = cut_off;
                view.slaves = u32::try_from(ha.ha_connection_info.len()).unwrap_or(u32::MAX);
                let get = |key: &str| info.table.get(key);
                view.version = get("brokerVersionDesc").cloned();
                view.max_offset = get("commitLogMaxOffset").and_then(|text| text.parse().ok());
                if ha.ha_client_runtime_info.activated {
                    following.insert(node.name.as_str());
                }
            }
            Ok(Answer::Console) => {}
            Err(fault) => {
                view.fault = Some(fault);
                if node.role == Role::Namesrv {
                    routes.push((&node.name, None));
                }
            }
        }
        views.insert(node.name.clone(), view);
    }
    let masters: BTreeMap<&str, (Option<i64>, u32)> = desired
        .nodes
        .iter()
        .filter(|node| node.role == Role::Master)
        .filter_map(|node| {
            let view = views.get(&node.name)?;
            let group = node.broker.as_ref()?.name.as_str();
            Some((group, (view.max_offset, view.slaves)))
        })
        .collect();
    let slaves_of = |group: &str| -> usize {
        let slaves = desired.nodes.iter().filter(|n| n.role == Role::Slave);
        slaves
            .filter(|n| n.broker.as_ref().is_some_and(|b| b.name == group))
            .count()
    };
    for node in &desired.nodes {
        let (Some(broker), Some(view)) = (&node.broker, views.get_mut(&node.name)) else {
            continue;
        };
        if node.role == Role::Slave {
            let (master, streams) = masters
                .get(broker.name.as_str())
                .copied()
                .unwrap_or_default();
            // A Java slave does not say whether its stream stands; its master counts the streams, and all of them is all slaves.
            let follows = match node.image {
                None => following.contains(node.name.as_str()),
                Some(_) => streams as usize >= slaves_of(&broker.name),
            };
            // The two were asked one after the other: a slave may be seen ahead of its master's older answer.
            // Equal ends mean nothing while no stream stands: two empty logs are equal too.
            view.lag = master
                .zip(view.max_offset)
                .filter(|_| follows)
                .map(|(master, own)| (master - own).max(0));
        }
        match registered(broker, &routes) {
            Ok(address) => {
                let told = main_port(node).map(|port| join(&desired.advertise, port));
                if told.as_ref() != Some(&address) && view.fault.is_none() {
                    view.fault = Some(format!(
                        "registered as {address}, but clients on this host reach it at {}",
                        told.as_deref().unwrap_or("no published port")
                    ));
                }
                view.registered = Some(address);
            }
            Err(fault) => {
                view.fault.get_or_insert(fault);
            }
        }
    }
    views
}

/// The one address that all name servers hand out for a broker, or why there is none.
fn registered(broker: &BrokerId, routes: &[(&str, Option<ClusterInfo>)]) -> Result<String, String> {
    let mut address: Option<&String> = None;
    for (namesrv, info) in routes {
        let info = info
            .as_ref()
            .ok_or_else(|| format!("{namesrv} does not answer"))?;
        let here = info
            .broker_addr_table
            .get(&broker.name)
            .and_then(|data| data.broker_addrs.get(&broker.id.to_string()))
            .ok_or_else(|| format!("{namesrv} does not know {}:{} yet", broker.name, broker.id))?;
        match address {
            Some(other) if other != here => {
                return Err(format!(
                    "name servers differ on {}:{}: {other} and {here}",
                    broker.name, broker.id
                ));
            }
            _ => address = Some(here),
        }
    }
    address
        .cloned()
        .ok_or_else(|| "the cluster has no name server".into())
}

/// The host port by which clients know a node.
fn main_port(node: &Node) -> Option<u16> {
    node.ports
        .iter()
        .find(|p| matches!(p.purpose, "main" | "namesrv" | "console"))
        .and_then(|p| p.host)
}

/// Sends a message through every master and pulls it again, all together, each within `each`: broker name and how long it took,
/// or why it did not come back.
pub async fn roundtrips(
    desired: &Desired,
    each: Duration,
) -> Vec<(String, Result<Duration, String>)> {
    let masters = desired.nodes.iter().filter_map(|node| {
        let broker = node.broker.as_ref().filter(|_| node.role == Role::Master)?;
        Some((broker.name.clone(), main_port(node)?))
    });
    futures_util::future::join_all(masters.map(|(broker, port)| async move {
        let address = join(&desired.advertise, port);
        let result = client::roundtrip(&address, &broker, each).await;
        (broker, result)
    }))
    .await
}

/// GETs the first page and wants a 200.
async fn http_ok(address: &str) -> Result<(), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|e| words(&e))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| words(&e))?;
    // "HTTP/1.1 200": all that is asked.
    let mut head = [0; 12];
    let read = stream.read_exact(&mut head).await;
    read.map_err(|_| "the connection was closed before an answer came".to_string())?;
    match &head[9..] {
        b"200" => Ok(()),
        other => Err(format!("HTTP status {}", String::from_utf8_lossy(other))),
    }
}

/// Gives the node at `host:port`, which must be on this machine, an order; the error says why it was not taken.
pub async fn order(address: &str, order: &Order) -> Result<(), String> {
    let given = async {
        let mut peer = Peer::connect(address).await?;
        peer.done(order.command()).await.map(drop)
    };
    tokio::time::timeout(ORDER_TIMEOUT, given)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {ORDER_TIMEOUT:?}")))
        .map_err(|reason| format!("{address}: {reason}"))
}

/// Opens a TCP connection to each `host:port` and closes it, all together; the answers in the order asked.
pub async fn dial_all(addresses: &[String]) -> Vec<Dial> {
    let dials = addresses.iter().map(|address| async move {
        Dial {
            address: address.clone(),
            fault: dial(address).await,
        }
    });
    futures_util::future::join_all(dials).await
}

/// Opens a TCP connection to `host:port` and closes it; why it failed, or `None`.
pub async fn dial(address: &str) -> Option<String> {
    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => None,
        Ok(Err(e)) => Some(words(&e)),
        Err(_) => Some(format!("timed out after {DIAL_TIMEOUT:?}")),
    }
}

/// What `rmqctl engine health` is to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// A name server at this `host:port` answers code 106.
    Namesrv(String),
    /// A broker at this `host:port` answers code 28.
    Broker(String),
    /// A console at this `host:port` answers HTTP 200.
    Console(String),
}

impl Health {
    /// What the engine that is process 1 here is and where it listens, from its command line and the file that this names. So
    /// the image's health check needs no argument, whoever made the container.
    pub fn of_process_1() -> Result<Health, String> {
        let line = std::fs::read("/proc/1/cmdline").map_err(|e| format!("/proc/1/cmdline: {e}"))?;
        let arguments: Vec<String> = line
            .split(|b| *b == 0)
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect();
        Health::of(&arguments, |path| {
            std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
        })
    }

    fn of(
        arguments: &[String],
        read: impl Fn(&PathBuf) -> Result<String, String>,
    ) -> Result<Health, String> {
        let after = |names: &[&str]| {
            let at = arguments.iter().position(|a| names.contains(&a.as_str()))?;
            arguments.get(at + 1).cloned()
        };
        let role = after(&["engine"])
            .ok_or("process 1 is no engine; say --namesrv, --broker or --console HOST:PORT")?;
        let in_file = match after(&["-c", "--config"]).map(PathBuf::from) {
            Some(path) => {
                let text = read(&path)?;
                let properties = java_properties::read(text.as_bytes())
                    .map_err(|e| format!("{}: {e}", path.display()))?;
                properties
                    .get("listenPort")
                    .map(|port| port.trim().to_string())
            }
            None => None,
        };
        let in_argument = after(&["-p", "--port", "--listen"])
            .map(|listen| listen.rsplit(':').next().unwrap_or_default().to_string());
        let port = in_file.or(in_argument);
        let at = |default: &str| format!("127.0.0.1:{}", port.as_deref().unwrap_or(default));
        match role.as_str() {
            "namesrv" => Ok(Health::Namesrv(at("9876"))),
            "broker" => Ok(Health::Broker(at("10911"))),
            "console" => Ok(Health::Console(at("8080"))),
            other => Err(format!(
                "process 1 is an engine of an unknown kind: {other}"
            )),
        }
    }
}

/// Asks one node whether it serves; the error says why not.
pub async fn health(what: &Health) -> Result<(), String> {
    let ask = async {
        match what {
            Health::Namesrv(address) => {
                let mut peer = Peer::connect(address).await?;
                peer.ask::<serde::de::IgnoredAny>(GET_BROKER_CLUSTER_INFO)
                    .await
                    .map(drop)
            }
            Health::Broker(address) => {
                let mut peer = Peer::connect(address).await?;
                peer.ask::<serde::de::IgnoredAny>(GET_BROKER_RUNTIME_INFO)
                    .await
                    .map(drop)
            }
            Health::Console(address) => http_ok(address).await,
        }
    };
    tokio::time::timeout(HEALTH_TIMEOUT, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {HEALTH_TIMEOUT:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Port;

    fn node(
        name: &str,
        role: Role,
        broker: Option<(&str, u64)>,
        purpose: &'static str,
        port: u16,
    ) -> Node {
        Node {
            name: name.into(),
            container: name.into(),
            aliases: vec![],
            role,
            broker: broker.map(|(name, id)| BrokerId {
                name: name.into(),
                id,
            }),
            ports: vec![Port {
                purpose,
                container: port,
                host: Some(port),
            }],
            image: None,
            engine_image: None,
            volume: None,
            tmpfs: None,
            file: None,
            conf_path: None,
            store_path: None,
            memory: None,
            nano_cpus: None,
            command: vec![],
            env: BTreeMap::new(),
            config_hash: String::new(),
        }
    }

    fn desired() -> Desired {
        Desired {
            cluster: "rmq".into(),
            network: "rmqnetwork".into(),
            site: crate::topology::Site::Network,
            subnet: None,
            bind: "127.0.0.1".parse().unwrap(),
            gateway: None,
            advertise: "127.0.0.1".into(),
            conf_dir: PathBuf::new(),
            stop_timeout: Duration::from_secs(1),
            labels: BTreeMap::new(),
            ephemeral: None,
            spec: String::new(),
            nodes: vec![
                node("rmqnamesrv", Role::Namesrv, None, "namesrv", 9876),
                node(
                    "rmqmaster1",
                    Role::Master,
                    Some(("broker-a", 0)),
                    "main",
                    10911,
                ),
                node(
                    "rmqslave1",
                    Role::Slave,
                    Some(("broker-a", 1)),
                    "main",
                    11911,
                ),
            ],
        }
    }

    fn info(brokers: &[(&str, &str)]) -> Result<Answer, String> {
        let broker_addrs = brokers
            .iter()
            .map(|(id, address)| (id.to_string(), address.to_string()))
            .collect();
        let table = [("broker-a".to_string(), BrokerData { broker_addrs })].into();
        let info = ClusterInfo {
            broker_addr_table: table,
        };
        Ok(Answer::Namesrv(info, vec![]))
    }

    fn broker(max_offset: &str, slaves: usize, follows: bool) -> Result<Answer, String> {
        let table = [("commitLogMaxOffset".to_string(), max_offset.to_string())].into();
        let ha = HaRuntimeInfo {
            ha_connection_info: vec![serde::de::IgnoredAny; slaves],
            ha_client_runtime_info: HaClientRuntimeInfo { activated: follows },
        };
        Ok(Answer::Broker(RuntimeInfo { table }, ha, vec![]))
    }

    fn master(max_offset: &str, slaves: usize) -> Result<Answer, String> {
        broker(max_offset, slaves, false)
    }

    fn slave(max_offset: &str, follows: bool) -> Result<Answer, String> {
        broker(max_offset, 0, follows)
    }

    fn check(answers: [Result<Answer, String>; 3]) -> BTreeMap<String, NodeView> {
        let desired = desired();
        conclude(desired.nodes.iter().zip(answers).collect(), &desired)
    }

    #[test]
    fn a_slave_is_in_sync_when_its_log_ends_where_its_masters_does() {
        let both = [("0", "127.0.0.1:10911"), ("1", "127.0.0.1:11911")];
        let views = check([info(&both), master("700", 1), slave("500", true)]);
        assert_eq!(
            views["rmqslave1"],
            NodeView {
                answers: true,
                registered: Some("127.0.0.1:11911".into()),
                max_offset: Some(500),
                lag: Some(200),
                ..Default::default()
            }
        );
        assert_eq!(
            (views["rmqmaster1"].lag, views["rmqmaster1"].slaves),
            (None, 1)
        );
        let views = check([info(&both), master("700", 1), slave("704", true)]);
        assert_eq!(
            views["rmqslave1"].lag,
            Some(0),
            "asked later than its master"
        );
    }

    #[test]
    fn a_slave_without_a_stream_has_no_lag_however_equal_the_logs() {
        let both = [("0", "127.0.0.1:10911"), ("1", "127.0.0.1:11911")];
        let views = check([info(&both), master("0", 0), slave("0", false)]);
        assert_eq!(views["rmqslave1"].lag, None);
    }

    #[test]
    fn a_partition_is_told_at_both_ends_and_blamed_where_something_fails() {
        let both = [("0", "127.0.0.1:10911"), ("1", "127.0.0.1:11911")];
        let mut slave = slave("500", false);
        if let Ok(Answer::Broker(_, _, cut_off)) = &mut slave {
            cut_off.push("rmqmaster1".into());
        }
        let desired = desired();
        let mut view = View {
            nodes: check([info(&both), master("700", 0), slave]),
        };
        blame_partitions(&mut view, &desired);
        assert_eq!(
            view.nodes["rmqslave1"].fault.as_deref(),
            Some(
                "is cut off from rmqmaster1 by `chaos partition`; `rmqctl chaos heal rmqslave1 rmqmaster1` ends it"
            )
        );
        // The master serves all the same.
        assert_eq!(view.nodes["rmqmaster1"].fault, None);
        let told = |node| view.cut_off_from(node).into_iter().collect::<Vec<_>>();
        assert_eq!(told("rmqmaster1"), ["rmqslave1"]);
        assert_eq!(told("rmqslave1"), ["rmqmaster1"]);
        assert!(told("rmqnamesrv").is_empty());
    }

    #[test]
    fn a_broker_is_registered_under_its_own_id_and_the_address_that_this_host_reaches() {
        let views = check([
            info(&[("0", "172.18.0.3:10911")]),
            master("0", 0),
            slave("0", false),
        ]);
        let fault = |name: &str| views[name].fault.clone().unwrap();
        assert!(fault("rmqmaster1").contains(
            "registered as 172.18.0.3:10911, but clients on this host reach it at 127.0.0.1:10911"
        ));
        assert_eq!(
            fault("rmqslave1"),
            "rmqnamesrv does not know broker-a:1 yet"
        );
        assert_eq!(views["rmqslave1"].registered, None);
    }

    #[test]
    fn name_servers_that_differ_are_no_registration() {
        let routes = |second: Option<&str>| {
            let one = |address: &str| {
                let Ok(Answer::Namesrv(info, _)) = info(&[("0", address)]) else {
                    unreachable!()
                };
                info
            };
            vec![
                ("rmqnamesrv", Some(one("a:1"))),
                ("rmqnamesrv2", second.map(one)),
            ]
        };
        let broker = BrokerId {
            name: "broker-a".into(),
            id: 0,
        };
        assert_eq!(registered(&broker, &routes(Some("a:1"))).unwrap(), "a:1");
        assert!(
            registered(&broker, &routes(Some("b:2")))
                .unwrap_err()
                .contains("differ")
        );
        assert_eq!(
            registered(&broker, &routes(None)).unwrap_err(),
            "rmqnamesrv2 does not answer"
        );
    }

    #[test]
    fn the_health_check_finds_its_target_on_the_command_line_of_process_1() {
        let check = |line: &str, file: &str, want: Health| {
            let arguments: Vec<String> = line.split(' ').map(String::from).collect();
            assert_eq!(
                Health::of(&arguments, |_| Ok(file.to_string())),
                Ok(want),
                "{line}"
            );
        };
        check(
            "/rmqctl engine broker -c /etc/rmq/a.properties",
            "listenPort=11911\n",
            Health::Broker("127.0.0.1:11911".into()),
        );
        check(
            "/rmqctl engine namesrv -c /etc/rmq/n.properties",
            "",
            Health::Namesrv("127.0.0.1:9876".into()),
        );
        check(
            "/rmqctl engine console --listen 0.0.0.0:8080",
            "",
            Health::Console("127.0.0.1:8080".into()),
        );
        assert!(
            Health::of(&["bash".into()], |_| Ok(String::new()))
                .unwrap_err()
                .contains("no engine")
        );
    }

    #[tokio::test]
    async fn a_dial_tells_a_listening_port_from_a_dead_one() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let live = listener.local_addr().unwrap().to_string();
        let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = other.local_addr().unwrap().to_string();
        drop(other);
        let dials = dial_all(&[live.clone(), dead.clone()]).await;
        assert_eq!(
            dials,
            [
                Dial {
                    address: live,
                    fault: None
                },
                Dial {
                    address: dead,
                    fault: Some("connection refused".into())
                },
            ]
        );
    }

    #[tokio::test]
    async fn a_peer_that_closes_without_an_answer_is_a_fault_and_no_hang() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, ()) = tokio::join!(http_ok(&address), async {
            drop(listener.accept().await.unwrap());
        });
        assert!(asked.unwrap_err().contains("closed before an answer"));
    }
}
