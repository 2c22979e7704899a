//! `group`: list and describe consumer groups, and move their offsets.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_protocol::body::{
    ConsumeStats, ConsumerConnection, MessageQueue, OffsetWrapper, TopicOffset,
};
use rocketmq_protocol::code::response;
use rocketmq_protocol::topic;

use super::wire::plain;
use super::{Cluster, Session};
use crate::client::admin::{self, Admin, Broker, Fault};
use crate::error::{Error, Exit, nearest};
use crate::moment::{self, Place};
use crate::ui::{self, Format};

/// Consumer groups: list, describe, move their offsets
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl group list
  rmqctl group describe billing
  rmqctl group reset billing --to -1h              # shows what would move, exits with 10
  rmqctl group reset billing --to earliest --topic orders --yes")]
pub struct Group {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    List(List),
    Describe(Describe),
    Reset(Reset),
}

/// Show groups: members online, how they consume, topics, lag
#[derive(Debug, clap::Args)]
struct List {
    /// RocketMQ's own groups too
    #[arg(long)]
    all: bool,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Show a group's members and their versions, its subscriptions, its offset and lag in each queue
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl group describe billing
  rmqctl group describe billing -o json")]
struct Describe {
    /// A consumer group as `group list` names it
    group: String,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Move a group to another place; shows what would move unless --yes is given. Members that are online are told
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl group reset billing --to earliest         # shows what would move, exits with 10
  rmqctl group reset billing --to latest --yes
  rmqctl group reset billing --to 2026-11-25T16:43:00Z --topic orders --yes
  rmqctl group reset billing --to -1h --yes
  rmqctl group reset billing --to 1200 --topic orders --yes")]
struct Reset {
    /// A consumer group as `group list` names it
    group: String,
    /// earliest, latest, a time (2026-11-25T16:43:00Z, UTC unless it says; ms since the epoch), a time ago (-1h), or an offset
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, value_parser = Place::parse)]
    to: Place,
    /// In this topic only (all that the group has offsets in)
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Do it
    #[arg(short, long)]
    yes: bool,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Group {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let output = match &self.what {
            What::List(args) => args.output,
            What::Describe(args) => args.output,
            What::Reset(args) => args.output,
        };
        output == Format::Json
    }
}

/// `group …`
pub async fn group(args: Group, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let mut admin = cluster.admin();
    let work = async {
        match args.what {
            What::List(args) => list(&args, &mut admin, session).await,
            What::Describe(args) => describe(&args, &mut admin, &cluster, session).await,
            What::Reset(args) => reset(&args, &mut admin, &cluster, session).await,
        }
    };
    tokio::select! {
        done = work => done,
        () = session.interrupt.requested() => Err(session.interrupt.error()),
    }
}

/// A group as all masters together know it.
#[derive(Debug, Default)]
struct Known {
    /// Member's client id -> what it is; a member is connected to every master.
    members: BTreeMap<String, Member>,
    /// What the members said last; `None` when nobody is online.
    connection: Option<ConsumerConnection>,
    offsets: BTreeMap<MessageQueue, OffsetWrapper>,
}

#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    client_id: String,
    address: String,
    language: &'static str,
    /// `V5_3_3`, or the number it said.
    version: String,
}

impl Known {
    async fn ask(admin: &mut Admin, brokers: &[Broker], group: &str) -> Result<Known, Fault> {
        let mut known = Known::default();
        for broker in brokers {
            let stats = admin.consume_stats(&broker.address, group, None).await?;
            let members = admin.members(&broker.address, group).await?;
            known.add(stats, members);
        }
        Ok(known)
    }

    fn add(&mut self, stats: ConsumeStats, members: Option<ConsumerConnection>) {
        self.offsets.extend(stats.offset_table);
        let Some(connection) = members else { return };
        for client in &connection.connection_set {
            let member = Member {
                client_id: client.client_id.clone(),
                address: client.client_addr.clone(),
                language: client.language.name(),
                version: version_text(client.version),
            };
            self.members.insert(client.client_id.clone(), member);
        }
        match &mut self.connection {
            Some(known) => known
                .subscription_table
                .extend(connection.subscription_table),
            None => self.connection = Some(connection),
        }
    }

