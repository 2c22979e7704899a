//! Directories of the host that hold stores in place of volumes: looked at before anything is made, marked when they are made, and
//! emptied of nothing but what the engine wrote.
//!
//! The rule of removal: a directory with our marker, of this cluster, loses the entries that an engine makes in a store ([`STORE`])
//! and the marker; the directory itself goes when rmqctl made it and nothing else is in it. A directory without the marker, or behind
//! a symlink, is left alone.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use super::describe::Disk;
use super::{RuntimeError, created_by};
use crate::plan::{Observed, StoreFault};
use crate::properties;
use crate::topology::{CONTAINER_UID, Desired, Node};

/// Says whose a directory is.
const MARKER: &str = ".rmqctl.json";

/// Everything that an engine makes at the top of a store; a name server's table also as `.bak` and `.partial`.
const STORE: &[&str] = &[
    "commitlog",
    "consumequeue",
    "index",
    "config",
    "checkpoint",
    "abort",
    "lock",
    "timerwheel",
    "timerlog",
    "kvConfig.json",
    "kvConfig.json.bak",
    "kvConfig.json.partial",
];

/// Entries that Apache's engine makes besides; a store with them is one too, and they are not removed.
const APACHES: &[&str] = &[
    "compaction",
    "consumequeue_ext",
    "batchconsumequeue",
    "rocksdbstore",
    "epochFileCheckpoint",
    "brokerIdentity",
    "dlegerHA",
];

/// The engine's user in a container, as this system writes users.
const ENGINE: u32 = CONTAINER_UID as u32;

/// Queues, index and tables beside the log: what a small broker takes of them at once.
const BESIDE_LOG: u64 = 32 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    cluster: String,
    node: String,
    created_by: String,
    version: String,
    /// The directory was not there before.
    made_dir: bool,
}

/// As whom the engine will write the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsAs {
    /// Whoever owns the directory: a container is told to.
    Owner,
    /// This user, whatever the directory's owner is.
    User(u32),
}

/// What a directory holds.
#[derive(Debug, PartialEq, Eq)]
enum Holds {
    /// It is not there, or empty.
    Nothing,
    /// A node's store of this cluster, made by rmqctl.
    Ours,
    /// A store that rmqctl did not make.
    Found,
    /// Another cluster's or node's.
    Others(String),
    /// Something else; the first such entry.
    Strange(String),
}

