//! Stored messages as a pull returns them, batches as a producer sends them, and the body this tool writes.

use crc32fast::hash;

/// Smallest body: the header that makes every message checkable.
pub const BODY_HEADER: usize = 48;
const BODY_MAGIC: u32 = 0x524d_514c;

const RECORD_V1: i32 = -626843481;
const RECORD_V2: i32 = -626843477;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyHeader {
    pub conn: u32,
    pub run: u64,
    /// Intended send time, CLOCK_MONOTONIC nanoseconds.
    pub ts: u64,
    pub queue: u32,
    pub topic: u32,
    /// Counts up from 0 for each (run, connection, topic, queue).
    pub seq: u64,
}

/// Filler bytes that every message of a size shares, so that a reader can compare them.
pub struct Filler(Vec<u8>);

impl Filler {
    pub fn new(size: usize) -> Filler {
        let mut v = vec![0u8; size];
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        for c in v.chunks_mut(8) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let b = x.to_le_bytes();
            c.copy_from_slice(&b[..c.len()]);
        }
        Filler(v)
    }

    /// Appends a body of `size` bytes.
    pub fn put(&self, out: &mut Vec<u8>, size: usize, h: &BodyHeader) {
        let mut b = [0u8; BODY_HEADER];
        b[0..4].copy_from_slice(&BODY_MAGIC.to_be_bytes());
        b[4..8].copy_from_slice(&h.conn.to_be_bytes());
        b[8..16].copy_from_slice(&h.run.to_be_bytes());
        b[16..24].copy_from_slice(&h.ts.to_be_bytes());
        b[24..28].copy_from_slice(&h.queue.to_be_bytes());
        b[28..32].copy_from_slice(&h.topic.to_be_bytes());
        b[32..40].copy_from_slice(&h.seq.to_be_bytes());
        b[40..44].copy_from_slice(&(size as u32).to_be_bytes());
        let crc = hash(&b[..44]);
        b[44..48].copy_from_slice(&crc.to_be_bytes());
        out.extend_from_slice(&b);
        out.extend_from_slice(&self.0[BODY_HEADER..size]);
    }

    /// Checks a body byte for byte and gives its header.
    pub fn check(&mut self, body: &[u8]) -> Result<BodyHeader, &'static str> {
        if body.len() < BODY_HEADER {
            return Err("body shorter than its header");
        }
        let u32at = |i: usize| u32::from_be_bytes(body[i..i + 4].try_into().unwrap());
        let u64at = |i: usize| u64::from_be_bytes(body[i..i + 8].try_into().unwrap());
        if u32at(0) != BODY_MAGIC {
            return Err("not a message of this tool");
        }
        if hash(&body[..44]) != u32at(44) {
            return Err("body header checksum differs");
        }
        if u32at(40) as usize != body.len() {
            return Err("body length differs from what was sent");
        }
        if self.0.len() < body.len() {
            *self = Filler::new(body.len());
        }
        if self.0[BODY_HEADER..body.len()] != body[BODY_HEADER..] {
            return Err("body filler differs from what was sent");
        }
        Ok(BodyHeader { conn: u32at(4), run: u64at(8), ts: u64at(16), queue: u32at(24), topic: u32at(28), seq: u64at(32) })
    }
}

/// One stored message.
#[derive(Debug)]
pub struct Record<'a> {
    pub queue: i32,
    pub offset: i64,
    pub body_crc: i32,
    pub body: &'a [u8],
    pub topic: &'a [u8],
}

impl Record<'_> {
    /// Whether the stored checksum is that of the body (servers keep its low 31 bits).
    pub fn crc_ok(&self) -> bool {
        hash(self.body) & 0x7fff_ffff == self.body_crc as u32 & 0x7fff_ffff
    }
}

/// Takes the first record off `b`; every inner length is checked against the record's total size.
pub fn split_record(b: &[u8]) -> Result<(Record<'_>, usize), &'static str> {
    const SHORT: &str = "record is cut short";
    let i32at = |b: &[u8], i: usize| -> Result<i32, &'static str> { Ok(i32::from_be_bytes(b.get(i..i + 4).ok_or(SHORT)?.try_into().unwrap())) };
    let i64at = |b: &[u8], i: usize| -> Result<i64, &'static str> { Ok(i64::from_be_bytes(b.get(i..i + 8).ok_or(SHORT)?.try_into().unwrap())) };
    let total = i32at(b, 0)?;
    if total < 91 || total as usize > b.len() {
        return Err(if total < 91 { "record size is too small" } else { SHORT });
    }
    let b = &b[..total as usize];
    let magic = i32at(b, 4)?;
    if magic != RECORD_V1 && magic != RECORD_V2 {
        return Err("record magic is unknown");
    }
    let sys_flag = i32at(b, 36)?;
    let mut at = 48; // after bornTimestamp
    at += if sys_flag & 0x10 != 0 { 20 } else { 8 }; // born host
    at += 8; // store timestamp
    at += if sys_flag & 0x20 != 0 { 20 } else { 8 }; // store host
    at += 4 + 8; // reconsume times, prepared transaction offset
    let n = i32at(b, at)?;
    if n < 0 {
        return Err("negative body length");
    }
    at += 4;
    let body = b.get(at..at + n as usize).ok_or(SHORT)?;
    at += n as usize;
    let t = if magic == RECORD_V1 {
        let t = *b.get(at).ok_or(SHORT)? as usize;
        at += 1;
        t
    } else {
        let t = u16::from_be_bytes(b.get(at..at + 2).ok_or(SHORT)?.try_into().unwrap()) as usize;
        at += 2;
        t
    };
    let topic = b.get(at..at + t).ok_or(SHORT)?;
    at += t;
    let p = u16::from_be_bytes(b.get(at..at + 2).ok_or(SHORT)?.try_into().unwrap()) as usize;
    at += 2;
    at += p;
    if at != b.len() {
        return Err("record size and its fields disagree");
    }
    let r = Record { queue: i32at(b, 12)?, offset: i64at(b, 20)?, body_crc: i32at(b, 8)?, body, topic };
    Ok((r, total as usize))
}

/// Starts one message of a batch body; [`end_batched`] closes it.
pub fn begin_batched(out: &mut Vec<u8>, body: usize) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 16]); // size, magic, crc, flag: only the size is read
    out.extend_from_slice(&(body as u32).to_be_bytes());
    at
}

