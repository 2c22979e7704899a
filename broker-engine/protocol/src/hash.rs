//! Java's `String.hashCode`, which tag codes and index keys are made of.

/// Hash over the UTF-16 code units, wrapping at 32 bits.
pub fn java_string(text: &str) -> i32 {
    java_string_on(0, text)
}

/// The hash of a text that begins with one whose hash is `start` and goes on with `text`.
pub fn java_string_on(start: i32, text: &str) -> i32 {
    let step = |hash: i32, unit: i32| hash.wrapping_mul(31).wrapping_add(unit);
    if !text.is_ascii() {
        let units = text.encode_utf16();
        return units.fold(start, |hash, unit| step(hash, i32::from(unit)));
    }
    // Four at a time: one multiplication waits for the last, and keys are what most of a hash is made of.
    const POWERS: [i32; 4] = [31 * 31 * 31, 31 * 31, 31, 1];
    let (fours, rest) = text.as_bytes().as_chunks::<4>();
    let hash = fours.iter().fold(start, |hash, four| {
        let terms = four.iter().zip(POWERS);
        let sum = terms.map(|(&byte, power)| i32::from(byte) * power).sum();
        hash.wrapping_mul(31 * 31 * 31 * 31).wrapping_add(sum)
    });
    rest.iter()
        .fold(hash, |hash, &byte| step(hash, i32::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::java_string;

    #[test]
    fn texts_hash_as_in_java() {
        // "TagA".hashCode() and so on, as a JVM prints them; the last has a surrogate pair.
        for (text, hash) in [
            ("", 0),
            ("TagA", 2_598_919),
            ("polygenelubricants", i32::MIN),
            ("7F0000010E8C1B2844C02A6D5F330000", 922_748_866),
            ("é", 233),
            ("😀", 1_772_899),
        ] {
            assert_eq!(java_string(text), hash, "{text}");
        }
    }
}
