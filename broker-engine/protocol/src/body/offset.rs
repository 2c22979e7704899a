//! Offsets: the tables kept in files, statistics of topics and groups, resets.

use super::queue::{read_map, write_map};
use super::{DataVersion, MessageQueue, QueueMap, SubscriptionData};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `config/consumerOffset.json` and the answer of GET_ALL_CONSUMER_OFFSET (43): `topic@group` -> queue id -> offset.
/// Source: `apache/rocketmq: broker/.../offset/ConsumerOffsetManager.java`. (`groupTopicMap` is a by-product there: not read.)
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumerOffsetSerializeWrapper {
    pub data_version: DataVersion,
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// `config/delayOffset.json` and the answer of GET_ALL_DELAY_OFFSET (45): delay level -> next queue offset.
/// Source: `apache/rocketmq: broker/.../schedule/DelayOffsetSerializeWrapper.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct DelayOffsetSerializeWrapper {
    pub data_version: DataVersion,
    pub offset_table: BTreeMap<i32, i64>,
}

/// Answer of GET_TOPIC_STATS_INFO (202). Source: `apache/rocketmq: remoting/.../protocol/admin/TopicStatsTable.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicStatsTable {
    #[serde(serialize_with = "write_map", deserialize_with = "read_map")]
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    pub topic_put_tps: f64,
}

/// A queue's ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicOffset {
    /// Store time in ms of the last message, 0 when there is none.
    pub last_update_timestamp: i64,
    pub max_offset: i64,
    pub min_offset: i64,
}

/// Answer of GET_CONSUME_STATS (208). Source: `apache/rocketmq: remoting/.../protocol/admin/ConsumeStats.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumeStats {
    pub consume_tps: f64,
    #[serde(serialize_with = "write_map", deserialize_with = "read_map")]
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// A group's place in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct OffsetWrapper {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    /// Store time in ms of the last consumed message, 0 when there is none.
    pub last_timestamp: i64,
    pub pull_offset: i64,
}

impl ConsumeStats {
    /// Messages not yet consumed (`ConsumeStats.computeTotalDiff`).
    pub fn total_diff(&self) -> i64 {
        self.offset_table
            .values()
            .map(|o| o.broker_offset.saturating_sub(o.consumer_offset))
            .sum()
    }
}

/// Answer of GET_BROKER_CONSUME_STATS (317).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumeStatsList {
    pub broker_addr: String,
    pub consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    pub total_diff: i64,
    pub total_inflight_diff: i64,
}

/// Answer of INVOKE_BROKER_TO_RESET_OFFSET (222), and body of RESET_CONSUMER_CLIENT_OFFSET (220).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ResetOffsetBody {
    #[serde(serialize_with = "write_map", deserialize_with = "read_map")]
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// Body of RESET_CONSUMER_CLIENT_OFFSET (220) for C++ clients, which read no objects as keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ResetOffsetBodyForC {
    pub offset_table: Vec<MessageQueueForC>,
}

/// A queue and its new offset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MessageQueueForC {
    pub broker_name: String,
    pub offset: i64,
    pub queue_id: i32,
    pub topic: String,
}

impl From<&ResetOffsetBody> for ResetOffsetBodyForC {
    fn from(body: &ResetOffsetBody) -> Self {
        ResetOffsetBodyForC {
            offset_table: body
                .offset_table
                .iter()
                .map(|(queue, offset)| MessageQueueForC {
                    broker_name: queue.broker_name.to_string(),
                    offset: *offset,
                    queue_id: queue.queue_id,
                    topic: queue.topic.to_string(),
                })
                .collect(),
        }
    }
}

/// Answer of GET_CONSUMER_STATUS_FROM_CLIENT (221) and INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GetConsumerStatusBody {
    /// Client id -> its offsets.
    pub consumer_table: BTreeMap<String, QueueMap<i64>>,
    #[serde(serialize_with = "write_map", deserialize_with = "read_map")]
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

/// Answer of QUERY_CORRECTION_OFFSET (308): queue id -> offset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueryCorrectionOffsetBody {
    pub correction_offsets: BTreeMap<i32, i64>,
}

/// Answer of QUERY_CONSUME_TIME_SPAN (303).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueryConsumeTimeSpanBody {
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// Store times in ms of a queue's ends and of a group's place in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueueTimeSpan {
    pub consume_time_stamp: i64,
    pub delay_time: i64,
    pub max_time_stamp: i64,
    pub message_queue: MessageQueue,
    pub min_time_stamp: i64,
}

/// Answer of QUERY_CONSUME_QUEUE (321).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueryConsumeQueueResponseBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    pub queue_data: Vec<ConsumeQueueData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

/// One consume queue entry, and what a group's filter says of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ConsumeQueueData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bit_map: Option<String>,
    pub eval: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extend_data_json: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg: Option<String>,
    pub physic_offset: i64,
    pub physic_size: i32,
    pub tags_code: i64,
}
