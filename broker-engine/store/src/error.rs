//! Why a store does not do what was asked.

use std::path::Path;

/// Why a store refuses to open or to go on. After an `Io` from a write or sync no more writes are accepted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum StoreError {
    #[error("{action} {path}: {source}")]
    Io {
        action: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error(
        "{path} is {found} bytes long, this store's files are {configured} bytes: set {property} to what it was written with"
    )]
    FileSize {
        path: String,
        found: u64,
        configured: u64,
        property: &'static str,
    },
    #[error("another process holds the store {0} (its `lock` file is locked)")]
    Locked(String),
    #[error(
        "damage in the commit log at {at}: {what}; {}. Nothing was cut",
        .next.map_or("it was synced, and nothing follows".to_owned(), |next| format!("whole records follow at {next}"))
    )]
    Damaged {
        at: i64,
        what: String,
        next: Option<i64>,
    },
    #[error("replica sent bytes at {got}, but this log ends at {end}")]
    NotContiguous { got: i64, end: i64 },
    #[error("the master's bytes at {at} are no record: {what}")]
    NotARecord { at: i64, what: String },
    #[error(
        "a record of {len} bytes does not fit in a commit log file of {file_size} bytes: raise mappedFileSizeCommitLog"
    )]
    RecordTooLarge { len: usize, file_size: u64 },
    #[error("the disk is full: {0}")]
    DiskFull(String),
    #[error("an earlier write or sync failed ({0}); no more writes are accepted")]
    Poisoned(String),
}

/// Says what was being done to which path when an I/O error came.
pub(crate) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.display().to_string(),
        source,
    }
}
