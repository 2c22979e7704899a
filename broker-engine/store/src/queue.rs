//! One consume queue: its entries in memory not yet written, its files, what readers may see.
//!
//! An append only adds to the tail in memory; the checkpoint writes tails to the files about each second, many entries with
//! one call. After a crash the log is dispatched again from the checkpoint, so the files may lag.
//! Source of the format: `apache/rocketmq: store/.../ConsumeQueue.java`.

use crate::disk::{self, Disk, File, Unsynced};
use crate::read_ahead::{self, ReadAhead};
use crate::reader::QueueEntry;
use std::collections::VecDeque;
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one entry: `i64 physical offset | i32 size | i64 tags code`.
pub(crate) const ENTRY: u64 = 20;
/// Entries that a queue keeps in memory after they were written, for consumers that follow closely.
const WARM_ENTRIES: usize = 256;
/// The same of all queues that one checkpoint writes.
const WARM_ENTRIES_OF_ALL: usize = 1 << 20;

/// Size of an entry that stands for no record: it fills a queue whose first record has a number beyond the file's first.
const BLANK_SIZE: i32 = i32::MAX;

/// Entries that each of so many queues keeps after they were written.
pub(crate) fn warm_entries(queues: usize) -> usize {
    (WARM_ENTRIES_OF_ALL / queues.max(1)).min(WARM_ENTRIES)
}

/// Where and how a store keeps its queues.
#[derive(Debug)]
pub(crate) struct QueueDirs {
    pub root: PathBuf,
    pub per_file: i64,
    pub disk: Arc<Disk>,
    pub ahead: ReadAhead,
}

/// One queue, shared by the log's owner, the checkpoint and readers.
#[derive(Debug)]
pub(crate) struct Queue {
    pub topic: Arc<str>,
    pub queue_id: i32,
    /// This one's own: a topic that is deleted and made again has other queues.
    number: u64,
    min: AtomicI64,
    max: AtomicI64,
    tail: Mutex<Tail>,
    files: Mutex<Files>,
}

/// Entries in memory. Those from `written` on are in no file yet.
#[derive(Debug, Default)]
struct Tail {
    first: i64,
    entries: VecDeque<QueueEntry>,
    written: i64,
    deleted: bool,
}

/// What one write of a queue did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wrote {
    pub entries: usize,
    /// Entries came while it wrote. The queue was not clean then, so their append told nobody of it ([`Queue::extend`]).
    pub more: bool,
}

/// First entry numbers of the first and last file; `None` while there is no file.
#[derive(Debug, Default)]
struct Files {
    span: Option<(i64, i64)>,
}

impl QueueEntry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY as usize] {
        let mut bytes = [0; ENTRY as usize];
        bytes[..8].copy_from_slice(&self.physical_offset.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (physical, rest) = bytes.split_at(8);
        let (size, tags) = rest.split_at(4);
        Self {
            physical_offset: i64::from_be_bytes(
                physical.try_into().expect("eight bytes were split off"),
            ),
            size: i32::from_be_bytes(size.try_into().expect("four bytes were split off")),
            tags_code: i64::from_be_bytes(tags.try_into().expect("an entry has twenty bytes")),
        }
    }

    pub(crate) const BLANK: Self = Self {
        physical_offset: 0,
        size: BLANK_SIZE,
        tags_code: 0,
    };

    /// Whether it stands for no record.
    pub(crate) fn is_blank(self) -> bool {
        self.size == BLANK_SIZE
    }
}

