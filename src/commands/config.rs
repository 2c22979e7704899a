//! `config render`: the generated files, written where you say.

use std::path::PathBuf;

use super::{Session, up};
use crate::error::Error;
use crate::properties;
use crate::spec::SpecFlags;

/// The properties files of the nodes
#[derive(Debug, clap::Args)]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Render(Render),
}

/// Write the files that `up` with the same flags would generate; nothing is started
#[derive(Debug, clap::Args)]
struct Render {
    /// Directory to write into
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `config`
pub async fn config(args: Config, session: &Session<'_>) -> Result<u8, Error> {
    let What::Render(args) = args.what;
    let resolved = up::resolve(&args.spec, session).await?;
    let dir = session.cwd.join(&args.dir);
    for name in properties::render_into(&resolved.desired, &dir)? {
        session
            .ui
            .out(&format!("{}\n", args.dir.join(name).display()));
    }
    Ok(0)
}
