//! The sending side: keeps requests in flight on every connection and matches the answers.

use crate::codec::{fast_success, Frame, Header, SendTemplate, SendVars, Serialize};
use crate::net::{mono_ns, wall_ms, Conn, Epoll, Link};
use crate::record::{begin_batched, end_batched, BodyHeader, Filler, BODY_HEADER};
use crate::route::{self, Target, Where};
use crate::stats::{hist, latency_json, r3, Errors, Meter};
use hdrhistogram::Histogram;
use serde_json::{json, Map, Value};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::mpsc::{sync_channel, SyncSender};
use std::sync::{Arc, Mutex};

#[derive(Clone)]
pub struct SendCfg {
    pub wh: Where,
    pub topics: Vec<String>,
    pub group: String,
    pub connections: usize,
    pub in_flight: usize,
    pub size: usize,
    pub seconds: f64,
    pub warmup: f64,
    pub count: Option<u64>,
    pub rate: Option<f64>,
    pub batch: usize,
    pub keys: bool,
    pub tags: u32,
    pub uniq: bool,
    pub ser: Serialize,
    pub reconnect: bool,
    pub timeout_ns: u64,
    pub acked_log: Option<String>,
    pub timeline: bool,
    pub offsets: bool,
    pub coalesce_ns: u64,
    pub pace_ns: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    opaque: u32,
    busy: bool,
    /// Intended send time.
    at: u64,
    sent: u64,
    topic: u32,
    queue: u32,
    seq: u64,
    n: u32,
}

struct PConn {
    token: usize,
    target: usize,
    addr: String,
    slots: Vec<Slot>,
    free: Vec<u32>,
    gen: u32,
    rr: u64,
    seqs: Vec<u64>,
    paused_until: u64,
    retry_at: u64,
    backoff: u64,
    dirty: bool,
}

#[derive(Clone, Copy, Default)]
struct Gap {
    last: u64,
    longest: u64,
    from: u64,
}

impl Gap {
    fn ack(&mut self, now: u64) {
        let d = now.saturating_sub(self.last);
        if d > self.longest {
            self.longest = d;
            self.from = self.last;
        }
        self.last = now;
    }
}

/// Asks the name server for the route on a thread of its own, so that the sending never waits for it.
pub struct Refresher {
    ask: SyncSender<()>,
    got: Arc<Mutex<Option<Vec<Target>>>>,
    asked_at: u64,
}

impl Refresher {
    pub fn new(w: &Where, topic: &str) -> Refresher {
        let (ask, rx) = sync_channel(1);
        let got = Arc::new(Mutex::new(None));
        let (out, w, topic) = (got.clone(), w.clone(), topic.to_string());
        std::thread::spawn(move || {
            while rx.recv().is_ok() {
                if let Ok(t) = route::fetch(&w, &topic) {
                    *out.lock().unwrap() = Some(t);
                }
            }
        });
        Refresher { ask, got, asked_at: 0 }
    }

    pub fn ask(&mut self, now: u64) {
        if now > self.asked_at + 100_000_000 {
            self.asked_at = now;
            let _ = self.ask.try_send(());
        }
    }

    pub fn take(&self) -> Option<Vec<Target>> {
        self.got.lock().unwrap().take()
    }
}

/// How often --reconnect reads the route anew though nothing failed, as clients do every 30 s.
const ROUTE_NS: u64 = 1_000_000_000;

#[derive(PartialEq, Clone, Copy, Debug)]
pub enum Phase {
    Warm,
    Run,
    Drain,
    Done,
}

