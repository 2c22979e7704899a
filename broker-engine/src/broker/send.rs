//! SEND_MESSAGE (10), SEND_MESSAGE_V2 (310) and SEND_BATCH_MESSAGE (320).
//!
//! All sends that a thread's connections brought at a time are checked, encoded into one batch, handed to the log in one piece and
//! answered with one buffer, of which each connection gets its part. Messages that wait for disk or slaves and messages that do not (WAIT=false) go in two batches.
//! Source of checks, order and remarks: `apache/rocketmq: broker/.../processor/SendMessageProcessor.java`,
//! `AbstractSendMessageProcessor.java` (msgCheck), `broker/.../util/HookUtils.java`.

use super::refusal::Refusal;
use super::sent::{Answers, Sent, Unanswered, not_available, refusal_of_send, trace_on};
use super::{Broker, transaction};
use crate::clock;
use crate::config::BrokerConfig;
use crate::log::Requirement;
use crate::net::Connection;
use rocketmq_protocol::body::TopicConfig;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::hot::SendHead;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{Record, RecordError};
use rocketmq_protocol::topic::perm;
use rocketmq_protocol::{Frame, Serialize, batch, sysflag, topic};
use rocketmq_store::RecordBatch;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A batch is appended when it has grown to this many bytes, even if the round brings more: it must fit one log file, and what was
/// just encoded is copied to the page cache while it is still in the processor's own.
const BATCH_BYTES: usize = 128 << 10;
/// Room for a batch and for the send that makes it grow to that: what has to grow is copied.
const BATCH_ROOM: usize = BATCH_BYTES + BATCH_BYTES / 4;

/// `FAQUrl.suggestTodo`: what Java appends to remarks about missing topics and groups.
pub(super) const FAQ: &str =
    "\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// Since this client version `maxReconsumeTimes` in the header counts (`MQVersion.V3_4_9`).
pub(super) const VERSION_MAX_RECONSUME: i32 = 121;

/// The sends of one round.
pub(super) struct Sends {
    broker: Arc<Broker>,
    /// Whose sends are at hand.
    connection: Connection,
    config: Arc<BrokerConfig>,
    born_host: SocketAddr,
    waiting: Open,
    eager: Open,
    /// Property string of the message at hand, as it came and as it is stored.
    room: Vec<u8>,
    text: String,
    /// Topic of the message before: most reads bring one topic only.
    topic: Option<Arc<TopicConfig>>,
}

impl Drop for Sends {
    /// What was not handed over, since the round failed: nothing of it is stored, and its clients are told that the broker is busy.
    fn drop(&mut self) {
        for open in [&mut self.waiting, &mut self.eager] {
            drop(Unanswered {
                broker: Arc::clone(&self.broker),
                answers: std::mem::take(&mut open.answers),
            });
        }
    }
}

/// A batch that still takes messages.
#[derive(Default)]
struct Open {
    batch: RecordBatch,
    answers: Answers,
}

impl Open {
    /// Makes room for what is expected when the first message comes.
    fn begin(&mut self, broker: &Broker) -> &mut Open {
        if self.batch.is_empty() {
            let [bytes, records, sends] = broker.expected.get();
            self.batch = RecordBatch::with_room(bytes, records, &broker.stamp);
            self.answers = Answers::with_room(sends);
        }
        self
    }
}

/// What a batch of sends is expected to hold: what is too small grows, and is copied.
#[derive(Debug, Default)]
pub(super) struct Expected([AtomicUsize; 3]);

impl Expected {
    /// Bytes of records, records, sends.
    fn get(&self) -> [usize; 3] {
        let [bytes, records, sends] =
            [0, 1, 2].map(|number| self.0[number].load(Ordering::Relaxed));
        // One half of what is sent on its way as full mostly becomes that.
        let full = bytes >= BATCH_BYTES / 2;
        [if full { BATCH_ROOM } else { bytes }, records, sends]
    }

