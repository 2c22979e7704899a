//! CONSUMER_SEND_MSG_BACK (36): a message that could not be consumed goes to the group's retry topic after a delay, or,
//! after too many times, to its dead letter queue.
//! Source: `apache/rocketmq: broker/.../processor/AbstractSendMessageProcessor.java` (consumerSendMsgBack).

use super::Broker;
use super::refusal::Refusal;
use super::send::{Place, VERSION_MAX_RECONSUME, no_group};
use super::sent::refusal_of_append;
use crate::log::{AppendError, Requirement};
use crate::net::Connection;
use rocketmq_protocol::Command;
use rocketmq_protocol::code::response;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, Parsed, Record};
use rocketmq_protocol::topic::perm;
use rocketmq_protocol::{message_id, topic};
use rocketmq_store::RecordBatch;
use std::sync::Arc;

/// The delay level of the first retry when the consumer leaves it to the broker: 10 s.
const FIRST_LEVEL: i32 = 3;

impl Broker {
    /// Takes a message back; `None` when it will be answered once the copy is stored.
    pub(super) fn send_back(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        if self.is_slave() {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "[REJECTREQUEST]system busy, start flow control for a while",
            ));
        }
        let group_name = command.ext.str("group")?;
        let Some(group) = self.groups.find(group_name) else {
            return Err(no_group(group_name));
        };
        let config = self.config.get();
        if !perm::writable(config.broker_permission as i32) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!(
                    "the broker[{}] sending message is forbidden",
                    config.broker_ip1
                ),
            ));
        }
        if group.retry_queue_nums <= 0 {
            return Ok(Some(command.response(response::SUCCESS)));
        }
        let retry_topic = topic::retry(group_name);
        let both = perm::READ | perm::WRITE;
        let retry = (self.topics).create_for_send_back(&retry_topic, group.retry_queue_nums, both);
        if !perm::writable(retry.perm) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("the topic[{retry_topic}] sending message is forbidden"),
            ));
        }
        let offset = command.ext.i64("offset")?;
        let missing = || Refusal::system_error(format!("look message by offset failed, {offset}"));
        let bytes = self.store.record_at(offset)?.ok_or_else(missing)?;
        let Ok(Parsed::Record(origin, _)) = record::parse(&bytes, false) else {
            return Err(missing());
        };

        let max = match command.ext.opt_i32("maxReconsumeTimes")? {
            Some(max) if command.version >= VERSION_MAX_RECONSUME => max,
            _ => group.retry_max_times,
        };
        let mut level = command.ext.i32("delayLevel")?;
        let (config, queue_id) = if origin.reconsume_times >= max || level < 0 {
            level = 0;
            let dlq = (self.topics).create_for_send_back(&topic::dlq(group_name), 1, both);
            (dlq, 0)
        } else {
            if level == 0 {
                level = FIRST_LEVEL + origin.reconsume_times;
            }
            (retry, fastrand::i32(0..group.retry_queue_nums))
        };
        let mut origin_id = String::new();
        message_id::write(origin.store_host, origin.physical_offset, &mut origin_id);
        let level_text = level.to_string();
        let mut set = vec![(name::WAIT, "false"), (name::DELAY, level_text.as_str())];
        if properties::get(origin.properties, name::RETRY_TOPIC).is_none() {
            set.push((name::RETRY_TOPIC, origin.topic));
        }
        if properties::get(origin.properties, name::ORIGIN_MESSAGE_ID).is_none() {
            set.push((name::ORIGIN_MESSAGE_ID, &origin_id));
        }
        let mut place = Place {
            topic: Arc::clone(&config.topic_name),
            queue_id,
            properties: properties::edit(origin.properties, &set, &[]).into(),
        };
        if level > 0 {
            place = place.delayed(self, level);
        }
        let mut batch = RecordBatch::new();
        let record = Record {
            queue_id: place.queue_id,
            topic: &place.topic,
            properties: &place.properties,
            reconsume_times: origin.reconsume_times + 1,
            store_host: self.store_host,
            prepared_transaction_offset: 0,
            ..origin
        };
        (batch.push(&place.topic, &record)).map_err(|error| {
            Refusal::system_error(format!(
                "the copy of the message at {offset} for {} does not encode: {error}",
                place.topic
            ))
        })?;
        let from = properties::get(origin.properties, name::RETRY_TOPIC).unwrap_or(origin.topic);
        let sent_back = SentBack {
            group: group.group_name.clone(),
            from: from.into(),
            to: place.topic,
        };
        self.append_and_answer(connection, command, batch, sent_back);
        Ok(None)
    }

    fn append_and_answer(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
        batch: RecordBatch,
        sent_back: SentBack,
    ) {
        let bytes = batch.byte_len() as u64;
        let broker = Arc::clone(self);
        let connection_of_answer = connection.clone();
        let oneway = command.is_oneway();
        let success = command.response(response::SUCCESS);
        let done = Box::new(move |result: Result<_, AppendError>| {
            let answer = match result {
                Ok(_) => {
                    broker.stats.put(&sent_back.to, 1, bytes);
                    broker.stats.send_back(&sent_back.group, &sent_back.from);
                    success
                }
                Err(error) => {
                    let refusal = refusal_of_append(&broker, &error);
                    success.error(refusal.code, refusal.remark)
                }
            };
            if !oneway {
                connection_of_answer.reply(&answer);
            }
        });
        if let Err(error) = self.log.append(batch, Requirement::default(), done)
            && !oneway
        {
            connection.reply(&refusal_of_append(self, &error).answer(command));
        }
    }
}

/// What the statistics say of a message that came back.
struct SentBack {
    group: Arc<str>,
    /// The topic it was consumed from first.
    from: Arc<str>,
    /// Where its copy lies.
    to: Arc<str>,
}
