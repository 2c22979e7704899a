//! Empties masters that are to go: name servers send no producer there any more, and nothing is taken away before every group
//! has read what it will read, the slaves have all, and nobody sends. What cannot be emptied gets its sends back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::try_join_all;
use rocketmq_protocol::topic::{self, group};

use crate::client::admin::{Admin, Fault};
use crate::client::join;
use crate::error::{Error, Exit};
use crate::interrupt::Interrupt;
use crate::plan::{Departure, Leaving};
use crate::topology::{Desired, Node, Role};

/// Between two looks.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// What is popped is settled at most so long after its time has come (the engine needs two seconds, Java one).
const POP_SETTLED: Duration = Duration::from_secs(5);
/// Lines about what is left that a person reads; the rest is counted.
const LINES_MAX: usize = 12;

/// One emptying.
pub struct Drain<'a> {
    /// Who goes, and how long nobody may have sent before it does.
    pub departure: &'a Departure,
    /// The cluster as it shall be: its name servers, and the masters that stay.
    pub desired: &'a Desired,
    /// For all of it, from now.
    pub timeout: Duration,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Told how far it is.
    pub on_progress: &'a (dyn Fn(&str) + Sync),
}

/// Messages of one topic on one broker that would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The topic, as clients name it.
    pub topic: String,
    /// Who has not read them.
    pub reader: Reader,
    /// Queue id and count.
    pub queues: Vec<(i32, i64)>,
}

/// Who would still do something with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// This group has not read it.
    Group(String),
    /// No group has ever read the topic.
    Nobody,
    /// The broker itself: what it is about to do.
    Broker(&'static str),
}

impl Left {
    /// How many messages.
    pub fn count(&self) -> i64 {
        self.queues.iter().map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, count) = (&self.topic, self.count());
        match &self.reader {
            Reader::Group(group) => write!(f, "topic {topic}: group {group} has {count} to read")?,
            Reader::Nobody => write!(f, "topic {topic}: {count} that no group reads")?,
            Reader::Broker(what) => return write!(f, "topic {topic}: {count} {what}"),
        }
        let queues: Vec<String> = self
            .queues
            .iter()
            .map(|(id, count)| format!("{id}: {count}"))
            .collect();
        write!(f, "   (queue {})", queues.join(", "))
    }
}

/// What one look at a leaving group found.
#[derive(Debug, Default)]
struct Stock {
    left: Vec<Left>,
    /// Sum of the ends of the queues that clients send to: it grows with each message.
    arrived: i64,
    /// Store time of the youngest of them, ms.
    arrived_at_ms: i64,
    /// Store time of the youngest POP checkpoint or acknowledgement, ms.
    popped_at_ms: i64,
    /// Clients that may send, besides consumers' own.
    producers: Vec<String>,
    /// Slaves that have not all, in words.
    behind: Vec<String>,
}

/// Returns when all leaving groups are empty at once; otherwise they take sends as before, and the error has the numbers.
pub async fn drain(drain: &Drain<'_>) -> Result<(), Error> {
    let brokers = names(&drain.departure.groups);
    let emptied = tokio::select! {
        biased;
        () = drain.interrupt.requested() => Err(drain.interrupt.error()),
        emptied = empty(drain, &brokers) => emptied,
    };
    let Err(error) = emptied else {
        return Ok(());
    };
    Err(match reopen(drain.desired, &brokers).await {
        Ok(()) => error.detail(format!(
            "nothing was changed: sends go to {} as before",
            brokers.join(", ")
        )),
        Err(also) => error
            .detail(also.title)
            .lines(also.details)
            .hint(drain.desired.suggest("up   lets it take sends again")),
    })
}

/// Has every name server tell clients again that these brokers take sends.
pub async fn reopen(desired: &Desired, brokers: &[String]) -> Result<(), Error> {
    set_writable(desired, brokers, true).await.map_err(|why| {
        let title = format!("{} could not be opened for sends again", brokers.join(", "));
        Error::new("RMQ-E063", Exit::Failed, title).detail(why)
    })
}

/// Those of the masters named that name servers tell clients not to send to. Whoever does not answer is passed over: whether
/// all answer is the readiness check's matter.
pub async fn closed(desired: &Desired, brokers: &[String]) -> Vec<String> {
    let mut closed = BTreeSet::new();
    let mut admin = Admin::new(desired.namesrv_addrs());
    for address in desired.namesrv_addrs() {
        for broker in brokers {
            if let Ok(Some(false)) = admin.is_writable(&address, broker).await {
                closed.insert(broker.clone());
            }
        }
    }
    closed.into_iter().collect()
}

