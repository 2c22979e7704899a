//! The receiving side: one outstanding pull for each (group, topic, queue).

use crate::codec::{Frame, Header, PullTemplate, Serialize};
use crate::net::{Conn, Epoll, Link};
use crate::produce::Refresher;
use crate::record::{split_record, Filler, Record};
use crate::route::Where;
use crate::stats::{hist, latency_json, r3, Errors};
use hdrhistogram::Histogram;
use serde_json::{json, Map, Value};

pub struct PullSlot {
    pub group: usize,
    pub topic: usize,
    pub queue: u32,
    pub addr: usize,
    pub next: u64,
    /// Where a catch-up run ends.
    pub until: u64,
    conn: usize,
    gen: u32,
    busy: bool,
    retry_at: u64,
    pub done: bool,
}

impl PullSlot {
    pub fn new(group: usize, topic: usize, queue: u32, addr: usize, next: u64, until: u64) -> PullSlot {
        PullSlot { group, topic, queue, addr, next, until, conn: 0, gen: 0, busy: false, retry_at: 0, done: false }
    }
}

pub trait Visitor {
    fn record(&mut self, slot: usize, s: &PullSlot, r: &Record, now: u64);
}

/// For runs without a receiving side.
pub struct Nobody;
impl Visitor for Nobody {
    fn record(&mut self, _: usize, _: &PullSlot, _: &Record, _: u64) {}
}

#[derive(Clone)]
pub struct PullCfg {
    pub wh: Where,
    pub topics: Vec<String>,
    pub groups: Vec<String>,
    /// Connections for each group.
    pub connections: usize,
    pub max_batch: u32,
    pub suspend_ms: u64,
    pub subscription: bool,
    pub heartbeat: bool,
    pub reconnect: bool,
    pub catch_up: bool,
}

struct CConn {
    token: usize,
    addr: usize,
    slots: Vec<u32>,
    retry_at: u64,
    backoff: u64,
    dirty: bool,
    group: usize,
    beat_at: u64,
}

pub struct Puller<V> {
    cfg: PullCfg,
    pub v: V,
    pub slots: Vec<PullSlot>,
    addrs: Vec<(Option<String>, String)>,
    conns: Vec<CConn>,
    by_token: Vec<usize>,
    tpl: Vec<PullTemplate>,
    refresher: Refresher,
    pub messages: u64,
    pub body_bytes: u64,
    pub pulls: u64,
    pub empty: u64,
    pub moved: u64,
    pub errors: Errors,
    pub first_at: u64,
    pub last_at: u64,
    pub bad_records: u64,
    pub bad_example: String,
    pub offset_gaps: u64,
    pub left: usize,
    pub failed: Option<String>,
    sweep_at: u64,
    ser: Serialize,
}

impl<V: Visitor> Puller<V> {
    pub fn new(cfg: PullCfg, addrs: Vec<(Option<String>, String)>, mut slots: Vec<PullSlot>, v: V, first_token: usize) -> Result<Puller<V>, String> {
        if slots.len() > 1 << 20 {
            return Err("too many queues".into());
        }
        let ser = cfg.wh.ser;
        let mut tpl = vec![];
        for g in &cfg.groups {
            for t in &cfg.topics {
                tpl.push(PullTemplate::new(ser, g, t, cfg.max_batch, cfg.suspend_ms, cfg.subscription));
            }
        }
        let mut conns: Vec<CConn> = vec![];
        let mut by_token = vec![usize::MAX; first_token];
        for g in 0..cfg.groups.len() {
            for a in 0..addrs.len() {
                let mine: Vec<u32> = (0..slots.len() as u32).filter(|&i| slots[i as usize].group == g && slots[i as usize].addr == a).collect();
                let n = (cfg.connections / addrs.len()).max(1).min(mine.len());
                for k in 0..n {
                    let ids: Vec<u32> = mine.iter().copied().skip(k).step_by(n).collect();
                    for &i in &ids {
                        slots[i as usize].conn = conns.len();
                    }
                    by_token.push(conns.len());
                    conns.push(CConn {
                        token: first_token + conns.len(),
                        addr: a,
                        slots: ids,
                        retry_at: 0,
                        backoff: 10_000_000,
                        dirty: false,
                        group: g,
                        beat_at: 0,
                    });
                }
            }
        }
        let refresher = Refresher::new(&cfg.wh, &cfg.topics[0]);
        let mut p = Puller {
            left: slots.len(),
            cfg,
            v,
            slots,
            addrs,
            conns,
            by_token,
            tpl,
            refresher,
            messages: 0,
            body_bytes: 0,
            pulls: 0,
            empty: 0,
            moved: 0,
            errors: Errors::default(),
            first_at: 0,
            last_at: 0,
            bad_records: 0,
            bad_example: String::new(),
            offset_gaps: 0,
            failed: None,
            sweep_at: 0,
            ser,
        };
        if p.cfg.catch_up {
            for i in 0..p.slots.len() {
                p.check_done(i);
            }
        }
        Ok(p)
    }

