//! What an acknowledgement is worth, tried on real processes and a real disk: nodes are killed, cut from their disk, filled up
//! and flooded under load, and a ledger kept outside them says what must be there afterwards.
//!
//!     cargo run --release -p broker-engine --example durability -- kills --rmqctl PATH --rounds 1000
//!
//! Each run prints its seed; `--seed` gives the same choices again, if not the same moments.

mod disk;
mod full;
mod hostile;
mod kills;
mod ledger;
mod load;
mod message;
mod node;
mod power;
mod rebuild;
mod replicated;
mod report;
mod rolling;
mod trial;
mod wire;

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a command comes to.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// kill -9 at random moments under load
    Kills(kills::Kills),
    /// kill -9 of a SYNC_MASTER that waits for its slave
    Replicated(replicated::Replicated),
    /// Power cuts under load, on a file system of its own (root)
    Power(power::Power),
    /// Whether this machine lets `power` and `full` have a file system of their own: says why not, and fails
    Disk(Common),
    /// A full disk under load, and room again (root)
    Full(full::Full),
    /// Hostile clients beside good ones
    Hostile(hostile::Hostile),
    /// Rolling restarts of a cluster of rmqctl's under load
    Rolling(rolling::Rolling),
}

/// What all of them need.
#[derive(Debug, clap::Args)]
struct Common {
    /// The binary whose engine is tried
    #[arg(long, default_value = "rmqctl")]
    rmqctl: PathBuf,
    /// First of the ports used; twenty are enough
    #[arg(long, default_value_t = 25010)]
    port: u16,
    /// Where stores are put; one that fails is kept
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
    /// What the random choices follow from
    #[arg(long, default_value_t = fastrand::u64(..))]
    seed: u64,
}

impl Common {
    fn random(&self) -> fastrand::Rng {
        println!("seed {}", self.seed);
        fastrand::Rng::with_seed(self.seed)
    }

    /// An empty directory of this process's own.
    fn dir(&self, name: &str) -> Outcome<PathBuf> {
        let dir = self
            .work
            .join(format!("durability-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Runs a campaign in a directory of its own, which stays when it fails.
    async fn in_dir(
        &self,
        name: &str,
        campaign: impl AsyncFnOnce(&Path) -> Outcome<()>,
    ) -> Outcome<()> {
        let dir = self.dir(name)?;
        campaign(&dir)
            .await
            .map_err(|error| format!("{name}, kept in {}: {error}", dir.display()))?;
        Ok(std::fs::remove_dir_all(&dir)?)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let ended = match Args::parse().what {
        What::Kills(args) => kills::run(args).await,
        What::Replicated(args) => replicated::run(args).await,
        What::Rolling(args) => rolling::run(args).await,
        What::Power(args) => power::run(args).await,
        What::Disk(common) => disk::possible(&common),
        What::Full(args) => full::run(args).await,
        What::Hostile(args) => hostile::run(args).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
