//! What the writer, the readers, the syncer and the checkpoint share of one store.

use crate::StoreOptions;
use crate::checkpoint::{self, Checkpoint, Mark};
use crate::commit_log::CommitLog;
use crate::disk::{self, Disk, File, FileSystem, Unsynced};
use crate::error::{StoreError, io_error};
use crate::index::{Index, Key};
use crate::queue::{Queue, QueueDirs, warm_entries};
use crate::queues::Queues;
use crate::read_ahead::ReadAhead;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Files a store keeps open at once; the rest of a process's 1024 descriptors is for connections.
const OPEN_FILES: usize = 384;
/// With more files than this to sync, the whole file system is synced with one call: each sync of its own waits for the
/// file system's journal.
const SYNCED_ONE_BY_ONE: usize = 256;

#[derive(Debug)]
pub(crate) struct Store {
    pub options: StoreOptions,
    pub log: CommitLog,
    pub queues: Queues,
    /// `None` when `messageIndexEnable` is false.
    pub index: Option<Mutex<Index>>,
    /// Keys of published records, not yet in the index. Taken only while `index` is locked, so that their order stays.
    pub index_pending: Mutex<Vec<Key>>,
    /// Queue entries in memory that are in no file.
    pub entries_pending: AtomicUsize,
    pub poison: OnceLock<String>,
    /// The checkpoint on disk: queues and index hold every record before it.
    pub dispatched: AtomicI64,
    pub disk_percent: AtomicU32,
    /// Queues, index or checkpoint could not be written for lack of room: nothing is taken until they can.
    pub no_room: AtomicBool,
    pub progress: Mutex<Progress>,
}

/// How far queues, index and checkpoint are on disk. Whoever writes queues or index holds it.
#[derive(Debug)]
pub(crate) struct Progress {
    file: File,
    sequence: u64,
    /// Queues with written entries still in memory.
    warm: Vec<Arc<Queue>>,
    /// Also what an earlier round wrote before it found no room.
    pub unsynced: Unsynced,
}

/// One round of writing and syncing what the log's owner has dispatched; runs on any thread.
#[derive(Debug)]
pub struct CheckpointJob {
    pub(crate) store: Arc<Store>,
    pub(crate) sequence: u64,
    /// All records before it are in the queues' tails and the index's list.
    pub(crate) position: i64,
    pub(crate) queues: u64,
    pub(crate) queue_ends: u64,
    /// Store time of the newest record before `position`.
    pub(crate) timestamp: i64,
    pub(crate) now_ms: i64,
    /// Also what can wait.
    pub(crate) all: bool,
}

