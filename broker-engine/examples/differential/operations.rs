//! Operations out of a seed. A new kind is a line in [`Maker::next`] and a function that makes it.
//!
//! POP is not among them yet: its line belongs next to the pulls'.
//!
//! Not asked, since no client does so and this engine means to answer differently:
//! - a send without a body, without a queue id, or with a batch that is cut short: the Java broker answers code 1 with the text of its own
//!   exception; here the first is taken and the others are refused with the reason;
//! - a pull with an SQL expression that does not parse, or one of an unknown type: the Java broker then passes every message, here it is refused (code 23);
//! - a topic with a negative number of queues: the Java broker stores it;
//! - anything of a group that was deleted: the Java broker (5.5.0) makes it anew within the same request;
//! - a list of topics with one that stands as it is already: the Java broker then leaves the rest of the list out and answers success;
//! - the end of a transaction without a decision: neither answers.

mod admin;

use crate::wire::Sent;
use rocketmq_protocol::batch::{self, BatchEntry};
use rocketmq_protocol::body::{
    CheckClientRequestBody, ConsumerData, HeartbeatData, LockBatchRequestBody, MessageQueue,
    ProducerData, SubscriptionData, SubscriptionGroupConfig, encode,
};
use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields, Serialize, properties, sysflag};
use std::fmt;

/// A time that both sides are given where a client says when it made something.
const BORN: i64 = 1_700_000_000_000;

/// A header field's value.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    /// What the server answered to the n-th send: its place in the log.
    LogOffset(usize),
    /// Its place in its queue.
    QueueOffset(usize),
    /// Its id.
    MsgId(usize),
}

/// One request, the same for both servers but for what they told before.
#[derive(Clone, Debug)]
pub struct Operation {
    pub kind: &'static str,
    code: i32,
    serialize: Serialize,
    fields: Vec<(&'static str, Value)>,
    body: Vec<u8>,
    /// It changes nothing, so that it may be asked again.
    pub reads: bool,
    /// It is a send; whether its message goes into the queue that the answer names.
    pub sends: Option<bool>,
}

impl Operation {
    fn new(kind: &'static str, code: i32) -> Operation {
        Operation {
            kind,
            code,
            serialize: Serialize::Json,
            fields: vec![],
            body: vec![],
            reads: false,
            sends: None,
        }
    }
    fn with(mut self, name: &'static str, value: impl ToString) -> Operation {
        self.fields.push((name, Value::Text(value.to_string())));
        self
    }
    fn of_send(mut self, name: &'static str, value: Value) -> Operation {
        self.fields.push((name, value));
        self
    }
    fn with_body(mut self, body: impl Into<Vec<u8>>) -> Operation {
        self.body = body.into();
        self
    }
    fn reading(mut self) -> Operation {
        self.reads = true;
        self
    }

    /// The request for a server that answered the sends before as `sent` says. A send that was refused has places and ids as nobody has.
    pub fn request(&self, sent: &[Option<Sent>]) -> Command {
        let mut ext = ExtFields::new();
        for (name, value) in &self.fields {
            let of = |at: &usize| sent.get(*at).and_then(Option::as_ref);
            match value {
                Value::Text(text) => ext.set(name, text),
                Value::LogOffset(at) => ext.set(name, of(at).map_or(1 << 40, |s| s.log_offset)),
                Value::QueueOffset(at) => ext.set(name, of(at).map_or(1 << 40, |s| s.queue_offset)),
                Value::MsgId(at) => ext.set(name, of(at).map_or("NONE", |s| &s.msg_id)),
            }
        }
        let mut command = Command::request(self.code, ext).with_body(self.body.clone());
        command.serialize = self.serialize;
        command
    }

    /// The topic that it names.
    pub fn topic(&self) -> &str {
        let named = |(name, _): &&(&str, Value)| *name == "topic" || *name == "b";
        match self.fields.iter().find(named) {
            Some((_, Value::Text(topic))) => topic,
            _ => "",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} {})",
            self.kind,
            self.code,
            request::name(self.code)
        )?;
        for (name, value) in &self.fields {
            match value {
                Value::Text(text) => write!(f, " {name}={:?}", &clipped(text))?,
                other => write!(f, " {name}={other:?}")?,
            }
        }
        if !self.body.is_empty() {
            let text = String::from_utf8_lossy(&self.body[..self.body.len().min(1200)]);
            write!(f, ", {} bytes: {:?}", self.body.len(), clipped(&text))?;
        }
        Ok(())
    }
}

