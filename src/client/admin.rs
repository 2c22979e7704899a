//! What an administrator asks and changes, as `mqadmin` does: each request code with its header, its body and its types.
//! Source of the codes and headers: `apache/rocketmq: remoting/.../protocol/header/`, `tools/.../admin/DefaultMQAdminExtImpl.java`.

use std::collections::BTreeMap;
use std::time::Duration;

use rocketmq_protocol::body::{
    BrokerData, ClusterInfo, ConsumeStats, ConsumerConnection, ConsumerOffsetSerializeWrapper,
    GroupList, KVTable, MessageQueue, ProducerTableInfo, ResetOffsetBody, SubscriptionGroupWrapper,
    TopicConfig, TopicConfigAndMappingSerializeWrapper, TopicList, TopicOffset, TopicRouteData,
    TopicStatsTable,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json, topic};

use super::Peer;
use crate::error::{Error, Exit};

/// How long a peer may take to take a connection, and to answer: as long as `mqadmin` waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a question got no answer that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection, or no answer on it.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Whom we asked.
        address: String,
        /// The system's words.
        reason: String,
    },
    /// An answer other than success.
    #[error("{address} refused {}: {} ({code}) {remark}", request::name(*.request), response::name(*.code))]
    Refused {
        /// Whom we asked.
        address: String,
        /// Request code.
        request: i32,
        /// Response code.
        code: i32,
        /// The peer's words.
        remark: String,
    },
    /// An answer that is not what the request's answer should be.
    #[error("{address} answered {} in a way that does not parse: {reason}", request::name(*.request))]
    Unreadable {
        /// Whom we asked.
        address: String,
        /// Request code.
        request: i32,
        /// What is wrong with it.
        reason: String,
    },
}

impl Fault {
    /// Whether it is a refusal with one of these response codes.
    pub fn is(&self, codes: &[i32]) -> bool {
        matches!(self, Fault::Refused { code, .. } if codes.contains(code))
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let id = match &fault {
            Fault::Unreachable { .. } => "RMQ-E301",
            Fault::Refused { .. } => "RMQ-E302",
            Fault::Unreadable { .. } => "RMQ-E303",
        };
        let title = match &fault {
            Fault::Unreachable { address, .. } => format!("no answer from {address}"),
            Fault::Refused {
                address, request, ..
            } => format!("{address} refused {}", request::name(*request)),
            Fault::Unreadable { address, .. } => {
                format!("{address} answered what cannot be read")
            }
        };
        let error = Error::new(id, Exit::Failed, title);
        match fault {
            Fault::Unreachable { reason, .. } => error
                .detail(reason)
                .hint("rmqctl status   shows which nodes answer"),
            Fault::Refused { code, remark, .. } => {
                error.detail(format!("{} ({code}): {remark}", response::name(code)))
            }
            Fault::Unreadable {
                request, reason, ..
            } => error.detail(format!("{}: {reason}", request::name(request))),
        }
    }
}

/// A broker and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Broker {
    /// `broker-a`.
    pub name: String,
    /// As the name server gives it to this host.
    pub address: String,
}

/// Connections to a cluster's name servers and brokers, opened when they are needed.
pub struct Admin {
    namesrvs: Vec<String>,
    peers: BTreeMap<String, Peer>,
}

impl Admin {
    /// Of the cluster that these name servers know.
    pub fn new(namesrvs: Vec<String>) -> Self {
        Self {
            namesrvs,
            peers: BTreeMap::new(),
        }
    }

