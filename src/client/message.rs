//! Messages on their way: a send as a request, pulled records as messages.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::ZlibDecoder;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, RecordError, View};
use rocketmq_protocol::{Command, ExtFields, message_id, sysflag, topic};

use super::admin::{Fault, refused, unreadable};

/// The group that tools send and pull as; it keeps no offsets.
const TOOLS_GROUP: &str = topic::group::TOOLS_CONSUMER;
/// Most bytes that a compressed body may become.
const INFLATED_MAX: usize = 16 << 20;
/// Most bytes that one compressed byte may become, once there are more than [`INFLATED_FREE`].
const INFLATED_RATIO: usize = 100;
/// A few kilobytes of zeros compress to a few bytes; nothing is wrong with that.
const INFLATED_FREE: usize = 64 << 10;

/// A message to send.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Its topic.
    pub topic: String,
    /// Its body, as it is.
    pub body: Bytes,
    /// Names and values; RocketMQ's own (`KEYS`, `TAGS`, `DELAY`) are among them.
    pub properties: Vec<(String, String)>,
}

impl Draft {
    /// The request that sends it to one queue (310). `unique_id` finds it again; `now` is when it was born, in ms.
    pub fn send(&self, queue: i32, unique_id: &str, now: i64) -> Command {
        let mut text = String::new();
        for (name, value) in &self.properties {
            properties::push(&mut text, name, value);
        }
        properties::push(&mut text, name::UNIQ_KEY, unique_id);
        properties::push(&mut text, name::WAIT, "true");
        // Field names of SendMessageRequestHeaderV2: group, topic, template topic, its queues, queue, sysFlag, born, flag,
        // properties, reconsume times, unit mode, batch.
        let ext = ExtFields::new()
            .with("a", TOOLS_GROUP)
            .with("b", &self.topic)
            .with("c", topic::AUTO_CREATE_TOPIC_KEY)
            .with("d", 4)
            .with("e", queue)
            .with("f", 0)
            .with("g", now)
            .with("h", 0)
            .with("i", text)
            .with("j", 0)
            .with("k", false)
            .with("m", false);
        Command::request(request::SEND_MESSAGE_V2, ext).with_body(self.body.clone())
    }
}

/// What a broker said of a send that it took.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// Offset message id.
    pub message_id: String,
    /// The id that its sender gave it.
    pub unique_id: String,
    /// Broker name.
    pub broker: String,
    /// Queue number.
    pub queue: i32,
    /// Place in the queue.
    pub offset: i64,
    /// `SUCCESS`, or what was not reached in time though the message is stored: `FLUSH_SLAVE_TIMEOUT`, …
    pub status: &'static str,
}

/// Reads the answer to a send. A message whose flush or copy timed out is stored, so that is no refusal.
pub fn sent(
    answer: &Command,
    broker: &str,
    address: &str,
    unique_id: String,
) -> Result<Sent, Fault> {
    let stored = [
        response::SUCCESS,
        response::FLUSH_DISK_TIMEOUT,
        response::FLUSH_SLAVE_TIMEOUT,
        response::SLAVE_NOT_AVAILABLE,
    ];
    let code = request::SEND_MESSAGE_V2;
    if !stored.contains(&answer.code) {
        return Err(refused(address, code, answer));
    }
    let read = || {
        Ok(Sent {
            message_id: answer.ext.str("msgId")?.to_owned(),
            unique_id,
            broker: broker.to_owned(),
            queue: answer.ext.i32("queueId")?,
            offset: answer.ext.i64("queueOffset")?,
            status: response::name(answer.code),
        })
    };
    read().map_err(|e: rocketmq_protocol::HeaderError| unreadable(address, code, e))
}

/// Makes ids for messages: hex of `address 4 | process 2 | salt 4 | ms since the run began 4 | counter 2` bytes, as long as Java's.
#[derive(Debug)]
pub struct UniqueIds {
    prefix: String,
    began: i64,
    count: u16,
}

impl UniqueIds {
    /// For this run, which begins `now`; two runs in one process are told apart by the time.
    pub fn new(now: i64) -> Self {
        let salt = now as u32;
        Self {
            prefix: format!("7F000001{:04X}{salt:08X}", std::process::id() as u16),
            began: now,
            count: 0,
        }
    }