impl QueueDirs {
    fn dir(&self, topic: &str, queue_id: i32) -> PathBuf {
        self.root.join(topic).join(queue_id.to_string())
    }
    fn path(&self, queue: &Queue, first: i64) -> PathBuf {
        let name = format!("{:020}", first * ENTRY as i64);
        self.dir(&queue.topic, queue.queue_id).join(name)
    }
    fn base_of(&self, offset: i64) -> i64 {
        offset - offset.rem_euclid(self.per_file)
    }
    pub fn file_len(&self) -> u64 {
        self.per_file as u64 * ENTRY
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    pub fn new(topic: Arc<str>, queue_id: i32) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            topic,
            queue_id,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            min: AtomicI64::new(0),
            max: AtomicI64::new(0),
            tail: Mutex::default(),
            files: Mutex::default(),
        }
    }

    pub fn min(&self) -> i64 {
        self.min.load(Ordering::Acquire)
    }
    pub fn max(&self) -> i64 {
        self.max.load(Ordering::Acquire)
    }
    pub fn publish(&self, max: i64) {
        self.max.store(max, Ordering::Release);
    }

    /// Takes entries into memory, the first of which has the number `at`. Returns whether the queue had nothing unwritten:
    /// the checkpoint must then be told of it. A gap between the queue's end and `at` is filled with blank entries.
    pub fn extend(&self, at: i64, fresh: &[QueueEntry]) -> bool {
        let mut tail = lock(&self.tail);
        let mut end = tail.first + tail.entries.len() as i64;
        let clean = tail.written == end;
        if at > end && end == 0 {
            // A slave that starts in the middle of its master's log: the file's part before `at` is filled when it is made.
            *tail = Tail {
                first: at,
                written: at,
                ..Tail::default()
            };
            end = at;
            self.min.store(at, Ordering::Release);
        }
        while end < at {
            tail.entries.push_back(QueueEntry::BLANK);
            end += 1;
        }
        tail.entries.extend(fresh);
        clean
    }

    /// Writes what is in no file yet, and keeps `warm` entries for readers. What is to be synced is added to `unsynced`.
    pub fn write(&self, dirs: &QueueDirs, warm: usize, unsynced: &mut Unsynced) -> Result<Wrote> {
        let mut files = lock(&self.files);
        let (from, bytes) = {
            let tail = lock(&self.tail);
            if tail.deleted {
                return Ok(Wrote::default());
            }
            let skip = (tail.written - tail.first) as usize;
            let mut bytes = Vec::with_capacity((tail.entries.len() - skip) * ENTRY as usize);
            for entry in tail.entries.range(skip..) {
                bytes.extend_from_slice(&entry.to_bytes());
            }
            (tail.written, bytes)
        };
        let mut at = from;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let base = dirs.base_of(at);
            let path = dirs.path(self, base);
            let file = if files.span.is_some_and(|(_, last)| last >= base) {
                dirs.disk.open(&path)?
            } else {
                self.make_file(dirs, &mut files, base, at, &path, unsynced)?
            };
            let room = ((base + dirs.per_file - at) as usize * ENTRY as usize).min(rest.len());
            // Noted first: of a write that fails, a part is there.
            unsynced.files.push(path);
            disk::write_at(&file, &rest[..room], (at - base) as u64 * ENTRY)?;
            rest = &rest[room..];
            at += room as i64 / ENTRY as i64;
        }
        let mut tail = lock(&self.tail);
        let mut more = false;
        if !tail.deleted {
            tail.written = at;
            more = tail.first + (tail.entries.len() as i64) > at;
            let spare = (tail.written - tail.first).min(tail.entries.len() as i64) as usize;
            let surplus = spare.saturating_sub(warm);
            tail.entries.drain(..surplus);
            tail.first += surplus as i64;
        }
        Ok(Wrote {
            entries: bytes.len() / ENTRY as usize,
            more,
        })
    }

    fn make_file(
        &self,
        dirs: &QueueDirs,
        files: &mut Files,
        base: i64,
        at: i64,
        path: &Path,
        unsynced: &mut Unsynced,
    ) -> Result<Arc<File>> {
        let dir = dirs.dir(&self.topic, self.queue_id);
        if files.span.is_none() {
            // The queue's own name, its topic's, and that of all queues.
            let parents = dir.ancestors().skip(1).take(3);
            unsynced.dirs.extend(parents.map(Path::to_owned));
            dirs.disk.fs.make_dir(&dir)?;
        }
        unsynced.dirs.push(dir);
        let file = dirs.disk.create(path, dirs.file_len(), false)?;
        if at > base {
            // Java counts a queue's entries from its first file's start and takes a zero entry for the end.
            let blank = QueueEntry::BLANK.to_bytes().repeat((at - base) as usize);
            disk::write_at(&file, &blank, 0)?;
        }
        files.span = Some((files.span.map_or(base, |(first, _)| first), base));
        Ok(file)
    }

    /// Gives back the memory of entries that are in the files.
    pub fn cool(&self) {
        let mut tail = lock(&self.tail);
        let end = tail.first + tail.entries.len() as i64;
        if tail.written == end {
            tail.first = end;
            tail.entries = VecDeque::new();
        }
    }

    /// Adds entries from the number `from` on to `out`, at most `max`, none beyond the published end.
    pub fn read(
        &self,
        dirs: &QueueDirs,
        from: i64,
        max: usize,
        out: &mut Vec<QueueEntry>,
    ) -> Result<()> {
        let end = self.max();
        let mut at = from;
        let mut left = (end - from).clamp(0, max as i64);
        while left > 0 {
            let in_files = {
                let tail = lock(&self.tail);
                if at >= tail.first {
                    let skip = (at - tail.first) as usize;
                    let stop = (skip + left as usize).min(tail.entries.len());
                    if skip < stop {
                        out.extend(tail.entries.range(skip..stop));
                    }
                    return Ok(());
                }
                tail.first - at
            };
            let known = dirs.ahead.take(self.number, at, left.min(in_files), out);
            at += known;
            left -= known;
            if known > 0 {
                continue;
            }
            let base = dirs.base_of(at);
            let in_file = in_files.min(base + dirs.per_file - at);
            let count = left.min(in_file);
            // Who wants one entry looks for something; others will want what follows.
            let taken = if count > 1 {
                count.max(read_ahead::ENTRIES).min(in_file)
            } else {
                count
            };
            let file = match dirs.disk.open(&dirs.path(self, base)) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let bytes = disk::read_at(
                &file,
                (at - base) as u64 * ENTRY,
                taken as usize * ENTRY as usize,
            )?;
            let before = out.len();
            out.extend(
                bytes
                    .as_chunks::<{ ENTRY as usize }>()
                    .0
                    .iter()
                    .map(|b| QueueEntry::from_bytes(b)),
            );
            let wanted = before + count as usize;
            if out.len() > wanted {
                dirs.ahead.keep(self.number, at, &out[before..]);
                out.truncate(wanted);
            }
            at += count;
            left -= count;
        }
        Ok(())
    }

    /// One entry.
    pub fn entry(&self, dirs: &QueueDirs, at: i64) -> Result<Option<QueueEntry>> {
        let mut out = Vec::with_capacity(1);
        self.read(dirs, at, 1, &mut out)?;
        Ok(out.pop())
    }

    /// Finds the queue's files and its end: the first entry that is empty or points at or behind `dispatched`. What stands
    /// behind it is cleared; the log is dispatched again from there. `log_start` gives the first valid entry. False when a file
    /// of another length was there and is gone: all queues are then to be made anew.
    pub fn load(
        &self,
        dirs: &QueueDirs,
        log_start: i64,
        dispatched: i64,
        clean: bool,
        unsynced: &mut Unsynced,
    ) -> Result<bool> {
        let dir = dirs.dir(&self.topic, self.queue_id);
        let mut whole = true;
        let mut bases = Vec::new();
        for (name, len) in dirs.disk.fs.list(&dir)? {
            let Ok(at) = name.parse::<i64>() else {
                continue;
            };
            if len == 0 {
                unsynced.dirs.push(dir.clone());
                dirs.disk.remove(&dir.join(&name))?;
                continue;
            }
            if len != dirs.file_len() {
                // It is derived: the log has all that it held.
                unsynced.dirs.push(dir.clone());
                dirs.disk.remove(&dir.join(&name))?;
                whole = false;
                continue;
            }
            bases.push(at / ENTRY as i64);
        }
        let mut end = bases.first().copied().unwrap_or(0);
        while let Some(base) = bases.last().copied() {
            let path = dirs.path(self, base);
            let file = dirs.disk.open(&path)?;
            let kept = partition(&file, dirs.per_file, |entry| {
                entry.size > 0 && entry.physical_offset >= 0 && entry.physical_offset < dispatched
            })?;
            let kept = if kept > 1 { untorn(&file, kept)? } else { kept };
            if kept == 0 && (bases.len() > 1 || base == 0) {
                // Stale entries must not come back with the power: they may point at what the log holds by then.
                unsynced.dirs.push(dir.clone());
                dirs.disk.remove(&path)?;
                bases.pop();
                continue;
            }
            end = base + kept;
            let next = disk::read_array::<{ ENTRY as usize }>(&file, kept as u64 * ENTRY)?;
            if kept < dirs.per_file && (!clean || next != [0; ENTRY as usize]) {
                unsynced.files.push(path);
                disk::zero(
                    &file,
                    kept as u64 * ENTRY,
                    (dirs.per_file - kept) as u64 * ENTRY,
                )?;
            }
            break;
        }
        lock(&self.files).span = bases.first().map(|first| (*first, bases[bases.len() - 1]));
        *lock(&self.tail) = Tail {
            first: end,
            written: end,
            ..Tail::default()
        };
        self.max.store(end, Ordering::Release);
        self.correct_min(dirs, log_start)?;
        Ok(whole)
    }

    /// Moves the first valid entry behind what retention took from the log, and deletes files that hold only dead entries (never the last).
    pub fn correct_min(&self, dirs: &QueueDirs, log_start: i64) -> Result<()> {
        let mut files = lock(&self.files);
        let (mut first, last) = files.span.unwrap_or_else(|| {
            let first = lock(&self.tail).first;
            (first, first)
        });
        let dead = |entry: &QueueEntry| entry.is_blank() || entry.physical_offset < log_start;
        while first < last {
            let path = dirs.path(self, first);
            let newest = match dirs.disk.open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                other => Some(disk::read_array::<{ ENTRY as usize }>(
                    &*other?,
                    (dirs.per_file as u64 - 1) * ENTRY,
                )?),
            };
            if newest.is_some_and(|bytes| !dead(&QueueEntry::from_bytes(&bytes))) {
                break;
            }
            dirs.disk.remove(&path)?;
            first += dirs.per_file;
        }
        files.span = files.span.map(|_| (first, last));
        drop(files);
        let (mut low, mut high) = (first.max(self.min()), self.max());
        if self.entry(dirs, low)?.is_some_and(|entry| !dead(&entry)) {
            high = low;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(dirs, middle)? {
                Some(entry) if !dead(&entry) => high = middle,
                _ => low = middle + 1,
            }
        }
        self.min.store(low, Ordering::Release);
        Ok(())
    }

    /// Nothing of it is written any more; its directory goes.
    pub fn delete(&self, dirs: &QueueDirs) -> Result<()> {
        self.forget();
        dirs.disk.remove_dir(&dirs.dir(&self.topic, self.queue_id))
    }

    /// Nothing of it is read or written any more.
    pub fn forget(&self) {
        let mut files = lock(&self.files);
        {
            let mut tail = lock(&self.tail);
            *tail = Tail {
                deleted: true,
                ..Tail::default()
            };
        }
        files.span = None;
        self.min.store(0, Ordering::Release);
        self.max.store(0, Ordering::Release);
    }
}

