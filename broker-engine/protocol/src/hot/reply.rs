//! Answers to sends and pulls, encoded without a map.

use crate::command::{self, Language, VERSION};
use crate::{Serialize, json};
use bytes::{BufMut, BytesMut};

/// The answer to a send, encoded as a whole frame (JSON or binary as the request was) without building a map.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SendReply<'a> {
    pub opaque: i32,
    pub serialize: crate::Serialize,
    /// SUCCESS, FLUSH_DISK_TIMEOUT, FLUSH_SLAVE_TIMEOUT or SLAVE_NOT_AVAILABLE: all four carry the full header.
    pub code: i32,
    pub remark: Option<&'a str>,
    /// Offset message ids, joined by commas for a batch.
    pub msg_id: &'a str,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub transaction_id: Option<&'a str>,
    pub region: &'a str,
    pub trace_on: bool,
    pub recall_handle: Option<&'a str>,
}
impl SendReply<'_> {
    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut answer = Answer::begin(
            out,
            self.serialize,
            self.code,
            self.opaque,
            self.remark,
            256 + self.msg_id.len(),
        );
        answer.text("MSG_REGION", self.region);
        answer.text("TRACE_ON", if self.trace_on { "true" } else { "false" });
        answer.text("msgId", self.msg_id);
        answer.number("queueId", i64::from(self.queue_id));
        answer.number("queueOffset", self.queue_offset);
        if let Some(id) = self.transaction_id {
            answer.text("transactionId", id);
        }
        if let Some(handle) = self.recall_handle {
            answer.text("recallHandle", handle);
        }
        answer.end(0);
    }
}

/// The answer to a pull: header fields, then the records as the frame's body (written by the caller after `encode_head`).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct PullReply<'a> {
    pub opaque: i32,
    pub serialize: crate::Serialize,
    pub code: i32,
    pub remark: Option<&'a str>,
    pub suggest_which_broker_id: i64,
    pub next_begin_offset: i64,
    pub min_offset: i64,
    pub max_offset: i64,
    pub topic_sys_flag: i32,
    pub group_sys_flag: i32,
}
impl PullReply<'_> {
    /// Appends length and header to `out` for a body of `body_len` bytes that the caller sends right behind.
    pub fn encode_head(&self, body_len: usize, out: &mut BytesMut) {
        let mut answer = Answer::begin(
            out,
            self.serialize,
            self.code,
            self.opaque,
            self.remark,
            384,
        );
        answer.number("groupSysFlag", i64::from(self.group_sys_flag));
        answer.number("maxOffset", self.max_offset);
        answer.number("minOffset", self.min_offset);
        answer.number("nextBeginOffset", self.next_begin_offset);
        answer.number("suggestWhichBrokerId", self.suggest_which_broker_id);
        answer.number("topicSysFlag", i64::from(self.topic_sys_flag));
        answer.end(body_len);
    }
}

/// An answer's frame while its custom fields are appended.
struct Answer<'o, 'a> {
    out: &'o mut BytesMut,
    serialize: Serialize,
    start: usize,
    ext_at: usize,
    opaque: i32,
    remark: Option<&'a str>,
}

impl<'o, 'a> Answer<'o, 'a> {
    fn begin(
        out: &'o mut BytesMut,
        serialize: Serialize,
        code: i32,
        opaque: i32,
        remark: Option<&'a str>,
        room: usize,
    ) -> Self {
        out.reserve(room + remark.map_or(0, str::len));
        let start = command::begin_frame(out);
        match serialize {
            Serialize::Json => {
                out.put_slice(b"{\"code\":");
                json::put_i64(out, i64::from(code));
                out.put_slice(b",\"extFields\":{");
            }
            Serialize::RocketMq => {
                command::begin_binary(out, code, Language::RUST, VERSION, opaque, 1);
                command::put_text32(out, remark.unwrap_or_default());
            }
        }
        let ext_at = out.len();
        if serialize == Serialize::RocketMq {
            out.put_u32(0);
        }
        Answer {
            out,
            serialize,
            start,
            ext_at,
            opaque,
            remark,
        }
    }
    /// `"name":` in JSON, with the comma that it needs.
    fn json_name(&mut self, name: &str) {
        if self.out.len() > self.ext_at {
            self.out.put_u8(b',');
        }
        self.out.put_u8(b'"');
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b"\":");
    }
    fn text(&mut self, name: &str, value: &str) {
        match self.serialize {
            Serialize::Json => {
                self.json_name(name);
                json::put_str(self.out, value);
            }
            Serialize::RocketMq => command::put_binary_field(self.out, name, value),
        }
    }
    fn number(&mut self, name: &str, value: i64) {
        match self.serialize {
            Serialize::Json => {
                self.json_name(name);
                self.out.put_u8(b'"');
                json::put_i64(self.out, value);
                self.out.put_u8(b'"');
            }
            Serialize::RocketMq => {
                command::put_binary_field(self.out, name, "");
                let len_at = self.out.len() - 4;
                json::put_i64(self.out, value);
                command::end_binary_ext(self.out, len_at);
            }
        }
    }
    fn end(self, body_len: usize) {
        match self.serialize {
            Serialize::Json => {
                self.out
                    .put_slice(b"},\"flag\":1,\"language\":\"RUST\",\"opaque\":");
                json::put_i64(self.out, i64::from(self.opaque));
                if let Some(remark) = self.remark {
                    self.out.put_slice(b",\"remark\":");
                    json::put_str(self.out, remark);
                }
                self.out
                    .put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
                json::put_i64(self.out, i64::from(VERSION));
                self.out.put_u8(b'}');
            }
            Serialize::RocketMq => command::end_binary_ext(self.out, self.ext_at),
        }
        command::end_header(self.out, self.start, self.serialize, body_len);
    }
}
