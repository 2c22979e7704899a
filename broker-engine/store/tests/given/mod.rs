//! A small store, messages to put into it, and the whole of what it holds.
// Each test binary uses its part.
#![allow(dead_code)]

use rocketmq_protocol::record::{self, Parsed, Record};
use rocketmq_store::{Placed, Reader, RecordBatch, StoreOptions, Writer};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const FILE_SIZE: u64 = 64 << 10;

pub fn options(root: &Path) -> StoreOptions {
    StoreOptions {
        root: root.to_owned(),
        commit_log: root.join("commitlog"),
        commit_log_file_size: FILE_SIZE,
        consume_queue_file_entries: 300,
        index_slots: 5000,
        index_entries: 20_000,
        index_enabled: true,
        delay_levels: [1, 5, 10, 30].map(Duration::from_secs).to_vec(),
        lmq: false,
        visible_when_synced: false,
        zeros_ahead: 0,
        check_crc_on_recover: true,
        file_reserved: Duration::from_secs(72 * 3600),
        disk_max_used_percent: 101,
        disk_clean_forcibly_percent: 101,
        disk_warning_percent: 101,
        transfer_bytes_in_memory: 256 << 10,
        transfer_count_in_memory: 32,
        transfer_bytes_on_disk: 64 << 10,
        transfer_count_on_disk: 8,
        in_memory_span: 1 << 30,
    }
}

pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// A message as it is sent and as it must come back.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub topic: String,
    pub queue_id: i32,
    pub sys_flag: i32,
    pub body: Vec<u8>,
    pub properties: String,
}

/// A message whose body and keys follow from its number.
pub fn message(topic: &str, queue_id: i32, number: i32, tag: &str) -> Sent {
    let mut properties = format!("UNIQ_KEY\u{1}uniq-{number}\u{2}KEYS\u{1}key-{number} other\u{2}");
    if !tag.is_empty() {
        properties.push_str(&format!("TAGS\u{1}{tag}\u{2}"));
    }
    Sent {
        topic: topic.into(),
        queue_id,
        sys_flag: 0,
        body: format!("body of {number} ")
            .repeat(1 + number as usize % 5)
            .into_bytes(),
        properties,
    }
}

pub fn batch(sent: &[Sent]) -> RecordBatch {
    let mut batch = RecordBatch::new();
    for one in sent {
        let topic: Arc<str> = one.topic.as_str().into();
        let host = SocketAddr::from(([127, 0, 0, 1], 10911));
        let record = Record {
            queue_id: one.queue_id,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: one.sys_flag,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &one.body,
            topic: &one.topic,
            properties: &one.properties,
        };
        batch.push(&topic, &record).unwrap();
    }
    batch
}

pub fn append(writer: &mut Writer, sent: &[Sent], now_ms: i64) -> Placed {
    writer
        .append(&mut [batch(sent)], now_ms)
        .unwrap()
        .pop()
        .unwrap()
}

fn decode(mut bytes: &[u8], into: &mut Vec<(i64, i64, Sent)>) {
    while !bytes.is_empty() {
        match record::parse(bytes, true).unwrap() {
            Parsed::Record(record, len) => {
                into.push((
                    record.queue_offset,
                    record.store_timestamp,
                    Sent {
                        topic: record.topic.into(),
                        queue_id: record.queue_id,
                        sys_flag: record.sys_flag,
                        body: record.body.into(),
                        properties: record.properties.into(),
                    },
                ));
                bytes = &bytes[len..];
            }
            Parsed::Blank => panic!("filler in a pull's answer"),
        }
    }
}

/// A queue's messages by repeated reads, each with its offset and store time.
pub fn read_queue(reader: &Reader, topic: &str, queue_id: i32) -> Vec<(i64, i64, Sent)> {
    let mut found = Vec::new();
    let (mut at, max) = reader.queue_bounds(topic, queue_id);
    while at < max {
        let read = reader
            .read_queue(topic, queue_id, at, 32, 1 << 20, &mut |_| Ok(true))
            .unwrap();
        assert!(read.next_offset > at, "no progress at {at}: {read:?}");
        let before = found.len();
        decode(&read.spans.concat(), &mut found);
        assert_eq!(found.len() - before, read.count);
        at = read.next_offset;
    }
    found
}

pub fn read_all(reader: &Reader, topic: &str, queue_id: i32) -> Vec<Sent> {
    read_queue(reader, topic, queue_id)
        .into_iter()
        .map(|(_, _, sent)| sent)
        .collect()
}

/// All queues with all their messages and raw entries.
#[allow(clippy::type_complexity)]
pub fn everything(
    reader: &Reader,
) -> BTreeMap<
    (String, i32),
    (
        (i64, i64),
        Vec<rocketmq_store::reader::QueueEntry>,
        Vec<(i64, i64, Sent)>,
    ),
> {
    let mut all = BTreeMap::new();
    for topic in reader.topics() {
        for queue_id in reader.queue_ids(&topic) {
            let bounds = reader.queue_bounds(&topic, queue_id);
            let entries = reader
                .queue_entries(&topic, queue_id, bounds.0, 1 << 20)
                .unwrap();
            assert_eq!(entries.len() as i64, bounds.1 - bounds.0);
            let messages = read_queue(reader, &topic, queue_id);
            all.insert((topic.to_string(), queue_id), (bounds, entries, messages));
        }
    }
    all
}

fn log_file(root: &Path, at: i64) -> (std::fs::File, u64) {
    let base = at as u64 / FILE_SIZE * FILE_SIZE;
    let path = root.join("commitlog").join(format!("{base:020}"));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    (file, at as u64 - base)
}

pub fn overwrite(root: &Path, at: i64, bytes: &[u8]) {
    let (file, at) = log_file(root, at);
    file.write_all_at(bytes, at).unwrap();
}

/// The first byte behind `at` in its file that is not zero.
pub fn log_tail(root: &Path, at: i64) -> Option<usize> {
    let (file, at) = log_file(root, at);
    let mut rest = vec![0; (FILE_SIZE - at) as usize];
    file.read_exact_at(&mut rest, at).unwrap();
    rest.iter().position(|byte| *byte != 0)
}

pub fn whole_log(root: &Path) -> Vec<u8> {
    let mut names: Vec<_> = std::fs::read_dir(root.join("commitlog"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names
        .iter()
        .flat_map(|path| std::fs::read(path).unwrap())
        .collect()
}
