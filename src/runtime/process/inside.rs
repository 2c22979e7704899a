//! What is done where a node's process is: commands run in its directory, files copied from and to there.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::process::Command;
use tokio::sync::mpsc::{Receiver, Sender};

use super::Processes;
use crate::archive::{FromChannel, Place, ToChannel, pack, unpack};
use crate::runtime::RuntimeError;
use crate::topology::Desired;

impl Processes {
    /// Runs a command in the node's directory, with its environment and this program's streams; its exit code.
    pub(super) async fn run_beside(
        &self,
        desired: &Desired,
        container: &str,
        command: &[String],
    ) -> Result<i64, RuntimeError> {
        use std::os::unix::process::ExitStatusExt;
        let failed =
            |reason: String| RuntimeError::failed("run a command beside", container, reason);
        let (dir, node) = self
            .own_node(desired, container)?
            .ok_or_else(|| failed("no such node".into()))?;
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| failed("no command".into()))?;
        // Its name means the engine of the node, as in a container.
        let program = match program.as_str() {
            "rmqctl" => node.binary.as_path(),
            other => Path::new(other),
        };
        let status = Command::new(program)
            .args(arguments)
            .envs(&node.env)
            .current_dir(&dir.0)
            .status()
            .await
            .map_err(|e| failed(format!("{}: {e}", program.display())))?;
        let code = status.code().or_else(|| status.signal().map(|n| 128 + n));
        Ok(code.map_or(-1, i64::from))
    }

    pub(super) async fn archive_out(
        &self,
        desired: &Desired,
        container: &str,
        path: &str,
        archive: Sender<Bytes>,
    ) -> Result<(), RuntimeError> {
        let source = self.place_in(desired, container, path)?;
        let shown = source.display().to_string();
        let failed = |reason: String| RuntimeError::failed("copy", &shown, reason);
        let name = source.file_name().unwrap_or_default().to_owned();
        let packed = tokio::task::spawn_blocking({
            let source = source.clone();
            move || pack(&source, &name, 0, ToChannel::new(archive))
        })
        .await
        .map_err(|e| failed(e.to_string()))?;
        match packed {
            // Whoever reads has had enough: it says itself why.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map(drop).map_err(|e| failed(e.to_string())),
        }
    }

    pub(super) async fn archive_in(
        &self,
        desired: &Desired,
        container: &str,
        dir: &str,
        archive: Receiver<Bytes>,
    ) -> Result<(), RuntimeError> {
        let dir = self.place_in(desired, container, dir)?;
        let shown = dir.display().to_string();
        let failed = |reason: String| RuntimeError::failed("copy to", &shown, reason);
        let unpacked = tokio::task::spawn_blocking(move || {
            unpack(FromChannel::new(archive), Place::Into(&dir), u64::MAX - 1)
        });
        let unpacked = unpacked.await.map_err(|e| failed(e.to_string()))?;
        unpacked.map(drop).map_err(|e| failed(e.to_string()))
    }

    /// The place on this host that `path` means for a node: below its directory, wherever that path says it is.
    fn place_in(
        &self,
        desired: &Desired,
        container: &str,
        path: &str,
    ) -> Result<PathBuf, RuntimeError> {
        let failed =
            |reason: String| RuntimeError::failed("find", &format!("{container}:{path}"), reason);
        let (dir, _) = self
            .own_node(desired, container)?
            .ok_or_else(|| failed("no such node".into()))?;
        let real = |path: &Path| path.canonicalize().map_err(|e| failed(e.to_string()));
        let (root, place) = (real(&dir.0)?, real(&dir.0.join(path))?);
        if !place.starts_with(&root) {
            return Err(failed(format!(
                "it is not below the node's directory {}; the host's own `cp` copies what is elsewhere",
                root.display()
            )));
        }
        Ok(place)
    }
}
