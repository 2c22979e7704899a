//! `man`: the manual pages, from the same definitions as `--help`.

use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::{Cli, Session};
use crate::error::{Error, Exit};

/// Write the manual pages, one a command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl man ~/.local/share/man/man1     then: man rmqctl-up
  rmqctl man .")]
pub struct Man {
    /// Directory to write into; it is made if it is not there
    dir: PathBuf,
}

/// `man`
pub fn man(args: Man, session: &Session<'_>) -> Result<u8, Error> {
    let dir = session.cwd.join(&args.dir);
    write(&dir).map_err(|reason| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write into {}", args.dir.display()),
        )
        .detail(reason.to_string())
        .hint("name a directory that you may write")
    })?;
    session.ui.note(&format!(
        "The manual pages are in {}.   man {}",
        args.dir.display(),
        args.dir.join("rmqctl.1").display()
    ));
    Ok(0)
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        for (page, word) in [
            ("rmqctl.1", "rmqctl"),
            ("rmqctl-up.1", "fileReservedTime=72"),
            ("rmqctl-config-render.1", "DIR"),
        ] {
            let text = std::fs::read_to_string(dir.path().join(page)).unwrap();
            assert!(text.contains(word), "{page}: {word}\n{text}");
        }
        assert!(!dir.path().join("rmqctl-engine.1").exists());
    }
}
