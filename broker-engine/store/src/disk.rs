//! The only place that touches files, so that a simulated disk can stand in its place. `read_at`/`write_at`, no maps:
//! a full disk is an error, not a signal.

use bytes::Bytes;
use rustix::fs::FallocateFlags;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Pieces that one write carries; Linux allows 1024.
const SLICES: usize = 128;

/// Files that are open, at most `capacity` of them: ten thousand topics must fit in a process's 1024 descriptors.
/// A file that is evicted stays usable for whoever holds its `Arc`.
#[derive(Debug)]
pub(crate) struct Disk {
    open: Mutex<Open>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Open {
    files: HashMap<PathBuf, (Arc<File>, u64)>,
    tick: u64,
}

impl Disk {
    pub fn new(capacity: usize) -> Self {
        Self {
            open: Mutex::default(),
            capacity: capacity.max(4),
        }
    }

    /// An existing file, for reading and writing.
    pub fn open(&self, path: &Path) -> Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.tick += 1;
        let tick = open.tick;
        if let Some((file, used)) = open.files.get_mut(path) {
            *used = tick;
            return Ok(file.clone());
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        self.keep(&mut open, path, &file, tick);
        Ok(file)
    }

    /// A new file of `len` zero bytes. `reserve` takes the blocks now, so that a later write cannot find the disk full;
    /// where the file system cannot reserve, the file is sparse. On an error no file is left behind.
    pub fn create(&self, path: &Path, len: u64, reserve: bool) -> Result<Arc<File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let sized = if reserve {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len),
                other => other.map_err(Error::from),
            }
        } else {
            file.set_len(len)
        };
        if let Err(error) = sized {
            drop(file);
            // The name must not stay: a file of another length makes the next start fail.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        let file = Arc::new(file);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.tick += 1;
        let tick = open.tick;
        self.keep(&mut open, path, &file, tick);
        Ok(file)
    }

    fn keep(&self, open: &mut Open, path: &Path, file: &Arc<File>, tick: u64) {
        if open.files.len() >= self.capacity {
            // The oldest quarter goes at once, so that the sort is paid once in many opens.
            let mut ticks: Vec<u64> = open.files.values().map(|(_, used)| *used).collect();
            let quarter = ticks.len() / 4;
            let (_, limit, _) = ticks.select_nth_unstable(quarter);
            let limit = *limit;
            open.files.retain(|_, (_, used)| *used > limit);
        }
        open.files.insert(path.to_owned(), (file.clone(), tick));
    }

    /// Deletes a file. One that is not there is fine.
    pub fn remove(&self, path: &Path) -> Result<()> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .remove(path);
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Deletes a directory with all in it. One that is not there is fine.
    pub fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .retain(|path, _| !path.starts_with(dir));
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// `len` bytes at `at`; fewer only at the file's end. The buffer is not zeroed first.
pub(crate) fn read_at(file: &File, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.max(1));
    while bytes.len() < len {
        let from = at + bytes.len() as u64;
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), from) {
            Ok(0) => break,
            Ok(_) => bytes.truncate(len),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Exactly `N` bytes at `at`; zeros beyond the file's end.
pub(crate) fn read_array<const N: usize>(file: &File, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut done = 0;
    while done < N {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Writes all of `bytes` at `at`.
pub(crate) fn write_at(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    file.write_all_at(bytes, at)
}

/// Writes all of `pieces`, back to back, at `at`.
pub(crate) fn write_all_at(file: &File, pieces: &[Bytes], mut at: u64) -> Result<()> {
    let mut rest = pieces;
    // Bytes of the first piece that are written.
    let mut done = 0;
    while !rest.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = rest.len().min(SLICES);
        for (slice, piece) in slices.iter_mut().zip(rest) {
            *slice = IoSlice::new(piece);
        }
        slices[0] = IoSlice::new(&rest[0][done..]);
        let mut written = match rustix::io::pwritev(file, &slices[..count], at) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        at += written as u64;
        while let Some((first, others)) = rest.split_first()
            && written >= first.len() - done
        {
            written -= first.len() - done;
            done = 0;
            rest = others;
        }
        done += written;
    }
    Ok(())
}

/// Data and the size that reading it needs are on disk when this returns.
pub(crate) fn sync(file: &File) -> Result<()> {
    file.sync_data()
}

/// All that was written to the file system that holds `path` is on disk when this returns.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
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

/// Names made or removed in `dir` are on disk when this returns.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory with its parents.
pub(crate) fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
}

/// Turns a range into zeros, keeping its blocks where the file system can.
pub(crate) fn zero(file: &File, at: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Ok(());
    }
    #[cfg(target_os = "linux")]
    for flags in [
        FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
    ] {
        if rustix::fs::fallocate(file, flags, at, len).is_ok() {
            return Ok(());
        }
    }
    let zeros = vec![0u8; 1 << 20];
    let mut done = 0;
    while done < len {
        let part = (len - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], at + done)?;
        done += part;
    }
    Ok(())
}

/// Where data may begin at or after `at`; `None` when only a hole follows. File systems that know no holes answer `at`.
pub(crate) fn next_data(file: &File, at: u64) -> Result<Option<u64>> {
    #[cfg(target_os = "linux")]
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(found) => return Ok(Some(found)),
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        Err(_) => {}
    }
    Ok((at < file.metadata()?.len()).then_some(at))
}

/// Plain files of a directory with their lengths, in name order; none when the directory is not there.
pub(crate) fn list(dir: &Path) -> Result<Vec<(String, u64)>> {
    entries(dir, false)
}

/// Directories in a directory, in name order; none when it is not there.
pub(crate) fn list_dirs(dir: &Path) -> Result<Vec<String>> {
    Ok(entries(dir, true)?
        .into_iter()
        .map(|(name, _)| name)
        .collect())
}

fn entries(dir: &Path, dirs: bool) -> Result<Vec<(String, u64)>> {
    let mut found = Vec::new();
    let read = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in read {
        let entry = entry?;
        let kind = entry.file_type()?;
        if let (Ok(name), true) = (
            entry.file_name().into_string(),
            if dirs { kind.is_dir() } else { kind.is_file() },
        ) {
            let len = if dirs { 0 } else { entry.metadata()?.len() };
            found.push((name, len));
        }
    }
    found.sort();
    Ok(found)
}

/// When a file was last written.
pub(crate) fn modified(path: &Path) -> Result<SystemTime> {
    std::fs::metadata(path)?.modified()
}

/// Whether a path exists.
pub(crate) fn exists(path: &Path) -> bool {
    path.exists()
}

/// Used share of the disk in percent, counted as Java does: blocks kept for root are neither used nor free, and a
/// broken percent counts as a whole one (`apache/rocketmq: common/.../UtilAll.java` getDiskPartitionSpaceUsedPercent).
pub(crate) fn used_percent(path: &Path) -> Result<u32> {
    let stat = rustix::fs::statvfs(path)?;
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let whole = used + stat.f_bavail;
    if whole == 0 {
        return Ok(0);
    }
    Ok((used * 100).div_ceil(whole) as u32)
}

/// A whole small file.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path)
}

/// Writes a whole small file in place and syncs it.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = File::create(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// Gives a file another name, over whatever had it.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
}

/// Opens or makes a file and locks it as Java's `FileChannel.tryLock` does (`fcntl`); `None` when another process holds it.
pub(crate) fn lock_file(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.write_all_at(b"lock", 0)?;
            Ok(Some(file))
        }
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an error means that no room is left.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// Opens a file for reading and writing, making it when it is not there.
pub(crate) fn open_or_make(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}
