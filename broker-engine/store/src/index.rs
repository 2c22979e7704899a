//! The index files: from a key's hash to physical offsets.
//!
//! New entries and changed slots stay in memory until the checkpoint writes them: entries first, then slots, then the
//! header that counts them. A key's slot is anywhere in its file, so that a slot costs about as much to write as a page full of
//! entries; and after a crash those of the last file are made anew from its entries in any case. They are written each minute
//! only, for a Java broker that starts on what a crash of ours left; when the file is full; and before the store rests or
//! closes. Source: `apache/rocketmq: store/.../index/{IndexFile,IndexHeader,IndexService}.java`.

use crate::disk::{self, Disk, Unsynced};
use crate::error::{StoreError, io_error};
use std::io::Result;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: u64 = 40;
const ENTRY: u64 = 20;
/// Slots of one page in memory: 4 KiB.
const PAGE_SLOTS: usize = 1024;

/// Milliseconds between two times that the newest file's slots are written.
const SLOTS_EVERY: i64 = 60_000;

/// One key of one record, waiting to be indexed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub hash: i32,
    pub physical_offset: i64,
    pub store_timestamp: i64,
}

/// The header; field names as in `IndexHeader.java`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    begin_timestamp: i64,
    end_timestamp: i64,
    begin_offset: i64,
    end_offset: i64,
    slot_count: i32,
    /// One more than the entries: entry 0 is never used.
    index_count: i32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: i32,
    physical_offset: i64,
    seconds: i32,
    previous: i32,
}

#[derive(Debug)]
struct IndexFile {
    path: PathBuf,
    header: Header,
    /// Entries from this number on are only in `unwritten`.
    written: i32,
    unwritten: Vec<u8>,
    pages: Vec<Option<Page>>,
    /// Slots in memory are newer than the file's.
    stale: bool,
    /// Nothing was ever written: pages need not be read.
    fresh: bool,
}

#[derive(Debug)]
struct Page {
    slots: Box<[i32; PAGE_SLOTS]>,
    dirty: bool,
}

/// The index of a store.
#[derive(Debug)]
pub(crate) struct Index {
    dir: PathBuf,
    slots: u32,
    entries_max: u32,
    disk: Arc<Disk>,
    files: Vec<IndexFile>,
    /// When the newest file's slots were written last.
    slots_at: Option<i64>,
    /// Room of keys that were added, for those to come.
    pub room: Vec<Key>,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER as usize] {
        let mut bytes = [0; HEADER as usize];
        bytes[..8].copy_from_slice(&self.begin_timestamp.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.end_timestamp.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.begin_offset.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.end_offset.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.slot_count.to_be_bytes());
        bytes[36..].copy_from_slice(&self.index_count.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER as usize]) -> Self {
        let long =
            |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Self {
            begin_timestamp: long(0),
            end_timestamp: long(8),
            begin_offset: long(16),
            end_offset: long(24),
            slot_count: int(32),
            index_count: int(36).max(1),
        }
    }
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY as usize] {
        let mut bytes = [0; ENTRY as usize];
        bytes[..4].copy_from_slice(&self.hash.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.physical_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[16..].copy_from_slice(&self.previous.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY as usize]) -> Self {
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Self {
            hash: int(0),
            physical_offset: i64::from_be_bytes(bytes[4..12].try_into().expect("eight bytes")),
            seconds: int(12),
            previous: int(16),
        }
    }
}

impl Index {
    pub fn new(dir: PathBuf, slots: u32, entries_max: u32, disk: Arc<Disk>) -> Self {
        Self {
            dir,
            slots: slots.max(1),
            entries_max: entries_max.max(2),
            disk,
            files: Vec::new(),
            slots_at: None,
            room: Vec::new(),
        }
    }

    fn entry_at(&self, number: i32) -> u64 {
        HEADER + u64::from(self.slots) * 4 + number as u64 * ENTRY
    }
    fn file_len(&self) -> u64 {
        self.entry_at(self.entries_max as i32)
    }

