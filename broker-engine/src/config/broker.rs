//! A broker's rows.
//! Source of names and defaults: `apache/rocketmq: common/.../BrokerConfig.java`,
//! `store/.../config/MessageStoreConfig.java`, `remoting/.../netty/NettyServerConfig.java`.

use super::rows::properties;
use super::value::{BrokerRole, FlushDiskType, RequestMode};
use super::without_effect::BROKER;
use rocketmq_store::StoreOptions;
use std::path::PathBuf;
use std::time::Duration;

/// With SYNC_FLUSH, see [`StoreOptions::zeros_ahead`]: measured, less gains less and more makes the one sync in hundreds that
/// carries them longer.
const ZEROS_AHEAD: usize = 256 << 10;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

properties! {
    /// A broker's properties.
    BrokerConfig, without effect: BROKER;

    // Who it is and where it is reached.
    "brokerClusterName" broker_cluster_name: String = "DefaultCluster".into(), fixed, "cluster this broker belongs to";
    "brokerName" broker_name: String = "broker-a".into(), fixed, "name that a master and its slaves share";
    "brokerId" broker_id: u64 = 0, fixed, "0 for the master, above 0 for a slave";
    "brokerRole" broker_role: BrokerRole = BrokerRole::AsyncMaster, fixed, "master (and whether it waits for slaves) or slave";
    "namesrvAddr" namesrv_addr: String = String::new(), fixed, "name servers as host:port, several by ';'";
    "brokerIP1" broker_ip1: String = "127.0.0.1".into(), fixed, "address or DNS name that clients are told";
    "brokerIP2" broker_ip2: String = String::new(), fixed, "address or DNS name that slaves replicate from; empty: brokerIP1";
    "brokerInternalAddr" broker_internal_addr: String = String::new(), fixed, "host:port that callers inside the cluster's network are told; empty: brokerIP1:listenPort";
    "bindAddress" bind_address: String = "0.0.0.0".into(), fixed, "address to listen on";
    "listenPort" listen_port: u16 = 10911, fixed, "port for clients; the VIP port is two below";
    "haListenPort" ha_listen_port: u16 = 0, fixed, "port for slaves; 0: listenPort + 1";
    "haMasterAddress" ha_master_address: String = String::new(), fixed, "slave: the master's HA address; empty: what the name server says";
    "serverChannelMaxIdleTimeSeconds" server_channel_max_idle_time_seconds: u32 = 120, fixed, "a connection without traffic for so long is closed";
    "regionId" region_id: String = "DefaultRegion".into(), fixed, "region stamped on messages (MSG_REGION)";

    // Registration.
    "registerNameServerPeriod" register_name_server_period: Duration = ms(30_000), live, "how often to register again, 10000 to 60000 ms";
    "registerBrokerTimeoutMills" register_broker_timeout_mills: Duration = ms(24_000), fixed, "how long a registration may take";
    "brokerNotActiveTimeoutMillis" broker_not_active_timeout_millis: Duration = ms(10_000), fixed, "silence after which the name server may drop an acting-master broker";
    "channelExpiredTimeout" channel_expired_timeout: Duration = ms(120_000), live, "a client without heartbeat for so long is dropped";

    // Store.
    "storePathRootDir" store_path_root_dir: String = home("store"), fixed, "directory of the store";
    "storePathCommitLog" store_path_commit_log: String = String::new(), fixed, "directory of the commit log; empty: commitlog in the store's";
    "mappedFileSizeCommitLog" mapped_file_size_commit_log: u64 = 1 << 30, fixed, "bytes of one commit log file";
    "mappedFileSizeConsumeQueue" mapped_file_size_consume_queue: u64 = 6_000_000, fixed, "bytes of one consume queue file (20 a message)";
    "maxHashSlotNum" max_hash_slot_num: u32 = 5_000_000, fixed, "hash slots of one index file";
    "maxIndexNum" max_index_num: u32 = 20_000_000, fixed, "entries of one index file";
    "messageIndexEnable" message_index_enable: bool = true, fixed, "whether messages can be queried by key";
    "checkCRCOnRecover" check_crc_on_recover: bool = true, fixed, "whether recovery compares body checksums";
    "deleteWhen" delete_when: String = "04".into(), fixed, "hours of the day at which expired files go, several by ';'";
    "fileReservedTime" file_reserved_time: u32 = 72, fixed, "hours after which a commit log file has expired";
    "diskMaxUsedSpaceRatio" disk_max_used_space_ratio: u32 = 75, fixed, "percent of the disk above which expired files go at any hour";
    "diskSpaceCleanForciblyRatio" disk_space_clean_forcibly_ratio: u32 = 85, fixed, "percent above which unexpired files go too";
    "diskSpaceWarningLevelRatio" disk_space_warning_level_ratio: u32 = 90, fixed, "percent above which sends are refused";
    "flushDiskType" flush_disk_type: FlushDiskType = FlushDiskType::AsyncFlush, fixed, "whether a send waits for the disk";
    "flushIntervalCommitLog" flush_interval_commit_log: Duration = ms(500), fixed, "how often ASYNC_FLUSH syncs";
    "syncFlushTimeout" sync_flush_timeout: Duration = ms(5000), fixed, "how long a SYNC_FLUSH send waits for the disk";
    "accessMessageInMemoryMaxRatio" access_message_in_memory_max_ratio: u32 = 40, fixed, "percent of memory that counts as holding the log's newest part";
    "maxTransferBytesOnMessageInMemory" max_transfer_bytes_on_message_in_memory: u64 = 256 << 10, fixed, "bytes one pull may bring from the log's newest part";
    "maxTransferCountOnMessageInMemory" max_transfer_count_on_message_in_memory: u32 = 32, fixed, "messages one pull may bring from the log's newest part";
    "maxTransferBytesOnMessageInDisk" max_transfer_bytes_on_message_in_disk: u64 = 64 << 10, fixed, "bytes one pull may bring from older parts";
    "maxTransferCountOnMessageInDisk" max_transfer_count_on_message_in_disk: u32 = 8, fixed, "messages one pull may bring from older parts";
    "defaultQueryMaxNum" default_query_max_num: u32 = 32, live, "messages one query by key may bring";

    // Replication.
    "slaveTimeout" slave_timeout: Duration = ms(3000), fixed, "how long a SYNC_MASTER send waits for slaves";
    "totalReplicas" total_replicas: u32 = 1, fixed, "copies of the log, the master's included";
    "inSyncReplicas" in_sync_replicas: u32 = 1, live, "copies that must hold a SYNC_MASTER send, the master's included; 1 waits for nobody";
    "minInSyncReplicas" min_in_sync_replicas: u32 = 1, live, "copies that must be there at least";
    "haHousekeepingInterval" ha_housekeeping_interval: Duration = ms(20_000), fixed, "an HA connection silent for so long is closed";
    "haSendHeartbeatInterval" ha_send_heartbeat_interval: Duration = ms(5000), fixed, "how often an idle HA connection speaks";
    "haTransferBatchSize" ha_transfer_batch_size: u32 = 32 << 10, fixed, "bytes of one HA transfer";
    "haMaxGapNotInSync" ha_max_gap_not_in_sync: u64 = 256 << 20, live, "bytes a slave may be behind and still count as in sync";
    "offsetCheckInSlave" offset_check_in_slave: bool = false, live, "whether a slave answers an offset out of range with 21";

    // Topics and groups.
    "autoCreateTopicEnable" auto_create_topic_enable: bool = true, fixed, "whether a send to an unknown topic makes it";
    "autoCreateSubscriptionGroup" auto_create_subscription_group: bool = true, live, "whether an unknown consumer group is made on first use";
    "defaultTopicQueueNums" default_topic_queue_nums: u32 = 8, fixed, "queues of the topic that new topics copy";
    "clusterTopicEnable" cluster_topic_enable: bool = true, fixed, "whether a topic named as the cluster stands at start";
    "brokerTopicEnable" broker_topic_enable: bool = true, fixed, "whether a topic named as the broker stands at start";
    "traceTopicEnable" trace_topic_enable: bool = false, fixed, "whether the trace topic stands at start";
    "msgTraceTopicName" msg_trace_topic_name: String = "RMQ_SYS_TRACE_TOPIC".into(), fixed, "name of the trace topic";
    "storeReplyMessageEnable" store_reply_message_enable: bool = true, live, "whether replies of request-reply are stored";
    "traceOn" trace_on: bool = true, live, "what TRACE_ON tells clients";
    "clearRetryTopicWhenDeleteTopic" clear_retry_topic_when_delete_topic: bool = true, live, "whether deleting a topic deletes its groups' POP retry topics";
    "validateSystemTopicWhenUpdateTopic" validate_system_topic_when_update_topic: bool = true, live, "whether updating a system topic is refused";
    "flushConsumerOffsetInterval" flush_consumer_offset_interval: Duration = ms(5000), fixed, "how often consumer offsets are written";
    "flushDelayOffsetInterval" flush_delay_offset_interval: Duration = ms(10_000), fixed, "how often delay offsets are written";

    // Send.
    "brokerPermission" broker_permission: u32 = 6, live, "2 write, 4 read, 6 both";
    "maxMessageSize" max_message_size: u32 = 4 << 20, live, "bytes of one message's body";
    "messageDelayLevel" message_delay_level: String = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(), fixed, "delay of each level, level 1 first";
    "timerWheelEnable" timer_wheel_enable: bool = true, fixed, "whether messages may name their own time of delivery";
    "timerMaxDelaySec" timer_max_delay_sec: u64 = 3 * 24 * 3600, fixed, "longest delay a message may name, seconds";
    "recallMessageEnable" recall_message_enable: bool = false, live, "whether a timed message can be recalled";
    "brokerFastFailureEnable" broker_fast_failure_enable: bool = true, fixed, "whether requests that waited too long are refused";
    "waitTimeMillsInSendQueue" wait_time_mills_in_send_queue: Duration = ms(200), fixed, "how long a send may wait for the log";
    "sendThreadPoolQueueCapacity" send_thread_pool_queue_capacity: u32 = 10_000, fixed, "sends that may wait for the log";
    "startAcceptSendRequestTimeStamp" start_accept_send_request_time_stamp: u64 = 0, fixed, "sends before this time (ms since the epoch) are refused";
    "rejectTransactionMessage" reject_transaction_message: bool = false, live, "whether transactional sends are refused";
    "transactionTimeOut" transaction_time_out: Duration = ms(6000), fixed, "age at which a half message is checked";
    "transactionCheckMax" transaction_check_max: u32 = 15, fixed, "checks before a half message is given up";
    "transactionOpMsgMaxSize" transaction_op_msg_max_size: u32 = 4096, live, "bytes of decisions that go into one op message";
    "transactionOpBatchInterval" transaction_op_batch_interval: Duration = ms(3000), fixed, "how long a decision waits for others to share an op message";
    "transactionCheckInterval" transaction_check_interval: Duration = ms(30_000), fixed, "how often half messages are checked";

    "enableLmq" enable_lmq: bool = false, fixed, "whether a message may stand in light queues (%LMQ%) too";
    "maxLmqConsumeQueueNum" max_lmq_consume_queue_num: u32 = 20_000, live, "light queues there may be";

    // POP.
    "popPollingSize" pop_polling_size: u32 = 1024, live, "POPs that may wait for one queue of one group";
    "maxPopPollingSize" max_pop_polling_size: u32 = 100_000, live, "POPs that may wait in all";
    "popFromRetryProbability" pop_from_retry_probability: u32 = 20, live, "of a hundred POPs so many look at the retry topic first";
    "popResponseReturnActualRetryTopic" pop_response_return_actual_retry_topic: bool = false, live, "whether a message popped again names its retry topic";
    "enableRetryTopicV2" enable_retry_topic_v2: bool = false, live, "whether the POP retry topic is %RETRY%group+topic instead of %RETRY%group_topic";
    "retrieveMessageFromPopRetryTopicV1" retrieve_message_from_pop_retry_topic_v1: bool = true, live, "whether, with enableRetryTopicV2, the other form is read too";
    "reviveQueueNum" revive_queue_num: u32 = 8, fixed, "queues of the revive log";
    "reviveInterval" revive_interval: Duration = ms(1000), fixed, "how often the revive log is looked at while messages are invisible";
    "serverLoadBalancerEnable" server_load_balancer_enable: bool = true, live, "whether QUERY_ASSIGNMENT deals queues to a group's members, or gives all to each";
    "defaultMessageRequestMode" default_message_request_mode: RequestMode = RequestMode::Pull, fixed, "how groups consume for which SET_MESSAGE_REQUEST_MODE said nothing";
    "defaultPopShareQueueNum" default_pop_share_queue_num: i32 = -1, fixed, "POP: how many neighbours' queues a member shares; -1 and 0: any queue";

    // Pull.
    "longPollingEnable" long_polling_enable: bool = true, live, "whether a pull may wait as long as it asks";
    "shortPollingTimeMills" short_polling_time_mills: Duration = ms(1000), live, "how long it waits otherwise";
    "slaveReadEnable" slave_read_enable: bool = false, live, "whether slaves serve pulls";
    "litePullMessageEnable" lite_pull_message_enable: bool = true, live, "whether LITE_PULL_MESSAGE is served";
    "enablePropertyFilter" enable_property_filter: bool = false, fixed, "whether consumers may filter by SQL92";
    "filterSupportRetry" filter_support_retry: bool = false, fixed, "whether SQL92 filters apply to retry topics";
    "disableConsumeIfConsumerReadSlowly" disable_consume_if_consumer_read_slowly: bool = false, live, "whether a group too far behind is stopped";
    "consumerFallbehindThreshold" consumer_fallbehind_threshold: u64 = 16 << 30, live, "bytes behind at which it is";
    "notifyConsumerIdsChangedEnable" notify_consumer_ids_changed_enable: bool = true, live, "whether a group is told when its members change";
    "useServerSideResetOffset" use_server_side_reset_offset: bool = true, live, "whether an offset reset is kept here until the next pull";

    // Features of the Java engine that would change what a send promises: declared, so that true is refused aloud.
    "aclEnable" acl_enable: bool = false, fixed, "must be false: ACL 1.0 is not offered";
    "authenticationEnabled" authentication_enabled: bool = false, fixed, "must be false: ACL 2.0 is not offered yet";
    "authorizationEnabled" authorization_enabled: bool = false, fixed, "must be false: ACL 2.0 is not offered yet";
    "enableControllerMode" enable_controller_mode: bool = false, fixed, "must be false: controller mode is not offered yet";
    "enableDLegerCommitLog" enable_dleger_commit_log: bool = false, fixed, "must be false: DLedger is not offered";
    "duplicationEnable" duplication_enable: bool = false, fixed, "must be false: duplication mode is not offered";
}

