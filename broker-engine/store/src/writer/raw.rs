//! Records that come with their offsets: a master's bytes, and those that recovery reads.

use super::{Arrival, Key, Writer};
use crate::disk;
use crate::dispatch;
use crate::error::{StoreError, io_error};
use crate::lmq;
use crate::reader::QueueEntry;
use bytes::Bytes;
use rocketmq_protocol::record::{RecordError, Seen, View};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Length of the whole records and fillers that `bytes` begins with, which stand at `at` in a log of files of `file_size` bytes.
/// What follows them is the beginning of the next one, or nothing that could be: that is an error once it comes first.
pub fn whole_records(bytes: &[u8], at: i64, file_size: i64) -> Result<usize, StoreError> {
    let mut whole = 0;
    loop {
        match first(&bytes[whole..], at + whole as i64, file_size) {
            Ok(Some((_, len))) => whole += len,
            Err(error) if whole == 0 => return Err(error),
            Ok(None) | Err(_) => return Ok(whole),
        }
    }
}

/// The first record of `bytes` (none: a filler) and its length, if it is there as a whole.
fn first(
    bytes: &[u8],
    at: i64,
    file_size: i64,
) -> Result<Option<(Option<View<'_>>, usize)>, StoreError> {
    let left = file_size - at.rem_euclid(file_size);
    let what = match View::look(bytes) {
        Ok(Seen::Record(record)) if record.physical_offset() != at => {
            format!("it says that it stands at {}", record.physical_offset())
        }
        Ok(Seen::Record(record)) if record.total_len() as i64 <= left => {
            return Ok(Some((Some(record), record.total_len())));
        }
        Ok(Seen::Blank) => {
            return Ok((bytes.len() as i64 >= left).then_some((None, left as usize)));
        }
        Err(RecordError::Truncated { announced, .. })
            if announced as i64 <= left || bytes.len() < 8 =>
        {
            return Ok(None);
        }
        Ok(Seen::Record(_)) | Err(RecordError::Truncated { .. }) => {
            format!("it is longer than the {left} bytes that its file has left")
        }
        Err(error) => error.to_string(),
    };
    Err(StoreError::NotARecord { at, what })
}

impl Writer {
    /// Appends the whole records that a master's bytes begin with at `at`, which must be this log's end (or a file's start for
    /// an empty log, as `ha.md` says), and dispatches them to queues and index. Returns the new end; the bytes behind it
    /// are to come again, with more.
    ///
    /// A part of a record is never written: were its header's other part lost in a power cut, what is left could
    /// look like a whole one. A sector on disk ends with a whole record, or with a piece of one that fills it.
    pub fn append_raw(&mut self, at: i64, bytes: &[u8], now_ms: i64) -> Result<i64, StoreError> {
        self.store.check()?;
        self.arrivals.clear();
        if self.store.no_room.load(Ordering::Acquire) {
            return Err(StoreError::DiskFull(
                "consume queues or index could not be written".into(),
            ));
        }
        let size = self.store.log.file_size();
        let mut end = self.store.log.end();
        let begins_later =
            end == 0 && self.store.log.bases().is_empty() && at > 0 && at % size == 0;
        if at != end && !begins_later {
            return Err(StoreError::NotContiguous { got: at, end });
        }
        let whole = whole_records(bytes, at, size).map_err(|error| self.store.fail(error))?;
        let mut rest = &bytes[..whole];
        if rest.is_empty() {
            return Ok(end);
        }
        if begins_later {
            self.make_file(at)?;
            self.store.log.set_flushed(at);
            self.store.log.publish(at);
            end = at;
        }
        // All files first: a full disk then refuses the whole.
        let mut base = self.store.log.base_of(end);
        while base < end + whole as i64 {
            if !self.store.log.has_file(base) {
                self.make_file(base)?;
            }
            base += size;
        }
        while !rest.is_empty() {
            let room = (size - end.rem_euclid(size)).min(rest.len() as i64) as usize;
            // A copy: readers close behind share it, and should not keep a whole read buffer for it.
            self.pieces.push(Bytes::copy_from_slice(&rest[..room]));
            if let Err(error) = self.write(end) {
                // The whole is refused, and will come again.
                self.pieces.clear();
                self.store.log.forget_behind(at);
                let full = matches!(&error, StoreError::Io { source, .. } if disk::is_full(source));
                if !full {
                    return Err(self.store.fail(error));
                }
                // What of it was written must not stand behind the end when the store is closed.
                return Err(match self.store.log.cut(at) {
                    Ok(()) => StoreError::DiskFull(error.to_string()),
                    Err(error) => self.store.fail(error),
                });
            }
            rest = &rest[room..];
            end += room as i64;
        }
        let mut next = at;
        while let Ok(Some((record, len))) = first(&bytes[(next - at) as usize..whole], next, size) {
            if let Some(record) = record {
                self.dispatch(&record, next, len);
            }
            next += len as i64;
        }
        self.publish(end);
        self.relieve(now_ms)?;
        Ok(end)
    }

