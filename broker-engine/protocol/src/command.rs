//! One remoting command: a request or a response, decoded.
//! Source: `apache/rocketmq: remoting/.../protocol/RemotingCommand.java`, `RocketMQSerializable.java`, `RemotingSerializable.java`.

use crate::frame::FRAME_PREFIX;
use crate::json;
use bytes::{BufMut, Bytes, BytesMut};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// What clients are told of this engine's version: `MQVersion` ordinal of V5_3_3.
/// Source: `apache/rocketmq: common/src/main/java/org/apache/rocketmq/common/MQVersion.java`.
pub const VERSION: i32 = 479;

/// `MQVersion.CURRENT_VERSION` as text, for status tables.
pub const VERSION_TEXT: &str = "V5_3_3";

/// The longest header in bytes that is decoded.
pub const HEADER_MAX: usize = 64 * 1024;

/// The most custom header fields that are decoded.
pub const EXT_FIELDS_MAX: usize = 256;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serialize {
    /// Type 0, one JSON object.
    Json,
    /// Type 1, RocketMQ's binary form.
    RocketMq,
}

/// The sender's language, by its wire number (`LanguageCode.java`); unknown ones are OTHER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Language(pub u8);

const LANGUAGES: [&str; 14] = [
    "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO", "PHP",
    "OMS", "RUST", "NODE_JS",
];

impl Language {
    /// Java clients.
    pub const JAVA: Language = Language(0);
    /// C++ clients, which read some bodies in a form of their own.
    pub const CPP: Language = Language(1);
    /// Whoever is not in the table.
    pub const OTHER: Language = Language(7);
    /// This engine.
    pub const RUST: Language = Language(12);
    /// The name as JSON headers and bodies carry it.
    pub fn name(self) -> &'static str {
        LANGUAGES
            .get(usize::from(self.0))
            .copied()
            .unwrap_or("OTHER")
    }
    /// The language of a name; OTHER when it is unknown.
    pub fn from_name(name: &str) -> Language {
        LANGUAGES
            .iter()
            .zip(0u8..)
            .find(|(n, _)| **n == name)
            .map_or(Language::OTHER, |(_, number)| Language(number))
    }
    fn from_number(number: u8) -> Language {
        if usize::from(number) < LANGUAGES.len() {
            Language(number)
        } else {
            Language::OTHER
        }
    }
}

/// Written by name, as bodies carry it; an unknown name or any number beyond the table reads as OTHER.
impl serde::Serialize for Language {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Language, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let text = text.unwrap_or_default();
        Ok(match text.parse() {
            Ok(number) => Language::from_number(number),
            Err(_) => Language::from_name(&text),
        })
    }
}

/// A command as both ends see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Request code, or response code in an answer.
    pub code: i32,
    /// Sender's language.
    pub language: Language,
    /// Sender's `MQVersion` ordinal.
    pub version: i32,
    /// Ties an answer to its request.
    pub opaque: i32,
    /// Bit 0 answer, bit 1 one-way.
    pub flag: i32,
    /// Error text.
    pub remark: Option<String>,
    /// The custom header.
    pub ext: ExtFields,
    /// What follows the header.
    pub body: Bytes,
    /// How the header is or was written.
    pub serialize: Serialize,
}

/// The custom header: field names and their values as text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExtFields(Vec<(String, String)>);

/// A header that does not hold what its request code needs, or is no header at all.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum HeaderError {
    /// A required field is absent.
    #[error("the header lacks the field {0}")]
    Missing(&'static str),
    /// A field does not parse as its type.
    #[error("the header field {field} is {value:?}, which is not a {kind}")]
    Malformed {
        /// The field's wire name.
        field: &'static str,
        /// What it held.
        value: String,
        /// What was wanted: `i32`, `i64`, `bool`.
        kind: &'static str,
    },
    /// The header bytes are neither of the two forms.
    #[error("the header does not parse: {0}")]
    Unreadable(String),
    /// More bytes than [`HEADER_MAX`].
    #[error("the header is {0} bytes long, at most {HEADER_MAX} are read")]
    TooLong(usize),
    /// More fields than [`EXT_FIELDS_MAX`].
    #[error("the header has more than {EXT_FIELDS_MAX} custom fields")]
    TooManyFields,
}