pub struct Producer {
    cfg: SendCfg,
    pub run: u64,
    targets: Vec<Target>,
    /// Targets that the last route lets us send to.
    open: Vec<bool>,
    route_at: u64,
    tpl: Vec<SendTemplate>,
    conns: Vec<PConn>,
    by_token: Vec<usize>,
    filler: Filler,
    refresher: Refresher,
    log: Option<BufWriter<File>>,
    pub phase: Phase,
    started: u64,
    window: u64,
    pace: u64,
    next_i: u64,
    next_conn: usize,
    in_flight: u64,
    sent: u64,
    acked: u64,
    pub acked_all: u64,
    acked_bytes: u64,
    lost: u64,
    timeouts: u64,
    reconnects: u64,
    errors: Errors,
    hist: Histogram<u64>,
    /// How far behind the schedule this tool itself was.
    lag: Histogram<u64>,
    gap: Gap,
    gaps: Vec<Gap>,
    timeline: Vec<u64>,
    last_ack: u64,
    uniq: u64,
    born_ms: u64,
    born_at: u64,
    drain_until: u64,
    meter: Meter,
    sample_at: u64,
    result: Map<String, Value>,
    pub failed: Option<String>,
    bad_frames: u64,
}

impl Producer {
    pub fn new(cfg: SendCfg, pids: &[u32], first_token: usize) -> Result<Producer, String> {
        if cfg.size < BODY_HEADER {
            return Err(format!("--size must be at least {BODY_HEADER}"));
        }
        let mut targets = route::fetch(&cfg.wh, &cfg.topics[0])?;
        targets.retain(|t| t.write_queues > 0);
        if targets.is_empty() {
            return Err("no writable queue".into());
        }
        let run = mono_ns() ^ (std::process::id() as u64) << 40 ^ wall_ms() << 20;
        let n = cfg.connections.max(targets.len());
        let per = (cfg.in_flight / n).max(1);
        if per > 65536 {
            return Err("--in-flight is more than 65536 a connection".into());
        }
        let tpl =
            targets.iter().map(|t| SendTemplate::new(cfg.ser, &cfg.group, t.broker.as_deref(), cfg.batch > 1, cfg.keys, cfg.tags, cfg.uniq, run)).collect();
        let mut conns = vec![];
        let mut by_token = vec![usize::MAX; first_token];
        for i in 0..n {
            let target = i % targets.len();
            let places = cfg.topics.len() as u64 * targets[target].write_queues as u64;
            by_token.push(i);
            conns.push(PConn {
                token: first_token + i,
                target,
                addr: targets[target].addr.clone(),
                slots: vec![Slot::default(); per],
                free: (0..per as u32).rev().collect(),
                gen: 0,
                rr: i as u64 * places / n as u64,
                seqs: vec![0; places as usize],
                paused_until: 0,
                retry_at: 0,
                backoff: 10_000_000,
                dirty: false,
            });
        }
        let mut log = None;
        if let Some(p) = &cfg.acked_log {
            let mut w = BufWriter::with_capacity(1 << 20, File::create(p).map_err(|e| format!("{p}: {e}"))?);
            let head = json!({"run": run.to_string(), "topics": cfg.topics, "brokers": targets.iter().map(|t| json!({"name": t.broker, "addr": t.addr})).collect::<Vec<_>>(),
                "columns": "broker topic queue offset connection seq"});
            writeln!(w, "#rmqload-acked 1 {head}").map_err(|e| e.to_string())?;
            log = Some(w);
        }
        let refresher = Refresher::new(&cfg.wh, &cfg.topics[0]);
        let now = mono_ns();
        Ok(Producer {
            filler: Filler::new(cfg.size),
            refresher,
            log,
            tpl,
            by_token,
            gaps: vec![Gap { last: now, ..Gap::default() }; targets.len()],
            gap: Gap { last: now, ..Gap::default() },
            open: vec![true; targets.len()],
            route_at: now + ROUTE_NS,
            targets,
            conns,
            run,
            phase: if cfg.warmup > 0.0 { Phase::Warm } else { Phase::Run },
            started: now,
            window: now,
            pace: now,
            next_i: 0,
            next_conn: 0,
            in_flight: 0,
            sent: 0,
            acked: 0,
            acked_all: 0,
            acked_bytes: 0,
            lost: 0,
            timeouts: 0,
            reconnects: 0,
            errors: Errors::default(),
            hist: hist(),
            lag: hist(),
            timeline: vec![],
            last_ack: now,
            uniq: 0,
            born_ms: wall_ms(),
            born_at: now,
            drain_until: u64::MAX,
            meter: Meter::start(pids),
            sample_at: now,
            result: Map::new(),
            failed: None,
            bad_frames: 0,
            cfg,
        })
    }