    /// Messages not yet consumed. Retries wait in a topic of their own, and count.
    fn lag(&self) -> i64 {
        self.offsets.values().map(lag).sum()
    }

    fn topics(&self) -> BTreeSet<String> {
        let subscribed = self
            .connection
            .iter()
            .flat_map(|c| c.subscription_table.keys());
        let consumed = self.offsets.keys().map(|queue| &queue.topic);
        subscribed
            .chain(consumed)
            .filter(|name| !topic::is_retry(name))
            .map(|name| name.to_string())
            .collect()
    }
}

fn lag(offset: &OffsetWrapper) -> i64 {
    (offset.broker_offset - offset.consumer_offset).max(0)
}

/// The name of a client's `MQVersion` ordinal. From 4.0.0 on each version has ten patches, each as snapshot and as release.
fn version_text(ordinal: i32) -> String {
    /// `V4_0_0_SNAPSHOT` (V4_9_4 is 401, V5_3_3 is 479).
    const V4_0_0_SNAPSHOT: i32 = 212;
    let since = ordinal - V4_0_0_SNAPSHOT;
    if since < 0 {
        return ordinal.to_string();
    }
    let (major, minor, patch) = (4 + since / 200, since / 20 % 10, since / 2 % 10);
    let snapshot = if since % 2 == 0 { "_SNAPSHOT" } else { "" };
    format!("V{major}_{minor}_{patch}{snapshot}")
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    group: String,
    members: usize,
    /// `CONSUME_PASSIVELY` (push), `CONSUME_ACTIVELY` (pull), `CONSUME_POP`; null when nobody is online.
    consume_type: Option<String>,
    /// `CLUSTERING` or `BROADCASTING`; null when nobody is online.
    message_model: Option<String>,
    topics: BTreeSet<String>,
    lag: i64,
}

async fn list(args: &List, admin: &mut Admin, session: &Session<'_>) -> Result<u8, Error> {
    let masters = admin.masters().await?;
    let mut rows = Vec::new();
    for name in names(admin, &masters, args.all).await? {
        let known = Known::ask(admin, &masters, &name).await?;
        let online = known.connection.as_ref();
        rows.push(Row {
            members: known.members.len(),
            consume_type: online.map(|c| c.consume_type.to_string()),
            message_model: online.map(|c| c.message_model.to_string()),
            topics: known.topics(),
            lag: known.lag(),
            group: name,
        });
    }
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&rows, args.output),
        Format::Name => rows
            .iter()
            .for_each(|row| session.ui.out(&format!("{}\n", row.group))),
        Format::Table | Format::Wide if rows.is_empty() => session
            .ui
            .note("no group yet: a consumer makes its own when it connects"),
        Format::Table | Format::Wide => {
            let header = ["GROUP", "MEMBERS", "TYPE", "MODEL", "LAG", "TOPICS"];
            let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
            session.ui.out(&ui::table(&header, &cells, |_, _| None));
        }
    }
    Ok(0)
}

fn cells(row: &Row) -> Vec<String> {
    let word = |said: &Option<String>| said.clone().unwrap_or("-".into()).to_lowercase();
    let topics: Vec<String> = row.topics.iter().map(|name| plain(name)).collect();
    vec![
        plain(&row.group),
        row.members.to_string(),
        word(&row.consume_type).replace("consume_", ""),
        word(&row.message_model),
        row.lag.to_string(),
        if topics.is_empty() {
            "-".into()
        } else {
            topics.join(" ")
        },
    ]
}

/// Names of the groups that some master has a configuration of.
async fn names(
    admin: &mut Admin,
    masters: &[Broker],
    all: bool,
) -> Result<BTreeSet<String>, Fault> {
    let mut names = BTreeSet::new();
    for master in masters {
        let table = admin.group_configs(&master.address).await?;
        let own = table.subscription_group_table.keys();
        names.extend(
            own.filter(|name| all || !topic::group::is_system(name))
                .map(|name| name.to_string()),
        );
    }
    Ok(names)
}

