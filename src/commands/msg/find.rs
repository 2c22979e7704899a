//! `msg get`: one message by its id, or those of a key.

use std::collections::BTreeSet;

use rocketmq_protocol::code::response;
use rocketmq_protocol::{message_id, record};

use super::{line, page};
use crate::client::admin::{self, Admin, Broker, Fault, refused, unreadable};
use crate::client::message::{self, Message};
use crate::commands::wire;
use crate::commands::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::ui::Format;

/// Show a message in full: by its message id, the unique id that its sender gave it, or a key
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl msg get 7F00000100002A9F0000000000001000            # message id, or unique id
  rmqctl msg get --key order-1 --topic orders
  rmqctl msg get 7F0000011A2B18B4AAC20A3F4D210001 --unique-id --topic orders -o json")]
pub struct Get {
    #[command(flatten)]
    which: Which,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

/// What names a message.
#[derive(Debug, clap::Args)]
pub struct Which {
    /// Message id or unique id, as `msg send` and clients print them
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    id: Option<String>,
    /// A key that its sender gave it; all messages that have it are meant
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// ID is a unique id, even if it looks like a message id
    #[arg(long)]
    unique_id: bool,
    /// In this topic; else every topic of yours is searched
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

/// `msg get`
pub async fn get(args: &Get, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let mut admin = cluster.admin();
    let found = tokio::select! {
        found = args.which.find(&mut admin, cluster) => found?,
        () = session.interrupt.requested() => return Err(session.interrupt.error()),
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&found, args.output),
        Format::Name => found
            .iter()
            .for_each(|m| session.ui.out(&format!("{}\n", m.message_id))),
        Format::Table | Format::Wide => match found.as_slice() {
            [one] => session.ui.out(&page(one)),
            some => some
                .iter()
                .for_each(|m| session.ui.out(&format!("{}\n", line(m)))),
        },
    }
    Ok(0)
}

impl Which {
    /// The messages that are meant, at least one, by the time they were stored.
    pub async fn find(&self, admin: &mut Admin, cluster: &Cluster) -> Result<Vec<Message>, Error> {
        if let Some(id) = &self.id
            && !self.unique_id
            && let Some(message) = by_message_id(admin, id).await?
        {
            return Ok(vec![message]);
        }
        let (key, unique) = match (&self.key, &self.id) {
            (Some(key), _) => (key, false),
            (None, id) => (id.as_ref().ok_or_else(|| self.none())?, true),
        };
        let topics = match &self.topic {
            Some(topic) => {
                cluster.route(admin, topic).await?;
                BTreeSet::from([topic.clone()])
            }
            None => wire::topics(admin, false).await?,
        };
        let mut found = Vec::new();
        for topic in &topics {
            found.extend(by_key(admin, topic, key, unique).await?);
        }
        if found.is_empty() {
            return Err(self.none());
        }
        found.sort_by_key(|m| (m.stored_at, m.offset));
        Ok(found)
    }

    fn none(&self) -> Error {
        let what = match (&self.key, &self.id) {
            (Some(key), _) => format!("no message has the key `{key}`"),
            (None, Some(id)) => format!("no message has the id `{id}`"),
            (None, None) => "no message was named".to_owned(),
        };
        let error = Error::new("RMQ-E335", Exit::Failed, what);
        match &self.topic {
            Some(topic) => error
                .detail(format!("{topic} was searched"))
                .hint("without --topic every topic is searched"),
            None => error
                .detail("every topic but RocketMQ's own was searched; what was deleted for its age is not found")
                .hint("--topic %DLQ%GROUP   looks among the dead letters of a group"),
        }
    }
}

/// The message at the place that an offset message id names. The address in it is the one that the broker stored, which this
/// host may not reach (a container's): so each broker is asked, and the one whose record says the same is it.
async fn by_message_id(admin: &mut Admin, id: &str) -> Result<Option<Message>, Fault> {
    let Some((host, offset)) = message_id::parse(id) else {
        return Ok(None);
    };
    let cluster = admin.cluster().await?;
    for broker in admin::readable(cluster.broker_addr_table.values()) {
        let request = message::view(offset);
        let code = request.code;
        let answer = admin.exchange(&broker.address, request).await?;
        // No record begins there, or none any more.
        if answer.code != response::SUCCESS {
            continue;
        }
        let bad = |e: record::RecordError| unreadable(&broker.address, code, e);
        let view = record::View::record(&answer.body).map_err(bad)?;
        if (view.store_host(), view.physical_offset()) == (host, offset) {
            return Ok(Some(Message::read(&view, &broker.name).map_err(bad)?));
        }
    }
    Ok(None)
}

/// Messages of a topic that have this key, or this unique id.
pub async fn by_key(
    admin: &mut Admin,
    topic: &str,
    key: &str,
    unique: bool,
) -> Result<Vec<Message>, Fault> {
    let Some(route) = admin.route(topic).await? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for Broker { name, address } in admin::readable(&route.broker_datas) {
        let request = message::query(topic, key, unique);
        let code = request.code;
        let answer = admin.exchange(&address, request).await?;
        match answer.code {
            response::SUCCESS => {
                let messages = message::messages(&answer.body, &name);
                found.extend(messages.map_err(|e| unreadable(&address, code, e))?);
            }
            response::QUERY_NOT_FOUND => {}
            _ => return Err(refused(&address, code, &answer)),
        }
    }
    // The index keeps hashes: what only shares one is dropped.
    found.retain(|m| match unique {
        true => m.unique_id.as_deref() == Some(key),
        false => m.keys.iter().any(|k| k == key),
    });
    Ok(found)
}
