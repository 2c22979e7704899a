//! What clusters left on this host: stores that outlived their nodes, and engines that none runs.

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{Processes, binary_name, dir};
use crate::runtime::{Leftover, LeftoverKind, RuntimeError};

impl Processes {
    pub(super) async fn find_leftovers(&self) -> Result<Vec<Leftover>, RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed("look at", "what is left", e);
        let mut left = Vec::new();
        let mut used = vec![
            self.state
                .0
                .join("bin")
                .join(binary_name(&*self.engine().await?)),
        ];
        for (cluster, nodes) in self.state.all_nodes().map_err(failed)? {
            let stands = self.state.spec(&cluster).exists();
            for node in nodes {
                let file = node.node().map_err(failed)?;
                if let (false, None, Some(name)) = (stands, &file, node.volume()) {
                    left.push(Leftover {
                        kind: LeftoverKind::Volume,
                        created_at: made_at(&node.store()),
                        name,
                        cluster: Some(cluster.clone()),
                        has_messages: true,
                    });
                }
                used.extend(file.map(|file| file.binary));
            }
        }
        let bin = match std::fs::read_dir(self.state.0.join("bin")) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(left),
            Err(e) => return Err(failed(e)),
        };
        for entry in bin {
            let path = entry.map_err(failed)?.path();
            if !used.contains(&path) {
                left.push(Leftover {
                    kind: LeftoverKind::Engine,
                    created_at: made_at(&path),
                    name: path.display().to_string(),
                    cluster: None,
                    has_messages: false,
                });
            }
        }
        Ok(left)
    }

    pub(super) fn discard_leftover(&self, left: &Leftover) -> Result<(), RuntimeError> {
        let failed = |e| RuntimeError::failed("remove", &left.name, e);
        match (left.kind, &left.cluster) {
            (LeftoverKind::Volume, Some(cluster)) => {
                for node in self.state.nodes(cluster).map_err(failed)? {
                    if node.volume().as_ref() == Some(&left.name) {
                        node.remove_volume().map_err(failed)?;
                    }
                }
                dir::remove_if_empty(&self.state.cluster(cluster)).map_err(failed)
            }
            (LeftoverKind::Engine, _) => dir::remove_file(Path::new(&left.name)).map_err(failed),
            // There are no networks here, and a volume has a cluster.
            _ => Ok(()),
        }
    }
}

/// When a file or directory was made, as far as the file system tells.
fn made_at(path: &Path) -> Option<u64> {
    let meta = std::fs::metadata(path).ok()?;
    let made = meta.created().or_else(|_| meta.modified()).ok()?;
    made.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
}
