//! Rolling restarts of a cluster of rmqctl's own, under producers that behave as the Java client does by default: a send that
//! fails is tried on another broker, twice at most, within three seconds.

use crate::Outcome;
use crate::message::{Message, QUEUES_PER_TOPIC, Queue};
use crate::report::Times;
use crate::trial::topic;
use crate::wire::{self, Broker, TIMEOUT};
use broker_engine::net::Client;
use rocketmq_protocol::body::TopicRouteData;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json, record};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// `DefaultMQProducer.retryTimesWhenSendFailed`, and the first try.
const TRIES: usize = 3;
/// `DefaultMQProducer.sendMsgTimeout`.
const SEND: Duration = Duration::from_secs(3);
/// `ClientConfig.pollNameServerInterval`.
const POLL: Duration = Duration::from_secs(30);
/// Codes after which the Java client tries another broker (`DefaultMQProducer.retryResponseCodes`).
const RETRIED: [i32; 5] = [
    response::SYSTEM_ERROR,
    response::SYSTEM_BUSY,
    response::SERVICE_NOT_AVAILABLE,
    response::NO_PERMISSION,
    response::TOPIC_NOT_EXIST,
];

/// `rolling`
#[derive(Debug, clap::Args)]
pub struct Rolling {
    #[command(flatten)]
    common: crate::Common,
    /// Restarts of the whole cluster, node after node
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Name of the cluster, which is made for this and removed
    #[arg(long, default_value = "rolling")]
    name: String,
    /// Its ports lie so far above RocketMQ's own
    #[arg(long, default_value_t = 15_200)]
    port_offset: u16,
    /// Messages a second
    #[arg(long, default_value_t = 500)]
    rate: u32,
}

/// A message that was acknowledged: where it stands.
struct Stands {
    broker: String,
    offset: i64,
}

/// What the producers share.
struct Shared {
    client: Client,
    namesrv: String,
    stop: AtomicBool,
    next: AtomicU64,
    retried: AtomicU64,
    acknowledged: parking_lot::Mutex<BTreeMap<u64, (Queue, Stands)>>,
    failed: parking_lot::Mutex<Vec<String>>,
    /// The longest that one send took, its tries together.
    slowest: parking_lot::Mutex<Duration>,
}

pub async fn run(args: Rolling) -> Outcome<()> {
    args.common.random();
    let dir = args.common.dir("rolling")?;
    let conf = dir.join("conf").display().to_string();
    let offset = args.port_offset.to_string();
    let up = [
        "up",
        "--runtime",
        "process",
        "--masters",
        "2",
        "--slaves",
        "2",
        "--no-console",
        "--port-offset",
        &offset,
        "--conf-dir",
        &conf,
    ];
    rmqctl(&args, &up).await?;
    let ended = campaign(&args).await;
    // Also when it failed: nothing of it may run on. Its stores go with it.
    let removed = rmqctl(&args, &["down", "--volumes"]).await;
    std::fs::remove_dir_all(&dir)?;
    ended.and(removed)
}

async fn rmqctl(args: &Rolling, command: &[&str]) -> Outcome<()> {
    let out = tokio::process::Command::new(&args.common.rmqctl)
        .args(["--name", &args.name])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .await?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("rmqctl {}: {}\n{said}", command[0], out.status).into())
}

