//! Moves the log from a master to its slaves, and the tables beside it. Never imports `broker`.
//!
//! RocketMQ's classic HA stream (no controller), so that a Java slave can follow our master and ours a Java master: the
//! slave connects to `haListenPort` and reports its log's end (8 bytes); the master pushes `offset | length | bytes` from
//! there on; each report acknowledges all before it. Source: `apache/rocketmq: store/.../ha/{DefaultHAService,
//! DefaultHAConnection,DefaultHAClient}.java`. The tables are asked for over remoting (`metadata`).

pub mod master;
pub mod metadata;
pub mod peers;
pub mod slave;

#[cfg(test)]
mod tests;