fn home(below: &str) -> String {
    match std::env::var("HOME") {
        Ok(home) if !home.is_empty() => format!("{home}/{below}"),
        _ => below.into(),
    }
}

impl BrokerConfig {
    pub(super) fn rules(&self) -> Result<(), String> {
        let refuse = |name: &str, on: bool| {
            if on {
                Err(format!(
                    "{name}=true is not offered by this engine; set it to false"
                ))
            } else {
                Ok(())
            }
        };
        refuse("aclEnable", self.acl_enable)?;
        refuse("authenticationEnabled", self.authentication_enabled)?;
        refuse("authorizationEnabled", self.authorization_enabled)?;
        refuse("enableControllerMode", self.enable_controller_mode)?;
        refuse("enableDLegerCommitLog", self.enable_dleger_commit_log)?;
        refuse("duplicationEnable", self.duplication_enable)?;
        match (self.broker_role, self.broker_id) {
            (BrokerRole::Slave, 0) => {
                return Err("brokerRole=SLAVE needs brokerId > 0, it is 0".into());
            }
            (BrokerRole::AsyncMaster | BrokerRole::SyncMaster, id) if id != 0 => {
                return Err(format!(
                    "a master needs brokerId=0, it is {id}; a slave needs brokerRole=SLAVE"
                ));
            }
            _ => {}
        }
        if self.broker_id > i64::MAX as u64 {
            return Err(format!(
                "brokerId is {}, at most {} fits the protocol",
                self.broker_id,
                i64::MAX
            ));
        }
        if self.listen_port <= 2 {
            return Err(format!(
                "listenPort is {}; the VIP port listenPort - 2 must be a port too",
                self.listen_port
            ));
        }
        if self.listen_port == u16::MAX && self.ha_listen_port == 0 {
            return Err("listenPort is 65535, so haListenPort = listenPort + 1 is no port: set haListenPort".into());
        }
        if self.broker_permission & !6 != 0 {
            return Err(format!(
                "brokerPermission is {}; allowed: 0, 2, 4, 6",
                self.broker_permission
            ));
        }
        if self.mapped_file_size_commit_log < 4096 {
            return Err(format!(
                "mappedFileSizeCommitLog is {} bytes, at least 4096 are needed",
                self.mapped_file_size_commit_log
            ));
        }
        if self.mapped_file_size_consume_queue < 20 {
            return Err(format!(
                "mappedFileSizeConsumeQueue is {} bytes, one entry takes 20",
                self.mapped_file_size_consume_queue
            ));
        }
        if self.max_message_size as usize > rocketmq_protocol::frame::FRAME_MAX - (64 << 10) {
            return Err(format!(
                "maxMessageSize is {}; a frame holds at most {} bytes",
                self.max_message_size,
                rocketmq_protocol::frame::FRAME_MAX
            ));
        }
        for (name, percent) in [
            ("diskMaxUsedSpaceRatio", self.disk_max_used_space_ratio),
            (
                "diskSpaceCleanForciblyRatio",
                self.disk_space_clean_forcibly_ratio,
            ),
            (
                "diskSpaceWarningLevelRatio",
                self.disk_space_warning_level_ratio,
            ),
            (
                "accessMessageInMemoryMaxRatio",
                self.access_message_in_memory_max_ratio,
            ),
        ] {
            if percent > 100 {
                return Err(format!("{name} is {percent}; it is a percentage, 0 to 100"));
            }
        }
        if self.ha_transfer_batch_size == 0 {
            return Err("haTransferBatchSize is 0; a transfer needs at least one byte".into());
        }
        self.delay_levels()?;
        self.delete_hours()?;
        Ok(())
    }

