//! Power cuts: the file system loses what was not synced, under load; then the journal is replayed and the broker started again.

use crate::Outcome;
use crate::disk::Disk;
use crate::kills::Flush;
use crate::ledger::Expect;
use crate::load::{Load, Pace};
use crate::report::Times;
use crate::trial::Trial;
use std::path::Path;
use std::time::{Duration, Instant};

/// Within which a broker whose disk fails must have ended.
const ENDS: Duration = Duration::from_secs(3);
/// What it must say then.
const SAYS: &str = "the store failed, so this broker stops";
/// An acknowledgement that is older than this when the power goes holds in ASYNC_FLUSH too: the interval of 500 ms, and the
/// sync itself on a disk that is busy.
const FLUSHED: Duration = Duration::from_millis(1500);

/// `power`
#[derive(Debug, clap::Args)]
pub struct Power {
    #[command(flatten)]
    common: crate::Common,
    /// Cuts
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Flush mode of the broker
    #[arg(long, value_enum, default_value = "sync")]
    flush: Flush,
    /// What is asked of it, when that is more than its flush mode promises: the run must fail
    #[arg(long, value_enum)]
    expect: Option<Flush>,
    /// Rounds after which queues and index are compared with a rebuild; at the end they are in any case
    #[arg(long, default_value_t = 10)]
    rebuild_every: usize,
}

pub async fn run(args: Power) -> Outcome<()> {
    let mut random = args.common.random();
    let campaign = async |dir: &Path| campaign(&args, dir, &mut random).await;
    let name = format!("power-{:?}", args.flush).to_lowercase();
    args.common.in_dir(&name, campaign).await
}

async fn campaign(args: &Power, dir: &Path, random: &mut fastrand::Rng) -> Outcome<()> {
    let mut disk = Disk::new(dir, 2048)?;
    let store = disk.mount.join("store").display().to_string();
    let properties = [args.flush.property(), ("storePathRootDir", store)];
    let mut trial = Trial::begin(&args.common, dir, &properties).await?;
    let (mut restarts, mut ends) = (Times::default(), Times::default());
    let (mut compared, mut lived_on) = ((0, 0), 0);
    for round in 1..=args.rounds {
        let pace = Pace {
            producers: 4,
            rest_ms: if random.u8(..10) == 0 { 0 } else { 12 },
        };
        let load = Load::start(&trial.node.address(), &trial.ledger, pace, random);
        // Long enough, mostly, that something is old enough to be owed in ASYNC_FLUSH as well.
        let most = if args.flush == Flush::Async {
            3000
        } else {
            600
        };
        tokio::time::sleep(Duration::from_micros(random.u64(1000..most * 1000))).await;
        let said_before = trial.node.log_len();
        let mut after_the_cut = None;
        // Either it goes with the power, or it lives on to find its disk failing.
        let lives_on = random.u8(..3) == 0;
        if !lives_on {
            trial.node.pause()?;
        }
        let last_sure = Instant::now();
        disk.cut()?;
        if lives_on {
            let gone = Instant::now();
            let first = trial.ledger.sent();
            let status = trial.node.ended(ENDS).await;
            let status =
                status.map_err(|error| format!("round {round}, the disk fails: {error}"))?;
            ends.push(gone.elapsed());
            if status.code() != Some(1) || !trial.node.logged(said_before, SAYS) {
                return Err(format!("round {round}: it ended with {status}, and should with code 1 and {SAYS:?}\n{}", trial.node.tail()).into());
            }
            after_the_cut = Some(first);
            lived_on += 1;
        } else {
            trial.node.kill().await?;
        }
        let ended = load.end().await;
        ended.map_err(|error| format!("round {round}: {error}"))?;
        if let Some(first) = after_the_cut {
            let late = trial.ledger.acknowledged_from(first);
            if late > 0 {
                return Err(format!(
                    "round {round}: {late} messages that were sent after the cut were acknowledged"
                )
                .into());
            }
        }
        disk.detach()?;
        disk.attach()?;
        if round % args.rebuild_every == 0 || round == args.rounds {
            compared = trial.compare(round, &disk.mount.join("copy"))?;
        }
        restarts.push(trial.node.start().await?);
        let expect = match args.expect.unwrap_or(args.flush) {
            Flush::Async => Expect::Prefix {
                acknowledged_from: last_sure.checked_sub(FLUSHED).unwrap_or(trial.began),
            },
            // ext4 lets a sync that is under way during the cut succeed without what it covers; a power cut leaves nobody to tell.
            Flush::Sync if lives_on => Expect::Prefix {
                acknowledged_from: last_sure,
            },
            Flush::Sync => Expect::Everything,
        };
        trial.holds(round, last_sure, expect).await?;
    }
    trial.node.stop().await?;
    disk.detach()?;
    let counts = trial.ledger.counts();
    println!(
        "{:?}: {} power cuts in {:.0?}; {} acknowledged, 0 lost that were promised, {} lost at the log's end that were not; \
         {} unanswered or refused, of which {} are there; {} commits; {lived_on} times the broker was left to find its disk failing, and ended {ends} later; \
         {} queue entries and {} keys as a rebuild gives them; restart to first answer {restarts}",
        args.flush,
        args.rounds,
        trial.began.elapsed(),
        counts.acknowledged,
        counts.lost_suffix,
        counts.unanswered + counts.maybe,
        counts.found_all_the_same,
        counts.committed,
        compared.0,
        compared.1,
    );
    trial.shows_something(args.rounds)
}
