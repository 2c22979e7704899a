//! Power cuts: the file system loses what was not synced, under load; then the journal is replayed and the broker started again.

use crate::Outcome;
use crate::disk::Disk;
use crate::kills::{Flush, make_topics};
use crate::ledger::{Expect, Ledger};
use crate::load::{Load, Pace};
use crate::node::{Node, Part};
use crate::rebuild;
use crate::report::Times;
use crate::wire::Broker;
use std::path::Path;
use std::sync::Arc;
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
    let dir = args.common.dir("power")?;
    campaign(&args, &dir, &mut random).await.map_err(|error| {
        format!(
            "{:?}, the disk is kept in {}: {error}",
            args.flush,
            dir.display()
        )
    })?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

async fn campaign(args: &Power, dir: &Path, random: &mut fastrand::Rng) -> Outcome<()> {
    let mut disk = Disk::new(dir, 2048)?;
    let store = disk.mount.join("store").display().to_string();
    let properties = [args.flush.property(), ("storePathRootDir", store)];
    let mut node = Node::new(
        &args.common.rmqctl,
        dir,
        Part::Broker,
        args.common.port,
        &properties,
    )?;
    let ledger = Arc::new(Ledger::default());
    let broker = Broker::at(node.address());
    let began = Instant::now();
    node.start().await?;
    make_topics(&broker).await?;
    let (mut restarts, mut ends) = (Times::default(), Times::default());
    let (mut compared, mut lived_on) = ((0, 0), 0);
    for round in 1..=args.rounds {
        let pace = Pace {
            producers: 4,
            rest_ms: if random.u8(..10) == 0 { 0 } else { 12 },
        };
        let load = Load::start(&node.address(), &ledger, pace, random);
        // Long enough, mostly, that something is old enough to be owed in ASYNC_FLUSH as well.
        let most = if args.flush == Flush::Async {
            3000
        } else {
            600
        };
        tokio::time::sleep(Duration::from_micros(random.u64(1000..most * 1000))).await;
        let said_before = node.log_len();
        let mut after_the_cut = None;
        // Either it goes with the power, or it lives on to find its disk failing.
        let lives_on = random.u8(..3) == 0;
        if !lives_on {
            node.pause()?;
        }
        let last_sure = Instant::now();
        disk.cut()?;
        if lives_on {
            let gone = Instant::now();
            let first = ledger.sent();
            let status = node.ended(ENDS).await;
            let status =
                status.map_err(|error| format!("round {round}, the disk fails: {error}"))?;
            ends.push(gone.elapsed());
            if status.code() != Some(1) || !node.logged(said_before, SAYS) {
                return Err(format!("round {round}: it ended with {status}, and should with code 1 and {SAYS:?}\n{}", node.tail()).into());
            }
            after_the_cut = Some(first);
            lived_on += 1;
        } else {
            node.kill().await?;
        }
        let ended = load.end().await;
        ended.map_err(|error| format!("round {round}: {error}"))?;
        if let Some(first) = after_the_cut {
            let late = ledger.acknowledged_from(first);
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
            let options = node.config()?.store_options();
            compared = rebuild::compare(&options, &ledger, &disk.mount.join("copy"))
                .map_err(|error| format!("round {round}, compared with a rebuild: {error}"))?;
        }
        restarts.push(node.start().await?);
        let expect = match args.expect.unwrap_or(args.flush) {
            Flush::Async => Expect::Prefix {
                acknowledged_from: last_sure.checked_sub(FLUSHED).unwrap_or(began),
            },
            // ext4 lets a sync that is under way during the cut succeed without what it covers; a power cut leaves nobody to tell.
            Flush::Sync if lives_on => Expect::Prefix {
                acknowledged_from: last_sure,
            },
            Flush::Sync => Expect::Everything,
        };
        let held = ledger.check(&broker, last_sure, expect).await;
        held.map_err(|error| format!("round {round}: {error}\n{}", node.tail()))?;
    }
    node.stop().await?;
    disk.detach()?;
    let counts = ledger.counts();
    println!(
        "{:?}: {} power cuts in {:.0?}; {} acknowledged, 0 lost that were promised, {} lost at the log's end that were not; \
         {} unanswered or refused, of which {} are there; {} commits; {lived_on} times the broker was left to find its disk failing, and ended {ends} later; \
         {} queue entries and {} keys as a rebuild gives them; restart to first answer {restarts}",
        args.flush,
        args.rounds,
        began.elapsed(),
        counts.acknowledged,
        counts.lost_suffix,
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
