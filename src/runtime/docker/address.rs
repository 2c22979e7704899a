//! Where the daemon is, and with which keys it is spoken to: the command line, the environment, Docker's contexts, Podman's sockets.
//!
//! bollard knows no Docker contexts, so they are read here.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::RuntimeError;
use super::super::image::hex;

const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// How the default socket is called in messages.
pub const DEFAULT_SOURCE: &str = "default socket";

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// As a URL: `unix:///var/run/docker.sock`, `tcp://far:2376`, `ssh://me@far`.
    pub host: String,
    /// Where it is written: `-H`, `DOCKER_HOST`, `context "x"`, `default socket`.
    pub source: String,
    /// Keys of a TCP endpoint with TLS.
    pub tls: Option<Tls>,
}

/// Files of Docker's names: who may be the daemon, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Tls {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Tls {
    fn in_dir(dir: &Path) -> Self {
        Self {
            ca: dir.join("ca.pem"),
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        }
    }

    /// The first of the files that cannot be read, with the reason.
    pub fn fault(&self) -> Option<String> {
        [&self.ca, &self.cert, &self.key]
            .into_iter()
            .find_map(|path| {
                let reason = std::fs::File::open(path).err()?;
                Some(format!("{}: {reason}", path.display()))
            })
    }
}

/// The part of the environment that says where a daemon is.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    context: Option<String>,
    host: Option<String>,
    /// `DOCKER_TLS_VERIFY` is set, and where the keys are.
    tls_dir: Option<PathBuf>,
    config_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
}

