//! The reviver: hands out again what was popped and not acknowledged while it was invisible.
//!
//! Checkpoints come to the revive log shortly before their time, acknowledgements at it or, when they are late, at once. A
//! checkpoint is settled [`SETTLED_MS`] after its time, counted by what the timer has delivered and not by the clock: however
//! far the timer is behind, no acknowledgement is overtaken. What is open then goes to the group's POP retry topic.
//! The offset of `CID_RMQ_SYS_REVIVE_GROUP` in a revive queue is that of the last settled checkpoint, as Java keeps it; what lies
//! behind it is read again after a start.
//! Source: `apache/rocketmq: broker/.../processor/PopReviveService.java`.

use crate::broker::Broker;
use crate::clock;
use rocketmq_protocol::pop::{Ack, CheckPoint, normal_topic, tag};
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{Record, View};
use rocketmq_protocol::topic::{self, group};
use rocketmq_protocol::{json, topic::perm};
use rocketmq_store::RecordBatch;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

/// A checkpoint is settled this much after its messages become visible, ms (`ackTimeInterval` and a second).
const SETTLED_MS: i64 = 2000;
/// Entries of a revive queue read in one go.
const ENTRIES: usize = 256;
/// Most messages and bytes put back in one go.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;
/// A checkpoint whose messages do not read is put back for so long, each time longer, s (`ckRewriteIntervalsInSeconds`).
const PUT_BACK_S: [i64; 17] = [
    10, 20, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200,
];

/// Names a checkpoint to its acknowledgements: topic, group, queue, start offset, pop time, broker.
type Key = (String, String, i32, i64, i64, String);

/// One queue of the revive log.
struct Queue {
    id: i32,
    /// Read before this.
    read_to: i64,
    /// Not settled, by their place in the queue.
    open: BTreeMap<i64, CheckPoint>,
    places: HashMap<Key, i64>,
}

/// What one checkpoint leads to.
#[derive(Default)]
struct Revived {
    batch: RecordBatch,
    messages: usize,
    /// Retry topics that get something: whose waiting pops are to be woken.
    woken: BTreeSet<(String, String)>,
}

/// Revives until the broker stops.
pub(in crate::broker) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let interval = broker.config.get().revive_interval;
    let mut queues: Vec<Queue> = (0..broker.config.get().revive_queue_num as i32)
        .map(|id| Queue::new(&broker, id))
        .collect();
    loop {
        let mut busy = false;
        // What the timer has delivered by this is in the queues before they are read.
        let delivered_ms = broker.timer.delivered(interval).await;
        for queue in &mut queues {
            match queue.turn(&broker, delivered_ms).await {
                Ok(more) => busy |= more,
                Err(error) => {
                    tracing::warn!(
                        queue = queue.id,
                        error,
                        "what was popped and not acknowledged waits"
                    );
                    busy = true;
                }
            }
            if *stop.borrow() {
                return;
            }
        }
        // While checkpoints are open their time comes without anything arriving.
        let arrived = async {
            if !busy {
                broker.pops.revive_arrived.notified().await;
            }
            tokio::time::sleep(interval).await;
        };
        tokio::select! {
            () = arrived => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
    }
}

impl Queue {
    fn new(broker: &Broker, id: i32) -> Queue {
        let topic = &broker.pops.revive_topic;
        let (min, max) = broker.store.queue_bounds(topic, id);
        let settled = broker.offsets.query(group::SYS_REVIVE, topic, id);
        Queue {
            id,
            read_to: settled
                .map_or(min, |offset| offset + 1)
                .clamp(min, max.max(min)),
            open: BTreeMap::new(),
            places: HashMap::new(),
        }
    }

