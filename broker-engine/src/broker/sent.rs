//! Sends that the log has: who is told what when the batch's fate is known. Runs on whatever thread knows it, so
//! all answers of a batch become one buffer, and nothing here waits.
//! Source of codes and remarks: `apache/rocketmq: broker/.../processor/SendMessageProcessor.java` (handlePutMessageResult).

use super::Broker;
use super::refusal::Refusal;
use crate::config::BrokerConfig;
use crate::log::{AppendError, Outcome};
use crate::net::Connection;
use bytes::BytesMut;
use rocketmq_protocol::code::response;
use rocketmq_protocol::hot::{SendReplies, SendReply};
use rocketmq_protocol::properties::name;
use rocketmq_protocol::{Command, Serialize, message_id};
use rocketmq_store::Placed;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a unique key as client libraries make it.
const KEY_ROOM: usize = 32;

/// Who must be told how a batch went.
#[derive(Default)]
pub(super) struct Answers {
    sends: Vec<Sent>,
    /// Whose they are: each connection with the number of its last send plus one.
    whose: Vec<(Connection, usize)>,
    /// Unique keys of all `sends`, back to back.
    keys: String,
}

impl Answers {
    /// With room for the answers to so many sends.
    pub(super) fn with_room(sends: usize) -> Answers {
        Answers {
            sends: Vec::with_capacity(sends),
            whose: Vec::new(),
            keys: String::with_capacity(sends * KEY_ROOM),
        }
    }

    /// How many sends are to be answered.
    pub(super) fn len(&self) -> usize {
        self.sends.len()
    }

    /// Keeps a unique key for the send that is taken next; its place.
    pub(super) fn key(&mut self, text: &str) -> Range<usize> {
        let start = self.keys.len();
        self.keys.push_str(text);
        start..self.keys.len()
    }

    /// Takes a send of a connection's.
    pub(super) fn push(&mut self, connection: &Connection, sent: Sent) {
        self.sends.push(sent);
        let end = self.sends.len();
        match self.whose.last_mut() {
            Some((last, last_end)) if last.id() == connection.id() => *last_end = end,
            _ => self.whose.push((connection.clone(), end)),
        }
    }
}

/// One request whose records are in a batch.
pub(super) struct Sent {
    pub opaque: i32,
    pub serialize: Serialize,
    pub oneway: bool,
    /// The queue the client is told, which for a delayed message is not the one it lies in meanwhile.
    pub queue_id: i32,
    pub topic: Arc<str>,
    pub records: usize,
    pub bytes: usize,
    pub key: Range<usize>,
    /// What names a timer message to whoever takes it back.
    pub recall_handle: Option<String>,
}

/// Answers of a batch that the log has; dropping it unanswered tells the clients that the broker is busy.
pub(super) struct Unanswered {
    pub broker: Arc<Broker>,
    pub answers: Answers,
}

impl Unanswered {
    pub(super) fn answer(mut self, result: Result<(Placed, Outcome), AppendError>) {
        match result {
            Ok((placed, outcome)) => self.stored(&placed, outcome),
            Err(error) => self.refuse(&refusal_of_append(&self.broker, &error)),
        }
    }