    /// Asks and takes any answer, whatever its code.
    pub async fn exchange(&mut self, address: &str, request: Command) -> Result<Command, Fault> {
        let unreachable = |reason: String| Fault::Unreachable {
            address: address.to_owned(),
            reason,
        };
        let kept = self.peers.remove(address);
        let asked = async {
            let mut peer = match kept {
                Some(peer) => peer,
                None => Peer::connect(address).await?,
            };
            let answer = peer.call(request).await?;
            Ok((peer, answer))
        };
        let (peer, answer) = tokio::time::timeout(ANSWER_TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))
            .map_err(unreachable)?;
        // Only a connection that just answered is used again.
        self.peers.insert(address.to_owned(), peer);
        Ok(answer)
    }

    /// Asks and wants success.
    pub async fn call(&mut self, address: &str, request: Command) -> Result<Command, Fault> {
        let code = request.code;
        let answer = self.exchange(address, request).await?;
        if answer.code == response::SUCCESS {
            return Ok(answer);
        }
        Err(refused(address, code, &answer))
    }

    /// Asks and reads the body of a success.
    async fn read<T: serde::de::DeserializeOwned>(
        &mut self,
        address: &str,
        code: i32,
        ext: ExtFields,
    ) -> Result<T, Fault> {
        let answer = self.call(address, Command::request(code, ext)).await?;
        json::from_slice(&answer.body).map_err(|e| unreadable(address, code, e))
    }

    /// Asks the name servers in turn; the first that can be reached answers for all.
    async fn read_namesrv<T: serde::de::DeserializeOwned>(
        &mut self,
        code: i32,
        ext: ExtFields,
    ) -> Result<T, Fault> {
        let mut fault = Fault::Unreachable {
            address: "the name server".into(),
            reason: "the cluster has none".into(),
        };
        for address in self.namesrvs.clone() {
            match self.read(&address, code, ext.clone()).await {
                Err(unreachable @ Fault::Unreachable { .. }) => fault = unreachable,
                other => return other,
            }
        }
        Err(fault)
    }

    /// All brokers that are registered now (106).
    pub async fn cluster(&mut self) -> Result<ClusterInfo, Fault> {
        self.read_namesrv(request::GET_BROKER_CLUSTER_INFO, ExtFields::new())
            .await
    }

    /// The masters that are registered now, by name.
    pub async fn masters(&mut self) -> Result<Vec<Broker>, Fault> {
        Ok(masters(self.cluster().await?.broker_addr_table.values()))
    }

    /// Names of all topics that some broker registered, the system's too (206).
    pub async fn topics(&mut self) -> Result<Vec<String>, Fault> {
        let list: TopicList = self
            .read_namesrv(
                request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
                ExtFields::new(),
            )
            .await?;
        Ok(list.topic_list)
    }

    /// A broker's figures (28).
    pub async fn runtime_info(&mut self, broker: &str) -> Result<BTreeMap<String, String>, Fault> {
        let code = request::GET_BROKER_RUNTIME_INFO;
        let info: KVTable = self.read(broker, code, ExtFields::new()).await?;
        Ok(info.table)
    }

    /// How far each group has read each topic on one broker (43).
    pub async fn consumer_offsets(
        &mut self,
        broker: &str,
    ) -> Result<ConsumerOffsetSerializeWrapper, Fault> {
        let code = request::GET_ALL_CONSUMER_OFFSET;
        self.read(broker, code, ExtFields::new()).await
    }

    /// Producers that are connected to one broker, by group (328).
    pub async fn producers(&mut self, broker: &str) -> Result<ProducerTableInfo, Fault> {
        let code = request::GET_ALL_PRODUCER_INFO;
        self.read(broker, code, ExtFields::new()).await
    }

    /// Has one name server tell clients that a broker's topics take sends (327), or that they do not (205).
    pub async fn set_writable(
        &mut self,
        namesrv: &str,
        broker: &str,
        writable: bool,
    ) -> Result<(), Fault> {
        let code = if writable {
            request::ADD_WRITE_PERM_OF_BROKER
        } else {
            request::WIPE_WRITE_PERM_OF_BROKER
        };
        let ext = ExtFields::new().with("brokerName", broker);
        self.call(namesrv, Command::request(code, ext))
            .await
            .map(drop)
    }

    /// Whether one name server tells clients that a broker takes sends; `None` when it does not know the broker. Asked of the
    /// topic that every broker has under its own name.
    pub async fn is_writable(
        &mut self,
        namesrv: &str,
        broker: &str,
    ) -> Result<Option<bool>, Fault> {
        let ext = ExtFields::new().with("topic", broker);
        let route: Result<TopicRouteData, Fault> = self
            .read(namesrv, request::GET_ROUTEINFO_BY_TOPIC, ext)
            .await;
        let route = absent(route, &[response::TOPIC_NOT_EXIST])?;
        let own = route.and_then(|route| {
            let mut queues = route.queue_datas.into_iter();
            queues.find(|queue| *queue.broker_name == *broker)
        });
        Ok(own.map(|queue| topic::perm::writable(queue.perm)))
    }

    /// Which brokers have a topic, with how many queues (105); `None` when none has.
    pub async fn route(&mut self, topic: &str) -> Result<Option<TopicRouteData>, Fault> {
        let ext = ExtFields::new().with("topic", topic);
        let route = self.read_namesrv(request::GET_ROUTEINFO_BY_TOPIC, ext);
        absent(route.await, &[response::TOPIC_NOT_EXIST])
    }

    /// Every topic's configuration on one broker (21).
    pub async fn topic_configs(
        &mut self,
        broker: &str,
    ) -> Result<TopicConfigAndMappingSerializeWrapper, Fault> {
        self.read(broker, request::GET_ALL_TOPIC_CONFIG, ExtFields::new())
            .await
    }

    /// A topic's configuration on one broker (351); `None` when it has none.
    pub async fn topic_config(
        &mut self,
        broker: &str,
        topic: &str,
    ) -> Result<Option<TopicConfig>, Fault> {
        let ext = ExtFields::new().with("topic", topic);
        let config = self.read(broker, request::GET_TOPIC_CONFIG, ext).await;
        absent(config, &[response::TOPIC_NOT_EXIST])
    }

    /// Creates a topic on one broker, or changes it (17). The broker registers it at its name servers before it answers.
    pub async fn put_topic(&mut self, broker: &str, config: &TopicConfig) -> Result<(), Fault> {
        let attributes: Vec<String> = config
            .attributes
            .iter()
            .map(|(name, value)| format!("+{name}={value}"))
            .collect();
        let ext = ExtFields::new()
            .with("topic", &config.topic_name)
            .with("defaultTopic", topic::AUTO_CREATE_TOPIC_KEY)
            .with("readQueueNums", config.read_queue_nums)
            .with("writeQueueNums", config.write_queue_nums)
            .with("perm", config.perm)
            .with("topicFilterType", &config.topic_filter_type)
            .with("topicSysFlag", config.topic_sys_flag)
            .with("order", config.order)
            .with("attributes", attributes.join(","));
        let request = Command::request(request::UPDATE_AND_CREATE_TOPIC, ext);
        self.call(broker, request).await.map(drop)
    }

    /// Deletes a topic with its messages: on each master (215), then its route at every name server (216).
    pub async fn delete_topic(&mut self, topic: &str) -> Result<(), Fault> {
        let ext = ExtFields::new().with("topic", topic);
        for master in self.masters().await? {
            let request = Command::request(request::DELETE_TOPIC_IN_BROKER, ext.clone());
            self.call(&master.address, request).await?;
        }
        for namesrv in self.namesrvs.clone() {
            let request = Command::request(request::DELETE_TOPIC_IN_NAMESRV, ext.clone());
            self.call(&namesrv, request).await?;
        }
        Ok(())
    }

    /// The ends of a topic's queues on one broker (202).
    pub async fn topic_stats(
        &mut self,
        broker: &str,
        topic: &str,
    ) -> Result<BTreeMap<MessageQueue, TopicOffset>, Fault> {
        let ext = ExtFields::new().with("topic", topic);
        let table: TopicStatsTable = self
            .read(broker, request::GET_TOPIC_STATS_INFO, ext)
            .await?;
        Ok(table.offset_table)
    }

    /// Groups that have an offset in a topic, or a member that subscribes to it, on one broker (300).
    pub async fn groups_of(&mut self, broker: &str, topic: &str) -> Result<Vec<String>, Fault> {
        let ext = ExtFields::new().with("topic", topic);
        let list: GroupList = self
            .read(broker, request::QUERY_TOPIC_CONSUME_BY_WHO, ext)
            .await?;
        Ok(list.group_list)
    }

    /// Every group's configuration on one broker (201).
    pub async fn group_configs(&mut self, broker: &str) -> Result<SubscriptionGroupWrapper, Fault> {
        let code = request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG;
        self.read(broker, code, ExtFields::new()).await
    }

    /// A group's places in the queues of one broker (208), of one topic if it is named; empty when it has none there.
    pub async fn consume_stats(
        &mut self,
        broker: &str,
        group: &str,
        topic: Option<&str>,
    ) -> Result<ConsumeStats, Fault> {
        let ext = ExtFields::new()
            .with("consumerGroup", group)
            .with_some("topic", topic);
        let stats = self.read(broker, request::GET_CONSUME_STATS, ext).await;
        let none = [
            response::TOPIC_NOT_EXIST,
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
        ];
        Ok(absent(stats, &none)?.unwrap_or_default())
    }

    /// A group's members that are connected to one broker, and what they subscribe to (203); `None` when nobody is.
    pub async fn members(
        &mut self,
        broker: &str,
        group: &str,
    ) -> Result<Option<ConsumerConnection>, Fault> {
        let ext = ExtFields::new().with("consumerGroup", group);
        let code = request::GET_CONSUMER_CONNECTION_LIST;
        let connection = self.read(broker, code, ext).await;
        absent(connection, &[response::CONSUMER_NOT_ONLINE])
    }

    /// First offset of a queue whose message was stored at `timestamp` (ms) or later (29).
    pub async fn offset_at(
        &mut self,
        broker: &str,
        topic: &str,
        queue: i32,
        timestamp: i64,
    ) -> Result<i64, Fault> {
        let code = request::SEARCH_OFFSET_BY_TIMESTAMP;
        let ext = ExtFields::new()
            .with("topic", topic)
            .with("queueId", queue)
            .with("timestamp", timestamp);
        let answer = self.call(broker, Command::request(code, ext)).await?;
        let offset = answer.ext.i64("offset");
        offset.map_err(|e| unreadable(broker, code, e))
    }

    /// Moves a group to where `timestamp` (ms; -1: the end) is, or one queue of it to an offset (222): the broker tells members
    /// that are online. The new places are returned.
    pub async fn reset(
        &mut self,
        broker: &str,
        group: &str,
        topic: &str,
        timestamp: i64,
        queue: Option<(i32, i64)>,
    ) -> Result<BTreeMap<MessageQueue, i64>, Fault> {
        let ext = ExtFields::new()
            .with("group", group)
            .with("topic", topic)
            .with("timestamp", timestamp)
            .with("isForce", true)
            .with_some("queueId", queue.map(|(id, _)| id))
            .with_some("offset", queue.map(|(_, offset)| offset));
        let code = request::INVOKE_BROKER_TO_RESET_OFFSET;
        let body: ResetOffsetBody = self.read(broker, code, ext).await?;
        Ok(body.offset_table)
    }

    /// Writes a group's offset in one queue (15), as an idle group's is changed.
    pub async fn put_offset(
        &mut self,
        broker: &str,
        group: &str,
        queue: &MessageQueue,
        offset: i64,
    ) -> Result<(), Fault> {
        let ext = ExtFields::new()
            .with("consumerGroup", group)
            .with("topic", &queue.topic)
            .with("queueId", queue.queue_id)
            .with("commitOffset", offset);
        let request = Command::request(request::UPDATE_CONSUMER_OFFSET, ext);
        self.call(broker, request).await.map(drop)
    }
}

