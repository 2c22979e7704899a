//! Time zones by name.

use jiff::tz::TimeZoneDatabase;

use crate::error::nearest;

/// The zone's own spelling of a name, or why there is none; the engine has the same tables.
pub fn parse(typed: &str) -> Result<String, String> {
    let zones = TimeZoneDatabase::bundled();
    let known = zones.get(typed).ok();
    if let Some(name) = known.as_ref().and_then(|zone| zone.iana_name()) {
        return Ok(name.to_owned());
    }
    let all: Vec<String> = zones.available().map(|name| name.to_string()).collect();
    let names = || all.iter().map(String::as_str);
    // People often know the city alone.
    let of_city = || {
        let city = |name: &&str| {
            name.rsplit('/')
                .next()
                .is_some_and(|c| c.eq_ignore_ascii_case(typed))
        };
        names().find(city)
    };
    let hint = match nearest(typed, names()).or_else(of_city) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "a name as Asia/Shanghai, Europe/Berlin or UTC".to_owned(),
    };
    Err(format!("`{typed}` is not a time zone: {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_named_as_its_table_names_it_and_a_slip_is_told_with_the_nearest() {
        assert_eq!(parse("Asia/Shanghai").as_deref(), Ok("Asia/Shanghai"));
        assert_eq!(parse("europe/berlin").as_deref(), Ok("Europe/Berlin"));
        assert_eq!(parse("UTC").as_deref(), Ok("UTC"));
        let why = |typed: &str| parse(typed).unwrap_err();
        assert!(why("Asia/Shangai").ends_with("did you mean `Asia/Shanghai`?"));
        assert!(why("Berlin").ends_with("did you mean `Europe/Berlin`?"));
        assert!(why("GMT+25").contains("is not a time zone"));
        assert!(why("").contains("is not a time zone"));
    }
}
