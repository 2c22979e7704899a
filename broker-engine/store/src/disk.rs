//! The only place that touches files, so that a simulated disk can stand in its place: [`FileSystem`] and [`File`] are the
//! calls, one by one; all that is made of several calls stands here, above them, and is the same on both. `read_at`/`write_at`
//! rather than maps: a full or broken disk is an error, not a signal. What is only passed on may be mapped.

mod map;
mod real;
#[cfg(feature = "simulation")]
pub mod simulated;

use bytes::Bytes;
use std::collections::HashMap;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Pieces that one write carries; Linux allows 1024.
const SLICES: usize = 128;
/// The smallest piece that a disk writes whole.
pub(crate) const SECTOR: usize = 512;

/// Where files live.
#[derive(Clone, Debug, Default)]
pub enum FileSystem {
    /// The operating system's.
    #[default]
    Real,
    /// In memory, with the failures of a real one.
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedDisk),
}

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    Real(std::fs::File),
    #[cfg(feature = "simulation")]
    Simulated(simulated::Handle),
}

/// How a file is opened; always for reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    Existing,
    /// Made when it is not there.
    Make,
    /// Made, or emptied.
    Anew,
}

/// A lock that lasts as long as it is kept.
#[derive(Debug)]
pub(crate) enum Lock {
    Real {
        _lock: real::Lock,
    },
    #[cfg(feature = "simulation")]
    Simulated {
        _lock: simulated::Lock,
    },
}

/// Hands a call to whichever disk it is.
macro_rules! on {
    ($self:expr, $real:expr, $disk:ident => $simulated:expr) => {
        match $self {
            FileSystem::Real => $real,
            #[cfg(feature = "simulation")]
            FileSystem::Simulated($disk) => $simulated,
        }
    };
}
macro_rules! on_file {
    ($self:expr, $file:ident => $real:expr, $handle:ident => $simulated:expr) => {
        match $self {
            File::Real($file) => $real,
            #[cfg(feature = "simulation")]
            File::Simulated($handle) => $simulated,
        }
    };
}

impl FileSystem {
    pub(crate) fn open(&self, path: &Path, how: Open) -> Result<File> {
        on!(self, real::open(path, how).map(File::Real),
            disk => disk.open(path, how).map(File::Simulated))
    }

    /// Deletes a file. One that is not there is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        absent_is_fine(on!(self, std::fs::remove_file(path), disk => disk.remove(path)))
    }

    /// Deletes a directory with all in it. One that is not there is fine.
    pub(crate) fn remove_dir(&self, dir: &Path) -> Result<()> {
        absent_is_fine(on!(self, std::fs::remove_dir_all(dir), disk => disk.remove_dir_all(dir)))
    }

    /// Gives a file another name, over whatever had it.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        on!(self, std::fs::rename(from, to), disk => disk.rename(from, to))
    }

    /// Makes a directory with its parents.
    pub(crate) fn make_dir(&self, dir: &Path) -> Result<()> {
        on!(self, std::fs::create_dir_all(dir), disk => disk.make_dir_all(dir))
    }

    /// Makes a directory with its parents; that it is there is on disk when this returns.
    pub(crate) fn make_dir_synced(&self, dir: &Path) -> Result<()> {
        let mut missing = Vec::new();
        let mut at = dir;
        while !self.exists(at)? {
            match at.parent() {
                Some(parent) if parent.as_os_str().is_empty() => {
                    missing.push(Path::new("."));
                    break;
                }
                Some(parent) => missing.push(parent),
                None => break,
            }
            at = missing[missing.len() - 1];
        }
        self.make_dir(dir)?;
        for parent in missing.iter().rev() {
            self.sync_dir(parent)?;
        }
        if missing.is_empty() {
            // Whoever made it may have died before this. One that is not ours to read was not made by us.
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            match self.sync_dir(parent.unwrap_or(Path::new("."))) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Names made or removed in `dir` are on disk when this returns.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<()> {
        on!(self, real::sync_dir(dir), disk => disk.sync_dir(dir))
    }

    /// All that was written to the file system that holds `path` is on disk when this returns.
    pub(crate) fn sync_all(&self, path: &Path) -> Result<()> {
        on!(self, real::sync_file_system(path), disk => disk.sync_all(path))
    }

    fn entries(&self, dir: &Path) -> Result<Vec<(String, Option<u64>)>> {
        let mut found = match on!(self, real::entries(dir), disk => disk.entries(dir)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        found.sort();
        Ok(found)
    }

    /// Plain files of a directory with their lengths, in name order; none when the directory is not there.
    pub(crate) fn list(&self, dir: &Path) -> Result<Vec<(String, u64)>> {
        let files = self.entries(dir)?.into_iter();
        Ok(files.filter_map(|(name, len)| Some((name, len?))).collect())
    }

    /// Directories in a directory, in name order; none when it is not there.
    pub(crate) fn list_dirs(&self, dir: &Path) -> Result<Vec<String>> {
        let dirs = self.entries(dir)?.into_iter();
        Ok(dirs
            .filter(|(_, len)| len.is_none())
            .map(|(name, _)| name)
            .collect())
    }

    /// When a file was last written.
    pub(crate) fn modified(&self, path: &Path) -> Result<SystemTime> {
        on!(self, real::modified(path), disk => disk.modified(path))
    }

    /// Whether a path exists.
    pub(crate) fn exists(&self, path: &Path) -> Result<bool> {
        on!(self, path.try_exists(), disk => disk.exists(path))
    }

    /// Used share of the disk in percent, counted as Java does.
    pub(crate) fn used_percent(&self, path: &Path) -> Result<u32> {
        on!(self, real::used_percent(path), disk => disk.used_percent(path))
    }

    /// Opens or makes a file and locks it against other processes and other owners in this one; `None` when it is locked.
    pub(crate) fn lock(&self, path: &Path) -> Result<Option<Lock>> {
        on!(self, Ok(real::lock(path)?.map(|lock| Lock::Real { _lock: lock })),
            disk => Ok(disk.lock(path)?.map(|lock| Lock::Simulated { _lock: lock })))
    }

    /// A whole small file.
    pub(crate) fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let file = self.open(path, Open::Existing)?;
        let len = file.len()?;
        read_at(&file, 0, len as usize)
    }

    /// Writes a whole small file in place and syncs it.
    pub(crate) fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let file = self.open(path, Open::Anew)?;
        write_at(&file, bytes, 0)?;
        file.sync_all()
    }
}

