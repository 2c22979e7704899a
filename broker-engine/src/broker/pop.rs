//! POP consumption: the broker hands out messages, keeps who has them, and hands out again what nobody acknowledged in time.
//!
//! A POP ([`take`]) moves the group's offset over what it hands out and writes a *checkpoint* to the revive log, a topic whose
//! messages the timer delivers when their messages would become visible again. An ACK ([`ack`]) writes to the same queue of it.
//! The reviver ([`revive`]) reads both and puts what is open to the group's POP retry topic. Popped in order, a message stays
//! where it is instead, and blocks its queue ([`order`]). Who finds nothing waits in [`line`]; [`notify`] waits there too and is
//! only told that something came.
//!
//! A lost checkpoint would be lost messages, so a POP is answered, and the offset moved, once the checkpoint is stored as a
//! send would be. The Java broker's in-memory merge of checkpoints and acknowledgements (`enablePopBufferMerge`, off by default)
//! is not built, nor its RocksDB form (`popConsumerKVServiceEnable`, off by default).
//! Source: `apache/rocketmq: broker/.../processor/{PopMessageProcessor,AckMessageProcessor,PopReviveService}.java`.

mod ack;
mod line;
mod notify;
mod order;
mod revive;
mod take;

pub(super) use revive::run as run_revive;

use super::refusal::Refusal;
use super::send::{FAQ, Place};
use super::{Broker, soon};
use crate::clock;
use crate::config::BrokerConfig;
use crate::log::Arrival;
use crate::net::Connection;
use line::{Lines, Spot, Waiting};
use notify::Notice;
use order::Orders;
use parking_lot::Mutex;
use rocketmq_protocol::body::{SubscriptionGroupConfig, TopicConfig};
use rocketmq_protocol::code::response;
use rocketmq_protocol::pop::CheckPoint;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::Record;
use rocketmq_protocol::topic::{self, perm};
use rocketmq_protocol::{Command, pop};
use rocketmq_store::RecordBatch;
use rocketmq_store::table::TableError;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, fence};
use std::time::{Duration, Instant};
use take::Pop;
use tokio::sync::{Notify, watch};

/// A request whose time ends within this counts as ended (`PopRequest.isTimeout`), ms.
const NEARLY_MS: i64 = 50;
/// A request that comes this much after its own end is refused (`PopMessageRequestHeader.isTimeoutTooMuch`), ms.
const TOO_LATE_MS: i64 = 500;

/// What the broker keeps for POP beside the revive log.
#[derive(Debug)]
pub struct Pops {
    /// The revive log.
    revive_topic: Arc<str>,
    /// Queues that somebody pops from right now, each with its group.
    busy: Mutex<HashSet<Spot>>,
    /// Deals checkpoints to the revive log's queues in turn.
    turn: AtomicU32,
    orders: Orders,
    waiting: Bench<Pop>,
    listening: Bench<Notice>,
    /// Something came to the revive log.
    revive_arrived: Notify,
}

/// Those who wait, and what whoever appends needs to know of them without a lock.
#[derive(Debug)]
struct Bench<P> {
    lines: Mutex<Lines<P>>,
    count: AtomicUsize,
    sooner: Notify,
}

impl<P> Default for Bench<P> {
    fn default() -> Self {
        Bench {
            lines: Mutex::default(),
            count: AtomicUsize::new(0),
            sooner: Notify::new(),
        }
    }
}

impl<P> Bench<P> {
    fn with<T>(&self, act: impl FnOnce(&mut Lines<P>) -> T) -> T {
        let mut lines = self.lines.lock();
        let result = act(&mut lines);
        self.count.store(lines.len(), Ordering::SeqCst);
        result
    }

    fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    fn woken_by(&self, arrivals: &[Arrival]) -> Vec<Waiting<P>> {
        let mut woken = Vec::new();
        if self.len() != 0 {
            self.with(|lines| {
                for arrival in arrivals {
                    lines.on_arrival(
                        &arrival.topic,
                        arrival.queue_id,
                        arrival.tags_code,
                        &mut woken,
                    );
                }
            });
        }
        woken
    }

