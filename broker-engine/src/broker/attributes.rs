//! Attributes of topics and groups: which exist, and how a modification (`+key=value,-key`) changes the current ones.
//! Source: `apache/rocketmq: common/.../attribute/{AttributeUtil,AttributeParser}.java`, `common/.../TopicAttributes.java`,
//! `common/.../SubscriptionGroupAttributes.java`. The error texts are Java's: tools show them.

use std::collections::BTreeMap;

/// The message types that a topic may declare.
const MESSAGE_TYPES: &[&str] = &[
    "UNSPECIFIED",
    "NORMAL",
    "FIFO",
    "DELAY",
    "TRANSACTION",
    "MIXED",
];

/// What a topic may carry.
pub const TOPIC: &[Attribute] = &[
    Attribute {
        name: "queue.type",
        changeable: false,
        values: Values::Of(&["BatchCQ", "SimpleCQ"]),
    },
    Attribute {
        name: "cleanup.policy",
        changeable: false,
        values: Values::Of(&["DELETE", "COMPACTION"]),
    },
    Attribute {
        name: "message.type",
        changeable: true,
        values: Values::Of(MESSAGE_TYPES),
    },
    Attribute {
        name: "reserve.time",
        changeable: true,
        values: Values::Range(-1, i64::MAX),
    },
];

/// What a group may carry: nothing yet.
pub const GROUP: &[Attribute] = &[];

/// One attribute's rules.
#[derive(Debug)]
pub struct Attribute {
    name: &'static str,
    /// Whether it may be set, changed or removed after creation.
    changeable: bool,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Of(&'static [&'static str]),
    Range(i64, i64),
}

impl Attribute {
    fn verify(&self, value: &str) -> Result<(), String> {
        match self.values {
            Values::Of(known) if known.contains(&value) => Ok(()),
            Values::Of(known) => Err(format!("value is not in set: [{}]", known.join(", "))),
            Values::Range(min, max) => match value.parse::<i64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                Ok(_) => Err(format!("value is not in range({min}, {max})")),
                Err(_) => Err(format!("For input string: \"{value}\"")),
            },
        }
    }
}

/// A modification as it came: `+key` to a value, `-key` to an empty text.
pub type Modification = BTreeMap<String, String>;

/// Reads `+key1=value1,-key2`.
pub fn parse(text: &str) -> Result<Modification, String> {
    let mut modification = Modification::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = match part.split_once('=') {
            Some((key, _)) if !key.contains('+') => {
                return Err(format!("add/alter attribute format is wrong: {key}"));
            }
            Some((key, value)) => (key, value),
            None if !part.contains('-') => {
                return Err(format!("delete attribute format is wrong: {part}"));
            }
            None => (part, ""),
        };
        if modification
            .insert(key.to_owned(), value.to_owned())
            .is_some()
        {
            return Err(format!("key duplication: {key}"));
        }
    }
    Ok(modification)
}

/// The attributes after a modification; `create` when nothing stood there before.
pub fn alter(
    create: bool,
    known: &[Attribute],
    current: &BTreeMap<String, String>,
    modification: &Modification,
) -> Result<BTreeMap<String, String>, String> {
    let mut altered = current.clone();
    let mut seen = Vec::with_capacity(modification.len());
    for (signed, value) in modification {
        let mut characters = signed.chars();
        let (sign, name) = (characters.next(), characters.as_str());
        if name.is_empty() || name.contains(['+', '-']) {
            return Err("kv string format wrong.".into());
        }
        if seen.contains(&name) {
            return Err(format!("alter duplication key. key: {name}"));
        }
        seen.push(name);
        let delete = match sign {
            Some('+') => false,
            _ if create => {
                return Err(format!(
                    "only add attribute is supported while creating topic. key: {name}"
                ));
            }
            Some('-') if !current.contains_key(name) => {
                return Err(format!("attempt to delete a nonexistent key: {name}"));
            }
            Some('-') => true,
            _ => return Err(format!("wrong format key: {name}")),
        };
        let attribute = known
            .iter()
            .find(|known| known.name == name)
            .ok_or_else(|| format!("unsupported key: {name}"))?;
        if !create && !attribute.changeable {
            return Err(format!(
                "attempt to update an unchangeable attribute. key: {name}"
            ));
        }
        if delete {
            altered.remove(name);
        } else {
            attribute.verify(value)?;
            altered.insert(name.to_owned(), value.clone());
        }
    }
    Ok(altered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        create: bool,
        current: &[(&str, &str)],
        text: &str,
        expected: Result<&[(&str, &str)], &str>,
    ) {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let found = parse(text).and_then(|change| alter(create, TOPIC, &map(current), &change));
        assert_eq!(found, expected.map(map).map_err(str::to_owned), "{text}");
    }

    #[test]
    fn a_modification_changes_what_it_may_and_says_why_not() {
        check(true, &[], "", Ok(&[]));
        check(
            true,
            &[],
            "+message.type=FIFO,+queue.type=SimpleCQ",
            Ok(&[("message.type", "FIFO"), ("queue.type", "SimpleCQ")]),
        );
        check(
            false,
            &[("message.type", "FIFO")],
            "+message.type=DELAY",
            Ok(&[("message.type", "DELAY")]),
        );
        check(false, &[("message.type", "FIFO")], "-message.type", Ok(&[]));
        check(
            true,
            &[],
            "-message.type",
            Err("only add attribute is supported while creating topic. key: message.type"),
        );
        check(
            false,
            &[],
            "-message.type",
            Err("attempt to delete a nonexistent key: message.type"),
        );
        check(
            false,
            &[],
            "+queue.type=SimpleCQ",
            Err("attempt to update an unchangeable attribute. key: queue.type"),
        );
        check(true, &[], "+colour=red", Err("unsupported key: colour"));
        check(
            true,
            &[],
            "+cleanup.policy=KEEP",
            Err("value is not in set: [DELETE, COMPACTION]"),
        );
        check(
            true,
            &[],
            "+reserve.time=-2",
            Err("value is not in range(-1, 9223372036854775807)"),
        );
        check(
            true,
            &[],
            "message.type=FIFO",
            Err("add/alter attribute format is wrong: message.type"),
        );
        check(
            true,
            &[],
            "message.type",
            Err("delete attribute format is wrong: message.type"),
        );
    }
}