/// A group that is known, or an error that names the nearest one.
async fn known(
    admin: &mut Admin,
    masters: &[Broker],
    group: &str,
    cluster: &Cluster,
) -> Result<Known, Error> {
    let names = names(admin, masters, true).await?;
    if names.contains(group) {
        return Ok(Known::ask(admin, masters, group).await?);
    }
    let error = Error::new(
        "RMQ-E320",
        Exit::Failed,
        format!("there is no group `{group}`"),
    );
    Err(match nearest(group, names.iter().map(String::as_str)) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(cluster.desired.suggest("group list")),
    })
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    group: String,
    consume_type: Option<String>,
    message_model: Option<String>,
    lag: i64,
    members: Vec<Member>,
    subscriptions: Vec<Subscription>,
    queues: Vec<QueueRow>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    topic: String,
    /// `TAG` or `SQL92`.
    #[serde(rename = "type")]
    kind: String,
    expression: String,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueRow {
    topic: String,
    broker: String,
    queue: i32,
    /// Where the group goes on.
    offset: i64,
    max_offset: i64,
    lag: i64,
    /// Store time of the last consumed message, ms since the epoch; 0 when there is none.
    last_consumed_stored_at: i64,
}

async fn describe(
    args: &Describe,
    admin: &mut Admin,
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let masters = admin.masters().await?;
    let known = known(admin, &masters, &args.group, cluster).await?;
    let online = known.connection.as_ref();
    let subscriptions = online.iter().flat_map(|c| c.subscription_table.values());
    let described = Description {
        group: args.group.clone(),
        consume_type: online.map(|c| c.consume_type.to_string()),
        message_model: online.map(|c| c.message_model.to_string()),
        lag: known.lag(),
        members: known.members.values().cloned().collect(),
        subscriptions: subscriptions
            .map(|s| Subscription {
                topic: s.topic.to_string(),
                kind: s.expression_type.clone(),
                expression: s.sub_string.clone(),
            })
            .collect(),
        queues: known
            .offsets
            .iter()
            .map(|(queue, offset)| QueueRow {
                topic: queue.topic.to_string(),
                broker: queue.broker_name.to_string(),
                queue: queue.queue_id,
                offset: offset.consumer_offset,
                max_offset: offset.broker_offset,
                lag: lag(offset),
                last_consumed_stored_at: offset.last_timestamp,
            })
            .collect(),
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&described, args.output),
        Format::Name => session.ui.out(&format!("{}\n", described.group)),
        Format::Table | Format::Wide => session.ui.out(&text(&described)),
    }
    Ok(0)
}