    /// Lets one wait. What comes back is to be served again: something came meanwhile (`ready`); an error: there is no room.
    fn wait(
        &self,
        config: &BrokerConfig,
        waiting: Waiting<P>,
        ready: impl FnOnce(&Waiting<P>) -> bool,
    ) -> Result<Option<Waiting<P>>, Waiting<P>>
    where
        P: Clone,
    {
        let shown = Waiting {
            spot: waiting.spot.clone(),
            subscription: waiting.subscription.clone(),
            request: waiting.request.clone(),
            ..waiting
        };
        let due = waiting.due;
        let (all, line) = (
            config.max_pop_polling_size as usize,
            config.pop_polling_size as usize,
        );
        let (joined, first) = self.with(|lines| {
            let first = lines.next_due().is_none_or(|next| due < next);
            (lines.join(waiting, all, line), first)
        });
        let id = joined.map_err(|(_, waiting)| waiting)?;
        if first {
            self.sooner.notify_one();
        }
        // Pairs with the fence in `Broker::pop_arrivals`: either it sees who waits, or we see what came.
        fence(Ordering::SeqCst);
        if ready(&shown) {
            return Ok(self.with(|lines| lines.take(id)));
        }
        Ok(None)
    }

    /// Resolves with those whose time is up.
    async fn due(&self) -> Vec<Waiting<P>> {
        loop {
            let next = self.lines.lock().next_due();
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {
                        let up = self.with(|lines| lines.on_tick(Instant::now()));
                        if !up.is_empty() {
                            return up;
                        }
                    }
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }
}

impl Pops {
    pub(super) fn open(config_dir: &Path, config: &BrokerConfig) -> Result<Pops, TableError> {
        Ok(Pops {
            revive_topic: [topic::REVIVE_PREFIX, &config.broker_cluster_name]
                .concat()
                .into(),
            busy: Mutex::default(),
            turn: AtomicU32::new(0),
            orders: Orders::open(config_dir)?,
            waiting: Bench::default(),
            listening: Bench::default(),
            revive_arrived: Notify::new(),
        })
    }

    /// A connection has ended.
    pub(super) fn connection_closed(&self, connection: &Connection) {
        if self.waiting.len() != 0 {
            self.waiting
                .with(|lines| lines.connection_closed(connection.id()));
        }
        if self.listening.len() != 0 {
            self.listening
                .with(|lines| lines.connection_closed(connection.id()));
        }
    }

    /// Writes what changed.
    pub(super) fn flush(&self) -> Result<(), TableError> {
        self.orders.flush(clock::now_ms())
    }
}

/// A queue that nobody else of the group pops from until this is dropped.
struct Busy {
    broker: Arc<Broker>,
    spot: Spot,
    /// What was asked for: those who wait stand in line for it, also when this is its retry topic.
    asked: Arc<str>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.broker.pops.busy.lock().remove(&self.spot);
        let Spot {
            topic,
            group,
            queue_id,
        } = &self.spot;
        if self.broker.pops.waiting.len() != 0 && self.broker.rest_of(topic, group, *queue_id) > 0 {
            self.broker.wake_pops(&self.asked, group, *queue_id);
        }
    }
}

impl Broker {
    /// Messages have arrived (told by whoever appended them).
    pub(super) fn pop_arrivals(self: &Arc<Self>, arrivals: &[Arrival]) {
        let pops = &self.pops;
        if (arrivals.iter()).any(|arrival| *arrival.topic == *pops.revive_topic) {
            pops.revive_arrived.notify_one();
        }
        // Pairs with the fence in `Bench::wait`.
        fence(Ordering::SeqCst);
        let (woken, told) = (
            pops.waiting.woken_by(arrivals),
            pops.listening.woken_by(arrivals),
        );
        if woken.is_empty() && told.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        soon::soon(&self.runtime, woken.len() + told.len(), move || {
            broker.serve_again(woken);
            broker.notify_again(told);
        });
    }

    /// Something of a group's can be popped that no arrival tells of: a queue is free again, or messages came to the retry topic.
    fn wake_pops(self: &Arc<Self>, topic: &str, group: &str, queue_id: i32) {
        let pops = &self.pops;
        let woken: Vec<_> = pops.waiting.with(|lines| {
            [-1, queue_id]
                .into_iter()
                .filter_map(|queue| lines.first(topic, group, queue))
                .collect()
        });
        let told: Vec<_> = pops.listening.with(|lines| {
            [-1, queue_id]
                .into_iter()
                .filter_map(|queue| lines.first(topic, group, queue))
                .collect()
        });
        if woken.is_empty() && told.is_empty() {
            return;
        }
        let broker = Arc::clone(self);
        self.runtime.spawn(async move {
            broker.serve_again(woken);
            broker.notify_again(told);
        });
    }

