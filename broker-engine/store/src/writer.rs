//! The one owner of a store's files.

mod raw;

pub use raw::whole_records;

use crate::checkpoint;
use crate::disk::{self, FileSystem, Lock};
use crate::dispatch;
use crate::error::{StoreError, io_error};
use crate::index::Key;
use crate::lmq;
use crate::queue::Queue;
use crate::reader::QueueEntry;
use crate::recovery;
use crate::slots::Slots;
use crate::store::{CheckpointJob, Store};
use crate::{Reader, RecordBatch, StoreOptions};
use bytes::{Bytes, BytesMut};
use rocketmq_protocol::record;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Unwritten queue entries (24 bytes each) beyond which the writer writes them itself instead of waiting for the checkpoint.
/// A second's worth of the smallest messages, and of messages to very many queues what comes until a checkpoint that takes long is due.
const ENTRIES_PENDING_MAX: usize = 3 << 20;
/// Keys (24 bytes each) waiting for the index beyond which the writer indexes them itself.
const KEYS_PENDING_MAX: usize = 1 << 20;
/// Quiet rounds of housekeeping after which a checkpoint writes all that can wait.
const QUIET_ROUNDS: u32 = 10;
/// Quiet rounds after which caches are given back.
const COOL_ROUNDS: u32 = QUIET_ROUNDS + 5;
/// With more bytes that are not synced yet no zeros are written ahead: a sync of them begins new blocks once for so many that writing
/// each block twice costs more. Measured with 1 KiB messages: 64 in flight gain a quarter by zeros, 512 lose a tenth.
const FEW_UNSYNCED: i64 = 96 << 10;
/// Zeros that are kept, in bytes, to be written as often as it takes.
const ZEROS: usize = 64 << 10;
/// Commit log files deleted in one round at most, as in Java.
const DELETE_MAX: usize = 10;

/// Write side of a store. Not `Clone`: one thread at a time works with it.
#[derive(Debug)]
pub struct Writer {
    pub(crate) store: Arc<Store>,
    slots: Slots,
    /// What the next write carries. The batches' own buffers: readers close behind share them.
    pieces: Vec<Bytes>,
    /// Up to here zeros were written ahead ([`StoreOptions::zeros_ahead`]), and what they are.
    zeroed: i64,
    zeros: Bytes,
    keys: Vec<Key>,
    key_hashes: Vec<i32>,
    arrivals: Vec<Arrival>,
    dirty: Vec<Arc<Queue>>,
    pub(crate) store_timestamp: i64,
    sequence: u64,
    checkpointed: Option<(i64, u64)>,
    quiet: u32,
    _lock: Lock,
}

/// An arrival in a queue, told to whoever holds pulls: after the end is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Arrival {
    pub topic: Arc<str>,
    pub queue_id: i32,
    /// One past the queue's last offset.
    pub max_offset: i64,
    pub tags_code: i64,
}

/// A store just opened.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Opened {
    pub writer: Writer,
    pub reader: Reader,
    pub recovery: Recovery,
}

/// What opening found and did; its `Display` is one line for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Recovery {
    pub clean: bool,
    pub log_start: i64,
    pub log_end: i64,
    pub truncated_bytes: u64,
    pub redispatched_records: u64,
    /// The consume queues, the index, did not hold what the checkpoint says, so they were made anew from the whole log.
    pub queues_rebuilt: bool,
    pub index_rebuilt: bool,
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "store opened after {} stop: log {}..{}, {} records dispatched again{}, {} torn bytes cut",
            if self.clean { "a clean" } else { "an unclean" },
            self.log_start,
            self.log_end,
            self.redispatched_records,
            match (self.queues_rebuilt, self.index_rebuilt) {
                (false, false) => "",
                (true, false) => " (the consume queues were not what the checkpoint says)",
                (false, true) => " (the index was not what the checkpoint says)",
                (true, true) => " (consume queues and index were not what the checkpoint says)",
            },
            self.truncated_bytes
        )
    }
}

/// Where a batch landed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Per record: its queue offset and physical offset, in the batch's order.
    pub records: Vec<(i64, i64)>,
    /// One past the batch's last byte: wait for this position.
    pub end: i64,
}

impl Writer {
    /// Opens or makes the store: takes the lock, recovers, makes the `abort` marker.
    pub fn open(options: StoreOptions, now_ms: i64) -> Result<Opened, StoreError> {
        Self::open_on(FileSystem::Real, options, now_ms)
    }

