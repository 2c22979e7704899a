//! A queue as bodies name it, alone and as a map's key.

use super::number;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// One queue of a topic on one broker. Ordered as in Java: topic, broker, queue.
/// Source: `apache/rocketmq: common/.../message/MessageQueue.java`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MessageQueue {
    pub broker_name: Arc<str>,
    #[serde(deserialize_with = "number")]
    pub queue_id: i32,
    pub topic: Arc<str>,
}

impl MessageQueue {
    /// The queue of that topic, broker and id.
    pub fn new(topic: &str, broker_name: &str, queue_id: i32) -> MessageQueue {
        MessageQueue {
            broker_name: broker_name.into(),
            queue_id,
            topic: topic.into(),
        }
    }
}

impl Ord for MessageQueue {
    fn cmp(&self, other: &Self) -> Ordering {
        self.topic
            .cmp(&other.topic)
            .then_with(|| self.broker_name.cmp(&other.broker_name))
            .then(self.queue_id.cmp(&other.queue_id))
    }
}
impl PartialOrd for MessageQueue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A queue standing as a key: written as an object, read from the text that `json::to_standard` makes of one.
struct Key<Q>(Q);

impl Serialize for Key<&MessageQueue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::json::serialize_object_key(self.0, serializer)
    }
}
impl<'de> Deserialize<'de> for Key<MessageQueue> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text)
            .map(Key)
            .map_err(D::Error::custom)
    }
}

/// Writes a map with queues as keys, for `#[serde(serialize_with)]`.
pub(super) fn write_map<S: Serializer, V: Serialize>(
    map: &BTreeMap<MessageQueue, V>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_map(Some(map.len()))?;
    for (queue, value) in map {
        out.serialize_entry(&Key(queue), value)?;
    }
    out.end()
}

/// Reads a map with queues as keys, for `#[serde(deserialize_with)]`.
pub(super) fn read_map<'de, D: Deserializer<'de>, V: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<MessageQueue, V>, D::Error> {
    struct Entries<V>(PhantomData<V>);
    impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
        type Value = BTreeMap<MessageQueue, V>;
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a map with queues as keys")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((Key(queue), value)) = access.next_entry::<Key<MessageQueue>, V>()? {
                map.insert(queue, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Entries(PhantomData))
}

/// A map of queues inside another map, as `GetConsumerStatusBody` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueMap<V>(pub BTreeMap<MessageQueue, V>);

impl<V> Default for QueueMap<V> {
    fn default() -> Self {
        QueueMap(BTreeMap::new())
    }
}
impl<V: Serialize> Serialize for QueueMap<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        write_map(&self.0, serializer)
    }
}
impl<'de, V: Deserialize<'de>> Deserialize<'de> for QueueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_map(deserializer).map(QueueMap)
    }
}
