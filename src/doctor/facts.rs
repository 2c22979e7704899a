//! Asks everybody once, all together, each answer within a bound; who does not answer is a fact too.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_protocol::{Command, ExtFields};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Peer, join, words};
use crate::error::Error;
use crate::plan::{NodeState, Observed};
use crate::probe::{self, Dial, View};
use crate::runtime::describe::{About, Description, Disk};
use crate::runtime::{Leftover, LeftoverKind, Runtime, RuntimeError};
use crate::topology::{Desired, Node, Role, Site};

/// How long one node may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Groups of one broker that are asked for their consumers; a broker may have thousands.
const GROUPS_MAX: usize = 200;
/// The console's overview is some KiB per broker and topic.
const OVERVIEW_MAX: u64 = 16 << 20;

/// Seconds after which a network without nodes is nobody's: another host that shares the daemon may be raising a cluster.
const ORPHAN_AGE: u64 = 60;

/// How old the console's answer may be.
const CONSOLE_FRESH: Duration = Duration::from_secs(1);
/// How often a console that reports a fault is asked again: its first answer may be from before, and its second tell of a
/// connection that a restarted broker closed.
const CONSOLE_AGAIN: usize = 2;

/// Request codes used here (`apache/rocketmq: remoting/.../protocol/RequestCode.java`).
mod code {
    pub const GET_BROKER_CONFIG: i32 = 26;
    pub const GET_BROKER_RUNTIME_INFO: i32 = 28;
    pub const GET_BROKER_CLUSTER_INFO: i32 = 106;
    pub const GET_ALL_SUBSCRIPTIONGROUP_CONFIG: i32 = 201;
    pub const GET_CONSUMER_CONNECTION_LIST: i32 = 203;
    pub const GET_BROKER_HA_STATUS: i32 = 907;
}

/// What was found.
#[derive(Debug, Default)]
pub struct Facts {
    /// `docker` or `process`.
    pub runtime: &'static str,
    #[allow(missing_docs)]
    pub about: About,
    /// This host's clock when the runtime was asked for its own; Unix seconds.
    pub now: u64,
    #[allow(missing_docs)]
    pub observed: Observed,
    #[allow(missing_docs)]
    pub view: View,
    /// By node; those that exist.
    pub descriptions: BTreeMap<String, Description>,
    /// The properties file that a node was made with, by node.
    pub files: BTreeMap<String, String>,
    /// The same file as it stands in the configuration directory here, by node.
    pub edited: BTreeMap<String, String>,
    /// By node; those that answer.
    pub brokers: BTreeMap<String, BrokerFacts>,
    /// By name server: broker name, id, the address it tells this host.
    pub routes: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
    /// Who reaches whom.
    pub reach: Vec<Reach>,
    /// Brokers that the console says it reaches, by address, each with its fault; or why it says nothing. `None`: no console.
    pub console: Option<Result<BTreeMap<String, Option<String>>, String>>,
    /// Memory in use, by container.
    pub memory: BTreeMap<String, u64>,
    /// Networks of other clusters that have no node and no messages: what a killed `rmqctl run` leaves.
    pub networks: Vec<Leftover>,
    /// The disk under each directory that holds a store, by node; `None`: the directory is not there.
    pub data_dirs: BTreeMap<String, Option<Disk>>,
}

/// What one broker says of itself.
#[derive(Debug, Default)]
pub struct BrokerFacts {
    /// The table of code 28.
    pub info: BTreeMap<String, String>,
    /// Properties as it runs with them; `None` when it does not say.
    pub config: Option<BTreeMap<String, String>>,
    /// A slave's master, as `host:port` of its HA port.
    pub follows: Option<String>,
    /// Client ids by group, one for each connection.
    pub consumers: BTreeMap<String, Vec<(String, String)>>,
}

/// One address as it is reached from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// `host`, or the node that dialled.
    pub from: String,
    /// The node dialled.
    pub to: String,
    /// `main` or `vip`.
    pub purpose: &'static str,
    #[allow(missing_docs)]
    pub dial: Dial,
}