fn text(described: &Description) -> String {
    let word = |said: &Option<String>| {
        said.as_ref()
            .map(|said| format!("   {}", said.to_lowercase()))
    };
    let mut out = format!(
        "GROUP {}{}{}   lag {}\n",
        plain(&described.group),
        word(&described.consume_type).unwrap_or("   nobody is online".into()),
        word(&described.message_model).unwrap_or_default(),
        described.lag
    );
    if !described.members.is_empty() {
        let members: Vec<Vec<String>> = described
            .members
            .iter()
            .map(|m| {
                vec![
                    plain(&m.client_id),
                    m.address.clone(),
                    m.language.to_owned(),
                    m.version.clone(),
                ]
            })
            .collect();
        let header = ["MEMBER", "ADDRESS", "LANGUAGE", "VERSION"];
        out += &ui::table(&header, &members, |_, _| None);
        out += "\n";
        let subscriptions: Vec<Vec<String>> = described
            .subscriptions
            .iter()
            .map(|s| vec![plain(&s.topic), s.kind.clone(), plain(&s.expression)])
            .collect();
        out += &ui::table(
            &["SUBSCRIPTION", "TYPE", "EXPRESSION"],
            &subscriptions,
            |_, _| None,
        );
        out += "\n";
    }
    if described.queues.is_empty() {
        return out + "It has no offset in any topic.\n";
    }
    let queues: Vec<Vec<String>> = described
        .queues
        .iter()
        .map(|q| {
            vec![
                plain(&q.topic),
                format!("{}:{}", q.broker, q.queue),
                q.offset.to_string(),
                q.max_offset.to_string(),
                q.lag.to_string(),
                moment::text(q.last_consumed_stored_at),
            ]
        })
        .collect();
    let header = [
        "TOPIC",
        "QUEUE",
        "OFFSET",
        "MAX",
        "LAG",
        "LAST CONSUMED WAS STORED",
    ];
    out + &ui::table(&header, &queues, |_, _| None)
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    topic: String,
    broker: String,
    queue: i32,
    /// Null when the group has none there yet.
    from: Option<i64>,
    to: i64,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Moves {
    group: String,
    /// False when this is what would be done.
    done: bool,
    moves: Vec<Move>,
}

async fn reset(
    args: &Reset,
    admin: &mut Admin,
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let masters = admin.masters().await?;
    let known = known(admin, &masters, &args.group, cluster).await?;
    let topics = match &args.topic {
        Some(topic) => {
            cluster.route(admin, topic).await?;
            BTreeSet::from([topic.clone()])
        }
        None => known.topics(),
    };
    if topics.is_empty() {
        return Err(Error::new(
            "RMQ-E321",
            Exit::Usage,
            format!("group `{}` has no offset in any topic", args.group),
        )
        .hint("say which: --topic TOPIC"));
    }
    let mut moves = Vec::new();
    for topic in &topics {
        let Some(route) = admin.route(topic).await? else {
            continue;
        };
        for master in admin::masters(&route.broker_datas) {
            // Members that reach some masters only: on the others there is no group, and nothing to move.
            let own = admin.group_configs(&master.address).await?;
            if !own
                .subscription_group_table
                .contains_key(args.group.as_str())
            {
                continue;
            }
            let ends = admin.topic_stats(&master.address, topic).await?;
            let targets = targets(admin, &master, &ends, args.to).await?;
            let placed = match args.yes {
                true => place(admin, &master, &args.group, topic, args.to, &targets).await?,
                false => targets,
            };
            moves.extend(placed.into_iter().map(|(queue, to)| Move {
                topic: topic.clone(),
                broker: master.name.clone(),
                queue: queue.queue_id,
                from: known.offsets.get(&queue).map(|o| o.consumer_offset),
                to,
            }));
        }
    }
    let moves = Moves {
        group: args.group.clone(),
        done: args.yes,
        moves,
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&moves, args.output),
        _ => {
            session.ui.out(&moved(&moves));
            session.ui.note(&match args.yes {
                true => format!("Group {} was moved.", args.group),
                false => "Nothing was changed.   With --yes it is done.".to_owned(),
            });
        }
    }
    Ok(match args.yes {
        true => 0,
        false => Exit::Pending as u8,
    })
}

/// The offset in each queue that a place means, never outside the queue.
async fn targets(
    admin: &mut Admin,
    master: &Broker,
    ends: &BTreeMap<MessageQueue, TopicOffset>,
    to: Place,
) -> Result<BTreeMap<MessageQueue, i64>, Fault> {
    let mut targets = BTreeMap::new();
    for (queue, ends) in ends {
        let target = match to {
            Place::Earliest => ends.min_offset,
            Place::Latest => ends.max_offset,
            Place::Offset(offset) => offset,
            Place::At(ms) => {
                admin
                    .offset_at(&master.address, &queue.topic, queue.queue_id, ms)
                    .await?
            }
        };
        let target = target.clamp(ends.min_offset, ends.max_offset);
        targets.insert(queue.clone(), target);
    }
    Ok(targets)
}