impl ExtFields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }
    /// The field's text, if it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
    /// A required text field.
    pub fn str(&self, name: &'static str) -> Result<&str, HeaderError> {
        self.get(name).ok_or(HeaderError::Missing(name))
    }
    /// A required 32-bit number.
    pub fn i32(&self, name: &'static str) -> Result<i32, HeaderError> {
        self.opt_i32(name)?.ok_or(HeaderError::Missing(name))
    }
    /// A required 64-bit number.
    pub fn i64(&self, name: &'static str) -> Result<i64, HeaderError> {
        self.opt_i64(name)?.ok_or(HeaderError::Missing(name))
    }
    /// An optional 32-bit number; absent or empty is `None`.
    pub fn opt_i32(&self, name: &'static str) -> Result<Option<i32>, HeaderError> {
        self.parsed(name, "i32")
    }
    /// An optional 64-bit number; absent or empty is `None`.
    pub fn opt_i64(&self, name: &'static str) -> Result<Option<i64>, HeaderError> {
        self.parsed(name, "i64")
    }
    /// An optional flag; absent is `default`. C++ clients write 0 and 1.
    pub fn bool_or(&self, name: &'static str, default: bool) -> Result<bool, HeaderError> {
        match self.get(name) {
            None | Some("") => Ok(default),
            Some(text) => bool_of(text).ok_or_else(|| HeaderError::Malformed {
                field: name,
                value: text.into(),
                kind: "bool",
            }),
        }
    }
    fn parsed<T: std::str::FromStr>(
        &self,
        field: &'static str,
        kind: &'static str,
    ) -> Result<Option<T>, HeaderError> {
        match self.get(field) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| HeaderError::Malformed {
                field,
                value: text.into(),
                kind,
            }),
        }
    }
    /// Sets a field, replacing an earlier value.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.into(), value)),
        }
    }
    /// Sets a field when there is a value.
    pub fn set_some(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }
    /// Builder form of [`ExtFields::set`].
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.set(name, value);
        self
    }
    /// Builder form of [`ExtFields::set_some`].
    pub fn with_some(mut self, name: &str, value: Option<impl ToString>) -> Self {
        self.set_some(name, value);
        self
    }
    /// All fields in the order they came or were set.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    fn insert(&mut self, name: String, value: String) -> Result<(), HeaderError> {
        let count = self.0.len();
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            // The last of several counts, as in Java's map.
            Some((_, old)) => *old = value,
            None if count == EXT_FIELDS_MAX => return Err(HeaderError::TooManyFields),
            None => self.0.push((name, value)),
        }
        Ok(())
    }
}

/// A flag's text as the clients write it.
pub(crate) fn bool_of(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

impl Command {
    /// A request of ours; `opaque` is set by the connection that sends it.
    pub fn request(code: i32, ext: ExtFields) -> Command {
        Command {
            code,
            language: Language::RUST,
            version: VERSION,
            opaque: 0,
            flag: 0,
            remark: None,
            ext,
            body: Bytes::new(),
            serialize: Serialize::Json,
        }
    }
    /// The answer to `self`: same opaque and serialization, answer flag, our version and language (RUST is 12).
    pub fn response(&self, code: i32) -> Command {
        Command {
            opaque: self.opaque,
            flag: 1,
            serialize: self.serialize,
            ..Command::request(code, ExtFields::new())
        }
    }
    /// An answer with an error text.
    pub fn error(&self, code: i32, remark: impl Into<String>) -> Command {
        let mut answer = self.response(code);
        answer.remark = Some(remark.into());
        answer
    }
    /// Builder: sets the body.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Command {
        self.body = body.into();
        self
    }
    /// Builder: sets a header field.
    pub fn with(mut self, name: &str, value: impl ToString) -> Command {
        self.ext.set(name, value);
        self
    }
    /// Builder: sets the remark.
    pub fn with_remark(mut self, remark: impl Into<String>) -> Command {
        self.remark = Some(remark.into());
        self
    }
    /// Whether this is an answer.
    pub fn is_response(&self) -> bool {
        self.flag & 1 != 0
    }
    /// Whether no answer may be sent.
    pub fn is_oneway(&self) -> bool {
        self.flag & 2 != 0
    }
    /// Marks a request one-way.
    pub fn oneway(mut self) -> Command {
        self.flag |= 2;
        self
    }
    /// Parses header bytes of either form.
    ///
    /// # Errors
    /// When they are longer than [`HEADER_MAX`], have more than [`EXT_FIELDS_MAX`] fields, or are not what `serialize` says.
    pub fn decode(
        serialize: Serialize,
        header: &[u8],
        body: Bytes,
    ) -> Result<Command, HeaderError> {
        if header.len() > HEADER_MAX {
            return Err(HeaderError::TooLong(header.len()));
        }
        let mut command = match serialize {
            Serialize::Json => decode_json(header)?,
            Serialize::RocketMq => decode_binary(header)?,
        };
        command.serialize = serialize;
        command.body = body;
        Ok(command)
    }
    /// Appends the whole frame (length, header, body) to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(FRAME_PREFIX + 160 + 32 * self.ext.len() + self.body.len());
        let start = begin_frame(out);
        match self.serialize {
            Serialize::Json => self.encode_json(out),
            Serialize::RocketMq => self.encode_binary(out),
        }
        end_header(out, start, self.serialize, self.body.len());
        out.extend_from_slice(&self.body);
    }
    /// The whole frame as bytes of its own.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }

    fn encode_json(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"code\":");
        json::put_i64(out, i64::from(self.code));
        if !self.ext.is_empty() {
            out.put_slice(b",\"extFields\":{");
            for (at, (name, value)) in self.ext.iter().enumerate() {
                if at > 0 {
                    out.put_u8(b',');
                }
                json::put_str(out, name);
                out.put_u8(b':');
                json::put_str(out, value);
            }
            out.put_u8(b'}');
        }
        out.put_slice(b",\"flag\":");
        json::put_i64(out, i64::from(self.flag));
        out.put_slice(b",\"language\":");
        json::put_str(out, self.language.name());
        out.put_slice(b",\"opaque\":");
        json::put_i64(out, i64::from(self.opaque));
        if let Some(remark) = &self.remark {
            out.put_slice(b",\"remark\":");
            json::put_str(out, remark);
        }
        out.put_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
        json::put_i64(out, i64::from(self.version));
        out.put_u8(b'}');
    }

    fn encode_binary(&self, out: &mut BytesMut) {
        begin_binary(
            out,
            self.code,
            self.language,
            self.version,
            self.opaque,
            self.flag,
        );
        put_text32(out, self.remark.as_deref().unwrap_or_default());
        let ext_at = out.len();
        out.put_u32(0);
        for (name, value) in self.ext.iter() {
            put_binary_field(out, name, value);
        }
        end_binary_ext(out, ext_at);
    }
}