    pub fn tokens(&self) -> usize {
        self.conns.len()
    }

    /// How long to let answers gather before looking for them.
    pub fn rest(&self) -> u64 {
        if self.in_flight > 0 && self.phase != Phase::Done {
            self.cfg.coalesce_ns
        } else {
            0
        }
    }

    pub fn start(&mut self, ep: &Epoll, conns: &mut [Conn]) -> Result<(), String> {
        for i in 0..self.conns.len() {
            let addr = self.conns[i].addr.clone();
            let c = &mut conns[self.conns[i].token];
            c.connect(ep, &addr).map_err(|e| format!("{addr}: {e}"))?;
        }
        Ok(())
    }

    fn sending(&self) -> bool {
        matches!(self.phase, Phase::Warm | Phase::Run) && self.cfg.count.is_none_or(|c| self.sent < c)
    }

    /// Whether connection i may send now: its broker's topic takes sends, as the route says.
    fn may_send(&self, i: usize) -> bool {
        self.sending() && self.open[self.conns[i].target]
    }

    fn send_one(&mut self, i: usize, wb: &mut Vec<u8>, at: u64, now: u64) {
        if now - self.born_at > 500_000 {
            self.born_at = now;
            self.born_ms = wall_ms();
        }
        let c = &mut self.conns[i];
        let Some(slot) = c.free.pop() else { return };
        let topics = self.cfg.topics.len() as u64;
        let queues = self.targets[c.target].write_queues as u64;
        let topic = (c.rr % topics) as u32;
        let queue = (c.rr / topics % queues) as u32;
        c.rr += 1;
        let place = topic as usize * queues as usize + queue as usize;
        let n = self.cfg.batch.max(1) as u32;
        let seq = c.seqs[place];
        c.seqs[place] += n as u64;
        c.gen = (c.gen + 1) & 0x7fff;
        let opaque = slot | c.gen << 16;
        c.slots[slot as usize] = Slot { opaque, busy: true, at, sent: now, topic, queue, seq, n };
        let mut v =
            SendVars { opaque, topic: self.cfg.topics[topic as usize].as_bytes(), queue, born_ms: self.born_ms, uniq: self.uniq, tag: self.uniq as u32 };
        let t = &self.tpl[c.target];
        let (start, end) = t.put(wb, &v);
        let mut h = BodyHeader { conn: i as u32, run: self.run, ts: at, queue, topic, seq };
        if self.cfg.batch > 1 {
            for k in 0..n {
                h.seq = seq + k as u64;
                v.uniq = self.uniq;
                v.tag = self.uniq as u32;
                self.uniq += 1;
                let b = begin_batched(wb, self.cfg.size);
                self.filler.put(wb, self.cfg.size, &h);
                let p = wb.len();
                wb.extend_from_slice(&[0, 0]);
                t.put_inner_props(wb, &v);
                end_batched(wb, b, p);
            }
        } else {
            self.uniq += 1;
            self.filler.put(wb, self.cfg.size, &h);
        }
        t.finish(wb, start, end);
        c.dirty = true;
        self.in_flight += 1;
        self.sent += n as u64;
    }

    fn acked(&mut self, i: usize, s: &Slot, now: u64, offset: Option<i64>) {
        let n = s.n as u64;
        self.acked_all += n;
        self.last_ack = now;
        self.gap.ack(now);
        let target = self.conns[i].target;
        self.gaps[target].ack(now);
        if self.phase == Phase::Run {
            self.acked += n;
            self.acked_bytes += n * self.cfg.size as u64;
            let _ = self.hist.record(now.saturating_sub(s.at).max(1));
            if self.cfg.timeline {
                let t = ((now - self.window) / 1_000_000_000) as usize;
                if t >= self.timeline.len() {
                    self.timeline.resize(t + 1, 0);
                }
                self.timeline[t] += n;
            }
        }
        if let Some(log) = &mut self.log {
            let mut line = Vec::with_capacity(64);
            for k in 0..n {
                line.clear();
                for (j, v) in [target as u64, s.topic as u64, s.queue as u64, offset.unwrap_or(0) as u64 + k, i as u64, s.seq + k].into_iter().enumerate() {
                    if j > 0 {
                        line.push(b' ');
                    }
                    crate::codec::itoa(&mut line, v);
                }
                line.push(b'\n');
                let _ = log.write_all(&line);
            }
        }
    }

