//! Borrowed header views for the requests that come by the thousand: send (10, 310, 320) and pull (11, 361).
//!
//! `scan` reads the JSON header in place without building a map; it answers `None` for anything it does not
//! understand, and the caller goes the generic way (`Frame::decode`, then `from_command`). Both ways must agree.
//! What was found is kept with the frame: whoever looks again, as dispatch and handler do, reads nothing twice.

use crate::code::request;
use crate::command::{Command, ExtFields, HeaderError};
use crate::frame::Frame;
use std::borrow::Cow;

mod reply;
pub(crate) mod scan;
mod shape;

pub use reply::{PullReply, SendReplies, SendReply};
pub use shape::Shapes;

/// What every request header has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// Request code.
    pub code: i32,
    /// Ties the answer to the request.
    pub opaque: i32,
    /// Bit 0 answer, bit 1 one-way.
    pub flag: i32,
    /// Client's `MQVersion` ordinal.
    pub version: i32,
}

/// Header of SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320), SEND_REPLY_MESSAGE (324) and
/// SEND_REPLY_MESSAGE_V2 (325).
/// Source: `apache/rocketmq: remoting/.../protocol/header/SendMessageRequestHeader{,V2}.java`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct SendHead<'a> {
    pub head: Head,
    pub producer_group: Cow<'a, str>,
    pub topic: Cow<'a, str>,
    pub default_topic: Cow<'a, str>,
    pub default_topic_queue_nums: i32,
    pub queue_id: i32,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub message_flag: i32,
    pub properties: Cow<'a, str>,
    pub reconsume_times: i32,
    pub unit_mode: bool,
    /// `None` when the client sent none.
    pub max_reconsume_times: Option<i32>,
    /// The body is a run of messages: the client said so, or the code is SEND_BATCH_MESSAGE.
    pub batch: bool,
}

/// Header of PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361).
/// Source: `apache/rocketmq: remoting/.../protocol/header/PullMessageRequestHeader.java`.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct PullHead<'a> {
    pub head: Head,
    pub consumer_group: Cow<'a, str>,
    pub topic: Cow<'a, str>,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub max_msg_nums: i32,
    pub sys_flag: i32,
    pub commit_offset: i64,
    pub suspend_timeout_millis: i64,
    pub subscription: Option<Cow<'a, str>>,
    pub sub_version: i64,
    pub expression_type: Option<Cow<'a, str>>,
    pub max_msg_bytes: Option<i32>,
}

/// A header read once, by what it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Hot<'a> {
    /// 10, 310, 320.
    Send(SendHead<'a>),
    /// 11, 361.
    Pull(PullHead<'a>),
    /// Any other request, or an answer: its custom fields are not read.
    Other(Head),
}

impl Head {
    /// Reads code, opaque, flag and version out of a header of either form without decoding the rest.
    /// `None`: use the generic path.
    ///
    /// The custom fields are not looked into: a header that is broken there has a head too, with which to answer that it is.
    pub fn scan(frame: &Frame) -> Option<Head> {
        frame.top().map(|top| top.head)
    }
    /// The generic way.
    pub fn from_command(command: &Command) -> Head {
        Head {
            code: command.code,
            opaque: command.opaque,
            flag: command.flag,
            version: command.version,
        }
    }
    /// Whether this is an answer.
    pub fn is_response(&self) -> bool {
        self.flag & 1 != 0
    }
    /// Whether no answer may be sent.
    pub fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }
}

