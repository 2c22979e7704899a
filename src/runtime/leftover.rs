//! What of ours stays behind when clusters are gone.

/// A thing of ours that no node here needs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Leftover {
    /// What it is.
    pub kind: LeftoverKind,
    /// Its name; a file's path.
    pub name: String,
    /// The cluster it belonged to; an engine belongs to none.
    pub cluster: Option<String>,
    /// Unix seconds of its making, where that is known.
    pub created_at: Option<u64>,
    /// Messages are lost with it.
    pub has_messages: bool,
}

/// Kinds of things that stay behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LeftoverKind {
    /// A network without a node.
    Network,
    /// A volume, or a process' store, of a cluster that is down.
    Volume,
    /// An engine that no node runs and that this `rmqctl` would not give to one.
    Engine,
}

impl LeftoverKind {
    /// As tables have it.
    pub fn word(self) -> &'static str {
        match self {
            LeftoverKind::Network => "network",
            LeftoverKind::Volume => "volume",
            LeftoverKind::Engine => "engine",
        }
    }
}