    fn stored(&mut self, placed: &Placed, outcome: Outcome) {
        let answers = std::mem::take(&mut self.answers);
        let config = self.broker.config.get();
        let code = match outcome {
            Outcome::Stored => response::SUCCESS,
            Outcome::FlushTimeout => response::FLUSH_DISK_TIMEOUT,
            Outcome::ReplicaTimeout => response::FLUSH_SLAVE_TIMEOUT,
            Outcome::ReplicaMissing => response::SLAVE_NOT_AVAILABLE,
        };
        let mut out = BytesMut::with_capacity(answers.sends.len() * 384 + 512);
        let mut replies = SendReplies::new(code, &config.region_id, config.trace_on);
        let mut ids = String::with_capacity(64);
        let mut records = placed.records.iter();
        let mut run: Option<(Arc<str>, u64, u64)> = None;
        let mut whose = answers.whose.into_iter().peekable();
        for (number, sent) in answers.sends.into_iter().enumerate() {
            while let Some((connection, _)) = whose.next_if(|(_, end)| *end <= number) {
                give(&connection, &mut out);
            }
            let mut first = None;
            ids.clear();
            for (queue_offset, physical_offset) in records.by_ref().take(sent.records) {
                first.get_or_insert(*queue_offset);
                if !sent.oneway {
                    if !ids.is_empty() {
                        ids.push(',');
                    }
                    message_id::write(self.broker.store_host, *physical_offset, &mut ids);
                }
            }
            match &mut run {
                Some((topic, messages, bytes)) if Arc::ptr_eq(topic, &sent.topic) => {
                    *messages += sent.records as u64;
                    *bytes += sent.bytes as u64;
                }
                _ => {
                    if let Some((topic, messages, bytes)) = run.take() {
                        self.broker.stats.put(&topic, messages, bytes);
                    }
                    run = Some((
                        Arc::clone(&sent.topic),
                        sent.records as u64,
                        sent.bytes as u64,
                    ));
                }
            }
            if sent.oneway {
                continue;
            }
            let key = &answers.keys[sent.key];
            let reply = SendReply {
                opaque: sent.opaque,
                serialize: sent.serialize,
                msg_id: &ids,
                queue_id: sent.queue_id,
                queue_offset: first.unwrap_or_default(),
                transaction_id: (!key.is_empty()).then_some(key),
                recall_handle: sent.recall_handle.as_deref(),
            };
            replies.encode(&reply, &mut out);
        }
        if let Some((topic, messages, bytes)) = run {
            self.broker.stats.put(&topic, messages, bytes);
        }
        for (connection, _) in whose {
            give(&connection, &mut out);
        }
    }

    fn refuse(&mut self, refusal: &Refusal) {
        let config = self.broker.config.get();
        let mut out = BytesMut::new();
        let answers = std::mem::take(&mut self.answers);
        let mut whose = answers.whose.into_iter().peekable();
        for (number, sent) in answers.sends.into_iter().enumerate() {
            while let Some((connection, _)) = whose.next_if(|(_, end)| *end <= number) {
                give(&connection, &mut out);
            }
            let (opaque, serialize) = (sent.opaque, sent.serialize);
            let command =
                refusal_of_send(&self.broker, &config, opaque, serialize, refusal.clone());
            if !sent.oneway {
                command.encode(&mut out);
            }
        }
        for (connection, _) in whose {
            give(&connection, &mut out);
        }
    }
}

/// Queues what was written since the last call; the buffer is shared, not copied.
fn give(connection: &Connection, out: &mut BytesMut) {
    if !out.is_empty() {
        connection.send(out.split().freeze());
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if !self.answers.sends.is_empty() {
            let refusal = refusal_of_append(&self.broker, &AppendError::Busy(0));
            self.refuse(&refusal);
        }
    }
}

pub(super) fn not_available(broker: &Broker) -> Refusal {
    let used = f64::from(broker.store.disk_used_percent()) / 100.0;
    Refusal::new(
        response::SERVICE_NOT_AVAILABLE,
        format!(
            "service not available now. It may be caused by one of the following reasons: the broker's disk is full [CL: {used:5.2} CQ: {used:5.2} INDEX: {used:5.2}], messages are put to the slave, message store has been shut down, etc."
        ),
    )
}

/// The code and remark of a batch that was not stored.
pub(super) fn refusal_of_append(broker: &Broker, error: &AppendError) -> Refusal {
    match error {
        AppendError::Busy(_) => Refusal::new(
            response::SYSTEM_BUSY,
            "[OVERLOAD]system busy, start flow control for a while",
        ),
        AppendError::DiskFull(_) | AppendError::Slave => not_available(broker),
        AppendError::Stopped(reason) => Refusal::new(
            response::SERVICE_NOT_AVAILABLE,
            format!("the message store has been shut down: {reason}"),
        ),
    }
}

pub(super) fn refusal_of_send(
    broker: &Broker,
    config: &BrokerConfig,
    opaque: i32,
    serialize: Serialize,
    refusal: Refusal,
) -> Command {
    broker.stats.put_failed();
    // Clients look these two up in every answer to a send (`SendMessageProcessor.preSend`).
    let mut answer = super::answer(opaque, serialize, refusal.code)
        .with(name::MSG_REGION, &config.region_id)
        .with(name::TRACE_ON, trace_on(config));
    answer.remark = Some(refusal.remark);
    answer
}

pub(super) fn trace_on(config: &BrokerConfig) -> &'static str {
    if config.trace_on { "true" } else { "false" }
}
