//! The engine: RocketMQ's name server, broker and a web console.
//!
//! Rooms (`tests/layering.rs` checks who imports whom): `net` speaks frames; `namesrv` keeps routes; `log` owns the store's
//! writer; `replication` moves the log between brokers; `broker` answers clients; `console` shows a cluster as a client of it.

pub mod broker;
pub mod clock;
pub mod config;
pub mod console;
pub mod log;
pub mod namesrv;
pub mod net;
pub mod replication;
pub mod run;
