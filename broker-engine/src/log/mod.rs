//! The log thread: the one owner of the store's writer, and what waits on the positions it publishes.
//!
//! Everyone else sends batches here through a bounded channel (full: SYSTEM_BUSY at once). The thread drains what
//! waits, appends it in one go, publishes the end and runs each batch's `done`. A flush thread syncs all since the last
//! sync and publishes `flushed`: group commit is what draining a channel during a sync gives.

mod acks;
mod flush;
mod inbox;

use crate::clock::{Zone, now_ms};
use acks::{Acks, finish};
use flush::Bell;
use inbox::Inbox;
use parking_lot::Mutex;
pub use rocketmq_store::Arrival;
use rocketmq_store::{CheckpointJob, Placed, RecordBatch, StoreError, Writer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Bytes written by one append at most; what waits beyond them is the next one.
const APPEND_BYTES: usize = 4 << 20;
/// Appends that may wait for disk or slaves, whatever the inbox holds.
const WAITING_MAX: usize = 100_000;
/// How often queues, index and checkpoint are written.
const HOUSEKEEP: Duration = Duration::from_secs(1);
/// How often retention looks at the files.
const CLEAN: Duration = Duration::from_secs(10);

/// What an acknowledgement must wait for besides the append itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Requirement {
    /// SYNC_FLUSH and WAIT not false: on disk.
    pub flushed: bool,
    /// SYNC_MASTER: this many slaves must have reported the position (`inSyncReplicas` - 1).
    pub replicas: usize,
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All that was required is reached.
    Stored,
    /// Stored, but not synced in time: FLUSH_DISK_TIMEOUT (10).
    FlushTimeout,
    /// Stored, but not enough slaves reported in time: FLUSH_SLAVE_TIMEOUT (12).
    ReplicaTimeout,
    /// Stored, but fewer slaves are connected than required and none can come in time: SLAVE_NOT_AVAILABLE (11).
    ReplicaMissing,
}

/// Runs once on the log, flush or replication thread when a batch's fate is known; must not block.
/// `Err` means that nothing of the batch was stored.
pub type Done = Box<dyn FnOnce(Result<(Placed, Outcome), AppendError>) + Send>;

/// Why a batch was not stored.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum AppendError {
    #[error("the log's queue of {0} batches is full")]
    Busy(usize),
    #[error("the disk is full: {0}")]
    DiskFull(String),
    #[error("this broker is a slave; its log only takes its master's bytes")]
    Slave,
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// Handle to the log thread.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

/// What the log thread, the threads that wait for the disk, and the handles share.
struct Inner {
    inbox: Inbox,
    acks: Mutex<Acks>,
    bell: Bell,
    positions: watch::Sender<Positions>,
    slave: bool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("positions", &*self.positions.borrow())
            .finish_non_exhaustive()
    }
}

/// All that the log thread can be asked.
enum Work {
    Append(RecordBatch, Requirement, Done),
    Raw(i64, bytes::Bytes, oneshot::Sender<Result<i64, StoreError>>),
    DeleteTopic(String, oneshot::Sender<Result<(), StoreError>>),
    Clean,
    /// A sync on another thread failed.
    Failed(StoreError),
    Stop(oneshot::Sender<Result<(), StoreError>>),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(..) => "append",
            Self::Raw(..) => "append a master's bytes",
            Self::DeleteTopic(..) => "delete a topic",
            Self::Clean => "clean",
            Self::Failed(_) => "a sync failed",
            Self::Stop(_) => "stop",
        })
    }
}

/// Positions of this log, readable at any time; `changed` style waiting through `watch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// One past the last published byte.
    pub end: i64,
    /// On disk up to here.
    pub flushed: i64,
}

/// Told of each published append, on the log thread.
pub type OnArrivals = Box<dyn Fn(&[Arrival]) + Send>;

/// How the log thread is set up.
#[allow(missing_docs, missing_debug_implementations)]
pub struct LogOptions {
    pub sync_flush: bool,
    /// `syncFlushTimeout`, 5 s.
    pub flush_timeout: Duration,
    /// `slaveTimeout`, 3 s.
    pub replica_timeout: Duration,
    /// `flushIntervalCommitLog`, 500 ms.
    pub flush_interval: Duration,
    /// Bounded channel's length in batches.
    pub queue_len: usize,
    pub slave: bool,
    /// Called on the log thread after each published append.
    pub on_arrivals: OnArrivals,
    /// Called once when a write or sync failed: the broker must stop with this reason.
    pub on_failure: Box<dyn FnOnce(StoreError) + Send>,
    /// `deleteWhen`: hours of the day at which expired files go.
    pub delete_when: Vec<u32>,
    /// Whose hours those are.
    pub zone: Zone,
}

