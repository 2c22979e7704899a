//! What came wrong over connections, as the log has it. Whoever connects can cause as much of it as they like, so only so many are
//! told of in a second, and then how many were not.

use parking_lot::Mutex;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Connections told of in a second.
const LINES: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// All of this process.
static COMPLAINTS: Mutex<Complaints> = Mutex::new(Complaints::NONE);

/// Says that a peer's connection was closed for this.
pub(super) fn tell(peer: SocketAddr, why: impl Display) {
    let admitted = COMPLAINTS.lock().admit(Instant::now());
    let Some(untold) = admitted else {
        return;
    };
    if untold > 0 {
        tracing::warn!(untold, "more connections were closed than are told of");
    }
    tracing::warn!(%peer, "connection closed: {why}");
}

struct Complaints {
    since: Option<Instant>,
    /// Told since then.
    told: u32,
    /// Not told since the last that was.
    untold: u64,
}

impl Complaints {
    const NONE: Complaints = Complaints {
        since: None,
        told: 0,
        untold: 0,
    };

    /// Whether one is told of now: with how many before it that were not.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now >= since + SECOND) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told == LINES {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_of_in_part_and_what_was_left_out_is_counted() {
        let mut complaints = Complaints::NONE;
        let begin = Instant::now();
        let within = (0..100).filter_map(|_| complaints.admit(begin));
        assert_eq!(within.collect::<Vec<_>>(), [0; LINES as usize]);
        assert_eq!(complaints.admit(begin + SECOND / 2), None);
        assert_eq!(complaints.admit(begin + SECOND), Some(81));
        assert_eq!(complaints.admit(begin + SECOND), Some(0));
    }
}