    pub fn tokens(&self) -> usize {
        self.conns.len()
    }

    pub fn owns(&self, token: usize) -> bool {
        self.by_token.get(token).is_some_and(|i| *i != usize::MAX)
    }

    pub fn start(&mut self, ep: &Epoll, conns: &mut [Conn]) -> Result<(), String> {
        for c in &self.conns {
            let addr = &self.addrs[c.addr].1;
            conns[c.token].connect(ep, addr).map_err(|e| format!("{addr}: {e}"))?;
        }
        Ok(())
    }

    fn check_done(&mut self, i: usize) {
        let s = &mut self.slots[i];
        if self.cfg.catch_up && !s.done && s.next >= s.until {
            s.done = true;
            self.left -= 1;
        }
    }

    fn pull(&mut self, i: usize, wb: &mut Vec<u8>) {
        let s = &mut self.slots[i];
        if s.busy || s.done {
            return;
        }
        s.busy = true;
        s.gen = (s.gen + 1) & 0x3ff;
        let opaque = i as u32 | s.gen << 20;
        self.tpl[s.group * self.cfg.topics.len() + s.topic].put(wb, opaque, s.queue, s.next);
        self.pulls += 1;
    }

    pub fn on_up(&mut self, token: usize, now: u64, wb: &mut Vec<u8>) {
        let ci = self.by_token[token];
        self.conns[ci].backoff = 10_000_000;
        if self.cfg.heartbeat {
            self.beat(ci, now, wb);
        }
        for k in 0..self.conns[ci].slots.len() {
            let i = self.conns[ci].slots[k] as usize;
            self.pull(i, wb);
        }
    }

    fn beat(&mut self, ci: usize, now: u64, wb: &mut Vec<u8>) {
        self.conns[ci].beat_at = now + 30_000_000_000;
        let subs: Vec<Value> = self
            .cfg
            .topics
            .iter()
            .map(|t| json!({"topic": t, "subString": "*", "subVersion": 0, "tagsSet": [], "codeSet": [], "classFilterMode": false, "expressionType": "TAG"}))
            .collect();
        let body = json!({"clientID": format!("rmqload@{}#{ci}", std::process::id()), "producerDataSet": [], "consumerDataSet": [{
            "groupName": self.cfg.groups[self.conns[ci].group], "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
            "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": false, "subscriptionDataSet": subs}]});
        crate::codec::put_request(wb, self.ser, crate::codec::code::HEART_BEAT, 0x7fff_ffff, &[], body.to_string().as_bytes());
    }

