//! Half messages that stay undecided: their producers are asked, a limited number of times, and then they are given up.
//!
//! A round goes through the half queue from where the last one ended. What has an op message is done with. What is younger
//! than `transactionTimeOut` ends the round. Anything else is appended to the half queue again, one check older, and its
//! producer group is asked about that copy: so the queue's head always moves on, and a round reads what came since the last.
//! Source: `apache/rocketmq: broker/.../transaction/queue/TransactionalMessageServiceImpl.java` (check).

use super::op::REMOVE_TAG;
use super::{GROUP, QUEUE, immunity_ms};
use crate::broker::Broker;
use crate::clock;
use bytes::{Bytes, BytesMut};
use rocketmq_protocol::code::request;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, Record, View};
use rocketmq_protocol::topic::{self, perm};
use rocketmq_protocol::{Command, ExtFields, message_id};
use rocketmq_store::RecordBatch;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Entries read in one go.
const READ: usize = 32;
/// Decisions of later half messages remembered while an earlier one is looked for; more are read again in the next round.
const REMEMBERED_MAX: usize = 1 << 20;

/// Why a round ended early; the next one begins where it stood.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("reading {topic} at {at}: {source}")]
    Read {
        topic: &'static str,
        at: i64,
        source: std::io::Error,
    },
    #[error("the half message at {at} could not be put to {topic}: {reason}")]
    Write {
        topic: Arc<str>,
        at: i64,
        reason: String,
    },
}

/// What the op queue says, read from where the last round left it.
struct Decided {
    /// Half message decided -> op message that says so.
    by_half: BTreeMap<i64, i64>,
    /// Op message -> decisions in it that have not been used.
    unused: BTreeMap<i64, usize>,
    next: i64,
    /// Decisions about this half message and later ones may be missing.
    complete_below: i64,
}

impl Decided {
    fn remember(&mut self, op: i64, body: &[u8], first_half: i64) {
        let text = String::from_utf8_lossy(body);
        let mut count = 0;
        for half in text.split(',').filter_map(|half| half.parse::<i64>().ok()) {
            if half < first_half {
                continue;
            }
            count += 1;
            if let Some(before) = self.by_half.insert(half, op) {
                // Decided twice: the later op message stands for both.
                use_one(&mut self.unused, before);
            }
        }
        if count > 0 {
            *self.unused.entry(op).or_default() += count;
        }
        while self.by_half.len() > REMEMBERED_MAX {
            if let Some((half, _)) = self.by_half.pop_last() {
                self.complete_below = self.complete_below.min(half);
            }
        }
    }

    /// Whether the half message is decided; each decision is asked for once.
    fn take(&mut self, half: i64) -> bool {
        let op = self.by_half.remove(&half);
        if let Some(op) = op {
            use_one(&mut self.unused, op);
        }
        op.is_some()
    }

    /// The first op message that is still needed.
    fn progress(&self) -> i64 {
        self.unused.keys().next().copied().unwrap_or(self.next)
    }
}

fn use_one(unused: &mut BTreeMap<i64, usize>, op: i64) {
    if let Some(count) = unused.get_mut(&op) {
        *count -= 1;
        if *count == 0 {
            unused.remove(&op);
        }
    }
}

/// Checks every `transactionCheckInterval` until the broker stops.
pub(in crate::broker) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let interval = broker.config.get().transaction_check_interval;
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Err(error) = broker.check_transactions(&stop).await {
            tracing::warn!(%error, "a round of transaction checks ended early; the next goes on there");
        }
    }
}

/// What becomes of a half message without an op message.
enum Fate {
    /// It is too young, or its producer is about to say.
    Later,
    /// Nobody is asked before its time (CHECK_IMMUNITY_TIME_IN_SECONDS): back to the queue's end meanwhile.
    Immune,
    Ask,
    GiveUp,
}

impl Broker {
    async fn check_transactions(&self, stop: &watch::Receiver<bool>) -> Result<(), CheckError> {
        let started = clock::now_ms();
        let from = self.transaction_offset(topic::TRANS_HALF);
        let (_, end) = self.store.queue_bounds(topic::TRANS_HALF, QUEUE);
        let mut decided = Decided {
            by_half: BTreeMap::new(),
            unused: BTreeMap::new(),
            next: self.transaction_offset(topic::TRANS_OP_HALF),
            complete_below: i64::MAX,
        };
        let mut at = from;
        // What the round itself appends is for the next.
        let result = self
            .check_range(&mut at, end, started, &mut decided, stop)
            .await;
        if at != from {
            self.offsets.commit(GROUP, topic::TRANS_HALF, QUEUE, at);
        }
        // Read once more to the end, so that op messages about what is behind us are done with.
        self.read_decisions(&mut decided, at)?;
        decided.by_half.retain(|half, op| {
            let needed = *half >= at;
            if !needed {
                use_one(&mut decided.unused, *op);
            }
            needed
        });
        (self.offsets).commit(GROUP, topic::TRANS_OP_HALF, QUEUE, decided.progress());
        result
    }

