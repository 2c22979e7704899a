//! Messages that wait for a time of their own: the wheel (`timerwheel`), one slot a second, and the log of what lies in the
//! slots (`timerlog/`), both in RocketMQ's formats; and how far delivery is (`config/timercheck`).
//!
//! The units of a slot form a chain from the newest backwards. All lies on disk, so memory does not grow with what waits. Both
//! files can be rebuilt from the timer topic's queue, and are after an unclean stop: then only [`Progress`] is believed.
//! Source: `apache/rocketmq: store/.../timer/{TimerWheel,Slot,TimerLog,TimerCheckpoint}.java`.

use crate::disk::{self, Disk, File, FileSystem, Open};
use crate::error::{StoreError, io_error};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Milliseconds of one slot (`timerPrecisionMs`).
pub const SLOT_MS: i64 = 1000;
/// Slots of the wheel: twice seven days (`TIMER_WHEEL_TTL_DAY`).
const SLOTS: i64 = 2 * 7 * 24 * 3600;
const SLOT_LEN: u64 = 32;
/// Bytes of one file of the timer log.
const LOG_FILE: i64 = 100 << 20;
/// Bytes of one unit.
const UNIT: i64 = 52;
/// A file's last bytes say that it ends: room for them is kept.
const BLANK: i64 = 16;
const BLANK_MAGIC: u32 = 0xCBD4_3194;
/// Our own words in the checkpoint file, behind Java's.
const MARK_AT: usize = 64;
const MARK: u64 = u64::from_be_bytes(*b"rmqctlTW");

/// A unit's kind.
pub mod magic {
    /// A message to be delivered.
    pub const DEFAULT: i32 = 1;
    /// It is put to the timer topic again instead: its time lies beyond the wheel's window.
    pub const ROLL: i32 = 1 << 1;
    /// It takes another message back.
    pub const DELETE: i32 = 1 << 2;
}

/// One message in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Unit {
    pub magic: i32,
    /// When it was put here, ms, and how long after that its slot begins.
    pub enqueued_ms: i64,
    pub delay_ms: i32,
    pub physical_offset: i64,
    pub size: i32,
    /// Java's hash of the real topic.
    pub topic_hash: i32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    first: i64,
    last: i64,
    num: i32,
}

/// How far the timer is; as it stands in `config/timercheck`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Slots before this time are delivered, ms.
    pub read_ms: i64,
    /// Messages of the timer topic's queue before this offset have been taken in.
    pub queue_offset: i64,
    /// Of those taken in, the ones due until this time, ms, are delivered.
    pub delivered_ms: i64,
}

/// Why the wheel's files could not be used.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The wheel and its log; owned by the one task that runs the timer.
#[derive(Debug)]
pub struct TimerFiles {
    wheel: File,
    wheel_path: PathBuf,
    log_dir: PathBuf,
    disk: Disk,
    check: File,
    check_path: PathBuf,
    /// Where the next unit goes.
    end: i64,
    /// Messages in slots from the time on that `open` was told.
    waiting: i64,
    /// Written checkpoints.
    counter: i64,
}

/// What stood in the files.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct OpenedTimer {
    pub files: TimerFiles,
    pub progress: Progress,
    /// The wheel was left as the progress says; otherwise it is empty now and must be filled from the timer topic's queue.
    pub whole: bool,
}

impl TimerFiles {
    /// Opens the files below a store's root. They count as whole only after our own clean stop.
    pub fn open(root: &Path) -> Result<OpenedTimer> {
        Self::open_on(FileSystem::Real, root)
    }

