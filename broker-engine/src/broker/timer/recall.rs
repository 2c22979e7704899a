//! RECALL_MESSAGE (370): a timer message is taken back by a second one that comes to the same slot before it.
//! Source of checks, order and remarks: `apache/rocketmq: broker/.../processor/RecallMessageProcessor.java`,
//! `common/.../producer/RecallMessageHandle.java`.

use super::wheel::delete_key;
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::broker::send::Place;
use crate::clock;
use crate::log::{AppendError, Requirement};
use crate::net::Connection;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use rocketmq_protocol::code::response;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::Record;
use rocketmq_protocol::topic::perm;
use rocketmq_protocol::{Command, topic};
use rocketmq_store::RecordBatch;
use std::sync::Arc;

/// Tag of the message that takes another back (`BrokerController`'s `RECALL_MESSAGE_TAG`).
const TAG: &str = "_RECALL_TAG_";

/// Names a timer message that can be taken back: given to its sender, and brought back by whoever recalls it.
#[derive(Debug, PartialEq, Eq)]
struct Handle<'a> {
    topic: &'a str,
    broker_name: &'a str,
    timestamp: &'a str,
    unique_key: &'a str,
}

impl<'a> Handle<'a> {
    fn encode(&self) -> String {
        let text = [
            "v1",
            self.topic,
            self.broker_name,
            self.timestamp,
            self.unique_key,
        ]
        .join(" ");
        URL_SAFE.encode(text)
    }

    fn parse(text: &'a str) -> Option<Handle<'a>> {
        let mut items = text.split(' ');
        if items.next()? != "v1" {
            return None;
        }
        Some(Handle {
            topic: items.next()?,
            broker_name: items.next()?,
            timestamp: items.next()?,
            unique_key: items.next()?,
        })
    }
}

impl Broker {
    /// The handle of a message that was just put among those that wait; nothing for any other.
    pub(in crate::broker) fn recall_handle(
        &self,
        place: &Place<'_>,
        unique_key: &str,
    ) -> Option<String> {
        if *place.topic != *topic::TIMER {
            return None;
        }
        let topic = properties::get(&place.properties, name::REAL_TOPIC)?;
        let slot: i64 = properties::get(&place.properties, name::TIMER_OUT_MS)?
            .parse()
            .ok()?;
        if topic::is_retry(topic) {
            return None;
        }
        let handle = Handle {
            topic,
            broker_name: &self.config.get().broker_name,
            // One more than the slot's begin, so that it falls into the same slot.
            timestamp: &(slot + 1).to_string(),
            unique_key,
        };
        Some(handle.encode())
    }

    pub(in crate::broker) fn recall_message(
        self: &Arc<Self>,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        let config = self.config.get();
        let group = command.ext.get("producerGroup").unwrap_or_default();
        let topic_name = command.ext.str("topic")?;
        let handle = command.ext.str("recallHandle")?;
        let refuse =
            |code, remark: &str| Err(Refusal::new(code, format!("recall failed, {remark}")));
        if !config.recall_message_enable {
            return refuse(response::NO_PERMISSION, "operation is forbidden");
        }
        if self.is_slave() {
            return refuse(
                response::SLAVE_NOT_AVAILABLE,
                "broker service not available",
            );
        }
        if !perm::writable(config.broker_permission as i32) {
            return refuse(
                response::SERVICE_NOT_AVAILABLE,
                "broker service not available",
            );
        }
        if self.topics.get(topic_name).is_none() {
            return refuse(
                response::TOPIC_NOT_EXIST,
                &format!("the topic[{topic_name}] not exist"),
            );
        }
        let text = URL_SAFE
            .decode(handle)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(handle) = text.as_deref().and_then(Handle::parse) else {
            return Err(Refusal::new(
                response::ILLEGAL_OPERATION,
                "recall handle is invalid",
            ));
        };
        if handle.topic != topic_name {
            return refuse(response::ILLEGAL_OPERATION, "topic not match");
        }
        if handle.broker_name != config.broker_name {
            return refuse(response::ILLEGAL_OPERATION, "broker service not available");
        }
        let now = clock::now_ms();
        let left = handle.timestamp.parse::<i64>().unwrap_or(-1) - now;
        if left <= 0 || left >= (config.timer_max_delay_sec as i64).saturating_mul(1000) {
            return refuse(response::ILLEGAL_OPERATION, "timestamp invalid");
        }
        let mut text = String::new();
        properties::push(&mut text, name::TAGS, TAG);
        properties::push(
            &mut text,
            name::TIMER_DEL_UNIQKEY,
            &delete_key(handle.topic, handle.unique_key),
        );
        properties::push(&mut text, name::UNIQ_KEY, handle.unique_key);
        properties::push(&mut text, name::TIMER_DELIVER_MS, handle.timestamp);
        properties::push(&mut text, name::BORN_TIMESTAMP, &now.to_string());
        properties::push(&mut text, name::PRODUCER_GROUP, group);
        let failed = || Refusal::system_error("recall failed, execute error");
        let place = Place {
            topic: topic_name.into(),
            queue_id: 0,
            properties: text.into(),
        };
        let place = self.timed(place).map_err(|_| failed())?;
        let record = Record {
            queue_id: place.queue_id,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: now,
            born_host: connection.peer(),
            store_timestamp: 0,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"0",
            topic: &place.topic,
            properties: &place.properties,
        };
        let mut batch = RecordBatch::new();
        batch.push(&place.topic, &record).map_err(|_| failed())?;
        let (connection, oneway) = (connection.clone(), command.is_oneway());
        let stored = (command.response(response::SUCCESS))
            .with(name::MSG_REGION, &config.region_id)
            .with("msgId", handle.unique_key);
        let unstored = failed().answer(command);
        let done = Box::new(move |result: Result<_, AppendError>| {
            if !oneway {
                connection.reply(if result.is_ok() { &stored } else { &unstored });
            }
        });
        self.log
            .append(batch, Requirement::default(), done)
            .map_err(|_| failed())?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_reads_back_and_is_javas() {
        let handle = Handle {
            topic: "T",
            broker_name: "broker-a",
            timestamp: "1700000000001",
            unique_key: "KEY",
        };
        let text = handle.encode();
        assert_eq!(text, "djEgVCBicm9rZXItYSAxNzAwMDAwMDAwMDAxIEtFWQ==");
        let plain = String::from_utf8(URL_SAFE.decode(text).unwrap()).unwrap();
        assert_eq!(Handle::parse(&plain), Some(handle));
        for bad in ["", "v1", "v1 T b 1", "v2 T b 1 K"] {
            assert_eq!(Handle::parse(bad), None, "{bad}");
        }
    }
}
