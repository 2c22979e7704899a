//! A file: its sectors in the page cache, those on disk, and which of them differ.

use super::{Call, EIO, ENOSPC, Fate, Lie, Random, SimulatedDisk, off};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, IoSlice, Result};
use std::sync::Arc;
use std::time::SystemTime;

const SECTOR: usize = 512;

type Sectors = BTreeMap<u64, Arc<[u8; SECTOR]>>;

#[derive(Clone)]
pub(super) struct FileNode {
    /// Where it was made; for lies about some files.
    path: String,
    /// A sector that is in neither map is a hole.
    cache: Sectors,
    durable: Sectors,
    dirty: BTreeSet<u64>,
    len: u64,
    durable_len: u64,
    /// Lengths it has had since the last sync: a crash may show any of them.
    lens: Vec<u64>,
    /// Blocks are reserved up to here.
    reserved: u64,
    /// A sync failed: the cache holds what the disk never will.
    diverged: bool,
    pub modified: SystemTime,
}

impl FileNode {
    pub fn new(path: String, modified: SystemTime) -> Self {
        Self {
            path,
            cache: Sectors::new(),
            durable: Sectors::new(),
            dirty: BTreeSet::new(),
            len: 0,
            durable_len: 0,
            lens: Vec::new(),
            reserved: 0,
            diverged: false,
            modified,
        }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    fn resized(&mut self, len: u64) {
        if len != self.len {
            self.len = len;
            self.lens.push(len);
        }
    }

    pub fn read(&self, at: u64, len: usize, into: &mut Vec<u8>) -> usize {
        let end = self.len.min(at.saturating_add(len as u64));
        let before = into.len();
        let mut at = at;
        while at < end {
            let skip = (at % SECTOR as u64) as usize;
            let part = (SECTOR - skip).min((end - at) as usize);
            match self.cache.get(&(at / SECTOR as u64)) {
                Some(sector) => into.extend_from_slice(&sector[skip..skip + part]),
                None => into.resize(into.len() + part, 0),
            }
            at += part as u64;
        }
        into.len() - before
    }

    /// Room for how many of `len` bytes at `at` there is on a full disk.
    fn room(&self, at: u64, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let from = at + done as u64;
            if from >= self.reserved && !self.cache.contains_key(&(from / SECTOR as u64)) {
                break;
            }
            done += SECTOR - (from % SECTOR as u64) as usize;
        }
        done.min(len)
    }

    pub fn write(&mut self, at: u64, bytes: &[u8], now: SystemTime, random: &mut Random) {
        let mut rest = bytes;
        let mut from = at;
        while !rest.is_empty() {
            let skip = (from % SECTOR as u64) as usize;
            let part = (SECTOR - skip).min(rest.len());
            let sector = self.touch(from / SECTOR as u64, random);
            Arc::make_mut(sector)[skip..skip + part].copy_from_slice(&rest[..part]);
            rest = &rest[part..];
            from += part as u64;
        }
        if from > self.len {
            self.resized(from);
        }
        self.modified = now;
    }

    /// A sector about to change. If it was changed before and not synced, that state may have reached the disk by now.
    fn touch(&mut self, number: u64, random: &mut Random) -> &mut Arc<[u8; SECTOR]> {
        if !self.dirty.insert(number)
            && random.one_in(4)
            && let Some(before) = self.cache.get(&number)
        {
            self.durable.insert(number, before.clone());
        }
        self.cache
            .entry(number)
            .or_insert_with(|| Arc::new([0; SECTOR]))
    }

