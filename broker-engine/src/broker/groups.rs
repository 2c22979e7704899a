//! Consumer group table (`config/subscriptionGroup.json`).
//!
//! As the topic table: lookups clone an `Arc`, a change is on disk before it is answered for, a slave takes its master's.
//! Source: `apache/rocketmq: broker/.../subscription/SubscriptionGroupManager.java`.

use crate::broker::attributes;
use crate::broker::table_file::{self, TableFile};
use crate::broker::topics::UpdateError;
use crate::clock;
use crate::config::{BrokerConfig, Live};
use parking_lot::RwLock;
use rocketmq_protocol::body::{DataVersion, SubscriptionGroupConfig, SubscriptionGroupWrapper};
use rocketmq_protocol::topic::{self, group};
use rocketmq_store::table::TableError;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Groups {
    file: TableFile,
    table: RwLock<HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>>,
    forbidden: RwLock<Forbidden>,
    config: Arc<Live<BrokerConfig>>,
}

/// Per group: topics and the bits that are forbidden there; bit [`FORBIDDEN_READ`] is reading.
type Forbidden = BTreeMap<String, BTreeMap<String, i32>>;

/// `PermName.INDEX_PERM_READ` as a bit.
pub const FORBIDDEN_READ: i32 = 1 << 2;

impl Groups {
    /// Loads the table and adds the groups that every broker has.
    pub fn open(config_dir: &Path, config: Arc<Live<BrokerConfig>>) -> Result<Groups, TableError> {
        let path = config_dir.join("subscriptionGroup.json");
        let fresh = || SubscriptionGroupWrapper {
            data_version: DataVersion::new(clock::now_ms()),
            ..SubscriptionGroupWrapper::default()
        };
        let file: SubscriptionGroupWrapper = table_file::load(&path)?.unwrap_or_else(fresh);
        let at_start = group::AT_START.iter().map(|name| {
            let name: Arc<str> = (*name).into();
            (
                name.clone(),
                Arc::new(SubscriptionGroupConfig {
                    group_name: name,
                    ..Default::default()
                }),
            )
        });
        let mut table: HashMap<_, _> = at_start.collect();
        table.extend(file.subscription_group_table);
        Ok(Groups {
            file: TableFile::new(path, file.data_version),
            table: RwLock::new(table),
            forbidden: RwLock::new(file.forbidden_table),
            config,
        })
    }

    /// The group's configuration; made on first use when `autoCreateSubscriptionGroup` allows it, else `None` (code 26). Such a
    /// group is written with the next [`Groups::flush`]: nobody was promised it, its clients' next request makes it again, and
    /// whoever names very many must not have the table written as often.
    pub fn find(&self, group: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        if let Some(found) = self.get(group) {
            return Some(found);
        }
        let config = self.config.get();
        let allowed = config.auto_create_subscription_group || group::is_system(group);
        if !allowed || topic::validate_group(group).is_err() {
            return None;
        }
        let mut standing = Arc::new(SubscriptionGroupConfig {
            group_name: group.into(),
            ..SubscriptionGroupConfig::default()
        });
        if config.is_slave() {
            // Only until the master's table comes again: a version of its own would make every copy look new.
            self.table.write().insert(group.into(), standing.clone());
            return Some(standing);
        }
        self.change_unwritten(|table, _| match table.get(group) {
            Some(found) => {
                standing = found.clone();
                false
            }
            None => {
                table.insert(group.into(), standing.clone());
                true
            }
        });
        Some(standing)
    }

    /// The group's configuration, if it stands in the table.
    pub fn get(&self, group: &str) -> Option<Arc<SubscriptionGroupConfig>> {
        if topic::is_lmq(group) && self.config.get().enable_lmq {
            // Readers of light queues may be as many as those, and are in no table.
            return Some(Arc::new(SubscriptionGroupConfig::new(group)));
        }
        self.table.read().get(group).cloned()
    }

