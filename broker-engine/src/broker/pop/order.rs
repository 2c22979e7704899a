//! What was popped in order and is not yet acknowledged, queue by queue: `config/consumerOrderInfo.json`. While any of it is
//! neither acknowledged nor visible again, nothing more of the queue is handed out.
//! Source of the file and the rules: `apache/rocketmq: broker/.../offset/ConsumerOrderInfoManager.java`.

use crate::broker::table_file;
use parking_lot::Mutex;
use rocketmq_protocol::{json, pop};
use rocketmq_store::table::{self, TableError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A queue nobody consumed for so long is forgotten, ms.
const FORGOTTEN_MS: i64 = 24 * 3600 * 1000;

/// The table.
#[derive(Debug)]
pub struct Orders {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    changed: bool,
}

/// The file: `topic@group`, then queue.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    table: BTreeMap<String, BTreeMap<i32, Popped>>,
}

/// The last messages popped from a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Popped {
    /// Names the try of a consumer that may ask again for what it did not receive.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    attempt: Option<String>,
    /// Bit i: message i is acknowledged.
    #[serde(rename = "cm")]
    acknowledged: i64,
    #[serde(rename = "i")]
    invisible_time: i64,
    #[serde(rename = "l")]
    at_ms: i64,
    /// The first is a queue offset, the others count from it.
    #[serde(rename = "o")]
    offsets: Vec<i64>,
    /// How often a message was popped before, by queue offset; absent: never.
    #[serde(rename = "oc", skip_serializing_if = "BTreeMap::is_empty")]
    popped_before: BTreeMap<i64, i32>,
    /// When a message whose invisible time was changed becomes visible again, by queue offset.
    #[serde(rename = "ot", skip_serializing_if = "BTreeMap::is_empty")]
    visible_ms: BTreeMap<i64, i64>,
    #[serde(rename = "popTime")]
    pop_time: i64,
}

impl Popped {
    fn queue_offsets(&self) -> impl Iterator<Item = (usize, i64)> {
        let first = self.offsets.first().copied().unwrap_or_default();
        let place = move |(at, diff): (usize, &i64)| match at {
            0 => (0, first),
            at => (at, first.saturating_add(*diff)),
        };
        self.offsets.iter().enumerate().map(place)
    }

    fn open(&self) -> impl Iterator<Item = i64> {
        self.queue_offsets()
            .filter(|(at, _)| self.acknowledged & (1i64.checked_shl(*at as u32).unwrap_or(0)) == 0)
            .map(|(_, offset)| offset)
    }

    /// Until when the queue is blocked, ms; `None` when it is not.
    fn blocked_until(&self, now_ms: i64) -> Option<i64> {
        self.open()
            .map(|offset| match self.visible_ms.get(&offset) {
                Some(ms) => *ms,
                None => self.pop_time.saturating_add(self.invisible_time),
            })
            .filter(|ms| *ms > now_ms)
            .max()
    }

    /// The offset to commit: of the first message that is open, or behind the last.
    fn next_offset(&self) -> Option<i64> {
        let behind = self.queue_offsets().last().map(|(_, last)| last + 1);
        self.open().next().or(behind)
    }
}

/// What an acknowledgement of an ordered message leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The group's offset in the queue is this now.
    Commit(i64),
    /// It belongs to an earlier pop, or was never popped.
    Stale,
}

fn key(topic: &str, group: &str) -> String {
    format!("{topic}@{group}")
}

impl Orders {
    /// Loads the table.
    pub fn open(config_dir: &Path) -> Result<Orders, TableError> {
        let path = config_dir.join("consumerOrderInfo.json");
        let file = table_file::load(&path)?.unwrap_or_default();
        Ok(Orders {
            path,
            state: Mutex::new(State {
                file,
                changed: false,
            }),
        })
    }

    /// Until when (ms) a queue is blocked for this try; `None` when it may be popped.
    pub fn blocked_until(
        &self,
        topic: &str,
        group: &str,
        queue_id: i32,
        attempt: Option<&str>,
        now_ms: i64,
    ) -> Option<i64> {
        let state = self.state.lock();
        let popped = state.file.table.get(&key(topic, group))?.get(&queue_id)?;
        if popped.attempt.is_some() && popped.attempt.as_deref() == attempt {
            return None;
        }
        popped.blocked_until(now_ms)
    }

