//! What consumers and producers are and how far they got: 203, 204, 328, 343, 345, 208, 317, 303.

use super::topic::not_exist;
use super::{Answer, message_queue, store_time};
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use crate::clock;
use rocketmq_protocol::Command;
use rocketmq_protocol::body::{
    ConsumeStats, ConsumeStatsList, OffsetWrapper, QueryConsumeTimeSpanBody,
    QuerySubscriptionResponseBody, QueueTimeSpan, TopicList,
};
use rocketmq_protocol::code::response;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// GET_CONSUMER_CONNECTION_LIST (203).
pub(super) fn connections(broker: &Broker, command: &Command) -> Answer {
    let group = command.ext.str("consumerGroup")?;
    let Some(body) = broker.clients.consumer_connection(group) else {
        let remark = format!("the consumer group[{group}] not online");
        return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// GET_PRODUCER_CONNECTION_LIST (204).
pub(super) fn producer_connections(broker: &Broker, command: &Command) -> Answer {
    let group = command.ext.str("producerGroup")?;
    let Some(body) = broker.clients.producer_connection(group) else {
        return Err(Refusal::system_error(format!(
            "the producer group[{group}] not exist"
        )));
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// GET_ALL_PRODUCER_INFO (328).
pub(super) fn producers(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&broker.clients.producer_table())))
}

/// QUERY_TOPICS_BY_CONSUMER (343).
pub(super) fn topics(broker: &Broker, command: &Command) -> Answer {
    let topics = broker.offsets.topics_of(command.ext.str("group")?);
    let body = TopicList {
        topic_list: topics.iter().map(ToString::to_string).collect(),
        broker_addr: Some(broker.config.get().broker_addr()),
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER (345).
pub(super) fn subscription(broker: &Broker, command: &Command) -> Answer {
    let group = command.ext.str("group")?;
    let topic = command.ext.get("topic");
    let subscription = topic.and_then(|topic| broker.clients.subscription(group, topic));
    let body = QuerySubscriptionResponseBody {
        group: group.into(),
        topic: topic.unwrap_or_default().into(),
        subscription_data: subscription.map(|subscription| (*subscription).clone()),
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// GET_CONSUME_STATS (208).
pub(super) fn stats(broker: &Broker, command: &Command) -> Answer {
    let group = command.ext.str("consumerGroup")?;
    let listed = command.ext.get("topicList").unwrap_or_default();
    let listed: BTreeSet<Arc<str>> = listed
        .split(';')
        .filter(|topic| !topic.is_empty())
        .map(Arc::from)
        .collect();
    let topics = if listed.is_empty() {
        let named = command
            .ext
            .get("topic")
            .filter(|topic| !topic.trim().is_empty());
        let mut topics = named.map_or_else(
            || broker.offsets.topics_of(group),
            |topic| BTreeSet::from([topic.into()]),
        );
        topics.retain(|topic| subscribed_or_offline(broker, group, topic));
        topics
    } else {
        listed
    };
    let mut stats = ConsumeStats::default();
    for topic in topics {
        if let Some(config) = broker.topics.get(&topic) {
            add_stats(broker, group, &topic, config.read_queue_nums, &mut stats)?;
        }
    }
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&stats)))
}

/// Topics that the group's online members do not subscribe to are left out of its figures.
pub(super) fn subscribed_or_offline(broker: &Broker, group: &str, topic: &str) -> bool {
    broker.clients.subscription_count(group) == 0
        || broker.clients.subscription(group, topic).is_some()
}

fn add_stats(
    broker: &Broker,
    group: &str,
    topic: &str,
    queues: i32,
    stats: &mut ConsumeStats,
) -> Result<(), Refusal> {
    for queue_id in 0..queues {
        let consumer_offset = broker
            .offsets
            .query(group, topic, queue_id)
            .unwrap_or(0)
            .max(0);
        let offset = OffsetWrapper {
            broker_offset: broker.store.queue_bounds(topic, queue_id).1.max(0),
            consumer_offset,
            // Java keeps a second table of pull offsets; it only ever runs ahead with POP.
            pull_offset: consumer_offset,
            last_timestamp: store_time(broker, topic, queue_id, consumer_offset - 1, 0)?,
        };
        stats
            .offset_table
            .insert(message_queue(broker, topic, queue_id), offset);
    }
    stats.consume_tps += broker.stats.group_get_tps(group, topic, clock::now_ms());
    Ok(())
}

/// GET_BROKER_CONSUME_STATS (317): the same for every group, a topic at a time.
pub(super) fn stats_of_all(broker: &Broker, command: &Command) -> Answer {
    let ordered_only = command.ext.bool_or("isOrder", false)?;
    let mut body = ConsumeStatsList {
        broker_addr: broker.config.get().broker_addr(),
        ..ConsumeStatsList::default()
    };
    for group in broker.groups.names() {
        let mut of_group = Vec::new();
        for topic in broker.offsets.topics_of(&group) {
            let Some(config) = broker.topics.get(&topic) else {
                continue;
            };
            if (ordered_only && !config.order) || !subscribed_or_offline(broker, &group, &topic) {
                continue;
            }
            let mut stats = ConsumeStats::default();
            add_stats(broker, &group, &topic, config.write_queue_nums, &mut stats)?;
            for offset in stats.offset_table.values_mut() {
                // Java leaves it unset here.
                offset.pull_offset = 0;
                body.total_diff += offset.broker_offset - offset.consumer_offset;
                body.total_inflight_diff += offset.pull_offset - offset.consumer_offset;
            }
            of_group.push(stats);
        }
        body.consume_stats_list
            .push(BTreeMap::from([(group.to_string(), of_group)]));
    }
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// QUERY_CONSUME_TIME_SPAN (303).
pub(super) fn time_span(broker: &Broker, command: &Command) -> Answer {
    let name = command.ext.str("topic")?;
    let group = command.ext.str("group")?;
    let topic = broker.topics.get(name).ok_or_else(|| not_exist(name))?;
    let now_ms = clock::now_ms();
    let mut spans = Vec::new();
    for queue_id in 0..topic.write_queue_nums {
        let (min, max) = broker.store.queue_bounds(name, queue_id);
        let time_of = |offset| store_time(broker, name, queue_id, offset, -1);
        let min_time_stamp = if max > min { time_of(min)? } else { -1 };
        let consumed = broker.offsets.query(group, name, queue_id).unwrap_or(-1);
        spans.push(QueueTimeSpan {
            message_queue: message_queue(broker, name, queue_id),
            min_time_stamp,
            max_time_stamp: time_of(max - 1)?,
            consume_time_stamp: if consumed > 0 {
                time_of(consumed - 1)?
            } else {
                min_time_stamp
            },
            delay_time: if consumed < max {
                now_ms - time_of(consumed.max(0))?
            } else {
                0
            },
        });
    }
    let body = QueryConsumeTimeSpanBody {
        consume_time_span_set: spans,
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}
