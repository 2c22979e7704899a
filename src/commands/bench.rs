//! `bench`: a small load from this binary itself, with the memory of the nodes before and after.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use rocketmq_protocol::body::TopicConfig;
use rocketmq_protocol::code::response;
use rocketmq_protocol::record;
use rocketmq_protocol::topic::perm;

use super::{Cluster, Session};
use crate::client::Peer;
use crate::client::admin::Broker;
use crate::client::message::{Draft, Pull, Pulled, UniqueIds};
use crate::error::{Error, Exit};
use crate::moment::now_ms;
use crate::ui::{self, Format};

/// Put a small load on the cluster: messages a second, latencies, memory of the nodes before and after.
///
/// It shares this machine's processors with the cluster, so it says how this machine does as a whole, and not what a broker
/// could do: for that run benches/rmqload from another one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  rmqctl bench
  rmqctl bench consume --seconds 10
  rmqctl bench e2e --connections 2 --in-flight 1 --size 256 -o json

The topic is rmqctl_bench; it is deleted afterwards.")]
pub struct Bench {
    /// What is measured
    #[arg(value_name = "MODE", default_value = "produce")]
    mode: Mode,
    /// Connections that send
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Sends that wait for their answers on each connection
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Bytes of a body
    #[arg(long, value_name = "BYTES", default_value = "1024", value_parser = clap::value_parser!(u32).range(16..=4_000_000))]
    size: u32,
    /// How long to send
    #[arg(long, value_name = "S", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Send; the latency is that of an acknowledgement
    Produce,
    /// Send for that long, then pull all of it; the latency is that of a pull
    Consume,
    /// Send and pull at once; the latency is from a send's start until the message has come back
    E2e,
}

impl Bench {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

const TOPIC: &str = "rmqctl_bench";
const QUEUES: i32 = 4;
/// How long a broker may hold a pull that finds nothing.
const HOLD: Duration = Duration::from_secs(1);
/// Messages asked for in one pull.
const BATCH: i32 = 32;

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    mode: Mode,
    connections: u16,
    in_flight: u16,
    size: u32,
    seconds: f64,
    messages: usize,
    /// Sends that were not acknowledged.
    refused: usize,
    messages_per_second: f64,
    mebibytes_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    nodes: Vec<Memory>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    node: String,
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
}

/// What one connection did.
#[derive(Debug, Default)]
struct Load {
    messages: usize,
    refused: usize,
    /// µs each.
    times: Vec<u32>,
}

impl Load {
    fn timed(&mut self, time: Duration) {
        self.times
            .push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    fn sum(loads: Vec<Load>) -> Load {
        let mut all = Load::default();
        for load in loads {
            all.messages += load.messages;
            all.refused += load.refused;
            all.times.extend(load.times);
        }
        all.times.sort_unstable();
        all
    }

    /// ms, with two digits behind the point.
    fn percentile(&self, p: f64) -> f64 {
        let at = (self.times.len() as f64 * p / 100.0).ceil() as usize;
        let time = self.times.get(at.max(1) - 1);
        time.map_or(0.0, |us| (f64::from(*us) / 10.0).round() / 100.0)
    }
}

/// `bench`
pub async fn bench(args: Bench, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let mut admin = cluster.admin();
    let masters = admin.masters().await?;
    if masters.is_empty() {
        return Err(
            Error::new("RMQ-E350", Exit::Failed, "no master is registered")
                .hint(cluster.desired.suggest("status   shows why")),
        );
    }
    let config = TopicConfig::new(TOPIC, QUEUES, perm::READ | perm::WRITE);
    for master in &masters {
        admin.put_topic(&master.address, &config).await?;
    }
    let done = tokio::select! {
        done = args.measure(&masters, &cluster) => done,
        () = session.interrupt.requested() => Err(session.interrupt.error()),
    };
    let cleared = admin.delete_topic(TOPIC).await;
    let report = done?;
    cleared?;
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        _ => session.ui.out(&text(&report)),
    }
    Ok(0)
}

