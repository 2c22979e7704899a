//! POP_MESSAGE (200050).

use super::line::{Spot, Waiting};
use super::{Busy, Patience};
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::broker::sent::refusal_of_append;
use crate::clock;
use crate::config::BrokerConfig;
use crate::log::AppendError;
use crate::net::Connection;
use bytes::BytesMut;
use rocketmq_protocol::body::{SubscriptionData, TopicConfig};
use rocketmq_protocol::code::response;
use rocketmq_protocol::pop::{self, CheckPoint, Handle};
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, Record};
use rocketmq_protocol::sql::Expression;
use rocketmq_protocol::{Command, topic};
use rocketmq_store::reader::QueueRead;
use rocketmq_store::{ReadStatus, RecordBatch};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most bytes of one answer; the store's own limits are far below.
const BYTES_MAX: usize = 128 << 20;
/// `initMode` of who wants only what comes from now on (`ConsumeInitMode.MAX`).
const FROM_THE_END: i32 = 1;

/// One POP, as it waits and is served.
#[derive(Clone, Debug)]
pub(super) struct Pop {
    connection: Connection,
    command: Arc<Command>,
    spot: Spot,
    count: usize,
    invisible_time: i64,
    patience: Patience,
    init_mode: i32,
    order: bool,
    attempt: Option<Arc<str>>,
    subscription: Arc<SubscriptionData>,
    expression: Option<Arc<Expression>>,
}

/// What one POP gets, queue by queue.
struct Taking<'p> {
    pop: &'p Pop,
    pop_time: i64,
    revive_queue: i32,
    body: BytesMut,
    count: usize,
    rest: i64,
    start_offsets: String,
    offsets: String,
    counts: String,
    checks: RecordBatch,
    taken: Vec<Taken>,
    /// When the first queue that is blocked now is free again.
    free_ms: Option<i64>,
}

/// Messages of one queue that are to be handed out.
struct Taken {
    busy: Busy,
    next_offset: i64,
    count: usize,
    bytes: usize,
}

impl Broker {
    /// Takes a POP and answers it, now or when a message comes.
    pub(in crate::broker) fn pop(
        self: &Arc<Self>,
        connection: &Connection,
        command: Command,
    ) -> Option<Command> {
        match self.read_pop(connection, &command) {
            Ok(pop) => {
                self.serve_pop(pop);
                None
            }
            Err(refusal) => Some(refusal.answer(&command)),
        }
    }

