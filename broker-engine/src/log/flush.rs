//! The threads that wait for the disk, so that the log thread does not: one syncs the commit log, one writes and syncs
//! what was dispatched (queues, index, checkpoint).

use super::acks::finish;
use super::{Inner, Work};
use parking_lot::{Condvar, Mutex};
use rocketmq_store::{CheckpointJob, StoreError, Syncer};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Wakes the flush thread.
#[derive(Debug, Default)]
pub(super) struct Bell {
    state: Mutex<BellState>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    dirty: bool,
    stop: bool,
}

impl Bell {
    /// There is something to sync.
    pub fn ring(&self) {
        let mut state = self.state.lock();
        if !state.dirty {
            state.dirty = true;
            self.rung.notify_one();
        }
    }

    /// The thread ends after the sync under way.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.rung.notify_one();
    }

    /// Waits until there is something to sync, then for `gather` more; false when the thread shall end.
    fn wait(&self, gather: Duration) -> bool {
        let mut state = self.state.lock();
        while !state.dirty && !state.stop {
            self.rung.wait(&mut state);
        }
        let until = Instant::now() + gather;
        while !state.stop && !gather.is_zero() {
            if self.rung.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.dirty = false;
        !state.stop
    }
}

/// Sends appended in one go that are synced by the thread that appended them: as many as come to less work than two changes of
/// threads. More are better synced by the flush thread, while the next are read and appended.
pub(super) const FEW: usize = 4;
/// A disk whose last sync took longer is left to the flush thread: nobody's connections wait for it, and the changes of threads
/// are a small part of it.
const QUICK: Duration = Duration::from_micros(500);

/// Syncs the commit log, for one thread at a time.
#[derive(Debug)]
pub(super) struct Flusher {
    syncer: Syncer,
    /// How long the last sync took; unknown is long.
    last: Mutex<Duration>,
}

impl Flusher {
    pub fn new(syncer: Syncer) -> Self {
        Self {
            syncer,
            last: Mutex::new(Duration::MAX),
        }
    }

    /// Syncs on this thread if nobody else does and the disk is quick; false if not, and then the bell must be rung.
    pub fn sync_here(&self, inner: &Inner) -> bool {
        let Some(mut last) = self.last.try_lock() else {
            return false;
        };
        if *last > QUICK {
            return false;
        }
        self.sync(inner, &mut last);
        true
    }

    /// Syncs, and tells all who waited for it; false once the store has failed.
    fn sync(&self, inner: &Inner, last: &mut Duration) -> bool {
        // Taken before the sync, which then covers all of it.
        let arrived = inner
            .unsynced
            .as_ref()
            .map(|all| std::mem::take(&mut *all.lock()));
        let began = Instant::now();
        let synced = self.syncer.sync();
        *last = began.elapsed();
        match synced {
            Ok(flushed) => {
                inner
                    .positions
                    .send_modify(|positions| positions.flushed = positions.flushed.max(flushed));
                let released = inner.acks.lock().on_flushed(flushed);
                finish(released);
                if let Some(arrived) = arrived.filter(|arrived| !arrived.is_empty()) {
                    (inner.on_arrivals)(&arrived);
                }
                true
            }
            Err(error) => {
                inner.inbox.push_control(Work::Failed(error));
                false
            }
        }
    }
}

/// Syncs until told to stop. While one sync runs, the next batches gather: that is the group commit. With ASYNC_FLUSH they
/// gather for `interval` as well.
pub(super) fn run(inner: &Inner, sync_flush: bool, interval: Duration) {
    let gather = if sync_flush { Duration::ZERO } else { interval };
    while inner.bell.wait(gather) {
        if !inner.flusher.sync(inner, &mut inner.flusher.last.lock()) {
            return;
        }
    }
}

/// Time between two checkpoint rounds, in lengths of the first: with very many queues, each of which is a file of its own to
/// open and write, one takes long, and this is what bounds its share of a processor.
const CHECKPOINT_REST: u32 = 8;
/// The longest such time: what came since the last round is dispatched again after a crash.
const CHECKPOINT_REST_MAX: Duration = Duration::from_secs(8);

/// Runs checkpoint rounds until the log thread lets go of the other end.
pub(super) fn run_checkpoints(inner: &Inner, jobs: &Receiver<CheckpointJob>) {
    while let Ok(job) = jobs.recv() {
        let began = Instant::now();
        let ran = job.run();
        let rest = (began.elapsed() * CHECKPOINT_REST).min(CHECKPOINT_REST_MAX);
        *inner.next_checkpoint.lock() = Instant::now() + rest;
        match ran {
            Ok(()) => {}
            // Not final: appends are refused until a later round finds room.
            Err(StoreError::DiskFull(what)) => {
                tracing::warn!(%what, "the disk is full; sends are refused until there is room")
            }
            Err(error) => {
                inner.inbox.push_control(Work::Failed(error));
                return;
            }
        }
    }
}