fn absent_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl File {
    fn read(&self, at: u64, len: usize, into: &mut Vec<u8>) -> Result<usize> {
        on_file!(self, file => real::read(file, at, len, into), handle => handle.read(at, len, into))
    }
    fn read_into(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        on_file!(self, file => real::read_into(file, at, into), handle => handle.read_into(at, into))
    }
    fn write(&self, at: u64, slices: &[IoSlice<'_>]) -> Result<usize> {
        on_file!(self, file => real::write(file, at, slices), handle => handle.write(at, slices))
    }
    fn allocate(&self, len: u64) -> Result<bool> {
        on_file!(self, file => real::allocate(file, len), handle => handle.allocate(len))
    }
    fn clear(&self, at: u64, len: u64) -> Result<bool> {
        on_file!(self, file => Ok(real::clear(file, at, len)), handle => handle.clear(at, len))
    }
    pub(crate) fn len(&self) -> Result<u64> {
        on_file!(self, file => Ok(file.metadata()?.len()), handle => handle.len())
    }
    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        on_file!(self, file => file.set_len(len), handle => handle.set_len(len))
    }
    fn sync_data(&self) -> Result<()> {
        on_file!(self, file => file.sync_data(), handle => handle.sync())
    }
    fn sync_all(&self) -> Result<()> {
        on_file!(self, file => file.sync_all(), handle => handle.sync())
    }
}

/// Files that are open, at most `capacity` of them: ten thousand topics must fit in a process's 1024 descriptors.
/// A file that is evicted stays usable for whoever holds its `Arc`.
#[derive(Debug)]
pub(crate) struct Disk {
    pub fs: FileSystem,
    open: Mutex<OpenFiles>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct OpenFiles {
    files: HashMap<PathBuf, (Arc<File>, u64)>,
    tick: u64,
}

impl Disk {
    pub fn new(fs: FileSystem, capacity: usize) -> Self {
        Self {
            fs,
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
        let file = Arc::new(self.fs.open(path, Open::Existing)?);
        self.keep(&mut open, path, &file, tick);
        Ok(file)
    }

    /// A new file of `len` zero bytes. `reserve` takes the blocks now, so that a later write cannot find the disk full;
    /// where the file system cannot reserve, the file is sparse. On an error no file is left behind.
    pub fn create(&self, path: &Path, len: u64, reserve: bool) -> Result<Arc<File>> {
        let file = self.fs.open(path, Open::Anew)?;
        let reserved = if reserve {
            file.allocate(len)
        } else {
            Ok(false)
        };
        let sized = reserved.and_then(|done| if done { Ok(()) } else { file.set_len(len) });
        if let Err(error) = sized {
            drop(file);
            // The name must not stay: a file of another length makes the next start fail.
            let _ = self.fs.remove(path);
            return Err(error);
        }
        let file = Arc::new(file);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.tick += 1;
        let tick = open.tick;
        self.keep(&mut open, path, &file, tick);
        Ok(file)
    }

    fn keep(&self, open: &mut OpenFiles, path: &Path, file: &Arc<File>, tick: u64) {
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
        self.fs.remove(path)
    }

    /// Gives a directory another name; false when it is not there.
    pub fn rename_dir(&self, from: &Path, to: &Path) -> Result<bool> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.files.retain(|path, _| !path.starts_with(from));
        match self.fs.rename(from, to) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Deletes a directory with all in it. One that is not there is fine.
    pub fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .files
            .retain(|path, _| !path.starts_with(dir));
        self.fs.remove_dir(dir)
    }
}

/// What was written and made, and is not known to be on disk.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    pub files: Vec<PathBuf>,
    /// Directories in which names were made or removed.
    pub dirs: Vec<PathBuf>,
}

