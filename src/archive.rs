//! Tar archives of files on their way to and from nodes: plain files and directories, and nothing else.
//!
//! An archive that comes out of a node is a stranger's. Links and devices in it are left out and told, a name that leaves the
//! target is an error, no path is followed through a symlink, and size and count are bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes, BytesMut};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use tar::EntryType;
use tokio::sync::mpsc::{Receiver, Sender};

/// Pieces of an archive on their way.
pub const PIECES_WAITING_MAX: usize = 16;
const PIECE: usize = 256 << 10;
const ENTRIES_MAX: u64 = 100_000;

/// What an archive held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    #[allow(missing_docs)]
    pub files: u64,
    /// Of all files together.
    pub bytes: u64,
    /// What was left out, each with why.
    pub skipped: Vec<String>,
}

/// Where an archive's first name goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// Into this directory, under the name it has.
    Into(&'a Path),
    /// To this path: the name it has is replaced.
    As(&'a Path),
}

/// Unpacks at most `bytes_max` bytes of files.
pub fn unpack(archive: impl Read, place: Place<'_>, bytes_max: u64) -> io::Result<Summary> {
    let (dir, rename) = match place {
        Place::Into(dir) => (dir, None),
        Place::As(path) => {
            let name = path
                .file_name()
                .ok_or_else(|| invalid(format!("{} names no file", path.display())))?;
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            (dir.unwrap_or(Path::new(".")), Some(name))
        }
    };
    let root = open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", dir.display()))
    })?;
    let mut summary = Summary::default();
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in (1..).zip(archive.entries()?) {
        if count > ENTRIES_MAX {
            return Err(invalid(format!("more than {ENTRIES_MAX} files")));
        }
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let names = names_of(&path)?;
        let Some((last, parents)) = names.split_last() else {
            continue;
        };
        let renamed = |at: usize, name| match rename {
            Some(new) if at == 0 => new,
            _ => name,
        };
        match entry.header().entry_type() {
            EntryType::Directory => {
                let all: Vec<&OsStr> = names
                    .iter()
                    .enumerate()
                    .map(|(i, n)| renamed(i, *n))
                    .collect();
                descend(&root, &all)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let parents: Vec<&OsStr> = parents
                    .iter()
                    .enumerate()
                    .map(|(i, n)| renamed(i, *n))
                    .collect();
                let dir = descend(&root, &parents)?;
                let name = renamed(parents.len(), *last);
                // Only the permissions of the owner's own kind: no set-id bits, and the owner can always read it.
                let mode = Mode::from_raw_mode(entry.header().mode()? & 0o777 | 0o600);
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::TRUNC
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file = File::from(
                    openat(&dir, name, flags, mode).map_err(|e| io::Error::from(e).about(&path))?,
                );
                let room = bytes_max - summary.bytes;
                // One more than there is room for tells a file that fits from one that does not.
                let copied = io::copy(&mut entry.by_ref().take(room + 1), &mut file)?;
                if copied > room {
                    return Err(invalid(format!("it holds more than {bytes_max} bytes")));
                }
                summary.bytes += copied;
                summary.files += 1;
            }
            other => summary
                .skipped
                .push(format!("{}: {}", path.display(), kind_words(other))),
        }
    }
    Ok(summary)
}

/// Errors that say what they are about.
trait Named {
    /// The error with the path that it is about.
    fn about(self, path: &Path) -> io::Error;
}

impl Named for io::Error {
    fn about(self, path: &Path) -> io::Error {
        io::Error::new(self.kind(), format!("{}: {self}", path.display()))
    }
}

/// The names of a path below the target; one that leaves it is an error.
fn names_of(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => {
                return Err(invalid(format!(
                    "the name {} leads out of the archive",
                    path.display()
                )));
            }
        }
    }
    Ok(names)
}

