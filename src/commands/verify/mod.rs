//! `verify`: tries a running cluster with messages of its own and says what it found in numbers.

mod failover;
mod ha;
mod smoke;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rocketmq_protocol::body::TopicConfig;
use rocketmq_protocol::record;
use rocketmq_protocol::topic::perm;

use super::{Cluster, Session};
use crate::client::admin::{Admin, Broker, Fault};
use crate::client::message::{Draft, Pull, Pulled, Sent, UniqueIds, sent};
use crate::error::{Error, Exit};
use crate::moment::now_ms;
use crate::ui::Format;

/// Try the cluster with messages of its own; exits with 7 when something is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl verify smoke                 # sends and pulls 100 on each master
  rmqctl verify ha                    # each slave has what its master has, byte for byte
  rmqctl verify failover -o json      # kills a master under load, counts what was lost

The topic is rmqctl_verify; it is deleted afterwards.")]
pub struct Verify {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Smoke(smoke::Smoke),
    Failover(failover::Failover),
    Ha(ha::Ha),
}

impl Verify {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let output = match &self.what {
            What::Smoke(args) => args.output,
            What::Failover(args) => args.output,
            What::Ha(args) => args.output,
        };
        output == Format::Json
    }
}

/// The topic that everything here is tried with.
const TOPIC: &str = "rmqctl_verify";
const QUEUES: i32 = 4;

/// `verify …`
pub async fn verify(args: Verify, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let mut admin = cluster.admin();
    let masters = prepare(&mut admin, &cluster).await?;
    let work = async {
        match args.what {
            What::Smoke(args) => smoke::smoke(&args, &masters, &cluster, session).await,
            What::Failover(args) => failover::failover(&args, &masters, &cluster, session).await,
            What::Ha(args) => ha::ha(&args, &masters, &cluster, session).await,
        }
    };
    let done = work.await;
    // Whatever was found, the topic goes; where that fails too, what was found is told.
    let cleared = cluster.admin().delete_topic(TOPIC).await;
    let code = done?;
    cleared?;
    Ok(code)
}

/// Makes the topic on every master that is registered.
async fn prepare(admin: &mut Admin, cluster: &Cluster) -> Result<Vec<Broker>, Error> {
    let masters = admin.masters().await?;
    if masters.is_empty() {
        return Err(
            Error::new("RMQ-E340", Exit::Degraded, "no master is registered")
                .hint(cluster.desired.suggest("status   shows why")),
        );
    }
    let config = TopicConfig::new(TOPIC, QUEUES, perm::READ | perm::WRITE);
    for master in &masters {
        admin.put_topic(&master.address, &config).await?;
    }
    Ok(masters)
}

/// The numbered message of a run: its body says which it is.
fn draft(number: usize) -> Draft {
    Draft {
        topic: TOPIC.into(),
        body: Bytes::from(format!("rmqctl verify {number}")),
        properties: Vec::new(),
    }
}

/// Sends one message to one queue.
async fn send(
    admin: &mut Admin,
    broker: &Broker,
    queue: i32,
    number: usize,
    ids: &mut UniqueIds,
) -> Result<Sent, Fault> {
    let now = now_ms();
    let id = ids.next(now);
    let request = draft(number).send(queue, &id, now);
    let answer = admin.exchange(&broker.address, request).await?;
    sent(&answer, &broker.name, &broker.address, id)
}

/// A record as a broker gave it, by its CRC: enough to tell two apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    crc: u32,
    unique_id: String,
}

/// All records of a queue from `from` up to `end`, by their offsets.
async fn read_queue(
    admin: &mut Admin,
    address: &str,
    topic: &str,
    queue: i32,
    from: i64,
    end: i64,
) -> Result<BTreeMap<i64, Seen>, Fault> {
    let mut found = BTreeMap::new();
    let mut next = from;
    while next < end {
        let pull = Pull {
            topic,
            queue,
            offset: next,
            max: 32,
            filter: "*",
            hold: None,
        };
        let pulled = Pulled::read(&admin.exchange(address, pull.request()).await?, address)?;
        for message in pulled_records(&pulled, address)? {
            found.insert(message.0, message.1);
        }
        if pulled.next <= next {
            break;
        }
        next = pulled.next;
    }
    Ok(found)
}

fn pulled_records(pulled: &Pulled, address: &str) -> Result<Vec<(i64, Seen)>, Fault> {
    use rocketmq_protocol::properties::{self, name::UNIQ_KEY};
    let read = |view: record::View<'_>| {
        view.check_body_crc()?;
        let seen = Seen {
            crc: record::body_crc(view.bytes()),
            unique_id: properties::get(view.properties()?, UNIQ_KEY)
                .unwrap_or_default()
                .to_owned(),
        };
        Ok((view.queue_offset(), seen))
    };
    record::records(&pulled.records)
        .map(|view| read(view?))
        .collect::<Result<_, record::RecordError>>()
        .map_err(|e| {
            crate::client::admin::unreadable(
                address,
                rocketmq_protocol::code::request::PULL_MESSAGE,
                e,
            )
        })
}

/// The p-th hundredth of times, in ms with two digits behind the point; 0 of none.
pub(super) fn percentile(sorted: &[Duration], p: f64) -> f64 {
    let at = (sorted.len() as f64 * p / 100.0).ceil() as usize;
    let time = sorted.get(at.clamp(1, sorted.len().max(1)) - 1);
    time.map_or(0.0, |time| ms(*time))
}

/// A time in ms, with two digits behind the point.
pub(super) fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

/// The exit code of a run that found faults, or none.
fn exit(faults: &[String], session: &Session<'_>) -> u8 {
    for fault in faults {
        session.ui.warn(fault);
    }
    match faults {
        [] => 0,
        _ => Exit::Degraded as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50.0), 50.0);
        assert_eq!(percentile(&times, 99.0), 99.0);
        assert_eq!(percentile(&times, 99.9), 100.0);
        assert_eq!(percentile(&times[..1], 99.9), 1.0);
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
