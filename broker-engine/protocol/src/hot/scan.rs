//! The scanner of hot headers: JSON and binary, in place, strict where the generic path is lenient.
//!
//! One pass, kept with the frame, finds the head and the places of the wanted fields; they are turned into values when they are
//! asked for: a header costs no map, no copy, and no allocation but for texts with escapes.

use super::{Head, Hot, PullHead, SendHead};
use crate::Serialize;
use crate::code::request;
use crate::command::{self, Cursor, EXT_FIELDS_MAX, HEADER_MAX, bool_of};
use crate::frame::Frame;
use crate::swar::{before_mark, is_mark, next_mark};
use std::borrow::Cow;
use std::sync::Arc;

/// Which custom fields to read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    SendLong,
    SendShort,
    Pull,
    Other,
}

// The slots of wanted fields, of all kinds of header together.
const GROUP: usize = 0;
const TOPIC: usize = 1;
const DEFAULT_TOPIC: usize = 2;
const QUEUE_NUMS: usize = 3;
const QUEUE_ID: usize = 4;
const SYS_FLAG: usize = 5;
const BORN_TIMESTAMP: usize = 6;
const MESSAGE_FLAG: usize = 7;
const PROPERTIES: usize = 8;
const RECONSUME_TIMES: usize = 9;
const UNIT_MODE: usize = 10;
const MAX_RECONSUME_TIMES: usize = 11;
const BATCH: usize = 12;
const QUEUE_OFFSET: usize = 13;
const MAX_MSG_NUMS: usize = 14;
const COMMIT_OFFSET: usize = 15;
const SUSPEND_TIMEOUT: usize = 16;
const SUBSCRIPTION: usize = 17;
const SUB_VERSION: usize = 18;
const EXPRESSION_TYPE: usize = 19;
const MAX_MSG_BYTES: usize = 20;
const SLOTS: usize = 21;

impl Kind {
    pub(super) fn of(head: &Head) -> Kind {
        match head.code {
            _ if head.is_response() => Kind::Other,
            request::SEND_MESSAGE => Kind::SendLong,
            request::SEND_MESSAGE_V2 | request::SEND_BATCH_MESSAGE => Kind::SendShort,
            request::PULL_MESSAGE | request::LITE_PULL_MESSAGE => Kind::Pull,
            _ => Kind::Other,
        }
    }
    /// The slot of a field by its wire name; none when nobody wants it.
    fn slot(self, name: &[u8]) -> Option<usize> {
        match self {
            // The letters stand in the slots' order.
            Kind::SendShort => match name {
                [letter @ b'a'..=b'm'] => Some(usize::from(letter - b'a')),
                _ => None,
            },
            Kind::SendLong => Some(match name {
                b"producerGroup" => GROUP,
                b"topic" => TOPIC,
                b"defaultTopic" => DEFAULT_TOPIC,
                b"defaultTopicQueueNums" => QUEUE_NUMS,
                b"queueId" => QUEUE_ID,
                b"sysFlag" => SYS_FLAG,
                b"bornTimestamp" => BORN_TIMESTAMP,
                b"flag" => MESSAGE_FLAG,
                b"properties" => PROPERTIES,
                b"reconsumeTimes" => RECONSUME_TIMES,
                b"unitMode" => UNIT_MODE,
                b"maxReconsumeTimes" => MAX_RECONSUME_TIMES,
                b"batch" => BATCH,
                _ => return None,
            }),
            Kind::Pull => Some(match name {
                b"consumerGroup" => GROUP,
                b"topic" => TOPIC,
                b"queueId" => QUEUE_ID,
                b"queueOffset" => QUEUE_OFFSET,
                b"maxMsgNums" => MAX_MSG_NUMS,
                b"sysFlag" => SYS_FLAG,
                b"commitOffset" => COMMIT_OFFSET,
                b"suspendTimeoutMillis" => SUSPEND_TIMEOUT,
                b"subscription" => SUBSCRIPTION,
                b"subVersion" => SUB_VERSION,
                b"expressionType" => EXPRESSION_TYPE,
                b"maxMsgBytes" => MAX_MSG_BYTES,
                _ => return None,
            }),
            Kind::Other => None,
        }
    }
}

