//! Messages that follow from their number, so that a ledger of numbers says what every byte must be.

use rocketmq_protocol::properties;
use std::fmt;

/// The consumer group.
pub const GROUP: &str = "durable";
/// Topics sent to.
pub const TOPICS: u8 = 3;
/// Queues of each.
pub const QUEUES_PER_TOPIC: u8 = 4;

/// A queue of one of the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue(pub u8);

impl Queue {
    pub fn all() -> impl Iterator<Item = Queue> {
        (0..TOPICS * QUEUES_PER_TOPIC).map(Queue)
    }
    pub fn topic(self) -> String {
        format!("durability-{}", self.0 / QUEUES_PER_TOPIC)
    }
    pub fn id(self) -> i32 {
        i32::from(self.0 % QUEUES_PER_TOPIC)
    }
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic(), self.id())
    }
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message(pub u64);

impl Message {
    fn random(self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.0 ^ 0x9E37_79B9_7F4A_7C15)
    }

    /// Its number, then bytes that follow from it: mostly small, some of many pages.
    pub fn body(self) -> Vec<u8> {
        let mut random = self.random();
        let len = match random.u32(..100) {
            0..80 => random.usize(8..600),
            80..99 => random.usize(600..4000),
            _ => random.usize(4000..100_000),
        };
        let mut body = Vec::with_capacity(len + 8);
        body.extend(self.0.to_be_bytes());
        while body.len() < len {
            body.extend(random.u64(..).to_le_bytes());
        }
        body.truncate(len);
        body
    }

    /// The number that a body says, if the whole of it is as it was sent.
    pub fn of(body: &[u8]) -> Result<Message, String> {
        let Some(number) = body.first_chunk() else {
            return Err(format!("a body of {} bytes", body.len()));
        };
        let message = Message(u64::from_be_bytes(*number));
        if message.body() == body {
            Ok(message)
        } else {
            Err(format!("the body that says it is {} is not", message.0))
        }
    }

    /// A key of its own, for the index.
    pub fn key(self) -> String {
        format!("k{}", self.0)
    }

    pub fn properties(self) -> String {
        let mut text = String::new();
        properties::push(&mut text, "KEYS", &self.key());
        properties::push(
            &mut text,
            "TAGS",
            ["red", "green", "blue"][(self.0 % 3) as usize],
        );
        text
    }
}
