//! One TCP connection: its handle, its task, and the table of our own requests that wait for an answer on it.

use super::outbox::{Outbox, Writing};
use super::{CallError, Limits, Service};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_protocol::hot::{Head, Shapes};
use rocketmq_protocol::{Command, Frame};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Requests of ours that one connection may owe an answer to.
const CALLS_MAX: usize = 4096;
/// Bytes offered to a read: small for the many idle connections, large for the few busy ones.
const READ_MIN: usize = 4 << 10;
const READ_MAX: usize = 256 << 10;
/// How long a stopping server lets a connection write what is queued.
const DRAIN: Duration = Duration::from_secs(2);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// One peer's connection. Cheap to clone; sending after its end does nothing.
#[derive(Clone, Debug)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    outbox: Outbox,
    closed: AtomicBool,
    /// Set by the first call: only then may answers come, and each frame is looked at for the flag.
    called: AtomicBool,
    /// Frames read so far: whether a peer that owes one answer still sends others.
    heard: AtomicU64,
    calls: Mutex<Calls>,
}

#[derive(Debug, Default)]
struct Calls {
    next_opaque: i32,
    waiting: HashMap<i32, oneshot::Sender<Frame>>,
    /// The connection has ended: nobody will answer.
    ended: bool,
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr) -> Connection {
        Connection(Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            outbox: Outbox::default(),
            closed: AtomicBool::new(false),
            called: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            calls: Mutex::default(),
        }))
    }
    /// Process-wide unique number of this connection.
    pub fn id(&self) -> u64 {
        self.0.id
    }
    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }
    /// Our end's address, on which the client reached us.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }
    /// Queues an encoded frame or several; one write carries all that is ready.
    pub fn send(&self, frames: Bytes) {
        self.0.outbox.push([frames]);
    }
    /// Queues an answer's head and its body parts as one unit, without copying the parts.
    pub fn send_parts(&self, head: Bytes, parts: Vec<Bytes>) {
        self.0.outbox.push(std::iter::once(head).chain(parts));
    }
    /// Encodes and queues a command.
    pub fn reply(&self, command: &Command) {
        let mut frame = BytesMut::new();
        command.encode(&mut frame);
        self.send(frame.freeze());
    }
    /// Sends a request over this connection and waits for its answer (server to client calls).
    pub async fn call(&self, request: Command, timeout: Duration) -> Result<Command, CallError> {
        self.call_as(&self.0.peer.to_string(), request, timeout)
            .await
    }
    /// Like [`Connection::call`], with the name under which the peer is known to whoever reads the error.
    pub(super) async fn call_as(
        &self,
        address: &str,
        mut request: Command,
        timeout: Duration,
    ) -> Result<Command, CallError> {
        let code = request.code;
        let closed = || CallError::Closed {
            address: address.into(),
            code,
        };
        let (answer, answered) = oneshot::channel();
        let heard = self.0.heard.load(Ordering::Relaxed);
        self.0.called.store(true, Ordering::Release);
        {
            let mut calls = self.0.calls.lock();
            if calls.ended {
                return Err(closed());
            }
            if calls.waiting.len() >= CALLS_MAX {
                return Err(CallError::Busy {
                    address: address.into(),
                    code,
                    waiting: calls.waiting.len(),
                });
            }
            while calls.waiting.contains_key(&calls.next_opaque) {
                calls.next_opaque = calls.next_opaque.wrapping_add(1);
            }
            request.opaque = calls.next_opaque;
            calls.next_opaque = calls.next_opaque.wrapping_add(1);
            calls.waiting.insert(request.opaque, answer);
        }
        // A caller that is dropped half way must not leave its place behind.
        let _place = Place {
            shared: &self.0,
            opaque: request.opaque,
        };
        self.reply(&request);
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(frame)) => match frame.decode() {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    tracing::warn!(peer = address, code, %error, "answer does not parse; closing");
                    self.close();
                    Err(closed())
                }
            },
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                // A peer that sent nothing at all meanwhile may be gone without a word (a cut network): connect anew
                // next time. Java closes in any case (clientCloseSocketIfTimeout), which breaks the others' calls.
                if self.0.heard.load(Ordering::Relaxed) == heard {
                    self.close();
                }
                Err(CallError::Timeout {
                    address: address.into(),
                    code,
                    timeout,
                })
            }
        }
    }
    /// Sends a one-way request over this connection.
    pub fn oneway(&self, request: Command) {
        let mut request = request.oneway();
        {
            let mut calls = self.0.calls.lock();
            request.opaque = calls.next_opaque;
            calls.next_opaque = calls.next_opaque.wrapping_add(1);
        }
        self.reply(&request);
    }
    /// Closes it; what is queued is dropped.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.outbox.nudge();
    }
    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

