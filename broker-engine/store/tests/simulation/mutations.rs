//! Stores changed while nobody had them open: flipped bits, cut files, zeroed pages. What comes out is what went in, or an
//! error that says where; what can be made anew from the log is.

use crate::check_number as number;
use crate::given::{Sent, batch};
use crate::run::{ROOT, options};
use crate::side::sent;
use rocketmq_protocol::record::View;
use rocketmq_store::simulated::{Crash, Habits, Random, SimulatedDisk};
use rocketmq_store::timer::{Progress, TimerFiles, Unit, magic};
use rocketmq_store::{FileSystem, StoreError, StoreOptions, Writer, table};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NOW: i64 = 1_700_000_000_000;
const SLOT: i64 = NOW + 60_000;

/// A store at rest.
struct Store {
    disk: SimulatedDisk,
    options: StoreOptions,
    /// Per queue, its messages.
    sent: BTreeMap<(String, i32), Vec<Sent>>,
    end: i64,
    /// The log is known to be on disk up to here.
    marked: i64,
}

fn table_text(version: u64) -> String {
    format!(
        "{{\"version\":{version},\"filler\":\"{}\"}}",
        "x".repeat(200)
    )
}

impl Store {
    fn build(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = SimulatedDisk::new(
            seed,
            Habits {
                holes: !random.one_in(4),
                ..Habits::default()
            },
        );
        let mut options = options(&mut random);
        options.index_entries = 400;
        let fs = FileSystem::Simulated(disk.clone());
        let opened = Writer::open_on(fs.clone(), options.clone(), NOW).unwrap();
        let (mut writer, reader) = (opened.writer, opened.reader);
        let mut store = Self {
            disk,
            options,
            sent: BTreeMap::new(),
            end: 0,
            marked: 0,
        };
        let mut timer = TimerFiles::open_on(fs.clone(), Path::new(ROOT))
            .unwrap()
            .files;
        for count in 1..=10 + random.below(50) as u32 {
            let one = sent(count, &mut random);
            writer
                .append(&mut [batch(std::slice::from_ref(&one))], NOW)
                .unwrap();
            store
                .sent
                .entry((one.topic.clone(), one.queue_id))
                .or_default()
                .push(one);
            if random.one_in(20) {
                writer.housekeep(NOW).unwrap();
                store.marked = reader.log_end();
            }
            let unit = Unit {
                magic: magic::DEFAULT,
                enqueued_ms: NOW,
                delay_ms: 1000,
                physical_offset: i64::from(count),
                size: 100,
                topic_hash: 7,
            };
            timer
                .add(SLOT + 1000 * random.below(5) as i64, unit)
                .unwrap();
        }
        let progress = Progress {
            read_ms: SLOT,
            queue_offset: 1,
            delivered_ms: SLOT,
        };
        timer.write_progress(progress, random.one_in(2)).unwrap();
        for version in 1..3 {
            table::write_on(
                &fs,
                &Path::new(ROOT).join("config/topics.json"),
                &table_text(version),
            )
            .unwrap();
        }
        store.end = reader.log_end();
        if random.one_in(2) {
            writer.close(NOW).unwrap();
            store.marked = store.end;
        }
        drop(reader);
        store.disk.restart(Crash::Kill);
        store
    }

    /// Changes one file in one way; says which and how.
    fn mutate(&self, random: &mut Random) -> String {
        let files: Vec<(PathBuf, u64)> = (self.disk.files().into_iter())
            .filter(|(path, len)| *len > 0 && !path.ends_with("abort") && !path.ends_with("lock"))
            .collect();
        let log = random.one_in(3);
        let of_kind: Vec<_> = (files.iter())
            .filter(|(path, _)| !log || path.starts_with("/store/commitlog"))
            .collect();
        let (path, len) = of_kind[random.below(of_kind.len() as u64) as usize];
        // Most of a large file was never written: what changes is what is there.
        let used = (*len).min(if path.ends_with("timerwheel") {
            *len
        } else {
            8192
        });
        let at = random.below(used);
        match random.below(4) {
            0 | 1 => {
                let old = self.disk.peek(path, at, 1).unwrap()[0];
                let bit = random.below(8);
                self.disk.poke(path, at, &[old ^ (1 << bit)]);
                format!("bit {bit} of byte {at} of {}", path.display())
            }
            2 => {
                self.disk.resize(path, at);
                format!("{} cut at {at}", path.display())
            }
            _ => {
                let page = [512, 4096][random.below(2) as usize];
                let from = at - at % page;
                let zeros = vec![0; page.min(len - from) as usize];
                self.disk.poke(path, from, &zeros);
                format!(
                    "{} zeroed bytes at {from} of {}",
                    zeros.len(),
                    path.display()
                )
            }
        }
    }

    /// Whether the log was changed behind what the checkpoint tells of.
    fn unmarked(&self, what: &str) -> bool {
        what.match_indices("/store/commitlog/").any(|(at, dir)| {
            let base: i64 = what[at + dir.len()..][..20].parse().unwrap();
            base + self.options.commit_log_file_size as i64 > self.marked
        })
    }