    fn read_pop(&self, connection: &Connection, command: &Command) -> Result<Pop, Refusal> {
        let config = self.config.get();
        let ext = &command.ext;
        let count = ext.i32("maxMsgNums")?;
        let patience = Patience::read(command)?;
        if patience.too_late(clock::now_ms()) {
            return Err(Refusal::new(
                response::POLLING_TIMEOUT,
                format!(
                    "the broker[{}] pop message is timeout too much",
                    config.broker_ip1
                ),
            ));
        }
        if count > pop::MESSAGES_MAX {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                format!(
                    "the broker[{}] pop message's num is greater than 32",
                    config.broker_ip1
                ),
            ));
        }
        if !config.timer_wheel_enable {
            return Err(Refusal::system_error(format!(
                "the broker[{}] pop message is forbidden because timerWheelEnable is false",
                config.broker_ip1
            )));
        }
        let (topic, _, spot) = self.check_pop(connection, command, "pop")?;
        let text = ext.get("exp").filter(|text| !text.is_empty());
        let kind = ext.get("expType").filter(|kind| !kind.is_empty());
        let subscription = match (text, kind) {
            (Some(text), Some(kind)) if kind != SubscriptionData::TAG => SubscriptionData {
                topic: Arc::clone(&topic.topic_name),
                sub_string: text.into(),
                expression_type: kind.into(),
                ..SubscriptionData::default()
            },
            (text, _) => SubscriptionData::parse_tags(
                &topic.topic_name,
                text.unwrap_or(SubscriptionData::ALL),
            ),
        };
        let expression = self.expression(&subscription, |_| {
            Refusal::new(
                response::SUBSCRIPTION_PARSE_FAILED,
                "parse the consumer's subscription failed",
            )
        })?;
        Ok(Pop {
            connection: connection.clone(),
            spot,
            count: count.max(1) as usize,
            invisible_time: ext.i64("invisibleTime")?,
            patience,
            init_mode: ext.i32("initMode")?,
            order: ext.bool_or("order", false)?,
            attempt: ext
                .get("attemptId")
                .filter(|text| !text.is_empty())
                .map(Arc::from),
            subscription: Arc::new(subscription),
            expression,
            command: Arc::new(command.clone()),
        })
    }

    pub(super) fn serve_again(self: &Arc<Self>, woken: Vec<Waiting<Pop>>) {
        for waiting in woken {
            self.serve_pop(waiting.request);
        }
    }

    /// The last answer of one that waits while the broker stops.
    pub(super) fn end_pop(&self, pop: Pop) {
        pop.answer_empty(response::POLLING_TIMEOUT, &Taking::new(self, &pop));
    }

    fn serve_pop(self: &Arc<Self>, mut pop: Pop) {
        // Goes round only when something came between the look and standing in line.
        loop {
            if pop.connection.is_closed() {
                return;
            }
            let mut taking = Taking::new(self, &pop);
            if let Err(refusal) = taking.take(self) {
                return pop.reply(&refusal.answer(&pop.command));
            }
            if taking.count > 0 {
                return taking.hand_out(self);
            }
            self.stats.miss();
            let now_ms = clock::now_ms();
            if pop.patience.over(now_ms) {
                return pop.answer_empty(response::POLLING_TIMEOUT, &taking);
            }
            let waiting = Waiting {
                spot: pop.spot.clone(),
                connection: pop.connection.id(),
                // An expression sees the message only when it is read; its subscription names no tags.
                subscription: Some(Arc::clone(&pop.subscription)),
                due: pop.patience.due(now_ms, taking.free_ms),
                request: pop.clone(),
            };
            let ready = |waiting: &Waiting<Pop>| {
                self.can_pop(&waiting.spot, pop.order, pop.attempt.as_deref())
            };
            match self.pops.waiting.wait(&self.config.get(), waiting, ready) {
                Ok(None) => return,
                Ok(Some(again)) => {
                    drop(taking);
                    pop = again.request;
                }
                Err(_) => return pop.answer_empty(response::POLLING_FULL, &taking),
            }
        }
    }

    /// Where a group goes on in a queue it pops; a group that never did begins where `initMode` says.
    fn pop_offset(&self, pop: &Pop, topic: &str, queue_id: i32, commit: bool) -> i64 {
        let group = &pop.spot.group;
        if let Some(offset) = self
            .offsets
            .query(group, topic, queue_id)
            .filter(|offset| *offset >= 0)
        {
            return offset;
        }
        let (min, max) = self.store.queue_bounds(topic, queue_id);
        let offset = if pop.init_mode != FROM_THE_END || topic::is_retry(topic) {
            min
        } else if min <= 0 && (max == 0 || self.store.in_memory(topic, queue_id, 0)) {
            // A young topic is read from its begin, so that what was sent just before the first pop is not missed.
            0
        } else {
            (max - 1).max(0)
        };
        if commit {
            self.offsets.commit(group, topic, queue_id, offset);
        }
        offset
    }
}

impl Pop {
    fn reply(&self, answer: &Command) {
        if !self.command.is_oneway() {
            self.connection.reply(answer);
        }
    }

    fn answer_empty(&self, code: i32, taking: &Taking<'_>) {
        self.reply(&taking.answer(code).with_remark("NO_MESSAGE_IN_QUEUE"));
    }
}