    /// As `open`, on a file system of choice.
    pub fn open_on(
        fs: FileSystem,
        options: StoreOptions,
        now_ms: i64,
    ) -> Result<Opened, StoreError> {
        fs.make_dir_synced(&options.root)
            .map_err(io_error("making directory", &options.root))?;
        let lock = checkpoint::lock(&fs, &options.root)?;
        let store = Arc::new(Store::new(fs, options)?);
        let mut writer = Self {
            store: store.clone(),
            slots: Slots::default(),
            pieces: Vec::new(),
            zeroed: 0,
            zeros: Bytes::new(),
            keys: Vec::new(),
            key_hashes: Vec::new(),
            arrivals: Vec::new(),
            dirty: Vec::new(),
            store_timestamp: 0,
            sequence: 0,
            checkpointed: None,
            quiet: 0,
            _lock: lock,
        };
        let recovery = writer.recover(now_ms).map_err(|error| match error {
            // The next start must know of a sync that failed in this one.
            StoreError::Io { .. } => store.fail(error),
            other => other,
        })?;
        store.measure_disk();
        Ok(Opened {
            writer,
            reader: Reader::new(store),
            recovery,
        })
    }

    fn recover(&mut self, now_ms: i64) -> Result<Recovery, StoreError> {
        let recovery = recovery::run(self, now_ms)?;
        self.arrivals = Vec::new();
        if self.store.options.visible_when_synced {
            // What recovery found may be in the page cache only, and is to be seen from the start.
            self.store.log.sync()?;
        }
        checkpoint::mark_running(self.store.fs(), &self.store.options.root)?;
        Ok(recovery)
    }

    /// Takes over the queues that recovery found.
    pub(crate) fn adopt_queues(&mut self) {
        self.slots = Slots::default();
        for queue in self.store.queues.all() {
            self.slots.insert(queue);
        }
    }

    fn slot(&mut self, topic: &Arc<str>, queue_id: i32) -> usize {
        if let Some(index) = self.slots.find_again(topic, queue_id) {
            return index;
        }
        let queue = Arc::new(Queue::new(topic.clone(), queue_id));
        self.store.queues.insert(queue.clone());
        self.slots.insert(queue)
    }

    /// Appends batches: assigns offsets and the store time, writes the bytes, the queue entries, and publishes the end.
    /// The bytes are in the page cache when this returns, not on disk. A batch is never split over two files unless it is
    /// larger than one.
    pub fn append(
        &mut self,
        batches: &mut [RecordBatch],
        now_ms: i64,
    ) -> Result<Vec<Placed>, StoreError> {
        self.store.check()?;
        self.arrivals.clear();
        if self.store.no_room.load(Ordering::Acquire) {
            return Err(StoreError::DiskFull(
                "consume queues or index could not be written".into(),
            ));
        }
        match self.reserve(batches) {
            Err(error @ StoreError::Io { .. }) => return Err(self.store.fail(error)),
            other => other?,
        }
        // A clock that steps back must not turn the order of store times around: searches by time rely on it.
        self.store_timestamp = self.store_timestamp.max(now_ms);
        let before = self.store.log.end();
        match self.place(batches) {
            Ok((end, placed)) => {
                self.publish(end);
                self.relieve(now_ms)?;
                Ok(placed)
            }
            Err(error) => {
                self.slots.roll_back();
                self.keys.clear();
                self.arrivals.clear();
                self.pieces.clear();
                self.store.log.forget_behind(before);
                let StoreError::Io { source, .. } = &error else {
                    return Err(error);
                };
                if disk::is_full(source) {
                    // Part of the bytes may stand behind the end, where they would come back to life after a crash.
                    let full = StoreError::DiskFull(error.to_string());
                    return Err(match self.store.log.cut(before) {
                        Ok(()) => full,
                        Err(error) => self.store.fail(error),
                    });
                }
                Err(self.store.fail(error))
            }
        }
    }

    /// Makes the files that the batches need, so that a full disk is known before anything is written.
    fn reserve(&self, batches: &[RecordBatch]) -> Result<(), StoreError> {
        let log = &self.store.log;
        let size = log.file_size();
        let mut at = log.end();
        let mut take = |len: usize| {
            let len_i64 = len as i64;
            if len_i64 + 8 > size {
                return Err(StoreError::RecordTooLarge {
                    len,
                    file_size: size as u64,
                });
            }
            let left = size - at.rem_euclid(size);
            if len_i64 + 8 > left {
                at += left;
            }
            let base = log.base_of(at);
            if !log.has_file(base) {
                log.create(base)?;
            }
            at += len_i64;
            Ok(())
        };
        for batch in batches {
            if batch.is_empty() {
                continue;
            }
            if batch.byte_len() as i64 + 8 <= size {
                take(batch.byte_len())?;
            } else {
                batch.entries.iter().try_for_each(|entry| take(entry.len))?;
            }
        }
        Ok(())
    }

