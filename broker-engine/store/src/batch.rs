//! Records on their way to the log: encoded by whoever received them, placed by the log's owner.

use crate::dispatch;
use crate::lmq;
use bytes::BytesMut;
use rocketmq_protocol::record::{self, Record, RecordError};
use std::sync::Arc;

/// Encoded records with what the log's owner must know of each to place and index it.
///
/// Built before the log has it: everything but queue offset, physical offset and store time is final, CRC included.
#[derive(Debug, Default)]
pub struct RecordBatch {
    pub(crate) bytes: BytesMut,
    pub(crate) entries: Vec<Entry>,
    /// Index key hashes of all records, those of one record together.
    pub(crate) key_hashes: Vec<i32>,
    /// What the broker puts at the end of properties, of which neither queues nor index want anything.
    stamp: Arc<str>,
}

/// One record of a batch.
#[derive(Debug)]
pub(crate) struct Entry {
    pub at: usize,
    pub len: usize,
    pub topic: Arc<str>,
    pub queue_id: i32,
    /// Hash of the tag; for a delayed record the log replaces it with the deliver time.
    pub tags_code: i64,
    /// Level of a record of SCHEDULE_TOPIC_XXXX, else 0.
    pub delay_level: i32,
    /// Whether it gets a queue entry: prepared and rolled back transactions do not.
    pub queued: bool,
    /// Light queues it stands in too, each with the place in the record where its offset goes.
    pub lmq: Vec<(Arc<str>, usize)>,
    /// Whether it may be found by key: rolled back transactions may not.
    pub key_hashes: std::ops::Range<usize>,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for so many records of so many bytes together. `stamp`: properties that most of them will end with,
    /// and that mean nothing to queues and index, so that they need not be read in each.
    pub fn with_room(bytes: usize, records: usize, stamp: &Arc<str>) -> Self {
        Self {
            bytes: BytesMut::with_capacity(bytes),
            entries: Vec::with_capacity(records),
            key_hashes: Vec::with_capacity(records),
            stamp: Arc::clone(stamp),
        }
    }

    /// Encodes a record at the batch's end. `topic` is the record's topic, shared with the topic table.
    /// Its offsets and store time are ignored: the log assigns them. Properties with a zero byte are refused.
    pub fn push(&mut self, topic: &Arc<str>, record: &Record<'_>) -> Result<(), RecordError> {
        // Nothing in the record tells them from a part of a write that a power cut lost.
        if record.properties.as_bytes().contains(&0) {
            return Err(RecordError::Zero("properties"));
        }
        let at = self.bytes.len();
        let len =
            record::encode(record, &mut self.bytes).inspect_err(|_| self.bytes.truncate(at))?;
        let first_key = self.key_hashes.len();
        let facts = dispatch::facts(record, &self.stamp, &mut self.key_hashes);
        self.entries.push(Entry {
            at,
            len,
            topic: topic.clone(),
            queue_id: record.queue_id,
            tags_code: facts.tags_code,
            delay_level: facts.delay_level,
            queued: facts.queued,
            lmq: if facts.lmq {
                // The properties are a record's last field.
                let begin = len - record.properties.len();
                let places = lmq::places(record.properties).into_iter();
                places
                    .map(|(queue, at)| (queue.into(), begin + at))
                    .collect()
            } else {
                Vec::new()
            },
            key_hashes: first_key..self.key_hashes.len(),
        });
        Ok(())
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all its records.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }
}