/// Opens the directory below `root`, made where it is missing. A symlink on the way is an error.
fn descend(root: &OwnedFd, names: &[&OsStr]) -> io::Result<OwnedFd> {
    let mut at = root.try_clone()?;
    for name in names {
        match mkdirat(&at, *name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(io::Error::from(e).about(Path::new(name))),
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat(&at, *name, flags, Mode::empty())
            .map_err(|e| io::Error::from(e).about(Path::new(name)))?;
    }
    Ok(at)
}

fn kind_words(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "a symlink",
        EntryType::Link => "a hard link",
        EntryType::Fifo => "a pipe",
        _ => "no plain file",
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Packs a file, or a directory with all below it, under `name`; everything in it belongs to `owner` there.
pub fn pack(source: &Path, name: &OsStr, owner: u64, to: impl Write) -> io::Result<Summary> {
    let mut archive = tar::Builder::new(to);
    let mut summary = Summary::default();
    let mut waiting = vec![(source.to_path_buf(), PathBuf::from(name))];
    while let Some((path, name)) = waiting.pop() {
        let meta = path.symlink_metadata().map_err(|e| e.about(&path))?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&meta);
        header.set_uid(owner);
        header.set_gid(owner);
        if meta.is_dir() {
            header.set_size(0);
            archive.append_data(&mut header, &name, io::empty())?;
            for entry in std::fs::read_dir(&path).map_err(|e| e.about(&path))? {
                let entry = entry?;
                waiting.push((entry.path(), name.join(entry.file_name())));
            }
        } else if meta.is_file() {
            let file = File::open(&path).map_err(|e| e.about(&path))?;
            header.set_size(meta.len());
            // A file that grows meanwhile is cut at the length told; one that shrinks is padded, or the archive would be torn.
            archive.append_data(
                &mut header,
                &name,
                file.chain(io::repeat(0)).take(meta.len()),
            )?;
            summary.files += 1;
            summary.bytes += meta.len();
        } else {
            summary
                .skipped
                .push(format!("{}: no plain file", path.display()));
        }
    }
    archive.into_inner()?.flush()?;
    Ok(summary)
}

/// How an archive of one container becomes one for another.
#[derive(Clone, Copy, Debug)]
pub struct Rehome<'a> {
    /// Directory that what it holds goes to; of a file, its new path.
    pub below: &'a Path,
    #[allow(missing_docs)]
    pub is_file: bool,
    /// Names at its top that are left out.
    pub without: &'a [String],
    /// Whose all of it is.
    pub owner: u64,
}

/// Passes an archive on under other names and another owner; times stay, since a store's files expire by them. An archive that ends early is
/// an error.
pub fn rehome(from: impl Read, how: &Rehome<'_>, to: impl Write) -> io::Result<Summary> {
    let mut source = tar::Archive::new(Ending::new(from));
    let mut out = tar::Builder::new(to);
    let mut summary = Summary::default();
    for entry in source.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let names = names_of(&path)?;
        let leaves = |name: &&OsStr| how.without.iter().any(|without| *name == without.as_str());
        if names.first().is_some_and(leaves) {
            continue;
        }
        let mut name = how.below.to_path_buf();
        if !how.is_file {
            name.extend(names);
        }
        if name.as_os_str().is_empty() {
            name.push(".");
        }
        let kind = entry.header().entry_type();
        let is_dir = kind == EntryType::Directory;
        if !is_dir
            && !matches!(
                kind,
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
            )
        {
            summary
                .skipped
                .push(format!("{}: {}", path.display(), kind_words(kind)));
            continue;
        }
        let size = if is_dir { 0 } else { entry.size() };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(if is_dir {
            EntryType::Directory
        } else {
            EntryType::Regular
        });
        let own = if is_dir { 0o700 } else { 0o600 };
        header.set_mode(entry.header().mode()? & 0o777 | own);
        header.set_mtime(entry.header().mtime()?);
        header.set_uid(how.owner);
        header.set_gid(how.owner);
        header.set_size(size);
        out.append_data(&mut header, &name, &mut entry)?;
        if !is_dir {
            summary.files += 1;
            summary.bytes += size;
        }
    }
    let mut end = source.into_inner();
    io::copy(&mut end, &mut io::sink())?;
    if !end.is_whole() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the archive ends early",
        ));
    }
    out.into_inner()?.flush()?;
    Ok(summary)
}

