//! One seed: a store's lives, each with operations and an end.

use crate::given::{Sent, batch};
use crate::model::{Failed, Model, Stop, check_sent, published, walk};
use crate::must;
use crate::side::{Tables, Timer, sent};
use rocketmq_store::simulated::{Call, Crash, Failure, Habits, Lie, Random, SimulatedDisk};
use rocketmq_store::{FileSystem, Opened, Reader, StoreError, StoreOptions, Writer};
use std::path::Path;

pub const ROOT: &str = "/store";
const DAY_MS: i64 = 24 * 3600 * 1000;

/// A bug that the harness must find, planted around the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledged when written, not when synced.
    AcknowledgedBeforeSync,
    /// What stands behind the end stays.
    CutSkipped,
    /// A record's body is believed as it is.
    ChecksumUnchecked,
    /// A failed sync is tried again.
    SyncRetried,
    /// The names of new files are not synced.
    DirectoryNotSynced,
    /// The checkpoint speaks of queues and index that are not synced.
    CheckpointAhead,
}

/// What a run met.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub opens: u64,
    pub opens_cut_short: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub clean_stops: u64,
    pub torn_tails: u64,
    pub lost_suffixes: u64,
    pub unanswered_there: u64,
    pub poisoned: u64,
    pub full: u64,
    pub recovered_room: u64,
    pub deleted_topics: u64,
    pub retained: u64,
    pub slaves: u64,
    pub rebuilt: u64,
}

impl Counts {
    fn all(&mut self) -> [&mut u64; 15] {
        [
            &mut self.opens,
            &mut self.opens_cut_short,
            &mut self.kills,
            &mut self.power_cuts,
            &mut self.clean_stops,
            &mut self.torn_tails,
            &mut self.lost_suffixes,
            &mut self.unanswered_there,
            &mut self.poisoned,
            &mut self.full,
            &mut self.recovered_room,
            &mut self.deleted_topics,
            &mut self.retained,
            &mut self.slaves,
            &mut self.rebuilt,
        ]
    }
    pub fn add(&mut self, other: &Self) {
        let mut other = other.clone();
        for (to, from) in self.all().into_iter().zip(other.all()) {
            *to += *from;
        }
    }
    pub fn met_all(&self) -> bool {
        self.clone().all().into_iter().all(|count| *count > 0)
    }
}

pub struct Run {
    pub disk: SimulatedDisk,
    pub random: Random,
    pub model: Model,
    pub options: StoreOptions,
    now: i64,
    number: u32,
    bug: Option<Bug>,
    /// A master's log, for a slave.
    master: Option<Vec<u8>>,
    sync_each: bool,
    tables: Tables,
    timer: Option<Timer>,
    pub counts: Counts,
    /// Tells each step, for a seed that is looked at.
    aloud: bool,
}

pub fn options(random: &mut Random) -> StoreOptions {
    StoreOptions {
        commit_log_file_size: [2048, 4096, 8192][random.below(3) as usize],
        consume_queue_file_entries: [20, 60][random.below(2) as usize],
        index_slots: 30,
        index_entries: 40,
        zeros_ahead: [0, 0, 600, 3000][random.below(4) as usize],
        ..crate::given::options(Path::new(ROOT))
    }
}