fn clipped(text: &str) -> String {
    if text.chars().count() > 1000 {
        text.chars().take(1000).chain("...".chars()).collect()
    } else {
        text.into()
    }
}

/// The operations of a seed: topics and groups begin with `prefix`.
pub fn generate(seed: u64, count: usize, prefix: &str) -> Vec<Operation> {
    let mut maker = Maker {
        random: fastrand::Rng::with_seed(seed),
        prefix: prefix.into(),
        sends: vec![],
        halves: vec![],
    };
    let mut operations = maker.beginning();
    while operations.len() < count {
        let mut operation = maker.next();
        // The binary form cannot say that a text is empty.
        if maker.random.u8(..4) == 0 && !operation.topic().is_empty() {
            operation.serialize = Serialize::RocketMq;
        }
        if operation.sends.is_some() {
            maker.sends.push(operation.topic().into());
        }
        operations.push(operation);
    }
    operations
}

/// Queues of the topics that stand from the beginning on.
const QUEUES: i32 = 3;

struct Maker {
    random: fastrand::Rng,
    prefix: String,
    /// The topic of each send.
    sends: Vec<String>,
    /// Which of them were half messages, and the group that sent each.
    halves: Vec<(usize, String)>,
}

impl Maker {
    /// Topics that every sequence needs: two to write and read, one only to read, one only to write. Groups: which request makes one
    /// that is not there differs (in Java even a consumer's leave does), so that most are there.
    fn beginning(&mut self) -> Vec<Operation> {
        let mut operations: Vec<_> = [("a", 6), ("b", 6), ("readonly", 4), ("writeonly", 2)]
            .map(|(name, perm)| self.make_topic(format!("{}_{name}", self.prefix), QUEUES, perm))
            .into();
        for name in ["g", "h", "other"] {
            let group = SubscriptionGroupConfig::new(format!("{}_{name}", self.prefix));
            operations.push(Self::store_group(&group));
        }
        operations
    }

    fn next(&mut self) -> Operation {
        match self.random.u32(..200) {
            0..44 => self.send(),
            44..52 => self.batch(),
            52..58 => self.half(),
            58..64 => self.end_transaction(),
            64..70 => self.send_back(),
            70..104 => self.pull(),
            104..112 => self.query_offset(),
            112..122 => self.update_offset(),
            122..132 => self.queue_bound(),
            132..136 => self.view(),
            136..142 => self.query(),
            142..147 => self.heartbeat(),
            147..149 => self.unregister(),
            149..155 => self.lock(),
            155..159 => self.check_config(),
            159..163 => {
                let (topic, queues) = (
                    self.topic(),
                    *self.pick(&[QUEUES, QUEUES, QUEUES, QUEUES, 8, 8, 1, 0]),
                );
                let perm = *self.pick(&[6, 6, 6, 6, 6, 6, 6, 6, 4, 2, 0, 9]);
                self.make_topic(topic, queues, perm)
            }
            163..165 => {
                let topic = match self.random.u8(..3) {
                    0 => self.topic(),
                    _ => format!("{}_late", self.prefix),
                };
                Operation::new("delete topic", request::DELETE_TOPIC_IN_BROKER).with("topic", topic)
            }
            165..169 => self.make_group(),
            169..171 => Operation::new("delete group", request::DELETE_SUBSCRIPTIONGROUP)
                .with("groupName", format!("{}_gone", self.prefix))
                .with("cleanOffset", self.random.bool()),
            171..174 => self.reset_offset(),
            176..178 => self.make_several(),
            178..180 => self.forbid(),
            174..176 => Operation::new("clone offsets", request::CLONE_GROUP_OFFSET)
                .with("srcGroup", self.group())
                .with("destGroup", self.group())
                .with("topic", self.topic())
                .with("offline", true),
            _ => self.admin_read(),
        }
    }

