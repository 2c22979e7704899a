//! The commit log's record.
//! Source: `apache/rocketmq: store/src/main/java/org/apache/rocketmq/store/MessageExtEncoder.java`,
//! `common/src/main/java/org/apache/rocketmq/common/message/MessageDecoder.java`.
//!
//! `totalSize 4 | magic 4 | bodyCRC 4 | queueId 4 | flag 4 | queueOffset 8 | physicalOffset 8 | sysFlag 4 | bornTimestamp 8 |
//! bornHost 8 or 20 | storeTimestamp 8 | storeHost 8 or 20 | reconsumeTimes 4 | preparedTransactionOffset 8 |
//! bodyLen 4, body | topicLen 1 (v1) or 2 (v2), topic | propertiesLen 2, properties`

use crate::sysflag;
use bytes::{BufMut, BytesMut};
use std::net::{IpAddr, SocketAddr};

/// Magic of a v1 record (topic length in one byte).
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a v2 record (topic length in two bytes).
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the filler at a file's end.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// Bytes of a filler's header: `i32 bytesLeft | i32 magic`. A record is written only where this many stay free behind it.
pub const BLANK_HEADER: usize = 8;
/// Byte place of the queue id in a record.
pub const QUEUE_ID_AT: usize = 12;
/// Byte place of the queue offset in a record.
pub const QUEUE_OFFSET_AT: usize = 20;
/// Byte place of the physical offset in a record.
pub const PHYSICAL_OFFSET_AT: usize = 28;
/// Byte place of the sysFlag in a record.
pub const SYS_FLAG_AT: usize = 36;
const BORN_TIMESTAMP_AT: usize = 40;
const BORN_HOST_AT: usize = 48;
/// Longest topic of a v1 record, in bytes.
const TOPIC_V1_MAX: usize = 127;
/// Bytes of the smallest record: v1, two IPv4 hosts, and nothing in topic, body and properties.
pub const LEN_MIN: usize = 91;

/// A record's fields. Borrowed both when encoding and when decoding.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Record<'a> {
    pub queue_id: i32,
    pub flag: i32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub sys_flag: i32,
    pub born_timestamp: i64,
    pub born_host: SocketAddr,
    pub store_timestamp: i64,
    pub store_host: SocketAddr,
    pub reconsume_times: i32,
    pub prepared_transaction_offset: i64,
    pub body: &'a [u8],
    pub topic: &'a str,
    /// The encoded property string (`properties` module).
    pub properties: &'a str,
}

/// What stands at a place of the commit log.
#[derive(Clone, Debug, PartialEq)]
pub enum Parsed<'a> {
    /// A whole record and its length in bytes.
    Record(Record<'a>, usize),
    /// The rest of this file is filler.
    Blank,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error, PartialEq)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("a record of {announced} bytes is announced, {have} are there")]
    Truncated { announced: usize, have: usize },
    #[error("magic {0:#010x} is neither a record's nor the filler's")]
    Magic(u32),
    #[error("the record's fields take {fields} bytes, its length says {announced}")]
    Length { announced: usize, fields: usize },
    #[error("the body's CRC is {found:#010x}, the record says {stored:#010x}")]
    Crc { stored: u32, found: u32 },
    #[error("the record's {0} is not UTF-8 text")]
    Text(&'static str),
    #[error("the record's {0} holds a zero byte")]
    Zero(&'static str),
    #[error("{what} is {len} bytes long, at most {max} fit")]
    TooLong {
        what: &'static str,
        len: usize,
        max: usize,
    },
}

const fn host_len(v6: bool) -> usize {
    if v6 { 20 } else { 8 }
}

/// All that stands before a record's body, put together before it is copied in one piece.
struct Head {
    bytes: [u8; 112],
    len: usize,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            bytes: [0; 112],
            len: 0,
        }
    }
}

