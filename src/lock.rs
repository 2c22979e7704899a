//! Locks between runs of the program on this host: files that the kernel releases when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Exit};

/// A lock that this process has.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// The open file holds the lock.
    file: File,
}

impl Lock {
    /// Takes the lock of a cluster, held while a command changes it, waiting for whoever has it; `waiting` is called once
    /// before it waits.
    pub async fn cluster(
        runtime: &str,
        cluster: &str,
        waiting: impl FnOnce(),
    ) -> Result<Self, Error> {
        let path = path(&format!("{runtime}-{cluster}"));
        let mut waiting = Some(waiting);
        loop {
            let file = open(&path)?;
            let file = match file.try_lock() {
                Ok(()) => file,
                Err(TryLockError::Error(reason)) => return Err(failed(&path, reason)),
                Err(TryLockError::WouldBlock) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    tokio::task::spawn_blocking(move || file.lock().map(|()| file))
                        .await
                        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
                        .map_err(|reason| failed(&path, reason))?
                }
            };
            let lock = Self {
                path: path.clone(),
                file,
            };
            if lock.is_current() {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock of this name unless somebody has it.
    pub fn try_take(name: &str) -> Result<Option<Self>, Error> {
        let path = path(name);
        loop {
            let file = open(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(reason)) => return Err(failed(&path, reason)),
            }
            let lock = Self {
                path: path.clone(),
                file,
            };
            if lock.is_current() {
                return Ok(Some(lock));
            }
        }
    }

    /// Whether somebody on this host had the lock of this name and is gone without discarding it.
    pub fn is_orphaned(name: &str) -> bool {
        let file = OpenOptions::new().write(true).open(path(name));
        file.is_ok_and(|file| file.try_lock().is_ok())
    }

    /// Deletes the files of locks that nobody has, of those that `which` says nobody will need.
    pub fn discard_orphans(which: impl Fn(&str) -> bool) {
        // What cannot be read or deleted is an empty file that stays.
        for entry in std::fs::read_dir(dir()).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".lock"));
            if let Some(name) = name.filter(|name| which(name) && Self::is_orphaned(name))
                && let Ok(Some(lock)) = Self::try_take(name)
            {
                lock.discard();
            }
        }
    }

    /// Releases it and deletes its file, for a lock whose name nobody will need again.
    pub fn discard(self) {
        // It is released all the same, and an empty file is all that stays.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Whether the file has not been discarded, and made anew by another, since it was opened.
    fn is_current(&self) -> bool {
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let there = std::fs::metadata(&self.path).map(id);
        let ours = self.file.metadata().map(id);
        matches!((there, ours), (Ok(there), Ok(ours)) if there == ours)
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(dir)
        .and_then(|()| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)
        })
        .map_err(|reason| failed(path, reason))
}

fn failed(path: &Path, reason: std::io::Error) -> Error {
    Error::new(
        "RMQ-E120",
        Exit::Failed,
        format!("cannot lock {}", path.display()),
    )
    .detail(reason.to_string())
}

/// The user's own runtime directory; `/tmp` has no other that each user owns.
fn dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("rmqctl"),
        None => std::env::temp_dir().join(format!("rmqctl-{}", rustix::process::getuid().as_raw())),
    }
}

fn path(name: &str) -> PathBuf {
    dir().join(format!("{name}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_had_once_and_told_from_one_whose_owner_is_gone() {
        let name = format!("test-{}", std::process::id());
        assert!(!Lock::is_orphaned(&name), "nobody ever had it");
        let lock = Lock::try_take(&name).unwrap().unwrap();
        assert!(Lock::try_take(&name).unwrap().is_none());
        assert!(!Lock::is_orphaned(&name), "its owner lives");
        drop(lock);
        assert!(Lock::is_orphaned(&name));
        Lock::try_take(&name).unwrap().unwrap().discard();
        assert!(!Lock::is_orphaned(&name));
    }

    #[test]
    fn a_lock_on_a_discarded_file_is_none() {
        let name = format!("test-stale-{}", std::process::id());
        let stale = Lock::try_take(&name).unwrap().unwrap();
        std::fs::remove_file(&stale.path).unwrap();
        assert!(!stale.is_current());
        let lock = Lock::try_take(&name).unwrap().unwrap();
        assert!(lock.is_current());
        lock.discard();
    }
}