/// Leaves room for a frame's prefix; returns where the frame starts.
pub(crate) fn begin_frame(out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_u64(0);
    start
}

/// Writes the prefix of a frame whose header has just been appended and whose body of `body_len` bytes follows.
pub(crate) fn end_header(out: &mut BytesMut, start: usize, serialize: Serialize, body_len: usize) {
    let header_len = out.len() - start - FRAME_PREFIX;
    let length =
        u32::try_from(4 + header_len + body_len).expect("a frame is far smaller than 4 GiB");
    let header = u32::try_from(header_len).expect("a header is smaller than its frame");
    // 24 bits are there for the header's length; a remark or a field that breaks this is a fault of ours.
    assert!(
        header < 1 << 24,
        "a header of {header} bytes cannot be announced"
    );
    let kind = match serialize {
        Serialize::Json => 0,
        Serialize::RocketMq => 1u32,
    };
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&(kind << 24 | header).to_be_bytes());
}

/// Appends the fixed fields of a binary header.
pub(crate) fn begin_binary(
    out: &mut BytesMut,
    code: i32,
    language: Language,
    version: i32,
    opaque: i32,
    flag: i32,
) {
    // Java writes the low 16 bits of both, whatever they are.
    out.put_i16(code as i16);
    out.put_u8(language.0);
    out.put_i16(version as i16);
    out.put_i32(opaque);
    out.put_i32(flag);
}

/// Appends a text with its 32-bit length; empty means null.
pub(crate) fn put_text32(out: &mut BytesMut, text: &str) {
    out.put_u32(u32::try_from(text.len()).expect("header texts are far smaller than 4 GiB"));
    out.put_slice(text.as_bytes());
}

/// Appends one custom field of a binary header.
pub(crate) fn put_binary_field(out: &mut BytesMut, name: &str, value: &str) {
    out.put_u16(u16::try_from(name.len()).expect("field names are short"));
    out.put_slice(name.as_bytes());
    put_text32(out, value);
}

/// Writes the length of the custom fields that were appended behind the four bytes at `ext_at`.
pub(crate) fn end_binary_ext(out: &mut BytesMut, ext_at: usize) {
    let len = u32::try_from(out.len() - ext_at - 4).expect("a header is far smaller than 4 GiB");
    out[ext_at..ext_at + 4].copy_from_slice(&len.to_be_bytes());
}

/// The request codes beyond 16 bits, as the binary form's signed 16-bit field cuts them: mapped back, which Java does not do.
pub(crate) fn whole_request_code(code: i16) -> i32 {
    match i32::from(code) {
        cut @ (3442..=3448 | 3543) => cut + 0x3_0000,
        code => code,
    }
}

// ---- reading ----

