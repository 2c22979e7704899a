//! Topics that a spec names.

use serde::{Deserialize, Serialize};

/// A topic that the cluster shall have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Queues on each broker.
    pub queues: u32,
    /// Names of the brokers that have it; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<String>,
}

/// Queues of a topic on each broker, where nobody says: `defaultTopicQueueNums`.
pub const DEFAULT_QUEUES: u32 = 8;

impl TopicSpec {
    /// Reads `orders`, `orders:16` or `orders:16@broker-a`; the words say what is wrong.
    pub fn parse(typed: &str) -> Result<TopicSpec, String> {
        let (rest, broker) = match typed.split_once('@') {
            Some((rest, broker)) => (rest, Some(broker.to_owned())),
            None => (typed, None),
        };
        let (name, queues) = match rest.split_once(':') {
            Some((name, count)) => {
                let queues = count.parse();
                (
                    name,
                    queues.map_err(|_| format!("`{count}` is not a number of queues"))?,
                )
            }
            None => (rest, DEFAULT_QUEUES),
        };
        let topic = TopicSpec {
            name: name.to_owned(),
            queues,
            brokers: Vec::from_iter(broker),
        };
        topic.fault().map_or(Ok(topic), Err)
    }

    /// What a broker would refuse of it.
    pub fn fault(&self) -> Option<String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "%|-_".contains(c);
        if self.name.is_empty() || self.name.len() > 127 || !self.name.chars().all(allowed) {
            return Some(
                "a name has letters, digits, `%`, `|`, `-` and `_`, 127 at most".to_owned(),
            );
        }
        let queues = 1..=1024;
        (!queues.contains(&self.queues)).then(|| {
            format!(
                "{} queues; it must be {} to {}",
                self.queues,
                queues.start(),
                queues.end()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_typed_as_name_queues_and_broker() {
        let topic = |name: &str, queues, brokers: &[&str]| TopicSpec {
            name: name.into(),
            queues,
            brokers: brokers.iter().map(|b| (*b).to_owned()).collect(),
        };
        let cases = [
            ("orders", Ok(topic("orders", 8, &[]))),
            ("orders:16", Ok(topic("orders", 16, &[]))),
            ("orders:16@broker-a", Ok(topic("orders", 16, &["broker-a"]))),
            ("orders@broker-b", Ok(topic("orders", 8, &["broker-b"]))),
            ("orders:many", Err("`many` is not a number of queues")),
            ("orders:0", Err("0 queues; it must be 1 to 1024")),
            (
                "or ders",
                Err("a name has letters, digits, `%`, `|`, `-` and `_`, 127 at most"),
            ),
        ];
        for (typed, want) in cases {
            assert_eq!(
                TopicSpec::parse(typed),
                want.map_err(str::to_owned),
                "{typed}"
            );
        }
    }
}
