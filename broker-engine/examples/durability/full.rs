//! A disk that is full, under load, and has room again: sends are refused with RocketMQ's code, pulls go on, and sends work
//! again without a restart.

use crate::Outcome;
use crate::disk::Disk;
use crate::ledger::{Expect, Ledger};
use crate::load::{Load, Pace};
use crate::message::Queue;
use crate::node::Node;
use crate::report::Times;
use crate::trial::{Trial, topic};
use crate::wire::Broker;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::record;
use rocketmq_protocol::{Command, ExtFields};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// Within which sends must be refused once there is no room.
const REFUSES: Duration = Duration::from_secs(20);
/// Within which they must work once there is.
const RECOVERS: Duration = Duration::from_secs(10);
/// Messages that are pulled and compared while the disk is full, of each queue.
const PULLED: usize = 500;

/// `full`
#[derive(Debug, clap::Args)]
pub struct Full {
    #[command(flatten)]
    common: crate::Common,
    /// Times the disk is filled
    #[arg(long, default_value_t = 4)]
    rounds: usize,
}

pub async fn run(args: Full) -> Outcome<()> {
    let mut random = args.common.random();
    let campaign = async |dir: &Path| campaign(&args, dir, &mut random).await;
    args.common.in_dir("full", campaign).await
}

/// A topic and a group asked for while the disk is full: whether they were promised.
#[derive(Default)]
struct Promised {
    topics: Vec<String>,
    groups: Vec<String>,
    refused: usize,
}

async fn campaign(args: &Full, dir: &Path, random: &mut fastrand::Rng) -> Outcome<()> {
    let disk = Disk::new(dir, 2048)?;
    let properties = [
        (
            "storePathRootDir",
            disk.mount.join("store").display().to_string(),
        ),
        ("mappedFileSizeCommitLog", (24 << 20).to_string()),
        ("mappedFileSizeConsumeQueue", (20 * 500).to_string()),
        ("maxHashSlotNum", "500".into()),
        ("maxIndexNum", "4000".into()),
    ];
    let mut trial = Trial::begin(&args.common, dir, &properties).await?;
    let mut back = Times::default();
    let mut promised = Promised::default();
    let mut ran_out: BTreeMap<String, usize> = BTreeMap::new();
    let (mut restarts, mut compared) = (0, (0, 0));
    for round in 1..=args.rounds {
        let in_round = |error| format!("round {round}: {error}");
        let pace = Pace {
            producers: 2,
            rest_ms: 12,
        };
        let load = Load::start(&trial.node.address(), &trial.ledger, pace, random);
        tokio::time::sleep(Duration::from_millis(random.u64(300..1200))).await;
        let said_before = trial.node.log_len();
        // Where in its file the log stands says whether that or the queues run out first; with a little room left the queues
        // may still be written, and the index not.
        disk.fill(match random.u8(..3) {
            0 => random.u64(64 << 10..1 << 20),
            _ => 0,
        })?;
        let filled = Instant::now();
        refuses(&load).await.map_err(in_round)?;
        *ran_out
            .entry(what_ran_out(&trial.node, said_before))
            .or_default() += 1;
        pulls_go_on(&trial.broker, &trial.ledger)
            .await
            .map_err(in_round)?;
        ask_for_tables(&trial.broker, round, &mut promised).await?;
        // A broker that is killed now must come up on the full disk and serve what it has.
        let killed = random.u8(..3) == 0;
        let load = if killed {
            trial.node.kill().await?;
            load.end().await?;
            trial
                .node
                .start()
                .await
                .map_err(|error| format!("round {round}, started on a full disk: {error}"))?;
            trial.holds(round, filled, Expect::Everything).await?;
            pulls_go_on(&trial.broker, &trial.ledger)
                .await
                .map_err(in_round)?;
            restarts += 1;
            Load::start(&trial.node.address(), &trial.ledger, pace, random)
        } else {
            load
        };
        disk.empty()?;
        back.push(
            works_again(&load, &trial.ledger)
                .await
                .map_err(|error| format!("round {round}: {error}\n{}", trial.node.tail()))?,
        );
        // What could not be written must be written by now.
        tokio::time::sleep(Duration::from_millis(random.u64(1000..2500))).await;
        let killed = Instant::now();
        trial.node.kill().await?;
        load.end().await.map_err(in_round)?;
        if round % 10 == 0 || round == args.rounds {
            compared = trial.compare(round, &disk.mount.join("copy"))?;
        }
        trial.node.start().await?;
        trial.holds(round, killed, Expect::Everything).await?;
        promises_are_kept(&trial.broker, &promised)
            .await
            .map_err(in_round)?;
    }
    trial.node.stop().await?;
    let counts = trial.ledger.counts();
    println!(
        "full {} times in {:.0?}, first without room: {ran_out:?}; {} acknowledged, 0 lost; {} refused or unanswered, of which {} are there; \
         {} topics and groups made on the full disk are there, {} were refused; started {restarts} times on the full disk; \
         sends work again {back} after room came back; {} queue entries and {} keys as a rebuild gives them",
        args.rounds,
        trial.began.elapsed(),
        counts.acknowledged,
        counts.maybe + counts.unanswered,
        counts.found_all_the_same,
        promised.topics.len() + promised.groups.len(),
        promised.refused,
        compared.0,
        compared.1,
    );
    Ok(())
}

