//! Topic and group names: what may be in them, which belong to the system, how retry and dead letter topics are named.
//! Source: `apache/rocketmq: common/.../topic/TopicValidator.java`, `common/.../MixAll.java`, `common/.../KeyBuilder.java`.
#![allow(missing_docs)]

use std::borrow::Cow;

pub const AUTO_CREATE_TOPIC_KEY: &str = "TBW102";
pub const SCHEDULE: &str = "SCHEDULE_TOPIC_XXXX";
pub const BENCHMARK: &str = "BenchmarkTest";
pub const TRANS_HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANS_OP_HALF: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const TRANS_CHECK_MAX_TIME: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const TRACE: &str = "RMQ_SYS_TRACE_TOPIC";
pub const SELF_TEST: &str = "SELF_TEST_TOPIC";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub const ROCKSDB_OFFSET: &str = "CHECKPOINT_TOPIC";
pub const TIMER: &str = "rmq_sys_wheel_timer";
pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DLQ_PREFIX: &str = "%DLQ%";
pub const LMQ_PREFIX: &str = "%LMQ%";
/// Every topic whose name begins so is a system topic.
pub const SYSTEM_PREFIX: &str = "rmq_sys_";
pub const SYNC_BROKER_MEMBER_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
/// Prefix of the POP revive log's topic; the cluster's name follows.
pub const REVIVE_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
/// `<clusterName>_REPLY_TOPIC` takes the replies of request-reply.
pub const REPLY_POSTFIX: &str = "REPLY_TOPIC";

/// The longest topic name, in characters.
pub const TOPIC_LEN_MAX: usize = 127;
/// The longest `%RETRY%` or `%DLQ%` topic name, in characters.
pub const RETRY_OR_DLQ_LEN_MAX: usize = 255;
/// The longest group name, in characters.
pub const GROUP_LEN_MAX: usize = 120;

/// Permission bits of a topic.
pub mod perm {
    pub const INHERIT: i32 = 1;
    pub const WRITE: i32 = 2;
    pub const READ: i32 = 4;
    pub const PRIORITY: i32 = 8;
    /// Whether consumers may read.
    pub fn readable(perm: i32) -> bool {
        perm & READ != 0
    }
    /// Whether producers may write.
    pub fn writable(perm: i32) -> bool {
        perm & WRITE != 0
    }
    /// Whether an auto-created topic may take this one's configuration.
    pub fn inherited(perm: i32) -> bool {
        perm & INHERIT != 0
    }
    /// Text as Java prints it: `RW-`, `R--`, `---`, with `X` for inherit. Source: `PermName.perm2String`.
    pub fn text(perm: i32) -> String {
        let mut out = String::from("---");
        for (place, (bit, letter)) in [(READ, "R"), (WRITE, "W"), (INHERIT, "X")]
            .iter()
            .enumerate()
        {
            if perm & bit != 0 {
                out.replace_range(place..=place, letter);
            }
        }
        out
    }
}

/// Names of the consumer groups a broker makes at start (`SubscriptionGroupManager.init`).
pub mod group {
    pub const TOOLS_CONSUMER: &str = "TOOLS_CONSUMER";
    pub const FILTERSRV_CONSUMER: &str = "FILTERSRV_CONSUMER";
    pub const SELF_TEST_CONSUMER: &str = "SELF_TEST_C_GROUP";
    pub const ONS_HTTP_PROXY: &str = "CID_ONS-HTTP-PROXY";
    pub const ONSAPI_PULL: &str = "CID_ONSAPI_PULL";
    pub const ONSAPI_PERMISSION: &str = "CID_ONSAPI_PERMISSION";
    pub const ONSAPI_OWNER: &str = "CID_ONSAPI_OWNER";
    pub const SYS_TRANS: &str = "CID_RMQ_SYS_TRANS";
    pub const SYS_REVIVE: &str = "CID_RMQ_SYS_REVIVE_GROUP";
    pub const SYS_PREFIX: &str = "CID_RMQ_SYS_";
    /// All that a broker makes at start.
    pub const AT_START: [&str; 8] = [
        TOOLS_CONSUMER,
        FILTERSRV_CONSUMER,
        SELF_TEST_CONSUMER,
        ONS_HTTP_PROXY,
        ONSAPI_PULL,
        ONSAPI_PERMISSION,
        ONSAPI_OWNER,
        SYS_TRANS,
    ];
    /// Whether the group belongs to the system (`MixAll.isPredefinedGroup`, `isSysConsumerGroup`).
    pub fn is_system(group: &str) -> bool {
        group.starts_with(SYS_PREFIX) || AT_START.contains(&group)
    }
}

/// System topics known by name; a broker adds its own (cluster name, broker name).
pub const SYSTEM: [&str; 10] = [
    AUTO_CREATE_TOPIC_KEY,
    SCHEDULE,
    BENCHMARK,
    TRANS_HALF,
    TRACE,
    TRANS_OP_HALF,
    TRANS_CHECK_MAX_TIME,
    SELF_TEST,
    OFFSET_MOVED_EVENT,
    ROCKSDB_OFFSET,
];

