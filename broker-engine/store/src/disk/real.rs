//! The calls themselves, as the operating system has them.

use super::Open;
use rustix::fs::FallocateFlags;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

pub(super) fn open(path: &Path, how: Open) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(how != Open::Existing)
        .truncate(how == Open::Anew)
        .open(path)
}

/// At most `len` bytes at `at`, into the buffer's spare room: it is not zeroed first.
pub(super) fn read(file: &File, at: u64, len: usize, into: &mut Vec<u8>) -> Result<usize> {
    let before = into.len();
    into.reserve(len);
    let read = loop {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(into), at) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    into.truncate(before + len.min(read));
    Ok(into.len() - before)
}

/// As many bytes as come at once.
pub(super) fn read_into(file: &File, at: u64, into: &mut [u8]) -> Result<usize> {
    loop {
        match file.read_at(into, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// As many bytes as go at once.
pub(super) fn write(file: &File, at: u64, slices: &[IoSlice<'_>]) -> Result<usize> {
    loop {
        match rustix::io::pwritev(file, slices, at) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Takes the blocks of a file's first `len` bytes, which is then its length; false where the file system cannot.
pub(super) fn allocate(file: &File, len: u64) -> Result<bool> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Turns a range into zeros without writing them, its blocks kept where that can be; false where the file system cannot.
pub(super) fn clear(file: &File, at: u64, len: u64) -> bool {
    #[cfg(target_os = "linux")]
    for flags in [
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    ] {
        if rustix::fs::fallocate(file, flags, at, len).is_ok() {
            return true;
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at, len);
    false
}

/// Where data may begin at or after `at`; `None` when only a hole follows. File systems that know no holes answer `at`.
pub(super) fn next_data(file: &File, at: u64) -> Result<Option<u64>> {
    #[cfg(target_os = "linux")]
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => return Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(_) => {}
    }
    Ok((at < file.metadata()?.len()).then_some(at))
}

/// Makes `next_data` find what was written from `at` on, and not what was read of a reserved stretch: the kernel takes any page
/// in its cache for data. Reads bring in nothing beyond their own end until `as_usual`.
pub(super) fn only_what_was_written(file: &File, at: u64) {
    #[cfg(target_os = "linux")]
    for advice in [rustix::fs::Advice::DontNeed, rustix::fs::Advice::Random] {
        // Advice: without it the same is read, and more of it. Pages not yet written stay.
        let _ = rustix::fs::fadvise(file, at, None, advice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, at);
}

/// Reads bring in what follows again.
pub(super) fn as_usual(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Normal);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// How much of `most` bytes from `at` on comes before a hole.
pub(super) fn data_len(file: &File, at: u64, most: usize) -> Result<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(hole) = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(at))
        && hole > at
    {
        return Ok(usize::try_from(hole - at).map_or(most, |len| len.min(most)));
    }
    let _ = (file, at);
    Ok(most)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)?.sync_all()
}

pub(super) fn sync_file_system(path: &Path) -> Result<()> {
    let root = File::open(path)?;
    #[cfg(target_os = "linux")]
    rustix::fs::syncfs(&root)?;
    #[cfg(not(target_os = "linux"))]
    {
        drop(root);
        rustix::fs::sync();
    }
    Ok(())
}

/// Names in a directory with their lengths, `None` for a directory. Others than plain files and directories are left out.
pub(super) fn entries(dir: &Path) -> Result<Vec<(String, Option<u64>)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if kind.is_dir() {
            found.push((name, None));
        } else if kind.is_file() {
            found.push((name, Some(entry.metadata()?.len())));
        }
    }
    Ok(found)
}

pub(super) fn modified(path: &Path) -> Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// Used share of the disk in percent, counted as Java does: blocks kept for root are neither used nor free, and a
/// broken percent counts as a whole one (`apache/rocketmq: common/.../UtilAll.java` getDiskPartitionSpaceUsedPercent).
pub(super) fn used_percent(path: &Path) -> Result<u32> {
    let stat = rustix::fs::statvfs(path)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let whole = used + stat.f_bavail;
    if whole == 0 {
        return Ok(0);
    }
    Ok((used * 100).div_ceil(whole) as u32)
}

/// A file locked as Java's `FileChannel.tryLock` does (`fcntl`).
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Files locked by this process: `fcntl` locks do not keep a process from itself.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// `None` when the file is locked already.
pub(super) fn lock(path: &Path) -> Result<Option<Lock>> {
    let dir = path.parent().unwrap_or(Path::new(".")).canonicalize()?;
    let path = dir.join(path.file_name().unwrap_or_default());
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    // Looked at first: closing a second descriptor of the file would drop the first one's lock.
    if held.contains(&path) {
        return Ok(None);
    }
    let file = open(&path, Open::Make)?;
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.write_all_at(b"lock", 0)?;
            held.insert(path.clone());
            Ok(Some(Lock { path, _file: file }))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&self.path);
    }
}