    /// Patches and writes the batches' bytes; one write for each file they fall into.
    fn place(&mut self, batches: &mut [RecordBatch]) -> Result<(i64, Vec<Placed>), StoreError> {
        let size = self.store.log.file_size();
        let mut at = self.store.log.end();
        let mut write_at = at;
        let mut placed = Vec::with_capacity(batches.len());
        for batch in batches {
            let whole = batch.byte_len() as i64 + 8 <= size;
            let mut records = Vec::with_capacity(batch.entries.len());
            // Bytes of the batch that went into earlier files.
            let mut gone = 0;
            for (number, entry) in batch.entries.iter_mut().enumerate() {
                let unit = match (whole, number) {
                    (true, 0) => batch.bytes.len() as i64,
                    (true, _) => 0,
                    (false, _) => entry.len as i64,
                };
                let left = size - at.rem_euclid(size);
                if unit > 0 && unit + 8 > left {
                    // A record never spans files. The rest of this one becomes filler, so that a slave copying bytes finds the same boundary.
                    let before = batch.bytes.split_to(entry.at - gone);
                    gone = entry.at;
                    let mut filler = BytesMut::with_capacity(record::BLANK_HEADER);
                    record::encode_blank(left as u32, &mut filler);
                    self.pieces.push(before.freeze());
                    self.pieces.push(filler.freeze());
                    self.write(write_at)?;
                    at += left;
                    write_at = at;
                }
                if entry.delay_level > 0 {
                    entry.tags_code = dispatch::deliver_time(
                        &self.store.options.delay_levels,
                        entry.delay_level,
                        self.store_timestamp,
                    );
                }
                let queue_offset = if entry.queued {
                    let index = self.slot(&entry.topic, entry.queue_id);
                    let offset = self.slots.push(
                        index,
                        QueueEntry {
                            physical_offset: at,
                            size: entry.len as i32,
                            tags_code: entry.tags_code,
                        },
                    );
                    self.arrivals.push(Arrival {
                        topic: entry.topic.clone(),
                        queue_id: entry.queue_id,
                        max_offset: offset + 1,
                        tags_code: entry.tags_code,
                    });
                    offset
                } else {
                    0
                };
                let from = entry.at - gone;
                record::patch(
                    &mut batch.bytes[from..from + entry.len],
                    queue_offset,
                    at,
                    self.store_timestamp,
                );
                if entry.queued && self.store.options.lmq {
                    for (queue, digits_at) in &entry.lmq {
                        let index = self.slot(queue, lmq::QUEUE);
                        let light = QueueEntry {
                            physical_offset: at,
                            size: entry.len as i32,
                            tags_code: entry.tags_code,
                        };
                        let offset = self.slots.push(index, light);
                        let digits = from + digits_at;
                        batch.bytes[digits..digits + lmq::DIGITS]
                            .copy_from_slice(lmq::digits(offset).as_bytes());
                        self.arrivals.push(Arrival {
                            topic: queue.clone(),
                            queue_id: lmq::QUEUE,
                            max_offset: offset + 1,
                            tags_code: entry.tags_code,
                        });
                    }
                }
                for hash in &batch.key_hashes[entry.key_hashes.clone()] {
                    self.keys.push(Key {
                        hash: *hash,
                        physical_offset: at,
                        store_timestamp: self.store_timestamp,
                    });
                }
                records.push((queue_offset, at));
                at += entry.len as i64;
            }
            self.pieces.push(batch.bytes.split().freeze());
            placed.push(Placed { records, end: at });
        }
        self.write(write_at)?;
        Ok((at, placed))
    }

    /// Writes the pieces at `at`, which all stand in one file.
    fn write(&mut self, at: i64) -> Result<(), StoreError> {
        self.pieces.retain(|piece| !piece.is_empty());
        if self.pieces.is_empty() {
            return Ok(());
        }
        let log = &self.store.log;
        let base = log.base_of(at);
        let failed = |action| move |error| io_error(action, &log.path(base))(error);
        let file = log.open(base).map_err(failed("opening"))?;
        let records = self.pieces.len();
        let end = at + self.pieces.iter().map(Bytes::len).sum::<usize>() as i64;
        let ahead = self.store.options.zeros_ahead as i64;
        if ahead > 0 && end > self.zeroed && end - log.flushed() <= FEW_UNSYNCED {
            let mut left = ahead.min(base + log.file_size() - end) as usize;
            self.zeroed = end + left as i64;
            while left > 0 {
                if self.zeros.is_empty() {
                    self.zeros = vec![0; ZEROS].into();
                }
                let piece = self.zeros.slice(..left.min(ZEROS));
                left -= piece.len();
                self.pieces.push(piece);
            }
        }
        disk::write_all_at(&file, &self.pieces, (at - base) as u64).map_err(failed("writing"))?;
        self.pieces.truncate(records);
        log.remember(at, self.pieces.drain(..));
        Ok(())
    }

