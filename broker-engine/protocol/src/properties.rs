//! The message property string: `name 0x01 value 0x02 …`.
//! Source: `apache/rocketmq: common/.../message/MessageDecoder.java`, `MessageConst.java`.

use crate::swar::place_of;

/// Reserved property names.
#[allow(missing_docs)]
pub mod name {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT: &str = "WAIT";
    pub const DELAY: &str = "DELAY";
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QID: &str = "REAL_QID";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const TRAN_MSG: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const PGROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_ON: &str = "TRACE_ON";
    pub const CLUSTER: &str = "CLUSTER";
    pub const CONSUME_START_TIME: &str = "CONSUME_START_TIME";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const INNER_BASE: &str = "INNER_BASE";
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    pub const INNER_MULTI_QUEUE_OFFSET: &str = "INNER_MULTI_QUEUE_OFFSET";
    pub const CHECK_IMMUNITY_TIME_IN_SECONDS: &str = "CHECK_IMMUNITY_TIME_IN_SECONDS";
    pub const TRAN_PREPARED_QUEUE_OFFSET: &str = "TRAN_PREPARED_QUEUE_OFFSET";
    pub const TRANSACTION_ID: &str = "__transactionId__";
    pub const TRANSACTION_CHECK_TIMES: &str = "TRANSACTION_CHECK_TIMES";
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    pub const CORRELATION_ID: &str = "CORRELATION_ID";
    pub const TTL: &str = "TTL";
    pub const ARRIVE_TIME: &str = "ARRIVE_TIME";
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    pub const MSG_TYPE: &str = "MSG_TYPE";
    pub const POP_CK: &str = "POP_CK";
    pub const FIRST_POP_TIME: &str = "1ST_POP_TIME";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
    pub const TIMER_ENQUEUE_MS: &str = "TIMER_ENQUEUE_MS";
    pub const TIMER_DEQUEUE_MS: &str = "TIMER_DEQUEUE_MS";
    pub const TIMER_ROLL_TIMES: &str = "TIMER_ROLL_TIMES";
    pub const TIMER_DEL_UNIQKEY: &str = "TIMER_DEL_UNIQKEY";
    pub const BORN_TIMESTAMP: &str = "BORN_TIMESTAMP";
    pub const BORN_HOST: &str = "__BORNHOST";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    pub const CRC32: &str = "__CRC32#";
}

/// Between a name and its value.
pub const NAME_VALUE_SEPARATOR: char = '\u{1}';
/// After each pair.
pub const PROPERTY_SEPARATOR: char = '\u{2}';
/// The longest property string in bytes: its length is a signed 16-bit number in a record.
pub const LEN_MAX: usize = i16::MAX as usize;

/// The pairs in their order; pairs shorter than three characters or with an empty value are passed over, as Java does.
pub fn pairs(text: &str) -> Pairs<'_> {
    Pairs {
        text,
        start: 0,
        at: 0,
    }
}

/// Walks a property string; see [`pairs`].
#[derive(Clone, Debug)]
pub struct Pairs<'a> {
    text: &'a str,
    /// Where the last pair begins, and where the next is looked for.
    start: usize,
    at: usize,
}

impl Pairs<'_> {
    /// Where the last pair stands, with the separator behind it if there is one.
    pub fn span(&self) -> std::ops::Range<usize> {
        self.start..self.at
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let bytes = self.text.as_bytes();
        while self.at < bytes.len() {
            let start = self.at;
            let name_end = place_of(bytes, start, [1, 2]);
            if bytes.get(name_end) != Some(&1) {
                self.at = name_end + 1;
                continue;
            }
            let end = place_of(bytes, name_end + 1, [2, 2]);
            self.at = (end + 1).min(bytes.len());
            if name_end > start && end > name_end + 1 {
                self.start = start;
                return Some((&self.text[start..name_end], &self.text[name_end + 1..end]));
            }
        }
        None
    }
}

/// One property's value. Of several with one name the last counts, as in Java's map.
pub fn get<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    pairs(text)
        .filter(|(n, _)| *n == name)
        .last()
        .map(|(_, v)| v)
}

/// The keys of a message: the pieces of KEYS between spaces.
pub fn keys(text: &str) -> impl Iterator<Item = &str> {
    get(text, name::KEYS)
        .unwrap_or_default()
        .split(' ')
        .filter(|key| !key.is_empty())
}