    /// How many messages of a queue the group has not popped yet. A group that never popped it begins at the queue's begin.
    fn rest_of(&self, topic: &str, group: &str, queue_id: i32) -> i64 {
        let (min, max) = self.store.queue_bounds(topic, queue_id);
        max - self.offsets.query(group, topic, queue_id).unwrap_or(min)
    }

    /// Whether something can be popped right now by who asks for this.
    fn can_pop(&self, spot: &Spot, order: bool, attempt: Option<&str>) -> bool {
        let config = self.config.get();
        let now_ms = clock::now_ms();
        let ready = |topic: &Arc<str>, queue_id: i32| {
            let at = Spot {
                topic: Arc::clone(topic),
                group: Arc::clone(&spot.group),
                queue_id,
            };
            self.rest_of(topic, &spot.group, queue_id) > 0
                && !self.pops.busy.lock().contains(&at)
                && !(order
                    && (self.pops.orders)
                        .blocked_until(topic, &spot.group, queue_id, attempt, now_ms)
                        .is_some())
        };
        let any = |topic: &TopicConfig| {
            (0..topic.read_queue_nums).any(|queue| ready(&topic.topic_name, queue))
        };
        let own = match spot.queue_id {
            queue if queue >= 0 => ready(&spot.topic, queue),
            _ => self
                .topics
                .get(&spot.topic)
                .is_some_and(|topic| any(&topic)),
        };
        own || (!order
            && self
                .retry_topics(&config, spot)
                .iter()
                .any(|topic| any(topic)))
    }

    /// The POP retry topics there are, of the form in use first.
    fn retry_topics(&self, config: &BrokerConfig, spot: &Spot) -> Vec<Arc<TopicConfig>> {
        let both = config.enable_retry_topic_v2 && config.retrieve_message_from_pop_retry_topic_v1;
        let forms = [Some(config.enable_retry_topic_v2), both.then_some(false)];
        (forms.into_iter().flatten())
            .filter_map(|v2| {
                self.topics
                    .get(&topic::pop_retry(&spot.group, &spot.topic, v2))
            })
            .collect()
    }

