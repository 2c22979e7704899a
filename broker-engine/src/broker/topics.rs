//! Topic table (`config/topics.json`).
//!
//! Lookups take a read lock and clone an `Arc`. Every change bumps the DataVersion, is written to the file before it is
//! answered for (retry topics that heartbeats make, each second), and asks registration to tell the name servers. On a slave the
//! master's table replaces this one.
//! Source: `apache/rocketmq: broker/.../topic/TopicConfigManager.java`.

use crate::broker::attributes;
use crate::broker::table_file::{self, TableFile};
use crate::clock;
use crate::config::BrokerConfig;
use parking_lot::RwLock;
use rocketmq_protocol::body::{DataVersion, TopicConfig, TopicConfigSerializeWrapper};
use rocketmq_protocol::topic::{self, perm};
use rocketmq_store::TopicMap;
use rocketmq_store::table::TableError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// The table.
#[derive(Debug)]
pub struct Topics {
    file: TableFile,
    table: RwLock<TopicMap<Arc<TopicConfig>>>,
    /// How many changes there were; registration follows it.
    changes: watch::Sender<u64>,
    /// Names made by this broker for itself, beside the fixed list.
    system: BTreeSet<Arc<str>>,
    /// `enableLmq`
    lmq: bool,
    auto_create: bool,
    slave: bool,
}