fn marker(dir: &Path) -> io::Result<Option<Marker>> {
    match std::fs::read(dir.join(MARKER)) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(io::Error::other),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Names in a directory, sorted; none where it is not there.
fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    match std::fs::read_dir(dir) {
        Ok(all) => {
            for entry in all {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(e) if is_absent(&e) => {}
        Err(e) => return Err(e),
    }
    names.sort();
    Ok(names)
}

fn holds(dir: &Path, cluster: &str, node: &str) -> io::Result<Holds> {
    if let Some(marker) = marker(dir)? {
        return Ok(match marker.cluster == cluster && marker.node == node {
            true => Holds::Ours,
            false => Holds::Others(format!("{} of cluster {}", marker.node, marker.cluster)),
        });
    }
    let names = entries(dir)?;
    let is_store =
        |name: &String| STORE.contains(&name.as_str()) || APACHES.contains(&name.as_str());
    // What a file system keeps at its top.
    let is_nothing = |name: &String| name == "lost+found";
    if let Some(strange) = names.iter().find(|n| !is_store(n) && !is_nothing(n)) {
        return Ok(Holds::Strange(strange.clone()));
    }
    Ok(match names.iter().any(is_store) {
        true => Holds::Found,
        false => Holds::Nothing,
    })
}

/// Adds to what was observed: directories that hold stores, and those that cannot.
pub fn look(desired: &Desired, runs_as: RunsAs, observed: &mut Observed) {
    let mut wanted = 0;
    let mut first_new: Option<(&Node, &Path)> = None;
    for node in &desired.nodes {
        let Some(dir) = node.data_dir() else { continue };
        let mut fault = |why: String, mend: Option<(String, PathBuf)>| {
            observed.store_faults.push(StoreFault {
                node: node.name.clone(),
                dir: dir.to_owned(),
                why,
                mend,
            });
        };
        let held = match holds(dir, &desired.cluster, &node.name) {
            Ok(held) => held,
            Err(reason) => {
                fault(format!("cannot be read: {reason}"), Some(let_look(dir)));
                continue;
            }
        };
        match held {
            Holds::Others(whose) => {
                fault(format!("holds the store of {whose}"), None);
                continue;
            }
            Holds::Strange(entry) => {
                fault(format!("is not empty, and {entry} is of no store"), None);
                continue;
            }
            Holds::Nothing => {
                wanted += needs(node);
                first_new.get_or_insert((node, dir));
            }
            Holds::Ours | Holds::Found => {
                let volume = dir.display().to_string();
                if held == Holds::Found {
                    observed.found_stores.push(volume.clone());
                }
                observed.volumes.push(volume);
            }
        }
        if let Some((why, mend)) = fault_of(dir, runs_as) {
            fault(why, mend);
        }
    }
    // Of nodes that went: their directories stand beside those of the others.
    for volume in of_cluster(desired) {
        if !observed.volumes.contains(&volume) {
            observed.volumes.push(volume);
        }
    }
    observed.volumes.sort();
    let free = first_new.and_then(|(node, dir)| Some((node, dir, disk(dir)?)));
    if let Some((node, dir, disk)) = free
        && disk.free < wanted
    {
        observed.store_faults.push(StoreFault {
            node: node.name.clone(),
            dir: dir.to_owned(),
            why: format!(
                "is on a disk with {} MiB free; the new stores take {} MiB at once",
                disk.free >> 20,
                wanted >> 20
            ),
            mend: None,
        });
    }
}

/// Directories with a marker of this cluster beside the nodes' own.
fn of_cluster(desired: &Desired) -> Vec<String> {
    let mut parents: Vec<&Path> = desired
        .nodes
        .iter()
        .filter_map(|node| node.data_dir()?.parent())
        .collect();
    parents.dedup();
    let mut found = Vec::new();
    for parent in parents {
        for name in entries(parent).unwrap_or_default() {
            let dir = parent.join(name);
            if matches!(marker(&dir), Ok(Some(marker)) if marker.cluster == desired.cluster) {
                found.push(dir.display().to_string());
            }
        }
    }
    found
}

/// Bytes that a node takes of its disk before it holds a message: a segment that is written, and one that is prepared.
fn needs(node: &Node) -> u64 {
    let text = node.file.as_ref().map_or("", |(_, text)| text);
    let values = properties::read(text).unwrap_or_default();
    let segment = values
        .get("mappedFileSizeCommitLog")
        .and_then(|size| size.trim().parse::<u64>().ok());
    segment.map_or(0, |size| size.saturating_mul(2).saturating_add(BESIDE_LOG))
}

/// The file system that a directory lies on, or would.
pub fn disk(dir: &Path) -> Option<Disk> {
    let there = dir.ancestors().find(|dir| dir.exists())?;
    let disk = Disk::of(there.to_str()?)?;
    Some(Disk {
        path: dir.display().to_string(),
        ..disk
    })
}

type Fault = (String, Option<(String, PathBuf)>);

/// What keeps an engine from writing the directory.
fn fault_of(dir: &Path, runs_as: RunsAs) -> Option<Fault> {
    let meta = match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_symlink() => match std::fs::metadata(dir) {
            Ok(meta) => meta,
            Err(reason) => return Some((format!("is a symlink to nothing: {reason}"), None)),
        },
        Ok(meta) => meta,
        Err(e) if is_absent(&e) => return cannot_make(dir),
        Err(reason) => return Some((format!("cannot be looked at: {reason}"), None)),
    };
    if !meta.is_dir() {
        return Some(("is a file".to_owned(), None));
    }
    if is_read_only(dir) {
        return Some(("is on a disk that is mounted read-only".to_owned(), None));
    }
    let is_empty = entries(dir).is_ok_and(|names| names.iter().all(|name| name == MARKER));
    let writer = match runs_as {
        RunsAs::User(uid) => uid,
        // Root gives what is empty to the engine's user.
        RunsAs::Owner if meta.uid() == 0 && is_empty && is_root() => return None,
        RunsAs::Owner if meta.uid() == 0 => {
            let to = match us() {
                0 => ENGINE,
                uid => uid,
            };
            return Some((
                "is root's, and the engine does not run as root".to_owned(),
                Some(give_to(to, dir)),
            ));
        }
        RunsAs::Owner => meta.uid(),
    };
    let given = is_empty && is_root();
    if writer == us() && !is_root() {
        // As the kernel sees it: groups and access lists count too.
        if rustix::fs::access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).is_err() {
            return Some((
                format!(
                    "is uid {}'s, mode {:o}, and uid {writer} cannot write it",
                    meta.uid(),
                    meta.mode() & 0o777
                ),
                Some(give_to(writer, dir)),
            ));
        }
    } else if !given && !may_write(&meta, writer) {
        return Some((
            format!(
                "is uid {}'s, mode {:o}; the engine runs as uid {writer} and cannot write it",
                meta.uid(),
                meta.mode() & 0o777
            ),
            Some(give_to(writer, dir)),
        ));
    }
    for name in entries(dir).unwrap_or_default() {
        let path = dir.join(&name);
        let owner = std::fs::symlink_metadata(&path).map(|meta| meta.uid());
        if STORE.contains(&name.as_str()) && owner.as_ref().is_ok_and(|owner| *owner != writer) {
            return Some((
                format!(
                    "holds {name} of uid {}; the engine runs as uid {writer}",
                    owner.unwrap_or_default()
                ),
                Some(give_to(writer, dir)),
            ));
        }
    }
    None
}