    /// An answer arrived; a closed loop sends the next message at once.
    pub fn on_frame(&mut self, token: usize, f: &Frame, now: u64, wb: &mut Vec<u8>) {
        let i = self.by_token[token];
        let mut code = 0;
        let mut offset = None;
        let mut remark = String::new();
        let opaque;
        let want_offset = self.log.is_some() || self.cfg.offsets;
        match if want_offset { None } else { fast_success(f) } {
            Some(o) => opaque = o,
            None => {
                let Some(h) = Header::parse(f) else {
                    self.bad_frames += 1;
                    return;
                };
                if !h.is_response() {
                    return; // a server may send requests of its own
                }
                opaque = h.opaque;
                code = h.code;
                if code == 0 {
                    offset = h.ext_num("queueOffset");
                    if offset.is_none() && want_offset {
                        code = -1;
                        remark = "a success without a queueOffset".into();
                    }
                } else {
                    remark = h.remark();
                }
            }
        }
        let slot = (opaque & 0xffff) as usize;
        let c = &mut self.conns[i];
        let Some(s) = c.slots.get_mut(slot).filter(|s| s.busy && s.opaque == opaque) else {
            self.bad_frames += 1;
            return;
        };
        s.busy = false;
        let s = *s;
        c.free.push(slot as u32);
        self.in_flight -= 1;
        if code == 0 {
            c.backoff = 10_000_000;
            self.acked(i, &s, now, offset);
        } else {
            self.errors.add(code, || remark);
            let c = &mut self.conns[i];
            c.paused_until = now + if code == 2 { 1_000_000 } else { 10_000_000 };
            if self.cfg.reconnect {
                self.refresher.ask(now);
            }
            return;
        }
        if self.cfg.rate.is_none() && self.may_send(i) && now >= self.conns[i].paused_until {
            self.send_one(i, wb, now, now);
        }
    }

    pub fn on_up(&mut self, token: usize, now: u64, wb: &mut Vec<u8>) {
        let i = self.by_token[token];
        if self.cfg.rate.is_none() {
            while self.may_send(i) && !self.conns[i].free.is_empty() && now >= self.conns[i].paused_until {
                self.send_one(i, wb, now, now);
            }
        }
    }

    pub fn on_down(&mut self, token: usize, now: u64, why: &str) {
        let i = self.by_token[token];
        let c = &mut self.conns[i];
        for (k, s) in c.slots.iter_mut().enumerate() {
            if s.busy {
                s.busy = false;
                c.free.push(k as u32);
                self.lost += s.n as u64;
                self.in_flight -= 1;
            }
        }
        c.retry_at = now + c.backoff;
        c.backoff = (c.backoff * 2).min(500_000_000);
        c.dirty = false;
        if self.cfg.reconnect {
            self.reconnects += 1;
            self.refresher.ask(now);
        } else if self.failed.is_none() && self.phase != Phase::Done {
            self.failed = Some(format!("{}: {why}", c.addr));
        }
    }

