//! The log's owner, which one thread at a time works with, and the log thread, which keeps its time.

use super::acks::finish;
use super::flush::FEW;
use super::{AppendError, Done, Inner, Outcome, Requirement, Work};
use crate::clock::{Zone, now_ms};
use rocketmq_store::{CheckpointJob, RecordBatch, StoreError, Writer};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes written by one append at most; what waits beyond them is the next one.
const APPEND_BYTES: usize = 4 << 20;
/// Appends that may wait for disk or slaves, whatever the inbox holds.
const WAITING_MAX: usize = 100_000;
/// How often queues, index and checkpoint are written at most.
const HOUSEKEEP: Duration = Duration::from_secs(1);
/// How often retention looks at the files.
const CLEAN: Duration = Duration::from_secs(10);

/// The store's writer with the work at hand.
pub(super) struct Owner {
    writer: Writer,
    /// Taken from the inbox, not done yet.
    pub todo: VecDeque<Work>,
    /// Kept between rounds for their room.
    batches: Vec<RecordBatch>,
    waiting: Vec<(Requirement, Done)>,
    /// A wait may be over before the log thread next looks by itself.
    short_waits: bool,
    /// Sends appended in this round that wait for a sync, while they are so few that the bell is not rung for them.
    unsynced: usize,
}

/// How a round of work ended.
pub(super) enum Round {
    /// `unsynced`: sends appended for which the bell was not rung, since they may be few enough to be synced at once.
    On {
        unsynced: usize,
    },
    Stop(oneshot::Sender<Result<(), StoreError>>),
    Failed(StoreError),
}

impl Owner {
    /// `shortest_wait`: after which an append that waits for disk or slaves gives up.
    pub fn new(writer: Writer, shortest_wait: Duration) -> Self {
        Self {
            short_waits: shortest_wait <= HOUSEKEEP,
            writer,
            todo: VecDeque::new(),
            batches: Vec::new(),
            waiting: Vec::new(),
            unsynced: 0,
        }
    }

