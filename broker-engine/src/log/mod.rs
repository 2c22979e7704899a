//! The log: the one owner of the store's writer, and what waits on the positions it publishes.
//!
//! Everyone sends batches here through a bounded inbox (full: SYSTEM_BUSY at once). Whoever comes first appends all that waits in
//! one go, publishes the end and runs each batch's `done`: a thread of connections when it has handed over all it read, so that what
//! came at one time makes one append and no message pays for a change of threads; a task of the runtime what others brought. A log
//! thread keeps the time (deadlines, checkpoints, retention) and does all other work. A flush thread syncs all since the last
//! sync and publishes `flushed`: group commit is what the inbox gathers during a sync. With SYNC_FLUSH a few sends on a quick disk are
//! synced by who appended them.

mod acks;
mod flush;
mod inbox;
mod owner;

use crate::clock::Zone;
use acks::{Acks, finish};
use flush::{Bell, Flusher};
use inbox::Inbox;
use owner::{LogThread, Owner, Round};
use parking_lot::Mutex;
pub use rocketmq_store::Arrival;
use rocketmq_store::{Placed, RecordBatch, StoreError, Writer};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

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

/// Runs once when a batch's fate is known, on whatever thread knows it; must not block.
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

/// Handle to the log.
#[derive(Clone, Debug)]
pub struct Log {
    inner: Arc<Inner>,
}

/// What the log thread, the threads that wait for the disk, and the handles share.
struct Inner {
    inbox: Inbox,
    /// Whoever holds it works the inbox off; `None` once the log has stopped.
    owner: Mutex<Option<Owner>>,
    /// Wakes the task that appends.
    brought: Notify,
    acks: Mutex<Acks>,
    bell: Bell,
    flusher: Flusher,
    /// Before this the checkpoint thread rests.
    next_checkpoint: Mutex<Instant>,
    on_arrivals: OnArrivals,
    /// With `sync_flush`: what was appended and is not synced yet.
    unsynced: Option<Mutex<Vec<Arrival>>>,
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

/// All that the log can be asked. Appends are done by the task or the log thread, the rest by the log thread.
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

/// Told of what readers can see from now on, by whoever brought that about; must not block.
pub type OnArrivals = Box<dyn Fn(&[Arrival]) + Send + Sync>;

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
    /// Called after each published append; with `sync_flush` after the sync, since readers see nothing before.
    pub on_arrivals: OnArrivals,
    /// Called once when a write or sync failed: the broker must stop with this reason.
    pub on_failure: Box<dyn FnOnce(StoreError) + Send>,
    /// `deleteWhen`: hours of the day at which expired files go.
    pub delete_when: Vec<u32>,
    /// Whose hours those are.
    pub zone: Zone,
}

impl Log {
    /// Starts the log, flush and checkpoint threads, and the task that appends on the runtime in which this is called.
    pub fn start(writer: Writer, options: LogOptions) -> Log {
        let end = writer.log_end();
        let flusher = Flusher::new(writer.syncer());
        let acks = Acks::new(options.flush_timeout, options.replica_timeout);
        let shortest_wait = options.flush_timeout.min(options.replica_timeout);
        let owner = Owner::new(writer, shortest_wait);
        let inner = Arc::new(Inner {
            inbox: Inbox::new(options.queue_len),
            owner: Mutex::new(Some(owner)),
            brought: Notify::new(),
            acks: Mutex::new(acks),
            bell: Bell::default(),
            flusher,
            next_checkpoint: Mutex::new(Instant::now()),
            on_arrivals: options.on_arrivals,
            unsynced: options.sync_flush.then(Mutex::default),
            positions: watch::Sender::new(Positions { end, flushed: 0 }),
            slave: options.slave,
        });
        let flush = {
            let inner = inner.clone();
            let (sync_flush, interval) = (options.sync_flush, options.flush_interval);
            spawn("rmq-flush", move || {
                flush::run(&inner, sync_flush, interval)
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
            on_failure: options.on_failure,
            delete_when: options.delete_when,
            zone: options.zone,
            threads: (jobs, flush, checkpoints),
        };
        drop(spawn("rmq-log", move || thread.run()));
        drop(tokio::spawn(append_what_comes(inner.clone())));
        Log { inner }
    }

    /// Hands a batch over; `done` runs when its fate is known. On `Err` nothing was taken and `done` did not run: answer SYSTEM_BUSY.
    pub fn append(
        &self,
        batch: RecordBatch,
        requirement: Requirement,
        done: Done,
    ) -> Result<(), AppendError> {
        self.bring(batch, requirement, done)?;
        self.inner.brought.notify_one();
        Ok(())
    }

    /// The same for who calls [`Log::append_brought`] when all that came is handed over.
    pub fn bring(
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

    /// Appends what waits, unless somebody is at it, who then appends this too.
    pub fn append_brought(&self) {
        self.inner.append_what_waits();
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

/// The task that appends what others brought than threads of connections, until the log has stopped.
async fn append_what_comes(inner: Arc<Inner>) {
    loop {
        inner.brought.notified().await;
        if !inner.append_what_waits() {
            return;
        }
    }
}

impl Inner {
    /// Appends what waits, unless somebody is at it; false once the log has stopped.
    fn append_what_waits(&self) -> bool {
        // Whoever is at it looks again after letting go: what is left behind here is found there. The log thread wakes the task.
        while !self.inbox.is_empty() {
            let Some(mut place) = self.owner.try_lock() else {
                return true;
            };
            let Some(owner) = place.as_mut() else {
                return false;
            };
            if !self.inbox.take_appends(&mut owner.todo) {
                return true;
            }
            match owner.round(self) {
                Round::On { unsynced } => {
                    drop(place);
                    self.sync_few(unsynced);
                }
                Round::Failed(error) => drop(self.inbox.push_control(Work::Failed(error))),
                // Nobody but the log thread takes that from the inbox.
                Round::Stop(_) => {}
            }
        }
        true
    }

    /// Has synced what a round appended without ringing for it.
    fn sync_few(&self, unsynced: usize) {
        if unsynced > 0 && !self.flusher.sync_here(self) {
            self.bell.ring();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .expect("a process that starts can make its three store threads")
}
