//! Questions that only a client can answer, asked over its own connection: 307, 309, 223 (221).

use super::offsets::V3_0_7;
use super::{Answer, Later};
use crate::broker::Broker;
use crate::broker::clients::Member;
use crate::broker::refusal::{Refusal, json_body};
use crate::net::{CallError, Connection};
use rocketmq_protocol::body::{GetConsumerStatusBody, QueueMap};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json, message_id};
use std::sync::Arc;
use std::time::Duration;

/// How long a client may take over 307 and 309 (`Broker2Client.callClient`).
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// And over 221.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// Clients from V3_1_8_SNAPSHOT on answer 307 and 309.
const V3_1_8: i32 = 69;

/// GET_CONSUMER_RUNNING_INFO (307).
pub(super) fn running_info(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        let asked =
            Command::request(command.code, command.ext.clone()).with_body(command.body.clone());
        call_consumer(&broker, &command, asked).await
    })
}

/// CONSUME_MESSAGE_DIRECTLY (309): the message travels in the request's body.
pub(super) fn consume_directly(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        let mut ext = command.ext.clone();
        ext.set("brokerName", &broker.config.get().broker_name);
        if let Some(topic) = command
            .ext
            .get("topic")
            .and_then(|topic| broker.topics.get(topic))
        {
            ext.set("topicSysFlag", topic.topic_sys_flag);
        }
        if let Some(group) = broker.groups.get(command.ext.str("consumerGroup")?) {
            ext.set("groupSysFlag", group.group_sys_flag);
        }
        let id = command.ext.str("msgId")?.to_owned();
        let Some((_, offset)) = message_id::parse(&id) else {
            return Err(Refusal::system_error(format!(
                "{id} is no offset message id"
            )));
        };
        let store = broker.store.clone();
        let record = tokio::task::spawn_blocking(move || store.record_at(offset)).await;
        let record = record.map_err(|error| Refusal::system_error(error.to_string()))??;
        let Some(record) = record else {
            return Err(Refusal::system_error(format!(
                "no message starts at {offset}, where {id} points"
            )));
        };
        let asked = Command::request(command.code, ext).with_body(record);
        call_consumer(&broker, &command, asked).await
    })
}

async fn call_consumer(broker: &Broker, command: &Command, asked: Command) -> Answer {
    let group = command.ext.str("consumerGroup")?;
    let client_id = command.ext.get("clientId").unwrap_or_default();
    let Some(member) = broker.clients.consumer(group, client_id) else {
        return Err(Refusal::system_error(format!(
            "The Consumer <{group}> <{client_id}> not online"
        )));
    };
    if member.version < V3_1_8 {
        return Err(Refusal::system_error(format!(
            "The Consumer <{client_id}> Version <{}> too low to finish, please upgrade it to V3_1_8_SNAPSHOT",
            member.version
        )));
    }
    match member.connection.call(asked, CALL_TIMEOUT).await {
        Ok(answer) => {
            let mut relayed = command.response(answer.code).with_body(answer.body);
            relayed.remark = answer.remark;
            relayed.ext = answer.ext;
            Ok(relayed)
        }
        Err(error @ CallError::Timeout { .. }) => Err(Refusal::new(
            response::CONSUME_MSG_TIMEOUT,
            format!("consumer <{group}> <{client_id}> Timeout: {error}"),
        )),
        Err(error) => Err(Refusal::system_error(format!(
            "invoke consumer <{group}> <{client_id}> Exception: {error}"
        ))),
    }
}

/// INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223): asks one client, or every one of the group, where it stands.
pub(super) fn consumer_status(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        let topic = command.ext.str("topic")?;
        let group = command.ext.str("group")?;
        let wanted = command
            .ext
            .get("clientAddr")
            .filter(|id| !id.trim().is_empty());
        let members = broker.clients.consumers(group);
        if members.is_empty() {
            let remark = format!("No Any Consumer online in the consumer group: [{group}]");
            return Err(Refusal::system_error(remark));
        }
        let mut body = GetConsumerStatusBody::default();
        for member in members
            .iter()
            .filter(|member| wanted.is_none_or(|id| *id == *member.client_id))
        {
            if member.version < V3_0_7 {
                let remark = format!(
                    "the client does not support this feature. version={}",
                    member.version
                );
                return Err(Refusal::system_error(remark));
            }
            if let Some(status) = status_of(member, topic, group).await {
                body.consumer_table.insert(
                    member.client_id.to_string(),
                    QueueMap(status.message_queue_table),
                );
            }
        }
        Ok(command
            .response(response::SUCCESS)
            .with_body(json_body(&body)))
    })
}

async fn status_of(
    member: &Member<Connection>,
    topic: &str,
    group: &str,
) -> Option<GetConsumerStatusBody> {
    let header = ExtFields::new().with("topic", topic).with("group", group);
    let asked = Command::request(request::GET_CONSUMER_STATUS_FROM_CLIENT, header);
    match member.connection.call(asked, STATUS_TIMEOUT).await {
        Ok(answer) if answer.code == response::SUCCESS => json::from_slice(&answer.body).ok(),
        Ok(answer) => {
            tracing::warn!(client = &*member.client_id, code = answer.code, remark = ?answer.remark, "a client did not tell its status");
            None
        }
        Err(error) => {
            tracing::warn!(client = &*member.client_id, %error, "a client did not tell its status");
            None
        }
    }
}