/// Also below a file there is nothing.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn may_write(meta: &Metadata, uid: u32) -> bool {
    let mode = meta.mode();
    match meta.uid() == uid {
        true => mode & 0o700 == 0o700,
        false => mode & 0o007 == 0o007,
    }
}

/// Why a directory that is not there cannot be made.
fn cannot_make(dir: &Path) -> Option<Fault> {
    let above = dir.ancestors().skip(1).find(|above| above.exists())?;
    if !above.is_dir() {
        return Some((
            format!("would lie in {}, which is a file", above.display()),
            None,
        ));
    }
    if is_read_only(above) {
        return Some((
            format!(
                "would lie in {}, on a disk that is mounted read-only",
                above.display()
            ),
            None,
        ));
    }
    if rustix::fs::access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        return None;
    }
    // Of a directory that others share, only what is the node's is to change hands.
    let parent = dir.parent().unwrap_or(dir);
    let made = if above == parent { dir } else { parent };
    let uid = us();
    Some((
        format!(
            "is not there, and uid {uid} cannot make it in {}",
            above.display()
        ),
        Some((
            format!("sudo install -d -o {uid} -g {}", group()),
            made.to_owned(),
        )),
    ))
}

/// The command that lets us look into a directory.
fn let_look(dir: &Path) -> (String, PathBuf) {
    let parent = dir.parent().unwrap_or(dir);
    match rustix::fs::access(parent, Access::EXEC_OK) {
        Ok(()) => give_to(us(), dir),
        Err(_) => ("sudo chmod a+rx".to_owned(), parent.to_owned()),
    }
}

