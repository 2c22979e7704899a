//! kill -9 at random moments under load, restart, compare, again.

use crate::Outcome;
use crate::ledger::{Expect, Ledger};
use crate::load::{Load, Pace};
use crate::message::{QUEUES_PER_TOPIC, Queue};
use crate::node::{Node, Part};
use crate::rebuild;
use crate::report::Times;
use crate::wire::Broker;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a send is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flush {
    Async,
    Sync,
}

impl Flush {
    pub fn property(self) -> (&'static str, String) {
        let value = match self {
            Flush::Async => "ASYNC_FLUSH",
            Flush::Sync => "SYNC_FLUSH",
        };
        ("flushDiskType", value.into())
    }
}

/// `kills`
#[derive(Debug, clap::Args)]
pub struct Kills {
    #[command(flatten)]
    common: crate::Common,
    /// Kills for each flush mode
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Flush modes, one after another
    #[arg(long, value_enum, value_delimiter = ',', default_value = "async,sync")]
    flush: Vec<Flush>,
    /// Rounds after which queues and index are compared with a rebuild; at the end they are in any case
    #[arg(long, default_value_t = 50)]
    rebuild_every: usize,
    /// Loses a message on purpose in the last round: the run must fail
    #[arg(long)]
    plant: bool,
}

pub async fn run(args: Kills) -> Outcome<()> {
    let mut random = args.common.random();
    for flush in &args.flush {
        let dir = args
            .common
            .dir(&format!("kills-{flush:?}").to_lowercase())?;
        campaign(&args, *flush, &dir, &mut random)
            .await
            .map_err(|error| {
                format!("{flush:?}, the store is kept in {}: {error}", dir.display())
            })?;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

async fn campaign(
    args: &Kills,
    flush: Flush,
    dir: &Path,
    random: &mut fastrand::Rng,
) -> Outcome<()> {
    let mut node = Node::new(
        &args.common.rmqctl,
        dir,
        Part::Broker,
        args.common.port,
        &[flush.property()],
    )?;
    let ledger = Arc::new(Ledger::default());
    let broker = Broker::at(node.address());
    let began = Instant::now();
    node.start().await?;
    make_topics(&broker).await?;
    let mut restarts = Times::default();
    let (mut early, mut compared) = (0, (0, 0));
    for round in 1..=args.rounds {
        let pace = Pace {
            producers: 4,
            rest_ms: if random.u8(..20) == 0 { 0 } else { 12 },
        };
        let load = Load::start(&node.address(), &ledger, pace, random);
        tokio::time::sleep(moment(round, random)).await;
        let killed = Instant::now();
        node.kill().await?;
        let ended = load.end().await;
        ended.map_err(|error| format!("round {round}: {error}"))?;
        if args.plant && round == args.rounds {
            lose_the_last(&ledger, &node)?;
        }
        // Recovery is killed as well, now and then.
        if random.u8(..8) == 0 {
            node.spawn()?;
            tokio::time::sleep(Duration::from_micros(random.u64(..40_000))).await;
            node.kill().await?;
            early += 1;
        }
        if round % args.rebuild_every == 0 || round == args.rounds {
            let options = node.config()?.store_options();
            compared = rebuild::compare(&options, &ledger, &dir.join("copy"))
                .map_err(|error| format!("round {round}, compared with a rebuild: {error}"))?;
        }
        restarts.push(node.start().await?);
        let held = ledger.check(&broker, killed, Expect::Everything).await;
        held.map_err(|error| format!("round {round}: {error}\n{}", node.tail()))?;
    }
    node.stop().await?;
    let counts = ledger.counts();
    println!(
        "{flush:?}: {} kills ({early} more in the middle of recovery) in {:.0?}; {} acknowledged, 0 lost; {} unanswered, of which {} are there; \
         {} commits; {} queue entries and {} keys as a rebuild gives them; restart to first answer {restarts}",
        args.rounds,
        began.elapsed(),
        counts.acknowledged,
        counts.unanswered + counts.maybe,
        counts.found_all_the_same,
        counts.committed,
        compared.0,
        compared.1,
    );
    if counts.acknowledged < 10 * args.rounds as u64 {
        return Err("hardly anything was acknowledged: this shows nothing".into());
    }
    Ok(())
}

/// How long a round's load runs: mostly short, now and then long enough for offsets to be due in their file.
fn moment(round: usize, random: &mut fastrand::Rng) -> Duration {
    let most = if round.is_multiple_of(20) { 2500 } else { 300 };
    Duration::from_micros(random.u64(1000..most * 1000))
}

/// Makes the topics, so that no round begins without them.
pub async fn make_topics(broker: &Broker) -> Outcome<()> {
    for first in Queue::all().step_by(QUEUES_PER_TOPIC.into()) {
        let answer = broker.call(topic(&first.topic())).await?;
        if answer.code != response::SUCCESS {
            return Err(format!(
                "making a topic was answered {}: {:?}",
                answer.code, answer.remark
            )
            .into());
        }
    }
    Ok(())
}

/// UPDATE_AND_CREATE_TOPIC.
pub fn topic(name: &str) -> Command {
    let ext = ExtFields::new()
        .with("topic", name)
        .with("defaultTopic", "TBW102")
        .with("readQueueNums", QUEUES_PER_TOPIC)
        .with("writeQueueNums", QUEUES_PER_TOPIC)
        .with("perm", 6)
        .with("topicFilterType", "SINGLE_TAG")
        .with("topicSysFlag", 0)
        .with("order", false);
    Command::request(request::UPDATE_AND_CREATE_TOPIC, ext)
}

/// Takes the message that was acknowledged last out of the log, as a write that never reached it would.
fn lose_the_last(ledger: &Ledger, node: &Node) -> Outcome<()> {
    let (_, at) = ledger
        .last_acknowledged()
        .ok_or("nothing was acknowledged in the last round")?;
    let size = node.config()?.mapped_file_size_commit_log as i64;
    let base = at / size * size;
    let path: PathBuf = node.dir.join("store/commitlog").join(format!("{base:020}"));
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all_at(&vec![0; (base + size - at) as usize], (at - base) as u64)?;
    Ok(())
}