/// Waits until sends are refused for lack of room, and for nothing else.
async fn refuses(load: &Load) -> Outcome<()> {
    let deadline = Instant::now() + REFUSES;
    let before = load.refused();
    // Several, so that it is not the one send that found the log's file full.
    while load.refused() < before + 20 {
        if Instant::now() > deadline {
            return Err(
                format!("sends are still taken {REFUSES:?} after the disk was full").into(),
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match load.refusal() {
        Some((response::SERVICE_NOT_AVAILABLE, remark)) if remark.contains("disk is full") => {
            Ok(())
        }
        other => Err(format!("sends are refused with {other:?}").into()),
    }
}

/// What the broker said it had no room for.
fn what_ran_out(node: &Node, said_before: u64) -> String {
    ["consume queue", "index", "checkpoint"]
        .into_iter()
        .find(|what| {
            node.logged(said_before, &format!("writing the {what}"))
                || node.logged(said_before, &format!("/{what}"))
        })
        .unwrap_or("commit log")
        .into()
}

/// Pulls the newest messages of every queue that are known to be there.
async fn pulls_go_on(broker: &Broker, ledger: &Ledger) -> Outcome<()> {
    for queue in Queue::all() {
        let held = ledger.held(queue);
        let mut at = held.len().saturating_sub(PULLED);
        while at < held.len() {
            let bytes = broker.records(queue, at as i64).await?;
            if bytes.is_empty() {
                return Err(format!("{queue}: nothing is pulled at {at} of {}", held.len()).into());
            }
            for record in record::records(&bytes) {
                let record = record?;
                let Some(known) = held.get(at) else { break };
                if record.queue_offset() != at as i64 || record.body() != known.message.body() {
                    return Err(format!("{queue}: another message is pulled at {at}").into());
                }
                at += 1;
            }
        }
    }
    Ok(())
}

/// Asks for a topic and a group, which are tables; notes what was promised.
async fn ask_for_tables(broker: &Broker, round: usize, promised: &mut Promised) -> Outcome<()> {
    let name = format!("made-{round}");
    match broker.call(topic(&name)).await?.code {
        response::SUCCESS => promised.topics.push(name.clone()),
        _ => promised.refused += 1,
    }
    let group = format!(
        r#"{{"groupName":"{name}","consumeEnable":true,"retryQueueNums":1,"retryMaxTimes":16,"brokerId":0,"whichBrokerWhenConsumeSlowly":1}}"#
    );
    let command = Command::request(
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        ExtFields::new(),
    );
    match broker.call(command.with_body(group)).await?.code {
        response::SUCCESS => promised.groups.push(name),
        _ => promised.refused += 1,
    }
    Ok(())
}

async fn promises_are_kept(broker: &Broker, promised: &Promised) -> Outcome<()> {
    let all = [
        (request::GET_ALL_TOPIC_CONFIG, &promised.topics),
        (request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, &promised.groups),
    ];
    for (code, names) in all {
        let answer = broker
            .call(Command::request(code, ExtFields::new()))
            .await?;
        let text = String::from_utf8_lossy(&answer.body);
        if let Some(gone) = names
            .iter()
            .find(|name| !text.contains(&format!("\"{name}\"")))
        {
            return Err(format!("{gone} was made, as the broker said, and is gone").into());
        }
    }
    Ok(())
}

/// Waits for the next acknowledgement; returns how long it took.
async fn works_again(load: &Load, ledger: &Ledger) -> Outcome<Duration> {
    let began = Instant::now();
    let before = ledger.acknowledged_in_round();
    while ledger.acknowledged_in_round() == before {
        if began.elapsed() > RECOVERS {
            return Err(format!("nothing is acknowledged {RECOVERS:?} after room came back; the last refusal is {:?}", load.refusal()).into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(began.elapsed())
}
