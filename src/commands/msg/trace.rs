//! `msg trace`: what became of a message, from the groups' offsets and from the traces that clients sent.

use rocketmq_protocol::body::{ConsumerConnection, MessageModel};
use rocketmq_protocol::topic;

use super::find::{Which, by_key};
use crate::client::admin::{self, Admin, Fault};
use crate::client::message::Message;
use crate::commands::wire::plain;
use crate::commands::{Cluster, Session};
use crate::error::Error;
use crate::moment;
use crate::ui::{self, Format};

/// Say what became of a message: which groups have passed it, and what clients that trace told of it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl msg trace 7F0000011A2B18B4AAC20A3F4D210001
  rmqctl msg trace --key order-1 --topic orders -o json")]
pub struct Trace {
    #[command(flatten)]
    which: Which,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Traced {
    message: Message,
    groups: Vec<Passed>,
    /// What clients with tracing on said of it, oldest first.
    events: Vec<Event>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Passed {
    group: String,
    state: State,
    /// The group's offset in the message's queue.
    offset: Option<i64>,
    /// Members online.
    members: usize,
}

/// What the group's offset says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// The group is past it.
    Consumed,
    /// The group is past it, and its subscription does not let the tag through.
    Filtered,
    /// The group has not come to it.
    NotYet,
    /// It failed too often and lies among the group's dead letters.
    DeadLetter,
    /// Every member has its own offset, which no broker knows.
    Broadcast,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            State::Consumed => "consumed",
            State::Filtered => "filtered out",
            State::NotYet => "not yet",
            State::DeadLetter => "dead letter",
            State::Broadcast => "broadcast",
        }
    }
}

/// One line of a client's trace.
#[derive(Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// `sent`, `delivered`, `consumed`.
    kind: &'static str,
    /// ms since the epoch, where the trace says.
    at: Option<i64>,
    group: Option<String>,
    client: Option<String>,
    /// How long it took, in ms.
    cost_ms: Option<i64>,
    success: Option<bool>,
}

/// `msg trace`
pub async fn trace(args: &Trace, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let mut admin = cluster.admin();
    let work = async {
        let mut traced = Vec::new();
        for message in args.which.find(&mut admin, cluster).await? {
            traced.push(follow(&mut admin, message).await?);
        }
        Ok::<_, Error>(traced)
    };
    let traced = tokio::select! {
        traced = work => traced?,
        () = session.interrupt.requested() => return Err(session.interrupt.error()),
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&traced, args.output),
        Format::Name => traced
            .iter()
            .for_each(|t| session.ui.out(&format!("{}\n", t.message.message_id))),
        Format::Table | Format::Wide => {
            let texts: Vec<String> = traced.iter().map(text).collect();
            session.ui.out(&texts.join("\n"));
        }
    }
    Ok(0)
}

async fn follow(admin: &mut Admin, message: Message) -> Result<Traced, Fault> {
    let mut groups = Vec::new();
    let route = admin.route(&message.topic).await?.unwrap_or_default();
    let brokers = admin::readable(&route.broker_datas);
    if let Some(broker) = brokers.iter().find(|b| b.name == message.broker) {
        for group in admin.groups_of(&broker.address, &message.topic).await? {
            let stats = admin
                .consume_stats(&broker.address, &group, Some(&message.topic))
                .await?;
            let placed = stats
                .offset_table
                .iter()
                .find(|(queue, _)| queue.queue_id == message.queue);
            let offset = placed.map(|(_, at)| at.consumer_offset);
            let members = admin.members(&broker.address, &group).await?;
            let dead = is_dead(admin, &group, &message).await?;
            groups.push(Passed {
                state: state(&message, offset, members.as_ref(), dead),
                offset,
                members: members.map_or(0, |c| c.connection_set.len()),
                group,
            });
        }
    }
    let mut events = Vec::new();
    if let Some(id) = &message.unique_id {
        for trace in by_key(admin, topic::TRACE, id, false).await? {
            events.extend(read(&trace.body, id));
        }
    }
    events.sort_by_key(|event| event.at);
    Ok(Traced {
        message,
        groups,
        events,
    })
}

