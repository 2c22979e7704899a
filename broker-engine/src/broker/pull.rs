//! PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361).
//!
//! A pull that finds nothing may wait ([`super::hold`]); woken, it goes the whole way again without the right to wait, so that its
//! last answer is PULL_NOT_FOUND. Records go out as they lie in the log, without being copied into the answer.
//! Source of checks, order and remarks: `apache/rocketmq: broker/.../processor/PullMessageProcessor.java`,
//! `DefaultPullMessageResultHandler.java`.

use super::hold::{Hold, Parked};
use super::refusal::Refusal;
use super::send::FAQ;
use super::{Broker, clients, soon};
use crate::log::Arrival;
use crate::net::Connection;
use bytes::BytesMut;
use parking_lot::Mutex;
use rocketmq_protocol::body::{SubscriptionData, SubscriptionGroupConfig, TopicConfig};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::hot::{PullHead, PullReply};
use rocketmq_protocol::sql::Expression;
use rocketmq_protocol::topic::perm;
use rocketmq_protocol::{Frame, Serialize, sysflag};
use rocketmq_store::ReadStatus;
use rocketmq_store::reader::QueueRead;
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most bytes one pull may ask for (`DefaultMessageStore.MAX_PULL_MSG_SIZE`); the store's own limits are far below.
const PULL_BYTES_MAX: usize = 128 << 20;
/// A pull may wait this long at most, whatever it asks for: clients ask for 15 s and give up after 30 s.
const SUSPEND_MAX: Duration = Duration::from_secs(120);

/// Why a pull is forbidden, as the header's `forbiddenType` tells (`remoting/.../protocol/ForbiddenType.java`).
mod forbidden {
    pub const BROKER: i32 = 1;
    pub const GROUP: i32 = 2;
    pub const TOPIC: i32 = 3;
    pub const BROADCASTING: i32 = 4;
    pub const SUBSCRIPTION: i32 = 5;
}

/// What of a refused pull goes beyond code and remark.
struct Refused {
    refusal: Refusal,
    forbidden: Option<i32>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused {
            refusal,
            forbidden: None,
        }
    }
}

fn refused(code: i32, remark: impl Into<String>) -> Refused {
    Refusal::new(code, remark).into()
}

fn forbid(kind: i32, remark: impl Into<String>) -> Refused {
    Refused {
        refusal: Refusal::new(response::NO_PERMISSION, remark),
        forbidden: Some(kind),
    }
}

/// A pull that waits: its header, freed from the frame it came in, and where the answer goes.
#[derive(Debug)]
pub(super) struct Waiting {
    connection: Connection,
    head: PullHead<'static>,
    serialize: Serialize,
}

/// The waiting pulls and what wakes them.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    hold: Mutex<Timed>,
    /// Length of `hold`, read by whoever appends, so that arrivals nobody waits for cost no lock.
    count: AtomicUsize,
    /// One is due before the deadlines are next looked at.
    sooner: Notify,
}

/// The waiting pulls, and when their deadlines are next looked at; `None` is never.
#[derive(Debug, Default)]
struct Timed {
    hold: Hold<Waiting>,
    looks_at: Option<Instant>,
}

impl Waiters {
    fn with<T>(&self, act: impl FnOnce(&mut Hold<Waiting>) -> T) -> T {
        let mut timed = self.hold.lock();
        let result = act(&mut timed.hold);
        self.count.store(timed.hold.len(), Ordering::SeqCst);
        // A look that finds nothing due costs less than being told of each pull that leaves and comes back.
        let due = timed.hold.next_due();
        if due.is_some_and(|due| timed.looks_at.is_none_or(|at| due < at)) {
            timed.looks_at = due;
            self.sooner.notify_one();
        }
        result
    }

    /// When to look at the deadlines.
    fn next_look(&self) -> Option<Instant> {
        let mut timed = self.hold.lock();
        timed.looks_at = timed.hold.next_due();
        timed.looks_at
    }