    async fn check_range(
        &self,
        at: &mut i64,
        end: i64,
        started: i64,
        decided: &mut Decided,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), CheckError> {
        let mut read_to = i64::MIN;
        while *at < end && *at < decided.complete_below && !*stop.borrow() {
            let read = |source| CheckError::Read {
                topic: topic::TRANS_HALF,
                at: *at,
                source,
            };
            let count = READ.min((end - *at) as usize);
            let entries = (self.store)
                .queue_entries(topic::TRANS_HALF, QUEUE, *at, count)
                .map_err(read)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                if *at >= decided.complete_below || *stop.borrow() {
                    return Ok(());
                }
                if *at >= read_to {
                    // Asked before the op queue is read: a decision leaves here only for there.
                    read_to = end;
                    self.read_decisions(decided, *at)?;
                }
                if decided.take(*at) {
                    *at += 1;
                    continue;
                }
                let bytes = (self.store.record_at(entry.physical_offset)).map_err(|source| {
                    CheckError::Read {
                        topic: topic::TRANS_HALF,
                        at: *at,
                        source,
                    }
                })?;
                // Retention has taken it, or the entry fills a gap.
                let Some(bytes) = bytes else {
                    *at += 1;
                    continue;
                };
                let Ok(half) = View::record(&bytes).and_then(|view| view.decode()) else {
                    *at += 1;
                    continue;
                };
                match self.fate(&half, started, decided) {
                    Fate::Later => return Ok(()),
                    Fate::GiveUp => self.give_up(&half).await?,
                    Fate::Immune => {
                        let first =
                            properties::get(half.properties, name::TRAN_PREPARED_QUEUE_OFFSET);
                        let first = first.map_or_else(|| at.to_string(), str::to_owned);
                        self.renew(&half, &[(name::TRAN_PREPARED_QUEUE_OFFSET, &first)])
                            .await?;
                    }
                    Fate::Ask => {
                        // The producer may have decided since the op queue was read, and its op message may lie there now.
                        let in_flight = self.decisions.has(*at);
                        self.read_decisions(decided, *at)?;
                        if decided.take(*at) {
                            *at += 1;
                            continue;
                        }
                        if in_flight || self.decisions.has(*at) {
                            return Ok(());
                        }
                        let times = check_times(&half) + 1;
                        let set = [(name::TRANSACTION_CHECK_TIMES, &*times.to_string())];
                        let (text, placed) = self.renew(&half, &set).await?;
                        self.ask(&half, &text, placed);
                    }
                }
                *at += 1;
            }
        }
        Ok(())
    }

    fn fate(&self, half: &Record<'_>, started: i64, decided: &mut Decided) -> Fate {
        let config = self.config.get();
        let now = clock::now_ms();
        let age = now - half.born_timestamp;
        let kept = i64::from(config.file_reserved_time);
        if check_times(half) >= i64::from(config.transaction_check_max) || age > kept * 3_600_000 {
            return Fate::GiveUp;
        }
        if half.store_timestamp >= started {
            return Fate::Later;
        }
        let time_out = config.transaction_time_out.as_millis() as i64;
        let Some(immunity) = properties::get(half.properties, name::CHECK_IMMUNITY_TIME_IN_SECONDS)
        else {
            // A birth in the future is another clock's: it is asked about rather than never.
            return if (0..=time_out).contains(&age) {
                Fate::Later
            } else {
                Fate::Ask
            };
        };
        if age > immunity_ms(immunity, time_out) {
            return Fate::Ask;
        }
        match properties::get(half.properties, name::TRAN_PREPARED_QUEUE_OFFSET) {
            Some("-1") => Fate::Later,
            // The decision is about the first copy, whose number this one remembers.
            Some(first) => match first.parse::<i64>() {
                Ok(first) if decided.take(first) => Fate::Later,
                _ => Fate::Immune,
            },
            None => Fate::Immune,
        }
    }

    /// How far the half or op topic is dealt with.
    fn transaction_offset(&self, topic: &str) -> i64 {
        let (min, max) = self.store.queue_bounds(topic, QUEUE);
        let known = self.offsets.query(GROUP, topic, QUEUE).unwrap_or(min);
        known.clamp(min, max.max(min))
    }

    /// Reads op messages to the queue's end.
    fn read_decisions(&self, decided: &mut Decided, first_half: i64) -> Result<(), CheckError> {
        loop {
            let at = decided.next;
            let read = |source| CheckError::Read {
                topic: topic::TRANS_OP_HALF,
                at,
                source,
            };
            let entries = (self.store)
                .queue_entries(topic::TRANS_OP_HALF, QUEUE, decided.next, READ)
                .map_err(read)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                let op = decided.next;
                let bytes = self.store.record_at(entry.physical_offset).map_err(read)?;
                decided.next += 1;
                let Some(bytes) = bytes else { continue };
                let Ok(record) = View::record(&bytes).and_then(|view| view.decode()) else {
                    continue;
                };
                if properties::get(record.properties, name::TAGS) == Some(REMOVE_TAG) {
                    decided.remember(op, record.body, first_half);
                }
            }
        }
    }

    /// Appends the half message to its queue again. Returns its properties, and its new queue and log offsets.
    async fn renew(
        &self,
        half: &Record<'_>,
        set: &[(&str, &str)],
    ) -> Result<(String, (i64, i64)), CheckError> {
        let text = properties::edit(half.properties, set, &[]);
        let topic: Arc<str> = half.topic.into();
        let record = Record {
            properties: &text,
            ..half.clone()
        };
        let placed = self.put(&topic, &record).await?;
        Ok((text, placed))
    }

    /// Moves a half message to where an operator can see and resume it (323).
    async fn give_up(&self, half: &Record<'_>) -> Result<(), CheckError> {
        tracing::warn!(
            topic = properties::get(half.properties, name::REAL_TOPIC),
            message = properties::get(half.properties, name::UNIQ_KEY),
            "a half message is given up after {} checks; it is in {}",
            check_times(half),
            topic::TRANS_CHECK_MAX_TIME
        );
        let config = self.topics.create_for_send_back(
            topic::TRANS_CHECK_MAX_TIME,
            1,
            perm::READ | perm::WRITE,
        );
        let record = Record {
            queue_id: 0,
            topic: &config.topic_name,
            ..half.clone()
        };
        self.put(&config.topic_name, &record).await.map(|_| ())
    }

    async fn put(&self, topic: &Arc<str>, record: &Record<'_>) -> Result<(i64, i64), CheckError> {
        let write = |reason| CheckError::Write {
            topic: Arc::clone(topic),
            at: record.physical_offset,
            reason,
        };
        let mut batch = RecordBatch::new();
        (batch.push(topic, record)).map_err(|error| write(error.to_string()))?;
        let bytes = batch.byte_len() as u64;
        let placed = self.append_and_wait(batch).await;
        let placed = placed.map_err(|error| write(error.to_string()))?;
        self.stats.put(topic, 1, bytes);
        Ok(placed.records.first().copied().unwrap_or_default())
    }

    /// CHECK_TRANSACTION_STATE (39) to one producer of the group; its answer is an END_TRANSACTION.
    fn ask(&self, half: &Record<'_>, text: &str, (queue_offset, physical_offset): (i64, i64)) {
        let group = properties::get(text, name::PRODUCER_GROUP).unwrap_or_default();
        let mut producers = self.clients.producers(group);
        producers.retain(|producer| !producer.connection.is_closed());
        let key = properties::get(text, name::UNIQ_KEY);
        if producers.is_empty() {
            tracing::info!(
                group,
                message = key,
                "no producer to ask about a transaction"
            );
            return;
        }
        let producer = producers.swap_remove(fastrand::usize(..producers.len()));
        let real = properties::get(text, name::REAL_TOPIC).unwrap_or_default();
        let queue_id = properties::get(text, name::REAL_QID).and_then(|id| id.parse().ok());
        let record = Record {
            topic: real,
            queue_id: queue_id.unwrap_or_default(),
            queue_offset,
            physical_offset,
            properties: text,
            ..half.clone()
        };
        let mut body = BytesMut::with_capacity(record::encoded_len(&record));
        if let Err(error) = record::encode(&record, &mut body) {
            tracing::warn!(%error, group, message = key, "a transaction cannot be asked about");
            return;
        }
        let header = ExtFields::new()
            .with("topic", half.topic)
            .with("commitLogOffset", physical_offset)
            .with("tranStateTableOffset", queue_offset)
            .with(
                "offsetMsgId",
                message_id::format(self.store_host, physical_offset),
            )
            .with_some("msgId", key)
            .with_some("transactionId", key)
            .with("bname", &self.config.get().broker_name);
        let body: Bytes = body.freeze();
        producer
            .connection
            .oneway(Command::request(request::CHECK_TRANSACTION_STATE, header).with_body(body));
    }
}