    /// `host:port` of every name server.
    pub fn namesrvs(&self) -> Vec<String> {
        self.namesrv_addr
            .split(';')
            .map(str::trim)
            .filter(|address| !address.is_empty())
            .map(str::to_string)
            .collect()
    }
    /// Whether this is a slave.
    pub fn is_slave(&self) -> bool {
        self.broker_role == BrokerRole::Slave
    }
    /// What clients are told: `brokerIP1:listenPort`.
    pub fn broker_addr(&self) -> String {
        format!("{}:{}", self.broker_ip1, self.listen_port)
    }
    /// What callers inside the cluster's network are told.
    pub fn internal_addr(&self) -> String {
        if self.broker_internal_addr.is_empty() {
            self.broker_addr()
        } else {
            self.broker_internal_addr.clone()
        }
    }
    /// What slaves connect to: `brokerIP2:haListenPort`.
    pub fn ha_addr(&self) -> String {
        let host = if self.broker_ip2.is_empty() {
            &self.broker_ip1
        } else {
            &self.broker_ip2
        };
        format!("{host}:{}", self.ha_port())
    }
    /// The HA port, `listenPort + 1` when not set.
    pub fn ha_port(&self) -> u16 {
        if self.ha_listen_port == 0 {
            self.listen_port + 1
        } else {
            self.ha_listen_port
        }
    }
    /// The VIP port, which old clients and Java slaves use.
    pub fn fast_port(&self) -> u16 {
        self.listen_port - 2
    }
    /// The delay of each level, level 1 first.
    pub fn delay_levels(&self) -> Result<Vec<Duration>, String> {
        self.message_delay_level
            .split_whitespace()
            .map(|level| {
                let bad = || format!("messageDelayLevel has {level:?}; a level is a whole number and one of s, m, h, d");
                let unit = match level.chars().next_back() {
                    Some('s') => 1,
                    Some('m') => 60,
                    Some('h') => 3600,
                    Some('d') => 24 * 3600,
                    _ => return Err(bad()),
                };
                let count: u64 = level[..level.len() - 1].parse().map_err(|_| bad())?;
                count.checked_mul(unit).map(Duration::from_secs).ok_or_else(bad)
            })
            .collect()
    }
    /// Hours of the day of `deleteWhen`.
    pub fn delete_hours(&self) -> Result<Vec<u32>, String> {
        self.delete_when
            .split(';')
            .map(str::trim)
            .filter(|hour| !hour.is_empty())
            .map(|hour| {
                hour.parse().ok().filter(|hour| *hour < 24).ok_or_else(|| {
                    format!("deleteWhen has {hour:?}; allowed: hours 00 to 23, several by ';'")
                })
            })
            .collect()
    }
    /// What the store needs of all this.
    pub fn store_options(&self) -> StoreOptions {
        let root = PathBuf::from(&self.store_path_root_dir);
        let sync = self.flush_disk_type == FlushDiskType::SyncFlush;
        StoreOptions {
            commit_log: if self.store_path_commit_log.is_empty() {
                root.join("commitlog")
            } else {
                PathBuf::from(&self.store_path_commit_log)
            },
            root,
            commit_log_file_size: self.mapped_file_size_commit_log,
            consume_queue_file_entries: self.mapped_file_size_consume_queue.div_ceil(20),
            index_slots: self.max_hash_slot_num,
            index_entries: self.max_index_num,
            index_enabled: self.message_index_enable,
            delay_levels: self.delay_levels().expect("checked when the file was read"),
            lmq: self.enable_lmq,
            visible_when_synced: sync,
            zeros_ahead: if sync { ZEROS_AHEAD } else { 0 },
            check_crc_on_recover: self.check_crc_on_recover,
            file_reserved: Duration::from_secs(3600) * self.file_reserved_time,
            disk_max_used_percent: self.disk_max_used_space_ratio,
            disk_clean_forcibly_percent: self.disk_space_clean_forcibly_ratio,
            disk_warning_percent: self.disk_space_warning_level_ratio,
            transfer_bytes_in_memory: self.max_transfer_bytes_on_message_in_memory as usize,
            transfer_count_in_memory: self.max_transfer_count_on_message_in_memory as usize,
            transfer_bytes_on_disk: self.max_transfer_bytes_on_message_in_disk as usize,
            transfer_count_on_disk: self.max_transfer_count_on_message_in_disk as usize,
            in_memory_span: usable_memory() / 100
                * u64::from(self.access_message_in_memory_max_ratio),
        }
    }
}

