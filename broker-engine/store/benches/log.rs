//! What the store does for one message: encode and append, find in the queue, read for a pull. On the real disk's page cache.
//!
//!     cargo bench -p rocketmq-store
//!     cargo bench -p rocketmq-store -- append

// The tests' own, where a failure may panic.
#[allow(clippy::unwrap_used)]
#[path = "../tests/given/mod.rs"]
mod given;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use given::{Sent, batch, now_ms};
use rocketmq_store::{Opened, RecordBatch, StoreOptions, Writer};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bytes after which an append goes on in a new store: it gets the pages of the one before. The first touch of memory that
/// a virtual machine has not used yet costs many times the append.
const ONE_STORE: i64 = 64 << 20;
const TOPIC: &str = "TopicTest";

fn options(dir: &TempDir) -> StoreOptions {
    StoreOptions {
        commit_log_file_size: 1 << 30,
        consume_queue_file_entries: 300_000,
        index_slots: 5_000_000,
        index_entries: 20_000_000,
        ..given::options(dir.path())
    }
}

fn store() -> (TempDir, Opened) {
    let dir = tempfile::tempdir().expect("there is room for temporary files");
    let opened = Writer::open(options(&dir), now_ms()).expect("an empty store opens");
    (dir, opened)
}

/// Messages as a client sends them: a unique key, no other.
fn sent(count: usize, size: usize) -> Vec<Sent> {
    let one = |number: usize| Sent {
        topic: TOPIC.into(),
        queue_id: 0,
        sys_flag: 0,
        body: vec![b'x'; size],
        properties: format!(
            "UNIQ_KEY\u{1}7F0000010E8C1B2844C02A6D5F33{number:04X}\u{2}WAIT\u{1}true\u{2}"
        ),
    };
    (0..count).map(one).collect()
}

/// The time of `rounds` appends of such batches; `encoding` counts their encoding, or only that.
fn append(rounds: u64, messages: &[Sent], encode: bool, place: bool) -> Duration {
    let mut spent = Duration::ZERO;
    let (mut dir, mut opened) = store();
    for _ in 0..rounds {
        let began = Instant::now();
        let mut records = [batch(black_box(messages))];
        let encoded = Instant::now();
        if encode {
            spent += encoded - began;
        }
        if place {
            let placed = opened.writer.append(&mut records, 1_700_000_000_000);
            spent += encoded.elapsed();
            placed.expect("there is room");
        }
        if opened.writer.log_end() > ONE_STORE {
            drop(opened);
            (dir, opened) = store();
        }
    }
    drop(opened);
    drop(dir);
    spent
}

fn appends(c: &mut Criterion) {
    for (name, encode, place) in [("encode", true, false), ("append", false, true)] {
        let mut group = c.benchmark_group(name);
        for (count, size) in [(1, 128), (1, 1024), (64, 128), (64, 1024)] {
            let messages = sent(count, size);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(
                BenchmarkId::from_parameter(format!("{count}x{size}")),
                |b| {
                    b.iter_custom(|rounds| append(rounds, &messages, encode, place));
                },
            );
        }
        group.finish();
    }
}

fn reads(c: &mut Criterion) {
    let (_dir, mut opened) = store();
    let messages = sent(64, 1024);
    let batches: Vec<RecordBatch> = (0..256).map(|_| batch(&messages)).collect();
    for one in batches {
        opened
            .writer
            .append(&mut [one], now_ms())
            .expect("there is room");
    }
    let all = 256 * 64;
    // The newest entries are still in memory, in no file; after a checkpoint the older ones are read from the queue's file.
    let places = [("in_memory", all - 64, false), ("in_file", all / 2, true)];
    for (name, from, checkpoint) in places {
        if checkpoint {
            opened.writer.housekeep(now_ms()).expect("there is room");
        }
        let reader = &opened.reader;
        let mut group = c.benchmark_group("read_32");
        group.throughput(Throughput::Elements(32));
        group.bench_function(format!("queue/{name}"), |b| {
            b.iter(|| {
                let entries = reader.queue_entries(black_box(TOPIC), 0, from, 32);
                assert_eq!(entries.expect("the file is there").len(), 32);
            });
        });
        group.bench_function(format!("pull_1024/{name}"), |b| {
            b.iter(|| {
                let read =
                    reader.read_queue(black_box(TOPIC), 0, from, 32, 1 << 20, &mut |_| Ok(true));
                let read = read.expect("the files are there");
                assert_eq!(read.count, 32);
                read
            });
        });
        group.finish();
    }
}

criterion_group!(benches, appends, reads);
criterion_main!(benches);
