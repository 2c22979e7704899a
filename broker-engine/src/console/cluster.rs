//! What the console asks the cluster, and the answers put together.

use crate::clock;
use crate::net::{CallError, Client};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json, topic};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One answer of a server must come within this.
const PATIENCE: Duration = Duration::from_secs(2);
/// An overview younger than this serves the next browser as well.
const FRESH: Duration = Duration::from_millis(900);
/// Topics and groups whose figures an overview asks for; of the others it shows what the tables say, details come on demand.
const FIGURES_MAX: usize = 200;
/// Requests under way at once while figures are gathered.
const AT_ONCE: usize = 16;

/// Why a figure could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// An answer that says no.
    #[error("{address} answered request {code} with {answer}: {remark}")]
    Refused {
        /// Who was asked.
        address: String,
        /// What was asked.
        code: i32,
        /// The response code.
        answer: i32,
        /// The response's remark.
        remark: String,
    },
    /// An answer that is not what the protocol says.
    #[error("{address} answered request {code} with a body that does not parse: {reason}")]
    Unreadable {
        /// Who was asked.
        address: String,
        /// What was asked.
        code: i32,
        /// Where it went wrong.
        reason: String,
    },
    /// Nothing to ask.
    #[error("no name server answers; asked {0}")]
    NoNamesrv(String),
}

/// A name server and whether it answers.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct NamesrvState {
    pub address: String,
    pub ok: bool,
    pub fault: Option<String>,
}

/// A broker process: one id of a broker name.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct BrokerNode {
    pub id: i64,
    pub address: String,
    pub ok: bool,
    pub fault: Option<String>,
    pub version: Option<String>,
    pub in_today: i64,
    pub out_today: i64,
    pub in_tps: f64,
    pub out_tps: f64,
    pub log_start: i64,
    pub log_end: i64,
    /// Bytes behind its master; `None` for a master, or while one of both does not answer.
    pub lag: Option<i64>,
    /// Start time in ms.
    pub boot_at: i64,
}

/// A broker name with its master and slaves.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct Broker {
    pub name: String,
    pub nodes: Vec<BrokerNode>,
}

/// A cluster name with its brokers.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct ClusterBrokers {
    pub name: String,
    pub brokers: Vec<Broker>,
}

/// Where a topic has queues.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct TopicRoute {
    pub broker: String,
    pub write: i64,
    pub read: i64,
}

/// A topic's line.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct TopicLine {
    pub name: String,
    /// `normal`, `retry`, `dead letter` or `system`.
    pub kind: &'static str,
    pub routes: Vec<TopicRoute>,
    /// Write queues over all brokers.
    pub queues: i64,
    pub perm: String,
    /// Messages in its queues; `None` when not asked for.
    pub messages: Option<i64>,
    pub last_stored: Option<i64>,
}

/// A consumer group's line.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct GroupLine {
    pub name: String,
    /// `normal` or `system`.
    pub kind: &'static str,
    /// Clients online; `None` when not asked for.
    pub members: Option<usize>,
    pub model: Option<String>,
    pub topics: Vec<String>,
    /// Messages not consumed yet, retries included; `None` when not asked for or the group has no offsets.
    pub lag: Option<i64>,
    pub tps: f64,
}

/// All that the first page shows.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct Overview {
    /// When it was gathered, ms.
    pub at: i64,
    pub namesrv: Vec<NamesrvState>,
    pub clusters: Vec<ClusterBrokers>,
    pub topics: Vec<TopicLine>,
    pub groups: Vec<GroupLine>,
}

/// One queue of a topic.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct QueueLine {
    pub broker: String,
    pub queue: i64,
    pub min: i64,
    pub max: i64,
    pub last_stored: i64,
}

/// A topic's queues.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct TopicQueues {
    pub name: String,
    pub queues: Vec<QueueLine>,
}

/// A group's place in one queue.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct GroupQueue {
    pub topic: String,
    pub broker: String,
    pub queue: i64,
    pub max: i64,
    pub consumed: i64,
}

/// A client of a group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Member {
    pub client_id: String,
    pub address: String,
    pub language: String,
}

/// A group with its members and places.
#[derive(Debug, Clone, Default, Serialize)]
#[allow(missing_docs)]
pub struct GroupDetail {
    pub name: String,
    pub members: Vec<Member>,
    pub model: Option<String>,
    pub queues: Vec<GroupQueue>,
    pub tps: f64,
}

