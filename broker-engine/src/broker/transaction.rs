//! Transactional messages: a half message lies in RMQ_SYS_TRANS_HALF_TOPIC, where no consumer sees it, until its producer
//! commits or rolls back; what became of it is written to RMQ_SYS_TRANS_OP_HALF_TOPIC. Both topics are ordinary ones, so all
//! that is known of a transaction survives a kill, a copy to a slave and the handing over of the store.
//!
//! `half`: where a prepared message goes. [`end`]: END_TRANSACTION. [`op`]: the decisions on their way into the log.
//! [`check`]: asking producers about half messages that stay undecided.
//! Source: `apache/rocketmq: broker/.../transaction/queue/*.java`.

mod check;
mod end;
mod op;

pub(super) use check::run as run_checks;
pub(super) use op::{Decisions, run as run_ops};

use super::send::Place;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::topic::{self, group};
use std::sync::Arc;

/// The one queue of the half and op topics.
const QUEUE: i32 = 0;

/// Who reads the two topics: its offsets say how far they are dealt with.
const GROUP: &str = group::SYS_TRANS;

/// A prepared message's place, with its own remembered (`TransactionalMessageBridge.parseHalfMessageInner`).
pub(super) fn half(place: Place<'_>, unique_key: Option<&str>) -> Place<'static> {
    let queue_id = place.queue_id.to_string();
    let mut set = vec![
        (name::REAL_TOPIC, &*place.topic),
        (name::REAL_QID, queue_id.as_str()),
    ];
    if let Some(key) = unique_key.filter(|key| !key.is_empty()) {
        set.push((name::TRANSACTION_ID, key));
    }
    Place {
        topic: Arc::from(topic::TRANS_HALF),
        queue_id: QUEUE,
        properties: properties::edit(&place.properties, &set, &[]).into(),
    }
}

/// `CHECK_IMMUNITY_TIME_IN_SECONDS` in milliseconds (`TransactionalMessageUtil.getImmunityTime`): -1 and what is no number
/// stand for the broker's own time-out.
fn immunity_ms(text: &str, time_out_ms: i64) -> i64 {
    match text.parse::<i64>() {
        Ok(-1) | Err(_) => time_out_ms,
        Ok(seconds) => seconds.saturating_mul(1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immunity_is_in_seconds_and_falls_back_to_the_time_out() {
        let read = |text| immunity_ms(text, 6000);
        assert_eq!(
            ["30", "0", "-1", "", "x", "9223372036854775807"].map(read),
            [30_000, 0, 6000, 6000, 6000, i64::MAX]
        );
    }

    #[test]
    fn a_half_message_remembers_where_it_belongs() {
        let place = Place {
            topic: "T".into(),
            queue_id: 3,
            properties: "TAGS\u{1}a\u{2}TRAN_MSG\u{1}true\u{2}".into(),
        };
        let half = half(place, Some("KEY"));
        assert_eq!((&*half.topic, half.queue_id), (topic::TRANS_HALF, 0));
        for (name, value) in [
            (name::TAGS, "a"),
            (name::TRAN_MSG, "true"),
            (name::REAL_TOPIC, "T"),
            (name::REAL_QID, "3"),
            (name::TRANSACTION_ID, "KEY"),
        ] {
            assert_eq!(
                properties::get(&half.properties, name),
                Some(value),
                "{name}"
            );
        }
    }
}
