//! Decisions about half messages on their way into RMQ_SYS_TRANS_OP_HALF_TOPIC: many in one op message, at the latest
//! `transactionOpBatchInterval` after the first.
//!
//! Until its op message is in the log a decision is kept here, so that no producer is asked about what it has decided. A kill
//! loses what is here only: the half messages are then checked, as any others without an op message.
//! Source: `apache/rocketmq: broker/.../transaction/queue/TransactionalOpBatchService.java`, `TransactionalMessageServiceImpl.java`.

use super::QUEUE;
use crate::broker::Broker;
use crate::clock;
use parking_lot::Mutex;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::Record;
use rocketmq_protocol::topic;
use rocketmq_store::RecordBatch;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Tag of an op message that says "these half messages are decided" (`TransactionalMessageUtil.REMOVE_TAG`).
pub(super) const REMOVE_TAG: &str = "d";
/// Decisions that may wait for the log; END_TRANSACTION is refused beyond.
const WAITING_MAX: usize = 1 << 20;
/// After a failed write (disk full, log busy) it is tried again this much later.
const RETRY: Duration = Duration::from_millis(100);

/// Decisions that are not in the log yet.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Queue offsets of half messages and how many decisions about each are under way.
    about: BTreeMap<i64, u32>,
    /// Those of them whose op message may be written now.
    waiting: VecDeque<i64>,
    /// When the first of `waiting` came.
    since: Option<Instant>,
    /// The broker stops: no more are taken.
    closed: bool,
}

/// One decision that has been taken in. Dropping it forgets the decision, as when the commit could not be stored.
#[derive(Debug)]
pub(super) struct Decision {
    broker: Arc<Broker>,
    half_offset: i64,
    done: bool,
}

impl Decisions {
    /// Whether a decision about the half message with this queue offset is under way.
    pub(super) fn has(&self, half_offset: i64) -> bool {
        self.state.lock().about.contains_key(&half_offset)
    }

    /// An op message about these was written, or they wait again.
    fn settle(&self, offsets: Vec<i64>, written: bool) {
        let mut state = self.state.lock();
        if written {
            forget(&mut state, &offsets);
            return;
        }
        for offset in offsets.into_iter().rev() {
            state.waiting.push_front(offset);
        }
        state.since.get_or_insert_with(Instant::now);
    }
}

impl Decision {
    /// Takes a decision in; `None` when the broker stops or too many wait.
    pub(super) fn begin(broker: &Arc<Broker>, half_offset: i64) -> Option<Decision> {
        let mut state = broker.decisions.state.lock();
        if state.closed || state.waiting.len() >= WAITING_MAX {
            return None;
        }
        *state.about.entry(half_offset).or_default() += 1;
        Some(Decision {
            broker: Arc::clone(broker),
            half_offset,
            done: false,
        })
    }

    /// What was decided is in the log, so its op message may follow.
    pub(super) fn carried_out(mut self) {
        self.done = true;
        let mut state = self.broker.decisions.state.lock();
        state.waiting.push_back(self.half_offset);
        let wake = state.since.is_none() || is_full(&state, &self.broker);
        state.since.get_or_insert_with(Instant::now);
        let closed = state.closed;
        drop(state);
        if wake || closed {
            self.broker.decisions.changed.notify_one();
        }
    }
}

impl Drop for Decision {
    fn drop(&mut self) {
        if !self.done {
            forget(&mut self.broker.decisions.state.lock(), &[self.half_offset]);
            self.broker.decisions.changed.notify_one();
        }
    }
}

fn forget(state: &mut State, offsets: &[i64]) {
    for offset in offsets {
        if let Some(count) = state.about.get_mut(offset) {
            *count -= 1;
            if *count == 0 {
                state.about.remove(offset);
            }
        }
    }
}

/// Whether what waits fills an op message, by the length of the newest.
fn is_full(state: &State, broker: &Broker) -> bool {
    let digits = (state.waiting.back()).map_or(1, |offset| offset.max(&1).ilog10() as usize + 1);
    state.waiting.len() * (digits + 1) > broker.config.get().transaction_op_msg_max_size as usize
}

/// Writes op messages until the broker stops, and then those of every decision that was taken in.
pub(in crate::broker) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let decisions = &broker.decisions;
    let interval = broker.config.get().transaction_op_batch_interval;
    let mut stopping = false;
    loop {
        let due = {
            let state = decisions.state.lock();
            if stopping && state.about.is_empty() {
                return;
            }
            if state.waiting.is_empty() {
                None
            } else if stopping || is_full(&state, &broker) {
                Some(Instant::now())
            } else {
                state.since.map(|since| since + interval)
            }
        };
        let wait = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let write = tokio::select! {
            biased;
            () = wait => true,
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                decisions.state.lock().closed = true;
                false
            }
            () = decisions.changed.notified() => false,
        };
        if write && let Err(error) = broker.write_op().await {
            tracing::warn!(%error, "an op message was not written; trying again");
            if stopping {
                // The log is on its way down: these half messages are checked after the next start.
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Broker {
    /// One op message of what waits.
    async fn write_op(&self) -> Result<(), String> {
        let limit = self.config.get().transaction_op_msg_max_size as usize;
        let mut body = String::new();
        let mut offsets = Vec::new();
        {
            let mut state = self.decisions.state.lock();
            while body.len() < limit
                && let Some(offset) = state.waiting.pop_front()
            {
                let _ = write!(body, "{offset},");
                offsets.push(offset);
            }
            state.since = (!state.waiting.is_empty()).then(Instant::now);
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let written = self.append_op(&body).await;
        self.decisions.settle(offsets, written.is_ok());
        written
    }

    async fn append_op(&self, body: &str) -> Result<(), String> {
        let now = clock::now_ms();
        let mut text = String::new();
        properties::push(&mut text, name::UNIQ_KEY, &self.unique_keys.next(now));
        properties::push(&mut text, name::TAGS, REMOVE_TAG);
        let topic: Arc<str> = topic::TRANS_OP_HALF.into();
        let record = Record {
            queue_id: QUEUE,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: now,
            born_host: self.store_host,
            store_timestamp: 0,
            store_host: self.store_host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            topic: &topic,
            properties: &text,
        };
        let mut batch = RecordBatch::new();
        batch
            .push(&topic, &record)
            .map_err(|error| error.to_string())?;
        let bytes = batch.byte_len() as u64;
        (self.append_and_wait(batch).await).map_err(|error| error.to_string())?;
        self.stats.put(&topic, 1, bytes);
        Ok(())
    }
}
