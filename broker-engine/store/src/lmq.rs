//! Light message queues: a message with INNER_MULTI_DISPATCH stands in further queues, `%LMQ%…` number 0, besides its own. Its
//! place in each is written into its properties, so that slaves and recovery give it the same.
//! Source: `apache/rocketmq: store/.../{LmqDispatch,ConsumeQueue}.java`.

use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::topic;

/// The one queue of each.
pub const QUEUE: i32 = 0;
/// Between names and between offsets (`MixAll.LMQ_DISPATCH_SEPARATOR`).
const SEPARATOR: char = ',';
/// Digits of an offset: room for every one, filled when the log assigns it. Java reads leading zeros as we do.
pub const DIGITS: usize = 19;

/// The queues a message asks for.
pub fn names(properties: &str) -> impl Iterator<Item = &str> {
    properties::get(properties, name::INNER_MULTI_DISPATCH)
        .unwrap_or_default()
        .split(SEPARATOR)
        .filter(|queue| !queue.is_empty())
}

/// The value of INNER_MULTI_QUEUE_OFFSET before the offsets are known.
pub fn room(queues: usize) -> String {
    vec!["0".repeat(DIGITS); queues].join(&SEPARATOR.to_string())
}

/// The queues a stored message stands in, and its offset in each. What is no light queue, or has no offset, is passed over.
pub fn offsets(properties: &str) -> impl Iterator<Item = (&str, i64)> {
    let offsets = properties::get(properties, name::INNER_MULTI_QUEUE_OFFSET).unwrap_or_default();
    let queues = properties::get(properties, name::INNER_MULTI_DISPATCH).unwrap_or_default();
    queues
        .split(SEPARATOR)
        .zip(offsets.split(SEPARATOR))
        .filter(|(queue, _)| topic::is_lmq(queue))
        .filter_map(|(queue, offset)| Some((queue, offset.parse().ok()?)))
}

/// Where, counted from the properties' start, the digits of each queue's offset stand.
pub(crate) fn places(properties: &str) -> Vec<(&str, usize)> {
    let Some(offsets) = properties::get(properties, name::INNER_MULTI_QUEUE_OFFSET) else {
        return Vec::new();
    };
    let begin = offsets.as_ptr() as usize - properties.as_ptr() as usize;
    names(properties)
        .enumerate()
        .map(|(number, queue)| (queue, begin + number * (DIGITS + 1)))
        .filter(|(_, at)| at + DIGITS <= begin + offsets.len())
        .collect()
}

/// An offset in [`DIGITS`] digits.
pub(crate) fn digits(offset: i64) -> String {
    format!("{offset:0DIGITS$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_where_they_are_read() {
        let mut text = String::new();
        properties::push(&mut text, name::INNER_MULTI_DISPATCH, "%LMQ%a,%LMQ%b");
        properties::push(&mut text, name::INNER_MULTI_QUEUE_OFFSET, &room(2));
        properties::push(&mut text, name::TAGS, "A");
        let places: Vec<(String, usize)> = places(&text)
            .into_iter()
            .map(|(queue, at)| (queue.to_owned(), at))
            .collect();
        for ((_, at), offset) in places.iter().zip([7, i64::MAX]) {
            text.replace_range(*at..at + DIGITS, &digits(offset));
        }
        let read: Vec<_> = offsets(&text).collect();
        assert_eq!(read, [("%LMQ%a", 7), ("%LMQ%b", i64::MAX)]);
        assert_eq!(properties::get(&text, name::TAGS), Some("A"));
    }

    #[test]
    fn what_does_not_fit_is_passed_over() {
        let mut text = String::new();
        properties::push(&mut text, name::INNER_MULTI_DISPATCH, "%LMQ%a,other,%LMQ%b");
        properties::push(&mut text, name::INNER_MULTI_QUEUE_OFFSET, "3,4,x");
        assert_eq!(offsets(&text).collect::<Vec<_>>(), [("%LMQ%a", 3)]);
        assert!(places(&text).is_empty(), "no room for digits");
        assert!(places("").is_empty());
    }
}