impl Log {
    /// Starts the log, flush and checkpoint threads.
    pub fn start(writer: Writer, options: LogOptions) -> Log {
        let end = writer.log_end();
        let inner = Arc::new(Inner {
            inbox: Inbox::new(options.queue_len),
            acks: Mutex::new(Acks::new(options.flush_timeout, options.replica_timeout)),
            bell: Bell::default(),
            positions: watch::Sender::new(Positions { end, flushed: 0 }),
            slave: options.slave,
        });
        let syncer = writer.syncer();
        let flush = {
            let inner = inner.clone();
            let (sync_flush, interval) = (options.sync_flush, options.flush_interval);
            spawn("rmq-flush", move || {
                flush::run(&inner, &syncer, sync_flush, interval)
            })
        };
        // One round at a time: while one runs, the log thread goes on without asking for another.
        let (jobs, waiting_jobs) = sync_channel(1);
        let checkpoints = {
            let inner = inner.clone();
            spawn("rmq-checkpoint", move || {
                flush::run_checkpoints(&inner, &waiting_jobs)
            })
        };
        // What recovery read may be in the page cache only.
        inner.bell.ring();
        let thread = LogThread {
            inner: inner.clone(),
            writer,
            on_arrivals: options.on_arrivals,
            on_failure: Some(options.on_failure),
            delete_when: options.delete_when,
            zone: options.zone,
            threads: Some((jobs, flush, checkpoints)),
            todo: VecDeque::new(),
            batches: Vec::new(),
            waiting: Vec::new(),
        };
        drop(spawn("rmq-log", move || thread.run()));
        Log { inner }
    }

    /// Hands a batch over; `done` runs when its fate is known. On `Err` nothing was taken and `done` did not run: answer SYSTEM_BUSY.
    pub fn append(
        &self,
        batch: RecordBatch,
        requirement: Requirement,
        done: Done,
    ) -> Result<(), AppendError> {
        if self.inner.slave {
            return Err(AppendError::Slave);
        }
        let bytes = batch.byte_len();
        self.inner
            .inbox
            .push_batch(bytes, Work::Append(batch, requirement, done))
    }

    /// Slave: appends the master's bytes; resolves with the new end.
    pub async fn append_raw(&self, at: i64, bytes: bytes::Bytes) -> Result<i64, StoreError> {
        self.ask(|answer| Work::Raw(at, bytes, answer)).await
    }

    async fn ask<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Work,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        if let Some((_, reason)) = self.inner.inbox.push_control(work(answer)) {
            return Err(StoreError::Poisoned(reason));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(StoreError::Poisoned("the log thread has ended".into())))
    }

    /// Watch of the published positions.
    pub fn positions(&self) -> watch::Receiver<Positions> {
        self.inner.positions.subscribe()
    }

    /// A slave reported that it holds the log up to `acked` (already checked to be at most our end).
    pub fn replica_acked(&self, replica: std::net::SocketAddr, acked: i64) {
        let released = self.inner.acks.lock().on_replica(replica, acked);
        finish(released);
    }

    /// A slave's connection went; it came with its first report.
    pub fn replica_gone(&self, replica: std::net::SocketAddr) {
        self.inner.acks.lock().on_replica_gone(replica);
    }

    /// Drops a topic's queues.
    pub async fn delete_topic(&self, topic: String) -> Result<(), StoreError> {
        self.ask(|answer| Work::DeleteTopic(topic, answer)).await
    }

    /// Runs retention now (codes 306, 329): files past their reserved time go, whatever the hour.
    pub fn clean_now(&self) {
        self.inner.inbox.push_control(Work::Clean);
    }

    /// Appends what is waiting, syncs, closes the store, ends the threads. A second call says that it has stopped.
    pub async fn stop(&self) -> Result<(), StoreError> {
        self.ask(Work::Stop).await
    }
}

/// Whether it is an hour at which expired files go, by the zone's clocks. An hour that they skip in spring is skipped, as in Java;
/// files that expired wait for the next day's.
fn is_delete_hour(hours: &[u32], zone: &Zone, now_ms: i64) -> bool {
    hours.contains(&zone.hour(now_ms))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .expect("a process that starts can make its three store threads")
}

/// The log thread's own.
struct LogThread {
    inner: Arc<Inner>,
    writer: Writer,
    on_arrivals: OnArrivals,
    on_failure: Option<Box<dyn FnOnce(StoreError) + Send>>,
    delete_when: Vec<u32>,
    zone: Zone,
    /// Taken when they are joined.
    threads: Option<(SyncSender<CheckpointJob>, JoinHandle<()>, JoinHandle<()>)>,
    /// Taken from the inbox, not done yet.
    todo: VecDeque<Work>,
    /// Kept between rounds for their room.
    batches: Vec<RecordBatch>,
    waiting: Vec<(Requirement, Done)>,
}

