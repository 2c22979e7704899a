//! Wall time, and the zone whose days and hours it is told in, in one place so that nothing else reads them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Milliseconds since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A time zone: whose 4 o'clock `deleteWhen=04` is, and at whose midnight daily counters move on. The tables are in the program:
/// its image holds no files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Zone(TimeZone::UTC)
    }
}

impl Zone {
    /// The zone of this name, as `Asia/Shanghai`; `None` when there is none.
    pub fn named(name: &str) -> Option<Zone> {
        // As POSIX lets a name begin.
        let name = name.strip_prefix(':').unwrap_or(name);
        TimeZoneDatabase::bundled().get(name).ok().map(Zone)
    }

    /// The zone that the variable `TZ` names: UTC where it is not set or names none, which is an error to be told.
    pub fn of_environment() -> (Zone, Option<String>) {
        match std::env::var("TZ") {
            Ok(name) if !name.is_empty() => match Zone::named(&name) {
                Some(zone) => (zone, None),
                None => (Zone::default(), Some(name)),
            },
            _ => (Zone::default(), None),
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00 as this zone's clocks show them.
    fn local_ms(&self, ms: i64) -> i64 {
        let offset = Timestamp::from_millisecond(ms).map(|at| self.0.to_offset(at).seconds());
        // Times that no calendar has are nobody's 4 o'clock either.
        ms.saturating_add(i64::from(offset.unwrap_or(0)) * 1000)
    }

    /// The hour of the day, 0 to 23.
    pub fn hour(&self, ms: i64) -> u32 {
        (self.local_ms(ms).rem_euclid(DAY_MS) / HOUR_MS) as u32
    }

    /// The day, counted from 1970-01-01.
    pub fn day(&self, ms: i64) -> i64 {
        self.local_ms(ms).div_euclid(DAY_MS)
    }

    /// RFC 3339 with microseconds: `2026-11-25T09:30:00.123456+08:00`, and `Z` in UTC.
    pub fn stamp(&self, at: SystemTime) -> String {
        let Ok(at) = Timestamp::try_from(at) else {
            return "0".to_owned();
        };
        match self.0 == TimeZone::UTC {
            true => format!("{at:.6}"),
            false => format!("{:.6}", at.display_with_offset(self.0.to_offset(at))),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn four_in_the_morning_is_each_zones_own() {
        for (zone, moment) in [
            ("UTC", "2026-11-25T04:00:00Z"),
            ("Asia/Shanghai", "2026-11-24T20:00:00Z"),
            ("America/New_York", "2026-11-25T09:00:00Z"),
            ("Asia/Kolkata", "2026-11-24T22:30:00Z"),
            ("Pacific/Kiritimati", "2026-11-24T14:00:00Z"),
        ] {
            let zone = Zone::named(zone).unwrap();
            assert_eq!(zone.hour(at(moment)), 4, "{zone}");
            assert_eq!(zone.hour(at(moment) - 1), 3, "{zone}");
        }
    }

    #[test]
    fn clocks_that_are_put_on_skip_an_hour_and_those_put_back_have_one_twice() {
        let zone = Zone::named("Europe/Berlin").unwrap();
        let hours = |from: &str| -> Vec<u32> {
            (0..4).map(|k| zone.hour(at(from) + k * HOUR_MS)).collect()
        };
        assert_eq!(hours("2026-03-29T00:00:00Z"), [1, 3, 4, 5]);
        assert_eq!(hours("2026-10-25T00:00:00Z"), [2, 2, 3, 4]);
        // The same hour of the clock in summer and in winter.
        assert_eq!(zone.hour(at("2026-07-01T02:00:00Z")), 4);
        assert_eq!(zone.hour(at("2026-12-01T03:00:00Z")), 4);
    }

    #[test]
    fn days_begin_at_the_zones_midnight_also_when_they_have_23_or_25_hours() {
        let zone = Zone::named("Europe/Berlin").unwrap();
        let days = |from: &str, to: &str| zone.day(at(to)) - zone.day(at(from));
        assert_eq!(days("2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z"), 1);
        assert_eq!(days("2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"), 0);
        assert_eq!(days("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 1);
        assert_eq!(days("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z"), 0);
        assert_eq!(days("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 1);
        let far = Zone::named("America/St_Johns").unwrap();
        assert_eq!(far.day(at("1970-01-01T03:29:59Z")), -1);
        assert_eq!(far.day(at("1970-01-01T03:30:00Z")), 0);
    }

    #[test]
    fn a_stamp_says_its_offset() {
        let moment = UNIX_EPOCH + std::time::Duration::from_micros(1_795_384_683_123_456);
        assert_eq!(Zone::default().stamp(moment), "2026-11-22T21:58:03.123456Z");
        assert_eq!(
            Zone::named("Asia/Shanghai").unwrap().stamp(moment),
            "2026-11-23T05:58:03.123456+08:00"
        );
        assert_eq!(
            Zone::named("America/St_Johns").unwrap().stamp(moment),
            "2026-11-22T18:28:03.123456-03:30"
        );
    }

    #[test]
    fn a_name_is_known_in_any_case_and_others_are_none() {
        let zone = |name| Zone::named(name).map(|zone| zone.to_string());
        assert_eq!(zone("asia/shanghai").as_deref(), Some("Asia/Shanghai"));
        assert_eq!(zone(":Asia/Shanghai").as_deref(), Some("Asia/Shanghai"));
        assert_eq!(zone("Asia/Shangai"), None);
        assert_eq!(zone(""), None);
    }
}