    fn make_file(&self, base: i64) -> Result<(), StoreError> {
        self.store.log.create(base).map_err(|error| match error {
            StoreError::DiskFull(_) => error,
            other => self.store.fail(other),
        })
    }

    /// Gives a whole record that stands in the log at `at` to its queue and the index.
    fn dispatch(&mut self, record: &View<'_>, at: i64, len: usize) {
        self.dispatch_from(record, at, len, true, true);
    }

    /// As `dispatch`, for a recovery that rebuilds only the queues or only the index at this place.
    pub(crate) fn dispatch_from(
        &mut self,
        record: &View<'_>,
        at: i64,
        len: usize,
        to_queue: bool,
        to_index: bool,
    ) {
        let stored = record.store_timestamp();
        let (queue_id, queue_offset) = (record.queue_id(), record.queue_offset());
        // A topic that is no text cannot name a queue; the empty one is passed over below.
        let topic = record.topic().unwrap_or_default();
        self.store_timestamp = self.store_timestamp.max(stored);
        self.key_hashes.clear();
        let mut facts = dispatch::facts_of_stored(record, topic, &mut self.key_hashes);
        for hash in self.key_hashes.iter().filter(|_| to_index) {
            self.keys.push(Key {
                hash: *hash,
                physical_offset: at,
                store_timestamp: stored,
            });
        }
        if !to_queue
            || !facts.queued
            || !dispatch::names_a_directory(topic)
            || queue_id < 0
            || queue_offset < 0
        {
            return;
        }
        if facts.delay_level > 0 {
            facts.tags_code =
                dispatch::deliver_time(&self.store.options.delay_levels, facts.delay_level, stored);
        }
        let entry = QueueEntry {
            physical_offset: at,
            size: len as i32,
            tags_code: facts.tags_code,
        };
        self.enter(topic, queue_id, queue_offset, entry);
        if facts.lmq && self.store.options.lmq {
            for (queue, offset) in lmq::offsets(record.properties().unwrap_or_default()) {
                if dispatch::names_a_directory(queue) && offset >= 0 {
                    self.enter(queue, lmq::QUEUE, offset, entry);
                }
            }
        }
    }

    /// Gives an entry to the place of a queue that its record names.
    fn enter(&mut self, topic: &str, queue_id: i32, queue_offset: i64, entry: QueueEntry) {
        let mut index = match self.slots.find(topic, queue_id) {
            Some(index) => index,
            None => self.slot(&Arc::from(topic), queue_id),
        };
        let next = self.slots.list[index].next;
        if queue_offset == 0 && next > 0 {
            // The master deleted the topic and made it again: numbers begin anew, and this queue's old entries are gone there.
            self.forget_queue(index);
            index = self.slot(&Arc::from(topic), queue_id);
        } else if queue_offset < next {
            return;
        } else if queue_offset > next && next > 0 {
            // Entries are missing, which must not move the later ones: each keeps its number.
            if queue_offset - next > 2 * self.store.queues.dirs.per_file {
                return;
            }
            for _ in next..queue_offset {
                self.slots.push(index, QueueEntry::BLANK);
            }
        } else if next == 0 {
            self.slots.start(index, queue_offset);
        }
        let slot = &self.slots.list[index];
        let shared_topic = slot.queue.topic.clone();
        let offset = self.slots.push(index, entry);
        self.arrivals.push(Arrival {
            topic: shared_topic,
            queue_id,
            max_offset: offset + 1,
            tags_code: entry.tags_code,
        });
    }

    /// Publishes what recovery dispatched so far; memory stays bounded while a long log is read.
    pub(crate) fn publish_recovered(&mut self, end: i64, now_ms: i64) -> Result<(), StoreError> {
        self.arrivals.clear();
        self.publish(end);
        self.relieve(now_ms)
    }

    fn forget_queue(&mut self, index: usize) {
        let queue = self.slots.remove(index);
        self.store.queues.remove_queue(&queue);
        let topic = self.store.queues.dirs.root.join(&*queue.topic);
        self.store.progress().unsynced.dirs.push(topic.clone());
        if let Err(error) = queue.delete(&self.store.queues.dirs) {
            self.store
                .fail(io_error("deleting an old queue of", &topic)(error));
        }
    }
}