    /// As `open`, on a file system of choice.
    pub fn open_on(fs: FileSystem, root: &Path) -> Result<OpenedTimer> {
        let check_path = root.join("config").join("timercheck");
        let check_dir = root.join("config");
        fs.make_dir_synced(&check_dir)
            .map_err(io_error("making", &check_dir))?;
        let check = fs
            .open(&check_path, Open::Make)
            .map_err(io_error("opening", &check_path))?;
        let (progress, end) = read_progress(&check).map_err(io_error("reading", &check_path))?;
        let wheel_path = root.join("timerwheel");
        let log_dir = root.join("timerlog");
        let there = (fs.exists(&wheel_path)).map_err(io_error("looking for", &wheel_path))?;
        let whole = end.is_some() && there;
        // From here on only a clean stop makes the wheel whole again: on disk before anything else changes, also when it is
        // said already. Who said it may have been killed before it was on disk.
        disk::write_at(
            &check,
            &check_bytes(progress, end.unwrap_or(0), 1, false),
            0,
        )
        .and_then(|()| disk::sync(&check))
        .and_then(|()| fs.sync_dir(&check_dir))
        .map_err(io_error("writing", &check_path))?;
        let disk = Disk::new(fs, 4);
        if !whole {
            (disk.remove(&wheel_path)).map_err(io_error("removing", &wheel_path))?;
            (disk.remove_dir(&log_dir)).map_err(io_error("removing", &log_dir))?;
        }
        disk.fs
            .make_dir(&log_dir)
            .map_err(io_error("making", &log_dir))?;
        let wheel = (disk.fs)
            .open(&wheel_path, Open::Make)
            .map_err(io_error("opening", &wheel_path))?;
        let len = SLOTS as u64 * SLOT_LEN;
        wheel
            .set_len(len)
            .map_err(io_error("sizing", &wheel_path))?;
        let mut files = TimerFiles {
            wheel,
            wheel_path,
            log_dir,
            disk,
            check,
            check_path,
            end: end.unwrap_or(0),
            waiting: 0,
            counter: 1,
        };
        if whole {
            files.waiting = files.count_from(progress.read_ms)?;
        }
        (files.disk.fs.sync_dir(root)).map_err(io_error("syncing", root))?;
        Ok(OpenedTimer {
            files,
            progress,
            whole,
        })
    }

    /// Messages that lie in slots.
    pub fn waiting(&self) -> i64 {
        self.waiting
    }

    /// Puts a message into the slot of `slot_ms`.
    pub fn add(&mut self, slot_ms: i64, unit: Unit) -> Result<()> {
        let before = self.slot(slot_ms)?;
        let at = self.append(unit, before.map_or(-1, |slot| slot.last))?;
        let delta = if unit.magic & magic::DELETE == 0 {
            1
        } else {
            -1
        };
        let slot = Slot {
            first: before.map_or(at, |slot| slot.first),
            last: at,
            num: before.map_or(0, |slot| slot.num) + delta,
        };
        let mut bytes = [0u8; SLOT_LEN as usize];
        bytes[..8].copy_from_slice(&slot_ms.div_euclid(SLOT_MS).to_be_bytes());
        bytes[8..16].copy_from_slice(&slot.first.to_be_bytes());
        bytes[16..24].copy_from_slice(&slot.last.to_be_bytes());
        bytes[24..28].copy_from_slice(&slot.num.to_be_bytes());
        disk::write_at(&self.wheel, &bytes, place(slot_ms))
            .map_err(io_error("writing", &self.wheel_path))?;
        self.waiting += 1;
        Ok(())
    }

