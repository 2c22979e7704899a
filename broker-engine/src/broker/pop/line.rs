//! Who waits for messages to pop: a line for each topic, group and queue (-1: any queue), first come first served.
//!
//! Plain state: it takes `now` and reads no clock. Unlike a pull ([`crate::broker::hold`]) a pop takes what it gets away from
//! the rest of its group, so a message wakes one of a line and not all.
//! Source of the rules: `apache/rocketmq: broker/.../longpolling/PopLongPollingService.java`.

use rocketmq_protocol::body::SubscriptionData;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Which line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Spot {
    pub topic: Arc<str>,
    pub group: Arc<str>,
    /// -1: any queue.
    pub queue_id: i32,
}

/// One who waits; `P` is what its owner needs to serve it.
#[derive(Debug)]
pub struct Waiting<P> {
    /// Where it stands.
    pub spot: Spot,
    /// The connection it came on.
    pub connection: u64,
    /// What it wants; `None` takes all.
    pub subscription: Option<Arc<SubscriptionData>>,
    /// When it must be looked at even if nothing came.
    pub due: Instant,
    /// What is served.
    pub request: P,
}

/// Why one may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A group's lines at one topic: the members of each in the order they came.
type ByQueue = HashMap<i32, VecDeque<u64>>;

/// All lines.
#[derive(Debug)]
pub struct Lines<P> {
    waiting: HashMap<u64, Waiting<P>>,
    /// By topic, then group.
    lines: HashMap<Arc<str>, HashMap<Arc<str>, ByQueue>>,
    connections: HashMap<u64, Vec<u64>>,
    due: BTreeSet<(Instant, u64)>,
    last: u64,
}

impl<P> Default for Lines<P> {
    fn default() -> Self {
        Lines {
            waiting: HashMap::new(),
            lines: HashMap::new(),
            connections: HashMap::new(),
            due: BTreeSet::new(),
            last: 0,
        }
    }
}

impl<P> Lines<P> {
    /// Stands in line; returns a number to be taken back by. Refused when `all` wait in total or `line` in this line.
    pub fn join(
        &mut self,
        waiting: Waiting<P>,
        all: usize,
        line: usize,
    ) -> Result<u64, (Full, Waiting<P>)> {
        if self.waiting.len() >= all || self.len_of(&waiting.spot) > line {
            return Err((Full, waiting));
        }
        self.last += 1;
        let id = self.last;
        self.due.insert((waiting.due, id));
        self.connections
            .entry(waiting.connection)
            .or_default()
            .push(id);
        let Spot {
            topic,
            group,
            queue_id,
        } = waiting.spot.clone();
        let groups = self.lines.entry(topic).or_default();
        let queues = groups.entry(group).or_default();
        queues.entry(queue_id).or_default().push_back(id);
        self.waiting.insert(id, waiting);
        Ok(id)
    }

