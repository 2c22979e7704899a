//! SEND_REPLY_MESSAGE (324) and SEND_REPLY_MESSAGE_V2 (325): the answer of a consumer travels to the producer that asked, over
//! the connection that one keeps with this broker (PUSH_REPLY_MESSAGE_TO_CLIENT, 326), and is then stored.
//! Source: `apache/rocketmq: broker/.../processor/ReplyMessageProcessor.java`.

use super::Broker;
use super::refusal::Refusal;
use super::send::Sends;
use super::sent::{refusal_of_send, trace_on};
use crate::clock;
use crate::log::{AppendError, Requirement};
use crate::net::Connection;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::hot::SendHead;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::Record;
use rocketmq_protocol::{Command, ExtFields, message_id};
use rocketmq_store::RecordBatch;
use std::sync::Arc;
use std::time::Duration;

/// How long the asking client may take over 326 (`Broker2Client.callClient`).
const PUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// A reply that has been looked at and is on its way to who asked.
struct Reply {
    connection: Connection,
    command: Command,
    /// The queue of the reply topic that it is stored in.
    queue_id: i32,
}

impl Broker {
    /// Takes a reply. What is wrong with it is answered at once, the rest when the asking client has it: until then the
    /// reply waits among the calls of that client's connection, whose number has a bound.
    pub(super) fn send_reply(
        self: &Arc<Self>,
        connection: &Connection,
        command: Command,
    ) -> Option<Command> {
        let checked = SendHead::from_command(&command)
            .map_err(Refusal::from)
            .and_then(|head| Sends::new(self, connection).find_queue(&head));
        match checked {
            Ok((_, queue_id)) => {
                let reply = Reply {
                    connection: connection.clone(),
                    command,
                    queue_id,
                };
                let broker = Arc::clone(self);
                self.runtime
                    .spawn(async move { reply.deliver(&broker).await });
                None
            }
            Err(refusal) => Some(refusal_of_send(
                self,
                &self.config.get(),
                command.opaque,
                command.serialize,
                refusal,
            )),
        }
    }
}

impl Reply {
    async fn deliver(self, broker: &Arc<Broker>) {
        // The header was read once already, so this cannot fail; what it borrows could not leave the connection's worker.
        let Ok(head) = SendHead::from_command(&self.command) else {
            return;
        };
        let pushed = self.push(broker, &head).await;
        if let Err(remark) = &pushed {
            tracing::warn!(replier = %self.connection.peer(), remark, "a reply did not reach who asked");
        }
        let code = match pushed {
            Ok(()) => response::SUCCESS,
            Err(_) => response::SYSTEM_ERROR,
        };
        let config = broker.config.get();
        let mut answer = (self.command.response(code))
            .with(name::MSG_REGION, &config.region_id)
            .with(name::TRACE_ON, trace_on(&config))
            .with("queueId", self.queue_id);
        answer.remark = pushed.err();
        let batch = if config.store_reply_message_enable
            && self.command.body.len() <= config.max_message_size as usize
        {
            self.record(broker, &head)
        } else {
            None
        };
        match batch {
            Some(batch) => self.store(broker, &head, batch, answer),
            None => self.answer(answer.with("msgId", "0").with("queueOffset", 0)),
        }
    }

    /// Brings the reply to the client that asked; the error is the remark that the replier gets.
    async fn push(&self, broker: &Broker, head: &SendHead<'_>) -> Result<(), String> {
        let Some(asker) = properties::get(&head.properties, name::REPLY_TO_CLIENT) else {
            return Err(format!(
                "reply message properties[{}] is null",
                name::REPLY_TO_CLIENT
            ));
        };
        let Some(producer) = broker.clients.producer(asker) else {
            return Err(format!(
                "push reply message fail, channel of <{asker}> not found."
            ));
        };
        let now = clock::now_ms();
        let stamped = properties::edit(
            &head.properties,
            &[(name::PUSH_REPLY_TIME, &now.to_string())],
            &[],
        );
        let header = ExtFields::new()
            .with("producerGroup", &head.producer_group)
            .with("topic", &head.topic)
            .with("defaultTopic", &head.default_topic)
            .with("defaultTopicQueueNums", head.default_topic_queue_nums)
            .with("queueId", head.queue_id)
            .with("sysFlag", head.sys_flag)
            .with("bornTimestamp", head.born_timestamp)
            .with("flag", head.message_flag)
            .with("properties", &stamped)
            .with("reconsumeTimes", head.reconsume_times)
            .with("unitMode", head.unit_mode)
            .with("bornHost", self.connection.peer())
            .with("storeHost", broker.store_host)
            .with("storeTimestamp", now);
        let push = Command::request(request::PUSH_REPLY_MESSAGE_TO_CLIENT, header)
            .with_body(self.command.body.clone());
        match producer.connection.call(push, PUSH_TIMEOUT).await {
            Ok(answer) if answer.code == response::SUCCESS => Ok(()),
            Ok(answer) => Err(format!(
                "push reply message to {asker} fail: it answered {} {}",
                answer.code,
                answer.remark.unwrap_or_default()
            )),
            Err(error) => Err(format!("push reply message to {asker} fail: {error}")),
        }
    }

    /// The reply as it is stored; `None` when it does not fit a record.
    fn record(&self, broker: &Broker, head: &SendHead<'_>) -> Option<RecordBatch> {
        let mut batch = RecordBatch::new();
        let record = Record {
            queue_id: self.queue_id,
            flag: head.message_flag,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: head.sys_flag,
            born_timestamp: head.born_timestamp,
            born_host: self.connection.peer(),
            store_timestamp: 0,
            store_host: broker.store_host,
            reconsume_times: head.reconsume_times,
            prepared_transaction_offset: 0,
            body: &self.command.body,
            topic: &head.topic,
            properties: &head.properties,
        };
        match batch.push(&Arc::from(&*head.topic), &record) {
            Ok(()) => Some(batch),
            Err(error) => {
                tracing::warn!(replier = %self.connection.peer(), %error, "a reply is not stored");
                None
            }
        }
    }

    /// Stores the reply and answers. Whether it was stored changes nothing for the replier but the id it is told, so nobody
    /// waits for disk or slaves.
    fn store(
        &self,
        broker: &Arc<Broker>,
        head: &SendHead<'_>,
        batch: RecordBatch,
        answer: Command,
    ) {
        let bytes = batch.byte_len() as u64;
        let topic: Arc<str> = head.topic.as_ref().into();
        let connection = self.connection.clone();
        let oneway = self.command.is_oneway();
        let of_broker = Arc::clone(broker);
        let unstored = answer.clone();
        let done = Box::new(
            move |result: Result<(rocketmq_store::Placed, _), AppendError>| {
                let (id, queue_offset) = match result {
                    Ok((placed, _)) => {
                        of_broker.stats.put(&topic, 1, bytes);
                        let (queue_offset, physical_offset) =
                            placed.records.first().copied().unwrap_or_default();
                        let mut id = String::new();
                        message_id::write(of_broker.store_host, physical_offset, &mut id);
                        (id, queue_offset)
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a reply is not stored");
                        ("0".into(), 0)
                    }
                };
                if !oneway {
                    connection.reply(&answer.with("msgId", id).with("queueOffset", queue_offset));
                }
            },
        );
        if let Err(error) = broker.log.append(batch, Requirement::default(), done) {
            tracing::warn!(%error, "a reply is not stored");
            self.answer(unstored.with("msgId", "0").with("queueOffset", 0));
        }
    }

    fn answer(&self, answer: Command) {
        if !self.command.is_oneway() {
            self.connection.reply(&answer);
        }
    }
}