    /// The topic and group of a request, if the one may consume the other.
    fn check_pop(
        &self,
        connection: &Connection,
        command: &Command,
        what: &str,
    ) -> Result<(Arc<TopicConfig>, Arc<SubscriptionGroupConfig>, Spot), Refusal> {
        let config = self.config.get();
        let (topic, group) = (command.ext.str("topic")?, command.ext.str("consumerGroup")?);
        let queue_id = command.ext.i32("queueId")?;
        if self.is_slave() {
            return Err(Refusal::new(
                response::SYSTEM_BUSY,
                "[REJECTREQUEST]system busy, start flow control for a while",
            ));
        }
        let forbidden = |remark: String| Refusal::new(response::NO_PERMISSION, remark);
        if !perm::readable(config.broker_permission as i32) {
            return Err(forbidden(format!(
                "the broker[{}] {what} message is forbidden",
                config.broker_ip1
            )));
        }
        let topic = self.topics.get(topic).ok_or_else(|| no_topic(topic))?;
        if !perm::readable(topic.perm) {
            return Err(forbidden(format!(
                "the topic[{}] peeking message is forbidden",
                topic.topic_name
            )));
        }
        if queue_id >= topic.read_queue_nums {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                queue_is_illegal(connection, &topic, queue_id),
            ));
        }
        let Some(found) = self.groups.find(group) else {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!("subscription group [{group}] does not exist, {FAQ}"),
            ));
        };
        if !found.consume_enable {
            return Err(forbidden(format!(
                "subscription group no permission, {group}"
            )));
        }
        let spot = Spot {
            topic: Arc::clone(&topic.topic_name),
            group: Arc::clone(&found.group_name),
            queue_id: queue_id.max(-1),
        };
        Ok((topic, found, spot))
    }

    /// Puts a checkpoint into the batch, to come to the revive log shortly before its messages become visible again.
    fn push_check_point(
        &self,
        batch: &mut RecordBatch,
        check: &CheckPoint,
        revive_queue: i32,
    ) -> Result<(), Refusal> {
        self.push_revive(
            batch,
            revive_queue,
            rocketmq_protocol::json::to_fastjson(check),
            pop::tag::CHECK_POINT,
            &check.unique_key(),
            check.revive_ms() - pop::ACK_INTERVAL_MS,
        )
    }

    /// Puts an acknowledgement into the batch, to come to the revive log behind its checkpoint.
    fn push_ack(
        &self,
        batch: &mut RecordBatch,
        ack: &pop::Ack,
        revive_queue: i32,
        revive_ms: i64,
    ) -> Result<(), Refusal> {
        let body = rocketmq_protocol::json::to_fastjson(ack);
        self.push_revive(
            batch,
            revive_queue,
            body,
            ack.tag(),
            &ack.unique_key(),
            revive_ms,
        )
    }

    fn push_revive(
        &self,
        batch: &mut RecordBatch,
        queue_id: i32,
        body: String,
        tag: &str,
        key: &str,
        deliver_ms: i64,
    ) -> Result<(), Refusal> {
        let mut text = String::new();
        properties::push(&mut text, name::TAGS, tag);
        properties::push(&mut text, name::UNIQ_KEY, key);
        properties::push(&mut text, name::TIMER_DELIVER_MS, &deliver_ms.to_string());
        let place = self.timed(Place {
            topic: Arc::clone(&self.pops.revive_topic),
            queue_id,
            properties: text.into(),
        })?;
        let record = Record {
            queue_id: place.queue_id,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: clock::now_ms(),
            born_host: self.store_host,
            store_timestamp: 0,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            topic: &place.topic,
            properties: &place.properties,
        };
        (batch.push(&place.topic, &record)).map_err(|error| {
            Refusal::system_error(format!(
                "a message of the revive log does not encode: {error}"
            ))
        })
    }
}

fn no_topic(topic: &str) -> Refusal {
    Refusal::new(
        response::TOPIC_NOT_EXIST,
        format!("topic[{topic}] not exist, apply first please! {FAQ}"),
    )
}

fn queue_is_illegal(connection: &Connection, topic: &TopicConfig, queue_id: i32) -> String {
    format!(
        "queueId[{queue_id}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[{}]",
        topic.topic_name,
        topic.read_queue_nums,
        connection.peer()
    )
}

/// How long a request waits when nothing comes.
#[derive(Clone, Copy, Debug)]
struct Patience {
    until_ms: i64,
    asked_ms: i64,
}

impl Patience {
    /// From `pollTime` and `bornTime`; a request that does not say when it was born is born now.
    fn read(command: &Command) -> Result<Patience, Refusal> {
        let asked_ms = command.ext.i64("pollTime")?;
        let born_ms = match command.ext.opt_i64("bornTime")? {
            Some(born) if born != 0 => born,
            _ => clock::now_ms(),
        };
        Ok(Patience {
            until_ms: born_ms.saturating_add(asked_ms),
            asked_ms,
        })
    }

    fn too_late(&self, now_ms: i64) -> bool {
        now_ms - self.until_ms > TOO_LATE_MS
    }

    fn over(&self, now_ms: i64) -> bool {
        self.asked_ms <= 0 || self.until_ms - now_ms <= NEARLY_MS
    }

    /// When to look again: at its end, or earlier when a queue is free again by itself then.
    fn due(&self, now_ms: i64, free_ms: Option<i64>) -> Instant {
        let at = (self.until_ms - NEARLY_MS).min(free_ms.unwrap_or(i64::MAX));
        Instant::now() + Duration::from_millis((at - now_ms).max(1) as u64)
    }
}

/// Serves those whose time is up, until the broker stops; then all get their last answer.
pub(super) async fn run_waiting(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            up = broker.pops.waiting.due() => broker.serve_again(up),
            up = broker.pops.listening.due() => broker.notify_again(up),
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    for left in broker.pops.waiting.with(Lines::drain) {
        broker.end_pop(left.request);
    }
    for left in broker.pops.listening.with(Lines::drain) {
        left.request.answer(false, false);
    }
}
