//! The commit log's files and what is known of them: where they begin and end, how far they are on disk, and the last
//! bytes in memory. Recovery and the writer change them; readers only look.

use crate::disk::{self, Disk, File};
use crate::error::{StoreError, io_error};
use crate::recent::RecentFiles;
use bytes::{Buf, Bytes};
use rocketmq_protocol::record::{RecordError, View};
use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Most recent log bytes kept in memory for pulls that follow the producers closely: milliseconds of a busy log. More would cost
/// each record a trip to main memory, where the blocks of a short tail stay in the processor.
const TAIL_BYTES: usize = 2 << 20;
/// Zeros at a file's start after which nothing was written to it.
const LOOKED_AT: usize = 64 << 10;
/// Bytes written again at once.
const WRITTEN_AGAIN: i64 = 4 << 20;
/// A read joins records that lie at most this far apart: copying the gap costs less than another system call.
const JOIN_GAP: i64 = 2 << 10;

/// Files of the commit log.
#[derive(Debug)]
pub(crate) struct CommitLog {
    dir: PathBuf,
    file_size: u64,
    disk: Arc<Disk>,
    /// First offsets of the files, ascending and without gaps.
    bases: RwLock<VecDeque<i64>>,
    start: AtomicI64,
    end: AtomicI64,
    flushed: AtomicI64,
    /// What lies before was written by an earlier process, and is looked at before it is given to anyone.
    found: AtomicI64,
    tail: Mutex<Tail>,
    recent: RecentFiles,
    /// Held while a file is made, or files behind the end are deleted.
    making: Mutex<()>,
}

/// Blocks of the log in memory, ascending; between two there may be a gap (a file's filler).
#[derive(Debug, Default)]
struct Tail {
    blocks: VecDeque<(i64, Bytes)>,
    bytes: usize,
}

/// Records that were read.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub count: usize,
    pub spans: Vec<Bytes>,
    /// The first so many spans are from files, the others from blocks in memory.
    pub of_files: usize,
}

impl CommitLog {
    pub fn new(dir: PathBuf, file_size: u64, disk: Arc<Disk>) -> Self {
        Self {
            dir,
            file_size,
            disk,
            bases: RwLock::default(),
            start: AtomicI64::new(0),
            end: AtomicI64::new(0),
            flushed: AtomicI64::new(0),
            found: AtomicI64::new(0),
            tail: Mutex::default(),
            recent: RecentFiles::default(),
            making: Mutex::default(),
        }
    }

    /// Finds the files. A file of another length than configured, or a missing one between two, is refused.
    /// Records before `known` were on disk once.
    pub fn load(&self, known: i64) -> std::result::Result<(), StoreError> {
        (self.disk.fs.make_dir_synced(&self.dir))
            .map_err(io_error("making directory", &self.dir))?;
        let mut files = self
            .disk
            .fs
            .list(&self.dir)
            .map_err(io_error("listing", &self.dir))?;
        files.retain(|(name, _)| name.len() == 20 && name.bytes().all(|b| b.is_ascii_digit()));
        if let Some((name, len)) = files.last() {
            let path = self.dir.join(name);
            let file = self.disk.open(&path).map_err(io_error("opening", &path))?;
            let head = disk::read_at(&file, 0, LOOKED_AT).map_err(io_error("reading", &path))?;
            let known = name.parse().is_ok_and(|base: i64| base < known);
            let empty = !known && head.iter().all(|byte| *byte == 0);
            if empty && *len < self.file_size {
                // It was being made when all ended: a large file gets its blocks in several steps.
                self.disk
                    .remove(&path)
                    .map_err(io_error("removing the unfinished file", &path))?;
                files.pop();
            } else if empty {
                // Whoever made it may have died before this.
                disk::sync(&file).map_err(io_error("syncing", &path))?;
            }
        }
        let mut bases = VecDeque::with_capacity(files.len());
        for (name, len) in files {
            if len != self.file_size {
                return Err(StoreError::FileSize {
                    path: self.dir.join(&name).display().to_string(),
                    found: len,
                    configured: self.file_size,
                    property: "mappedFileSizeCommitLog",
                });
            }
            let base: i64 = name.parse().map_err(|_| StoreError::Damaged {
                at: 0,
                what: format!("the file name {name} is no offset"),
                next: None,
            })?;
            if let Some(last) = bases.back()
                && base != last + self.file_size as i64
            {
                return Err(StoreError::Damaged {
                    at: last + self.file_size as i64,
                    what: "a commit log file is missing".into(),
                    next: Some(base),
                });
            }
            bases.push_back(base);
        }
        self.start
            .store(bases.front().copied().unwrap_or(0), Ordering::Release);
        *self.bases.write().unwrap_or_else(PoisonError::into_inner) = bases;
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
    pub fn file_size(&self) -> i64 {
        self.file_size as i64
    }
    pub fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }
    pub fn end(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }
    pub fn flushed(&self) -> i64 {
        self.flushed.load(Ordering::Acquire)
    }
    pub fn publish(&self, end: i64) {
        self.end.store(end, Ordering::Release);
    }
    pub fn bases(&self) -> Vec<i64> {
        let bases = self.bases.read().unwrap_or_else(PoisonError::into_inner);
        bases.iter().copied().collect()
    }
    pub fn base_of(&self, at: i64) -> i64 {
        at - at.rem_euclid(self.file_size())
    }
    pub fn path(&self, base: i64) -> PathBuf {
        self.dir.join(format!("{base:020}"))
    }
    pub fn has_file(&self, base: i64) -> bool {
        let bases = self.bases.read().unwrap_or_else(PoisonError::into_inner);
        matches!((bases.front(), bases.back()), (Some(first), Some(last)) if base >= *first && base <= *last)
    }
    pub fn open(&self, base: i64) -> Result<Arc<File>> {
        self.recent.open(base, &self.disk, || self.path(base))
    }