    /// Messages have arrived (told by whoever appended them): the pulls that want them are answered soon.
    pub(super) fn on_arrivals(
        &self,
        arrivals: &[Arrival],
        broker: &Weak<Broker>,
        runtime: &tokio::runtime::Handle,
    ) {
        // Pairs with the fence in `Broker::park`: either we see the parked pull, or it sees the new end.
        fence(Ordering::SeqCst);
        if self.parked() == 0 {
            return;
        }
        let now = Instant::now();
        let mut woken = Vec::new();
        self.with(|hold| {
            for arrival in arrivals {
                let Arrival {
                    topic,
                    queue_id,
                    max_offset,
                    tags_code,
                } = arrival;
                hold.on_arrival(topic, *queue_id, *max_offset, *tags_code, now, &mut woken);
                if hold.is_empty() {
                    break;
                }
            }
        });
        if woken.is_empty() {
            return;
        }
        let broker = Weak::clone(broker);
        soon::soon(runtime, woken.len(), move || {
            if let Some(broker) = broker.upgrade() {
                broker.run_again(woken);
            }
        });
    }

    /// How many wait.
    pub(super) fn parked(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// A connection has ended.
    pub(super) fn connection_closed(&self, connection: &Connection) {
        if self.parked() != 0 {
            self.with(|hold| hold.connection_closed(connection.id()));
        }
    }
}

/// Answers the pulls whose time is up, until the broker stops.
pub(super) async fn run_deadlines(
    broker: Arc<Broker>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    loop {
        let next = broker.waiters.next_look();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {
                let up = broker.waiters.with(|hold| hold.on_tick(Instant::now()));
                broker.run_again(up);
            }
            () = broker.waiters.sooner.notified() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    let left = broker.waiters.with(Hold::drain);
    broker.run_again(left);
}

impl Broker {
    /// Takes one pull and answers it, now or when a message comes.
    pub(super) fn pull(self: &Arc<Self>, connection: &Connection, frame: &Frame) {
        if let Some(head) = PullHead::scan(frame) {
            self.answer_pull(connection, &head, frame.serialize(), true);
            return;
        }
        let command = match frame.decode() {
            Ok(command) => command,
            Err(error) => {
                connection.close_for(error);
                return;
            }
        };
        match PullHead::from_command(&command) {
            Ok(head) => self.answer_pull(connection, &head, command.serialize, true),
            Err(error) if !command.is_oneway() => {
                connection.reply(&Refusal::from(error).answer(&command));
            }
            Err(_) => {}
        }
    }

    /// On a slave: whether its master is reachable. When it comes back, all who wait here are sent there.
    pub fn set_master_online(self: &Arc<Self>, online: bool) {
        let before = self.master_online.swap(online, Ordering::SeqCst);
        if online && !before {
            let all = self.waiters.with(Hold::drain);
            self.run_again(all);
        }
    }

    fn run_again(self: &Arc<Self>, pulls: Vec<Parked<Waiting>>) {
        for Parked { pull, .. } in pulls {
            self.answer_pull(&pull.connection, &pull.head, pull.serialize, false);
        }
    }

    fn answer_pull(
        self: &Arc<Self>,
        connection: &Connection,
        head: &PullHead<'_>,
        serialize: Serialize,
        may_wait: bool,
    ) {
        if head.head.flag & 2 != 0 {
            return;
        }
        if let Err(refused) = self.try_pull(connection, head, serialize, may_wait) {
            let mut answer = super::answer(head.head.opaque, serialize, refused.refusal.code);
            answer.remark = Some(refused.refusal.remark);
            if let Some(kind) = refused.forbidden {
                answer.ext.set("forbiddenType", kind);
            }
            connection.reply(&answer);
        }
    }

    fn try_pull(
        self: &Arc<Self>,
        connection: &Connection,
        head: &PullHead<'_>,
        serialize: Serialize,
        may_wait: bool,
    ) -> Result<(), Refused> {
        let config = self.config.get();
        if self.is_slave() && !config.slave_read_enable {
            return Err(refused(
                response::SYSTEM_BUSY,
                "[REJECTREQUEST]system busy, start flow control for a while",
            ));
        }
        if !perm::readable(config.broker_permission as i32) {
            return Err(forbid(
                forbidden::BROKER,
                format!(
                    "the broker[{}] pulling message is forbidden",
                    config.broker_ip1
                ),
            ));
        }
        if head.head.code == request::LITE_PULL_MESSAGE && !config.lite_pull_message_enable {
            return Err(forbid(
                forbidden::BROKER,
                format!(
                    "the broker[{}] for lite pull consumer is forbidden",
                    config.broker_ip1
                ),
            ));
        }
        let (group, topic) = self.check_names(connection, head)?;
        let subscription = self.subscription(head, &group)?;
        let expression = self.expression(&subscription, |_| {
            if head.sys_flag & sysflag::PULL_SUBSCRIPTION != 0 {
                Refusal::new(
                    response::SUBSCRIPTION_PARSE_FAILED,
                    "parse the consumer's subscription failed",
                )
            } else {
                Refusal::new(
                    response::FILTER_DATA_NOT_EXIST,
                    "The broker's consumer filter data is not exist!Your expression may be wrong!",
                )
            }
        })?;
        let reset = if config.use_server_side_reset_offset {
            self.offsets
                .take_reset(&head.consumer_group, &head.topic, head.queue_id)
        } else {
            None
        };
        let mut read;
        let mut code;
        let remark;
        if let Some(offset) = reset {
            let (min, max) = self.store.queue_bounds(&head.topic, head.queue_id);
            read = QueueRead {
                status: ReadStatus::Found,
                next_offset: offset,
                min_offset: min,
                max_offset: max,
                spans: Vec::new(),
                of_files: 0,
                count: 0,
                far_behind: false,
            };
            code = response::PULL_OFFSET_MOVED;
            remark = "OFFSET_RESET";
        } else {
            read = self.read(head, &subscription, expression.as_deref())?;
            (code, remark) = verdict(read.status, head.queue_offset);
            let corrected = !matches!(
                read.status,
                ReadStatus::Found
                    | ReadStatus::NoMatchedMessage
                    | ReadStatus::MessageWasRemoving
                    | ReadStatus::OffsetFoundNull
            );
            if corrected && self.is_slave() && !config.offset_check_in_slave {
                // A slave may lag behind what the consumer has seen; only the master corrects
                // (`DefaultMessageStore.nextOffsetCorrection`).
                read.next_offset = head.queue_offset;
            }
        }
        let mut suggest = 0;
        if config.slave_read_enable {
            suggest = if read.far_behind {
                group.which_broker_when_consume_slowly
            } else {
                group.broker_id
            };
        }
        if self.is_slave() {
            if !read.far_behind && self.master_online.load(Ordering::SeqCst) {
                suggest = 0;
                if code != response::SUCCESS {
                    code = response::PULL_RETRY_IMMEDIATELY;
                }
            }
            if code == response::PULL_OFFSET_MOVED && !config.offset_check_in_slave {
                suggest = group.broker_id;
                code = response::PULL_RETRY_IMMEDIATELY;
            }
        }
        if may_wait && head.sys_flag & sysflag::PULL_COMMIT_OFFSET != 0 {
            self.offsets.commit(
                &head.consumer_group,
                &head.topic,
                head.queue_id,
                head.commit_offset,
            );
        }
        if code == response::PULL_NOT_FOUND
            && may_wait
            && head.sys_flag & sysflag::PULL_SUSPEND != 0
        {
            let wait = if config.long_polling_enable {
                Duration::from_millis(head.suspend_timeout_millis.max(0) as u64).min(SUSPEND_MAX)
            } else {
                config.short_polling_time_mills
            };
            let parked = Parked {
                connection: connection.id(),
                from: head.queue_offset,
                subscription: Some(subscription),
                deadline: Instant::now() + wait,
                pull: Waiting {
                    connection: connection.clone(),
                    head: owned(head),
                    serialize,
                },
            };
            self.park(&topic.topic_name, head.queue_id, parked);
            return Ok(());
        }
        if code != response::SUCCESS {
            read.spans.clear();
        }
        let body: usize = read.spans.iter().map(bytes::Bytes::len).sum();
        if code == response::SUCCESS {
            self.stats.get(
                &group.group_name,
                &topic.topic_name,
                read.count as u64,
                body as u64,
            );
        } else {
            self.stats.miss();
        }
        let mut out = BytesMut::with_capacity(320);
        PullReply {
            opaque: head.head.opaque,
            serialize,
            code,
            remark: Some(remark),
            suggest_which_broker_id: suggest,
            next_begin_offset: read.next_offset,
            min_offset: read.min_offset,
            max_offset: read.max_offset,
            topic_sys_flag: topic.topic_sys_flag,
            group_sys_flag: group.group_sys_flag,
        }
        .encode_head(body, &mut out);
        connection.send_parts(out.freeze(), read.spans, read.of_files);
        Ok(())
    }

    /// The group's and topic's configuration, if the one may read the other.
    fn check_names(
        &self,
        connection: &Connection,
        head: &PullHead<'_>,
    ) -> Result<(Arc<SubscriptionGroupConfig>, Arc<TopicConfig>), Refused> {
        let Some(group) = self.groups.find(&head.consumer_group) else {
            return Err(refused(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                format!(
                    "subscription group [{}] does not exist, {FAQ}",
                    head.consumer_group
                ),
            ));
        };
        if !group.consume_enable {
            return Err(forbid(
                forbidden::GROUP,
                format!("subscription group no permission, {}", head.consumer_group),
            ));
        }
        let Some(topic) = self.topics.get(&head.topic) else {
            return Err(refused(
                response::TOPIC_NOT_EXIST,
                format!("topic[{}] not exist, apply first please! {FAQ}", head.topic),
            ));
        };
        if !perm::readable(topic.perm) {
            return Err(forbid(
                forbidden::TOPIC,
                format!("the topic[{}] pulling message is forbidden", head.topic),
            ));
        }
        if head.queue_id < 0 || head.queue_id >= topic.read_queue_nums {
            return Err(refused(
                response::INVALID_PARAMETER,
                format!(
                    "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}] consumer:[{}]",
                    head.queue_id,
                    head.topic,
                    topic.read_queue_nums,
                    connection.peer()
                ),
            ));
        }
        Ok((group, topic))
    }

    /// What the pull wants of the queue: from the request itself, or from the group's heartbeats.
    fn subscription(
        &self,
        head: &PullHead<'_>,
        group: &SubscriptionGroupConfig,
    ) -> Result<Arc<SubscriptionData>, Refused> {
        if head.sys_flag & sysflag::PULL_SUBSCRIPTION != 0 {
            let kind = head.expression_type.as_deref().unwrap_or("TAG");
            let text = head.subscription.as_deref().unwrap_or("*");
            if kind != "TAG" && !kind.is_empty() {
                return Ok(Arc::new(SubscriptionData {
                    topic: (*head.topic).into(),
                    sub_string: text.into(),
                    expression_type: kind.into(),
                    ..SubscriptionData::default()
                }));
            }
            let parsed = SubscriptionData::parse_tags(&head.topic, text);
            if parsed.is_empty_list() {
                return Err(refused(
                    response::SUBSCRIPTION_PARSE_FAILED,
                    "parse the consumer's subscription failed: it is made of bars alone",
                ));
            }
            return Ok(Arc::new(parsed));
        }
        let Some(view) = self.clients.group_view(&head.consumer_group, &head.topic) else {
            return Err(refused(
                response::SUBSCRIPTION_NOT_EXIST,
                format!("the consumer's group info not exist{FAQ}"),
            ));
        };
        let clients::GroupView {
            broadcasting,
            subscription,
        } = view;
        if broadcasting && !group.consume_broadcast_enable {
            return Err(forbid(
                forbidden::BROADCASTING,
                format!(
                    "the consumer group[{}] can not consume by broadcast way",
                    head.consumer_group
                ),
            ));
        }
        if self
            .groups
            .read_forbidden(&head.consumer_group, &head.topic)
        {
            return Err(forbid(
                forbidden::SUBSCRIPTION,
                format!(
                    "the consumer group[{}] is forbidden for topic[{}]",
                    head.consumer_group, head.topic
                ),
            ));
        }
        let Some(subscription) = subscription else {
            return Err(refused(
                response::SUBSCRIPTION_NOT_EXIST,
                format!("the consumer's subscription not exist{FAQ}"),
            ));
        };
        if subscription.sub_version < head.sub_version {
            return Err(refused(
                response::SUBSCRIPTION_NOT_LATEST,
                "the consumer's subscription not latest",
            ));
        }
        Ok(subscription)
    }

    fn read(
        &self,
        head: &PullHead<'_>,
        subscription: &SubscriptionData,
        expression: Option<&Expression>,
    ) -> Result<QueueRead, Refused> {
        let bytes = match head.max_msg_bytes {
            Some(bytes) if bytes > 0 => (bytes as usize).min(PULL_BYTES_MAX),
            _ => PULL_BYTES_MAX,
        };
        (self.store)
            .read_queue_to_send(
                &head.topic,
                head.queue_id,
                head.queue_offset,
                head.max_msg_nums.max(1) as usize,
                bytes,
                &mut |entry| match expression {
                    None => Ok(subscription.matches(entry.tags_code)),
                    Some(expression) => self.passes(expression, entry),
                },
            )
            .map_err(|error| {
                let text = format!(
                    "reading queue {} of {} at {} failed: {error}",
                    head.queue_id, head.topic, head.queue_offset
                );
                tracing::error!("{text}");
                Refusal::system_error(text).into()
            })
    }

    fn park(self: &Arc<Self>, topic: &Arc<str>, queue_id: i32, parked: Parked<Waiting>) {
        let from = parked.from;
        let ticket = match self.waiters.with(|hold| hold.park(topic, queue_id, parked)) {
            Ok(ticket) => ticket,
            Err(refused) => {
                self.run_again(vec![*refused]);
                return;
            }
        };
        // A message may have come between the read and the parking; then nobody else will wake this one.
        fence(Ordering::SeqCst);
        if self.store.queue_bounds(topic, queue_id).1 > from
            && let Some(parked) = self.waiters.with(|hold| hold.take(ticket))
        {
            self.run_again(vec![parked]);
        }
    }
}

/// The response code and remark of a read (`PullMessageProcessor.composeResponseHeader`).
fn verdict(status: ReadStatus, asked: i64) -> (i32, &'static str) {
    let empty = if asked == 0 {
        response::PULL_NOT_FOUND
    } else {
        response::PULL_OFFSET_MOVED
    };
    match status {
        ReadStatus::Found => (response::SUCCESS, "FOUND"),
        ReadStatus::NoMatchedMessage => (response::PULL_RETRY_IMMEDIATELY, "NO_MATCHED_MESSAGE"),
        ReadStatus::MessageWasRemoving => {
            (response::PULL_RETRY_IMMEDIATELY, "MESSAGE_WAS_REMOVING")
        }
        ReadStatus::OffsetFoundNull => (response::PULL_NOT_FOUND, "OFFSET_FOUND_NULL"),
        ReadStatus::OffsetOverflowOne => (response::PULL_NOT_FOUND, "OFFSET_OVERFLOW_ONE"),
        ReadStatus::OffsetOverflowBadly => (response::PULL_OFFSET_MOVED, "OFFSET_OVERFLOW_BADLY"),
        ReadStatus::OffsetTooSmall => (response::PULL_OFFSET_MOVED, "OFFSET_TOO_SMALL"),
        ReadStatus::NoMatchedLogicQueue => (empty, "NO_MATCHED_LOGIC_QUEUE"),
        ReadStatus::NoMessageInQueue => (empty, "NO_MESSAGE_IN_QUEUE"),
    }
}

/// A header that outlives its frame.
fn owned(head: &PullHead<'_>) -> PullHead<'static> {
    let own = |text: &Cow<'_, str>| Cow::Owned(text.clone().into_owned());
    PullHead {
        head: head.head,
        consumer_group: own(&head.consumer_group),
        topic: own(&head.topic),
        subscription: head.subscription.as_ref().map(own),
        expression_type: head.expression_type.as_ref().map(own),
        queue_id: head.queue_id,
        queue_offset: head.queue_offset,
        max_msg_nums: head.max_msg_nums,
        sys_flag: head.sys_flag,
        commit_offset: head.commit_offset,
        suspend_timeout_millis: head.suspend_timeout_millis,
        sub_version: head.sub_version,
        max_msg_bytes: head.max_msg_bytes,
    }
}