impl Run {
    pub fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut random = Random::new(seed);
        let mut options = options(&mut random);
        let habits = Habits {
            writeback_one_in: [0, 2, 8, 30][random.below(4) as usize],
            short_write_one_in: [0, 3][random.below(2) as usize],
            holes: !random.one_in(8),
            fallocate: !random.one_in(8),
            names_in_order: random.one_in(2),
        };
        let disk = SimulatedDisk::new(seed, habits);
        match bug {
            Some(Bug::CutSkipped) => disk.lie(Lie::CutSkipped("commitlog")),
            Some(Bug::SyncRetried) => disk.lie(Lie::FailedSyncRetried),
            Some(Bug::DirectoryNotSynced) => disk.lie(Lie::DirectorySyncSkipped),
            Some(Bug::CheckpointAhead) => {
                disk.lie(Lie::SyncSkipped("consumequeue"));
                disk.lie(Lie::SyncSkipped("index"));
            }
            Some(Bug::ChecksumUnchecked) => options.check_crc_on_recover = false,
            _ => {}
        }
        let slave = random.one_in(6);
        let mut run = Self {
            model: Model::new(options.commit_log_file_size),
            timer: (random.one_in(4)).then(Timer::default),
            sync_each: random.one_in(2),
            disk,
            options,
            random,
            now: 1_700_000_000_000,
            number: 0,
            bug,
            master: None,
            tables: Tables::default(),
            counts: Counts::default(),
            aloud: std::env::var("SEED").is_ok(),
        };
        if slave {
            run.master = Some(run.master_log());
            run.counts.slaves += 1;
        }
        run
    }

    /// The log of a master that nothing happens to.
    fn master_log(&mut self) -> Vec<u8> {
        let disk = FileSystem::Simulated(SimulatedDisk::new(1, Habits::default()));
        let mut opened = Writer::open_on(disk, self.options.clone(), self.now).unwrap();
        for _ in 0..20 + self.random.below(30) {
            if self.random.one_in(20) {
                opened.writer.delete_topic("B", self.now).unwrap();
            }
            let sent: Vec<Sent> = self.some();
            opened.writer.append(&mut [batch(&sent)], self.now).unwrap();
        }
        published(&opened.reader).unwrap().1
    }

    fn some(&mut self) -> Vec<Sent> {
        let most = [1, 1, 4, 10][self.random.below(4) as usize];
        (0..=self.random.below(most))
            .map(|_| {
                self.number += 1;
                sent(self.number, &mut self.random)
            })
            .collect()
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.aloud {
            println!("{}", what());
        }
    }

    /// All lives; the last ends in a clean one that must find everything.
    pub fn whole(mut self) -> Result<Counts, Failed> {
        for _ in 0..2 + self.random.below(3) {
            self.life()?;
        }
        self.disk.make_room();
        self.disk.restart(Crash::Kill);
        self.ended(Crash::Kill);
        match self.open() {
            Ok(opened) => {
                self.rebuilt(&opened)?;
                let closed = opened.writer.close(self.now);
                must!(closed.is_ok(), "closing: {closed:?}");
            }
            Err(Stop::Failed(why)) => return Err(why),
            Err(Stop::Disk) => return Err("the disk failed unasked".into()),
        }
        Ok(self.counts)
    }

    /// The store stopped, of itself or not.
    fn ended(&mut self, crash: Crash) {
        if crash == Crash::PowerCut {
            self.model.floor = self.model.floor.min(self.model.acknowledged);
        }
        if let Some(timer) = &mut self.timer {
            timer.stopped(crash);
        }
    }

    fn arm(&mut self, within: u64) {
        match self.random.below(8) {
            0..5 => {
                let nth = 1 + self.random.below(within);
                self.disk.crash_in(nth);
            }
            5 => {
                let call = [
                    Call::Write,
                    Call::Sync,
                    Call::Make,
                    Call::Rename,
                    Call::Remove,
                    Call::Read,
                    Call::Open,
                ];
                let call = call[self.random.below(7) as usize];
                let nth = 1 + self.random.below(within);
                self.disk.fail(Some(call), nth, Failure::Io);
            }
            6 => {
                let call = [Call::Write, Call::Make][self.random.below(2) as usize];
                let nth = 1 + self.random.below(within);
                self.disk.fail(Some(call), nth, Failure::NoSpace);
            }
            _ => {}
        }
    }

    fn life(&mut self) -> Result<(), Failed> {
        let early = self.random.one_in(4);
        if early {
            self.arm(12);
        }
        let failed = self.disk.failed();
        let lived = self.open().and_then(|opened| {
            if !early {
                self.arm(80);
            }
            self.live(opened)
        });
        match lived {
            Ok(()) => self.counts.clean_stops += 1,
            Err(Stop::Failed(why)) => return Err(why),
            Err(Stop::Disk) => must!(
                self.disk.is_off() || self.disk.failed() > failed,
                "the store stopped unasked"
            ),
        }
        let crash = [Crash::Kill, Crash::PowerCut][self.random.below(2) as usize];
        *(if crash == Crash::Kill {
            &mut self.counts.kills
        } else {
            &mut self.counts.power_cuts
        }) += 1;
        self.say(|| format!("{crash:?}, off already: {}", self.disk.is_off()));
        self.disk.make_room();
        self.disk.restart(crash);
        self.ended(crash);
        Ok(())
    }

    pub fn open(&mut self) -> Result<Opened, Stop> {
        let failed = self.disk.failed();
        let fs = FileSystem::Simulated(self.disk.clone());
        let opened = match Writer::open_on(fs, self.options.clone(), self.now) {
            Ok(opened) => opened,
            Err(_) if self.disk.is_off() || self.disk.failed() > failed => {
                self.counts.opens_cut_short += 1;
                return Err(Stop::Disk);
            }
            Err(error) => {
                return Err(Stop::Failed(format!("the store does not open: {error}")));
            }
        };
        self.counts.opens += 1;
        self.say(|| format!("{}; it must reach {}", opened.recovery, self.model.floor));
        self.counts.torn_tails += u64::from(opened.recovery.truncated_bytes > 0);
        self.counts.rebuilt += u64::from(opened.recovery.queues_rebuilt);
        // No crash costs a whole rebuild. But a slave's may, whose master made a topic anew; and one that lost the first of two
        // files that a queue has got since the last checkpoint.
        let tiny = self.options.consume_queue_file_entries < 60;
        must!(
            self.master.is_some() || tiny || !opened.recovery.queues_rebuilt,
            "the queues were rebuilt without need"
        );
        if opened.recovery.queues_rebuilt {
            // Deleted topics come back when queues are made from a log that still holds their records.
            self.model.deleted.clear();
        }
        self.check(&opened.reader)?;
        Ok(opened)
    }

    /// All that must hold behind a stop.
    fn check(&mut self, reader: &Reader) -> Result<(), Stop> {
        let before = self.model.end();
        if let Some(master) = self.master.clone() {
            self.check_slave(reader, &master)?;
        } else {
            self.model.adopt(reader)?;
        }
        self.counts.lost_suffixes += u64::from(self.model.end() < before);
        self.counts.unanswered_there += u64::from(self.model.end() > before);
        self.model.start = reader.log_start();
        self.model.check_queues(reader)?;
        self.check_queries(reader)?;
        self.tables.check(&self.disk)?;
        match &mut self.timer {
            Some(timer) => timer.open(&self.disk),
            None => Ok(()),
        }
    }

    fn check_slave(&mut self, reader: &Reader, master: &[u8]) -> Result<(), Stop> {
        let (start, bytes) = published(reader)?;
        let end = start + bytes.len() as i64;
        must!(start == 0, "the slave's log begins at {start}");
        must!(
            end >= self.model.floor,
            "lost: the slave's log ends at {end}, it must reach {}",
            self.model.floor
        );
        let other = bytes.iter().zip(master).position(|(a, b)| a != b);
        must!(
            other.is_none(),
            "the slave's bytes are not its master's at {other:?}"
        );
        self.model.image = bytes;
        self.model.floor = end;
        self.model.acknowledged = self.model.acknowledged.min(end);
        Ok(())
    }

    /// A few messages by their keys.
    fn check_queries(&mut self, reader: &Reader) -> Result<(), Stop> {
        let mut found = Vec::new();
        let start = self.model.start;
        walk(
            &self.model.image,
            0,
            self.model.file_size,
            |at, record, _| {
                if at >= start {
                    let key = rocketmq_protocol::properties::get(record.properties, "UNIQ_KEY");
                    found.push((
                        at,
                        record.topic.to_owned(),
                        key.unwrap_or_default().to_owned(),
                    ));
                }
                Ok(())
            },
        )?;
        for _ in 0..3.min(found.len()) {
            let (at, topic, key) = &found[self.random.below(found.len() as u64) as usize];
            let hits = reader.query(topic, key, 8, 0, i64::MAX)?;
            must!(
                hits.records.len() == 1,
                "{} records under the key {key} of {at}",
                hits.records.len()
            );
        }
        Ok(())
    }

    fn live(&mut self, opened: Opened) -> Result<(), Stop> {
        let (mut writer, reader) = (opened.writer, opened.reader);
        let syncer = writer.syncer();
        let mut job = None;
        for _ in 0..self.random.below(40) {
            self.now += self.random.below(2000) as i64;
            self.disk.set_now(self.now);
            let op = self.random.below(24);
            self.say(|| {
                let (end, synced) = (self.model.end(), self.model.acknowledged);
                format!(
                    "operation {op}: end {end}, acknowledged {synced}, call {}",
                    self.disk.calls()
                )
            });
            match op {
                0 | 1 => self.tables.write(&self.disk, &mut self.random)?,
                2..5 => {
                    if let Some(timer) = &mut self.timer {
                        timer.work(&self.disk, &mut self.random)?;
                    }
                }
                5 | 6 => self.sync(&syncer, &mut writer)?,
                7 => job = writer.checkpoint_job(self.now),
                8 => {
                    if let Some(job) = job.take() {
                        self.judge(job.run(), &mut writer)?;
                    }
                }
                9 => {
                    let kept = writer.housekeep(self.now);
                    self.judge(kept, &mut writer)?;
                }
                10 if self.random.one_in(3) && self.master.is_none() => {
                    self.delete_topic(&mut writer)?;
                }
                11 if self.random.one_in(3) && self.master.is_none() => {
                    self.clean(&mut writer, &reader)?;
                }
                12 => self.read(&reader)?,
                _ if self.master.is_some() => self.feed(&mut writer)?,
                _ => self.append(&mut writer, &reader)?,
            }
            if self.sync_each && self.random.one_in(2) {
                self.sync(&syncer, &mut writer)?;
            }
        }
        match self.random.below(3) {
            0 => {
                writer.close(self.now).map_err(|_| Stop::Disk)?;
                self.model.acknowledged = self.model.end();
            }
            1 => drop(writer),
            _ => {
                let kept = writer.housekeep(self.now);
                self.judge(kept, &mut writer)?;
            }
        }
        Ok(())
    }

    /// An answer other than success: the store takes no more, or says that the disk is full and goes on later.
    fn judge(&mut self, answer: Result<(), StoreError>, writer: &mut Writer) -> Result<(), Stop> {
        match answer {
            Ok(()) => Ok(()),
            Err(StoreError::DiskFull(_)) => self.out_of_room(writer),
            Err(_) => self.poisoned(writer),
        }
    }

    /// Nothing is taken after an error, and nothing is said to be synced.
    fn poisoned(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        if self.disk.is_off() {
            return Err(Stop::Disk);
        }
        self.counts.poisoned += 1;
        let end = writer.log_end();
        let one = sent(0, &mut self.random);
        must!(
            self.bug == Some(Bug::SyncRetried) || writer.failure().is_some(),
            "a call failed, and the store goes on"
        );
        must!(
            writer.append(&mut [batch(&[one])], self.now).is_err(),
            "appended after an error"
        );
        must!(
            writer.append_raw(end, b"x", self.now).is_err(),
            "appended after an error"
        );
        must!(writer.syncer().sync().is_err(), "synced after an error");
        must!(writer.log_end() == end, "the end moved after an error");
        Err(Stop::Disk)
    }

    /// The disk is full: sends are refused, reads go on, and all is well when there is room again.
    fn out_of_room(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        if self.disk.is_off() {
            return Err(Stop::Disk);
        }
        self.counts.full += 1;
        must!(writer.failure().is_none(), "a full disk is not the end");
        if self.random.one_in(2) {
            return Ok(());
        }
        self.disk.make_room();
        let kept = writer.housekeep(self.now);
        must!(
            kept.is_ok(),
            "there is room again, and the store does not go on: {kept:?}"
        );
        self.counts.recovered_room += 1;
        Ok(())
    }

    fn sync(&mut self, syncer: &rocketmq_store::Syncer, writer: &mut Writer) -> Result<(), Stop> {
        match syncer.sync() {
            Ok(flushed) => {
                must!(flushed >= writer.log_end(), "synced up to {flushed} only");
                self.model.acknowledged = self.model.acknowledged.max(flushed);
                Ok(())
            }
            Err(_) => self.poisoned(writer),
        }
    }

    fn append(&mut self, writer: &mut Writer, reader: &Reader) -> Result<(), Stop> {
        let mut all = Vec::new();
        let mut batches = Vec::new();
        for _ in 0..=self.random.below(3) {
            let sent = self.some();
            batches.push(batch(&sent));
            all.extend(sent);
        }
        let before = self.model.end();
        self.model.maybe = all;
        let answer = writer.append(&mut batches, self.now);
        self.say(|| format!("appended: {answer:?}"));
        match answer {
            Ok(placed) => {
                let all = std::mem::take(&mut self.model.maybe);
                let mut bytes = Vec::new();
                while before + (bytes.len() as i64) < reader.log_end() {
                    match reader.log_bytes(before + bytes.len() as i64, 1 << 20) {
                        Ok(more) => bytes.extend_from_slice(&more),
                        Err(_) => {
                            self.model.maybe = all;
                            return Err(Stop::Disk);
                        }
                    }
                }
                self.model.image.extend_from_slice(&bytes);
                let mut sent = all.iter();
                let mut places = placed.iter().flat_map(|placed| &placed.records);
                walk(
                    &self.model.image,
                    before,
                    self.model.file_size,
                    |at, found, _| {
                        let place = (found.queue_offset, at);
                        must!(
                            places.next() == Some(&place),
                            "the record at {at} was not answered so: {place:?}, {placed:?} {before}"
                        );
                        check_sent(sent.next().ok_or("more than was sent")?, found)
                    },
                )?;
                must!(
                    sent.next().is_none(),
                    "a message is missing in the log: {placed:?} {before} {} {}",
                    reader.log_end(),
                    self.model.end()
                );
                self.model.floor = self.model.end();
                if self.bug == Some(Bug::AcknowledgedBeforeSync) {
                    self.model.acknowledged = self.model.end();
                }
                Ok(())
            }
            Err(StoreError::DiskFull(_)) => {
                must!(reader.log_end() == before, "refused, and there");
                // Refused is refused, unless the machine ends while it is taken back.
                if !self.disk.is_off() {
                    self.model.maybe.clear();
                }
                self.out_of_room(writer)
            }
            Err(StoreError::RecordTooLarge { .. }) => {
                self.model.maybe.clear();
                Ok(())
            }
            Err(_) => self.poisoned(writer),
        }
    }

    fn feed(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        let master = self.master.as_ref().expect("a slave has one");
        let at = writer.log_end();
        let most = [60, 700, 5000][self.random.below(3) as usize];
        let len = (1 + self.random.below(most) as usize).min(master.len() - at as usize);
        let bytes = &master[at as usize..][..len];
        let answer = writer.append_raw(at, bytes, self.now);
        self.say(|| format!("fed {len} bytes at {at}: {answer:?}"));
        match answer {
            Ok(end) => {
                let mut whole = at;
                let fed = &master[..at as usize + len];
                walk(fed, at, self.model.file_size, |at, _, len| {
                    whole = at + len as i64;
                    Ok(())
                })?;
                // A filler that came as a whole stands behind the last record, at its file's end.
                let filled = end % self.model.file_size == 0 && end <= at + len as i64;
                must!(
                    end == whole || filled && end > whole,
                    "fed {len} bytes at {at} with whole records to {whole}, the end is {end}"
                );
                self.model
                    .image
                    .extend_from_slice(&master[at as usize..end as usize]);
                self.model.floor = end;
                Ok(())
            }
            Err(StoreError::DiskFull(_)) => {
                must!(writer.log_end() == at, "refused, and there");
                self.out_of_room(writer)
            }
            Err(_) => self.poisoned(writer),
        }
    }

    fn delete_topic(&mut self, writer: &mut Writer) -> Result<(), Stop> {
        let topic = ["A", "B"][self.random.below(2) as usize];
        self.model.maybe_deleted = Some((topic.to_owned(), self.model.end()));
        let answer = writer.delete_topic(topic, self.now);
        if answer.is_ok() {
            self.model.deleted.extend(self.model.maybe_deleted.take());
            self.model.acknowledged = self.model.end();
            self.counts.deleted_topics += 1;
        } else if !self.disk.is_off() {
            // Asked again until it is done.
            self.disk.make_room();
            return Err(Stop::Disk);
        }
        self.judge(answer, writer)
    }

    fn clean(&mut self, writer: &mut Writer, reader: &Reader) -> Result<(), Stop> {
        let kept = writer.housekeep(self.now);
        self.judge(kept, writer)?;
        let last = (self.model.end() - 1).max(0);
        let before = self.model.start;
        // Should it stop in the middle, the log begins at any file.
        self.model.start = last - last % self.model.file_size;
        let later = self.now + [0, 4 * DAY_MS][self.random.below(2) as usize];
        let answer = writer.clean(later, true);
        self.model.start = self.model.start.min(reader.log_start());
        self.counts.retained += u64::from(self.model.start > before);
        match answer {
            Ok(_) => self.model.check_queues(reader),
            Err(_) => {
                self.model.start = last - last % self.model.file_size;
                Err(Stop::Disk)
            }
        }
    }

    fn read(&mut self, reader: &Reader) -> Result<(), Stop> {
        for topic in reader.topics() {
            for id in reader.queue_ids(&topic) {
                let (min, max) = reader.queue_bounds(&topic, id);
                let from = min + self.random.below((max - min).max(0) as u64 + 1) as i64;
                let read = reader.read_queue(&topic, id, from, 8, 1 << 16, &mut |_| Ok(true))?;
                let bytes = read.spans.concat();
                let mut rest = bytes.as_slice();
                let mut number = from;
                while !rest.is_empty() {
                    let found =
                        rocketmq_protocol::record::View::record(rest).map_err(|e| e.to_string())?;
                    let (at, len) = (found.physical_offset() as usize, found.total_len());
                    must!(
                        rest[..len] == self.model.image[at..at + len],
                        "{topic}/{id} delivers other bytes"
                    );
                    must!(
                        found.queue_offset() == number,
                        "{topic}/{id} delivers {} as {number}",
                        found.queue_offset()
                    );
                    number += 1;
                    rest = &rest[len..];
                }
            }
        }
        Ok(())
    }

    /// A store without its derived files makes the same queues and index from the log.
    fn rebuilt(&mut self, opened: &Opened) -> Result<(), Failed> {
        if !self.model.deleted.is_empty() || self.model.start > 0 || !self.random.one_in(8) {
            return Ok(());
        }
        let copy = self.disk.copy();
        for derived in ["consumequeue", "index", "checkpoint"] {
            copy.wipe(&Path::new(ROOT).join(derived));
        }
        let again = Writer::open_on(FileSystem::Simulated(copy), self.options.clone(), self.now);
        let again = again.map_err(|error| error.to_string())?;
        let all = |reader: &Reader| {
            let mut all = crate::given::everything(reader);
            // Directories without an entry may be left of a queue that lost all.
            all.retain(|_, (bounds, _, _)| bounds.1 > 0);
            all
        };
        must!(
            all(&again.reader) == all(&opened.reader),
            "a rebuild differs"
        );
        for key in 1..=self.number {
            for topic in ["A", "B", "%RETRY%C"] {
                let key = format!("uniq-{key}");
                let find = |reader: &Reader| {
                    reader
                        .query(topic, &key, 8, 0, i64::MAX)
                        .map(|hits| hits.records)
                };
                let (kept, made) = (find(&opened.reader), find(&again.reader));
                must!(
                    kept.is_ok() && kept.ok() == made.ok(),
                    "the index differs from a rebuild at {key}"
                );
            }
        }
        Ok(())
    }
}
