//! What was sent, acknowledged, seen and committed, kept outside the broker; and whether a broker that came back holds it.

use crate::Outcome;
use crate::message::{Message, Queue};
use crate::wire::Broker;
use parking_lot::Mutex;
use rocketmq_protocol::record;
use std::time::{Duration, Instant};

/// How long after a commit it must be in the file: the interval (100 ms, see `node`), two writes of the file, and what a busy
/// machine adds.
const COMMIT_IN_FILE: Duration = Duration::from_millis(1500);

/// What a broker that came back may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing that was acknowledged.
    Everything,
    /// The end of the log: what stood behind the position at which it ends now, if it was acknowledged at this time or later.
    Prefix { acknowledged_from: Instant },
}

/// A message as a broker holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub message: Message,
    pub physical: i64,
}

/// One message that was sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    queue: Queue,
    /// It stands in `held`.
    found: bool,
    acknowledged: Option<Acknowledged>,
}

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    offset: i64,
    physical: i64,
    at: Instant,
}

#[derive(Default)]
struct Round {
    acknowledged: Vec<Message>,
    seen: Vec<(Queue, i64, Message)>,
    committed: Vec<(Queue, i64, Instant)>,
}

/// Counts for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub acknowledged: u64,
    /// Sent without an answer before the broker died.
    pub unanswered: u64,
    /// Answered with a code that promises nothing.
    pub maybe: u64,
    /// Of those without a promise, how many are there.
    pub found_all_the_same: u64,
    /// Acknowledged and gone, where that is allowed.
    pub lost_suffix: u64,
    pub committed: u64,
}

/// The book of one store.
pub struct Ledger {
    state: Mutex<State>,
}

struct State {
    sent: Vec<Sent>,
    /// What the broker was found to hold, by queue and offset.
    held: Vec<Vec<Held>>,
    /// The committed offset that the broker answered last after a start: that one is in its file.
    in_file: Vec<Option<i64>>,
    round: Round,
    counts: Counts,
}

impl Default for Ledger {
    fn default() -> Self {
        let queues = Queue::all().count();
        Ledger {
            state: Mutex::new(State {
                sent: Vec::new(),
                held: vec![Vec::new(); queues],
                in_file: vec![None; queues],
                round: Round::default(),
                counts: Counts::default(),
            }),
        }
    }
}

impl Ledger {
    /// Numbers for messages about to be sent.
    pub fn take(&self, queue: Queue, count: usize) -> Vec<Message> {
        let mut state = self.state.lock();
        let first = state.sent.len() as u64;
        let sent = Sent {
            queue,
            found: false,
            acknowledged: None,
        };
        state.sent.extend(std::iter::repeat_n(sent, count));
        state.counts.unanswered += count as u64;
        (first..first + count as u64).map(Message).collect()
    }

    /// How many messages were sent so far.
    pub fn sent(&self) -> usize {
        self.state.lock().sent.len()
    }

    /// How many of the messages from this number on are acknowledged.
    pub fn acknowledged_from(&self, first: usize) -> usize {
        let state = self.state.lock();
        let later = state.sent[first..].iter();
        later.filter(|sent| sent.acknowledged.is_some()).count()
    }

    /// SEND_OK came for these.
    pub fn acknowledged(&self, messages: &[Message], offset: i64, physical: &[i64]) {
        let at = Instant::now();
        let mut state = self.state.lock();
        for (i, (message, physical)) in messages.iter().zip(physical).enumerate() {
            state.sent[message.0 as usize].acknowledged = Some(Acknowledged {
                offset: offset + i as i64,
                physical: *physical,
                at,
            });
        }
        state.round.acknowledged.extend(messages);
        state.counts.acknowledged += messages.len() as u64;
        state.counts.unanswered -= messages.len() as u64;
    }

    /// Something else came: they may be there or not.
    pub fn not_promised(&self, messages: &[Message]) {
        let mut state = self.state.lock();
        state.counts.unanswered -= messages.len() as u64;
        state.counts.maybe += messages.len() as u64;
    }

    /// A consumer was given this.
    pub fn seen(&self, queue: Queue, offset: i64, message: Message) {
        self.state.lock().round.seen.push((queue, offset, message));
    }

    /// A commit was acknowledged.
    pub fn committed(&self, queue: Queue, offset: i64) {
        let mut state = self.state.lock();
        state.round.committed.push((queue, offset, Instant::now()));
        state.counts.committed += 1;
    }

