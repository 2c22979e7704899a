//! Unique keys for messages whose client sent none.
//!
//! Hex, upper case, of `IP 4 | pid 2 | hash 4 | ms since the month began 4 | counter 2` bytes.
//! Source: `apache/rocketmq: common/.../message/MessageClientIDSetter.java`.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

const DAY_MS: i64 = 86_400_000;

/// Makes unique keys.
#[derive(Debug)]
pub(super) struct UniqueKeys {
    prefix: String,
    counter: AtomicU16,
}

impl UniqueKeys {
    /// `salt` takes the place of Java's class loader hash: it tells two brokers on one host with one pid (containers) apart.
    pub(super) fn new(host: IpAddr, pid: u32, salt: u32) -> UniqueKeys {
        let mut prefix = String::with_capacity(20);
        let octets = match host {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        for octet in octets {
            write!(prefix, "{octet:02X}").expect("writing to a String cannot fail");
        }
        write!(prefix, "{:04X}{salt:08X}", pid as u16).expect("writing to a String cannot fail");
        UniqueKeys {
            prefix,
            counter: AtomicU16::new(0),
        }
    }

    /// The next one at `now_ms`.
    pub(super) fn next(&self, now_ms: i64) -> String {
        let since = since_month_began(now_ms) as u32;
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("{}{since:08X}{count:04X}", self.prefix)
    }
}

/// Milliseconds since the (UTC) month began.
fn since_month_began(now_ms: i64) -> i64 {
    let days = now_ms.div_euclid(DAY_MS);
    // Day of month of a day count since 1970, by years that begin in March (Howard Hinnant, days_from_civil).
    let of_era = (days + 719_468).rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month + 2) / 5;
    day_of_month * DAY_MS + now_ms.rem_euclid(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_host_pid_salt_time_of_month_and_counter() {
        let keys = UniqueKeys::new("127.0.0.1".parse().unwrap(), 0x1_2345, 0xCAFE);
        // 2024-03-02T00:00:00.005Z
        let now = 1_709_337_600_005;
        assert_eq!(keys.next(now), "7F00000123450000CAFE05265C050000");
        assert_eq!(keys.next(now), "7F00000123450000CAFE05265C050001");
    }

    #[test]
    fn months_begin_at_their_first_day_in_leap_years_too() {
        for (now, days) in [
            (1_709_164_800_000, 28), // 2024-02-29
            (1_709_251_200_000, 0),  // 2024-03-01
            (1_735_603_200_000, 30), // 2024-12-31
            (1_735_689_600_000, 0),  // 2025-01-01
            (0, 0),
        ] {
            assert_eq!(since_month_began(now), days * DAY_MS, "{now}");
        }
    }
}
