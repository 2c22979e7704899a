//! kill -9 of a SYNC_MASTER with one slave, where `inSyncReplicas=2` has every acknowledgement wait for it: what was acknowledged
//! is on the slave while the master is away, and on the master when it is back.

use crate::Outcome;
use crate::kills::Flush;
use crate::ledger::{Expect, Ledger};
use crate::load::{Load, Pace};
use crate::message::Queue;
use crate::node::{Node, Part};
use crate::report::Times;
use crate::trial::make_topics;
use crate::wire::{Broker, TIMEOUT};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// `replicated`
#[derive(Debug, clap::Args)]
pub struct Replicated {
    #[command(flatten)]
    common: crate::Common,
    /// Kills of the master
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Flush mode of both
    #[arg(long, value_enum, default_value = "async")]
    flush: Flush,
    /// The master waits for nobody: the run must fail
    #[arg(long)]
    plant: bool,
}

pub async fn run(args: Replicated) -> Outcome<()> {
    let mut random = args.common.random();
    let campaign = async |dir: &Path| campaign(&args, dir, &mut random).await;
    args.common.in_dir("replicated", campaign).await
}

async fn campaign(args: &Replicated, dir: &Path, random: &mut fastrand::Rng) -> Outcome<()> {
    let port = args.common.port;
    let rmqctl = &args.common.rmqctl;
    let namesrv_address = ("namesrvAddr", format!("127.0.0.1:{port}"));
    let mut namesrv = Node::new(rmqctl, &dir.join("namesrv"), Part::Namesrv, port, &[])?;
    let replicas = if args.plant { "1" } else { "2" };
    let of_master = [
        namesrv_address.clone(),
        args.flush.property(),
        ("brokerRole", "SYNC_MASTER".into()),
        ("totalReplicas", "2".into()),
        ("inSyncReplicas", replicas.into()),
    ];
    let mut master = Node::new(
        rmqctl,
        &dir.join("master"),
        Part::Broker,
        port + 10,
        &of_master,
    )?;
    let of_slave = [
        namesrv_address,
        args.flush.property(),
        ("brokerRole", "SLAVE".into()),
        ("brokerId", "1".into()),
    ];
    let mut slave = Node::new(
        rmqctl,
        &dir.join("slave"),
        Part::Broker,
        port + 20,
        &of_slave,
    )?;
    namesrv.start().await?;
    master.start().await?;
    slave.start().await?;
    let (on_master, on_slave) = (Broker::at(master.address()), Broker::at(slave.address()));
    make_topics(&on_master).await?;
    let ledger = Arc::new(Ledger::default());
    let began = Instant::now();
    let mut follows = Times::default();
    for round in 1..=args.rounds {
        let in_round = |error| format!("round {round}: {error}");
        let load = Load::start(
            &master.address(),
            &ledger,
            Pace {
                producers: 4,
                rest_ms: 12,
            },
            random,
        );
        // Until the slave follows, sends end in a time-out, which promises nothing.
        let before = Instant::now();
        while ledger.acknowledged_in_round() == 0 {
            if before.elapsed() > TIMEOUT {
                return Err(format!(
                    "round {round}: nothing is acknowledged; the last refusal is {:?}\n{}",
                    load.refusal(),
                    slave.tail()
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        follows.push(before.elapsed());
        tokio::time::sleep(Duration::from_micros(random.u64(1000..600_000))).await;
        // A slave that stands still gets nothing more, so that nothing more may be acknowledged.
        let stands_still = round % 2 == 0;
        if stands_still && args.plant {
            // Gone, not paused: a paused one finds what was acknowledged meanwhile in its socket when it goes on.
            slave.kill().await?;
            let with_it = ledger.acknowledged_in_round();
            while ledger.acknowledged_in_round() < with_it + 20 {
                if before.elapsed() > TIMEOUT {
                    return Err("nothing is acknowledged without the slave".into());
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        } else if stands_still {
            slave.pause()?;
            tokio::time::sleep(Duration::from_millis(random.u64(1..300))).await;
        }
        let killed = Instant::now();
        master.kill().await?;
        if stands_still && args.plant {
            slave.start().await?;
        } else if stands_still {
            slave.resume()?;
        }
        load.end().await.map_err(in_round)?;
        ledger
            .promised_are_on(&on_slave)
            .await
            .map_err(|error| format!("round {round}, on the slave: {error}"))?;
        master.start().await?;
        let held = ledger.check(&on_master, killed, Expect::Everything).await;
        held.map_err(|error| format!("round {round}: {error}\n{}", master.tail()))?;
    }
    same_bytes(&on_master, &on_slave).await?;
    slave.stop().await?;
    master.stop().await?;
    namesrv.stop().await?;
    let bytes = same_logs(&master, &slave)?;
    let counts = ledger.counts();
    println!(
        "SYNC_MASTER, inSyncReplicas={replicas}, {:?}: {} kills of the master in {:.0?}; {} acknowledged, 0 lost on slave and master; {} timed out or unanswered, \
         of which {} are there; acknowledged again {follows} after the load began; the logs are the same {bytes} bytes",
        args.flush,
        args.rounds,
        began.elapsed(),
        counts.acknowledged,
        counts.maybe + counts.unanswered,
        counts.found_all_the_same,
    );
    Ok(())
}

/// Waits until the slave has what the master has.
async fn same_bytes(master: &Broker, slave: &Broker) -> Outcome<()> {
    let began = Instant::now();
    while master.log_end().await? != slave.log_end().await? {
        if began.elapsed() > TIMEOUT {
            return Err("the slave does not catch up".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for queue in Queue::all() {
        let (on_master, on_slave) = (master.bounds(queue).await?, slave.bounds(queue).await?);
        if on_master != on_slave {
            return Err(format!(
                "{queue} has {on_master:?} on the master, {on_slave:?} on the slave"
            )
            .into());
        }
    }
    Ok(())
}

/// Compares the two commit logs; returns how many bytes they have.
fn same_logs(master: &Node, slave: &Node) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(master.dir.join("store/commitlog"))? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?;
        let (one, other) = (
            std::fs::read(&path)?,
            std::fs::read(slave.dir.join("store/commitlog").join(name))?,
        );
        if let Some(at) = one.iter().zip(&other).position(|(a, b)| a != b) {
            return Err(format!("{} differs at {at}", path.display()).into());
        }
        bytes += one.len() as u64;
    }
    Ok(bytes)
}
