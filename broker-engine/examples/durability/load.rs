//! The load of one round: producers that keep several sends under way, and a consumer that commits. It ends with the broker,
//! or when it is told to.

use crate::Outcome;
use crate::ledger::Ledger;
use crate::message::{Message, Queue};
use crate::wire::{self, Broker};
use rocketmq_protocol::code::response;
use rocketmq_protocol::record;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// Sends of one connection that may be unanswered at a time.
const IN_FLIGHT: usize = 64;

/// How the producers of a round send.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub producers: usize,
    /// Milliseconds that a producer rests at most between two bursts; 0: never.
    pub rest_ms: u64,
}

/// What all tasks of a load share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    refused: AtomicU64,
    /// The last refusal's code and remark.
    refusal: parking_lot::Mutex<Option<(i32, String)>>,
}

/// A load under way.
pub struct Load {
    tasks: JoinSet<Outcome<()>>,
    shared: Arc<Shared>,
}

impl Load {
    /// Starts producers and the consumer against the broker at `address`.
    pub fn start(
        address: &str,
        ledger: &Arc<Ledger>,
        pace: Pace,
        random: &mut fastrand::Rng,
    ) -> Load {
        let mut tasks = JoinSet::new();
        let shared = Arc::new(Shared::default());
        for _ in 0..pace.producers {
            let (address, ledger) = (address.to_owned(), Arc::clone(ledger));
            let (shared, random) = (Arc::clone(&shared), random.fork());
            tasks.spawn(async move { produce(&address, &ledger, pace, &shared, random).await });
        }
        let (broker, ledger) = (Broker::at(address.to_owned()), Arc::clone(ledger));
        let of_consumer = Arc::clone(&shared);
        tasks.spawn(async move { consume(&broker, &ledger, &of_consumer).await });
        Load { tasks, shared }
    }

    /// Ends it and waits until nothing of it is under way. An error is one of the tests' own, or a wrong answer.
    pub async fn end(mut self) -> Outcome<()> {
        self.shared.stop.store(true, Ordering::Release);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Sends that were refused so far.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Acquire)
    }

    /// The last refusal's code and remark.
    pub fn refusal(&self) -> Option<(i32, String)> {
        self.shared.refusal.lock().clone()
    }
}

/// Sends until told to stop or the connection ends.
async fn produce(
    address: &str,
    ledger: &Ledger,
    pace: Pace,
    shared: &Shared,
    mut random: fastrand::Rng,
) -> Outcome<()> {
    // The broker may be gone before the first byte.
    let Ok((mut sending, mut answers)) = wire::connect(address).await else {
        return Ok(());
    };
    let mut waiting: HashMap<i32, Vec<Message>> = HashMap::new();
    while !shared.stop.load(Ordering::Acquire) {
        let mut burst = Vec::new();
        let mut sent = Vec::new();
        for _ in 0..random.usize(1..=16) {
            let queue = Queue(random.u8(..Queue::all().count() as u8));
            let count = if random.u8(..10) == 0 {
                random.usize(2..=20)
            } else {
                1
            };
            let messages = ledger.take(queue, count);
            burst.push(wire::send(queue, &messages)?);
            sent.push(messages);
        }
        let Ok(first) = sending.write(burst).await else {
            return Ok(());
        };
        waiting.extend((first..).zip(sent));
        let most = if random.bool() { IN_FLIGHT } else { 0 };
        while waiting.len() > most {
            if !answer(&mut answers, &mut waiting, ledger, shared).await? {
                return Ok(());
            }
        }
        if pace.rest_ms > 0 {
            tokio::time::sleep(Duration::from_micros(random.u64(..=pace.rest_ms * 1000))).await;
        }
    }
    while !waiting.is_empty() {
        if !answer(&mut answers, &mut waiting, ledger, shared).await? {
            break;
        }
    }
    Ok(())
}

/// Takes one answer down; false when the connection has ended.
async fn answer(
    answers: &mut wire::Answers,
    waiting: &mut HashMap<i32, Vec<Message>>,
    ledger: &Ledger,
    shared: &Shared,
) -> Outcome<bool> {
    let Some(answer) = answers.next().await? else {
        return Ok(false);
    };
    let messages = waiting
        .remove(&answer.opaque)
        .ok_or("an answer to nothing that was asked")?;
    if answer.code == response::SUCCESS {
        let (offset, physical) = wire::placed(&answer)?;
        if physical.len() != messages.len() {
            return Err(format!("{} messages got {} ids", messages.len(), physical.len()).into());
        }
        ledger.acknowledged(&messages, offset, &physical);
    } else {
        ledger.not_promised(&messages);
        shared.refused.fetch_add(1, Ordering::AcqRel);
        *shared.refusal.lock() = Some((answer.code, answer.remark.unwrap_or_default()));
    }
    Ok(true)
}

/// Pulls all queues in turn and commits how far it is.
async fn consume(broker: &Broker, ledger: &Ledger, shared: &Shared) -> Outcome<()> {
    let mut at: Vec<i64> = Queue::all().map(|queue| ledger.in_file(queue)).collect();
    while !shared.stop.load(Ordering::Acquire) {
        for queue in Queue::all() {
            let from = at[queue.index()];
            let Ok(answer) = broker.call(wire::pull(queue, from)).await else {
                return Ok(());
            };
            for record in record::records(&answer.body) {
                let record = record?;
                let message = Message::of(record.body())
                    .map_err(|why| format!("{queue} at {}: {why}", record.queue_offset()))?;
                if record.queue_offset() != at[queue.index()] {
                    return Err(format!(
                        "{queue}: offset {} was given in the place of {}",
                        record.queue_offset(),
                        at[queue.index()]
                    )
                    .into());
                }
                ledger.seen(queue, record.queue_offset(), message);
                at[queue.index()] += 1;
            }
            let now = at[queue.index()];
            if now > from {
                match broker.call(wire::commit(queue, now)).await {
                    Ok(answer) if answer.code == response::SUCCESS => ledger.committed(queue, now),
                    Ok(answer) => {
                        return Err(format!(
                            "a commit was answered {}: {:?}",
                            answer.code, answer.remark
                        )
                        .into());
                    }
                    Err(_) => return Ok(()),
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    Ok(())
}
