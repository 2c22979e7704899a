//! The task that turns the wheel: takes in, loads, delivers, remembers.

use super::{QUEUE, Timer, WINDOW, asked_ms, slot_of};
use crate::broker::Broker;
use crate::broker::send::Place;
use crate::clock;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{Record, View};
use rocketmq_protocol::{hash, topic};
use rocketmq_store::reader::Boundary;
use rocketmq_store::timer::{OpenedTimer, Progress, SLOT_MS, TimerFiles, Unit, magic};
use rocketmq_store::{RecordBatch, StoreError};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// Entries of the timer topic taken in before anything due is delivered again.
const ENTRIES: usize = 256;
/// Bytes and messages re-appended in one go.
const BATCH_BYTES: usize = 1 << 20;
const BATCH: usize = 512;
/// How often the progress is written while something happens.
const CHECKPOINT_MS: i64 = 1000;
/// After a failed read or append it is tried again this much later.
const RETRY: Duration = Duration::from_millis(100);
/// The clock may be set while we sleep: it is looked at this often at least.
const SLEEP_MAX_MS: i64 = 10_000;
/// A unit beyond the window whose rest is shorter than this goes round half the window, so that the rest is not short.
const SHORT_REST_MS: i64 = WINDOW.as_millis() as i64 / 3;
/// Files of the timer log stay this much longer than the window.
const KEPT: Duration = Duration::from_secs(WINDOW.as_secs() + 3600);

/// Why the timer stands still for the moment.
#[derive(Debug, thiserror::Error)]
enum TimerError {
    #[error(transparent)]
    Files(#[from] StoreError),
    #[error("reading {} at {at}: {source}", topic::TIMER)]
    Read { at: i64, source: std::io::Error },
    #[error("messages that are due could not be put to their topics: {0}")]
    Append(String),
}

/// One message whose second has come: when it is due, then where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    due_ms: i64,
    physical_offset: i64,
    enqueued_ms: i64,
    roll: bool,
}

struct Wheel {
    broker: Arc<Broker>,
    files: TimerFiles,
    /// Slots before this one are loaded.
    loaded_ms: i64,
    /// The timer topic's queue is taken in before this.
    queue_offset: i64,
    /// What was in that queue when the wheel was opened.
    known_to: i64,
    due: BinaryHeap<Reverse<Due>>,
    /// Keys of messages taken back, and the slot they belong to.
    taken_back: HashMap<String, i64>,
    saved: Progress,
    saved_at_ms: i64,
}

/// What of a message the timer needs.
struct Timed {
    slot_ms: i64,
    due_ms: i64,
    delete_key: Option<String>,
    topic_hash: i32,
}