    /// Opens it and reads all there is.
    fn read(&self, what: &str, met: &mut Met) {
        let fs = FileSystem::Simulated(self.disk.clone());
        self.read_sides(&fs, what);
        let opened = match Writer::open_on(fs.clone(), self.options.clone(), NOW) {
            Ok(opened) => opened,
            Err(StoreError::Damaged { at, .. }) => {
                assert!(
                    at <= self.end,
                    "{what}: damage at {at}, the log ended at {}",
                    self.end
                );
                assert!(
                    what.contains("commitlog"),
                    "{what}: taken for damage of the log"
                );
                met.damage += 1;
                return;
            }
            Err(StoreError::FileSize { path, .. }) => {
                assert!(path.contains("commitlog"), "{what}: {path} is derived");
                met.sizes += 1;
                return;
            }
            Err(error) => panic!("{what}: {error}"),
        };
        met.opened += 1;
        met.rebuilt += u64::from(opened.recovery.queues_rebuilt || opened.recovery.index_rebuilt);
        let reader = &opened.reader;
        // What was on disk is still there or was reported; only what no checkpoint tells of may look as if it had been lost.
        let marked = if what.contains("checkpoint") {
            0
        } else {
            self.marked
        };
        assert!(
            reader.log_end() >= marked,
            "{what}: the log ends at {}, it was synced up to {marked}",
            reader.log_end()
        );
        // Nothing but its header says where a record belongs whose queue is made from the log, and a header has no checksum.
        let rebuilt = opened.recovery.queues_rebuilt;
        let lenient = rebuilt || what.contains("checkpoint") || self.unmarked(what);
        'queues: for ((topic, id), sent) in &self.sent {
            let (min, max) = reader.queue_bounds(topic, *id);
            let mut at = min;
            let log_whole = reader.log_end() == self.end && !lenient;
            assert!(
                !log_whole || (min, max) == (0, sent.len() as i64),
                "{what}: {topic}/{id} is {min}..{max} of {}",
                sent.len()
            );
            while at < max {
                let read = match reader.read_queue(topic, *id, at, 4, 1 << 16, &mut |_| Ok(true)) {
                    Ok(read) => read,
                    Err(error) => {
                        assert_eq!(
                            error.kind(),
                            std::io::ErrorKind::InvalidData,
                            "{what}: {error}"
                        );
                        met.refused += 1;
                        at += 1;
                        continue;
                    }
                };
                let bytes = read.spans.concat();
                let mut rest = bytes.as_slice();
                assert!(
                    !rest.is_empty(),
                    "{what}: {topic}/{id} at {at}: {:?}, passed over in silence",
                    read.status
                );
                while !rest.is_empty() {
                    let record = View::record(rest).unwrap_or_else(|why| panic!("{what}: {why}"));
                    let wanted = &sent[(at as usize).min(sent.len() - 1)];
                    // What has a checksum, or is said twice, is right.
                    let place = (
                        record.topic().unwrap(),
                        record.queue_id(),
                        record.queue_offset(),
                    );
                    let right = place == (topic.as_str(), *id, at) && record.body() == wanted.body;
                    if !right && lenient {
                        met.unnoticed += 1;
                        continue 'queues;
                    }
                    assert!(
                        right,
                        "{what}: {place:?} was delivered at {at} of {topic}/{id}"
                    );
                    met.delivered += 1;
                    rest = &rest[record.total_len()..];
                    at += 1;
                }
                assert_eq!(at, read.next_offset, "{what}: {topic}/{id}");
            }
            for one in sent.iter().take(3) {
                let key = rocketmq_protocol::properties::get(&one.properties, "UNIQ_KEY").unwrap();
                if let Ok(hits) = reader.query(topic, key, 8, 0, i64::MAX) {
                    for hit in &hits.records {
                        assert_eq!(View::record(hit).unwrap().body(), one.body, "{what}: {key}");
                    }
                }
            }
        }
        let _ = opened.writer.close(NOW);
    }

    /// The table is one that was written or none, unless its text was changed to another valid one; the timer's files give
    /// units or an error.
    fn read_sides(&self, fs: &FileSystem, what: &str) {
        let path = Path::new(ROOT).join("config/topics.json");
        let valid = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        if let Some(text) = table::read_on(fs, &path, valid).unwrap() {
            assert!(valid(&text));
            let known = (1..3).any(|version| text == table_text(version));
            assert!(
                known || what.contains("topics.json"),
                "{what}: the table says {text}"
            );
        }
        if let Ok(opened) = TimerFiles::open_on(fs.clone(), Path::new(ROOT)) {
            let mut files = opened.files;
            for slot in 0..6 {
                let _ = files.take(SLOT + 1000 * slot);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Met {
    opened: u64,
    damage: u64,
    sizes: u64,
    rebuilt: u64,
    refused: u64,
    delivered: u64,
    /// Misplaced by a changed header.
    unnoticed: u64,
}

#[test]
fn a_changed_store_gives_out_what_went_in_or_an_error() {
    let count = number("MUTATIONS").unwrap_or(500);
    let first = number("MUTATION").unwrap_or(0);
    let mut met = Met::default();
    for seed in first..first + count {
        let store = Store::build(seed);
        let mut random = Random::new(seed ^ 0xABCD);
        let mut what = format!("MUTATION={seed}: ");
        for _ in 0..=random.below(3) {
            what.push_str(&store.mutate(&mut random));
            what.push_str("; ");
        }
        store.read(&what, &mut met);
    }
    println!("{count} changed stores: {met:?}");
    assert!(
        count < 300 || met.damage > 0 && met.sizes > 0 && met.rebuilt > 0 && met.refused > 0,
        "{met:?}"
    );
}