/// A call's entry in the table, removed when the call ends in whatever way.
struct Place<'a> {
    shared: &'a Shared,
    opaque: i32,
}
impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.calls.lock().waiting.remove(&self.opaque);
    }
}

/// Why a connection's task ended.
enum End {
    /// The peer closed, we closed, or the server stopped: nothing to tell.
    Quiet,
    /// Worth one line.
    Said(String),
}

/// Serves a connection until it ends. `service` sees its requests; `stop` ends it after what is queued is written.
pub(super) async fn run(
    stream: TcpStream,
    connection: Connection,
    service: Arc<dyn Service>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    let task = Task {
        connection: connection.clone(),
        service: service.clone(),
        limits,
        stop,
    };
    let end = task.run(stream).await;
    let shared = &connection.0;
    shared.closed.store(true, Ordering::Release);
    shared.outbox.close();
    {
        let mut calls = shared.calls.lock();
        calls.ended = true;
        calls.waiting = HashMap::new();
    }
    if let End::Said(why) = end {
        tracing::warn!(peer = %shared.peer, "connection closed: {why}");
    }
    service.on_close(&connection);
}

struct Task {
    connection: Connection,
    service: Arc<dyn Service>,
    limits: Limits,
    stop: watch::Receiver<bool>,
}

impl Task {
    async fn run(self, mut stream: TcpStream) -> End {
        let Task {
            connection,
            service,
            limits,
            mut stop,
        } = self;
        let shared = connection.0.clone();
        let (mut reader, mut writer) = stream.split();
        let mut buffer = BytesMut::new();
        let mut frames: Vec<Frame> = vec![];
        let mut shapes = Shapes::default();
        let mut writing = Writing::default();
        let mut offered = READ_MIN;
        let mut first = true;
        let mut stopping: Option<Instant> = None;
        let mut active = Instant::now();
        let mut half_since: Option<Instant> = None;
        let deadline = tokio::time::sleep_until(active + limits.idle);
        tokio::pin!(deadline);
        loop {
            if shared.closed.load(Ordering::Acquire) {
                return End::Quiet;
            }
            if stopping.is_some() && writing.is_empty() {
                return End::Quiet;
            }
            let unsent = writing.bytes();
            if unsent > limits.unsent_bytes.saturating_mul(4) {
                return End::Said(format!("it takes no answers; {unsent} bytes are unsent"));
            }
            let reading = stopping.is_none() && unsent <= limits.unsent_bytes;
            if !reading && half_since.is_some() {
                // While reading is paused the rest of a frame cannot come: that is not the peer's fault.
                half_since = Some(Instant::now());
            }
            tokio::select! {
                biased;
                written = async {
                    let (slices, count) = writing.slices();
                    writer.write_vectored(&slices[..count]).await
                }, if !writing.is_empty() => match written {
                    Ok(0) | Err(_) => return End::Quiet,
                    Ok(count) => {
                        writing.advance(count);
                        active = Instant::now();
                    }
                },
                () = shared.outbox.woken() => shared.outbox.take(&mut writing),
                read = async {
                    buffer.reserve(offered);
                    reader.read_buf(&mut buffer).await
                }, if reading => {
                    let count = match read {
                        Ok(0) | Err(_) => return End::Quiet,
                        Ok(count) => count,
                    };
                    active = Instant::now();
                    if std::mem::take(&mut first) && buffer[0] == 0x16 {
                        return End::Said("it began a TLS handshake; TLS is not offered here, connect in plain".into());
                    }
                    shared.outbox.stay_awake();
                    if let Err(why) = cut(&shared, &mut buffer, &mut shapes, &mut frames) {
                        return End::Said(why);
                    }
                    if !frames.is_empty() {
                        half_since = None;
                        service.on_frames(&connection, &mut frames);
                        frames.clear();
                    }
                    shared.outbox.take(&mut writing);
                    if buffer.is_empty() {
                        half_since = None;
                    } else if half_since.is_none() {
                        half_since = Some(active);
                    }
                    offered = if count >= offered {
                        (offered * 2).min(READ_MAX)
                    } else if count < offered / 4 {
                        (offered / 2).max(READ_MIN)
                    } else {
                        offered
                    };
                    // One early look at most per ten seconds: it costs less than moving the timer with every read.
                    let look = active + limits.half_frame;
                    if (half_since.is_some() || offered > READ_MIN) && look < deadline.deadline() {
                        deadline.as_mut().reset(look);
                    }
                }
                () = &mut deadline => {
                    let now = Instant::now();
                    if let Some(since) = stopping {
                        if now >= since + DRAIN {
                            return End::Said(format!("it did not take the last {unsent} bytes before this server stopped"));
                        }
                        continue;
                    }
                    let half_due = half_since.map(|since| since + limits.half_frame);
                    if half_due.is_some_and(|due| now >= due) {
                        return End::Said(format!(
                            "a frame was not whole {:?} after its first byte; {} bytes of it came",
                            limits.half_frame,
                            buffer.len()
                        ));
                    }
                    let idle_due = active + limits.idle;
                    if now >= idle_due {
                        return End::Quiet;
                    }
                    // A burst's buffer is not kept for an idle connection's life.
                    if buffer.is_empty() && now >= active + limits.half_frame {
                        buffer = BytesMut::new();
                        frames = Vec::new();
                        shapes = Shapes::default();
                        offered = READ_MIN;
                    }
                    let look = if offered > READ_MIN { now + limits.half_frame } else { idle_due };
                    deadline.as_mut().reset(half_due.unwrap_or(look).min(look).min(idle_due));
                }
                _ = stop.wait_for(|stop| *stop), if stopping.is_none() => {
                    let now = Instant::now();
                    stopping = Some(now);
                    shared.outbox.take(&mut writing);
                    deadline.as_mut().reset(now + DRAIN);
                }
            }
        }
    }
}

/// Cuts all whole frames; answers go to who waits for them, requests to `frames`.
fn cut(
    shared: &Shared,
    buffer: &mut BytesMut,
    shapes: &mut Shapes,
    frames: &mut Vec<Frame>,
) -> Result<(), String> {
    let mut heard = 0;
    while let Some(frame) = Frame::cut(buffer).map_err(|error| error.to_string())? {
        heard += 1;
        shapes.look(&frame);
        if !shared.called.load(Ordering::Acquire) {
            frames.push(frame);
            continue;
        }
        let (opaque, flag) = match Head::scan(&frame) {
            Some(head) => (head.opaque, head.flag),
            None => {
                let command = frame.decode().map_err(|error| error.to_string())?;
                (command.opaque, command.flag)
            }
        };
        if flag & 1 == 0 {
            frames.push(frame);
        } else if let Some(waiting) = shared.calls.lock().waiting.remove(&opaque) {
            // Its caller may have given up at this moment; then nobody wants the answer.
            let _ = waiting.send(frame);
        }
    }
    if heard > 0 {
        shared.heard.fetch_add(heard, Ordering::Relaxed);
    }
    Ok(())
}