    pub fn on_frame(&mut self, token: usize, f: &Frame, now: u64, wb: &mut Vec<u8>) {
        let Some(h) = Header::parse(f) else {
            self.errors.add(-2, || "unreadable response header".into());
            return;
        };
        if !h.is_response() || h.opaque == 0x7fff_ffff {
            return;
        }
        let i = (h.opaque & 0xf_ffff) as usize;
        let Some(s) = self.slots.get_mut(i).filter(|s| s.busy && s.gen == h.opaque >> 20) else {
            self.errors.add(-3, || "an answer to no request".into());
            return;
        };
        let _ = token;
        s.busy = false;
        let next = h.ext_num("nextBeginOffset");
        match h.code {
            0 => {
                let mut b = f.body;
                let mut n = 0;
                let mut want = s.next as i64;
                while !b.is_empty() {
                    match split_record(b) {
                        Ok((r, used)) => {
                            if r.offset != want {
                                self.offset_gaps += 1;
                            }
                            want = r.offset + 1;
                            if r.queue != s.queue as i32 || r.topic != self.cfg.topics[s.topic].as_bytes() || !r.crc_ok() {
                                self.bad_records += 1;
                                if self.bad_example.is_empty() {
                                    self.bad_example = format!("queue {} offset {}: wrong queue, topic or checksum", s.queue, r.offset);
                                }
                            }
                            self.v.record(i, s, &r, now);
                            self.body_bytes += r.body.len() as u64;
                            n += 1;
                            b = &b[used..];
                        }
                        Err(e) => {
                            self.bad_records += 1;
                            if self.bad_example.is_empty() {
                                self.bad_example = format!("queue {} after offset {want}: {e}", s.queue);
                            }
                            break;
                        }
                    }
                }
                self.messages += n;
                if self.first_at == 0 {
                    self.first_at = now;
                }
                self.last_at = now;
                s.next = next.map_or(want, |v| v).max(0) as u64;
            }
            19 | 20 => {
                self.empty += 1;
                if let Some(n) = next.filter(|n| *n >= 0 && *n as u64 > s.next) {
                    s.next = n as u64;
                }
                if self.cfg.catch_up {
                    s.retry_at = now + 5_000_000;
                }
            }
            21 => {
                self.moved += 1;
                if let Some(n) = next {
                    s.next = n.max(0) as u64;
                }
                s.retry_at = now + 1_000_000;
            }
            c => {
                s.retry_at = now + 100_000_000;
                self.errors.add(c, || h.remark());
                if self.cfg.reconnect {
                    self.refresher.ask(now);
                }
            }
        }
        self.check_done(i);
        if self.slots[i].retry_at <= now {
            self.pull(i, wb);
        }
    }

    pub fn on_down(&mut self, token: usize, now: u64, why: &str) {
        let ci = self.by_token[token];
        let c = &mut self.conns[ci];
        for &i in &c.slots {
            self.slots[i as usize].busy = false;
        }
        c.retry_at = now + c.backoff;
        c.backoff = (c.backoff * 2).min(500_000_000);
        if self.cfg.reconnect {
            self.refresher.ask(now);
        } else if self.failed.is_none() {
            self.failed = Some(format!("{}: {why}", self.addrs[c.addr].1));
        }
    }

    pub fn tick(&mut self, now: u64, ep: &Epoll, conns: &mut [Conn]) -> u64 {
        if now < self.sweep_at {
            return self.sweep_at - now;
        }
        // Retries are rare, so looking for them once in a while is enough.
        self.sweep_at = now + 5_000_000;
        if self.cfg.reconnect {
            if let Some(fresh) = self.refresher.take() {
                for a in self.addrs.iter_mut() {
                    if let Some(n) = fresh.iter().find(|n| n.broker == a.0) {
                        a.1 = n.addr.clone();
                    }
                }
            }
        }
        for ci in 0..self.conns.len() {
            let token = self.conns[ci].token;
            match conns[token].link {
                Link::Down if self.cfg.reconnect && now >= self.conns[ci].retry_at => {
                    let addr = self.addrs[self.conns[ci].addr].1.clone();
                    if let Err(e) = conns[token].connect(ep, &addr) {
                        self.on_down(token, now, &e.to_string());
                    }
                }
                Link::Up => {
                    if self.cfg.heartbeat && now >= self.conns[ci].beat_at {
                        self.beat(ci, now, &mut conns[token].wb.buf);
                        self.conns[ci].dirty = true;
                    }
                    for k in 0..self.conns[ci].slots.len() {
                        let i = self.conns[ci].slots[k] as usize;
                        let s = &self.slots[i];
                        if !s.busy && !s.done && now >= s.retry_at {
                            self.pull(i, &mut conns[token].wb.buf);
                            self.conns[ci].dirty = true;
                        }
                    }
                    if self.conns[ci].dirty {
                        self.conns[ci].dirty = false;
                        if let Err(e) = conns[token].flush(ep) {
                            conns[token].close();
                            self.on_down(token, now, &e.to_string());
                        }
                    }
                }
                _ => {}
            }
        }
        5_000_000
    }

