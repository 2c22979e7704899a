//! `init` and `version`.

use std::io::Write;
use std::path::PathBuf;

use super::Session;
use crate::error::{Error, Exit};
use crate::ui::Format;

/// Write a starter cluster.yaml
#[derive(Debug, clap::Args)]
pub struct Init {
    /// The file to write; one that exists is left alone
    #[arg(default_value = "cluster.yaml")]
    file: PathBuf,
}

/// Show the version
#[derive(Debug, clap::Args)]
pub struct Version {
    /// table, json or yaml
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// `init`
pub fn init(args: Init, session: &Session<'_>) -> Result<u8, Error> {
    let path = session.cwd.join(&args.file);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file| file.write_all(include_bytes!("../../templates/cluster.yaml")));
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
