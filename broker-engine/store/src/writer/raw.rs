//! Records that come with their offsets: a master's bytes, and those that recovery reads.

use super::{Arrival, Key, RAW_KEPT, Writer};
use crate::disk;
use crate::dispatch;
use crate::error::{StoreError, io_error};
use crate::lmq;
use crate::reader::QueueEntry;
use bytes::{Buf, Bytes, BytesMut};
use rocketmq_protocol::record::{RecordError, Seen, View};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Writer {
    /// Appends a master's bytes at `at`, which must be this log's end (or a file's start for an empty log, as `ha.md` says),
    /// and dispatches whole records to queues and index. Returns the new end.
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
        if end == 0
            && self.store.log.bases().is_empty()
            && at > 0
            && at % size == 0
            && !bytes.is_empty()
        {
            self.make_file(at)?;
            self.store.log.set_flushed(at);
            self.store.log.publish(at);
            end = at;
        }
        if at != end {
            return Err(StoreError::NotContiguous { got: at, end });
        }
        // All files first: a full disk then refuses the whole.
        let mut base = self.store.log.base_of(end);
        while base < end + bytes.len() as i64 {
            if !self.store.log.has_file(base) {
                self.make_file(base)?;
            }
            base += size;
        }
        let (before, raw_before) = (end, self.raw.len());
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = (size - end.rem_euclid(size)).min(rest.len() as i64) as usize;
            self.pieces.push(Bytes::copy_from_slice(&rest[..room]));
            if let Err(error) = self.write(end) {
                // The whole is refused, and will come again.
                self.pieces.clear();
                self.raw.truncate(raw_before);
                self.store.log.forget_behind(before);
                let full = matches!(&error, StoreError::Io { source, .. } if disk::is_full(source));
                if !full {
                    return Err(self.store.fail(error));
                }
                // What of it was written must not stand behind the end when the store is closed.
                return Err(match self.store.log.cut(before) {
                    Ok(()) => StoreError::DiskFull(error.to_string()),
                    Err(error) => self.store.fail(error),
                });
            }
            self.raw.extend_from_slice(&rest[..room]);
            rest = &rest[room..];
            end += room as i64;
        }
        let dispatched = self.dispatch_raw(end);
        // The bytes are the master's: they stay, and replicate onwards, even if one of its records makes no sense to us.
        self.publish(end);
        self.relieve(now_ms)?;
        dispatched.map(|()| end)
    }

    fn make_file(&self, base: i64) -> Result<(), StoreError> {
        self.store.log.create(base).map_err(|error| match error {
            StoreError::DiskFull(_) => error,
            other => self.store.fail(other),
        })
    }

    /// Dispatches the whole records at the start of `raw`, which ends at `end`.
    fn dispatch_raw(&mut self, end: i64) -> Result<(), StoreError> {
        let raw = std::mem::take(&mut self.raw);
        let mut rest = &raw[..];
        let mut result = Ok(());
        while !rest.is_empty() {
            let at = end - rest.len() as i64;
            let left = self.store.log.file_size() - at.rem_euclid(self.store.log.file_size());
            let used = match View::look(rest) {
                Ok(Seen::Record(record)) => {
                    let len = record.total_len();
                    if record.physical_offset() != at {
                        result = Err(StoreError::NotARecord {
                            at,
                            what: format!("it says that it stands at {}", record.physical_offset()),
                        });
                        break;
                    }
                    self.dispatch(&record, at, len);
                    len
                }
                Ok(Seen::Blank) if rest.len() as i64 >= left => left as usize,
                Ok(Seen::Blank) | Err(RecordError::Truncated { .. }) => break,
                Err(error) => {
                    result = Err(StoreError::NotARecord {
                        at,
                        what: error.to_string(),
                    });
                    break;
                }
            };
            rest = &rest[used..];
        }
        let used = raw.len() - rest.len();
        self.raw = raw;
        self.raw.advance(used);
        if self.raw.is_empty() && self.raw.capacity() > RAW_KEPT {
            self.raw = BytesMut::new();
        }
        if let Err(error) = result {
            return Err(self.store.fail(error));
        }
        Ok(())
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