    pub fn report(&self, m: &mut Map<String, Value>, secs: f64) {
        m.insert("messages".into(), json!(self.messages));
        m.insert("seconds".into(), json!(r3(secs)));
        m.insert("msgs_per_s".into(), json!(r3(self.messages as f64 / secs)));
        m.insert("mb_per_s".into(), json!(r3(self.body_bytes as f64 / secs / 1e6)));
        m.insert("pulls".into(), json!(self.pulls));
        m.insert("msgs_per_pull".into(), json!(r3(self.messages as f64 / (self.pulls - self.empty).max(1) as f64)));
        m.insert("empty_pulls".into(), json!(self.empty));
        m.insert("offset_moved".into(), json!(self.moved));
        m.insert("queues".into(), json!(self.slots.len()));
        m.insert("bad_records".into(), json!(self.bad_records));
        if !self.bad_example.is_empty() {
            m.insert("bad_record_example".into(), json!(self.bad_example));
        }
        m.insert("offset_gaps".into(), json!(self.offset_gaps));
        m.insert("pull_errors".into(), self.errors.json());
        if let Some(f) = &self.failed {
            m.insert("failed".into(), json!(f));
        }
    }
}

/// Which sequence numbers of one sender's stream came.
struct Seen {
    run: u64,
    conn: u32,
    bits: Vec<u64>,
    first: u64,
    max: u64,
    count: u64,
}

#[derive(Default)]
struct Track {
    seen: Vec<Seen>,
    last: usize,
    dup: u64,
    reordered: u64,
    foreign: u64,
}

impl Track {
    fn add(&mut self, run: u64, conn: u32, seq: u64) {
        if self.seen.get(self.last).is_none_or(|s| s.run != run || s.conn != conn) {
            self.last = match self.seen.iter().position(|s| s.run == run && s.conn == conn) {
                Some(i) => i,
                None => {
                    self.seen.push(Seen { run, conn, bits: vec![], first: seq, max: 0, count: 0 });
                    self.seen.len() - 1
                }
            };
        }
        let s = &mut self.seen[self.last];
        let (w, bit) = ((seq / 64) as usize, 1u64 << (seq % 64));
        if w >= s.bits.len() {
            s.bits.resize(w + 1 + w / 2, 0);
        }
        if s.bits[w] & bit != 0 {
            self.dup += 1;
            return;
        }
        s.bits[w] |= bit;
        s.count += 1;
        if seq < s.max {
            self.reordered += 1;
        }
        s.max = s.max.max(seq);
        s.first = s.first.min(seq);
    }

    fn missing(&self, from_start: bool) -> u64 {
        self.seen.iter().map(|s| s.max + 1 - if from_start { 0 } else { s.first } - s.count).sum()
    }
}

/// Checks every message against what the sender put into it, and measures delivery latency.
pub struct Checker {
    filler: Filler,
    tracks: Vec<Track>,
    pub damaged: u64,
    damage: String,
    pub hist: Option<Histogram<u64>>,
    pub run: Option<u64>,
    pub record_from: u64,
    pub mine: u64,
    pub from_start: bool,
}

impl Checker {
    pub fn new(slots: usize, latency: bool, from_start: bool) -> Checker {
        Checker {
            filler: Filler::new(4096),
            tracks: (0..slots).map(|_| Track::default()).collect(),
            damaged: 0,
            damage: String::new(),
            hist: latency.then(hist),
            run: None,
            record_from: 0,
            mine: 0,
            from_start,
        }
    }

