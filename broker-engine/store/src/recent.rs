//! Files of the commit log that are in use, found by their first offset: putting a name together costs more than a read that it
//! is for. One that is read much for others is mapped as well.

use crate::disk::{self, Disk, File};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::Result;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Files that are kept.
const FILES: usize = 8;
/// Reads of a file, since it was last opened, after which it is mapped: making a map and taking it away again cost as much as some of them.
const MAPPED_AFTER: u32 = 64;

#[derive(Debug, Default)]
pub(crate) struct RecentFiles(Mutex<VecDeque<Recent>>);

#[derive(Debug)]
struct Recent {
    base: i64,
    file: Arc<File>,
    reads: u32,
    map: Option<Bytes>,
}

impl RecentFiles {
    /// The file that begins at `base`.
    pub fn open(&self, base: i64, disk: &Disk, path: impl Fn() -> PathBuf) -> Result<Arc<File>> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = recent.iter().position(|known| known.base == base) {
            let file = recent[index].file.clone();
            // The first is the next to go.
            if index + 1 < recent.len() {
                recent.swap(index, index + 1);
            }
            return Ok(file);
        }
        let file = disk.open(&path())?;
        if recent.len() >= FILES {
            recent.pop_front();
        }
        recent.push_back(Recent {
            base,
            file: file.clone(),
            reads: 0,
            map: None,
        });
        Ok(file)
    }

    /// All `len` bytes of the file that begins at `base`, for write calls only (see [`disk::map`]); nothing while it is not worth a map.
    pub fn mapped(&self, base: i64, len: usize) -> Option<Bytes> {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter_mut().find(|known| known.base == base)?;
        if known.map.is_none() {
            known.reads += 1;
            if known.reads.is_multiple_of(MAPPED_AFTER) {
                known.map = disk::map(&known.file, len);
            }
        }
        known.map.clone()
    }

    /// Files went, or others have their names now.
    pub fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Unmaps what was mapped, when nobody has read for a while.
    pub fn unmap(&self) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for known in recent.iter_mut() {
            (known.reads, known.map) = (0, None);
        }
    }
}
