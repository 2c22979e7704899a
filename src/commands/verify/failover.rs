//! `verify failover`: a master dies under load. What was acknowledged and is lost? For how long was nothing acknowledged?

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use super::{QUEUES, TOPIC, exit, ms, percentile, read_queue, send};
use crate::client::admin::{Admin, Broker, Fault};
use crate::client::message::{Sent, UniqueIds};
use crate::commands::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::interrupt::Interrupt;
use crate::moment::now_ms;
use crate::plan;
use crate::ready::{self, Wait};
use crate::runtime::Disturbance;
use crate::spec::{parse_duration, unknown_name};
use crate::topology::{Node, Role};
use crate::ui::Format;

/// Kill a master under load, read its messages from its slave, start it again: acknowledged, found, lost, and the gaps
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl verify failover
  rmqctl verify failover --broker broker-b --messages 20000 -o json

The master is killed as by kill -9, and started again however this ends. With asynchronous replication the last messages
may be on no slave when it dies; they are found when it is back, so they count as found, not as read from the slave.")]
pub struct Failover {
    /// Messages to be acknowledged: half of them before the kill
    #[arg(long, value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(10..))]
    messages: u32,
    /// Whose master is killed; the first that has a slave when none is named
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// How long the started master may take to be ready, with its slaves in sync
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    timeout: Duration,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

/// How long a master that failed is left out, unless there is no other.
const LEFT_OUT: Duration = Duration::from_secs(1);
/// How long nothing may be acknowledged while the master is away and there is no other, before the second half is given up.
const ALONE: Duration = Duration::from_secs(2);
/// Before the next try when no master took the message.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ok: bool,
    /// Node that was killed.
    killed: String,
    broker: String,
    acknowledged: usize,
    /// Sends that failed and were tried again.
    retried: usize,
    /// Acknowledged by the killed master before it died.
    acknowledged_by_killed: usize,
    /// Of those, read from its slave while it was away; null when it has no slave.
    read_from_slave: Option<usize>,
    /// Of all acknowledged, found at the end.
    found: usize,
    lost: usize,
    /// Longest time without an acknowledgement, over the kill; null when there was no other master to go on with.
    longest_gap_ms: Option<f64>,
    p50_ms: f64,
    p99_ms: f64,
    /// From the start of the killed master until it was ready and its slaves in sync.
    ready_after_ms: Option<f64>,
    faults: Vec<String>,
}

/// Sends messages one after another and keeps what was acknowledged.
struct Producer<'a> {
    masters: &'a [Broker],
    ids: UniqueIds,
    acknowledged: Vec<Sent>,
    times: Vec<Duration>,
    retried: usize,
    last: Instant,
    longest_gap: Duration,
    left_out: BTreeMap<String, Instant>,
}

impl Producer<'_> {
    /// One message, tried until a master takes it or `until` comes; whether it was taken.
    async fn one(&mut self, admin: &mut Admin, until: Instant) -> bool {
        let number = self.acknowledged.len();
        for attempt in number.. {
            let began = Instant::now();
            if began >= until {
                return false;
            }
            let out = |m: &&Broker| self.left_out.get(&m.name).is_none_or(|at| began >= *at);
            let usable: Vec<&Broker> = self.masters.iter().filter(out).collect();
            let Some(master) = usable.get(attempt % usable.len().max(1)) else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let queue = (attempt / self.masters.len()) as i32 % QUEUES;
            match send(admin, master, queue, number, &mut self.ids).await {
                Ok(sent) => {
                    self.times.push(began.elapsed());
                    self.longest_gap = self.longest_gap.max(self.last.elapsed());
                    self.last = Instant::now();
                    self.acknowledged.push(sent);
                    return true;
                }
                Err(_) => {
                    self.retried += 1;
                    self.left_out
                        .insert(master.name.clone(), Instant::now() + LEFT_OUT);
                }
            }
        }
        false
    }
}

