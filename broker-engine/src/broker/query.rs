//! QUERY_MESSAGE (12) by key, VIEW_MESSAGE_BY_ID (33) by physical offset.
//! Source: `apache/rocketmq: broker/.../processor/QueryMessageProcessor.java`.

use super::Broker;
use super::refusal::Refusal;
use crate::net::Connection;
use bytes::{Bytes, BytesMut};
use rocketmq_protocol::Command;
use rocketmq_protocol::code::response;
use std::sync::Arc;

/// The header field by which clients say that the key is a unique key (`MixAll.UNIQUE_MSG_QUERY_FLAG`).
const UNIQUE: &str = "_UNIQUE_KEY_QUERY";
/// Most records one query may bring, whatever it asks for: an answer must fit a frame.
const RECORDS_MAX: usize = 1024;
/// Most bytes of records in one answer.
const BYTES_MAX: usize = 8 << 20;

impl Broker {
    /// Answers 12. The index lies on disk and may be cold, so the search runs off the connection's worker.
    pub(super) fn query_message(self: &Arc<Self>, connection: &Connection, command: Command) {
        let broker = Arc::clone(self);
        let connection = connection.clone();
        self.runtime.spawn_blocking(move || {
            let answer = broker
                .query(&command)
                .unwrap_or_else(|refusal| refusal.answer(&command));
            if !command.is_oneway() {
                connection.reply(&answer);
            }
        });
    }

    fn query(&self, command: &Command) -> Result<Command, Refusal> {
        let ext = &command.ext;
        let max = if ext.get(UNIQUE) == Some("true") {
            self.config.get().default_query_max_num as usize
        } else {
            ext.i32("maxNum")?.max(0) as usize
        };
        let hits = self.store.query(
            ext.str("topic")?,
            ext.str("key")?,
            max.min(RECORDS_MAX),
            ext.i64("beginTimestamp")?,
            ext.i64("endTimestamp")?,
        )?;
        let answer = if hits.records.is_empty() {
            command.error(
                response::QUERY_NOT_FOUND,
                "can not find message, maybe time range not correct",
            )
        } else {
            command
                .response(response::SUCCESS)
                .with_body(join(&hits.records))
        };
        Ok(answer
            .with("indexLastUpdateTimestamp", hits.last_update_timestamp)
            .with("indexLastUpdatePhyoffset", hits.last_update_physical_offset))
    }

    /// Answers 33.
    pub(super) fn view_message(&self, command: &Command) -> Result<Command, Refusal> {
        let offset = command.ext.i64("offset")?;
        match self.store.record_at(offset)? {
            Some(record) => Ok(command.response(response::SUCCESS).with_body(record)),
            None => Err(Refusal::system_error(format!(
                "can not find message by the offset, {offset}"
            ))),
        }
    }
}

fn join(records: &[Bytes]) -> Bytes {
    let mut body = BytesMut::new();
    for record in records {
        if !body.is_empty() && body.len() + record.len() > BYTES_MAX {
            break;
        }
        body.extend_from_slice(record);
    }
    body.freeze()
}