    /// Turns whole sectors into holes and the rest of the range into zeros.
    fn clear(&mut self, at: u64, len: u64, now: SystemTime, random: &mut Random) {
        let end = at + len;
        let (first, last) = (at.div_ceil(SECTOR as u64), end / SECTOR as u64);
        let whole: Vec<u64> = if first < last {
            let cached = self.cache.range(first..last);
            // On disk there may be what the cache no longer holds: a failed sync forgot it.
            cached
                .chain(self.durable.range(first..last))
                .map(|(n, _)| *n)
                .collect()
        } else {
            Vec::new()
        };
        for number in whole {
            self.cache.remove(&number);
            self.dirty.insert(number);
        }
        let head = end.min(first * SECTOR as u64);
        let tail = (last * SECTOR as u64).max(head);
        for (from, to) in [(at, head), (tail, end)] {
            if from < to && self.cache.contains_key(&(from / SECTOR as u64)) {
                let zeros = vec![0; (to - from) as usize];
                let len = self.len;
                self.write(from, &zeros, now, random);
                self.len = len;
            }
        }
        self.modified = now;
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            let first = len.div_ceil(SECTOR as u64);
            let gone: Vec<u64> = self.cache.range(first..).map(|(n, _)| *n).collect();
            for number in gone {
                self.cache.remove(&number);
                self.dirty.insert(number);
            }
            zero_tail(&mut self.cache, len);
            self.reserved = self.reserved.min(len);
        }
        self.resized(len);
    }

    fn keep(&mut self, number: u64) {
        match self.cache.get(&number) {
            Some(sector) => self.durable.insert(number, sector.clone()),
            None => self.durable.remove(&number),
        };
    }

    pub fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            self.keep(number);
        }
        self.durable_len = self.len;
        self.lens.clear();
    }

    /// Some of what is not synced reaches the disk.
    pub fn sync_some(&mut self, random: &mut Random) {
        let dirty = std::mem::take(&mut self.dirty);
        for number in dirty {
            if random.one_in(2) {
                self.keep(number);
            } else {
                self.dirty.insert(number);
            }
        }
    }

    /// A sync failed: some of it may be on disk, and nothing is left to be tried again.
    fn fail(&mut self, random: &mut Random) {
        self.sync_some(random);
        self.dirty.clear();
        self.lens.clear();
        self.diverged = true;
    }

    /// The power went: of what was not synced, some is there.
    pub fn lose(&mut self, random: &mut Random) {
        if self.dirty.is_empty() && self.lens.is_empty() && !self.diverged {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        // All, none, or any: a coin for each sector would hardly ever show the first two.
        let mood = random.below(4);
        for number in dirty {
            if mood == 0 || mood > 1 && random.one_in(2) {
                self.keep(number);
            }
        }
        let which = random.below(self.lens.len() as u64 * 2 + 1) as usize;
        if which > 0 {
            // The newest length is the likeliest.
            self.durable_len = self.lens[(which - 1).min(self.lens.len() - 1)];
        }
        self.lens.clear();
        let beyond = self.durable_len.div_ceil(SECTOR as u64);
        self.durable.split_off(&beyond);
        zero_tail(&mut self.durable, self.durable_len);
        self.cache = self.durable.clone();
        self.len = self.durable_len;
        self.reserved = self.reserved.min(self.len);
        self.diverged = false;
    }
}

fn zero_tail(sectors: &mut Sectors, len: u64) {
    let kept = (len % SECTOR as u64) as usize;
    if kept > 0
        && let Some(sector) = sectors.get_mut(&(len / SECTOR as u64))
    {
        Arc::make_mut(sector)[kept..].fill(0);
    }
}

