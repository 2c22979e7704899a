//! Clients: heartbeats, subscriptions, connections, ordered consumption, assignment.

use super::{MessageQueue, java_enum, number, numbers};
use crate::Language;
use crate::hash::java_string;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

java_enum! {
    /// How a consumer gets its messages. Source: `apache/rocketmq: remoting/.../protocol/heartbeat/ConsumeType.java`.
    ConsumeType default ConsumePassively {
        ConsumeActively = "CONSUME_ACTIVELY",
        ConsumePassively = "CONSUME_PASSIVELY",
        ConsumePop = "CONSUME_POP",
    }
}
java_enum! {
    /// Who of a group gets a message. Source: `apache/rocketmq: remoting/.../protocol/heartbeat/MessageModel.java`.
    MessageModel default Clustering {
        Broadcasting = "BROADCASTING",
        Clustering = "CLUSTERING",
    }
}
java_enum! {
    /// Where a group without an offset begins. Source: `apache/rocketmq: common/.../consumer/ConsumeFromWhere.java`.
    ConsumeFromWhere default LastOffset {
        LastOffset = "CONSUME_FROM_LAST_OFFSET",
        LastOffsetAndFromMinWhenBootFirst = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
        MinOffset = "CONSUME_FROM_MIN_OFFSET",
        MaxOffset = "CONSUME_FROM_MAX_OFFSET",
        FirstOffset = "CONSUME_FROM_FIRST_OFFSET",
        Timestamp = "CONSUME_FROM_TIMESTAMP",
    }
}
java_enum! {
    /// Whether a queue is pulled or popped. Source: `apache/rocketmq: common/.../message/MessageRequestMode.java`.
    MessageRequestMode default Pull {
        Pull = "PULL",
        Pop = "POP",
    }
}

/// A group's subscription to one topic. Source: `apache/rocketmq: remoting/.../heartbeat/SubscriptionData.java`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SubscriptionData {
    pub class_filter_mode: bool,
    #[serde(deserialize_with = "numbers")]
    pub code_set: Vec<i32>,
    pub expression_type: String,
    pub sub_string: String,
    #[serde(deserialize_with = "number")]
    pub sub_version: i64,
    pub tags_set: Vec<String>,
    pub topic: Arc<str>,
}
impl Default for SubscriptionData {
    fn default() -> Self {
        SubscriptionData {
            class_filter_mode: false,
            code_set: vec![],
            expression_type: SubscriptionData::TAG.into(),
            sub_string: SubscriptionData::ALL.into(),
            sub_version: 0,
            tags_set: vec![],
            topic: "".into(),
        }
    }
}

impl SubscriptionData {
    /// The expression that every message passes.
    pub const ALL: &'static str = "*";
    /// Expression type of tag lists.
    pub const TAG: &'static str = "TAG";
    /// Expression type of SQL92 filters.
    pub const SQL92: &'static str = "SQL92";

    /// Parses a tag expression (`A || B`, `*`) for one request (`FilterAPI.buildSubscriptionDataData`).
    /// Its version is 0: the caller sets one where it matters.
    ///
    /// An expression of bars alone has no tag and then passes nothing; Java refuses it, see [`SubscriptionData::is_empty_list`].
    pub fn parse_tags(topic: &str, expression: &str) -> SubscriptionData {
        let mut data = SubscriptionData {
            topic: topic.into(),
            ..SubscriptionData::default()
        };
        if expression.is_empty() || expression == Self::ALL {
            return data;
        }
        data.sub_string = expression.into();
        for tag in expression
            .split("||")
            .map(str::trim)
            .filter(|tag| !tag.is_empty())
        {
            if !data.tags_set.iter().any(|t| t == tag) {
                data.tags_set.push(tag.into());
                let code = java_string(tag);
                if !data.code_set.contains(&code) {
                    data.code_set.push(code);
                }
            }
        }
        data
    }
    /// Whether the expression is made of bars alone, which Java answers with SUBSCRIPTION_PARSE_FAILED.
    pub fn is_empty_list(&self) -> bool {
        self.is_tag_type()
            && self.sub_string.len() > 1
            && self.sub_string.replace("||", "").is_empty()
    }
    /// Whether the expression is a list of tags (`ExpressionType.isTagType`).
    pub fn is_tag_type(&self) -> bool {
        self.expression_type.is_empty() || self.expression_type == Self::TAG
    }
    /// Whether a queue entry's tags code passes. Other expressions than tags pass here: they need the message.
    /// Source: `apache/rocketmq: broker/.../filter/ExpressionMessageFilter.java` isMatchedByConsumeQueue.
    pub fn matches(&self, tags_code: i64) -> bool {
        // A Java int, sign-extended in the entry: its low half is the hash again.
        self.class_filter_mode
            || !self.is_tag_type()
            || self.sub_string == Self::ALL
            || self.code_set.contains(&(tags_code as i32))
    }
}

/// Request of HEART_BEAT (34). Source: `apache/rocketmq: remoting/.../protocol/heartbeat/HeartbeatData.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HeartbeatData {
    #[serde(rename = "clientID")]
    pub client_id: Arc<str>,
    pub consumer_data_set: Vec<ConsumerData>,
    /// 0: a heartbeat of the first version, which carries all subscriptions.
    #[serde(deserialize_with = "number")]
    pub heartbeat_fingerprint: i32,
    pub producer_data_set: Vec<ProducerData>,
    pub without_sub: bool,
}

