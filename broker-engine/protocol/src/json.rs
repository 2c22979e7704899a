//! fastjson's dialect: maps with bare integer keys and with objects as keys.
//! Source: `apache/rocketmq: remoting/.../protocol/RemotingSerializable.java` (fastjson 1.2 with its defaults).
//!
//! [`to_standard`] rewrites such text so that serde_json reads it: bare keys are quoted, object keys become strings
//! holding the object's compact JSON, members that are null are left out (so that a missing and a null member read alike).
//! [`to_fastjson`] writes the dialect; a key type that is an object in Java serializes itself with [`serialize_object_key`].

use crate::swar::next_mark;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};
use std::io;

/// Text that is no JSON even in fastjson's dialect.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("not JSON at byte {at}: {what}")]
#[allow(missing_docs)]
pub struct JsonError {
    pub at: usize,
    pub what: String,
}

/// How deep objects and arrays may lie in one another; no body of RocketMQ's comes near.
const DEPTH_MAX: usize = 64;
/// How deep objects as keys may lie in one another: each level doubles the escapes of the one inside.
const KEY_DEPTH_MAX: usize = 4;

/// Rewrites fastjson text as standard JSON.
pub fn to_standard(text: &[u8]) -> Result<String, JsonError> {
    let mut rewriter = Rewriter {
        text,
        at: 0,
        out: Vec::with_capacity(text.len() + text.len() / 8),
    };
    rewriter.value(0, 0)?;
    rewriter.space();
    if rewriter.at < text.len() {
        return Err(rewriter.error("more text follows the value"));
    }
    String::from_utf8(rewriter.out).map_err(|e| JsonError {
        at: e.utf8_error().valid_up_to(),
        what: "it is not UTF-8 text".into(),
    })
}

/// Reads a value from fastjson text.
pub fn from_slice<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, JsonError> {
    let standard = to_standard(text)?;
    serde_json::from_str(&standard).map_err(|e| JsonError {
        at: e.column().saturating_sub(1),
        what: e.to_string(),
    })
}

struct Rewriter<'a> {
    text: &'a [u8],
    at: usize,
    out: Vec<u8>,
}

