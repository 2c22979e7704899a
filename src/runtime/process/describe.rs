//! All that is known of one node's process, and of this host.

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Processes;
use super::dir::{NodeDir, RunFile};
use super::observed_node;
use crate::plan::state_text;
use crate::runtime::describe::{About, Description, Disk, Event, Mount};
use crate::runtime::{RuntimeError, label};
use crate::topology::Desired;

impl Processes {
    pub(super) fn describe_node(
        &self,
        desired: &Desired,
        container: &str,
    ) -> Result<Option<Description>, RuntimeError> {
        let failed = |e: std::io::Error| RuntimeError::failed("look at", container, e);
        let Some((dir, node)) = self.own_node(desired, container)? else {
            return Ok(None);
        };
        let run = dir.run().map_err(failed)?;
        let seen = observed_node(&dir, node.clone()).map_err(failed)?;
        let created_at = modified(&dir.0.join("node.json"));
        let last_end = run.as_ref().and_then(|run| run.last_end);
        Ok(Some(Description {
            state: state_text(&seen.state),
            id: seen.id,
            image: Some(node.image),
            created_by: node.labels.get(label::CREATED_BY).cloned(),
            created_at,
            started_at: seen.started_at,
            finished_at: last_end.map(|end| end.at_ms / 1000),
            restarts: seen.restarts,
            exit_code: last_end.map(|end| end.code),
            restart_policy: "supervisor".into(),
            mounts: store_of(&dir),
            command: node.command,
            env: node.env,
            labels: node.labels,
            events: events(created_at, run.as_ref()),
            ..Description::default()
        }))
    }
}

/// What the files tell: its making, its last start and its last end.
fn events(created_at: Option<u64>, run: Option<&RunFile>) -> Vec<Event> {
    let event = |at, what: String| Event { at, what };
    let mut events: Vec<Event> = Vec::new();
    events.extend(created_at.map(|at| event(at, "created".into())));
    if let Some(run) = run {
        events.push(event(run.started_at, "started".into()));
        events.extend(run.last_end.map(|end| {
            event(
                end.at_ms / 1000,
                format!("ended with exit code {}", end.code),
            )
        }));
    }
    events.sort_by_key(|event| event.at);
    events
}

fn store_of(dir: &NodeDir) -> Vec<Mount> {
    let volume = dir.volume().map(|source| Mount {
        target: dir.store().display().to_string(),
        source,
        read_only: false,
    });
    volume.into_iter().collect()
}

fn modified(path: &Path) -> Option<u64> {
    let modified = path.metadata().ok()?.modified().ok()?;
    Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// This host.
pub(super) fn about_host(state: &Path) -> About {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    About {
        version: format!("{} {}", text(uname.sysname()), text(uname.release())),
        details: [
            ("architecture".to_owned(), text(uname.machine())),
            ("state".to_owned(), state.display().to_string()),
        ]
        .into(),
        disk: Disk::of(&state.display().to_string()),
        // Nodes have this program's own clock.
        clock: None,
    }
}