    /// The next batch will be about as large; small ones let the room shrink by and by.
    fn learn(&self, batch: [usize; 3]) {
        for (expected, is) in self.0.iter().zip(batch) {
            let before = expected.load(Ordering::Relaxed);
            expected.store(is.max(before - before / 8), Ordering::Relaxed);
        }
    }
}

/// What a message's properties say to the broker.
#[derive(Default)]
struct Wishes<'a> {
    unique_key: Option<&'a str>,
    delay: Option<&'a str>,
    transaction: bool,
    timer: bool,
    timer_out: bool,
    wait: bool,
    /// It names light queues.
    light: bool,
}

impl Sends {
    pub(super) fn new(broker: &Arc<Broker>, connection: &Connection) -> Sends {
        Sends {
            config: broker.config.get(),
            connection: connection.clone(),
            born_host: connection.peer(),
            waiting: Open::default(),
            eager: Open::default(),
            room: Vec::new(),
            text: String::new(),
            topic: None,
            broker: Arc::clone(broker),
        }
    }

    /// Takes one send; what is wrong with it is answered at once.
    pub(super) fn push(&mut self, connection: &Connection, frame: &Frame) {
        if connection.id() != self.connection.id() {
            self.connection = connection.clone();
            self.born_host = connection.peer();
        }
        let mut room = std::mem::take(&mut self.room);
        self.push_in(frame, &mut room);
        self.room = room;
    }

    /// `room`: where the properties may come to stand.
    fn push_in(&mut self, frame: &Frame, room: &mut Vec<u8>) {
        let command;
        let head = match SendHead::scan(frame, room) {
            Some(head) => head,
            None => {
                command = match frame.decode() {
                    Ok(command) => command,
                    Err(error) => {
                        self.connection.close_for(error);
                        return;
                    }
                };
                match SendHead::from_command(&command) {
                    Ok(head) => head,
                    Err(error) => {
                        self.refuse(
                            command.opaque,
                            command.serialize,
                            command.is_oneway(),
                            error.into(),
                        );
                        return;
                    }
                }
            }
        };
        let body = frame.body_bytes();
        let added = if head.batch || head.head.code == request::SEND_BATCH_MESSAGE {
            self.add_batch(&head, body, frame.serialize())
        } else {
            self.add(&head, body, frame.serialize())
        };
        if let Err(refusal) = added {
            let oneway = head.head.flag & 2 != 0;
            self.refuse(head.head.opaque, frame.serialize(), oneway, refusal);
        }
    }

    /// Hands over what has been collected.
    pub(super) fn finish(mut self) {
        self.submit(true);
        self.submit(false);
    }

    fn submit(&mut self, wait: bool) {
        let open = if wait {
            &mut self.waiting
        } else {
            &mut self.eager
        };
        if open.batch.is_empty() {
            return;
        }
        let open = std::mem::take(open);
        let (bytes, records) = (open.batch.byte_len(), open.batch.len());
        let sends = open.answers.len();
        (self.broker.expected).learn([bytes.min(BATCH_ROOM), records, sends]);
        let requirement = if wait {
            self.broker.requirement(&self.config)
        } else {
            Requirement::default()
        };
        let answers = Unanswered {
            broker: Arc::clone(&self.broker),
            answers: open.answers,
        };
        let done = Box::new(move |result| answers.answer(result));
        if let Err(error) = self.broker.log.bring(open.batch, requirement, done) {
            // `answers` was dropped unanswered with `done`, which told the clients.
            tracing::debug!(%error, "a batch of sends was refused");
        }
    }

    fn refuse(&self, opaque: i32, serialize: Serialize, oneway: bool, refusal: Refusal) {
        if !oneway {
            (self.connection).reply(&refusal_of_send(
                &self.broker,
                &self.config,
                opaque,
                serialize,
                refusal,
            ));
        }
    }

