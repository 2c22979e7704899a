//! A small store's whole life with one failure in it, at each of its calls in turn: EIO, which ends it, and a full disk, which
//! does not.

use crate::given::{Sent, batch};
use crate::model::{check_sent, hosts, published};
use crate::run::{ROOT, options};
use crate::side::sent;
use rocketmq_protocol::properties;
use rocketmq_protocol::record::View;
use rocketmq_store::simulated::{Call, Crash, Failure, Habits, Random, SimulatedDisk};
use rocketmq_store::{FileSystem, Reader, StoreError, StoreOptions, Writer, table};
use std::path::Path;

const NOW: i64 = 1_700_000_000_000;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// What a life left to be found again.
#[derive(Default)]
struct Kept {
    /// Answered, in order; those before `synced` are on disk.
    sent: Vec<Sent>,
    synced: usize,
    /// Not answered, or refused: they may be there. None of them for a disk that is only full.
    maybe: Vec<Sent>,
    /// The topic `gone` was deleted, or perhaps.
    deleted: bool,
    table: Option<u64>,
    table_maybe: u64,
    /// The error that ended it.
    error: Option<String>,
}

/// Whether the life goes on behind an error.
#[derive(Clone, Copy, PartialEq)]
enum After {
    Stop,
    MakeRoom,
}

struct Life {
    disk: SimulatedDisk,
    options: StoreOptions,
    after: After,
    kept: Kept,
}

/// An error that ended the life.
struct Ended;

impl Life {
    fn new(after: After, fallocate: bool) -> Self {
        let disk = SimulatedDisk::new(
            7,
            Habits {
                fallocate,
                ..Habits::default()
            },
        );
        disk.set_now(NOW);
        let mut options = options(&mut Random::new(3));
        options.commit_log_file_size = 2048;
        options.consume_queue_file_entries = 20;
        Self {
            disk,
            options,
            after,
            kept: Kept::default(),
        }
    }

    fn fs(&self) -> FileSystem {
        FileSystem::Simulated(self.disk.clone())
    }

