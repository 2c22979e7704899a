//! Answers to sends and pulls, encoded without a map.

use crate::command::{self, Language, VERSION};
use crate::swar::next_mark;
use crate::{Serialize, json};
use bytes::{BufMut, BytesMut};

/// What the answers to the sends of one batch share. It is put together once, for the answer that nearly all are: JSON, no recall
/// handle, no text that needs an escape or is long.
#[derive(Debug)]
pub struct SendReplies<'a> {
    code: i32,
    region: &'a str,
    trace_on: bool,
    /// A header whose beginning stays, up to where `shared` says; 0 when the region is no such text.
    line: [u8; PLAIN_MAX],
    shared: usize,
}

/// The answer to a send: what is not the same for all of a batch.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct SendReply<'a> {
    pub opaque: i32,
    pub serialize: crate::Serialize,
    /// Offset message ids, joined by commas for a batch.
    pub msg_id: &'a str,
    pub queue_id: i32,
    pub queue_offset: i64,
    pub transaction_id: Option<&'a str>,
    pub recall_handle: Option<&'a str>,
}

/// The longest text of an answer that is put together in one piece, in bytes, and the room for all of it: three such texts,
/// five numbers, and 214 bytes that are always the same.
const TEXT_MAX: usize = 64;
const PLAIN_MAX: usize = 3 * TEXT_MAX + 5 * 20 + 220;

/// Whether a text may stand in an answer as it is.
fn plain(text: &str) -> bool {
    text.len() <= TEXT_MAX && next_mark(text.as_bytes(), 0).is_none()
}

impl<'a> SendReplies<'a> {
    /// `code`: SUCCESS, FLUSH_DISK_TIMEOUT, FLUSH_SLAVE_TIMEOUT or SLAVE_NOT_AVAILABLE: all four carry the full header.
    pub fn new(code: i32, region: &'a str, trace_on: bool) -> Self {
        let mut all = SendReplies {
            code,
            region,
            trace_on,
            line: [0; PLAIN_MAX],
            shared: 0,
        };
        if plain(region) {
            let mut line = Line {
                room: &mut all.line,
                at: 0,
            };
            line.put(b"{\"code\":");
            line.number(i64::from(code));
            line.put(b",\"extFields\":{\"MSG_REGION\":\"");
            line.text(region);
            line.put(b"\",\"TRACE_ON\":\"");
            line.text(if trace_on { "true" } else { "false" });
            line.put(b"\",\"msgId\":\"");
            all.shared = line.at;
        }
        all
    }

    /// Appends one answer's whole frame to `out`, JSON or binary as the request was, without building a map.
    pub fn encode(&mut self, reply: &SendReply<'_>, out: &mut BytesMut) {
        if reply.serialize == Serialize::Json && self.encode_plain(reply, out) {
            return;
        }
        let room = 256 + reply.msg_id.len();
        let (serialize, opaque) = (reply.serialize, reply.opaque);
        let mut answer = Answer::begin(out, serialize, self.code, opaque, None, room);
        answer.text("MSG_REGION", self.region);
        answer.text("TRACE_ON", if self.trace_on { "true" } else { "false" });
        answer.text("msgId", reply.msg_id);
        answer.number("queueId", i64::from(reply.queue_id));
        answer.number("queueOffset", reply.queue_offset);
        if let Some(id) = reply.transaction_id {
            answer.text("transactionId", id);
        }
        if let Some(handle) = reply.recall_handle {
            answer.text("recallHandle", handle);
        }
        answer.end(0);
    }

    /// The same bytes for the plain answer. False, and nothing is written, when it is another.
    fn encode_plain(&mut self, reply: &SendReply<'_>, out: &mut BytesMut) -> bool {
        let id = reply.transaction_id.unwrap_or_default();
        let is_plain = self.shared > 0 && plain(reply.msg_id) && plain(id);
        if !is_plain || reply.recall_handle.is_some() {
            return false;
        }
        let mut line = Line {
            room: &mut self.line,
            at: self.shared,
        };
        line.text(reply.msg_id);
        line.put(b"\",\"queueId\":\"");
        line.number(i64::from(reply.queue_id));
        line.put(b"\",\"queueOffset\":\"");
        line.number(reply.queue_offset);
        if reply.transaction_id.is_some() {
            line.put(b"\",\"transactionId\":\"");
            line.text(id);
        }
        line.put(b"\"},\"flag\":1,\"language\":\"RUST\",\"opaque\":");
        line.number(i64::from(reply.opaque));
        line.put(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        line.number(i64::from(VERSION));
        line.put(b"}");
        let end = line.at;
        let start = command::begin_frame(out);
        out.put_slice(&self.line[..end]);
        command::end_header(out, start, reply.serialize, 0);
        true
    }
}

/// Writes into room that is there already: most pieces are short and of a known length, and cost an instruction or two.
struct Line<'o> {
    room: &'o mut [u8; PLAIN_MAX],
    at: usize,
}

impl Line<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.room[self.at..self.at + N].copy_from_slice(bytes);
        self.at += N;
    }
    #[inline]
    fn text(&mut self, text: &str) {
        self.room[self.at..self.at + text.len()].copy_from_slice(text.as_bytes());
        self.at += text.len();
    }
    #[inline]
    fn number(&mut self, value: i64) {
        self.text(itoa::Buffer::new().format(value));
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