    /// Lets readers see everything up to `end`: the log first, then the queues that point into it.
    fn publish(&mut self, end: i64) {
        self.store.log.publish(end);
        let mut taken = 0;
        for index in self.slots.touched.drain(..) {
            let slot = &mut self.slots.list[index];
            taken += slot.fresh.len();
            if slot.queue.extend(slot.fresh_at, &slot.fresh) {
                self.dirty.push(slot.queue.clone());
            }
            self.slots.ends += (slot.next - slot.queue.max()) as u64;
            slot.queue.publish(slot.next);
            slot.fresh.clear();
            // An idle queue should not keep the room of its busiest moment.
            slot.fresh.shrink_to(64);
        }
        if !self.dirty.is_empty() {
            self.store.queues.mark_dirty(self.dirty.drain(..));
        }
        self.store
            .entries_pending
            .fetch_add(taken, Ordering::Relaxed);
        if !self.keys.is_empty() {
            if self.store.index.is_some() {
                let mut pending = self
                    .store
                    .index_pending
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                pending.extend_from_slice(&self.keys);
            }
            self.keys.clear();
        }
    }

    /// Writes entries and keys here when the checkpoint does not keep up, so that memory stays bounded.
    fn relieve(&mut self, now_ms: i64) -> Result<(), StoreError> {
        if self.store.entries_pending.load(Ordering::Relaxed) > ENTRIES_PENDING_MAX {
            // A checkpoint under way ends first: it must not miss what is written here.
            let mut progress = self.store.progress();
            let dirty = self.store.queues.take_dirty();
            match self.store.write_queues(&dirty, &mut progress.unsynced) {
                Ok(()) | Err(StoreError::DiskFull(_)) => {}
                Err(error) => return Err(self.store.fail(error)),
            }
        }
        let keys = self
            .store
            .index_pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        if keys > KEYS_PENDING_MAX
            && let Some(Err(error)) = self.store.caught_up_index(now_ms)
            && !disk::is_full(&error)
        {
            let index = self.store.options.root.join("index");
            return Err(self.store.fail(io_error("indexing in", &index)(error)));
        }
        Ok(())
    }

    /// What the last `append` or `append_raw` brought, in log order; the caller may take it away.
    pub fn arrivals(&mut self) -> &mut Vec<Arrival> {
        &mut self.arrivals
    }

    /// A handle that syncs the log up to the end published when it is called; for the flush thread.
    pub fn syncer(&self) -> Syncer {
        Syncer {
            store: self.store.clone(),
        }
    }

    /// The next round of writing and syncing what was dispatched, to be run on a thread that may wait for the disk;
    /// `None` when nothing happened since the last. Called by the log's owner about each second, or less often when the last took long.
    pub fn checkpoint_job(&mut self, now_ms: i64) -> Option<CheckpointJob> {
        let position = self.store.log.end();
        let state = (position, self.slots.ends);
        let no_room = self.store.no_room.load(Ordering::Acquire);
        if self.checkpointed != Some(state) || no_room {
            self.quiet = 0;
            self.checkpointed = Some(state);
            return Some(self.job(position, now_ms, false));
        }
        self.quiet = self.quiet.saturating_add(1);
        match self.quiet {
            QUIET_ROUNDS => return Some(self.job(position, now_ms, true)),
            COOL_ROUNDS => self.store.cool(),
            _ => {}
        }
        None
    }

    fn job(&mut self, position: i64, now_ms: i64, all: bool) -> CheckpointJob {
        self.sequence += 1;
        CheckpointJob {
            store: self.store.clone(),
            sequence: self.sequence,
            position,
            queues: self.slots.list.iter().filter(|slot| slot.next > 0).count() as u64,
            queue_ends: self.slots.ends,
            timestamp: self.store_timestamp,
            now_ms,
            all,
        }
    }

    /// Looks how full the disk is. Called by the log's owner about each second.
    pub fn measure_disk(&self) {
        self.store.measure_disk();
    }

    /// The job just taken was not run: the next call makes another.
    pub fn checkpoint_missed(&mut self) {
        self.checkpointed = None;
    }