/// What one pass over a header found: what every header has, where its custom fields begin (behind the opening brace, or their
/// length in the binary form), and, of a send or a pull, where the wanted ones stand.
#[derive(Clone, Debug)]
pub(crate) struct Top {
    pub(super) head: Head,
    /// 0 when there are none: before them stands at least a brace.
    ext_at: u32,
    /// Of a JSON header: first byte and end of the number that ties the answer to the request.
    opaque_at: (u32, u32),
    /// Shared: frames are moved, and headers of one shape have their fields at the same places.
    places: Option<Arc<Places>>,
}

/// Where the wanted custom fields stand in the header.
#[derive(Debug)]
struct Places {
    kind: Kind,
    /// First byte and end of a slot's value; a header is at most 64 KiB long.
    slots: [(u16, u16); SLOTS],
    /// A bit for each slot that has a value.
    present: u32,
    /// A bit for each slot whose value has escapes.
    escaped: u32,
    count: usize,
}

impl Places {
    fn new(kind: Kind) -> Places {
        Places {
            kind,
            slots: [(0, 0); SLOTS],
            present: 0,
            escaped: 0,
            count: 0,
        }
    }
    /// A field that came before is left to the generic way: it would judge the value that is passed over here.
    fn set(&mut self, slot: usize, start: usize, end: usize, escaped: bool) -> Option<()> {
        if self.present & 1 << slot != 0 {
            return None;
        }
        self.slots[slot] = (u16::try_from(start).ok()?, u16::try_from(end).ok()?);
        self.present |= 1 << slot;
        self.escaped |= u32::from(escaped) << slot;
        Some(())
    }
    /// Counts a field, wanted or not.
    fn counted(&mut self) -> Option<()> {
        self.count += 1;
        (self.count <= EXT_FIELDS_MAX).then_some(())
    }
}

impl Top {
    /// Whether this is a send or a pull in JSON all of whose wanted fields were found: another header of its shape has them at
    /// the same places.
    pub(super) fn has_shape(&self) -> bool {
        self.opaque_at.1 > 0 && self.places.is_some()
    }
    fn opaque(&self) -> (usize, usize) {
        (self.opaque_at.0 as usize, self.opaque_at.1 as usize)
    }
    /// First bytes and ends of all that may differ from one request to the next.
    pub(super) fn values(&self) -> impl Iterator<Item = (usize, usize)> {
        let slots = self.places.iter().flat_map(|places| {
            let of = |slot: &usize| places.present & 1 << slot != 0;
            let ends = |(start, end): (u16, u16)| (usize::from(start), usize::from(end));
            (0..SLOTS)
                .filter(of)
                .map(move |slot| ends(places.slots[slot]))
        });
        slots.chain([self.opaque()])
    }
    /// The same for another header of this shape; `None` when its opaque is no number.
    pub(super) fn of_like(&self, header: &[u8]) -> Option<Top> {
        let (start, end) = self.opaque();
        let mut at = Json {
            bytes: header.get(..end)?,
            at: start,
        };
        let (opaque, first) = at.number_from()?;
        (first == start && at.at == end).then_some(Top {
            head: Head {
                opaque,
                ..self.head
            },
            places: self.places.clone(),
            ..*self
        })
    }
}

/// Reads a header in one pass. Custom fields that are broken leave `places` empty. `None`: use the generic path.
pub(crate) fn top(header: &[u8], serialize: Serialize) -> Option<Top> {
    if header.len() > HEADER_MAX {
        return None;
    }
    match serialize {
        Serialize::Json => json_top(header),
        Serialize::RocketMq => binary_top(header),
    }
}

