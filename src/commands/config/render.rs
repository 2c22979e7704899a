//! `config render`: the generated files, written where you say.

use std::path::PathBuf;

use crate::commands::{Session, up};
use crate::error::Error;
use crate::properties;
use crate::spec::SpecFlags;

/// Write the files that `up` with the same flags would generate; nothing is started
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config render conf --masters 2 --slaves 2
  rmqctl config render conf -f cluster.yaml")]
pub struct Render {
    /// Directory to write into
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    spec: SpecFlags,
}

/// `config render`
pub async fn render(args: Render, session: &Session<'_>) -> Result<u8, Error> {
    let resolved = up::resolve(&args.spec, session).await?;
    let dir = session.cwd.join(&args.dir);
    for name in properties::render_into(&resolved.desired, &dir)? {
        session
            .ui
            .out(&format!("{}\n", args.dir.join(name).display()));
    }
    Ok(0)
}