/// The masters among these brokers, by name.
pub fn masters<'a>(brokers: impl IntoIterator<Item = &'a BrokerData>) -> Vec<Broker> {
    let mut masters: Vec<Broker> = brokers
        .into_iter()
        .filter_map(|data| {
            Some(Broker {
                name: data.broker_name.clone(),
                address: data.broker_addrs.get(&0)?.clone(),
            })
        })
        .collect();
    masters.sort();
    masters
}

/// One broker of each name that can be read from: the master, else the slave with the lowest id.
pub fn readable<'a>(brokers: impl IntoIterator<Item = &'a BrokerData>) -> Vec<Broker> {
    let mut readable: Vec<Broker> = brokers
        .into_iter()
        .filter_map(|data| {
            Some(Broker {
                name: data.broker_name.clone(),
                address: data.broker_addrs.values().next()?.clone(),
            })
        })
        .collect();
    readable.sort();
    readable
}

/// A refusal with one of these codes means that there is no such thing.
fn absent<T>(asked: Result<T, Fault>, codes: &[i32]) -> Result<Option<T>, Fault> {
    match asked {
        Ok(found) => Ok(Some(found)),
        Err(fault) if fault.is(codes) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// The fault that an answer other than success is.
pub fn refused(address: &str, request: i32, answer: &Command) -> Fault {
    Fault::Refused {
        address: address.to_owned(),
        request,
        code: answer.code,
        remark: answer.remark.clone().unwrap_or_default(),
    }
}

/// The fault that an answer is which does not hold what it should.
pub fn unreadable(address: &str, request: i32, reason: impl std::fmt::Display) -> Fault {
    Fault::Unreadable {
        address: address.to_owned(),
        request,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use rocketmq_protocol::{Frame, body};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A peer on loopback that answers every request as `answer` says, or closes the connection where that is `None`.
    async fn peer(answer: impl Fn(&Command) -> Option<Command> + Send + Sync + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = BytesMut::new();
                'connection: while stream
                    .read_buf(&mut buffer)
                    .await
                    .is_ok_and(|read| read > 0)
                {
                    while let Some(frame) = Frame::cut(&mut buffer).unwrap() {
                        let Some(answer) = answer(&frame.decode().unwrap()) else {
                            break 'connection;
                        };
                        // What nobody asked for comes first: a request of the peer's own.
                        let own = Command::request(
                            request::NOTIFY_CONSUMER_IDS_CHANGED,
                            ExtFields::new(),
                        );
                        stream.write_all(&own.to_bytes()).await.unwrap();
                        stream.write_all(&answer.to_bytes()).await.unwrap();
                    }
                }
            }
        });
        address
    }

    /// An address where nobody listens.
    async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    }

    fn topics(asked: &Command) -> Option<Command> {
        let list = TopicList {
            topic_list: vec!["orders".into()],
            ..TopicList::default()
        };
        Some(
            asked
                .response(response::SUCCESS)
                .with_body(body::encode(&list)),
        )
    }

    #[tokio::test]
    async fn the_next_name_server_is_asked_when_one_is_away_and_none_when_one_refuses() {
        let mut admin = Admin::new(vec![nobody().await, peer(topics).await]);
        assert_eq!(admin.topics().await, Ok(vec!["orders".to_owned()]));
        let refuses = peer(|asked| Some(asked.error(response::SYSTEM_ERROR, "no"))).await;
        let mut admin = Admin::new(vec![refuses, peer(topics).await]);
        assert!(
            admin
                .topics()
                .await
                .unwrap_err()
                .is(&[response::SYSTEM_ERROR])
        );
        let mut admin = Admin::new(vec![nobody().await]);
        let error = Error::from(admin.topics().await.unwrap_err());
        assert_eq!(
            (error.id, error.details),
            ("RMQ-E301", vec!["connection refused".to_owned()])
        );
    }

    #[tokio::test]
    async fn a_topic_that_no_broker_has_is_none_and_other_refusals_are_told_in_the_peers_words() {
        let namesrv = peer(|asked| {
            Some(match asked.ext.get("topic") {
                Some("gone") => asked.error(response::TOPIC_NOT_EXIST, "No topic route info"),
                _ => asked.error(response::SYSTEM_BUSY, "later"),
            })
        });
        let mut admin = Admin::new(vec![namesrv.await]);
        assert_eq!(admin.route("gone").await, Ok(None));
        let error = Error::from(admin.route("busy").await.unwrap_err());
        assert_eq!(error.id, "RMQ-E302");
        assert_eq!(error.details, ["SYSTEM_BUSY (2): later"]);
    }

    #[tokio::test]
    async fn a_connection_that_failed_is_opened_anew() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let closed = AtomicBool::new(false);
        let once = move |asked: &Command| match closed.swap(true, Ordering::Relaxed) {
            false => None,
            true => topics(asked),
        };
        let mut admin = Admin::new(vec![peer(once).await]);
        assert!(matches!(
            admin.topics().await,
            Err(Fault::Unreachable { .. })
        ));
        assert_eq!(admin.topics().await, Ok(vec!["orders".to_owned()]));
    }

    #[tokio::test]
    async fn an_answer_that_does_not_parse_says_to_which_request() {
        let junk = |asked: &Command| Some(asked.response(response::SUCCESS).with_body("{"));
        let mut admin = Admin::new(vec![peer(junk).await]);
        let error = Error::from(admin.cluster().await.unwrap_err());
        assert_eq!(error.id, "RMQ-E303");
        assert!(
            error.details[0].starts_with("GET_BROKER_CLUSTER_INFO: "),
            "{error}"
        );
    }

    #[test]
    fn reads_go_to_the_master_or_the_lowest_slave_and_changes_to_masters_only() {
        let group = |name: &str, ids: &[i64]| BrokerData {
            broker_name: name.into(),
            broker_addrs: ids.iter().map(|id| (*id, format!("{name}:{id}"))).collect(),
            ..BrokerData::default()
        };
        let groups = [group("b", &[1, 2]), group("a", &[0, 1])];
        let addresses = |brokers: Vec<Broker>| -> Vec<String> {
            brokers.into_iter().map(|b| b.address).collect()
        };
        assert_eq!(addresses(masters(&groups)), ["a:0"]);
        assert_eq!(addresses(readable(&groups)), ["a:0", "b:1"]);
    }
}