impl Bench {
    async fn measure(&self, masters: &[Broker], cluster: &Cluster) -> Result<Report, Error> {
        let before = memory(cluster).await?;
        let began = Instant::now();
        let (load, seconds) = match self.mode {
            Mode::Produce => (self.produce(masters, began).await?, began.elapsed()),
            Mode::Consume => {
                self.produce(masters, began).await?;
                let began = Instant::now();
                (self.consume(masters, began, None).await?, began.elapsed())
            }
            Mode::E2e => {
                let end = began + self.lasts();
                let sent = self.produce(masters, began);
                let (sent, got) = tokio::join!(sent, self.consume(masters, began, Some(end)));
                let (sent, got) = (sent?, got?);
                let refused = sent.refused;
                (Load { refused, ..got }, began.elapsed())
            }
        };
        let after = memory(cluster).await?;
        let seconds = seconds.as_secs_f64();
        let rate = load.messages as f64 / seconds;
        let round = |value: f64| (value * 10.0).round() / 10.0;
        Ok(Report {
            mode: self.mode,
            connections: self.connections,
            in_flight: self.in_flight,
            size: self.size,
            seconds: round(seconds),
            messages: load.messages,
            refused: load.refused,
            messages_per_second: round(rate),
            mebibytes_per_second: round(rate * f64::from(self.size) / f64::from(1 << 20)),
            p50_ms: load.percentile(50.0),
            p99_ms: load.percentile(99.0),
            p999_ms: load.percentile(99.9),
            nodes: before
                .into_iter()
                .zip(after)
                .map(|((node, before_bytes), (_, after_bytes))| Memory {
                    node,
                    before_bytes,
                    after_bytes,
                })
                .collect(),
        })
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    async fn produce(&self, masters: &[Broker], began: Instant) -> Result<Load, Error> {
        let each = (0..i32::from(self.connections)).map(|number| {
            let master = &masters[number as usize % masters.len()];
            let queue = number / masters.len() as i32 % QUEUES;
            let sender = Sender {
                address: master.address.clone(),
                queue,
                in_flight: usize::from(self.in_flight),
                size: self.size as usize,
                began,
                end: began + self.lasts(),
            };
            tokio::spawn(sender.run())
        });
        gather(each).await
    }

    /// Pulls every queue: what is there, or until `end` and what was sent till then.
    async fn consume(
        &self,
        masters: &[Broker],
        began: Instant,
        end: Option<Instant>,
    ) -> Result<Load, Error> {
        let queues = masters
            .iter()
            .flat_map(|master| (0..QUEUES).map(move |queue| (master.address.clone(), queue)));
        let each = queues.map(|(address, queue)| tokio::spawn(pull(address, queue, began, end)));
        gather(each).await
    }
}

/// Waits for all connections; the first failure is told.
async fn gather(
    each: impl Iterator<Item = tokio::task::JoinHandle<Result<Load, String>>>,
) -> Result<Load, Error> {
    let failed =
        |reason: String| Error::new("RMQ-E351", Exit::Failed, "the load broke off").detail(reason);
    let mut loads = Vec::new();
    for ended in join_all(each).await {
        loads.push(ended.map_err(|e| failed(e.to_string()))?.map_err(failed)?);
    }
    Ok(Load::sum(loads))
}

struct Sender {
    address: String,
    queue: i32,
    in_flight: usize,
    size: usize,
    /// What times in bodies are counted from.
    began: Instant,
    end: Instant,
}

impl Sender {
    async fn run(self) -> Result<Load, String> {
        let mut peer = Peer::connect(&self.address).await?;
        let mut load = Load::default();
        let mut ids = UniqueIds::new(now_ms());
        let mut flying: HashMap<i32, Instant> = HashMap::new();
        loop {
            while flying.len() < self.in_flight && Instant::now() < self.end {
                let now = Instant::now();
                let mut body = vec![b'x'; self.size];
                let since = (now - self.began).as_micros() as u64;
                body[..8].copy_from_slice(&since.to_be_bytes());
                let draft = Draft {
                    topic: TOPIC.into(),
                    body: Bytes::from(body),
                    properties: Vec::new(),
                };
                let ms = now_ms();
                let request = draft.send(self.queue, &ids.next(ms), ms);
                flying.insert(peer.post(request).await?, now);
            }
            if flying.is_empty() {
                return Ok(load);
            }
            let answer = peer.next().await?;
            let Some(sent) = flying.remove(&answer.opaque) else {
                continue;
            };
            match answer.code {
                response::SUCCESS => {
                    load.messages += 1;
                    load.timed(sent.elapsed());
                }
                _ => load.refused += 1,
            }
        }
    }
}

/// Reads one queue from its first offset. With `end`, holds pulls until then and times each message from its send; without,
/// reads what is there and times each pull.
async fn pull(
    address: String,
    queue: i32,
    began: Instant,
    end: Option<Instant>,
) -> Result<Load, String> {
    let mut peer = Peer::connect(&address).await?;
    let mut load = Load::default();
    let mut next = 0;
    loop {
        let asked = Instant::now();
        let over = end.is_none_or(|end| asked >= end);
        let pull = Pull {
            topic: TOPIC,
            queue,
            offset: next,
            max: BATCH,
            filter: "*",
            // No longer than the load goes on, so that the time measured is the load's.
            hold: end
                .map(|end| end.saturating_duration_since(asked).min(HOLD))
                .filter(|left| !left.is_zero()),
        };
        let answer = peer.call(pull.request()).await?;
        let pulled = Pulled::read(&answer, &address).map_err(|fault| fault.to_string())?;
        if end.is_none() && !pulled.records.is_empty() {
            load.timed(asked.elapsed());
        }
        for view in record::records(&pulled.records) {
            let view = view.map_err(|e| e.to_string())?;
            load.messages += 1;
            let stamp = view.body().first_chunk::<8>().copied();
            if let (Some(_), Some(stamp)) = (end, stamp) {
                let sent = Duration::from_micros(u64::from_be_bytes(stamp));
                load.timed(began.elapsed().saturating_sub(sent));
            }
        }
        let read_all = pulled.records.is_empty() && pulled.next >= pulled.max;
        next = pulled.next.max(next);
        if over && read_all {
            return Ok(load);
        }
    }
}

/// Memory of each node, by its name.
async fn memory(cluster: &Cluster) -> Result<Vec<(String, Option<u64>)>, Error> {
    let nodes = &cluster.desired.nodes;
    let containers: Vec<String> = nodes.iter().map(|n| n.container.clone()).collect();
    let memory = cluster.runtime.memory(&containers).await?;
    let of =
        |node: &crate::topology::Node| (node.name.clone(), memory.get(&node.container).copied());
    Ok(nodes.iter().map(of).collect())
}

fn text(report: &Report) -> String {
    let mode = match report.mode {
        Mode::Produce => "produce",
        Mode::Consume => "consume",
        Mode::E2e => "e2e",
    };
    let head = format!(
        "{mode}: {} messages of {} bytes in {} s: {} msgs/s, {} MiB/s\nlatency: p50 {} ms, p99 {} ms, p99.9 {} ms{}\n",
        report.messages,
        report.size,
        report.seconds,
        report.messages_per_second,
        report.mebibytes_per_second,
        report.p50_ms,
        report.p99_ms,
        report.p999_ms,
        match report.refused {
            0 => String::new(),
            refused => format!("; {refused} sends were refused"),
        }
    );
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), ui::bytes);
    let rows: Vec<Vec<String>> = report
        .nodes
        .iter()
        .map(|m| vec![m.node.clone(), size(m.before_bytes), size(m.after_bytes)])
        .collect();
    head + &ui::table(&["NODE", "MEMORY BEFORE", "AFTER"], &rows, |_, _| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_connections_are_summed_and_their_times_ranked() {
        let load = |times: Vec<u32>| Load {
            messages: times.len(),
            refused: 1,
            times,
        };
        let all = Load::sum(vec![load(vec![3000, 1000]), load(vec![2000])]);
        assert_eq!((all.messages, all.refused), (3, 2));
        assert_eq!((all.percentile(50.0), all.percentile(99.9)), (2.0, 3.0));
        assert_eq!(Load::default().percentile(50.0), 0.0);
    }
}
