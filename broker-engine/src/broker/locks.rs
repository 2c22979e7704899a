//! Queue locks of orderly consumers (41, 42): 60 s leases, plain state that takes `now`.
//!
//! A lease belongs to a client id, not to a connection: a client that reconnects within 60 s goes on with its queues.
//! Source: `apache/rocketmq: broker/.../client/rebalance/RebalanceLockManager.java`.

use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use parking_lot::Mutex;
use rocketmq_protocol::body::{LockBatchRequestBody, LockBatchResponseBody, MessageQueue};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a lock holds without renewal (`rocketmq.broker.rebalance.lockMaxLiveTime`); clients renew every 20 s.
pub const LEASE: Duration = Duration::from_secs(60);

/// The lock table.
#[derive(Debug, Default)]
pub struct QueueLocks {
    groups: Mutex<HashMap<String, HashMap<MessageQueue, Lease>>>,
}

#[derive(Debug)]
struct Lease {
    client: String,
    renewed: Instant,
}

impl Lease {
    fn live(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed) <= LEASE
    }
}

impl QueueLocks {
    /// Takes or renews what is free, expired or the client's own; returns the queues that the client holds now.
    pub fn lock(
        &self,
        group: &str,
        client: &str,
        queues: Vec<MessageQueue>,
        now: Instant,
    ) -> Vec<MessageQueue> {
        let mut groups = self.groups.lock();
        let leases = groups.entry(group.to_owned()).or_default();
        let mut held = Vec::with_capacity(queues.len());
        for queue in queues {
            if let Some(lease) = leases.get_mut(&queue) {
                if lease.client != client && lease.live(now) {
                    continue;
                }
                if lease.client != client {
                    client.clone_into(&mut lease.client);
                }
                lease.renewed = now;
            } else {
                leases.insert(
                    queue.clone(),
                    Lease {
                        client: client.to_owned(),
                        renewed: now,
                    },
                );
            }
            held.push(queue);
        }
        held
    }

    /// Gives up the client's own locks; others' stay.
    pub fn unlock(&self, group: &str, client: &str, queues: &[MessageQueue]) {
        let mut groups = self.groups.lock();
        let Some(leases) = groups.get_mut(group) else {
            return;
        };
        for queue in queues {
            if leases
                .get(queue)
                .is_some_and(|lease| lease.client == client)
            {
                leases.remove(queue);
            }
        }
        if leases.is_empty() {
            groups.remove(group);
        }
    }

    /// Whether any queue of the group is locked right now (a retry send then goes straight to the DLQ).
    pub fn group_is_locked(&self, group: &str, now: Instant) -> bool {
        (self.groups.lock().get(group))
            .is_some_and(|leases| leases.values().any(|lease| lease.live(now)))
    }

    /// Forgets expired leases, so that dead groups take no memory.
    pub fn expire(&self, now: Instant) {
        self.groups.lock().retain(|_, leases| {
            leases.retain(|_, lease| lease.live(now));
            !leases.is_empty()
        });
    }
}

/// LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42).
pub fn handle(broker: &Broker, command: &Command) -> Option<Command> {
    let answer = match command.code {
        request::LOCK_BATCH_MQ => lock_batch(broker, command),
        request::UNLOCK_BATCH_MQ => unlock_batch(broker, command),
        _ => Err(Refusal::unsupported(command.code)),
    };
    Some(answer.unwrap_or_else(|refusal| refusal.answer(command)))
}

fn lock_batch(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let body: LockBatchRequestBody = json::from_slice(&command.body)?;
    let held = broker.locks.lock(
        &body.consumer_group,
        &body.client_id,
        body.mq_set,
        Instant::now(),
    );
    let answer = LockBatchResponseBody {
        lock_ok_mq_set: held,
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&answer)))
}

fn unlock_batch(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let body: LockBatchRequestBody = json::from_slice(&command.body)?;
    broker
        .locks
        .unlock(&body.consumer_group, &body.client_id, &body.mq_set);
    Ok(command.response(response::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ids: &[i32]) -> Vec<MessageQueue> {
        ids.iter()
            .map(|id| MessageQueue::new("T", "broker-a", *id))
            .collect()
    }

    #[test]
    fn a_queue_belongs_to_the_first_client_until_its_lease_runs_out() {
        let locks = QueueLocks::default();
        let start = Instant::now();
        assert_eq!(
            locks.lock("g", "c1", queues(&[0, 1]), start),
            queues(&[0, 1])
        );
        assert_eq!(
            locks.lock("g", "c2", queues(&[0, 1, 2]), start + LEASE),
            queues(&[2])
        );
        let late = start + LEASE + Duration::from_millis(1);
        assert_eq!(
            locks.lock("g", "c2", queues(&[0, 1, 2]), late),
            queues(&[0, 1, 2])
        );
        assert_eq!(locks.lock("g", "c1", queues(&[0]), late), queues(&[]));
    }

    #[test]
    fn a_renewed_lease_lives_from_the_renewal_on() {
        let locks = QueueLocks::default();
        let start = Instant::now();
        locks.lock("g", "c1", queues(&[0]), start);
        locks.lock("g", "c1", queues(&[0]), start + Duration::from_secs(20));
        assert_eq!(
            locks.lock("g", "c2", queues(&[0]), start + Duration::from_secs(70)),
            queues(&[])
        );
        assert!(locks.group_is_locked("g", start + Duration::from_secs(80)));
        assert!(!locks.group_is_locked("g", start + Duration::from_secs(81)));
    }

    #[test]
    fn unlocking_removes_own_locks_only() {
        let locks = QueueLocks::default();
        let now = Instant::now();
        locks.lock("g", "c1", queues(&[0]), now);
        locks.lock("g", "c2", queues(&[1]), now);
        locks.unlock("g", "c1", &queues(&[0, 1]));
        assert_eq!(locks.lock("g", "c3", queues(&[0, 1]), now), queues(&[0]));
        locks.expire(now + LEASE + Duration::from_secs(1));
        assert!(locks.groups.lock().is_empty());
    }
}
