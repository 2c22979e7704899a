//! END_TRANSACTION (37): a producer says what becomes of its half message. RESUME_CHECK_HALF_MESSAGE (323): one that was given
//! up is checked again.
//! Source of checks, order and remarks: `apache/rocketmq: broker/.../processor/EndTransactionProcessor.java`,
//! `AdminBrokerProcessor.java` (resumeCheckHalfMessage).

use super::op::Decision;
use super::{QUEUE, immunity_ms};
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::broker::send::Place;
use crate::clock;
use crate::log::{AppendError, Requirement};
use crate::net::Connection;
use bytes::Bytes;
use rocketmq_protocol::code::response;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{Record, View};
use rocketmq_protocol::{Command, message_id, sysflag, topic};
use rocketmq_store::RecordBatch;
use std::sync::Arc;

impl Broker {
    /// Answers when the decision is carried out; `None` also when the producer does not know yet.
    pub(in crate::broker) fn end_transaction(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        let group = command.ext.str("producerGroup")?;
        let half_offset = command.ext.i64("tranStateTableOffset")?;
        let physical_offset = command.ext.i64("commitLogOffset")?;
        let decision = command.ext.i32("commitOrRollback")?;
        let from_check = command.ext.bool_or("fromTransactionCheck", false)?;
        if self.is_slave() {
            return Ok(Some(command.response(response::SLAVE_NOT_AVAILABLE)));
        }
        if decision != sysflag::TRANSACTION_COMMIT && decision != sysflag::TRANSACTION_ROLLBACK {
            return Ok(None);
        }
        let not_found = || Refusal::system_error("Find prepared transaction message failed");
        let bytes = self
            .store
            .record_at(physical_offset)?
            .ok_or_else(not_found)?;
        let half = View::record(&bytes)
            .and_then(|view| view.decode())
            .map_err(|_| not_found())?;
        // An ordinary message has no business here, whoever names its offset.
        if half.topic != topic::TRANS_HALF {
            return Err(not_found());
        }
        if let Some(immunity) =
            properties::get(half.properties, name::CHECK_IMMUNITY_TIME_IN_SECONDS)
            && !immunity.is_empty()
            && !from_check
        {
            let time_out = self.config.get().transaction_time_out.as_millis() as i64;
            if clock::now_ms() - half.born_timestamp > immunity_ms(immunity, time_out) {
                return Ok(Some(command.response(response::ILLEGAL_OPERATION)));
            }
        }
        if properties::get(half.properties, name::PRODUCER_GROUP) != Some(group) {
            return Err(Refusal::system_error("The producer group wrong"));
        }
        if half.queue_offset != half_offset {
            return Err(Refusal::system_error(
                "The transaction state table offset wrong",
            ));
        }
        let Some(decided) = Decision::begin(self, half_offset) else {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "[OVERLOAD]system busy, start flow control for a while",
            ));
        };
        if decision == sysflag::TRANSACTION_ROLLBACK {
            decided.carried_out();
            return Ok(Some(command.response(response::SUCCESS)));
        }
        self.commit(connection, command, &half, decided)?;
        Ok(None)
    }

    /// Stores the message where it belongs; the decision and the answer follow when it is in the log. As in Java nobody waits
    /// for disk or slaves: while the half message stands without its op message, nothing is lost.
    fn commit(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
        half: &Record<'_>,
        decided: Decision,
    ) -> Result<(), Refusal> {
        let real = properties::get(half.properties, name::REAL_TOPIC);
        let queue_id = properties::get(half.properties, name::REAL_QID);
        let (Some(real), Some(Ok(queue_id))) = (real, queue_id.map(str::parse)) else {
            return Err(Refusal::system_error(format!(
                "the half message at {} does not say where it belongs: {} {real:?}, {} {queue_id:?}",
                half.physical_offset,
                name::REAL_TOPIC,
                name::REAL_QID
            )));
        };
        let mut place = Place {
            topic: self
                .topics
                .get(real)
                .map_or_else(|| real.into(), |config| Arc::clone(&config.topic_name)),
            queue_id,
            // Where it belongs is where it is now.
            properties: properties::edit(half.properties, &[], &[name::REAL_TOPIC, name::REAL_QID])
                .into(),
        };
        if let Some(level) = properties::get(half.properties, name::DELAY)
            && let Ok(level) = level.parse::<i32>()
            && level > 0
        {
            place = place.delayed(self, level);
        } else {
            place = self.in_light_queues(self.timed_if_asked(place)?)?;
        }
        let record = Record {
            queue_id: place.queue_id,
            sys_flag: half.sys_flag & !sysflag::TRANSACTION_MASK | sysflag::TRANSACTION_COMMIT,
            prepared_transaction_offset: half.physical_offset,
            topic: &place.topic,
            properties: &place.properties,
            ..half.clone()
        };
        let mut batch = RecordBatch::new();
        batch.push(&place.topic, &record).map_err(|error| {
            Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!("the half message cannot be committed: {error}"),
            )
        })?;
        let bytes = batch.byte_len() as u64;
        let broker = Arc::clone(self);
        let (topic, connection) = (place.topic, connection.clone());
        let oneway = command.is_oneway();
        let answer = command.response(response::SUCCESS);
        let done = Box::new(move |result: Result<_, AppendError>| {
            let answer = match result {
                Ok(_) => {
                    decided.carried_out();
                    broker.stats.put(&topic, 1, bytes);
                    answer
                }
                Err(error) => {
                    // The half message stays undecided, so its producer is asked again.
                    tracing::warn!(%error, "a transaction was not committed");
                    Command {
                        code: response::SERVICE_NOT_AVAILABLE,
                        remark: Some("Service not available now.".into()),
                        ..answer
                    }
                }
            };
            if !oneway {
                connection.reply(&answer);
            }
        });
        self.log
            .append(batch, Requirement::default(), done)
            .map_err(|error| super::super::sent::refusal_of_append(self, &error))
    }

    /// RESUME_CHECK_HALF_MESSAGE (323): puts a message that was given up back among the half messages, never checked so far.
    pub(in crate::broker) async fn resume_check(&self, command: &Command) -> Command {
        match self.put_back(command).await {
            Ok(()) => command.response(response::SUCCESS),
            Err(reason) => {
                tracing::warn!(reason, "a half message was not put back");
                command.error(
                    response::SYSTEM_ERROR,
                    "Exception was thrown when putting message back to RMQ_SYS_TRANS_HALF_TOPIC.",
                )
            }
        }
    }

    async fn put_back(&self, command: &Command) -> Result<(), String> {
        let id = command.ext.str("msgId").map_err(|e| e.to_string())?;
        let (_, at) = message_id::parse(id).ok_or_else(|| format!("{id} is no message id"))?;
        let bytes: Bytes = (self.store.record_at(at))
            .map_err(|e| e.to_string())?
            .ok_or_else(|| format!("there is no message at {at}"))?;
        let given_up = View::record(&bytes)
            .and_then(|view| view.decode())
            .map_err(|e| e.to_string())?;
        let text = properties::edit(
            given_up.properties,
            &[(name::TRANSACTION_CHECK_TIMES, "0")],
            &[],
        );
        let topic: Arc<str> = topic::TRANS_HALF.into();
        let record = Record {
            queue_id: QUEUE,
            topic: &topic,
            properties: &text,
            ..given_up
        };
        let mut batch = RecordBatch::new();
        batch.push(&topic, &record).map_err(|e| e.to_string())?;
        self.append_and_wait(batch)
            .await
            .map(|_| ())
            .map_err(|e| e.to_string())
    }
}
