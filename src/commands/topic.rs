//! `topic`: list, create, delete and describe topics.

use std::collections::{BTreeMap, BTreeSet};

use rocketmq_protocol::body::{TopicConfig, TopicRouteData};
use rocketmq_protocol::topic::{self, perm};

use super::wire::{self, plain};
use super::{Cluster, Session};
use crate::client::admin::{self, Admin, Broker, Fault};
use crate::error::{Error, Exit};
use crate::moment;
use crate::spec::unknown_name;
use crate::ui::{self, Format};

/// Topics: list, create, delete, describe
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl topic list
  rmqctl topic create orders --queues 8
  rmqctl topic create trades --type fifo --brokers broker-a
  rmqctl topic describe orders -o json
  rmqctl topic delete orders --yes")]
pub struct Topic {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    List(List),
    Create(Create),
    Delete(Delete),
    Describe(Describe),
}

/// Show topics: queues, permission, type, brokers, messages
#[derive(Debug, clap::Args)]
struct List {
    /// System topics, retries and dead letters too
    #[arg(long)]
    all: bool,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Create a topic on every master, or change the one there is: what is not said stays as it is
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl topic create orders --queues 8
  rmqctl topic create orders --perm r          # no more sends; what is there can be read
  rmqctl topic create ticks --type delay --brokers broker-a,broker-b")]
struct Create {
    /// Letters, digits, - _ % | ; at most 127
    topic: String,
    /// Queues on each broker, for reads and writes (8)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=4096))]
    queues: Option<i32>,
    /// Who may: rw, r or w (rw)
    #[arg(long, value_name = "PERM")]
    perm: Option<Perm>,
    /// What kind of messages it takes; RocketMQ's attribute message.type (normal)
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// On these brokers only
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    brokers: Vec<String>,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Delete a topic with its messages; shows what would be lost unless --yes is given
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl topic delete orders          # says what is in it, exits with 10
  rmqctl topic delete orders --yes")]
struct Delete {
    /// A topic of yours; RocketMQ's own are refused
    topic: String,
    /// Do it
    #[arg(short, long)]
    yes: bool,
}

/// Show a topic's route, each queue's ends and last message, and the groups that consume it with their lag
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl topic describe orders
  rmqctl topic describe %RETRY%billing -o yaml")]
struct Describe {
    /// A topic as `topic list` names it, RocketMQ's own too
    topic: String,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// RocketMQ's permissions, without the inherit bit that only the template topic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Perm {
    /// Send and consume
    Rw,
    /// Consume what is there
    R,
    /// Send only
    W,
}

/// Values of the attribute `message.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Normal,
    /// In order within a message group
    Fifo,
    Delay,
    Transaction,
}

const TYPE_ATTRIBUTE: &str = "message.type";
/// Queues of a topic whose creator named no number; RocketMQ's own default for `mqadmin updateTopic`.
const QUEUES_DEFAULT: i32 = 8;

impl Topic {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let output = match &self.what {
            What::List(args) => args.output,
            What::Create(args) => args.output,
            What::Describe(args) => args.output,
            What::Delete(_) => Format::Table,
        };
        output == Format::Json
    }
}

/// `topic …`
pub async fn topic(args: Topic, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let work = async {
        match args.what {
            What::List(args) => list(&args, &cluster, session).await,
            What::Create(args) => create(&args, &cluster, session).await,
            What::Delete(args) => delete(&args, &cluster, session).await,
            What::Describe(args) => describe(&args, &cluster, session).await,
        }
    };
    tokio::select! {
        done = work => done,
        () = session.interrupt.requested() => Err(session.interrupt.error()),
    }
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    topic: String,
    /// `normal`, `fifo`, …
    #[serde(rename = "type")]
    kind: String,
    /// `RW-`.
    perm: String,
    /// Queues of all masters together.
    queues: i32,
    brokers: Vec<String>,
    /// Messages that are still there, of all queues.
    messages: i64,
}

