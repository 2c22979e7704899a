//! From frames to handlers: one match on the request code.

use super::refusal::Refusal;
use super::send::Sends;
use super::{Broker, soon};
use crate::net::{Connection, Round, Service};
use rocketmq_protocol::code::request;
use rocketmq_protocol::hot::Head;
use rocketmq_protocol::{Command, Frame};
use std::sync::Arc;

/// One of the broker's two ports.
#[derive(Debug)]
pub(super) struct Port {
    broker: Arc<Broker>,
    /// The port two below serves everything but pulls (`BrokerController.registerProcessor`), so that a
    /// send never queues behind them.
    fast: bool,
}

impl Port {
    pub(super) fn main(broker: Arc<Broker>) -> Port {
        Port {
            broker,
            fast: false,
        }
    }
    pub(super) fn fast(broker: Arc<Broker>) -> Port {
        Port { broker, fast: true }
    }

    fn command(&self, connection: &Connection, frame: &Frame) {
        let command = match frame.decode() {
            Ok(command) => command,
            Err(error) => {
                connection.close_for(error);
                return;
            }
        };
        // The fast port has no processor for these (`BrokerController.registerProcessor`).
        let waits = matches!(
            command.code,
            request::POP_MESSAGE | request::NOTIFICATION | request::POLLING_INFO
        );
        if self.fast && waits {
            connection.reply(&Refusal::unsupported(command.code).answer(&command));
            return;
        }
        let oneway = command.is_oneway();
        if let Some(answer) = self.broker.handle(connection, command)
            && !oneway
        {
            connection.reply(&answer);
        }
    }
}

impl Service for Port {
    fn begin(self: Arc<Self>) -> Box<dyn Round> {
        Box::new(Turn {
            port: self,
            sends: None,
        })
    }

    fn on_close(&self, connection: &Connection) {
        self.broker.waiters.connection_closed(connection);
        self.broker.pops.connection_closed(connection);
        self.broker.clients.connection_closed(connection);
    }
}

/// What one thread's connections brought at a time. Sends are gathered, so that all of them are one append; the rest is
/// answered as it comes.
struct Turn {
    port: Arc<Port>,
    sends: Option<Sends>,
}

impl Round for Turn {
    fn on_frames(&mut self, connection: &Connection, frames: &mut Vec<Frame>) {
        for frame in frames.drain(..) {
            let code = match Head::scan(&frame) {
                Some(head) => head.code,
                None => match frame.decode() {
                    Ok(command) => command.code,
                    Err(_) => 0,
                },
            };
            match code {
                request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
                    let broker = &self.port.broker;
                    self.sends
                        .get_or_insert_with(|| Sends::new(broker, connection))
                        .push(connection, &frame);
                }
                request::PULL_MESSAGE | request::LITE_PULL_MESSAGE if !self.port.fast => {
                    self.port.broker.pull(connection, &frame);
                }
                _ => self.port.command(connection, &frame),
            }
        }
    }

    fn finish(self: Box<Self>) {
        if let Some(sends) = self.sends {
            sends.finish();
            soon::after(|| self.port.broker.log.append_brought());
        }
    }
}

impl Broker {
    /// Answers what is neither a send nor a pull; `None` when the answer comes later or never.
    fn handle(self: &Arc<Self>, connection: &Connection, command: Command) -> Option<Command> {
        let answer = match command.code {
            request::POP_MESSAGE => return self.pop(connection, command),
            request::NOTIFICATION => return self.notification(connection, command),
            request::POLLING_INFO => self.polling_info(connection, &command),
            request::ACK_MESSAGE => self.ack(connection, &command),
            request::BATCH_ACK_MESSAGE => self.batch_ack(connection, &command),
            request::CHANGE_MESSAGE_INVISIBLETIME => {
                self.change_invisible_time(connection, &command)
            }
            request::QUERY_ASSIGNMENT => {
                self.query_assignment(connection, command);
                return None;
            }
            request::SET_MESSAGE_REQUEST_MODE => self.set_request_mode(&command),
            request::RECALL_MESSAGE => self.recall_message(connection, &command),
            request::END_TRANSACTION => self.end_transaction(connection, &command),
            request::RESUME_CHECK_HALF_MESSAGE => {
                let (broker, connection) = (Arc::clone(self), connection.clone());
                self.runtime.spawn(async move {
                    let answer = broker.resume_check(&command).await;
                    connection.reply(&answer);
                });
                return None;
            }
            request::CONSUMER_SEND_MSG_BACK => self.send_back(connection, &command),
            request::SEND_REPLY_MESSAGE | request::SEND_REPLY_MESSAGE_V2 => {
                return self.send_reply(connection, command);
            }
            request::QUERY_MESSAGE => {
                self.query_message(connection, command);
                return None;
            }
            request::VIEW_MESSAGE_BY_ID => self.view_message(&command).map(Some),
            request::QUERY_CONSUMER_OFFSET | request::UPDATE_CONSUMER_OFFSET => {
                return super::offsets::handle(self, &command);
            }
            request::HEART_BEAT
            | request::UNREGISTER_CLIENT
            | request::GET_CONSUMER_LIST_BY_GROUP
            | request::CHECK_CLIENT_CONFIG => {
                return super::clients::handle(self, connection, &command);
            }
            request::LOCK_BATCH_MQ | request::UNLOCK_BATCH_MQ => {
                return super::locks::handle(self, &command);
            }
            // As in Java, the rest is administration, which refuses what it does not know.
            _ => return super::admin::handle(self, connection, command),
        };
        answer.unwrap_or_else(|refusal| Some(refusal.answer(&command)))
    }
}
