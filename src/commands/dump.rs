//! `dump`: all that a bug report needs, in a directory or an archive, without secrets.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Session;
use crate::doctor::checks::judge;
use crate::doctor::facts::{self, Facts};
use crate::error::{Error, Exit};
use crate::plan::{self, UpOptions};
use crate::redact;
use crate::runtime::Runtime;
use crate::topology::Desired;

/// Write logs, configurations, routes and states of all nodes into a directory or .tar.gz, for a bug report
///
/// Values of properties, variables and fields that are named like secrets are replaced by ***. Look through it before you send it:
/// logs may hold names of topics, groups and hosts. No messages are in it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl dump rmq-report.tar.gz
  rmqctl dump ./report --tail 100000")]
pub struct Dump {
    /// A new directory, or a file that ends with .tar.gz
    #[arg(value_name = "DIR|FILE.tar.gz")]
    to: PathBuf,
    /// Log lines of each node
    #[arg(long, value_name = "N", default_value_t = LOG_LINES)]
    tail: usize,
}

const LOG_LINES: usize = 5000;

/// A file of the report.
type Part = (String, Vec<u8>);

/// `dump`
pub async fn dump(args: Dump, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let (runtime, desired) = (cluster.runtime.as_ref(), &cluster.desired);
    write(&args.to, runtime, desired, args.tail, session).await?;
    session
        .ui
        .note(&format!("{} is written", args.to.display()));
    Ok(0)
}

/// Where `up` leaves a dump when it fails: what was said, else `rmqctl-dump` where `CI=true`.
pub fn on_failure(said: Option<&Path>) -> Option<PathBuf> {
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    said.map(Path::to_path_buf)
        .or_else(|| ci.then(|| PathBuf::from("rmqctl-dump")))
}

/// Adds to an error of nodes that did not come up where a dump of them stands, if one is wanted. A dump that fails is a warning:
/// the error itself is what matters.
pub async fn after(
    error: Error,
    runtime: &dyn Runtime,
    desired: &Desired,
    session: &Session<'_>,
) -> Error {
    let Some(dir) = &session.dump_on_failure else {
        return error;
    };
    if !matches!(error.exit, Exit::NotReady | Exit::Partial | Exit::Failed) {
        return error;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |now| now.as_secs());
    let to = dir.join(format!("{}-{seconds}", desired.cluster));
    match write(&to, runtime, desired, LOG_LINES, session).await {
        Ok(()) => error.detail(format!("all that was seen stands in {}", to.display())),
        Err(reason) => {
            session.ui.warn(&reason.title);
            error
        }
    }
}

async fn write(
    to: &Path,
    runtime: &dyn Runtime,
    desired: &Desired,
    tail: usize,
    session: &Session<'_>,
) -> Result<(), Error> {
    session.ui.doing("dump", "asking everybody");
    let parts = tokio::select! {
        parts = collect(runtime, desired, tail) => parts,
        () = session.interrupt.requested() => return Err(session.interrupt.error()),
    };
    session.ui.clear();
    let name = to.to_string_lossy();
    let written = match name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        true => archive(to, &parts),
        false => directory(to, &parts),
    };
    written.map_err(|reason| {
        Error::new(
            "RMQ-E085",
            Exit::Failed,
            format!("cannot write {}", to.display()),
        )
        .detail(reason.to_string())
        .hint("name a new directory, or a file that ends with .tar.gz")
    })
}

/// Everything, as far as it can be had; what cannot is told in `missing.txt`.
async fn collect(runtime: &dyn Runtime, desired: &Desired, tail: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut missing = String::new();
    let versions = serde_json::json!({
        "rmqctl": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "runtime": runtime.kind(),
        "cluster": desired.cluster,
    });
    parts.push(document("versions.json", &versions));
    parts.push(document(
        "spec.json",
        &serde_json::from_str::<serde_json::Value>(&desired.spec).unwrap_or_default(),
    ));
    match facts::gather(runtime, desired).await {
        Ok(facts) => parts.extend(of_facts(desired, &facts)),
        Err(error) => missing += &format!("the cluster's state: {error}\n"),
    }
    for node in &desired.nodes {
        match runtime.log_tail(&node.container, tail).await {
            Ok(lines) => {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                let path = format!("nodes/{}/log.txt", node.name);
                parts.push((path, redact::text(&text).into_bytes()));
            }
            Err(error) => missing += &format!("the log of {}: {error}\n", node.name),
        }
    }
    if !missing.is_empty() {
        parts.push(("missing.txt".into(), redact::text(&missing).into_bytes()));
    }
    parts
}