async fn list(args: &List, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let mut admin = cluster.admin();
    let shown = wire::topics(&mut admin, args.all).await?;
    let mut configs = Vec::new();
    for master in admin.masters().await? {
        let table = admin.topic_configs(&master.address).await?;
        configs.push((master, table.topic_config_table));
    }
    let mut rows = Vec::new();
    for name in shown {
        let mut row: Option<Row> = None;
        for (master, table) in &configs {
            let Some(config) = table.get(name.as_str()) else {
                continue;
            };
            let row = row.get_or_insert_with(|| Row {
                topic: name.clone(),
                kind: kind(config),
                perm: perm::text(config.perm),
                queues: 0,
                brokers: Vec::new(),
                messages: 0,
            });
            row.queues += config.write_queue_nums.max(config.read_queue_nums);
            row.brokers.push(master.name.clone());
            row.messages += messages(&mut admin, master, &name).await?;
        }
        rows.extend(row);
    }
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&rows, args.output),
        Format::Name => rows
            .iter()
            .for_each(|row| session.ui.out(&format!("{}\n", row.topic))),
        Format::Table | Format::Wide if rows.is_empty() => session.ui.note(&format!(
            "no topic yet; `{}` makes one",
            session.again("topic create NAME")
        )),
        Format::Table | Format::Wide => {
            let header = ["TOPIC", "TYPE", "PERM", "QUEUES", "MESSAGES", "BROKERS"];
            let cells: Vec<Vec<String>> = rows
                .iter()
                .map(|row| {
                    vec![
                        row.topic.clone(),
                        row.kind.clone(),
                        row.perm.clone(),
                        row.queues.to_string(),
                        row.messages.to_string(),
                        row.brokers.join(" "),
                    ]
                })
                .collect();
            session.ui.out(&ui::table(&header, &cells, |_, _| None));
        }
    }
    Ok(0)
}

/// Messages of a topic that one broker still has.
async fn messages(admin: &mut Admin, broker: &Broker, topic: &str) -> Result<i64, Fault> {
    let stats = admin.topic_stats(&broker.address, topic).await?;
    Ok(stats.values().map(|q| q.max_offset - q.min_offset).sum())
}