    /// All units of a slot, the newest first. They count as no longer waiting.
    pub fn take(&mut self, slot_ms: i64) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        let Some(slot) = self.slot(slot_ms)? else {
            return Ok(units);
        };
        let mut at = slot.last;
        while at >= 0 {
            let (unit, before) = self.unit(at)?;
            units.push(unit);
            // A chain only ever leads back.
            if before >= at {
                break;
            }
            at = before;
        }
        self.waiting -= units.len() as i64;
        Ok(units)
    }

    /// Deletes files of the log whose units are all delivered: last written longer than `kept` before `now_ms`.
    pub fn clean(&mut self, now_ms: i64, kept: Duration) -> Result<usize> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.max(0) as u64);
        let current = format!("{:020}", self.end - self.end % LOG_FILE);
        let mut deleted = 0;
        let files = self
            .disk
            .fs
            .list(&self.log_dir)
            .map_err(io_error("listing", &self.log_dir))?;
        for (name, _) in files {
            let path = self.log_dir.join(&name);
            let old = self
                .disk
                .fs
                .modified(&path)
                .is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > kept));
            if name < current && old {
                self.disk
                    .remove(&path)
                    .map_err(io_error("deleting", &path))?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Writes how far the timer is. `whole`: the wheel will not be touched again, so the next start may use it as it is.
    pub fn write_progress(&mut self, progress: Progress, whole: bool) -> Result<()> {
        self.counter += 1;
        let bytes = check_bytes(progress, self.end, self.counter, whole);
        // That the wheel is whole is said when it is on disk, and not before.
        let before = if whole {
            disk::sync(&self.wheel).and_then(|()| self.sync_log())
        } else {
            Ok(())
        };
        let written = before.and_then(|()| disk::write_at(&self.check, &bytes, 0));
        let synced = written.and_then(|()| {
            if whole {
                disk::sync(&self.check)
            } else {
                Ok(())
            }
        });
        synced.map_err(io_error("writing", &self.check_path))
    }

    /// Flushes the log's newest file: older ones were flushed when it was made.
    fn sync_log(&self) -> std::io::Result<()> {
        let path = self.log_path(self.end);
        if self.disk.fs.exists(&path)? {
            disk::sync(&*self.disk.open(&path)?)?;
        }
        self.disk.fs.sync_dir(&self.log_dir)
    }

    fn log_path(&self, at: i64) -> PathBuf {
        self.log_dir.join(format!("{:020}", at - at % LOG_FILE))
    }

    fn log_file(&self, at: i64) -> std::io::Result<Arc<File>> {
        let path = self.log_path(at);
        if self.disk.fs.exists(&path)? {
            self.disk.open(&path)
        } else {
            self.disk.create(&path, LOG_FILE as u64, false)
        }
    }

    fn append(&mut self, unit: Unit, before: i64) -> Result<i64> {
        let left = LOG_FILE - self.end % LOG_FILE;
        if left < UNIT + BLANK {
            let mut end = [0u8; BLANK as usize];
            end[..4].copy_from_slice(&(left as i32).to_be_bytes());
            end[12..].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
            let path = self.log_path(self.end);
            self.disk
                .open(&path)
                .and_then(|file| {
                    disk::write_at(&file, &end, (self.end % LOG_FILE) as u64)?;
                    disk::sync(&file)
                })
                .map_err(io_error("ending", &path))?;
            self.end += left;
        }
        let mut bytes = [0u8; UNIT as usize];
        bytes[..4].copy_from_slice(&(UNIT as i32).to_be_bytes());
        bytes[4..12].copy_from_slice(&before.to_be_bytes());
        bytes[12..16].copy_from_slice(&unit.magic.to_be_bytes());
        bytes[16..24].copy_from_slice(&unit.enqueued_ms.to_be_bytes());
        bytes[24..28].copy_from_slice(&unit.delay_ms.to_be_bytes());
        bytes[28..36].copy_from_slice(&unit.physical_offset.to_be_bytes());
        bytes[36..40].copy_from_slice(&unit.size.to_be_bytes());
        bytes[40..44].copy_from_slice(&unit.topic_hash.to_be_bytes());
        let at = self.end;
        self.log_file(at)
            .and_then(|file| disk::write_at(&file, &bytes, (at % LOG_FILE) as u64))
            .map_err(io_error("writing", &self.log_path(at)))?;
        self.end += UNIT;
        Ok(at)
    }

    fn unit(&self, at: i64) -> Result<(Unit, i64)> {
        let path = self.log_path(at);
        let bytes: [u8; UNIT as usize] = self
            .disk
            .open(&path)
            .and_then(|file| disk::read_array(&file, (at % LOG_FILE) as u64))
            .map_err(io_error("reading", &path))?;
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let unit = Unit {
            magic: int(12),
            enqueued_ms: long(16),
            delay_ms: int(24),
            physical_offset: long(28),
            size: int(36),
            topic_hash: int(40),
        };
        Ok((unit, long(4)))
    }

    /// The slot of a time; `None` while nothing lies in it.
    fn slot(&self, slot_ms: i64) -> Result<Option<Slot>> {
        let bytes: [u8; SLOT_LEN as usize] = disk::read_array(&self.wheel, place(slot_ms))
            .map_err(io_error("reading", &self.wheel_path))?;
        Ok(parse_slot(&bytes)
            .filter(|(second, _)| *second == slot_ms.div_euclid(SLOT_MS))
            .map(|(_, slot)| slot))
    }

    /// How many messages lie in slots from a time on; reads what of the wheel was ever written.
    fn count_from(&self, from_ms: i64) -> Result<i64> {
        let first = from_ms.div_euclid(SLOT_MS);
        let mut waiting = 0;
        let mut at = 0;
        while let Some(data) =
            disk::next_data(&self.wheel, at).map_err(io_error("reading", &self.wheel_path))?
        {
            at = data - data % SLOT_LEN;
            let bytes = disk::read_at(&self.wheel, at, 1 << 16)
                .map_err(io_error("reading", &self.wheel_path))?;
            if bytes.is_empty() {
                break;
            }
            at += bytes.len() as u64;
            waiting += (bytes.as_chunks::<{ SLOT_LEN as usize }>().0.iter())
                .filter_map(parse_slot)
                .filter(|(second, _)| *second >= first)
                .map(|(_, slot)| i64::from(slot.num.max(1)))
                .sum::<i64>();
        }
        Ok(waiting)
    }
}