    /// Reads what came and settles what can be. Returns whether checkpoints are open still.
    async fn turn(&mut self, broker: &Arc<Broker>, delivered_ms: i64) -> Result<bool, String> {
        self.read(broker)?;
        let settled = |check: &CheckPoint| delivered_ms - check.revive_ms() > SETTLED_MS;
        let mut last = None;
        loop {
            let mut revived = Revived::default();
            let mut done = Vec::new();
            for (place, check) in &self.open {
                let full = revived.messages >= BATCH || revived.batch.byte_len() >= BATCH_BYTES;
                if !settled(check) || full {
                    break;
                }
                revive(broker, self.id, check, &mut revived)?;
                done.push(*place);
            }
            let Some(place) = done.last().copied() else {
                break;
            };
            if !revived.batch.is_empty() {
                let batch = std::mem::take(&mut revived.batch);
                broker.append_and_wait(batch).await.map_err(|error| {
                    format!(
                        "{} messages could not be put to their retry topics: {error}",
                        revived.messages
                    )
                })?;
            }
            for place in done {
                if let Some(check) = self.open.remove(&place) {
                    self.places.remove(&key_of(&check));
                }
            }
            for (topic, group) in &revived.woken {
                broker.wake_pops(topic, group, -1);
                let queues = broker
                    .topics
                    .get(topic)
                    .map_or(0, |topic| topic.read_queue_nums);
                (0..queues).for_each(|queue| broker.wake_pops(topic, group, queue));
            }
            last = Some(place);
        }
        // With nothing open the acknowledgements behind the last checkpoint are done with too.
        let offset = if self.open.is_empty() && self.read_to > 0 {
            Some(self.read_to - 1)
        } else {
            last
        };
        if let Some(offset) = offset {
            broker.offsets.commit(
                group::SYS_REVIVE,
                &broker.pops.revive_topic,
                self.id,
                offset,
            );
        }
        Ok(!self.open.is_empty())
    }