/// Asks one cluster through its name servers.
#[derive(Debug)]
pub struct Cluster {
    client: Client,
    namesrv: Vec<String>,
    last: tokio::sync::Mutex<Option<(Instant, Arc<Overview>)>>,
}

impl Cluster {
    /// A cluster known by its name servers, `host:port`.
    pub fn new(client: Client, namesrv: Vec<String>) -> Cluster {
        Cluster {
            client,
            namesrv,
            last: tokio::sync::Mutex::new(None),
        }
    }

    /// Everything for the first page; browsers that ask at the same time share one round of questions.
    pub async fn overview(&self) -> Result<Arc<Overview>, AskError> {
        let mut last = self.last.lock().await;
        if let Some((at, overview)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Ok(overview.clone());
        }
        let overview = Arc::new(self.gather().await?);
        *last = Some((Instant::now(), overview.clone()));
        Ok(overview)
    }

    async fn gather(&self) -> Result<Overview, AskError> {
        let (namesrv, info) = self.cluster_info().await?;
        let mut clusters = clusters_of(&info);
        let nodes = clusters
            .iter_mut()
            .flat_map(|cluster| &mut cluster.brokers)
            .flat_map(|broker| &mut broker.nodes);
        join_all(nodes.map(|node| self.fill_node(node))).await;
        for broker in clusters.iter_mut().flat_map(|cluster| &mut cluster.brokers) {
            set_lags(&mut broker.nodes);
        }
        let masters = answering_masters(&clusters);
        let own = own_topics(&clusters);
        let (topics, groups) =
            tokio::join!(self.topic_lines(&masters, &own), self.group_lines(&masters));
        Ok(Overview {
            at: clock::now_ms(),
            namesrv,
            clusters,
            topics,
            groups,
        })
    }

    /// A topic's queues on all masters that answer.
    pub async fn topic(&self, name: &str) -> Result<TopicQueues, AskError> {
        let masters = self.masters().await?;
        Ok(TopicQueues {
            name: name.to_string(),
            queues: self.queues_of(&masters, name).await,
        })
    }

    /// A group's members and its place in every queue.
    pub async fn group(&self, name: &str) -> Result<GroupDetail, AskError> {
        let masters = self.masters().await?;
        Ok(self.group_detail(&masters, name).await)
    }

    async fn masters(&self) -> Result<Vec<(String, String)>, AskError> {
        let (_, info) = self.cluster_info().await?;
        Ok(clusters_of(&info)
            .into_iter()
            .flat_map(|cluster| cluster.brokers)
            .flat_map(|broker| {
                let name = broker.name;
                broker
                    .nodes
                    .into_iter()
                    .filter(|node| node.id == 0)
                    .map(move |node| (name.clone(), node.address))
            })
            .collect())
    }

    /// The first answer of a name server, and the state of all.
    async fn cluster_info(&self) -> Result<(Vec<NamesrvState>, Value), AskError> {
        let answers =
            join_all(self.namesrv.iter().map(|address| {
                self.ask(address, request::GET_BROKER_CLUSTER_INFO, ExtFields::new())
            }))
            .await;
        let mut info = None;
        let mut states = Vec::with_capacity(answers.len());
        for (address, answer) in self.namesrv.iter().zip(answers) {
            let fault = answer.as_ref().err().map(ToString::to_string);
            states.push(NamesrvState {
                address: address.clone(),
                ok: fault.is_none(),
                fault,
            });
            info = info.or(answer.ok());
        }
        let info = info.ok_or_else(|| AskError::NoNamesrv(self.namesrv.join(", ")))?;
        Ok((states, info))
    }

    async fn fill_node(&self, node: &mut BrokerNode) {
        match self
            .ask(
                &node.address,
                request::GET_BROKER_RUNTIME_INFO,
                ExtFields::new(),
            )
            .await
        {
            Err(error) => node.fault = Some(error.to_string()),
            Ok(info) => {
                let table = &info["table"];
                let text = |key: &str| table[key].as_str().unwrap_or_default();
                let number = |key: &str| text(key).parse::<i64>().unwrap_or_default();
                // `putTps` holds three averages: 10 s, 1 min, 10 min.
                let rate = |key: &str| {
                    text(key)
                        .split(' ')
                        .next()
                        .and_then(|first| first.parse().ok())
                        .unwrap_or_default()
                };
                node.ok = true;
                node.version = table["brokerVersionDesc"].as_str().map(String::from);
                node.in_today = number("msgPutTotalTodayNow") - number("msgPutTotalTodayMorning");
                node.out_today = number("msgGetTotalTodayNow") - number("msgGetTotalTodayMorning");
                node.in_tps = rate("putTps");
                node.out_tps = rate("getTransferredTps");
                node.log_start = number("commitLogMinOffset");
                node.log_end = number("commitLogMaxOffset");
                node.boot_at = number("bootTimestamp");
            }
        }
    }