impl<'a> Rewriter<'a> {
    fn error(&self, what: &str) -> JsonError {
        JsonError {
            at: self.at,
            what: what.into(),
        }
    }
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }
    fn value(&mut self, depth: usize, key_depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return Err(self.error("objects and arrays lie too deep in one another"));
        }
        self.space();
        match self.peek() {
            None => Err(self.error("a value is missing at the end")),
            Some(b'{') => self.object(depth, key_depth),
            Some(b'[') => self.array(depth, key_depth),
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(_) => match self.word() {
                // fastjson's words for what JSON cannot say.
                b"NaN" | b"Infinity" | b"-Infinity" | b"undefined" => {
                    self.out.extend_from_slice(b"null");
                    Ok(())
                }
                word if matches!(word, b"true" | b"false" | b"null")
                    || word
                        .iter()
                        .all(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                        && !word.is_empty() =>
                {
                    self.out.extend_from_slice(word);
                    Ok(())
                }
                _ => Err(self.error("neither a value nor the end")),
            },
        }
    }
    /// What stands up to the next mark or space.
    fn word(&mut self) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let len = rest
            .iter()
            .position(|b| {
                b.is_ascii_whitespace()
                    || matches!(b, b',' | b':' | b'{' | b'}' | b'[' | b']' | b'"' | b'\'')
            })
            .unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }
    fn array(&mut self, depth: usize, key_depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.out.push(b'[');
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            self.out.push(b']');
            return Ok(());
        }
        loop {
            self.value(depth + 1, key_depth)?;
            self.space();
            match self.peek() {
                Some(b',') => self.out.push(b','),
                Some(b']') => {
                    self.at += 1;
                    self.out.push(b']');
                    return Ok(());
                }
                _ => return Err(self.error("neither a comma nor the array's end")),
            }
            self.at += 1;
        }
    }
    fn object(&mut self, depth: usize, key_depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.out.push(b'{');
        let first = self.out.len();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            self.out.push(b'}');
            return Ok(());
        }
        loop {
            let member = self.out.len();
            if member > first {
                self.out.push(b',');
            }
            self.key(depth, key_depth)?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error("a key without a colon behind it"));
            }
            self.at += 1;
            self.out.push(b':');
            let value = self.out.len();
            self.value(depth + 1, key_depth)?;
            if &self.out[value..] == b"null" {
                self.out.truncate(member);
            }
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    self.out.push(b'}');
                    return Ok(());
                }
                _ => return Err(self.error("neither a comma nor the object's end")),
            }
        }
    }
    fn key(&mut self, depth: usize, key_depth: usize) -> Result<(), JsonError> {
        self.space();
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => self.string(quote),
            Some(b'{') => {
                if key_depth == KEY_DEPTH_MAX {
                    return Err(self.error("objects as keys lie too deep in one another"));
                }
                let start = self.out.len();
                self.object(depth + 1, key_depth + 1)?;
                let object = self.out.split_off(start);
                put_escaped(&mut self.out, &object);
                Ok(())
            }
            _ => {
                let word = self.word();
                if word.is_empty() {
                    return Err(self.error("a key is missing"));
                }
                put_escaped(&mut self.out, word);
                Ok(())
            }
        }
    }
    fn string(&mut self, quote: u8) -> Result<(), JsonError> {
        self.at += 1;
        self.out.push(b'"');
        loop {
            let Some(byte) = self.peek() else {
                return Err(self.error("a text without its end"));
            };
            self.at += 1;
            match byte {
                b if b == quote => {
                    self.out.push(b'"');
                    return Ok(());
                }
                b'"' => self.out.extend_from_slice(b"\\\""),
                b'\\' => self.escape()?,
                control @ 0..0x20 => put_control(&mut self.out, control),
                other => self.out.push(other),
            }
        }
    }
    /// One escape of fastjson's, of which JSON knows most.
    fn escape(&mut self) -> Result<(), JsonError> {
        let Some(byte) = self.peek() else {
            return Err(self.error("a text without its end"));
        };
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u' => {
                self.out.extend_from_slice(&[b'\\', byte])
            }
            b'\'' => self.out.push(b'\''),
            b'v' => put_control(&mut self.out, 0x0B),
            b'0'..=b'7' => put_control(&mut self.out, byte - b'0'),
            _ => return Err(self.error("an unknown escape")),
        }
        Ok(())
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn put_control(out: &mut Vec<u8>, byte: u8) {
    out.extend_from_slice(&[
        b'\\',
        b'u',
        b'0',
        b'0',
        HEX[usize::from(byte >> 4)],
        HEX[usize::from(byte & 15)],
    ]);
}

fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            control @ 0..0x20 => put_control(out, control),
            other => out.push(other),
        }
    }
    out.push(b'"');
}

// ---- writing ----

/// Stands before the text of a key that is to be written as a bare object.
const OBJECT_KEY_MARK: char = '\u{1f}';

/// Serializes a map key that is an object in Java: [`to_fastjson`] writes it bare. What serde_json itself would write of it is of
/// no use to anybody.
pub fn serialize_object_key<T: Serialize, S: serde::Serializer>(
    key: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let object = serde_json::to_string(key).map_err(serde::ser::Error::custom)?;
    serializer.collect_str(&format_args!("{OBJECT_KEY_MARK}{object}"))
}

/// Writes fastjson's dialect: integer keys bare, object keys as objects, no spaces.
pub fn to_fastjson<T: Serialize>(value: &T) -> String {
    write_with(value, CompactFormatter)
}

/// Like [`to_fastjson`], on several lines with tabs, as the files under `config/` are written.
pub fn to_fastjson_pretty<T: Serialize>(value: &T) -> String {
    write_with(value, serde_json::ser::PrettyFormatter::with_indent(b"\t"))
}

/// Writes standard JSON with all that is not ASCII as `\uXXXX`, integer keys quoted: what fastjson calls `BrowserCompatible`,
/// the form of route data for clients that ask for standard JSON.
pub fn to_browser<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value)
        .expect("bodies are made of text, numbers and maps with such keys");
    if text.is_ascii() {
        return text;
    }
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04X}"));
            }
        }
    }
    out
}