    fn read(&mut self, broker: &Broker) -> Result<(), String> {
        let topic = &broker.pops.revive_topic;
        loop {
            let (id, at) = (self.id, self.read_to);
            let bad =
                |error: std::io::Error| format!("reading queue {id} of {topic} at {at}: {error}");
            let (min, max) = broker.store.queue_bounds(topic, self.id);
            if at < min {
                // Retention took what was to be read.
                self.read_to = min;
                continue;
            }
            if at >= max {
                return Ok(());
            }
            let entries = (broker.store.queue_entries(topic, self.id, at, ENTRIES)).map_err(bad)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                let place = self.read_to;
                if let Some(bytes) = broker.store.record_of(&entry).map_err(bad)?
                    && let Ok(record) = View::record(&bytes).and_then(|view| view.decode())
                    && let Err(error) = self.take_in(broker, place, &record)
                {
                    tracing::error!(queue = self.id, place, %error, "a message of the revive log does not read; it is passed over");
                }
                self.read_to += 1;
            }
        }
    }

    fn take_in(
        &mut self,
        broker: &Broker,
        place: i64,
        record: &Record<'_>,
    ) -> Result<(), json::JsonError> {
        match properties::get(record.properties, name::TAGS) {
            Some(tag::CHECK_POINT) => {
                let mut check: CheckPoint = json::from_slice(record.body)?;
                check.revive_offset = place;
                self.places.insert(key_of(&check), place);
                self.open.insert(place, check);
            }
            Some(tag::ACK | tag::BATCH_ACK) => {
                let mut ack: Ack = json::from_slice(record.body)?;
                if ack.broker_name.is_empty() {
                    ack.broker_name.clone_from(&broker.config.get().broker_name);
                }
                let single = [ack.offset];
                let offsets = if ack.offsets.is_empty() {
                    &single[..]
                } else {
                    &ack.offsets
                };
                let key = (
                    ack.topic,
                    ack.group,
                    ack.queue_id,
                    ack.start_offset,
                    ack.pop_time,
                    ack.broker_name,
                );
                // An acknowledgement that comes after its messages were handed out again has nothing to say.
                if let Some(check) = self
                    .places
                    .get(&key)
                    .and_then(|place| self.open.get_mut(place))
                {
                    for offset in offsets {
                        check.acknowledge(*offset);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn key_of(check: &CheckPoint) -> Key {
    let CheckPoint {
        topic,
        group,
        queue_id,
        start_offset,
        pop_time,
        broker_name,
        ..
    } = check;
    (
        topic.clone(),
        group.clone(),
        *queue_id,
        *start_offset,
        *pop_time,
        broker_name.clone(),
    )
}

/// Puts the open messages of a checkpoint into the batch. Those of a topic or group that is gone are gone too.
fn revive(
    broker: &Broker,
    revive_queue: i32,
    check: &CheckPoint,
    revived: &mut Revived,
) -> Result<(), String> {
    let asked = normal_topic(&check.topic, &check.group);
    if check.open().next().is_none() {
        return Ok(());
    }
    if broker.topics.get(asked).is_none() || broker.groups.get(&check.group).is_none() {
        tracing::warn!(
            topic = asked,
            group = check.group,
            "popped messages stay away: their topic or group is gone"
        );
        return Ok(());
    }
    let retry = if topic::is_retry(&check.topic) {
        check.topic.clone()
    } else {
        topic::pop_retry(
            &check.group,
            asked,
            broker.config.get().enable_retry_topic_v2,
        )
    };
    for offset in check.open() {
        match message(broker, check, offset) {
            Ok(None) => tracing::info!(
                topic = check.topic,
                queue = check.queue_id,
                offset,
                "a popped message is gone before it could be handed out again"
            ),
            Ok(Some(bytes)) => {
                let record = View::record(&bytes).and_then(|view| view.decode());
                match record {
                    Ok(record) => put(broker, check, &retry, &record, revived)?,
                    Err(error) => {
                        tracing::error!(topic = check.topic, offset, %error, "a popped message does not read")
                    }
                }
            }
            Err(error) => {
                tracing::error!(topic = check.topic, offset, %error, "a popped message could not be read; trying again later");
                put_back(broker, revive_queue, check, offset, revived)?;
            }
        }
    }
    revived
        .woken
        .insert((asked.to_owned(), check.group.clone()));
    Ok(())
}

fn message(
    broker: &Broker,
    check: &CheckPoint,
    offset: i64,
) -> std::io::Result<Option<bytes::Bytes>> {
    let entries = broker
        .store
        .queue_entries(&check.topic, check.queue_id, offset, 1)?;
    match entries.first() {
        Some(entry) => broker.store.record_of(entry),
        None => Ok(None),
    }
}

fn put(
    broker: &Broker,
    check: &CheckPoint,
    retry: &str,
    origin: &Record<'_>,
    revived: &mut Revived,
) -> Result<(), String> {
    if broker.topics.get(retry).is_none() {
        broker
            .topics
            .create_for_send_back(retry, 1, perm::READ | perm::WRITE);
        if broker.offsets.query(&check.group, retry, 0).is_none() {
            broker.offsets.commit(&check.group, retry, 0, 0);
        }
    }
    let popped = check.pop_time.to_string();
    let text = if origin.reconsume_times == 0
        || properties::get(origin.properties, name::FIRST_POP_TIME).is_none()
    {
        properties::edit(origin.properties, &[(name::FIRST_POP_TIME, &popped)], &[])
    } else {
        origin.properties.to_owned()
    };
    let topic: Arc<str> = retry.into();
    let record = Record {
        queue_id: 0,
        topic: &topic,
        properties: &text,
        reconsume_times: origin.reconsume_times.saturating_add(1),
        born_host: broker.store_host,
        store_host: broker.store_host,
        prepared_transaction_offset: 0,
        ..origin.clone()
    };
    match revived.batch.push(&topic, &record) {
        Ok(()) => {
            revived.messages += 1;
            broker.stats.put(retry, 1, record.body.len() as u64);
        }
        Err(error) => {
            tracing::error!(topic = retry, %error, "a popped message cannot be handed out again")
        }
    }
    Ok(())
}

/// A checkpoint for one message that could not be read.
fn put_back(
    broker: &Broker,
    revive_queue: i32,
    check: &CheckPoint,
    offset: i64,
    revived: &mut Revived,
) -> Result<(), String> {
    let times = check
        .put_back
        .as_deref()
        .and_then(|times| times.parse::<usize>().ok())
        .unwrap_or(0);
    let wait_s = PUT_BACK_S[times.min(PUT_BACK_S.len() - 1)];
    let again = CheckPoint {
        bits: 0,
        count: 1,
        diffs: vec![0],
        start_offset: offset,
        invisible_time: (clock::now_ms() - check.pop_time).max(0) + wait_s * 1000,
        put_back: Some((times + 1).to_string()),
        revive_offset: 0,
        ..check.clone()
    };
    broker
        .push_check_point(&mut revived.batch, &again, revive_queue)
        .map_err(|refusal| refusal.remark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_finds_its_checkpoint_and_no_other() {
        let check = CheckPoint {
            topic: "T".into(),
            group: "g".into(),
            queue_id: 1,
            start_offset: 5,
            pop_time: 7,
            broker_name: "broker-a".into(),
            count: 1,
            ..CheckPoint::default()
        };
        let other = CheckPoint {
            pop_time: 8,
            ..check.clone()
        };
        assert_ne!(key_of(&check), key_of(&other));
        let key = ("T".into(), "g".into(), 1, 5, 7, "broker-a".into());
        assert_eq!(key_of(&check), key);
    }
}