/// Bytes of memory this process may use: the machine's, or its cgroup's where that is less.
fn usable_memory() -> u64 {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let machine = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(1 << 30, |kib| kib * 1024);
    // cgroup v2, then v1; "max" and v1's huge number mean no limit.
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| number(path))
    .fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_host_and_port() {
        let config = BrokerConfig {
            broker_ip2: "rmqmaster1".into(),
            broker_internal_addr: "rmqmaster1:10911".into(),
            namesrv_addr: "rmqnamesrv:9876; rmqnamesrv2:9877;".into(),
            ..BrokerConfig::default()
        };
        assert_eq!(config.broker_addr(), "127.0.0.1:10911");
        assert_eq!(config.internal_addr(), "rmqmaster1:10911");
        assert_eq!(config.ha_addr(), "rmqmaster1:10912");
        assert_eq!(config.fast_port(), 10909);
        assert_eq!(config.namesrvs(), ["rmqnamesrv:9876", "rmqnamesrv2:9877"]);
    }

    #[test]
    fn delay_levels_and_hours_read_as_java_writes_them() {
        let config = BrokerConfig {
            delete_when: "04;16".into(),
            message_delay_level: "1s 2m 3h 1d".into(),
            ..BrokerConfig::default()
        };
        assert_eq!(
            config.delay_levels().unwrap(),
            [1, 120, 10_800, 86_400].map(Duration::from_secs)
        );
        assert_eq!(config.delete_hours().unwrap(), [4, 16]);
        assert!(
            BrokerConfig {
                delete_when: "25".into(),
                ..BrokerConfig::default()
            }
            .rules()
            .is_err()
        );
        assert!(
            BrokerConfig {
                message_delay_level: "1x".into(),
                ..BrokerConfig::default()
            }
            .rules()
            .is_err()
        );
    }
}