    async fn topic_lines(
        &self,
        masters: &[(String, String)],
        own: &BTreeSet<String>,
    ) -> Vec<TopicLine> {
        let tables = join_all(masters.iter().map(|(broker, address)| async move {
            let answer = self
                .ask(address, request::GET_ALL_TOPIC_CONFIG, ExtFields::new())
                .await;
            (broker, answer)
        }))
        .await;
        let mut lines = BTreeMap::<String, TopicLine>::new();
        for (broker, table) in tables {
            let Ok(table) = table else { continue };
            for (name, config) in object(&table["topicConfigTable"]) {
                let count = |key: &str| config[key].as_i64().unwrap_or_default();
                let line = lines.entry(name.clone()).or_insert_with(|| TopicLine {
                    name: name.clone(),
                    kind: topic_kind(name, own),
                    routes: Vec::new(),
                    queues: 0,
                    perm: topic::perm::text(count("perm") as i32),
                    messages: None,
                    last_stored: None,
                });
                line.queues += count("writeQueueNums");
                line.routes.push(TopicRoute {
                    broker: broker.clone(),
                    write: count("writeQueueNums"),
                    read: count("readQueueNums"),
                });
            }
        }
        let mut lines: Vec<TopicLine> = lines.into_values().collect();
        lines.sort_by_key(|line| line.kind != "normal");
        stream::iter(
            lines
                .iter_mut()
                .filter(|line| line.kind != "system")
                .take(FIGURES_MAX),
        )
        .for_each_concurrent(AT_ONCE, |line| async {
            let queues = self.queues_of(masters, &line.name).await;
            line.messages = Some(queues.iter().map(|queue| queue.max - queue.min).sum());
            line.last_stored = queues
                .iter()
                .map(|queue| queue.last_stored)
                .max()
                .filter(|at| *at > 0);
        })
        .await;
        lines
    }

    async fn queues_of(&self, masters: &[(String, String)], name: &str) -> Vec<QueueLine> {
        let answers = join_all(masters.iter().map(|(_, address)| {
            self.ask(
                address,
                request::GET_TOPIC_STATS_INFO,
                ExtFields::new().with("topic", name),
            )
        }))
        .await;
        // A master that does not have the topic refuses; it has no queues to show.
        let mut queues: Vec<QueueLine> = answers
            .iter()
            .flatten()
            .flat_map(|answer| object(&answer["offsetTable"]))
            .filter_map(|(queue, offsets)| {
                let (_, broker, queue) = queue_key(queue)?;
                let number = |key: &str| offsets[key].as_i64().unwrap_or_default();
                Some(QueueLine {
                    broker,
                    queue,
                    min: number("minOffset"),
                    max: number("maxOffset"),
                    last_stored: number("lastUpdateTimestamp"),
                })
            })
            .collect();
        queues.sort_by(|a, b| (&a.broker, a.queue).cmp(&(&b.broker, b.queue)));
        queues
    }

    async fn group_lines(&self, masters: &[(String, String)]) -> Vec<GroupLine> {
        let tables = join_all(masters.iter().map(|(_, address)| {
            self.ask(
                address,
                request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
                ExtFields::new(),
            )
        }))
        .await;
        let names: BTreeSet<String> = tables
            .iter()
            .flatten()
            .flat_map(|table| {
                object(&table["subscriptionGroupTable"]).map(|(name, _)| name.clone())
            })
            .collect();
        let mut lines: Vec<GroupLine> = names
            .into_iter()
            .map(|name| GroupLine {
                kind: group_kind(&name),
                name,
                members: None,
                model: None,
                topics: Vec::new(),
                lag: None,
                tps: 0.0,
            })
            .collect();
        lines.sort_by_key(|line| line.kind != "normal");
        stream::iter(
            lines
                .iter_mut()
                .filter(|line| line.kind == "normal")
                .take(FIGURES_MAX),
        )
        .for_each_concurrent(AT_ONCE, |line| async {
            let detail = self.group_detail(masters, &line.name).await;
            let topics: BTreeSet<String> = detail
                .queues
                .iter()
                .map(|queue| queue.topic.clone())
                .collect();
            line.topics = topics
                .into_iter()
                .filter(|name| !topic::is_retry(name))
                .collect();
            line.members = Some(detail.members.len());
            line.model = detail.model;
            line.lag = (!detail.queues.is_empty()).then(|| {
                detail
                    .queues
                    .iter()
                    .map(|queue| (queue.max - queue.consumed).max(0))
                    .sum()
            });
            line.tps = detail.tps;
        })
        .await;
        lines
    }