/// Turns the wheel until the broker stops.
pub(in crate::broker) async fn run(
    broker: Arc<Broker>,
    root: Arc<Path>,
    mut stop: watch::Receiver<bool>,
) {
    let mut wheel = loop {
        match Wheel::open(&broker, &root) {
            Ok(wheel) => break wheel,
            Err(error) => {
                tracing::error!(%error, "timer messages wait: their files do not open; trying again")
            }
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    };
    loop {
        let wait = match wheel.turn().await {
            Ok(wait) => wait,
            Err(error) => {
                tracing::warn!(%error, "timer messages wait");
                RETRY
            }
        };
        if *stop.borrow() {
            break;
        }
        if wait.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = broker.timer.arrived.notified() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    if let Err(error) = wheel.close() {
        tracing::error!(%error, "the timer's progress was not written; the next start makes the wheel anew");
    }
}

impl Wheel {
    fn open(broker: &Arc<Broker>, root: &Path) -> Result<Wheel, TimerError> {
        let OpenedTimer {
            files,
            progress,
            whole,
        } = TimerFiles::open(root)?;
        let (min, max) = broker.store.queue_bounds(topic::TIMER, QUEUE);
        let queue_offset = if whole {
            progress.queue_offset
        } else {
            // Nothing that still waits is older than the window; an hour more for clocks that were set.
            let oldest = progress.read_ms - KEPT.as_millis() as i64;
            broker
                .store
                .offset_by_time(topic::TIMER, QUEUE, oldest, Boundary::Lower)
                .map_err(|source| TimerError::Read { at: min, source })?
        };
        let now = clock::now_ms();
        if !whole && max > queue_offset {
            tracing::info!(
                "the timer's wheel is made anew from {} messages",
                max - queue_offset
            );
        }
        Ok(Wheel {
            broker: Arc::clone(broker),
            files,
            loaded_ms: if progress.read_ms == 0 {
                now - now.rem_euclid(SLOT_MS)
            } else {
                progress.read_ms
            },
            queue_offset: queue_offset.clamp(min, max.max(min)),
            known_to: max,
            due: BinaryHeap::new(),
            taken_back: HashMap::new(),
            saved: progress,
            saved_at_ms: now,
        })
    }

    /// One look at all; returns how long nothing more is to be done unless a message arrives.
    async fn turn(&mut self) -> Result<Duration, TimerError> {
        let began = clock::now_ms();
        let more = self.take_in()?;
        if self.queue_offset < self.known_to {
            // A wheel made anew is whole first: what takes a message back lies behind it.
            return Ok(Duration::ZERO);
        }
        let now = clock::now_ms();
        self.load(now)?;
        let delivered = self.deliver(now).await?;
        let timer = &self.broker.timer;
        timer.publish(self);
        if !more && !delivered {
            timer.delivered_ms.send_replace(began);
            // Everything taken in that was due by `now` is delivered.
            self.checkpoint(now)?;
        }
        if more || delivered {
            return Ok(Duration::ZERO);
        }
        let now = clock::now_ms();
        let mut next = now + SLEEP_MAX_MS;
        if let Some(Reverse(due)) = self.due.peek() {
            next = next.min(due.due_ms);
        }
        if self.files.waiting() > 0 {
            next = next.min(self.loaded_ms);
        }
        Ok(Duration::from_millis((next - now).max(0) as u64))
    }

    /// Takes in what came to the timer topic. Returns whether there is more.
    fn take_in(&mut self) -> Result<bool, TimerError> {
        let at = self.queue_offset;
        let read = |source| TimerError::Read { at, source };
        let entries = (self.broker.store)
            .queue_entries(topic::TIMER, QUEUE, at, ENTRIES)
            .map_err(read)?;
        if entries.is_empty() {
            // Retention took what was to be read.
            self.known_to = self.known_to.min(at);
        }
        let more = entries.len() == ENTRIES;
        for entry in entries {
            let bytes = (self.broker.store).record_of(&entry).map_err(read)?;
            if let Some(bytes) = bytes
                && let Ok(record) = View::record(&bytes).and_then(|view| view.decode())
                && let Some(timed) = timed(&record)
            {
                self.place(&record, timed, entry.size)?;
            }
            self.queue_offset += 1;
        }
        Ok(more)
    }

    fn place(&mut self, record: &Record<'_>, timed: Timed, size: i32) -> Result<(), TimerError> {
        // Counted from the store time, so that a wheel made anew is the same wheel.
        let taken_ms = record.store_timestamp;
        let window = WINDOW.as_millis() as i64;
        let (mut slot_ms, mut due_ms, mut kind) = (timed.slot_ms, timed.due_ms, magic::DEFAULT);
        let ahead = slot_ms - taken_ms;
        let roll = ahead >= window;
        if roll {
            kind |= magic::ROLL;
            let round = if ahead - window < SHORT_REST_MS {
                window / 2
            } else {
                window
            };
            due_ms = taken_ms + round;
            slot_ms = slot_of(due_ms);
        }
        // Delivered before the last checkpoint, which a wheel made anew meets once more.
        if self.queue_offset < self.saved.queue_offset && due_ms <= self.saved.delivered_ms {
            return Ok(());
        }
        if slot_ms < self.loaded_ms {
            match timed.delete_key {
                Some(key) if !roll => {
                    self.taken_back.insert(key, slot_ms);
                }
                _ => self.due.push(Reverse(Due {
                    due_ms,
                    physical_offset: record.physical_offset,
                    enqueued_ms: taken_ms,
                    roll,
                })),
            }
            return Ok(());
        }
        if timed.delete_key.is_some() {
            kind |= magic::DELETE;
        }
        let unit = Unit {
            magic: kind,
            enqueued_ms: taken_ms,
            delay_ms: (slot_ms - taken_ms) as i32,
            physical_offset: record.physical_offset,
            size,
            topic_hash: timed.topic_hash,
        };
        Ok(self.files.add(slot_ms, unit)?)
    }

    /// Loads the slots that have begun.
    fn load(&mut self, now: i64) -> Result<(), TimerError> {
        if self.files.waiting() == 0 {
            // Nothing lies in any slot: no need to look into each since the last time.
            self.loaded_ms = self.loaded_ms.max(now - now.rem_euclid(SLOT_MS) + SLOT_MS);
        }
        while self.loaded_ms <= now {
            for unit in self.files.take(self.loaded_ms)? {
                self.load_unit(unit)?;
            }
            self.loaded_ms += SLOT_MS;
        }
        // A key serves for the second behind its slot; a little longer costs nothing.
        let done = self.loaded_ms - 60 * SLOT_MS;
        self.taken_back.retain(|_, slot| *slot >= done);
        Ok(())
    }

    fn load_unit(&mut self, unit: Unit) -> Result<(), TimerError> {
        let mut due = Due {
            due_ms: unit.enqueued_ms + i64::from(unit.delay_ms),
            physical_offset: unit.physical_offset,
            enqueued_ms: unit.enqueued_ms,
            roll: unit.magic & magic::ROLL != 0,
        };
        if !due.roll {
            let at = unit.physical_offset;
            let read = |source| TimerError::Read { at, source };
            let Some(bytes) = self.broker.store.record_at(at).map_err(read)? else {
                tracing::error!(
                    "the timer message at {at} is gone before its time: it was kept too short (fileReservedTime)"
                );
                return Ok(());
            };
            let Some(timed) = (View::record(&bytes).and_then(|view| view.decode()).ok())
                .and_then(|record| timed(&record))
            else {
                return Ok(());
            };
            if let Some(key) = timed.delete_key {
                self.taken_back.insert(key, timed.slot_ms);
                return Ok(());
            }
            due.due_ms = timed.due_ms;
        }
        self.due.push(Reverse(due));
        Ok(())
    }

    /// Delivers what is due. Returns whether anything was.
    async fn deliver(&mut self, now: i64) -> Result<bool, TimerError> {
        let mut batch = RecordBatch::new();
        let mut taken = Vec::new();
        let mut put = Vec::new();
        while taken.len() < BATCH
            && batch.byte_len() < BATCH_BYTES
            && let Some(Reverse(due)) = self.due.peek().copied()
            && due.due_ms <= now
        {
            self.due.pop();
            taken.push(due);
            let before = batch.byte_len();
            match self.time_up(due, now, &mut batch) {
                Ok(Some(topic)) => put.push((topic, batch.byte_len() - before)),
                Ok(None) => {}
                Err(reason) => tracing::error!(
                    "the timer message at {} is dropped: {reason}",
                    due.physical_offset
                ),
            }
        }
        if taken.is_empty() {
            return Ok(false);
        }
        if !batch.is_empty()
            && let Err(error) = self.broker.append_and_wait(batch).await
        {
            self.due.extend(taken.into_iter().map(Reverse));
            return Err(TimerError::Append(error.to_string()));
        }
        for (topic, bytes) in put {
            self.broker.stats.put(&topic, 1, bytes as u64);
        }
        Ok(true)
    }

    /// The record as it goes to its own topic, or round to the timer topic again (`TimerMessageStore.convert`).
    fn time_up(
        &self,
        due: Due,
        now: i64,
        batch: &mut RecordBatch,
    ) -> Result<Option<Arc<str>>, String> {
        let bytes = (self.broker.store.record_at(due.physical_offset))
            .map_err(|error| error.to_string())?
            .ok_or("it is gone before its time: it was kept too short (fileReservedTime)")?;
        let waiting = View::record(&bytes)
            .and_then(|view| view.decode())
            .map_err(|error| error.to_string())?;
        let real =
            properties::get(waiting.properties, name::REAL_TOPIC).ok_or("it has no REAL_TOPIC")?;
        let key = properties::get(waiting.properties, name::UNIQ_KEY).unwrap_or_default();
        if !due.roll
            && !self.taken_back.is_empty()
            && self.taken_back.contains_key(&delete_key(real, key))
        {
            return Ok(None);
        }
        let (enqueued, dequeued) = (due.enqueued_ms.to_string(), now.to_string());
        let mut set = vec![
            (name::TIMER_ENQUEUE_MS, enqueued.as_str()),
            (name::TIMER_DEQUEUE_MS, dequeued.as_str()),
        ];
        let rounds;
        let (topic, queue_id): (Arc<str>, i32) = if due.roll {
            let before = properties::get(waiting.properties, name::TIMER_ROLL_TIMES);
            rounds = (before.and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) + 1).to_string();
            set.push((name::TIMER_ROLL_TIMES, &rounds));
            (topic::TIMER.into(), QUEUE)
        } else {
            let queue_id = properties::get(waiting.properties, name::REAL_QID);
            let Some(Ok(queue_id)) = queue_id.map(str::parse) else {
                return Err(format!("its REAL_QID is {queue_id:?}"));
            };
            let topic = match self.broker.topics.get(real) {
                Some(config) => Arc::clone(&config.topic_name),
                None => real.into(),
            };
            (topic, queue_id)
        };
        let place = Place {
            topic,
            queue_id,
            properties: properties::edit(waiting.properties, &set, &[]).into(),
        };
        let place = (self.broker.in_light_queues(place)).map_err(|refusal| refusal.remark)?;
        let record = Record {
            queue_id,
            prepared_transaction_offset: 0,
            topic: &place.topic,
            properties: &place.properties,
            ..waiting.clone()
        };
        batch
            .push(&place.topic, &record)
            .map_err(|error| error.to_string())?;
        Ok(Some(place.topic))
    }

    /// The slots that are wholly delivered end here.
    fn read_ms(&self) -> i64 {
        let first = self
            .due
            .peek()
            .map_or(self.loaded_ms, |Reverse(due)| slot_of(due.due_ms));
        first.min(self.loaded_ms)
    }

    fn progress(&self, delivered_ms: i64) -> Progress {
        Progress {
            read_ms: self.read_ms(),
            queue_offset: self.queue_offset,
            delivered_ms,
        }
    }

    fn checkpoint(&mut self, now: i64) -> Result<(), TimerError> {
        // While nothing waits and nothing comes the clock alone is not worth a write.
        let idle = self.queue_offset == self.saved.queue_offset
            && self.due.is_empty()
            && self.files.waiting() == 0;
        if now - self.saved_at_ms < CHECKPOINT_MS || idle {
            return Ok(());
        }
        let progress = self.progress(now);
        self.files.write_progress(progress, false)?;
        self.files.clean(now, KEPT)?;
        (self.saved, self.saved_at_ms) = (progress, now);
        Ok(())
    }

    /// The last checkpoint: what is loaded and not due yet is loaded again by the next start.
    fn close(mut self) -> Result<(), TimerError> {
        let now = clock::now_ms();
        let due_by_now = (self.due.peek()).is_some_and(|Reverse(due)| due.due_ms <= now);
        let delivered = match self.due.peek() {
            // The log is going down: what is due stays due, so the wheel is made anew and nothing is passed over.
            Some(Reverse(due)) if due_by_now => due.due_ms - 1,
            _ => now,
        };
        let progress = self.progress(delivered.max(self.saved.delivered_ms));
        let loaded_ahead = !self.due.is_empty();
        Ok(self
            .files
            .write_progress(progress, !due_by_now && !loaded_ahead)?)
    }
}

impl Timer {
    fn publish(&self, wheel: &Wheel) {
        self.read_ms.store(wheel.read_ms(), Ordering::Release);
        self.queue_offset
            .store(wheel.queue_offset, Ordering::Release);
        let waiting = wheel.files.waiting() + wheel.due.len() as i64;
        self.waiting.store(waiting, Ordering::Release);
    }
}

/// What a record of the timer topic asks for; `None` when it is not one of ours or Java's.
fn timed(record: &Record<'_>) -> Option<Timed> {
    let text = record.properties;
    let slot_ms: i64 = properties::get(text, name::TIMER_OUT_MS)?.parse().ok()?;
    // A delay counts from when the broker took the message; that is not later than its store time. A record that has gone round
    // has another store time, so the slot bounds what it can mean.
    let asked = asked_ms(text, record.store_timestamp).ok().flatten();
    let due_ms = asked.unwrap_or(slot_ms + SLOT_MS);
    Some(Timed {
        slot_ms,
        due_ms: due_ms.clamp(slot_ms + 1, slot_ms + SLOT_MS),
        delete_key: properties::get(text, name::TIMER_DEL_UNIQKEY).map(str::to_owned),
        topic_hash: hash::java_string(properties::get(text, name::REAL_TOPIC).unwrap_or_default()),
    })
}

/// What names a message to be taken back (`TimerMessageStore.buildDeleteKey`).
pub(super) fn delete_key(real_topic: &str, unique_key: &str) -> String {
    format!("{real_topic}+{unique_key}")
}
