//! Consumer offsets (`config/consumerOffset.json`, flushed every 5 s).
//!
//! A commit is two lookups under read locks and one short mutex. Pending resets (222) stand beside the offsets: they answer queries,
//! and the next pull takes them.
//! Source: `apache/rocketmq: broker/.../offset/ConsumerOffsetManager.java`, `broker/.../processor/ConsumerManageProcessor.java`.

use crate::broker::refusal::Refusal;
use crate::broker::{Broker, table_file};
use crate::clock;
use parking_lot::{Mutex, RwLock};
use rocketmq_protocol::Command;
use rocketmq_protocol::body::{ConsumerOffsetSerializeWrapper, DataVersion};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::json::{self, JsonError};
use rocketmq_store::table::{self, TableError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The table: group, then topic, then queue id.
#[derive(Debug)]
pub struct Offsets {
    path: PathBuf,
    groups: RwLock<HashMap<Arc<str>, ByTopic>>,
    /// Pending resets over all groups, so that a pull pays one load when there are none.
    resets: AtomicUsize,
    /// Changes made and changes written.
    changes: AtomicU64,
    written: Mutex<Written>,
}

/// One group's offsets, by topic.
type ByTopic = HashMap<Arc<str>, Arc<Mutex<Queues>>>;

#[derive(Debug)]
struct Written {
    changes: u64,
    version: DataVersion,
}

#[derive(Debug, Default)]
struct Queues {
    committed: BTreeMap<i32, i64>,
    resets: BTreeMap<i32, i64>,
}

impl Offsets {
    /// Loads the table.
    pub fn open(config_dir: &Path) -> Result<Offsets, TableError> {
        let path = config_dir.join("consumerOffset.json");
        let file: ConsumerOffsetSerializeWrapper = table_file::load(&path)?.unwrap_or_default();
        let offsets = Offsets {
            path,
            groups: RwLock::default(),
            resets: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            written: Mutex::new(Written {
                changes: 0,
                version: file.data_version,
            }),
        };
        offsets.put_all(file.offset_table);
        offsets.written.lock().changes = offsets.changes.load(Ordering::Acquire);
        Ok(offsets)
    }

    fn queues(&self, group: &str, topic: &str) -> Option<Arc<Mutex<Queues>>> {
        self.groups.read().get(group)?.get(topic).cloned()
    }

    fn queues_or_new(&self, group: &str, topic: &str) -> Arc<Mutex<Queues>> {
        self.queues(group, topic).unwrap_or_else(|| {
            self.groups
                .write()
                .entry(group.into())
                .or_default()
                .entry(topic.into())
                .or_default()
                .clone()
        })
    }

    /// A client committed an offset (15, or inside a pull). A lower one is accepted.
    pub fn commit(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let queues = self.queues_or_new(group, topic);
        let before = queues.lock().committed.insert(queue_id, offset);
        if before != Some(offset) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// The committed offset; `None` when the group has none there. A pending reset is answered first.
    pub fn query(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let queues = self.queues(group, topic)?;
        let queues = queues.lock();
        queues
            .resets
            .get(&queue_id)
            .or_else(|| queues.committed.get(&queue_id))
            .copied()
    }

    /// All committed offsets of a group in a topic.
    pub fn query_all(&self, group: &str, topic: &str) -> BTreeMap<i32, i64> {
        self.queues(group, topic)
            .map_or_else(BTreeMap::new, |queues| queues.lock().committed.clone())
    }

    /// Whether a reset waits for the group's next pull of the queue: commits are then passed over.
    pub fn reset_pending(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.resets.load(Ordering::Acquire) > 0
            && self
                .queues(group, topic)
                .is_some_and(|queues| queues.lock().resets.contains_key(&queue_id))
    }

    /// A reset that a pull must answer with code 21 (`OFFSET_RESET`), taken out of the table.
    pub fn take_reset(&self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        if self.resets.load(Ordering::Acquire) == 0 {
            return None;
        }
        let taken = self.queues(group, topic)?.lock().resets.remove(&queue_id)?;
        self.resets.fetch_sub(1, Ordering::AcqRel);
        Some(taken)
    }

    /// INVOKE_BROKER_TO_RESET_OFFSET (222): the group goes on from `offset`, whatever its clients commit until their next pull.
    pub fn assign_reset(&self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let queues = self.queues_or_new(group, topic);
        let mut queues = queues.lock();
        queues.committed.insert(queue_id, offset);
        if queues.resets.insert(queue_id, offset).is_none() {
            self.resets.fetch_add(1, Ordering::AcqRel);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Topics in which the group has an offset.
    pub fn topics_of(&self, group: &str) -> BTreeSet<Arc<str>> {
        self.groups
            .read()
            .get(group)
            .map_or_else(BTreeSet::new, |topics| topics.keys().cloned().collect())
    }

    /// Groups that have an offset in the topic.
    pub fn groups_of(&self, topic: &str) -> BTreeSet<Arc<str>> {
        let groups = self.groups.read();
        groups
            .iter()
            .filter(|(_, topics)| topics.contains_key(topic))
            .map(|(group, _)| group.clone())
            .collect()
    }

    /// CLONE_GROUP_OFFSET (314): the target takes the source's offsets in the topic.
    pub fn clone_offsets(&self, source: &str, target: &str, topic: &str) {
        let offsets = self.query_all(source, topic);
        if !offsets.is_empty() {
            self.queues_or_new(target, topic).lock().committed = offsets;
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// A topic is gone: so are the offsets in it.
    pub fn remove_topic(&self, topic: &str) {
        self.groups.write().retain(|_, topics| {
            if let Some(queues) = topics.remove(topic) {
                self.forget(&queues);
            }
            !topics.is_empty()
        });
    }

    /// A group is gone: so are its offsets.
    pub fn remove_group(&self, group: &str) {
        for queues in self
            .groups
            .write()
            .remove(group)
            .iter()
            .flat_map(HashMap::values)
        {
            self.forget(queues);
        }
    }

    fn forget(&self, queues: &Mutex<Queues>) {
        let pending = std::mem::take(&mut queues.lock().resets).len();
        self.resets.fetch_sub(pending, Ordering::AcqRel);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Adds or replaces offsets, keyed `topic@group`; other entries stay.
    fn put_all(&self, table: BTreeMap<String, BTreeMap<i32, i64>>) {
        for (key, offsets) in table {
            if let Some((topic, group)) = key.split_once('@') {
                self.queues_or_new(group, topic)
                    .lock()
                    .committed
                    .extend(offsets);
                self.changes.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// A master's start: what is committed beyond a queue's end goes back to it; returns in how many queues. The table is synced by
    /// itself, so that after a power cut it may know of messages that the log has lost. What is stored next stands at their
    /// offsets, and a group that was left ahead would pass it over.
    pub fn take_back(&self, end: impl Fn(&str, i32) -> i64) -> usize {
        let mut taken_back = 0;
        for topics in self.groups.read().values() {
            for (topic, queues) in topics {
                for (queue_id, offset) in &mut queues.lock().committed {
                    let end = end(topic, *queue_id);
                    if *offset > end {
                        *offset = end;
                        taken_back += 1;
                    }
                }
            }
        }
        self.changes.fetch_add(taken_back, Ordering::Release);
        taken_back as usize
    }

    /// Slave: takes over the master's offsets (the text of 43) and writes them.
    pub fn replace_all(&self, text: &[u8]) -> Result<(), ReplaceError> {
        let file: ConsumerOffsetSerializeWrapper = json::from_slice(text)?;
        self.put_all(file.offset_table);
        Ok(self.write(Some(file.data_version))?)
    }

    /// Writes the table if it changed since the last time; called each `flushConsumerOffsetInterval` and at the stop.
    pub fn flush(&self) -> Result<(), TableError> {
        self.write(None)
    }

    fn write(&self, masters: Option<DataVersion>) -> Result<(), TableError> {
        let mut written = self.written.lock();
        let changes = self.changes.load(Ordering::Acquire);
        if let Some(version) = masters {
            written.version = version;
        } else if written.changes == changes {
            return Ok(());
        } else {
            written.version.bump(clock::now_ms());
        }
        table::write(
            &self.path,
            &json::to_fastjson_pretty(&self.snapshot(written.version)),
        )?;
        written.changes = changes;
        Ok(())
    }

    /// The table by `topic@group`, as the file and the wire name it.
    fn snapshot(&self, data_version: DataVersion) -> ConsumerOffsetSerializeWrapper {
        let mut offset_table = BTreeMap::new();
        for (group, topics) in &*self.groups.read() {
            for (topic, queues) in topics {
                let committed = queues.lock().committed.clone();
                if !committed.is_empty() {
                    offset_table.insert(format!("{topic}@{group}"), committed);
                }
            }
        }
        ConsumerOffsetSerializeWrapper {
            data_version,
            offset_table,
        }
    }

    /// GET_ALL_CONSUMER_OFFSET (43): the table in one line.
    pub fn wire_text(&self) -> String {
        let version = self.written.lock().version;
        json::to_fastjson(&self.snapshot(version))
    }
}

/// Why a slave could not take over its master's offsets.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// The master's answer is no offset table.
    #[error("the master's consumer offsets do not parse: {0}")]
    Text(#[from] JsonError),
    /// The table could not be written.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15).
pub fn handle(broker: &Broker, command: &Command) -> Option<Command> {
    let answer = match command.code {
        request::QUERY_CONSUMER_OFFSET => query_consumer_offset(broker, command),
        request::UPDATE_CONSUMER_OFFSET => update_consumer_offset(broker, command),
        _ => Err(Refusal::unsupported(command.code)),
    };
    Some(answer.unwrap_or_else(|refusal| refusal.answer(command)))
}

fn query_consumer_offset(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let group = command.ext.str("consumerGroup")?;
    let topic = command.ext.str("topic")?;
    let queue_id = command.ext.i32("queueId")?;
    let found = |offset: i64| command.response(response::SUCCESS).with("offset", offset);
    if let Some(offset) = broker
        .offsets
        .query(group, topic, queue_id)
        .filter(|offset| *offset >= 0)
    {
        return Ok(found(offset));
    }
    if !command.ext.bool_or("setZeroIfNotFound", true)? {
        return Err(Refusal::new(
            response::QUERY_NOT_FOUND,
            "Not found, do not set to zero, maybe this group boot first",
        ));
    }
    // A new group starts at the beginning of a young topic, so that what was sent just before its first pull is not missed.
    let (min, max) = broker.store.queue_bounds(topic, queue_id);
    if min <= 0 && max > 0 && broker.store.in_memory(topic, queue_id, 0) {
        return Ok(found(0));
    }
    Err(Refusal::new(
        response::QUERY_NOT_FOUND,
        "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first",
    ))
}

fn update_consumer_offset(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let group = command.ext.str("consumerGroup")?;
    let topic = command.ext.str("topic")?;
    let queue_id = command.ext.i32("queueId")?;
    let offset = command.ext.i64("commitOffset")?;
    if broker.groups.get(group).is_none() {
        return Err(Refusal::new(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("Group {group} not exist!"),
        ));
    }
    if broker.topics.get(topic).is_none() {
        return Err(Refusal::new(
            response::TOPIC_NOT_EXIST,
            format!("Topic {topic} not exist!"),
        ));
    }
    if broker.offsets.reset_pending(group, topic, queue_id) {
        return Ok(command.error(response::SUCCESS, "Offset has been previously reset"));
    }
    broker.offsets.commit(group, topic, queue_id, offset);
    Ok(command.response(response::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the Java broker writes it: bare queue ids, and a by-product.
    const GOLDEN: &str = "{\n\t\"dataVersion\":{\n\t\t\"counter\":7,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1700000000000\n\t},\n\t\"groupTopicMap\":{\n\t\t\"g\":[\"T\"]\n\t},\n\t\"offsetTable\":{\n\t\t\"T@g\":{0:12,1:9\n\t\t},\n\t\t\"%RETRY%g@g\":{0:1\n\t\t}\n\t}\n}";

    fn golden(dir: &Path) -> Offsets {
        std::fs::write(dir.join("consumerOffset.json"), GOLDEN).unwrap();
        Offsets::open(dir).unwrap()
    }

    #[test]
    fn a_table_that_java_wrote_is_read_and_written_with_bare_queue_ids() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = golden(dir.path());
        let wire = |counter: i64, table: &str| {
            format!(
                r#"{{"dataVersion":{{"counter":{counter},"stateVersion":0,"timestamp":1700000000000}},"offsetTable":{{{table}}}}}"#
            )
        };
        assert_eq!(
            offsets.wire_text(),
            wire(7, r#""%RETRY%g@g":{0:1},"T@g":{0:12,1:9}"#)
        );
        offsets.flush().unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("consumerOffset.json")).unwrap(),
            GOLDEN,
            "nothing changed"
        );
        offsets.commit("g", "T", 1, 3);
        offsets.flush().unwrap();
        let again = Offsets::open(dir.path()).unwrap();
        assert_eq!(again.query_all("g", "T"), BTreeMap::from([(0, 12), (1, 3)]));
        assert_eq!(again.written.lock().version.counter, 8);
    }

    #[test]
    fn a_reset_answers_queries_holds_off_commits_and_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = golden(dir.path());
        assert_eq!(offsets.take_reset("g", "T", 0), None);
        offsets.assign_reset("g", "T", 0, 2);
        assert!(offsets.reset_pending("g", "T", 0));
        assert!(!offsets.reset_pending("g", "T", 1));
        offsets.commit("g", "T", 0, 13);
        assert_eq!(offsets.query("g", "T", 0), Some(2));
        assert_eq!(offsets.take_reset("g", "T", 0), Some(2));
        assert_eq!(offsets.take_reset("g", "T", 0), None);
        assert_eq!(offsets.query("g", "T", 0), Some(13));
    }

    #[test]
    fn removing_a_topic_or_a_group_removes_its_offsets_and_pending_resets() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = golden(dir.path());
        offsets.assign_reset("g", "T", 0, 2);
        offsets.remove_topic("T");
        assert_eq!(offsets.query("g", "T", 0), None);
        assert_eq!(offsets.resets.load(Ordering::Relaxed), 0);
        assert_eq!(offsets.topics_of("g"), BTreeSet::from(["%RETRY%g".into()]));
        offsets.remove_group("g");
        assert!(offsets.groups_of("%RETRY%g").is_empty());
        offsets.flush().unwrap();
        assert!(Offsets::open(dir.path()).unwrap().topics_of("g").is_empty());
    }

    #[test]
    fn what_is_committed_beyond_a_queues_end_goes_back_to_it_and_into_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = golden(dir.path());
        let end = |topic: &str, queue_id: i32| match (topic, queue_id) {
            ("T", 0) => 12,
            ("T", 1) => 5,
            _ => 0,
        };
        assert_eq!(offsets.take_back(end), 2);
        offsets.flush().unwrap();
        let again = Offsets::open(dir.path()).unwrap();
        assert_eq!(again.query_all("g", "T"), BTreeMap::from([(0, 12), (1, 5)]));
        assert_eq!(again.query_all("g", "%RETRY%g"), BTreeMap::from([(0, 0)]));
        assert_eq!(again.take_back(end), 0);
    }

    #[test]
    fn a_slave_takes_over_its_masters_offsets() {
        let master_dir = tempfile::tempdir().unwrap();
        let master = golden(master_dir.path());
        let dir = tempfile::tempdir().unwrap();
        let slave = Offsets::open(dir.path()).unwrap();
        slave.replace_all(master.wire_text().as_bytes()).unwrap();
        assert_eq!(slave.wire_text(), master.wire_text());
        assert_eq!(
            Offsets::open(dir.path()).unwrap().wire_text(),
            master.wire_text()
        );
        assert!(slave.replace_all(b"{\"offsetTable\":").is_err());
    }

    #[test]
    fn a_target_group_takes_the_sources_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let offsets = golden(dir.path());
        offsets.commit("h", "T", 5, 5);
        offsets.clone_offsets("g", "h", "T");
        assert_eq!(
            offsets.query_all("h", "T"),
            BTreeMap::from([(0, 12), (1, 9)])
        );
        assert_eq!(
            offsets.groups_of("T"),
            BTreeSet::from(["g".into(), "h".into()])
        );
    }
}