/// `props_at` is where the properties' two length bytes stand.
pub fn end_batched(out: &mut [u8], at: usize, props_at: usize) {
    let p = (out.len() - props_at - 2) as u16;
    out[props_at..props_at + 2].copy_from_slice(&p.to_be_bytes());
    let n = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&n.to_be_bytes());
}

/// A record as a store keeps it, with its checksum.
#[allow(clippy::too_many_arguments)]
pub fn put_record(out: &mut Vec<u8>, queue: i32, offset: i64, body: &[u8], topic: &[u8], props: &[u8], v6: bool, v2: bool) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(if v2 { RECORD_V2 } else { RECORD_V1 }).to_be_bytes());
    out.extend_from_slice(&(hash(body) & 0x7fff_ffff).to_be_bytes());
    out.extend_from_slice(&queue.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&77i64.to_be_bytes());
    out.extend_from_slice(&(if v6 { 0x30i32 } else { 0 }).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[0; 20][..if v6 { 20 } else { 8 }]);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[0; 20][..if v6 { 20 } else { 8 }]);
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&(body.len() as i32).to_be_bytes());
    out.extend_from_slice(body);
    if v2 {
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
    } else {
        out.push(topic.len() as u8);
    }
    out.extend_from_slice(topic);
    out.extend_from_slice(&(props.len() as u16).to_be_bytes());
    out.extend_from_slice(props);
    let n = (out.len() - at) as i32;
    out[at..at + 4].copy_from_slice(&n.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: BodyHeader = BodyHeader { conn: 3, run: 9, ts: 1234, queue: 2, topic: 1, seq: 88 };

    #[test]
    fn body_round_trip_and_damage() {
        let mut f = Filler::new(256);
        let mut out = vec![];
        f.put(&mut out, 200, &H);
        assert_eq!(out.len(), 200);
        assert_eq!(f.check(&out), Ok(H));
        for i in 0..out.len() {
            let mut bad = out.clone();
            bad[i] ^= 1;
            assert!(f.check(&bad).is_err(), "a flipped bit at {i} must be seen");
        }
        assert!(f.check(&out[..199]).is_err());
        assert!(f.check(&out[..20]).is_err());
        let mut small = Filler::new(64);
        assert_eq!(small.check(&out), Ok(H));
    }

    #[test]
    fn records_are_walked() {
        for (v6, v2) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut b = vec![];
            put_record(&mut b, 1, 10, b"hello", b"TopicA", b"k\x01v\x02", v6, v2);
            let first = b.len();
            put_record(&mut b, 1, 11, b"", b"TopicA", b"", v6, v2);
            let (r, n) = split_record(&b).unwrap();
            assert_eq!(n, first);
            assert_eq!((r.queue, r.offset), (1, 10));
            assert_eq!((r.body, r.topic), (&b"hello"[..], &b"TopicA"[..]));
            assert!(r.crc_ok());
            let (r, m) = split_record(&b[n..]).unwrap();
            assert_eq!((r.offset, n + m), (11, b.len()));
            for cut in 0..first {
                assert!(split_record(&b[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_record_whose_lengths_disagree_is_refused() {
        let mut b = vec![];
        put_record(&mut b, 1, 10, b"hello", b"TopicA", b"", false, false);
        let mut x = b.clone();
        x[87] += 1; // body length
        assert!(split_record(&x).is_err());
        let mut x = b.clone();
        x[7] ^= 1;
        assert_eq!(split_record(&x).unwrap_err(), "record magic is unknown");
        b[89] ^= 1; // a body byte: still walks, but the checksum differs
        assert!(!split_record(&b).unwrap().0.crc_ok());
    }

    #[test]
    fn batch_layout() {
        let f = Filler::new(64);
        let mut out = vec![];
        let at = begin_batched(&mut out, 60);
        f.put(&mut out, 60, &H);
        let p = out.len();
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"WAIT\x01true\x02");
        end_batched(&mut out, at, p);
        assert_eq!(u32::from_be_bytes(out[0..4].try_into().unwrap()) as usize, out.len());
        assert_eq!(u32::from_be_bytes(out[16..20].try_into().unwrap()), 60);
        assert_eq!(u16::from_be_bytes(out[80..82].try_into().unwrap()), 10);
    }
}
