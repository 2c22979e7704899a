//! All queues of a store by topic and queue id, for readers; and the list of those with unwritten entries.

use crate::disk::Unsynced;
use crate::queue::{Queue, QueueDirs};
use rocketmq_protocol::topic;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::Result;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Map keyed by topic. Topics are few and checked, so a plain multiplying hash is enough.
pub type TopicMap<V> = HashMap<Arc<str>, V, BuildHasherDefault<TopicHasher>>;

/// Eight bytes at a time: rotate, mix, multiply.
#[derive(Debug, Default)]
pub struct TopicHasher(u64);

impl Hasher for TopicHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut mix = |word: u64| {
            self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        };
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| mix(u64::from_le_bytes(*word)));
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        mix(u64::from_le_bytes(last));
    }
    fn finish(&self) -> u64 {
        // The map takes its buckets from the low bits, which a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
}

/// Behind the name of a deleted topic's directory; no topic has a dot in its name.
const BURIED: &str = ".deleted";

/// The queues.
#[derive(Debug)]
pub(crate) struct Queues {
    pub dirs: QueueDirs,
    topics: RwLock<TopicMap<Vec<Arc<Queue>>>>,
    dirty: Mutex<Vec<Arc<Queue>>>,
    /// How many of them are light ones.
    light: AtomicUsize,
    /// Directories of deleted topics, which go when a checkpoint on disk does not count them.
    buried: Mutex<Vec<PathBuf>>,
}

/// How many queues have entries, and the sum of their ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub queues: u64,
    pub ends: u64,
}

/// What a store's queues are when it opens.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub there: Sum,
    /// Of deleted topics.
    pub buried: Sum,
    /// Files had another length than all have.
    pub damaged: bool,
}

impl Sum {
    fn count(&mut self, queue: &Queue) {
        self.queues += u64::from(queue.max() > 0);
        self.ends += queue.max() as u64;
    }
}

impl Queues {
    pub fn new(dirs: QueueDirs) -> Self {
        Self {
            dirs,
            topics: RwLock::default(),
            dirty: Mutex::default(),
            light: AtomicUsize::new(0),
            buried: Mutex::default(),
        }
    }

    pub fn get(&self, topic: &str, queue_id: i32) -> Option<Arc<Queue>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.get(topic)?;
        let at = queues
            .binary_search_by_key(&queue_id, |q| q.queue_id)
            .ok()?;
        Some(queues[at].clone())
    }

    pub fn insert(&self, queue: Arc<Queue>) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(queue.topic.clone()).or_default();
        if let Err(at) = queues.binary_search_by_key(&queue.queue_id, |q| q.queue_id) {
            if topic::is_lmq(&queue.topic) {
                self.light.fetch_add(1, Ordering::Relaxed);
            }
            queues.insert(at, queue);
        }
    }

    pub fn remove_topic(&self, topic: &str) -> Vec<Arc<Queue>> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.remove(topic).unwrap_or_default();
        if topic::is_lmq(topic) {
            self.light.fetch_sub(queues.len(), Ordering::Relaxed);
        }
        queues
    }

    pub fn remove_queue(&self, queue: &Queue) {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(queues) = topics.get_mut(&queue.topic) {
            let before = queues.len();
            queues.retain(|q| q.queue_id != queue.queue_id);
            if topic::is_lmq(&queue.topic) {
                (self.light).fetch_sub(before - queues.len(), Ordering::Relaxed);
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<Queue>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.values().flatten().cloned().collect()
    }

    pub fn of_topic(&self, topic: &str) -> Vec<Arc<Queue>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).cloned().unwrap_or_default()
    }

    /// How many light queues there are.
    pub fn light(&self) -> usize {
        self.light.load(Ordering::Relaxed)
    }

    /// Topics that have queues, in name order.
    pub fn topics(&self) -> Vec<Arc<str>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = topics.keys().cloned().collect();
        names.sort();
        names
    }

    /// Tells the checkpoint of queues that have something to write.
    pub fn mark_dirty(&self, queues: impl IntoIterator<Item = Arc<Queue>>) {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(queues);
    }

    pub fn take_dirty(&self) -> Vec<Arc<Queue>> {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn buried(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.buried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A topic's directory gets another name, in one step. What of it is in memory is another matter.
    pub fn bury(&self, topic: &str) -> Result<()> {
        let to = self.dirs.root.join(format!("{topic}{BURIED}"));
        if self
            .dirs
            .disk
            .rename_dir(&self.dirs.root.join(topic), &to)?
        {
            self.dirs.disk.fs.sync_dir(&self.dirs.root)?;
            self.buried().push(to);
        }
        Ok(())
    }

    /// Deletes what was buried.
    pub fn clear_buried(&self) -> Result<()> {
        let gone = std::mem::take(&mut *self.buried());
        for dir in &gone {
            self.dirs.disk.remove_dir(dir)?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        // Before the next topic is buried: should both come back, no checkpoint would count exactly these.
        self.dirs.disk.fs.sync_dir(&self.dirs.root)
    }

    /// Reads the queues' directories; entries at or behind `dispatched` are dropped. Returns what the queues are.
    pub fn load(
        &self,
        log_start: i64,
        dispatched: i64,
        clean: bool,
        unsynced: &mut Unsynced,
    ) -> Result<Loaded> {
        self.topics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.light.store(0, Ordering::Relaxed);
        self.buried().clear();
        let mut loaded = Loaded::default();
        for topic in self.dirs.disk.fs.list_dirs(&self.dirs.root)? {
            let topic: Arc<str> = topic.into();
            for id in self.dirs.disk.fs.list_dirs(&self.dirs.root.join(&*topic))? {
                let Ok(queue_id) = id.parse() else {
                    continue;
                };
                let queue = Queue::new(topic.clone(), queue_id);
                loaded.damaged |=
                    !queue.load(&self.dirs, log_start, dispatched, clean, unsynced)?;
                if topic.ends_with(BURIED) {
                    loaded.buried.count(&queue);
                } else {
                    loaded.there.count(&queue);
                    self.insert(Arc::new(queue));
                }
            }
            if topic.ends_with(BURIED) {
                self.buried().push(self.dirs.root.join(&*topic));
            }
        }
        if !self.buried().is_empty() {
            // Whoever buried them may have died before this, and their topics may be made anew now.
            self.dirs.disk.fs.sync_dir(&self.dirs.root)?;
        }
        Ok(loaded)
    }

    /// Deletes all queues.
    pub fn destroy(&self) -> Result<()> {
        self.topics
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.light.store(0, Ordering::Relaxed);
        self.dirs.disk.remove_dir(&self.dirs.root)
    }
}
