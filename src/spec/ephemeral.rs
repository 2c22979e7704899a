//! Clusters that end by themselves.

use serde::{Deserialize, Serialize};

/// When a cluster ends by itself, with all that it kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ephemeral {
    /// Unix seconds at which its nodes end, whatever goes on.
    pub until: u64,
    /// The `rmqctl` that raised it holds it: they end too when that process does.
    pub held: bool,
}

impl Ephemeral {
    /// Whether its time is up at `now`, in Unix seconds.
    pub fn is_over(self, now: u64) -> bool {
        self.until <= now
    }
}
