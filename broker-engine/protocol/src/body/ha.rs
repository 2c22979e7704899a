//! Replication as GET_BROKER_HA_STATUS (907) tells it.

use serde::{Deserialize, Serialize};

/// Answer of GET_BROKER_HA_STATUS (907). Source: `apache/rocketmq: remoting/.../protocol/body/HARuntimeInfo.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HARuntimeInfo {
    /// What a slave knows of its master.
    pub ha_client_runtime_info: HAClientRuntimeInfo,
    /// What a master knows of its slaves.
    pub ha_connection_info: Vec<HAConnectionRuntimeInfo>,
    pub in_sync_slave_nums: i32,
    pub master: bool,
    pub master_commit_log_max_offset: i64,
}

/// One slave, as its master sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HAConnectionRuntimeInfo {
    pub addr: String,
    /// Bytes that the slave lacks.
    pub diff: i64,
    pub in_sync: bool,
    pub slave_ack_offset: i64,
    pub transfer_from_where: i64,
    pub transferred_byte_in_second: i64,
}

/// The master, as its slave sees it. Times in ms since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct HAClientRuntimeInfo {
    pub activated: bool,
    pub last_read_timestamp: i64,
    pub last_write_timestamp: i64,
    pub master_addr: String,
    pub master_flush_offset: i64,
    pub max_offset: i64,
    pub transferred_byte_in_second: i64,
}
