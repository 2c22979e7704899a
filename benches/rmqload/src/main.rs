mod codec;
mod net;
mod produce;
mod pull;
mod ready;
mod record;
mod route;
mod sink;
mod stats;

use clap::{Args, Parser, Subcommand};
use codec::Serialize;
use net::{mono_ns, Conn, Epoll, Link};
use produce::{Phase, Producer, SendCfg};
use pull::{Acked, Checker, Nobody, PullCfg, PullSlot, Puller, Verifier, Visitor};
use route::{Target, Where};
use serde_json::{json, Map, Value};
use stats::Meter;
use std::io::BufRead;

#[derive(Parser)]
#[command(name = "rmqload", version, about = "A light load generator and checker for the RocketMQ remoting protocol")]
struct Cli {
    #[command(subcommand)]
    cmd: Cmd,
}

#[derive(Args, Clone)]
struct Common {
    /// Name server to ask for routes
    #[arg(long, default_value = "127.0.0.1:9876")]
    namesrv: String,
    /// Talk to this broker only, without a name server
    #[arg(long)]
    addr: Option<String>,
    /// Use only the broker of this name
    #[arg(long)]
    broker: Option<String>,
    #[arg(long, default_value = "rmqload")]
    topic: String,
    /// Queues a broker, when creating the topic or when --addr leaves no route to read
    #[arg(long, default_value_t = 4)]
    queues: u32,
    #[arg(long, value_enum, default_value = "json")]
    serialize: Serialize,
    /// Create the topic first
    #[arg(long)]
    create_topic: bool,
    /// Reconnect with growing pauses, and read the route anew, when a connection fails; read it every second too, and
    /// send only to brokers whose topic takes sends
    #[arg(long)]
    reconnect: bool,
    /// Server processes whose processor time and memory to report
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    /// A text that the result repeats as "label"
    #[arg(long)]
    label: Option<String>,
}

#[derive(Args, Clone)]
struct SendArgs {
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight, over all connections together [default: 64, or 8192 with --rate]
    #[arg(long)]
    in_flight: Option<usize>,
    /// Body size of one message
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before the measured ones
    #[arg(long, default_value_t = 0.0)]
    warmup: f64,
    /// Stop after so many messages
    #[arg(long)]
    count: Option<u64>,
    /// Open loop: messages a second; latency counts from the intended send time
    #[arg(long)]
    rate: Option<f64>,
    /// Messages in one request (SEND_BATCH_MESSAGE when more than 1)
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Give each message a key
    #[arg(long)]
    keys: bool,
    /// Spread messages over so many tags
    #[arg(long, default_value_t = 0)]
    tags: u32,
    /// Leave out the unique key that client libraries add to every message
    #[arg(long)]
    no_uniq_key: bool,
    #[arg(long, default_value = "rmqload_producer")]
    group: String,
    /// How long a request may stay without an answer
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// Rest so long after each round of answers, so that one wake-up serves many: spares the client's processor
    /// time in throughput runs, and adds up to so much latency
    #[arg(long, default_value_t = 0)]
    coalesce_us: u64,
    /// With --rate: messages are due in groups, at multiples of so many microseconds
    #[arg(long, default_value_t = 0)]
    pace_us: u64,
    /// Log every acknowledged message for `verify`
    #[arg(long)]
    acked_log: Option<String>,
    /// Add acknowledged messages of each second to the result
    #[arg(long)]
    timeline: bool,
    /// Read and require the offset in every answer (implied by --acked-log)
    #[arg(long)]
    offsets: bool,
}

