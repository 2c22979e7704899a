//! Values and commands as people type them.

use std::time::Duration;

use super::Draft;
use crate::error::{Error, Exit};

/// The name of the cluster when nobody gives one; its containers have no prefix.
pub const DEFAULT_NAME: &str = "rmq";

/// A command line that a hint suggests, for the cluster of this name.
pub fn suggest(cluster: &str, rest: &str) -> String {
    match cluster {
        DEFAULT_NAME => format!("rmqctl {rest}"),
        name => format!("rmqctl --name {name} {rest}"),
    }
}

/// An argument as a shell takes it.
pub fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,%+".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''"))
    }
}

/// `deleteWhen` is hours of two digits; YAML and people drop the zero, and RocketMQ then compares `4` with `04`.
pub fn padded(key: &str, value: &str) -> String {
    if key != "deleteWhen" || value.is_empty() {
        return value.to_owned();
    }
    let hours: Vec<String> = value
        .split(';')
        .map(|hour| format!("{:0>2}", hour.trim()))
        .collect();
    hours.join(";")
}

/// `KEY=VALUE` or `KEY=VALUE@NODE`, where NODE is a node, a broker's name, or that with its id.
pub(super) fn parse_set(draft: &mut Draft, typed: &str) -> Result<(), Error> {
    let Some((key, rest)) = typed.split_once('=') else {
        return Err(
            Error::new("RMQ-E104", Exit::Usage, format!("--set {typed}: no `=`"))
                .hint("--set fileReservedTime=72")
                .hint("--set fileReservedTime=72@rmqmaster1"),
        );
    };
    // A value may hold an `@`; only what can be the name of a node or broker after the last one is a target.
    let (value, target) = match rest.rsplit_once('@') {
        Some((value, target))
            if target.starts_with("rmq")
                || target.starts_with("broker-")
                || target.starts_with("master")
                || target.starts_with("slave") =>
        {
            (value, Some(target))
        }
        _ => (rest, None),
    };
    let properties = match target {
        None => &mut draft.properties,
        Some(name) if name.starts_with("broker-") => {
            draft.brokers.entry(name.to_owned()).or_default()
        }
        Some(name) => {
            let full = if name.starts_with("rmq") {
                name.to_owned()
            } else {
                format!("rmq{name}")
            };
            &mut draft.nodes.entry(full).or_default().properties
        }
    };
    properties.insert(key.trim().to_owned(), padded(key.trim(), value.trim()));
    Ok(())
}

/// Bytes of `512m`, `1g`, `65536k` or a plain number.
pub fn parse_memory(typed: &str) -> Result<u64, String> {
    let lower = typed.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches("ib").trim_end_matches('b');
    let (number, shift) = match digits.char_indices().last() {
        Some((at, 'k')) => (&digits[..at], 10),
        Some((at, 'm')) => (&digits[..at], 20),
        Some((at, 'g')) => (&digits[..at], 30),
        _ => (digits, 0),
    };
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|n| *n <= i64::MAX as u64)
        .ok_or_else(|| format!("`{typed}` is not a size such as 512m, 1g or 268435456"))
}

/// `60s`, `2m`, `1h`, or seconds.
pub fn parse_duration(typed: &str) -> Result<Duration, String> {
    let lower = typed.trim().to_ascii_lowercase();
    let (number, unit) = match lower.char_indices().last() {
        Some((at, 's')) => (&lower[..at], 1),
        Some((at, 'm')) => (&lower[..at], 60),
        Some((at, 'h')) => (&lower[..at], 3600),
        _ => (lower.as_str(), 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|seconds| *seconds <= 366 * 24 * 3600)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("`{typed}` is not a time such as 60s, 2m or 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(parse_memory("512m"), Ok(512 << 20));
        assert_eq!(parse_memory("1GiB"), Ok(1 << 30));
        assert_eq!(parse_memory("65536"), Ok(65536));
        assert!(
            parse_memory("-1").is_err()
                && parse_memory("m").is_err()
                && parse_memory("99999999999g").is_err()
        );
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("7"), Ok(Duration::from_secs(7)));
        assert!(parse_duration("soon").is_err());
    }
}