    /// Where the consumer goes on.
    pub fn in_file(&self, queue: Queue) -> i64 {
        self.state.lock().in_file[queue.index()].unwrap_or(0)
    }

    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }

    /// How many of the round's messages are acknowledged so far.
    pub fn acknowledged_in_round(&self) -> usize {
        self.state.lock().round.acknowledged.len()
    }

    /// The message acknowledged last, and where it stands: for a loss planted on purpose.
    pub fn last_acknowledged(&self) -> Option<(Message, i64)> {
        let state = self.state.lock();
        let newest = |message: &&Message| {
            let of = state.sent[message.0 as usize].acknowledged;
            of.map(|of| of.physical)
        };
        let message = state.round.acknowledged.iter().max_by_key(newest)?;
        let at = state.sent[message.0 as usize].acknowledged?;
        Some((*message, at.physical))
    }

    /// What the broker holds by the last check.
    pub fn held(&self, queue: Queue) -> Vec<Held> {
        self.state.lock().held[queue.index()].clone()
    }

    /// Reads what a broker holds beyond what it was known to hold, and compares all of it with the book. `killed` is when
    /// the broker died; the round ends with this.
    pub async fn check(&self, broker: &Broker, killed: Instant, expect: Expect) -> Outcome<()> {
        let log_end = broker.log_end().await?;
        for queue in Queue::all() {
            let (min, max) = broker.bounds(queue).await?;
            let known = self.known(queue, min, max, log_end, expect)?;
            let mut found = Vec::new();
            let mut at = known;
            while at < max {
                let bytes = broker.records(queue, at).await?;
                for record in record::records(&bytes) {
                    let record = record?;
                    if record.topic()? != queue.topic()
                        || record.queue_id() != queue.id()
                        || record.queue_offset() != at
                    {
                        let (topic, id) = (record.topic()?, record.queue_id());
                        let offset = record.queue_offset();
                        return Err(format!(
                            "{queue} at {at}: a record of {topic}/{id} at {offset}"
                        )
                        .into());
                    }
                    let message = Message::of(record.body())
                        .map_err(|why| format!("{queue} at {at}: {why}"))?;
                    found.push(Held {
                        message,
                        physical: record.physical_offset(),
                    });
                    at += 1;
                }
                if bytes.is_empty() {
                    return Err(
                        format!("{queue} ends at {max}, but nothing is found at {at}").into(),
                    );
                }
            }
            self.add(queue, known, found)?;
            let committed = broker.committed(queue).await?;
            self.check_commits(queue, committed, max, killed, expect)?;
        }
        self.check_promises(log_end, expect)
    }

    /// Looks only for the round's acknowledged messages, on another broker than the one that acknowledged them.
    pub async fn promised_are_on(&self, broker: &Broker) -> Outcome<()> {
        let mut promised: Vec<Vec<(i64, Message)>> = vec![Vec::new(); Queue::all().count()];
        {
            let state = self.state.lock();
            for message in &state.round.acknowledged {
                let sent = &state.sent[message.0 as usize];
                if let Some(place) = sent.acknowledged {
                    promised[sent.queue.index()].push((place.offset, *message));
                }
            }
        }
        for queue in Queue::all() {
            let of_queue = &mut promised[queue.index()];
            of_queue.sort_unstable_by_key(|(offset, _)| *offset);
            let mut rest = of_queue.as_slice();
            while let Some((offset, message)) = rest.first() {
                let bytes = broker.records(queue, *offset).await?;
                if bytes.is_empty() {
                    return Err(format!("{queue} lacks message {} at {offset}", message.0).into());
                }
                for record in record::records(&bytes) {
                    let record = record?;
                    if let Some((offset, message)) = rest.first()
                        && record.queue_offset() == *offset
                    {
                        if record.body() != message.body() {
                            return Err(format!(
                                "{queue} has another message than {} at {offset}",
                                message.0
                            )
                            .into());
                        }
                        rest = &rest[1..];
                    }
                }
            }
        }
        Ok(())
    }

    /// Up to which offset the queue need not be read again; what was held beyond it is gone.
    fn known(
        &self,
        queue: Queue,
        min: i64,
        max: i64,
        log_end: i64,
        expect: Expect,
    ) -> Outcome<i64> {
        let state = &mut *self.state.lock();
        let held = &mut state.held[queue.index()];
        if min != 0 {
            return Err(format!("{queue} begins at {min}").into());
        }
        let len = held.len() as i64;
        if max >= len {
            return Ok(len);
        }
        if expect == Expect::Everything {
            return Err(format!("{queue} ends at {max}; it held {len} messages before").into());
        }
        // Whether those may be gone is looked at with all others that were acknowledged.
        for gone in held.drain(max as usize..) {
            if gone.physical < log_end {
                return Err(format!(
                    "{queue} ends at {max}, but the log holds {}",
                    gone.message.0
                )
                .into());
            }
            state.sent[gone.message.0 as usize].found = false;
            state.round.acknowledged.push(gone.message);
        }
        Ok(max)
    }

    fn add(&self, queue: Queue, known: i64, found: Vec<Held>) -> Outcome<()> {
        let state = &mut *self.state.lock();
        for (i, one) in found.into_iter().enumerate() {
            let offset = known + i as i64;
            let number = one.message.0;
            let Some(sent) = state.sent.get_mut(number as usize) else {
                return Err(format!("{queue} at {offset}: message {number} was never sent").into());
            };
            if sent.queue != queue {
                return Err(format!(
                    "{queue} at {offset}: message {number} was sent to {}",
                    sent.queue
                )
                .into());
            }
            if std::mem::replace(&mut sent.found, true) {
                return Err(
                    format!("{queue} at {offset}: message {number} stands there twice").into(),
                );
            }
            if sent.acknowledged.is_none() {
                state.counts.found_all_the_same += 1;
            }
            state.held[queue.index()].push(one);
        }
        Ok(())
    }

    fn check_commits(
        &self,
        queue: Queue,
        committed: Option<i64>,
        max: i64,
        killed: Instant,
        expect: Expect,
    ) -> Outcome<()> {
        let state = &mut *self.state.lock();
        let is = committed.unwrap_or(0);
        if is > max {
            return Err(format!("{queue} ends at {max}, but the group has committed {is}").into());
        }
        // A table is synced by itself, so that a commit may outlive the messages it was for; it is then taken back to the end.
        let in_file = match (state.in_file[queue.index()], expect) {
            (Some(offset), Expect::Prefix { .. }) => offset.min(max),
            (offset, _) => offset.unwrap_or(0),
        };
        if is < in_file {
            return Err(
                format!("{queue}: {is} is committed; {in_file} was in the file before").into(),
            );
        }
        let of_queue = state.round.committed.iter().filter(|(of, ..)| *of == queue);
        let due = of_queue
            .filter(|(_, _, at)| *at + COMMIT_IN_FILE < killed)
            .map(|(_, offset, _)| *offset)
            .max();
        if let Some(due) = due
            && is < due.min(max)
        {
            return Err(format!(
                "{queue}: {is} is committed; the commit of {due} was acknowledged more than {COMMIT_IN_FILE:?} before the end"
            )
            .into());
        }
        state.in_file[queue.index()] = Some(is);
        Ok(())
    }

    fn check_promises(&self, log_end: i64, expect: Expect) -> Outcome<()> {
        let state = &mut *self.state.lock();
        let round = std::mem::take(&mut state.round);
        let mut lost = Vec::new();
        for message in round.acknowledged {
            let sent = &mut state.sent[message.0 as usize];
            let Some(place) = sent.acknowledged else {
                continue;
            };
            let held = state.held[sent.queue.index()].get(place.offset as usize);
            if held.is_some_and(|held| held.message == message && held.physical == place.physical) {
                continue;
            }
            match expect {
                Expect::Prefix { acknowledged_from }
                    if place.physical >= log_end && place.at >= acknowledged_from && !sent.found =>
                {
                    // Its number is not sent again, so nobody asks for it any more.
                    state.counts.lost_suffix += 1;
                    sent.acknowledged = None;
                }
                _ => lost.push(format!(
                    "message {} of {} was acknowledged at offset {}, log position {}, {:?} ago; there is {held:?}",
                    message.0,
                    sent.queue,
                    place.offset,
                    place.physical,
                    place.at.elapsed(),
                )),
            }
        }
        if let Some(first) = lost.first() {
            return Err(format!(
                "{} acknowledged messages are lost; the log ends at {log_end}; {first}",
                lost.len()
            )
            .into());
        }
        for (queue, offset, message) in round.seen {
            let held = state.held[queue.index()].get(offset as usize);
            let gone = held.is_none() && matches!(expect, Expect::Prefix { .. });
            if !gone && held.is_none_or(|held| held.message != message) {
                return Err(format!(
                    "a consumer was given {} at {queue} {offset}; there is {held:?} now",
                    message.0
                )
                .into());
            }
        }
        Ok(())
    }
}