fn kind(config: &TopicConfig) -> String {
    let named = config.attributes.get(TYPE_ATTRIBUTE);
    named.map_or("normal".into(), |kind| kind.to_lowercase())
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Put {
    broker: String,
    /// `created`, `changed` or `unchanged`.
    result: &'static str,
    queues: i32,
    perm: String,
    #[serde(rename = "type")]
    kind: String,
}

async fn create(args: &Create, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    topic::validate_topic(&args.topic).map_err(|why| {
        Error::new(
            "RMQ-E311",
            Exit::Usage,
            format!("`{}` cannot be a topic", args.topic),
        )
        .detail(why.0.into_owned())
    })?;
    let mut admin = cluster.admin();
    let masters = chosen(admin.masters().await?, &args.brokers)?;
    let mut done = Vec::new();
    for master in &masters {
        let before = admin.topic_config(&master.address, &args.topic).await?;
        let wanted = args.config(before.as_ref());
        let result = match &before {
            Some(before) if *before == wanted => "unchanged",
            Some(_) => "changed",
            None => "created",
        };
        if result != "unchanged" {
            // Attributes that may be given at creation only would be refused if they were sent again.
            let mut sent = wanted.clone();
            sent.attributes
                .retain(|name, _| name == TYPE_ATTRIBUTE && args.kind.is_some());
            admin.put_topic(&master.address, &sent).await?;
        }
        done.push(Put {
            broker: master.name.clone(),
            result,
            queues: wanted.write_queue_nums,
            perm: perm::text(wanted.perm),
            kind: kind(&wanted),
        });
    }
    if matches!(args.output, Format::Json | Format::Yaml) {
        session.ui.value(&done, args.output);
        return Ok(0);
    }
    for put in &done {
        session.ui.done(
            &args.topic,
            &format!(
                "{} on {}: {} queues, {}, {}",
                put.result, put.broker, put.queues, put.perm, put.kind
            ),
        );
    }
    Ok(0)
}

impl Create {
    /// The configuration that is wanted, from the one there is.
    fn config(&self, before: Option<&TopicConfig>) -> TopicConfig {
        let mut config = before.cloned().unwrap_or_else(|| {
            TopicConfig::new(
                self.topic.as_str(),
                QUEUES_DEFAULT,
                perm::READ | perm::WRITE,
            )
        });
        if let Some(queues) = self.queues {
            config.read_queue_nums = queues;
            config.write_queue_nums = queues;
        }
        if let Some(perm) = self.perm {
            config.perm = match perm {
                Perm::Rw => perm::READ | perm::WRITE,
                Perm::R => perm::READ,
                Perm::W => perm::WRITE,
            };
        }
        if let Some(kind) = self.kind {
            let value = match kind {
                Kind::Normal => "NORMAL",
                Kind::Fifo => "FIFO",
                Kind::Delay => "DELAY",
                Kind::Transaction => "TRANSACTION",
            };
            config
                .attributes
                .insert(TYPE_ATTRIBUTE.into(), value.into());
        }
        config
    }
}

/// The masters of these names; all when none is named.
fn chosen(masters: Vec<Broker>, names: &[String]) -> Result<Vec<Broker>, Error> {
    if masters.is_empty() {
        return Err(
            Error::new("RMQ-E312", Exit::Failed, "no master is registered")
                .hint("rmqctl status   shows why"),
        );
    }
    let there: Vec<String> = masters.iter().map(|m| m.name.clone()).collect();
    if let Some(unknown) = names.iter().find(|name| !there.contains(name)) {
        let there = there.iter().map(String::as_str);
        return Err(unknown_name("master of broker name", unknown, there));
    }
    let is_chosen = |m: &Broker| names.is_empty() || names.contains(&m.name);
    Ok(masters.into_iter().filter(is_chosen).collect())
}

async fn delete(args: &Delete, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let mut admin = cluster.admin();
    let route = cluster.route(&mut admin, &args.topic).await?;
    if wire::is_internal(&args.topic, &admin.cluster().await?)
        && !topic::is_retry(&args.topic)
        && !topic::is_dlq(&args.topic)
    {
        return Err(Error::new(
            "RMQ-E313",
            Exit::Usage,
            format!("`{}` is RocketMQ's own; it was left alone", args.topic),
        ));
    }
    let (mut count, mut groups) = (0, BTreeSet::new());
    for master in admin::masters(&route.broker_datas) {
        count += messages(&mut admin, &master, &args.topic).await?;
        groups.extend(admin.groups_of(&master.address, &args.topic).await?);
    }
    let used = match groups.len() {
        0 => "no group consumes it".to_owned(),
        _ => format!(
            "consumed by {}",
            groups.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    if !args.yes {
        session.ui.out(&format!(
            "{}: {count} messages would be lost; {used}\nNothing was changed.   {} deletes it.\n",
            args.topic,
            session.again(&format!("topic delete {} --yes", args.topic))
        ));
        return Ok(Exit::Pending as u8);
    }
    admin.delete_topic(&args.topic).await?;
    session.ui.done(
        &args.topic,
        &format!("deleted with {count} messages; {used}"),
    );
    Ok(0)
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    topic: String,
    #[serde(rename = "type")]
    kind: String,
    attributes: BTreeMap<String, String>,
    messages: i64,
    brokers: Vec<OnBroker>,
    queues: Vec<QueueRow>,
    groups: Vec<GroupRow>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct OnBroker {
    broker: String,
    perm: String,
    read_queues: i32,
    write_queues: i32,
    /// Broker id -> address.
    addresses: BTreeMap<i64, String>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueRow {
    broker: String,
    queue: i32,
    min_offset: i64,
    max_offset: i64,
    /// ms since the epoch; 0 when there is no message.
    last_stored_at: i64,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupRow {
    group: String,
    /// Messages not yet consumed.
    lag: i64,
    /// Members online.
    members: usize,
}

async fn describe(args: &Describe, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let mut admin = cluster.admin();
    let route = cluster.route(&mut admin, &args.topic).await?;
    let described = look(&mut admin, &args.topic, &route).await?;
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&described, args.output),
        Format::Name => session.ui.out(&format!("{}\n", described.topic)),
        Format::Table | Format::Wide => session.ui.out(&text(&described)),
    }
    Ok(0)
}

async fn look(
    admin: &mut Admin,
    topic: &str,
    route: &TopicRouteData,
) -> Result<Description, Fault> {
    let mut described = Description {
        topic: topic.to_owned(),
        kind: "normal".into(),
        attributes: BTreeMap::new(),
        messages: 0,
        brokers: Vec::new(),
        queues: Vec::new(),
        groups: Vec::new(),
    };
    for data in &route.queue_datas {
        let addresses = route
            .broker_datas
            .iter()
            .find(|b| b.broker_name == data.broker_name)
            .map(|b| b.broker_addrs.clone());
        described.brokers.push(OnBroker {
            broker: data.broker_name.clone(),
            perm: perm::text(data.perm),
            read_queues: data.read_queue_nums,
            write_queues: data.write_queue_nums,
            addresses: addresses.unwrap_or_default(),
        });
    }
    described.brokers.sort_by(|a, b| a.broker.cmp(&b.broker));
    let mut groups: BTreeMap<String, (i64, BTreeSet<String>)> = BTreeMap::new();
    for broker in admin::readable(&route.broker_datas) {
        if let Some(config) = admin.topic_config(&broker.address, topic).await? {
            described.kind = kind(&config);
            described.attributes.extend(config.attributes);
        }
        for (queue, ends) in admin.topic_stats(&broker.address, topic).await? {
            described.messages += ends.max_offset - ends.min_offset;
            described.queues.push(QueueRow {
                broker: broker.name.clone(),
                queue: queue.queue_id,
                min_offset: ends.min_offset,
                max_offset: ends.max_offset,
                last_stored_at: ends.last_update_timestamp,
            });
        }
        for group in admin.groups_of(&broker.address, topic).await? {
            let stats = admin
                .consume_stats(&broker.address, &group, Some(topic))
                .await?;
            let members = admin.members(&broker.address, &group).await?;
            let (lag, ids) = groups.entry(group).or_default();
            *lag += stats.total_diff();
            ids.extend(
                members
                    .unwrap_or_default()
                    .connection_set
                    .into_iter()
                    .map(|c| c.client_id),
            );
        }
    }
    let row = |(group, (lag, ids)): (String, (i64, BTreeSet<String>))| GroupRow {
        group,
        lag,
        members: ids.len(),
    };
    described.groups = groups.into_iter().map(row).collect();
    Ok(described)
}

fn text(described: &Description) -> String {
    let mut out = format!(
        "TOPIC {}   {}   {} messages\n",
        described.topic, described.kind, described.messages
    );
    let brokers: Vec<Vec<String>> = described
        .brokers
        .iter()
        .map(|b| {
            let addresses = b.addresses.iter().map(|(id, at)| format!("{id}={at}"));
            vec![
                b.broker.clone(),
                b.perm.clone(),
                b.read_queues.to_string(),
                b.write_queues.to_string(),
                addresses.collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    out += &ui::table(
        &["BROKER", "PERM", "READ", "WRITE", "ADDRESSES"],
        &brokers,
        |_, _| None,
    );
    let queues: Vec<Vec<String>> = described
        .queues
        .iter()
        .map(|q| {
            vec![
                format!("{}:{}", q.broker, q.queue),
                q.min_offset.to_string(),
                q.max_offset.to_string(),
                moment::text(q.last_stored_at),
            ]
        })
        .collect();
    out += "\n";
    out += &ui::table(&["QUEUE", "MIN", "MAX", "LAST STORED"], &queues, |_, _| {
        None
    });
    out += "\n";
    if described.groups.is_empty() {
        return out + "No group consumes it.\n";
    }
    let groups: Vec<Vec<String>> = described
        .groups
        .iter()
        .map(|g| vec![plain(&g.group), g.lag.to_string(), g.members.to_string()])
        .collect();
    out + &ui::table(&["GROUP", "LAG", "MEMBERS"], &groups, |_, _| None)
}
