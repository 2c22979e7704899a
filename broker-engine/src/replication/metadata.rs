//! The tables beside the log: a slave asks its master for topics, groups and offsets and keeps them as its own.
//! Source: `apache/rocketmq: broker/.../slave/SlaveSynchronize.java`.
//!
//! Java asks once a minute; here it is every three seconds, so that a consumer that turns to the slave repeats little, and
//! at once when the log brings a message of a topic the slave does not know: should the master die now, it can be read.

use crate::net::{CallError, Client};
use bytes::Bytes;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(3);
/// Between two attempts until the first round has succeeded.
const RETRY: Duration = Duration::from_millis(200);
/// At least this long between two rounds ahead of time, however many unknown topics the log brings: it may hold many of topics
/// that were deleted since. The first is not kept waiting.
const SPACING: Duration = Duration::from_millis(100);
/// For one table.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How many tables there are.
const TABLES: usize = 6;

/// One of the master's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `TopicConfigAndMappingSerializeWrapper`, from GET_ALL_TOPIC_CONFIG (21): replaces the slave's.
    Topics,
    /// `SubscriptionGroupWrapper`, from GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201): replaces the slave's.
    Groups,
    /// `consumerOffset.json`'s text, from GET_ALL_CONSUMER_OFFSET (43): laid over the slave's.
    ConsumerOffsets,
    /// `delayOffset.json`'s text, from GET_ALL_DELAY_OFFSET (45): replaces the slave's.
    DelayOffsets,
    /// `MessageRequestModeSerializeWrapper`, from GET_ALL_MESSAGE_REQUEST_MODE (402): replaces the slave's.
    RequestModes,
    /// Seven numbers, from GET_TIMER_CHECK_POINT (60): how far the master's timer is.
    TimerProgress,
}

impl Table {
    const ALL: [Table; TABLES] = [
        Table::Topics,
        Table::Groups,
        Table::ConsumerOffsets,
        Table::DelayOffsets,
        Table::RequestModes,
        Table::TimerProgress,
    ];

    fn code(self) -> i32 {
        match self {
            Table::Topics => request::GET_ALL_TOPIC_CONFIG,
            Table::Groups => request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG,
            Table::ConsumerOffsets => request::GET_ALL_CONSUMER_OFFSET,
            Table::DelayOffsets => request::GET_ALL_DELAY_OFFSET,
            Table::RequestModes => request::GET_ALL_MESSAGE_REQUEST_MODE,
            Table::TimerProgress => request::GET_TIMER_CHECK_POINT,
        }
    }

    /// A master may have none: an old one, or one whose timer is off.
    fn optional(self) -> bool {
        matches!(self, Table::RequestModes | Table::TimerProgress)
    }
}

/// Where the master's tables go: the broker's own.
pub trait Tables: Send + Sync + 'static {
    /// Takes a table's body, in fastjson's dialect, and persists it. The error says what is wrong with it.
    fn apply(&self, table: Table, body: &[u8]) -> Result<(), String>;
}

/// Why a table was not copied.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the master answered {code}: {remark}")]
    Answer { code: i32, remark: String },
    #[error("{0}")]
    Apply(String),
}

/// Copies the tables of whatever master `master` names (its remoting address) until `stop` holds true; ahead of time when
/// `lacking` says that a table lacks something.
pub async fn sync(
    client: Client,
    mut master: watch::Receiver<Option<String>>,
    tables: Arc<dyn Tables>,
    lacking: Arc<Notify>,
    mut stop: watch::Receiver<bool>,
) {
    let mut held: [Bytes; TABLES] = Default::default();
    let mut failed = String::new();
    let mut next_ahead = Instant::now();
    loop {
        let address = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            named = master.wait_for(Option::is_some) => match named {
                Ok(named) => named.clone().expect("waited for"),
                Err(_) => return,
            },
        };
        let round = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            round = round(&client, &address, &tables, &mut held) => round,
        };
        let pause = match round {
            Ok(()) => {
                if !failed.is_empty() {
                    tracing::info!(master = address, "copying the master's tables works again");
                    failed.clear();
                }
                PERIOD
            }
            Err(error) => {
                let error = error.to_string();
                if failed != error {
                    tracing::warn!(
                        master = address,
                        "copying the master's tables failed: {error}"
                    );
                    failed = error;
                }
                if held.iter().all(Bytes::is_empty) {
                    RETRY
                } else {
                    PERIOD
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = master.changed() => held = Default::default(),
            () = tokio::time::sleep(pause) => {}
            () = async {
                tokio::time::sleep_until(next_ahead).await;
                lacking.notified().await;
            } => next_ahead = Instant::now() + SPACING,
        }
    }
}

async fn round(
    client: &Client,
    address: &str,
    tables: &Arc<dyn Tables>,
    held: &mut [Bytes; TABLES],
) -> Result<(), SyncError> {
    for (table, held) in Table::ALL.into_iter().zip(held) {
        // Without the paging fields a master answers with everything.
        let answer = client
            .call(
                address,
                Command::request(table.code(), ExtFields::new()),
                TIMEOUT,
            )
            .await?;
        if answer.code != response::SUCCESS && table.optional() {
            continue;
        }
        if answer.code != response::SUCCESS {
            return Err(SyncError::Answer {
                code: answer.code,
                remark: answer.remark.unwrap_or_default(),
            });
        }
        if answer.body == *held || answer.body.is_empty() {
            continue;
        }
        let (tables, body) = (tables.clone(), answer.body.clone());
        // It ends on the disk.
        let applied = tokio::task::spawn_blocking(move || tables.apply(table, &body))
            .await
            .unwrap_or_else(|panic| Err(panic.to_string()));
        applied.map_err(|what| SyncError::Apply(format!("{table:?}: {what}")))?;
        *held = answer.body;
    }
    Ok(())
}