impl Head {
    #[inline]
    fn put<const N: usize>(&mut self, field: &[u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(field);
        self.len += N;
    }
    #[inline]
    fn put_host(&mut self, host: SocketAddr) {
        match host.ip() {
            IpAddr::V4(ip) => self.put(&ip.octets()),
            IpAddr::V6(ip) => self.put(&ip.octets()),
        }
        self.put(&u32::from(host.port()).to_be_bytes());
    }
}

/// CRC32 of a body as records carry it: the sign bit cleared.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

/// Bytes that [`encode`] will write for this record.
pub fn encoded_len(record: &Record<'_>) -> usize {
    75 + host_len(record.born_host.is_ipv6())
        + host_len(record.store_host.is_ipv6())
        + record.body.len()
        + usize::from(record.topic.len() > TOPIC_V1_MAX)
        + record.topic.len()
        + record.properties.len()
}

/// Appends the record (CRC computed, host bits of `sys_flag` set from the addresses) to `out`; returns its length.
/// v2 is chosen when the topic is longer than 127 characters.
pub fn encode(record: &Record<'_>, out: &mut BytesMut) -> Result<usize, RecordError> {
    let too_long = |what, len, max| RecordError::TooLong { what, len, max };
    let topic_len = u16::try_from(record.topic.len())
        .ok()
        .filter(|len| *len <= i16::MAX as u16)
        .ok_or_else(|| too_long("the topic", record.topic.len(), i16::MAX as usize))?;
    let properties_len = i16::try_from(record.properties.len()).map_err(|_| {
        too_long(
            "the property string",
            record.properties.len(),
            i16::MAX as usize,
        )
    })?;
    let total = encoded_len(record);
    // One bound for body and record: what a signed 32-bit length can say.
    let total_field =
        i32::try_from(total).map_err(|_| too_long("the record", total, i32::MAX as usize))?;
    let v2 = record.topic.len() > TOPIC_V1_MAX;
    let mut sys_flag = record.sys_flag & !(sysflag::BORN_HOST_V6 | sysflag::STORE_HOST_V6);
    if record.born_host.is_ipv6() {
        sys_flag |= sysflag::BORN_HOST_V6;
    }
    if record.store_host.is_ipv6() {
        sys_flag |= sysflag::STORE_HOST_V6;
    }
    let mut head = Head::default();
    head.put(&total_field.to_be_bytes());
    head.put(&if v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
    head.put(&body_crc(record.body).to_be_bytes());
    head.put(&record.queue_id.to_be_bytes());
    head.put(&record.flag.to_be_bytes());
    head.put(&record.queue_offset.to_be_bytes());
    head.put(&record.physical_offset.to_be_bytes());
    head.put(&sys_flag.to_be_bytes());
    head.put(&record.born_timestamp.to_be_bytes());
    head.put_host(record.born_host);
    head.put(&record.store_timestamp.to_be_bytes());
    head.put_host(record.store_host);
    head.put(&record.reconsume_times.to_be_bytes());
    head.put(&record.prepared_transaction_offset.to_be_bytes());
    let body_len = u32::try_from(record.body.len()).expect("the record's length fits in 31 bits");
    head.put(&body_len.to_be_bytes());
    out.reserve(total);
    out.put_slice(&head.bytes[..head.len]);
    out.put_slice(record.body);
    if v2 {
        out.put_u16(topic_len);
    } else {
        out.put_u8(u8::try_from(topic_len).expect("a v1 topic has at most 127 bytes"));
    }
    out.put_slice(record.topic.as_bytes());
    out.put_i16(properties_len);
    out.put_slice(record.properties.as_bytes());
    Ok(total)
}

/// Appends the filler that closes a commit log file with `left` bytes to go. The rest of the file is left as it is.
pub fn encode_blank(left: u32, out: &mut BytesMut) {
    out.put_u32(left);
    out.put_u32(MAGIC_BLANK);
}

/// One encoded record with its variable parts found and bounds checked, so that single fields can be read without
/// decoding the rest. Texts are checked as UTF-8 only when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    bytes: &'a [u8],
    body_at: usize,
    body_len: usize,
    topic_at: usize,
    topic_len: usize,
}

/// What stands at a place of the commit log, not yet decoded.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// A whole record.
    Record(View<'a>),
    /// The rest of this file is filler.
    Blank,
}

impl<'a> View<'a> {
    /// Looks at what starts at `bytes[0]`; more may follow it.
    pub fn look(bytes: &'a [u8]) -> Result<Seen<'a>, RecordError> {
        let have = bytes.len();
        let Some((announced, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(RecordError::Truncated { announced: 4, have });
        };
        let announced = u32::from_be_bytes(*announced) as usize;
        let Some(magic) = rest.first_chunk::<4>() else {
            return Err(RecordError::Truncated { announced: 8, have });
        };
        let v2 = match u32::from_be_bytes(*magic) {
            MAGIC_V1 => false,
            MAGIC_V2 => true,
            MAGIC_BLANK => return Ok(Seen::Blank),
            other => return Err(RecordError::Magic(other)),
        };
        if announced < LEN_MIN || announced > i32::MAX as usize {
            return Err(RecordError::Length {
                announced,
                fields: LEN_MIN,
            });
        }
        let Some(bytes) = bytes.get(..announced) else {
            return Err(RecordError::Truncated { announced, have });
        };
        let uneven = |fields| RecordError::Length { announced, fields };
        let sys_flag = i32_at(bytes, SYS_FLAG_AT);
        let body_at = 72
            + host_len(sys_flag & sysflag::BORN_HOST_V6 != 0)
            + host_len(sys_flag & sysflag::STORE_HOST_V6 != 0);
        if body_at > announced {
            return Err(uneven(body_at));
        }
        let body_len = u32_at(bytes, body_at - 4) as usize;
        let topic_len_at = body_at.saturating_add(body_len);
        let topic_at = topic_len_at.saturating_add(if v2 { 2 } else { 1 });
        if topic_at > announced {
            return Err(uneven(topic_at));
        }
        let topic_len = if v2 {
            usize::from(u16_at(bytes, topic_len_at))
        } else {
            usize::from(bytes[topic_len_at])
        };
        let properties_at = topic_at + topic_len + 2;
        if properties_at > announced {
            return Err(uneven(properties_at));
        }
        // Signed in Java: a length with the sign bit set reads as far beyond the record, which is what it is.
        let end = properties_at + usize::from(u16_at(bytes, properties_at - 2));
        if end != announced {
            return Err(uneven(end));
        }
        Ok(Seen::Record(View {
            bytes,
            body_at,
            body_len,
            topic_at,
            topic_len,
        }))
    }
    /// The record that starts at `bytes[0]`; a filler there is an error.
    pub fn record(bytes: &'a [u8]) -> Result<View<'a>, RecordError> {
        match View::look(bytes)? {
            Seen::Record(view) => Ok(view),
            Seen::Blank => Err(RecordError::Magic(MAGIC_BLANK)),
        }
    }
    /// The record's bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
    /// The record's length in bytes.
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }
    /// Number of the queue.
    pub fn queue_id(&self) -> i32 {
        i32_at(self.bytes, QUEUE_ID_AT)
    }
    /// The user's flag.
    pub fn flag(&self) -> i32 {
        i32_at(self.bytes, 16)
    }
    /// Place in the queue.
    pub fn queue_offset(&self) -> i64 {
        i64_at(self.bytes, QUEUE_OFFSET_AT)
    }
    /// Place in the commit log, in bytes.
    pub fn physical_offset(&self) -> i64 {
        i64_at(self.bytes, PHYSICAL_OFFSET_AT)
    }
    /// Bits of `sysflag`.
    pub fn sys_flag(&self) -> i32 {
        i32_at(self.bytes, SYS_FLAG_AT)
    }
    /// When the client made it, in ms since the epoch.
    pub fn born_timestamp(&self) -> i64 {
        i64_at(self.bytes, BORN_TIMESTAMP_AT)
    }
    /// Who sent it.
    pub fn born_host(&self) -> SocketAddr {
        host_at(
            self.bytes,
            BORN_HOST_AT,
            self.sys_flag() & sysflag::BORN_HOST_V6 != 0,
        )
    }
    /// When the broker stored it, in ms since the epoch.
    pub fn store_timestamp(&self) -> i64 {
        i64_at(self.bytes, store_timestamp_at(self.sys_flag()))
    }
    /// Who stored it.
    pub fn store_host(&self) -> SocketAddr {
        let sys_flag = self.sys_flag();
        host_at(
            self.bytes,
            store_timestamp_at(sys_flag) + 8,
            sys_flag & sysflag::STORE_HOST_V6 != 0,
        )
    }
    /// How often it was consumed in vain.
    pub fn reconsume_times(&self) -> i32 {
        i32_at(self.bytes, self.body_at - 16)
    }
    /// Place of the half message this one commits, in the commit log.
    pub fn prepared_transaction_offset(&self) -> i64 {
        i64_at(self.bytes, self.body_at - 12)
    }
    /// The body.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.body_at..self.body_at + self.body_len]
    }
    /// Where the body lies in the record, to cut it out of a shared buffer.
    pub fn body_range(&self) -> std::ops::Range<usize> {
        self.body_at..self.body_at + self.body_len
    }
    /// The topic's bytes.
    pub fn topic_bytes(&self) -> &'a [u8] {
        &self.bytes[self.topic_at..self.topic_at + self.topic_len]
    }
    /// The topic.
    pub fn topic(&self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(self.topic_bytes()).map_err(|_| RecordError::Text("topic"))
    }
    /// The encoded property string.
    pub fn properties(&self) -> Result<&'a str, RecordError> {
        std::str::from_utf8(&self.bytes[self.topic_at + self.topic_len + 2..])
            .map_err(|_| RecordError::Text("property string"))
    }
    /// Compares the body's CRC with the one in the record.
    pub fn check_body_crc(&self) -> Result<(), RecordError> {
        let stored = u32_at(self.bytes, 8);
        let found = body_crc(self.body());
        // Java writes 0 for an empty body and checks nothing then; the CRC of nothing is 0 as well.
        if stored == found {
            Ok(())
        } else {
            Err(RecordError::Crc { stored, found })
        }
    }
    /// All fields.
    pub fn decode(&self) -> Result<Record<'a>, RecordError> {
        Ok(Record {
            queue_id: self.queue_id(),
            flag: self.flag(),
            queue_offset: self.queue_offset(),
            physical_offset: self.physical_offset(),
            sys_flag: self.sys_flag(),
            born_timestamp: self.born_timestamp(),
            born_host: self.born_host(),
            store_timestamp: self.store_timestamp(),
            store_host: self.store_host(),
            reconsume_times: self.reconsume_times(),
            prepared_transaction_offset: self.prepared_transaction_offset(),
            body: self.body(),
            topic: self.topic()?,
            properties: self.properties()?,
        })
    }
}