/// How much of a write is done that ends early: the kernel copies page by page, so it ends at a sector's border.
fn part(at: u64, len: usize, least: usize, random: &mut Random) -> usize {
    let upto = at + random.below(len as u64 + SECTOR as u64);
    let border = upto - upto % SECTOR as u64;
    let part = border.saturating_sub(at) as usize;
    if part < least || part > len {
        len
    } else {
        part
    }
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Handle {
    disk: SimulatedDisk,
    id: usize,
    life: u64,
}

impl Handle {
    pub(super) fn new(disk: SimulatedDisk, id: usize, life: u64) -> Self {
        Self { disk, id, life }
    }

    pub fn read(&self, at: u64, len: usize, into: &mut Vec<u8>) -> Result<usize> {
        let mut state = self.disk.state();
        match state.enter(Call::Read, self.life)? {
            Fate::Fails(error) => Err(error),
            _ => Ok(state.file(self.id)?.read(at, len, into)),
        }
    }

    pub fn read_into(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        let mut bytes = Vec::with_capacity(into.len());
        let read = self.read(at, into.len(), &mut bytes)?;
        into[..read].copy_from_slice(&bytes);
        Ok(read)
    }

    pub fn write(&self, at: u64, slices: &[IoSlice<'_>]) -> Result<usize> {
        let mut state = self.disk.state();
        let fate = state.enter(Call::Write, self.life)?;
        let state = &mut *state;
        let joined;
        let bytes: &[u8] = if let [one] = slices {
            one
        } else {
            joined = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .collect::<Vec<u8>>();
            &joined
        };
        let (now, full, short) = (state.now, state.full, state.habits.short_write_one_in);
        let mut random = state.random.clone();
        let mut count = match &fate {
            Fate::Whole if random.one_in(short) => part(at, bytes.len(), 1, &mut random),
            Fate::Whole => bytes.len(),
            Fate::Torn | Fate::Fails(_) => part(at, bytes.len(), 0, &mut random),
        };
        let file = state.file(self.id)?;
        if full {
            count = count.min(file.room(at, bytes.len()));
        }
        file.write(at, &bytes[..count], now, &mut random);
        state.random = random;
        match fate {
            Fate::Torn => Err(off()),
            Fate::Fails(error) => Err(error),
            Fate::Whole if count == 0 && !bytes.is_empty() => Err(Error::from_raw_os_error(ENOSPC)),
            Fate::Whole => Ok(count),
        }
    }

    pub fn allocate(&self, len: u64) -> Result<bool> {
        let mut state = self.disk.state();
        if !state.habits.fallocate {
            return Ok(false);
        }
        let fate = state.enter(Call::Make, self.life)?;
        // Block after block: whoever looks in between sees a part of it.
        let part = state.random.below(len / SECTOR as u64 + 1) * SECTOR as u64;
        let file = state.file(self.id)?;
        if part > file.len {
            file.resized(part);
        }
        match fate {
            Fate::Torn => return Err(off()),
            Fate::Fails(error) => return Err(error),
            Fate::Whole => {}
        }
        if len > file.len {
            file.resized(len);
        }
        file.reserved = file.reserved.max(len);
        Ok(true)
    }

    pub fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.disk.state();
        let torn = state.enter_whole(Call::Make, self.life)?;
        state.file(self.id)?.set_len(len);
        if torn { Err(off()) } else { Ok(()) }
    }

    pub fn clear(&self, at: u64, len: u64) -> Result<bool> {
        let mut state = self.disk.state();
        if !state.habits.fallocate {
            return Ok(false);
        }
        let fate = state.enter(Call::Write, self.life)?;
        let state = &mut *state;
        let len = match &fate {
            Fate::Torn => {
                // Sector after sector.
                let upto = at + state.random.below(len + 1);
                (upto - upto % SECTOR as u64).saturating_sub(at)
            }
            // As a file system without the call answers: the caller then writes zeros.
            Fate::Fails(error) if error.raw_os_error() != Some(EIO) => return Ok(false),
            Fate::Fails(_) => return Err(Error::from_raw_os_error(EIO)),
            Fate::Whole => len,
        };
        let mut random = state.random.clone();
        let now = state.now;
        let skipped = (state.lies.iter()).find_map(|lie| match lie {
            Lie::CutSkipped(part) => Some(*part),
            _ => None,
        });
        let file = state.file(self.id)?;
        if skipped.is_none_or(|part| !file.path.contains(part)) {
            file.clear(at, len, now, &mut random);
        }
        state.random = random;
        if matches!(fate, Fate::Torn) {
            Err(off())
        } else {
            Ok(true)
        }
    }

    pub fn len(&self) -> Result<u64> {
        let mut state = self.disk.state();
        match state.enter(Call::Read, self.life)? {
            Fate::Fails(error) => Err(error),
            _ => Ok(state.file(self.id)?.len),
        }
    }

    pub fn sync(&self) -> Result<()> {
        let mut state = self.disk.state();
        let fate = state.enter(Call::Sync, self.life)?;
        let state = &mut *state;
        let mut random = state.random.clone();
        let retried = state.lies(|lie| *lie == Lie::FailedSyncRetried);
        let skipped: Vec<&'static str> = (state.lies.iter())
            .filter_map(|lie| match lie {
                Lie::SyncSkipped(part) => Some(*part),
                _ => None,
            })
            .collect();
        let file = state.file(self.id)?;
        let answer = match fate {
            Fate::Whole => {
                if !skipped.iter().any(|part| file.path.contains(part)) {
                    file.sync();
                }
                Ok(())
            }
            Fate::Torn => {
                file.sync_some(&mut random);
                Err(off())
            }
            Fate::Fails(error) => {
                file.fail(&mut random);
                if retried { Ok(()) } else { Err(error) }
            }
        };
        state.random = random;
        answer
    }

    pub fn next_data(&self, at: u64) -> Result<Option<u64>> {
        let mut state = self.disk.state();
        if let Fate::Fails(error) = state.enter(Call::Read, self.life)? {
            return Err(error);
        }
        let holes = state.habits.holes;
        let file = state.file(self.id)?;
        if !holes {
            return Ok((at < file.len).then_some(at));
        }
        let first = file.cache.range(at / SECTOR as u64..).next();
        let found = first.map(|(number, _)| at.max(number * SECTOR as u64));
        Ok(found.filter(|found| *found < file.len))
    }
}