impl Environment {
    /// This process'. An empty variable is one that is not set.
    pub fn read() -> Self {
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let config_dir = env("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| env("HOME").map(|home| Path::new(&home).join(".docker")));
        let tls_dir = env("DOCKER_TLS_VERIFY").and_then(|_| {
            let said = env("DOCKER_CERT_PATH").map(PathBuf::from);
            said.or_else(|| config_dir.clone())
        });
        Self {
            context: env("DOCKER_CONTEXT"),
            host: env("DOCKER_HOST"),
            tls_dir,
            config_dir,
            runtime_dir: env("XDG_RUNTIME_DIR").map(PathBuf::from),
        }
    }

    fn endpoint(&self, host: &str, source: &str) -> Endpoint {
        let tls = self.tls_dir.as_deref().map(Tls::in_dir);
        Endpoint {
            tls: tls.filter(|_| host.starts_with("tcp://") || host.starts_with("https://")),
            host: host.to_owned(),
            source: source.to_owned(),
        }
    }

    /// The daemon's address: `-H`, then `--context` or `DOCKER_CONTEXT`, then `DOCKER_HOST`, then the config's current
    /// context, then the default socket (docker/cli: cli/command/cli.go resolveContextName).
    pub fn docker(
        &self,
        flag: Option<&str>,
        context: Option<&str>,
    ) -> Result<Endpoint, RuntimeError> {
        if let Some(host) = flag {
            return Ok(self.endpoint(host, "-H"));
        }
        let said = context.map(str::to_owned).or_else(|| self.context.clone());
        let context = match (said, &self.host) {
            (Some(context), _) => Some(context),
            (None, Some(host)) => return Ok(self.endpoint(host, "DOCKER_HOST")),
            (None, None) => self.config_dir.as_deref().and_then(current_context),
        };
        match (context, &self.config_dir) {
            (Some(name), Some(dir)) if name != "default" => {
                in_context(dir, &name).ok_or_else(|| RuntimeError::NoDaemon {
                    host: "?".into(),
                    source_of_host: format!("context {name:?}"),
                    reason: format!("{} knows no such context", dir.display()),
                    hint: "list them: docker context ls".into(),
                    absent: false,
                })
            }
            _ => Ok(Endpoint {
                host: DEFAULT_HOST.into(),
                source: DEFAULT_SOURCE.into(),
                tls: None,
            }),
        }
    }

    /// Where Podman listens: a user's own service first, then root's.
    pub fn podman(&self, uid: u32) -> Vec<Endpoint> {
        let own = self.runtime_dir.iter().cloned();
        let mut paths: Vec<PathBuf> = own
            .chain([PathBuf::from(format!("/run/user/{uid}"))])
            .map(|dir| dir.join("podman/podman.sock"))
            .chain([PathBuf::from("/run/podman/podman.sock")])
            .collect();
        paths.dedup();
        paths
            .into_iter()
            .map(|path| Endpoint {
                host: format!("unix://{}", path.display()),
                source: "Podman's socket".into(),
                tls: None,
            })
            .collect()
    }
}

fn current_context(config_dir: &Path) -> Option<String> {
    let text = std::fs::read(config_dir.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let name = config.get("currentContext")?.as_str()?;
    (!name.is_empty()).then(|| name.to_string())
}

/// A context's directories are named by the sha256 of its name (docker/cli: cli/context/store/metadatastore.go, tlsstore.go).
fn in_context(config_dir: &Path, name: &str) -> Option<Endpoint> {
    let dir = hex(&Sha256::digest(name.as_bytes()));
    let contexts = config_dir.join("contexts");
    let text = std::fs::read(contexts.join("meta").join(&dir).join("meta.json")).ok()?;
    let meta: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let keys = contexts.join("tls").join(&dir).join("docker");
    Some(Endpoint {
        host: meta
            .pointer("/Endpoints/docker/Host")?
            .as_str()?
            .to_string(),
        source: format!("context {name:?}"),
        tls: keys.is_dir().then(|| Tls::in_dir(&keys)),
    })
}

impl Endpoint {
    /// Why an address is not for us, and what to do. Docker's TCP port without TLS gives root on that machine to whoever
    /// reaches it.
    pub fn unsupported(&self) -> Option<(String, String)> {
        let scheme = self.host.split("://").next().unwrap_or_default();
        match scheme {
            "unix" | "ssh" => None,
            "tcp" | "http" | "https" if self.tls.is_some() => None,
            "tcp" | "http" if self.machine().is_none() => None,
            "tcp" | "http" | "https" => Some((
                "plain TCP to another machine is refused: it carries no authentication".into(),
                "with TLS: DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=DIR (ca.pem, cert.pem, key.pem)   ·   or through ssh: \
                 -H ssh://USER@HOST"
                    .into(),
            )),
            _ => Some((
                "it is none of unix://, tcp:// and ssh://".into(),
                "-H unix:///var/run/docker.sock   ·   or: -H ssh://USER@HOST".into(),
            )),
        }
    }

    /// The machine that the daemon is on, where it is not this one.
    pub fn machine(&self) -> Option<&str> {
        let (scheme, rest) = self.host.split_once("://")?;
        if scheme == "unix" {
            return None;
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next()?,
            None => host.split(':').next()?,
        };
        let here = name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        (!here && !name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(host: Option<&str>, config_dir: Option<&Path>) -> Environment {
        Environment {
            host: host.map(String::from),
            config_dir: config_dir.map(Path::to_owned),
            ..Environment::default()
        }
    }

    fn at(host: &str) -> Endpoint {
        environment(None, None).endpoint(host, "-H")
    }

    #[test]
    fn the_flag_beats_the_context_beats_the_environment_beats_the_current_context() {
        let dir = tempfile::tempdir().unwrap();
        let hash = hex(&Sha256::digest(b"colima"));
        let meta = dir.path().join("contexts/meta").join(&hash);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"colima","Endpoints":{"docker":{"Host":"tcp://far:2376"}}}"#,
        )
        .unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext":"colima"}"#,
        )
        .unwrap();
        #[track_caller]
        fn check(env: &Environment, flag: Option<&str>, context: Option<&str>, want: (&str, &str)) {
            let got = env.docker(flag, context).unwrap();
            assert_eq!((got.host.as_str(), got.source.as_str()), want);
        }
        let both = environment(Some("unix:///e.sock"), Some(dir.path()));
        let none = environment(None, Some(dir.path()));
        let colima = ("tcp://far:2376", "context \"colima\"");
        check(
            &both,
            Some("unix:///f.sock"),
            Some("colima"),
            ("unix:///f.sock", "-H"),
        );
        check(&both, None, Some("colima"), colima);
        check(&both, None, None, ("unix:///e.sock", "DOCKER_HOST"));
        check(&none, None, None, colima);
        check(&none, None, Some("default"), (DEFAULT_HOST, DEFAULT_SOURCE));
        check(
            &environment(None, None),
            None,
            None,
            (DEFAULT_HOST, DEFAULT_SOURCE),
        );
        let unknown = none.docker(None, Some("nope")).unwrap_err();
        assert!(
            unknown.to_string().contains("knows no such context"),
            "{unknown}"
        );

        // A context's own keys are used with it, and no others.
        assert_eq!(none.docker(None, None).unwrap().tls, None);
        let keys = dir.path().join("contexts/tls").join(&hash).join("docker");
        std::fs::create_dir_all(&keys).unwrap();
        let tls = none.docker(None, None).unwrap().tls.unwrap();
        assert_eq!(tls.key, keys.join("key.pem"));
        assert!(tls.fault().unwrap().contains("ca.pem"));
    }

    #[test]
    fn keys_of_the_environment_are_for_tcp_only() {
        let env = Environment {
            tls_dir: Some("/keys".into()),
            ..Environment::default()
        };
        let tls = |host| env.docker(Some(host), None).unwrap().tls;
        assert_eq!(
            tls("tcp://10.0.0.5:2376").unwrap().ca,
            PathBuf::from("/keys/ca.pem")
        );
        assert_eq!(tls("unix:///var/run/docker.sock"), None);
        assert_eq!(tls("ssh://far"), None);
    }

    #[test]
    fn unauthenticated_tcp_is_for_loopback_only() {
        let refused = |host| at(host).unsupported();
        assert_eq!(refused("unix:///var/run/docker.sock"), None);
        assert_eq!(refused("tcp://127.0.0.1:2375"), None);
        assert_eq!(refused("ssh://me@far"), None);
        let (reason, hint) = refused("tcp://10.0.0.5:2375").unwrap();
        assert!(reason.contains("no authentication") && hint.contains("DOCKER_TLS_VERIFY"));
        assert!(refused("npipe:////./pipe/x").unwrap().0.contains("none of"));
    }

    #[test]
    fn another_machine_is_known_by_its_name() {
        let machine = |host: &str| at(host).machine().map(str::to_owned);
        assert_eq!(machine("tcp://10.0.0.5:2376"), Some("10.0.0.5".into()));
        assert_eq!(machine("ssh://me@far:2222/run/x"), Some("far".into()));
        assert_eq!(machine("tcp://[fd00::5]:2376"), Some("fd00::5".into()));
        for here in ["tcp://127.0.0.1:2375", "ssh://localhost", "unix:///x"] {
            assert_eq!(machine(here), None, "{here}");
        }
    }

    #[test]
    fn podman_is_looked_for_with_the_user_first() {
        let mut env = Environment {
            runtime_dir: Some("/run/user/7".into()),
            ..Environment::default()
        };
        let hosts = |env: &Environment| -> Vec<String> {
            env.podman(7).into_iter().map(|e| e.host).collect()
        };
        let usual = [
            "unix:///run/user/7/podman/podman.sock",
            "unix:///run/podman/podman.sock",
        ];
        assert_eq!(hosts(&env), usual);
        env.runtime_dir = Some("/x".into());
        assert_eq!(hosts(&env)[0], "unix:///x/podman/podman.sock");
        assert_eq!(hosts(&env)[1..], usual);
    }
}
