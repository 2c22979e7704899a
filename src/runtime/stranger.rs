//! Containers that no rmqctl made, as far as `adopt` needs to know them.

use std::collections::BTreeMap;

use super::RuntimeError;

/// A container without our labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stranger {
    pub container: String,
    pub image: String,
    pub runs: bool,
    /// Entry point and arguments.
    pub command: Vec<String>,
    /// Command lines of its processes, while it runs: what a script in its image made of the above.
    pub processes: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub hostname: String,
    /// As `--user` or the image says it: a name, or `uid:gid`.
    pub user: String,
    pub working_dir: String,
    pub mounts: Vec<Mount>,
    /// Where ports of the container are published: port inside, address and port of the host.
    pub ports: Vec<(u16, String, u16)>,
    /// Its own addresses in Docker's networks, those that are known.
    pub addresses: Vec<String>,
    /// Containers that it reaches by `--link`, with the name that they have for it.
    pub links: Vec<(String, String)>,
    pub memory: Option<u64>,
    pub nano_cpus: Option<i64>,
}

/// What is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Mount {
    /// `volume data`, `host directory /srv/rmq`.
    pub source: String,
    pub target: String,
}

/// What lies at a path, as far as the first piece of it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// Plain files with their sizes, those whose place was seen.
    pub files: Vec<(String, u64)>,
    /// Content of the first, where it is small.
    pub text: Option<Vec<u8>>,
}

pub(super) fn unsupported(kind: &'static str) -> RuntimeError {
    RuntimeError::Unsupported {
        what: "adopt a node".into(),
        runtime: kind,
        reason: "only containers are made by hand and found again by their names",
        hint: "--runtime docker",
    }
}
