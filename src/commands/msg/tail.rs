//! `msg tail`: pulls without a group's offsets, so that looking changes nothing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::select_all;
use rocketmq_protocol::Command;
use rocketmq_protocol::body::SubscriptionData;

use super::{Queue, line, readable};
use crate::client::Peer;
use crate::client::admin::{Admin, Fault};
use crate::client::message::{Message, Pull, Pulled};
use crate::commands::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::moment::Place;
use crate::ui::Format;

/// How many messages are asked for at a time; brokers give no more than 32 unless they are set to.
const BATCH: i32 = 32;
/// How long a broker may hold a pull that finds nothing.
const HOLD: Duration = Duration::from_secs(15);

/// Show a topic's messages by the time they were stored. No group is involved and no offset moves
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl msg tail orders                        # the last 10
  rmqctl msg tail orders -f                     # and those that come
  rmqctl msg tail orders --from -1h --filter 'paid || sent'
  rmqctl msg tail orders --from earliest -o json
  rmqctl msg tail orders --group billing        # what this group has yet to consume")]
pub struct Tail {
    /// The topic to read
    topic: String,
    /// Go on with what comes, until Ctrl-C; with -o json one message a line
    #[arg(short, long)]
    follow: bool,
    /// Begin at earliest, latest, a time (2026-11-25T16:43:00Z), a time ago (-1h), or an offset in each queue
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true, value_parser = Place::parse)]
    from: Option<Place>,
    /// Begin where this group stands, which stays there; none: no group
    #[arg(
        long,
        value_name = "GROUP",
        default_value = "none",
        conflicts_with = "from"
    )]
    group: String,
    /// Tags that pass: 'paid || sent'; brokers filter
    #[arg(long, value_name = "TAGS", default_value = "*")]
    filter: String,
    /// At most N; the last ones where neither --from nor --group says where to begin (10 then)
    #[arg(short, value_name = "N")]
    number: Option<usize>,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}

/// How many of the last ones are shown.
const LAST: usize = 10;

/// A queue that is being read.
struct Reader {
    queue: Queue,
    /// Next offset to pull.
    next: i64,
    /// The queue's end when reading began.
    end: i64,
    /// Pulled, not yet shown.
    waiting: VecDeque<Message>,
}

/// `msg tail`
pub async fn tail(args: &Tail, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    if SubscriptionData::parse_tags(&args.topic, &args.filter).is_empty_list() {
        return Err(Error::new(
            "RMQ-E333",
            Exit::Usage,
            format!("`{}` names no tag", args.filter),
        )
        .hint("--filter 'paid || sent'"));
    }
    let mut admin = cluster.admin();
    let work = async {
        let route = cluster.route(&mut admin, &args.topic).await?;
        let mut readers = Vec::new();
        for queue in readable(&route) {
            readers.push(args.open(&mut admin, queue).await?);
        }
        let shown = args.history(&mut admin, &mut readers, session).await?;
        let left = args.number.map(|n| n.saturating_sub(shown));
        let goes_on = args.follow && (args.begins_at_end() || left != Some(0));
        match goes_on {
            true => {
                args.follow(readers, left.filter(|_| !args.begins_at_end()), session)
                    .await
            }
            false => Ok(0),
        }
    };
    tokio::select! {
        done = work => done,
        // Whoever follows ends it so.
        () = session.interrupt.requested() => match args.follow {
            true => Ok(0),
            false => Err(session.interrupt.error()),
        },
    }
}

impl Tail {
    /// Whether the last messages are meant, and not a place to begin at.
    fn begins_at_end(&self) -> bool {
        self.from.is_none() && self.group == "none"
    }

    /// A reader of one queue, at the offset where it shall begin.
    async fn open(&self, admin: &mut Admin, queue: Queue) -> Result<Reader, Fault> {
        let address = queue.broker.address.clone();
        let ends = admin.topic_stats(&address, &self.topic).await?;
        let own = ends
            .iter()
            .find(|(q, _)| q.queue_id == queue.id)
            .map(|(_, ends)| *ends)
            .unwrap_or_default();
        let next = match self.from {
            Some(Place::Earliest) => own.min_offset,
            Some(Place::Latest) => own.max_offset,
            Some(Place::Offset(offset)) => offset,
            Some(Place::At(ms)) => admin.offset_at(&address, &self.topic, queue.id, ms).await?,
            None if self.begins_at_end() => own.max_offset - self.window(),
            None => {
                let stats = admin
                    .consume_stats(&address, &self.group, Some(&self.topic))
                    .await?;
                let placed = stats
                    .offset_table
                    .iter()
                    .find(|(q, _)| q.queue_id == queue.id);
                placed.map_or(own.min_offset, |(_, offset)| offset.consumer_offset)
            }
        };
        Ok(Reader {
            queue,
            next: next.clamp(own.min_offset, own.max_offset),
            end: own.max_offset,
            waiting: VecDeque::new(),
        })
    }

    /// How far back of a queue's end the last messages are looked for. A filter passes few, so more are looked at.
    fn window(&self) -> i64 {
        let number = i64::try_from(self.number.unwrap_or(LAST)).unwrap_or(i64::MAX);
        match self.filter == SubscriptionData::ALL {
            true => number,
            false => number.saturating_mul(100),
        }
    }

