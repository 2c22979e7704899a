//! `verify smoke`: does each master take messages and give them back?

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{QUEUES, TOPIC, exit, percentile, read_queue, send};
use crate::client::admin::{Admin, Broker, Fault};
use crate::client::message::UniqueIds;
use crate::commands::{Cluster, Session};
use crate::error::Error;
use crate::moment::now_ms;
use crate::ui::{self, Format};

/// Send messages to each master, pull them all back, say how long each took
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl verify smoke
  rmqctl verify smoke --messages 1000 -o json")]
pub struct Smoke {
    /// Messages on each master
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    ok: bool,
    masters: Vec<Row>,
    faults: Vec<String>,
}

#[derive(Debug, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    broker: String,
    acknowledged: usize,
    /// Of the acknowledged, those that were pulled back.
    found: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// `verify smoke`
pub async fn smoke(
    args: &Smoke,
    masters: &[Broker],
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let mut report = Report {
        ok: true,
        masters: Vec::new(),
        faults: Vec::new(),
    };
    let registered = |name: &str| masters.iter().any(|m| m.name == name);
    for node in &cluster.desired.nodes {
        let broker = node.broker.as_ref().filter(|b| b.id == 0);
        if let Some(broker) = broker.filter(|b| !registered(&b.name)) {
            let fault = format!("{}: its master is not registered", broker.name);
            report.faults.push(fault);
        }
    }
    let mut admin = cluster.admin();
    for master in masters {
        let mut row = Row {
            broker: master.name.clone(),
            ..Row::default()
        };
        let tried = tokio::select! {
            tried = one(args.messages as usize, master, &mut admin, &mut row) => tried,
            () = session.interrupt.requested() => return Err(session.interrupt.error()),
        };
        if let Err(fault) = tried {
            report.faults.push(format!("{}: {fault}", master.name));
        } else if row.found < row.acknowledged {
            report.faults.push(format!(
                "{}: {} of {} acknowledged messages were not found",
                master.name,
                row.acknowledged - row.found,
                row.acknowledged
            ));
        }
        report.masters.push(row);
    }
    report.ok = report.faults.is_empty();
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        _ => session.ui.out(&text(&report.masters)),
    }
    Ok(exit(&report.faults, session))
}

async fn one(count: usize, master: &Broker, admin: &mut Admin, row: &mut Row) -> Result<(), Fault> {
    let mut ids = UniqueIds::new(now_ms());
    let mut times: Vec<Duration> = Vec::new();
    let mut sent = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let queue = number as i32 % QUEUES;
        sent.push(send(admin, master, queue, number, &mut ids).await?);
        times.push(began.elapsed());
    }
    row.acknowledged = sent.len();
    times.sort();
    row.p50_ms = percentile(&times, 50.0);
    row.p99_ms = percentile(&times, 99.0);
    row.max_ms = percentile(&times, 100.0);
    for queue in 0..QUEUES {
        let own: Vec<_> = sent.iter().filter(|s| s.queue == queue).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else {
            continue;
        };
        let end = last.offset + 1;
        let found = read_queue(admin, &master.address, TOPIC, queue, first.offset, end).await?;
        let ids: BTreeSet<&str> = found.values().map(|seen| seen.unique_id.as_str()).collect();
        row.found += own
            .iter()
            .filter(|s| ids.contains(s.unique_id.as_str()))
            .count();
    }
    Ok(())
}

fn text(rows: &[Row]) -> String {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.broker.clone(),
                r.acknowledged.to_string(),
                r.found.to_string(),
                format!("{:.2} ms", r.p50_ms),
                format!("{:.2} ms", r.p99_ms),
                format!("{:.2} ms", r.max_ms),
            ]
        })
        .collect();
    let header = ["MASTER", "ACKNOWLEDGED", "FOUND", "P50", "P99", "MAX"];
    ui::table(&header, &cells, |_, _| None)
}