/// Whether the message lies among the group's dead letters.
async fn is_dead(admin: &mut Admin, group: &str, message: &Message) -> Result<bool, Fault> {
    match &message.unique_id {
        Some(id) => Ok(!by_key(admin, &topic::dlq(group), id, true)
            .await?
            .is_empty()),
        None => Ok(false),
    }
}

fn state(
    message: &Message,
    offset: Option<i64>,
    members: Option<&ConsumerConnection>,
    dead: bool,
) -> State {
    if dead {
        return State::DeadLetter;
    }
    if members.is_some_and(|m| m.message_model == MessageModel::Broadcasting) {
        return State::Broadcast;
    }
    if offset.is_none_or(|offset| offset <= message.offset) {
        return State::NotYet;
    }
    let subscription = members.and_then(|m| m.subscription_table.get(message.topic.as_str()));
    let passes = subscription.is_none_or(|subscription| {
        subscription.tags_set.is_empty()
            || message
                .tag
                .as_ref()
                .is_some_and(|tag| subscription.tags_set.contains(tag))
    });
    match passes {
        true => State::Consumed,
        false => State::Filtered,
    }
}

/// What a trace message says of one unique id: contexts end with 2, their fields are parted by 1.
/// Source: `apache/rocketmq: client/.../trace/TraceDataEncoder.java`.
fn read(body: &str, id: &str) -> Vec<Event> {
    let context = |text: &str| {
        let fields: Vec<&str> = text.split('\u{1}').collect();
        let field = |at: usize| fields.get(at).copied().filter(|f| !f.is_empty());
        let number = |at: usize| field(at).and_then(|text| text.parse::<i64>().ok());
        let named = |at: usize| field(at).map(str::to_owned);
        let is_true = |at: usize| field(at).map(|text| text == "true");
        // Pub: time region group topic id tags keys store-host length cost type offset-id success client.
        // SubBefore: time region group request id retries keys client.
        // SubAfter: request id cost success keys context-code time group.
        let (own, event) = match *fields.first()? {
            "Pub" => (
                field(5)?,
                Event {
                    kind: "sent",
                    at: number(1),
                    group: named(3),
                    client: named(14),
                    cost_ms: number(10),
                    success: is_true(13),
                },
            ),
            "SubBefore" => (
                field(5)?,
                Event {
                    kind: "delivered",
                    at: number(1),
                    group: named(3),
                    client: named(8),
                    cost_ms: None,
                    success: None,
                },
            ),
            "SubAfter" => (
                field(2)?,
                Event {
                    kind: "consumed",
                    at: number(7),
                    group: named(8),
                    client: None,
                    cost_ms: number(3),
                    success: is_true(4),
                },
            ),
            _ => return None,
        };
        (own == id).then_some(event)
    };
    body.split('\u{2}').filter_map(context).collect()
}

