//! Delayed messages: one queue of SCHEDULE_TOPIC_XXXX a delay level, and how far each is delivered (`config/delayOffset.json`).
//!
//! A queue's entries come due in their order, and an entry's tags code is when. So one task looks at the head of each queue,
//! re-appends what is due to its own topic, and sleeps until the next head is due or a message comes into an empty queue.
//! A message is never early; it is late by as long as the append takes. Only a master delivers; a slave keeps the table it is given.
//! Source: `apache/rocketmq: broker/.../schedule/ScheduleMessageService.java`.

use super::send::Place;
use super::{Broker, table_file};
use crate::clock;
use crate::log::Arrival;
use parking_lot::Mutex;
use rocketmq_protocol::body::DelayOffsetSerializeWrapper;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, Parsed, Record};
use rocketmq_protocol::{json, topic};
use rocketmq_store::RecordBatch;
use rocketmq_store::table::{self, TableError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Entries of one level looked at in one go, so that a long backlog of one level does not hold up the others.
const ENTRIES_MAX: usize = 256;
/// Bytes re-appended in one go; must fit one log file.
const BATCH_BYTES: usize = 1 << 20;
/// After a failed delivery (disk full, log busy) it is tried again this much later.
const RETRY: Duration = Duration::from_millis(100);
/// The clock may be set while we sleep: it is looked at this often at least.
const SLEEP_MAX: Duration = Duration::from_secs(10);

/// The levels and how far they are delivered.
#[derive(Debug)]
pub struct Schedule {
    topic: Arc<str>,
    delays: Vec<Duration>,
    path: PathBuf,
    table: Mutex<Table>,
    /// Per level: its queue was seen empty, so an arrival there must wake the deliverer.
    idle: Vec<AtomicBool>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Table {
    file: DelayOffsetSerializeWrapper,
    changed: bool,
}

/// What one look at a level ended with.
enum Look {
    /// Nothing waits.
    Empty,
    /// The next one is due at this time (ms).
    DueAt(i64),
    /// More is due already.
    More,
    /// Could not deliver; the reason is logged.
    Failed,
}

impl Schedule {
    /// Reads the table from `path`; one that does not read is an error, since delivering from 0 again would repeat every
    /// delayed message of the last days.
    pub fn load(path: PathBuf, delays: Vec<Duration>) -> Result<Schedule, TableError> {
        let file = table_file::load(&path)?.unwrap_or_default();
        Ok(Schedule {
            topic: topic::SCHEDULE.into(),
            idle: delays.iter().map(|_| AtomicBool::new(false)).collect(),
            delays,
            path,
            table: Mutex::new(Table {
                file,
                changed: false,
            }),
            arrived: Notify::new(),
        })
    }

    /// How many levels there are.
    pub fn levels(&self) -> usize {
        self.delays.len()
    }

    /// The topic delayed messages lie in.
    pub fn topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    /// The table's text: GET_ALL_DELAY_OFFSET (45).
    pub fn text(&self) -> String {
        json::to_fastjson(&self.table.lock().file)
    }

    /// A slave takes its master's table over and keeps it on disk.
    pub fn replace(&self, text: &str) -> Result<(), ReplaceError> {
        let file: DelayOffsetSerializeWrapper = json::from_slice(text.as_bytes())?;
        {
            let mut table = self.table.lock();
            if table.file.offset_table == file.offset_table {
                return Ok(());
            }
            *table = Table {
                file,
                changed: true,
            };
        }
        Ok(self.persist()?)
    }

    /// Level to (next offset to deliver): for the runtime info (28).
    pub fn offsets(&self) -> BTreeMap<i32, i64> {
        self.table.lock().file.offset_table.clone()
    }

    /// Writes the table if it changed since the last time.
    pub fn persist(&self) -> Result<(), TableError> {
        let text = {
            let mut table = self.table.lock();
            if !table.changed {
                return Ok(());
            }
            table.changed = false;
            json::to_fastjson_pretty(&table.file)
        };
        table::write(&self.path, &text).inspect_err(|_| self.table.lock().changed = true)
    }

    /// Messages have arrived (told by whoever appended them).
    pub(super) fn on_arrivals(&self, arrivals: &[Arrival]) {
        fence(Ordering::SeqCst);
        for arrival in arrivals {
            if *arrival.topic == *self.topic
                && let Some(idle) = self.idle.get(arrival.queue_id as usize)
                && idle.swap(false, Ordering::SeqCst)
            {
                self.arrived.notify_one();
            }
        }
    }

    fn offset(&self, level: i32) -> i64 {
        self.table
            .lock()
            .file
            .offset_table
            .get(&level)
            .copied()
            .unwrap_or_default()
    }

    fn advance(&self, level: i32, offset: i64) {
        let mut table = self.table.lock();
        if table.file.offset_table.insert(level, offset) != Some(offset) {
            table.file.data_version.bump(clock::now_ms());
            table.changed = true;
        }
    }
}

/// Why a master's table was not taken over.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ReplaceError {
    #[error("the master's delay offsets do not parse: {0}")]
    Parse(#[from] json::JsonError),
    #[error(transparent)]
    Write(#[from] TableError),
}

/// Delivers until the broker stops.
pub(super) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut persist =
        tokio::time::interval(broker.config.get().flush_delay_offset_interval.max(RETRY));
    persist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut wait = SLEEP_MAX;
        for level in 1..=broker.schedule.levels() as i32 {
            if *stop.borrow() {
                return;
            }
            let level_wait = match broker.deliver(level).await {
                Look::Empty => SLEEP_MAX,
                Look::DueAt(ms) => {
                    Duration::from_millis(ms.saturating_sub(clock::now_ms()).max(0) as u64)
                }
                Look::More => Duration::ZERO,
                Look::Failed => RETRY,
            };
            wait = wait.min(level_wait);
        }
        if wait.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = broker.schedule.arrived.notified() => {}
            _ = persist.tick() => {
                if let Err(error) = broker.schedule.persist() {
                    tracing::error!(%error, "delay offsets were not written; trying again");
                }
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Broker {
    /// Delivers what is due of one level.
    async fn deliver(&self, level: i32) -> Look {
        let schedule = &self.schedule;
        let queue_id = level - 1;
        let Some(delay) = schedule.delays.get(queue_id as usize) else {
            return Look::Empty;
        };
        let idle = &schedule.idle[queue_id as usize];
        // Set before looking: an arrival after the look sees it and wakes us.
        idle.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let known = schedule.offset(level);
        let (min, max) = self.store.queue_bounds(&schedule.topic, queue_id);
        let from = known.clamp(min, max.max(min));
        if from != known {
            tracing::warn!(
                "delay level {level} was delivered up to {known}, its queue has {min} to {max}: going on at {from}"
            );
            schedule.advance(level, from);
        }
        if from >= max {
            return Look::Empty;
        }
        idle.store(false, Ordering::SeqCst);
        match self.take_due(level, from, *delay) {
            Err(error) => {
                tracing::error!(%error, "reading delay level {level} at {from} failed");
                Look::Failed
            }
            Ok(Due {
                batch,
                topics,
                taken,
                next,
            }) => {
                if !batch.is_empty() {
                    if let Err(error) = self.append_and_wait(batch).await {
                        tracing::warn!(%error, "delay level {level}: messages due at {from} wait");
                        return Look::Failed;
                    }
                    for (topic, bytes) in topics {
                        self.stats.put(&topic, 1, bytes as u64);
                    }
                }
                schedule.advance(level, from + taken);
                match next {
                    Some(due) => Look::DueAt(due),
                    None => Look::More,
                }
            }
        }
    }

    fn take_due(&self, level: i32, from: i64, delay: Duration) -> std::io::Result<Due> {
        let entries =
            (self.store).queue_entries(&self.schedule.topic, level - 1, from, ENTRIES_MAX)?;
        let now = clock::now_ms();
        let mut due = Due {
            batch: RecordBatch::new(),
            topics: Vec::new(),
            taken: 0,
            next: None,
        };
        for entry in entries {
            // A time further ahead than the level's delay was made with other levels: due now.
            if entry.tags_code > now && entry.tags_code <= now + delay.as_millis() as i64 {
                due.next = Some(entry.tags_code);
                break;
            }
            due.taken += 1;
            let Some(bytes) = self.store.record_at(entry.physical_offset)? else {
                continue;
            };
            let before = due.batch.byte_len();
            match self.time_up(&bytes, &mut due.batch) {
                Ok(topic) => due.topics.push((topic, due.batch.byte_len() - before)),
                Err(reason) => tracing::error!(
                    "the delayed message at {} is dropped: {reason}",
                    entry.physical_offset
                ),
            }
            if due.batch.byte_len() >= BATCH_BYTES {
                break;
            }
        }
        Ok(due)
    }

    /// The record as it goes to its own topic (`ScheduleMessageService.messageTimeUp`); its properties stay as they are.
    fn time_up(&self, bytes: &[u8], batch: &mut RecordBatch) -> Result<Arc<str>, String> {
        let Ok(Parsed::Record(delayed, _)) = record::parse(bytes, false) else {
            return Err("its record does not parse".into());
        };
        let Some(real) = properties::get(delayed.properties, name::REAL_TOPIC) else {
            return Err("it has no REAL_TOPIC".into());
        };
        if real == topic::TRANS_HALF {
            return Err(format!("its real topic is {real}"));
        }
        let queue_id = properties::get(delayed.properties, name::REAL_QID);
        let Some(queue_id) = queue_id.and_then(|id| id.parse().ok()) else {
            return Err(format!("its REAL_QID is {queue_id:?}"));
        };
        let topic = match self.topics.get(real) {
            Some(config) => Arc::clone(&config.topic_name),
            None => real.into(),
        };
        let place = Place {
            topic,
            queue_id,
            properties: delayed.properties.into(),
        };
        let place = self
            .in_light_queues(place)
            .map_err(|refusal| refusal.remark)?;
        let record = Record {
            queue_id,
            prepared_transaction_offset: 0,
            topic: &place.topic,
            properties: &place.properties,
            ..delayed
        };
        batch
            .push(&place.topic, &record)
            .map_err(|error| error.to_string())?;
        Ok(place.topic)
    }
}

/// What of a level is due now.
struct Due {
    batch: RecordBatch,
    topics: Vec<(Arc<str>, usize)>,
    /// Entries done with, dropped ones included.
    taken: i64,
    /// When the first entry that is not due comes due; `None`: look again at once.
    next: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const JAVA: &str = "{\n\t\"dataVersion\":{\n\t\t\"counter\":3,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1700000000000\n\t},\n\t\"offsetTable\":{1:12,3:4,18:0\n\t}\n}";

    #[test]
    fn a_table_survives_a_restart_and_a_slave_takes_its_masters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("delayOffset.json");
        let levels = vec![Duration::from_secs(1); 18];
        let schedule = Schedule::load(path.clone(), levels.clone()).unwrap();
        schedule.advance(1, 7);
        schedule.persist().unwrap();
        let again = Schedule::load(path.clone(), levels.clone()).unwrap();
        assert_eq!(again.offsets(), BTreeMap::from([(1, 7)]));
        again.replace(JAVA).unwrap();
        let slave = Schedule::load(path, levels).unwrap();
        assert_eq!(slave.offsets(), BTreeMap::from([(1, 12), (3, 4), (18, 0)]));
        assert!(slave.replace("{\"offsetTable\":{\"x\":1}}").is_err());
        assert_eq!(
            slave.text(),
            "{\"dataVersion\":{\"counter\":3,\"stateVersion\":0,\"timestamp\":1700000000000},\"offsetTable\":{1:12,3:4,18:0}}"
        );
    }
}
