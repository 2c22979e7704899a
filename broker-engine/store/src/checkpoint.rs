//! What is safely on disk, and whether the last stop was clean: `checkpoint`, `abort`, `lock`.
//!
//! The first 48 bytes of `checkpoint` are Java's (`apache/rocketmq: store/.../StoreCheckpoint.java`; the sixth field came
//! with 5.5, whose recovery begins at it). In the page's second half stands our mark, out of the way of fields to come: the position up to which queues and index hold every record, so that a restart reads only what came later. A Java
//! broker leaves it alone, and it stays true while Java appends.

use crate::disk::{self, File, FileSystem, Lock, Open};
use crate::error::{StoreError, io_error};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

const LEN: usize = 4096;
const MARK: &[u8; 8] = b"rmqmark1";
const MARK_AT: usize = 2048;
const MARK_LEN: usize = 56;

/// Contents of the checkpoint file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub physic_timestamp: i64,
    pub logics_timestamp: i64,
    pub index_timestamp: i64,
    pub master_flushed: i64,
    pub confirm_offset: i64,
    /// The queues hold every record before this position; 0 in what a broker before 5.5 wrote.
    pub logics_offset: i64,
    pub mark: Option<Mark>,
}

/// Where dispatching stood when all it had made was synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Queues and index hold every record before this position.
    pub dispatched: i64,
    /// The commit log was synced up to here.
    pub synced: i64,
    /// How many queues there were, and the sum of their ends: if it differs at the next start, queues were deleted.
    pub queues: u64,
    pub queue_ends: u64,
    /// Offset of the newest indexed record, -1 without one.
    pub index_end: i64,
}

impl Checkpoint {
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN);
        for field in [
            self.physic_timestamp,
            self.logics_timestamp,
            self.index_timestamp,
            self.master_flushed,
            self.confirm_offset,
            self.logics_offset,
        ] {
            bytes.extend_from_slice(&field.to_be_bytes());
        }
        if let Some(mark) = self.mark {
            bytes.resize(MARK_AT, 0);
            bytes.extend_from_slice(MARK);
            for field in [
                mark.dispatched,
                mark.synced,
                mark.queues as i64,
                mark.queue_ends as i64,
                mark.index_end,
            ] {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
            let sum = checksum(&bytes[MARK_AT..]);
            bytes.extend_from_slice(&sum.to_be_bytes());
        }
        bytes.resize(LEN, 0);
        bytes
    }

    /// A file that is too short or whose mark does not add up is read as far as it makes sense: recovery then only reads more of the log.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let long = |at: usize| {
            bytes.get(at..at + 8).map_or(0, |b| {
                i64::from_be_bytes(b.try_into().expect("eight bytes were taken"))
            })
        };
        let marked = bytes.get(MARK_AT..MARK_AT + MARK_LEN).is_some_and(|mark| {
            mark.starts_with(MARK) && checksum(&mark[..48]) == long(MARK_AT + 48) as u64
        });
        Self {
            physic_timestamp: long(0),
            logics_timestamp: long(8),
            index_timestamp: long(16),
            master_flushed: long(24),
            confirm_offset: long(32),
            logics_offset: long(40),
            mark: marked.then(|| Mark {
                dispatched: long(MARK_AT + 8),
                synced: long(MARK_AT + 16),
                queues: long(MARK_AT + 24) as u64,
                queue_ends: long(MARK_AT + 32) as u64,
                index_end: long(MARK_AT + 40),
            }),
        }
    }
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The checkpoint file.
pub(crate) fn path(root: &Path) -> PathBuf {
    root.join("checkpoint")
}