/// Turns what the pass found into values. `None`: use the generic path.
pub(super) fn scan(frame: &Frame) -> Option<Hot<'_>> {
    let top = frame.top()?;
    let head = top.head;
    match Kind::of(&head) {
        Kind::Other => Some(Hot::Other(head)),
        Kind::Pull => fields(frame, top)?.pull(head).map(Hot::Pull),
        Kind::SendLong | Kind::SendShort => {
            let fields = fields(frame, top)?;
            let properties = fields.maybe(PROPERTIES, Fields::text)?;
            fields
                .send(head, properties.unwrap_or_default())
                .map(Hot::Send)
        }
    }
}

/// The same for a send alone, whose properties, mostly the one text with escapes, come to stand in `room`.
pub(super) fn scan_send<'a>(frame: &'a Frame, room: &'a mut Vec<u8>) -> Option<SendHead<'a>> {
    let top = frame.top()?;
    let head = top.head;
    if !matches!(Kind::of(&head), Kind::SendLong | Kind::SendShort) {
        return None;
    }
    let fields = fields(frame, top)?;
    let properties = if fields.places.escaped & 1 << PROPERTIES != 0 {
        let len = unescape_to(fields.raw(PROPERTIES), room)?;
        Cow::Borrowed(std::str::from_utf8(&room[..len]).ok()?)
    } else {
        fields.maybe(PROPERTIES, Fields::text)?.unwrap_or_default()
    };
    fields.send(head, properties)
}

/// The wanted custom fields of a send's or a pull's header.
fn fields<'a>(frame: &'a Frame, top: &'a Top) -> Option<Fields<'a>> {
    let header = frame.header();
    let json = frame.serialize() == Serialize::Json;
    // The generic way refuses what is not UTF-8 wherever it stands. Once for all is less than for each short text of it.
    let whole = if json {
        Some(std::str::from_utf8(header).ok()?)
    } else {
        None
    };
    let kind = Kind::of(&top.head);
    let places = match &top.places {
        Some(places) if places.kind == kind => Found::Before(places),
        // Of fields that came before their code nothing is known yet.
        _ if json && top.ext_at > 0 => {
            let mut places = Places::new(kind);
            Json {
                bytes: header,
                at: top.ext_at as usize,
            }
            .fields(&mut places)?;
            Found::Now(places)
        }
        _ => return None,
    };
    Some(Fields {
        header,
        whole,
        places,
    })
}

/// The wanted custom fields of a header.
struct Fields<'a> {
    header: &'a [u8],
    /// The same as text, of a JSON header; the other form has numbers in it.
    whole: Option<&'a str>,
    places: Found<'a>,
}

/// Places that came with the frame, or were looked for just now.
enum Found<'a> {
    Before(&'a Places),
    Now(Places),
}

impl std::ops::Deref for Found<'_> {
    type Target = Places;
    fn deref(&self) -> &Places {
        match self {
            Found::Before(places) => places,
            Found::Now(places) => places,
        }
    }
}

