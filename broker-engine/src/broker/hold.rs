//! Pulls that found nothing and wait for a message: who waits on which queue, and when each must be answered anyway.
//!
//! Plain state: it takes `now`, reads no clock, runs no task and knows nothing of connections but their numbers. A pull is
//! in here at most once; whoever is handed it back runs it again, this time without the right to wait.
//! Source of the rules: `apache/rocketmq: broker/.../longpolling/PullRequestHoldService.java`.

use rocketmq_protocol::body::SubscriptionData;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most pulls that may wait at once; a further one is answered at once as if its time were up.
pub const PARKED_MAX: usize = 100_000;

/// A pull that messages have passed by without matching is woken after this long, so that the consumer moves its offset on
/// (`PullRequestHoldService.run` sweeps every 5 s).
const SWEEP: Duration = Duration::from_secs(5);

/// A waiting pull; `P` is what its owner needs to run it again.
#[derive(Debug)]
pub struct Parked<P> {
    /// The connection it came on.
    pub connection: u64,
    /// The offset it asked for: an arrival below it is none of its business.
    pub from: i64,
    /// What it wants of the queue; `None` takes all.
    pub subscription: Option<Arc<SubscriptionData>>,
    /// When it must be answered even if nothing came.
    pub deadline: Instant,
    /// What runs again.
    pub pull: P,
}

/// Names one parked pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

#[derive(Debug)]
struct Slot<P> {
    parked: Parked<P>,
    topic: Arc<str>,
    queue_id: i32,
    /// When it leaves by itself: the deadline, or the next sweep once a message has passed it by.
    due: Instant,
}

/// All waiting pulls.
#[derive(Debug)]
pub struct Hold<P> {
    slots: HashMap<u64, Slot<P>>,
    queues: HashMap<Arc<str>, HashMap<i32, Vec<u64>>>,
    connections: HashMap<u64, Vec<u64>>,
    due: BTreeMap<(Instant, u64), ()>,
    last: u64,
    limit: usize,
}

impl<P> Default for Hold<P> {
    fn default() -> Self {
        Hold::with_limit(PARKED_MAX)
    }
}

impl<P> Hold<P> {
    /// A hold for at most `limit` pulls.
    pub fn with_limit(limit: usize) -> Hold<P> {
        Hold {
            slots: HashMap::new(),
            queues: HashMap::new(),
            connections: HashMap::new(),
            due: BTreeMap::new(),
            last: 0,
            limit,
        }
    }

    /// Keeps a pull; gives it back when there is no room.
    pub fn park(
        &mut self,
        topic: &Arc<str>,
        queue_id: i32,
        parked: Parked<P>,
    ) -> Result<Ticket, Box<Parked<P>>> {
        if self.slots.len() >= self.limit {
            return Err(Box::new(parked));
        }
        self.last += 1;
        let id = self.last;
        let due = parked.deadline;
        self.due.insert((due, id), ());
        self.connections
            .entry(parked.connection)
            .or_default()
            .push(id);
        match self.queues.get_mut(topic.as_ref()) {
            Some(queues) => queues.entry(queue_id).or_default().push(id),
            None => {
                self.queues
                    .insert(Arc::clone(topic), HashMap::from([(queue_id, vec![id])]));
            }
        }
        self.slots.insert(
            id,
            Slot {
                parked,
                topic: Arc::clone(topic),
                queue_id,
                due,
            },
        );
        Ok(Ticket(id))
    }

    /// Takes one back, unless somebody else already has it.
    pub fn take(&mut self, ticket: Ticket) -> Option<Parked<P>> {
        self.remove(ticket.0)
    }

    /// A message stands in a queue that now ends at `max_offset`: moves the pulls that want it into `woken`.
    pub fn on_arrival(
        &mut self,
        topic: &str,
        queue_id: i32,
        max_offset: i64,
        tags_code: i64,
        now: Instant,
        woken: &mut Vec<Parked<P>>,
    ) {
        let Some(ids) = self.queues.get(topic).and_then(|q| q.get(&queue_id)) else {
            return;
        };
        let mut leaving = Vec::new();
        for &id in ids {
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            if max_offset <= slot.parked.from {
                continue;
            }
            let wanted = match &slot.parked.subscription {
                Some(subscription) => subscription.matches(tags_code),
                None => true,
            };
            if wanted {
                leaving.push(id);
            } else if now + SWEEP < slot.due {
                self.due.remove(&(slot.due, id));
                slot.due = now + SWEEP;
                self.due.insert((slot.due, id), ());
            }
        }
        for id in leaving {
            woken.extend(self.remove(id));
        }
    }

    /// The pulls whose time is up.
    pub fn on_tick(&mut self, now: Instant) -> Vec<Parked<P>> {
        let mut up = Vec::new();
        while let Some((&(due, id), ())) = self.due.first_key_value() {
            if due > now {
                break;
            }
            match self.remove(id) {
                Some(parked) => up.push(parked),
                None => {
                    self.due.remove(&(due, id));
                }
            }
        }
        up
    }

