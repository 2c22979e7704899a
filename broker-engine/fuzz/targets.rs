//! What each fuzz target does with its bytes: a decoder must end without a panic, and what it reads must read the same again
//! when it is written back. The targets of `fuzz_targets/` call these, and so does `broker-engine/tests/corpora.rs` with the kept corpora.

use bytes::{Bytes, BytesMut};
use rocketmq_protocol::body::*;
use rocketmq_protocol::code::request;
use rocketmq_protocol::frame::FRAME_PREFIX;
use rocketmq_protocol::hot::{Head, Hot, PullHead, SendHead, Shapes};
use rocketmq_protocol::json;
use rocketmq_protocol::record::{self, Parsed, Seen, View};
use rocketmq_protocol::sql::Expression;
use rocketmq_protocol::{Command, Frame, FrameError, HeaderError, Serialize};
use rocketmq_protocol::{batch, ha, message_id, properties};
use std::fmt::Debug;

/// A target's name, which is its corpus's directory as well, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 8] = [
    ("frame", frame),
    ("header_json", header_json),
    ("header_binary", header_binary),
    ("record", record),
    ("properties", property_string),
    ("sql", sql),
    ("ha", ha_stream),
    ("json", json_body),
];

/// Splits off the first byte, which steers a target; none of no bytes.
fn steered(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first), rest))
}

/// The text before the first zero byte and the one behind it, where both are UTF-8.
fn two_texts(data: &[u8]) -> Option<(&str, &str)> {
    let (first, second) = std::str::from_utf8(data).ok()?.split_once('\0')?;
    Some((first, second))
}

// ---- frames ----

/// The frames of a stream that comes in pieces of `step` bytes, the error that ended it, and how many bytes are left of it.
fn frames(data: &[u8], step: usize) -> (Vec<Frame>, Option<FrameError>, usize) {
    let mut buffer = BytesMut::new();
    let mut found = vec![];
    for piece in data.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::cut(&mut buffer) {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(error) => return (found, Some(error), 0),
            }
        }
    }
    (found, None, buffer.len())
}

/// Cutting: the first byte says in what pieces the rest arrives, which must not matter.
pub fn frame(data: &[u8]) {
    let Some((step, data)) = steered(data) else {
        return;
    };
    let (whole, error, left) = frames(data, usize::MAX);
    let (pieces, pieces_error, pieces_left) = frames(data, step + 1);
    assert_eq!(whole.len(), pieces.len());
    let mut at = 0;
    for (one, other) in whole.iter().zip(&pieces) {
        assert_eq!(one.header(), other.header());
        assert_eq!(one.body(), other.body());
        assert_eq!(one.serialize(), other.serialize());
        let len = FRAME_PREFIX + one.header().len() + one.body_bytes().len();
        assert_eq!(Frame::announced_len(&data[at..]), Some(len));
        at += len;
        agree(one);
    }
    if error.is_none() {
        assert_eq!(at + left, data.len());
    }
    assert_eq!((error, left), (pieces_error, pieces_left));
}

// ---- headers ----

/// A frame around a header, as a peer would send it.
fn framed(header: &[u8], serialize: Serialize, body: &[u8]) -> Option<Frame> {
    let length = u32::try_from(4 + header.len() + body.len()).ok()?;
    let announced = u32::try_from(header.len()).ok()?;
    let kind = u32::from(serialize == Serialize::RocketMq) << 24;
    let mut bytes = BytesMut::from(&length.to_be_bytes()[..]);
    bytes.extend_from_slice(&(kind | announced).to_be_bytes());
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(body);
    Frame::cut(&mut bytes).ok().flatten()
}

/// What the generic way makes of a header, in the scanner's terms.
fn generic(command: &Command) -> Result<Hot<'_>, HeaderError> {
    let head = Head::from_command(command);
    match command.code {
        _ if head.is_response() => Ok(Hot::Other(head)),
        request::SEND_MESSAGE | request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => {
            SendHead::from_command(command).map(Hot::Send)
        }
        request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => {
            PullHead::from_command(command).map(Hot::Pull)
        }
        _ => Ok(Hot::Other(head)),
    }
}