impl LogThread {
    fn run(mut self) {
        let mut housekeep_at = Instant::now() + HOUSEKEEP;
        let mut clean_at = Instant::now() + CLEAN;
        loop {
            let deadline = self.inner.acks.lock().next_deadline();
            let deadline = deadline.map_or(housekeep_at, |deadline| deadline.min(housekeep_at));
            self.inner.inbox.take(&mut self.todo, deadline);
            match self.round() {
                Round::On => {}
                Round::Stop(answer) => return self.stop(answer),
                Round::Failed(error) => return self.fail(error),
            }
            let now = Instant::now();
            let released = self.inner.acks.lock().on_tick(now);
            finish(released);
            if now >= housekeep_at {
                housekeep_at = now + HOUSEKEEP;
                self.checkpoint();
            }
            if now >= clean_at {
                clean_at = now + CLEAN;
                let now_ms = now_ms();
                let at_delete_hour = is_delete_hour(&self.delete_when, &self.zone, now_ms);
                if let Err(error) = self.writer.clean(now_ms, at_delete_hour) {
                    return self.fail(error);
                }
            }
        }
    }

    /// Does what waits, in its order; neighbouring appends become one.
    fn round(&mut self) -> Round {
        let mut bytes = 0;
        while let Some(one) = self.todo.pop_front() {
            if let Work::Append(batch, requirement, done) = one {
                if bytes > 0 && bytes + batch.byte_len() > APPEND_BYTES {
                    if let Err(error) = self.append() {
                        return Round::Failed(error);
                    }
                    bytes = 0;
                }
                bytes += batch.byte_len();
                self.batches.push(batch);
                self.waiting.push((requirement, done));
                continue;
            }
            if let Err(error) = self.append() {
                return Round::Failed(error);
            }
            bytes = 0;
            match one {
                Work::Append(..) => {}
                Work::Raw(at, bytes, answer) => {
                    let result = self.writer.append_raw(at, &bytes, now_ms());
                    if let Ok(end) = result {
                        self.published(end);
                    }
                    let failed = self.writer.failure();
                    let _ = answer.send(result);
                    if let Some(error) = failed {
                        return Round::Failed(error);
                    }
                }
                Work::DeleteTopic(topic, answer) => {
                    let _ = answer.send(self.writer.delete_topic(&topic, now_ms()));
                }
                Work::Clean => {
                    if let Err(error) = self.writer.clean(now_ms(), true) {
                        return Round::Failed(error);
                    }
                }
                Work::Failed(error) => return Round::Failed(error),
                Work::Stop(answer) => return Round::Stop(answer),
            }
        }
        match self.append() {
            Ok(()) => Round::On,
            Err(error) => Round::Failed(error),
        }
    }