/// Remembers how an archive ended: whole ones end in a block of zeros, and readers take the end of the stream for that too.
struct Ending<R> {
    inner: R,
    /// Zeros at the end of what was read so far.
    zeros: usize,
}

impl<R> Ending<R> {
    fn new(inner: R) -> Self {
        Self { inner, zeros: 0 }
    }

    fn is_whole(&self) -> bool {
        self.zeros >= 512
    }
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        let zeros = into[..count].iter().rev().take_while(|b| **b == 0).count();
        self.zeros = if zeros == count {
            self.zeros + zeros
        } else {
            zeros
        };
        Ok(count)
    }
}

/// What the beginning of an archive shows.
#[derive(Debug, PartialEq, Eq)]
pub enum Glanced {
    /// Plain files with their sizes, and what the first holds if all of it is there.
    Files {
        #[allow(missing_docs)]
        files: Vec<(String, u64)>,
        #[allow(missing_docs)]
        first: Option<Vec<u8>>,
    },
    /// The path asked for is a link to this one.
    Link(PathBuf),
}

/// Reads as much of an archive as its first piece has.
pub fn glance(head: &[u8]) -> io::Result<Glanced> {
    let mut archive = tar::Archive::new(head);
    let mut files = Vec::new();
    let mut first = None;
    for (count, entry) in archive.entries()?.enumerate() {
        // Where the piece ends, so does what is known.
        let Ok(mut entry) = entry else { break };
        let kind = entry.header().entry_type();
        if count == 0
            && kind == EntryType::Symlink
            && let Some(target) = entry.link_name()?
        {
            return Ok(Glanced::Link(target.into_owned()));
        }
        if kind.is_file() {
            let size = entry.size();
            files.push((entry.path()?.display().to_string(), size));
            if files.len() == 1 {
                let mut text = Vec::new();
                let whole = entry.read_to_end(&mut text).is_ok() && text.len() as u64 == size;
                first = whole.then_some(text);
            }
        }
    }
    Ok(Glanced::Files { files, first })
}

/// Writes into a channel; for threads that may block.
pub struct ToChannel {
    pieces: Sender<Bytes>,
    buffer: BytesMut,
}

impl ToChannel {
    /// Pieces go to `pieces`; the last one when it is flushed.
    pub fn new(pieces: Sender<Bytes>) -> Self {
        Self {
            pieces,
            buffer: BytesMut::new(),
        }
    }
}

impl Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = self.buffer.split().freeze();
        self.pieces
            .blocking_send(piece)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Reads from a channel; for threads that may block.
pub struct FromChannel {
    pieces: Receiver<Bytes>,
    piece: Bytes,
}

impl FromChannel {
    /// Ends when all senders are gone.
    pub fn new(pieces: Receiver<Bytes>) -> Self {
        Self {
            pieces,
            piece: Bytes::new(),
        }
    }
}