/// The scanner and the generic parser agree wherever the scanner reads a header at all. Of a header whose custom fields are broken
/// it may read the head alone.
fn agree(frame: &Frame) {
    let command = frame.decode();
    match (Hot::scan(frame), &command) {
        (None, _) | (Some(Hot::Other(_)), Err(_)) => {}
        (Some(hot), Ok(command)) => assert_eq!(Ok(&hot), generic(command).as_ref()),
        (Some(hot), Err(error)) => panic!("the scanner reads {hot:?}, the parser says {error}"),
    }
    if let (Some(head), Ok(command)) = (Head::scan(frame), &command) {
        assert_eq!(head, Head::from_command(command));
    }
    if let Ok(command) = &command {
        rewrite(command);
    }
}

/// A command that was read is written such that it reads the same.
fn rewrite(command: &Command) {
    let (mut rest, serialize) = (BytesMut::from(&command.to_bytes()[..]), command.serialize);
    let frame = Frame::cut(&mut rest)
        .expect("our own frame")
        .expect("all of it");
    assert!(rest.is_empty());
    assert_eq!(frame.serialize(), serialize);
    match frame.decode() {
        Ok(again) => assert_eq!(again, *command),
        // Escapes may take more bytes than what they were read from.
        Err(error) => assert!(matches!(error, HeaderError::TooLong(_)), "{error}"),
    }
}

fn header(data: &[u8], serialize: Serialize) {
    if let Some(frame) = framed(data, serialize, b"body") {
        agree(&frame);
        like_itself(data, serialize);
    }
}

/// A connection that has sent a header before reads the same one, and one that differs in a byte, as a new connection would.
fn like_itself(data: &[u8], serialize: Serialize) {
    let mut shapes = Shapes::default();
    for _ in 0..2 {
        if let Some(mut frame) = framed(data, serialize, b"body") {
            shapes.look(&mut frame);
        }
    }
    let (Some(first), Some(last)) = (data.first(), data.last()) else {
        return;
    };
    let mut changed = data.to_vec();
    let at = usize::from(*first) * data.len() / 256;
    changed[at] = last ^ changed[at].rotate_left(3);
    for header in [data, &changed] {
        let (Some(mut known), Some(new)) = (
            framed(header, serialize, b"body"),
            framed(header, serialize, b"body"),
        ) else {
            continue;
        };
        shapes.look(&mut known);
        assert_eq!(Hot::scan(&known), Hot::scan(&new));
        assert_eq!(Head::scan(&known), Head::scan(&new));
        agree(&known);
    }
}

/// A header in the JSON form.
pub fn header_json(data: &[u8]) {
    header(data, Serialize::Json);
}

/// A header in RocketMQ's binary form.
pub fn header_binary(data: &[u8]) {
    header(data, Serialize::RocketMq);
}

// ---- records and batches ----