    /// The next one.
    pub fn next(&mut self, now: i64) -> String {
        self.count = self.count.wrapping_add(1);
        format!(
            "{}{:08X}{:04X}",
            self.prefix,
            (now - self.began) as u32,
            self.count
        )
    }
}

/// A pull that leaves no trace: it carries its own subscription and commits no offset.
#[derive(Clone, Debug)]
pub struct Pull<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Queue number.
    pub queue: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Most messages wanted.
    pub max: i32,
    /// `*`, or tags: `a || b`.
    pub filter: &'a str,
    /// How long the broker may hold the answer until there is a message.
    pub hold: Option<Duration>,
}

impl Pull<'_> {
    /// The request (11).
    pub fn request(&self) -> Command {
        let hold = self.hold.map_or(0, |_| sysflag::PULL_SUSPEND);
        let ext = ExtFields::new()
            .with("consumerGroup", TOOLS_GROUP)
            .with("topic", self.topic)
            .with("queueId", self.queue)
            .with("queueOffset", self.offset)
            .with("maxMsgNums", self.max)
            .with("sysFlag", sysflag::PULL_SUBSCRIPTION | hold)
            .with("commitOffset", 0)
            .with(
                "suspendTimeoutMillis",
                self.hold.unwrap_or_default().as_millis(),
            )
            .with("subscription", self.filter)
            .with("subVersion", 0)
            .with("expressionType", "TAG");
        Command::request(request::PULL_MESSAGE, ext)
    }
}

/// The answer to a pull.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Where to go on.
    pub next: i64,
    /// The queue's end.
    pub max: i64,
    /// Records back to back; none when nothing was there or passed the filter.
    pub records: Bytes,
}

impl Pulled {
    /// Reads an answer; that nothing was there or passed is one.
    pub fn read(answer: &Command, address: &str) -> Result<Pulled, Fault> {
        let code = request::PULL_MESSAGE;
        let told = [
            response::SUCCESS,
            response::PULL_NOT_FOUND,
            response::PULL_RETRY_IMMEDIATELY,
            response::PULL_OFFSET_MOVED,
        ];
        if !told.contains(&answer.code) {
            return Err(refused(address, code, answer));
        }
        let read = || {
            Ok(Pulled {
                next: answer.ext.i64("nextBeginOffset")?,
                max: answer.ext.i64("maxOffset")?,
                records: match answer.code {
                    response::SUCCESS => answer.body.clone(),
                    _ => Bytes::new(),
                },
            })
        };
        read().map_err(|e: rocketmq_protocol::HeaderError| unreadable(address, code, e))
    }

    /// The messages in it.
    pub fn messages(&self, broker: &str, address: &str) -> Result<Vec<Message>, Fault> {
        messages(&self.records, broker).map_err(|e| unreadable(address, request::PULL_MESSAGE, e))
    }
}

/// A message as a broker has it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Name of the broker that has it.
    pub broker: String,
    /// Queue number.
    pub queue: i32,
    /// Place in the queue.
    pub offset: i64,
    /// Offset message id.
    pub message_id: String,
    /// The id that its sender gave it.
    pub unique_id: Option<String>,
    /// What it can be found by.
    pub keys: Vec<String>,
    /// What it is filtered by.
    pub tag: Option<String>,
    /// When its sender made it, ms since the epoch.
    pub born_at: i64,
    /// Who sent it.
    pub born_host: String,
    /// When the broker stored it, ms since the epoch.
    pub stored_at: i64,
    /// How often it was consumed in vain.
    pub reconsume_times: i32,
    /// All its properties.
    pub properties: BTreeMap<String, String>,
    /// Length of the body as it is stored.
    pub stored_body_bytes: usize,
    /// How `body` is to be read.
    pub body_form: BodyForm,
    /// The body: text, or hex digits.
    pub body: String,
}

/// What the text in [`Message::body`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BodyForm {
    /// The body, which is UTF-8.
    Text,
    /// Hex digits of the body, which is no UTF-8.
    Hex,
    /// Hex digits of a compressed body that was not inflated: LZ4, Zstandard, broken, or too large.
    CompressedHex,
}