    /// Checks what concerns every send to be stored and finds the topic and the queue id.
    fn check(&mut self, head: &SendHead<'_>) -> Result<(Arc<TopicConfig>, i32), Refusal> {
        let found = self.find_queue(head)?;
        if self.broker.store.disk_full() {
            return Err(not_available(&self.broker));
        }
        Ok(found)
    }

    /// Checks what a client may ask of a topic and finds the topic and the queue id.
    pub(super) fn find_queue(
        &mut self,
        head: &SendHead<'_>,
    ) -> Result<(Arc<TopicConfig>, i32), Refusal> {
        let broker = &self.broker;
        if broker.is_slave() {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "[REJECTREQUEST]system busy, start flow control for a while",
            ));
        }
        let config = match &self.topic {
            Some(topic) if *topic.topic_name == *head.topic => Arc::clone(topic),
            _ => {
                let topic = self.find_topic(head)?;
                self.topic = Some(Arc::clone(&topic));
                topic
            }
        };
        if !perm::writable(self.config.broker_permission as i32) && config.order {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!(
                    "the broker[{}] sending message is forbidden",
                    self.config.broker_ip1
                ),
            ));
        }
        if head.queue_id >= config.write_queue_nums.max(config.read_queue_nums) {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "request queueId[{}] is illegal, {} Producer: {}",
                    head.queue_id,
                    describe(&config),
                    self.born_host
                ),
            ));
        }
        let queue_id = if head.queue_id >= 0 {
            head.queue_id
        } else {
            fastrand::i32(0..config.write_queue_nums.max(1))
        };
        Ok((config, queue_id))
    }

    fn find_topic(&self, head: &SendHead<'_>) -> Result<Arc<TopicConfig>, Refusal> {
        topic::validate_topic(&head.topic)
            .map_err(|error| Refusal::new(response::INVALID_PARAMETER, error.to_string()))?;
        if topic::is_not_allowed_send(&head.topic) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                format!("Sending message to topic[{}] is forbidden.", head.topic),
            ));
        }
        let topics = &self.broker.topics;
        if let Some(config) = topics.get(&head.topic) {
            return Ok(config);
        }
        let created = topics.create_for_send(
            &head.topic,
            &head.default_topic,
            head.default_topic_queue_nums,
            &self.born_host.to_string(),
        );
        match created {
            Some(config) => Ok(config),
            None if topic::is_retry(&head.topic) => {
                Ok(topics.create_for_send_back(&head.topic, 1, perm::READ | perm::WRITE))
            }
            None => Err(Refusal::new(
                response::TOPIC_NOT_EXIST,
                format!("topic[{}] not exist, apply first please!{FAQ}", head.topic),
            )),
        }
    }

    fn add(
        &mut self,
        head: &SendHead<'_>,
        body: &[u8],
        serialize: Serialize,
    ) -> Result<(), Refusal> {
        let (config, queue_id) = self.check(head)?;
        if body.len() > self.config.max_message_size as usize {
            return Err(illegal(&self.config));
        }
        let dead = self.goes_to_dead_letters(head)?;
        let mut text = std::mem::take(&mut self.text);
        let mut wishes = write_properties(&head.properties, &self.broker.stamp, &mut text);
        let made_key;
        let unique_key = match wishes.unique_key {
            Some(key) => key,
            None => {
                made_key = self.broker.unique_keys.next(clock::now_ms());
                properties::push(&mut text, name::UNIQ_KEY, &made_key);
                &made_key
            }
        };
        let mut place = Place {
            topic: Arc::clone(&config.topic_name),
            queue_id,
            properties: Cow::Borrowed(text.as_str()),
        };
        if let Some(dlq) = dead {
            place.topic = dlq;
            place.queue_id = 0;
            place.properties = properties::edit(&text, &[(name::DELAY, "-1")], &[]).into();
            wishes.delay = None;
        }
        let place = self.redirect(head, &wishes, place);
        let added = place.and_then(|(place, sys_flag)| {
            let open = if wishes.wait {
                &mut self.waiting
            } else {
                &mut self.eager
            };
            let record = Record {
                queue_id: place.queue_id,
                flag: head.message_flag,
                queue_offset: 0,
                physical_offset: 0,
                sys_flag: sys_flag | topic_sys_flag(&config),
                born_timestamp: head.born_timestamp,
                born_host: self.born_host,
                store_timestamp: 0,
                store_host: self.broker.store_host,
                reconsume_times: head.reconsume_times,
                prepared_transaction_offset: 0,
                body,
                topic: &place.topic,
                properties: &place.properties,
            };
            let open = open.begin(&self.broker);
            let before = open.batch.byte_len();
            (open.batch.push(&place.topic, &record)).map_err(|error| match error {
                RecordError::Zero(_) => zero_byte(),
                _ => illegal(&self.config),
            })?;
            let recall_handle = if wishes.timer {
                self.broker.recall_handle(&place, unique_key)
            } else {
                None
            };
            let bytes = open.batch.byte_len() - before;
            let key = open.answers.key(unique_key);
            open.answers.push(
                &self.connection,
                Sent {
                    opaque: head.head.opaque,
                    serialize,
                    oneway: head.head.flag & 2 != 0,
                    queue_id,
                    topic: place.topic,
                    records: 1,
                    bytes,
                    key,
                    recall_handle,
                },
            );
            Ok(())
        });
        self.text = text;
        added?;
        self.cut(wishes.wait);
        Ok(())
    }

    /// Sends a grown batch on its way.
    fn cut(&mut self, wait: bool) {
        let open = if wait { &self.waiting } else { &self.eager };
        if open.batch.byte_len() >= BATCH_BYTES {
            self.submit(wait);
            self.broker.log.append_brought();
        }
    }

    /// The group's dead letter queue, if this is a message to be consumed again that has been so too often, or whose group
    /// consumes in order (`SendMessageProcessor.handleRetryAndDLQ`).
    fn goes_to_dead_letters(&self, head: &SendHead<'_>) -> Result<Option<Arc<str>>, Refusal> {
        let Some(group) = topic::retry_group(&head.topic) else {
            return Ok(None);
        };
        // A POP retry topic of version 2 carries the topic behind a plus sign (`KeyBuilder.parseGroup`).
        let group = group.split_once('+').map_or(group, |(group, _)| group);
        let Some(config) = self.broker.groups.find(group) else {
            return Err(no_group(group));
        };
        let max = match head.max_reconsume_times {
            Some(max) if head.head.version >= VERSION_MAX_RECONSUME => max,
            _ => config.retry_max_times,
        };
        let ordered = self.broker.locks.group_is_locked(group, Instant::now());
        if head.reconsume_times <= max && !ordered {
            return Ok(None);
        }
        let dlq = (self.broker.topics).create_for_send_back(
            &topic::dlq(group),
            1,
            perm::READ | perm::WRITE,
        );
        Ok(Some(Arc::clone(&dlq.topic_name)))
    }

    /// Where the message lies until it may be consumed, and with which flags: its own queue, a delay level's, or among the half
    /// messages.
    fn redirect<'t>(
        &self,
        head: &SendHead<'_>,
        wishes: &Wishes<'_>,
        place: Place<'t>,
    ) -> Result<(Place<'t>, i32), Refusal> {
        let level = match wishes.delay {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                Refusal::system_error(format!("the property DELAY is {text:?}, not a delay level"))
            })?,
        };
        let half = wishes.transaction && !(head.reconsume_times > 0 && level > 0);
        if half {
            if self.config.reject_transaction_message {
                return Err(Refusal::new(
                    response::NO_PERMISSION,
                    format!(
                        "the broker[{}] sending transaction message is forbidden",
                        self.config.broker_ip1
                    ),
                ));
            }
            // A delay or a time of its own counts from the commit.
            return Ok((
                transaction::half(place, wishes.unique_key),
                head.sys_flag & !sysflag::TRANSACTION_MASK,
            ));
        }
        let state = head.sys_flag & sysflag::TRANSACTION_MASK;
        if state != sysflag::TRANSACTION_NOT && state != sysflag::TRANSACTION_COMMIT {
            return Ok((place, head.sys_flag));
        }
        if level > 0 {
            return Ok((place.delayed(&self.broker, level), head.sys_flag));
        }
        if wishes.timer && !wishes.timer_out {
            return Ok((self.broker.timed(place)?, head.sys_flag));
        }
        if wishes.light {
            return Ok((self.broker.in_light_queues(place)?, head.sys_flag));
        }
        Ok((place, head.sys_flag))
    }

    fn add_batch(
        &mut self,
        head: &SendHead<'_>,
        body: &[u8],
        serialize: Serialize,
    ) -> Result<(), Refusal> {
        let (config, queue_id) = self.check(head)?;
        if head.topic.len() > topic::TOPIC_LEN_MAX {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!("message topic length too long {}", head.topic.len()),
            ));
        }
        if topic::is_retry(&head.topic) {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!("batch request does not support retry group {}", head.topic),
            ));
        }
        let mut text = std::mem::take(&mut self.text);
        let wishes = write_properties(&head.properties, "", &mut text);
        self.text = text;
        let delayed = wishes.delay.is_some_and(|level| level != "0");
        if delayed
            || wishes.transaction
            || head.sys_flag & sysflag::TRANSACTION_MASK != 0
            || body.len() > self.config.max_message_size as usize
        {
            return Err(illegal(&self.config));
        }
        // All entries are looked at before the first is taken: a batch is stored whole or not at all.
        let entries = batch::entries(body).collect::<Result<Vec<_>, _>>();
        let entries =
            entries.map_err(|error| Refusal::new(response::MESSAGE_ILLEGAL, error.to_string()))?;
        for entry in &entries {
            if entry.properties.len() > properties::LEN_MAX {
                return Err(illegal(&self.config));
            }
            if entry.properties.contains('\0') {
                return Err(zero_byte());
            }
        }
        let records = entries.len();
        if records == 0 {
            return Err(illegal(&self.config));
        }
        let open = if wishes.wait {
            &mut self.waiting
        } else {
            &mut self.eager
        };
        let open = open.begin(&self.broker);
        let before = open.batch.byte_len();
        for entry in entries {
            let record = Record {
                queue_id,
                flag: entry.flag,
                queue_offset: 0,
                physical_offset: 0,
                sys_flag: head.sys_flag | topic_sys_flag(&config),
                born_timestamp: head.born_timestamp,
                born_host: self.born_host,
                store_timestamp: 0,
                store_host: self.broker.store_host,
                reconsume_times: head.reconsume_times,
                prepared_transaction_offset: 0,
                body: entry.body,
                topic: &config.topic_name,
                properties: entry.properties,
            };
            (open.batch.push(&config.topic_name, &record))
                .expect("topic and properties were checked before");
        }
        let key = open.answers.key(wishes.unique_key.unwrap_or_default());
        open.answers.push(
            &self.connection,
            Sent {
                opaque: head.head.opaque,
                serialize,
                oneway: head.head.flag & 2 != 0,
                queue_id,
                topic: Arc::clone(&config.topic_name),
                records,
                bytes: open.batch.byte_len() - before,
                key,
                recall_handle: None,
            },
        );
        self.cut(wishes.wait);
        Ok(())
    }
}

