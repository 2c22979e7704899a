//! The queues as their one writer knows them: by topic and number, with the entries of the append under way.

use crate::queue::Queue;
use crate::queues::TopicMap;
use crate::reader::QueueEntry;
use std::sync::Arc;

/// The queues as their writer knows them.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    by_topic: TopicMap<Vec<(i32, usize)>>,
    pub list: Vec<Slot>,
    free: Vec<usize>,
    pub touched: Vec<usize>,
    /// Sum of the queues' ends.
    pub ends: u64,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Slot {
    pub queue: Arc<Queue>,
    pub next: i64,
    /// Entries of the append under way; the first has the number `fresh_at`.
    pub fresh: Vec<QueueEntry>,
    pub fresh_at: i64,
}

impl Slots {
    pub fn find(&self, topic: &str, queue_id: i32) -> Option<usize> {
        let queues = self.by_topic.get(topic)?;
        let at = queues.binary_search_by_key(&queue_id, |(id, _)| *id).ok()?;
        Some(queues[at].1)
    }

    pub fn insert(&mut self, queue: Arc<Queue>) -> usize {
        let slot = Slot {
            next: queue.max(),
            queue,
            fresh: Vec::new(),
            fresh_at: 0,
        };
        self.ends += slot.next as u64;
        let topic = slot.queue.topic.clone();
        let queue_id = slot.queue.queue_id;
        let index = match self.free.pop() {
            Some(index) => {
                self.list[index] = slot;
                index
            }
            None => {
                self.list.push(slot);
                self.list.len() - 1
            }
        };
        let queues = self.by_topic.entry(topic).or_default();
        match queues.binary_search_by_key(&queue_id, |(id, _)| *id) {
            Ok(at) => queues[at].1 = index,
            Err(at) => queues.insert(at, (queue_id, index)),
        }
        index
    }

    /// Takes one entry for the slot's next number.
    pub fn push(&mut self, index: usize, entry: QueueEntry) -> i64 {
        let slot = &mut self.list[index];
        if slot.fresh.is_empty() {
            slot.fresh_at = slot.next;
            self.touched.push(index);
        }
        slot.fresh.push(entry);
        slot.next += 1;
        slot.next - 1
    }

    /// Forgets the entries taken since the last publishing.
    pub fn roll_back(&mut self) {
        for index in self.touched.drain(..) {
            let slot = &mut self.list[index];
            slot.next = slot.fresh_at;
            slot.fresh.clear();
        }
    }

    /// Begins an empty queue at a number other than 0.
    pub fn start(&mut self, index: usize, at: i64) {
        let slot = &mut self.list[index];
        if slot.fresh.is_empty() {
            slot.next = at;
        }
    }

    pub fn remove(&mut self, index: usize) -> Arc<Queue> {
        let slot = &mut self.list[index];
        let queue = slot.queue.clone();
        self.ends -= queue.max() as u64;
        // The slot is free: it must not look like a queue when queues are counted.
        slot.next = 0;
        slot.fresh = Vec::new();
        self.touched.retain(|touched| *touched != index);
        self.free.push(index);
        if let Some(queues) = self.by_topic.get_mut(&queue.topic) {
            queues.retain(|(id, _)| *id != queue.queue_id);
            if queues.is_empty() {
                self.by_topic.remove(&queue.topic);
            }
        }
        queue
    }
}