    /// Opens the files and drops what points at or behind `dispatched`. After a crash slots may be newer or older than the
    /// header, so the last file's are made anew from its entries. False when a file
    /// has another length than all have: the index is then to be made anew.
    pub fn load(
        &mut self,
        dispatched: i64,
        clean: bool,
        unsynced: &mut Unsynced,
    ) -> std::result::Result<bool, StoreError> {
        self.files.clear();
        let names = self
            .disk
            .fs
            .list(&self.dir)
            .map_err(io_error("listing", &self.dir))?;
        for (name, len) in names {
            let path = self.dir.join(&name);
            if name.len() != 17 || !name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            if len == 0 {
                self.disk
                    .remove(&path)
                    .map_err(io_error("removing the empty file", &path))?;
                continue;
            }
            if len != self.file_len() {
                // It is derived: the log has all that it held.
                self.files.clear();
                return Ok(false);
            }
            let file = self.disk.open(&path).map_err(io_error("opening", &path))?;
            let header = disk::read_array(&file, 0).map_err(io_error("reading", &path))?;
            let header = Header::from_bytes(&header);
            self.files.push(IndexFile {
                path,
                header,
                written: header.index_count.min(self.entries_max as i32),
                unwritten: Vec::new(),
                pages: Vec::new(),
                stale: false,
                fresh: false,
            });
        }
        while let Some(last) = self.files.len().checked_sub(1) {
            let path = self.files[last].path.clone();
            if clean && self.files[last].header.end_offset < dispatched {
                break;
            }
            unsynced.files.push(path.clone());
            if self
                .repair(last, dispatched)
                .map_err(io_error("repairing", &path))?
            {
                break;
            }
            unsynced.dirs.push(self.dir.clone());
            self.disk
                .remove(&path)
                .map_err(io_error("removing", &path))?;
            self.files.pop();
        }
        Ok(true)
    }

