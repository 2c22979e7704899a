//! Appends that wait for more than the page cache: released by position, or by their deadline. Plain state that takes
//! `now`; the threads around it act.
//!
//! A wait for the disk and one for the slaves run side by side; a slave that is late outweighs a disk that is
//! (`apache/rocketmq: store/.../CommitLog.java` handleDiskFlushAndHA). RocketMQ 5 waits for slaves until the timeout even when
//! none is connected, and answers FLUSH_SLAVE_TIMEOUT.

use super::{Done, Outcome, Requirement};
use rocketmq_store::Placed;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One append that waits.
pub(super) struct Waiting {
    pub placed: Placed,
    pub done: Done,
    since: Instant,
}

/// Appends whose wait is over. Run them with [`finish`] after the lock is let go.
pub(super) type Released = Vec<(Waiting, Outcome)>;

/// Tells everyone how it ended.
pub(super) fn finish(released: Released) {
    for (waiting, outcome) in released {
        (waiting.done)(Ok((waiting.placed, outcome)));
    }
}

/// All that waits, and the positions it waits for.
pub(super) struct Acks {
    /// One queue for each requirement, so that in each the first is the first to be released. There are as many as
    /// requirements in use: two or three.
    lanes: Vec<(Requirement, VecDeque<Waiting>)>,
    flushed: i64,
    replicas: HashMap<SocketAddr, i64>,
    /// What the replicas hold, most first.
    held: Vec<i64>,
    flush_timeout: Duration,
    replica_timeout: Duration,
}

impl Acks {
    pub fn new(flush_timeout: Duration, replica_timeout: Duration) -> Self {
        Self {
            lanes: Vec::new(),
            flushed: 0,
            replicas: HashMap::new(),
            held: Vec::new(),
            flush_timeout,
            replica_timeout,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lanes.iter().map(|(_, waiting)| waiting.len()).sum()
    }

    /// Takes an append whose requirement is not met yet; gives it back when it is.
    pub fn push(
        &mut self,
        placed: Placed,
        requirement: Requirement,
        done: Done,
        now: Instant,
    ) -> Option<(Placed, Done)> {
        if self.met(requirement, placed.end) {
            return Some((placed, done));
        }
        let waiting = Waiting {
            placed,
            done,
            since: now,
        };
        match self
            .lanes
            .iter_mut()
            .find(|(required, _)| *required == requirement)
        {
            Some((_, lane)) => lane.push_back(waiting),
            None => self.lanes.push((requirement, VecDeque::from([waiting]))),
        }
        None
    }

    fn met(&self, requirement: Requirement, end: i64) -> bool {
        (!requirement.flushed || self.flushed >= end) && self.replicated(requirement.replicas, end)
    }

    fn replicated(&self, replicas: usize, end: i64) -> bool {
        replicas == 0 || self.held.get(replicas - 1).is_some_and(|held| *held >= end)
    }

    /// The log is on disk up to `position`.
    pub fn on_flushed(&mut self, position: i64) -> Released {
        self.flushed = self.flushed.max(position);
        self.release_met()
    }

    /// A slave reported that it holds the log up to `acked`.
    pub fn on_replica(&mut self, replica: SocketAddr, acked: i64) -> Released {
        self.replicas.insert(replica, acked);
        self.sort_held();
        self.release_met()
    }

    /// A slave's connection is gone: what it held does not count any more.
    pub fn on_replica_gone(&mut self, replica: SocketAddr) {
        self.replicas.remove(&replica);
        self.sort_held();
    }

    fn sort_held(&mut self) {
        self.held.clear();
        self.held.extend(self.replicas.values());
        self.held.sort_unstable_by(|a, b| b.cmp(a));
    }

    fn release_met(&mut self) -> Released {
        let mut released = Vec::new();
        for lane in 0..self.lanes.len() {
            let requirement = self.lanes[lane].0;
            while let Some(first) = self.lanes[lane].1.front()
                && self.met(requirement, first.placed.end)
            {
                released.extend(
                    self.lanes[lane]
                        .1
                        .pop_front()
                        .map(|first| (first, Outcome::Stored)),
                );
            }
        }
        released
    }

    /// Releases what has waited for all that it may.
    pub fn on_tick(&mut self, now: Instant) -> Released {
        let mut released = Vec::new();
        for lane in 0..self.lanes.len() {
            let requirement = self.lanes[lane].0;
            while let Some(first) = self.lanes[lane].1.front() {
                let waited = now.saturating_duration_since(first.since);
                let end = first.placed.end;
                let on_disk = !requirement.flushed || self.flushed >= end;
                let replicated = self.replicated(requirement.replicas, end);
                if (!on_disk && waited < self.flush_timeout)
                    || (!replicated && waited < self.replica_timeout)
                {
                    break;
                }
                let outcome = match (replicated, on_disk) {
                    (false, _) => Outcome::ReplicaTimeout,
                    (true, false) => Outcome::FlushTimeout,
                    (true, true) => Outcome::Stored,
                };
                released.extend(self.lanes[lane].1.pop_front().map(|first| (first, outcome)));
            }
        }
        released
    }

    /// When `on_tick` may next have something to release.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lanes
            .iter()
            .filter_map(|(requirement, lane)| {
                let since = lane.front()?.since;
                let flush = requirement.flushed.then_some(self.flush_timeout);
                let replica = (requirement.replicas > 0).then_some(self.replica_timeout);
                // The earlier one may already be met; looking once too often is harmless, `on_tick` decides.
                flush
                    .into_iter()
                    .chain(replica)
                    .max()
                    .map(|wait| since + wait)
            })
            .min()
    }