impl Message {
    /// Of a record; its body's CRC is checked.
    pub fn read(view: &View<'_>, broker: &str) -> Result<Message, RecordError> {
        view.check_body_crc()?;
        let text = view.properties()?;
        let (body_form, body) = body(view.body(), view.sys_flag());
        Ok(Message {
            topic: view.topic()?.to_owned(),
            broker: broker.to_owned(),
            queue: view.queue_id(),
            offset: view.queue_offset(),
            message_id: message_id::format(view.store_host(), view.physical_offset()),
            unique_id: properties::get(text, name::UNIQ_KEY).map(str::to_owned),
            keys: properties::keys(text).map(str::to_owned).collect(),
            tag: properties::get(text, name::TAGS).map(str::to_owned),
            born_at: view.born_timestamp(),
            born_host: view.born_host().to_string(),
            stored_at: view.store_timestamp(),
            reconsume_times: view.reconsume_times(),
            properties: properties::pairs(text)
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
            stored_body_bytes: view.body().len(),
            body_form,
            body,
        })
    }
}

/// The messages of records that stand back to back.
pub fn messages(records: &[u8], broker: &str) -> Result<Vec<Message>, RecordError> {
    record::records(records)
        .map(|view| Message::read(&view?, broker))
        .collect()
}

fn body(stored: &[u8], sys_flag: i32) -> (BodyForm, String) {
    let inflated;
    let bytes = if sys_flag & sysflag::COMPRESSED == 0 {
        stored
    } else {
        match inflate(stored, sys_flag) {
            Some(bytes) => {
                inflated = bytes;
                &inflated
            }
            None => return (BodyForm::CompressedHex, hex(stored)),
        }
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => (BodyForm::Text, text.to_owned()),
        Err(_) => (BodyForm::Hex, hex(bytes)),
    }
}