fn check_times(half: &Record<'_>) -> i64 {
    properties::get(half.properties, name::TRANSACTION_CHECK_TIMES)
        .and_then(|times| times.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Decided {
        Decided {
            by_half: BTreeMap::new(),
            unused: BTreeMap::new(),
            next: 0,
            complete_below: i64::MAX,
        }
    }

    #[test]
    fn op_messages_are_done_with_when_all_their_decisions_are_used() {
        let mut decided = empty();
        decided.remember(0, b"5,3,", 4);
        decided.remember(1, b"6,", 4);
        decided.remember(2, b"1,x,", 4);
        decided.next = 3;
        assert_eq!(decided.progress(), 0);
        assert!(!decided.take(3), "it lies behind the first half message");
        assert!(decided.take(6) && !decided.take(6));
        assert_eq!(decided.progress(), 0);
        assert!(decided.take(5));
        assert_eq!(decided.progress(), 3);
    }

    #[test]
    fn a_half_message_decided_twice_is_done_with_once() {
        let mut decided = empty();
        decided.remember(0, b"5,", 0);
        decided.remember(1, b"5,7,", 0);
        decided.next = 2;
        assert_eq!(decided.progress(), 1);
        assert!(decided.take(5) && decided.take(7));
        assert_eq!(decided.progress(), 2);
    }
}