impl Store {
    pub fn new(fs: FileSystem, options: StoreOptions) -> Result<Self, StoreError> {
        let file = checkpoint::open(&fs, &options.root)?;
        let disk = Arc::new(Disk::new(fs, OPEN_FILES));
        let index = options.index_enabled.then(|| {
            let dir = options.root.join("index");
            Mutex::new(Index::new(
                dir,
                options.index_slots,
                options.index_entries,
                disk.clone(),
            ))
        });
        Ok(Self {
            log: CommitLog::new(
                options.commit_log.clone(),
                options.commit_log_file_size,
                disk.clone(),
            ),
            queues: Queues::new(QueueDirs {
                root: options.root.join("consumequeue"),
                per_file: options.consume_queue_file_entries as i64,
                disk,
                ahead: ReadAhead::default(),
            }),
            index,
            index_pending: Mutex::default(),
            entries_pending: AtomicUsize::new(0),
            poison: OnceLock::new(),
            dispatched: AtomicI64::new(0),
            disk_percent: AtomicU32::new(0),
            no_room: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                file,
                sequence: 0,
                warm: Vec::new(),
                unsynced: Unsynced::default(),
            }),
            options,
        })
    }

    pub fn fs(&self) -> &FileSystem {
        &self.queues.dirs.disk.fs
    }

    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when an earlier write or sync failed.
    pub fn check(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    /// No more writes are accepted after this.
    pub fn fail(&self, error: StoreError) -> StoreError {
        if self.poison.set(error.to_string()).is_ok() {
            checkpoint::mark_failed(self.fs(), &self.options.root);
        }
        error
    }

    /// The index, brought up to all that is published.
    pub fn caught_up_index(&self, now_ms: i64) -> Option<std::io::Result<MutexGuard<'_, Index>>> {
        let mut index = self
            .index
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut pending = self
            .index_pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut keys = std::mem::replace(&mut *pending, std::mem::take(&mut index.room));
        drop(pending);
        Some(match index.add(&keys, now_ms) {
            Ok(()) => {
                let came = keys.len();
                keys.clear();
                keys.shrink_to(2 * came);
                index.room = keys;
                Ok(index)
            }
            Err(error) => {
                // The index passes over what it already holds, so all keys can come again.
                let mut pending = self
                    .index_pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let newer = std::mem::replace(&mut *pending, keys);
                pending.extend(newer);
                Err(error)
            }
        })
    }

    /// Writes the unwritten entries of the given queues. Those that could not be written, or that have got
    /// more meanwhile, are dirty again.
    pub fn write_queues(
        &self,
        queues: &[Arc<Queue>],
        unsynced: &mut Unsynced,
    ) -> Result<(), StoreError> {
        let warm = warm_entries(queues.len());
        for (done, queue) in queues.iter().enumerate() {
            match queue.write(&self.queues.dirs, warm, unsynced) {
                Ok(wrote) => {
                    (self.entries_pending).fetch_sub(wrote.entries, Ordering::Relaxed);
                    if wrote.more {
                        self.queues.mark_dirty([Arc::clone(queue)]);
                    }
                }
                Err(error) => {
                    self.queues.mark_dirty(queues[done..].iter().cloned());
                    let queue = PathBuf::from(format!("{}/{}", queue.topic, queue.queue_id));
                    return Err(self.no_room_or_io("writing the consume queue", &queue, error));
                }
            }
        }
        Ok(())
    }

    /// What was written to these files is on disk when this returns. They are opened once more, since as many descriptors
    /// as there are queues cannot be held until now; the kernel tells whoever syncs first of a failed write.
    fn sync_all_of(&self, unsynced: &Unsynced) -> Result<(), StoreError> {
        if unsynced.files.len() + unsynced.dirs.len() > SYNCED_ONE_BY_ONE {
            let root = &self.options.root;
            return self
                .fs()
                .sync_all(root)
                .map_err(io_error("syncing the disk of", root));
        }
        for path in &unsynced.files {
            match self.queues.dirs.disk.open(path) {
                Ok(file) => disk::sync(&file).map_err(io_error("syncing", path))?,
                // Retention or the deletion of its topic has taken it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("opening", path)(error)),
            }
        }
        for dir in &unsynced.dirs {
            match self.fs().sync_dir(dir) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other.map_err(io_error("syncing directory", dir))?,
            }
        }
        Ok(())
    }

    fn no_room_or_io(
        &self,
        action: &'static str,
        path: &std::path::Path,
        error: std::io::Error,
    ) -> StoreError {
        if disk::is_full(&error) {
            self.no_room.store(true, Ordering::Release);
            return StoreError::DiskFull(format!("{action} {}", path.display()));
        }
        io_error(action, path)(error)
    }

    /// The queues are about to be made anew: should that be interrupted, the next start must not believe what is left.
    pub fn forget_checkpoint(&self) -> Result<(), StoreError> {
        self.save_checkpoint(Checkpoint::default())
    }

    /// As `forget_checkpoint`, for the index only: the queues stay what `saved` says, deleted topics among them.
    pub fn forget_index(&self, saved: Checkpoint) -> Result<(), StoreError> {
        let Some(mark) = saved.mark else {
            return self.forget_checkpoint();
        };
        self.save_checkpoint(Checkpoint {
            index_timestamp: 0,
            mark: Some(Mark {
                // No index ends there.
                index_end: i64::MAX,
                ..mark
            }),
            ..saved
        })
    }

    /// The checkpoint is on disk when this returns.
    pub fn save_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        let path = checkpoint::path(&self.options.root);
        checkpoint::write(&self.progress().file, checkpoint).map_err(io_error("writing", &path))
    }

    /// Looks at the disk again.
    pub fn measure_disk(&self) {
        if let Ok(percent) = self.fs().used_percent(self.log.dir()) {
            self.disk_percent.store(percent, Ordering::Relaxed);
        }
    }

    /// Gives back what is only kept for speed.
    pub fn cool(&self) {
        self.log.forget_tail();
        let mut progress = self.progress();
        for queue in std::mem::take(&mut progress.warm) {
            queue.cool();
        }
        if let Some(index) = &self.index {
            index.lock().unwrap_or_else(PoisonError::into_inner).cool();
            let mut pending = self
                .index_pending
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            pending.shrink_to_fit();
        }
    }
}