/// Reads the checkpoint; one that is not there is empty.
pub(crate) fn read(fs: &FileSystem, root: &Path) -> Result<Checkpoint, StoreError> {
    let path = path(root);
    match fs.read_file(&path) {
        Ok(bytes) => Ok(Checkpoint::from_bytes(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Checkpoint::default()),
        Err(error) => Err(io_error("reading", &path)(error)),
    }
}

/// Overwrites the checkpoint in place (it is one sector of data in a page) and syncs it.
pub(crate) fn write(file: &File, checkpoint: Checkpoint) -> Result<(), Error> {
    disk::write_at(file, &checkpoint.to_bytes(), 0)?;
    disk::sync(file)
}

/// Opens the checkpoint file, making it when it is not there. It has its whole length from the start: a store whose disk is full
/// before the first checkpoint must be able to open again, which writes the file anew.
pub(crate) fn open(fs: &FileSystem, root: &Path) -> Result<File, StoreError> {
    let path = path(root);
    let file = fs
        .open(&path, Open::Make)
        .map_err(io_error("opening", &path))?;
    let len = file.len().map_err(io_error("reading", &path))?;
    if len < LEN as u64 {
        disk::write_at(&file, &[0; LEN][len as usize..], len)
            .and_then(|()| disk::sync(&file))
            .map_err(io_error("writing", &path))?;
    }
    Ok(file)
}

/// The marker that a clean stop removes.
pub(crate) fn abort_path(root: &Path) -> PathBuf {
    root.join("abort")
}

/// What `abort` says from a failed write or sync on.
const FAILED: &[u8] = b"failed";

/// Notes in `abort` that a write or sync failed. Not synced: what it tells of lies in the page cache too, and both go with it.
pub(crate) fn mark_failed(fs: &FileSystem, root: &Path) {
    // Best effort: a disk that takes not even this does not take the next start either.
    let _ = fs
        .open(&abort_path(root), Open::Make)
        .and_then(|file| disk::write_at(&file, FAILED, 0));
}

/// Whether the last owner stopped over a failed write or sync: the page cache may then hold what the disk never will, though
/// a sync says otherwise.
pub(crate) fn had_failed(fs: &FileSystem, root: &Path) -> Result<bool, StoreError> {
    let path = abort_path(root);
    let text = fs.read_file(&path).map_err(io_error("reading", &path))?;
    Ok(text.starts_with(FAILED))
}

/// Makes the `abort` marker with our process id, as Java does.
pub(crate) fn mark_running(fs: &FileSystem, root: &Path) -> Result<(), StoreError> {
    let path = abort_path(root);
    fs.write_file(&path, std::process::id().to_string().as_bytes())
        .and_then(|()| fs.sync_dir(root))
        .map_err(io_error("making", &path))
}

/// Holds a store against other processes and other owners in this one (`lock`, a lock as Java's).
pub(crate) fn lock(fs: &FileSystem, root: &Path) -> Result<Lock, StoreError> {
    let path = root.join("lock");
    fs.lock(&path)
        .map_err(io_error("locking", &path))?
        .ok_or_else(|| StoreError::Locked(root.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Checkpoint {
        Checkpoint {
            physic_timestamp: 1_700_000_000_001,
            logics_timestamp: 1_700_000_000_002,
            index_timestamp: 3,
            master_flushed: 4,
            confirm_offset: 5,
            logics_offset: 6,
            mark: Some(Mark {
                dispatched: 6,
                synced: 7,
                queues: 8,
                queue_ends: 9,
                index_end: -1,
            }),
        }
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let bytes = full().to_bytes();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(bytes[..8], 1_700_000_000_001_i64.to_be_bytes());
        assert_eq!(Checkpoint::from_bytes(&bytes), full());
    }

    #[test]
    fn a_checkpoint_cut_or_changed_anywhere_in_its_mark_has_none() {
        let bytes = full().to_bytes();
        for len in (0..MARK_AT + MARK_LEN).step_by(7) {
            assert_eq!(
                Checkpoint::from_bytes(&bytes[..len]).mark,
                None,
                "cut at {len}"
            );
        }
        for at in MARK_AT..MARK_AT + MARK_LEN {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                Checkpoint::from_bytes(&changed).mark,
                None,
                "changed at {at}"
            );
        }
    }
}
