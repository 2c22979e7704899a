//! The process runtime's files: what stands is read back from here each time.
//!
//! ```text
//! $XDG_STATE_HOME/rmqctl/            (~/.local/state/rmqctl)
//!   bin/rmqctl-1a2b3c4d              the engine, kept so that a rebuild does not pull it from under running nodes
//!   CLUSTER/spec.json                the resolved spec; its presence is the cluster
//!   CLUSTER/NODE/node.json           what the node is: labels, command, hash
//!   CLUSTER/NODE/run.json            what its supervisor last said: pids, restarts, last exit
//!   CLUSTER/NODE/log, log.1          what the node printed
//!   CLUSTER/NODE/volume, store/      the store and the name it has as a volume
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::RuntimeError;
use super::super::pid::Process;

/// What a node is, as it was created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Same keys as a container's labels.
    pub labels: BTreeMap<String, String>,
    /// Node name without the cluster's prefix.
    pub name: String,
    /// Name as a container would have it; unique on this host.
    pub container: String,
    /// [`crate::topology::Node::config_hash`].
    pub config_hash: String,
    /// Host ports that it takes. Nodes made before this was kept have none here.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Tag of the engine.
    pub image: String,
    /// The engine's file.
    pub binary: PathBuf,
    /// Arguments.
    pub command: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// How long a stop waits before it kills.
    pub stop_timeout: Duration,
    /// Unix seconds at which it ends and its directory goes.
    #[serde(default)]
    pub until: Option<u64>,
    /// Its store, where that is a directory that the user named.
    #[serde(default)]
    pub data_dir: Option<PathBuf>,
}

#[cfg(test)]
impl NodeFile {
    /// A node that runs nothing, for tests to fill in.
    pub fn bare(name: &str) -> NodeFile {
        NodeFile {
            labels: BTreeMap::new(),
            name: name.into(),
            container: name.into(),
            config_hash: String::new(),
            ports: Vec::new(),
            image: String::new(),
            binary: PathBuf::new(),
            command: Vec::new(),
            env: BTreeMap::new(),
            stop_timeout: Duration::ZERO,
            until: None,
            data_dir: None,
        }
    }
}

/// What a node's supervisor last said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFile {
    /// Restarts the node when it ends.
    pub supervisor: Process,
    /// The engine; `None` between an end and the restart, and after a stop.
    pub child: Option<Process>,
    /// Unix seconds of the engine's last start.
    pub started_at: u64,
    /// Restarts since the node was started.
    pub restarts: u32,
    /// The engine's last end.
    pub last_end: Option<LastEnd>,
}

/// How an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastEnd {
    /// Exit code; 128 + n for signal n.
    pub code: i64,
    /// Unix milliseconds.
    pub at_ms: u64,
}

/// Its presence is the node.
const NODE_FILE: &str = "node.json";

/// A node's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDir(pub PathBuf);