/// A record or a run of them as in the commit log, and the body of a batch: one of the two, the other is noise.
pub fn record(data: &[u8]) {
    let mut last = 0;
    for view in record::records(data) {
        let Ok(view) = view else { break };
        last += view.total_len();
        viewed(&view);
    }
    assert!(last <= data.len());
    match (View::look(data), record::parse(data, true)) {
        (Ok(Seen::Blank), Ok(Parsed::Blank)) => {}
        (Ok(Seen::Record(view)), Ok(Parsed::Record(record, len))) => {
            assert_eq!(view.total_len(), len);
            assert_eq!(view.decode(), Ok(record));
            assert_eq!(view.check_body_crc(), Ok(()));
        }
        (Ok(Seen::Record(view)), Err(error)) => {
            assert!(view.check_body_crc() == Err(error) || view.decode().is_err());
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        (seen, parsed) => panic!("looked: {seen:?}, parsed: {parsed:?}"),
    }
    batches(data);
}

fn viewed(view: &View<'_>) {
    assert_eq!(&view.bytes()[view.body_range()], view.body());
    let Ok(decoded) = view.decode() else { return };
    let id = message_id::format(decoded.store_host, decoded.physical_offset);
    assert_eq!(
        message_id::parse(&id),
        Some((decoded.store_host, decoded.physical_offset))
    );
    let _ = message_id::parse(decoded.topic);
    let mut bytes = BytesMut::new();
    if record::encode(&decoded, &mut bytes).is_err() {
        // Java's lengths are signed: what it cannot have written is read, but not written.
        let max = record_text_max();
        assert!(decoded.topic.len() > max || decoded.properties.len() > max);
        return;
    }
    assert_eq!(record::encoded_len(&decoded), bytes.len());
    let len = bytes.len();
    assert_eq!(
        record::parse(&bytes, true),
        Ok(Parsed::Record(decoded.clone(), len))
    );
    record::patch(&mut bytes, 1, 2, 3);
    let patched = View::record(&bytes).and_then(|view| view.decode());
    let wanted = record::Record {
        queue_offset: 1,
        physical_offset: 2,
        store_timestamp: 3,
        ..decoded
    };
    assert_eq!(patched, Ok(wanted));
}

fn record_text_max() -> usize {
    i16::MAX as usize
}

fn batches(data: &[u8]) {
    let mut again = vec![];
    let mut read = vec![];
    for entry in batch::entries(data) {
        let Ok(entry) = entry else { break };
        batch::push(&entry, &mut again).expect("what was read can be written");
        read.push(entry);
    }
    let reread: Result<Vec<_>, _> = batch::entries(&again).collect();
    assert_eq!(reread, Ok(read));
}

// ---- properties ----

/// A property string, edited with the pairs of a second one behind a zero byte.
pub fn property_string(data: &[u8]) {
    let Some((text, changes)) = two_texts(data) else {
        return;
    };
    let pairs: Vec<_> = properties::pairs(text).collect();
    for (name, _) in &pairs {
        let last = pairs.iter().rev().find(|(n, _)| n == name);
        assert_eq!(properties::get(text, name), last.map(|(_, value)| *value));
    }
    assert!(properties::keys(text).all(|key| !key.is_empty() && !key.contains(' ')));
    let same = properties::edit(text, &[], &[]);
    assert!(properties::pairs(&same).eq(pairs.iter().copied()));
    let changes: Vec<_> = properties::pairs(changes).take(8).collect();
    let (set, remove) = changes.split_at(changes.len() / 2);
    let removed: Vec<_> = remove.iter().map(|(name, _)| *name).collect();
    let edited = properties::edit(text, set, &removed);
    for (name, _) in pairs.iter().chain(&changes) {
        // Of several values for one name the first is set: edit is told each once by who calls it.
        let wanted = match set.iter().filter(|(n, _)| n == name).count() {
            0 if removed.contains(name) => None,
            0 => properties::get(text, name),
            1 => set.iter().find(|(n, _)| n == name).map(|(_, value)| *value),
            _ => continue,
        };
        assert_eq!(properties::get(&edited, name), wanted, "{name:?}");
    }
    let mut pushed = text.to_owned();
    for (name, value) in &changes {
        properties::push(&mut pushed, name, value);
    }
    assert!(properties::pairs(&pushed).eq(pairs.iter().chain(&changes).copied()));
}

// ---- filters ----

/// An expression, a zero byte, and the property string of a message.
pub fn sql(data: &[u8]) {
    let Some((expression, message)) = two_texts(data) else {
        return;
    };
    let subscription = SubscriptionData::parse_tags("T", expression);
    subscription.is_empty_list();
    let compiled = match Expression::parse(expression) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert!(
                (1..=expression.chars().count() + 1).contains(&error.at),
                "{error}"
            );
            return;
        }
    };
    let matches = compiled.matches(message);
    assert_eq!(matches, compiled.matches(message));
    // What follows a whole expression is not looked at; with a parenthesis around it, it is.
    if expression.contains(')') {
        return;
    }
    let inside = Expression::parse(&format!("({expression})"));
    let negated = Expression::parse(&format!("NOT ({expression})"));
    if let (Ok(inside), Ok(negated)) = (inside, negated) {
        assert_eq!(inside.matches(message), matches);
        assert!(!(matches && negated.matches(message)));
    }
}

// ---- replication ----

/// What a master sends a slave, in pieces (the first byte says of how many bytes, the second in how large files), and a slave's
/// reports.
pub fn ha_stream(data: &[u8]) {
    let Some((step, rest)) = steered(data) else {
        return;
    };
    let Some((files, rest)) = steered(rest) else {
        return;
    };
    let bounds = ha::Bounds {
        body_max: 4096,
        run_max: 256,
        file_size: 64 + files as i64,
    };
    let (whole, error) = stream(rest, usize::MAX, &bounds);
    let (pieces, pieces_error) = stream(rest, step + 1, &bounds);
    assert_eq!(error, pieces_error);
    // How transfers are joined depends on when they came, which bytes lie where does not.
    assert_eq!(placed(&whole), placed(&pieces));
    for (at, bytes) in &whole {
        assert!(*at >= 0 && at.checked_add(bytes.len() as i64).is_some());
    }
    match ha::latest_report(rest) {
        Some((report, used)) => {
            assert!(used <= rest.len() && rest.len() - used < ha::REPORT);
            assert_eq!(rest[..used].last_chunk(), Some(&report.to_be_bytes()));
        }
        None => assert!(rest.len() < ha::REPORT),
    }
}

