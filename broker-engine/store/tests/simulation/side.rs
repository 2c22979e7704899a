//! What lies beside the log: small tables, and the timer's files.

use crate::given::Sent;
use crate::model::Stop;
use crate::must;
use crate::run::ROOT;
use rocketmq_store::simulated::{Crash, Random, SimulatedDisk};
use rocketmq_store::timer::{Progress, TimerFiles, Unit, magic};
use rocketmq_store::{FileSystem, table};
use std::path::Path;

/// Tables written, and what they must say.
#[derive(Clone, Default)]
pub struct Tables {
    /// Per table: the last one that was answered, and those after it that were not.
    list: [(Option<u64>, Vec<u64>); 2],
    next: u64,
}

const NAMES: [&str; 2] = ["config/topics.json", "config/consumerOffset.json"];

fn text(version: u64) -> String {
    format!(
        "{{\"version\":{version},\"filler\":\"{}\"}}",
        "x".repeat(version as usize * 37 % 1500)
    )
}

fn version(text: &str) -> Option<u64> {
    let (number, rest) = text.strip_prefix("{\"version\":")?.split_once(',')?;
    rest.ends_with("\"}").then(|| number.parse().ok())?
}

impl Tables {
    pub fn write(&mut self, disk: &SimulatedDisk, random: &mut Random) -> Result<(), Stop> {
        let which = random.below(2) as usize;
        self.next += 1;
        self.list[which].1.push(self.next);
        let fs = FileSystem::Simulated(disk.clone());
        if table::write_on(&fs, &Path::new(ROOT).join(NAMES[which]), &text(self.next)).is_err() {
            return Err(Stop::Disk);
        }
        self.list[which] = (Some(self.next), Vec::new());
        Ok(())
    }

    /// Each is the last one answered or one after it, whole.
    pub fn check(&mut self, disk: &SimulatedDisk) -> Result<(), Stop> {
        let fs = FileSystem::Simulated(disk.clone());
        for (name, (last, maybe)) in NAMES.iter().zip(&mut self.list) {
            let path = Path::new(ROOT).join(name);
            let read = table::read_on(&fs, &path, |text| version(text).is_some());
            let found = read.map_err(|_| Stop::Disk)?.map(|found| {
                let number = version(&found).expect("it was accepted");
                (number, found == text(number))
            });
            must!(
                found.is_none_or(|(_, whole)| whole),
                "the table {name} is a mixture"
            );
            let found = found.map(|(number, _)| number);
            must!(
                found == *last || found.is_some_and(|found| maybe.contains(&found)),
                "the table {name} is version {found:?}, not {last:?} or {maybe:?}"
            );
        }
        Ok(())
    }
}

/// The timer's files, and what they must say.
#[derive(Default)]
pub struct Timer {
    files: Option<TimerFiles>,
    /// Where the units of this life lie, oldest first.
    units: Vec<(i64, Unit)>,
    /// Progress that may be on disk: the newest is the last.
    written: Vec<Progress>,
    /// Whether the next open may, and must, find the wheel whole.
    may_be_whole: bool,
    must_be_whole: bool,
    /// Since the last open; else the page cache holds the newest, or the one before, whose writing was interrupted.
    power_went: bool,
    number: i64,
}

const SLOT: i64 = 1_700_000_000_000;

impl Timer {
    /// Its owner went.
    pub fn stopped(&mut self, crash: Crash) {
        self.files = None;
        self.power_went |= crash == Crash::PowerCut;
    }

    /// Opens the files and checks what they hold.
    pub fn open(&mut self, disk: &SimulatedDisk) -> Result<(), Stop> {
        if self.files.is_some() {
            return Ok(());
        }
        let before = std::mem::take(&mut self.must_be_whole);
        let opened = TimerFiles::open_on(FileSystem::Simulated(disk.clone()), Path::new(ROOT));
        let opened = opened.map_err(|_| Stop::Disk)?;
        let mut files = opened.files;
        must!(
            opened.whole || !before,
            "the wheel was left whole and is not"
        );
        must!(
            !opened.whole || self.may_be_whole,
            "the wheel is taken for whole and was not left so"
        );
        let least = if self.power_went {
            0
        } else {
            self.written.len().saturating_sub(2)
        };
        must!(
            self.written[least..].contains(&opened.progress)
                || self.written.is_empty() && opened.progress == Progress::default(),
            "the timer's progress is {:?}, written were {:?}",
            opened.progress,
            self.written
        );
        self.written = vec![opened.progress];
        self.power_went = false;
        self.may_be_whole = false;
        if opened.whole {
            let mut slots: Vec<i64> = self.units.iter().map(|(slot, _)| *slot).collect();
            slots.sort_unstable();
            slots.dedup();
            must!(
                files.waiting() == self.units.len() as i64,
                "{} units wait, {} were left",
                files.waiting(),
                self.units.len()
            );
            for slot in slots {
                let of_slot = self.units.iter().rev().filter(|(other, _)| *other == slot);
                let wanted: Vec<Unit> = of_slot.map(|(_, unit)| *unit).collect();
                let found = files.take(slot).map_err(|_| Stop::Disk)?;
                must!(
                    found == wanted,
                    "the slot {slot} holds {found:?}, not {wanted:?}"
                );
            }
        } else {
            self.units.clear();
        }
        self.files = Some(files);
        Ok(())
    }

    pub fn work(&mut self, disk: &SimulatedDisk, random: &mut Random) -> Result<(), Stop> {
        self.open(disk)?;
        let files = self.files.as_mut().expect("just opened");
        self.number += 1;
        let progress = Progress {
            read_ms: SLOT,
            queue_offset: self.number,
            delivered_ms: SLOT + self.number,
        };
        match random.below(8) {
            0 | 1 => {
                self.written.push(progress);
                files
                    .write_progress(progress, false)
                    .map_err(|_| Stop::Disk)?;
            }
            2 => {
                self.written.push(progress);
                self.may_be_whole = true;
                files
                    .write_progress(progress, true)
                    .map_err(|_| Stop::Disk)?;
                self.written = vec![progress];
                self.must_be_whole = true;
                self.files = None;
            }
            _ => {
                let unit = Unit {
                    magic: magic::DEFAULT,
                    enqueued_ms: SLOT,
                    delay_ms: 1000,
                    physical_offset: self.number,
                    size: 100,
                    topic_hash: 7,
                };
                let slot = SLOT + 1000 * random.below(40) as i64;
                files.add(slot, unit).map_err(|_| Stop::Disk)?;
                self.units.push((slot, unit));
            }
        }
        Ok(())
    }
}

/// A message whose content follows from its number.
pub fn sent(number: u32, random: &mut Random) -> Sent {
    let topic = ["A", "B", "%RETRY%C"][random.below(3) as usize];
    let mut one = crate::given::message(topic, random.below(2) as i32, number as i32, "");
    match random.below(4) {
        0 => one.properties.push_str("TAGS\u{1}tag\u{2}"),
        1 => one.properties.push_str(&format!(
            "k\u{1}{}\u{2}",
            "p".repeat(random.below(700) as usize)
        )),
        _ => {}
    }
    let most = [40, 300, 900][random.below(3) as usize];
    let len = random.below(most) as usize;
    one.body = (0..len)
        .map(|at| (number as usize * 31 + at * 7) as u8 | 1)
        .collect();
    one
}