async fn campaign(args: &Rolling) -> Outcome<()> {
    let shared = Arc::new(Shared {
        client: Client::new(),
        namesrv: format!("127.0.0.1:{}", 9876 + args.port_offset),
        stop: AtomicBool::new(false),
        next: AtomicU64::new(0),
        retried: AtomicU64::new(0),
        acknowledged: parking_lot::Mutex::default(),
        failed: parking_lot::Mutex::default(),
        slowest: parking_lot::Mutex::default(),
    });
    // On both masters, as `updateTopic -c` makes it.
    for port in [10_911, 13_911] {
        let master = Broker::at(format!("127.0.0.1:{}", port + args.port_offset));
        let answer = master.call(topic(&Queue(0).topic())).await?;
        if answer.code != response::SUCCESS {
            return Err(format!("making the topic was answered {}", answer.code).into());
        }
    }
    let began = Instant::now();
    while shared.route().await?.masters.len() < 2 {
        if began.elapsed() > TIMEOUT {
            return Err("the topic has no route to both masters".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let producers = 8;
    let each = Duration::from_secs(1) * producers / args.rate;
    let mut tasks = JoinSet::new();
    for _ in 0..producers {
        tasks.spawn(produce(Arc::clone(&shared), each));
    }
    let mut restarts = Times::default();
    let mut restarted: Outcome<()> = Ok(());
    for round in 1..=args.rounds {
        let began = Instant::now();
        restarted = rmqctl(args, &["restart"])
            .await
            .map_err(|error| format!("round {round}: {error}").into());
        restarts.push(began.elapsed());
        if restarted.is_err() {
            break;
        }
    }
    shared.stop.store(true, Ordering::Release);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    restarted?;
    let stored = found(&shared).await?;
    let acknowledged = shared.acknowledged.lock().len();
    let failed = shared.failed.lock().clone();
    println!(
        "{} rolling restarts ({restarts}); {acknowledged} of {} acknowledged, 0 lost, {} stored twice by a retry; {} sends tried again, {} failed in the end; \
         the slowest took {:.0?}",
        args.rounds,
        shared.next.load(Ordering::Acquire),
        stored - stored.min(acknowledged),
        shared.retried.load(Ordering::Acquire),
        failed.len(),
        *shared.slowest.lock(),
    );
    match failed.first() {
        None => Ok(()),
        Some(first) => {
            Err(format!("{} sends failed past their retries; {first}", failed.len()).into())
        }
    }
}

/// Where a producer may send: masters by broker name, and the queues of each.
#[derive(Clone, Default)]
struct Route {
    masters: BTreeMap<String, String>,
    queues: Vec<(String, Queue)>,
}

impl Shared {
    async fn route(&self) -> Outcome<Route> {
        let ext = ExtFields::new().with("topic", Queue(0).topic());
        let question = Command::request(request::GET_ROUTEINFO_BY_TOPIC, ext);
        let answer = self.client.call(&self.namesrv, question, SEND).await?;
        if answer.code != response::SUCCESS {
            return Ok(Route::default());
        }
        let data: TopicRouteData = json::from_slice(&answer.body)?;
        let mut route = Route::default();
        for broker in data.broker_datas {
            if let Some(address) = broker.broker_addrs.get(&0) {
                route.masters.insert(broker.broker_name, address.clone());
            }
        }
        for id in 0..QUEUES_PER_TOPIC {
            for name in route.masters.keys() {
                route.queues.push((name.clone(), Queue(id)));
            }
        }
        Ok(route)
    }
}

async fn produce(shared: Arc<Shared>, each: Duration) -> Outcome<()> {
    let mut route = shared.route().await?;
    let mut asked = Instant::now();
    let mut turn = fastrand::usize(..64);
    let mut next = tokio::time::interval(each);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.stop.load(Ordering::Acquire) {
        next.tick().await;
        if asked.elapsed() > POLL {
            asked = Instant::now();
            // A name server that restarts just now is asked the next time, as the client does.
            if let Ok(new) = shared.route().await
                && !new.queues.is_empty()
            {
                route = new;
            }
        }
        let message = Message(shared.next.fetch_add(1, Ordering::AcqRel));
        send(&shared, &route, message, &mut turn).await?;
    }
    Ok(())
}

/// `DefaultMQProducerImpl.sendDefaultImpl`.
async fn send(shared: &Shared, route: &Route, message: Message, turn: &mut usize) -> Outcome<()> {
    let began = Instant::now();
    let mut last: Option<&str> = None;
    let mut reasons = Vec::new();
    for tried in 0..TRIES {
        let left = SEND.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        // Round robin, past the broker that has just failed.
        let mut pick = &route.queues[0];
        for _ in 0..route.queues.len() {
            *turn += 1;
            pick = &route.queues[*turn % route.queues.len()];
            if last != Some(pick.0.as_str()) {
                break;
            }
        }
        let (name, queue) = pick;
        last = Some(name);
        if tried > 0 {
            shared.retried.fetch_add(1, Ordering::AcqRel);
        }
        let command = wire::send(*queue, &[message])?;
        match shared
            .client
            .call(&route.masters[name], command, left)
            .await
        {
            Ok(answer) if answer.code == response::SUCCESS => {
                let offset = answer.ext.i64("queueOffset")?;
                let stands = Stands {
                    broker: name.clone(),
                    offset,
                };
                shared
                    .acknowledged
                    .lock()
                    .insert(message.0, (*queue, stands));
                let mut slowest = shared.slowest.lock();
                *slowest = (*slowest).max(began.elapsed());
                return Ok(());
            }
            Ok(answer) if RETRIED.contains(&answer.code) => {
                reasons.push(format!("{name}: {}", answer.code))
            }
            Ok(answer) => {
                reasons.push(format!("{name}: {}, which is not tried again", answer.code));
                break;
            }
            Err(error) => reasons.push(format!("{name}: {error}")),
        }
    }
    let (number, took) = (message.0, began.elapsed());
    shared.failed.lock().push(format!(
        "message {number}, after {took:.0?}: {}",
        reasons.join("; ")
    ));
    Ok(())
}

/// Reads every queue of both masters and looks for what was acknowledged; returns how many messages there are.
async fn found(shared: &Shared) -> Outcome<usize> {
    let mut at: BTreeMap<(String, Queue, i64), Message> = BTreeMap::new();
    let route = shared.route().await?;
    for (name, queue) in &route.queues {
        let broker = Broker {
            client: shared.client.clone(),
            address: route.masters[name].clone(),
        };
        let (min, max) = broker.bounds(*queue).await?;
        let mut from = min;
        while from < max {
            let bytes = broker.records(*queue, from).await?;
            for record in record::records(&bytes) {
                let record = record?;
                if record.queue_offset() != from {
                    return Err(format!(
                        "{name} {queue}: {} in the place of {from}",
                        record.queue_offset()
                    )
                    .into());
                }
                at.insert((name.clone(), *queue, from), Message::of(record.body())?);
                from += 1;
            }
            if bytes.is_empty() {
                return Err(format!("{name} {queue}: nothing at {from} of {max}").into());
            }
        }
    }
    let acknowledged = shared.acknowledged.lock();
    let mut lost = BTreeSet::new();
    for (number, (queue, stands)) in &*acknowledged {
        let there = at.get(&(stands.broker.clone(), *queue, stands.offset));
        if there != Some(&Message(*number)) {
            lost.insert(*number);
        }
    }
    match lost.first() {
        None => Ok(at.len()),
        Some(first) => Err(format!(
            "{} acknowledged messages are lost, the first is {first}",
            lost.len()
        )
        .into()),
    }
}