/// Why a topic could not be set.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The attributes are refused; Java's text.
    #[error("{0}")]
    Attributes(String),
    /// The table's file could not be written; memory holds the change.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Topics {
    /// Loads the table and adds the topics that every broker has.
    pub fn open(
        config_dir: &Path,
        config: &BrokerConfig,
        slave: bool,
    ) -> Result<Topics, TableError> {
        let path = config_dir.join("topics.json");
        // A fresh table's version carries the time, so that a name server tells it from the one of an earlier life.
        let fresh = || TopicConfigSerializeWrapper {
            data_version: DataVersion::new(clock::now_ms()),
            ..TopicConfigSerializeWrapper::default()
        };
        let file: TopicConfigSerializeWrapper = table_file::load(&path)?.unwrap_or_else(fresh);
        let mut topics: TopicMap<_> = system_topics(config)
            .map(|topic| (topic.topic_name.clone(), Arc::new(topic)))
            .collect();
        let system = topics.keys().cloned().collect();
        // What stands in the file wins, as in Java: an operator may have given a system topic other queues.
        topics.extend(file.topic_config_table);
        Ok(Topics {
            file: TableFile::new(path, file.data_version),
            table: RwLock::new(topics),
            changes: watch::Sender::new(0),
            system,
            auto_create: config.auto_create_topic_enable,
            lmq: config.enable_lmq,
            slave,
        })
    }

    /// The topic's configuration.
    pub fn get(&self, topic: &str) -> Option<Arc<TopicConfig>> {
        if self.lmq && topic::is_lmq(topic) {
            // Light queues are in no table: each is its own topic of one queue.
            let both = perm::READ | perm::WRITE;
            return Some(Arc::new(TopicConfig::new(topic, 1, both)));
        }
        self.table.read().get(topic).cloned()
    }

    /// All names.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.table.read().keys().cloned().collect()
    }

    /// Whether a topic belongs to the system and is none of the users' (`TopicValidator.isSystemTopic`).
    pub fn is_system(&self, topic: &str) -> bool {
        topic::is_system(topic) || self.system.contains(topic)
    }

    /// The system's topics: the fixed list and this broker's own (305).
    pub fn system_names(&self) -> BTreeSet<Arc<str>> {
        topic::SYSTEM
            .iter()
            .map(|name| Arc::from(*name))
            .chain(self.system.iter().cloned())
            .collect()
    }

    /// The table's version and its content.
    pub fn snapshot(&self) -> TopicConfigSerializeWrapper {
        let version = self.file.version();
        let topic_config_table = self
            .table
            .read()
            .iter()
            .map(|(name, topic)| (name.clone(), topic.clone()))
            .collect();
        TopicConfigSerializeWrapper {
            data_version: *version,
            topic_config_table,
        }
    }

    /// Which state of the table this is.
    pub fn version(&self) -> DataVersion {
        *self.file.version()
    }

    /// How many changes there were; a value is published after its change is in the table and on disk.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Changes the table; writes it when `change` says that something changed. The topic stays changed in memory if the file
    /// cannot be written.
    fn change(
        &self,
        change: impl FnOnce(&mut TopicMap<Arc<TopicConfig>>) -> bool,
    ) -> Result<(), TableError> {
        if !self.change_unwritten(change) {
            return Ok(());
        }
        let written = self.flush();
        self.changes.send_modify(|count| *count += 1);
        written
    }

    /// Changes the table and not its file, and tells nobody; whether something changed.
    fn change_unwritten(
        &self,
        change: impl FnOnce(&mut TopicMap<Arc<TopicConfig>>) -> bool,
    ) -> bool {
        self.file.change(|| change(&mut self.table.write()))
    }

    /// Writes the table if its file is behind.
    pub fn flush(&self) -> Result<(), TableError> {
        self.file.flush(|| {
            let table = self.snapshot();
            (table.data_version, table)
        })
    }

    /// Writes the retry topics that heartbeats made since the last time, and has the name servers told of them.
    pub fn flush_made(&self) -> Result<(), TableError> {
        if self.file.is_written() {
            return Ok(());
        }
        let written = self.flush();
        self.changes.send_modify(|count| *count += 1);
        written
    }

    /// Auto-creation by a send (`TopicConfigManager.createTopicInSendMessageMethod`): from the default topic's config, if it may.
    /// Persists and asks registration to run at once. `None`: not allowed (answer TOPIC_NOT_EXIST 17).
    pub fn create_for_send(
        &self,
        topic: &str,
        default_topic: &str,
        client_queue_nums: i32,
        remote: &str,
    ) -> Option<Arc<TopicConfig>> {
        if let Some(found) = self.get(topic) {
            return Some(found);
        }
        let Some(default) = self.get(default_topic) else {
            tracing::warn!(
                topic,
                default_topic,
                producer = remote,
                "not created: the default topic does not exist"
            );
            return None;
        };
        let inherited = perm::inherited(default.perm)
            && (self.auto_create || default_topic != topic::AUTO_CREATE_TOPIC_KEY);
        if !inherited {
            tracing::warn!(
                topic,
                default_topic,
                perm = default.perm,
                producer = remote,
                "not created: the default topic may not be inherited from"
            );
            return None;
        }
        let queue_nums = client_queue_nums.min(default.write_queue_nums).max(0);
        Some(self.create(TopicConfig {
            topic_name: topic.into(),
            read_queue_nums: queue_nums,
            write_queue_nums: queue_nums,
            perm: default.perm & !perm::INHERIT,
            topic_filter_type: default.topic_filter_type.clone(),
            ..TopicConfig::default()
        }))
    }

    /// Makes `%RETRY%`/`%DLQ%` topics on first use (`createTopicInSendMessageBackMethod`).
    pub fn create_for_send_back(
        &self,
        topic: &str,
        queue_nums: i32,
        perm: i32,
    ) -> Arc<TopicConfig> {
        self.get(topic).unwrap_or_else(|| {
            self.create(TopicConfig {
                topic_name: topic.into(),
                read_queue_nums: queue_nums,
                write_queue_nums: queue_nums,
                perm,
                ..TopicConfig::default()
            })
        })
    }

    /// The retry topic of a group that sent a heartbeat; `order` follows whether the group reads an ordered topic.
    /// A slave makes none: its master does, and the table is copied. It is written with the next [`Topics::flush_made`], like
    /// the group itself.
    pub fn ensure_retry(&self, group: &str, queue_nums: i32, order: bool, sys_flag: i32) {
        if self.slave {
            return;
        }
        let name = topic::retry(group);
        match self.get(&name) {
            None => {
                let made = TopicConfig {
                    topic_name: name.as_str().into(),
                    read_queue_nums: queue_nums,
                    write_queue_nums: queue_nums,
                    order,
                    topic_sys_flag: sys_flag,
                    ..TopicConfig::default()
                };
                self.change_unwritten(|table| {
                    !table.contains_key(name.as_str()) && set(table, made)
                });
            }
            Some(found) if found.order != order => {
                let found = TopicConfig::clone(&found);
                self.change_unwritten(|table| set(table, TopicConfig { order, ..found }));
            }
            Some(_) => {}
        }
    }

    /// Adds a topic unless it is there by now; returns what stands in the table.
    fn create(&self, made: TopicConfig) -> Arc<TopicConfig> {
        let name = made.topic_name.clone();
        let mut standing = Arc::new(made);
        let written = self.change(|table| match table.get(&name) {
            Some(found) => {
                standing = found.clone();
                false
            }
            None => {
                table.insert(name.clone(), standing.clone());
                true
            }
        });
        self.log_unwritten(&name, written);
        standing
    }

    fn log_unwritten(&self, topic: &str, written: Result<(), TableError>) {
        if let Err(error) = written {
            tracing::error!(topic, %error, "the topic serves, but would be lost by a restart");
        }
    }

    /// UPDATE_AND_CREATE_TOPIC: sets topics whose `attributes` are modifications (`+key`, `-key`) of what stands there.
    pub fn update(&self, topics: Vec<TopicConfig>) -> Result<(), UpdateError> {
        let mut refused = None;
        let written = self.change(|table| {
            let mut altered = Vec::with_capacity(topics.len());
            for mut topic in topics {
                let found = table.get(&topic.topic_name);
                let empty = BTreeMap::new();
                let current = found.map_or(&empty, |found| &found.attributes);
                match attributes::alter(
                    found.is_none(),
                    attributes::TOPIC,
                    current,
                    &topic.attributes,
                ) {
                    Ok(attributes) => topic.attributes = attributes,
                    Err(reason) => {
                        refused = Some(reason);
                        return false;
                    }
                }
                if topic.attributes.contains_key("reserve.time") {
                    // Only Java's tiered store keeps a topic's messages longer than the commit log.
                    refused = Some("Update topic reserveTime not supported".into());
                    return false;
                }
                altered.push(topic);
            }
            let mut changed = false;
            for topic in altered {
                changed |= set(table, topic);
            }
            changed
        });
        match refused {
            Some(reason) => Err(UpdateError::Attributes(reason)),
            None => Ok(written?),
        }
    }

    /// Topics that the name server's order configuration names are ordered (`TopicConfigManager.updateOrderTopicConfig`). One
    /// that it names no more stays so until an update says otherwise.
    pub fn set_ordered(&self, names: &[String]) -> Result<(), TableError> {
        self.change(|table| {
            let mut changed = false;
            for name in names {
                if let Some(found) = table.get(name.as_str()).filter(|found| !found.order) {
                    let order = true;
                    let found = TopicConfig::clone(found);
                    changed |= set(table, TopicConfig { order, ..found });
                }
            }
            changed
        })
    }

    /// A new version of the same table, so that name servers take it over again.
    pub fn renew(&self) -> Result<(), TableError> {
        self.change(|_| true)
    }

    /// DELETE_TOPIC_IN_BROKER: drops a topic from the table; its queues and offsets are others' business.
    pub fn delete(&self, topic: &str) -> Result<(), TableError> {
        self.change(|table| table.remove(topic).is_some())
    }

    /// Slave: the master's table takes the place of this one if it is another version. Returns whether it did.
    pub fn replace_all(&self, master: TopicConfigSerializeWrapper) -> Result<bool, TableError> {
        let replaced = self.file.replace(master.data_version, || {
            *self.table.write() = master.topic_config_table.into_iter().collect();
        });
        if replaced {
            self.flush()?;
        }
        Ok(replaced)
    }
}

