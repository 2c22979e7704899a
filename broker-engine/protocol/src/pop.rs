//! What POP consumption hands out and keeps: receipt handles, the offset lists of an answer, the messages of the revive log.
//! Source: `apache/rocketmq: remoting/.../protocol/header/ExtraInfoUtil.java`,
//! `store/.../store/pop/{PopCheckPoint,AckMsg,BatchAckMsg}.java`, `broker/.../processor/PopMessageProcessor.java` (unique ids).

use crate::topic;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};

/// In place of a revive queue: the message was popped in order, and no checkpoint was written (`KeyBuilder.POP_ORDER_REVIVE_QUEUE`).
pub const ORDER_REVIVE_QUEUE: i32 = 999;
/// A checkpoint comes to the revive log this much before its messages become visible, ms (`PopAckConstants.ackTimeInterval`).
pub const ACK_INTERVAL_MS: i64 = 1000;
/// Most messages one POP may ask for: a checkpoint has so many bits.
pub const MESSAGES_MAX: i32 = 32;

/// TAGS of what is in the revive log (`PopAckConstants`).
#[allow(missing_docs)]
pub mod tag {
    pub const CHECK_POINT: &str = "ck";
    pub const ACK: &str = "ack";
    pub const BATCH_ACK: &str = "bAck";
}

/// How a topic stands in handles and offset lists: `0` as it is, `1` and `2` a POP retry topic of the first or second form.
pub fn mark_of(topic: &str) -> &'static str {
    match topic::retry_group(topic) {
        None => "0",
        Some(rest) if rest.contains('+') => "2",
        Some(_) => "1",
    }
}

/// The topic a mark stands for, when `topic` was asked for; `None` when it is no mark.
pub fn marked_topic(mark: &str, group: &str, topic: &str) -> Option<String> {
    match mark {
        "0" => Some(topic.to_owned()),
        "1" => Some(topic::pop_retry(group, topic, false)),
        "2" => Some(topic::pop_retry(group, topic, true)),
        _ => None,
    }
}

/// The topic a POP retry topic of `group` belongs to; any other topic is its own (`KeyBuilder.parseNormalTopic`).
pub fn normal_topic<'t>(topic: &'t str, group: &str) -> &'t str {
    topic::retry_group(topic)
        .and_then(|rest| rest.strip_prefix(group))
        .and_then(|rest| rest.strip_prefix(['+', '_']))
        .unwrap_or(topic)
}

/// What a consumer shows to acknowledge one popped message: property POP_CK, header field `extraInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Handle {
    /// The checkpoint's first queue offset.
    pub start_offset: i64,
    pub pop_time: i64,
    pub invisible_time: i64,
    pub revive_queue: i32,
    /// As [`mark_of`] the topic.
    pub mark: String,
    pub broker_name: String,
    pub queue_id: i32,
    pub queue_offset: i64,
}

/// Why a text is no receipt handle.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{text}\" is no receipt handle: {what}")]
pub struct HandleError {
    text: String,
    what: &'static str,
}

impl Handle {
    /// Whether the message was popped in order.
    pub fn is_order(&self) -> bool {
        self.revive_queue == ORDER_REVIVE_QUEUE
    }

    /// Reads a handle. Queue and offset may be left out, as old clients do: the request names them too.
    pub fn parse(text: &str) -> Result<Handle, HandleError> {
        let bad = |what| HandleError {
            text: text.chars().take(200).collect(),
            what,
        };
        let mut parts = text.split(' ');
        let mut number = |what| {
            let part = parts.next();
            part.and_then(|part| part.parse::<i64>().ok())
                .ok_or_else(|| bad(what))
        };
        let start_offset = number("the start offset, the first of its fields, is no number")?;
        let pop_time = number("the pop time, the second of its fields, is no number")?;
        let invisible_time = number("the invisible time, the third of its fields, is no number")?;
        let revive_queue = number("the revive queue, the fourth of its fields, is no number")?;
        let mark = parts
            .next()
            .ok_or_else(|| bad("the retry mark is missing"))?;
        let broker_name = parts.next().ok_or_else(|| bad("the broker is missing"))?;
        let mut rest = |what| match parts.next() {
            None => Ok(0),
            Some(part) => part.parse::<i64>().map_err(|_| bad(what)),
        };
        let queue_id = rest("the queue is no number")?;
        let queue_offset = rest("the queue offset is no number")?;
        let small = |number: i64, what| i32::try_from(number).map_err(|_| bad(what));
        Ok(Handle {
            start_offset,
            pop_time,
            invisible_time,
            revive_queue: small(revive_queue, "the revive queue is no queue number")?,
            mark: mark.to_owned(),
            broker_name: broker_name.to_owned(),
            queue_id: small(queue_id, "the queue is no queue number")?,
            queue_offset,
        })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handle {
            start_offset,
            pop_time,
            invisible_time,
            revive_queue,
            mark,
            broker_name,
            queue_id,
            queue_offset,
        } = self;
        write!(
            out,
            "{start_offset} {pop_time} {invisible_time} {revive_queue} {mark} {broker_name} {queue_id} {queue_offset}"
        )
    }
}