/// Parses what starts at `bytes[0]`. `check_body_crc` compares the body's CRC.
pub fn parse(bytes: &[u8], check_body_crc: bool) -> Result<Parsed<'_>, RecordError> {
    let view = match View::look(bytes)? {
        Seen::Blank => return Ok(Parsed::Blank),
        Seen::Record(view) => view,
    };
    if check_body_crc {
        view.check_body_crc()?;
    }
    Ok(Parsed::Record(view.decode()?, view.total_len()))
}

/// Walks records that stand back to back, as in the answer to a pull. After an error it ends.
pub fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<View<'_>, RecordError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let view = View::record(bytes);
        bytes = view.as_ref().map_or(&[], |v| &bytes[v.total_len()..]);
        Some(view)
    })
}

/// Byte place of the store timestamp: it depends on the born host's length.
fn store_timestamp_at(sys_flag: i32) -> usize {
    BORN_HOST_AT + host_len(sys_flag & sysflag::BORN_HOST_V6 != 0)
}

/// Sets the fields that only the log's owner knows, in a record that [`encode`] made.
pub fn patch(record: &mut [u8], queue_offset: i64, physical_offset: i64, store_timestamp: i64) {
    let at = store_timestamp_at(i32_at(record, SYS_FLAG_AT));
    record[QUEUE_OFFSET_AT..QUEUE_OFFSET_AT + 8].copy_from_slice(&queue_offset.to_be_bytes());
    record[PHYSICAL_OFFSET_AT..PHYSICAL_OFFSET_AT + 8]
        .copy_from_slice(&physical_offset.to_be_bytes());
    record[at..at + 8].copy_from_slice(&store_timestamp.to_be_bytes());
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..]
        .first_chunk()
        .expect("the fixed fields were checked to be there")
}
fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes(at(bytes, place))
}
fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from_be_bytes(at(bytes, place))
}
fn i32_at(bytes: &[u8], place: usize) -> i32 {
    i32::from_be_bytes(at(bytes, place))
}
fn i64_at(bytes: &[u8], place: usize) -> i64 {
    i64::from_be_bytes(at(bytes, place))
}
fn host_at(bytes: &[u8], place: usize, v6: bool) -> SocketAddr {
    let (ip, port_at): (IpAddr, usize) = if v6 {
        (at::<16>(bytes, place).into(), place + 16)
    } else {
        (at::<4>(bytes, place).into(), place + 4)
    };
    // Java keeps the port in four bytes; what does not fit in two was never a port.
    SocketAddr::new(ip, u16::try_from(u32_at(bytes, port_at)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Record<'static> {
        Record {
            queue_id: 3,
            flag: 7,
            queue_offset: 1_000,
            physical_offset: 4_096,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_123,
            born_host: "10.0.0.9:50123".parse().unwrap(),
            store_timestamp: 1_700_000_000_456,
            store_host: "10.0.0.1:10911".parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body: b"hello",
            topic: "TopicTest",
            properties: "TAGS\u{1}A\u{2}",
        }
    }

    fn encoded(record: &Record<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        assert_eq!(encode(record, &mut out).unwrap(), out.len());
        assert_eq!(encoded_len(record), out.len());
        out
    }

    #[test]
    fn a_record_has_the_bytes_of_javas() {
        let hex: String = encoded(&sample())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            hex,
            [
                "00000070",
                "daa320a7",
                "3610a686",
                "00000003",
                "00000007",
                "00000000000003e8",
                "0000000000001000",
                "00000000",
                "0000018bcfe5687b",
                "0a0000090000c3cb",
                "0000018bcfe569c8",
                "0a00000100002a9f",
                "00000002",
                "0000000000000000",
                "00000005",
                "68656c6c6f",
                "09",
                "546f70696354657374",
                "0007",
                "5441475301",
                "4102",
            ]
            .concat()
        );
    }

    #[test]
    fn a_record_cut_at_any_byte_is_truncated() {
        let bytes = encoded(&sample());
        for n in 0..bytes.len() {
            assert!(
                matches!(parse(&bytes[..n], true), Err(RecordError::Truncated { .. })),
                "{n}"
            );
        }
    }

    #[test]
    fn bytes_that_are_no_record_say_why() {
        let good = encoded(&sample());
        let with = |at: usize, value: &[u8]| {
            let mut bad = good.to_vec();
            bad[at..at + value.len()].copy_from_slice(value);
            parse(&bad, true).unwrap_err().to_string()
        };
        assert_eq!(
            with(4, &[0; 4]),
            "magic 0x00000000 is neither a record's nor the filler's"
        );
        assert_eq!(
            with(0, &[0, 0, 0, 90]),
            "the record's fields take 91 bytes, its length says 90"
        );
        assert_eq!(
            with(0, &[0, 0, 0, 111]),
            "the record's fields take 112 bytes, its length says 111"
        );
        assert_eq!(
            with(84, &[0xff; 4]),
            "the record's fields take 4294967384 bytes, its length says 112"
        );
        let found = body_crc(b"jello");
        assert_eq!(
            with(88, b"j"),
            format!("the body's CRC is {found:#010x}, the record says 0x3610a686")
        );
        assert_eq!(with(94, &[0xff]), "the record's topic is not UTF-8 text");
        assert_eq!(
            with(103, &[0x80]),
            "the record's fields take 32880 bytes, its length says 112"
        );
        let mut blank = BytesMut::new();
        encode_blank(4096, &mut blank);
        assert_eq!(parse(&blank, true), Ok(Parsed::Blank));
    }

    #[test]
    fn a_topic_longer_than_127_bytes_makes_a_v2_record() {
        let topic = "t".repeat(128);
        let bytes = encoded(&Record {
            topic: &topic,
            ..sample()
        });
        assert_eq!(bytes[4..8], MAGIC_V2.to_be_bytes());
        assert_eq!(View::record(&bytes).unwrap().topic(), Ok(&*topic));
    }

    #[test]
    fn properties_beyond_a_signed_16_bit_length_do_not_fit() {
        let long = "p".repeat(32_768);
        assert_eq!(
            encode(
                &Record {
                    properties: &long,
                    ..sample()
                },
                &mut BytesMut::new()
            ),
            Err(RecordError::TooLong {
                what: "the property string",
                len: 32_768,
                max: 32_767
            })
        );
    }

    #[test]
    fn records_back_to_back_are_walked_one_by_one() {
        let two = [
            encoded(&sample()),
            encoded(&Record {
                queue_offset: 1_001,
                ..sample()
            }),
        ]
        .concat();
        let offsets: Vec<_> = records(&two).map(|r| r.map(|v| v.queue_offset())).collect();
        assert_eq!(offsets, [Ok(1_000), Ok(1_001)]);
        assert!(records(&two[..two.len() - 1]).last().unwrap().is_err());
    }

    fn host() -> impl Strategy<Value = SocketAddr> {
        (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
    }

    proptest! {
        #[test]
        fn any_record_is_read_back_and_a_patch_sets_three_fields_only(
            born_host in host(), store_host in host(), body in proptest::collection::vec(any::<u8>(), 0..200),
            topic in "[a-zA-Z%_-]{0,300}", properties in ".{0,60}", numbers in any::<(i32, i32, i64, i64, i64, i32)>(),
            patched in any::<(i64, i64, i64)>(),
        ) {
            let record = Record {
                queue_id: numbers.0, flag: numbers.1, queue_offset: numbers.2, born_timestamp: numbers.3, store_timestamp: numbers.4,
                reconsume_times: numbers.5, born_host, store_host, body: &body, topic: &topic, properties: &properties, ..sample()
            };
            let sys_flag = if born_host.is_ipv6() { 0x10 } else { 0 } | if store_host.is_ipv6() { 0x20 } else { 0 };
            let mut bytes = encoded(&record);
            let want = Record { sys_flag, ..record };
            prop_assert_eq!(parse(&bytes, true), Ok(Parsed::Record(want.clone(), bytes.len())));
            patch(&mut bytes, patched.0, patched.1, patched.2);
            let want = Record { queue_offset: patched.0, physical_offset: patched.1, store_timestamp: patched.2, ..want };
            prop_assert_eq!(parse(&bytes, true), Ok(Parsed::Record(want, bytes.len())));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..160), v2: bool) {
            if bytes.len() >= 8 {
                bytes[..2].fill(0);
                bytes[4..8].copy_from_slice(&if v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
            }
            let _ = parse(&bytes, true);
        }
    }
}