    /// Notes what is being handed out, and appends to `counts` how often each message was popped before.
    #[allow(clippy::too_many_arguments)] // All of it is one pop.
    pub fn popped(
        &self,
        topic: &str,
        group: &str,
        queue_id: i32,
        attempt: Option<&str>,
        (pop_time, invisible_time): (i64, i64),
        offsets: &[i64],
        counts: &mut String,
    ) {
        let Some(first) = offsets.first().copied() else {
            return;
        };
        let mut state = self.state.lock();
        let queues = state.file.table.entry(key(topic, group)).or_default();
        let mut new = Popped {
            attempt: attempt.map(str::to_owned),
            invisible_time,
            at_ms: pop_time,
            offsets: (offsets.iter().enumerate())
                .map(|(at, offset)| if at == 0 { first } else { offset - first })
                .collect(),
            pop_time,
            ..Popped::default()
        };
        if let Some(old) = queues.get(&queue_id) {
            if old.attempt.is_some() && old.attempt == new.attempt {
                new.popped_before = old.popped_before.clone();
            } else {
                for (_, offset) in old.queue_offsets() {
                    if offsets.contains(&offset) {
                        let before = old.popped_before.get(&offset).copied().unwrap_or(0);
                        new.popped_before.insert(offset, before + 1);
                    }
                }
            }
        }
        for (offset, count) in &new.popped_before {
            pop::push_info(counts, topic, format_args!("qo{queue_id}%{offset}"), count);
        }
        // Old clients ask by queue: the least of its messages' counts.
        let least = if new.popped_before.len() == offsets.len() {
            new.popped_before.values().copied().min().unwrap_or(0)
        } else {
            0
        };
        pop::push_info(counts, topic, queue_id, least);
        queues.insert(queue_id, new);
        state.changed = true;
    }

    /// Notes that a message is done with. The queue of a group that is not in the table has no order to keep.
    pub fn acknowledge(
        &self,
        topic: &str,
        group: &str,
        queue_id: i32,
        offset: i64,
        pop_time: i64,
    ) -> Acknowledged {
        let mut state = self.state.lock();
        let queues = state.file.table.get_mut(&key(topic, group));
        let Some(popped) = queues.and_then(|queues| queues.get_mut(&queue_id)) else {
            return Acknowledged::Commit(offset.saturating_add(1));
        };
        if popped.pop_time != pop_time {
            return Acknowledged::Stale;
        }
        let Some((at, _)) = popped.queue_offsets().find(|(_, each)| *each == offset) else {
            return Acknowledged::Stale;
        };
        popped.acknowledged |= 1i64.checked_shl(at as u32).unwrap_or(0);
        let next = popped.next_offset();
        state.changed = true;
        next.map_or(Acknowledged::Stale, Acknowledged::Commit)
    }

    /// A message becomes visible again at another time.
    pub fn set_visible(
        &self,
        topic: &str,
        group: &str,
        queue_id: i32,
        offset: i64,
        pop_time: i64,
        visible_ms: i64,
    ) {
        let mut state = self.state.lock();
        let queues = state.file.table.get_mut(&key(topic, group));
        if let Some(popped) = queues.and_then(|queues| queues.get_mut(&queue_id))
            && popped.pop_time == pop_time
        {
            popped.visible_ms.insert(offset, visible_ms);
            state.changed = true;
        }
    }

    /// The group's offset in a queue was reset: nothing blocks it.
    pub fn forget(&self, topic: &str, group: &str, queue_id: i32) {
        let mut state = self.state.lock();
        if let Some(queues) = state.file.table.get_mut(&key(topic, group))
            && queues.remove(&queue_id).is_some()
        {
            state.changed = true;
        }
    }