/// Appends an item to a list of an answer (`startOffsetInfo`, `msgOffsetInfo`, `orderCountInfo`): the topic's mark, what is
/// spoken of, and its value.
pub fn push_info(list: &mut String, topic: &str, of: impl fmt::Display, value: impl fmt::Display) {
    let separator = if list.is_empty() { "" } else { ";" };
    let _ = write!(list, "{separator}{} {of} {value}", mark_of(topic));
}

/// Messages that were popped together, as the revive log keeps them until they are acknowledged or become visible again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct CheckPoint {
    /// Bit i: message i is acknowledged.
    #[serde(rename = "bm")]
    pub bits: i32,
    #[serde(rename = "bn")]
    pub broker_name: String,
    #[serde(rename = "c")]
    pub group: String,
    /// Queue offsets of the messages, counted from `start_offset`; empty in the first form, whose messages lie side by side.
    #[serde(rename = "d")]
    pub diffs: Vec<i32>,
    /// ms.
    #[serde(rename = "it")]
    pub invisible_time: i64,
    #[serde(rename = "n")]
    pub count: i32,
    /// ms since the epoch.
    #[serde(rename = "pt")]
    pub pop_time: i64,
    #[serde(rename = "q")]
    pub queue_id: i32,
    /// Where it lies in its revive queue; known to who reads it there.
    #[serde(rename = "ro")]
    pub revive_offset: i64,
    /// How often it was put back because its messages could not be read.
    #[serde(rename = "rp", skip_serializing_if = "Option::is_none")]
    pub put_back: Option<String>,
    #[serde(rename = "so")]
    pub start_offset: i64,
    #[serde(rename = "t")]
    pub topic: String,
}

impl CheckPoint {
    /// When its messages become visible again, ms since the epoch.
    pub fn revive_ms(&self) -> i64 {
        self.pop_time.saturating_add(self.invisible_time)
    }

    /// Queue offsets of the messages nobody acknowledged.
    pub fn open(&self) -> impl Iterator<Item = i64> {
        (0..self.count.clamp(0, MESSAGES_MAX) as usize)
            .filter(|at| self.bits & (1 << at) == 0)
            .filter_map(|at| match self.diffs.as_slice() {
                [] => Some(self.start_offset.saturating_add(at as i64)),
                diffs => Some(self.start_offset.saturating_add(i64::from(*diffs.get(at)?))),
            })
    }

    /// Notes that the message at a queue offset is acknowledged; whether it is one of these.
    pub fn acknowledge(&mut self, offset: i64) -> bool {
        let diff = offset.saturating_sub(self.start_offset);
        let at = if self.diffs.is_empty() {
            usize::try_from(diff)
                .ok()
                .filter(|_| diff < i64::from(self.count))
        } else {
            self.diffs.iter().position(|each| i64::from(*each) == diff)
        };
        match at {
            Some(at) if at < 32 => {
                self.bits |= 1 << at;
                true
            }
            _ => false,
        }
    }

    /// UNIQ_KEY of its message.
    pub fn unique_key(&self) -> String {
        let CheckPoint {
            topic,
            queue_id,
            start_offset,
            group,
            pop_time,
            broker_name,
            ..
        } = self;
        format!(
            "{topic}@{queue_id}@{start_offset}@{group}@{pop_time}@{broker_name}@{}",
            tag::CHECK_POINT
        )
    }
}

