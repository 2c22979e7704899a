//! What a person is told when something fails: an id to search for, what was being done, why, and what to try next.
//!
//! Libraries' and rooms' errors become one of these in one place each, so an exit code is decided here and nowhere else.

pub mod catalogue;

use std::fmt;

/// Exit codes. A script may act on them, so they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failed, no better class.
    Failed = 1,
    /// The command line says two things, or something that cannot be.
    Usage = 2,
    /// Spec or properties invalid.
    Spec = 3,
    /// Daemon unreachable, no permission, or too old.
    Daemon = 4,
    /// A port, a name or a network is someone else's; nothing was changed.
    Conflict = 5,
    /// The readiness deadline passed.
    NotReady = 6,
    /// `status` found a fault.
    Degraded = 7,
    /// Some operations done, some not.
    Partial = 8,
    /// `plan --exit-code`: changes are pending.
    Pending = 10,
    /// First Ctrl-C, after a clean stop.
    Interrupted = 130,
    /// SIGTERM, after a clean stop.
    Terminated = 143,
}

/// A failure with its id, cause and hints. Its `Display` is what the terminal shows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Error {
    /// `RMQ-E021`.
    pub id: &'static str,
    /// Exit code of the process.
    #[serde(serialize_with = "exit_code")]
    pub exit: Exit,
    /// One line: what is wrong, with which object.
    pub title: String,
    /// Further lines: who, with which numbers, the last log lines.
    pub details: Vec<String>,
    /// Commands or changes that help, best first.
    pub hints: Vec<String>,
}

fn exit_code<S: serde::Serializer>(exit: &Exit, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u8(*exit as u8)
}

impl Error {
    /// An error of `id`; details and hints are added with [`Error::detail`] and [`Error::hint`].
    pub fn new(id: &'static str, exit: Exit, title: impl Into<String>) -> Self {
        Self {
            id,
            exit,
            title: title.into(),
            details: Vec::new(),
            hints: Vec::new(),
        }
    }

    /// Adds one line of cause.
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// Adds several lines of cause.
    pub fn lines(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(lines);
        self
    }

    /// Adds one thing to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.id, self.title)?;
        for line in &self.details {
            writeln!(f, "  {line}")?;
        }
        if !self.hints.is_empty() {
            writeln!(f, "hint: {}", self.hints.join("   ·   or: "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// The nearest of `names` to what was typed, if one is near enough to be meant.
pub fn nearest<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = typed.to_lowercase();
    names
        .into_iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&lower, &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, name)| *distance <= 1 + name.len().min(typed.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_prints_its_id_cause_and_hints() {
        let error = Error::new("RMQ-E021", Exit::Conflict, "host port 10911 is taken")
            .detail("node rmqmaster1 needs 127.0.0.1:10911")
            .hint("docker stop rmqbroker")
            .hint("rmqctl up --port-offset 100");
        assert_eq!(
            error.to_string(),
            "error[RMQ-E021]: host port 10911 is taken\n  node rmqmaster1 needs 127.0.0.1:10911\n\
             hint: docker stop rmqbroker   ·   or: rmqctl up --port-offset 100\n"
        );
    }

    #[test]
    fn a_typo_finds_its_name_and_nonsense_finds_none() {
        let names = ["rmqmaster1", "rmqslave1", "brokerRole"];
        assert_eq!(nearest("rmqmastr1", names), Some("rmqmaster1"));
        assert_eq!(nearest("brokerRolle", names), Some("brokerRole"));
        assert_eq!(nearest("zebra", names), None);
    }
}
