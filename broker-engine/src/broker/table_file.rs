//! Reading one of the JSON tables under `config/` into its type.

use rocketmq_protocol::json;
use rocketmq_store::table::{self, TableError};
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::io::{Error, ErrorKind};
use std::path::Path;

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