impl<'a> Fields<'a> {
    fn has(&self, slot: usize) -> bool {
        self.places.present & 1 << slot != 0
    }
    fn raw(&self, slot: usize) -> &'a [u8] {
        let (start, end) = self.places.slots[slot];
        &self.header[usize::from(start)..usize::from(end)]
    }
    fn text(&self, slot: usize) -> Option<Cow<'a, str>> {
        if self.places.escaped & 1 << slot != 0 {
            unescape(self.raw(slot)).map(Cow::Owned)
        } else {
            self.plain(slot).map(Cow::Borrowed)
        }
    }
    /// The text as it stands, of a slot without escapes.
    fn plain(&self, slot: usize) -> Option<&'a str> {
        let (start, end) = self.places.slots[slot];
        match self.whole {
            Some(whole) => whole.get(usize::from(start)..usize::from(end)),
            None => std::str::from_utf8(self.raw(slot)).ok(),
        }
    }
    /// A required text.
    fn needed(&self, slot: usize) -> Option<Cow<'a, str>> {
        self.has(slot).then(|| self.text(slot))?
    }
    /// A required number. What is empty or escaped is left to the generic way.
    fn i64(&self, slot: usize) -> Option<i64> {
        self.has(slot).then(|| int(self.raw(slot)))?
    }
    fn i32(&self, slot: usize) -> Option<i32> {
        i32::try_from(self.i64(slot)?).ok()
    }
    fn flag(&self, slot: usize) -> Option<bool> {
        if self.has(slot) {
            bool_of(self.plain(slot)?)
        } else {
            Some(false)
        }
    }
    /// An optional field: `None` is "use the generic way", as elsewhere here.
    fn maybe<T>(&self, slot: usize, read: impl Fn(&Self, usize) -> Option<T>) -> Option<Option<T>> {
        if self.has(slot) {
            read(self, slot).map(Some)
        } else {
            Some(None)
        }
    }

    fn send(&self, head: Head, properties: Cow<'a, str>) -> Option<SendHead<'a>> {
        Some(SendHead {
            head,
            producer_group: self.needed(GROUP)?,
            topic: self.needed(TOPIC)?,
            default_topic: self.needed(DEFAULT_TOPIC)?,
            default_topic_queue_nums: self.i32(QUEUE_NUMS)?,
            queue_id: self.i32(QUEUE_ID)?,
            sys_flag: self.i32(SYS_FLAG)?,
            born_timestamp: self.i64(BORN_TIMESTAMP)?,
            message_flag: self.i32(MESSAGE_FLAG)?,
            properties,
            reconsume_times: self.maybe(RECONSUME_TIMES, Self::i32)?.unwrap_or(0),
            unit_mode: self.flag(UNIT_MODE)?,
            max_reconsume_times: self.maybe(MAX_RECONSUME_TIMES, Self::i32)?,
            batch: self.flag(BATCH)? || head.code == request::SEND_BATCH_MESSAGE,
        })
    }

    fn pull(&self, head: Head) -> Option<PullHead<'a>> {
        Some(PullHead {
            head,
            consumer_group: self.needed(GROUP)?,
            topic: self.needed(TOPIC)?,
            queue_id: self.i32(QUEUE_ID)?,
            queue_offset: self.i64(QUEUE_OFFSET)?,
            max_msg_nums: self.i32(MAX_MSG_NUMS)?,
            sys_flag: self.i32(SYS_FLAG)?,
            commit_offset: self.i64(COMMIT_OFFSET)?,
            suspend_timeout_millis: self.i64(SUSPEND_TIMEOUT)?,
            subscription: self.maybe(SUBSCRIPTION, Self::text)?,
            sub_version: self.i64(SUB_VERSION)?,
            expression_type: self.maybe(EXPRESSION_TYPE, Self::text)?,
            max_msg_bytes: self.maybe(MAX_MSG_BYTES, Self::i32)?,
        })
    }
}

/// A decimal number; any other text is left to the generic way.
fn int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    // 18 digits cannot overflow. More come only from who means "as far as there is".
    if digits.is_empty() || digits.len() > 18 {
        return std::str::from_utf8(text).ok()?.parse().ok();
    }
    let mut value = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

fn binary_top(header: &[u8]) -> Option<Top> {
    let mut at = Cursor(header);
    let code = at.i16()?;
    at.u8()?;
    let version = i32::from(at.i16()?);
    let opaque = at.i32()?;
    let flag = at.i32()?;
    let code = if flag & 1 == 0 {
        command::whole_request_code(code)
    } else {
        i32::from(code)
    };
    at.text32()?;
    let head = Head {
        code,
        opaque,
        flag,
        version,
    };
    let kind = Kind::of(&head);
    let ext_at = header.len() - at.0.len();
    Some(Top {
        head,
        ext_at: u32::try_from(ext_at).ok()?,
        opaque_at: (0, 0),
        places: match kind {
            Kind::Other => None,
            kind => binary_places(header, ext_at, kind).map(Arc::new),
        },
    })
}