impl NodeDir {
    /// What the node is; `None` when it was not created, or removed with its store kept.
    pub fn node(&self) -> io::Result<Option<NodeFile>> {
        read_json(&self.0.join(NODE_FILE))
    }
    /// What its supervisor last said.
    pub fn run(&self) -> io::Result<Option<RunFile>> {
        read_json(&self.0.join("run.json"))
    }
    /// Writes [`NodeFile`].
    pub fn write_node(&self, node: &NodeFile) -> io::Result<()> {
        write_json(&self.0.join(NODE_FILE), node)
    }
    /// Writes [`RunFile`].
    pub fn write_run(&self, run: &RunFile) -> io::Result<()> {
        write_json(&self.0.join("run.json"), run)
    }
    /// The log's file.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }
    /// The log's file before it was last cut.
    pub fn old_log(&self) -> PathBuf {
        self.0.join("log.1")
    }
    /// Held by a node's supervisor while it runs.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }
    /// The store.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }
    /// Name of its store as a volume.
    pub fn volume(&self) -> Option<String> {
        std::fs::read_to_string(self.0.join("volume")).ok()
    }
    /// Makes the store under this volume name.
    pub fn make_volume(&self, name: &str) -> io::Result<()> {
        std::fs::create_dir_all(self.store())?;
        replace(&self.0.join("volume"), name.as_bytes())
    }
    /// Deletes the store, and the directory if nothing else is in it.
    pub fn remove_volume(&self) -> io::Result<()> {
        // A store that somebody moved elsewhere behind a symlink is not ours to empty: the link goes, its target stays.
        match std::fs::symlink_metadata(self.store()) {
            Ok(meta) if meta.is_symlink() => std::fs::remove_file(self.store())?,
            Ok(_) => std::fs::remove_dir_all(self.store())?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        remove_file(&self.0.join("volume"))?;
        remove_if_empty(&self.0)
    }
    /// Deletes all of a node that ended by itself, and with the last one what is left of its cluster.
    pub fn remove_ephemeral(&self) -> io::Result<()> {
        self.remove_node()?;
        let Some(cluster) = self.0.parent() else {
            return Ok(());
        };
        if StateDir::dirs(cluster)?.is_empty() {
            remove_file(&cluster.join("spec.json"))?;
            remove_if_empty(cluster)?;
        }
        Ok(())
    }
    /// Deletes all but the store of a volume, and the directory if nothing is left.
    pub fn remove_node(&self) -> io::Result<()> {
        // First: whoever is killed in between leaves no node that seems whole and lacks its files.
        remove_file(&self.0.join(NODE_FILE))?;
        let keeps_store = self.volume().is_some();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default();
            if keeps_store && (name == "store" || name == "volume") {
                continue;
            }
            match path.symlink_metadata()?.is_dir() {
                true => std::fs::remove_dir_all(&path)?,
                false => remove_file(&path)?,
            }
        }
        remove_if_empty(&self.0)
    }
}

/// The directory of all clusters.
#[derive(Clone, Debug)]
pub struct StateDir(pub PathBuf);