    /// One past the last published byte.
    pub fn log_end(&self) -> i64 {
        self.store.log.end()
    }

    /// Why no more writes are accepted; `None` while they are.
    pub fn failure(&self) -> Option<StoreError> {
        self.store.check().err()
    }

    /// Accepts no more writes, for a reason that did not come from a file.
    pub fn give_up(&self, reason: &str) -> StoreError {
        self.store.fail(StoreError::Poisoned(reason.to_owned()))
    }

    /// Writes queues and index, syncs all and writes the checkpoint, here and now.
    pub fn housekeep(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.job(self.log_end(), now_ms, true).run()
    }

    /// Deletes what retention lets go (`fileReservedTime`, disk ratios; `at_delete_hour`: the `deleteWhen` hour has come). Returns files deleted.
    /// Source: `apache/rocketmq: store/.../DefaultMessageStore.java` CleanCommitLogService.
    pub fn clean(&mut self, now_ms: i64, at_delete_hour: bool) -> Result<usize, StoreError> {
        let store = self.store.clone();
        let options = &store.options;
        store.measure_disk();
        let used = store.disk_percent.load(Ordering::Relaxed);
        let expired_go = at_delete_hour || used > options.disk_max_used_percent;
        let all_go = used > options.disk_clean_forcibly_percent;
        let mut deleted = 0;
        if expired_go || all_go {
            let now = UNIX_EPOCH + Duration::from_millis(now_ms.max(0) as u64);
            // Neither the last file, nor one whose records the queues may lose with the power: their numbers would begin anew.
            let last = store.log.base_of(store.log.end().max(1) - 1);
            let last = last.min(store.log.base_of(store.dispatched.load(Ordering::Acquire)));
            for base in store.log.bases().into_iter().take(DELETE_MAX) {
                if base >= last {
                    break;
                }
                let path = store.log.path(base);
                let written = store
                    .fs()
                    .modified(&path)
                    .map_err(io_error("looking at", &path))?;
                let expired = now
                    .duration_since(written)
                    .is_ok_and(|age| age >= options.file_reserved);
                if !(expired || all_go) {
                    break;
                }
                store.log.remove_first()?;
                deleted += 1;
            }
        }
        if deleted > 0 {
            let start = store.log.start();
            for queue in store.queues.all() {
                let path = options.root.join("consumequeue").join(&*queue.topic);
                queue
                    .correct_min(&store.queues.dirs, start)
                    .map_err(io_error("dropping old entries of", &path))?;
            }
            if let Some(index) = &store.index {
                let dir = options.root.join("index");
                let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
                deleted += index
                    .clean(start)
                    .map_err(io_error("dropping old files of", &dir))?;
            }
        }
        Ok(deleted)
    }

    /// Drops a topic's queues (DELETE_TOPIC_IN_BROKER 215). A crash leaves all of them or none, and none once this returned:
    /// a checkpoint that counts them, one rename, a checkpoint that does not.
    pub fn delete_topic(&mut self, topic: &str, now_ms: i64) -> Result<(), StoreError> {
        self.checkpointed = None;
        self.housekeep(now_ms)?;
        let store = self.store.clone();
        if dispatch::names_a_directory(topic) {
            let root = &store.queues.dirs.root;
            (store.queues.bury(topic))
                .map_err(|error| store.fail(io_error("deleting queues in", root)(error)))?;
        }
        for queue in store.queues.remove_topic(topic) {
            if let Some(index) = self.slots.find(topic, queue.queue_id) {
                self.slots.remove(index);
            }
            queue.forget();
        }
        self.checkpointed = None;
        self.housekeep(now_ms)
    }

    /// Flushes all, writes the checkpoint, removes `abort`.
    pub fn close(mut self, now_ms: i64) -> Result<(), StoreError> {
        self.store.check()?;
        self.housekeep(now_ms)?;
        let abort = checkpoint::abort_path(&self.store.options.root);
        self.store
            .queues
            .dirs
            .disk
            .remove(&abort)
            .and_then(|()| self.store.fs().sync_dir(&self.store.options.root))
            .map_err(io_error("removing", &abort))
    }
}

/// Syncs the commit log from its own thread.
#[derive(Clone, Debug)]
pub struct Syncer {
    store: Arc<Store>,
}

impl Syncer {
    /// `fdatasync`s every dirty commit log file; returns the position that is now on disk.
    /// An error is final: the kernel has dropped the pages (no retry).
    pub fn sync(&self) -> Result<i64, StoreError> {
        self.store.check()?;
        self.store
            .log
            .sync()
            .map_err(|error| self.store.fail(error))
    }
}