#[derive(Args, Clone)]
struct PullArgs {
    #[arg(long, default_value_t = 32)]
    max_batch: u32,
    #[arg(long, default_value_t = 15000)]
    suspend_ms: u64,
    /// Register the group with heartbeats instead of sending the subscription with every pull
    #[arg(long)]
    heartbeat: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum From {
    Min,
    Max,
}

#[derive(Subcommand)]
enum Cmd {
    /// Send messages and measure acknowledgements
    Produce {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        s: SendArgs,
    },
    /// Pull messages and check every one of them
    Consume {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        p: PullArgs,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long, default_value = "rmqload_consumer")]
        group: String,
        #[arg(long, value_enum, default_value = "min")]
        from: From,
        /// Run so long; without it, until what is stored at the start has been read
        #[arg(long)]
        seconds: Option<f64>,
        /// Count only messages of this run (the `run` that produce reports)
        #[arg(long)]
        run: Option<u64>,
    },
    /// Send at a fixed rate while consumers long poll; latency from intended send time to delivery
    E2e {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        s: SendArgs,
        #[command(flatten)]
        p: PullArgs,
        #[arg(long, default_value_t = 4)]
        consumer_connections: usize,
        /// Consumer groups, each of which gets every message
        #[arg(long, default_value_t = 1)]
        groups: usize,
    },
    /// Several groups pull the same topic at once
    Fanout {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        p: PullArgs,
        #[arg(long, default_value_t = 4)]
        groups: usize,
        /// Connections for each group
        #[arg(long, default_value_t = 2)]
        connections: usize,
    },
    /// Prove that every acknowledged message is stored exactly at its offset
    Verify {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        p: PullArgs,
        /// The log that `produce --acked-log` wrote
        #[arg(long)]
        acked: String,
        #[arg(long, default_value_t = 4)]
        connections: usize,
        #[arg(long, default_value = "rmqload_verify")]
        group: String,
        /// How long to wait for acknowledged messages that cannot be read yet
        #[arg(long, default_value_t = 10000)]
        settle_ms: u64,
    },
    /// Send spread over many topics
    ManyTopics {
        #[command(flatten)]
        c: Common,
        #[command(flatten)]
        s: SendArgs,
        #[arg(long, default_value_t = 1000)]
        topics: usize,
        /// Create the topics with list requests of 500 instead of one by one
        #[arg(long)]
        create_list: bool,
        /// The topics are there already
        #[arg(long)]
        no_create: bool,
    },
    /// The machine's limit: a server that only appends bodies to a file and answers, or only hands out ready-made pulls
    Sink {
        #[command(flatten)]
        a: sink::SinkArgs,
    },
}

impl Common {
    fn wh(&self) -> Where {
        Where { namesrv: self.namesrv.clone(), addr: self.addr.clone(), broker: self.broker.clone(), ser: self.serialize, queues: self.queues }
    }

    fn create(&self) -> Result<(), String> {
        if self.create_topic {
            route::create_topics(&self.wh(), std::slice::from_ref(&self.topic), self.queues, false)?;
        }
        Ok(())
    }
}

impl SendArgs {
    fn cfg(&self, c: &Common, topics: Vec<String>) -> SendCfg {
        SendCfg {
            wh: c.wh(),
            topics,
            group: self.group.clone(),
            connections: self.connections.max(1),
            in_flight: self.in_flight.unwrap_or(if self.rate.is_some() { 8192 } else { 64 }),
            size: self.size,
            seconds: self.seconds,
            warmup: self.warmup,
            count: self.count,
            rate: self.rate,
            batch: self.batch.max(1),
            keys: self.keys,
            tags: self.tags,
            uniq: !self.no_uniq_key,
            ser: c.serialize,
            reconnect: c.reconnect,
            timeout_ns: self.timeout_ms * 1_000_000,
            acked_log: self.acked_log.clone(),
            timeline: self.timeline,
            offsets: self.offsets,
            coalesce_ns: self.coalesce_us * 1000,
            pace_ns: self.pace_us * 1000,
        }
    }
}

