//! Java's `String.hashCode`, which tag codes and index keys are made of.

/// Hash over the UTF-16 code units, wrapping at 32 bits.
pub fn java_string(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |h, unit| {
        h.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
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
            ("é", 233),
            ("😀", 1_772_899),
        ] {
            assert_eq!(java_string(text), hash, "{text}");
        }
    }
}
