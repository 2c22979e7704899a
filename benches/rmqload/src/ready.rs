//! Ready-made answers to pulls, for the sink: what handing out a log costs at least, by copying or by sendfile.

use crate::codec::{begin_frame, code, end_header, itoa, put_kv, Frame, Header, Serialize};
use crate::record::{put_record, BodyHeader, Filler};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Pulls {
    /// One writev of the headers and the mapped file
    Copy,
    /// The header by send, the records by sendfile
    Sendfile,
}

const NOT_FOUND: i32 = 19;
/// Pieces of one writev.
const PIECES: usize = 64;

/// The records, all of one length: queue after queue, in the order of their offsets.
pub struct Ready {
    kind: Pulls,
    file: File,
    map: &'static [u8],
    record: usize,
    queues: u64,
    each: u64,
}

impl Ready {
    pub fn make(beside: &str, kind: Pulls, topic: &str, queues: u32, messages: u64, size: usize) -> io::Result<Ready> {
        let path = Path::new(beside).with_extension("pulls");
        let each = messages / queues.max(1) as u64;
        let filler = Filler::new(size);
        let run = std::process::id() as u64;
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&path)?);
        let (mut body, mut record) = (vec![], vec![]);
        for queue in 0..queues {
            for seq in 0..each {
                body.clear();
                record.clear();
                filler.put(&mut body, size, &BodyHeader { conn: 0, run, ts: 0, queue, topic: 0, seq });
                // As long as the properties of a producer's message.
                let props = b"UNIQ_KEY\x017F0000010E8C1B2844C02A6D5F330000\x02WAIT\x01true\x02";
                put_record(&mut record, queue as i32, seq as i64, &body, topic.as_bytes(), props, false, false);
                out.write_all(&record)?;
            }
        }
        out.flush()?;
        let file = File::open(&path)?;
        let len = file.metadata()?.len() as usize;
        // SAFETY: a mapping of a file that nobody shortens, kept as long as the process lives.
        let map = unsafe {
            let p = libc::mmap(std::ptr::null_mut(), len.max(1), libc::PROT_READ, libc::MAP_SHARED | libc::MAP_POPULATE, file.as_raw_fd(), 0);
            if p == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            std::slice::from_raw_parts(p as *const u8, len)
        };
        Ok(Ready { kind, file, map, record: record.len(), queues: queues as u64, each })
    }

    /// Answers what concerns pulls; false for any other request.
    pub fn answer(&self, f: &Frame, out: &mut Outbox) -> bool {
        let Some(h) = Header::parse(f) else { return false };
        let num = |name| h.ext_num(name).unwrap_or(0).max(0) as u64;
        match h.code {
            code::GET_MIN_OFFSET => out.bytes(|b| put_response(b, f.json, 0, h.opaque, &[("offset", 0)], 0)),
            code::GET_MAX_OFFSET => out.bytes(|b| put_response(b, f.json, 0, h.opaque, &[("offset", self.each)], 0)),
            code::PULL_MESSAGE => {
                let (queue, from) = (num("queueId"), num("queueOffset"));
                let count = num("maxMsgNums").min(self.each.saturating_sub(from));
                let found = queue < self.queues && count > 0;
                let len = if found { count as usize * self.record } else { 0 };
                let next = if found { from + count } else { from };
                let ext = [("maxOffset", self.each), ("minOffset", 0), ("nextBeginOffset", next), ("suggestWhichBrokerId", 0)];
                out.bytes(|b| put_response(b, f.json, if found { 0 } else { NOT_FOUND }, h.opaque, &ext, len));
                if found {
                    out.pieces.push_back(Piece { stored: true, at: (queue * self.each + from) as usize * self.record, len });
                }
            }
            _ => return false,
        }
        true
    }
}

fn put_response(out: &mut Vec<u8>, json: bool, code: i32, opaque: u32, ext: &[(&str, u64)], body: usize) {
    let at = begin_frame(out);
    if json {
        out.extend_from_slice(format!("{{\"code\":{code},\"extFields\":{{").as_bytes());
        for (i, (k, v)) in ext.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
            out.extend_from_slice(k.as_bytes());
            out.extend_from_slice(b"\":\"");
            itoa(out, *v);
            out.push(b'"');
        }
        out.extend_from_slice(b"},\"flag\":1,\"language\":\"JAVA\",\"opaque\":");
        itoa(out, opaque as u64);
        out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":479}");
    } else {
        out.extend_from_slice(&(code as i16).to_be_bytes());
        out.extend_from_slice(&[0, 1, 0xdf]);
        out.extend_from_slice(&opaque.to_be_bytes());
        out.extend_from_slice(&1u32.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        for (k, v) in ext {
            put_kv(out, k.as_bytes(), v.to_string().as_bytes());
        }
        let n = (out.len() - len_at - 4) as u32;
        out[len_at..len_at + 4].copy_from_slice(&n.to_be_bytes());
    }
    let end = out.len();
    end_header(out, at, end, body, if json { Serialize::Json } else { Serialize::Rocketmq });
}

/// A stretch of the records, or of the outbox's own bytes.
#[derive(Clone, Copy)]
struct Piece {
    stored: bool,
    at: usize,
    len: usize,
}

/// What one connection still has to get.
#[derive(Default)]
pub struct Outbox {
    own: Vec<u8>,
    pieces: VecDeque<Piece>,
}

impl Outbox {
    pub fn bytes(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let at = self.own.len();
        put(&mut self.own);
        self.pieces.push_back(Piece { stored: false, at, len: self.own.len() - at });
    }

    /// Writes what it can; true when all is out.
    pub fn flush(&mut self, ready: &Ready, s: &mut TcpStream) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let sent = match ready.kind {
                Pulls::Copy => {
                    let bytes = |p: &Piece| if p.stored { &ready.map[p.at..p.at + p.len] } else { &self.own[p.at..p.at + p.len] };
                    let slices: Vec<IoSlice> = self.pieces.iter().take(PIECES).map(|p| IoSlice::new(bytes(p))).collect();
                    s.write_vectored(&slices)
                }
                Pulls::Sendfile => self.send_first(ready, s),
            };
            match sent {
                Ok(n) => self.gone(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.own.clear();
        Ok(true)
    }

    fn send_first(&self, ready: &Ready, s: &TcpStream) -> io::Result<usize> {
        let p = self.pieces[0];
        let more = self.pieces.get(1).is_some_and(|next| next.stored);
        // SAFETY: the bytes outlive the calls, and the descriptors are open.
        let n = unsafe {
            if p.stored {
                let mut from = p.at as libc::off_t;
                libc::sendfile(s.as_raw_fd(), ready.file.as_raw_fd(), &mut from, p.len)
            } else {
                let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
                libc::send(s.as_raw_fd(), self.own[p.at..].as_ptr().cast(), p.len, flags)
            }
        };
        if n < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(n as usize)
        }
    }

    fn gone(&mut self, mut n: usize) {
        while n > 0 {
            let Some(p) = self.pieces.front_mut() else { return };
            if n < p.len {
                p.at += n;
                p.len -= n;
                return;
            }
            n -= p.len;
            self.pieces.pop_front();
        }
    }
}
