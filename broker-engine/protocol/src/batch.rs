//! The body of SEND_BATCH_MESSAGE: a run of small messages
//! `i32 totalSize | i32 magic 0 | i32 bodyCrc 0 | i32 flag | i32 bodyLen | body | i16 propertiesLen | properties`.
//! Source: `apache/rocketmq: common/.../message/MessageDecoder.java` encodeMessage, decodeMessage.

/// One message of a batch body.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct BatchEntry<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a str,
}

/// A batch body that does not hold together.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("batch entry {index} at byte {at} is malformed: {what}")]
#[allow(missing_docs)]
pub struct BatchError {
    pub index: usize,
    pub at: usize,
    pub what: &'static str,
}

/// Bytes of an entry without body and properties.
const FIXED: usize = 22;

/// Walks a batch body. After an error it ends.
pub fn entries(body: &[u8]) -> impl Iterator<Item = Result<BatchEntry<'_>, BatchError>> {
    let mut at = 0;
    let mut index = 0;
    std::iter::from_fn(move || {
        if at >= body.len() {
            return None;
        }
        let step = entry(&body[at..]).map_err(|what| BatchError { index, at, what });
        index += 1;
        Some(match step {
            Ok((entry, len)) => {
                at += len;
                Ok(entry)
            }
            Err(error) => {
                at = body.len();
                Err(error)
            }
        })
    })
}

fn entry(bytes: &[u8]) -> Result<(BatchEntry<'_>, usize), &'static str> {
    let i32_at =
        |at: usize| -> Option<i32> { Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?)) };
    let total = i32_at(0).ok_or("its length is cut off")?;
    let total = usize::try_from(total).map_err(|_| "its length is negative")?;
    if total < FIXED {
        return Err("its length is less than its fixed fields take");
    }
    if total > bytes.len() {
        return Err("it reaches past the body's end");
    }
    let flag = i32_at(12).ok_or("its flag is cut off")?;
    let body_len = i32_at(16).ok_or("its body length is cut off")?;
    let body_len = usize::try_from(body_len).map_err(|_| "its body length is negative")?;
    if body_len > total - FIXED {
        return Err("its body reaches past its end");
    }
    let body = &bytes[20..20 + body_len];
    let rest = &bytes[20 + body_len..total];
    let (len, properties) = rest
        .split_first_chunk::<2>()
        .ok_or("its property length is cut off")?;
    let len =
        usize::try_from(i16::from_be_bytes(*len)).map_err(|_| "its property length is negative")?;
    if len != properties.len() {
        return Err("its fields do not add up to its length");
    }
    let properties =
        std::str::from_utf8(properties).map_err(|_| "its properties are not UTF-8 text")?;
    Ok((
        BatchEntry {
            flag,
            body,
            properties,
        },
        total,
    ))
}

/// Appends one entry to a batch body, as a client does.
///
/// # Errors
/// When the properties are longer than a signed 16-bit length can say, or body and properties together than 32 bits can.
pub fn push(entry: &BatchEntry<'_>, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let at = out.len();
    let error = |what| BatchError { index: 0, at, what };
    let properties_len = i16::try_from(entry.properties.len())
        .map_err(|_| error("its properties are longer than 32767 bytes"))?;
    let total = i32::try_from(FIXED + entry.body.len() + entry.properties.len())
        .map_err(|_| error("it is longer than 2 GiB"))?;
    let body_len =
        i32::try_from(entry.body.len()).map_err(|_| error("its body is longer than 2 GiB"))?;
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&entry.flag.to_be_bytes());
    out.extend_from_slice(&body_len.to_be_bytes());
    out.extend_from_slice(entry.body);
    out.extend_from_slice(&properties_len.to_be_bytes());
    out.extend_from_slice(entry.properties.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> (Vec<BatchEntry<'static>>, Vec<u8>) {
        let all = vec![
            BatchEntry {
                flag: 3,
                body: b"one",
                properties: "UNIQ_KEY\u{1}A\u{2}",
            },
            BatchEntry {
                flag: 0,
                body: b"",
                properties: "",
            },
        ];
        let mut bytes = vec![];
        for entry in &all {
            push(entry, &mut bytes).unwrap();
        }
        (all, bytes)
    }

    #[test]
    fn a_batch_is_read_back_entry_by_entry() {
        let (all, bytes) = batch();
        assert_eq!(entries(&bytes).collect::<Result<Vec<_>, _>>(), Ok(all));
    }

    #[test]
    fn a_batch_cut_at_any_byte_is_an_error_or_ends_at_an_entry() {
        let (all, bytes) = batch();
        let first = FIXED + 3 + 11;
        for n in 0..bytes.len() {
            let got: Result<Vec<_>, _> = entries(&bytes[..n]).collect();
            match n {
                0 => assert_eq!(got, Ok(vec![])),
                n if n == first => assert_eq!(got, Ok(all[..1].to_vec())),
                _ => assert_eq!(
                    got.unwrap_err().at,
                    if n < first { 0 } else { first },
                    "{n}"
                ),
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_errors() {
        let (_, bytes) = batch();
        for (at, value, what) in [
            (0, -1, "its length is negative"),
            (0, 21, "its length is less than its fixed fields take"),
            (16, -5, "its body length is negative"),
            (16, 1 << 20, "its body reaches past its end"),
            (16, 2, "its fields do not add up to its length"),
        ] {
            let mut bad = bytes.clone();
            bad[at..at + 4].copy_from_slice(&i32::to_be_bytes(value));
            let error = entries(&bad).next().unwrap().unwrap_err();
            // A body one byte short moves the property length, which then is wrong in one way or the other.
            assert!(error.what == what || (at, value) == (16, 2), "{error}");
        }
    }
}