    pub fn missing(&self) -> u64 {
        self.tracks.iter().map(|t| t.missing(self.from_start)).sum()
    }

    pub fn duplicated(&self) -> u64 {
        self.tracks.iter().map(|t| t.dup).sum()
    }

    pub fn report(&self, m: &mut Map<String, Value>, slots: &[PullSlot]) {
        let sum = |f: fn(&Track) -> u64| self.tracks.iter().map(f).sum::<u64>();
        m.insert("damaged".into(), json!(self.damaged));
        if !self.damage.is_empty() {
            m.insert("damage_example".into(), json!(self.damage));
        }
        m.insert("missing".into(), json!(self.missing()));
        m.insert("duplicated".into(), json!(sum(|t| t.dup)));
        m.insert("reordered".into(), json!(sum(|t| t.reordered)));
        m.insert("foreign".into(), json!(sum(|t| t.foreign)));
        let bad: Vec<Value> = self
            .tracks
            .iter()
            .zip(slots)
            .filter(|(t, _)| t.dup > 0 || t.missing(self.from_start) > 0)
            .take(20)
            .map(|(t, s)| json!({"group": s.group, "topic": s.topic, "queue": s.queue, "missing": t.missing(self.from_start), "duplicated": t.dup, "reordered": t.reordered}))
            .collect();
        m.insert("queues_with_faults".into(), json!(bad));
        if let Some(h) = &self.hist {
            m.insert("latency".into(), latency_json(h));
        }
    }
}

