//! Times as people write and read them: `2026-11-25T16:43:00Z`, `-1h`, ms since the epoch; shown in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::spec::parse_duration;

const DAY_MS: i64 = 86_400_000;

/// Now, in ms since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}

/// A place in a topic's queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The first message that is still there.
    Earliest,
    /// Behind the last message.
    Latest,
    /// The first message stored at this time, in ms since the epoch, or later.
    At(i64),
    /// This offset, in every queue that has it.
    Offset(i64),
}

impl Place {
    /// Reads `earliest`, `latest`, a time, a time ago (`-1h`), or an offset. A number of 12 digits or more is ms since the epoch.
    pub fn parse(typed: &str) -> Result<Place, String> {
        match typed {
            "earliest" => return Ok(Place::Earliest),
            "latest" => return Ok(Place::Latest),
            _ => {}
        }
        if let Some(ago) = typed.strip_prefix('-') {
            let ago = i64::try_from(parse_duration(ago)?.as_millis()).map_err(|e| e.to_string())?;
            return Ok(Place::At(now_ms() - ago));
        }
        if !typed.is_empty() && typed.bytes().all(|b| b.is_ascii_digit()) {
            let number: i64 = typed
                .parse()
                .map_err(|_| format!("{typed} is too large a number"))?;
            return Ok(match typed.len() {
                ..12 => Place::Offset(number),
                _ => Place::At(number),
            });
        }
        parse(typed).map(Place::At).ok_or_else(|| {
            format!(
                "`{typed}` is none of earliest, latest, an offset, -1h, 2026-11-25T16:43:00Z, ms since the epoch"
            )
        })
    }
}

/// ms since the epoch of an RFC 3339 time; seconds, zone (UTC then) and time of day may be left out, a space may stand for the T.
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = match text.split_once(['T', 't', ' ']) {
        Some((date, rest)) => (date, rest),
        None => (text, "00:00"),
    };
    let mut parts = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    );
    if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that the month does not have comes back as another.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let (clock, zone_ms) = match rest.find(['Z', 'z', '+', '-']) {
        None => (rest, 0),
        Some(at) if rest[at..].eq_ignore_ascii_case("z") => (&rest[..at], 0),
        Some(at) => {
            let ahead = clock_ms(&rest[at + 1..])?;
            let sign = if rest[at..].starts_with('-') { -1 } else { 1 };
            (&rest[..at], sign * ahead)
        }
    };
    Some(days * DAY_MS + clock_ms(clock)? - zone_ms)
}

/// `16:43`, `16:43:00`, `16:43:00.125` in ms since midnight.
fn clock_ms(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':').map(str::parse::<i64>);
    let (hour, minute) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let second = parts.next().unwrap_or(Ok(0)).ok()?;
    if parts.next().is_some() || !(0..24).contains(&hour) || !(0..60).contains(&minute) {
        return None;
    }
    if !(0..61).contains(&second) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// `2026-11-25T16:43:00.125Z`; `-` for 0, which the protocol says where there is no time.
pub fn text(ms: i64) -> String {
    if ms <= 0 {
        return "-".into();
    }
    let (year, month, day) = civil_from_days(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        of_day % 1000
    )
}

/// Days since 1970-01-01 (Howard Hinnant, days_from_civil: years that begin in March).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year.rem_euclid(400);
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day count (Howard Hinnant, civil_from_days).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + shifted.div_euclid(146_097) * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        // `date -u -d 2026-11-25T16:43:00Z +%s`
        let at = 1_795_624_980_000;
        for typed in [
            "2026-11-25T16:43:00Z",
            "2026-11-25 16:43",
            "2026-11-25T17:43:00+01:00",
            "2026-11-25T11:43:00.000-05:00",
        ] {
            assert_eq!(parse(typed), Some(at), "{typed}");
        }
        assert_eq!(text(at + 125), "2026-11-25T16:43:00.125Z");
        assert_eq!(parse("2024-02-29"), Some(1_709_164_800_000));
        assert_eq!(text(0), "-");
        for typed in [
            "2026-02-29",
            "2026-13-01",
            "25:00",
            "2026-11-25T24:00",
            "x",
            "",
            "2026-11-25T16:43:00.1x",
        ] {
            assert_eq!(parse(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_place_is_a_word_a_time_or_an_offset() {
        assert_eq!(Place::parse("earliest"), Ok(Place::Earliest));
        assert_eq!(Place::parse("latest"), Ok(Place::Latest));
        assert_eq!(Place::parse("17"), Ok(Place::Offset(17)));
        assert_eq!(
            Place::parse("1795624980000"),
            Ok(Place::At(1_795_624_980_000))
        );
        let Ok(Place::At(ago)) = Place::parse("-1h") else {
            panic!("a time ago")
        };
        assert!((now_ms() - ago - 3_600_000).abs() < 60_000);
        for typed in ["soon", "", "-x", "99999999999999999999"] {
            assert!(Place::parse(typed).is_err(), "{typed}");
        }
    }
}