/// A zlib body as its sender had it; `None` when it is of another kind, broken, or grows beyond what is sane.
fn inflate(stored: &[u8], sys_flag: i32) -> Option<Vec<u8>> {
    // Clients before 5.x say no kind and mean zlib.
    let kind = sys_flag & sysflag::COMPRESSION_TYPE_MASK;
    if kind != 0 && kind != sysflag::COMPRESSION_ZLIB {
        return None;
    }
    let limit = stored
        .len()
        .saturating_mul(INFLATED_RATIO)
        .max(INFLATED_FREE);
    let limit = limit.min(INFLATED_MAX);
    let mut out = Vec::new();
    // One byte more than allowed shows that there is more.
    ZlibDecoder::new(stored)
        .take(limit as u64 + 1)
        .read_to_end(&mut out)
        .ok()?;
    (out.len() <= limit).then_some(out)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The request that finds messages by key (12); `unique` when the key is a unique id.
pub fn query(topic: &str, key: &str, unique: bool) -> Command {
    // As many as `mqadmin queryMsgByKey` asks for.
    let ext = ExtFields::new()
        .with("topic", topic)
        .with("key", key)
        .with("maxNum", 64)
        .with("beginTimestamp", 0)
        .with("endTimestamp", i64::MAX)
        .with("_UNIQUE_KEY_QUERY", unique);
    Command::request(request::QUERY_MESSAGE, ext)
}

/// The request for the record at a place of a broker's commit log (33).
pub fn view(offset: i64) -> Command {
    Command::request(
        request::VIEW_MESSAGE_BY_ID,
        ExtFields::new().with("offset", offset),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use std::io::Write;

    fn record(body: &[u8], sys_flag: i32, properties: &str) -> BytesMut {
        let mut out = BytesMut::new();
        let record = record::Record {
            queue_id: 3,
            flag: 0,
            queue_offset: 17,
            physical_offset: 4096,
            sys_flag,
            born_timestamp: 1,
            born_host: "10.0.0.1:5".parse().unwrap(),
            store_timestamp: 2,
            store_host: "10.0.0.2:10911".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            topic: "orders",
            properties,
        };
        record::encode(&record, &mut out).unwrap();
        out
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn a_record_becomes_a_message_with_its_keys_and_ids() {
        let mut bytes = record(
            b"hello",
            0,
            "KEYS\u{1}k1 k2\u{2}TAGS\u{1}A\u{2}UNIQ_KEY\u{1}U\u{2}",
        );
        bytes.extend_from_slice(&record(&[0xff, 0x00], 0, ""));
        let found = messages(&bytes, "broker-a").unwrap();
        assert_eq!((found[0].queue, found[0].offset), (3, 17));
        assert_eq!(found[0].message_id, "0A00000200002A9F0000000000001000");
        assert_eq!(found[0].keys, ["k1", "k2"]);
        assert_eq!(found[0].tag.as_deref(), Some("A"));
        assert_eq!(found[0].unique_id.as_deref(), Some("U"));
        assert_eq!(
            (found[0].body_form, found[0].body.as_str()),
            (BodyForm::Text, "hello")
        );
        assert_eq!(
            (found[1].body_form, found[1].body.as_str()),
            (BodyForm::Hex, "ff00")
        );
    }

    #[test]
    fn a_damaged_body_is_an_error() {
        let mut bytes = record(b"hello", 0, "");
        let at = bytes.windows(5).position(|w| w == b"hello").unwrap();
        bytes[at] ^= 1;
        assert!(
            messages(&bytes, "broker-a")
                .unwrap_err()
                .to_string()
                .contains("CRC")
        );
    }

    #[test]
    fn compressed_bodies_are_inflated_within_bounds() {
        let show = |stored: &[u8], kind: i32| {
            let bytes = record(stored, sysflag::COMPRESSED | kind, "");
            let mut found = messages(&bytes, "b").unwrap();
            let message = found.remove(0);
            (message.body_form, message.body)
        };
        let text = "hello ".repeat(1000);
        for kind in [0, sysflag::COMPRESSION_ZLIB] {
            assert_eq!(
                show(&deflated(text.as_bytes()), kind),
                (BodyForm::Text, text.clone())
            );
        }
        // A bomb: 8 MiB of zeros in 8 KiB.
        let bomb = deflated(&vec![0; 8 << 20]);
        assert_eq!(show(&bomb, 0), (BodyForm::CompressedHex, hex(&bomb)));
        assert_eq!(show(b"junk", 0).0, BodyForm::CompressedHex);
        assert_eq!(
            show(b"abc", sysflag::COMPRESSION_LZ4),
            (BodyForm::CompressedHex, "616263".into())
        );
    }

    #[test]
    fn a_send_carries_its_properties_and_its_answer_is_read() {
        let draft = Draft {
            topic: "orders".into(),
            body: Bytes::from_static(b"x"),
            properties: vec![("KEYS".into(), "k".into())],
        };
        let mut ids = UniqueIds::new(1000);
        let (one, two) = (ids.next(1000), ids.next(1000));
        assert_eq!((one.len(), one != two), (32, true));
        let request = draft.send(2, &one, 1000);
        assert_eq!(request.ext.get("e"), Some("2"));
        let text = request.ext.get("i").unwrap();
        assert_eq!(properties::get(text, "KEYS"), Some("k"));
        assert_eq!(properties::get(text, "UNIQ_KEY"), Some(one.as_str()));
        let answer = request
            .response(response::FLUSH_SLAVE_TIMEOUT)
            .with("msgId", "ID")
            .with("queueId", 2)
            .with("queueOffset", 9);
        let told = sent(&answer, "broker-a", "h:1", one.clone()).unwrap();
        assert_eq!(
            (told.queue, told.offset, told.status),
            (2, 9, "FLUSH_SLAVE_TIMEOUT")
        );
        let busy = request.error(response::SYSTEM_BUSY, "later");
        assert!(
            sent(&busy, "broker-a", "h:1", one)
                .unwrap_err()
                .is(&[response::SYSTEM_BUSY])
        );
    }

    #[test]
    fn a_pull_commits_nothing_and_an_empty_answer_says_where_to_go_on() {
        let pull = Pull {
            topic: "orders",
            queue: 1,
            offset: 5,
            max: 32,
            filter: "A || B",
            hold: None,
        };
        let flags: i32 = pull.request().ext.get("sysFlag").unwrap().parse().unwrap();
        assert_eq!(flags & sysflag::PULL_COMMIT_OFFSET, 0);
        assert_eq!(flags & sysflag::PULL_SUSPEND, 0);
        let answer = pull
            .request()
            .response(response::PULL_OFFSET_MOVED)
            .with("nextBeginOffset", 8)
            .with("minOffset", 8)
            .with("maxOffset", 9);
        let pulled = Pulled::read(&answer, "h:1").unwrap();
        assert_eq!((pulled.next, pulled.max, pulled.records.len()), (8, 9, 0));
        let gone = pull.request().error(response::TOPIC_NOT_EXIST, "no");
        assert!(Pulled::read(&gone, "h:1").is_err());
    }
}