impl Visitor for Checker {
    fn record(&mut self, i: usize, s: &PullSlot, r: &Record, now: u64) {
        match self.filler.check(r.body) {
            Ok(h) => {
                let t = &mut self.tracks[i];
                if self.run.is_some_and(|run| run != h.run) {
                    t.foreign += 1;
                    return;
                }
                if h.queue != s.queue {
                    self.damaged += 1;
                    self.damage = format!("offset {}: sent to queue {}, stored in queue {}", r.offset, h.queue, s.queue);
                    return;
                }
                self.mine += 1;
                t.add(h.run, h.conn, h.seq);
                if let Some(hist) = &mut self.hist {
                    if h.ts >= self.record_from {
                        let _ = hist.record(now.saturating_sub(h.ts).max(1));
                    }
                }
            }
            Err("not a message of this tool") => self.tracks[i].foreign += 1,
            Err(e) => {
                self.damaged += 1;
                self.damage = format!("queue {} offset {}: {e}", s.queue, r.offset);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Acked {
    pub offset: u64,
    pub conn: u32,
    pub seq: u64,
}

/// Compares what is stored with the log of what was acknowledged.
pub struct Verifier {
    pub check: Checker,
    pub run: u64,
    pub acked: Vec<Vec<Acked>>,
    at: Vec<usize>,
    pub matched: u64,
    pub lost: u64,
    pub other: u64,
    pub unacked: u64,
    pub examples: Vec<String>,
}

impl Verifier {
    pub fn new(run: u64, mut acked: Vec<Vec<Acked>>) -> (Verifier, u64) {
        let mut twice = 0;
        for a in &mut acked {
            a.sort_unstable();
            twice += a.windows(2).filter(|w| w[0].offset == w[1].offset).count() as u64;
        }
        let n = acked.len();
        let v = Verifier { check: Checker::new(n, false, true), run, at: vec![0; n], acked, matched: 0, lost: 0, other: 0, unacked: 0, examples: vec![] };
        (v, twice)
    }

    fn example(&mut self, s: String) {
        if self.examples.len() < 10 {
            self.examples.push(s);
        }
    }

    /// Everything not reached yet is lost.
    pub fn finish(&mut self) {
        for i in 0..self.acked.len() {
            let n = self.acked[i].len() - self.at[i];
            self.lost += n as u64;
            if n > 0 {
                let a = self.acked[i][self.at[i]];
                self.example(format!("place {i}: acknowledged offset {} (connection {}, seq {}) and {} more are not stored", a.offset, a.conn, a.seq, n - 1));
            }
        }
    }
}

impl Visitor for Verifier {
    fn record(&mut self, i: usize, s: &PullSlot, r: &Record, now: u64) {
        self.check.record(i, s, r, now);
        let o = r.offset as u64;
        let list = &self.acked[i];
        let mut k = self.at[i];
        let mut skipped = 0;
        while k < list.len() && list[k].offset < o {
            k += 1;
            skipped += 1;
        }
        self.lost += skipped;
        let hit = list.get(k).copied().filter(|a| a.offset == o);
        self.at[i] = k + hit.is_some() as usize;
        if skipped > 0 {
            self.example(format!("queue {}: {skipped} acknowledged before offset {o} are not stored", s.queue));
        }
        let Some(a) = hit else {
            self.unacked += 1;
            return;
        };
        match self.check.filler.check(r.body) {
            Ok(h) if h.run == self.run && h.conn == a.conn && h.seq == a.seq && h.queue == s.queue => self.matched += 1,
            other => {
                self.other += 1;
                self.example(format!("queue {} offset {o}: acknowledged connection {} seq {}, stored {other:?}", s.queue, a.conn, a.seq));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{put_record, BodyHeader};

    #[test]
    fn tracking_finds_missing_duplicated_and_reordered() {
        let mut t = Track::default();
        for s in [0, 1, 3, 2, 5, 5, 7] {
            t.add(1, 0, s);
        }
        assert_eq!((t.missing(true), t.dup, t.reordered), (2, 1, 1));
        for s in [10, 11, 13] {
            t.add(1, 1, s);
        }
        assert_eq!(t.missing(true), 2 + 11);
        assert_eq!(t.missing(false), 2 + 1);
    }

    fn stored(offset: i64, conn: u32, seq: u64) -> Vec<u8> {
        let mut body = vec![];
        Filler::new(64).put(&mut body, 64, &BodyHeader { conn, run: 5, ts: 0, queue: 2, topic: 0, seq });
        let mut b = vec![];
        put_record(&mut b, 2, offset, &body, b"T", b"", false, false);
        b
    }

    fn verify(acked: &[(u64, u32, u64)], recs: &[(i64, u32, u64)]) -> Verifier {
        let list = acked.iter().map(|&(offset, conn, seq)| Acked { offset, conn, seq }).collect();
        let (mut v, twice) = Verifier::new(5, vec![list]);
        assert_eq!(twice, 0);
        let s = PullSlot::new(0, 0, 2, 0, 0, 0);
        for &(o, c, q) in recs {
            let b = stored(o, c, q);
            v.record(0, &s, &split_record(&b).unwrap().0, 0);
        }
        v.finish();
        v
    }

    #[test]
    fn verification_accepts_a_faithful_store() {
        let v = verify(&[(1, 0, 1), (0, 0, 0), (3, 1, 0)], &[(0, 0, 0), (1, 0, 1), (2, 1, 1), (3, 1, 0)]);
        assert_eq!((v.matched, v.lost, v.other, v.unacked), (3, 0, 0, 1));
    }

    #[test]
    fn verification_sees_a_lost_tail_a_hole_and_a_swap() {
        let v = verify(&[(0, 0, 0), (1, 0, 1), (2, 0, 2)], &[(0, 0, 0), (1, 0, 1)]);
        assert_eq!((v.matched, v.lost), (2, 1));
        let v = verify(&[(0, 0, 0), (1, 0, 1), (2, 0, 2)], &[(0, 0, 0), (2, 0, 2)]);
        assert_eq!((v.matched, v.lost), (2, 1));
        let v = verify(&[(0, 0, 0), (1, 0, 1)], &[(0, 0, 1), (1, 0, 0)]);
        assert_eq!((v.matched, v.other), (0, 2));
    }
}