    /// Writes the table if it changed since the last time, without what nobody consumed for a day.
    pub fn flush(&self, now_ms: i64) -> Result<(), TableError> {
        let text = {
            let mut state = self.state.lock();
            if !state.changed {
                return Ok(());
            }
            for queues in state.file.table.values_mut() {
                queues.retain(|_, popped| now_ms - popped.at_ms <= FORGOTTEN_MS);
            }
            state.file.table.retain(|_, queues| !queues.is_empty());
            state.changed = false;
            json::to_fastjson_pretty(&state.file)
        };
        table::write(&self.path, &text).inspect_err(|_| self.state.lock().changed = true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: (i64, i64) = (1_000, 500);

    fn popped(
        orders: &Orders,
        attempt: Option<&str>,
        times: (i64, i64),
        offsets: &[i64],
    ) -> String {
        let mut counts = String::new();
        orders.popped("T", "g", 0, attempt, times, offsets, &mut counts);
        counts
    }

    #[test]
    fn a_queue_is_blocked_until_all_is_acknowledged_or_visible() {
        let dir = tempfile::tempdir().unwrap();
        let orders = Orders::open(dir.path()).unwrap();
        assert_eq!(popped(&orders, Some("a1"), TIMES, &[5, 7]), "0 0 0");
        let blocked = |attempt, now| orders.blocked_until("T", "g", 0, attempt, now);
        assert_eq!(blocked(None, 1_499), Some(1_500));
        assert_eq!(
            blocked(Some("a1"), 1_499),
            None,
            "the same try may ask again"
        );
        assert_eq!(blocked(None, 1_500), None);
        orders.set_visible("T", "g", 0, 7, 1_000, 2_000);
        assert_eq!(blocked(None, 1_500), Some(2_000));
        assert_eq!(
            orders.acknowledge("T", "g", 0, 7, 1_000),
            Acknowledged::Commit(5)
        );
        assert_eq!(blocked(None, 1_499), Some(1_500));
        assert_eq!(
            orders.acknowledge("T", "g", 0, 5, 1_000),
            Acknowledged::Commit(8)
        );
        assert_eq!(blocked(None, 1_000), None);
        assert_eq!(orders.acknowledge("T", "g", 0, 5, 999), Acknowledged::Stale);
        assert_eq!(
            orders.acknowledge("T", "g", 0, 6, 1_000),
            Acknowledged::Stale
        );
        assert_eq!(
            orders.acknowledge("T", "other", 0, 6, 1),
            Acknowledged::Commit(7)
        );
    }

    #[test]
    fn messages_that_come_again_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let orders = Orders::open(dir.path()).unwrap();
        popped(&orders, None, TIMES, &[5, 6]);
        assert_eq!(
            popped(&orders, None, (2_000, 500), &[5, 6]),
            "0 qo0%5 1;0 qo0%6 1;0 0 1"
        );
        assert_eq!(
            popped(&orders, None, (3_000, 500), &[6, 7]),
            "0 qo0%6 2;0 0 0"
        );
        orders.forget("T", "g", 0);
        assert_eq!(popped(&orders, None, (4_000, 500), &[6]), "0 0 0");
    }

    #[test]
    fn the_file_is_javas_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("consumerOrderInfo.json");
        std::fs::write(
            &path,
            "{\n\t\"table\":{\n\t\t\"T@g\":{0:{\n\t\t\t\"a\":\"a1\",\"cm\":1,\"i\":500,\"l\":1000,\"o\":[5,2],\"oc\":{5:1},\"popTime\":1000}}}}",
        )
        .unwrap();
        let orders = Orders::open(dir.path()).unwrap();
        assert_eq!(
            orders.acknowledge("T", "g", 0, 7, 1_000),
            Acknowledged::Commit(8)
        );
        orders.flush(1_001).unwrap();
        let again = Orders::open(dir.path()).unwrap();
        assert_eq!(
            again.state.lock().file.table,
            orders.state.lock().file.table
        );
        orders.set_visible("T", "g", 0, 7, 1_000, 1);
        orders.flush(1_001 + FORGOTTEN_MS).unwrap();
        assert!(
            Orders::open(dir.path())
                .unwrap()
                .state
                .lock()
                .file
                .table
                .is_empty()
        );
    }
}
