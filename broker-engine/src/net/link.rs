//! A connection's own side: its socket, what was read of the frame that comes, what is being written, and its times. Plain state that
//! its reactor drives; nothing here waits.

use super::Service;
use super::connection::Connection;
use super::outbox::Writing;
use super::reactor::{Group, Rounds};
use bytes::{Bytes, BytesMut};
use mio::net::TcpStream;
use rocketmq_protocol::Frame;
use rocketmq_protocol::hot::Shapes;
use std::io::{ErrorKind, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Bytes that one read takes at most.
pub(super) const READ_MAX: usize = 256 << 10;
/// A frame's beginning that is longer than this is not moved to be with its rest.
const JOIN_MAX: usize = 16 << 10;
/// How long a stopping server lets a connection write what is queued.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The peer closed, we closed, or the server stopped: nothing to tell.
    Quiet,
    /// Worth one line.
    Said(String),
}

/// One connection.
pub(super) struct Link {
    pub connection: Connection,
    pub service: Arc<dyn Service>,
    pub group: Arc<Group>,
    /// Where what the service starts runs.
    pub runtime: Handle,
    pub stream: TcpStream,
    /// The beginning of a frame that is not whole, and how much of it the group was told of.
    buffer: BytesMut,
    pub held: usize,
    writing: Writing,
    shapes: Shapes,
    /// There may be something to read, room to write: true until the socket says otherwise.
    pub readable: bool,
    pub writable: bool,
    /// The peer has closed its side: there is something to read until a read says so.
    pub closing: bool,
    /// It is among those that the reactor turns to in this round.
    pub queued: bool,
    first: bool,
    stopping: Option<Instant>,
    active: Instant,
    half_since: Option<Instant>,
}

impl Link {
    pub fn new(
        stream: TcpStream,
        connection: Connection,
        service: Arc<dyn Service>,
        group: Arc<Group>,
        runtime: Handle,
    ) -> Self {
        Self {
            connection,
            service,
            group,
            runtime,
            stream,
            buffer: BytesMut::new(),
            held: 0,
            writing: Writing::default(),
            shapes: Shapes::default(),
            readable: false,
            writable: true,
            closing: false,
            queued: false,
            first: true,
            stopping: None,
            active: Instant::now(),
            half_since: None,
        }
    }

    /// Whether it reads on: not while it is stopping, or while its peer does not take what it asked for.
    pub fn reads(&self) -> bool {
        self.readable
            && self.stopping.is_none()
            && self.writing.bytes() <= self.group.limits.unsent_bytes
    }

    /// Reads once, and hands what came whole to the service. `room` is the reactor's, empty and with room for
    /// [`READ_MAX`] bytes; what it is afterwards does not matter.
    pub fn read(
        &mut self,
        room: &mut Vec<u8>,
        frames: &mut Vec<Frame>,
        rounds: &mut Rounds,
        now: Instant,
    ) -> Result<(), End> {
        // The beginning of a frame goes in front of its rest, so that all stands in one piece; that of a large one grows where it is.
        let grows = self.buffer.len() > JOIN_MAX;
        if !grows {
            room.extend_from_slice(&self.buffer);
        }
        let before = room.len();
        loop {
            match rustix::io::read(&self.stream, rustix::buffer::spare_capacity(room)) {
                Ok(0) => return Err(End::Quiet),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    self.readable = false;
                    return Ok(());
                }
                Err(_) => return Err(End::Quiet),
            }
        }
        // Less than there was room for: more will be announced. An end that came with it was announced already.
        self.readable = room.len() == room.capacity() || self.closing;
        self.active = now;
        if std::mem::take(&mut self.first) && room[before] == 0x16 {
            let what =
                "it began a TLS handshake; TLS is not offered here, connect in plain".to_owned();
            return Err(End::Said(what));
        }
        let mut whole = if grows {
            self.buffer.extend_from_slice(room);
            std::mem::take(&mut self.buffer)
        } else {
            BytesMut::from(Bytes::from(std::mem::take(room)))
        };
        self.connection
            .cut(&mut whole, &mut self.shapes, frames)
            .map_err(End::Said)?;
        let busy = !frames.is_empty();
        if busy {
            self.half_since = None;
            self.connection.outbox().expect();
            let runtime = self.runtime.enter();
            let (service, connection) = (&self.service, &self.connection);
            let served = catch_unwind(AssertUnwindSafe(|| {
                rounds.of(service).on_frames(connection, frames);
            }));
            drop(runtime);
            frames.clear();
            if served.is_err() {
                rounds.forget(service);
                return Err(End::Said("serving its request failed; see above".into()));
            }
        }
        if grows && !busy {
            self.buffer = whole;
        } else {
            self.buffer = BytesMut::from(&whole[..]);
            if !grows {
                // The room itself, unless somebody keeps a frame of it.
                *room = Vec::from(whole);
            }
        }
        if self.buffer.len() != self.held {
            let all = self.group.holds(self.held, self.buffer.len());
            self.held = self.buffer.len();
            if all > self.group.limits.half_bytes && self.held > READ_MAX {
                return Err(End::Said(format!(
                    "frames that are not whole take {all} bytes on all connections together, {} are allowed; {} of them are its",
                    self.group.limits.half_bytes, self.held
                )));
            }
        }
        if self.buffer.is_empty() {
            self.half_since = None;
        } else if self.half_since.is_none() {
            self.half_since = Some(now);
        }
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn write(&mut self, now: Instant) -> Result<(), End> {
        if self.connection.is_closed() {
            return Err(End::Quiet);
        }
        self.connection.outbox().take(&mut self.writing);
        while self.writable && !self.writing.is_empty() {
            let (slices, count) = self.writing.slices();
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(End::Quiet),
                Ok(count) => {
                    self.writing.advance(count);
                    self.active = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.writing.part_from_others();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Quiet),
            }
        }
        let unsent = self.writing.bytes();
        if unsent > self.group.limits.unsent_bytes.saturating_mul(4) {
            return Err(End::Said(format!(
                "it takes no answers; {unsent} bytes are unsent"
            )));
        }
        if unsent > self.group.limits.unsent_bytes && self.half_since.is_some() {
            // While reading is paused the rest of a frame cannot come: that is not the peer's fault.
            self.half_since = Some(now);
        }
        if self.stopping.is_some() && unsent == 0 {
            return Err(End::Quiet);
        }
        Ok(())
    }

    /// Looks at its times. Returns when to look again.
    pub fn look(&mut self, now: Instant) -> Result<Instant, End> {
        if self.group.is_killed() {
            return Err(End::Quiet);
        }
        if self.stopping.is_none() && self.group.is_stopping() {
            self.stopping = Some(now);
            self.write(now)?;
        }
        if let Some(since) = self.stopping {
            if now >= since + DRAIN {
                let unsent = self.writing.bytes();
                return Err(End::Said(format!(
                    "it did not take the last {unsent} bytes before this server stopped"
                )));
            }
            return Ok(since + DRAIN);
        }
        if let Some(since) = self.half_since
            && now >= since + self.group.limits.half_frame
        {
            return Err(End::Said(format!(
                "a frame was not whole {:?} after its first byte; {} bytes of it came",
                self.group.limits.half_frame,
                self.buffer.len()
            )));
        }
        if now >= self.active + self.group.limits.idle {
            return Err(End::Quiet);
        }
        Ok(self.due())
    }

    /// When to look next.
    pub fn due(&self) -> Instant {
        let idle = self.active + self.group.limits.idle;
        let half = self
            .half_since
            .map(|since| since + self.group.limits.half_frame);
        half.map_or(idle, |half| half.min(idle))
    }
}