    /// Cuts a file's entries at `dispatched` and makes its slots anew; false when nothing is left of it.
    fn repair(&mut self, which: usize, dispatched: i64) -> Result<bool> {
        let file = self.disk.open(&self.files[which].path)?;
        let (mut low, mut high) = (1, self.entries_max as i32);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = Entry::from_bytes(&disk::read_array(&file, self.entry_at(middle))?);
            let empty = entry.hash == 0
                && entry.physical_offset == 0
                && entry.seconds == 0
                && entry.previous == 0;
            // An entry of all zeros is a hole, or the very first record under a key that hashes to 0: that one is rebuilt.
            if !empty && entry.physical_offset < dispatched {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == 1 {
            return Ok(false);
        }
        let tail = self.entry_at(low);
        disk::zero(&file, tail, self.file_len() - tail)?;
        let mut slots = vec![0u8; self.slots as usize * 4];
        let mut used = 0;
        let mut end = Entry::from_bytes(&[0; ENTRY as usize]);
        let mut number = 1;
        while number < low {
            let count = (low - number).min(1 << 15);
            let bytes = disk::read_at(
                &file,
                self.entry_at(number),
                count as usize * ENTRY as usize,
            )?;
            for raw in bytes.as_chunks::<{ ENTRY as usize }>().0 {
                end = Entry::from_bytes(raw);
                let slot = (end.hash.max(0) as usize % self.slots as usize) * 4;
                if slots[slot..slot + 4] == [0; 4] {
                    used += 1;
                }
                slots[slot..slot + 4].copy_from_slice(&number.to_be_bytes());
                number += 1;
            }
        }
        disk::write_at(&file, &slots, HEADER)?;
        let begin = self.files[which].header.begin_timestamp;
        let this = &mut self.files[which];
        this.header.index_count = low;
        this.header.slot_count = used;
        this.header.end_offset = end.physical_offset;
        this.header.end_timestamp = this
            .header
            .end_timestamp
            .min(begin + i64::from(end.seconds) * 1000 + 999);
        this.written = low;
        this.pages.clear();
        disk::write_at(&file, &this.header.to_bytes(), 0)?;
        Ok(true)
    }

    /// Deletes all files: the index is built anew from the log.
    pub fn destroy(&mut self) -> Result<()> {
        self.files.clear();
        self.disk.remove_dir(&self.dir)
    }

    /// Offset of the newest indexed record below `position`, -1 when there is none.
    pub fn end_below(&self, position: i64) -> Result<i64> {
        let Some(last) = self.files.last() else {
            return Ok(-1);
        };
        // Entries stand in log order, and many may have come since.
        let (mut low, mut high, mut below) = (1, last.header.index_count, -1);
        while low < high {
            let middle = low + (high - low) / 2;
            let offset = self.entry(last, middle)?.physical_offset;
            if offset < position {
                below = offset;
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(below)
    }

    /// Store time of the newest indexed record, 0 when there is none.
    pub fn end_timestamp(&self) -> i64 {
        self.files
            .last()
            .map_or(0, |file| file.header.end_timestamp)
    }

    fn entry(&self, file: &IndexFile, number: i32) -> Result<Entry> {
        if number >= file.written {
            let at = (number - file.written) as usize * ENTRY as usize;
            if let Some(bytes) = file.unwritten.get(at..at + ENTRY as usize) {
                return Ok(Entry::from_bytes(
                    bytes.try_into().expect("the slice has an entry's length"),
                ));
            }
        }
        let on_disk = self.disk.open(&file.path)?;
        Ok(Entry::from_bytes(&disk::read_array(
            &on_disk,
            self.entry_at(number),
        )?))
    }

    /// Adds keys, in log order. A record that is indexed already (its offset lies before the last one's) is passed over, as Java does.
    pub fn add(&mut self, keys: &[Key], now_ms: i64) -> Result<()> {
        for key in keys {
            if self
                .files
                .last()
                .is_none_or(|file| file.header.index_count >= self.entries_max as i32)
            {
                self.begin_file(now_ms)?;
            }
            let slots = self.slots;
            let last = self.files.len() - 1;
            if key.physical_offset < self.files[last].header.end_offset {
                continue;
            }
            let slot = key.hash as u32 % slots;
            let page = self.page(last, slot as usize / PAGE_SLOTS)?;
            page.dirty = true;
            let slot_value = &mut page.slots[slot as usize % PAGE_SLOTS];
            let before = *slot_value;
            let file = &mut self.files[last];
            let header = &mut file.header;
            let previous = if before <= 0 || before >= header.index_count {
                0
            } else {
                before
            };
            if header.index_count <= 1 {
                header.begin_offset = key.physical_offset;
                header.begin_timestamp = key.store_timestamp;
            }
            let seconds = ((key.store_timestamp - header.begin_timestamp) / 1000)
                .clamp(0, i64::from(i32::MAX));
            let number = header.index_count;
            file.unwritten.extend_from_slice(
                &Entry {
                    hash: key.hash,
                    physical_offset: key.physical_offset,
                    seconds: seconds as i32,
                    previous,
                }
                .to_bytes(),
            );
            if previous == 0 {
                header.slot_count += 1;
            }
            header.index_count += 1;
            header.end_offset = key.physical_offset;
            header.end_timestamp = key.store_timestamp;
            let page = file.pages[slot as usize / PAGE_SLOTS]
                .as_mut()
                .expect("the page was loaded above");
            page.slots[slot as usize % PAGE_SLOTS] = number;
            file.stale = true;
        }
        Ok(())
    }

    fn begin_file(&mut self, now_ms: i64) -> Result<()> {
        if self.files.is_empty() {
            self.disk.fs.make_dir(&self.dir)?;
        }
        let mut name = file_name(now_ms);
        let mut header = Header {
            index_count: 1,
            ..Header::default()
        };
        if let Some(last) = self.files.last() {
            header.end_offset = last.header.end_offset;
            header.end_timestamp = last.header.end_timestamp;
            header.begin_offset = last.header.end_offset;
            header.begin_timestamp = last.header.end_timestamp;
            // Files are read in name order: a clock that stepped back must not put a newer file first.
            let newest = last
                .path
                .file_name()
                .and_then(|n| n.to_str())
                .unwrap_or_default();
            if name.as_str() <= newest {
                name = format!("{:017}", newest.parse::<u64>().unwrap_or(0) + 1);
            }
        }
        let path = self.dir.join(name);
        self.disk.create(&path, self.file_len(), false)?;
        self.files.push(IndexFile {
            path,
            header,
            written: 1,
            unwritten: Vec::new(),
            pages: Vec::new(),
            stale: false,
            fresh: true,
        });
        Ok(())
    }

    fn page(&mut self, which: usize, number: usize) -> Result<&mut Page> {
        let pages = (self.slots as usize).div_ceil(PAGE_SLOTS);
        let slots = self.slots as usize;
        let file = &mut self.files[which];
        if file.pages.is_empty() {
            file.pages.resize_with(pages, || None);
        }
        if file.pages[number].is_none() {
            let mut page = Box::new([0i32; PAGE_SLOTS]);
            if !file.fresh {
                let on_disk = self.disk.open(&file.path)?;
                let count = (slots - number * PAGE_SLOTS).min(PAGE_SLOTS);
                let at = HEADER + (number * PAGE_SLOTS * 4) as u64;
                let bytes = disk::read_at(&on_disk, at, count * 4)?;
                for (slot, raw) in page.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *slot = i32::from_be_bytes(*raw);
                }
            }
            file.pages[number] = Some(Page {
                slots: page,
                dirty: false,
            });
        }
        Ok(file.pages[number]
            .as_mut()
            .expect("the page was put there above"))
    }

    /// Writes what is only in memory; of slots what is due, or all of them. What is to be synced is added to `unsynced`.
    pub fn write(&mut self, all: bool, now_ms: i64, unsynced: &mut Unsynced) -> Result<()> {
        let recent = |at: i64| (at..at + SLOTS_EVERY).contains(&now_ms);
        let due = all || !self.slots_at.is_some_and(recent);
        let slots = self.slots as usize;
        let entries_at = HEADER + u64::from(self.slots) * 4;
        let newest = self.files.len().saturating_sub(1);
        for (which, file) in self.files.iter_mut().enumerate() {
            let slots_too = file.stale && (due || which < newest);
            if file.unwritten.is_empty() && !slots_too {
                if which < newest {
                    file.pages = Vec::new();
                }
                continue;
            }
            let on_disk = self.disk.open(&file.path)?;
            // Noted first: of a write that fails, a part is there.
            unsynced.files.push(file.path.clone());
            if file.fresh {
                unsynced.dirs.extend(self.dir.parent().map(Path::to_owned));
                unsynced.dirs.push(self.dir.clone());
            }
            disk::write_at(
                &on_disk,
                &file.unwritten,
                entries_at + file.written as u64 * ENTRY,
            )?;
            let pages = if slots_too { &mut *file.pages } else { &mut [] };
            for (number, page) in pages.iter_mut().enumerate() {
                let Some(page) = page.as_mut().filter(|page| page.dirty) else {
                    continue;
                };
                let count = (slots - number * PAGE_SLOTS).min(PAGE_SLOTS);
                let mut bytes = [0u8; PAGE_SLOTS * 4];
                for (raw, slot) in bytes
                    .as_chunks_mut::<4>()
                    .0
                    .iter_mut()
                    .zip(page.slots.iter())
                {
                    *raw = slot.to_be_bytes();
                }
                let at = HEADER + (number * PAGE_SLOTS * 4) as u64;
                disk::write_at(&on_disk, &bytes[..count * 4], at)?;
                page.dirty = false;
            }
            disk::write_at(&on_disk, &file.header.to_bytes(), 0)?;
            file.written = file.header.index_count;
            file.unwritten.clear();
            file.fresh = false;
            file.stale &= !slots_too;
        }
        if due {
            self.slots_at = Some(now_ms);
        }
        Ok(())
    }

    /// Gives the memory of slots back that are in their file.
    pub fn cool(&mut self) {
        self.room = Vec::new();
        for file in &mut self.files {
            if file.unwritten.is_empty() && !file.stale {
                file.pages = Vec::new();
                file.unwritten = Vec::new();
            }
        }
    }

    /// Physical offsets of records whose key has this hash, stored within the times, newest first.
    pub fn find(&self, hash: i32, max: usize, begin_ms: i64, end_ms: i64) -> Result<Vec<i64>> {
        let mut found = Vec::new();
        for file in self.files.iter().rev() {
            let header = &file.header;
            let overlaps = header.index_count > 1
                && begin_ms <= header.end_timestamp
                && end_ms >= header.begin_timestamp;
            if overlaps {
                self.find_in(file, hash, max, begin_ms, end_ms, &mut found)?;
            }
            if found.len() >= max || header.begin_timestamp < begin_ms {
                break;
            }
        }
        Ok(found)
    }

    fn find_in(
        &self,
        file: &IndexFile,
        hash: i32,
        max: usize,
        begin_ms: i64,
        end_ms: i64,
        found: &mut Vec<i64>,
    ) -> Result<()> {
        let slot = hash as u32 as usize % self.slots as usize;
        let in_memory = file.pages.get(slot / PAGE_SLOTS).and_then(Option::as_ref);
        let mut number = match in_memory {
            Some(page) => page.slots[slot % PAGE_SLOTS],
            None => {
                let on_disk = self.disk.open(&file.path)?;
                i32::from_be_bytes(disk::read_array(&on_disk, HEADER + slot as u64 * 4)?)
            }
        };
        while number > 0 && number < file.header.index_count && found.len() < max {
            let entry = self.entry(file, number)?;
            let stored = file.header.begin_timestamp + i64::from(entry.seconds) * 1000;
            // The entry knows the second only: anything within it may match.
            if entry.hash == hash && stored + 999 >= begin_ms && stored <= end_ms {
                found.push(entry.physical_offset);
            }
            // Numbers go down along a chain; anything else is damage and would loop.
            if entry.previous >= number || stored + 999 < begin_ms {
                break;
            }
            number = entry.previous;
        }
        Ok(())
    }

    /// Store time and offset of the newest indexed record.
    pub fn newest(&self) -> (i64, i64) {
        self.files.last().map_or((0, 0), |file| {
            (file.header.end_timestamp, file.header.end_offset)
        })
    }

    /// Deletes files that only point before the log's start; never the last.
    pub fn clean(&mut self, log_start: i64) -> Result<usize> {
        let keep_from = self
            .files
            .iter()
            .position(|file| file.header.end_offset >= log_start)
            .unwrap_or(self.files.len())
            .min(self.files.len().saturating_sub(1));
        for file in self.files.drain(..keep_from) {
            self.disk.remove(&file.path)?;
        }
        Ok(keep_from)
    }
}

/// `yyyyMMddHHmmssSSS` of a time in UTC. (Java takes its local zone; only the order of names matters.)
fn file_name(now_ms: i64) -> String {
    let days = now_ms.div_euclid(86_400_000);
    let ms = now_ms.rem_euclid(86_400_000);
    // Civil date from days since 1970-01-01: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}{month:02}{day:02}{:02}{:02}{:02}{:03}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::FileSystem;

    #[test]
    fn the_newest_record_below_a_position_is_found_in_the_file_and_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::new(FileSystem::Real, 4));
        let mut index = Index::new(dir.path().join("index"), 16, 100, disk);
        assert_eq!(index.end_below(1000).unwrap(), -1);
        // Two keys a record.
        let offsets: Vec<i64> = (0..40).map(|number| number / 2 * 70).collect();
        for (number, &physical_offset) in offsets.iter().enumerate() {
            let key = Key {
                hash: number as i32,
                physical_offset,
                store_timestamp: 1000,
            };
            index.add(&[key], 1000).unwrap();
            if number == 25 {
                index.write(false, 1000, &mut Unsynced::default()).unwrap();
            }
        }
        for position in 0..1500 {
            let below = offsets.iter().rfind(|offset| **offset < position);
            assert_eq!(
                index.end_below(position).unwrap(),
                below.copied().unwrap_or(-1)
            );
        }
    }

