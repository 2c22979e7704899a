//! `msg`: send messages, look at a topic without a group, find one message and say what became of it.

mod find;
mod send;
mod tail;
mod trace;

use rocketmq_protocol::body::TopicRouteData;
use rocketmq_protocol::topic::perm;

use super::Session;
use super::wire::plain;
use crate::client::admin::{self, Broker};
use crate::client::message::{BodyForm, Message};
use crate::error::Error;
use crate::moment;
use crate::ui::Format;

/// Messages: send, tail, get, trace
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl msg send orders '{\"id\": 1}' --key order-1 --tag paid
  rmqctl msg tail orders -n 5
  rmqctl msg get --key order-1 --topic orders
  rmqctl msg trace 7F0000011A2B18B4AAC20A3F4D210001")]
pub struct Msg {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Send(send::Send),
    Tail(tail::Tail),
    Get(find::Get),
    Trace(trace::Trace),
}

impl Msg {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let output = match &self.what {
            What::Send(args) => args.output,
            What::Tail(args) => args.output,
            What::Get(args) => args.output,
            What::Trace(args) => args.output,
        };
        output == Format::Json
    }
}

/// `msg …`
pub async fn msg(args: Msg, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    match args.what {
        What::Send(args) => send::send(&args, &cluster, session).await,
        What::Tail(args) => tail::tail(&args, &cluster, session).await,
        What::Get(args) => find::get(&args, &cluster, session).await,
        What::Trace(args) => trace::trace(&args, &cluster, session).await,
    }
}

/// A queue and the broker to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Queue {
    broker: Broker,
    id: i32,
}

/// Queues that take messages: a master's, in order.
fn writable(route: &TopicRouteData) -> Vec<Queue> {
    let masters = admin::masters(&route.broker_datas);
    queues(route, masters, |data| {
        perm::writable(data.perm).then_some(data.write_queue_nums)
    })
}

/// Queues that can be read: of each broker name the master's, or a slave's while there is no master.
fn readable(route: &TopicRouteData) -> Vec<Queue> {
    let brokers = admin::readable(&route.broker_datas);
    queues(route, brokers, |data| {
        perm::readable(data.perm).then_some(data.read_queue_nums)
    })
}

fn queues(
    route: &TopicRouteData,
    brokers: Vec<Broker>,
    count: impl Fn(&rocketmq_protocol::body::QueueData) -> Option<i32>,
) -> Vec<Queue> {
    let of = |broker: Broker| {
        let data = route
            .queue_datas
            .iter()
            .find(|data| data.broker_name == broker.name);
        let count = data.and_then(&count).unwrap_or(0);
        (0..count).map(move |id| Queue {
            broker: broker.clone(),
            id,
        })
    };
    brokers.into_iter().flat_map(of).collect()
}

/// A message in one line: when, where, tag and keys, body. Nothing in it steers the terminal.
fn line(message: &Message) -> String {
    let mut out = format!(
        "{}  {}:{}@{}",
        moment::text(message.stored_at),
        message.broker,
        message.queue,
        message.offset
    );
    if let Some(tag) = &message.tag {
        out += &format!("  tag={}", plain(tag));
    }
    if !message.keys.is_empty() {
        out += &format!("  keys={}", plain(&message.keys.join(",")));
    }
    out += &match message.body_form {
        BodyForm::Text => format!("  {}", plain(&message.body)),
        BodyForm::Hex => format!("  0x{}", message.body),
        BodyForm::CompressedHex => format!("  (compressed) 0x{}", message.body),
    };
    out
}

/// A message in full.
fn page(message: &Message) -> String {
    let or_dash = |text: Option<&str>| text.map_or("-".to_owned(), plain);
    let mut out = String::new();
    for (name, value) in [
        ("Topic", plain(&message.topic)),
        ("Queue", format!("{}:{}", message.broker, message.queue)),
        ("Offset", message.offset.to_string()),
        ("Message id", message.message_id.clone()),
        ("Unique id", or_dash(message.unique_id.as_deref())),
        ("Tag", or_dash(message.tag.as_deref())),
        (
            "Keys",
            or_dash(Some(message.keys.join(" ").as_str()).filter(|k| !k.is_empty())),
        ),
        (
            "Born",
            format!("{} at {}", moment::text(message.born_at), message.born_host),
        ),
        ("Stored", moment::text(message.stored_at)),
        ("Reconsumed", message.reconsume_times.to_string()),
    ] {
        out += &format!("{name:<12}{value}\n");
    }
    for (name, value) in &message.properties {
        out += &format!("{:<12}{} = {}\n", "Property", plain(name), plain(value));
    }
    let form = match message.body_form {
        BodyForm::Text => "text",
        BodyForm::Hex => "hex",
        BodyForm::CompressedHex => "compressed, hex",
    };
    let stored = message.stored_body_bytes;
    out += &format!("{:<12}{form}, {stored} bytes stored\n", "Body");
    // Lines of a text stay lines; all else that steers a terminal is shown escaped.
    for part in message.body.split('\n') {
        out += &format!("  {}\n", plain(part));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_protocol::body::{BrokerData, QueueData};

    fn route() -> TopicRouteData {
        let broker = |name: &str, ids: &[i64]| BrokerData {
            broker_name: name.into(),
            broker_addrs: ids.iter().map(|id| (*id, format!("h:{id}"))).collect(),
            ..BrokerData::default()
        };
        let data = |name: &str, read: i32, write: i32, perm: i32| QueueData {
            broker_name: name.into(),
            read_queue_nums: read,
            write_queue_nums: write,
            perm,
            ..QueueData::default()
        };
        TopicRouteData {
            broker_datas: vec![broker("b", &[1]), broker("a", &[0, 1])],
            queue_datas: vec![data("a", 2, 1, 6), data("b", 1, 1, 6)],
            ..TopicRouteData::default()
        }
    }

    #[test]
    fn sends_go_to_masters_and_reads_to_slaves_too_while_there_is_no_master() {
        let names = |queues: Vec<Queue>| -> Vec<String> {
            queues
                .iter()
                .map(|q| format!("{}:{} {}", q.broker.name, q.id, q.broker.address))
                .collect()
        };
        assert_eq!(names(writable(&route())), ["a:0 h:0"]);
        assert_eq!(names(readable(&route())), ["a:0 h:0", "a:1 h:0", "b:0 h:1"]);
        let mut closed = route();
        closed.queue_datas[0].perm = perm::READ;
        assert_eq!(writable(&closed), []);
    }
}
