//! Hostile clients, one kind at a time, beside good ones: how long the good ones wait, and whether memory comes back.

use crate::Outcome;
use crate::message::{Message, Queue};
use crate::node::{Node, Part};
use crate::report::Times;
use crate::trial::{make_topics, topic};
use crate::wire::{self, Broker};
use bytes::BytesMut;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How often a good client asks.
const EACH: Duration = Duration::from_millis(5);
/// An answer that takes longer is a failure of its own.
const ANSWER: Duration = Duration::from_secs(10);
/// How long memory is given to come back after an attack.
const BACK: Duration = Duration::from_secs(2);
/// Pages that an allocator holds or not, as it happens: a tenth of so little memory is less than they are.
const SLACK_KIB: u64 = 768;
/// A good client's 99th percentile may be so many times what it is without the attack.
const FACTOR: u32 = 3;
/// How often an attack is run while it leaves more memory behind than there was before it.
const WAVES: usize = 3;

/// `hostile`
#[derive(Debug, clap::Args)]
pub struct Hostile {
    #[command(flatten)]
    common: crate::Common,
    /// How long each attack takes, and the measurement before it
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Attacks, all without
    #[arg(long, value_enum, value_delimiter = ',')]
    attack: Vec<Attack>,
    /// Connections that hold half a frame
    #[arg(long, default_value_t = 2000)]
    halves: usize,
    /// Connections that announce 16 MiB
    #[arg(long, default_value_t = 1000)]
    announced: usize,
    /// Groups in all
    #[arg(long, default_value_t = 100_000)]
    groups: usize,
    /// Milliseconds that a good client's 99th percentile may be in any case
    #[arg(long, default_value_t = 3)]
    floor_ms: u64,
    /// Prints the figures without judging the good clients' times, as on a machine that does something else too
    #[arg(long)]
    lenient: bool,
}

/// What hostile clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Attack {
    /// Half a frame on each of many connections, held
    Halves,
    /// 16 MiB announced on each, 64 KiB of it sent
    Announced,
    /// Connect and close, as fast as it goes, on every port
    Storms,
    /// Heartbeats of very many producer groups
    Producers,
    /// Heartbeats of very many consumer groups, which the broker keeps as RocketMQ does
    Consumers,
}

const ALL: [Attack; 5] = [
    Attack::Halves,
    Attack::Announced,
    Attack::Storms,
    Attack::Producers,
    Attack::Consumers,
];

/// The two nodes under attack.
struct Nodes {
    namesrv: Node,
    broker: Node,
}

impl Nodes {
    fn addresses(&self) -> [String; 4] {
        let port = self.broker.port;
        [self.namesrv.port, port, port - 2, port + 1].map(|port| format!("127.0.0.1:{port}"))
    }

    /// Anonymous memory of name server and broker, KiB.
    fn memory(&self) -> Outcome<[u64; 2]> {
        Ok([anonymous(&self.namesrv)?, anonymous(&self.broker)?])
    }
}

fn anonymous(node: &Node) -> Outcome<u64> {
    let pid = node.pid().ok_or("it does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no RssAnon")?.parse()?)
}

pub async fn run(args: Hostile) -> Outcome<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let dir = args.common.dir("hostile")?;
    let port = args.common.port;
    let mut nodes = Nodes {
        namesrv: Node::new(
            &args.common.rmqctl,
            &dir.join("namesrv"),
            Part::Namesrv,
            port,
            &[],
        )?,
        broker: Node::new(
            &args.common.rmqctl,
            &dir.join("broker"),
            Part::Broker,
            port + 10,
            &[("namesrvAddr", format!("127.0.0.1:{port}"))],
        )?,
    };
    nodes.namesrv.start().await?;
    nodes.broker.start().await?;
    make_topics(&Broker::at(nodes.broker.address())).await?;
    registered(&nodes).await?;
    let attacks = if args.attack.is_empty() {
        &ALL[..]
    } else {
        &args.attack
    };
    let length = Duration::from_secs(args.seconds);
    // What is made once is made by then.
    measure(&nodes, length / 2, None).await?;
    let before = measure(&nodes, length, None).await?;
    println!(
        "good clients alone: route {}; send {}",
        before.route, before.send
    );
    let mut failures = Vec::new();
    for attack in attacks {
        failures.extend(one(&args, *attack, &mut nodes, &before).await?);
    }
    nodes.broker.stop().await?;
    nodes.namesrv.stop().await?;
    std::fs::remove_dir_all(&dir)?;
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("\n").into())
}