    /// When [`Hold::on_tick`] has something to hand out next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), ())| *due)
    }

    /// A connection has ended: its pulls are dropped.
    pub fn connection_closed(&mut self, connection: u64) {
        for id in self.connections.remove(&connection).unwrap_or_default() {
            self.remove(id);
        }
    }

    /// All of them: the master is back, or the broker stops.
    pub fn drain(&mut self) -> Vec<Parked<P>> {
        self.queues.clear();
        self.connections.clear();
        self.due.clear();
        self.slots.drain().map(|(_, slot)| slot.parked).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn remove(&mut self, id: u64) -> Option<Parked<P>> {
        let slot = self.slots.remove(&id)?;
        self.due.remove(&(slot.due, id));
        if let Some(queues) = self.queues.get_mut(slot.topic.as_ref()) {
            if let Some(ids) = queues.get_mut(&slot.queue_id) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    queues.remove(&slot.queue_id);
                }
            }
            if queues.is_empty() {
                self.queues.remove(slot.topic.as_ref());
            }
        }
        if let Some(ids) = self.connections.get_mut(&slot.parked.connection) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.connections.remove(&slot.parked.connection);
            }
        }
        Some(slot.parked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanting(code: i32) -> Option<Arc<SubscriptionData>> {
        Some(Arc::new(SubscriptionData {
            sub_string: "some".into(),
            tags_set: vec!["some".into()],
            code_set: vec![code],
            ..SubscriptionData::default()
        }))
    }

    struct Table {
        hold: Hold<&'static str>,
        start: Instant,
        topic: Arc<str>,
    }

    impl Table {
        fn new() -> Table {
            Table {
                hold: Hold::default(),
                start: Instant::now(),
                topic: "T".into(),
            }
        }
        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }
        fn park(
            &mut self,
            name: &'static str,
            queue_id: i32,
            from: i64,
            subscription: Option<Arc<SubscriptionData>>,
            connection: u64,
        ) -> Ticket {
            let parked = Parked {
                connection,
                from,
                subscription,
                deadline: self.at(15),
                pull: name,
            };
            self.hold
                .park(&self.topic, queue_id, parked)
                .expect("there is room")
        }
        fn arrive(&mut self, queue_id: i32, max: i64, code: i64, second: u64) -> Vec<&'static str> {
            let mut woken = Vec::new();
            let now = self.at(second);
            self.hold
                .on_arrival("T", queue_id, max, code, now, &mut woken);
            names(woken)
        }
        fn tick(&mut self, second: u64) -> Vec<&'static str> {
            let now = self.at(second);
            names(self.hold.on_tick(now))
        }
        fn check_empty(&self) {
            assert!(
                self.hold.is_empty()
                    && self.hold.queues.is_empty()
                    && self.hold.connections.is_empty()
                    && self.hold.due.is_empty(),
                "left behind: {:?}",
                self.hold
            );
        }
    }

    fn names(mut woken: Vec<Parked<&'static str>>) -> Vec<&'static str> {
        woken.sort_by_key(|parked| parked.pull);
        woken.into_iter().map(|parked| parked.pull).collect()
    }

    #[test]
    fn an_arrival_wakes_only_the_pulls_of_its_queue_that_stand_before_it() {
        let mut table = Table::new();
        table.park("at 5", 0, 5, None, 1);
        table.park("also at 5", 0, 5, None, 2);
        table.park("at 6", 0, 6, None, 3);
        table.park("other queue", 1, 5, None, 1);
        assert_eq!(table.arrive(0, 6, 0, 0), ["also at 5", "at 5"]);
        assert_eq!(table.arrive(0, 7, 0, 0), ["at 6"]);
        assert_eq!(table.arrive(1, 6, 0, 0), ["other queue"]);
        table.check_empty();
    }

    #[test]
    fn a_pull_that_waits_for_a_tag_sleeps_through_others_and_is_swept_five_seconds_later() {
        let mut table = Table::new();
        table.park("tag 7", 0, 0, wanting(7), 1);
        assert_eq!(table.arrive(0, 1, 8, 1), [""; 0]);
        assert_eq!(table.tick(5), [""; 0]);
        assert_eq!(table.tick(6), ["tag 7"]);
        table.park("tag 7", 0, 1, wanting(7), 1);
        assert_eq!(table.arrive(0, 2, 7, 7), ["tag 7"]);
        table.check_empty();
    }

    #[test]
    fn a_pull_that_nothing_reached_leaves_at_its_deadline() {
        let mut table = Table::new();
        table.park("a", 0, 0, None, 1);
        assert_eq!(table.hold.next_due(), Some(table.at(15)));
        assert_eq!(table.tick(14), [""; 0]);
        assert_eq!(table.tick(15), ["a"]);
        assert_eq!(table.hold.next_due(), None);
        table.check_empty();
    }

    #[test]
    fn the_pulls_of_a_closed_connection_are_dropped_and_nobody_elses() {
        let mut table = Table::new();
        table.park("mine", 0, 0, None, 1);
        table.park("mine too", 1, 0, None, 1);
        table.park("yours", 0, 0, None, 2);
        table.hold.connection_closed(1);
        assert_eq!(table.arrive(0, 1, 0, 0), ["yours"]);
        assert_eq!(table.arrive(1, 1, 0, 0), [""; 0]);
        table.check_empty();
    }

    #[test]
    fn a_pull_taken_back_is_nobody_elses_and_a_full_hold_refuses() {
        let mut table = Table::new();
        table.hold = Hold::with_limit(1);
        let ticket = table.park("a", 0, 0, None, 1);
        let refused = table.hold.park(
            &Arc::clone(&table.topic),
            0,
            Parked {
                connection: 2,
                from: 0,
                subscription: None,
                deadline: table.at(15),
                pull: "b",
            },
        );
        assert_eq!(refused.expect_err("the hold is full").pull, "b");
        assert_eq!(table.hold.take(ticket).map(|p| p.pull), Some("a"));
        assert!(table.hold.take(ticket).is_none());
        table.check_empty();
    }

    #[test]
    fn draining_hands_out_all() {
        let mut table = Table::new();
        table.park("a", 0, 0, None, 1);
        table.park("b", 1, 9, wanting(3), 2);
        assert_eq!(names(table.hold.drain()), ["a", "b"]);
        table.check_empty();
    }
}
