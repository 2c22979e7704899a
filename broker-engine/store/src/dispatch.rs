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

/// What a record about to be encoded means. Reads the properties once, without the `stamp` that they end with if they do, which
/// says nothing of what is looked for; index key hashes go to `key_hashes`.
pub(crate) fn facts(record: &Record<'_>, stamp: &str, key_hashes: &mut Vec<i32>) -> Facts {
    let own = record.properties.strip_suffix(stamp);
    // The stamp must begin a pair: what it continues has another name or value.
    let own = own.filter(|own| own.is_empty() || own.ends_with(properties::PROPERTY_SEPARATOR));
    let properties = own.unwrap_or(record.properties);
    read(record.sys_flag, record.topic, properties, key_hashes)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAMP: &str = "MSG_REGION\u{1}here\u{2}TRACE_ON\u{1}true\u{2}";

    fn both(own: &str) -> [(Facts, Vec<i32>); 2] {
        let properties = format!("{own}{STAMP}");
        [STAMP, "no stamp of this batch"].map(|stamp| {
            let record = Record {
                queue_id: 0,
                flag: 0,
                queue_offset: 0,
                physical_offset: 0,
                sys_flag: 0,
                born_timestamp: 0,
                born_host: ([127, 0, 0, 1], 1).into(),
                store_timestamp: 0,
                store_host: ([127, 0, 0, 1], 2).into(),
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: b"",
                topic: "T",
                properties: &properties,
            };
            let mut keys = Vec::new();
            (facts(&record, stamp, &mut keys), keys)
        })
    }

    proptest! {
        #[test]
        fn a_record_means_the_same_whether_its_stamp_is_read_or_not(own in "((TAGS|KEYS|UNIQ_KEY|WAIT|a)?\u{1}?[ab ]{0,3}\u{2}?){0,5}") {
            let [skipped, read] = both(&own);
            prop_assert_eq!(skipped, read);
        }
    }

    #[test]
    fn what_the_stamp_continues_is_read_with_it() {
        let [skipped, read] = both("TAGS\u{1}a");
        assert_eq!(skipped, read);
        assert_eq!(
            skipped.0.tags_code,
            i64::from(hash::java_string("aMSG_REGION\u{1}here"))
        );
    }
}
