//! `msg send`

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use rocketmq_protocol::hash::java_string;
use rocketmq_protocol::properties::name;

use super::{Queue, writable};
use crate::client::admin::Admin;
use crate::client::message::{Draft, Sent, UniqueIds, sent};
use crate::commands::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::moment::now_ms;
use crate::spec::parse_duration;
use crate::ui::Format;

/// Largest body that a broker takes by default (`maxMessageSize`).
const BODY_MAX: u64 = 4 << 20;

/// Send a message, or some; each is acknowledged before the next is sent
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl msg send orders 'hello'
  rmqctl msg send orders --key order-1 --tag paid --property region=eu < order.json
  rmqctl msg send orders tick --deliver-after 10s
  rmqctl msg send orders step --ordered-by customer-7     # always the same queue
  rmqctl msg send orders x --count 1000 -o json")]
pub struct Send {
    /// The topic to send to
    topic: String,
    /// The body; - or nothing reads it from standard input
    body: Option<String>,
    /// What it can be found by; may be given more than once
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// What consumers filter by
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// A property of your own; may be given more than once
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Deliver after RocketMQ's delay level: 1 = 1s, 2 = 5s, 3 = 10s, 4 = 30s, 5 = 1m … 18 = 2h
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=18), conflicts_with = "deliver_after")]
    delay_level: Option<u8>,
    /// Deliver after this time: 10s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deliver_after: Option<Duration>,
    /// How many; they differ in their ids only
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// To this queue: broker-a:3, or 3 on the first broker (one after another)
    #[arg(long, value_name = "QUEUE", conflicts_with = "ordered_by")]
    queue: Option<String>,
    /// To the queue that this key always goes to, so that its messages keep their order
    #[arg(long, value_name = "KEY")]
    ordered_by: Option<String>,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

fn property(typed: &str) -> Result<(String, String), String> {
    match typed.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("a property is NAME=VALUE, neither of them empty".into()),
    }
}

/// `msg send`
pub async fn send(args: &Send, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let draft = args.draft()?;
    let mut admin = cluster.admin();
    let route = cluster.route(&mut admin, &args.topic).await?;
    let queues = args.queues(writable(&route))?;
    let mut ids = UniqueIds::new(now_ms());
    let mut done: Vec<Sent> = Vec::new();
    let mut failed = None;
    for queue in queues.iter().cycle().take(args.count as usize) {
        if session.interrupt.is_requested() {
            failed = Some(session.interrupt.error());
            break;
        }
        match one(&mut admin, &draft, queue, &mut ids).await {
            Ok(sent) => done.push(sent),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    match args.output {
        Format::Json | Format::Yaml if failed.is_none() => session.ui.value(&done, args.output),
        Format::Json | Format::Yaml => {}
        Format::Name => done
            .iter()
            .for_each(|sent| session.ui.out(&format!("{}\n", sent.unique_id))),
        Format::Table | Format::Wide => done
            .iter()
            .for_each(|sent| session.ui.out(&format!("{}\n", text(sent)))),
    }
    match failed {
        None => Ok(0),
        Some(error) if args.count == 1 => Err(error),
        Some(error) => Err(error.detail(format!("{} of {} were sent", done.len(), args.count))),
    }
}

fn text(sent: &Sent) -> String {
    let Sent {
        unique_id,
        message_id,
        broker,
        queue,
        offset,
        status,
    } = sent;
    let status = match *status {
        "SUCCESS" => String::new(),
        other => format!("  {other}: stored, but not as safely as asked"),
    };
    format!("{unique_id}  {broker}:{queue}@{offset}  message id {message_id}{status}")
}

async fn one(
    admin: &mut Admin,
    draft: &Draft,
    queue: &Queue,
    ids: &mut UniqueIds,
) -> Result<Sent, Error> {
    let now = now_ms();
    let id = ids.next(now);
    let address = &queue.broker.address;
    let answer = admin
        .exchange(address, draft.send(queue.id, &id, now))
        .await?;
    Ok(sent(&answer, &queue.broker.name, address, id)?)
}

impl Send {
    fn draft(&self) -> Result<Draft, Error> {
        let mut properties = self.properties.clone();
        let mut push = |name: &str, value: String| properties.push((name.to_owned(), value));
        if !self.keys.is_empty() {
            push(name::KEYS, self.keys.join(" "));
        }
        if let Some(tag) = &self.tag {
            push(name::TAGS, tag.clone());
        }
        if let Some(key) = &self.ordered_by {
            push(name::SHARDING_KEY, key.clone());
        }
        if let Some(level) = self.delay_level {
            push(name::DELAY, level.to_string());
        }
        if let Some(after) = self.deliver_after {
            push(name::TIMER_DELAY_SEC, after.as_secs().to_string());
        }
        Ok(Draft {
            topic: self.topic.clone(),
            body: self.body()?,
            properties,
        })
    }

    fn body(&self) -> Result<Bytes, Error> {
        if let Some(body) = self.body.as_deref().filter(|body| *body != "-") {
            return Ok(Bytes::copy_from_slice(body.as_bytes()));
        }
        let mut body = Vec::new();
        let unread = |why: String| {
            Error::new("RMQ-E330", Exit::Usage, "standard input cannot be the body").detail(why)
        };
        std::io::stdin()
            .lock()
            .take(BODY_MAX + 1)
            .read_to_end(&mut body)
            .map_err(|e| unread(e.to_string()))?;
        if body.len() as u64 > BODY_MAX {
            return Err(unread(
                "it is longer than 4 MiB, the most a broker takes".into(),
            ));
        }
        Ok(body.into())
    }

    /// The queues to send to, one after another.
    fn queues(&self, all: Vec<Queue>) -> Result<Vec<Queue>, Error> {
        if all.is_empty() {
            return Err(Error::new(
                "RMQ-E331",
                Exit::Failed,
                format!("no broker takes messages of `{}` now", self.topic),
            )
            .detail("its masters are away, or it may not be written to")
            .hint(format!("rmqctl topic describe {}", self.topic)));
        }
        if let Some(key) = &self.ordered_by {
            // As the Java client's SelectMessageQueueByHash.
            let at = java_string(key).unsigned_abs() as usize % all.len();
            return Ok(vec![all[at].clone()]);
        }
        let Some(typed) = &self.queue else {
            return Ok(all);
        };
        let is_meant = |queue: &&Queue| match typed.rsplit_once(':') {
            Some((broker, id)) => queue.broker.name == broker && id.parse() == Ok(queue.id),
            None => typed.parse() == Ok(queue.id),
        };
        match all.iter().find(is_meant) {
            Some(queue) => Ok(vec![queue.clone()]),
            None => {
                let there = all.iter().map(|q| format!("{}:{}", q.broker.name, q.id));
                Err(Error::new(
                    "RMQ-E332",
                    Exit::Usage,
                    format!(
                        "`{}` has no queue `{typed}` that can be written",
                        self.topic
                    ),
                )
                .detail(format!(
                    "there are: {}",
                    there.collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }
}