fn write_with<T: Serialize, F: Formatter>(value: &T, inner: F) -> String {
    let mut out = Vec::with_capacity(256);
    let formatter = Fastjson {
        inner,
        key: Key::None,
    };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    value
        .serialize(&mut serializer)
        .expect("bodies are made of text, numbers and maps with such keys");
    String::from_utf8(out).expect("serde_json writes UTF-8")
}

/// Where in an object's key the writer is.
#[derive(Clone, Copy, PartialEq)]
enum Key {
    /// In no key.
    None,
    /// At its start: nothing of it is written, not even the quote.
    Start,
    /// In a text: quoted.
    Text,
    /// In a number or an object: no quotes, nothing escaped.
    Bare,
}

/// A serde_json formatter that writes keys as fastjson does.
struct Fastjson<F> {
    inner: F,
    key: Key,
}

impl<F: Formatter> Fastjson<F> {
    fn text<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == Key::Start {
            self.key = Key::Text;
            self.inner.begin_string(writer)?;
        }
        Ok(())
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W $(, $arg: $kind)*) -> io::Result<()> {
            self.inner.$name(writer $(, $arg)*)
        })*
    };
}
macro_rules! number {
    ($($name:ident($kind:ty);)*) => {
        $(fn $name<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: $kind) -> io::Result<()> {
            if self.key == Key::Start {
                self.key = Key::Bare;
            }
            self.inner.$name(writer, value)
        })*
    };
}

impl<F: Formatter> Formatter for Fastjson<F> {
    number! {
        write_i8(i8); write_i16(i16); write_i32(i32); write_i64(i64);
        write_u8(u8); write_u16(u16); write_u32(u32); write_u64(u64);
    }
    forward! {
        begin_array(); end_array(); begin_array_value(first: bool); end_array_value();
        begin_object(); end_object(); begin_object_value(); end_object_value();
    }
    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.inner.begin_object_key(writer, first)?;
        self.key = Key::Start;
        Ok(())
    }
    fn end_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.key = Key::None;
        self.inner.end_object_key(writer)
    }
    fn begin_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        if self.key == Key::None {
            self.inner.begin_string(writer)?;
        }
        Ok(())
    }
    fn end_string<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        // An empty text as key has brought nothing yet.
        self.text(writer)?;
        if self.key != Key::Bare {
            self.inner.end_string(writer)?;
        }
        Ok(())
    }
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        self.text(writer)?;
        self.inner.write_string_fragment(writer, fragment)
    }
    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        if let (Key::Start, CharEscape::AsciiControl(0x1f)) = (self.key, &escape) {
            self.key = Key::Bare;
            return Ok(());
        }
        self.text(writer)?;
        if self.key != Key::Bare {
            return self.inner.write_char_escape(writer, escape);
        }
        // The text is JSON already: what serde_json wants to escape is what has to stand there.
        let byte = match escape {
            CharEscape::Quote => b'"',
            CharEscape::ReverseSolidus => b'\\',
            CharEscape::Solidus => b'/',
            // Inside JSON text a control character only stands escaped, so that none comes here.
            other => return self.inner.write_char_escape(writer, other),
        };
        writer.write_all(&[byte])
    }
}