fn binary_places(header: &[u8], ext_at: usize, kind: Kind) -> Option<Places> {
    let mut places = Places::new(kind);
    let mut at = Cursor(&header[ext_at..]);
    let ext_len = usize::try_from(at.i32()?).ok()?;
    let behind = at.0.len().checked_sub(ext_len)?;
    let mut entries = Cursor(at.take(ext_len)?);
    while !entries.0.is_empty() {
        let name = entries.text16()?;
        let value = entries.text32()?;
        // A length of 0 is null in this form: no field.
        if value.is_empty() {
            continue;
        }
        places.counted()?;
        if let Some(slot) = kind.slot(name.as_bytes()) {
            let end = header.len() - behind - entries.0.len();
            places.set(slot, end - value.len(), end, false)?;
        }
    }
    Some(places)
}

/// A cursor over a JSON header.
struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Json<'_> {
    #[inline]
    fn next(&mut self) -> Option<u8> {
        while let Some(&byte) = self.bytes.get(self.at) {
            self.at += 1;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
        }
        None
    }
    #[inline]
    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }
    /// The text behind its opening quote: first byte, end, and whether it has escapes.
    /// Bare control characters are left to the generic way.
    #[inline]
    fn string(&mut self) -> Option<(usize, usize, bool)> {
        let start = self.at;
        // Letters as names and digits as values are most of what comes.
        if let Some(&[first, b'"']) = self.bytes.get(start..start + 2)
            && first >= 0x20
            && first != b'"'
            && first != b'\\'
        {
            self.at = start + 2;
            return Some((start, start + 1, false));
        }
        let mut escaped = false;
        loop {
            self.at = next_mark(self.bytes, self.at)?;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Some((start, self.at - 1, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return None,
            }
        }
    }
    /// The bytes of a text that is a key.
    fn name(&mut self) -> Option<&[u8]> {
        let (start, end, escaped) = self.string()?;
        (!escaped).then(|| &self.bytes[start..end])
    }
    fn number(&mut self) -> Option<i32> {
        self.number_from().map(|(number, _)| number)
    }
    /// A number with its first byte's place.
    fn number_from(&mut self) -> Option<(i32, usize)> {
        self.next()?;
        let start = self.at - 1;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        let digits = &self.bytes[start..self.at];
        // "01" and "-0" are no JSON numbers that both ways read alike.
        if digits.len() > 1 && digits[0] == b'0' || digits.starts_with(b"-0") {
            return None;
        }
        Some((i32::try_from(int(digits)?).ok()?, start))
    }
    /// Passes over a text or null; anything else is left to the generic way.
    fn skip(&mut self) -> Option<()> {
        match self.next()? {
            b'"' => {
                let (start, end, escaped) = self.string()?;
                self.check(start, end, escaped)
            }
            b'n' => {
                let null = self.bytes.get(self.at..self.at + 3)? == b"ull";
                self.at += 3;
                null.then_some(())
            }
            _ => None,
        }
    }
    /// What the generic way would refuse must not pass here only because nobody wants the field.
    fn check(&self, start: usize, end: usize, escaped: bool) -> Option<()> {
        if escaped {
            unescape(&self.bytes[start..end])?;
        }
        Some(())
    }
    /// Passes over the custom fields behind their opening brace. What they are is seen when they are read.
    fn skip_fields(&mut self) -> Option<()> {
        loop {
            match *self.bytes.get(self.at)? {
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                // Nothing of these is in a field that is read here.
                b'{' | b'[' => return None,
                _ => self.at += 1,
            }
        }
    }
    /// Whether these two bytes come next, which then are used up: most headers have no spaces.
    #[inline]
    fn pair(&mut self, pair: [u8; 2]) -> bool {
        let found = self.bytes.get(self.at..self.at + 2) == Some(&pair);
        if found {
            self.at += 2;
        }
        found
    }
    /// The custom fields behind their opening brace.
    fn fields(&mut self, places: &mut Places) -> Option<()> {
        match self.next()? {
            b'"' => {}
            b'}' => return Some(()),
            _ => return None,
        }
        loop {
            places.counted()?;
            let slot = places.kind.slot(self.name()?);
            if !self.pair(*b":\"") {
                self.expect(b':')?;
                self.expect(b'"')?;
            }
            let (start, end, escaped) = self.string()?;
            match slot {
                Some(slot) => places.set(slot, start, end, escaped)?,
                None => self.check(start, end, escaped)?,
            }
            if !self.pair(*b",\"") {
                match self.next()? {
                    b',' => self.expect(b'"')?,
                    b'}' => return Some(()),
                    _ => return None,
                }
            }
        }
    }
}