impl Unsynced {
    /// All of it, each once.
    pub fn take(&mut self) -> Self {
        let mut taken = std::mem::take(self);
        for paths in [&mut taken.files, &mut taken.dirs] {
            paths.sort();
            paths.dedup();
        }
        taken
    }
}

/// `len` bytes at `at`; fewer only at the file's end. The buffer is not zeroed first.
pub(crate) fn read_at(file: &File, at: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.max(1));
    while bytes.len() < len {
        let from = at + bytes.len() as u64;
        if file.read(from, len - bytes.len(), &mut bytes)? == 0 {
            break;
        }
    }
    Ok(bytes)
}

/// Exactly `N` bytes at `at`; zeros beyond the file's end.
pub(crate) fn read_array<const N: usize>(file: &File, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut done = 0;
    while done < N {
        match file.read_into(at + done as u64, &mut bytes[done..])? {
            0 => break,
            read => done += read,
        }
    }
    Ok(bytes)
}

/// Writes all of `bytes` at `at`.
pub(crate) fn write_at(file: &File, mut bytes: &[u8], mut at: u64) -> Result<()> {
    while !bytes.is_empty() {
        match file.write(at, &[IoSlice::new(bytes)])? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => {
                bytes = &bytes[written..];
                at += written as u64;
            }
        }
    }
    Ok(())
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
        let mut written = match file.write(at, &slices[..count])? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => written,
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

/// A file's first `len` bytes, to be passed on unseen; nothing where files cannot be mapped, as on the simulated disk.
pub(crate) fn map(file: &File, len: usize) -> Option<Bytes> {
    on_file!(file, file => map::map(file, len), _handle => None)
}

/// Data and the size that reading it needs are on disk when this returns.
pub(crate) fn sync(file: &File) -> Result<()> {
    file.sync_data()
}

/// Turns a range into zeros, keeping its blocks where the file system can.
pub(crate) fn zero(file: &File, at: u64, len: u64) -> Result<()> {
    if len == 0 || file.clear(at, len)? {
        return Ok(());
    }
    // Only what is no zero yet: a hole may find no room for zeros.
    let mut done = 0;
    while done < len {
        let bytes = read_at(file, at + done, (1 << 20).min(len - done) as usize)?;
        if bytes.is_empty() {
            break;
        }
        let mut rest = bytes.as_slice();
        let mut from = at + done;
        while !rest.is_empty() {
            // Sector by sector: a crash must not leave one that is zeros at its start only.
            let len = (SECTOR - (from % SECTOR as u64) as usize).min(rest.len());
            let (sector, others) = rest.split_at(len);
            if let (Some(first), Some(last)) = (
                sector.iter().position(|byte| *byte != 0),
                sector.iter().rposition(|byte| *byte != 0),
            ) {
                write_at(file, &[0; SECTOR][first..=last], from + first as u64)?;
            }
            rest = others;
            from += len as u64;
        }
        done += bytes.len() as u64;
    }
    Ok(())
}

/// Where data may begin at or after `at`; `None` when only a hole follows. File systems that know no holes answer `at`.
pub(crate) fn next_data(file: &File, at: u64) -> Result<Option<u64>> {
    on_file!(file, file => real::next_data(file, at), handle => handle.next_data(at))
}

/// Until [`read_as_usual`], looking for data from `at` on finds what was written, not what was only read of a reserved stretch.
pub(crate) fn only_what_was_written(file: &File, at: u64) {
    on_file!(file, file => real::only_what_was_written(file, at), _handle => ());
}

/// See [`only_what_was_written`].
pub(crate) fn read_as_usual(file: &File) {
    on_file!(file, file => real::as_usual(file), _handle => ());
}

/// How much of `most` bytes, where data begins at `at`, comes before a hole; all of it where holes are not known.
pub(crate) fn data_len(file: &File, at: u64, most: usize) -> Result<usize> {
    on_file!(file, file => real::data_len(file, at, most), _handle => Ok(most))
}

/// Whether an error means that no room is left.
pub(crate) fn is_full(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
