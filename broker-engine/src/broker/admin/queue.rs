//! Queues: 29, 30, 31, 32, 321, and the housekeeping of 306, 316, 329.

use super::{Answer, store_time};
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use rocketmq_protocol::Command;
use rocketmq_protocol::body::{ConsumeQueueData, QueryConsumeQueueResponseBody};
use rocketmq_protocol::code::response;
use rocketmq_store::reader::Boundary;

/// Entries that one QUERY_CONSUME_QUEUE may bring.
const ENTRIES_MAX: i32 = 4096;

/// SEARCH_OFFSET_BY_TIMESTAMP (29).
pub(super) fn offset_by_time(broker: &Broker, command: &Command) -> Answer {
    let boundary = match command.ext.get("boundaryType") {
        Some(kind) if kind.eq_ignore_ascii_case("upper") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let topic = command.ext.str("topic")?;
    let queue_id = command.ext.i32("queueId")?;
    let timestamp = command.ext.i64("timestamp")?;
    let offset = broker
        .store
        .offset_by_time(topic, queue_id, timestamp, boundary)?;
    Ok(command.response(response::SUCCESS).with("offset", offset))
}

/// GET_MAX_OFFSET (30).
pub(super) fn max_offset(broker: &Broker, command: &Command) -> Answer {
    let (_, max) = broker
        .store
        .queue_bounds(command.ext.str("topic")?, command.ext.i32("queueId")?);
    Ok(command.response(response::SUCCESS).with("offset", max))
}

/// GET_MIN_OFFSET (31).
pub(super) fn min_offset(broker: &Broker, command: &Command) -> Answer {
    let (min, _) = broker
        .store
        .queue_bounds(command.ext.str("topic")?, command.ext.i32("queueId")?);
    Ok(command.response(response::SUCCESS).with("offset", min))
}

/// GET_EARLIEST_MSG_STORETIME (32): -1 for an empty queue.
pub(super) fn earliest_store_time(broker: &Broker, command: &Command) -> Answer {
    let topic = command.ext.str("topic")?;
    let queue_id = command.ext.i32("queueId")?;
    let (min, _) = broker.store.queue_bounds(topic, queue_id);
    let time = store_time(broker, topic, queue_id, min, -1)?;
    Ok(command.response(response::SUCCESS).with("timestamp", time))
}

/// QUERY_CONSUME_QUEUE (321).
pub(super) fn entries(broker: &Broker, command: &Command) -> Answer {
    let topic = command.ext.str("topic")?;
    let queue_id = command.ext.i32("queueId")?;
    let index = command.ext.i64("index")?;
    let count = command.ext.i32("count")?.clamp(0, ENTRIES_MAX);
    let there = broker.topics.get(topic).is_some_and(|config| {
        (0..config.read_queue_nums.max(config.write_queue_nums)).contains(&queue_id)
    });
    if !there {
        return Err(Refusal::system_error(format!(
            "{queue_id}@{topic} is not exist!"
        )));
    }
    let (min, max) = broker.store.queue_bounds(topic, queue_id);
    if !(min..max).contains(&index) {
        let remark = format!("Index {index} of {queue_id}@{topic} is not exist!");
        return Ok(command.error(response::SUCCESS, remark));
    }
    let mut body = QueryConsumeQueueResponseBody {
        max_queue_index: max,
        min_queue_index: min,
        ..Default::default()
    };
    if let Some(group) = command.ext.get("consumerGroup") {
        match broker.clients.subscription(group, topic) {
            Some(subscription) => {
                body.subscription_data = Some((*subscription).clone());
                // Java's bloom filter data, as JSON; this engine compiles expressions and keeps none.
                body.filter_data = Some("null".into());
            }
            None => body.filter_data = Some(format!("{group}@{topic} is not online!")),
        }
    }
    let found = broker
        .store
        .queue_entries(topic, queue_id, index, count as usize)?;
    body.queue_data = found
        .into_iter()
        .map(|entry| ConsumeQueueData {
            physic_offset: entry.physical_offset,
            physic_size: entry.size,
            tags_code: entry.tags_code,
            ..ConsumeQueueData::default()
        })
        .collect();
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// CLEAN_EXPIRED_CONSUMEQUEUE (306), CLEAN_UNUSED_TOPIC (316), DELETE_EXPIRED_COMMITLOG (329): one retention run does all three, behind
/// the answer.
pub(super) fn clean(broker: &Broker, command: &Command) -> Answer {
    broker.log.clean_now();
    Ok(command.response(response::SUCCESS))
}
