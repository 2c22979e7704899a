//! Typed questions to name servers and brokers, each with its own deadline. Bodies are the protocol crate's.

use std::collections::BTreeMap;
use std::time::Duration;

use rocketmq_protocol::body::{
    ConsumerOffsetSerializeWrapper, KVTable, ProducerTableInfo,
    TopicConfigAndMappingSerializeWrapper, TopicRouteData, TopicStatsTable,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::topic::{AUTO_CREATE_TOPIC_KEY, perm};
use rocketmq_protocol::{Command, ExtFields, json};

use super::Peer;

/// A connection for administration. An error says in few words what was asked of whom, and what came back.
pub struct Inspector {
    peer: Peer,
    address: String,
    each: Duration,
}

impl Inspector {
    /// Connects to the name server or broker at `host:port`; every answer must come within `each`.
    pub async fn connect(address: &str, each: Duration) -> Result<Inspector, String> {
        let peer = tokio::time::timeout(each, Peer::connect(address))
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {each:?}")))
            .map_err(|why| format!("{address}: {why}"))?;
        Ok(Inspector {
            peer,
            address: address.to_owned(),
            each,
        })
    }

    /// A broker's figures (28).
    pub async fn runtime_info(&mut self) -> Result<BTreeMap<String, String>, String> {
        let info: KVTable = self
            .ask(request::GET_BROKER_RUNTIME_INFO, ExtFields::new())
            .await?;
        Ok(info.table)
    }

    /// All topics of a broker (21).
    pub async fn topics(&mut self) -> Result<TopicConfigAndMappingSerializeWrapper, String> {
        self.ask(request::GET_ALL_TOPIC_CONFIG, ExtFields::new())
            .await
    }

    /// Makes a topic on a broker, or gives the one that is there so many queues for reading and writing (17).
    pub async fn put_topic(&mut self, name: &str, queues: u32) -> Result<(), String> {
        let ext = ExtFields::new()
            .with("topic", name)
            .with("defaultTopic", AUTO_CREATE_TOPIC_KEY)
            .with("readQueueNums", queues)
            .with("writeQueueNums", queues)
            .with("perm", perm::READ | perm::WRITE)
            .with("topicFilterType", "SINGLE_TAG")
            .with("topicSysFlag", 0)
            .with("order", false);
        self.call(request::UPDATE_AND_CREATE_TOPIC, ext)
            .await
            .map(drop)
    }

    /// Both ends of each queue of a broker's topic (202).
    pub async fn topic_stats(&mut self, topic: &str) -> Result<TopicStatsTable, String> {
        let ext = ExtFields::new().with("topic", topic);
        self.ask(request::GET_TOPIC_STATS_INFO, ext).await
    }

    /// How far each group has read each topic on a broker (43).
    pub async fn consumer_offsets(&mut self) -> Result<ConsumerOffsetSerializeWrapper, String> {
        self.ask(request::GET_ALL_CONSUMER_OFFSET, ExtFields::new())
            .await
    }

    /// Producers that are connected to a broker, by group (328).
    pub async fn producers(&mut self) -> Result<ProducerTableInfo, String> {
        self.ask(request::GET_ALL_PRODUCER_INFO, ExtFields::new())
            .await
    }

    /// Has a name server tell clients that a broker's topics take sends (327), or that they do not (205).
    pub async fn set_writable(&mut self, broker: &str, writable: bool) -> Result<(), String> {
        let code = if writable {
            request::ADD_WRITE_PERM_OF_BROKER
        } else {
            request::WIPE_WRITE_PERM_OF_BROKER
        };
        let ext = ExtFields::new().with("brokerName", broker);
        self.call(code, ext).await.map(drop)
    }

    /// Whether a name server tells clients that a broker takes sends; `None` when it does not know the broker. Asked of the
    /// topic that every broker has under its own name.
    pub async fn is_writable(&mut self, broker: &str) -> Result<Option<bool>, String> {
        let ext = ExtFields::new()
            .with("topic", broker)
            .with("acceptStandardJsonOnly", true);
        let answer = self.exchange(request::GET_ROUTEINFO_BY_TOPIC, ext).await?;
        if answer.code == response::TOPIC_NOT_EXIST {
            return Ok(None);
        }
        let answer = self.accept(request::GET_ROUTEINFO_BY_TOPIC, answer)?;
        let route: TopicRouteData = self.parse(request::GET_ROUTEINFO_BY_TOPIC, &answer)?;
        let queues = route.queue_datas.iter();
        let mut own = queues.filter(|queue| *queue.broker_name == *broker);
        Ok(own.next().map(|queue| perm::writable(queue.perm)))
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        code: i32,
        ext: ExtFields,
    ) -> Result<T, String> {
        let answer = self.call(code, ext).await?;
        self.parse(code, &answer)
    }

    async fn call(&mut self, code: i32, ext: ExtFields) -> Result<Command, String> {
        let answer = self.exchange(code, ext).await?;
        self.accept(code, answer)
    }

    async fn exchange(&mut self, code: i32, ext: ExtFields) -> Result<Command, String> {
        let call = self.peer.call(Command::request(code, ext));
        tokio::time::timeout(self.each, call)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", self.each)))
            .map_err(|why| format!("{}: {}: {why}", self.address, request::name(code)))
    }

    fn accept(&self, code: i32, answer: Command) -> Result<Command, String> {
        if answer.code == response::SUCCESS {
            return Ok(answer);
        }
        Err(format!(
            "{}: {} was answered with {} {}: {}",
            self.address,
            request::name(code),
            answer.code,
            response::name(answer.code),
            answer.remark.unwrap_or_default()
        ))
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        code: i32,
        answer: &Command,
    ) -> Result<T, String> {
        json::from_slice(&answer.body).map_err(|why| {
            format!(
                "{}: the answer to {} does not parse: {why}",
                self.address,
                request::name(code)
            )
        })
    }
}