impl<'p> Taking<'p> {
    fn new(broker: &Broker, pop: &'p Pop) -> Taking<'p> {
        let queues = broker.config.get().revive_queue_num.max(1);
        let revive_queue = if pop.order {
            pop::ORDER_REVIVE_QUEUE
        } else {
            (broker.pops.turn.fetch_add(1, Ordering::Relaxed) % queues) as i32
        };
        Taking {
            pop,
            pop_time: clock::now_ms(),
            revive_queue,
            body: BytesMut::new(),
            count: 0,
            rest: 0,
            start_offsets: String::new(),
            offsets: String::new(),
            counts: String::new(),
            checks: RecordBatch::new(),
            taken: Vec::new(),
            free_ms: None,
        }
    }

    /// Goes through the queues from a random one on; the retry topic comes first now and then, else last.
    fn take(&mut self, broker: &Arc<Broker>) -> Result<(), Refusal> {
        let config = broker.config.get();
        let random = fastrand::i32(0..100);
        let retry = if self.pop.order {
            None
        } else {
            // One of the two forms at a time: the lists of the answer cannot tell their queues apart.
            let mut topics = broker.retry_topics(&config, &self.pop.spot);
            (!topics.is_empty()).then(|| topics.swap_remove(random as usize % topics.len()))
        };
        let retry_first = random < config.pop_from_retry_probability as i32;
        if let Some(topic) = retry.as_ref().filter(|_| retry_first) {
            self.take_topic(broker, &config, topic, random)?;
        }
        match self.pop.spot.queue_id {
            queue if queue >= 0 => self.take_queue(broker, &config, &self.pop.spot.topic, queue)?,
            _ => {
                if let Some(topic) = broker.topics.get(&self.pop.spot.topic) {
                    self.take_topic(broker, &config, &topic, random)?;
                }
            }
        }
        if let Some(topic) = retry.filter(|_| !retry_first) {
            self.take_topic(broker, &config, &topic, random)?;
        }
        Ok(())
    }

    fn take_topic(
        &mut self,
        broker: &Arc<Broker>,
        config: &BrokerConfig,
        topic: &TopicConfig,
        random: i32,
    ) -> Result<(), Refusal> {
        for at in 0..topic.read_queue_nums {
            let queue = (random + at) % topic.read_queue_nums;
            self.take_queue(broker, config, &topic.topic_name, queue)?;
        }
        Ok(())
    }

    fn take_queue(
        &mut self,
        broker: &Arc<Broker>,
        config: &BrokerConfig,
        topic: &Arc<str>,
        queue_id: i32,
    ) -> Result<(), Refusal> {
        let pop = self.pop;
        let group = &pop.spot.group;
        let spot = Spot {
            topic: Arc::clone(topic),
            group: Arc::clone(group),
            queue_id,
        };
        let behind = |offset: i64| (broker.store.queue_bounds(topic, queue_id).1 - offset).max(0);
        if self.count >= pop.count {
            self.rest += behind(broker.pop_offset(pop, topic, queue_id, false));
            return Ok(());
        }
        if !broker.pops.busy.lock().insert(spot.clone()) {
            if !pop.order {
                self.rest += behind(broker.pop_offset(pop, topic, queue_id, false));
            }
            return Ok(());
        }
        let busy = Busy {
            broker: Arc::clone(broker),
            spot,
            asked: Arc::clone(&pop.spot.topic),
        };
        let mut offset = broker.pop_offset(pop, topic, queue_id, true);
        if let Some(reset) = broker.offsets.take_reset(group, topic, queue_id) {
            broker.pops.orders.forget(topic, group, queue_id);
            broker.offsets.commit(group, topic, queue_id, reset);
            offset = reset;
        }
        if pop.order {
            let attempt = pop.attempt.as_deref();
            let blocked =
                (broker.pops.orders).blocked_until(topic, group, queue_id, attempt, self.pop_time);
            if let Some(until) = blocked {
                // Its messages do not count as rest: nobody can have them now.
                self.free_ms = Some(self.free_ms.map_or(until, |free| free.min(until)));
                return Ok(());
            }
        }
        let mut read = self.read(broker, topic, queue_id, offset)?;
        if matches!(
            read.status,
            ReadStatus::OffsetTooSmall
                | ReadStatus::OffsetOverflowBadly
                | ReadStatus::OffsetFoundNull
        ) {
            // The stored offset points at nothing: on from where there is something.
            offset = read.next_offset;
            broker.offsets.commit(group, topic, queue_id, offset);
            read = self.read(broker, topic, queue_id, offset)?;
        }
        self.rest += (read.max_offset - read.next_offset).max(0);
        if read.count == 0 {
            if matches!(
                read.status,
                ReadStatus::NoMatchedMessage
                    | ReadStatus::OffsetFoundNull
                    | ReadStatus::MessageWasRemoving
            ) {
                broker
                    .offsets
                    .commit(group, topic, queue_id, read.next_offset);
            }
            return Ok(());
        }
        self.put(broker, config, busy, offset, &read)
    }

    fn read(
        &self,
        broker: &Broker,
        topic: &str,
        queue_id: i32,
        from: i64,
    ) -> Result<QueueRead, Refusal> {
        let pop = self.pop;
        (broker.store)
            .read_queue(
                topic,
                queue_id,
                from,
                pop.count - self.count,
                BYTES_MAX,
                &mut |entry| match &pop.expression {
                    None => Ok(pop.subscription.matches(entry.tags_code)),
                    Some(expression) => broker.passes(expression, entry),
                },
            )
            .map_err(|error| {
                let text = format!("reading queue {queue_id} of {topic} at {from} failed: {error}");
                tracing::error!("{text}");
                Refusal::system_error(text)
            })
    }

    /// Adds what was read to the answer, and to the checkpoints.
    fn put(
        &mut self,
        broker: &Broker,
        config: &BrokerConfig,
        busy: Busy,
        start: i64,
        read: &QueueRead,
    ) -> Result<(), Refusal> {
        let pop = self.pop;
        let Spot {
            topic,
            group,
            queue_id,
        } = busy.spot.clone();
        let renamed = topic::is_retry(&topic)
            && topic != pop.spot.topic
            && !config.pop_response_return_actual_retry_topic;
        let before = self.body.len();
        let mut offsets = Vec::with_capacity(read.count);
        for span in &read.spans {
            for view in record::records(span) {
                let unreadable = |error: record::RecordError| {
                    Refusal::system_error(format!(
                        "a message of queue {queue_id} of {topic} does not read: {error}"
                    ))
                };
                let view = view.map_err(unreadable)?;
                offsets.push(view.queue_offset());
                if renamed {
                    let handle = Handle {
                        start_offset: start,
                        pop_time: self.pop_time,
                        invisible_time: pop.invisible_time,
                        revive_queue: self.revive_queue,
                        mark: pop::mark_of(&topic).to_owned(),
                        broker_name: config.broker_name.clone(),
                        queue_id,
                        queue_offset: view.queue_offset(),
                    };
                    rename(
                        &view.decode().map_err(unreadable)?,
                        &pop.spot.topic,
                        &handle,
                        &mut self.body,
                    )
                    .map_err(unreadable)?;
                }
            }
            if !renamed {
                self.body.extend_from_slice(span);
            }
        }
        if pop.order {
            broker.pops.orders.popped(
                &topic,
                &group,
                queue_id,
                pop.attempt.as_deref(),
                (self.pop_time, pop.invisible_time),
                &offsets,
                &mut self.counts,
            );
        } else {
            let check = CheckPoint {
                broker_name: config.broker_name.clone(),
                group: group.to_string(),
                diffs: offsets
                    .iter()
                    .map(|offset| (offset - start) as i32)
                    .collect(),
                invisible_time: pop.invisible_time,
                count: offsets.len() as i32,
                pop_time: self.pop_time,
                queue_id,
                start_offset: start,
                topic: topic.to_string(),
                ..CheckPoint::default()
            };
            broker.push_check_point(&mut self.checks, &check, self.revive_queue)?;
        }
        pop::push_info(&mut self.start_offsets, &topic, queue_id, start);
        let list: Vec<String> = offsets.iter().map(i64::to_string).collect();
        pop::push_info(&mut self.offsets, &topic, queue_id, list.join(","));
        self.count += offsets.len();
        self.taken.push(Taken {
            busy,
            // In order the group's offset moves when messages are acknowledged.
            next_offset: if pop.order { start } else { read.next_offset },
            count: offsets.len(),
            bytes: self.body.len() - before,
        });
        Ok(())
    }

    fn answer(&self, code: i32) -> Command {
        let answer = (self.pop.command)
            .response(code)
            .with("popTime", self.pop_time)
            .with("invisibleTime", self.pop.invisible_time)
            .with("reviveQid", self.revive_queue)
            .with("restNum", self.rest)
            .with("startOffsetInfo", &self.start_offsets)
            .with("msgOffsetInfo", &self.offsets);
        if self.pop.order {
            return answer.with("orderCountInfo", &self.counts);
        }
        answer
    }

    /// Answers once the checkpoints are stored; then the group's offsets move and the queues are free.
    fn hand_out(mut self, broker: &Arc<Broker>) {
        let body = std::mem::take(&mut self.body).freeze();
        let answer = self
            .answer(response::SUCCESS)
            .with_remark("FOUND")
            .with_body(body);
        let (pop, taken) = (self.pop.clone(), self.taken);
        if pop.order {
            return handed_out(broker, &pop, taken, &answer);
        }
        let requirement = broker.requirement(&broker.config.get());
        let (done_broker, done_pop) = (Arc::clone(broker), pop.clone());
        let done = Box::new(move |result: Result<_, AppendError>| match result {
            Ok(_) => handed_out(&done_broker, &done_pop, taken, &answer),
            Err(error) => {
                drop(taken);
                let refusal = refusal_of_append(&done_broker, &error);
                done_pop.reply(&refusal.answer(&done_pop.command));
            }
        });
        if let Err(error) = broker.log.append(self.checks, requirement, done) {
            pop.reply(&refusal_of_append(broker, &error).answer(&pop.command));
        }
    }
}

fn handed_out(broker: &Broker, pop: &Pop, taken: Vec<Taken>, answer: &Command) {
    for each in &taken {
        let Spot {
            topic,
            group,
            queue_id,
        } = &each.busy.spot;
        broker
            .offsets
            .commit(group, topic, *queue_id, each.next_offset);
        broker
            .stats
            .get(group, topic, each.count as u64, each.bytes as u64);
    }
    pop.reply(answer);
    // Frees the queues, which wakes who waits for what is left in them.
    drop(taken);
}

/// A message of a retry topic, as if it came from the topic that was asked for; the handle says where it really lies.
fn rename(
    record: &Record<'_>,
    asked: &str,
    handle: &Handle,
    out: &mut BytesMut,
) -> Result<(), record::RecordError> {
    let handle = handle.to_string();
    let text = match properties::get(record.properties, name::POP_CK) {
        Some(_) => record.properties.to_owned(),
        None => properties::edit(record.properties, &[(name::POP_CK, &handle)], &[]),
    };
    let renamed = Record {
        topic: asked,
        properties: &text,
        ..record.clone()
    };
    record::encode(&renamed, out).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retried_message_names_its_own_topic_and_keeps_its_place() {
        let host = "127.0.0.1:10911".parse().unwrap();
        let record = Record {
            queue_id: 0,
            flag: 3,
            queue_offset: 9,
            physical_offset: 4711,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_timestamp: 2,
            store_host: host,
            reconsume_times: 1,
            prepared_transaction_offset: 0,
            body: b"x",
            topic: "%RETRY%g_T",
            properties: "TAGS\u{1}A\u{2}",
        };
        let handle = Handle::parse("9 1 2 3 1 broker-a 0 9").unwrap();
        let mut out = BytesMut::new();
        rename(&record, "T", &handle, &mut out).unwrap();
        let bytes = out.freeze();
        let view = record::View::record(&bytes).unwrap();
        let text = view.properties().unwrap();
        assert_eq!(
            (
                view.topic().unwrap(),
                view.queue_offset(),
                view.physical_offset()
            ),
            ("T", 9, 4711)
        );
        assert_eq!(view.store_timestamp(), 2);
        assert_eq!(
            properties::get(text, name::POP_CK),
            Some("9 1 2 3 1 broker-a 0 9")
        );
        assert_eq!(properties::get(text, name::TAGS), Some("A"));
    }
}