/// Where a record goes and with which properties.
pub(super) struct Place<'t> {
    pub topic: Arc<str>,
    pub queue_id: i32,
    pub properties: Cow<'t, str>,
}

impl<'t> Place<'t> {
    /// The same message, put into a delay level's queue with its own place remembered
    /// (`HookUtils.transformDelayLevelMessage`). A level beyond the last is the last.
    pub(super) fn delayed(self, broker: &Broker, level: i32) -> Place<'t> {
        let level = level.min(broker.schedule.levels() as i32);
        let text = properties::edit(
            &self.properties,
            &[
                (name::DELAY, &level.to_string()),
                (name::REAL_TOPIC, &self.topic),
                (name::REAL_QID, &self.queue_id.to_string()),
            ],
            &[
                name::TIMER_DELIVER_MS,
                name::TIMER_DELAY_SEC,
                name::TIMER_DELAY_MS,
            ],
        );
        Place {
            topic: broker.schedule.topic(),
            queue_id: level - 1,
            properties: text.into(),
        }
    }
}

/// Copies a client's property string without what a client may not say (POP_CK) and what the broker says itself
/// (`stamp`: MSG_REGION, TRACE_ON, CLUSTER), and reads what concerns the broker on the way. What stays is copied in runs: mostly
/// all of it at once.
fn write_properties<'a>(from: &'a str, stamp: &str, text: &mut String) -> Wishes<'a> {
    let mut wishes = Wishes {
        wait: true,
        ..Wishes::default()
    };
    text.clear();
    text.reserve(from.len() + stamp.len() + 64);
    // The run that is to be copied.
    let mut run = 0..0;
    let mut pairs = properties::pairs(from);
    while let Some((key, value)) = pairs.next() {
        match key {
            name::POP_CK => continue,
            name::MSG_REGION | name::TRACE_ON | name::CLUSTER if !stamp.is_empty() => continue,
            name::UNIQ_KEY => wishes.unique_key = Some(value),
            name::DELAY => wishes.delay = Some(value),
            name::TRAN_MSG => wishes.transaction = value.eq_ignore_ascii_case("true"),
            name::WAIT => wishes.wait = value.eq_ignore_ascii_case("true"),
            name::TIMER_DELAY_SEC | name::TIMER_DELAY_MS | name::TIMER_DELIVER_MS => {
                wishes.timer = true;
            }
            name::TIMER_OUT_MS => wishes.timer_out = true,
            name::INNER_MULTI_DISPATCH => wishes.light = true,
            _ => {}
        }
        let span = pairs.span();
        if span.start != run.end {
            text.push_str(&from[run]);
            run = span.start..span.start;
        }
        run.end = span.end;
    }
    text.push_str(&from[run]);
    if !text.is_empty() && !text.ends_with(properties::PROPERTY_SEPARATOR) {
        text.push(properties::PROPERTY_SEPARATOR);
    }
    text.push_str(stamp);
    wishes
}

