//! Reading what is published. Cheap to clone, usable from any thread.

use crate::commit_log::{CommitLog, damaged};
use crate::dispatch;
use crate::queue::Queue;
use crate::store::Store;
use bytes::Bytes;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, View};
use rocketmq_protocol::topic;
use std::io::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of queue that one read looks through at most when a filter finds nothing (`maxFilterMessageSize`).
const FILTER_BYTES: usize = 16_000;
/// A run of queue entries is fetched in pieces of this many.
const ENTRIES_AT_ONCE: usize = 256;

/// Read side of a store.
#[derive(Clone, Debug)]
pub struct Reader {
    store: Arc<Store>,
}

/// How a queue read went; names and meaning as `GetMessageStatus` in
/// `apache/rocketmq: store/.../GetMessageStatus.java`, the name is the remark of the pull's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ReadStatus {
    Found,
    NoMatchedMessage,
    MessageWasRemoving,
    OffsetFoundNull,
    OffsetOverflowBadly,
    OffsetOverflowOne,
    OffsetTooSmall,
    NoMatchedLogicQueue,
    NoMessageInQueue,
}

/// What a queue read brought.
#[derive(Clone, Debug)]
pub struct QueueRead {
    /// How it went.
    pub status: ReadStatus,
    /// Where the next read should begin.
    pub next_offset: i64,
    /// The queue's first offset.
    pub min_offset: i64,
    /// One past the queue's last offset.
    pub max_offset: i64,
    /// Whole records, in queue order; neighbours in the log are joined in one span.
    pub spans: Vec<Bytes>,
    /// The first so many spans are bytes of files; the others share larger blocks in memory with other records.
    pub of_files: usize,
    /// Records in `spans`.
    pub count: usize,
    /// Whether the log's end is further ahead than `in_memory_span`: a slave should be read from.
    pub far_behind: bool,
}

/// One 20-byte consume queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct QueueEntry {
    pub physical_offset: i64,
    pub size: i32,
    pub tags_code: i64,
}

/// What an index query brought (QUERY_MESSAGE 12).
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct IndexHits {
    pub records: Vec<Bytes>,
    pub last_update_timestamp: i64,
    pub last_update_physical_offset: i64,
}

/// Which message a search by time answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Boundary {
    Lower,
    Upper,
}