    /// Takes an answer. An error is one that was asked for; what it leaves is checked at once.
    fn judge<T>(
        &mut self,
        writer: &mut Writer,
        answer: Result<T, StoreError>,
    ) -> Result<Option<T>, Ended> {
        let error = match answer {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        assert!(
            self.disk.failed() > 0,
            "an error that nobody asked for: {error}"
        );
        let one = batch(&[sent(9999, &mut Random::new(1))]);
        if matches!(error, StoreError::DiskFull(_)) {
            assert!(
                self.after == After::MakeRoom,
                "EIO is no full disk: {error}"
            );
            assert!(writer.failure().is_none(), "a full disk is final: {error}");
            return Ok(None);
        }
        // Stopped: nothing is acknowledged behind it, and the reason is told.
        let reason = writer.failure().map(|failure| failure.to_string());
        assert!(reason.is_some(), "{error}, and the store goes on");
        assert!(matches!(
            writer.append(&mut [one], NOW),
            Err(StoreError::Poisoned(_))
        ));
        assert!(matches!(
            writer.syncer().sync(),
            Err(StoreError::Poisoned(_))
        ));
        self.kept.error = reason;
        Err(Ended)
    }

    fn append(&mut self, writer: &mut Writer, messages: &[Sent]) -> Result<(), Ended> {
        loop {
            let answer = writer.append(&mut [batch(messages)], NOW);
            if answer.is_err() && !matches!(answer, Err(StoreError::DiskFull(_))) {
                self.kept.maybe.extend_from_slice(messages);
            }
            if self.judge(writer, answer)?.is_some() {
                self.kept.sent.extend_from_slice(messages);
                return Ok(());
            }
            // Refused; what is there can still be read, and there is room again later.
            self.room(writer)?;
        }
    }

    /// There is room again; the next checkpoint says so, without a restart.
    fn room(&mut self, writer: &mut Writer) -> Result<(), Ended> {
        self.disk.make_room();
        let kept = writer.housekeep(NOW);
        assert!(kept.is_ok(), "there is room again, and {kept:?}");
        Ok(())
    }

    fn sync(&mut self, writer: &mut Writer) -> Result<(), Ended> {
        let answer = writer.syncer().sync();
        if self.judge(writer, answer)?.is_some() {
            self.kept.synced = self.kept.sent.len();
        }
        Ok(())
    }

    fn housekeep(&mut self, writer: &mut Writer) -> Result<(), Ended> {
        let answer = writer.housekeep(NOW);
        match self.judge(writer, answer)? {
            Some(()) => self.kept.synced = self.kept.sent.len(),
            None => self.room(writer)?,
        }
        Ok(())
    }

    fn table(&mut self, version: u64) {
        self.kept.table_maybe = version;
        let path = Path::new(ROOT).join("config/topics.json");
        // A table that could not be written is tried again later; it ends nothing.
        if table::write_on(&self.fs(), &path, &version.to_string()).is_ok() {
            self.kept.table = Some(version);
        }
    }

    fn open(&mut self) -> Result<Option<(Writer, Reader)>, Ended> {
        match Writer::open_on(self.fs(), self.options.clone(), NOW) {
            Ok(opened) => Ok(Some((opened.writer, opened.reader))),
            Err(error) => {
                assert!(
                    self.disk.failed() > 0,
                    "an error that nobody asked for: {error}"
                );
                self.kept.error = Some(error.to_string());
                if self.after == After::Stop {
                    return Err(Ended);
                }
                Ok(None)
            }
        }
    }

    /// Opened twice, written, synced, cleaned, closed.
    fn live(&mut self) -> Result<(), Ended> {
        let mut random = Random::new(5);
        let mut number = 0;
        for round in 0..2 {
            let (mut writer, reader) = match self.open()? {
                Some(opened) => opened,
                None => {
                    // A full disk may refuse the start; with room it starts.
                    self.disk.make_room();
                    self.open()?.expect("there is room again")
                }
            };
            self.table(round * 10 + 1);
            for step in 0..8 {
                let messages: Vec<Sent> = (0..3)
                    .map(|_| {
                        number += 1;
                        let mut one = sent(number, &mut random);
                        if step == 2 {
                            one.topic = "gone".into();
                        }
                        one
                    })
                    .collect();
                self.append(&mut writer, &messages)?;
                match step {
                    1 | 4 => self.sync(&mut writer)?,
                    3 | 6 => self.housekeep(&mut writer)?,
                    _ => {}
                }
            }
            self.table(round * 10 + 2);
            self.kept.deleted = true;
            let answer = writer.delete_topic("gone", NOW);
            if self.judge(&mut writer, answer)?.is_none() {
                self.room(&mut writer)?;
                let again = writer.delete_topic("gone", NOW);
                assert!(again.is_ok(), "{again:?}");
            }
            self.kept.synced = self.kept.sent.len();
            if round == 0 {
                let cleaned = writer.clean(NOW + 4 * DAY_MS, true);
                if let Err(error) = cleaned {
                    assert!(self.disk.failed() > 0, "{error}");
                    self.kept.error = Some(error.to_string());
                    return Err(Ended);
                }
            }
            let _ = reader.query("A", "uniq-1", 8, 0, i64::MAX);
            let closed = writer.close(NOW);
            if let Err(error) = closed {
                assert!(self.disk.failed() > 0, "{error}");
                self.kept.error = Some(error.to_string());
                if !matches!(error, StoreError::DiskFull(_)) {
                    return Err(Ended);
                }
                self.disk.make_room();
            }
        }
        Ok(())
    }

    /// Opens once more, without failures, and finds all that must be there.
    fn find(&self, crash: Crash, at: u64) {
        self.disk.make_room();
        self.disk.restart(crash);
        let opened = Writer::open_on(self.fs(), self.options.clone(), NOW);
        let opened = opened.unwrap_or_else(|error| panic!("call {at}, {crash:?}: {error}"));
        let reader = &opened.reader;
        let must = if crash == Crash::Kill {
            self.kept.sent.len()
        } else {
            self.kept.synced
        };
        let mut at_record = reader.log_start();
        let mut expected = self
            .kept
            .sent
            .iter()
            .chain(&self.kept.maybe)
            .skip_while(|_| false);
        let mut seen = 0;
        let mut skipped = at_record == 0;
        while at_record < reader.log_end() {
            let Some(bytes) = reader.record_at(at_record).unwrap() else {
                let size = reader.log_file_size() as i64;
                at_record = at_record - at_record % size + size;
                continue;
            };
            let record = View::record(&bytes).unwrap().decode().unwrap();
            assert_eq!(record.store_host, hosts());
            let next = loop {
                let next = expected.next().unwrap_or_else(|| {
                    panic!("call {at}, {crash:?}: nobody asked for what stands at {at_record}")
                });
                seen += 1;
                // Retention took those before the log's start.
                if skipped || next.properties == record.properties {
                    break next;
                }
            };
            skipped = true;
            check_sent(next, &record).unwrap_or_else(|why| panic!("call {at}, {crash:?}: {why}"));
            at_record += bytes.len() as i64;
        }
        assert!(
            seen >= must,
            "call {at}, {crash:?}: {seen} of {must} messages are there"
        );
        for topic in reader.topics() {
            for id in reader.queue_ids(&topic) {
                let (min, max) = reader.queue_bounds(&topic, id);
                let entries = reader.queue_entries(&topic, id, min, 1000).unwrap();
                assert_eq!(entries.len() as i64, max - min, "call {at}, {crash:?}");
                for (number, entry) in entries.iter().enumerate() {
                    let bytes = reader.record_at(entry.physical_offset).unwrap().unwrap();
                    let record = View::record(&bytes).unwrap();
                    assert_eq!(
                        (record.queue_offset(), record.topic().unwrap()),
                        (min + number as i64, &*topic)
                    );
                }
            }
        }
        let path = Path::new(ROOT).join("config/topics.json");
        let table = table::read_on(&self.fs(), &path, |_| true).unwrap();
        let table = table.map(|text| text.parse::<u64>().unwrap());
        assert!(
            table == self.kept.table || table == Some(self.kept.table_maybe),
            "call {at}, {crash:?}: table {table:?}, not {:?}",
            self.kept.table
        );
        opened.writer.close(NOW).unwrap();
    }
}

/// Runs the life with a failure at each call in turn, until one has no such call.
fn at_each_call(failure: Failure, after: After, fallocate: bool) -> (u64, u64) {
    let mut ended = 0;
    for at in 1.. {
        for crash in [Crash::Kill, Crash::PowerCut] {
            let mut life = Life::new(after, fallocate);
            life.disk.fail(None, at, failure);
            let lived = life.live();
            if life.disk.failed() == 0 {
                assert!(lived.is_ok());
                return (at - 1, ended);
            }
            ended += u64::from(lived.is_err());
            life.find(crash, at);
        }
    }
    unreachable!("a life ends")
}

#[test]
fn an_error_at_any_call_stops_the_store_and_loses_nothing_acknowledged() {
    for fallocate in [true, false] {
        let (calls, ended) = at_each_call(Failure::Io, After::Stop, fallocate);
        println!(
            "EIO at each of {calls} calls; {ended} of {} lives ended by it",
            2 * calls
        );
        assert!(calls > 300 && ended > calls, "{calls} calls, {ended} ended");
    }
}

#[test]
fn a_disk_full_at_any_call_refuses_until_there_is_room() {
    for fallocate in [true, false] {
        let (calls, ended) = at_each_call(Failure::NoSpace, After::MakeRoom, fallocate);
        println!(
            "ENOSPC at each of {calls} calls; {ended} of {} lives ended by it",
            2 * calls
        );
        assert!(calls > 300);
    }
}

#[test]
fn a_sync_that_fails_while_a_store_opens_is_remembered_by_the_next_start() {
    for nth in 1.. {
        let mut life = Life::new(After::Stop, true);
        life.options.commit_log_file_size = 16384;
        let message = |number| sent(number, &mut Random::new(u64::from(number)));
        let (mut writer, _) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        // Several sectors, so that later writes do not bring back what is forgotten.
        let several: Vec<Sent> = (30..36).map(message).collect();
        life.append(&mut writer, &several)
            .unwrap_or_else(|_| panic!());
        // A torn tail makes the start change the log's last file, and sync it.
        life.disk.crash_in(1);
        let torn: Vec<Sent> = (10..20).map(message).collect();
        assert!(writer.append(&mut [batch(&torn)], NOW).is_err());
        drop(writer);
        life.disk.restart(Crash::Kill);
        // The page cache holds the message, and the kernel forgets that the disk does not.
        life.disk.fail(Some(Call::Sync), nth, Failure::Io);
        let refused = life.open().is_err();
        if life.disk.failed() == 0 {
            assert!(nth > 3, "a start syncs more than {nth} times");
            return;
        }
        assert!(refused, "sync {nth} failed, and the store opens");
        life.disk.restart(Crash::Kill);
        let (mut writer, reader) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        life.append(&mut writer, &[message(2)])
            .unwrap_or_else(|_| panic!());
        life.sync(&mut writer).unwrap_or_else(|_| panic!());
        let synced = published(&reader).unwrap();
        drop(writer);
        life.disk.restart(Crash::PowerCut);
        let (_writer, reader) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        assert!(published(&reader).unwrap() == synced, "sync {nth}: lost");
    }
}

#[test]
fn a_power_cut_brings_no_checkpoint_back_that_an_earlier_start_gave_up() {
    let first = |life: &mut Life| {
        let (mut writer, _) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        let messages: Vec<Sent> = (0..30)
            .map(|n| sent(n, &mut Random::new(u64::from(n))))
            .collect();
        for few in messages.chunks(3) {
            life.append(&mut writer, few).unwrap_or_else(|_| panic!());
        }
        writer.housekeep(NOW).unwrap();
        drop(writer);
        life.disk.restart(Crash::Kill);
        // The start after this finds that the queues are not what the checkpoint says.
        let queue = (life.disk.files().into_iter())
            .find(|(path, _)| path.starts_with(Path::new(ROOT).join("consumequeue")))
            .unwrap();
        life.disk.wipe(&queue.0);
        messages
    };
    // At each call of a start, and with several of the orders in which a disk may keep and lose what is not synced.
    let again = |nth: u64, seed: u64| {
        let mut life = Life::new(After::Stop, true);
        life.options.index_entries = 60;
        life.disk = SimulatedDisk::new(seed, Habits::default());
        life.disk.set_now(NOW);
        let messages = first(&mut life);
        life.disk.crash_in(nth);
        let opened = Writer::open_on(life.fs(), life.options.clone(), NOW);
        if opened.is_ok() && !life.disk.is_off() {
            return false;
        }
        drop(opened);
        life.disk.restart(Crash::Kill);
        let find = |reader: &Reader, number: usize| {
            let one = &messages[number];
            let key = properties::get(&one.properties, "UNIQ_KEY").unwrap();
            let hits = reader.query(&one.topic, key, 8, 0, i64::MAX).unwrap();
            hits.records.len()
        };
        let (writer, reader) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        // This makes the index's files.
        assert_eq!(find(&reader, 0), 1);
        drop((writer, reader));
        // What is removed and made is as this says; the disk may keep some of it and lose some.
        let checkpoint = Path::new(ROOT).join("checkpoint");
        let gone_by = life.disk.peek(&checkpoint, 0, 512);
        life.disk.restart(Crash::PowerCut);
        let left = life.disk.peek(&checkpoint, 0, 512);
        assert!(left == gone_by, "call {nth}, disk {seed}: an older one");
        let (_writer, reader) = life.open().unwrap_or_else(|_| panic!()).unwrap();
        for number in 0..messages.len() {
            assert_eq!(
                find(&reader, number),
                1,
                "call {nth}, disk {seed}: {number}"
            );
        }
        true
    };
    for seed in 0..40 {
        let calls = (1..).take_while(|nth| again(*nth, seed)).count();
        assert!(calls > 20, "a start makes {calls} calls");
    }
}

#[test]
fn a_masters_bytes_that_found_no_room_are_not_there_after_a_clean_stop() {
    // Without reserved blocks a write may find the disk full in its middle.
    let mut master = Life::new(After::Stop, true);
    let (mut writer, reader) = master.open().unwrap_or_else(|_| panic!()).unwrap();
    // What is missing of it will be a part of its properties, which have no checksum.
    let mut one = sent(1, &mut Random::new(1));
    one.body = b"short".to_vec();
    (one.properties).push_str(&format!("k\u{1}{}\u{2}", "p".repeat(700)));
    let mut before = one.clone();
    before.properties = "k\u{1}v\u{2}".into();
    master
        .append(&mut writer, &[before, one])
        .unwrap_or_else(|_| panic!());
    let bytes = reader.log_bytes(0, 1 << 20).unwrap();
    let whole = reader.record_at(0).unwrap().unwrap().len();
    let mut slave = Life::new(After::MakeRoom, false);
    let (mut writer, _) = slave.open().unwrap_or_else(|_| panic!()).unwrap();
    let first = writer.append_raw(0, &bytes[..whole], NOW).unwrap();
    // Full from the next call on; what the file's last sector has room for is written all the same.
    slave.disk.fail(Some(Call::Make), 1, Failure::NoSpace);
    assert!(table::write_on(&slave.fs(), &Path::new(ROOT).join("config/t.json"), "1").is_err());
    let answer = writer.append_raw(first, &bytes[whole..], NOW);
    assert!(matches!(answer, Err(StoreError::DiskFull(_))), "{answer:?}");
    assert_eq!(writer.log_end(), first);
    slave.disk.make_room();
    writer.close(NOW).unwrap();
    let (_writer, reader) = slave.open().unwrap_or_else(|_| panic!()).unwrap();
    let there = published(&reader).unwrap().1;
    assert!(there.len() as i64 <= first && there == bytes[..there.len()]);
}