fn json_top(bytes: &[u8]) -> Option<Top> {
    let mut at = Json { bytes, at: 0 };
    let mut head = Head {
        code: 0,
        opaque: 0,
        flag: 0,
        version: 0,
    };
    let mut ext_at = 0;
    let mut opaque_at = (0, 0);
    let mut places = None;
    at.expect(b'{')?;
    loop {
        at.expect(b'"')?;
        let (start, end, escaped) = at.string()?;
        at.expect(b':')?;
        match &bytes[start..end] {
            _ if escaped => return None,
            b"code" => head.code = at.number()?,
            b"flag" => head.flag = at.number()?,
            b"opaque" => {
                let (opaque, start) = at.number_from()?;
                head.opaque = opaque;
                opaque_at = (u32::try_from(start).ok()?, u32::try_from(at.at).ok()?);
            }
            b"version" => head.version = at.number()?,
            b"extFields" => {
                at.expect(b'{')?;
                if ext_at > 0 {
                    return None;
                }
                let place = at.at;
                ext_at = u32::try_from(place).ok()?;
                let kind = Kind::of(&head);
                let mut found = Places::new(kind);
                if kind != Kind::Other && at.fields(&mut found).is_some() {
                    places = Some(Arc::new(found));
                } else {
                    at.at = place;
                    at.skip_fields()?;
                }
            }
            _ => at.skip()?,
        }
        match at.next()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    at.next().is_none().then_some(Top {
        head,
        ext_at,
        opaque_at,
        places,
    })
}

/// The text of a JSON string's inside; `None` for what the generic way has to judge (surrogates, unknown escapes).
fn unescape(raw: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    let len = unescape_to(raw, &mut out)?;
    out.truncate(len);
    String::from_utf8(out).ok()
}

/// Writes the text of a JSON string's inside to the beginning of `out`, which grows as needed and is not cleared; returns its
/// length. The pieces between escapes are a few bytes long: whole words are copied, and what is too much of one is overwritten.
fn unescape_to(raw: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    // No text is longer than its escaped form.
    if out.len() < raw.len() + 8 {
        out.resize(raw.len() + 8, 0);
    }
    let (mut from, mut to) = (0, 0);
    loop {
        if let Some(word) = raw.get(from..).and_then(|rest| rest.first_chunk::<8>()) {
            out[to..to + 8].copy_from_slice(word);
            let plain = before_mark(*word);
            from += plain;
            to += plain;
            if plain == 8 {
                continue;
            }
        } else {
            while let Some(&byte) = raw.get(from)
                && !is_mark(byte)
            {
                out[to] = byte;
                from += 1;
                to += 1;
            }
            if from >= raw.len() {
                return Some(to);
            }
        }
        // A mark inside a text is a backslash: its end and bare control characters were seen before.
        let plain = match *raw.get(from + 1)? {
            b'u' => {
                let digits = raw.get(from + 2..from + 6)?;
                from += 6;
                let mut unit = 0;
                for &digit in digits {
                    unit = unit << 4 | u32::from(hex(digit)?);
                }
                match u8::try_from(unit) {
                    Ok(byte @ 0..0x80) => byte,
                    _ => {
                        let mut bytes = [0; 4];
                        let text = char::from_u32(unit)?.encode_utf8(&mut bytes);
                        out[to..to + text.len()].copy_from_slice(text.as_bytes());
                        to += text.len();
                        continue;
                    }
                }
            }
            short => {
                from += 2;
                match short {
                    b'"' | b'\\' | b'/' => short,
                    b'b' => 0x08,
                    b'f' => 0x0C,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    _ => return None,
                }
            }
        };
        out[to] = plain;
        to += 1;
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