fn decode_json(header: &[u8]) -> Result<Command, HeaderError> {
    let parsed: Header = match serde_json::from_slice(header) {
        Ok(parsed) => parsed,
        // Control characters bare in strings and fastjson's own forms: the tolerant reader takes them.
        Err(strict) => {
            json::from_slice(header).map_err(|_| HeaderError::Unreadable(strict.to_string()))?
        }
    };
    if parsed.too_many {
        return Err(HeaderError::TooManyFields);
    }
    Ok(parsed.command)
}

struct Header {
    command: Command,
    too_many: bool,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a header object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header {
            command: Command {
                language: Language::OTHER,
                version: 0,
                ..Command::request(0, ExtFields::new())
            },
            too_many: false,
        };
        let command = &mut header.command;
        while let Some(Text(key)) = map.next_key()? {
            match key.as_deref() {
                Some("code") => command.code = map.next_value::<Number>()?.0,
                Some("version") => command.version = map.next_value::<Number>()?.0,
                Some("opaque") => command.opaque = map.next_value::<Number>()?.0,
                Some("flag") => command.flag = map.next_value::<Number>()?.0,
                Some("language") => {
                    let Text(name) = map.next_value()?;
                    command.language = Language::from_name(name.as_deref().unwrap_or_default());
                }
                Some("remark") => command.remark = map.next_value::<Text>()?.0,
                Some("extFields") => {
                    let fields: Option<Fields> = map.next_value()?;
                    if let Some(fields) = fields {
                        command.ext = fields.ext;
                        header.too_many = fields.too_many;
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(header)
    }
}

struct Fields {
    ext: ExtFields,
    too_many: bool,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of header fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut ext = ExtFields::new();
                let mut too_many = false;
                while let Some((Text(name), Text(value))) = map.next_entry()? {
                    if let (Some(name), Some(value)) = (name, value) {
                        too_many |= ext.insert(name, value).is_err();
                    }
                }
                Ok(Fields { ext, too_many })
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// A value taken as text, as fastjson coerces it: numbers and flags by their text, null as none.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Ok(Text(match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }))
    }
}

/// A value taken as a 32-bit number, as fastjson coerces it: texts are parsed, null is 0.
struct Number(i32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        use serde::de::Error;
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = match &value {
            serde_json::Value::Null => Some(0),
            serde_json::Value::Number(number) => {
                number.as_i64().and_then(|n| i32::try_from(n).ok())
            }
            serde_json::Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .map(Number)
            .ok_or_else(|| D::Error::custom(format!("{value} is not a 32-bit number")))
    }
}

/// A cursor over a binary header.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[b]| b)
    }
    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }
    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }
    /// A text behind its 32-bit length.
    pub(crate) fn text32(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.i32()?).ok()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
    /// A text behind its 16-bit length.
    pub(crate) fn text16(&mut self) -> Option<&'a str> {
        let len = usize::try_from(self.i16()?).ok()?;
        std::str::from_utf8(self.take(len)?).ok()
    }
}

fn decode_binary(header: &[u8]) -> Result<Command, HeaderError> {
    let len = header.len();
    let bad =
        |what: &str| HeaderError::Unreadable(format!("{what} in a binary header of {len} bytes"));
    let mut at = Cursor(header);
    let fixed = (|| Some((at.i16()?, at.u8()?, at.i16()?, at.i32()?, at.i32()?)))();
    let (code, language, version, opaque, flag) =
        fixed.ok_or_else(|| bad("the fixed fields are cut off"))?;
    let remark = at
        .text32()
        .ok_or_else(|| bad("the remark does not fit or is not UTF-8"))?;
    let ext_len = at
        .i32()
        .ok_or_else(|| bad("the length of the custom fields is cut off"))?;
    let ext_len =
        usize::try_from(ext_len).map_err(|_| bad("the length of the custom fields is negative"))?;
    let mut entries = Cursor(
        at.take(ext_len)
            .ok_or_else(|| bad("the custom fields are cut off"))?,
    );
    let mut ext = ExtFields::new();
    while !entries.0.is_empty() {
        let name = entries
            .text16()
            .ok_or_else(|| bad("a field's name does not fit or is not UTF-8"))?;
        let value = entries
            .text32()
            .ok_or_else(|| bad("a field's value does not fit or is not UTF-8"))?;
        // A length of 0 is null in this form.
        if !value.is_empty() {
            ext.insert(name.into(), value.into())?;
        }
    }
    Ok(Command {
        code: if flag & 1 == 0 {
            whole_request_code(code)
        } else {
            i32::from(code)
        },
        language: Language::from_number(language),
        version: i32::from(version),
        opaque,
        flag,
        remark: (!remark.is_empty()).then(|| remark.into()),
        ext,
        body: Bytes::new(),
        serialize: Serialize::RocketMq,
    })
}

#[cfg(test)]
mod tests;
