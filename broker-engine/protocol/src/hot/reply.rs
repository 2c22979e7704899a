//! Answers to sends and pulls, encoded without a map.

use crate::command::{self, Language, VERSION};
use crate::swar::next_mark;
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
        if self.serialize == Serialize::Json && self.encode_plain(out) {
            return;
        }
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

    /// The same bytes for the answer that nearly all are: JSON, no remark, no recall handle, no text that needs an escape or is long.
    /// False, and nothing is written, when it is another.
    fn encode_plain(&self, out: &mut BytesMut) -> bool {
        let id = self.transaction_id.unwrap_or_default();
        let texts = [self.region, self.msg_id, id];
        let plain = |text: &str| text.len() <= TEXT_MAX && next_mark(text.as_bytes(), 0).is_none();
        if self.remark.is_some() || self.recall_handle.is_some() || !texts.into_iter().all(plain) {
            return false;
        }
        let start = command::begin_frame(out);
        let mut line = Line { at: out.len(), out };
        line.out.resize(line.at + PLAIN_MAX, 0);
        line.put(b"{\"code\":");
        line.number(i64::from(self.code));
        line.put(b",\"extFields\":{\"MSG_REGION\":\"");
        line.text(self.region);
        if self.trace_on {
            line.put(b"\",\"TRACE_ON\":\"true\",\"msgId\":\"");
        } else {
            line.put(b"\",\"TRACE_ON\":\"false\",\"msgId\":\"");
        }
        line.text(self.msg_id);
        line.put(b"\",\"queueId\":\"");
        line.number(i64::from(self.queue_id));
        line.put(b"\",\"queueOffset\":\"");
        line.number(self.queue_offset);
        if self.transaction_id.is_some() {
            line.put(b"\",\"transactionId\":\"");
            line.text(id);
        }
        line.put(b"\"},\"flag\":1,\"language\":\"RUST\",\"opaque\":");
        line.number(i64::from(self.opaque));
        line.put(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        line.number(i64::from(VERSION));
        line.put(b"}");
        let Line { out, at } = line;
        out.truncate(at);
        command::end_header(out, start, self.serialize, 0);
        true
    }
}

/// The longest text of an answer that is put together in one piece, in bytes, and the room for all of it: three such texts,
/// five numbers, and 214 bytes that are always the same.
const TEXT_MAX: usize = 64;
const PLAIN_MAX: usize = 3 * TEXT_MAX + 5 * 20 + 220;

/// Writes into room that is there already: most pieces are short and of a known length, and cost an instruction or two.
struct Line<'o> {
    out: &'o mut BytesMut,
    at: usize,
}

impl Line<'_> {
    #[inline]
    fn put<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.out[self.at..self.at + N].copy_from_slice(bytes);
        self.at += N;
    }
    fn text(&mut self, text: &str) {
        self.out[self.at..self.at + text.len()].copy_from_slice(text.as_bytes());
        self.at += text.len();
    }
    #[inline]
    fn number(&mut self, value: i64) {
        let (digits, from) = json::digits(value);
        for digit in &digits[from..] {
            self.out[self.at] = *digit;
            self.at += 1;
        }
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
