//! `verify ha`: has each slave what its master has, byte for byte?

use std::time::{Duration, Instant};

use rocketmq_protocol::topic;

use super::{QUEUES, exit, read_queue, send};
use crate::client::admin::{Admin, Broker, Fault};
use crate::client::message::UniqueIds;
use crate::commands::{Cluster, Session};
use crate::error::Error;
use crate::moment::now_ms;
use crate::spec::parse_duration;
use crate::ui::{self, Format};

/// Compare each slave with its master: every message there, its record byte for byte the same
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl verify ha                    # the last 1000 messages of each queue
  rmqctl verify ha --all -o json      # every message")]
pub struct Ha {
    /// Compare only the last N messages of each queue
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "all")]
    last: i64,
    /// Compare every message
    #[arg(long)]
    all: bool,
    /// How long a slave may take to get what its master had at the beginning
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

/// Messages of its own that it sends to each master, so that there is something to compare.
const OWN: usize = 100;
/// Between two looks at a slave that has not caught up: brokers have no event for it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ok: bool,
    slaves: Vec<Row>,
    faults: Vec<String>,
}

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `broker-a:1`.
    slave: String,
    topics: usize,
    queues: usize,
    /// Messages of the master that were compared.
    compared: usize,
    missing: usize,
    different: usize,
    /// How long it took until the slave had what the master had at the beginning.
    caught_up_after_ms: f64,
}

/// `verify ha`
pub async fn ha(
    args: &Ha,
    masters: &[Broker],
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let work = compare(args, masters, cluster);
    let report = tokio::select! {
        report = work => report?,
        () = session.interrupt.requested() => return Err(session.interrupt.error()),
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        _ => session.ui.out(&text(&report.slaves)),
    }
    Ok(exit(&report.faults, session))
}

async fn compare(args: &Ha, masters: &[Broker], cluster: &Cluster) -> Result<Report, Error> {
    let mut admin = cluster.admin();
    let mut report = Report {
        ok: true,
        slaves: Vec::new(),
        faults: Vec::new(),
    };
    let mut ids = UniqueIds::new(now_ms());
    for master in masters {
        for number in 0..OWN {
            send(&mut admin, master, number as i32 % QUEUES, number, &mut ids).await?;
        }
    }
    let table = admin.cluster().await?.broker_addr_table;
    for node in &cluster.desired.nodes {
        let Some(broker) = node.broker.as_ref().filter(|b| b.id > 0) else {
            continue;
        };
        let name = node.broker_text();
        let registered = table.get(&broker.name);
        let address =
            registered.and_then(|data| data.broker_addrs.get(&i64::try_from(broker.id).ok()?));
        let master = masters.iter().find(|m| m.name == broker.name);
        let (Some(address), Some(master)) = (address, master) else {
            report
                .faults
                .push(format!("{name}: it, or its master, is not registered"));
            continue;
        };
        let mut row = Row {
            slave: name.clone(),
            ..Row::default()
        };
        match one(args, master, address, &mut admin, &mut row).await {
            Err(fault) => report.faults.push(format!("{name}: {fault}")),
            Ok(()) if row.missing + row.different > 0 => report.faults.push(format!(
                "{name}: of {} messages {} are missing and {} are different",
                row.compared, row.missing, row.different
            )),
            Ok(()) => {}
        }
        report.slaves.push(row);
    }
    if report.slaves.is_empty() && report.faults.is_empty() {
        report.faults.push("the cluster has no slave".into());
    }
    report.ok = report.faults.is_empty();
    Ok(report)
}

async fn one(
    args: &Ha,
    master: &Broker,
    slave: &str,
    admin: &mut Admin,
    row: &mut Row,
) -> Result<(), Fault> {
    let began = Instant::now();
    let configs = admin.topic_configs(&master.address).await?;
    let names = configs.topic_config_table.keys();
    // The system's own hold copies and marks of what is in the others.
    for topic in names.filter(|name| !topic::is_system(name)) {
        let ends = admin.topic_stats(&master.address, topic).await?;
        let mut counts = false;
        for (queue, ends) in ends {
            if ends.max_offset <= ends.min_offset {
                continue;
            }
            counts = true;
            row.queues += 1;
            catch_up(
                args,
                admin,
                slave,
                topic,
                queue.queue_id,
                ends.max_offset,
                began,
            )
            .await?;
            row.caught_up_after_ms = row.caught_up_after_ms.max(super::ms(began.elapsed()));
            let from = match args.all {
                true => ends.min_offset,
                false => ends.min_offset.max(ends.max_offset - args.last),
            };
            let (id, end) = (queue.queue_id, ends.max_offset);
            let original = read_queue(admin, &master.address, topic, id, from, end).await?;
            let copy = read_queue(admin, slave, topic, id, from, end).await?;
            row.compared += original.len();
            for (offset, seen) in &original {
                match copy.get(offset) {
                    None => row.missing += 1,
                    Some(other) if other != seen => row.different += 1,
                    Some(_) => {}
                }
            }
        }
        row.topics += usize::from(counts);
    }
    Ok(())
}

/// Waits until the slave's queue reaches the end that the master's had; what it lacks at the deadline is found missing.
async fn catch_up(
    args: &Ha,
    admin: &mut Admin,
    slave: &str,
    topic: &str,
    queue: i32,
    end: i64,
    began: Instant,
) -> Result<(), Fault> {
    while began.elapsed() < args.timeout {
        let ends = match admin.topic_stats(slave, topic).await {
            // The table of topics is copied on its own and may come later than the messages.
            Err(Fault::Refused { .. }) => Default::default(),
            ends => ends?,
        };
        let own = ends.iter().find(|(q, _)| q.queue_id == queue);
        if own.is_some_and(|(_, ends)| ends.max_offset >= end) {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

fn text(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.slave.clone(),
                r.topics.to_string(),
                r.queues.to_string(),
                r.compared.to_string(),
                r.missing.to_string(),
                r.different.to_string(),
            ]
        })
        .collect();
    let header = [
        "SLAVE",
        "TOPICS",
        "QUEUES",
        "COMPARED",
        "MISSING",
        "DIFFERENT",
    ];
    ui::table(&header, &cells, |_, _| None)
}