/// One consumer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumerData {
    pub consume_from_where: ConsumeFromWhere,
    pub consume_type: ConsumeType,
    pub group_name: Arc<str>,
    pub message_model: MessageModel,
    pub subscription_data_set: Vec<SubscriptionData>,
    pub unit_mode: bool,
}

/// One producer group of a client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProducerData {
    pub group_name: Arc<str>,
}

/// Answer of GET_CONSUMER_LIST_BY_GROUP (38).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GetConsumerListByGroupResponseBody {
    pub consumer_id_list: Vec<String>,
}

/// Request of CHECK_CLIENT_CONFIG (46).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct CheckClientRequestBody {
    pub client_id: String,
    pub group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

/// One connected client. Source: `apache/rocketmq: remoting/.../protocol/body/Connection.java`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ClientConnection {
    pub client_addr: String,
    pub client_id: String,
    pub language: Language,
    pub version: i32,
}
impl Default for ClientConnection {
    fn default() -> Self {
        ClientConnection {
            client_addr: String::new(),
            client_id: String::new(),
            language: Language::OTHER,
            version: 0,
        }
    }
}

/// Answer of GET_CONSUMER_CONNECTION_LIST (203).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumerConnection {
    pub connection_set: Vec<ClientConnection>,
    pub consume_from_where: ConsumeFromWhere,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub subscription_table: BTreeMap<Arc<str>, SubscriptionData>,
}

/// Answer of GET_PRODUCER_CONNECTION_LIST (204).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProducerConnection {
    pub connection_set: Vec<ClientConnection>,
}

/// One producer in the answer of GET_ALL_PRODUCER_INFO (328).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProducerInfo {
    pub client_id: String,
    pub language: Language,
    pub last_update_timestamp: i64,
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    pub version: i32,
}
impl Default for ProducerInfo {
    fn default() -> Self {
        ProducerInfo {
            client_id: String::new(),
            language: Language::OTHER,
            last_update_timestamp: 0,
            remote_ip: String::new(),
            version: 0,
        }
    }
}

/// Answer of GET_ALL_PRODUCER_INFO (328): group -> its producers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProducerTableInfo {
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// Request of LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct LockBatchRequestBody {
    pub client_id: String,
    pub consumer_group: String,
    pub mq_set: Vec<MessageQueue>,
    pub only_this_broker: bool,
}

/// Answer of LOCK_BATCH_MQ (41): the queues that are now the caller's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct LockBatchResponseBody {
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

/// Request of QUERY_ASSIGNMENT (400).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueryAssignmentRequestBody {
    pub client_id: String,
    pub consumer_group: String,
    pub message_model: MessageModel,
    pub strategy_name: String,
    pub topic: String,
}

/// Answer of QUERY_ASSIGNMENT (400).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueryAssignmentResponseBody {
    pub message_queue_assignments: Vec<MessageQueueAssignment>,
}

/// A queue that a consumer shall read, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MessageQueueAssignment {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attachments: BTreeMap<String, String>,
    pub message_queue: MessageQueue,
    pub mode: MessageRequestMode,
}

/// Request of SET_MESSAGE_REQUEST_MODE (401), and an entry of `config/messageRequestMode.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SetMessageRequestModeRequestBody {
    pub consumer_group: String,
    pub mode: MessageRequestMode,
    pub pop_share_queue_num: i32,
    pub topic: String,
}

/// `config/messageRequestMode.json` and the answer of GET_ALL_MESSAGE_REQUEST_MODE (402): topic -> group -> mode.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MessageRequestModeSerializeWrapper {
    pub message_request_mode_map:
        BTreeMap<String, BTreeMap<String, SetMessageRequestModeRequestBody>>,
}

/// Request of BATCH_ACK_MESSAGE (200151). Source: `apache/rocketmq: remoting/.../protocol/body/BatchAckMessageRequestBody.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BatchAckMessageRequestBody {
    pub acks: Vec<BatchAck>,
    pub broker_name: String,
}

/// Acks of one POP checkpoint. Source: `apache/rocketmq: remoting/.../protocol/body/BatchAck.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct BatchAck {
    /// Base64 of the little-endian bit set of acked offsets, bit i being `start_offset + i`.
    #[serde(rename = "b")]
    pub bit_set: String,
    #[serde(rename = "c")]
    pub consumer_group: String,
    #[serde(rename = "it")]
    pub invisible_time: i64,
    #[serde(rename = "pt")]
    pub pop_time: i64,
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// `1` when the topic is a retry topic.
    #[serde(rename = "r")]
    pub retry: String,
    #[serde(rename = "rq")]
    pub revive_queue_id: i32,
    #[serde(rename = "so")]
    pub start_offset: i64,
    #[serde(rename = "t")]
    pub topic: String,
}

java_enum! {
    /// How a directly consumed message went (309).
    CmResult default ReturnNull {
        Success = "CR_SUCCESS",
        Later = "CR_LATER",
        Rollback = "CR_ROLLBACK",
        Commit = "CR_COMMIT",
        ThrowException = "CR_THROW_EXCEPTION",
        ReturnNull = "CR_RETURN_NULL",
    }
}

/// A client's answer to CONSUME_MESSAGE_DIRECTLY (309); a broker only passes it on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumeMessageDirectlyResult {
    pub auto_commit: bool,
    pub consume_result: CmResult,
    pub order: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    pub spent_time_mills: i64,
}
