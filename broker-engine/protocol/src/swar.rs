//! Searches for single bytes, eight at a time. What is searched here is a few bytes long: keys, values, pieces between escapes;
//! a call of a library's search would cost more than it finds.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The high bit of every zero byte up to the first; above it others may show too, since a subtraction borrows upwards.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// How many bytes stand before the lowest that shows; 8 when none does.
#[inline]
fn before(found: u64) -> usize {
    (found.trailing_zeros() / 8) as usize
}

/// How many bytes of the word stand before the first quote, backslash or control character; 8 when there is none.
#[inline]
pub(crate) fn before_mark(word: [u8; 8]) -> usize {
    let word = u64::from_le_bytes(word);
    let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    before(
        zeros(word ^ (ONES * u64::from(b'"')))
            | zeros(word ^ (ONES * u64::from(b'\\')))
            | below_space,
    )
}

/// Whether a JSON text must escape it: a quote, a backslash or a control character.
#[inline]
pub(crate) fn is_mark(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The place of the first quote, backslash or control character from `at` on.
#[inline]
pub(crate) fn next_mark(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let plain = before_mark(*word);
        at += plain;
        if plain < 8 {
            return Some(at);
        }
    }
    let rest = bytes.get(at..)?;
    let mark = rest.iter().position(|&byte| is_mark(byte))?;
    Some(at + mark)
}

/// The place of the first of two bytes from `at` on, or the end.
#[inline]
pub(crate) fn place_of(bytes: &[u8], mut at: usize, wanted: [u8; 2]) -> usize {
    let [one, other] = wanted.map(|byte| ONES * u64::from(byte));
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let found = before(zeros(word ^ one) | zeros(word ^ other));
        at += found;
        if found < 8 {
            return at;
        }
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let found = rest.iter().position(|byte| wanted.contains(byte));
    at + found.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_found_is_the_first(bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(1), Just(2), Just(b'"'), Just(0x21)], 0..40), at in 0usize..44) {
            let behind = |wanted: &dyn Fn(u8) -> bool| (at..bytes.len()).find(|&place| wanted(bytes[place]));
            prop_assert_eq!(next_mark(&bytes, at), behind(&is_mark));
            let found = behind(&|byte| byte == 1 || byte == 2);
            prop_assert_eq!(place_of(&bytes, at, [1, 2]), found.unwrap_or(bytes.len().max(at)));
        }
    }
}
