//! The broker: answers clients' requests from the log, the store's reader and its tables.
//!
//! `dispatch` is one match on the request code. Hot path: `send`, `pull`, `hold`, `soon`. Tables: `topics`, `groups`, `offsets`,
//! `clients`, `locks`. Background: `schedule` (delay levels), `registration` (name servers). `admin/` answers mqadmin.

pub mod admin;
mod assignment;
mod attributes;
pub mod clients;
mod dispatch;
mod filter;
pub mod groups;
pub mod hold;
mod light;
pub mod locks;
pub mod offsets;
mod pop;
mod pull;
mod query;
pub mod refusal;
pub mod registration;
pub mod replicas;
mod reply;
pub mod schedule;
mod send;
mod send_back;
mod sent;
mod soon;
mod start;
pub mod stats;
pub mod table_file;
pub mod timer;
pub mod topics;
mod transaction;
mod unique_key;

pub use start::{RunningBroker, StartError, StopError, start};

use crate::config::{BrokerConfig, BrokerRole, FlushDiskType, Live};
use crate::log::{AppendError, Log, Requirement};
use crate::net::Partitions;
use bytes::Bytes;
use rocketmq_protocol::command::VERSION;
use rocketmq_protocol::{Command, ExtFields, Language, Serialize};
use rocketmq_store::{Placed, Reader, RecordBatch};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::oneshot;

/// All that a request handler may need. One per process, shared by `Arc`.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Broker {
    pub config: Arc<Live<BrokerConfig>>,
    pub log: Log,
    pub store: Reader,
    pub topics: topics::Topics,
    pub groups: groups::Groups,
    pub offsets: offsets::Offsets,
    pub clients: clients::Clients,
    pub locks: locks::QueueLocks,
    pub stats: stats::Stats,
    pub schedule: schedule::Schedule,
    pub timer: timer::Timer,
    decisions: transaction::Decisions,
    filters: filter::Filters,
    pops: pop::Pops,
    assignments: assignment::Assignments,
    pub registration: registration::Registration,
    pub replicas: replicas::Replicas,
    pub desk: admin::Desk,
    /// Peers that it is cut off from on purpose.
    pub partitions: Partitions,
    expected: send::Expected,
    /// Runs what must not hold up a connection.
    pub runtime: tokio::runtime::Handle,
    /// Address and port stamped into records and message ids; clients ask there for a message by its id.
    pub store_host: SocketAddr,
    /// When this process began to serve, ms since the epoch.
    pub started_ms: i64,
    role: BrokerRole,
    /// On a slave: the master can be reached, so consumers belong there.
    master_online: AtomicBool,
    waiters: Arc<pull::Waiters>,
    unique_keys: unique_key::UniqueKeys,
    /// Properties that every message stored by a send carries.
    stamp: Arc<str>,
}

impl Broker {
    /// Whether this broker's log only takes its master's bytes.
    pub fn is_slave(&self) -> bool {
        self.role == BrokerRole::Slave
    }

    /// How many pulls wait for messages.
    pub fn parked_pulls(&self) -> usize {
        self.waiters.parked()
    }

    /// What a send that waits must wait for.
    fn requirement(&self, config: &BrokerConfig) -> Requirement {
        Requirement {
            flushed: config.flush_disk_type == FlushDiskType::SyncFlush,
            replicas: match self.role {
                BrokerRole::SyncMaster => config.in_sync_replicas.saturating_sub(1) as usize,
                BrokerRole::AsyncMaster | BrokerRole::Slave => 0,
            },
        }
    }

    /// Appends what the broker itself writes and waits until it is in the log.
    async fn append_and_wait(&self, batch: RecordBatch) -> Result<Placed, AppendError> {
        let (done, stored) = oneshot::channel();
        let tell = Box::new(move |result: Result<_, AppendError>| {
            // Nobody listens any more when the broker is stopping; the entry is delivered after the start.
            let _ = done.send(result.map(|(placed, _)| placed));
        });
        self.log.append(batch, Requirement::default(), tell)?;
        stored
            .await
            .unwrap_or_else(|_| Err(AppendError::Stopped("it went away with a batch".into())))
    }
}

/// An answer to a request whose command was never built, because a borrowed view of its header was enough.
fn answer(opaque: i32, serialize: Serialize, code: i32) -> Command {
    Command {
        code,
        language: Language::RUST,
        version: VERSION,
        opaque,
        flag: 1,
        remark: None,
        ext: ExtFields::new(),
        body: Bytes::new(),
        serialize,
    }
}