    /// The store stops: nothing that waits will be reached any more, and none of it becomes a success.
    pub fn give_up(&mut self) -> Released {
        let lanes = std::mem::take(&mut self.lanes);
        let mut released = Vec::new();
        for (requirement, lane) in lanes {
            let outcome = if requirement.flushed {
                Outcome::FlushTimeout
            } else {
                Outcome::ReplicaTimeout
            };
            released.extend(lane.into_iter().map(|waiting| (waiting, outcome)));
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    const SYNC_FLUSH: Requirement = Requirement {
        flushed: true,
        replicas: 0,
    };
    const SYNC_MASTER: Requirement = Requirement {
        flushed: false,
        replicas: 1,
    };
    const BOTH: Requirement = Requirement {
        flushed: true,
        replicas: 2,
    };

    struct Given {
        acks: Acks,
        start: Instant,
        told: Arc<Mutex<Vec<(i64, Outcome)>>>,
    }

    fn given(waiting: &[(i64, Requirement)]) -> Given {
        let mut given = Given {
            acks: Acks::new(Duration::from_secs(5), Duration::from_secs(3)),
            start: Instant::now(),
            told: Arc::default(),
        };
        for (end, requirement) in waiting {
            let told = given.told.clone();
            let end = *end;
            let done: Done = Box::new(move |result| {
                let (_, outcome) = result.expect("it was stored");
                told.lock()
                    .expect("no test panics with it")
                    .push((end, outcome));
            });
            let placed = Placed {
                records: vec![],
                end,
            };
            assert!(
                given
                    .acks
                    .push(placed, *requirement, done, given.start)
                    .is_none()
            );
        }
        given
    }

    #[track_caller]
    fn check(given: &Given, released: Released, expected: &[(i64, Outcome)]) {
        finish(released);
        let told = std::mem::take(&mut *given.told.lock().expect("no test panics with it"));
        assert_eq!(told, expected);
    }

    fn slave(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    #[test]
    fn a_sync_releases_everything_up_to_its_position_in_order() {
        let mut given = given(&[(10, SYNC_FLUSH), (20, SYNC_FLUSH), (30, SYNC_FLUSH)]);
        let released = given.acks.on_flushed(25);
        check(
            &given,
            released,
            &[(10, Outcome::Stored), (20, Outcome::Stored)],
        );
        assert_eq!(given.acks.len(), 1);
    }

    #[test]
    fn a_position_reached_before_is_no_wait() {
        let mut given = given(&[]);
        given.acks.on_flushed(100);
        let placed = Placed {
            records: vec![],
            end: 100,
        };
        let back = given
            .acks
            .push(placed, SYNC_FLUSH, Box::new(|_| {}), given.start);
        assert!(back.is_some());
    }

    #[test]
    fn with_two_slaves_required_the_slower_one_counts() {
        let mut given = given(&[(10, BOTH), (20, BOTH)]);
        given.acks.on_flushed(50);
        let released = given.acks.on_replica(slave(1), 20);
        check(&given, released, &[]);
        let released = given.acks.on_replica(slave(2), 10);
        check(&given, released, &[(10, Outcome::Stored)]);
    }

    #[test]
    fn a_slave_that_is_gone_does_not_count() {
        let mut given = given(&[(10, BOTH)]);
        given.acks.on_flushed(50);
        given.acks.on_replica(slave(1), 10);
        given.acks.on_replica_gone(slave(1));
        let released = given.acks.on_replica(slave(2), 10);
        check(&given, released, &[]);
    }

    #[test]
    fn a_late_disk_and_a_late_slave_are_told_apart_and_never_become_success() {
        let mut given = given(&[(10, SYNC_FLUSH), (20, SYNC_MASTER), (30, BOTH)]);
        let released = given
            .acks
            .on_tick(given.start + Duration::from_millis(2999));
        check(&given, released, &[]);
        let released = given.acks.on_tick(given.start + Duration::from_secs(3));
        check(&given, released, &[(20, Outcome::ReplicaTimeout)]);
        let released = given.acks.on_tick(given.start + Duration::from_secs(5));
        check(
            &given,
            released,
            &[(10, Outcome::FlushTimeout), (30, Outcome::ReplicaTimeout)],
        );
    }

    #[test]
    fn the_next_deadline_is_the_oldest_waiters() {
        let given = given(&[(10, SYNC_FLUSH), (20, SYNC_MASTER)]);
        assert_eq!(
            given.acks.next_deadline(),
            Some(given.start + Duration::from_secs(3))
        );
    }

    #[test]
    fn a_wait_for_replicas_that_is_late_does_not_hold_up_one_for_the_disk() {
        let mut given = given(&[(10, SYNC_MASTER), (20, SYNC_FLUSH)]);
        let released = given.acks.on_flushed(20);
        check(&given, released, &[(20, Outcome::Stored)]);
    }
}
