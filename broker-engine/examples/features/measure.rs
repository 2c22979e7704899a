//! Figures.

use crate::broker::{Broker, GROUP, Outcome, QUEUES, accepted, now_ms, property, spread};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::record;
use rocketmq_protocol::{Command, ExtFields, properties};
use std::time::Instant;
use tokio::task::JoinSet;

/// How long what is popped stays invisible.
const INVISIBLE_MS: i64 = 5000;

fn rss_mib(pid: Option<&str>) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid?)).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// How late timed messages come.
pub async fn timers(broker: &Broker, count: usize) -> Outcome<()> {
    // All wait when the first is due; then they come over ten seconds.
    let first = now_ms() + 10_000 + count as i64 / 5;
    broker
        .send_all(count, |number| {
            property("TIMER_DELIVER_MS", first + (number as i64 * 7919) % 10_000)
        })
        .await?;
    println!(
        "{count} wait {} ms before the first is due",
        first - now_ms()
    );
    let mut late = Vec::new();
    let mut offsets = [0i64; QUEUES as usize];
    while late.len() < count {
        for queue in 0..QUEUES {
            let answer = broker.pull(queue, offsets[queue as usize]).await?;
            if answer.code != response::SUCCESS {
                continue;
            }
            for view in record::records(&answer.body) {
                let record = view?.decode()?;
                let due: i64 = properties::get(record.properties, "TIMER_DELIVER_MS")
                    .unwrap_or("0")
                    .parse()?;
                late.push(record.store_timestamp - due);
                offsets[queue as usize] = record.queue_offset + 1;
            }
        }
    }
    println!("{count} timed messages came late by: {}", spread(late));
    Ok(())
}

/// How much memory waiting messages take.
pub async fn pending(broker: &Broker, count: usize, pid: Option<&str>) -> Outcome<()> {
    println!("memory before: {:?} MiB", rss_mib(pid));
    let (began, due) = (Instant::now(), now_ms() + 24 * 3600 * 1000);
    broker
        .send_all(count, |number| {
            property("TIMER_DELIVER_MS", due + number as i64)
        })
        .await?;
    println!("{count} taken in {:.1} s", began.elapsed().as_secs_f64());
    println!("memory after: {:?} MiB", rss_mib(pid));
    Ok(())
}

/// Acknowledges all but every `but`th message of a POP; returns how many it had, and how long after its time each came again.
async fn acknowledge(
    broker: &Broker,
    answer: &Command,
    but: usize,
    seen: &mut usize,
) -> Outcome<(usize, Vec<i64>)> {
    let field = |name: &str| answer.ext.get(name).unwrap_or_default().to_owned();
    let starts = field("startOffsetInfo");
    let popped_ms: i64 = field("popTime").parse()?;
    let (mut count, mut late) = (0, Vec::new());
    let mut flying = JoinSet::new();
    for view in record::records(&answer.body) {
        let record = view?.decode()?;
        count += 1;
        *seen += 1;
        if let Some(first) = properties::get(record.properties, "1ST_POP_TIME") {
            late.push(popped_ms - first.parse::<i64>()? - INVISIBLE_MS);
        } else if seen.is_multiple_of(but) {
            continue;
        }
        let (handle, topic) = match properties::get(record.properties, "POP_CK") {
            Some(handle) => (
                handle.to_owned(),
                format!("%RETRY%{GROUP}_{}", broker.topic),
            ),
            None => {
                let of_queue = format!("0 {} ", record.queue_id);
                let start = starts
                    .split(';')
                    .find_map(|item| item.strip_prefix(&of_queue))
                    .unwrap_or("0");
                let handle = format!(
                    "{start} {popped_ms} {INVISIBLE_MS} {} 0 broker-a {} {}",
                    field("reviveQid"),
                    record.queue_id,
                    record.queue_offset
                );
                (handle, broker.topic.clone())
            }
        };
        let ext = ExtFields::new()
            .with("consumerGroup", GROUP)
            .with("topic", topic)
            .with("queueId", record.queue_id)
            .with("offset", record.queue_offset)
            .with("extraInfo", handle);
        let (broker, command) = (broker.clone(), Command::request(request::ACK_MESSAGE, ext));
        flying.spawn(async move { broker.call(command).await });
    }
    while !flying.is_empty() {
        accepted(flying.join_next().await)?;
    }
    Ok((count, late))
}

/// What POP does a second, and how late what nobody acknowledged comes again.
pub async fn pops(broker: &Broker, count: usize) -> Outcome<()> {
    broker.send_all(count, |_| String::new()).await?;
    let (mut popped, mut seen, mut late) = (0, 0, Vec::new());
    let began = Instant::now();
    // One in a hundred is not acknowledged.
    while popped < count {
        let answer = broker.pop(INVISIBLE_MS, 1000).await?;
        if answer.code == response::SUCCESS {
            let (got, again) = acknowledge(broker, &answer, 100, &mut seen).await?;
            popped += got - again.len();
            late.extend(again);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} popped 32 at a time and acknowledged one by one in {seconds:.1} s: {:.0}/s",
        count as f64 / seconds
    );
    while late.len() < count / 100 {
        let answer = broker.pop(INVISIBLE_MS, 1000).await?;
        if answer.code == response::SUCCESS {
            late.extend(acknowledge(broker, &answer, usize::MAX, &mut seen).await?.1);
        }
    }
    println!(
        "{} not acknowledged came again, after their invisible time, by: {}",
        late.len(),
        spread(late)
    );
    Ok(())
}
