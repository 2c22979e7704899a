//! One of the JSON tables under `config/`: reading it into its type, and keeping its file up with its version.

use crate::clock;
use parking_lot::{Mutex, MutexGuard};
use rocketmq_protocol::body::DataVersion;
use rocketmq_protocol::json;
use rocketmq_store::table::{self, TableError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};

/// The table; `None` when it was never written. A file that is there and does not read, with no good `.bak` beside it, is
/// an error: starting with an empty table would throw away what it held.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TableError> {
    let good = RefCell::new(None);
    let bad = RefCell::new(None);
    table::read(path, |text| match json::from_slice::<T>(text.as_bytes()) {
        Ok(table) => {
            good.replace(Some(table));
            true
        }
        Err(error) => {
            bad.replace(Some(error));
            false
        }
    })?;
    match (good.into_inner(), bad.into_inner()) {
        (Some(table), _) => Ok(Some(table)),
        (None, Some(error)) => Err(TableError {
            action: "reading table",
            path: path.display().to_string(),
            source: Error::new(ErrorKind::InvalidData, error),
        }),
        (None, None) => Ok(None),
    }
}

/// A table's file, the version of the table, and the version that the file has.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    /// Held through a change.
    version: Mutex<DataVersion>,
    /// Held through a writing, so that the file never goes back to an older version.
    written: Mutex<DataVersion>,
}

impl TableFile {
    /// A file that was just read, or is not there yet, of this version.
    pub fn new(path: PathBuf, version: DataVersion) -> TableFile {
        TableFile {
            path,
            version: Mutex::new(version),
            written: Mutex::new(version),
        }
    }

    /// The table's version; the table does not change while it is held.
    pub fn version(&self) -> MutexGuard<'_, DataVersion> {
        self.version.lock()
    }

    /// Whether the file has all changes.
    pub fn is_written(&self) -> bool {
        let version = *self.version();
        *self.written.lock() == version
    }

    /// Changes the table and not its file; whether something changed.
    pub fn change(&self, change: impl FnOnce() -> bool) -> bool {
        let mut version = self.version();
        let changed = change();
        if changed {
            version.bump(clock::now_ms());
        }
        changed
    }

    /// Slave: has the master's table taken over, and not written, if it is another version; whether it was.
    pub fn replace(&self, master: DataVersion, take_over: impl FnOnce()) -> bool {
        let mut version = self.version();
        if *version == master {
            return false;
        }
        take_over();
        *version = master;
        true
    }

    /// Writes the table if its file is behind. Whoever comes while another writes finds its change written with others'.
    /// `table` gives the table and its version.
    pub fn flush<T: Serialize>(
        &self,
        table: impl FnOnce() -> (DataVersion, T),
    ) -> Result<(), TableError> {
        let wanted = *self.version();
        let mut written = self.written.lock();
        // A slave's may go back to what its master has: other means behind.
        if *written == wanted {
            return Ok(());
        }
        let (version, table) = table();
        if *written == version {
            return Ok(());
        }
        table::write(&self.path, &json::to_fastjson_pretty(&table))?;
        *written = version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Table = BTreeMap<String, i64>;

    #[test]
    fn a_missing_table_is_empty_a_bad_one_falls_back_and_two_bad_ones_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        let load = || load::<Table>(&path).map_err(|error| error.to_string());
        assert_eq!(load(), Ok(None));
        std::fs::write(&path, "{\"a\":").unwrap();
        assert!(
            load()
                .unwrap_err()
                .starts_with(&format!("reading table {}", path.display()))
        );
        std::fs::write(dir.path().join("t.json.bak"), "{\"a\":1}").unwrap();
        assert_eq!(load(), Ok(Some(Table::from([("a".into(), 1)]))));
        std::fs::write(&path, "{\"a\":2}").unwrap();
        assert_eq!(load(), Ok(Some(Table::from([("a".into(), 2)]))));
    }
}