    /// Appends the gathered batches in one go. `Err` only when the store cannot go on.
    fn append(&mut self) -> Result<(), StoreError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let placed = match self.writer.append(&mut self.batches, now_ms()) {
            Ok(placed) => placed,
            Err(error) => return self.refuse(error),
        };
        self.batches.clear();
        if let Some(last) = placed.last() {
            self.published(last.end);
        }
        let mut acks = self.inner.acks.lock();
        let now = Instant::now();
        let room = WAITING_MAX.saturating_sub(acks.len());
        let mut ready = Vec::with_capacity(placed.len());
        for (number, (placed, (requirement, done))) in
            placed.into_iter().zip(self.waiting.drain(..)).enumerate()
        {
            if requirement == Requirement::default() {
                ready.push((placed, Outcome::Stored, done));
            } else if number >= room {
                // It is stored, but nobody can wait for it: the same as having waited in vain.
                let outcome = if requirement.replicas > 0 {
                    Outcome::ReplicaTimeout
                } else {
                    Outcome::FlushTimeout
                };
                ready.push((placed, outcome, done));
            } else if let Some((placed, done)) = acks.push(placed, requirement, done, now) {
                ready.push((placed, Outcome::Stored, done));
            }
        }
        drop(acks);
        for (placed, outcome, done) in ready {
            done(Ok((placed, outcome)));
        }
        Ok(())
    }

    /// Nothing of the gathered batches was stored; says so. One that is too large does not take the others along.
    fn refuse(&mut self, error: StoreError) -> Result<(), StoreError> {
        let batches = std::mem::take(&mut self.batches);
        let waiting = std::mem::take(&mut self.waiting);
        if matches!(error, StoreError::RecordTooLarge { .. }) && batches.len() > 1 {
            for (batch, wait) in batches.into_iter().zip(waiting) {
                self.batches.push(batch);
                self.waiting.push(wait);
                self.append()?;
            }
            return Ok(());
        }
        let refusal = match &error {
            StoreError::DiskFull(what) => AppendError::DiskFull(what.clone()),
            other => AppendError::Stopped(other.to_string()),
        };
        for (_, done) in waiting {
            done(Err(refusal.clone()));
        }
        match error {
            StoreError::DiskFull(_) | StoreError::RecordTooLarge { .. } => Ok(()),
            other => Err(other),
        }
    }

    /// Tells whoever watches that the log now ends at `end`.
    fn published(&mut self, end: i64) {
        self.inner
            .positions
            .send_modify(|positions| positions.end = end);
        self.inner.bell.ring();
        let arrivals = self.writer.arrivals();
        if !arrivals.is_empty() {
            (self.on_arrivals)(arrivals);
        }
    }

    /// Starts a checkpoint round unless one is still under way.
    fn checkpoint(&mut self) {
        let Some((jobs, ..)) = &self.threads else {
            return;
        };
        if let Some(job) = self.writer.checkpoint_job(now_ms())
            && jobs.try_send(job).is_err()
        {
            self.writer.checkpoint_missed();
        }
    }

    /// Waits for the flush and checkpoint threads to end.
    fn join(&mut self) {
        self.inner.bell.stop();
        if let Some((jobs, flush, checkpoints)) = self.threads.take() {
            drop(jobs);
            let _ = flush.join();
            let _ = checkpoints.join();
        }
    }

    fn stop(mut self, answer: oneshot::Sender<Result<(), StoreError>>) {
        let left = self.inner.inbox.close("it was asked to");
        refuse_all(
            std::mem::take(&mut self.todo),
            "the store was asked to stop",
        );
        refuse_all(left, "the store was asked to stop");
        self.join();
        let end = self.writer.log_end();
        let result = self.writer.close(now_ms());
        if result.is_ok() {
            self.inner
                .positions
                .send_modify(|positions| positions.flushed = end);
            let released = self.inner.acks.lock().on_flushed(end);
            finish(released);
        }
        let released = self.inner.acks.lock().give_up();
        finish(released);
        let _ = answer.send(result);
    }

    /// A write or sync failed: nothing is acknowledged from here on, and the broker is told to stop.
    fn fail(mut self, error: StoreError) {
        let reason = error.to_string();
        let left = self.inner.inbox.close(&reason);
        let released = self.inner.acks.lock().give_up();
        finish(released);
        refuse_all(std::mem::take(&mut self.todo), &reason);
        refuse_all(left, &reason);
        self.join();
        let released = self.inner.acks.lock().give_up();
        finish(released);
        if let Some(on_failure) = self.on_failure.take() {
            on_failure(error);
        }
    }
}

/// How a round of the log thread ended.
enum Round {
    On,
    Stop(oneshot::Sender<Result<(), StoreError>>),
    Failed(StoreError),
}

/// Answers work that nobody will do.
fn refuse_all(work: VecDeque<Work>, reason: &str) {
    let poisoned = || StoreError::Poisoned(reason.to_owned());
    for one in work {
        match one {
            Work::Append(_, _, done) => done(Err(AppendError::Stopped(reason.to_owned()))),
            Work::Raw(_, _, answer) => drop(answer.send(Err(poisoned()))),
            Work::DeleteTopic(_, answer) | Work::Stop(answer) => drop(answer.send(Err(poisoned()))),
            Work::Clean | Work::Failed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Milliseconds of 2026-03-29 at this UTC hour: in Berlin clocks go from 02:00 to 03:00 that day.
    fn march(hour: i64) -> i64 {
        (20_541 * 24 + hour) * 3_600_000
    }

    #[test]
    fn files_go_at_the_zones_own_hour_also_on_the_day_that_skips_one() {
        let at = |zone: &str, hours: &[u32]| -> Vec<i64> {
            let zone = Zone::named(zone).unwrap();
            let all = 0..24;
            all.filter(|hour| is_delete_hour(hours, &zone, march(*hour)))
                .collect()
        };
        assert_eq!(at("UTC", &[4]), [4]);
        assert_eq!(at("Asia/Shanghai", &[4]), [20]);
        assert_eq!(at("America/New_York", &[4, 16]), [8, 20]);
        assert_eq!(at("Europe/Berlin", &[4]), [2]);
        assert_eq!(at("Europe/Berlin", &[2]).len(), 0, "it is skipped");
        // 23:00 is one o'clock of the next day, in summer time.
        assert_eq!(at("Europe/Berlin", &[1, 3]), [0, 1, 23]);
    }
}