    /// All names.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.table.read().keys().cloned().collect()
    }

    /// Whether the group may not read the topic (353).
    pub fn read_forbidden(&self, group: &str, topic: &str) -> bool {
        let forbidden = self.forbidden.read();
        !forbidden.is_empty()
            && forbidden
                .get(group)
                .and_then(|topics| topics.get(topic))
                .is_some_and(|bits| bits & FORBIDDEN_READ != 0)
    }

    /// Forbids or allows a group to read a topic.
    pub fn forbid_read(&self, group: &str, topic: &str, forbid: bool) -> Result<(), TableError> {
        self.change(|_, forbidden| {
            let before = forbidden
                .get(group)
                .and_then(|topics| topics.get(topic))
                .copied()
                .unwrap_or(0);
            let after = if forbid {
                before | FORBIDDEN_READ
            } else {
                before & !FORBIDDEN_READ
            };
            if after > 0 {
                forbidden
                    .entry(group.into())
                    .or_default()
                    .insert(topic.into(), after);
            } else if let Some(topics) = forbidden.get_mut(group) {
                topics.remove(topic);
                if topics.is_empty() {
                    forbidden.remove(group);
                }
            }
            before != after
        })
    }

    /// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP: sets groups whose `attributes` are modifications of what stands there.
    pub fn update(&self, groups: Vec<SubscriptionGroupConfig>) -> Result<(), UpdateError> {
        let mut refused = None;
        let written = self.change(|table, _| {
            let mut altered = Vec::with_capacity(groups.len());
            for mut group in groups {
                let found = table.get(&group.group_name);
                let empty = BTreeMap::new();
                let current = found.map_or(&empty, |found| &found.attributes);
                match attributes::alter(
                    found.is_none(),
                    attributes::GROUP,
                    current,
                    &group.attributes,
                ) {
                    Ok(attributes) => group.attributes = attributes,
                    Err(reason) => {
                        refused = Some(reason);
                        return false;
                    }
                }
                altered.push(group);
            }
            let some = !altered.is_empty();
            table.extend(
                altered
                    .into_iter()
                    .map(|group| (group.group_name.clone(), Arc::new(group))),
            );
            some
        });
        match refused {
            Some(reason) => Err(UpdateError::Attributes(reason)),
            None => Ok(written?),
        }
    }

    /// DELETE_SUBSCRIPTIONGROUP; an unknown group is no error.
    pub fn delete(&self, group: &str) -> Result<(), TableError> {
        self.change(|table, forbidden| {
            forbidden.remove(group).is_some() | table.remove(group).is_some()
        })
    }

    /// The table's version and its content.
    pub fn snapshot(&self) -> SubscriptionGroupWrapper {
        let version = self.file.version();
        self.file(*version)
    }

    fn file(&self, data_version: DataVersion) -> SubscriptionGroupWrapper {
        SubscriptionGroupWrapper {
            data_version,
            forbidden_table: self.forbidden.read().clone(),
            subscription_group_table: self
                .table
                .read()
                .iter()
                .map(|(name, group)| (name.clone(), group.clone()))
                .collect(),
        }
    }

    fn change(
        &self,
        change: impl FnOnce(
            &mut HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>,
            &mut Forbidden,
        ) -> bool,
    ) -> Result<(), TableError> {
        if self.change_unwritten(change) {
            self.flush()?;
        }
        Ok(())
    }

    /// Changes the table and not its file; whether something changed.
    fn change_unwritten(
        &self,
        change: impl FnOnce(
            &mut HashMap<Arc<str>, Arc<SubscriptionGroupConfig>>,
            &mut Forbidden,
        ) -> bool,
    ) -> bool {
        self.file
            .change(|| change(&mut self.table.write(), &mut self.forbidden.write()))
    }

    /// Writes the table if its file is behind.
    pub fn flush(&self) -> Result<(), TableError> {
        self.file.flush(|| {
            let table = self.snapshot();
            (table.data_version, table)
        })
    }

    /// Slave: the master's table takes the place of this one if it is another version. Returns whether it did.
    pub fn replace_all(&self, master: SubscriptionGroupWrapper) -> Result<bool, TableError> {
        let replaced = self.file.replace(master.data_version, || {
            *self.table.write() = master.subscription_group_table.into_iter().collect();
            *self.forbidden.write() = master.forbidden_table;
        });
        if replaced {
            self.flush()?;
        }
        Ok(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BrokerRole;

    fn open(dir: &Path, config: BrokerConfig) -> Groups {
        Groups::open(dir, Arc::new(Live::new(config))).expect("the table opens")
    }

    /// As the Java broker writes it, compact, shortened to one group.
    const GOLDEN: &str = r#"{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":1700000000000},"forbiddenTable":{"G":{"T":4}},"subscriptionGroupTable":{"G":{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":false,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"G","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":3,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}}}"#;

    #[test]
    fn a_table_that_java_wrote_is_read_and_written_back_with_all_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("subscriptionGroup.json");
        std::fs::write(&path, GOLDEN).unwrap();
        let groups = open(dir.path(), BrokerConfig::default());
        let group = groups.get("G").unwrap();
        assert_eq!((group.consume_enable, group.retry_max_times), (false, 3));
        assert!(groups.read_forbidden("G", "T"));
        assert!(!groups.read_forbidden("G", "Other"));
        groups.forbid_read("G", "T", false).unwrap();
        groups.forbid_read("G", "T", true).unwrap();
        let written: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let golden: serde_json::Value = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(
            written["subscriptionGroupTable"]["G"],
            golden["subscriptionGroupTable"]["G"]
        );
        assert_eq!(written["forbiddenTable"], golden["forbiddenTable"]);
        assert_eq!(written["dataVersion"]["counter"], 4);
    }

    #[test]
    fn an_unknown_group_is_made_on_first_use_unless_that_is_off() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(dir.path(), BrokerConfig::default());
        assert!(groups.find("g").is_some());
        assert_eq!(groups.find("no good"), None);
        groups.flush().unwrap();
        assert!(open(dir.path(), BrokerConfig::default()).get("g").is_some());
        let closed = open(
            dir.path(),
            BrokerConfig {
                auto_create_subscription_group: false,
                ..Default::default()
            },
        );
        assert_eq!(closed.find("h"), None);
        assert!(closed.find("CID_RMQ_SYS_TRANS").is_some());
    }

    /// Heartbeats that name very many groups must not have the whole table written for each.
    #[test]
    fn groups_made_on_first_use_are_written_together_and_with_the_next_change() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(dir.path(), BrokerConfig::default());
        let in_file = |name: &str| {
            let again = open(dir.path(), BrokerConfig::default());
            again.get(name).is_some()
        };
        groups.find("a");
        groups.find("b");
        assert!(!in_file("a"));
        groups.flush().unwrap();
        assert!(in_file("a") && in_file("b"));
        groups.find("c");
        groups
            .update(vec![SubscriptionGroupConfig::new("d")])
            .unwrap();
        assert!(in_file("c") && in_file("d"));
        std::fs::remove_file(dir.path().join("subscriptionGroup.json")).unwrap();
        groups.flush().unwrap();
        assert!(
            !dir.path().join("subscriptionGroup.json").exists(),
            "nothing changed"
        );
    }

    #[test]
    fn a_slave_makes_groups_in_memory_only_and_takes_its_masters_table() {
        let master_dir = tempfile::tempdir().unwrap();
        let master = open(master_dir.path(), BrokerConfig::default());
        master.find("g");
        let dir = tempfile::tempdir().unwrap();
        let slave_config = || BrokerConfig {
            broker_role: BrokerRole::Slave,
            broker_id: 1,
            ..Default::default()
        };
        let slave = open(dir.path(), slave_config());
        assert!(slave.find("own").is_some());
        assert!(slave.replace_all(master.snapshot()).unwrap());
        assert!(!slave.replace_all(master.snapshot()).unwrap());
        assert_eq!(
            open(dir.path(), slave_config()).snapshot(),
            master.snapshot()
        );
        assert_eq!(slave.get("own"), None);
    }

    #[test]
    fn deleting_a_group_is_written_and_an_unknown_group_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let groups = open(dir.path(), BrokerConfig::default());
        let wanted = SubscriptionGroupConfig {
            group_name: "g".into(),
            retry_max_times: 2,
            ..Default::default()
        };
        groups.update(vec![wanted]).unwrap();
        assert_eq!(
            open(dir.path(), BrokerConfig::default())
                .get("g")
                .map(|group| group.retry_max_times),
            Some(2)
        );
        groups.delete("g").unwrap();
        groups.delete("g").unwrap();
        assert_eq!(open(dir.path(), BrokerConfig::default()).get("g"), None);
    }
}
