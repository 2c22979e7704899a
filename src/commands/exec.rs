//! `exec` and `cp`: into a node and out of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::terminal::Handed;
use super::{Cluster, Session};
use crate::archive::{self, FromChannel, PIECES_WAITING_MAX, Place, Summary, ToChannel};
use crate::error::{Error, Exit};
use crate::runtime::Output;
use crate::spec::parse_memory;
use crate::topology::Node;
use crate::ui;

/// Run a command where a node is; ends with its exit code
///
/// On Docker the image holds one file, the engine: `rmqctl` and its subcommands are all there is to run; Apache's image has a shell. As a
/// process, it is any command of this host, run in the node's directory with the node's environment. It reads what this command reads;
/// at a terminal it has one of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl exec rmqmaster1 -- rmqctl engine health                          does it answer itself?
  rmqctl exec rmqnamesrv -- rmqctl engine health --dial rmqmaster1:10911  does it reach a broker?
  rmqctl exec rmqslave1 -- ls -l store                                    (processes)
  rmqctl exec rmqmaster1 -- sh                                            (Apache's image)")]
pub struct Exec {
    /// rmqmaster1, master1 or broker-a:1
    #[arg(value_name = "NODE")]
    node: String,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Copy a file or directory out of a node, or into one
///
/// Out of a node come plain files and directories only: links and devices are left out and told. What goes in belongs to the
/// engine's user there. On Docker only the directories of volumes can be written: /etc/rmq and /var/lib/rmq/store.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl cp rmqmaster1:/etc/rmq/broker-a-master.properties .      (Docker)
  rmqctl cp rmqmaster1:/var/lib/rmq/store/config ./config         (Docker)
  rmqctl cp rmqmaster1:store/config ./config                      (processes: relative to the node's directory)
  rmqctl cp ./notes.txt rmqmaster1:/var/lib/rmq/store/            (a / at the end: into that directory)")]
pub struct Cp {
    /// NODE:PATH, or a path here
    #[arg(value_name = "SRC")]
    source: String,
    /// A path here, or NODE:PATH. An existing directory here, or a `/` at the end: into it; else it is the new name
    #[arg(value_name = "DST")]
    target: String,
    /// Give up beyond this size of all files together
    #[arg(long, value_name = "SIZE", default_value = "4g", value_parser = parse_memory)]
    max_size: u64,
}

/// Exit codes of a program that could not be executed, and of one that was not found.
const CANNOT_RUN: i64 = 126;
const NOT_FOUND: i64 = 127;
const NOTHING_ELSE: &str = "the image holds nothing but the engine";

/// `exec`
pub async fn exec(args: Exec, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let node = one(&cluster, &args.node)?;
    let in_image = matches!(cluster.runtime.kind(), "docker" | "podman");
    let (send, mut pieces) = mpsc::channel(PIECES_WAITING_MAX);
    // A process has this program's own input.
    let (handed, input) = match in_image.then(Handed::take) {
        Some((handed, input)) => (Some(handed), Some(input)),
        None => (None, None),
    };
    let run = cluster.runtime.exec(
        &cluster.desired,
        &node.container,
        &args.command,
        input,
        send,
    );
    let print = async {
        while let Some(piece) = pieces.recv().await {
            match piece {
                Output::Out(bytes) => session.ui.raw(&bytes, false),
                Output::Err(bytes) => session.ui.raw(&bytes, true),
            }
        }
    };
    let (code, ()) = tokio::join!(run, print);
    drop(handed);
    let code = code.map_err(|reason| {
        let error = Error::from(reason);
        match in_image {
            true => error.hint(session.again(&format!(
                "exec {} -- rmqctl engine health   ({NOTHING_ELSE})",
                node.name
            ))),
            false => error,
        }
    })?;
    if in_image && matches!(code, CANNOT_RUN | NOT_FOUND) {
        session.ui.warn(NOTHING_ELSE);
    }
    // Exit codes are a byte; what is none is a failure all the same.
    Ok(u8::try_from(code).unwrap_or(Exit::Failed as u8))
}

/// `cp`
pub async fn cp(args: Cp, session: &Session<'_>) -> Result<u8, Error> {
    let (from, to) = (in_node(&args.source), in_node(&args.target));
    let cluster = session.cluster().await?;
    let summary = match (from, to) {
        (Some((node, path)), None) => {
            let node = one(&cluster, node)?;
            copy_out(&cluster, node, path, Path::new(&args.target), args.max_size).await?
        }
        (None, Some((node, path))) => {
            let node = one(&cluster, node)?;
            copy_in(&cluster, node, Path::new(&args.source), path, args.max_size).await?
        }
        _ => {
            let said = "one of the two is in a node, as rmqmaster1:/etc/rmq, and the other here";
            return Err(
                Error::new("RMQ-E083", Exit::Usage, "nothing to copy between").detail(said),
            );
        }
    };
    for left in &summary.skipped {
        session.ui.warn(&format!("left out: {left}"));
    }
    session.ui.note(&format!(
        "{} files, {}",
        summary.files,
        ui::bytes(summary.bytes)
    ));
    Ok(0)
}

/// `NODE:PATH`; a path of this host that has a colon is written with a slash before it.
fn in_node(text: &str) -> Option<(&str, &str)> {
    let (node, path) = text.split_once(':')?;
    // `broker-a:0:/etc/rmq`
    if let Some((id, rest)) = path.split_once(':')
        && id.parse::<u64>().is_ok()
    {
        return Some((&text[..node.len() + 1 + id.len()], rest));
    }
    (!node.is_empty() && !node.contains('/') && !node.starts_with('.')).then_some((node, path))
}

fn one<'a>(cluster: &'a Cluster, typed: &str) -> Result<&'a Node, Error> {
    let chosen = cluster.desired.select(&[typed.to_owned()])?;
    match chosen.as_slice() {
        [node] => Ok(node),
        several => {
            let names: Vec<&str> = several.iter().map(|n| n.name.as_str()).collect();
            let title = format!("`{typed}` names {} nodes; say one", names.len());
            Err(Error::new("RMQ-E082", Exit::Usage, title)
                .detail(format!("they are {}", names.join(", "))))
        }
    }
}

async fn copy_out(
    cluster: &Cluster,
    node: &Node,
    path: &str,
    target: &Path,
    bytes_max: u64,
) -> Result<Summary, Error> {
    let (send, receive) = mpsc::channel(PIECES_WAITING_MAX);
    let fetch = cluster
        .runtime
        .copy_out(&cluster.desired, &node.container, path, send);
    let target = target.to_owned();
    let unpack = tokio::task::spawn_blocking(move || {
        let into = target.is_dir() || target.as_os_str().as_encoded_bytes().ends_with(b"/");
        let place = match into {
            true => Place::Into(&target),
            false => Place::As(&target),
        };
        archive::unpack(FromChannel::new(receive), place, bytes_max)
    });
    let (fetched, unpacked) = tokio::join!(fetch, unpack);
    fetched?;
    joined(unpacked, &format!("{}:{path}", node.name))
}

async fn copy_in(
    cluster: &Cluster,
    node: &Node,
    source: &Path,
    path: &str,
    bytes_max: u64,
) -> Result<Summary, Error> {
    let shown = source.display().to_string();
    let source = source
        .canonicalize()
        .map_err(|reason| failed(&shown, &reason.to_string()))?;
    let (dir, name) = destination(path, &source);
    let (send, receive) = mpsc::channel(PIECES_WAITING_MAX);
    let pack = tokio::task::spawn_blocking(move || {
        let size = size_of(&source)?;
        if size > bytes_max {
            let reason = format!("it holds {size} bytes, more than --max-size {bytes_max}");
            return Err(std::io::Error::other(reason));
        }
        archive::pack(
            &source,
            &name,
            crate::topology::CONTAINER_UID,
            ToChannel::new(send),
        )
    });
    let place = cluster
        .runtime
        .copy_in(&cluster.desired, &node.container, &dir, receive);
    let (packed, placed) = tokio::join!(pack, place);
    let packed = joined(packed, &shown);
    // A side that failed cuts the other off: the one that has more to say is told.
    placed?;
    packed
}

/// Directory and name in the node: into `path` where that ends with a slash, else as `path`.
fn destination(path: &str, source: &Path) -> (String, OsString) {
    let name = source.file_name().unwrap_or_default().to_owned();
    if path.is_empty() || path.ends_with('/') {
        let dir = path.trim_end_matches('/');
        let root = if path.is_empty() { "." } else { "/" };
        return (if dir.is_empty() { root } else { dir }.to_owned(), name);
    }
    match path.rsplit_once('/') {
        Some(("", name)) => ("/".to_owned(), name.into()),
        Some((dir, name)) => (dir.to_owned(), name.into()),
        None => (".".to_owned(), path.into()),
    }
}

/// Bytes of all plain files.
fn size_of(path: &PathBuf) -> std::io::Result<u64> {
    let meta = path.symlink_metadata()?;
    if !meta.is_dir() {
        return Ok(if meta.is_file() { meta.len() } else { 0 });
    }
    std::fs::read_dir(path)?.try_fold(0, |sum, entry| Ok(sum + size_of(&entry?.path())?))
}

fn joined(
    result: Result<std::io::Result<Summary>, tokio::task::JoinError>,
    what: &str,
) -> Result<Summary, Error> {
    let result = result.map_err(|reason| failed(what, &reason.to_string()))?;
    result.map_err(|reason| failed(what, &reason.to_string()))
}

fn failed(what: &str, reason: &str) -> Error {
    Error::new("RMQ-E084", Exit::Failed, format!("cannot copy {what}")).detail(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_and_a_path_are_told_from_a_path_here() {
        assert_eq!(
            in_node("rmqmaster1:/etc/rmq"),
            Some(("rmqmaster1", "/etc/rmq"))
        );
        assert_eq!(in_node("broker-a:1:/store"), Some(("broker-a:1", "/store")));
        assert_eq!(in_node("./a:b"), None);
        assert_eq!(in_node("/tmp/a:b"), None);
        assert_eq!(in_node("plain"), None);
    }

    #[test]
    fn a_slash_at_the_end_keeps_the_name() {
        let to = |path| destination(path, Path::new("/tmp/notes.txt"));
        assert_eq!(to("/store/"), ("/store".to_owned(), "notes.txt".into()));
        assert_eq!(to("/store/new"), ("/store".to_owned(), "new".into()));
        assert_eq!(to("/"), ("/".to_owned(), "notes.txt".into()));
        assert_eq!(to(""), (".".to_owned(), "notes.txt".into()));
        assert_eq!(to("new"), (".".to_owned(), "new".into()));
    }
}
