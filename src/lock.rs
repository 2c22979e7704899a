//! One writer a cluster on this host: a lock file that the kernel releases when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;

use crate::error::{Error, Exit};

/// Held while a command changes a cluster.
#[derive(Debug)]
pub struct ClusterLock(
    #[allow(dead_code, reason = "it is the open file that holds the lock")] File,
);

impl ClusterLock {
    /// Takes the lock, waiting for whoever has it; `waiting` is called once before it waits.
    pub async fn take(runtime: &str, cluster: &str, waiting: impl FnOnce()) -> Result<Self, Error> {
        let dir = dir();
        let path = dir.join(format!("{runtime}-{cluster}.lock"));
        let failed = |reason: std::io::Error| {
            Error::new(
                "RMQ-E120",
                Exit::Failed,
                format!("cannot lock {}", path.display()),
            )
            .detail(reason.to_string())
        };
        std::fs::create_dir_all(&dir).map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::Error(reason)) => Err(failed(reason)),
            Err(TryLockError::WouldBlock) => {
                waiting();
                let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
                match locked {
                    Ok(Ok(file)) => Ok(Self(file)),
                    Ok(Err(reason)) => Err(failed(reason)),
                    Err(panic) => Err(failed(std::io::Error::other(panic))),
                }
            }
        }
    }
}

/// The user's own runtime directory; `/tmp` has no other that each user owns.
fn dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("rmqctl"),
        None => std::env::temp_dir().join(format!("rmqctl-{}", rustix::process::getuid().as_raw())),
    }
}
