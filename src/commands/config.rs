//! `config`: the properties of nodes, in files and in the running processes.

mod apply;
mod diff;
mod files;
mod get;
mod lint;
mod render;
mod running;
mod set;

use super::Session;
use crate::error::Error;
use crate::ui::Format;

/// The properties of nodes: render, check, compare, read and change them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config lint                               are the files right?
  rmqctl config diff                               do the nodes run what the files say?
  rmqctl config get rmqmaster1 maxMessageSize      what does this node really use?
  rmqctl config set maxMessageSize=8388608         change it, at once where that is possible")]
pub struct Config {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Render(Box<render::Render>),
    Lint(lint::Lint),
    Diff(diff::Diff),
    Get(get::Get),
    Set(set::Set),
    Pull(files::Pull),
    Push(files::Push),
}

impl Config {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let output = match &self.what {
            What::Lint(args) => args.output,
            What::Diff(args) => args.output,
            What::Get(args) => args.output,
            What::Set(args) => args.output,
            What::Push(args) => args.output,
            What::Render(_) | What::Pull(_) => return false,
        };
        output == Format::Json
    }
}

/// `config`
pub async fn config(args: Config, session: &Session<'_>) -> Result<u8, Error> {
    match args.what {
        What::Render(args) => render::render(*args, session).await,
        What::Lint(args) => lint::lint(args, session).await,
        What::Diff(args) => diff::diff(args, session).await,
        What::Get(args) => get::get(args, session).await,
        What::Set(args) => set::set(args, session).await,
        What::Pull(args) => files::pull(args, session).await,
        What::Push(args) => files::push(args, session).await,
    }
}