    /// Makes the file that begins at `base`, its blocks reserved.
    pub fn create(&self, base: i64) -> std::result::Result<(), StoreError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_file(base) {
            return Ok(());
        }
        self.make(base)
    }

    /// Makes the file behind the one that is written once half of that is full, so that no append waits for the disk to make one.
    /// Runs on any thread.
    pub fn make_next(&self) -> std::result::Result<(), StoreError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.end();
        let base = self.base_of(end);
        let next = base + self.file_size();
        if end - base < self.file_size() / 2 || !self.has_file(base) || self.has_file(next) {
            return Ok(());
        }
        self.make(next)
    }

    fn make(&self, base: i64) -> std::result::Result<(), StoreError> {
        let path = self.path(base);
        // Its length is on disk before its name may be: at a start, a file of another length is a mistake.
        let made = self.disk.create(&path, self.file_size, true);
        let made =
            made.and_then(|file| disk::sync(&file).inspect_err(|_| drop(self.disk.remove(&path))));
        if let Err(error) = made {
            return Err(if disk::is_full(&error) {
                StoreError::DiskFull(format!(
                    "reserving {} bytes for {}",
                    self.file_size,
                    path.display()
                ))
            } else {
                io_error("making", &path)(error)
            });
        }
        self.disk
            .fs
            .sync_dir(&self.dir)
            .map_err(io_error("syncing directory", &self.dir))?;
        let mut bases = self.bases.write().unwrap_or_else(PoisonError::into_inner);
        if bases.is_empty() {
            self.start.store(base, Ordering::Release);
        }
        bases.push_back(base);
        Ok(())
    }

    /// Deletes the oldest file; the next one is then the log's start.
    pub fn remove_first(&self) -> std::result::Result<(), StoreError> {
        let first = {
            let mut bases = self.bases.write().unwrap_or_else(PoisonError::into_inner);
            let Some(first) = bases.pop_front() else {
                return Ok(());
            };
            let start = bases.front().copied().unwrap_or(self.end());
            self.start.store(start, Ordering::Release);
            first
        };
        let path = self.path(first);
        self.disk
            .remove(&path)
            .map_err(io_error("deleting", &path))?;
        self.recent.forget();
        // Before the next one goes: a crash must not show a gap.
        (self.disk.fs.sync_dir(&self.dir)).map_err(io_error("syncing directory", &self.dir))
    }

    /// Ends the log at `end`: whatever stands behind it becomes zeros and later files go, so that no stale record can ever
    /// be taken for a new one.
    pub fn cut(&self, end: i64) -> std::result::Result<(), StoreError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bases = self.bases.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(last) = bases.back().copied()
            && last >= end
            && bases.len() > 1
        {
            let path = self.path(last);
            self.disk
                .remove(&path)
                .map_err(io_error("deleting the file behind the end", &path))?;
            self.recent.forget();
            bases.pop_back();
            // Before the next one goes: a crash must not show a gap.
            (self.disk.fs.sync_dir(&self.dir)).map_err(io_error("syncing directory", &self.dir))?;
        }
        if let Some(last) = bases.back().copied()
            && end < last + self.file_size()
        {
            let path = self.path(last);
            let at = (end - last).max(0) as u64;
            let file = self.disk.open(&path).map_err(io_error("opening", &path))?;
            let stale = disk::next_data(&file, at).map_err(io_error("reading", &path))?;
            if stale.is_some() {
                disk::zero(&file, at, self.file_size - at)
                    .and_then(|()| disk::sync(&file))
                    .map_err(io_error("clearing the end of", &path))?;
            }
        }
        self.disk
            .fs
            .sync_dir(&self.dir)
            .map_err(io_error("syncing directory", &self.dir))
    }

    /// Writes what stands between two places once more, and zeros behind: a failed sync has made the kernel forget that it is
    /// not on disk.
    pub fn write_again(&self, from: i64, end: i64) -> std::result::Result<(), StoreError> {
        for base in self.bases() {
            let (first, last) = (from.max(base), end.min(base + self.file_size()));
            if base + self.file_size() <= from {
                continue;
            }
            let path = self.path(base);
            let file = self.disk.open(&path).map_err(io_error("opening", &path))?;
            let mut at = first;
            while at < last {
                let len = (last - at).min(WRITTEN_AGAIN) as usize;
                let bytes = disk::read_at(&file, (at - base) as u64, len)
                    .map_err(io_error("reading", &path))?;
                disk::write_at(&file, &bytes, (at - base) as u64)
                    .map_err(io_error("writing", &path))?;
                at += len as i64;
            }
            let rest = first.max(last) - base;
            disk::zero(&file, rest as u64, self.file_size - rest as u64)
                .and_then(|()| disk::sync(&file))
                .map_err(io_error("clearing the end of", &path))?;
        }
        Ok(())
    }

    /// Keeps blocks just written at `at`, back to back, for readers close behind.
    pub fn remember(&self, mut at: i64, blocks: impl Iterator<Item = Bytes>) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        for block in blocks {
            let len = block.len();
            tail.bytes += len;
            tail.blocks.push_back((at, block));
            at += len as i64;
        }
        while tail.bytes > TAIL_BYTES
            && let Some((_, oldest)) = tail.blocks.pop_front()
        {
            tail.bytes -= oldest.len();
        }
    }

    /// Forgets blocks that were written behind `end` and never published: readers must not see them under later ones' places.
    pub fn forget_behind(&self, end: i64) {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((_, block)) = tail.blocks.pop_back_if(|(at, _)| *at >= end) {
            tail.bytes -= block.len();
        }
    }

    /// Gives the memory back when nothing was written for a while.
    pub fn forget_tail(&self) {
        self.recent.unmap();
        *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = Tail::default();
    }

    /// Log bytes from `from` on without leaving memory, as many neighbours as reach `len`; false when not all are there.
    fn read_tail(&self, from: i64, len: usize, spans: &mut Vec<Bytes>) -> bool {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.blocks.front().is_none_or(|(at, _)| from < *at) {
            return false;
        }
        let mut index = tail.blocks.partition_point(|(at, _)| *at <= from) - 1;
        let before = spans.len();
        let (mut at, mut left) = (from, len);
        while left > 0 {
            let Some((base, block)) = tail.blocks.get(index) else {
                break;
            };
            let skip = at - base;
            if skip < 0 || skip >= block.len() as i64 {
                break;
            }
            let part = left.min(block.len() - skip as usize);
            spans.push(block.slice(skip as usize..skip as usize + part));
            at += part as i64;
            left -= part;
            index += 1;
        }
        if left > 0 {
            spans.truncate(before);
        }
        left == 0
    }

    /// `len` bytes at `from`, which must lie in one file and before the published end; `None` when they do not.
    pub fn read(&self, from: i64, len: usize) -> Result<Option<Bytes>> {
        // Any number may come from a client: none of them may overflow.
        if from < self.start() || from > self.end() - len as i64 {
            return Ok(None);
        }
        let mut spans = Vec::new();
        if self.read_tail(from, len, &mut spans) {
            if spans.len() == 1 {
                return Ok(spans.pop());
            }
            let mut joined = bytes::BytesMut::with_capacity(len);
            spans.iter().for_each(|span| joined.extend_from_slice(span));
            return Ok(Some(joined.freeze()));
        }
        self.read_file(from, len)
    }

    /// As `read`, for bytes that the caller writes elsewhere unseen.
    pub fn read_to_send(&self, from: i64, len: usize) -> Result<Option<Bytes>> {
        if from < self.start() || from > self.end() - len as i64 {
            return Ok(None);
        }
        let base = self.base_of(from);
        match self.recent.mapped(base, self.file_size as usize) {
            Some(file) if from - base + len as i64 <= self.file_size() => {
                let at = (from - base) as usize;
                Ok(Some(file.slice(at..at + len)))
            }
            _ => self.read(from, len),
        }
    }

    fn read_file(&self, from: i64, len: usize) -> Result<Option<Bytes>> {
        let base = self.base_of(from);
        if from + len as i64 > base + self.file_size() {
            return Ok(None);
        }
        let file = match self.open(base) {
            // Retention took it between the look at `start` and now.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let bytes = disk::read_at(&file, (from - base) as u64, len)?;
        if bytes.len() < len {
            return Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!(
                    "{} ends before {}",
                    self.path(base).display(),
                    from + len as i64
                ),
            ));
        }
        Ok(Some(Bytes::from(bytes)))
    }

    /// Reads records, in order and with neighbours joined. `wanted` are (offset, length), ascending. It stops at the first that
    /// is no longer (or not yet) there. Those that an earlier process wrote must be whole, and `right` for whoever wants
    /// them, by their number; the first that is not is an error. `to_send`: the caller writes them elsewhere unseen.
    pub fn read_records(
        &self,
        wanted: &[(i64, i32)],
        right: &dyn Fn(usize, &View<'_>) -> bool,
        to_send: bool,
    ) -> Result<Records> {
        let (start, end) = (self.start(), self.end());
        let mut records = Records::default();
        while records.count < wanted.len() {
            let done = records.count;
            let (from, len) = wanted[done];
            if from < start || len <= 0 || from > end - i64::from(len) {
                return Ok(records);
            }
            let last_in_file = self.base_of(from) + self.file_size();
            let mut to = from + i64::from(len);
            let mut joined = done + 1;
            while let Some((next, len)) = wanted.get(joined)
                && *next >= to
                && next - to <= JOIN_GAP
                && *len > 0
                && next + i64::from(*len) <= last_in_file.min(end)
            {
                to = next + i64::from(*len);
                joined += 1;
            }
            self.read_run(&wanted[done..joined], to, right, to_send, &mut records)?;
            if records.count < joined {
                return Ok(records);
            }
        }
        Ok(records)
    }

    /// Reads one run of records lying close together in one file, which ends at `to`.
    fn read_run(
        &self,
        run: &[(i64, i32)],
        to: i64,
        right: &dyn Fn(usize, &View<'_>) -> bool,
        to_send: bool,
        records: &mut Records,
    ) -> Result<()> {
        let from = run[0].0;
        let before = records.spans.len();
        let mut from_tail = 0;
        for (at, len) in contiguous(run) {
            if !self.read_tail(at, len as usize, &mut records.spans) {
                break;
            }
            from_tail += 1;
        }
        if from_tail == contiguous(run).count() {
            records.count += run.len();
            return Ok(());
        }
        records.spans.truncate(before);
        let found = from < self.found.load(Ordering::Acquire);
        let base = self.base_of(from);
        // An entry that tells of more than its file holds gets nothing, from pages as from a read.
        let mapped = if to_send && !found && to <= base + self.file_size() {
            self.recent.mapped(base, self.file_size as usize)
        } else {
            None
        };
        let (window, begins) = match mapped {
            Some(file) => (file, base),
            None => match self.read_file(from, (to - from) as usize)? {
                Some(window) => (window, from),
                None => return Ok(()),
            },
        };
        let stretch = |at: i64, len: i64| (at - begins) as usize..(at - begins + len) as usize;
        let mut good = run;
        if found {
            let whole = |(number, (at, len)): (usize, &(i64, i32))| {
                check(&window[stretch(*at, i64::from(*len))], *at)
                    .is_ok_and(|record| right(records.count + number, &record))
            };
            let bad = run.iter().enumerate().position(|one| !whole(one));
            good = &run[..bad.unwrap_or(run.len())];
            if good.is_empty() && records.count == 0 {
                return Err(damaged(from));
            }
        }
        for (at, len) in contiguous(good) {
            records.spans.push(window.slice(stretch(at, len)));
        }
        records.count += good.len();
        if records.of_files == before {
            records.of_files = records.spans.len();
        }
        Ok(())
    }

    /// The record that a queue's entry points at; `None` when retention has taken it.
    pub fn read_record(&self, at: i64, len: usize) -> Result<Option<Bytes>> {
        let Some(bytes) = self.read(at, len)? else {
            return Ok(None);
        };
        if at < self.found.load(Ordering::Acquire) && check(&bytes, at).is_err() {
            return Err(damaged(at));
        }
        Ok(Some(bytes))
    }

    /// Recovery found the log up to here.
    pub fn set_found(&self, end: i64) {
        self.found.store(end, Ordering::Release);
    }

    /// Store time of the record at an offset, without reading the rest of it.
    pub fn store_time(&self, at: i64) -> Result<Option<i64>> {
        // sysFlag (36..40) says whether the born host is IPv4 or IPv6, which moves the store time from 56 to 68.
        let Some(mut head) = self.read(at, 76)? else {
            return Ok(None);
        };
        let magic = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        if magic != rocketmq_protocol::record::MAGIC_V1
            && magic != rocketmq_protocol::record::MAGIC_V2
        {
            return Ok(None);
        }
        let flag = i32::from_be_bytes([head[36], head[37], head[38], head[39]]);
        let v6 = flag & rocketmq_protocol::sysflag::BORN_HOST_V6 != 0;
        head.advance(if v6 { 68 } else { 56 });
        Ok(Some(head.get_i64()))
    }

    /// Syncs every file that holds bytes between the last synced position and the end published now.
    pub fn sync(&self) -> std::result::Result<i64, StoreError> {
        let end = self.end();
        let flushed = self.flushed();
        if flushed >= end {
            return Ok(flushed);
        }
        let mut base = self.base_of(flushed);
        while base < end {
            match self.open(base) {
                Ok(file) => disk::sync(&file)
                    .map_err(|error| io_error("syncing", &self.path(base))(error))?,
                // Retention deleted it: nothing of it is left to lose.
                Err(error) if error.kind() == ErrorKind::NotFound && base < self.start() => {}
                Err(error) => return Err(io_error("opening", &self.path(base))(error)),
            }
            base += self.file_size();
        }
        self.flushed.fetch_max(end, Ordering::AcqRel);
        Ok(end)
    }

    /// What recovery knows to be on disk already.
    pub fn set_flushed(&self, at: i64) {
        self.flushed.store(at, Ordering::Release);
    }
}

/// Whether bytes are the one whole record that stands at `at`, its body unchanged.
fn check(bytes: &[u8], at: i64) -> std::result::Result<View<'_>, RecordError> {
    let record = View::record(bytes)?;
    record.check_body_crc()?;
    if record.physical_offset() == at && record.total_len() == bytes.len() {
        Ok(record)
    } else {
        Err(RecordError::Magic(0))
    }
}

/// No wrong bytes are given out: the reader is told, and where.
pub(crate) fn damaged(at: i64) -> Error {
    let why = format!(
        "the commit log's record at {at}, or what points at it, is damaged; nothing of it is given out"
    );
    Error::new(ErrorKind::InvalidData, why)
}

/// Joins neighbours: (offset, length) of each stretch without gaps.
fn contiguous(run: &[(i64, i32)]) -> impl Iterator<Item = (i64, i64)> {
    let mut rest = run;
    std::iter::from_fn(move || {
        let (&(at, len), mut tail) = rest.split_first()?;
        let mut total = i64::from(len);
        while let Some((&(next, len), after)) = tail.split_first()
            && next == at + total
        {
            total += i64::from(len);
            tail = after;
        }
        rest = tail;
        Some((at, total))
    })
}