    /// Everything that time brings; gives how long the loop may sleep.
    pub fn tick(&mut self, now: u64, ep: &Epoll, conns: &mut [Conn]) -> u64 {
        let mut sleep = 100_000_000u64;
        if now >= self.sample_at {
            self.sample_at = now + 1_000_000_000;
            self.meter.sample();
            if let Some(l) = &mut self.log {
                let _ = l.flush();
            }
        }
        if self.phase == Phase::Warm {
            let end = self.started + (self.cfg.warmup * 1e9) as u64;
            if now >= end {
                self.phase = Phase::Run;
                self.window = now;
                self.errors = Errors::default();
                self.gap = Gap { last: now, ..Gap::default() };
                self.gaps.fill(self.gap);
                let pids = self.meter.pids();
                self.meter = Meter::start(&pids);
            } else {
                sleep = sleep.min(end - now);
            }
        }
        if self.phase == Phase::Run {
            let end = self.window + (self.cfg.seconds * 1e9) as u64;
            let all_sent = self.cfg.count.is_some_and(|c| self.sent >= c) && self.in_flight == 0;
            if now >= end || all_sent || self.failed.is_some() {
                self.close_window(if all_sent { self.last_ack } else { now });
                self.phase = Phase::Drain;
                self.drain_until = now + self.cfg.timeout_ns;
            } else {
                sleep = sleep.min(end - now);
            }
        }
        if self.phase == Phase::Drain && (self.in_flight == 0 || now >= self.drain_until || self.failed.is_some()) {
            self.phase = Phase::Done;
            if let Some(l) = &mut self.log {
                let _ = l.flush();
            }
        }
        if self.phase == Phase::Done {
            return sleep;
        }
        if self.cfg.reconnect {
            if now >= self.route_at {
                self.route_at = now + ROUTE_NS;
                self.refresher.ask(now);
            }
            if let Some(fresh) = self.refresher.take() {
                for (k, t) in self.targets.iter_mut().enumerate() {
                    // A broker without a route is being looked for; one whose topic takes no sends is left alone.
                    let Some(n) = fresh.iter().find(|n| n.broker == t.broker) else { continue };
                    self.open[k] = n.write_queues > 0;
                    if n.addr != t.addr {
                        t.addr = n.addr.clone();
                        for c in self.conns.iter_mut().filter(|c| c.target == k) {
                            c.addr = n.addr.clone();
                            c.retry_at = now;
                        }
                    }
                }
            }
        }
        for i in 0..self.conns.len() {
            let c = &self.conns[i];
            let io = &mut conns[c.token];
            match io.link {
                Link::Down => {
                    if self.cfg.reconnect && now >= c.retry_at && self.phase != Phase::Drain {
                        let addr = c.addr.clone();
                        let (token, backoff) = (c.token, c.backoff);
                        self.conns[i].retry_at = now + 1_000_000_000 + backoff; // for an attempt that gets no answer
                        if let Err(e) = io.connect(ep, &addr) {
                            self.on_down(token, now, &e.to_string());
                        }
                        let _ = io.flush(ep);
                    }
                    sleep = sleep.min(10_000_000);
                }
                Link::Connecting => {
                    if self.cfg.reconnect && now >= c.retry_at && c.retry_at > 0 {
                        io.close();
                        self.on_down(io.token as usize, now, "no connection in time");
                    }
                    sleep = sleep.min(50_000_000);
                }
                Link::Up => {
                    if self.cfg.rate.is_none() {
                        if now >= c.paused_until {
                            while self.may_send(i) && !self.conns[i].free.is_empty() {
                                self.send_one(i, &mut io.wb.buf, now, now);
                            }
                        } else {
                            sleep = sleep.min(c.paused_until - now);
                        }
                    }
                }
            }
        }
        if let Some(rate) = self.cfg.rate {
            let rate = rate / self.cfg.batch.max(1) as f64;
            while self.sending() {
                let mut due = (self.next_i as f64 * 1e9 / rate) as u64;
                if self.cfg.pace_ns > 0 {
                    due = due.next_multiple_of(self.cfg.pace_ns);
                }
                due += self.pace;
                if due > now {
                    sleep = sleep.min(due - now);
                    break;
                }
                let n = self.conns.len();
                let pick = (0..n).map(|k| (self.next_conn + k) % n).find(|&k| {
                    let c = &self.conns[k];
                    self.open[c.target] && conns[c.token].link == Link::Up && !c.free.is_empty() && now >= c.paused_until
                });
                let Some(k) = pick else {
                    sleep = sleep.min(1_000_000);
                    break;
                };
                self.next_conn = (k + 1) % n;
                self.next_i += 1;
                if self.phase == Phase::Run {
                    let _ = self.lag.record((now - due).max(1));
                }
                let token = self.conns[k].token;
                self.send_one(k, &mut conns[token].wb.buf, due, now);
            }
        }
        self.flush_dirty(now, ep, conns);
        sleep
    }