/// Appends a number in decimal.
pub(crate) fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a quoted text, escaped as fastjson does.
pub(crate) fn put_str(out: &mut BytesMut, text: &str) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    while let Some(at) = next_mark(bytes, plain) {
        out.put_slice(&bytes[plain..at]);
        plain = at + 1;
        match bytes[at] {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            byte => out.put_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.put_slice(&bytes[plain..]);
    out.put_u8(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn check(fastjson: &str, standard: &str) {
        assert_eq!(
            to_standard(fastjson.as_bytes()).as_deref(),
            Ok(standard),
            "{fastjson}"
        );
    }

    #[test]
    fn bare_keys_are_quoted_and_object_keys_become_text() {
        check(
            r#"{"brokerAddrs":{0:"a:1",1:"b:2"}}"#,
            r#"{"brokerAddrs":{"0":"a:1","1":"b:2"}}"#,
        );
        check(
            r#"{"offsetTable":{{"brokerName":"a","queueId":0}:{"brokerOffset":7},{"queueId":1}:2}}"#,
            r#"{"offsetTable":{"{\"brokerName\":\"a\",\"queueId\":0}":{"brokerOffset":7},"{\"queueId\":1}":2}}"#,
        );
        check(
            "{ code : 1 , 'a' : 'it\\'s \"x\"' , -5:[ ] }",
            r#"{"code":1,"a":"it's \"x\"","-5":[]}"#,
        );
        check(" [1, -2.5e3 ,true,null,NaN]\n", "[1,-2.5e3,true,null,null]");
        check("\"a\u{1}b\\u0002\\v\"", "\"a\\u0001b\\u0002\\u000b\"");
    }

    #[test]
    fn members_that_are_null_are_left_out() {
        check(
            r#"{"a":null,"b":1,"c":null,"d":{"e":null},"f":null}"#,
            r#"{"b":1,"d":{}}"#,
        );
    }

    #[test]
    fn text_that_is_no_json_is_refused_with_the_place() {
        for (text, at, what) in [
            ("", 0, "a value is missing at the end"),
            ("{\"a\"", 4, "a key without a colon behind it"),
            ("{\"a\":1", 6, "neither a comma nor the object's end"),
            ("[1 2]", 3, "neither a comma nor the array's end"),
            ("{,}", 1, "a key is missing"),
            ("nope", 4, "neither a value nor the end"),
            ("1 1", 2, "more text follows the value"),
            ("\"abc", 4, "a text without its end"),
            ("\"\\q\"", 3, "an unknown escape"),
        ] {
            assert_eq!(
                to_standard(text.as_bytes()),
                Err(JsonError {
                    at,
                    what: what.into()
                }),
                "{text}"
            );
        }
        let deep = "[".repeat(200);
        assert_eq!(to_standard(deep.as_bytes()).unwrap_err().at, 65);
        let deep = "{".repeat(200);
        assert_eq!(
            to_standard(deep.as_bytes()).unwrap_err().what,
            "objects as keys lie too deep in one another"
        );
    }

    #[test]
    fn a_text_cut_at_any_byte_is_an_error() {
        let whole = br#"{"a":{{"b":"\u0001"}:[1,true]}}"#;
        assert!(to_standard(whole).is_ok());
        for n in 0..whole.len() {
            assert!(to_standard(&whole[..n]).is_err(), "{n}");
        }
    }

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct ObjectKey(BTreeMap<String, String>);
    impl Serialize for ObjectKey {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serialize_object_key(&self.0, serializer)
        }
    }

    #[test]
    fn keys_are_written_as_fastjson_writes_them() {
        let object = |value: &str| ObjectKey(BTreeMap::from([("b".into(), value.into())]));
        let table = BTreeMap::from([(object("x\"y\\\n"), BTreeMap::from([(-1i32, "a"), (0, "")]))]);
        let text = to_fastjson(&BTreeMap::from([("", table)]));
        assert_eq!(text, r#"{"":{{"b":"x\"y\\\n"}:{-1:"a",0:""}}}"#);
        assert_eq!(
            to_standard(text.as_bytes()).as_deref(),
            Ok(r#"{"":{"{\"b\":\"x\\\"y\\\\\\n\"}":{"-1":"a","0":""}}}"#)
        );
        assert_eq!(
            to_fastjson_pretty(&BTreeMap::from([(1, 2)])),
            "{\n\t1: 2\n}"
        );
        assert_eq!(
            to_browser(&BTreeMap::from([(1, "é😀")])),
            r#"{"1":"\u00E9\uD83D\uDE00"}"#
        );
    }

    #[test]
    fn numbers_and_texts_are_appended_as_json() {
        let mut out = BytesMut::new();
        for value in [0, -7, i64::MIN, i64::MAX] {
            put_i64(&mut out, value);
            out.put_u8(b' ');
        }
        put_str(&mut out, "a\"\\\n\u{1}\u{1f}é");
        assert_eq!(
            out,
            "0 -7 -9223372036854775808 9223372036854775807 \"a\\\"\\\\\\n\\u0001\\u001fé\""
                .as_bytes()
        );
    }
}
