//! The time zone of this host, which a new cluster gets.

use std::path::Path;

use crate::spec::zone;

/// Its name: what `TZ` says, else `/etc/timezone`, else where `/etc/localtime` leads. `None`: UTC, or not known.
pub fn of_this_host() -> Option<String> {
    let variable = std::env::var("TZ").ok();
    of_host(variable.as_deref(), Path::new("/etc"))
}

fn of_host(variable: Option<&str>, etc: &Path) -> Option<String> {
    let file = || {
        let text = std::fs::read_to_string(etc.join("timezone")).ok()?;
        Some(text.trim().to_owned())
    };
    let link = || {
        let target = std::fs::canonicalize(etc.join("localtime")).ok()?;
        let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
        // Trees of other kinds of seconds stand beside.
        let name = name
            .trim_start_matches("posix/")
            .trim_start_matches("right/");
        Some(name.to_owned())
    };
    let said = variable
        .filter(|v| !v.is_empty())
        .map(|v| v.trim_start_matches(':').to_owned());
    let known = |name: String| zone::parse(&name).ok();
    let name = match said {
        // A set variable is meant, also when it is no name, as `CST-8`: then it is not known.
        Some(name) => known(name),
        None => file().and_then(known).or_else(|| link().and_then(known)),
    }?;
    let is_utc = matches!(
        name.as_str(),
        "UTC"
            | "Etc/UTC"
            | "Etc/UCT"
            | "UCT"
            | "Etc/Universal"
            | "Universal"
            | "Etc/Zulu"
            | "Zulu"
            | "GMT"
            | "Etc/GMT"
    );
    (!is_utc).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_counts_before_the_file_and_the_file_before_the_link() {
        let etc = tempfile::tempdir().unwrap();
        let zone = |variable| of_host(variable, etc.path());
        assert_eq!(zone(None), None);
        let zoneinfo = etc.path().join("zoneinfo/posix/Asia");
        std::fs::create_dir_all(&zoneinfo).unwrap();
        std::fs::write(zoneinfo.join("Tokyo"), "").unwrap();
        std::os::unix::fs::symlink(zoneinfo.join("Tokyo"), etc.path().join("localtime")).unwrap();
        assert_eq!(zone(None).as_deref(), Some("Asia/Tokyo"));
        std::fs::write(etc.path().join("timezone"), "Europe/Berlin\n").unwrap();
        assert_eq!(zone(None).as_deref(), Some("Europe/Berlin"));
        assert_eq!(zone(Some("")).as_deref(), Some("Europe/Berlin"));
        assert_eq!(
            zone(Some(":Asia/Shanghai")).as_deref(),
            Some("Asia/Shanghai")
        );
        assert_eq!(zone(Some("CST-8")), None);
        assert_eq!(zone(Some("Etc/UTC")), None);
        std::fs::write(etc.path().join("timezone"), "nonsense\n").unwrap();
        assert_eq!(zone(None).as_deref(), Some("Asia/Tokyo"));
    }
}