fn of_facts(desired: &Desired, facts: &Facts) -> Vec<Part> {
    let plan = plan::up(desired, None, &facts.observed, UpOptions::default());
    let plan = plan.map_or_else(|error| error.to_string(), |plan| plan.to_string());
    let reach: Vec<serde_json::Value> = facts
        .reach
        .iter()
        .map(|r| {
            serde_json::json!({
                "from": r.from, "to": r.to, "purpose": r.purpose,
                "address": r.dial.address, "fault": r.dial.fault,
            })
        })
        .collect();
    let mut parts = vec![
        document("runtime.json", &facts.about),
        document("checks.json", &judge(desired, facts)),
        document("reachability.json", &reach),
        document("routes.json", &facts.routes),
        ("plan.txt".into(), redact::text(&plan).into_bytes()),
    ];
    for node in &desired.nodes {
        let path = |name: &str| format!("nodes/{}/{name}", node.name);
        if let Some(described) = facts.descriptions.get(&node.name) {
            parts.push(document(&path("inspect.json"), described));
        }
        if let Some(text) = facts.files.get(&node.name) {
            parts.push((
                path("made-with.properties"),
                redact::text(text).into_bytes(),
            ));
        }
        if let Some(text) = facts.edited.get(&node.name) {
            parts.push((path("here.properties"), redact::text(text).into_bytes()));
        }
        if let Some(broker) = facts.brokers.get(&node.name) {
            parts.push(document(&path("state.json"), &broker.info));
            parts.push(document(&path("consumers.json"), &broker.consumers));
            let config: String = broker
                .config
                .iter()
                .flatten()
                .map(|(key, value)| format!("{key}={value}\n"))
                .collect();
            parts.push((
                path("running.properties"),
                redact::text(&config).into_bytes(),
            ));
        }
    }
    parts
}

fn document(path: &str, value: &impl serde::Serialize) -> Part {
    let mut value = serde_json::to_value(value).unwrap_or_default();
    redact::json(&mut value);
    let mut text = serde_json::to_vec_pretty(&value).unwrap_or_default();
    text.push(b'\n');
    (path.to_owned(), text)
}

/// Only this user may read it: names in logs are nobody else's business.
fn directory(dir: &Path, parts: &[Part]) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).recursive(true);
    if dir
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
    {
        return Err(std::io::Error::other("it is there already, and not empty"));
    }
    private.create(dir)?;
    for (path, content) in parts {
        let path = dir.join(path);
        private.create(path.parent().unwrap_or(dir))?;
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?
            .write_all(content)?;
    }
    Ok(())
}

fn archive(file: &Path, parts: &[Part]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    let packed = flate2::write::GzEncoder::new(out, flate2::Compression::default());
    let mut archive = tar::Builder::new(packed);
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let root = name.trim_end_matches(".tar.gz").trim_end_matches(".tgz");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    for (path, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now.as_ref().map_or(0, std::time::Duration::as_secs));
        archive.append_data(&mut header, format!("{root}/{path}"), &content[..])?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_an_archive_hold_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let parts = vec![
            document("a.json", &serde_json::json!({"password": "x"})),
            ("nodes/n/log.txt".into(), b"line\n".to_vec()),
        ];
        directory(&dir.path().join("plain"), &parts).unwrap();
        let text = std::fs::read_to_string(dir.path().join("plain/a.json")).unwrap();
        assert_eq!(text, "{\n  \"password\": \"***\"\n}\n");
        assert!(
            directory(&dir.path().join("plain"), &parts).is_err(),
            "nothing is overwritten"
        );

        let file = dir.path().join("report.tar.gz");
        archive(&file, &parts).unwrap();
        let read = flate2::read::GzDecoder::new(std::fs::File::open(&file).unwrap());
        let place = crate::archive::Place::Into(dir.path());
        crate::archive::unpack(read, place, 1 << 20).unwrap();
        for (path, content) in &parts {
            let got = std::fs::read(dir.path().join("report").join(path)).unwrap();
            assert_eq!(&got, content, "{path}");
        }
    }
}
