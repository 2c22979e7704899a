//! Is the cluster well? [`facts`] asks the runtime, the nodes and the wire once; [`checks`] judges what came back, and asks nobody.

pub mod checks;
pub mod facts;

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it shall be.
    Good,
    /// Works, and is not as it shall be or soon will not be.
    Warning,
    /// Something does not work.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Stable: `nodes`, `registration`.
    pub id: &'static str,
    #[allow(missing_docs)]
    pub verdict: Verdict,
    /// What was found, in a line.
    pub found: String,
    /// Each thing that is wrong.
    pub details: Vec<String>,
    /// What mends it, best first.
    pub remedies: Vec<String>,
    /// `doctor --fix` mends it.
    pub fixable: bool,
}

impl Check {
    /// A check that came out well.
    fn good(id: &'static str, found: impl Into<String>) -> Check {
        Check {
            id,
            verdict: Verdict::Good,
            found: found.into(),
            details: Vec::new(),
            remedies: Vec::new(),
            fixable: false,
        }
    }

    /// `verdict` and `bad` if there are details, else good with `good`.
    fn of(
        id: &'static str,
        verdict: Verdict,
        details: Vec<String>,
        good: impl Into<String>,
        bad: impl Into<String>,
    ) -> Check {
        if details.is_empty() {
            return Check::good(id, good);
        }
        Check {
            verdict,
            details,
            ..Check::good(id, bad)
        }
    }

    /// Adds what mends it; a check that came out well needs nothing.
    fn remedy(mut self, remedy: impl Into<String>) -> Check {
        if self.verdict != Verdict::Good {
            self.remedies.push(remedy.into());
        }
        self
    }

    /// `--fix` mends it.
    fn fixable(mut self) -> Check {
        self.fixable = self.verdict != Verdict::Good;
        self
    }
}