fn parse_slot(bytes: &[u8; SLOT_LEN as usize]) -> Option<(i64, Slot)> {
    let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let second = long(0);
    (second != 0).then(|| {
        let slot = Slot {
            first: long(8),
            last: long(16),
            num: i32::from_be_bytes(bytes[24..28].try_into().expect("4 bytes")),
        };
        (second, slot)
    })
}

/// Where the slot of a time lies in the wheel's file.
fn place(slot_ms: i64) -> u64 {
    slot_ms.div_euclid(SLOT_MS).rem_euclid(SLOTS) as u64 * SLOT_LEN
}

/// Slave: notes how far its master's timer is, for a start as a master: the wheel is then made from what is not delivered.
pub fn note_masters_progress(root: &Path, progress: Progress) -> Result<()> {
    let path = root.join("config").join("timercheck");
    let file = FileSystem::Real
        .open(&path, Open::Make)
        .map_err(io_error("opening", &path))?;
    disk::write_at(&file, &check_bytes(progress, 0, 0, false), 0)
        .map_err(io_error("writing", &path))
}

fn check_bytes(progress: Progress, end: i64, counter: i64, whole: bool) -> [u8; 4096] {
    let mut bytes = [0u8; 4096];
    let mut put = |at: usize, number: i64| bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
    put(0, progress.read_ms);
    put(8, end);
    put(16, progress.queue_offset);
    // A master's own: Java takes the lesser of the two.
    put(24, progress.queue_offset);
    put(40, progress.delivered_ms);
    put(48, counter);
    put(MARK_AT, MARK as i64);
    put(MARK_AT + 8, progress.delivered_ms);
    put(MARK_AT + 16, if whole { end } else { -1 });
    let sum = checksum(&bytes[..MARK_AT + 24]);
    bytes[MARK_AT + 24..MARK_AT + 32].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The progress, and the end of the timer log if the wheel is whole. Of a file that Java wrote the first words count.
fn read_progress(file: &File) -> std::io::Result<(Progress, Option<i64>)> {
    let bytes: [u8; MARK_AT + 32] = disk::read_array(file, 0)?;
    let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let ours = long(MARK_AT) as u64 == MARK
        && long(MARK_AT + 24) as u64 == checksum(&bytes[..MARK_AT + 24]);
    let progress = Progress {
        read_ms: long(0),
        queue_offset: long(16),
        delivered_ms: if ours { long(MARK_AT + 8) } else { long(0) },
    };
    let end = long(MARK_AT + 16);
    Ok((progress, (ours && end >= 0).then_some(end)))
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(physical_offset: i64) -> Unit {
        Unit {
            magic: magic::DEFAULT,
            enqueued_ms: 1_700_000_000_000,
            delay_ms: 5000,
            physical_offset,
            size: 100,
            topic_hash: -7,
        }
    }

    #[test]
    fn a_slot_gives_back_what_was_put_into_it_after_a_clean_stop() {
        let dir = tempfile::tempdir().unwrap();
        let mut timer = TimerFiles::open(dir.path()).unwrap();
        assert!(!timer.whole);
        for at in 0..3 {
            timer.files.add(1_700_000_005_000, unit(at)).unwrap();
        }
        timer.files.add(1_700_000_006_000, unit(9)).unwrap();
        let progress = Progress {
            read_ms: 1_700_000_005_000,
            queue_offset: 4,
            delivered_ms: 1_700_000_004_900,
        };
        timer.files.write_progress(progress, true).unwrap();
        drop(timer);
        let mut again = TimerFiles::open(dir.path()).unwrap();
        assert_eq!(
            (again.whole, again.progress, again.files.waiting()),
            (true, progress, 4)
        );
        assert_eq!(
            again.files.take(1_700_000_005_999).unwrap(),
            [unit(2), unit(1), unit(0)]
        );
        // The same place in the wheel, a turn later.
        assert_eq!(
            again
                .files
                .take(1_700_000_005_000 + SLOTS * SLOT_MS)
                .unwrap(),
            []
        );
        assert_eq!(again.files.waiting(), 1);
    }

    #[test]
    fn after_a_kill_the_wheel_is_empty_and_the_progress_stands() {
        let dir = tempfile::tempdir().unwrap();
        let mut timer = TimerFiles::open(dir.path()).unwrap();
        timer.files.add(1_700_000_005_000, unit(0)).unwrap();
        let progress = Progress {
            read_ms: 1_700_000_001_000,
            queue_offset: 1,
            delivered_ms: 1_700_000_001_500,
        };
        timer.files.write_progress(progress, false).unwrap();
        drop(timer);
        let mut again = TimerFiles::open(dir.path()).unwrap();
        assert_eq!((again.whole, again.progress), (false, progress));
        assert_eq!(again.files.take(1_700_000_005_000).unwrap(), []);
    }

    #[test]
    fn bytes_are_where_java_looks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut timer = TimerFiles::open(dir.path()).unwrap();
        timer.files.add(1_700_000_005_000, unit(77)).unwrap();
        timer.files.add(1_700_000_005_000, unit(78)).unwrap();
        let progress = Progress {
            read_ms: 5,
            queue_offset: 6,
            delivered_ms: 7,
        };
        timer.files.write_progress(progress, true).unwrap();
        let wheel = std::fs::read(dir.path().join("timerwheel")).unwrap();
        assert_eq!(wheel.len(), 38_707_200);
        let slot = &wheel[(1_700_000_005 % 1_209_600) * 32..][..32];
        let slot: Vec<i64> = slot
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_be_bytes(*b))
            .collect();
        assert_eq!(slot, [1_700_000_005, 0, 52, 2 << 32]);
        let log = std::fs::read(dir.path().join("timerlog/00000000000000000000")).unwrap();
        assert_eq!(log.len(), 100 << 20);
        let mut want = Vec::new();
        want.extend(52_i32.to_be_bytes());
        want.extend(0_i64.to_be_bytes());
        want.extend(1_i32.to_be_bytes());
        want.extend(1_700_000_000_000_i64.to_be_bytes());
        want.extend(5000_i32.to_be_bytes());
        want.extend(78_i64.to_be_bytes());
        want.extend(100_i32.to_be_bytes());
        want.extend((-7_i32).to_be_bytes());
        want.extend(0_i64.to_be_bytes());
        assert_eq!(log[52..104], want);
        let check = std::fs::read(dir.path().join("config/timercheck")).unwrap();
        let numbers: Vec<i64> = check[..32]
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_be_bytes(*b))
            .collect();
        assert_eq!(numbers, [5, 104, 6, 6]);
    }
}