    /// Shows what is there, by store time over all queues, holding one batch of each queue.
    async fn history(
        &self,
        admin: &mut Admin,
        readers: &mut [Reader],
        session: &Session<'_>,
    ) -> Result<usize, Error> {
        let last = self.begins_at_end();
        let limit = self.number.unwrap_or(if last { LAST } else { usize::MAX });
        let mut list: VecDeque<Message> = VecDeque::new();
        let is_list = !self.follow && matches!(self.output, Format::Json | Format::Yaml);
        let mut shown = 0;
        loop {
            if shown == limit {
                break;
            }
            for reader in readers.iter_mut() {
                self.fill(admin, reader).await?;
            }
            let earliest = readers
                .iter_mut()
                .filter(|r| !r.waiting.is_empty())
                .min_by_key(|r| r.waiting.front().map(|m| (m.stored_at, m.offset)));
            let Some(message) = earliest.and_then(|reader| reader.waiting.pop_front()) else {
                break;
            };
            if last {
                list.push_back(message);
                if list.len() > limit {
                    list.pop_front();
                }
                continue;
            }
            shown += 1;
            match is_list {
                true => list.push_back(message),
                false => self.show(&message, session),
            }
        }
        if is_list {
            session.ui.value(&list, self.output);
            return Ok(list.len());
        }
        list.iter().for_each(|message| self.show(message, session));
        Ok(shown + list.len())
    }

    /// Pulls until there is a message to show, or the end that was there at the beginning is reached.
    async fn fill(&self, admin: &mut Admin, reader: &mut Reader) -> Result<(), Fault> {
        while reader.waiting.is_empty() && reader.next < reader.end {
            let address = &reader.queue.broker.address;
            let request = self.pull(reader, None).request();
            let pulled = Pulled::read(&admin.exchange(address, request).await?, address)?;
            let stands = pulled.next <= reader.next && pulled.records.is_empty();
            self.take(reader, &pulled)?;
            if stands {
                // What was counted is gone meanwhile.
                reader.next = reader.end;
            }
        }
        Ok(())
    }

    fn pull<'a>(&'a self, reader: &Reader, hold: Option<Duration>) -> Pull<'a> {
        Pull {
            topic: &self.topic,
            queue: reader.queue.id,
            offset: reader.next,
            max: BATCH,
            filter: &self.filter,
            hold,
        }
    }

    fn take(&self, reader: &mut Reader, pulled: &Pulled) -> Result<(), Fault> {
        let broker = &reader.queue.broker;
        let tags = SubscriptionData::parse_tags(&self.topic, &self.filter).tags_set;
        let messages = pulled.messages(&broker.name, &broker.address)?;
        // Brokers filter by the tag's hash; two tags may share one.
        let passes = |message: &Message| {
            tags.is_empty() || message.tag.as_ref().is_some_and(|tag| tags.contains(tag))
        };
        reader.waiting.extend(messages.into_iter().filter(passes));
        reader.next = reader.next.max(pulled.next);
        Ok(())
    }

    fn show(&self, message: &Message, session: &Session<'_>) {
        session.ui.out(&match self.output {
            Format::Json => match serde_json::to_string(message) {
                Ok(text) => text + "\n",
                Err(reason) => format!("{{\"error\": \"{reason}\"}}\n"),
            },
            Format::Yaml => format!("---\n{}", crate::spec::yaml::to_string(message)),
            Format::Name => format!("{}\n", message.message_id),
            Format::Table | Format::Wide => line(message) + "\n",
        });
    }

    /// Holds one pull open in every queue, one connection a broker.
    async fn follow(
        &self,
        readers: Vec<Reader>,
        mut left: Option<usize>,
        session: &Session<'_>,
    ) -> Result<u8, Error> {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for reader in readers {
            let address = reader.queue.broker.address.clone();
            lines.entry(address).or_default().idle.push(reader);
        }
        if lines.is_empty() {
            return Err(unreadable_topic(&self.topic));
        }
        loop {
            for (address, line) in &mut lines {
                line.ask(address, self).await?;
            }
            let heard = lines
                .iter_mut()
                .map(|(address, line)| Box::pin(line.next(address)));
            let (mut reader, answer) = select_all(heard).await.0?;
            let address = reader.queue.broker.address.clone();
            self.take(&mut reader, &Pulled::read(&answer, &address)?)?;
            for message in reader.waiting.drain(..) {
                self.show(&message, session);
                left = left.map(|n| n.saturating_sub(1));
                if left == Some(0) {
                    return Ok(0);
                }
            }
            lines.entry(address).or_default().idle.push(reader);
        }
    }
}

fn unreadable_topic(topic: &str) -> Error {
    Error::new(
        "RMQ-E334",
        Exit::Failed,
        format!("no broker lets `{topic}` be read now"),
    )
}

/// One broker's connection with a pull for each queue in flight.
#[derive(Default)]
struct Line {
    peer: Option<Peer>,
    /// Queues whose pull is to be sent.
    idle: Vec<Reader>,
    /// Request's number -> its queue.
    held: BTreeMap<i32, Reader>,
}

impl Line {
    /// Sends a pull for each queue that has none in flight.
    async fn ask(&mut self, address: &str, tail: &Tail) -> Result<(), Fault> {
        let peer = match &mut self.peer {
            Some(peer) => peer,
            none => none.insert(Peer::connect(address).await.map_err(unreachable(address))?),
        };
        for reader in self.idle.drain(..) {
            let request = tail.pull(&reader, Some(HOLD)).request();
            let number = peer.post(request).await.map_err(unreachable(address))?;
            self.held.insert(number, reader);
        }
        Ok(())
    }

    /// The next answer, and whose it is; it may be dropped while it waits.
    async fn next(&mut self, address: &str) -> Result<(Reader, Command), Fault> {
        let Some(peer) = &mut self.peer else {
            return std::future::pending().await;
        };
        loop {
            let answer = peer.next().await.map_err(unreachable(address))?;
            if let Some(reader) = self.held.remove(&answer.opaque) {
                return Ok((reader, answer));
            }
        }
    }
}

fn unreachable(address: &str) -> impl Fn(String) -> Fault {
    move |reason| Fault::Unreachable {
        address: address.to_owned(),
        reason,
    }
}