impl Reader {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    fn queue(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue>> {
        self.store.queues.get(topic, queue_id)
    }

    /// Reads a queue from `from` on: at most `max_count` records and about `max_bytes`; `matches` sees each entry.
    ///
    /// Source: `apache/rocketmq: store/.../DefaultMessageStore.java` getMessage, isTheBatchFull. `next_offset` is corrected
    /// as a master does it; a slave answers a read outside its queue with the offset it was asked for.
    pub fn read_queue(
        &self,
        topic: &str,
        queue_id: i32,
        from: i64,
        max_count: usize,
        max_bytes: usize,
        matches: &mut dyn FnMut(&QueueEntry) -> Result<bool>,
    ) -> Result<QueueRead> {
        let limits = (max_count, max_bytes);
        self.read_for(topic, queue_id, from, limits, false, matches)
    }

    /// As [`Reader::read_queue`], for records that the caller writes to a socket without looking at them: their bytes may be a
    /// file's pages, and the disk's failure to read one then is the write's (`EFAULT`). Whoever looks risks a signal.
    pub fn read_queue_to_send(
        &self,
        topic: &str,
        queue_id: i32,
        from: i64,
        max_count: usize,
        max_bytes: usize,
        matches: &mut dyn FnMut(&QueueEntry) -> Result<bool>,
    ) -> Result<QueueRead> {
        let limits = (max_count, max_bytes);
        self.read_for(topic, queue_id, from, limits, true, matches)
    }

    fn read_for(
        &self,
        topic: &str,
        queue_id: i32,
        from: i64,
        (max_count, max_bytes): (usize, usize),
        to_send: bool,
        matches: &mut dyn FnMut(&QueueEntry) -> Result<bool>,
    ) -> Result<QueueRead> {
        let mut read = QueueRead {
            status: ReadStatus::NoMatchedLogicQueue,
            next_offset: 0,
            min_offset: 0,
            max_offset: 0,
            spans: Vec::new(),
            of_files: 0,
            count: 0,
            far_behind: false,
        };
        let Some(queue) = self.queue(topic, queue_id) else {
            return Ok(read);
        };
        (read.min_offset, read.max_offset) = (queue.min(), self.visible_end(&queue)?);
        (read.status, read.next_offset) = match from {
            _ if read.max_offset == 0 => (ReadStatus::NoMessageInQueue, 0),
            _ if from < read.min_offset => (ReadStatus::OffsetTooSmall, read.min_offset),
            _ if from == read.max_offset => (ReadStatus::OffsetOverflowOne, from),
            _ if from > read.max_offset => (ReadStatus::OffsetOverflowBadly, read.max_offset),
            _ => (ReadStatus::NoMessageInQueue, from),
        };
        if read.status == ReadStatus::NoMessageInQueue && read.max_offset > 0 {
            self.fill(
                &queue,
                from,
                (max_count.max(1), max_bytes.max(100)),
                to_send,
                matches,
                &mut read,
            )?;
        }
        Ok(read)
    }

    fn fill(
        &self,
        queue: &Queue,
        from: i64,
        (max_count, max_bytes): (usize, usize),
        to_send: bool,
        matches: &mut dyn FnMut(&QueueEntry) -> Result<bool>,
        read: &mut QueueRead,
    ) -> Result<()> {
        let options = &self.store.options;
        let log_end = self.store.log.end();
        let look_through = (FILTER_BYTES / 20).max(max_count) as i64;
        let stop = read.max_offset.min(from + look_through);
        let mut wanted: Vec<(i64, i32)> = Vec::with_capacity(max_count.min(64));
        // The queue offset of each.
        let mut numbers: Vec<i64> = Vec::with_capacity(max_count.min(64));
        let mut entries = Vec::with_capacity(max_count.min(ENTRIES_AT_ONCE));
        let (mut bytes, mut newest) = (0usize, None);
        let mut at = from;
        'entries: while at < stop {
            entries.clear();
            let room = (max_count - wanted.len())
                .clamp(1, ENTRIES_AT_ONCE)
                .min((stop - at) as usize);
            queue.read(&self.store.queues.dirs, at, room, &mut entries)?;
            if entries.is_empty() {
                if wanted.is_empty() {
                    read.status = ReadStatus::OffsetFoundNull;
                    // Java goes on at the next file of the queue: this one's part is lost.
                    let per_file = self.store.queues.dirs.per_file;
                    at = (at - at.rem_euclid(per_file) + per_file).min(read.max_offset);
                }
                break;
            }
            for entry in &entries {
                let size = entry.size as usize;
                let senseless = entry.size <= 0
                    || entry.physical_offset < 0
                    || entry.physical_offset > log_end - i64::from(entry.size);
                if senseless && !entry.is_blank() {
                    if wanted.is_empty() {
                        return Err(damaged(entry.physical_offset));
                    }
                    break 'entries;
                }
                let in_memory = log_end - entry.physical_offset <= options.in_memory_span as i64;
                let (bytes_max, count_max) = if in_memory {
                    (
                        options.transfer_bytes_in_memory,
                        options.transfer_count_in_memory,
                    )
                } else {
                    (
                        options.transfer_bytes_on_disk,
                        options.transfer_count_on_disk,
                    )
                };
                if !wanted.is_empty()
                    && (wanted.len() >= max_count.min(count_max)
                        || bytes + size > max_bytes.min(bytes_max))
                {
                    break 'entries;
                }
                at += 1;
                if entry.is_blank() {
                    continue;
                }
                newest = Some(entry.physical_offset);
                if !matches(entry)? {
                    if wanted.is_empty() {
                        read.status = ReadStatus::NoMatchedMessage;
                    }
                    continue;
                }
                if entry.physical_offset < self.store.log.start() {
                    if wanted.is_empty() {
                        read.status = ReadStatus::MessageWasRemoving;
                    }
                    continue;
                }
                bytes += size;
                wanted.push((entry.physical_offset, entry.size));
                numbers.push(at - 1);
            }
            if wanted.len() >= max_count {
                break;
            }
        }
        read.next_offset = at;
        // A light queue's entries point at another queue's records.
        let light = topic::is_lmq(&queue.topic);
        let right = |which: usize, record: &View<'_>| {
            light
                || record.topic_bytes() == queue.topic.as_bytes()
                    && record.queue_id() == queue.queue_id
                    && record.queue_offset() == numbers[which]
        };
        let records = (self.store.log).read_records(&wanted, &right, to_send)?;
        (read.count, read.spans, read.of_files) = (records.count, records.spans, records.of_files);
        if read.count > 0 {
            read.status = ReadStatus::Found;
            if read.count < wanted.len() {
                // The rest went away meanwhile: the next read begins right behind what was got.
                let missing = wanted[read.count].0;
                read.next_offset = self.position_of(queue, from, at, missing)?;
            }
        } else if let Some((first, _)) = wanted.first() {
            if *first >= self.store.log.start() {
                return Err(damaged(*first));
            }
            read.status = ReadStatus::MessageWasRemoving;
        }
        read.far_behind =
            newest.is_some_and(|newest| log_end - newest > options.in_memory_span as i64);
        Ok(())
    }

    /// Queue offset between `low` and `high` of the entry that points at a physical offset.
    fn position_of(&self, queue: &Queue, low: i64, high: i64, physical_offset: i64) -> Result<i64> {
        let mut entries = Vec::new();
        queue.read(
            &self.store.queues.dirs,
            low,
            (high - low).max(0) as usize,
            &mut entries,
        )?;
        let before = entries
            .iter()
            .position(|entry| entry.physical_offset == physical_offset);
        Ok(low + before.unwrap_or(0) as i64)
    }

    /// The queue's first offset and one past its last; (0, 0) for a queue never written.
    pub fn queue_bounds(&self, topic: &str, queue_id: i32) -> (i64, i64) {
        self.queue(topic, queue_id).map_or((0, 0), |queue| {
            // Entries that are not synced are the newest, which stand in memory; a file that cannot be read holds older ones.
            let end = self.visible_end(&queue).unwrap_or_else(|_| queue.max());
            (queue.min(), end)
        })
    }

    /// One past the last offset that may be seen. With SYNC_FLUSH that is what is on disk: a consumer that was given more would
    /// be ahead of the queue after a power cut, and miss what is stored there next.
    /// Source: `apache/rocketmq: store/.../CommitLog.java` getConfirmOffset.
    fn visible_end(&self, queue: &Queue) -> Result<i64> {
        let max = queue.max();
        let log = &self.store.log;
        if !self.store.options.visible_when_synced {
            return Ok(max);
        }
        let flushed = log.flushed();
        // Read after `max`: all that it counts was published by then.
        if flushed >= log.end() {
            return Ok(max);
        }
        let min = queue.min();
        let synced = |at: i64| {
            let entry = queue.entry(&self.store.queues.dirs, at)?;
            Ok::<_, Error>(entry.is_none_or(|e| e.physical_offset + i64::from(e.size) <= flushed))
        };
        // Only the newest entries can be unsynced: back from the end in growing steps, then halving.
        let (mut low, mut high, mut step) = (max, max, 1);
        while low > min {
            low = (high - step).max(min);
            if synced(low)? {
                low += 1;
                break;
            }
            high = low;
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if synced(middle)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// How many light queues there are (`%LMQ%…`).
    pub fn light_queues(&self) -> usize {
        self.store.queues.light()
    }

    /// Ids of a topic's queues that have been written, ascending.
    pub fn queue_ids(&self, topic: &str) -> Vec<i32> {
        self.store
            .queues
            .of_topic(topic)
            .iter()
            .map(|queue| queue.queue_id)
            .collect()
    }

    /// Topics that have queues, in name order.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.store.queues.topics()
    }

    /// A run of raw queue entries from `from` on, at most `max`.
    pub fn queue_entries(
        &self,
        topic: &str,
        queue_id: i32,
        from: i64,
        max: usize,
    ) -> Result<Vec<QueueEntry>> {
        let mut entries = Vec::new();
        if let Some(queue) = self.queue(topic, queue_id)
            && from >= queue.min()
        {
            let left = (self.visible_end(&queue)? - from).max(0);
            let max = max.min(usize::try_from(left).unwrap_or(usize::MAX));
            queue.read(&self.store.queues.dirs, from, max, &mut entries)?;
        }
        Ok(entries)
    }

    /// Offset of the message stored at or after (LOWER) or at or before (UPPER) a time in ms (`ConsumeQueue.binarySearchInQueueByTime`).
    /// LOWER past the end gives the queue's end, UPPER before the start gives 0.
    pub fn offset_by_time(
        &self,
        topic: &str,
        queue_id: i32,
        timestamp_ms: i64,
        boundary: Boundary,
    ) -> Result<i64> {
        let Some(queue) = self.queue(topic, queue_id) else {
            return Ok(0);
        };
        let (min, max) = (queue.min(), self.visible_end(&queue)?);
        // The first message that is later than what is asked for (UPPER), or not earlier (LOWER).
        let (mut low, mut high) = (min, max);
        while low < high {
            let middle = low + (high - low) / 2;
            let before = match self.stored_at(&queue, middle)? {
                // Blank entries and what retention takes right now stand before all that is left.
                None => true,
                Some(stored) => match boundary {
                    Boundary::Lower => stored < timestamp_ms,
                    Boundary::Upper => stored <= timestamp_ms,
                },
            };
            if before {
                low = middle + 1
            } else {
                high = middle
            }
        }
        Ok(match boundary {
            Boundary::Lower => low,
            Boundary::Upper if low == min => 0,
            Boundary::Upper => low - 1,
        })
    }

    fn stored_at(&self, queue: &Queue, offset: i64) -> Result<Option<i64>> {
        match queue.entry(&self.store.queues.dirs, offset)? {
            Some(entry) if !entry.is_blank() => self.store.log.store_time(entry.physical_offset),
            _ => Ok(None),
        }
    }

    /// Store time in ms of the message at a queue offset; `None` when there is none.
    pub fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Result<Option<i64>> {
        match self.queue(topic, queue_id) {
            Some(queue) if offset >= queue.min() => self.stored_at(&queue, offset),
            _ => Ok(None),
        }
    }

    /// Whether that queue offset's message is within `in_memory_span` of the log's end.
    pub fn in_memory(&self, topic: &str, queue_id: i32, offset: i64) -> bool {
        let entry = self
            .queue(topic, queue_id)
            .and_then(|queue| queue.entry(&self.store.queues.dirs, offset).ok().flatten());
        entry.is_some_and(|entry| {
            self.store.log.end() - entry.physical_offset <= self.store.options.in_memory_span as i64
        })
    }

    /// The whole record that starts at a physical offset; `None` when none does.
    pub fn record_at(&self, physical_offset: i64) -> Result<Option<Bytes>> {
        let log = &self.store.log;
        if physical_offset < 0 {
            return Ok(None);
        }
        let Some(head) = log.read(physical_offset, 36)? else {
            return Ok(None);
        };
        let magic = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let place = i64::from_be_bytes(head[28..36].try_into().expect("eight bytes"));
        let len = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        // The offset comes from a client: a body can hold anything, but not a record that stands here.
        if (magic != record::MAGIC_V1 && magic != record::MAGIC_V2)
            || place != physical_offset
            || len < 36
        {
            return Ok(None);
        }
        let Some(bytes) = log.read(physical_offset, len as usize)? else {
            return Ok(None);
        };
        let whole = View::record(&bytes).is_ok_and(|record| record.check_body_crc().is_ok());
        Ok(whole.then_some(bytes))
    }

    /// The record an entry points at, as it lies in the log; `None` when retention has taken it.
    pub fn record_of(&self, entry: &QueueEntry) -> Result<Option<Bytes>> {
        if entry.physical_offset < self.store.log.start() {
            return Ok(None);
        }
        (self.store.log).read_record(entry.physical_offset, entry.size.max(0) as usize)
    }

    /// Raw log bytes from an offset on: never past the published end nor a file's end; empty at the end.
    pub fn log_bytes(&self, from: i64, max: usize) -> Result<Bytes> {
        self.log_bytes_by(from, max, CommitLog::read)
    }

    /// As [`Reader::log_bytes`], for bytes that the caller writes to a socket unseen (see [`Reader::read_queue_to_send`]).
    pub fn log_bytes_to_send(&self, from: i64, max: usize) -> Result<Bytes> {
        self.log_bytes_by(from, max, CommitLog::read_to_send)
    }

    fn log_bytes_by(
        &self,
        from: i64,
        max: usize,
        read: impl Fn(&CommitLog, i64, usize) -> Result<Option<Bytes>>,
    ) -> Result<Bytes> {
        let log = &self.store.log;
        let file_end = log.base_of(from) + log.file_size();
        let len = (log.end().min(file_end) - from).clamp(0, max as i64) as usize;
        if len == 0 {
            return Ok(Bytes::new());
        }
        read(log, from, len)?.ok_or_else(|| {
            Error::other(format!(
                "reading the log at {from}: it begins at {} and ends at {}",
                log.start(),
                log.end()
            ))
        })
    }

    /// First physical offset still there.
    pub fn log_start(&self) -> i64 {
        self.store.log.start()
    }

    /// One past the last published byte.
    pub fn log_end(&self) -> i64 {
        self.store.log.end()
    }

    /// The log is on disk up to here.
    pub fn log_flushed(&self) -> i64 {
        self.store.log.flushed()
    }

    /// Size of a commit log file in bytes.
    pub fn log_file_size(&self) -> u64 {
        self.store.log.file_size() as u64
    }

    /// Records whose UNIQ_KEY or KEYS hash to `key`, newest file first, at most `max`, stored within the times (ms).
    ///
    /// Sees everything published. The index compares hashes; records that only share the hash are left out here.
    /// Source: `apache/rocketmq: store/.../DefaultMessageStore.java` queryMessage.
    pub fn query(
        &self,
        topic: &str,
        key: &str,
        max: usize,
        begin_ms: i64,
        end_ms: i64,
    ) -> Result<IndexHits> {
        let mut hits = IndexHits::default();
        // The time only names an index file that may have to be made; the newest record's is close enough.
        let now_ms = self.newest_store_time();
        let Some(index) = self.store.caught_up_index(now_ms) else {
            return Ok(hits);
        };
        let index = index?;
        let mut offsets =
            index.find(dispatch::index_key_hash(topic, key), max, begin_ms, end_ms)?;
        (hits.last_update_timestamp, hits.last_update_physical_offset) = index.newest();
        drop(index);
        if self.store.options.visible_when_synced {
            let flushed = self.store.log.flushed();
            offsets.retain(|offset| *offset < flushed);
        }
        offsets.sort_unstable();
        offsets.dedup();
        for offset in offsets {
            let Some(bytes) = self.record_at(offset)? else {
                continue;
            };
            let found = View::record(&bytes).is_ok_and(|record| {
                record.topic_bytes() == topic.as_bytes()
                    && (begin_ms..=end_ms).contains(&record.store_timestamp())
                    && properties::pairs(record.properties().unwrap_or_default()).any(
                        |(property, value)| match property {
                            name::UNIQ_KEY => value == key,
                            name::KEYS => value.split(' ').any(|one| one == key),
                            _ => false,
                        },
                    )
            });
            if found {
                hits.records.push(bytes);
            }
        }
        Ok(hits)
    }

    fn newest_store_time(&self) -> i64 {
        let pending = self
            .store
            .index_pending
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        pending.last().map_or(0, |key| key.store_timestamp)
    }

    /// Used share of the disk that holds the commit log, in percent.
    pub fn disk_used_percent(&self) -> u32 {
        self.store.disk_percent.load(Ordering::Relaxed)
    }

    /// Whether sends must be refused for lack of disk (`disk_warning_percent`, or queues that could not be written).
    pub fn disk_full(&self) -> bool {
        self.disk_used_percent() > self.store.options.disk_warning_percent
            || self.store.no_room.load(Ordering::Acquire)
    }
}