/// `verify failover`
pub async fn failover(
    args: &Failover,
    masters: &[Broker],
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let node = args.victim(cluster)?;
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let mut report = Report {
        killed: node.name.clone(),
        broker: node.broker_text(),
        ..Report::default()
    };
    let mut producer = Producer {
        masters,
        ids: UniqueIds::new(now_ms()),
        acknowledged: Vec::new(),
        times: Vec::new(),
        retried: 0,
        last: Instant::now(),
        longest_gap: Duration::ZERO,
        left_out: BTreeMap::new(),
    };
    let tried = tokio::select! {
        tried = args.break_it(&mut producer, node, cluster, session, &mut report) => tried,
        () = session.interrupt.requested() => Err(session.interrupt.error()),
    };
    // However it went: the node runs again before anything else is said.
    let began = Instant::now();
    let ready = start(node, cluster, args.timeout).await;
    tried?;
    match ready {
        Ok(()) => report.ready_after_ms = Some(ms(began.elapsed())),
        Err(error) => report
            .faults
            .push(format!("{}: {}", node.name, error.title)),
    }
    report.count(&mut producer);
    let lost = report.find(&producer.acknowledged, masters, cluster).await;
    if let Err(fault) = lost {
        report.faults.push(format!("reading at the end: {fault}"));
    } else if report.lost > 0 {
        report.faults.push(format!(
            "{} of {} acknowledged messages are lost",
            report.lost, report.acknowledged
        ));
    }
    report.ok = report.faults.is_empty();
    session.ui.clear();
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        _ => session.ui.out(&text(&report)),
    }
    Ok(exit(&report.faults, session))
}

impl Failover {
    /// The master to kill.
    fn victim<'a>(&self, cluster: &'a Cluster) -> Result<&'a Node, Error> {
        let nodes = &cluster.desired.nodes;
        let name = |n: &&Node| n.broker.as_ref().map(|b| b.name.clone());
        let masters: Vec<&Node> = nodes.iter().filter(|n| n.role == Role::Master).collect();
        let wanted = match &self.broker {
            Some(wanted) => wanted.clone(),
            None => nodes
                .iter()
                .find(|n| n.role == Role::Slave)
                .as_ref()
                .and_then(name)
                .ok_or_else(|| {
                    Error::new("RMQ-E341", Exit::Usage, "no master has a slave")
                        .hint(cluster.desired.suggest("up --slaves 1"))
                })?,
        };
        let found = masters.iter().find(|n| name(n).as_ref() == Some(&wanted));
        found.copied().ok_or_else(|| {
            let names: Vec<String> = masters.iter().filter_map(name).collect();
            unknown_name("broker", &wanted, names.iter().map(String::as_str))
        })
    }

    /// Half of the messages, the kill, the other half, and a look at the slave.
    async fn break_it(
        &self,
        producer: &mut Producer<'_>,
        node: &Node,
        cluster: &Cluster,
        session: &Session<'_>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut admin = cluster.admin();
        let count = self.messages as usize;
        let patience = Instant::now() + self.timeout;
        producer.last = Instant::now();
        while producer.acknowledged.len() < count / 2 {
            if !producer.one(&mut admin, patience).await {
                return Err(Error::new(
                    "RMQ-E342",
                    Exit::Degraded,
                    "the cluster does not take messages, so nothing was killed",
                )
                .hint(cluster.desired.suggest("status   shows why")));
            }
        }
        session.ui.doing(&node.name, "killing it");
        cluster
            .runtime
            .disturb(&cluster.desired, &node.container, Disturbance::Kill)
            .await?;
        let killed = Instant::now();
        session.ui.done(&node.name, "killed");
        let others = producer.masters.len() > 1;
        while producer.acknowledged.len() < count {
            let until = match others {
                true => killed + self.timeout,
                false => killed + ALONE,
            };
            if !producer.one(&mut admin, until).await {
                break;
            }
        }
        report.longest_gap_ms = others.then(|| ms(producer.longest_gap));
        if others && producer.acknowledged.len() < count {
            report.faults.push(format!(
                "the other masters took only {} of {count} messages within {:?}",
                producer.acknowledged.len(),
                self.timeout
            ));
        }
        report.read_from_slave = self.read_slave(producer, node, cluster, report).await?;
        Ok(())
    }

    /// How many of the messages that the killed master acknowledged its slave gives.
    async fn read_slave(
        &self,
        producer: &Producer<'_>,
        node: &Node,
        cluster: &Cluster,
        report: &mut Report,
    ) -> Result<Option<usize>, Error> {
        let Some(own) = &node.broker else {
            return Ok(None);
        };
        // A fresh look: the name server drops the dead master, and its slaves stay.
        let mut admin = cluster.admin();
        let table = admin.cluster().await?.broker_addr_table;
        let addresses = table.get(&own.name).map(|data| &data.broker_addrs);
        let Some((_, slave)) = addresses.and_then(|a| a.iter().find(|(id, _)| **id > 0)) else {
            return Ok(None);
        };
        let sent: Vec<&Sent> = of(&producer.acknowledged, &own.name).collect();
        match find(&mut admin, slave, &sent).await {
            Ok(found) => Ok(Some(found)),
            Err(fault) => {
                report
                    .faults
                    .push(format!("reading from the slave: {fault}"));
                Ok(Some(0))
            }
        }
    }
}

