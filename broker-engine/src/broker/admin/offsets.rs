//! Consumer offsets on behalf of a tool: 222, 314, 308.

use super::consumer::subscribed_or_offline;
use super::{Answer, message_queue};
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use rocketmq_protocol::body::{QueryCorrectionOffsetBody, ResetOffsetBody, ResetOffsetBodyForC};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, Language};
use rocketmq_store::reader::Boundary;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Clients from V3_0_7_SNAPSHOT on understand RESET_CONSUMER_CLIENT_OFFSET.
pub(super) const V3_0_7: i32 = 28;

/// INVOKE_BROKER_TO_RESET_OFFSET (222).
pub(super) fn reset(broker: &Broker, command: &Command) -> Answer {
    if !broker.config.get().use_server_side_reset_offset {
        return reset_by_clients(broker, command);
    }
    if broker.is_slave() {
        return Err(Refusal::system_error(
            "Can not reset offset in slave broker",
        ));
    }
    let ext = &command.ext;
    let topic = ext.str("topic")?;
    let group = ext.str("group")?;
    let timestamp = ext.i64("timestamp")?;
    let queue_id = ext.opt_i32("queueId")?.unwrap_or(-1);
    let config = broker.topics.get(topic).ok_or_else(|| {
        Refusal::new(
            response::TOPIC_NOT_EXIST,
            format!("Topic {topic} does not exist"),
        )
    })?;
    if broker.groups.get(group).is_none() {
        let remark = format!("Group {group} does not exist");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    let mut targets = BTreeMap::new();
    if queue_id >= 0 {
        let offset = match ext.opt_i64("offset")?.filter(|offset| *offset != -1) {
            Some(offset) => {
                let (min, max) = broker.store.queue_bounds(topic, queue_id);
                if offset < min || offset > max + 1 {
                    return Err(Refusal::system_error(format!(
                        "Target offset {offset} not in consume queue range [{min}-{max}]"
                    )));
                }
                offset
            }
            None => offset_at(broker, topic, queue_id, timestamp)?,
        };
        targets.insert(queue_id, offset);
    } else {
        for queue_id in 0..config.read_queue_nums {
            targets.insert(queue_id, offset_at(broker, topic, queue_id, timestamp)?);
        }
    }
    if targets.is_empty() {
        return Err(Refusal::system_error("No queues to reset."));
    }
    let mut body = ResetOffsetBody::default();
    for (queue_id, offset) in targets {
        broker.offsets.assign_reset(group, topic, queue_id, offset);
        body.offset_table
            .insert(message_queue(broker, topic, queue_id), offset);
    }
    tracing::info!(
        topic,
        group,
        timestamp,
        queues = body.offset_table.len(),
        "consumer offsets reset"
    );
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// The queue's end for a negative time, else where the time is.
fn offset_at(broker: &Broker, topic: &str, queue_id: i32, timestamp: i64) -> Result<i64, Refusal> {
    if timestamp < 0 {
        return Ok(broker.store.queue_bounds(topic, queue_id).1);
    }
    Ok(broker
        .store
        .offset_by_time(topic, queue_id, timestamp, Boundary::Lower)?)
}

/// `useServerSideResetOffset=false`: the online clients move themselves (`Broker2Client.resetOffset`).
fn reset_by_clients(broker: &Broker, command: &Command) -> Answer {
    let ext = &command.ext;
    let topic = ext.str("topic")?;
    let group = ext.str("group")?;
    let timestamp = ext.i64("timestamp")?;
    let force = ext.bool_or("isForce", false)?;
    let Some(config) = broker.topics.get(topic) else {
        let remark =
            format!("[reset-offset] reset offset failed, no topic in this broker. topic={topic}");
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
    };
    let mut body = ResetOffsetBody::default();
    for queue_id in 0..config.write_queue_nums {
        let Some(consumed) = broker.offsets.query(group, topic, queue_id) else {
            return Err(Refusal::system_error(format!(
                "THe consumer group <{group}> not exist"
            )));
        };
        let at = offset_at(broker, topic, queue_id, timestamp)?.max(0);
        let target = if force { at } else { at.min(consumed) };
        body.offset_table
            .insert(message_queue(broker, topic, queue_id), target);
    }
    let members = broker.clients.consumers(group);
    if members.is_empty() {
        let remark = format!(
            "Consumer not online, so can not reset offset, Group: {group} Topic: {topic} Timestamp: {timestamp}"
        );
        return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
    }
    let text = if command.language == Language::CPP {
        // C++ clients read no objects as keys.
        json_body(&ResetOffsetBodyForC::from(&body))
    } else {
        json_body(&body)
    };
    for member in members {
        if member.version < V3_0_7 {
            let remark = format!(
                "the client does not support this feature. version={}",
                member.version
            );
            return Err(Refusal::system_error(remark));
        }
        let header = ExtFields::new()
            .with("group", group)
            .with("topic", topic)
            .with("timestamp", timestamp);
        let order = Command::request(
            request::RESET_CONSUMER_CLIENT_OFFSET,
            header.with("isForce", force),
        );
        member.connection.oneway(order.with_body(text.clone()));
    }
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// CLONE_GROUP_OFFSET (314).
pub(super) fn clone(broker: &Broker, command: &Command) -> Answer {
    let source = command.ext.str("srcGroup")?;
    let target = command.ext.str("destGroup")?;
    let offline = command.ext.bool_or("offline", false)?;
    let topics: BTreeSet<Arc<str>> = match command
        .ext
        .get("topic")
        .filter(|topic| !topic.trim().is_empty())
    {
        Some(topic) => BTreeSet::from([topic.into()]),
        None => broker.offsets.topics_of(source),
    };
    for topic in topics {
        if broker.topics.get(&topic).is_some()
            && (offline || subscribed_or_offline(broker, source, &topic))
        {
            broker.offsets.clone_offsets(source, target, &topic);
        }
    }
    Ok(command.response(response::SUCCESS))
}

/// QUERY_CORRECTION_OFFSET (308): the least offset of any group in each queue, or i64::MAX where the compared group is behind it.
pub(super) fn correction(broker: &Broker, command: &Command) -> Answer {
    let topic = command.ext.str("topic")?;
    let compared = command.ext.str("compareGroup")?;
    let left_out: Vec<&str> = command
        .ext
        .get("filterGroups")
        .unwrap_or_default()
        .split(',')
        .collect();
    let mut least: BTreeMap<i32, i64> = BTreeMap::new();
    for group in broker.offsets.groups_of(topic) {
        if left_out.contains(&&*group) {
            continue;
        }
        for (queue_id, offset) in broker.offsets.query_all(&group, topic) {
            if offset >= broker.store.queue_bounds(topic, queue_id).0 {
                least
                    .entry(queue_id)
                    .and_modify(|least| *least = offset.min(*least))
                    .or_insert(offset);
            }
        }
    }
    for (queue_id, offset) in broker.offsets.query_all(compared, topic) {
        if let Some(least) = least.get_mut(&queue_id).filter(|least| **least > offset) {
            *least = i64::MAX;
        }
    }
    let body = QueryCorrectionOffsetBody {
        correction_offsets: least,
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}