    fn flush_dirty(&mut self, now: u64, ep: &Epoll, conns: &mut [Conn]) {
        for i in 0..self.conns.len() {
            if self.conns[i].dirty {
                self.conns[i].dirty = false;
                let io = &mut conns[self.conns[i].token];
                if let Err(e) = io.flush(ep) {
                    io.close();
                    self.on_down(io.token as usize, now, &e.to_string());
                }
            }
        }
    }

    /// Closes connections whose oldest request got no answer in time.
    pub fn sweep(&mut self, now: u64, conns: &mut [Conn]) {
        if self.phase == Phase::Done {
            return;
        }
        for i in 0..self.conns.len() {
            let c = &self.conns[i];
            let old = c.slots.iter().filter(|s| s.busy && s.sent + self.cfg.timeout_ns < now).count();
            // Answers from the same broker show that it is slow, not gone.
            if old > 0 && now > self.gaps[c.target].last + self.cfg.timeout_ns {
                self.timeouts += old as u64;
                conns[c.token].close();
                self.on_down(self.conns[i].token, now, "no answer in time");
            }
            let io = &mut conns[self.conns[i].token];
            if self.cfg.reconnect && io.link == Link::Up && self.conns[i].addr != self.targets[self.conns[i].target].addr {
                io.close();
                self.on_down(io.token as usize, now, "moved");
            }
        }
    }

    fn close_window(&mut self, end: u64) {
        let secs = (end.saturating_sub(self.window) as f64 / 1e9).max(1e-9);
        self.gap.ack(end);
        let m = &mut self.result;
        m.insert("seconds".into(), json!(r3(secs)));
        m.insert("acked".into(), json!(self.acked));
        m.insert("msgs_per_s".into(), json!(r3(self.acked as f64 / secs)));
        m.insert("mb_per_s".into(), json!(r3(self.acked_bytes as f64 / secs / 1e6)));
        m.insert("latency".into(), latency_json(&self.hist));
        self.meter.report(m, self.acked, secs);
        if let Some(rate) = self.cfg.rate {
            let due = ((end - self.pace) as f64 / 1e9 * rate) as u64;
            m.insert("send_lag".into(), latency_json(&self.lag));
            m.insert("behind_schedule".into(), json!(due.saturating_sub(self.sent)));
        }
        m.insert("longest_gap_ms".into(), json!(r3(self.gap.longest as f64 / 1e6)));
        m.insert("longest_gap_at_s".into(), json!(r3(self.gap.from.saturating_sub(self.window) as f64 / 1e9)));
    }

    pub fn report(&mut self) -> Map<String, Value> {
        let mut m = std::mem::take(&mut self.result);
        let c = &self.cfg;
        m.insert("size".into(), json!(c.size));
        m.insert("connections".into(), json!(self.conns.len()));
        m.insert("in_flight".into(), json!(self.conns.iter().map(|c| c.slots.len()).sum::<usize>()));
        m.insert("batch".into(), json!(c.batch.max(1)));
        m.insert("rate".into(), json!(c.rate));
        m.insert("run".into(), json!(self.run.to_string()));
        m.insert("sent_total".into(), json!(self.sent));
        m.insert("acked_total".into(), json!(self.acked_all));
        m.insert("refused".into(), json!(self.errors.total() * c.batch.max(1) as u64));
        m.insert("unanswered".into(), json!(self.lost + self.in_flight * c.batch.max(1) as u64));
        m.insert("timeouts".into(), json!(self.timeouts));
        m.insert("reconnects".into(), json!(self.reconnects));
        m.insert("bad_frames".into(), json!(self.bad_frames));
        m.insert("errors".into(), self.errors.json());
        if self.targets.len() > 1 {
            let g: Vec<Value> =
                self.targets.iter().zip(&self.gaps).map(|(t, g)| json!({"broker": t.broker, "longest_gap_ms": r3(g.longest as f64 / 1e6)})).collect();
            m.insert("brokers".into(), json!(g));
        }
        if c.timeline {
            m.insert("timeline".into(), json!(self.timeline));
        }
        if let Some(f) = &self.failed {
            m.insert("failed".into(), json!(f));
        }
        m
    }
}