/// Asks everybody.
pub async fn gather(runtime: &dyn Runtime, desired: &Desired) -> Result<Facts, Error> {
    let containers: Vec<String> = desired.nodes.iter().map(|n| n.container.clone()).collect();
    let (observed, about, view, memory) = tokio::join!(
        runtime.observe(desired),
        runtime.about(),
        probe::look(desired, ANSWER_TIMEOUT),
        runtime.memory(&containers),
    );
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let observed = observed?;
    let runs = |node: &&Node| {
        let seen = observed
            .nodes
            .iter()
            .find(|n| n.container == node.container);
        seen.is_some_and(|n| n.state == NodeState::Running)
    };
    let running: Vec<&Node> = desired.nodes.iter().filter(runs).collect();
    let (descriptions, files, brokers, routes, reach, console, networks) = tokio::join!(
        describe_all(runtime, desired),
        files_of(runtime, desired),
        ask_brokers(desired, &running),
        ask_namesrvs(desired, &running),
        dial_all(runtime, desired, &running),
        ask_console(desired, &running),
        orphan_networks(runtime, desired, now.as_ref().map_or(0, Duration::as_secs)),
    );
    Ok(Facts {
        runtime: runtime.kind(),
        about: about?,
        now: now.map_or(0, |now| now.as_secs()),
        view,
        descriptions: descriptions?,
        files: files?,
        edited: edited(desired),
        brokers,
        routes,
        reach,
        console,
        memory: memory?,
        networks: networks?,
        data_dirs: data_dirs(runtime, desired),
        observed,
    })
}

/// This cluster's own network is the nodes check's matter; one whose cluster has messages left keeps what `up` needs to find them.
async fn orphan_networks(
    runtime: &dyn Runtime,
    desired: &Desired,
    now: u64,
) -> Result<Vec<Leftover>, RuntimeError> {
    let all = runtime.leftovers().await?;
    let is_orphan = |left: &&Leftover| {
        let of = left.cluster.as_deref();
        left.kind == LeftoverKind::Network
            && left.created_at.is_some_and(|at| at + ORPHAN_AGE <= now)
            && of != Some(desired.cluster.as_str())
            && !all
                .iter()
                .any(|o| o.has_messages && o.cluster == left.cluster)
    };
    Ok(all.iter().filter(is_orphan).cloned().collect())
}

/// Directories of another machine cannot be looked at.
fn data_dirs(runtime: &dyn Runtime, desired: &Desired) -> BTreeMap<String, Option<Disk>> {
    if runtime.machine().is_some() {
        return BTreeMap::new();
    }
    let dirs = desired
        .nodes
        .iter()
        .filter_map(|node| Some((&node.name, node.data_dir()?)));
    dirs.map(|(name, dir)| (name.clone(), dir.to_str().and_then(Disk::of)))
        .collect()
}

async fn describe_all(
    runtime: &dyn Runtime,
    desired: &Desired,
) -> Result<BTreeMap<String, Description>, RuntimeError> {
    let all = desired.nodes.iter().map(|node| async {
        let described = runtime.describe(desired, &node.container).await;
        described.map(|d| d.map(|d| (node.name.clone(), d)))
    });
    let all = futures_util::future::try_join_all(all).await?;
    Ok(all.into_iter().flatten().collect())
}

async fn files_of(
    runtime: &dyn Runtime,
    desired: &Desired,
) -> Result<BTreeMap<String, String>, RuntimeError> {
    let all = desired.nodes.iter().map(|node| async {
        let file = runtime.file_of(node).await;
        file.map(|text| text.map(|text| (node.name.clone(), text)))
    });
    let all = futures_util::future::try_join_all(all).await?;
    Ok(all.into_iter().flatten().collect())
}

/// Files that are not there are no edits.
fn edited(desired: &Desired) -> BTreeMap<String, String> {
    let named = desired
        .nodes
        .iter()
        .filter_map(|node| Some((&node.name, desired.conf_dir.join(&node.file.as_ref()?.0))));
    named
        .filter_map(|(name, path)| Some((name.clone(), std::fs::read_to_string(path).ok()?)))
        .collect()
}

/// Where clients on this host reach a port of a node.
fn outside(desired: &Desired, node: &Node, purpose: &str) -> Option<String> {
    Some(join(&desired.advertise, node.port(purpose)?.host?))
}

