//! What a runtime knows of one node and of itself, for a person who asks why.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::NodeState;

/// All that a runtime knows of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// `running`, `paused`, `exited (137)`.
    pub state: String,
    /// Container id, or pid.
    pub id: String,
    /// Tag of the engine.
    pub image: Option<String>,
    /// `user@host` that made it.
    pub created_by: Option<String>,
    /// Unix seconds.
    pub created_at: Option<u64>,
    /// Unix seconds of the last start.
    pub started_at: Option<u64>,
    /// Unix seconds of the last end.
    pub finished_at: Option<u64>,
    /// How often it came back by itself.
    pub restarts: u32,
    /// How it ended last: 128 + n for signal n.
    pub exit_code: Option<i64>,
    /// The last end was for memory.
    pub oom_killed: bool,
    /// Why the runtime could not start it.
    pub error: Option<String>,
    /// Its health check, where the runtime runs one.
    pub health: Option<Health>,
    /// Bytes of memory it may have, where that is enforced.
    pub memory_limit: Option<u64>,
    /// Billionths of a core it may use, where that is enforced.
    pub nano_cpus: Option<i64>,
    /// `always`, or `supervisor`.
    pub restart_policy: String,
    #[allow(missing_docs)]
    pub mounts: Vec<Mount>,
    #[allow(missing_docs)]
    pub networks: Vec<Network>,
    /// Arguments of the engine.
    pub command: Vec<String>,
    #[allow(missing_docs)]
    pub env: BTreeMap<String, String>,
    #[allow(missing_docs)]
    pub labels: BTreeMap<String, String>,
    /// What happened to it, oldest first, as far back as the runtime remembers.
    pub events: Vec<Event>,
}

/// State of a health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `healthy`, `unhealthy`, `starting`.
    pub status: String,
    /// Failures in a row.
    pub failing_streak: u32,
    /// What the last checks that failed said, oldest first.
    pub failures: Vec<String>,
}

/// A directory of the node that lies elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Path in the node.
    pub target: String,
    /// Volume or path on the host.
    pub source: String,
    #[allow(missing_docs)]
    pub read_only: bool,
}

/// A network that the node is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    #[allow(missing_docs)]
    pub name: String,
    /// Its own address there.
    pub address: Option<String>,
    /// The network's gateway: what callers through published ports come from.
    pub gateway: Option<String>,
    /// Names that others there know it by.
    pub aliases: Vec<String>,
}

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Unix seconds.
    pub at: u64,
    /// `started`, `ended with exit code 137`.
    pub what: String,
}

/// What a runtime says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// `Docker 28.2.2`, `Linux 6.1`.
    pub version: String,
    /// Further facts, as `architecture`.
    pub details: BTreeMap<String, String>,
    /// The disk that stores lie on, where it can be seen from here.
    pub disk: Option<Disk>,
    /// Unix seconds of its own clock, where it has one.
    pub clock: Option<u64>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// A path on it.
    pub path: String,
    /// Bytes.
    pub total: u64,
    /// Bytes that this user may still write.
    pub free: u64,
}

impl Disk {
    /// The file system that `path` lies on; `None` when it cannot be asked.
    pub fn of(path: &str) -> Option<Disk> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(Disk {
            path: path.to_owned(),
            total: stat.f_blocks * stat.f_frsize,
            free: stat.f_bavail * stat.f_frsize,
        })
    }

    /// In percent, as `df` rounds it.
    pub fn used_percent(&self) -> u64 {
        let used = self.total.saturating_sub(self.free);
        (used * 100).div_ceil(self.total.max(1))
    }
}

/// How a node ended, in words.
pub fn exit_words(code: i64, oom_killed: bool) -> String {
    let text = match code {
        _ if oom_killed => "killed by the kernel: it used more memory than its limit",
        0 => "a clean end",
        1 => "it gave up with an error, which stands at the end of its log",
        2 => "its command line was refused",
        3 => "its properties file was refused",
        101 => "a panic, a fault of the engine; its message stands in the log",
        125 => "the daemon could not start it",
        126 => "its program could not be executed",
        127 => "its program was not found",
        130 => "interrupted (SIGINT)",
        132 => "an instruction that this processor does not have (SIGILL)",
        134 => "it aborted itself (SIGABRT)",
        135 => "it read a mapped file whose disk failed or was cut (SIGBUS)",
        137 => {
            "killed by force (SIGKILL): by somebody, or by the kernel for want of memory on the host"
        }
        139 => "it touched memory that is not its own (SIGSEGV), a fault of the engine",
        143 => "told to end (SIGTERM) before it could do so cleanly",
        code if code > 128 && code < 193 => return format!("ended by signal {}", code - 128),
        _ => "no code of the engine's",
    };
    text.to_owned()
}

/// What to do about a node in this state, best first. `name` is the node's.
pub fn advice(
    name: &str,
    state: &NodeState,
    code: Option<i64>,
    oom_killed: bool,
) -> Vec<(&'static str, String)> {
    let logs = ("says what it printed", format!("logs {name} --tail 100"));
    let start = ("starts it", format!("start {name}"));
    match (state, code) {
        _ if oom_killed => vec![
            ("gives it more memory", "up --memory SIZE".to_owned()),
            logs,
        ],
        (NodeState::Paused, _) => vec![("lets it go on", format!("chaos unpause {name}"))],
        (NodeState::Exited(None), _) => vec![start],
        (_, Some(3)) => vec![
            ("says which line", "config lint".to_owned()),
            ("makes it anew from the file", "up".to_owned()),
        ],
        (NodeState::Restarting, _) => vec![
            logs,
            ("stops the attempts", format!("stop {name}")),
            ("collects all for a report", "dump DIR".to_owned()),
        ],
        (NodeState::Exited(_), Some(0 | 130 | 137 | 143)) => vec![start],
        (NodeState::Exited(_), _) => vec![
            start,
            logs,
            ("collects all for a report", "dump DIR".to_owned()),
        ],
        (NodeState::Running, _) => {
            vec![("says what is wrong around it", "doctor".to_owned()), logs]
        }
        (NodeState::Other(_), _) => vec![logs],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_says_who_ended_it() {
        assert!(exit_words(137, false).contains("SIGKILL"));
        assert!(exit_words(137, true).contains("memory than its limit"));
        assert!(exit_words(101, false).contains("panic"));
        assert!(exit_words(3, false).contains("properties"));
        assert_eq!(exit_words(129, false), "ended by signal 1");
        assert_eq!(exit_words(77, false), "no code of the engine's");
    }

    #[test]
    fn the_first_advice_fits_the_state() {
        let first =
            |state: NodeState, code, oom| advice("rmqslave1", &state, code, oom)[0].1.clone();
        assert_eq!(
            first(NodeState::Exited(Some(137)), Some(137), true),
            "up --memory SIZE"
        );
        assert_eq!(
            first(NodeState::Exited(Some(137)), Some(137), false),
            "start rmqslave1"
        );
        assert_eq!(
            first(NodeState::Paused, None, false),
            "chaos unpause rmqslave1"
        );
        assert_eq!(
            first(NodeState::Restarting, Some(1), false),
            "logs rmqslave1 --tail 100"
        );
        assert_eq!(first(NodeState::Running, None, false), "doctor");
    }

    #[test]
    fn disk_use_is_rounded_up_as_df_does() {
        let disk = Disk {
            path: "/".into(),
            total: 1000,
            free: 99,
        };
        assert_eq!(disk.used_percent(), 91);
        assert!(Disk::of("/").unwrap().total > 0);
    }
}