    /// Takes one out, unless somebody else already has it.
    pub fn take(&mut self, id: u64) -> Option<Waiting<P>> {
        let out = self.waiting.remove(&id)?;
        self.due.remove(&(out.due, id));
        if let Some(ids) = self.connections.get_mut(&out.connection) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.connections.remove(&out.connection);
            }
        }
        if let Some(groups) = self.lines.get_mut(&out.spot.topic) {
            if let Some(queues) = groups.get_mut(&out.spot.group) {
                if let Some(line) = queues.get_mut(&out.spot.queue_id) {
                    line.retain(|other| *other != id);
                    if line.is_empty() {
                        queues.remove(&out.spot.queue_id);
                    }
                }
                if queues.is_empty() {
                    groups.remove(&out.spot.group);
                }
            }
            if groups.is_empty() {
                self.lines.remove(&out.spot.topic);
            }
        }
        Some(out)
    }

    /// A message has come to a queue: of each group that waits for it, one who waits for any queue and one who waits for this.
    pub fn on_arrival(
        &mut self,
        topic: &str,
        queue_id: i32,
        tags_code: i64,
        woken: &mut Vec<Waiting<P>>,
    ) {
        let Some(groups) = self.lines.get(topic) else {
            return;
        };
        let mut leaving = Vec::new();
        for queues in groups.values() {
            for queue in [-1, queue_id] {
                leaving.extend(queues.get(&queue).and_then(|line| {
                    let wants = |id: &&u64| match &self.waiting[*id].subscription {
                        Some(subscription) => subscription.matches(tags_code),
                        None => true,
                    };
                    line.iter().find(wants).copied()
                }));
            }
        }
        woken.extend(leaving.into_iter().filter_map(|id| self.take(id)));
    }

    /// The first of a line, whatever it wants.
    pub fn first(&mut self, topic: &str, group: &str, queue_id: i32) -> Option<Waiting<P>> {
        let id = *self.lines.get(topic)?.get(group)?.get(&queue_id)?.front()?;
        self.take(id)
    }

    /// Those who must be looked at by now.
    pub fn on_tick(&mut self, now: Instant) -> Vec<Waiting<P>> {
        let mut up = Vec::new();
        while let Some(&(due, id)) = self.due.first() {
            if due > now {
                break;
            }
            up.extend(self.take(id));
        }
        up
    }

    /// When [`Lines::on_tick`] has somebody next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A connection has ended: who came on it is dropped.
    pub fn connection_closed(&mut self, connection: u64) {
        for id in self.connections.remove(&connection).unwrap_or_default() {
            self.take(id);
        }
    }

    /// All of them.
    pub fn drain(&mut self) -> Vec<Waiting<P>> {
        let ids: Vec<u64> = self.waiting.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// How many stand in one line.
    pub fn len_of(&self, spot: &Spot) -> usize {
        self.lines
            .get(&spot.topic)
            .and_then(|groups| groups.get(&spot.group))
            .and_then(|queues| queues.get(&spot.queue_id))
            .map_or(0, VecDeque::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn who(
        name: &'static str,
        group: &str,
        queue_id: i32,
        connection: u64,
        due: Instant,
    ) -> Waiting<&'static str> {
        Waiting {
            spot: Spot {
                topic: "T".into(),
                group: group.into(),
                queue_id,
            },
            connection,
            subscription: None,
            due,
            request: name,
        }
    }

    fn names(mut out: Vec<Waiting<&'static str>>) -> Vec<&'static str> {
        out.sort_by_key(|waiting| waiting.request);
        out.into_iter().map(|waiting| waiting.request).collect()
    }

    fn arrive(lines: &mut Lines<&'static str>, queue_id: i32, tags_code: i64) -> Vec<&'static str> {
        let mut woken = Vec::new();
        lines.on_arrival("T", queue_id, tags_code, &mut woken);
        names(woken)
    }

    fn empty<P: std::fmt::Debug>(lines: &Lines<P>) {
        assert!(
            lines.len() == 0
                && lines.lines.is_empty()
                && lines.connections.is_empty()
                && lines.due.is_empty(),
            "left behind: {lines:?}"
        );
    }

    #[test]
    fn a_message_wakes_one_of_each_group_in_the_order_they_came() {
        let due = Instant::now();
        let mut lines = Lines::default();
        for waiting in [
            who("g any 1", "g", -1, 1, due),
            who("g any 2", "g", -1, 1, due),
            who("g queue 0", "g", 0, 2, due),
            who("h queue 1", "h", 1, 3, due),
        ] {
            lines.join(waiting, 10, 10).unwrap();
        }
        assert_eq!(arrive(&mut lines, 0, 0), ["g any 1", "g queue 0"]);
        assert_eq!(arrive(&mut lines, 1, 0), ["g any 2", "h queue 1"]);
        empty(&lines);
    }

    #[test]
    fn who_wants_another_tag_lets_the_next_one_go_first() {
        let due = Instant::now();
        let mut lines = Lines::default();
        let mut picky = who("picky", "g", -1, 1, due);
        picky.subscription = Some(Arc::new(SubscriptionData::parse_tags("T", "A")));
        lines.join(picky, 10, 10).unwrap();
        lines.join(who("any", "g", -1, 1, due), 10, 10).unwrap();
        assert_eq!(arrive(&mut lines, 0, 77), ["any"]);
        assert_eq!(arrive(&mut lines, 0, 77), [""; 0]);
        assert_eq!(lines.first("T", "g", -1).map(|w| w.request), Some("picky"));
        empty(&lines);
    }

    #[test]
    fn time_a_closed_connection_and_the_end_empty_the_lines() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lines = Lines::default();
        lines.join(who("late", "g", -1, 1, at(5)), 10, 10).unwrap();
        lines.join(who("soon", "g", -1, 1, at(1)), 10, 10).unwrap();
        lines.join(who("gone", "g", -1, 2, at(1)), 10, 10).unwrap();
        lines.connection_closed(2);
        assert_eq!(lines.next_due(), Some(at(1)));
        assert_eq!(names(lines.on_tick(at(1))), ["soon"]);
        assert_eq!(names(lines.drain()), ["late"]);
        empty(&lines);
    }

    #[test]
    fn a_full_line_and_a_full_house_refuse() {
        let due = Instant::now();
        let mut lines = Lines::default();
        lines.join(who("a", "g", -1, 1, due), 2, 0).unwrap();
        assert!(lines.join(who("b", "g", -1, 1, due), 2, 0).is_err());
        lines.join(who("c", "h", -1, 1, due), 2, 0).unwrap();
        assert!(lines.join(who("d", "i", -1, 1, due), 2, 0).is_err());
        assert_eq!(lines.len(), 2);
    }
}
