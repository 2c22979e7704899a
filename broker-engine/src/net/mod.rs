//! Remoting over TCP: servers, connections, and a client for our own requests to others.
//!
//! A few threads (`reactor`) drive all connections (`link`): they read all there is, cut whole frames, hand requests to the
//! [`Service`] in one call, and write all that became ready in one go. Other threads answer by queueing into the connection's
//! outbox and ringing its thread. Every bound is in [`Limits`]; a bad frame ends only its own connection. Names are resolved in-process (`names`).

mod client;
mod complaints;
mod connection;
mod link;
mod names;
mod outbox;
mod partition;
mod reactor;
mod server;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use connection::Connection;
pub use names::{address_toward, resolve};
pub use partition::{Changes, Partitions};
pub use server::{bind, serve};

use rocketmq_protocol::Frame;
use std::sync::Arc;
use std::time::Duration;

/// Header field of REGISTER_BROKER (103) with a broker's `host:port` for callers inside the cluster's network. A foreign name
/// server ignores it.
pub const INTERNAL_ADDR: &str = "rmqctlInternalAddr";

/// What a server does with what arrives on its connections.
pub trait Service: Send + Sync + 'static {
    /// A thread turns to those of its connections on which something has come.
    fn begin(self: Arc<Self>) -> Box<dyn Round>;
    /// The connection is gone.
    fn on_close(&self, connection: &Connection);
}

/// One thread's turn over its connections. All of it runs on that thread, within the runtime in which the connection at hand was
/// made: nothing may block; what takes long is spawned with a clone of the connection.
pub trait Round {
    /// All whole request frames that one read brought, in order. Answers to our own requests are taken out before, except that a
    /// peer nobody ever called may send one unasked: a service passes over frames with the answer flag.
    fn on_frames(&mut self, connection: &Connection, frames: &mut Vec<Frame>);
    /// All that was ready is handed over: what was put off until then is done now. Answers are written next.
    fn finish(self: Box<Self>) {}
}

/// Why a request of ours got no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum CallError {
    #[error("connecting to {address} failed: {reason}")]
    Connect { address: String, reason: String },
    #[error("cut off from {peer} on purpose, so {address} was not dialled")]
    CutOff { address: String, peer: String },
    #[error("{address} did not answer request {code} within {timeout:?}")]
    Timeout {
        address: String,
        code: i32,
        timeout: Duration,
    },
    #[error("the connection to {address} closed before request {code} was answered")]
    Closed { address: String, code: i32 },
    #[error("{address} has {waiting} of our requests unanswered; request {code} was not sent")]
    Busy {
        address: String,
        code: i32,
        waiting: usize,
    },
}

/// A server's bounds. Source of the idle time: `apache/rocketmq: remoting/.../netty/NettyServerConfig.java`
/// (`serverChannelMaxIdleTimeSeconds`).
#[derive(Clone, Debug)]
pub struct Limits {
    /// A connection on which nothing was read and nothing written for so long is closed.
    pub idle: Duration,
    /// Connections beyond this many are closed on arrival.
    pub connections: usize,
    /// With more answers than this unsent, no further requests are read; with four times as many the connection is closed.
    pub unsent_bytes: usize,
    /// A frame that is not whole so long after its first byte closes the connection.
    pub half_frame: Duration,
    /// With more bytes than this of frames that are not whole on all connections together, those that bring more of a large one
    /// are closed.
    pub half_bytes: usize,
}
impl Default for Limits {
    fn default() -> Self {
        Limits {
            idle: Duration::from_secs(120),
            connections: 20_000,
            unsent_bytes: 64 << 20,
            half_frame: Duration::from_secs(10),
            half_bytes: 256 << 20,
        }
    }
}
