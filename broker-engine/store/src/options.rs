//! What a store needs to know before it opens.

use std::path::PathBuf;
use std::time::Duration;

/// Paths, sizes and retention of one store. Names in brackets are the Java properties
/// (`apache/rocketmq: store/.../config/MessageStoreConfig.java`).
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// `[storePathRootDir]`
    pub root: PathBuf,
    /// `[storePathCommitLog]`, one directory.
    pub commit_log: PathBuf,
    /// `[mappedFileSizeCommitLog]` bytes.
    pub commit_log_file_size: u64,
    /// `[mappedFileSizeConsumeQueue]` in entries (300000), as the file is named in Java by entries x 20 bytes.
    pub consume_queue_file_entries: u64,
    /// `[maxHashSlotNum]`
    pub index_slots: u32,
    /// `[maxIndexNum]`
    pub index_entries: u32,
    /// `[messageIndexEnable]`
    pub index_enabled: bool,
    /// `[messageDelayLevel]`, level 1 first: the deliver time stands in the tags code of delayed entries.
    pub delay_levels: Vec<Duration>,
    /// `[enableLmq]`: whether messages may stand in light queues too.
    pub lmq: bool,
    /// `[flushDiskType]` is SYNC_FLUSH: readers see what is on disk and no more, so that no power cut takes back what somebody saw.
    pub visible_when_synced: bool,
    /// Zeros written behind an append while little waits for a sync, in bytes; 0 for none. What is then written over them and synced
    /// is data alone: a reserved block that is written for the first time changes the file's extents too, which a sync must wait for,
    /// and for a journal with them where the file system has one. For who syncs each few messages; what is written grows by as much.
    pub zeros_ahead: usize,
    /// `[checkCRCOnRecover]`
    pub check_crc_on_recover: bool,
    /// `[fileReservedTime]`, hours in the file.
    pub file_reserved: Duration,
    /// `[diskMaxUsedSpaceRatio]` percent: above it expired files go at any hour.
    pub disk_max_used_percent: u32,
    /// `[diskSpaceCleanForciblyRatio]` percent: above it unexpired files go too.
    pub disk_clean_forcibly_percent: u32,
    /// `[diskSpaceWarningLevelRatio]` percent: above it sends are refused.
    pub disk_warning_percent: u32,
    /// `[maxTransferBytesOnMessageInMemory]`, `[maxTransferCountOnMessageInMemory]`: stop rules of one read.
    pub transfer_bytes_in_memory: usize,
    /// See `transfer_bytes_in_memory`.
    pub transfer_count_in_memory: usize,
    /// `[maxTransferBytesOnMessageInDisk]`
    pub transfer_bytes_on_disk: usize,
    /// `[maxTransferCountOnMessageInDisk]`
    pub transfer_count_on_disk: usize,
    /// How far behind the log's end still counts as "in memory": 40 % of the RAM that the process may use, in bytes.
    pub in_memory_span: u64,
}