/// Appends one pair to a property string; an empty value appends nothing, since no reader would see it.
pub fn push(out: &mut String, name: &str, value: &str) {
    if name.is_empty() || value.is_empty() {
        return;
    }
    // A string from a client may lack the last separator.
    if !out.is_empty() && !out.ends_with(PROPERTY_SEPARATOR) {
        out.push(PROPERTY_SEPARATOR);
    }
    out.push_str(name);
    out.push(NAME_VALUE_SEPARATOR);
    out.push_str(value);
    out.push(PROPERTY_SEPARATOR);
}

/// The same string with the given properties set (replaced in place or appended) and others removed.
/// A name that stood there more than once stands there once afterwards. A name both set and removed is set.
pub fn edit(text: &str, set: &[(&str, &str)], remove: &[&str]) -> String {
    let added: usize = set.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
    let mut out = String::with_capacity(text.len() + added + 1);
    let mut done = 0u64;
    debug_assert!(set.len() <= 64, "edit sets at most 64 properties at once");
    for (name, value) in pairs(text) {
        match set.iter().position(|(n, _)| *n == name) {
            Some(at) if done & (1 << at) == 0 => {
                done |= 1 << at;
                push(&mut out, name, set[at].1);
            }
            Some(_) => {}
            None if remove.contains(&name) => {}
            None => push(&mut out, name, value),
        }
    }
    for (at, (name, value)) in set.iter().enumerate() {
        if done & (1 << at) == 0 {
            push(&mut out, name, value);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "TAGS\u{1}A\u{2}KEYS\u{1}k1 k2\u{2}WAIT\u{1}true\u{2}";

    #[test]
    fn pairs_come_in_order_with_or_without_the_last_separator() {
        let want = vec![("TAGS", "A"), ("KEYS", "k1 k2"), ("WAIT", "true")];
        assert_eq!(pairs(TEXT).collect::<Vec<_>>(), want);
        assert_eq!(
            pairs(TEXT.strip_suffix('\u{2}').unwrap()).collect::<Vec<_>>(),
            want
        );
        assert_eq!(keys(TEXT).collect::<Vec<_>>(), ["k1", "k2"]);
    }

    #[test]
    fn what_java_passes_over_is_passed_over() {
        let text = "a\u{1}\u{2}\u{1}b\u{2}noseparator\u{2}\u{2}c\u{1}d\u{1}e\u{2}c\u{1}last\u{2}";
        assert_eq!(
            pairs(text).collect::<Vec<_>>(),
            [("c", "d\u{1}e"), ("c", "last")]
        );
        assert_eq!(get(text, "c"), Some("last"));
        assert_eq!(get("", "c"), None);
    }

    proptest::proptest! {
        #[test]
        fn pairs_are_the_pieces_between_the_separators(text in "[a-c\u{1}\u{2}é]{0,40}") {
            let pieces = text.split(PROPERTY_SEPARATOR).filter_map(|pair| pair.split_once(NAME_VALUE_SEPARATOR));
            let want: Vec<_> = pieces.filter(|(name, value)| !name.is_empty() && !value.is_empty()).collect();
            proptest::prop_assert_eq!(pairs(&text).collect::<Vec<_>>(), want);
            let mut walk = pairs(&text);
            while let Some(pair) = walk.next() {
                proptest::prop_assert_eq!(pairs(&text[walk.span()]).collect::<Vec<_>>(), [pair]);
            }
        }
    }

    #[test]
    fn editing_replaces_in_place_appends_and_removes() {
        assert_eq!(
            edit(TEXT, &[("KEYS", "k3"), ("DELAY", "3")], &["WAIT", "absent"]),
            "TAGS\u{1}A\u{2}KEYS\u{1}k3\u{2}DELAY\u{1}3\u{2}"
        );
        assert_eq!(
            edit("a\u{1}b", &[("c", "d")], &[]),
            "a\u{1}b\u{2}c\u{1}d\u{2}"
        );
        assert_eq!(
            edit("a\u{1}b\u{2}a\u{1}c\u{2}", &[("a", "x")], &["a"]),
            "a\u{1}x\u{2}"
        );
        assert_eq!(edit("", &[], &[]), "");
    }
}