/// How many of a file's first entries satisfy `good`, given that good ones stand before all others. Most queues are short:
/// the first page is looked at in one read.
fn partition(file: &File, per_file: i64, good: impl Fn(&QueueEntry) -> bool) -> Result<i64> {
    let page = disk::read_at(file, 0, (per_file as u64 * ENTRY).min(4080) as usize)?;
    let page: Vec<QueueEntry> = page
        .as_chunks::<{ ENTRY as usize }>()
        .0
        .iter()
        .map(|b| QueueEntry::from_bytes(b))
        .collect();
    let in_page = page.iter().take_while(|entry| good(entry)).count() as i64;
    if in_page < page.len() as i64 || in_page == per_file {
        return Ok(in_page);
    }
    let (mut low, mut high) = (in_page, per_file);
    while low < high {
        let middle = low + (high - low) / 2;
        let bytes = disk::read_array::<{ ENTRY as usize }>(file, middle as u64 * ENTRY)?;
        if good(&QueueEntry::from_bytes(&bytes)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// How many of `kept` entries there are: the last one may lie in two sectors of which one was lost. What is left of it
/// then points before the entry that precedes it.
fn untorn(file: &File, kept: i64) -> Result<i64> {
    let bytes = disk::read_array::<{ 2 * ENTRY as usize }>(file, (kept as u64 - 2) * ENTRY)?;
    let before = QueueEntry::from_bytes(&bytes[..ENTRY as usize]);
    let last = QueueEntry::from_bytes(&bytes[ENTRY as usize..]);
    let torn = !before.is_blank()
        && !last.is_blank()
        && last.physical_offset < before.physical_offset + i64::from(before.size);
    Ok(kept - i64::from(torn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const ENTRIES: i64 = 50_000;

    fn dirs(dir: &tempfile::TempDir, per_file: i64) -> QueueDirs {
        QueueDirs {
            root: dir.path().to_owned(),
            per_file,
            disk: Arc::new(Disk::new(disk::FileSystem::Real, 4)),
            ahead: ReadAhead::default(),
        }
    }

    #[test]
    fn what_is_read_ahead_is_what_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = dirs(&dir, 300);
        let entry = |queue, at| QueueEntry {
            physical_offset: at,
            size: 1,
            tags_code: queue,
        };
        // The last 20 of each stay in memory, 30 more are in no file yet.
        let queues = [0, 1].map(|id| {
            let queue = Queue::new("T".into(), id);
            for (from, to) in [(0, 1000), (1000, 1030)] {
                let fresh: Vec<_> = (from..to).map(|at| entry(i64::from(id), at)).collect();
                queue.extend(from, &fresh);
                queue.publish(to);
                if from == 0 {
                    queue.write(&dirs, 20, &mut Unsynced::default()).unwrap();
                }
            }
            queue
        });
        let mut readers = [
            (0, 0, 32),
            (1, 0, 32),
            (0, 250, 7),
            (1, 999, 2),
            (0, 3, 400),
        ];
        let mut out = Vec::new();
        while readers.iter().any(|(_, at, _)| *at < 1030) {
            for (queue, at, max) in &mut readers {
                out.clear();
                queues[*queue].read(&dirs, *at, *max, &mut out).unwrap();
                let stop = (*at + *max as i64).min(1030);
                let there: Vec<_> = (*at..stop).map(|at| entry(*queue as i64, at)).collect();
                assert_eq!(out, there, "queue {queue} from {at}");
                *at = stop;
            }
        }
        out.clear();
        queues[0].forget();
        queues[0].read(&dirs, 0, 32, &mut out).unwrap();
        assert_eq!(out, [], "a deleted queue has nothing to read");
    }

    #[test]
    fn entries_that_come_while_a_queue_is_written_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = dirs(&dir, ENTRIES);
        let queue = Queue::new("T".into(), 0);
        let (dirty, done) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..ENTRIES {
                    if queue.extend(at, &[QueueEntry::BLANK]) {
                        dirty.store(true, Ordering::SeqCst);
                    }
                    queue.publish(at + 1);
                }
                done.store(true, Ordering::SeqCst);
            });
            loop {
                let last = done.load(Ordering::SeqCst);
                if dirty.swap(false, Ordering::SeqCst) {
                    let wrote = queue.write(&dirs, 8, &mut Unsynced::default()).unwrap();
                    if wrote.more {
                        dirty.store(true, Ordering::SeqCst);
                    }
                } else if last {
                    break;
                }
            }
        });
        assert_eq!(lock(&queue.tail).written, ENTRIES);
    }
}