impl CheckpointJob {
    /// Writes queues and index, syncs them and the log, and then says so in the checkpoint.
    ///
    /// `DiskFull` is not final: appends are refused until a later round succeeds. Any other error is.
    pub fn run(self) -> Result<(), StoreError> {
        self.store.check()?;
        let ready = match self.store.log.make_next() {
            // There is room for what is written now. The append that needs the next file says so if there still is none for it then.
            Err(StoreError::DiskFull(_)) => Ok(()),
            other => other,
        };
        ready
            .and_then(|()| self.round())
            .map_err(|error| match error {
                StoreError::DiskFull(_) => error,
                other => self.store.fail(other),
            })
    }

    fn round(&self) -> Result<(), StoreError> {
        let store = &*self.store;
        let mut progress = store.progress();
        let dirty = store.queues.take_dirty();
        store.write_queues(&dirty, &mut progress.unsynced)?;
        let (mut index_timestamp, mut index_end) = (self.timestamp, -1);
        if let Some(index) = store.caught_up_index(self.now_ms) {
            let dir = store.options.root.join("index");
            let full = |error| store.no_room_or_io("writing the index", &dir, error);
            let mut index = index.map_err(full)?;
            index
                .write(self.all, self.now_ms, &mut progress.unsynced)
                .map_err(full)?;
            index_timestamp = index.end_timestamp().min(self.timestamp);
            index_end = index.end_below(self.position).map_err(full)?;
        }
        store.log.sync()?;
        store.sync_all_of(&progress.unsynced.take())?;
        // A round that was overtaken must not take the mark back.
        if self.sequence > progress.sequence {
            progress.sequence = self.sequence;
            let checkpoint = Checkpoint {
                physic_timestamp: self.timestamp,
                logics_timestamp: self.timestamp,
                index_timestamp,
                master_flushed: 0,
                confirm_offset: 0,
                logics_offset: self.position,
                mark: Some(Mark {
                    dispatched: self.position,
                    // Synced is more, but this is where a record ends.
                    synced: self.position,
                    queues: self.queues,
                    queue_ends: self.queue_ends,
                    index_end,
                }),
            };
            let path = checkpoint::path(&store.options.root);
            checkpoint::write(&progress.file, checkpoint)
                .map_err(|error| store.no_room_or_io("writing", &path, error))?;
            store.dispatched.store(self.position, Ordering::Release);
            let queues = &store.queues.dirs.root;
            (store.queues.clear_buried())
                .map_err(|error| store.no_room_or_io("deleting queues in", queues, error))?;
        }
        store.no_room.store(false, Ordering::Release);
        let still_warm: HashSet<*const Queue> = dirty.iter().map(Arc::as_ptr).collect();
        for queue in std::mem::replace(&mut progress.warm, dirty) {
            if !still_warm.contains(&Arc::as_ptr(&queue)) {
                queue.cool();
            }
        }
        Ok(())
    }
}