/// Runs both sides on one thread until `stop` says so (asked at every turn).
fn drive<V: Visitor>(
    ep: &mut Epoll,
    conns: &mut [Conn],
    mut prod: Option<&mut Producer>,
    mut pull: Option<&mut Puller<V>>,
    mut stop: impl FnMut(u64, Option<&Producer>, Option<&mut Puller<V>>) -> bool,
) {
    let mut sweep_at = mono_ns() + 200_000_000;
    loop {
        let mut now = mono_ns();
        let mut sleep = 100_000_000;
        if let Some(p) = prod.as_deref_mut() {
            sleep = sleep.min(p.tick(now, ep, conns));
            if now >= sweep_at {
                sweep_at = now + 200_000_000;
                p.sweep(now, conns);
            }
        }
        if let Some(p) = pull.as_deref_mut() {
            sleep = sleep.min(p.tick(now, ep, conns));
        }
        if stop(now, prod.as_deref(), pull.as_deref_mut()) {
            return;
        }
        let rest = prod.as_ref().map_or(0, |p| p.rest());
        if rest > 0 && rest < sleep {
            std::thread::sleep(std::time::Duration::from_nanos(rest));
            sleep -= rest;
        }
        let n = ep.wait(sleep);
        if n > 0 {
            now = mono_ns();
        }
        for k in 0..n {
            let ev = ep.events[k];
            let token = ev.u64 as usize;
            let c = &mut conns[token];
            let pulling = pull.as_ref().is_some_and(|p| p.owns(token));
            let mut fault: Option<String> = None;
            if c.link == Link::Connecting {
                match c.connected() {
                    Ok(()) if pulling => pull.as_deref_mut().unwrap().on_up(token, now, &mut c.wb.buf),
                    Ok(()) => prod.as_deref_mut().unwrap().on_up(token, now, &mut c.wb.buf),
                    Err(e) => fault = Some(e.to_string()),
                }
            }
            if c.link == Link::Up && ev.events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
                match c.rb.fill(c.stream.as_mut().unwrap()) {
                    Err(e) => fault = Some(e.to_string()),
                    Ok(_) => {
                        // The time of arrival, not that of the whole batch of events.
                        now = mono_ns();
                        loop {
                            match c.rb.next() {
                                Ok(None) => break,
                                Ok(Some(f)) if pulling => pull.as_deref_mut().unwrap().on_frame(token, &f, now, &mut c.wb.buf),
                                Ok(Some(f)) => prod.as_deref_mut().unwrap().on_frame(token, &f, now, &mut c.wb.buf),
                                Err(e) => {
                                    fault = Some(e);
                                    break;
                                }
                            }
                        }
                    }
                }
            }
            if fault.is_none() {
                fault = c.flush(ep).err().map(|e| e.to_string());
            }
            if let Some(e) = fault {
                c.close();
                if pulling {
                    pull.as_deref_mut().unwrap().on_down(token, now, &e);
                } else {
                    prod.as_deref_mut().unwrap().on_down(token, now, &e);
                }
            }
        }
    }
}

fn conns(n: usize, from: usize, read: usize) -> Vec<Conn> {
    (from..from + n).map(|t| Conn::new(t as u64, read)).collect()
}

type Out = Result<(Map<String, Value>, bool), String>;

fn produce(c: &Common, cfg: SendCfg) -> Out {
    let mut ep = Epoll::new().map_err(|e| e.to_string())?;
    let mut p = Producer::new(cfg, &c.server_pid, 0)?;
    let mut cs = conns(p.tokens(), 0, 256 << 10);
    p.start(&ep, &mut cs)?;
    drive::<Nobody>(&mut ep, &mut cs, Some(&mut p), None, |_, p, _| p.unwrap().phase == Phase::Done);
    let ok = p.failed.is_none() && p.acked_all > 0;
    Ok((p.report(), ok))
}

struct Places {
    addrs: Vec<(Option<String>, String)>,
    slots: Vec<PullSlot>,
}

/// A pull slot for every readable queue of the topics, for each group.
fn places(c: &Common, topics: &[String], groups: usize, from: From) -> Result<Places, String> {
    let mut addrs = vec![];
    let mut slots = vec![];
    for (ti, topic) in topics.iter().enumerate() {
        let ts: Vec<Target> = route::fetch(&c.wh(), topic)?;
        for t in ts {
            let a = match addrs.iter().position(|(n, a)| *n == t.broker && *a == t.addr) {
                Some(a) => a,
                None => {
                    addrs.push((t.broker.clone(), t.addr.clone()));
                    addrs.len() - 1
                }
            };
            let qs: Vec<u32> = (0..t.read_queues).collect();
            let offs = route::offsets(&t.addr, c.serialize, topic, &qs)?;
            for g in 0..groups {
                for (&q, &(min, max)) in qs.iter().zip(&offs) {
                    let start = if from == From::Min { min } else { max };
                    slots.push(PullSlot::new(g, ti, q, a, start, max));
                }
            }
        }
    }
    Ok(Places { addrs, slots })
}