    // ---- names ----

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.random.usize(..of.len())]
    }

    /// One of the topics that are, may come to be, or cannot be.
    fn topic(&mut self) -> String {
        let name = *self.pick(&[
            "a",
            "a",
            "a",
            "a",
            "a",
            "b",
            "b",
            "b",
            "auto",
            "auto",
            "readonly",
            "writeonly",
            "late",
            "never",
        ]);
        match name {
            "never" => match self.random.u8(..5) {
                0 => String::new(),
                1 => "no topic!".into(),
                2 => "x".repeat(300),
                3 => format!("%RETRY%{}", self.group()),
                _ => format!("%DLQ%{}", self.group()),
            },
            name => format!("{}_{name}", self.prefix),
        }
    }

    fn group(&mut self) -> String {
        let name = self.pick(&["g", "g", "g", "h", "other", "late"]);
        format!("{}_{name}", self.prefix)
    }

    fn queue_id(&mut self) -> i32 {
        match self.random.u8(..20) {
            0 => QUEUES,
            1 => 99,
            2 => -1,
            _ => self.random.i32(0..QUEUES.min(2)),
        }
    }

    fn offset(&mut self) -> i64 {
        match self.random.u8(..12) {
            0 => -1,
            1 => *self.pick(&[1 << 40, i64::MAX]),
            2..6 => 0,
            _ => self.random.i64(0..5),
        }
    }

    fn a_send(&mut self) -> usize {
        self.random.usize(..self.sends.len() + 1)
    }

    // ---- writing ----

    fn properties(&mut self, unique: &str) -> String {
        let mut text = String::new();
        if self.random.u8(..8) > 0 {
            properties::push(&mut text, properties::name::UNIQ_KEY, unique);
        }
        for (name, values) in [
            ("TAGS", &["", "A", "A", "B", "C"][..]),
            ("KEYS", &["", "k1", "k1 k2", "k3"]),
            ("a", &["", "1", "5", "-3", "text", "9.5"]),
            ("b", &["", "", "true", "it's"]),
            ("WAIT", &["", "true", "false"]),
        ] {
            let value = self.pick(values);
            properties::push(&mut text, name, value);
        }
        text
    }

    fn unique(&mut self) -> String {
        format!("{}U{}", self.prefix, self.sends.len())
    }

    fn body(&mut self) -> String {
        let len = *self.pick(&[1, 7, 30, 30, 200, 3000]);
        (0..len).map(|_| self.random.alphanumeric()).collect()
    }

    fn send_v2(&mut self, kind: &'static str, topic: &str, properties: String) -> Operation {
        let queue_id = match self.queue_id() {
            // Any queue: which one, each server decides.
            -1 => 0,
            queue_id => queue_id,
        };
        let mut operation = Operation::new(kind, request::SEND_MESSAGE_V2)
            .with("a", self.group())
            .with("b", topic)
            .with("c", "TBW102")
            .with("d", QUEUES)
            .with("e", queue_id)
            .with("f", 0)
            .with("g", BORN + self.random.i64(0..1000))
            .with("h", self.random.i32(0..3))
            .with("i", properties)
            .with("j", 0)
            .with("k", false)
            .with("m", false);
        operation.sends = Some(true);
        operation
    }

    fn send(&mut self) -> Operation {
        let (mut topic, unique) = (self.topic(), self.unique());
        if self.random.u8(..60) == 0 {
            topic = "SCHEDULE_TOPIC_XXXX".into();
        }
        let mut properties = self.properties(&unique);
        let mut queued = true;
        match self.random.u8(..24) {
            0 => {
                // Due long after the comparison.
                properties::push(&mut properties, properties::name::DELAY, "18");
                queued = false;
            }
            1 => {
                properties::push(&mut properties, properties::name::TIMER_DELAY_SEC, "86400");
                queued = false;
            }
            2 => {
                let far = (10 * 86_400_000_i64).to_string();
                properties::push(&mut properties, properties::name::TIMER_DELAY_MS, &far);
                queued = false;
            }
            3 => properties::push(&mut properties, "long", &"x".repeat(33_000)),
            4 => properties.push_str("left\u{1}open"),
            _ => {}
        }
        let kind = if queued { "send" } else { "delayed send" };
        // Retried sends take ways of their own.
        let queued = queued && !topic.starts_with('%') && !topic.starts_with("SCHEDULE");
        let mut operation = self.send_v2(kind, &topic, properties);
        operation.sends = Some(queued);
        operation.body = self.body().into_bytes();
        match self.random.u8(..24) {
            0 => operation.body = vec![b'z'; (4 << 20) + 1],
            1 => operation.fields.retain(|(name, _)| *name != "i"),
            2 => Self::long_names(&mut operation),
            _ => {}
        }
        if topic.starts_with("%RETRY%") {
            self.retried(&mut operation);
        }
        operation
    }

    /// A consumer that sends back by itself says how often it tried, and how often it may.
    fn retried(&mut self, operation: &mut Operation) {
        let tried = self.pick(&["0", "1", "3", "17"]).to_string();
        for (name, value) in &mut operation.fields {
            if *name == "j" || *name == "reconsumeTimes" {
                *value = Value::Text(tried.clone());
            }
        }
        if self.random.bool() {
            let (long, at_most) = (
                operation.code == request::SEND_MESSAGE,
                *self.pick(&[3, 16]),
            );
            let name = if long { "maxReconsumeTimes" } else { "l" };
            operation
                .fields
                .push((name, Value::Text(at_most.to_string())));
        }
    }

    /// The same send with the header of SEND_MESSAGE (10).
    fn long_names(operation: &mut Operation) {
        operation.code = request::SEND_MESSAGE;
        for (name, _) in &mut operation.fields {
            *name = match *name {
                "a" => "producerGroup",
                "b" => "topic",
                "c" => "defaultTopic",
                "d" => "defaultTopicQueueNums",
                "e" => "queueId",
                "f" => "sysFlag",
                "g" => "bornTimestamp",
                "h" => "flag",
                "i" => "properties",
                "j" => "reconsumeTimes",
                "k" => "unitMode",
                "m" => "batch",
                other => other,
            };
        }
    }

    fn batch(&mut self) -> Operation {
        let (topic, unique) = (self.topic(), self.unique());
        let mut run = vec![];
        let mut keys = vec![];
        for at in 0..self.random.usize(1..5) {
            let key = format!("{unique}b{at}");
            let (properties, body) = (self.properties(&key), self.body());
            let entry = BatchEntry {
                flag: 1,
                body: body.as_bytes(),
                properties: &properties,
            };
            // Short texts always fit.
            let _ = batch::push(&entry, &mut run);
            keys.push(key);
        }
        let mut properties = String::new();
        properties::push(&mut properties, properties::name::UNIQ_KEY, &keys.join(","));
        let mut operation = self.send_v2("batch", &topic, properties).with_body(run);
        operation.code = request::SEND_BATCH_MESSAGE;
        for (name, value) in &mut operation.fields {
            if *name == "m" {
                *value = Value::Text("true".into());
            }
        }
        operation.sends = Some(!topic.starts_with('%') && !topic.starts_with("SCHEDULE"));
        operation
    }

    fn half(&mut self) -> Operation {
        let (topic, unique) = (self.topic(), self.unique());
        let mut properties = String::new();
        let group = self.group();
        for (name, value) in [
            (properties::name::UNIQ_KEY, unique.as_str()),
            (properties::name::TRAN_MSG, "true"),
            (properties::name::PGROUP, &group),
            ("TAGS", "A"),
        ] {
            properties::push(&mut properties, name, value);
        }
        let mut operation = self.send_v2("half", &topic, properties);
        for (name, value) in &mut operation.fields {
            match *name {
                "a" => *value = Value::Text(group.clone()),
                "f" => *value = Value::Text(sysflag::TRANSACTION_PREPARED.to_string()),
                _ => {}
            }
        }
        operation.sends = Some(false);
        operation.body = self.body().into_bytes();
        self.halves.push((self.sends.len(), group));
        operation
    }

    fn end_transaction(&mut self) -> Operation {
        let (at, group) = match self.random.u8(..8) {
            0 => (self.a_send(), self.group()),
            // Of a message that is no half one, or none.
            _ if self.halves.is_empty() => (self.a_send(), self.group()),
            _ => {
                let which = self.random.usize(..self.halves.len());
                self.halves.swap_remove(which)
            }
        };
        let verdict = *self.pick(&[
            sysflag::TRANSACTION_COMMIT,
            sysflag::TRANSACTION_COMMIT,
            sysflag::TRANSACTION_ROLLBACK,
        ]);
        let unique = format!("{}U{at}", self.prefix);
        Operation::new("end transaction", request::END_TRANSACTION)
            .with("producerGroup", group)
            .of_send("tranStateTableOffset", Value::QueueOffset(at))
            .of_send("commitLogOffset", Value::LogOffset(at))
            .with("commitOrRollback", verdict)
            .with("fromTransactionCheck", false)
            .with("msgId", &unique)
            .with("transactionId", unique)
    }

    fn send_back(&mut self) -> Operation {
        let at = self.a_send();
        let topic = self.sends.get(at).cloned().unwrap_or_default();
        let level = *self.pick(&[-1, -1, 0, 18, 99]);
        Operation::new("send back", request::CONSUMER_SEND_MSG_BACK)
            .of_send("offset", Value::LogOffset(at))
            .with("group", self.group())
            .with("delayLevel", level)
            .of_send("originMsgId", Value::MsgId(at))
            .with("originTopic", topic)
            .with("unitMode", false)
            .with("maxReconsumeTimes", self.pick(&[0, 16]))
    }

    // ---- reading ----

    fn pull(&mut self) -> Operation {
        let mut sys_flag = 0;
        let (kind, expression) = *self.pick(&[
            ("TAG", "*"),
            ("TAG", "*"),
            ("TAG", "A"),
            ("TAG", "A || B"),
            ("TAG", "||"),
            ("TAG", ""),
            ("SQL92", "a = 1"),
            ("SQL92", "a > 2 AND b IS NULL"),
            ("SQL92", "TAGS IN ('A', 'C') OR a BETWEEN -5 AND 1"),
        ]);
        if self.random.u8(..5) > 0 {
            sys_flag |= sysflag::PULL_SUBSCRIPTION;
        }
        let commit = self.random.u8(..6) == 0;
        if commit {
            sys_flag |= sysflag::PULL_COMMIT_OFFSET;
        }
        // Who brings a subscription sends no heartbeats: Java keeps the last one brought for ten minutes, here only heartbeats subscribe.
        let group = match sys_flag & sysflag::PULL_SUBSCRIPTION {
            0 => self.group(),
            _ => format!("{}_puller", self.prefix),
        };
        Operation::new("pull", request::PULL_MESSAGE)
            .with("consumerGroup", group)
            .with("topic", self.topic())
            .with("queueId", self.queue_id())
            .with("queueOffset", self.offset())
            .with("maxMsgNums", self.pick(&[32, 32, 1, 3, 0, -1]))
            .with("sysFlag", sys_flag)
            .with("commitOffset", self.random.i64(0..6))
            .with("suspendTimeoutMillis", 0)
            .with("subscription", expression)
            .with("subVersion", self.pick(&[0, BORN, BORN + 2]))
            .with("expressionType", kind)
            .reading()
    }

    fn query_offset(&mut self) -> Operation {
        let mut operation = Operation::new("query offset", request::QUERY_CONSUMER_OFFSET)
            .with("consumerGroup", self.group())
            .with("topic", self.topic())
            .with("queueId", self.queue_id());
        if self.random.bool() {
            operation = operation.with("setZeroIfNotFound", self.random.bool());
        }
        operation.reading()
    }

    fn update_offset(&mut self) -> Operation {
        Operation::new("update offset", request::UPDATE_CONSUMER_OFFSET)
            .with("consumerGroup", self.group())
            .with("topic", self.topic())
            .with("queueId", self.queue_id())
            .with("commitOffset", self.offset())
    }

    fn queue_bound(&mut self) -> Operation {
        let (kind, code) = *self.pick(&[
            ("max offset", request::GET_MAX_OFFSET),
            ("min offset", request::GET_MIN_OFFSET),
            ("offset by time", request::SEARCH_OFFSET_BY_TIMESTAMP),
            ("earliest time", request::GET_EARLIEST_MSG_STORETIME),
        ]);
        let operation = Operation::new(kind, code)
            .with("topic", self.topic())
            .with("queueId", self.queue_id());
        if code != request::SEARCH_OFFSET_BY_TIMESTAMP {
            return operation.reading();
        }
        operation
            .with("timestamp", self.pick(&[0, -1, BORN, 4_000_000_000_000]))
            .with("boundaryType", self.pick(&["LOWER", "UPPER", "upper"]))
            .reading()
    }

    fn view(&mut self) -> Operation {
        let at = self.a_send();
        Operation::new("view", request::VIEW_MESSAGE_BY_ID)
            .of_send("offset", Value::LogOffset(at))
            .reading()
    }

    fn query(&mut self) -> Operation {
        let at = self.a_send();
        let unique = self.random.bool();
        let key = match unique {
            true => format!("{}U{at}", self.prefix),
            false => self.pick(&["k1", "k2", "k3", "none"]).to_string(),
        };
        let topic = match self.random.bool() {
            true => self.sends.get(at).cloned().unwrap_or_default(),
            false => self.topic(),
        };
        Operation::new("query", request::QUERY_MESSAGE)
            .with("topic", topic)
            .with("key", key)
            .with("maxNum", self.pick(&[32, 2, 64]))
            .with("beginTimestamp", self.pick(&[0, 0, BORN]))
            .with("endTimestamp", self.pick(&[i64::MAX, i64::MAX, BORN]))
            .with("_UNIQUE_KEY_QUERY", unique)
            .reading()
    }

    // ---- clients ----

    fn subscription(&mut self) -> SubscriptionData {
        let (topic, expression) = (self.topic(), *self.pick(&["*", "A", "A || C"]));
        let mut data = SubscriptionData::parse_tags(&topic, expression);
        data.sub_version = BORN + self.random.i64(0..3);
        data
    }

    /// A connection is one client's; locks are asked for by two.
    fn client(&self) -> String {
        format!("{}@0", self.prefix)
    }

    fn heartbeat(&mut self) -> Operation {
        let mut data = HeartbeatData {
            client_id: self.client().into(),
            ..HeartbeatData::default()
        };
        if self.random.u8(..4) > 0 {
            data.consumer_data_set.push(ConsumerData {
                group_name: self.group().into(),
                subscription_data_set: vec![self.subscription()],
                ..ConsumerData::default()
            });
        }
        if self.random.bool() {
            let group_name = self.group().into();
            data.producer_data_set.push(ProducerData { group_name });
        }
        Operation::new("heartbeat", request::HEART_BEAT).with_body(encode(&data))
    }

    fn unregister(&mut self) -> Operation {
        Operation::new("unregister", request::UNREGISTER_CLIENT)
            .with("clientID", self.client())
            .with("producerGroup", self.group())
            .with("consumerGroup", format!("{}_g", self.prefix))
    }

    fn lock(&mut self) -> Operation {
        let topic = self.topic();
        let body = LockBatchRequestBody {
            client_id: format!("{}@{}", self.prefix, self.random.u8(..2)),
            consumer_group: self.group().as_str().into(),
            mq_set: (0..self.random.i32(1..4))
                .map(|queue_id| MessageQueue::new(&topic, "broker-a", queue_id))
                .collect(),
            ..LockBatchRequestBody::default()
        };
        match self.random.u8(..3) {
            0 => Operation::new("unlock", request::UNLOCK_BATCH_MQ),
            _ => Operation::new("lock", request::LOCK_BATCH_MQ),
        }
        .with_body(encode(&body))
    }

    fn check_config(&mut self) -> Operation {
        let expression = *self.pick(&[
            "a = 1",
            "a BETWEEN 5 AND 1",
            "a IN (1)",
            "NOT a = 'x'",
            "a +",
            "",
            "a = NULL",
        ]);
        let body = CheckClientRequestBody {
            client_id: self.client(),
            group: self.group(),
            subscription_data: Some(SubscriptionData {
                expression_type: self.pick(&["SQL92", "SQL92", "TAG", "NONE"]).to_string(),
                sub_string: expression.into(),
                topic: self.topic().into(),
                ..SubscriptionData::default()
            }),
            ..CheckClientRequestBody::default()
        };
        Operation::new("check config", request::CHECK_CLIENT_CONFIG).with_body(encode(&body))
    }
}