    async fn group_detail(&self, masters: &[(String, String)], name: &str) -> GroupDetail {
        let ext = || ExtFields::new().with("consumerGroup", name);
        let stats = join_all(
            masters
                .iter()
                .map(|(_, address)| self.ask(address, request::GET_CONSUME_STATS, ext())),
        );
        let online =
            join_all(masters.iter().map(|(_, address)| {
                self.ask(address, request::GET_CONSUMER_CONNECTION_LIST, ext())
            }));
        let (stats, online) = tokio::join!(stats, online);
        let mut detail = GroupDetail {
            name: name.to_string(),
            ..GroupDetail::default()
        };
        let mut members = BTreeMap::new();
        // "Nobody online" and "no offsets yet" are refusals too (206, 1); both mean an empty list here.
        for answer in online.into_iter().flatten() {
            detail.model = detail
                .model
                .or_else(|| answer["messageModel"].as_str().map(str::to_lowercase));
            for client in answer["connectionSet"].as_array().into_iter().flatten() {
                let text = |key: &str| client[key].as_str().unwrap_or_default().to_string();
                // A client is connected to every master, from another port each time.
                members.entry(text("clientId")).or_insert_with(|| Member {
                    client_id: text("clientId"),
                    address: text("clientAddr"),
                    language: text("language"),
                });
            }
        }
        detail.members = members.into_values().collect();
        for answer in stats.into_iter().flatten() {
            detail.tps += answer["consumeTps"].as_f64().unwrap_or_default();
            for (queue, offsets) in object(&answer["offsetTable"]) {
                let Some((topic, broker, queue)) = queue_key(queue) else {
                    continue;
                };
                let number = |key: &str| offsets[key].as_i64().unwrap_or_default();
                detail.queues.push(GroupQueue {
                    topic,
                    broker,
                    queue,
                    max: number("brokerOffset"),
                    consumed: number("consumerOffset"),
                });
            }
        }
        detail
            .queues
            .sort_by(|a, b| (&a.topic, &a.broker, a.queue).cmp(&(&b.topic, &b.broker, b.queue)));
        detail
    }