/// Moves the group in one topic on one broker: by the broker, which tells the members (222); where it cannot, since nobody is
/// online, by writing the offsets (15). So does `mqadmin resetOffsetByTime`.
async fn place(
    admin: &mut Admin,
    master: &Broker,
    group: &str,
    topic: &str,
    to: Place,
    targets: &BTreeMap<MessageQueue, i64>,
) -> Result<BTreeMap<MessageQueue, i64>, Fault> {
    let by_time = match to {
        Place::Earliest => Some(0),
        Place::Latest => Some(-1),
        Place::At(ms) => Some(ms),
        Place::Offset(_) => None,
    };
    let asked = match by_time {
        Some(ms) => admin.reset(&master.address, group, topic, ms, None).await,
        None => {
            let mut placed = Ok(BTreeMap::new());
            for (queue, offset) in targets {
                let one = Some((queue.queue_id, *offset));
                match admin.reset(&master.address, group, topic, 0, one).await {
                    Ok(moved) => placed = placed.map(|all| merged(all, moved)),
                    Err(fault) => {
                        placed = Err(fault);
                        break;
                    }
                }
            }
            placed
        }
    };
    let offline = [response::CONSUMER_NOT_ONLINE, response::SYSTEM_ERROR];
    match asked {
        Err(fault) if fault.is(&offline) => {
            for (queue, offset) in targets {
                admin
                    .put_offset(&master.address, group, queue, *offset)
                    .await?;
            }
            Ok(targets.clone())
        }
        answered => answered,
    }
}

fn merged<K: Ord, V>(mut all: BTreeMap<K, V>, more: BTreeMap<K, V>) -> BTreeMap<K, V> {
    all.extend(more);
    all
}

fn moved(moves: &Moves) -> String {
    let cells: Vec<Vec<String>> = moves
        .moves
        .iter()
        .map(|m| {
            let step = m
                .from
                .map_or("-".into(), |from| format!("{:+}", m.to - from));
            vec![
                plain(&m.topic),
                format!("{}:{}", m.broker, m.queue),
                m.from.map_or("-".into(), |from| from.to_string()),
                m.to.to_string(),
                step,
            ]
        })
        .collect();
    ui::table(&["TOPIC", "QUEUE", "FROM", "TO", "BY"], &cells, |_, _| None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_protocol::Language;
    use rocketmq_protocol::body::{ClientConnection, SubscriptionData};

    #[test]
    fn a_clients_version_is_named() {
        // `MQVersion`: what clients of these versions send.
        for (ordinal, name) in [
            (317, "V4_5_2"),
            (401, "V4_9_4"),
            (479, "V5_3_3"),
            (478, "V5_3_3_SNAPSHOT"),
            (100, "100"),
        ] {
            assert_eq!(version_text(ordinal), name);
        }
    }

    #[test]
    fn a_group_is_what_all_masters_know_of_it() {
        let stats = |broker: &str, at: i64| ConsumeStats {
            offset_table: [(
                MessageQueue::new("orders", broker, 0),
                OffsetWrapper {
                    broker_offset: 10,
                    consumer_offset: at,
                    ..OffsetWrapper::default()
                },
            )]
            .into(),
            ..ConsumeStats::default()
        };
        let connection = ConsumerConnection {
            connection_set: vec![ClientConnection {
                client_id: "a@1".into(),
                language: Language::RUST,
                version: 479,
                ..ClientConnection::default()
            }],
            subscription_table: [
                ("orders".into(), SubscriptionData::parse_tags("orders", "*")),
                (
                    "%RETRY%g".into(),
                    SubscriptionData::parse_tags("%RETRY%g", "*"),
                ),
            ]
            .into(),
            ..ConsumerConnection::default()
        };
        let mut known = Known::default();
        known.add(stats("broker-a", 7), Some(connection.clone()));
        known.add(stats("broker-b", 4), Some(connection));
        assert_eq!(known.lag(), 9);
        assert_eq!(known.members.len(), 1, "one client, connected to both");
        assert_eq!(known.topics(), BTreeSet::from(["orders".to_owned()]));
    }
}
