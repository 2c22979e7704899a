//! Points in time as daemons and engines write them: RFC 3339, in UTC or with an offset.

/// Unix seconds of Docker's `2026-11-22T21:58:03.123456789Z`; `None` for its zero time and for what is no time.
pub fn unix_seconds(text: &str) -> Option<u64> {
    let (date, rest) = text.split_once('T')?;
    let (time, zone) = rest.split_at(rest.find(['.', 'Z', '+', '-'])?);
    let number = |part: Option<&str>| part?.parse::<i64>().ok();
    let mut date = date.split('-');
    let (year, month, day) = (
        number(date.next())?,
        number(date.next())?,
        number(date.next())?,
    );
    let mut time = time.split(':');
    let (hour, minute, second) = (
        number(time.next())?,
        number(time.next())?,
        number(time.next())?,
    );
    // Days since 1970-01-01 of a proleptic Gregorian date, the year starting in March so that the leap day is its last.
    let shifted = year - i64::from(month <= 2);
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    u64::try_from(days * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?).ok()
}

/// Seconds that `Z`, `+08:00` or `-03:30` at the end of a time is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    let zone = zone.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let (sign, hours) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(hours), _) => (1, hours),
        (_, Some(hours)) => (-1, hours),
        _ => return (zone == "Z").then_some(0),
    };
    let (hours, minutes) = hours.split_once(':')?;
    let number = |text: &str| text.parse::<i64>().ok();
    Some(sign * (number(hours)? * 3_600 + number(minutes)? * 60))
}

/// Unix nanoseconds of `2026-11-22T21:58:03.123456789Z`.
pub fn unix_nanos(text: &str) -> Option<u64> {
    let seconds = unix_seconds(text)?;
    let digits: String = text
        .split_once('.')
        .map(|(_, fraction)| fraction.chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    let nanos: u64 = format!("{digits:0<9}").get(..9)?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_times_become_unix_seconds() {
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_seconds("2000-02-29T12:00:00.5Z"), Some(951_825_600));
        assert_eq!(
            unix_seconds("2026-11-22T21:58:03.123456789Z"),
            Some(1_795_384_683)
        );
        assert_eq!(unix_seconds("0001-01-01T00:00:00Z"), None);
        assert_eq!(unix_seconds("soon"), None);
    }

    #[test]
    fn a_time_with_an_offset_is_the_same_moment() {
        let utc = unix_nanos("2026-11-22T21:58:03.123456Z");
        assert!(utc.is_some());
        assert_eq!(unix_nanos("2026-11-23T05:58:03.123456+08:00"), utc);
        assert_eq!(unix_nanos("2026-11-22T18:28:03.123456-03:30"), utc);
        assert_eq!(
            unix_seconds("2026-11-23T05:58:03+08:00"),
            Some(1_795_384_683)
        );
        assert_eq!(unix_seconds("2026-11-23T05:58:03+8"), None);
    }

    #[test]
    fn fractions_of_any_length_become_nanoseconds() {
        assert_eq!(unix_nanos("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(
            unix_nanos("1970-01-01T00:00:01.123456789Z"),
            Some(1_123_456_789)
        );
        assert_eq!(unix_nanos("1970-01-01T00:00:01Z"), Some(1_000_000_000));
        assert_eq!(unix_nanos("INFO"), None);
    }
}
