//! kill -9 at random moments under load, restart, compare, again.

use crate::Outcome;
use crate::ledger::{Expect, Ledger};
use crate::load::{Load, Pace};
use crate::node::Node;
use crate::report::Times;
use crate::trial::Trial;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
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
        let name = format!("kills-{flush:?}").to_lowercase();
        let campaign = async |dir: &Path| campaign(&args, *flush, dir, &mut random).await;
        args.common.in_dir(&name, campaign).await?;
    }
    Ok(())
}

async fn campaign(
    args: &Kills,
    flush: Flush,
    dir: &Path,
    random: &mut fastrand::Rng,
) -> Outcome<()> {
    let mut trial = Trial::begin(&args.common, dir, &[flush.property()]).await?;
    let mut restarts = Times::default();
    let (mut early, mut compared) = (0, (0, 0));
    for round in 1..=args.rounds {
        let pace = Pace {
            producers: 4,
            rest_ms: if random.u8(..20) == 0 { 0 } else { 12 },
        };
        let load = Load::start(&trial.node.address(), &trial.ledger, pace, random);
        tokio::time::sleep(moment(round, random)).await;
        let killed = Instant::now();
        trial.node.kill().await?;
        let ended = load.end().await;
        ended.map_err(|error| format!("round {round}: {error}"))?;
        if args.plant && round == args.rounds {
            lose_the_last(&trial.ledger, &trial.node)?;
        }
        // Recovery is killed as well, now and then.
        if random.u8(..8) == 0 {
            trial.node.spawn()?;
            tokio::time::sleep(Duration::from_micros(random.u64(..40_000))).await;
            trial.node.kill().await?;
            early += 1;
        }
        if round % args.rebuild_every == 0 || round == args.rounds {
            compared = trial.compare(round, &dir.join("copy"))?;
        }
        restarts.push(trial.node.start().await?);
        trial.holds(round, killed, Expect::Everything).await?;
    }
    trial.node.stop().await?;
    let counts = trial.ledger.counts();
    println!(
        "{flush:?}: {} kills ({early} more in the middle of recovery) in {:.0?}; {} acknowledged, 0 lost; {} unanswered, of which {} are there; \
         {} commits; {} queue entries and {} keys as a rebuild gives them; restart to first answer {restarts}",
        args.rounds,
        trial.began.elapsed(),
        counts.acknowledged,
        counts.unanswered + counts.maybe,
        counts.found_all_the_same,
        counts.committed,
        compared.0,
        compared.1,
    );
    trial.shows_something(args.rounds)
}

/// How long a round's load runs: mostly short, now and then long enough for offsets to be due in their file.
fn moment(round: usize, random: &mut fastrand::Rng) -> Duration {
    let most = if round.is_multiple_of(20) { 2500 } else { 300 };
    Duration::from_micros(random.u64(1000..most * 1000))
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