    async fn ask(&self, address: &str, code: i32, ext: ExtFields) -> Result<Value, AskError> {
        let answer = self
            .client
            .call(address, Command::request(code, ext), PATIENCE)
            .await?;
        if answer.code != response::SUCCESS {
            return Err(AskError::Refused {
                address: address.to_string(),
                code,
                answer: answer.code,
                remark: answer.remark.unwrap_or_default(),
            });
        }
        json::from_slice(&answer.body).map_err(|error| AskError::Unreadable {
            address: address.to_string(),
            code,
            reason: error.to_string(),
        })
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Topic, broker name and queue id out of a map key that was a message queue.
fn queue_key(key: &str) -> Option<(String, String, i64)> {
    let queue: Value = serde_json::from_str(key).ok()?;
    Some((
        queue["topic"].as_str()?.to_string(),
        queue["brokerName"].as_str()?.to_string(),
        queue["queueId"].as_i64()?,
    ))
}

fn clusters_of(info: &Value) -> Vec<ClusterBrokers> {
    let brokers = |name: &String| {
        let addresses = &info["brokerAddrTable"][name]["brokerAddrs"];
        let mut nodes: Vec<BrokerNode> = object(addresses)
            .filter_map(|(id, address)| {
                Some(BrokerNode {
                    id: id.parse().ok()?,
                    address: address.as_str()?.to_string(),
                    ..BrokerNode::default()
                })
            })
            .collect();
        nodes.sort_by_key(|node| node.id);
        Broker {
            name: name.clone(),
            nodes,
        }
    };
    let mut clusters: Vec<ClusterBrokers> = object(&info["clusterAddrTable"])
        .map(|(name, names)| {
            let names: BTreeSet<String> = names
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|name| name.as_str().map(String::from))
                .collect();
            ClusterBrokers {
                name: name.clone(),
                brokers: names.iter().map(brokers).collect(),
            }
        })
        .collect();
    clusters.sort_by(|a, b| a.name.cmp(&b.name));
    clusters
}

fn set_lags(nodes: &mut [BrokerNode]) {
    let Some(end) = nodes
        .iter()
        .find(|node| node.id == 0 && node.ok)
        .map(|node| node.log_end)
    else {
        return;
    };
    for node in nodes.iter_mut().filter(|node| node.id != 0 && node.ok) {
        // The slave was asked at another moment than its master: it may know of more.
        node.lag = Some((end - node.log_end).max(0));
    }
}

fn answering_masters(clusters: &[ClusterBrokers]) -> Vec<(String, String)> {
    clusters
        .iter()
        .flat_map(|cluster| &cluster.brokers)
        .flat_map(|broker| broker.nodes.iter().map(move |node| (&broker.name, node)))
        .filter(|(_, node)| node.id == 0 && node.ok)
        .map(|(name, node)| (name.clone(), node.address.clone()))
        .collect()
}

/// Topics that every broker makes for itself and its cluster, besides those known by name (`TopicConfigManager.init`).
fn own_topics(clusters: &[ClusterBrokers]) -> BTreeSet<String> {
    clusters
        .iter()
        .flat_map(|cluster| {
            let brokers = cluster.brokers.iter().map(|broker| broker.name.clone());
            brokers.chain([
                cluster.name.clone(),
                format!("{}_REPLY_TOPIC", cluster.name),
            ])
        })
        .collect()
}

fn topic_kind(name: &str, own: &BTreeSet<String>) -> &'static str {
    if topic::is_retry(name) {
        "retry"
    } else if topic::is_dlq(name) {
        "dead letter"
    } else if topic::is_system(name) || own.contains(name) {
        "system"
    } else {
        "normal"
    }
}

fn group_kind(name: &str) -> &'static str {
    if topic::group::is_system(name) {
        "system"
    } else {
        "normal"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_info_becomes_brokers_with_their_nodes_in_order() {
        let info = json::from_slice::<Value>(
            br#"{"brokerAddrTable":{"broker-b":{"brokerAddrs":{0:"h:3"},"brokerName":"broker-b","cluster":"C"},
                "broker-a":{"brokerAddrs":{1:"h:2",0:"h:1"},"brokerName":"broker-a","cluster":"C"}},
                "clusterAddrTable":{"C":["broker-b","broker-a"]}}"#,
        )
        .unwrap();
        let clusters = clusters_of(&info);
        let text: Vec<String> = clusters
            .iter()
            .flat_map(|c| {
                c.brokers.iter().flat_map(move |b| {
                    b.nodes
                        .iter()
                        .map(move |n| format!("{}/{}:{}={}", c.name, b.name, n.id, n.address))
                })
            })
            .collect();
        assert_eq!(
            text,
            ["C/broker-a:0=h:1", "C/broker-a:1=h:2", "C/broker-b:0=h:3"]
        );
    }

    #[test]
    fn a_slave_ahead_of_its_masters_answer_has_no_lag() {
        let node = |id, log_end, ok| BrokerNode {
            id,
            log_end,
            ok,
            ..BrokerNode::default()
        };
        let mut nodes = vec![
            node(0, 100, true),
            node(1, 80, true),
            node(2, 120, true),
            node(3, 0, false),
        ];
        set_lags(&mut nodes);
        let lags: Vec<Option<i64>> = nodes.iter().map(|n| n.lag).collect();
        assert_eq!(lags, [None, Some(20), Some(0), None]);
    }

    #[test]
    fn a_queue_written_as_a_map_key_is_read_back() {
        let table = json::from_slice::<Value>(
            br#"{"offsetTable":{{"brokerName":"a","queueId":3,"topic":"t"}:{"maxOffset":7}}}"#,
        )
        .unwrap();
        let keys: Vec<_> = object(&table["offsetTable"])
            .filter_map(|(key, _)| queue_key(key))
            .collect();
        assert_eq!(keys, [("t".to_string(), "a".to_string(), 3)]);
    }
}
