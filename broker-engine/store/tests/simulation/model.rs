//! What the store must hold, kept beside it: the log's bytes as they were answered, and from them queues and index as a
//! rebuild would make them, by code of its own.

use crate::given::Sent;
use rocketmq_protocol::record::{self, Parsed};
use rocketmq_store::Reader;
use rocketmq_store::reader::QueueEntry;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Why a run failed.
pub type Failed = String;

/// Ends a run that does not hold what it must.
#[macro_export]
macro_rules! must {
    ($holds:expr, $($text:tt)+) => {
        if !$holds {
            return Err(format!($($text)+).into());
        }
    };
}

/// How a check ended that did not fail: the disk's failure may have come into it.
pub enum Stop {
    /// The disk went off or answered with a failure.
    Disk,
    Failed(Failed),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl From<std::io::Error> for Stop {
    fn from(_: std::io::Error) -> Self {
        Self::Disk
    }
}

#[derive(Clone, Default)]
pub struct Model {
    /// The log from its first byte, those that retention took included.
    pub image: Vec<u8>,
    /// Synced, and said so.
    pub acknowledged: i64,
    /// The log must reach this far after the last stop.
    pub floor: i64,
    /// An append that got no answer: any prefix of it may be there.
    pub maybe: Vec<Sent>,
    /// Topics deleted, each with the log's end then.
    pub deleted: Vec<(String, i64)>,
    /// A deletion that got no answer.
    pub maybe_deleted: Option<(String, i64)>,
    /// The log may begin no later than here.
    pub start: i64,
    pub file_size: i64,
}

type Queues = BTreeMap<(String, i32), Vec<QueueEntry>>;

pub fn hosts() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 10911))
}

