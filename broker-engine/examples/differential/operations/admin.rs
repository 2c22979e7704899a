//! Administration: topics, groups, and what tools ask.

use super::{Maker, Operation};
use rocketmq_protocol::body::{
    CreateTopicListRequestBody, SubscriptionGroupConfig, SubscriptionGroupList, TopicConfig, encode,
};
use rocketmq_protocol::code::request;
use std::collections::BTreeSet;

impl Maker {
    pub(super) fn make_topic(&mut self, topic: String, queues: i32, perm: i32) -> Operation {
        Operation::new("make topic", request::UPDATE_AND_CREATE_TOPIC)
            .with("topic", topic)
            .with("defaultTopic", "TBW102")
            .with("readQueueNums", queues)
            .with("writeQueueNums", queues)
            .with("perm", perm)
            .with("topicFilterType", "SINGLE_TAG")
            .with("topicSysFlag", 0)
            .with("order", self.random.bool())
            .with("attributes", "")
    }

    pub(super) fn make_group(&mut self) -> Operation {
        let group = SubscriptionGroupConfig {
            consume_enable: self.random.u8(..12) > 0,
            consume_broadcast_enable: self.random.bool(),
            retry_queue_nums: self.random.i32(0..3).min(1),
            retry_max_times: self.random.i32(0..17),
            ..SubscriptionGroupConfig::new(self.group())
        };
        Self::store_group(&group)
    }

    pub(super) fn store_group(group: &SubscriptionGroupConfig) -> Operation {
        Operation::new("make group", request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP)
            .with_body(encode(group))
    }

    pub(super) fn reset_offset(&mut self) -> Operation {
        Operation::new("reset offset", request::INVOKE_BROKER_TO_RESET_OFFSET)
            .with("topic", self.topic())
            .with("group", self.group())
            .with("timestamp", self.pick(&[-1_i64, 0, 4_000_000_000_000]))
            .with("isForce", self.random.bool())
    }

    pub(super) fn admin_read(&mut self) -> Operation {
        let (topic, group) = (self.topic(), self.group());
        match self.random.u8(..17) {
            0 => Operation::new("topic stats", request::GET_TOPIC_STATS_INFO).with("topic", topic),
            1 => Operation::new("topic config", request::GET_TOPIC_CONFIG).with("topic", topic),
            2 => Operation::new("consumed by", request::QUERY_TOPIC_CONSUME_BY_WHO)
                .with("topic", topic),
            3 => Operation::new("topics of group", request::QUERY_TOPICS_BY_CONSUMER)
                .with("group", group),
            4 => Operation::new("subscription", request::QUERY_SUBSCRIPTION_BY_CONSUMER)
                .with("group", group)
                .with("topic", topic),
            5 => Operation::new("time span", request::QUERY_CONSUME_TIME_SPAN)
                .with("group", group)
                .with("topic", topic),
            6 => Operation::new("correction", request::QUERY_CORRECTION_OFFSET)
                .with("filterGroups", "")
                .with("compareGroup", group)
                .with("topic", topic),
            7 => Operation::new("queue entries", request::QUERY_CONSUME_QUEUE)
                .with("topic", topic)
                .with("queueId", self.queue_id())
                .with("index", self.random.i64(-1..4))
                .with("count", self.random.i32(0..5))
                .with("consumerGroup", group),
            8 => Operation::new("group config", request::GET_SUBSCRIPTIONGROUP_CONFIG)
                .with("group", group),
            9 => Operation::new("connections", request::GET_CONSUMER_CONNECTION_LIST)
                .with("consumerGroup", group),
            10 => Operation::new("producers", request::GET_PRODUCER_CONNECTION_LIST)
                .with("producerGroup", group),
            11 => Operation::new("members", request::GET_CONSUMER_LIST_BY_GROUP)
                .with("consumerGroup", group),
            12 => Operation::new("unknown code", 9999),
            13 => Operation::new("group's forbidden", request::UPDATE_AND_GET_GROUP_FORBIDDEN)
                .with("group", group)
                .with("topic", topic),
            14 => Operation::new("all consume stats", request::GET_CONSUME_STATS)
                .with("consumerGroup", group),
            15 => Operation::new("lite pull", request::LITE_PULL_MESSAGE)
                .with("consumerGroup", group)
                .with("topic", topic)
                .with("queueId", self.queue_id())
                .with("queueOffset", self.offset())
                .with("maxMsgNums", 4)
                .with("sysFlag", 0)
                .with("commitOffset", 0)
                .with("suspendTimeoutMillis", 0)
                .with("subscription", "*")
                .with("subVersion", 0)
                .with("expressionType", "TAG"),
            _ => Operation::new("consume stats", request::GET_CONSUME_STATS)
                .with("consumerGroup", group)
                .with("topic", topic),
        }
        .reading()
    }

    /// Several topics or groups at once.
    pub(super) fn make_several(&mut self) -> Operation {
        if self.random.bool() {
            // Java refuses a list with one name twice.
            let topics: BTreeSet<String> =
                (0..self.random.i32(1..4)).map(|_| self.topic()).collect();
            let body = CreateTopicListRequestBody {
                topic_config_list: topics
                    .iter()
                    .map(|topic| TopicConfig::new(topic.as_str(), self.random.i32(9..999), 6))
                    .collect(),
            };
            return Operation::new("make topics", request::UPDATE_AND_CREATE_TOPIC_LIST)
                .with_body(encode(&body));
        }
        let body = SubscriptionGroupList {
            group_config_list: (0..self.random.i32(1..4))
                .map(|_| SubscriptionGroupConfig::new(self.group()))
                .collect(),
        };
        Operation::new(
            "make groups",
            request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST,
        )
        .with_body(encode(&body))
    }

    /// A group may no longer read a topic, or again.
    pub(super) fn forbid(&mut self) -> Operation {
        Operation::new("forbid", request::UPDATE_AND_GET_GROUP_FORBIDDEN)
            .with("group", self.group())
            .with("topic", self.topic())
            .with("readable", self.random.bool())
    }
}