/// Waits until the name server knows the topics.
async fn registered(nodes: &Nodes) -> Outcome<()> {
    let namesrv = Broker::at(nodes.namesrv.address());
    let began = Instant::now();
    while namesrv.call(route()).await?.code != response::SUCCESS {
        if began.elapsed() > ANSWER {
            return Err(format!("the broker is not registered\n{}", nodes.broker.tail()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn route() -> Command {
    let ext = ExtFields::new().with("topic", Queue(0).topic());
    Command::request(request::GET_ROUTEINFO_BY_TOPIC, ext)
}

/// Runs an attack, and again if memory does not come back. The allocator keeps what one attack took, in pieces, and somewhat
/// more; three times as much would be a leak.
/// Returns what is wrong with the nodes.
async fn one(
    args: &Hostile,
    attack: Attack,
    nodes: &mut Nodes,
    alone: &Seen,
) -> Outcome<Vec<String>> {
    let length = Duration::from_secs(args.seconds);
    let mut wrong = Vec::new();
    let mut before = nodes.memory()?;
    let mut first_peak = 0;
    println!("{attack:?}: name server and broker have {before:?} KiB");
    for wave in 1..=WAVES {
        let under = Arc::new(Attackers {
            attack,
            halves: args.halves,
            announced: args.announced,
            groups: args.groups,
            addresses: nodes.addresses(),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        });
        let during = measure(nodes, length, Some(&under)).await?;
        let after = settled(nodes, before).await?;
        println!(
            "{attack:?}: {} times; route {}; send {}; at most {} KiB together, {after:?} afterwards",
            under.done.load(Ordering::Acquire),
            during.route,
            during.send,
            under.peak.load(Ordering::Acquire),
        );
        for (name, alone, during) in [
            ("route", &alone.route, &during.route),
            ("send", &alone.send, &during.send),
        ] {
            let most = (alone.at(0.99) * FACTOR).max(Duration::from_millis(args.floor_ms));
            if during.at(0.99) > most && !args.lenient {
                wrong.push(format!(
                    "{attack:?}: {name}: p99 {:.1?}, at most {most:.1?} is allowed",
                    during.at(0.99)
                ));
            }
        }
        if is_back(after, before) {
            return Ok(wrong);
        }
        let peak = under.peak.load(Ordering::Acquire);
        first_peak = first_peak.max(if wave == 1 { peak } else { 0 });
        let kept: u64 = after.iter().sum();
        if wave == WAVES && kept > 2 * first_peak {
            wrong.push(format!(
                "{attack:?}: {kept} KiB stay after the {WAVES}th time, the first took {first_peak} in all: it grows"
            ));
        }
        before = after;
    }
    Ok(wrong)
}

fn is_back(now: [u64; 2], before: [u64; 2]) -> bool {
    now.iter()
        .zip(before)
        .all(|(now, before)| *now <= allowed(before))
}

fn allowed(before: u64) -> u64 {
    (before + before / 10).saturating_add(SLACK_KIB)
}

/// Waits until memory is what it was, or the time for that is over; returns what it is.
async fn settled(nodes: &Nodes, before: [u64; 2]) -> Outcome<[u64; 2]> {
    let began = Instant::now();
    loop {
        let now = nodes.memory()?;
        if is_back(now, before) || began.elapsed() > BACK {
            return Ok(now);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What good clients see.
struct Seen {
    route: Times,
    send: Times,
}

/// Good clients for a time, beside attackers or not.
async fn measure(
    nodes: &Nodes,
    length: Duration,
    attack: Option<&Arc<Attackers>>,
) -> Outcome<Seen> {
    let stop = Arc::new(AtomicBool::new(false));
    let (namesrv, broker) = (nodes.namesrv.address(), nodes.broker.address());
    let send = wire::send(Queue(0), &[Message(1)])?;
    let good = tokio::spawn(ask(namesrv, route(), Arc::clone(&stop)));
    let sender = tokio::spawn(ask(broker, send, Arc::clone(&stop)));
    let attackers = attack.map(|under| {
        let under = Arc::clone(under);
        std::thread::spawn(move || attack_at_low_priority(&under))
    });
    let began = Instant::now();
    while began.elapsed() < length && !good.is_finished() && !sender.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if let Some(under) = attack {
            under
                .peak
                .fetch_max(nodes.memory()?.iter().sum(), Ordering::AcqRel);
        }
    }
    stop.store(true, Ordering::Release);
    let seen = Seen {
        route: good.await??,
        send: sender.await??,
    };
    if let (Some(under), Some(attackers)) = (attack, attackers) {
        under.stop.store(true, Ordering::Release);
        let ended = tokio::task::spawn_blocking(move || attackers.join()).await?;
        ended.map_err(|_| "the attackers panicked")??;
    }
    Ok(seen)
}

/// Runs the attackers on threads of their own that only get what nobody else wants: they stand for other machines, and what
/// they take of this one's cores is not the nodes' doing.
fn attack_at_low_priority(under: &Arc<Attackers>) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(|| {
            // Refused, they only compete with the good clients: the figures get worse, not better.
            let _ = rustix::process::setpriority_process(None, 19);
        })
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut tasks = start(under);
        while tasks.join_next().await.is_some() {}
    });
    Ok(())
}

/// One good client: the same question each few milliseconds, on one connection that must stay.
async fn ask(address: String, question: Command, stop: Arc<AtomicBool>) -> Outcome<Times> {
    let (mut sending, mut answers) = wire::connect(&address).await?;
    let mut times = Times::default();
    let mut next = tokio::time::interval(EACH);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !stop.load(Ordering::Acquire) {
        next.tick().await;
        let asked = Instant::now();
        sending.write(vec![question.clone()]).await?;
        let answer = tokio::time::timeout(ANSWER, answers.next()).await;
        match answer
            .map_err(|_| format!("{address} did not answer a good client within {ANSWER:?}"))??
        {
            Some(answer) if answer.code == response::SUCCESS => times.push(asked.elapsed()),
            Some(answer) => {
                return Err(format!(
                    "{address} answered a good client {}: {:?}",
                    answer.code, answer.remark
                )
                .into());
            }
            None => return Err(format!("{address} closed a good client's connection").into()),
        }
    }
    Ok(times)
}

/// What all hostile clients share.
struct Attackers {
    attack: Attack,
    halves: usize,
    announced: usize,
    groups: usize,
    /// Name server, main port, VIP port, HA port.
    addresses: [String; 4],
    stop: AtomicBool,
    done: AtomicU64,
    /// KiB.
    peak: AtomicU64,
}

impl Attackers {
    fn on(&self) -> bool {
        !self.stop.load(Ordering::Acquire)
    }
}

fn start(under: &Arc<Attackers>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    match under.attack {
        Attack::Halves => {
            for number in 0..under.halves {
                tasks.spawn(hold(Arc::clone(under), number, half(number)));
            }
        }
        Attack::Announced => {
            for number in 0..under.announced {
                tasks.spawn(hold(Arc::clone(under), number, announced()));
            }
        }
        Attack::Storms => {
            for number in 0..16 {
                tasks.spawn(storm(Arc::clone(under), number));
            }
        }
        Attack::Producers | Attack::Consumers => {
            let each = under.groups.div_ceil(CLIENTS);
            for number in 0..CLIENTS {
                let groups = (number * each)..((number + 1) * each).min(under.groups);
                tasks.spawn(heartbeats(Arc::clone(under), groups));
            }
        }
    }
    tasks
}

/// Connections over which the groups' heartbeats come, and groups that one heartbeat names.
const CLIENTS: usize = 100;
const GROUPS_AT_ONCE: usize = 100;
/// How long such a client waits when all its groups are known; a real one sends a heartbeat each 30 s.
const BEAT: Duration = Duration::from_secs(1);

/// Part of a frame that would be a good one, cut at a place that differs from client to client.
fn half(number: usize) -> Vec<u8> {
    let mut frame = BytesMut::new();
    topic("half")
        .with_body(vec![b'x'; 60 << 10])
        .encode(&mut frame);
    let cut = match number % 4 {
        0 => 3,
        1 => 20,
        2 => frame.len() / 2,
        _ => frame.len() - 1,
    };
    frame[..cut].to_vec()
}

/// The beginning of a frame of 16 MiB.
fn announced() -> Vec<u8> {
    let mut frame = BytesMut::new();
    topic("announced").encode(&mut frame);
    // One more would be refused at once.
    let len: u32 = (16 << 20) - 4;
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame.resize(64 << 10, b'x');
    frame.to_vec()
}

/// Sends that much, holds the connection until it is closed, and begins again.
async fn hold(under: Arc<Attackers>, number: usize, bytes: Vec<u8>) {
    // The HA port has other frames.
    let address = &under.addresses[number % 3];
    while under.on() {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if stream.write_all(&bytes).await.is_err() {
            continue;
        }
        under.done.fetch_add(1, Ordering::AcqRel);
        let mut byte = [0];
        while under.on() {
            let read = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut byte));
            if let Ok(Ok(0) | Err(_)) = read.await {
                break;
            }
        }
    }
}

/// Connects and closes, by turns in order and with a reset, with and without a byte.
async fn storm(under: Arc<Attackers>, number: usize) {
    let mut round = number;
    while under.on() {
        round += 1;
        let address = &under.addresses[round % 4];
        let Ok(mut stream) = TcpStream::connect(address).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        if round.is_multiple_of(3) {
            // It may be closed already.
            let _ = stream.write_all(&[0, 0, 1]).await;
        }
        // Always reset in the end: ports in TIME_WAIT would run out on this machine before the broker feels anything.
        let _ = stream.set_zero_linger();
        under.done.fetch_add(1, Ordering::AcqRel);
    }
}

/// Heartbeats as fast as they are answered until all groups are known, then again each second; the connection closes at the end.
async fn heartbeats(under: Arc<Attackers>, groups: std::ops::Range<usize>) {
    let all: Vec<usize> = groups.collect();
    let Ok((mut sending, mut answers)) = wire::connect(&under.addresses[1]).await else {
        return;
    };
    loop {
        for some in all.chunks(GROUPS_AT_ONCE) {
            if !under.on()
                || sending
                    .write(vec![heartbeat(under.attack, some)])
                    .await
                    .is_err()
            {
                return;
            }
            loop {
                match answers.next().await {
                    Ok(Some(answer)) if answer.is_response() => break,
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return,
                }
            }
            under.done.fetch_add(some.len() as u64, Ordering::AcqRel);
        }
        let rested = Instant::now();
        while under.on() && rested.elapsed() < BEAT {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn heartbeat(attack: Attack, groups: &[usize]) -> Command {
    let of_each = |form: &dyn Fn(usize) -> String| {
        let all: Vec<String> = groups.iter().map(|group| form(*group)).collect();
        all.join(",")
    };
    let topic = Queue(0).topic();
    let body = match attack {
        Attack::Consumers => {
            let consumers = of_each(&|group| {
                format!(
                    r#"{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"hostile-{group}","messageModel":"CLUSTERING","subscriptionDataSet":[{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"{topic}"}}],"unitMode":false}}"#
                )
            });
            format!(
                r#"{{"clientID":"127.0.0.1@hostile","consumerDataSet":[{consumers}],"producerDataSet":[]}}"#
            )
        }
        _ => {
            let producers = of_each(&|group| format!(r#"{{"groupName":"hostile-{group}"}}"#));
            format!(
                r#"{{"clientID":"127.0.0.1@hostile","consumerDataSet":[],"producerDataSet":[{producers}]}}"#
            )
        }
    };
    Command::request(request::HEART_BEAT, ExtFields::new()).with_body(body)
}