fn is_read_only(path: &Path) -> bool {
    rustix::fs::statvfs(path)
        .is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// The command that makes a user the owner of all of a directory.
fn give_to(uid: u32, dir: &Path) -> (String, PathBuf) {
    let gid = match uid == us() && uid != 0 {
        true => group(),
        false => uid,
    };
    let sudo = if is_root() { "" } else { "sudo " };
    (format!("{sudo}chown -R {uid}:{gid}"), dir.to_owned())
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn group() -> u32 {
    rustix::process::getegid().as_raw()
}

fn is_root() -> bool {
    us() == 0
}

/// Owner and group of a directory.
pub fn owner(dir: &Path) -> io::Result<(u32, u32)> {
    std::fs::metadata(dir).map(|meta| (meta.uid(), meta.gid()))
}

/// Makes a node's directory, or takes an empty one, and marks it. A store that is there is used as it is.
pub fn make(dir: &Path, cluster: &str, node: &str, runs_as: RunsAs) -> Result<(), RuntimeError> {
    let failed =
        |e: io::Error| RuntimeError::failed("prepare the directory", &dir.display().to_string(), e);
    match holds(dir, cluster, node).map_err(failed)? {
        Holds::Ours | Holds::Found => return Ok(()),
        Holds::Nothing => {}
        Holds::Others(whose) => {
            return Err(RuntimeError::NotOurs {
                object: format!("directory {}", dir.display()),
                cluster: cluster.to_owned(),
                holder: format!("it holds the store of {whose}"),
            });
        }
        Holds::Strange(entry) => {
            return Err(RuntimeError::NotOurs {
                object: format!("directory {}", dir.display()),
                cluster: cluster.to_owned(),
                holder: format!("{entry} in it is of no store"),
            });
        }
    }
    let made_dir = !dir.exists();
    let write = || {
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if made_dir {
            std::fs::DirBuilder::new().mode(0o750).create(dir)?;
        }
        let marker = Marker {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            created_by: created_by(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            made_dir,
        };
        let text = serde_json::to_vec_pretty(&marker).map_err(io::Error::other)?;
        std::fs::write(dir.join(MARKER), text)?;
        // Root's engine is not root's to run.
        let to = match runs_as {
            RunsAs::Owner if owner(dir)?.0 == 0 => Some(ENGINE),
            RunsAs::User(uid) if uid != owner(dir)?.0 && is_root() => Some(uid),
            _ => None,
        };
        if let Some(uid) = to {
            for path in [dir.join(MARKER), dir.to_owned()] {
                std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
            }
        }
        Ok(())
    };
    write().map_err(failed)
}

/// Takes what the engine wrote out of a directory that is this cluster's.
pub fn remove(dir: &Path, cluster: &str) -> Result<(), RuntimeError> {
    let shown = dir.display().to_string();
    let failed = |e: io::Error| {
        let denied = e.kind() == io::ErrorKind::PermissionDenied;
        let reason = match denied {
            true => format!("{e}: sudo rm -r {shown}   removes it"),
            false => e.to_string(),
        };
        RuntimeError::failed("remove the store in", &shown, reason)
    };
    let left_alone = |holder: &str| RuntimeError::NotOurs {
        object: format!("directory {shown}"),
        cluster: cluster.to_owned(),
        holder: holder.to_owned(),
    };
    let marker = match std::fs::symlink_metadata(dir) {
        Ok(meta) if meta.is_symlink() => {
            return Err(left_alone("it is a symlink to somewhere else"));
        }
        Ok(_) => marker(dir).map_err(failed)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let Some(marker) = marker else {
        return Err(left_alone("its store was there before rmqctl"));
    };
    if marker.cluster != cluster {
        return Err(left_alone(&format!("it is cluster {}'s", marker.cluster)));
    }
    for name in STORE {
        let path = dir.join(name);
        // What a symlink leads to is not the engine's.
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
        };
        removed.map_err(failed)?;
    }
    // Last: what an interrupted removal leaves is found by it again.
    std::fs::remove_file(dir.join(MARKER)).map_err(failed)?;
    if marker.made_dir && entries(dir).map_err(failed)?.is_empty() {
        std::fs::remove_dir(dir).map_err(failed)?;
    }
    Ok(())
}

/// What stands in the directories of a cluster after their removal, by directory.
pub fn left(desired: &Desired) -> BTreeMap<PathBuf, Vec<String>> {
    let dirs = desired.nodes.iter().filter_map(Node::data_dir);
    dirs.filter_map(|dir| {
        let names = entries(dir).ok()?;
        (!names.is_empty()).then(|| (dir.to_owned(), names))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile, Storage};
    use crate::topology::{Site, desired};

    /// A cluster of one master whose stores are below `path`.
    fn cluster(path: &Path) -> Desired {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
        (spec.slaves, spec.console) = (0, false);
        spec.storage = Storage::Host { path: path.into() };
        desired(&spec, &Site::Network).unwrap()
    }

    fn seen(desired: &Desired, runs_as: RunsAs) -> Observed {
        let mut observed = Observed::default();
        look(desired, runs_as, &mut observed);
        observed
    }

    fn as_us() -> RunsAs {
        RunsAs::User(us())
    }

    #[test]
    fn what_the_engine_wrote_goes_and_what_others_put_there_stays() {
        let root = tempfile::tempdir().unwrap();
        let all = cluster(root.path());
        assert_eq!(seen(&all, as_us()), Observed::default());
        let dir = root.path().join("rmqmaster1");
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        assert_eq!(seen(&all, as_us()).volumes, [dir.display().to_string()]);
        for name in ["commitlog", "config"] {
            std::fs::create_dir(dir.join(name)).unwrap();
            std::fs::write(dir.join(name).join("file"), "x").unwrap();
        }
        std::fs::write(dir.join("notes.txt"), "mine").unwrap();
        remove(&dir, "rmq").unwrap();
        assert_eq!(entries(&dir).unwrap(), ["notes.txt"]);
        assert_eq!(left(&all)[&dir], ["notes.txt"]);
        // Without the marker it is nobody's of ours.
        assert!(matches!(
            remove(&dir, "rmq"),
            Err(RuntimeError::NotOurs { .. })
        ));
        std::fs::remove_file(dir.join("notes.txt")).unwrap();
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        remove(&dir, "rmq").unwrap();
        assert!(dir.is_dir(), "it was there before");
        std::fs::remove_dir(&dir).unwrap();
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        remove(&dir, "rmq").unwrap();
        assert!(!dir.exists() && root.path().exists());
    }

    #[test]
    fn a_store_that_was_there_is_used_and_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let all = cluster(root.path());
        let dir = root.path().join("rmqmaster1");
        std::fs::create_dir_all(dir.join("commitlog")).unwrap();
        let observed = seen(&all, as_us());
        assert_eq!(observed.store_faults, []);
        assert_eq!(observed.found_stores, observed.volumes);
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        assert!(remove(&dir, "rmq").is_err());
        assert!(dir.join("commitlog").is_dir());
    }

    #[test]
    fn a_symlink_is_followed_to_write_and_not_to_remove() {
        let root = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (root.path().join("rmqmaster1"), root.path().join("disk2"));
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
        make(&dir, "rmq", "rmqmaster1", as_us()).unwrap();
        std::fs::create_dir(dir.join("commitlog")).unwrap();
        assert!(remove(&dir, "rmq").is_err());
        assert!(elsewhere.join("commitlog").is_dir());
    }

    #[test]
    fn a_directory_of_others_or_with_other_things_in_it_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let all = cluster(root.path());
        let (namesrv, master) = (
            root.path().join("rmqnamesrv"),
            root.path().join("rmqmaster1"),
        );
        make(&namesrv, "rmq", "rmqmaster1", as_us()).unwrap();
        std::fs::create_dir(&master).unwrap();
        std::fs::write(master.join("holiday.jpg"), "").unwrap();
        let faults = seen(&all, as_us()).store_faults;
        let why: Vec<&str> = faults.iter().map(|fault| fault.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "holds the store of rmqmaster1 of cluster rmq",
                "is not empty, and holiday.jpg is of no store"
            ]
        );
        assert!(make(&master, "rmq", "rmqmaster1", as_us()).is_err());
        assert!(remove(&namesrv, "other").is_err());
    }

    #[test]
    fn what_another_user_cannot_write_is_mended_by_one_command() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("rmqmaster1");
        std::fs::create_dir_all(dir.join("commitlog")).unwrap();
        let other = us() + 1;
        let (why, mend) = fault_of(&dir, RunsAs::User(other)).unwrap();
        assert!(
            why.contains(&format!("the engine runs as uid {other}")),
            "{why}"
        );
        let (command, path) = mend.unwrap();
        assert!(
            command.ends_with(&format!("chown -R {other}:{other}")),
            "{command}"
        );
        assert_eq!(path, dir);
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(fault_of(&file, as_us()).unwrap().0, "is a file");
        assert!(
            fault_of(&file.join("below"), as_us())
                .unwrap()
                .0
                .contains("which is a file")
        );
    }

    #[test]
    fn stores_that_do_not_fit_on_the_disk_are_refused_before_anything_is_made() {
        let root = tempfile::tempdir().unwrap();
        let mut all = cluster(root.path());
        assert_eq!(seen(&all, as_us()).store_faults, []);
        let (_, text) = all.nodes[1].file.as_mut().unwrap();
        *text = text.replace(
            "mappedFileSizeCommitLog=67108864",
            "mappedFileSizeCommitLog=1152921504606846976",
        );
        let faults = seen(&all, as_us()).store_faults;
        assert!(faults[0].why.contains("the new stores take"), "{faults:?}");
    }
}