/// The properties that every stored message gets from this broker.
pub(super) fn stamp(config: &BrokerConfig) -> String {
    let mut text = String::new();
    properties::push(&mut text, name::MSG_REGION, &config.region_id);
    properties::push(&mut text, name::TRACE_ON, trace_on(config));
    properties::push(&mut text, name::CLUSTER, &config.broker_cluster_name);
    text
}

/// Multi-tag topics mark their messages (`TopicFilterType.MULTI_TAG`).
fn topic_sys_flag(config: &TopicConfig) -> i32 {
    if config.topic_filter_type == "MULTI_TAG" {
        sysflag::MULTI_TAGS
    } else {
        0
    }
}

/// `TopicConfig.toString` as it stands in remarks.
fn describe(config: &TopicConfig) -> String {
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType={}, topicSysFlag={}, order={}, attributes={:?}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        perm::text(config.perm),
        config.topic_filter_type,
        config.topic_sys_flag,
        config.order,
        config.attributes,
    )
}

fn illegal(config: &BrokerConfig) -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        format!(
            "the message is illegal, maybe msg body or properties length not matched. msg body length limit {}B, msg properties length limit 32KB.",
            config.max_message_size
        ),
    )
}

/// Java stores such properties. Here they are what tells a whole record from one of which a power cut lost a part.
fn zero_byte() -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        "the message is illegal, its properties hold a zero byte",
    )
}

pub(super) fn no_group(group: &str) -> Refusal {
    Refusal::new(
        response::SUBSCRIPTION_GROUP_NOT_EXIST,
        format!("subscription group not exist, {group} {FAQ}"),
    )
}
