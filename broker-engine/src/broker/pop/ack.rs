//! What a consumer says of messages it popped: ACK_MESSAGE (200051), BATCH_ACK_MESSAGE (200151), CHANGE_MESSAGE_INVISIBLETIME (200053).
//! Source: `apache/rocketmq: broker/.../processor/{AckMessageProcessor,ChangeInvisibleTimeProcessor}.java`.

use super::order::Acknowledged;
use super::{no_topic, queue_is_illegal};
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::broker::sent::refusal_of_append;
use crate::clock;
use crate::log::AppendError;
use crate::net::Connection;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rocketmq_protocol::body::{BatchAck, BatchAckMessageRequestBody};
use rocketmq_protocol::code::response;
use rocketmq_protocol::pop::{self, Ack, CheckPoint, Handle};
use rocketmq_protocol::{Command, json};
use rocketmq_store::RecordBatch;
use std::sync::Arc;

/// One popped message as a request names it.
struct Named<'c> {
    group: &'c str,
    topic: &'c str,
    queue_id: i32,
    offset: i64,
    handle: Handle,
}

impl<'c> Named<'c> {
    fn read(
        broker: &Broker,
        connection: &Connection,
        command: &'c Command,
    ) -> Result<Named<'c>, Refusal> {
        refuse_on_slave(broker)?;
        let ext = &command.ext;
        let (group, topic) = (ext.str("consumerGroup")?, ext.str("topic")?);
        let (queue_id, offset) = (ext.i32("queueId")?, ext.i64("offset")?);
        let handle = ext.str("extraInfo")?;
        let config = broker.topics.get(topic).ok_or_else(|| no_topic(topic))?;
        if queue_id < 0 || queue_id >= config.read_queue_nums {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                queue_is_illegal(connection, &config, queue_id),
            ));
        }
        let handle =
            Handle::parse(handle).map_err(|error| Refusal::system_error(error.to_string()))?;
        check_revive_queue(broker, handle.revive_queue)?;
        Ok(Named {
            group,
            topic,
            queue_id,
            offset,
            handle,
        })
    }

    fn ack(&self) -> Ack {
        Ack {
            offset: self.offset,
            offsets: Vec::new(),
            broker_name: self.handle.broker_name.clone(),
            group: self.group.to_owned(),
            pop_time: self.handle.pop_time,
            queue_id: self.queue_id,
            start_offset: self.handle.start_offset,
            topic: self.topic.to_owned(),
        }
    }

    fn revive_ms(&self) -> i64 {
        self.handle
            .pop_time
            .saturating_add(self.handle.invisible_time)
    }
}

fn refuse_on_slave(broker: &Broker) -> Result<(), Refusal> {
    if broker.is_slave() {
        return Err(Refusal::new(
            response::SYSTEM_BUSY,
            "[REJECTREQUEST]system busy, start flow control for a while",
        ));
    }
    Ok(())
}

/// A handle comes from outside: what it names must be one of the revive log's queues.
fn check_revive_queue(broker: &Broker, queue: i32) -> Result<(), Refusal> {
    let queues = broker.config.get().revive_queue_num as i32;
    if queue == pop::ORDER_REVIVE_QUEUE || (0..queues).contains(&queue) {
        return Ok(());
    }
    Err(Refusal::system_error(format!(
        "the receipt handle names revive queue {queue}; there are {queues}"
    )))
}

impl Broker {
    /// ACK_MESSAGE.
    pub(in crate::broker) fn ack(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        let named = Named::read(self, connection, command)?;
        let (min, max) = self.store.queue_bounds(named.topic, named.queue_id);
        if named.offset < min || named.offset > max {
            return Err(Refusal::new(
                response::NO_MESSAGE,
                format!(
                    "offset is illegal, key:{}@{}, commit:{}, store:{min}~{max}",
                    named.topic, named.queue_id, named.offset
                ),
            ));
        }
        if named.handle.is_order() {
            self.ack_in_order(
                named.topic,
                named.group,
                named.queue_id,
                named.offset,
                named.handle.pop_time,
            );
            return Ok(Some(command.response(response::SUCCESS)));
        }
        let mut batch = RecordBatch::new();
        self.push_ack(
            &mut batch,
            &named.ack(),
            named.handle.revive_queue,
            named.revive_ms(),
        )?;
        self.answer_when_stored(
            connection,
            command,
            batch,
            command.response(response::SUCCESS),
        )
    }

    /// BATCH_ACK_MESSAGE: acknowledgements that name nothing there is are passed over, as in Java.
    pub(in crate::broker) fn batch_ack(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        refuse_on_slave(self)?;
        let body: BatchAckMessageRequestBody = if command.body.is_empty() {
            BatchAckMessageRequestBody::default()
        } else {
            json::from_slice(&command.body)?
        };
        if body.acks.is_empty() {
            return Err(Refusal::new(
                response::NO_MESSAGE,
                "the batch holds no acknowledgement",
            ));
        }
        let mut batch = RecordBatch::new();
        for each in &body.acks {
            self.push_batch_ack(&mut batch, each, &body.broker_name)?;
        }
        let answer = command.response(response::SUCCESS);
        if batch.is_empty() {
            return Ok(Some(answer));
        }
        self.answer_when_stored(connection, command, batch, answer)
    }