    /// Does what waits, in its order. A panic on the way leaves the writer and who waits for it in between two states: it ends the
    /// store as a failed write does, and nothing is acknowledged after it.
    pub fn round(&mut self, inner: &Inner) -> Round {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work_off(inner)));
        worked.unwrap_or_else(|_| {
            let what = "appending panicked, which the log tells of";
            Round::Failed(self.writer.give_up(what))
        })
    }

    /// Neighbouring appends become one.
    fn work_off(&mut self, inner: &Inner) -> Round {
        let mut bytes = 0;
        while let Some(one) = self.todo.pop_front() {
            if let Work::Append(batch, requirement, done) = one {
                if bytes > 0 && bytes + batch.byte_len() > APPEND_BYTES {
                    if let Err(error) = self.append(inner) {
                        return Round::Failed(error);
                    }
                    bytes = 0;
                }
                bytes += batch.byte_len();
                self.batches.push(batch);
                self.waiting.push((requirement, done));
                continue;
            }
            if let Err(error) = self.append(inner) {
                return Round::Failed(error);
            }
            bytes = 0;
            match one {
                Work::Append(..) => {}
                Work::Raw(at, bytes, answer) => {
                    let result = self.writer.append_raw(at, &bytes, now_ms());
                    if let Ok(end) = result {
                        self.published(inner, end);
                        inner.bell.ring();
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
        match self.append(inner) {
            Ok(()) => Round::On {
                unsynced: std::mem::take(&mut self.unsynced),
            },
            Err(error) => Round::Failed(error),
        }
    }

    /// Appends the gathered batches in one go. `Err` only when the store cannot go on.
    fn append(&mut self, inner: &Inner) -> Result<(), StoreError> {
        if self.batches.is_empty() {
            return Ok(());
        }
        let placed = match self.writer.append(&mut self.batches, now_ms()) {
            Ok(placed) => placed,
            Err(error) => return self.refuse(inner, error),
        };
        self.batches.clear();
        if let Some(last) = placed.last() {
            self.published(inner, last.end);
        }
        let records = placed.iter().map(|placed| placed.records.len());
        self.unsynced += records.sum::<usize>();
        let all_wait = self.waiting.iter().all(|(required, _)| required.flushed);
        if !all_wait || self.unsynced > FEW {
            self.unsynced = 0;
            inner.bell.ring();
        }
        let mut acks = inner.acks.lock();
        let now = Instant::now();
        let waited = acks.len();
        let room = WAITING_MAX.saturating_sub(waited);
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
        if self.short_waits && waited == 0 && acks.len() > 0 {
            inner.inbox.summon();
        }
        drop(acks);
        for (placed, outcome, done) in ready {
            done(Ok((placed, outcome)));
        }
        Ok(())
    }

    /// Nothing of the gathered batches was stored; says so. One that is too large does not take the others along.
    fn refuse(&mut self, inner: &Inner, error: StoreError) -> Result<(), StoreError> {
        let batches = std::mem::take(&mut self.batches);
        let waiting = std::mem::take(&mut self.waiting);
        if matches!(error, StoreError::RecordTooLarge { .. }) && batches.len() > 1 {
            for (batch, wait) in batches.into_iter().zip(waiting) {
                self.batches.push(batch);
                self.waiting.push(wait);
                self.append(inner)?;
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
    fn published(&mut self, inner: &Inner, end: i64) {
        inner.positions.send_modify(|positions| positions.end = end);
        let arrivals = self.writer.arrivals();
        if let Some(unsynced) = &inner.unsynced {
            unsynced.lock().append(arrivals);
        } else if !arrivals.is_empty() {
            (inner.on_arrivals)(arrivals);
        }
    }

    /// Starts a checkpoint round unless one is still under way, or was and took so long that the next is not due.
    fn checkpoint(&mut self, inner: &Inner, jobs: &SyncSender<CheckpointJob>, now: Instant) {
        self.writer.measure_disk();
        if now < *inner.next_checkpoint.lock() {
            return;
        }
        if let Some(job) = self.writer.checkpoint_job(now_ms())
            && jobs.try_send(job).is_err()
        {
            self.writer.checkpoint_missed();
        }
    }
}

/// The log thread.
pub(super) struct LogThread {
    pub inner: Arc<Inner>,
    pub on_failure: Box<dyn FnOnce(StoreError) + Send>,
    pub delete_when: Vec<u32>,
    pub zone: Zone,
    /// The checkpoint thread's jobs, the flush thread and the checkpoint thread.
    pub threads: (SyncSender<CheckpointJob>, JoinHandle<()>, JoinHandle<()>),
}

impl LogThread {
    pub fn run(self) {
        let inner = self.inner.clone();
        let mut housekeep_at = Instant::now() + HOUSEKEEP;
        let mut clean_at = Instant::now() + CLEAN;
        loop {
            let deadline = inner.acks.lock().next_deadline();
            inner
                .inbox
                .wait(deadline.map_or(housekeep_at, |deadline| deadline.min(housekeep_at)));
            let mut place = inner.owner.lock();
            // Only this thread ever takes the owner away, and ends with it.
            let Some(mut owner) = place.take() else {
                return;
            };
            inner.inbox.take_all(&mut owner.todo);
            let mut round = owner.round(&inner);
            let now = Instant::now();
            if matches!(round, Round::On { .. }) {
                if now >= housekeep_at {
                    housekeep_at = now + HOUSEKEEP;
                    owner.checkpoint(&inner, &self.threads.0, now);
                }
                if now >= clean_at {
                    clean_at = now + CLEAN;
                    let now_ms = now_ms();
                    let at_delete_hour = is_delete_hour(&self.delete_when, &self.zone, now_ms);
                    if let Err(error) = owner.writer.clean(now_ms, at_delete_hour) {
                        round = Round::Failed(error);
                    }
                }
            }
            let unsynced = match round {
                Round::On { unsynced } => {
                    *place = Some(owner);
                    unsynced
                }
                Round::Stop(answer) => {
                    drop(place);
                    inner.brought.notify_one();
                    return self.stop(owner, answer);
                }
                Round::Failed(error) => {
                    drop(place);
                    inner.brought.notify_one();
                    return self.fail(owner, error);
                }
            };
            drop(place);
            // What came meanwhile is the task's again, which found the owner taken.
            inner.brought.notify_one();
            inner.sync_few(unsynced);
            let released = inner.acks.lock().on_tick(now);
            finish(released);
        }
    }

    /// Waits for the flush and checkpoint threads to end.
    fn join(threads: (SyncSender<CheckpointJob>, JoinHandle<()>, JoinHandle<()>), inner: &Inner) {
        let (jobs, flush, checkpoints) = threads;
        inner.bell.stop();
        drop(jobs);
        let _ = flush.join();
        let _ = checkpoints.join();
    }

    fn stop(self, mut owner: Owner, answer: oneshot::Sender<Result<(), StoreError>>) {
        let inner = self.inner;
        let reason = "the store was asked to stop";
        let left = inner.inbox.close("it was asked to");
        refuse_all(std::mem::take(&mut owner.todo), reason);
        refuse_all(left, reason);
        Self::join(self.threads, &inner);
        let end = owner.writer.log_end();
        let result = owner.writer.close(now_ms());
        if result.is_ok() {
            inner
                .positions
                .send_modify(|positions| positions.flushed = end);
            let released = inner.acks.lock().on_flushed(end);
            finish(released);
        }
        let released = inner.acks.lock().give_up();
        finish(released);
        let _ = answer.send(result);
    }

    /// A write or sync failed: nothing is acknowledged from here on, and the broker is told to stop.
    fn fail(self, mut owner: Owner, error: StoreError) {
        let inner = self.inner;
        let reason = error.to_string();
        let left = inner.inbox.close(&reason);
        let released = inner.acks.lock().give_up();
        finish(released);
        refuse_all(std::mem::take(&mut owner.todo), &reason);
        refuse_all(left, &reason);
        Self::join(self.threads, &inner);
        let released = inner.acks.lock().give_up();
        finish(released);
        (self.on_failure)(error);
    }
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

/// Whether it is an hour at which expired files go, by the zone's clocks. An hour that they skip in spring is skipped, as in Java;
/// files that expired wait for the next day's.
fn is_delete_hour(hours: &[u32], zone: &Zone, now_ms: i64) -> bool {
    hours.contains(&zone.hour(now_ms))
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
