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
    /// Where in `list` a queue was last found, by its topic's address and its number: a guess that the slot itself confirms. With
    /// thousands of topics this fits the processor's caches, and the map does not.
    guesses: Vec<u32>,
}

/// One queue.
#[derive(Debug)]
pub(crate) struct Slot {
    pub queue: Arc<Queue>,
    /// The name by which it was last found; `queue` may know the same under another address.
    name: Option<Arc<str>>,
    /// The queue's own, here so that a guess is confirmed without another look into memory.
    queue_id: i32,
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

    /// The same for who looks again and again with names that the topic table shares.
    pub fn find_again(&mut self, topic: &Arc<str>, queue_id: i32) -> Option<usize> {
        if self.list.is_empty() {
            return None;
        }
        if self.guesses.len() < 2 * self.list.len() {
            self.guesses = vec![0; (2 * self.list.len()).next_power_of_two()];
        }
        let key = (topic.as_ptr() as u64 >> 4) ^ ((queue_id as u64) << 40);
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = (mixed >> (u64::BITS - self.guesses.len().ilog2())) as usize;
        let guess = self.guesses[place] as usize;
        let confirms = |slot: &Slot| {
            slot.queue_id == queue_id
                && (slot.name.as_ref()).is_some_and(|name| Arc::ptr_eq(name, topic))
        };
        if self.list.get(guess).is_some_and(confirms) {
            return Some(guess);
        }
        let index = self.find(topic, queue_id)?;
        self.guesses[place] = index as u32;
        self.list[index].name = Some(topic.clone());
        Some(index)
    }

    pub fn insert(&mut self, queue: Arc<Queue>) -> usize {
        let slot = Slot {
            next: queue.max(),
            name: None,
            queue_id: queue.queue_id,
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
        slot.name = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(topic: &str, id: i32) -> Arc<Queue> {
        Arc::new(Queue::new(topic.into(), id))
    }

    #[test]
    fn a_queue_is_found_again_under_every_address_of_its_topics_name() {
        let mut slots = Slots::default();
        let places: Vec<_> = (0..500)
            .map(|n| slots.insert(queue(&format!("topic{}", n / 4), n % 4)))
            .collect();
        for _ in 0..2 {
            // Each round has names of its own, and each name is asked for more than once.
            let names: Vec<Arc<str>> = (0..125).map(|n| format!("topic{n}").into()).collect();
            for _ in 0..3 {
                for (n, place) in places.iter().enumerate() {
                    let found = slots.find_again(&names[n / 4], n as i32 % 4);
                    assert_eq!(found, Some(*place));
                }
            }
            assert_eq!(slots.find_again(&names[0], 4), None);
        }
    }

    #[test]
    fn a_removed_queue_is_not_found_and_its_place_is_another_ones() {
        let mut slots = Slots::default();
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        let place = slots.insert(queue("old", 0));
        assert_eq!(slots.find_again(&old, 0), Some(place));
        assert_eq!(slots.find_again(&old, 0), Some(place));
        slots.remove(place);
        assert_eq!(slots.find_again(&old, 0), None);
        assert_eq!(slots.insert(queue("new", 0)), place);
        assert_eq!(slots.find_again(&old, 0), None);
        assert_eq!(slots.find_again(&new, 0), Some(place));
    }
}