    fn push_batch_ack(
        self: &Arc<Self>,
        batch: &mut RecordBatch,
        ack: &BatchAck,
        broker_name: &str,
    ) -> Result<(), Refusal> {
        let Some(topic) = pop::marked_topic(&ack.retry, &ack.consumer_group, &ack.topic) else {
            return Err(Refusal::system_error(format!(
                "{:?} is no retry mark: 0, 1 or 2",
                ack.retry
            )));
        };
        check_revive_queue(self, ack.revive_queue_id)?;
        let bits = (STANDARD.decode(&ack.bit_set)).map_err(|error| {
            Refusal::system_error(format!("the bit set of a batch ack is no base64: {error}"))
        })?;
        let (min, max) = self.store.queue_bounds(&topic, ack.queue_id);
        let offsets: Vec<i64> = (0..bits.len() * 8)
            .filter(|at| bits[at / 8] & (1 << (at % 8)) != 0)
            .filter_map(|at| ack.start_offset.checked_add(at as i64))
            .filter(|offset| (min..=max).contains(offset))
            .collect();
        if ack.revive_queue_id == pop::ORDER_REVIVE_QUEUE {
            for offset in offsets {
                self.ack_in_order(
                    &topic,
                    &ack.consumer_group,
                    ack.queue_id,
                    offset,
                    ack.pop_time,
                );
            }
            return Ok(());
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let message = Ack {
            offset: -1,
            offsets,
            broker_name: broker_name.to_owned(),
            group: ack.consumer_group.clone(),
            pop_time: ack.pop_time,
            queue_id: ack.queue_id,
            start_offset: ack.start_offset,
            topic,
        };
        let revive_ms = ack.pop_time.saturating_add(ack.invisible_time);
        self.push_ack(batch, &message, ack.revive_queue_id, revive_ms)
    }

    fn ack_in_order(
        self: &Arc<Self>,
        topic: &str,
        group: &str,
        queue_id: i32,
        offset: i64,
        pop_time: i64,
    ) {
        if self
            .offsets
            .query(group, topic, queue_id)
            .is_some_and(|committed| offset < committed)
        {
            return;
        }
        if let Acknowledged::Commit(next) =
            (self.pops.orders).acknowledge(topic, group, queue_id, offset, pop_time)
            && !self.offsets.reset_pending(group, topic, queue_id)
        {
            self.offsets.commit(group, topic, queue_id, next);
        }
        let blocked =
            (self.pops.orders).blocked_until(topic, group, queue_id, None, clock::now_ms());
        if blocked.is_none() {
            self.wake_pops(topic, group, queue_id);
        }
    }

    /// CHANGE_MESSAGE_INVISIBLETIME: a checkpoint of its own for the message, and the old one's acknowledgement behind it.
    pub(in crate::broker) fn change_invisible_time(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        let named = Named::read(self, connection, command)?;
        let invisible_time = command.ext.i64("invisibleTime")?;
        let (min, max) = self.store.queue_bounds(named.topic, named.queue_id);
        if named.offset < min || named.offset >= max {
            return Err(Refusal::new(
                response::NO_MESSAGE,
                format!(
                    "offset is illegal, key:{}@{}, commit:{}, store:{min}~{max}",
                    named.topic, named.queue_id, named.offset
                ),
            ));
        }
        let now_ms = clock::now_ms();
        let answer = |pop_time: i64, invisible_time: i64| {
            (command.response(response::SUCCESS))
                .with("popTime", pop_time)
                .with("invisibleTime", invisible_time)
                .with("reviveQid", named.handle.revive_queue)
        };
        if named.handle.is_order() {
            let committed = self.offsets.query(named.group, named.topic, named.queue_id);
            if committed.is_some_and(|committed| named.offset < committed) {
                // Done with already: there is nothing to change.
                return Ok(Some(command.response(response::SUCCESS)));
            }
            let (pop_time, visible_ms) =
                (named.handle.pop_time, now_ms.saturating_add(invisible_time));
            (self.pops.orders).set_visible(
                named.topic,
                named.group,
                named.queue_id,
                named.offset,
                pop_time,
                visible_ms,
            );
            // Who waits for the queue waits until another time now.
            self.wake_pops(named.topic, named.group, named.queue_id);
            return Ok(Some(answer(pop_time, visible_ms - pop_time)));
        }
        let check = CheckPoint {
            broker_name: named.handle.broker_name.clone(),
            group: named.group.to_owned(),
            diffs: vec![0],
            invisible_time,
            count: 1,
            pop_time: now_ms,
            queue_id: named.queue_id,
            start_offset: named.offset,
            topic: named.topic.to_owned(),
            ..CheckPoint::default()
        };
        let mut batch = RecordBatch::new();
        self.push_check_point(&mut batch, &check, named.handle.revive_queue)?;
        self.push_ack(
            &mut batch,
            &named.ack(),
            named.handle.revive_queue,
            named.revive_ms(),
        )?;
        self.answer_when_stored(connection, command, batch, answer(now_ms, invisible_time))
    }

    fn answer_when_stored(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
        batch: RecordBatch,
        answer: Command,
    ) -> Result<Option<Command>, Refusal> {
        let (broker, to) = (Arc::clone(self), connection.clone());
        let oneway = command.is_oneway();
        let done = Box::new(move |result: Result<_, AppendError>| {
            let answer = match result {
                Ok(_) => answer,
                Err(error) => {
                    let refusal = refusal_of_append(&broker, &error);
                    answer.error(refusal.code, refusal.remark)
                }
            };
            if !oneway {
                to.reply(&answer);
            }
        });
        let requirement = self.requirement(&self.config.get());
        (self.log.append(batch, requirement, done))
            .map_err(|error| refusal_of_append(self, &error))?;
        Ok(None)
    }
}