fn set(table: &mut TopicMap<Arc<TopicConfig>>, topic: TopicConfig) -> bool {
    if table
        .get(&topic.topic_name)
        .is_some_and(|found| **found == topic)
    {
        return false;
    }
    table.insert(topic.topic_name.clone(), Arc::new(topic));
    true
}

/// The topics that a broker makes at its start (`TopicConfigManager.init`).
fn system_topics(config: &BrokerConfig) -> impl Iterator<Item = TopicConfig> {
    let read_write = perm::READ | perm::WRITE;
    // A name that is the cluster's or the broker's stands in the table to be inherited from; whether it may be used itself is a setting.
    let own = |enabled| {
        if enabled {
            read_write | perm::INHERIT
        } else {
            perm::INHERIT
        }
    };
    let cluster = &config.broker_cluster_name;
    let broker = &config.broker_name;
    let mut topics = vec![
        (topic::SELF_TEST.to_owned(), 1, read_write),
        (topic::BENCHMARK.to_owned(), 1024, read_write),
        (cluster.clone(), 16, own(config.cluster_topic_enable)),
        (broker.clone(), 1, own(config.broker_topic_enable)),
        (topic::OFFSET_MOVED_EVENT.to_owned(), 1, read_write),
        (topic::SCHEDULE.to_owned(), 18, read_write),
        (format!("{cluster}_{}", topic::REPLY_POSTFIX), 1, read_write),
        (
            format!("{}{cluster}", topic::REVIVE_PREFIX),
            config.revive_queue_num as i32,
            read_write,
        ),
        (
            format!("{}{broker}", topic::SYNC_BROKER_MEMBER_PREFIX),
            1,
            perm::INHERIT,
        ),
        (topic::TRANS_HALF.to_owned(), 1, read_write),
        (topic::TRANS_OP_HALF.to_owned(), 1, read_write),
    ];
    if config.auto_create_topic_enable {
        topics.push((
            topic::AUTO_CREATE_TOPIC_KEY.to_owned(),
            config.default_topic_queue_nums as i32,
            read_write | perm::INHERIT,
        ));
    }
    if config.trace_topic_enable {
        topics.push((config.msg_trace_topic_name.clone(), 1, read_write));
    }
    if config.timer_wheel_enable {
        topics.push((topic::TIMER.to_owned(), 1, read_write));
    }
    topics.into_iter().map(|(name, queues, perm)| TopicConfig {
        topic_name: name.into(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, slave: bool) -> Topics {
        Topics::open(dir, &BrokerConfig::default(), slave).expect("the table opens")
    }

    /// As the Java broker writes it (fastjson, pretty), shortened to one topic.
    const GOLDEN: &str = "{\n\t\"dataVersion\":{\n\t\t\"counter\":3,\n\t\t\"stateVersion\":0,\n\t\t\"timestamp\":1700000000000\n\t},\n\t\"topicConfigTable\":{\n\t\t\"T\":{\n\t\t\t\"attributes\":{\n\t\t\t\t\"message.type\":\"FIFO\"\n\t\t\t},\n\t\t\t\"order\":false,\n\t\t\t\"perm\":6,\n\t\t\t\"readQueueNums\":8,\n\t\t\t\"topicFilterType\":\"SINGLE_TAG\",\n\t\t\t\"topicName\":\"T\",\n\t\t\t\"topicSysFlag\":0,\n\t\t\t\"writeQueueNums\":4\n\t\t}\n\t}\n}";

    fn golden_topic() -> TopicConfig {
        TopicConfig {
            topic_name: "T".into(),
            read_queue_nums: 8,
            write_queue_nums: 4,
            attributes: BTreeMap::from([("message.type".to_owned(), "FIFO".to_owned())]),
            ..TopicConfig::default()
        }
    }

    #[test]
    fn a_table_that_java_wrote_is_read_and_kept_beside_the_system_topics() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("topics.json"), GOLDEN).unwrap();
        let topics = open(dir.path(), false);
        assert_eq!(topics.get("T").as_deref(), Some(&golden_topic()));
        assert_eq!(
            topics.version(),
            DataVersion {
                counter: 3,
                state_version: 0,
                timestamp: 1_700_000_000_000
            }
        );
        assert_eq!(
            topics
                .get("SCHEDULE_TOPIC_XXXX")
                .map(|topic| topic.write_queue_nums),
            Some(18)
        );
        assert_eq!(topics.get("TBW102").map(|topic| topic.perm), Some(7));
    }

    #[test]
    fn a_change_is_on_disk_and_counted_before_it_is_answered() {
        let dir = tempfile::tempdir().unwrap();
        let topics = open(dir.path(), false);
        let before = topics.version();
        let made = topics
            .create_for_send("New", "TBW102", 4, "10.0.0.1:5")
            .unwrap();
        assert_eq!(
            (made.read_queue_nums, made.write_queue_nums, made.perm),
            (4, 4, 6)
        );
        assert_eq!(*topics.changes().borrow(), 1);
        assert_eq!(topics.version().counter, before.counter + 1);
        let again = open(dir.path(), false);
        assert_eq!(again.snapshot(), topics.snapshot());
        topics.delete("New").unwrap();
        assert_eq!(open(dir.path(), false).get("New"), None);
    }

    #[test]
    fn a_topic_is_only_inherited_from_a_topic_that_permits_it() {
        let dir = tempfile::tempdir().unwrap();
        let closed = BrokerConfig {
            auto_create_topic_enable: false,
            ..BrokerConfig::default()
        };
        let topics = Topics::open(dir.path(), &closed, false).unwrap();
        assert_eq!(topics.create_for_send("New", "TBW102", 4, "r"), None);
        assert_eq!(
            topics.create_for_send("New", "SELF_TEST_TOPIC", 4, "r"),
            None
        );
        assert!(
            topics
                .create_for_send("New", &closed.broker_cluster_name, 4, "r")
                .is_some()
        );
        assert_eq!(*topics.changes().borrow(), 1);
    }

    #[test]
    fn setting_the_same_configuration_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let topics = open(dir.path(), false);
        let wanted = || TopicConfig {
            attributes: attributes::parse("+message.type=FIFO").unwrap(),
            ..golden_topic()
        };
        topics.update(vec![wanted()]).unwrap();
        topics.update(vec![wanted()]).unwrap();
        assert_eq!(topics.get("T").as_deref(), Some(&golden_topic()));
        assert_eq!(*topics.changes().borrow(), 1);
        let refused = TopicConfig {
            attributes: attributes::parse("+colour=red").unwrap(),
            ..golden_topic()
        };
        assert_eq!(
            topics.update(vec![refused]).unwrap_err().to_string(),
            "unsupported key: colour"
        );
        assert_eq!(topics.get("T").as_deref(), Some(&golden_topic()));
    }

    #[test]
    fn retry_topics_are_written_and_told_of_together() {
        let dir = tempfile::tempdir().unwrap();
        let topics = open(dir.path(), false);
        let told = topics.changes();
        topics.ensure_retry("a", 1, false, 0);
        topics.ensure_retry("b", 1, false, 0);
        assert!(open(dir.path(), false).get("%RETRY%a").is_none());
        assert_eq!(*told.borrow(), 0);
        topics.flush_made().unwrap();
        assert!(open(dir.path(), false).get("%RETRY%a").is_some());
        assert!(open(dir.path(), false).get("%RETRY%b").is_some());
        assert_eq!(*told.borrow(), 1);
        topics.flush_made().unwrap();
        assert_eq!(*told.borrow(), 1, "nothing changed");
    }

    #[test]
    fn a_slave_takes_its_masters_table_and_makes_no_retry_topic() {
        let master_dir = tempfile::tempdir().unwrap();
        let master = open(master_dir.path(), false);
        master.ensure_retry("g", 1, false, 0);
        let dir = tempfile::tempdir().unwrap();
        let slave = open(dir.path(), true);
        slave.ensure_retry("g", 1, false, 0);
        assert_eq!(slave.get("%RETRY%g"), None);
        assert!(slave.replace_all(master.snapshot()).unwrap());
        assert!(!slave.replace_all(master.snapshot()).unwrap());
        assert_eq!(open(dir.path(), true).snapshot(), master.snapshot());
    }
}
