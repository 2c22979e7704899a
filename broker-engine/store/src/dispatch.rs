//! What a record means to the queues and the index. One rule for records just received, a master's bytes and recovery.
//! Source: `apache/rocketmq: store/.../CommitLog.java` checkMessageAndReturnSize, `store/.../index/IndexService.java` buildIndex.

use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{Record, View};
use rocketmq_protocol::{hash, sysflag, topic as topics};
use std::time::Duration;

/// What the queues need of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub tags_code: i64,
    /// Level of a delayed record, 0 for all others: its tags code is the deliver time, known with the store time.
    pub delay_level: i32,
    pub queued: bool,
    /// Whether it says its places in light queues.
    pub lmq: bool,
}

/// What a record about to be encoded means. Reads the properties once; index key hashes go to `key_hashes`.
pub(crate) fn facts(record: &Record<'_>, key_hashes: &mut Vec<i32>) -> Facts {
    read(record.sys_flag, record.topic, record.properties, key_hashes)
}

/// What a record of the log means. Java stores whatever bytes a client sent: properties that are no text have no tag and no
/// keys, and are no damage.
pub(crate) fn facts_of_stored(record: &View<'_>, topic: &str, key_hashes: &mut Vec<i32>) -> Facts {
    read(
        record.sys_flag(),
        topic,
        record.properties().unwrap_or_default(),
        key_hashes,
    )
}

fn read(sys_flag: i32, topic: &str, properties: &str, key_hashes: &mut Vec<i32>) -> Facts {
    let transaction = sys_flag & sysflag::TRANSACTION_MASK;
    let rolled_back = transaction == sysflag::TRANSACTION_ROLLBACK;
    let scheduled = topic == topics::SCHEDULE;
    let mut facts = Facts {
        tags_code: 0,
        delay_level: 0,
        queued: !rolled_back && transaction != sysflag::TRANSACTION_PREPARED,
        lmq: false,
    };
    let mut topic_hash = None;
    let mut add_key = |key: &str| {
        if !key.is_empty() && !rolled_back {
            let base = *topic_hash.get_or_insert_with(|| topic_key_hash(topic));
            key_hashes.push(continue_hash(base, key));
        }
    };
    for (property, value) in properties::pairs(properties) {
        match property {
            name::TAGS => facts.tags_code = i64::from(hash::java_string(value)),
            name::UNIQ_KEY => add_key(value),
            name::KEYS => value.split(' ').for_each(&mut add_key),
            name::INNER_MULTI_QUEUE_OFFSET => facts.lmq = topics::allows_lmq(topic),
            name::DELAY if scheduled => facts.delay_level = value.parse().unwrap_or(0).max(0),
            _ => {}
        }
    }
    facts
}

/// The time in ms at which a delayed record is due; a level beyond the last counts as the last.
/// Source: `apache/rocketmq: broker/.../schedule/ScheduleMessageService.java` computeDeliverTimestamp.
pub(crate) fn deliver_time(levels: &[Duration], level: i32, store_timestamp: i64) -> i64 {
    let delay = levels
        .get((level.max(1) as usize).min(levels.len()).wrapping_sub(1))
        .copied()
        // Java's answer when it knows no levels at all.
        .unwrap_or(Duration::from_secs(1));
    store_timestamp + delay.as_millis() as i64
}

/// Hash of an index key, `topic#key`, never negative.
pub(crate) fn index_key_hash(topic: &str, key: &str) -> i32 {
    continue_hash(topic_key_hash(topic), key)
}

fn topic_key_hash(topic: &str) -> i32 {
    hash::java_string_on(hash::java_string(topic), "#")
}

fn continue_hash(base: i32, key: &str) -> i32 {
    // Java: abs(), whose MIN_VALUE stays negative and then becomes 0.
    hash::java_string_on(base, key).checked_abs().unwrap_or(0)
}

/// Whether a topic may name a directory. Topics from clients are checked before; those in a master's bytes or in a damaged
/// log are not.
pub(crate) fn names_a_directory(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= 255
        && topic != "."
        && topic != ".."
        && !topic.contains(['/', '\\', '\0'])
}