fn text(traced: &Traced) -> String {
    let message = &traced.message;
    let mut out = format!(
        "MESSAGE {}   {} {}:{}@{}   stored {}\n",
        message
            .unique_id
            .as_deref()
            .map_or(message.message_id.clone(), plain),
        plain(&message.topic),
        message.broker,
        message.queue,
        message.offset,
        moment::text(message.stored_at)
    );
    if traced.groups.is_empty() {
        out += "No group consumes its topic.\n";
    } else {
        let rows: Vec<Vec<String>> = traced
            .groups
            .iter()
            .map(|g| {
                vec![
                    plain(&g.group),
                    g.state.text().to_owned(),
                    g.offset.map_or("-".into(), |offset| offset.to_string()),
                    g.members.to_string(),
                ]
            })
            .collect();
        out += &ui::table(
            &["GROUP", "STATE", "ITS OFFSET", "MEMBERS"],
            &rows,
            |_, _| None,
        );
    }
    if traced.events.is_empty() {
        return out + "No client traced it (clients trace where it is switched on).\n";
    }
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain);
    let rows: Vec<Vec<String>> = traced
        .events
        .iter()
        .map(|e| {
            vec![
                e.at.map_or("-".into(), moment::text),
                e.kind.to_owned(),
                or_dash(&e.group),
                or_dash(&e.client),
                e.cost_ms.map_or("-".into(), |ms| format!("{ms} ms")),
                match e.success {
                    Some(true) => "yes".into(),
                    Some(false) => "no".into(),
                    None => "-".into(),
                },
            ]
        })
        .collect();
    let header = ["AT", "EVENT", "GROUP", "CLIENT", "TOOK", "SUCCESS"];
    out + &ui::table(&header, &rows, |_, _| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::message::BodyForm;
    use rocketmq_protocol::body::SubscriptionData;

    fn message(offset: i64, tag: Option<&str>) -> Message {
        Message {
            topic: "orders".into(),
            broker: "broker-a".into(),
            queue: 0,
            offset,
            message_id: "ID".into(),
            unique_id: Some("U".into()),
            keys: vec![],
            tag: tag.map(str::to_owned),
            born_at: 1,
            born_host: "h:1".into(),
            stored_at: 2,
            reconsume_times: 0,
            properties: [].into(),
            stored_body_bytes: 0,
            body_form: BodyForm::Text,
            body: String::new(),
        }
    }

    #[test]
    fn a_groups_offset_and_subscription_say_whether_it_consumed_a_message() {
        let subscribed = |expression: &str| ConsumerConnection {
            subscription_table: [(
                "orders".into(),
                SubscriptionData::parse_tags("orders", expression),
            )]
            .into(),
            ..ConsumerConnection::default()
        };
        let sent = message(7, Some("A"));
        assert_eq!(state(&sent, Some(7), None, false), State::NotYet);
        assert_eq!(state(&sent, None, None, false), State::NotYet);
        assert_eq!(state(&sent, Some(8), None, false), State::Consumed);
        assert_eq!(
            state(&sent, Some(8), Some(&subscribed("A || B")), false),
            State::Consumed
        );
        assert_eq!(
            state(&sent, Some(8), Some(&subscribed("B")), false),
            State::Filtered
        );
        assert_eq!(
            state(&message(7, None), Some(8), Some(&subscribed("B")), false),
            State::Filtered
        );
        assert_eq!(state(&sent, Some(8), None, true), State::DeadLetter);
        let mut broadcast = subscribed("*");
        broadcast.message_model = MessageModel::Broadcasting;
        assert_eq!(
            state(&sent, None, Some(&broadcast), false),
            State::Broadcast
        );
    }

    #[test]
    fn a_trace_body_is_read_for_one_message_only() {
        let body = [
            "Pub\u{1}100\u{1}r\u{1}P\u{1}orders\u{1}U\u{1}A\u{1}k\u{1}h:1\u{1}5\u{1}3\u{1}0\u{1}OFF\u{1}true\u{1}10.0.0.1",
            "Pub\u{1}100\u{1}r\u{1}P\u{1}orders\u{1}OTHER\u{1}A\u{1}k\u{1}h:1\u{1}5\u{1}3\u{1}0\u{1}OFF\u{1}true\u{1}10.0.0.1",
            "SubBefore\u{1}110\u{1}r\u{1}G\u{1}R\u{1}U\u{1}0\u{1}k\u{1}10.0.0.2",
            "SubAfter\u{1}R\u{1}U\u{1}4\u{1}false\u{1}k\u{1}0\u{1}115\u{1}G",
            "junk",
            "Pub",
        ]
        .join("\u{2}");
        let told: Vec<(&str, Option<i64>, Option<bool>)> = read(&body, "U")
            .iter()
            .map(|e| (e.kind, e.at, e.success))
            .collect();
        assert_eq!(
            told,
            [
                ("sent", Some(100), Some(true)),
                ("delivered", Some(110), None),
                ("consumed", Some(115), Some(false)),
            ]
        );
    }
}