/// One or, with tag `bAck`, several acknowledged messages of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Ack {
    #[serde(rename = "ao", alias = "ackOffset")]
    pub offset: i64,
    /// Of a batch; `offset` is -1 then.
    #[serde(
        rename = "aol",
        alias = "ackOffsetList",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub offsets: Vec<i64>,
    #[serde(rename = "bn", alias = "brokerName")]
    pub broker_name: String,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub group: String,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

impl Ack {
    /// TAGS of its message.
    pub fn tag(&self) -> &'static str {
        if self.offsets.is_empty() {
            tag::ACK
        } else {
            tag::BATCH_ACK
        }
    }

    /// UNIQ_KEY of its message: Java gives a batch the key of a single one too, whose offset is -1.
    pub fn unique_key(&self) -> String {
        let Ack {
            topic,
            queue_id,
            offset,
            group,
            pop_time,
            broker_name,
            ..
        } = self;
        format!(
            "{topic}@{queue_id}@{offset}@{group}@{pop_time}@{broker_name}@{}",
            tag::ACK
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_handle_reads_what_it_writes_and_names_what_is_wrong() {
        let text = "12 1700000000000 60000 3 1 broker-a 2 14";
        let handle = Handle::parse(text).unwrap();
        assert_eq!(handle.to_string(), text);
        assert_eq!((handle.queue_id, handle.queue_offset), (2, 14));
        assert!(!handle.is_order() && Handle::parse("1 2 3 999 0 b").unwrap().is_order());
        for (text, what) in [
            ("", "the start offset"),
            ("1 2 x", "the invisible time"),
            ("1 2 3 4", "the retry mark is missing"),
            ("1 2 3 4 0", "the broker is missing"),
            ("1 2 3 99999999999 0 b", "no queue number"),
            ("1 2 3 4 0 b q", "the queue is no number"),
        ] {
            let error = Handle::parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn topics_and_their_marks() {
        for (topic, mark) in [("T", "0"), ("%RETRY%g_T", "1"), ("%RETRY%g+T", "2")] {
            assert_eq!(mark_of(topic), mark);
            assert_eq!(marked_topic(mark, "g", "T").as_deref(), Some(topic));
            assert_eq!(normal_topic(topic, "g"), "T");
        }
        assert_eq!(marked_topic("3", "g", "T"), None);
        assert_eq!(normal_topic("%RETRY%g", "g"), "%RETRY%g");
        let mut list = String::new();
        push_info(&mut list, "T", 0, 7);
        push_info(&mut list, "%RETRY%g_T", "qo1%9", "2");
        assert_eq!(list, "0 0 7;1 qo1%9 2");
    }

    #[test]
    fn a_checkpoint_is_javas_and_keeps_what_is_open() {
        let text = r#"{"bm":0,"bn":"broker-a","c":"g","d":[0,2,3],"it":60000,"n":3,"pt":1700000000000,"q":1,"ro":0,"so":5,"t":"T"}"#;
        let mut check: CheckPoint = json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(json::to_fastjson(&check), text);
        assert_eq!(check.unique_key(), "T@1@5@g@1700000000000@broker-a@ck");
        assert!(check.acknowledge(7) && !check.acknowledge(6) && !check.acknowledge(4));
        assert_eq!(check.open().collect::<Vec<_>>(), [5, 8]);
        let mut first_form = CheckPoint {
            count: 2,
            start_offset: 5,
            ..CheckPoint::default()
        };
        assert!(first_form.acknowledge(6) && !first_form.acknowledge(7));
        assert_eq!(first_form.open().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn an_ack_is_javas() {
        let text = r#"{"ao":7,"bn":"broker-a","c":"g","pt":1,"q":1,"so":5,"t":"T"}"#;
        let ack: Ack = json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(json::to_fastjson(&ack), text);
        assert_eq!(
            (ack.tag(), ack.unique_key().as_str()),
            ("ack", "T@1@7@g@1@broker-a@ack")
        );
        let batch = Ack {
            offset: -1,
            offsets: vec![5, 7],
            ..ack
        };
        assert_eq!(batch.tag(), "bAck");
    }
}
