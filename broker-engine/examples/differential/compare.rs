//! Answers as flat maps of places and values, so that they can be compared field by field; what must differ is left out or made alike.

use bytes::Bytes;
use rocketmq_protocol::code::response;
use rocketmq_protocol::record::{self, Record};
use rocketmq_protocol::{Command, json, message_id, properties};
use serde_json::Value;
use std::collections::BTreeMap;

/// Places and values of an answer.
pub type Flat = BTreeMap<String, String>;

/// Members of bodies and headers that hold a moment, a rate, a place in the log or an address, wherever they stand.
const DIFFERS: [&str; 20] = [
    "addTimestamp",
    "brokerAddr",
    "clientAddr",
    "consumeTps",
    "consumeTimeStamp",
    "consumeTimeStampStr",
    "dataVersion",
    "delayTime",
    "indexLastUpdatePhyoffset",
    "indexLastUpdateTimestamp",
    "lastTimestamp",
    "lastUpdateTimestamp",
    "maxTimeStamp",
    "maxTimeStampStr",
    "minTimeStamp",
    "minTimeStampStr",
    "physicOffset",
    "physicSize",
    "timestamp",
    "topicPutTps",
];

/// Differences that stay, by the operation (`*`: any), the place's beginning, and the reason.
const KNOWN: [(&str, &str, &str); 4] = [
    (
        "half",
        "header queueOffset",
        "the topic of half messages is shared by all runs on the Java broker's store",
    ),
    (
        "delayed send",
        "header queueOffset",
        "the topic of delayed messages is shared by all runs on the Java broker's store",
    ),
    (
        "consumed by",
        "body groupList",
        "Java lists a group under a topic that it no longer subscribes to until its last member leaves",
    ),
    (
        "queue entries",
        "",
        "Java knows a queue from its first message or question on, this engine from the topic's configuration",
    ),
];

/// The first place where two answers differ and what each has there; the reason when the difference is a known one.
pub struct Difference {
    pub place: String,
    pub ours: Option<String>,
    pub java: Option<String>,
    pub known: Option<&'static str>,
}

/// All places where two answers differ.
pub fn differences(kind: &str, ours: &Flat, java: &Flat) -> Vec<Difference> {
    let mut places: Vec<&String> = ours.keys().chain(java.keys()).collect();
    places.sort();
    places.dedup();
    places
        .into_iter()
        .filter(|place| ours.get(*place) != java.get(*place))
        .map(|place| Difference {
            place: place.clone(),
            ours: ours.get(place).cloned(),
            java: java.get(place).cloned(),
            known: KNOWN
                .iter()
                .find(|(of, at, _)| (*of == "*" || *of == kind) && place.starts_with(at))
                .map(|(_, _, reason)| *reason),
        })
        .collect()
}

/// An answer's places and values.
pub fn flat(answer: &Command) -> Flat {
    let mut out = Flat::new();
    let code = format!("{} {}", answer.code, response::name(answer.code));
    out.insert("code".into(), code);
    // The texts are each side's own; that there is one is not.
    if answer.code != response::SUCCESS {
        let said = answer
            .remark
            .as_deref()
            .is_some_and(|text| !text.is_empty());
        out.insert("remark".into(), if said { "a text" } else { "none" }.into());
    }
    for (name, value) in answer.ext.iter() {
        if !DIFFERS.contains(&name) {
            out.insert(format!("header {name}"), header_value(name, value));
        }
    }
    body(&answer.body, &mut out);
    out
}

fn header_value(name: &str, value: &str) -> String {
    match name {
        // The ids hold addresses and places in the log: how many, and of which kind.
        "msgId" => value
            .split(',')
            .map(|id| message_id::parse(id).map_or(id, |_| "an offset id"))
            .collect::<Vec<_>>()
            .join(","),
        // Holds a moment and, where the message has none, a key that the server made.
        "recallHandle" => "a recall handle".into(),
        // Made by the server where the message has no unique key.
        "transactionId" if is_unique_key(value) => "a unique key".into(),
        _ => value.into(),
    }
}

/// Whether a text is a unique key as clients and brokers make them: hex digits of an address of either kind, a process, a moment, a counter.
fn is_unique_key(text: &str) -> bool {
    matches!(text.len(), 32 | 56) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn body(body: &Bytes, out: &mut Flat) {
    if body.is_empty() {
        return;
    }
    let records: Result<Vec<_>, _> = record::records(body)
        .map(|view| view.and_then(|view| view.check_body_crc().and_then(|()| view.decode())))
        .collect();
    if let Ok(records) = records {
        out.insert("records".into(), records.len().to_string());
        for (at, one) in records.iter().enumerate() {
            message(&format!("record {at}"), one, out);
        }
        return;
    }
    match json::to_standard(body).map(|text| serde_json::from_str::<Value>(&text)) {
        Ok(Ok(value)) => member("body", &value, out),
        _ => {
            out.insert("body".into(), format!("{} bytes", body.len()));
        }
    }
}

fn message(place: &str, one: &Record<'_>, out: &mut Flat) {
    let mut put = |name: &str, value: String| out.insert(format!("{place} {name}"), value);
    put("topic", one.topic.into());
    put("queueId", one.queue_id.to_string());
    // Topics that all runs on a store share go on where the last one ended.
    if !one.topic.starts_with("RMQ_SYS_")
        && !one.topic.starts_with("SCHEDULE_TOPIC")
        && !one.topic.starts_with("rmq_sys_")
    {
        put("queueOffset", one.queue_offset.to_string());
    }
    put("flag", one.flag.to_string());
    put("sysFlag", one.sys_flag.to_string());
    put("bornTimestamp", one.born_timestamp.to_string());
    put("bornHost", one.born_host.ip().to_string());
    put("reconsumeTimes", one.reconsume_times.to_string());
    let prepared = one.prepared_transaction_offset != 0;
    put(
        "preparedTransactionOffset",
        format!("{}", i32::from(prepared)),
    );
    put("body", String::from_utf8_lossy(one.body).into_owned());
    // Java's order is that of a hash map, and means nothing.
    for (name, value) in properties::pairs(one.properties) {
        let value = match name {
            properties::name::ORIGIN_MESSAGE_ID | properties::name::DLQ_ORIGIN_MESSAGE_ID => {
                message_id::parse(value).map_or(value, |_| "an offset id")
            }
            _ if is_unique_key(value) => "a unique key",
            _ => value,
        };
        put(&format!("property {name}"), value.into());
    }
}

fn member(place: &str, value: &Value, out: &mut Flat) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                if !DIFFERS.contains(&name.as_str()) {
                    member(&format!("{place} {}", key(name)), value, out);
                }
            }
        }
        Value::Array(values) => {
            // Sets, all of them: in Java in the order of a hash.
            let mut texts: Vec<(String, &Value)> = values
                .iter()
                .map(|value| (value.to_string(), value))
                .collect();
            texts.sort_by(|one, other| one.0.cmp(&other.0));
            out.insert(format!("{place} count"), texts.len().to_string());
            for (at, (_, value)) in texts.iter().enumerate() {
                member(&format!("{place} {at}"), value, out);
            }
        }
        other => {
            out.insert(place.into(), other.to_string());
        }
    }
}

/// A key; one that is an object with its members in order.
fn key(name: &str) -> String {
    match serde_json::from_str::<BTreeMap<String, Value>>(name) {
        Ok(members) => serde_json::to_string(&members).unwrap_or_else(|_| name.into()),
        Err(_) => name.into(),
    }
}