/// Servers index messages some time after they acknowledge them: waits until the largest offsets stand still.
fn settled(c: &Common, topics: &[String], groups: usize, from: From) -> Result<Places, String> {
    let mut last = None;
    for _ in 0..150 {
        let p = places(c, topics, groups, from)?;
        let sum: u64 = p.slots.iter().map(|s| s.until).sum();
        if last == Some(sum) {
            return Ok(p);
        }
        last = Some(sum);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    Err("the largest offsets do not stand still; give --seconds".into())
}

fn pull_cfg(c: &Common, p: &PullArgs, topics: Vec<String>, groups: Vec<String>, connections: usize, catch_up: bool) -> PullCfg {
    PullCfg {
        wh: c.wh(),
        topics,
        groups,
        connections,
        max_batch: p.max_batch,
        suspend_ms: if catch_up { 0 } else { p.suspend_ms },
        subscription: !p.heartbeat,
        heartbeat: p.heartbeat,
        reconnect: c.reconnect,
        catch_up,
    }
}

fn consume(c: &Common, p: &PullArgs, connections: usize, groups: Vec<String>, from: From, seconds: Option<f64>, run: Option<u64>) -> Out {
    let mut ep = Epoll::new().map_err(|e| e.to_string())?;
    let topics = vec![c.topic.clone()];
    let catch_up = seconds.is_none();
    let pl = if catch_up { settled(c, &topics, groups.len(), from)? } else { places(c, &topics, groups.len(), from)? };
    let from_start = from == From::Min && pl.slots.iter().all(|s| s.next == 0);
    let mut check = Checker::new(pl.slots.len(), false, from_start);
    check.run = run;
    let n_groups = groups.len();
    let cfg = pull_cfg(c, p, topics, groups, connections, catch_up);
    let mut pu = Puller::new(cfg, pl.addrs, pl.slots, check, 0)?;
    let mut cs = conns(pu.tokens(), 0, 1 << 20);
    let mut meter = Meter::start(&c.server_pid);
    let t0 = mono_ns();
    pu.start(&ep, &mut cs)?;
    let end = seconds.map_or(u64::MAX, |s| t0 + (s * 1e9) as u64);
    let mut sample = t0;
    drive(&mut ep, &mut cs, None, Some(&mut pu), |now, _, p| {
        let p = p.unwrap();
        if now > sample + 1_000_000_000 {
            sample = now;
            meter.sample();
        }
        now >= end || catch_up && p.left == 0 || p.failed.is_some()
    });
    let mut m = Map::new();
    let end = if catch_up { pu.last_at.max(t0 + 1) } else { mono_ns() };
    let secs = ((end - t0) as f64 / 1e9).max(1e-9);
    pu.report(&mut m, secs);
    pu.v.report(&mut m, &pu.slots);
    m.insert("groups".into(), json!(n_groups));
    m.insert("complete".into(), json!(!catch_up || pu.left == 0));
    meter.report(&mut m, pu.messages, secs);
    let ok = pu.failed.is_none() && pu.bad_records == 0 && pu.v.damaged == 0 && pu.offset_gaps == 0;
    Ok((m, ok))
}

fn e2e(c: &Common, s: &SendArgs, p: &PullArgs, consumer_connections: usize, groups: usize) -> Out {
    let mut ep = Epoll::new().map_err(|e| e.to_string())?;
    let topics = vec![c.topic.clone()];
    let pl = places(c, &topics, groups, From::Max)?;
    let mut cfg = s.cfg(c, topics.clone());
    if cfg.rate.is_none() {
        cfg.rate = Some(1000.0);
    }
    let names = (0..groups).map(|g| format!("rmqload_e2e_{g}")).collect();
    let check = Checker::new(pl.slots.len(), true, false);
    let mut pu = Puller::new(pull_cfg(c, p, topics, names, consumer_connections, false), pl.addrs, pl.slots, check, 0)?;
    let first = pu.tokens();
    let mut cs = conns(first, 0, 1 << 20);
    pu.start(&ep, &mut cs)?;
    // The consumers wait at the queues before the first message leaves.
    let settle = mono_ns() + 300_000_000;
    drive(&mut ep, &mut cs, None, Some(&mut pu), |now, _, _| now > settle);
    let mut pr = Producer::new(cfg, &c.server_pid, first)?;
    pu.v.run = Some(pr.run);
    pu.v.record_from = mono_ns() + (s.warmup * 1e9) as u64;
    cs.extend(conns(pr.tokens(), first, 256 << 10));
    pr.start(&ep, &mut cs)?;
    let t0 = mono_ns();
    let mut give_up = None;
    drive(&mut ep, &mut cs, Some(&mut pr), Some(&mut pu), |now, pr, pu| {
        let (pr, pu) = (pr.unwrap(), pu.unwrap());
        if pr.phase != Phase::Done {
            return false;
        }
        let limit = *give_up.get_or_insert(now + 3_000_000_000);
        pu.v.mine >= pr.acked_all * groups as u64 || now >= limit
    });
    let mut m = pr.report();
    if let Some(l) = m.remove("latency") {
        m.insert("send_latency".into(), l);
    }
    let mut cm = Map::new();
    pu.report(&mut cm, (pu.last_at.max(t0 + 1) - t0) as f64 / 1e9);
    pu.v.report(&mut cm, &pu.slots);
    if let Some(l) = cm.remove("latency") {
        m.insert("delivery_latency".into(), l);
    }
    m.insert("delivered".into(), json!(pu.v.mine));
    let ok = pr.failed.is_none() && pu.failed.is_none() && pu.v.damaged == 0 && pu.bad_records == 0 && pu.v.mine >= pr.acked_all * groups as u64;
    m.insert("consume".into(), Value::Object(cm));
    Ok((m, ok))
}

fn verify(c: &Common, p: &PullArgs, file: &str, connections: usize, group: &str, settle_ms: u64) -> Out {
    let f = std::fs::File::open(file).map_err(|e| format!("{file}: {e}"))?;
    let mut lines = std::io::BufReader::new(f).lines();
    let head = lines.next().and_then(|l| l.ok()).unwrap_or_default();
    let head = head.strip_prefix("#rmqload-acked 1 ").ok_or_else(|| format!("{file} is not a log of acknowledgements"))?;
    let head: Value = serde_json::from_str(head).map_err(|e| e.to_string())?;
    let run: u64 = head["run"].as_str().and_then(|r| r.parse().ok()).ok_or("the log names no run")?;
    let names = |k: &str| head[k].as_array().cloned().unwrap_or_default();
    let topics: Vec<String> = names("topics").iter().filter_map(|t| t.as_str().map(String::from)).collect();
    let brokers: Vec<Option<String>> = names("brokers").iter().map(|b| b["name"].as_str().map(String::from)).collect();
    let mut pl = places(c, &topics, 1, From::Min)?;
    let mut acked: Vec<Vec<Acked>> = pl.slots.iter().map(|_| vec![]).collect();
    let mut index = std::collections::HashMap::new();
    for (i, s) in pl.slots.iter().enumerate() {
        index.insert((pl.addrs[s.addr].0.clone(), s.topic as u64, s.queue as u64), i);
    }
    let (mut logged, mut homeless, mut below) = (0u64, 0u64, 0u64);
    for l in lines {
        let l = l.map_err(|e| e.to_string())?;
        let v: Vec<u64> = l.split(' ').filter_map(|x| x.parse().ok()).collect();
        if v.len() != 6 {
            continue; // a last line that was cut off
        }
        logged += 1;
        let broker = brokers.get(v[0] as usize).cloned().flatten();
        let broker = if c.addr.is_some() { c.broker.clone() } else { broker };
        match index.get(&(broker, v[1], v[2])) {
            Some(&i) => {
                below += (v[3] < pl.slots[i].next) as u64;
                acked[i].push(Acked { offset: v[3], conn: v[4] as u32, seq: v[5] });
            }
            None => homeless += 1,
        }
    }
    // What was acknowledged may not be readable yet.
    for (s, a) in pl.slots.iter_mut().zip(&acked) {
        s.until = s.until.max(a.iter().map(|a| a.offset + 1).max().unwrap_or(0));
    }
    let (mut v, twice) = Verifier::new(run, acked);
    v.check.run = Some(run);
    let mut ep = Epoll::new().map_err(|e| e.to_string())?;
    let mut pu = Puller::new(pull_cfg(c, p, topics, vec![group.into()], connections, true), pl.addrs, pl.slots, v, 0)?;
    let mut cs = conns(pu.tokens(), 0, 1 << 20);
    pu.start(&ep, &mut cs)?;
    let t0 = mono_ns();
    let mut stuck = (0, t0);
    drive(&mut ep, &mut cs, None, Some(&mut pu), |now, _, p| {
        let p = p.unwrap();
        if p.messages != stuck.0 {
            stuck = (p.messages, now);
        }
        p.left == 0 || p.failed.is_some() || now > stuck.1 + settle_ms * 1_000_000
    });
    pu.v.finish();
    let mut m = Map::new();
    pu.report(&mut m, ((mono_ns() - t0) as f64 / 1e9).max(1e-9));
    let v = &pu.v;
    m.insert("acked".into(), json!(logged));
    m.insert("matched".into(), json!(v.matched));
    m.insert("lost".into(), json!(v.lost + homeless));
    m.insert("below_min_offset".into(), json!(below));
    m.insert("other_message_at_offset".into(), json!(v.other));
    m.insert("offset_acked_twice".into(), json!(twice));
    m.insert("stored_but_not_acked".into(), json!(v.unacked));
    m.insert("duplicated".into(), json!(v.check.duplicated()));
    m.insert("damaged".into(), json!(v.check.damaged));
    m.insert("examples".into(), json!(v.examples));
    let ok = pu.failed.is_none()
        && v.matched == logged
        && v.lost == 0
        && v.other == 0
        && twice == 0
        && v.check.damaged == 0
        && pu.bad_records == 0
        && pu.offset_gaps == 0;
    m.insert("proved".into(), json!(ok));
    Ok((m, ok))
}

fn many_topics(c: &Common, s: &SendArgs, n: usize, list: bool, no_create: bool) -> Out {
    let topics: Vec<String> = (0..n).map(|i| format!("{}_{i:06}", c.topic)).collect();
    let t0 = mono_ns();
    let mut meter = Meter::start(&c.server_pid);
    if !no_create {
        route::create_topics(&c.wh(), &topics, c.queues, list)?;
    }
    let create = (mono_ns() - t0) as f64 / 1e9;
    let mut cm = Map::new();
    meter.report(&mut cm, n as u64, create);
    let (mut m, ok) = produce(c, s.cfg(c, topics))?;
    m.insert("topics".into(), json!(n));
    if !no_create {
        m.insert("create_s".into(), json!(stats::r3(create)));
        m.insert("create_ms_per_topic".into(), json!(stats::r3(create * 1e3 / n as f64)));
        m.insert("create_server".into(), cm.remove("server").unwrap_or(Value::Null));
    }
    Ok((m, ok))
}

fn main() {
    let cli = Cli::parse();
    let (name, c, r) = match &cli.cmd {
        Cmd::Produce { c, s } => ("produce", c, c.create().and_then(|_| produce(c, s.cfg(c, vec![c.topic.clone()])))),
        Cmd::Consume { c, p, connections, group, from, seconds, run } => {
            ("consume", c, consume(c, p, *connections, vec![group.clone()], *from, *seconds, *run))
        }
        Cmd::E2e { c, s, p, consumer_connections, groups } => ("e2e", c, c.create().and_then(|_| e2e(c, s, p, *consumer_connections, *groups))),
        Cmd::Fanout { c, p, groups, connections } => {
            let g = (0..*groups).map(|g| format!("rmqload_fanout_{g}")).collect();
            ("fanout", c, consume(c, p, *connections, g, From::Min, None, None))
        }
        Cmd::Verify { c, p, acked, connections, group, settle_ms } => ("verify", c, verify(c, p, acked, *connections, group, *settle_ms)),
        Cmd::ManyTopics { c, s, topics, create_list, no_create } => ("many-topics", c, many_topics(c, s, *topics, *create_list, *no_create)),
        Cmd::Sink { a } => {
            if let Err(e) = sink::serve(a) {
                eprintln!("rmqload: {e}");
                std::process::exit(1);
            }
            return;
        }
    };
    match r {
        Ok((m, ok)) => {
            let mut out = Map::new();
            out.insert("command".into(), json!(name));
            if let Some(l) = &c.label {
                out.insert("label".into(), json!(l));
            }
            out.extend(m);
            out.insert("ok".into(), json!(ok));
            stats::print(&Value::Object(out), c.json);
            if !ok {
                std::process::exit(1);
            }
        }
        Err(e) => {
            if c.json {
                stats::print(&json!({"command": name, "label": c.label, "error": e, "ok": false}), true);
            }
            eprintln!("rmqload: {e}");
            std::process::exit(1);
        }
    }
}

#[cfg(test)]
mod tests;