/// What would be lost if these groups went now, for a person; nothing of those that do not answer.
pub async fn stock(groups: &[Leaving], desired: &Desired) -> Vec<String> {
    let mut lines = Vec::new();
    for leaving in groups {
        match look(leaving, desired).await {
            Ok(stock) => lines.extend(
                stock
                    .left
                    .iter()
                    .map(|l| format!("{}: {l}", leaving.name())),
            ),
            Err(why) => lines.push(format!(
                "{}: its messages could not be counted: {why}",
                leaving.name()
            )),
        }
    }
    shortened(lines)
}

async fn set_writable(desired: &Desired, brokers: &[String], writable: bool) -> Result<(), String> {
    try_join_all(desired.namesrv_addrs().iter().map(|address| async move {
        let mut admin = Admin::new(Vec::new());
        for broker in brokers {
            admin.set_writable(address, broker, writable).await?;
        }
        Ok(())
    }))
    .await
    .map(drop)
    .map_err(words)
}

async fn empty(drain: &Drain<'_>, brokers: &[String]) -> Result<(), Error> {
    let groups = &drain.departure.groups;
    let settle = drain.departure.settle;
    let began = Instant::now();
    let mut arrived = None;
    let mut quiet_since = Instant::now();
    let mut must_settle = false;
    let mut wiped = false;
    let mut pace = tokio::time::interval(LOOK_PERIOD);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let seen = try_join_all(groups.iter().map(|leaving| look(leaving, drain.desired))).await;
        let waiting: Vec<String> = match seen {
            Err(why) => vec![why],
            Ok(stocks) => {
                if !wiped {
                    refuse_hopeless(groups, &stocks, drain.desired)?;
                    must_settle = stocks.iter().any(|s| s.may_grow(settle));
                }
                let now_arrived: i64 = stocks.iter().map(|s| s.arrived).sum();
                if arrived.is_some_and(|before| before != now_arrived) {
                    quiet_since = Instant::now();
                    must_settle = true;
                }
                arrived = Some(now_arrived);
                // With every look: a broker whose topics change registers them anew, and they would take sends again.
                if let Err(why) = set_writable(drain.desired, brokers, false).await {
                    vec![why]
                } else if !wiped {
                    wiped = true;
                    quiet_since = Instant::now();
                    // What came between the first look and this is seen by the next one, at once.
                    pace.reset_immediately();
                    continue;
                } else {
                    let mut waiting = reasons(groups, &stocks);
                    if waiting.is_empty() && must_settle && quiet_since.elapsed() < settle {
                        waiting.push(still_sent_to(&stocks, settle, quiet_since.elapsed()));
                    }
                    waiting
                }
            }
        };
        let Some(first) = waiting.first() else {
            return Ok(());
        };
        let more = match waiting.len() - 1 {
            0 => String::new(),
            more => format!("   (and {more} more)"),
        };
        (drain.on_progress)(&format!("{first}{more}"));
        if began.elapsed() >= drain.timeout {
            let title = format!(
                "not empty after {} s: {}",
                drain.timeout.as_secs(),
                brokers.join(", ")
            );
            return Err(with_ways_out(
                Error::new("RMQ-E061", Exit::Degraded, title)
                    .lines(shortened(waiting))
                    .hint("let the groups read on, and give it longer: --timeout 10m"),
            ));
        }
    }
}

/// What waiting would not mend: messages that no group reads.
fn refuse_hopeless(groups: &[Leaving], stocks: &[Stock], desired: &Desired) -> Result<(), Error> {
    let unread: Vec<String> = groups
        .iter()
        .zip(stocks)
        .flat_map(|(leaving, stock)| {
            let unread = stock.left.iter().filter(|l| l.reader == Reader::Nobody);
            unread.map(|l| format!("{}: {l}", leaving.name()))
        })
        .collect();
    if unread.is_empty() {
        return Ok(());
    }
    let title = format!(
        "messages that nobody has read would be lost with {}",
        names(groups).join(", ")
    );
    Err(with_ways_out(
        Error::new("RMQ-E060", Exit::Conflict, title)
            .lines(shortened(unread))
            .hint(format!(
                "read them with a group, or delete the topic, then: {}",
                desired.suggest("scale …")
            )),
    ))
}

