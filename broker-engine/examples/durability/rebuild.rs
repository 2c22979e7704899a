//! Whether what is derived from the log (consume queues, index) is what a rebuild from the log gives, and whether both hold
//! what the ledger says. Looks at a copy of the store of a broker that does not run.

use crate::Outcome;
use crate::ledger::Ledger;
use crate::message::{Message, Queue};
use rocketmq_protocol::record::View;
use rocketmq_store::reader::QueueEntry;
use rocketmq_store::{Reader, StoreOptions, Writer};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Messages whose keys are looked up, besides the newest.
const KEYS: usize = 3000;

/// Bounds and entries of every queue.
type Queues = BTreeMap<(String, i32), ((i64, i64), Vec<QueueEntry>)>;

/// Compares; `options` are the store's own. Returns how many queue entries and keys were compared.
pub fn compare(options: &StoreOptions, ledger: &Ledger, copy: &Path) -> Outcome<(usize, usize)> {
    let _ = std::fs::remove_dir_all(copy);
    copy_store(&options.root, copy)?;
    let of_copy = StoreOptions {
        root: copy.to_owned(),
        commit_log: copy.join("commitlog"),
        ..options.clone()
    };
    let kept = look(&of_copy, ledger)?;
    for derived in ["consumequeue", "index"] {
        std::fs::remove_dir_all(copy.join(derived))?;
    }
    std::fs::remove_file(copy.join("checkpoint"))?;
    let rebuilt = look(&of_copy, ledger)?;
    std::fs::remove_dir_all(copy)?;
    if kept.0 != rebuilt.0 {
        return Err(first_difference(&kept.0, &rebuilt.0).into());
    }
    if kept.1 != rebuilt.1 {
        return Err(format!(
            "{} keys are found as stored, {} after a rebuild",
            kept.1, rebuilt.1
        )
        .into());
    }
    let entries = kept.0.values().map(|(_, entries)| entries.len()).sum();
    Ok((entries, kept.1))
}

/// Commit log files that nothing writes any more are linked; the last two and all else is copied.
fn copy_store(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir_all(to.join("commitlog"))?;
    let mut log: Vec<_> = std::fs::read_dir(from.join("commitlog"))?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    log.sort();
    let still = log.len().saturating_sub(2);
    for (i, name) in log.iter().enumerate() {
        let (from, to) = (
            from.join("commitlog").join(name),
            to.join("commitlog").join(name),
        );
        if i < still {
            std::fs::hard_link(from, to)?;
        } else {
            std::fs::copy(from, to)?;
        }
    }
    for derived in ["consumequeue", "index"] {
        copy_dir(&from.join(derived), &to.join(derived))?;
    }
    for file in ["checkpoint", "abort"] {
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file))?;
        }
    }
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Outcome<()> {
    std::fs::create_dir_all(to)?;
    if !from.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to.join(entry.file_name()))?;
        } else {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Opens the store, compares its messages with the ledger, and returns its queues and how many keys were found.
fn look(options: &StoreOptions, ledger: &Ledger) -> Outcome<(Queues, usize)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let opened = Writer::open(options.clone(), now)?;
    let reader = &opened.reader;
    let mut queues = Queues::new();
    for topic in reader.topics() {
        for id in reader.queue_ids(&topic) {
            let bounds = reader.queue_bounds(&topic, id);
            let count = usize::try_from(bounds.1 - bounds.0)?;
            let entries = reader.queue_entries(&topic, id, bounds.0, count)?;
            queues.insert((topic.to_string(), id), (bounds, entries));
        }
    }
    let mut messages = Vec::new();
    for queue in Queue::all() {
        let key = (queue.topic(), queue.id());
        let entries = queues.get(&key).map_or(&[][..], |(_, entries)| entries);
        let held = ledger.held(queue);
        // What was written after the ledger last looked may follow.
        if entries.len() < held.len() {
            return Err(format!(
                "{queue} has {} entries, {} messages were there",
                entries.len(),
                held.len()
            )
            .into());
        }
        for (offset, (entry, held)) in entries.iter().zip(&held).enumerate() {
            let record = reader
                .record_of(entry)?
                .ok_or_else(|| format!("{queue} {offset} points nowhere"))?;
            let view = View::record(&record)?;
            let message = Message::of(view.body())?;
            if message != held.message
                || view.queue_offset() != offset as i64
                || view.physical_offset() != held.physical
            {
                return Err(format!(
                    "{queue} {offset} is {}, {} was there",
                    message.0, held.message.0
                )
                .into());
            }
            messages.push((queue, offset as i64, message));
        }
    }
    Ok((queues, look_up(reader, messages)?))
}

/// Looks messages up by key: each is found once, where it stands.
fn look_up(reader: &Reader, mut messages: Vec<(Queue, i64, Message)>) -> Outcome<usize> {
    messages.sort_by_key(|(_, _, message)| std::cmp::Reverse(message.0));
    // The newest half of the sample, and the rest from all over the store.
    let step = messages.len().div_ceil(KEYS).max(1);
    let newest = messages.len().min(KEYS);
    let sample = messages[..newest]
        .iter()
        .chain(messages[newest..].iter().step_by(step));
    let mut found = 0;
    for (queue, offset, message) in sample {
        let hits = reader.query(&queue.topic(), &message.key(), 64, 0, i64::MAX)?;
        let [record] = &hits.records[..] else {
            return Err(format!(
                "key {} is found {} times",
                message.key(),
                hits.records.len()
            )
            .into());
        };
        let view = View::record(record)?;
        if view.queue_offset() != *offset || view.queue_id() != queue.id() {
            return Err(format!("key {} leads to another message", message.key()).into());
        }
        found += 1;
    }
    Ok(found)
}

fn first_difference(kept: &Queues, rebuilt: &Queues) -> String {
    for (key, (bounds, entries)) in kept {
        match rebuilt.get(key) {
            None => return format!("{key:?} with {bounds:?} is not there after a rebuild"),
            Some((other, _)) if other != bounds => {
                return format!("{key:?} has {bounds:?}, {other:?} after a rebuild");
            }
            Some((_, others)) => {
                if let Some(at) = entries.iter().zip(others).position(|(a, b)| a != b) {
                    return format!(
                        "{key:?} entry {at} is {:?}, {:?} after a rebuild",
                        entries[at], others[at]
                    );
                }
            }
        }
    }
    "a rebuild has more queues".into()
}