/// Topics that no client may send to (answered NO_PERMISSION 16).
pub const NOT_ALLOWED_SEND: [&str; 6] = [
    SCHEDULE,
    TRANS_HALF,
    TRANS_OP_HALF,
    TRANS_CHECK_MAX_TIME,
    SELF_TEST,
    OFFSET_MOVED_EVENT,
];

/// Whether the topic is the system's by its name alone.
pub fn is_system(topic: &str) -> bool {
    topic.starts_with(SYSTEM_PREFIX) || SYSTEM.contains(&topic)
}

/// Whether clients may not send to it.
pub fn is_not_allowed_send(topic: &str) -> bool {
    NOT_ALLOWED_SEND.contains(&topic)
}

/// A name that breaks a rule; the text is the remark a client gets, as Java words it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub Cow<'static, str>);

fn has_illegal_character(name: &str) -> bool {
    !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'-' | b'_'))
}

/// Checks a topic's name: characters, and length in characters (127; 255 for `%RETRY%` and `%DLQ%`).
pub fn validate_topic(topic: &str) -> Result<(), NameError> {
    if topic.trim().is_empty() {
        return Err(NameError("The specified topic is blank.".into()));
    }
    if has_illegal_character(topic) {
        return Err(NameError(
            format!("The specified topic: {topic}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")
                .into(),
        ));
    }
    if is_retry(topic) || is_dlq(topic) {
        if topic.len() > RETRY_OR_DLQ_LEN_MAX {
            return Err(NameError(
                format!(
                    "The specified topic is DLQ or Retry topic: {topic}, and it's longer than topic max length: {RETRY_OR_DLQ_LEN_MAX}"
                )
                .into(),
            ));
        }
    } else if topic.len() > TOPIC_LEN_MAX {
        return Err(NameError(
            format!(
                "The specified topic: {topic}, is longer than topic max length: {TOPIC_LEN_MAX}"
            )
            .into(),
        ));
    }
    Ok(())
}

/// Checks a group's name: characters, and length in characters (120).
pub fn validate_group(group: &str) -> Result<(), NameError> {
    if group.trim().is_empty() {
        return Err(NameError("The specified group is blank.".into()));
    }
    if has_illegal_character(group) {
        return Err(NameError(
            format!("The specified group: {group}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")
                .into(),
        ));
    }
    if group.len() > GROUP_LEN_MAX {
        return Err(NameError(
            format!(
                "The specified group: {group}, is longer than group max length: {GROUP_LEN_MAX}"
            )
            .into(),
        ));
    }
    Ok(())
}

/// Whether messages to be consumed again go there.
pub fn is_retry(topic: &str) -> bool {
    topic.starts_with(RETRY_PREFIX)
}
/// Whether it is a dead letter queue.
pub fn is_dlq(topic: &str) -> bool {
    topic.starts_with(DLQ_PREFIX)
}
/// Whether it is a light queue, which stands beside the topics that messages are sent to; or a group of such queues' readers.
pub fn is_lmq(name: &str) -> bool {
    name.starts_with(LMQ_PREFIX)
}
/// Whether messages of the topic may stand in light queues (`MixAll.topicAllowsLMQ`).
pub fn allows_lmq(topic: &str) -> bool {
    !is_retry(topic) && !topic.starts_with(SYSTEM_PREFIX) && topic != SCHEDULE
}
/// The group's retry topic.
pub fn retry(group: &str) -> String {
    [RETRY_PREFIX, group].concat()
}
/// The group's dead letter queue.
pub fn dlq(group: &str) -> String {
    [DLQ_PREFIX, group].concat()
}
/// The group of a `%RETRY%` topic.
pub fn retry_group(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}
/// The POP retry topic of a group and topic: `%RETRY%group_topic`, or with `+` between in version 2.
pub fn pop_retry(group: &str, topic: &str, v2: bool) -> String {
    [RETRY_PREFIX, group, if v2 { "+" } else { "_" }, topic].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_java_does() {
        let long = "t".repeat(128);
        let retry_long = format!("{RETRY_PREFIX}{}", "g".repeat(249));
        let cases = [
            (validate_topic("Order-Topic_1|x%"), None),
            (validate_topic(&"t".repeat(127)), None),
            (validate_topic(&format!("{RETRY_PREFIX}{}", "g".repeat(248))), None),
            (validate_group(&"g".repeat(120)), None),
            (validate_topic(" "), Some("The specified topic is blank.".to_string())),
            (validate_topic(&long), Some(format!("The specified topic: {long}, is longer than topic max length: 127"))),
            (
                validate_topic(&retry_long),
                Some(format!("The specified topic is DLQ or Retry topic: {retry_long}, and it's longer than topic max length: 255")),
            ),
            (
                validate_topic("名"),
                Some("The specified topic: 名, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".into()),
            ),
            (
                validate_group("a b"),
                Some("The specified group: a b, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$".into()),
            ),
        ];
        for (got, want) in cases {
            assert_eq!(got.err().map(|e| e.to_string()), want);
        }
    }

    #[test]
    fn permissions_print_as_java_prints_them() {
        assert_eq!(
            [7, 6, 4, 2, 1, 0].map(perm::text),
            ["RWX", "RW-", "R--", "-W-", "--X", "---"]
        );
    }
}
