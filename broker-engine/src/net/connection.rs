//! One TCP connection as others see it: its handle, and the table of our own requests that wait for an answer on it. Its other
//! side, which reads and writes, is `link`.

use super::outbox::{Outbox, Part};
use super::{CallError, complaints};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_protocol::hot::{Head, Shapes};
use rocketmq_protocol::{Command, Frame};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// Requests of ours that one connection may owe an answer to.
const CALLS_MAX: usize = 4096;
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
    /// Frames read so far: whether a peer that owes one answer still sends others.
    heard: AtomicU64,
    /// The number of our next request.
    next_opaque: AtomicI32,
    /// Made by the first call, which few connections see: only then may answers come, and each frame is looked at for the flag.
    calls: OnceLock<Box<Mutex<Calls>>>,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: HashMap<i32, oneshot::Sender<Frame>>,
    /// The connection has ended: nobody will answer.
    ended: bool,
}

impl Shared {
    fn calls(&self) -> &Mutex<Calls> {
        self.calls.get_or_init(Box::default)
    }
    fn next_opaque(&self) -> i32 {
        self.next_opaque.fetch_add(1, Ordering::Relaxed)
    }
}

impl Connection {
    pub(super) fn new(peer: SocketAddr, local: SocketAddr) -> Connection {
        Connection(Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            outbox: Outbox::default(),
            closed: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            next_opaque: AtomicI32::new(0),
            calls: OnceLock::new(),
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
        self.0.outbox.push([Part::from(frames)]);
    }
    /// Queues an answer's head and its body parts as one unit, without copying the parts. The first `own` of them keep nothing
    /// else in memory: they are not copied either when the peer reads slowly.
    pub fn send_parts(&self, head: Bytes, parts: Vec<Bytes>, own: usize) {
        let parts = (parts.into_iter().enumerate()).map(|(at, bytes)| Part {
            bytes,
            own: at < own,
        });
        self.0
            .outbox
            .push(std::iter::once(Part::from(head)).chain(parts));
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
        {
            let mut calls = self.0.calls().lock();
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
            request.opaque = self.0.next_opaque();
            while calls.waiting.contains_key(&request.opaque) {
                request.opaque = self.0.next_opaque();
            }
            calls.waiting.insert(request.opaque, answer);
        }
        // A caller that is dropped half way must not leave its place behind.
        let _place = Place {
            calls: self.0.calls(),
            opaque: request.opaque,
        };
        self.reply(&request);
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(frame)) => match frame.decode() {
                Ok(answer) => Ok(answer),
                Err(error) => {
                    self.close_for(format_args!(
                        "the answer to request {code} does not parse: {error}"
                    ));
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
        request.opaque = self.0.next_opaque();
        self.reply(&request);
    }
    /// Closes it; what is queued is dropped.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.outbox.nudge();
    }
    /// Closes it for what came over it, and says so in the log.
    pub fn close_for(&self, why: impl std::fmt::Display) {
        complaints::tell(self.peer(), why);
        self.close();
    }
    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }
}

/// A call's entry in the table, removed when the call ends in whatever way.
struct Place<'a> {
    calls: &'a Mutex<Calls>,
    opaque: i32,
}
impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.calls.lock().waiting.remove(&self.opaque);
    }
}

impl Connection {
    pub(super) fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// Nothing is sent or answered any more.
    pub(super) fn ended(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.outbox.close();
        // Made here if need be: a call that begins now must find that it is over.
        let mut calls = self.0.calls().lock();
        calls.ended = true;
        calls.waiting = HashMap::new();
    }

    /// Cuts all whole frames; answers go to who waits for them, requests to `frames`.
    pub(super) fn cut(
        &self,
        buffer: &mut BytesMut,
        shapes: &mut Shapes,
        frames: &mut Vec<Frame>,
    ) -> Result<(), String> {
        let shared = &*self.0;
        let mut heard = 0;
        while let Some(mut frame) = Frame::cut(buffer).map_err(|error| error.to_string())? {
            heard += 1;
            shapes.look(&mut frame);
            let Some(calls) = shared.calls.get() else {
                frames.push(frame);
                continue;
            };
            let (opaque, flag) = match Head::scan(&frame) {
                Some(head) => (head.opaque, head.flag),
                None => {
                    let command = frame.decode().map_err(|error| error.to_string())?;
                    (command.opaque, command.flag)
                }
            };
            if flag & 1 == 0 {
                frames.push(frame);
            } else if let Some(waiting) = calls.lock().waiting.remove(&opaque) {
                // Its caller may have given up at this moment; then nobody wants the answer.
                let _ = waiting.send(frame);
            }
        }
        if heard > 0 {
            shared.heard.fetch_add(heard, Ordering::Relaxed);
        }
        Ok(())
    }
}