impl<'a> Hot<'a> {
    /// Reads the header in one pass. `None`: use the generic path.
    pub fn scan(frame: &'a Frame) -> Option<Hot<'a>> {
        scan::scan(frame)
    }
    /// What every header has.
    pub fn head(&self) -> Head {
        match self {
            Hot::Send(send) => send.head,
            Hot::Pull(pull) => pull.head,
            Hot::Other(head) => *head,
        }
    }
}

impl<'a> SendHead<'a> {
    /// The fast way; `None` asks for the generic one. Properties with escapes are written to `room`, which is kept from send to send.
    pub fn scan(frame: &'a Frame, room: &'a mut Vec<u8>) -> Option<SendHead<'a>> {
        scan::scan_send(frame, room)
    }
    /// The generic way.
    pub fn from_command(command: &'a Command) -> Result<SendHead<'a>, HeaderError> {
        let ext = &command.ext;
        let name = |long, short| {
            if matches!(
                command.code,
                request::SEND_MESSAGE | request::SEND_REPLY_MESSAGE
            ) {
                long
            } else {
                short
            }
        };
        let text = |ext: &'a ExtFields, field| ext.str(field).map(Cow::Borrowed);
        Ok(SendHead {
            head: Head::from_command(command),
            producer_group: text(ext, name("producerGroup", "a"))?,
            topic: text(ext, name("topic", "b"))?,
            default_topic: text(ext, name("defaultTopic", "c"))?,
            default_topic_queue_nums: ext.i32(name("defaultTopicQueueNums", "d"))?,
            queue_id: ext.i32(name("queueId", "e"))?,
            sys_flag: ext.i32(name("sysFlag", "f"))?,
            born_timestamp: ext.i64(name("bornTimestamp", "g"))?,
            message_flag: ext.i32(name("flag", "h"))?,
            properties: Cow::Borrowed(ext.get(name("properties", "i")).unwrap_or_default()),
            reconsume_times: ext.opt_i32(name("reconsumeTimes", "j"))?.unwrap_or(0),
            unit_mode: ext.bool_or(name("unitMode", "k"), false)?,
            max_reconsume_times: ext.opt_i32(name("maxReconsumeTimes", "l"))?,
            batch: ext.bool_or(name("batch", "m"), false)?
                || command.code == request::SEND_BATCH_MESSAGE,
        })
    }
}

impl<'a> PullHead<'a> {
    /// The fast way; `None` asks for the generic one.
    pub fn scan(frame: &'a Frame) -> Option<PullHead<'a>> {
        match Hot::scan(frame)? {
            Hot::Pull(pull) => Some(pull),
            Hot::Send(_) | Hot::Other(_) => None,
        }
    }
    /// The generic way.
    pub fn from_command(command: &'a Command) -> Result<PullHead<'a>, HeaderError> {
        let ext = &command.ext;
        Ok(PullHead {
            head: Head::from_command(command),
            consumer_group: Cow::Borrowed(ext.str("consumerGroup")?),
            topic: Cow::Borrowed(ext.str("topic")?),
            queue_id: ext.i32("queueId")?,
            queue_offset: ext.i64("queueOffset")?,
            max_msg_nums: ext.i32("maxMsgNums")?,
            sys_flag: ext.i32("sysFlag")?,
            commit_offset: ext.i64("commitOffset")?,
            suspend_timeout_millis: ext.i64("suspendTimeoutMillis")?,
            subscription: ext.get("subscription").map(Cow::Borrowed),
            sub_version: ext.i64("subVersion")?,
            expression_type: ext.get("expressionType").map(Cow::Borrowed),
            max_msg_bytes: ext.opt_i32("maxMsgBytes")?,
        })
    }
    /// Takes the view off the frame's bytes, to keep the pull while it waits.
    pub fn into_owned(self) -> PullHead<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        PullHead {
            head: self.head,
            consumer_group: owned(self.consumer_group),
            topic: owned(self.topic),
            queue_id: self.queue_id,
            queue_offset: self.queue_offset,
            max_msg_nums: self.max_msg_nums,
            sys_flag: self.sys_flag,
            commit_offset: self.commit_offset,
            suspend_timeout_millis: self.suspend_timeout_millis,
            subscription: self.subscription.map(owned),
            sub_version: self.sub_version,
            expression_type: self.expression_type.map(owned),
            max_msg_bytes: self.max_msg_bytes,
        }
    }
}

#[cfg(test)]
mod tests;