/// Walks records; the place behind the last whole one, and why it is the last.
pub fn walk(
    image: &[u8],
    from: i64,
    file_size: i64,
    mut see: impl FnMut(i64, &record::Record<'_>, usize) -> Result<(), Failed>,
) -> Result<i64, Failed> {
    let mut at = from;
    while at < image.len() as i64 {
        let left = file_size - at % file_size;
        let end = (at + left).min(image.len() as i64);
        match record::parse(&image[at as usize..end as usize], true) {
            Ok(Parsed::Record(record, len)) => {
                must!(
                    record.physical_offset == at,
                    "the record at {at} says {}",
                    record.physical_offset
                );
                see(at, &record, len)?;
                at += len as i64;
            }
            Ok(Parsed::Blank) => at += left,
            Err(error) => {
                must!(end == image.len() as i64, "no record at {at}: {error}");
                break;
            }
        }
    }
    Ok(at)
}

/// All of the published log that is still there, and where it begins.
pub fn published(reader: &Reader) -> std::io::Result<(i64, Vec<u8>)> {
    let start = reader.log_start();
    let mut bytes = Vec::new();
    loop {
        let at = start + bytes.len() as i64;
        let part = reader.log_bytes(at, 1 << 20)?;
        if part.is_empty() {
            return Ok((start, bytes));
        }
        bytes.extend_from_slice(&part);
    }
}

impl Model {
    pub fn new(file_size: u64) -> Self {
        Self {
            file_size: file_size as i64,
            ..Self::default()
        }
    }

    pub fn end(&self) -> i64 {
        self.image.len() as i64
    }

    /// The log as it was found after a stop: not shorter than it must be, byte by byte what was answered, and behind that
    /// only what was asked for.
    pub fn adopt(&mut self, reader: &Reader) -> Result<(), Stop> {
        let (start, bytes) = published(reader)?;
        let end = start + bytes.len() as i64;
        must!(
            end == reader.log_end(),
            "the log ends at {}, {end} can be read",
            reader.log_end()
        );
        must!(
            start <= self.start,
            "the log begins at {start}, it held {}",
            self.start
        );
        must!(
            start == 0 || start % self.file_size == 0,
            "the log begins at {start}"
        );
        must!(
            end >= self.floor,
            "lost: the log ends at {end}, it must reach {}",
            self.floor
        );
        let known = (end.min(self.end()) - start).max(0) as usize;
        let wanted = &self.image[start.min(self.end()) as usize..][..known];
        if let Some(at) = bytes[..known].iter().zip(wanted).position(|(a, b)| a != b) {
            return Err(
                format!("byte {} differs from what was answered", start + at as i64).into(),
            );
        }
        let before = self.end();
        self.image.truncate(end as usize);
        self.image.extend_from_slice(&bytes[known..]);
        let maybe = std::mem::take(&mut self.maybe);
        let mut asked = maybe.iter();
        let parsed = walk(
            &self.image,
            before.min(end),
            self.file_size,
            |at, found, _| {
                let one = asked
                    .next()
                    .ok_or(format!("nobody asked for the record at {at}"))?;
                check_sent(one, found)
            },
        )?;
        must!(
            parsed == end,
            "the log ends at {end}, its last record at {parsed}"
        );
        self.floor = end;
        self.acknowledged = self.acknowledged.min(end);
        Ok(())
    }

    /// Queues as the log says.
    pub fn queues(&self, deleted: &[(String, i64)]) -> Result<Queues, Failed> {
        let mut queues = Queues::new();
        let mut deleted = deleted.iter().peekable();
        let mut drop_until = |at: i64, queues: &mut Queues| {
            while let Some((topic, _)) = deleted.next_if(|(_, when)| *when <= at) {
                queues.retain(|(other, _), _| other != topic);
            }
        };
        walk(&self.image, 0, self.file_size, |at, record, len| {
            drop_until(at, &mut queues);
            let queue = queues
                .entry((record.topic.to_owned(), record.queue_id))
                .or_default();
            if record.queue_offset == 0 {
                // Only a deletion lets a queue's numbers begin anew.
                queue.clear();
            }
            must!(
                record.queue_offset == queue.len() as i64,
                "{}/{} has {} entries, the record at {at} is its {}th",
                record.topic,
                record.queue_id,
                queue.len(),
                record.queue_offset
            );
            let tag = rocketmq_protocol::properties::get(record.properties, "TAGS");
            queue.push(QueueEntry {
                physical_offset: at,
                size: len as i32,
                tags_code: tag.map_or(0, |tag| {
                    i64::from(rocketmq_protocol::hash::java_string(tag))
                }),
            });
            Ok(())
        })?;
        drop_until(i64::MAX, &mut queues);
        Ok(queues)
    }

    /// The store's queues are those that the log says.
    pub fn check_queues(&mut self, reader: &Reader) -> Result<(), Stop> {
        let with = |extra: &Option<(String, i64)>| {
            let mut deleted = self.deleted.clone();
            deleted.extend(extra.clone());
            deleted
        };
        let now = with(&None);
        let mut answer = same_queues(&self.queues(&now)?, reader);
        if let (Err(Stop::Failed(_)), Some(_)) = (&answer, &self.maybe_deleted) {
            let other = with(&self.maybe_deleted);
            answer = same_queues(&self.queues(&other)?, reader);
            if answer.is_ok() {
                self.deleted = other;
            }
        }
        if answer.is_ok() {
            self.maybe_deleted = None;
        }
        answer
    }
}

/// Whether a message is the one that was sent.
pub fn check_sent(sent: &Sent, found: &record::Record<'_>) -> Result<(), Failed> {
    must!(
        sent.topic == found.topic
            && sent.queue_id == found.queue_id
            && sent.body == found.body
            && sent.properties == found.properties
            && found.store_host == hosts(),
        "the record at {} of {}/{} is not what was sent to {}/{}: {:?}, not {:?}",
        found.physical_offset,
        found.topic,
        found.queue_id,
        sent.topic,
        sent.queue_id,
        found.properties,
        sent.properties
    );
    Ok(())
}

fn same_queues(wanted: &Queues, reader: &Reader) -> Result<(), Stop> {
    let start = reader.log_start();
    let mut there = 0;
    for topic in reader.topics() {
        for id in reader.queue_ids(&topic) {
            let (_, max) = reader.queue_bounds(&topic, id);
            there += usize::from(max > 0);
            must!(
                max == 0 || wanted.contains_key(&(topic.to_string(), id)),
                "{topic}/{id} holds {max} entries, the log none"
            );
        }
    }
    must!(
        there == wanted.len(),
        "{there} queues, the log says {}",
        wanted.len()
    );
    for ((topic, id), entries) in wanted {
        let (min, max) = reader.queue_bounds(topic, *id);
        must!(
            max == entries.len() as i64,
            "{topic}/{id} ends at {max}, the log says {}",
            entries.len()
        );
        let first = entries
            .iter()
            .position(|entry| entry.physical_offset >= start);
        let first = first.unwrap_or(entries.len());
        must!(
            min == first as i64,
            "{topic}/{id} begins at {min}, the log says {first}"
        );
        let found = reader.queue_entries(topic, *id, min, entries.len())?;
        must!(
            found == entries[first..],
            "{topic}/{id} differs from a rebuild"
        );
    }
    Ok(())
}
