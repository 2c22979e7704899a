//! `init` and `version`.

use std::io::Write;
use std::path::PathBuf;

use super::{Session, engine};
use crate::error::{Error, Exit};
use crate::spec;
use crate::topology::Role;
use crate::ui::Format;

/// Write a starter cluster.yaml
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl init                        ./cluster.yaml, as `up --masters 2 --slaves 2` would have it
  rmqctl init --full team.yaml       with every broker property, its default and what it is for
  rmqctl up -f cluster.yaml")]
pub struct Init {
    /// The file to write; one that exists is left alone
    #[arg(default_value = "cluster.yaml")]
    file: PathBuf,
    /// List every broker property too, commented out, with its default
    #[arg(long)]
    full: bool,
}

/// Show the version
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl version
  rmqctl version -o json")]
pub struct Version {
    /// table, json or yaml
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

const STARTER: &str = include_str!("../../templates/cluster.yaml");

/// The starter with every property that a spec may set below `properties:`, commented out.
fn full() -> String {
    let mut text = String::new();
    for line in STARTER.lines() {
        text += line;
        text += "\n";
        if !line.starts_with("properties:") {
            continue;
        }
        for row in engine::rows(Role::Master) {
            // What the starter itself sets stands below.
            let stands = STARTER.contains(&format!("  {}:", row.name));
            if spec::decided(row.name).is_some() || stands {
                continue;
            }
            let live = if row.live {
                "; takes effect at once"
            } else {
                ""
            };
            let value = serde_json::Value::from(row.default);
            text += &format!("  # {} ({}){live}\n", row.doc, row.allowed);
            text += &format!("  # {}: {value}\n", row.name);
        }
    }
    text
}

/// `init`
pub fn init(args: Init, session: &Session<'_>) -> Result<u8, Error> {
    let path = session.cwd.join(&args.file);
    let text = if args.full {
        full()
    } else {
        STARTER.to_owned()
    };
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|reason| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write {}", args.file.display()),
        )
        .detail(reason.to_string())
        .hint("rmqctl init other.yaml")
    })?;
    session.ui.note(&format!(
        "{} is written.   rmqctl up -f {}",
        args.file.display(),
        args.file.display()
    ));
    Ok(0)
}

/// `version`
pub fn version(args: Version, session: &Session<'_>) -> u8 {
    let version = env!("CARGO_PKG_VERSION");
    match args.output {
        Format::Json | Format::Yaml => {
            let value = serde_json::json!({
                "version": version,
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
            });
            session.ui.value(&value, args.output);
        }
        _ => session.ui.out(&format!(
            "rmqctl {version} ({}/{})\n",
            std::env::consts::OS,
            std::env::consts::ARCH
        )),
    }
    0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::yaml;

    #[test]
    fn the_full_file_holds_and_so_does_each_of_its_lines_with_its_comment_sign_taken_away() {
        let full = full();
        let plain = yaml::draft("full", &full, Path::new("/x")).unwrap();
        assert_eq!(plain.properties.len(), 2);
        let rows = engine::rows(Role::Master);
        let mut opened = String::new();
        for line in full.lines() {
            let key = line.strip_prefix("  # ").filter(|rest| {
                rest.split_once(':')
                    .is_some_and(|(key, _)| rows.iter().any(|row| row.name == key))
            });
            match key {
                Some(rest) => opened += &format!("  {rest}\n"),
                None => opened += &format!("{line}\n"),
            }
        }
        let draft = yaml::draft("full", &opened, Path::new("/x")).unwrap();
        assert!(draft.properties.len() > 80, "{}", draft.properties.len());
        let none = spec::Draft::default();
        spec::resolve("x", None, Some(&draft), &none, "/x".into(), engine::lint).unwrap();
    }
}