fn with_ways_out(error: Error) -> Error {
    error.hint("--force removes it all the same: what is unread stays in its volume, and comes back with it")
}

fn names(groups: &[Leaving]) -> Vec<String> {
    groups.iter().map(Leaving::name).collect()
}

fn shortened(mut lines: Vec<String>) -> Vec<String> {
    if lines.len() > LINES_MAX {
        let more = lines.len() - LINES_MAX;
        lines.truncate(LINES_MAX);
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Why the groups cannot go yet, most important first.
fn reasons(groups: &[Leaving], stocks: &[Stock]) -> Vec<String> {
    let now_ms = now_ms();
    let mut reasons = Vec::new();
    for (leaving, stock) in groups.iter().zip(stocks) {
        let name = leaving.name();
        reasons.extend(stock.left.iter().map(|left| format!("{name}: {left}")));
        reasons.extend(stock.behind.iter().map(|slave| format!("{name}: {slave}")));
        if within(stock.popped_at_ms, now_ms, POP_SETTLED) {
            reasons.push(format!("{name}: popped messages are being settled"));
        }
    }
    reasons
}

fn still_sent_to(stocks: &[Stock], settle: Duration, quiet: Duration) -> String {
    let producers: BTreeSet<&str> = stocks
        .iter()
        .flat_map(|s| s.producers.iter().map(String::as_str))
        .collect();
    let who = match producers.len() {
        0 => String::new(),
        count => {
            let some: Vec<&str> = producers.into_iter().take(3).collect();
            format!(
                "; {count} producer groups are connected: {}",
                some.join(", ")
            )
        }
    };
    format!(
        "nobody has sent for {:.0} of {:.0} s, in which clients learn of it{who}",
        quiet.as_secs_f64(),
        settle.as_secs_f64()
    )
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn within(at_ms: i64, now_ms: i64, span: Duration) -> bool {
    u128::try_from(now_ms - at_ms).is_ok_and(|age| age < span.as_millis())
}

impl Stock {
    /// Whether a client may still send here because it learnt the route before it was closed.
    fn may_grow(&self, settle: Duration) -> bool {
        !self.producers.is_empty() || within(self.arrived_at_ms, now_ms(), settle)
    }
}

async fn look(leaving: &Leaving, desired: &Desired) -> Result<Stock, String> {
    let mut admin = Admin::new(desired.namesrv_addrs());
    let master = address(&leaving.master, desired)?;
    let topics = admin.topic_configs(&master).await.map_err(words)?;
    let mut queues = Vec::new();
    let mut stock = Stock::default();
    for name in topics.topic_config_table.keys() {
        let stats = admin.topic_stats(&master, name).await.map_err(words)?;
        for (queue, ends) in &stats {
            if is_counted(name, leaving) {
                stock.arrived += ends.max_offset;
                stock.arrived_at_ms = stock.arrived_at_ms.max(ends.last_update_timestamp);
            }
            if name.starts_with(topic::REVIVE_PREFIX) {
                stock.popped_at_ms = stock.popped_at_ms.max(ends.last_update_timestamp);
            }
            queues.push(Queue {
                topic: name,
                id: queue.queue_id,
                min: ends.min_offset,
                max: ends.max_offset,
            });
        }
    }
    let read = admin.consumer_offsets(&master).await.map_err(words)?;
    let read = read.offset_table;
    let mut readers: BTreeSet<String> = read.keys().cloned().collect();
    for node in desired.nodes.iter().filter(|n| n.role == Role::Master) {
        // A group may have read a topic elsewhere and nothing of it here.
        let there = address(node, desired)?;
        let offsets = admin.consumer_offsets(&there).await.map_err(words)?;
        readers.extend(offsets.offset_table.into_keys());
    }
    let info = admin.runtime_info(&master).await.map_err(words)?;
    stock.left = left(&queues, &read, &readers, &info, leaving);
    stock.producers = admin
        .producers(&master)
        .await
        .map_err(words)?
        .data
        .into_iter()
        .filter(|(group, clients)| group != INNER_PRODUCER && !clients.is_empty())
        .map(|(group, _)| group)
        .collect();
    let end = |info: &BTreeMap<String, String>| {
        info.get("commitLogMaxOffset").and_then(|text| number(text))
    };
    for slave in &leaving.slaves {
        let there = address(slave, desired)?;
        let copied = end(&admin.runtime_info(&there).await.map_err(words)?);
        if copied < end(&info) {
            let behind = end(&info).unwrap_or(0) - copied.unwrap_or(0);
            stock
                .behind
                .push(format!("{} is {behind} bytes behind", slave.name));
        }
    }
    Ok(stock)
}

/// The producer that every Java consumer has for handing messages back.
const INNER_PRODUCER: &str = "CLIENT_INNER_PRODUCER";

/// Where this host reaches a broker.
fn address(node: &Node, desired: &Desired) -> Result<String, String> {
    let port = node.port("main").and_then(|port| port.host);
    let port = port.ok_or_else(|| format!("{} publishes no port", node.name))?;
    Ok(join(&desired.advertise, port))
}

fn words(fault: Fault) -> String {
    fault.to_string()
}

fn number(text: &str) -> Option<i64> {
    text.trim().parse().ok()
}

/// One queue with its ends.
struct Queue<'a> {
    topic: &'a str,
    id: i32,
    min: i64,
    max: i64,
}

/// Whether messages of a topic are somebody's: not the broker's own books, and no trace or reply, which are of use only while
/// they are young.
fn is_counted(name: &str, leaving: &Leaving) -> bool {
    let broker = leaving.name();
    !topic::is_system(name)
        && name != broker
        && name != CLUSTER_TOPIC
        && !name.ends_with(topic::REPLY_POSTFIX)
}

/// `brokerClusterName` of every cluster that rmqctl makes, which is a topic too.
const CLUSTER_TOPIC: &str = "DefaultCluster";

/// What is unread. `read` is how far groups have come on this broker by `topic@group`, `readers` the same keys of the cluster.
fn left(
    queues: &[Queue<'_>],
    read: &BTreeMap<String, BTreeMap<i32, i64>>,
    readers: &BTreeSet<String>,
    info: &BTreeMap<String, String>,
    leaving: &Leaving,
) -> Vec<Left> {
    let mut by_topic: BTreeMap<&str, Vec<&Queue<'_>>> = BTreeMap::new();
    for queue in queues.iter().filter(|queue| queue.max > queue.min) {
        by_topic.entry(queue.topic).or_default().push(queue);
    }
    let unread_by = |topic: &str, group: &str, queues: &[&Queue<'_>]| -> Vec<(i32, i64)> {
        let offsets = read.get(&format!("{topic}@{group}"));
        queues
            .iter()
            .map(|queue| {
                let read = offsets.and_then(|offsets| offsets.get(&queue.id));
                let from = read.copied().unwrap_or(queue.min).max(queue.min);
                (queue.id, queue.max - from)
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    };
    let mut all = Vec::new();
    let mut note = |topic: &str, reader: Reader, queues: Vec<(i32, i64)>| {
        if !queues.is_empty() {
            all.push(Left {
                topic: topic.to_owned(),
                reader,
                queues,
            });
        }
    };
    for (name, queues) in &by_topic {
        if *name == topic::TRANS_HALF {
            let undecided = Reader::Broker("transactions that are not decided");
            note(name, undecided, unread_by(name, group::SYS_TRANS, queues));
        }
        if !is_counted(name, leaving) {
            continue;
        }
        let prefix = format!("{name}@");
        let mut groups: Vec<&str> = readers
            .iter()
            .filter_map(|key| key.strip_prefix(&prefix))
            .filter(|name| !group::is_system(name))
            .collect();
        if let Some(owner) = topic::retry_group(name).filter(|_| groups.is_empty()) {
            groups.push(owner);
        }
        if groups.is_empty() {
            let whole = queues.iter().map(|q| (q.id, q.max - q.min)).collect();
            note(name, Reader::Nobody, whole);
        }
        for group in groups {
            note(
                name,
                Reader::Group(group.to_owned()),
                unread_by(name, group, queues),
            );
        }
    }
    let delayed: Vec<(i32, i64)> = info
        .iter()
        .filter_map(|(key, value)| {
            let level = key.strip_prefix("scheduleMessageOffset_")?.parse().ok()?;
            let (delivered, end) = value.split_once(',')?;
            let waiting = end.trim().parse::<i64>().ok()? - delivered.trim().parse::<i64>().ok()?;
            (waiting > 0).then_some((level, waiting))
        })
        .collect();
    note(
        topic::SCHEDULE,
        Reader::Broker("delayed, not due yet"),
        delayed,
    );
    let timed: i64 = ["timerCongestNum", "timerOffsetBehind"]
        .into_iter()
        .filter_map(|key| info.get(key).and_then(|text| number(text)))
        .sum();
    if timed > 0 {
        let waiting = Reader::Broker("timed or popped, not due yet");
        note(topic::TIMER, waiting, vec![(0, timed)]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::{self, Site};

    fn leaving() -> Leaving {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
        spec.masters = 2;
        let desired = topology::desired(&spec, &Site::Network).unwrap();
        let master = desired.nodes.iter().find(|n| n.name == "rmqmaster2");
        Leaving {
            master: master.unwrap().clone(),
            slaves: vec![],
        }
    }

    /// `queues`: topic, id, min, max. `read`: `topic@group`, queue, offset. `elsewhere`: keys on other brokers.
    #[track_caller]
    fn check(
        queues: &[(&str, i32, i64, i64)],
        read: &[(&str, i32, i64)],
        elsewhere: &[&str],
        info: &[(&str, &str)],
        want: &[&str],
    ) {
        let queues: Vec<Queue<'_>> = queues
            .iter()
            .map(|&(topic, id, min, max)| Queue {
                topic,
                id,
                min,
                max,
            })
            .collect();
        let mut offsets: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (key, id, offset) in read {
            offsets
                .entry((*key).to_owned())
                .or_default()
                .insert(*id, *offset);
        }
        let readers = offsets
            .keys()
            .cloned()
            .chain(elsewhere.iter().map(|key| (*key).to_owned()))
            .collect();
        let info = info
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let left: Vec<String> = left(&queues, &offsets, &readers, &info, &leaving())
            .iter()
            .map(Left::to_string)
            .collect();
        assert_eq!(left, want);
    }

    #[test]
    fn what_every_group_has_read_is_not_left() {
        check(
            &[("orders", 0, 0, 10), ("orders", 1, 5, 5)],
            &[("orders@billing", 0, 10)],
            &[],
            &[],
            &[],
        );
    }

    #[test]
    fn a_group_behind_is_told_with_its_queues_and_one_that_never_came_here_has_all_to_read() {
        check(
            &[("orders", 0, 0, 10), ("orders", 1, 3, 7)],
            &[("orders@billing", 0, 8), ("orders@billing", 1, 7)],
            &["orders@audit"],
            &[],
            &[
                "topic orders: group audit has 14 to read   (queue 0: 10, 1: 4)",
                "topic orders: group billing has 2 to read   (queue 0: 2)",
            ],
        );
    }

    #[test]
    fn a_topic_that_nobody_reads_and_dead_letters_are_left_whole() {
        check(
            &[("audit", 2, 1, 4), ("%DLQ%billing", 0, 0, 1)],
            &[],
            &[],
            &[],
            &[
                "topic %DLQ%billing: 1 that no group reads   (queue 0: 1)",
                "topic audit: 3 that no group reads   (queue 2: 3)",
            ],
        );
    }

    #[test]
    fn a_retry_topic_is_its_groups_even_before_it_was_read() {
        check(
            &[("%RETRY%billing", 0, 0, 2)],
            &[],
            &[],
            &[],
            &["topic %RETRY%billing: group billing has 2 to read   (queue 0: 2)"],
        );
    }

    #[test]
    fn system_topics_are_not_counted_but_what_the_broker_owes_is() {
        check(
            &[
                ("RMQ_SYS_TRACE_TOPIC", 0, 0, 9),
                ("broker-b", 0, 0, 9),
                ("DefaultCluster_REPLY_TOPIC", 0, 0, 9),
                ("RMQ_SYS_TRANS_HALF_TOPIC", 0, 0, 3),
            ],
            &[("RMQ_SYS_TRANS_HALF_TOPIC@CID_RMQ_SYS_TRANS", 0, 2)],
            &[],
            &[
                ("scheduleMessageOffset_3", "4,9"),
                ("scheduleMessageOffset_4", "9,9"),
                ("timerCongestNum", "7"),
            ],
            &[
                "topic RMQ_SYS_TRANS_HALF_TOPIC: 1 transactions that are not decided",
                "topic SCHEDULE_TOPIC_XXXX: 5 delayed, not due yet",
                "topic rmq_sys_wheel_timer: 7 timed or popped, not due yet",
            ],
        );
    }
}