    #[test]
    fn slots_are_written_each_minute_and_before_a_clean_end() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let disk = Arc::new(Disk::new(FileSystem::Real, 4));
            Index::new(dir.path().join("index"), 16, 100, disk)
        };
        let mut index = open();
        let mut add_and_write = |hash: i32, all: bool, now_ms: i64| {
            let key = Key {
                hash,
                physical_offset: i64::from(hash) * 100,
                store_timestamp: now_ms,
            };
            index.add(&[key], now_ms).unwrap();
            index.write(all, now_ms, &mut Unsynced::default()).unwrap();
            assert_eq!(index.find(hash, 9, 0, i64::MAX).unwrap().len(), 1);
        };
        let found_by_the_next = |hash: i32, clean: bool| {
            let mut index = open();
            (index.load(10_000, clean, &mut Unsynced::default())).unwrap();
            index.find(hash, 9, 0, i64::MAX).unwrap()
        };
        add_and_write(1, false, 1000);
        assert_eq!(found_by_the_next(1, true), [100]);
        add_and_write(2, false, 60_999);
        assert!(found_by_the_next(2, true).is_empty());
        add_and_write(3, false, 61_000);
        assert_eq!(found_by_the_next(3, true), [300]);
        add_and_write(4, true, 62_000);
        assert_eq!(found_by_the_next(4, true), [400]);
        add_and_write(5, false, 63_000);
        // An end that was not clean: slots are made from the entries.
        assert_eq!(found_by_the_next(5, false), [500]);
    }
}