type Runs = Vec<(i64, Bytes)>;

fn stream(data: &[u8], step: usize, bounds: &ha::Bounds) -> (Runs, Option<ha::TransferError>) {
    let mut buffer = BytesMut::new();
    let mut runs = vec![];
    for piece in data.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match ha::cut(&mut buffer, bounds) {
                Ok(Some(run)) => runs.push(run),
                Ok(None) => break,
                Err(error) => return (runs, Some(error)),
            }
        }
    }
    (runs, None)
}

fn placed(runs: &Runs) -> Vec<(i64, u8)> {
    runs.iter()
        .flat_map(|(at, bytes)| {
            (0..)
                .zip(bytes.iter())
                .map(move |(n, byte)| (at + n, *byte))
        })
        .collect()
}

// ---- bodies ----

/// A JSON body in fastjson's dialect; the first byte says of which kind.
pub fn json_body(data: &[u8]) {
    let Some((kind, text)) = steered(data) else {
        return;
    };
    if let Ok(standard) = json::to_standard(text) {
        // Standard JSON is fastjson's dialect too.
        assert_eq!(
            json::to_standard(standard.as_bytes()).as_deref(),
            Ok(&*standard)
        );
    }
    match BODIES.get(kind) {
        Some(read) => read(text),
        None => {
            let _ = RegisterBrokerBody::decode(text, kind & 1 == 0, kind as i32 * 2);
        }
    }
}

fn body<T>(text: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    let Ok(value) = json::from_slice::<T>(text) else {
        return;
    };
    let written = json::to_fastjson(&value);
    assert_eq!(json::from_slice(written.as_bytes()), Ok(value), "{written}");
}

/// A body with rates: a fraction is read to the last digit but one.
fn rates<T: serde::Serialize + serde::de::DeserializeOwned>(text: &[u8]) {
    if let Ok(value) = json::from_slice::<T>(text) {
        let written = json::to_fastjson(&value);
        assert!(
            json::from_slice::<T>(written.as_bytes()).is_ok(),
            "{written}"
        );
    }
}

fn heartbeat(text: &[u8]) {
    body::<HeartbeatData>(text);
    let Ok(data) = json::from_slice::<HeartbeatData>(text) else {
        return;
    };
    for subscription in data
        .consumer_data_set
        .iter()
        .flat_map(|c| &c.subscription_data_set)
    {
        subscription.matches(i64::from(data.heartbeat_fingerprint));
        subscription.is_empty_list();
    }
}

fn topics(text: &[u8]) {
    body::<TopicConfigAndMappingSerializeWrapper>(text);
    let Ok(wrapper) = json::from_slice::<TopicConfigAndMappingSerializeWrapper>(text) else {
        return;
    };
    for config in wrapper.topic_config_table.values() {
        let line = config.to_line();
        let spaced = config.topic_name.contains(' ') || config.topic_filter_type.contains(' ');
        if !spaced {
            assert_eq!(
                TopicConfig::from_line(&line).as_ref(),
                Some(&**config),
                "{line}"
            );
        }
    }
}

/// By the steering byte. New kinds go to the end, so that the corpora keep their meaning.
const BODIES: [fn(&[u8]); 24] = [
    heartbeat,
    topics,
    body::<RegisterBrokerBody>,
    body::<TopicRouteData>,
    body::<ClusterInfo>,
    body::<SubscriptionGroupWrapper>,
    body::<ConsumerOffsetSerializeWrapper>,
    body::<DelayOffsetSerializeWrapper>,
    rates::<TopicStatsTable>,
    rates::<ConsumeStats>,
    body::<ResetOffsetBody>,
    body::<GetConsumerStatusBody>,
    body::<LockBatchRequestBody>,
    body::<LockBatchResponseBody>,
    body::<QueryAssignmentResponseBody>,
    body::<MessageRequestModeSerializeWrapper>,
    body::<BatchAckMessageRequestBody>,
    body::<ConsumerConnection>,
    body::<CreateTopicListRequestBody>,
    body::<SubscriptionGroupList>,
    body::<KVTable>,
    body::<QueryCorrectionOffsetBody>,
    body::<ConsumeMessageDirectlyResult>,
    body::<CheckClientRequestBody>,
];
