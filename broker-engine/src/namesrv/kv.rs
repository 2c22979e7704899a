//! Small text values by namespace and key, kept in `kvConfig.json`.
//! Source: `apache/rocketmq: namesrv/.../kvconfig/{KVConfigManager,KVConfigSerializeWrapper}.java`.

use rocketmq_protocol::body::KVConfigSerializeWrapper as Table;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Namespace of the order configuration, which brokers get with every registration.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// All values together may take so many bytes: the table is held in memory and written whole.
const BYTES_MAX: usize = 16 << 20;

/// The table and its file.
#[derive(Debug, Default)]
pub struct KvConfig {
    table: Table,
    file: Option<PathBuf>,
}

/// Why a value was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The table would grow too large.
    #[error("the KV configuration would take {0} bytes, at most {BYTES_MAX} are kept")]
    Full(usize),
    /// The file could not be read or written; the table is as before.
    #[error("{action} {path}: {source}")]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl KvConfig {
    /// Reads the file; one that is not there yet is an empty table.
    pub fn open(file: Option<PathBuf>) -> Result<KvConfig, KvError> {
        let Some(path) = file else {
            return Ok(KvConfig::default());
        };
        let failed = |source| KvError::File {
            action: "reading",
            path: path.display().to_string(),
            source,
        };
        let table = match std::fs::read(&path) {
            Ok(text) => rocketmq_protocol::json::from_slice(&text).map_err(|error| {
                failed(io::Error::new(
                    io::ErrorKind::InvalidData,
                    error.to_string(),
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Table::default(),
            Err(error) => return Err(failed(error)),
        };
        Ok(KvConfig {
            table,
            file: Some(path),
        })
    }
    /// One value.
    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.table
            .config_table
            .get(namespace)?
            .get(key)
            .map(String::as_str)
    }
    /// A namespace's values.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.table.config_table.get(namespace)
    }
    /// Sets one value and writes the file.
    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        let mut next = self.table.clone();
        next.config_table
            .entry(namespace.into())
            .or_default()
            .insert(key.into(), value.into());
        self.keep(next)
    }
    /// Removes one value and writes the file.
    pub fn delete(&mut self, namespace: &str, key: &str) -> Result<(), KvError> {
        let mut next = self.table.clone();
        if let Some(values) = next.config_table.get_mut(namespace) {
            values.remove(key);
        }
        self.keep(next)
    }
    fn keep(&mut self, next: Table) -> Result<(), KvError> {
        let text = rocketmq_protocol::json::to_fastjson_pretty(&next);
        if text.len() > BYTES_MAX {
            return Err(KvError::Full(text.len()));
        }
        if let Some(path) = &self.file {
            replace(path, &text).map_err(|source| KvError::File {
                action: "writing",
                path: path.display().to_string(),
                source,
            })?;
        }
        self.table = next;
        Ok(())
    }
}

/// Writes a file so that a crash leaves the old or the new text.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(directory)?;
    let partial = path.with_extension("tmp");
    let mut file = File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("namesrv/kvConfig.json");
        let mut kv = KvConfig::open(Some(file.clone())).unwrap();
        kv.put(ORDER_TOPIC_CONFIG, "orders", "broker-a:4;broker-b:4")
            .unwrap();
        kv.put("ns", "gone", "x").unwrap();
        kv.delete("ns", "gone").unwrap();
        let again = KvConfig::open(Some(file)).unwrap();
        assert_eq!(
            again.get(ORDER_TOPIC_CONFIG, "orders"),
            Some("broker-a:4;broker-b:4")
        );
        assert_eq!(again.get("ns", "gone"), None);
        assert_eq!(again.table, kv.table);
    }

    #[test]
    fn a_file_that_is_no_table_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kvConfig.json");
        std::fs::write(&file, "{\"configTable\":").unwrap();
        assert!(KvConfig::open(Some(file.clone())).is_err());
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"configTable\":");
    }
}