impl StateDir {
    /// `$XDG_STATE_HOME/rmqctl`, else `~/.local/state/rmqctl`.
    pub fn find() -> Result<StateDir, RuntimeError> {
        let env = |name: &str| {
            std::env::var_os(name)
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let base = env("XDG_STATE_HOME")
            .filter(|p| p.is_absolute())
            .or_else(|| env("HOME").map(|home| home.join(".local/state")));
        base.map(|base| StateDir(base.join("rmqctl")))
            .ok_or_else(|| {
                RuntimeError::failed(
                    "find",
                    "the state directory",
                    "neither XDG_STATE_HOME nor HOME is set",
                )
            })
    }

    /// A cluster's directory.
    pub fn cluster(&self, cluster: &str) -> PathBuf {
        self.0.join(cluster)
    }

    /// A cluster's kept spec.
    pub fn spec(&self, cluster: &str) -> PathBuf {
        self.cluster(cluster).join("spec.json")
    }

    /// Names of all directories in `of`, sorted; none when `of` is not there.
    fn dirs(of: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        match std::fs::read_dir(of) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push(entry.path());
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        found.sort();
        Ok(found)
    }

    /// Names of all clusters.
    pub fn clusters(&self) -> io::Result<Vec<String>> {
        Ok(Self::dirs(&self.0)?
            .into_iter()
            .filter(|dir| dir.join("spec.json").exists())
            .filter_map(|dir| Some(dir.file_name()?.to_str()?.to_string()))
            .collect())
    }

    /// All node directories of a cluster, also those of which only the store is left.
    pub fn nodes(&self, cluster: &str) -> io::Result<Vec<NodeDir>> {
        Ok(Self::dirs(&self.cluster(cluster))?
            .into_iter()
            .map(NodeDir)
            .collect())
    }

    /// Deletes what nodes left that were not created to the end, or not removed to the end, since whoever did it was killed. Stores
    /// of volumes stay.
    pub fn sweep(&self, cluster: &str) -> io::Result<()> {
        for dir in self.nodes(cluster)? {
            if dir.node()?.is_none() {
                dir.remove_node()?;
            }
        }
        Ok(())
    }

    /// The node directories of every cluster, also of those of which only stores are left.
    pub fn all_nodes(&self) -> io::Result<Vec<(String, Vec<NodeDir>)>> {
        let mut all = Vec::new();
        for dir in Self::dirs(&self.0)? {
            // The engines are no cluster.
            if let Some(name) = dir
                .file_name()
                .and_then(|n| n.to_str())
                .filter(|n| *n != "bin")
            {
                all.push((name.to_owned(), self.nodes(name)?));
            }
        }
        Ok(all)
    }

    /// The node of this container name, in whichever cluster.
    pub fn find_node(&self, container: &str) -> io::Result<Option<(NodeDir, NodeFile)>> {
        for cluster in Self::dirs(&self.0)? {
            for dir in Self::dirs(&cluster)?.into_iter().map(NodeDir) {
                match dir.node()? {
                    Some(node) if node.container == container => return Ok(Some((dir, node))),
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

/// Replaces a file's content at once: a reader sees the old or the new, never half.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, content)?;
    std::fs::rename(&partial, path)
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    replace(path, &serde_json::to_vec_pretty(value)?)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|e| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{}: {e}", path.display()),
        )
    })
}

/// Deletes a file that may be gone.
pub fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Deletes a directory unless something is in it.
pub fn remove_if_empty(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(e)
            if !matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(e)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_a_node_keeps_its_store_until_the_volume_goes() {
        let root = tempfile::tempdir().unwrap();
        let dir = NodeDir(root.path().join("rmqmaster1"));
        std::fs::create_dir(&dir.0).unwrap();
        dir.make_volume("rmqmaster1-store").unwrap();
        std::fs::write(dir.store().join("commitlog"), "kept").unwrap();
        std::fs::write(dir.log(), "line").unwrap();

        dir.remove_node().unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.store().join("commitlog")).unwrap(),
            "kept"
        );
        assert_eq!(dir.volume().as_deref(), Some("rmqmaster1-store"));
        assert!(!dir.log().exists());

        dir.remove_volume().unwrap();
        assert!(!dir.0.exists());
    }

    #[test]
    fn what_a_killed_removal_or_creation_left_is_swept_and_stores_stay() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir(root.path().to_path_buf());
        let half = |name: &str| {
            let dir = NodeDir(state.cluster("c").join(name));
            std::fs::create_dir_all(&dir.0).unwrap();
            std::fs::write(dir.0.join("broker-a-slave1.properties"), "brokerId=1").unwrap();
            dir
        };
        let (gone, kept, whole) = (half("rmqconsole"), half("rmqslave1"), half("rmqmaster1"));
        kept.make_volume("rmqslave1-store").unwrap();
        std::fs::write(kept.store().join("commitlog"), "kept").unwrap();
        whole.write_node(&NodeFile::bare("rmqmaster1")).unwrap();

        state.sweep("c").unwrap();
        assert!(!gone.0.exists());
        assert_eq!(kept.volume().as_deref(), Some("rmqslave1-store"));
        assert!(kept.store().join("commitlog").exists());
        assert!(!kept.0.join("broker-a-slave1.properties").exists());
        assert!(whole.0.join("broker-a-slave1.properties").exists());

        kept.remove_volume().unwrap();
        assert!(!kept.0.exists());
        state.sweep("another").unwrap();
    }

    #[test]
    fn a_store_behind_a_symlink_is_unlinked_and_not_emptied() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = root.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("precious"), "").unwrap();
        let dir = NodeDir(root.path().join("rmqmaster1"));
        std::fs::create_dir(&dir.0).unwrap();
        std::fs::write(dir.0.join("volume"), "v").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.store()).unwrap();
        dir.remove_volume().unwrap();
        assert!(elsewhere.join("precious").exists());
        assert!(!dir.0.exists());
    }
}