async fn ask_brokers(desired: &Desired, running: &[&Node]) -> BTreeMap<String, BrokerFacts> {
    let asked = running.iter().filter_map(|node| {
        let address = outside(desired, node, "main")?;
        Some(async move {
            let facts = tokio::time::timeout(ANSWER_TIMEOUT, ask_broker(&address)).await;
            // Who does not answer is told by the view already.
            Some((node.name.clone(), facts.ok()?.ok()?))
        })
    });
    let all = futures_util::future::join_all(asked).await;
    all.into_iter().flatten().collect()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    table: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HaStatus {
    ha_client_runtime_info: HaClient,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HaClient {
    master_addr: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Groups {
    subscription_group_table: BTreeMap<String, serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Connections {
    connection_set: Vec<Connection>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Connection {
    client_id: String,
    client_addr: String,
}

async fn ask_broker(address: &str) -> Result<BrokerFacts, String> {
    let mut peer = Peer::connect(address).await?;
    let info: Table = peer.ask(code::GET_BROKER_RUNTIME_INFO).await?;
    // An older broker, or one that wants an account, may refuse what follows: then it is not known.
    let ha: HaStatus = peer
        .ask(code::GET_BROKER_HA_STATUS)
        .await
        .unwrap_or_default();
    let config = peer
        .call(Command::request(code::GET_BROKER_CONFIG, ExtFields::new()))
        .await?;
    let config = (config.code == 0)
        .then(|| java_properties::read(&config.body[..]).ok())
        .flatten();
    let groups: Groups = peer
        .ask(code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG)
        .await
        .unwrap_or_default();
    let mut consumers = BTreeMap::new();
    for group in groups.subscription_group_table.into_keys().take(GROUPS_MAX) {
        let mut ext = ExtFields::new();
        ext.set("consumerGroup", group.clone());
        let answer = peer
            .call(Command::request(code::GET_CONSUMER_CONNECTION_LIST, ext))
            .await?;
        // A group without consumers is answered with an error.
        if answer.code != 0 {
            continue;
        }
        let online: Connections =
            rocketmq_protocol::json::from_slice(&answer.body).unwrap_or_default();
        let clients = online.connection_set.into_iter();
        consumers.insert(
            group,
            clients.map(|c| (c.client_id, c.client_addr)).collect(),
        );
    }
    Ok(BrokerFacts {
        info: info.table,
        config: config.map(|c| c.into_iter().collect()),
        follows: ha
            .ha_client_runtime_info
            .master_addr
            .filter(|address| !address.is_empty()),
        consumers,
    })
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClusterInfo {
    broker_addr_table: BTreeMap<String, BrokerData>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BrokerData {
    broker_addrs: BTreeMap<String, String>,
}

async fn ask_namesrvs(
    desired: &Desired,
    running: &[&Node],
) -> BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>> {
    let asked = running.iter().filter_map(|node| {
        let address = outside(desired, node, "namesrv")?;
        Some(async move {
            let ask = async {
                let mut peer = Peer::connect(&address).await?;
                peer.ask::<ClusterInfo>(code::GET_BROKER_CLUSTER_INFO).await
            };
            let info = tokio::time::timeout(ANSWER_TIMEOUT, ask).await.ok()?.ok()?;
            let brokers = info.broker_addr_table.into_iter();
            Some((
                node.name.clone(),
                brokers
                    .map(|(name, data)| (name, data.broker_addrs))
                    .collect(),
            ))
        })
    });
    let all = futures_util::future::join_all(asked).await;
    all.into_iter().flatten().collect()
}

/// Every address that clients are told: from this host as the outside is told, and from inside each running node by the names
/// that the inside is told.
async fn dial_all(runtime: &dyn Runtime, desired: &Desired, running: &[&Node]) -> Vec<Reach> {
    let dialled: Vec<(&Node, &'static str)> = desired
        .nodes
        .iter()
        .flat_map(|node| {
            let purposes: &[&'static str] = match node.role {
                Role::Namesrv => &["namesrv"],
                Role::Console => &[],
                Role::Master | Role::Slave => &["main", "vip"],
            };
            purposes.iter().map(move |purpose| (node, *purpose))
        })
        .collect();
    let from_host: Vec<(&Node, &'static str, String)> = dialled
        .iter()
        .filter_map(|(node, purpose)| Some((*node, *purpose, outside(desired, node, purpose)?)))
        .collect();
    let addresses: Vec<String> = from_host.iter().map(|(_, _, a)| a.clone()).collect();
    let mut reach = beside("host", &from_host, probe::dial_all(&addresses).await);
    if desired.site != Site::Network {
        return reach;
    }
    let by_name: Vec<(&Node, &'static str, String)> = dialled
        .iter()
        .filter_map(|(node, purpose)| {
            Some((
                *node,
                *purpose,
                join(&node.name, node.port(purpose)?.container),
            ))
        })
        .collect();
    let addresses: Vec<String> = by_name.iter().map(|(_, _, a)| a.clone()).collect();
    let inside = running.iter().map(|from| async {
        let dials = runtime.dial_inside(&from.container, &addresses).await;
        let dials = dials.unwrap_or_else(|reason| {
            let failed = |address: &String| Dial {
                address: address.clone(),
                fault: Some(reason.to_string()),
            };
            addresses.iter().map(failed).collect()
        });
        beside(&from.name, &by_name, dials)
    });
    reach.extend(
        futures_util::future::join_all(inside)
            .await
            .into_iter()
            .flatten(),
    );
    reach
}

fn beside(from: &str, dialled: &[(&Node, &'static str, String)], dials: Vec<Dial>) -> Vec<Reach> {
    let pairs = dialled.iter().zip(dials);
    pairs
        .map(|((to, purpose, _), dial)| Reach {
            from: from.to_owned(),
            to: to.name.clone(),
            purpose,
            dial,
        })
        .collect()
}

/// What the console shows of each broker, by the address it has for it.
async fn ask_console(
    desired: &Desired,
    running: &[&Node],
) -> Option<Result<BTreeMap<String, Option<String>>, String>> {
    let node = running.iter().find(|n| n.role == Role::Console)?;
    let address = outside(desired, node, "console")?;
    let ask = async || {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, overview(&address)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_TIMEOUT:?}")))
    };
    let mut last = ask().await;
    for _ in 0..CONSOLE_AGAIN {
        let reached = |node: &&Node| {
            let shown = last.as_ref().ok().and_then(|s| s.get(&node.broker_text()));
            shown.is_some_and(Option::is_none)
        };
        if running.iter().filter(|n| n.broker.is_some()).all(reached) {
            break;
        }
        // It tells nobody when it has asked the brokers anew.
        tokio::time::sleep(CONSOLE_FRESH).await;
        last = ask().await;
    }
    Some(last)
}

#[derive(Deserialize)]
struct Overview {
    clusters: Vec<OverviewCluster>,
}

#[derive(Deserialize)]
struct OverviewCluster {
    brokers: Vec<OverviewBroker>,
}

#[derive(Deserialize)]
struct OverviewBroker {
    name: String,
    nodes: Vec<OverviewNode>,
}

#[derive(Deserialize)]
struct OverviewNode {
    id: u64,
    ok: bool,
    fault: Option<String>,
}

/// By `broker-a:0`.
async fn overview(address: &str) -> Result<BTreeMap<String, Option<String>>, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|e| words(&e))?;
    let request = format!("GET /api/overview HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| words(&e))?;
    let mut answer = Vec::new();
    let read = stream.take(OVERVIEW_MAX).read_to_end(&mut answer).await;
    read.map_err(|e| words(&e))?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let body = &answer[end.ok_or("it closed before an answer came")? + 4..];
    let seen: Overview =
        serde_json::from_slice(body).map_err(|e| format!("its overview does not parse: {e}"))?;
    let brokers = seen.clusters.into_iter().flat_map(|c| c.brokers);
    Ok(brokers
        .flat_map(|broker| {
            let name = broker.name;
            broker.nodes.into_iter().map(move |node| {
                let silent = || Some("it does not answer the console".to_owned());
                let fault = if node.ok {
                    None
                } else {
                    node.fault.or_else(silent)
                };
                (format!("{name}:{}", node.id), fault)
            })
        })
        .collect())
}
