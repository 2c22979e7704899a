//! Where the nodes' stores lie.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Profile;

/// Where the nodes' stores lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Storage {
    /// A volume of the runtime's for each node, which outlives it.
    #[default]
    Volume,
    /// A directory of the host for each node, below `path`.
    Host {
        /// Absolute.
        path: PathBuf,
    },
    /// Memory: what a node holds is gone when it stops.
    Tmpfs {
        /// Bytes at most, of each node; `None`: as [`Storage::tmpfs_bytes`] says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
    },
}

/// Words of `kind` in cluster.yaml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum StorageKind {
    Volume,
    Host,
    Tmpfs,
}

/// Directories of the system in which no store belongs, with all below them.
const SYSTEM: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
];
/// The one place below them that people mean.
const MEMORY: &str = "/dev/shm";

impl Storage {
    /// Whether nodes have volumes of the runtime's.
    pub fn is_volume(&self) -> bool {
        *self == Storage::Volume
    }

    /// What a node's store in memory may take: as said, else room for several of the profile's segments.
    pub fn tmpfs_bytes(&self, profile: Profile) -> Option<u64> {
        let Storage::Tmpfs { size } = self else {
            return None;
        };
        Some(size.unwrap_or(match profile {
            Profile::Dev | Profile::Ci => 1 << 30,
            Profile::Prod => 8 << 30,
        }))
    }

    /// Why it cannot be, with what to say instead.
    pub(super) fn fault(
        &self,
        profile: Profile,
        memory: Option<u64>,
        conf_dir: &Path,
    ) -> Option<(String, String)> {
        match self {
            Storage::Volume => None,
            Storage::Host { path } => path_fault(path, conf_dir),
            Storage::Tmpfs { .. } => {
                let size = self.tmpfs_bytes(profile)?;
                // A segment that is written, one that is prepared, queues and index.
                let least = match profile {
                    Profile::Dev | Profile::Ci => 192 << 20,
                    Profile::Prod => 3 << 30,
                };
                if size < least {
                    return Some((
                        format!(
                            "stores of {} MiB in memory; at profile {} a broker needs {} MiB",
                            size >> 20,
                            word(profile),
                            least >> 20
                        ),
                        format!("storage: {{kind: tmpfs, size: {}m}}", least >> 20),
                    ));
                }
                let limit = memory?;
                (limit < size + (16 << 20)).then(|| {
                    (
                        format!(
                            "a store of up to {} MiB in memory counts in the node's memory limit, which is {} MiB",
                            size >> 20,
                            limit >> 20
                        ),
                        format!("--memory {}m", (size >> 20) + 256),
                    )
                })
            }
        }
    }
}

fn word(profile: Profile) -> &'static str {
    match profile {
        Profile::Dev => "dev",
        Profile::Ci => "ci",
        Profile::Prod => "prod",
    }
}

fn path_fault(path: &Path, conf_dir: &Path) -> Option<(String, String)> {
    let shown = path.display();
    let fault = |why: String| Some((why, "--data-dir /srv/rocketmq".to_owned()));
    if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        return fault(format!("the data directory {shown} is not absolute"));
    }
    if path == Path::new("/") {
        return fault("the root directory cannot be the data directory".to_owned());
    }
    let text = path.to_str();
    // Docker and Compose write `source:target`; a comma and a control character end a field elsewhere.
    if text.is_none_or(|text| text.contains([':', ',', '"']) || text.contains(char::is_control)) {
        return fault(format!(
            "the data directory {shown} has a `:`, a `,`, a quote or a control character in its name"
        ));
    }
    let of_system = SYSTEM.iter().find(|dir| path.starts_with(dir));
    if let Some(dir) = of_system.filter(|_| !path.starts_with(MEMORY)) {
        return fault(format!(
            "the data directory {shown} is in {dir}, which is the system's"
        ));
    }
    if path.starts_with(conf_dir) {
        return Some((
            format!(
                "the data directory {shown} is in the directory of the generated files, {}",
                conf_dir.display()
            ),
            "--data-dir and --conf-dir side by side: --data-dir ./rmq/data".to_owned(),
        ));
    }
    None
}

/// A path as it is meant from `dir`, without `.` and `..` where that needs no look at the disk.
pub(super) fn absolute(dir: &Path, path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in dir.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(path: &str) -> Option<String> {
        let storage = Storage::Host { path: path.into() };
        let fault = storage.fault(Profile::Dev, None, Path::new("/home/me/rmq/conf"));
        fault.map(|(why, _)| why)
    }

    #[test]
    fn a_data_directory_is_nobody_elses_place() {
        for good in [
            "/srv/rmq",
            "/home/me/rmq",
            "/home/me/rmq/data",
            "/dev/shm/rmq",
            "/etcetera",
        ] {
            assert_eq!(why(good), None, "{good}");
        }
        for (bad, part) in [
            ("data", "not absolute"),
            ("/", "root directory"),
            ("/etc/rmq", "is in /etc"),
            ("/usr", "is in /usr"),
            ("/srv/a:b", "has a `:`"),
            ("/home/me/rmq/conf", "is in the directory of the generated"),
            (
                "/home/me/rmq/conf/data",
                "is in the directory of the generated",
            ),
        ] {
            assert!(
                why(bad).is_some_and(|why| why.contains(part)),
                "{bad}: {:?}",
                why(bad)
            );
        }
    }

    #[test]
    fn a_store_in_memory_has_room_and_fits_the_memory_limit() {
        let fault = |size: Option<u64>, profile, memory| {
            Storage::Tmpfs { size }
                .fault(profile, memory, Path::new("/conf"))
                .map(|(_, instead)| instead)
        };
        assert_eq!(fault(None, Profile::Dev, None), None);
        assert_eq!(
            fault(Some(64 << 20), Profile::Dev, None).as_deref(),
            Some("storage: {kind: tmpfs, size: 192m}")
        );
        assert!(fault(Some(1 << 30), Profile::Prod, None).is_some());
        assert_eq!(
            fault(None, Profile::Dev, Some(512 << 20)).as_deref(),
            Some("--memory 1280m")
        );
        assert_eq!(fault(Some(256 << 20), Profile::Dev, Some(512 << 20)), None);
    }

    #[test]
    fn a_path_is_made_absolute_without_a_look_at_the_disk() {
        let path = |path: &str| absolute(Path::new("/home/me"), Path::new(path));
        assert_eq!(path("./data"), Path::new("/home/me/data"));
        assert_eq!(path("../you/data/"), Path::new("/home/you/data"));
        assert_eq!(path("/srv"), Path::new("/srv"));
    }

    #[test]
    fn kept_specs_name_the_kind_and_what_belongs_to_it() {
        let text = |storage: &Storage| serde_json::to_string(storage).unwrap();
        let host = Storage::Host {
            path: "/srv".into(),
        };
        assert_eq!(text(&host), r#"{"kind":"host","path":"/srv"}"#);
        assert_eq!(text(&Storage::Tmpfs { size: None }), r#"{"kind":"tmpfs"}"#);
        for storage in [host, Storage::Volume, Storage::Tmpfs { size: Some(7) }] {
            assert_eq!(
                serde_json::from_str::<Storage>(&text(&storage)).unwrap(),
                storage
            );
        }
    }
}
