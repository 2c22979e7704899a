//! Versions and plain tables.

use super::number;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Which state of a table this is. Ordered as Java compares it: state version, counter, time.
/// Source: `apache/rocketmq: remoting/.../protocol/DataVersion.java`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Changes so far.
    #[serde(deserialize_with = "number")]
    pub counter: i64,
    /// The controller's master epoch, 0 without a controller.
    #[serde(deserialize_with = "number")]
    pub state_version: i64,
    /// Time of the last change, ms since the epoch.
    #[serde(deserialize_with = "number")]
    pub timestamp: i64,
}

impl DataVersion {
    /// A table that is made now and has not been changed.
    pub fn new(now_ms: i64) -> DataVersion {
        DataVersion {
            counter: 0,
            state_version: 0,
            timestamp: now_ms,
        }
    }
    /// The table has changed.
    pub fn bump(&mut self, now_ms: i64) {
        self.counter += 1;
        self.timestamp = now_ms;
    }
}

impl Ord for DataVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |v: &DataVersion| (v.state_version, v.counter, v.timestamp);
        key(self).cmp(&key(other))
    }
}
impl PartialOrd for DataVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Names and values: answers of 28, 103 and 219. Source: `apache/rocketmq: remoting/.../protocol/body/KVTable.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct KVTable {
    pub table: BTreeMap<String, String>,
}

/// The name server's `kvConfig.json`: namespace -> key -> value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct KVConfigSerializeWrapper {
    pub config_table: BTreeMap<String, BTreeMap<String, String>>,
}