/// Messages that a broker acknowledged.
fn of<'a>(sent: &'a [Sent], broker: &str) -> impl Iterator<Item = &'a Sent> {
    sent.iter().filter(move |s| s.broker == broker)
}

/// How many of these, all of one broker, are found at `address`.
async fn find(admin: &mut Admin, address: &str, sent: &[&Sent]) -> Result<usize, Fault> {
    let mut found = 0;
    for queue in 0..QUEUES {
        let own: Vec<&&Sent> = sent.iter().filter(|s| s.queue == queue).collect();
        let Some(first) = own.iter().map(|s| s.offset).min() else {
            continue;
        };
        let end = own.iter().map(|s| s.offset + 1).max().unwrap_or(first);
        let seen = read_queue(admin, address, TOPIC, queue, first, end).await?;
        let ids: BTreeSet<&str> = seen.values().map(|s| s.unique_id.as_str()).collect();
        found += own
            .iter()
            .filter(|s| ids.contains(s.unique_id.as_str()))
            .count();
    }
    Ok(found)
}

impl Report {
    fn count(&mut self, producer: &mut Producer<'_>) {
        self.acknowledged = producer.acknowledged.len();
        self.retried = producer.retried;
        let killed = self.broker.rsplit_once(':').map_or("", |(name, _)| name);
        self.acknowledged_by_killed = of(&producer.acknowledged, killed).count();
        producer.times.sort();
        self.p50_ms = percentile(&producer.times, 50.0);
        self.p99_ms = percentile(&producer.times, 99.0);
    }

    /// Looks for everything acknowledged, now that all masters run.
    async fn find(
        &mut self,
        sent: &[Sent],
        masters: &[Broker],
        cluster: &Cluster,
    ) -> Result<(), Fault> {
        let mut admin = cluster.admin();
        for master in masters {
            let own: Vec<&Sent> = of(sent, &master.name).collect();
            self.found += find(&mut admin, &master.address, &own).await?;
        }
        self.lost = self.acknowledged - self.found;
        Ok(())
    }
}

/// Starts the node unless it runs, and waits until its group is ready and in sync.
async fn start(node: &Node, cluster: &Cluster, timeout: Duration) -> Result<(), Error> {
    let since = SystemTime::now();
    let plan = plan::start(&[node], &cluster.observe().await?);
    // Asked of the runtime, and not walked as a plan: a Ctrl-C must not keep the node down.
    for step in plan.stages.iter().flatten() {
        cluster
            .runtime
            .apply(&cluster.desired, &step.action)
            .await?;
    }
    let group = node.broker.as_ref().map(|b| &b.name);
    let names: Vec<String> = cluster
        .desired
        .nodes
        .iter()
        .filter(|n| n.broker.as_ref().map(|b| &b.name) == group)
        .map(|n| n.name.clone())
        .collect();
    let wait = Wait {
        runtime: cluster.runtime.as_ref(),
        desired: &cluster.desired,
        names: &names,
        synced: true,
        timeout,
        since,
        // After a Ctrl-C too: a master that is not back would bring the topic with it when it comes.
        interrupt: &Interrupt::never(),
        on_ready: &|_, _, _| {},
    };
    ready::wait(&wait).await.map(|_| ())
}

fn text(report: &Report) -> String {
    let or_dash = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    let slave = match report.read_from_slave {
        Some(read) => format!("{read} of {}", report.acknowledged_by_killed),
        None => "it has none".to_owned(),
    };
    [
        ("killed", format!("{} ({})", report.killed, report.broker)),
        (
            "acknowledged",
            format!(
                "{}, {} sends tried again",
                report.acknowledged, report.retried
            ),
        ),
        ("read from slave", slave),
        ("found at the end", report.found.to_string()),
        ("lost", report.lost.to_string()),
        ("longest gap", or_dash(report.longest_gap_ms)),
        (
            "latency",
            format!("p50 {:.2} ms, p99 {:.2} ms", report.p50_ms, report.p99_ms),
        ),
        ("ready again after", or_dash(report.ready_after_ms)),
    ]
    .iter()
    .map(|(name, value)| format!("{name:<18}{value}\n"))
    .collect()
}