impl Read for FromChannel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One entry with a name as it is, checked by nobody.
    fn entry(name: &str, kind: EntryType, content: &[u8], link: Option<&str>) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o4755);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        let mut out = header.as_bytes().to_vec();
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }

    fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut out = entries.concat();
        out.extend_from_slice(&[0; 1024]);
        out
    }

    #[test]
    fn what_is_packed_is_unpacked_under_its_name_or_another() {
        let from = tempfile::tempdir().unwrap();
        let tree = from.path().join("store");
        std::fs::create_dir_all(tree.join("commitlog")).unwrap();
        std::fs::write(tree.join("commitlog/0"), [7; 3000]).unwrap();
        std::fs::write(tree.join("lock"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).unwrap();
        let mut tar = Vec::new();
        let packed = pack(&tree, OsStr::new("store"), 3000, &mut tar).unwrap();
        assert_eq!(
            (packed.files, packed.bytes, packed.skipped.len()),
            (2, 3000, 1)
        );

        let to = tempfile::tempdir().unwrap();
        let all = unpack(&tar[..], Place::Into(to.path()), 3000).unwrap();
        assert_eq!((all.files, all.bytes), (2, 3000));
        assert_eq!(
            std::fs::read(to.path().join("store/commitlog/0")).unwrap(),
            [7; 3000]
        );
        unpack(&tar[..], Place::As(&to.path().join("other")), 3000).unwrap();
        assert!(to.path().join("other/commitlog/0").is_file());
        assert!(!to.path().join("other/store").exists());
        let full = unpack(&tar[..], Place::Into(to.path()), 2999).unwrap_err();
        assert!(full.to_string().contains("more than 2999 bytes"), "{full}");
    }

    #[test]
    fn links_and_devices_are_left_out() {
        let to = tempfile::tempdir().unwrap();
        let tar = archive(&[
            entry("a/link", EntryType::Symlink, b"", Some("/etc")),
            entry("a/hard", EntryType::Link, b"", Some("a/link")),
            entry("a/null", EntryType::Char, b"", None),
            entry("a/pipe", EntryType::Fifo, b"", None),
            entry("a/plain", EntryType::Regular, b"x", None),
        ]);
        let all = unpack(&tar[..], Place::Into(to.path()), 10).unwrap();
        assert_eq!((all.files, all.skipped.len()), (1, 4), "{:?}", all.skipped);
        let there: Vec<_> = std::fs::read_dir(to.path().join("a")).unwrap().collect();
        assert_eq!(there.len(), 1);
        use std::os::unix::fs::PermissionsExt;
        let mode = to
            .path()
            .join("a/plain")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7000, 0, "no set-id bit");
    }

    #[test]
    fn a_name_that_leaves_the_target_is_an_error() {
        for name in ["../evil", "a/../../evil", "/evil"] {
            let to = tempfile::tempdir().unwrap();
            let inner = to.path().join("inner");
            std::fs::create_dir(&inner).unwrap();
            let tar = archive(&[entry(name, EntryType::Regular, b"x", None)]);
            let refused = unpack(&tar[..], Place::Into(&inner), 10);
            assert!(refused.is_err(), "{name}");
            assert!(!to.path().join("evil").exists(), "{name}");
            assert!(!Path::new("/evil").exists(), "{name}");
        }
    }

    #[test]
    fn a_symlink_that_stands_in_the_target_is_not_followed() {
        let to = tempfile::tempdir().unwrap();
        let (inner, outside) = (to.path().join("inner"), to.path().join("outside"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, inner.join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.join("kept"), inner.join("file")).unwrap();
        for name in ["dir/kept", "file"] {
            let tar = archive(&[entry(name, EntryType::Regular, b"x", None)]);
            assert!(unpack(&tar[..], Place::Into(&inner), 10).is_err(), "{name}");
        }
        assert_eq!(std::fs::read(outside.join("kept")).unwrap(), b"kept");
    }

    #[test]
    fn a_store_goes_to_another_place_with_its_times_and_another_owner() {
        let tar = archive(&[
            entry("./", EntryType::Directory, b"", None),
            entry("./commitlog/0", EntryType::Regular, &[7; 700], None),
            entry("./config/topics.json", EntryType::Regular, b"{}", None),
        ]);
        let how = |below: &'static str, without: &'static [String]| Rehome {
            below: Path::new(below),
            is_file: false,
            without,
            owner: 3000,
        };
        let mut out = Vec::new();
        let all = rehome(&tar[..], &how("", &[]), &mut out).unwrap();
        assert_eq!((all.files, all.bytes), (2, 702));
        let mut there = tar::Archive::new(&out[..]);
        let names: Vec<(String, u64)> = there
            .entries()
            .unwrap()
            .map(|e| {
                let e = e.unwrap();
                let owner = e.header().uid().unwrap();
                (e.path().unwrap().display().to_string(), owner)
            })
            .collect();
        let want = [".", "commitlog/0", "config/topics.json"];
        assert_eq!(names.len(), 3, "{names:?}");
        for ((name, owner), want) in names.iter().zip(want) {
            assert_eq!((name.trim_end_matches('/'), *owner), (want, 3000));
        }

        let mut out = Vec::new();
        static LOG: std::sync::LazyLock<Vec<String>> =
            std::sync::LazyLock::new(|| vec!["commitlog".to_owned()]);
        let some = rehome(&tar[..], &how("sub", &LOG), &mut out).unwrap();
        assert_eq!(some.files, 1);
        let one = Rehome {
            below: Path::new("kvConfig.json"),
            is_file: true,
            without: &[],
            owner: 1,
        };
        let file = archive(&[entry("other.json", EntryType::Regular, b"{}", None)]);
        let mut out = Vec::new();
        rehome(&file[..], &one, &mut out).unwrap();
        let mut there = tar::Archive::new(&out[..]);
        let entry = there.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap(), Path::new("kvConfig.json"));
    }

    #[test]
    fn a_store_that_comes_in_part_is_an_error_wherever_it_is_cut() {
        let tar = archive(&[
            entry("a", EntryType::Regular, &[1; 600], None),
            entry("b", EntryType::Regular, &[2; 10], None),
        ]);
        let how = Rehome {
            below: Path::new(""),
            is_file: false,
            without: &[],
            owner: 0,
        };
        assert!(rehome(&tar[..], &how, io::sink()).is_ok());
        // Between two files as well, where a reader sees nothing amiss.
        for cut in [0, 100, 700, 1536, 2048, 2560] {
            assert!(rehome(&tar[..cut], &how, io::sink()).is_err(), "at {cut}");
        }
    }

    #[test]
    fn the_beginning_of_an_archive_tells_names_sizes_and_a_small_content() {
        let tar = archive(&[
            entry("log/", EntryType::Directory, b"", None),
            entry("log/000", EntryType::Regular, &[1; 5000], None),
        ]);
        let Glanced::Files { files, first } = glance(&tar[..2000]).unwrap() else {
            panic!("no link was there");
        };
        assert_eq!((files, first), (vec![("log/000".into(), 5000)], None));
        let tar = archive(&[entry("a.conf", EntryType::Regular, b"x=1", None)]);
        let Glanced::Files { first, .. } = glance(&tar).unwrap() else {
            panic!("no link was there");
        };
        assert_eq!(first.as_deref(), Some(&b"x=1"[..]));
        let tar = archive(&[entry("a.conf", EntryType::Symlink, b"", Some("b.conf"))]);
        assert_eq!(glance(&tar).unwrap(), Glanced::Link("b.conf".into()));
    }

    #[test]
    fn a_torn_archive_is_an_error() {
        let to = tempfile::tempdir().unwrap();
        let tar = archive(&[entry("a", EntryType::Regular, &[1; 600], None)]);
        assert!(unpack(&tar[..700], Place::Into(to.path()), 1000).is_err());
    }

    #[test]
    fn an_archive_goes_through_a_channel_whole() {
        let (send, receive) = tokio::sync::mpsc::channel(PIECES_WAITING_MAX);
        let sender = std::thread::spawn(move || {
            let mut to = ToChannel::new(send);
            to.write_all(&vec![9; PIECE + 5]).unwrap();
            to.flush().unwrap();
        });
        let mut got = Vec::new();
        FromChannel::new(receive).read_to_end(&mut got).unwrap();
        sender.join().unwrap();
        assert_eq!(got, vec![9; PIECE + 5]);
    }
}
