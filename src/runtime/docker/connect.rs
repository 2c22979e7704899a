//! Which daemon to talk to, and whether it is one we can talk to.
//!
//! bollard knows neither Docker contexts nor API versions (it sends every request without a version), so both are here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::RuntimeError;
use super::super::image::hex;
use sha2::{Digest, Sha256};

const DEFAULT_SOURCE: &str = "default socket";
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Docker 20.10: `stats?one-shot`, and everything else we ask.
const API_MIN: (u32, u32) = (1, 41);

/// A daemon that answered.
pub struct Daemon {
    /// The client.
    pub client: bollard::Docker,
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub arch: String,
    /// It runs on this host, so that a port taken here is taken for it.
    pub local: bool,
}

/// Finds the address, connects, and asks for the version.
pub async fn connect(host: Option<&str>, context: Option<&str>) -> Result<Daemon, RuntimeError> {
    let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let config_dir = env("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| env("HOME").map(|home| Path::new(&home).join(".docker")));
    let (host, source) = address(
        host,
        context
            .map(str::to_string)
            .or_else(|| env("DOCKER_CONTEXT")),
        env("DOCKER_HOST"),
        config_dir.as_deref(),
    )?;
    let no_daemon = |reason: String, hint: String, absent: bool| RuntimeError::NoDaemon {
        host: host.clone(),
        source_of_host: source.clone(),
        reason,
        hint,
        absent,
    };
    if let Some(reason) = unsupported(&host) {
        let hint = "use the daemon's unix socket, or forward it: ssh -L /tmp/docker.sock:/var/run/docker.sock HOST, \
                    then -H unix:///tmp/docker.sock";
        return Err(no_daemon(reason, hint.into(), false));
    }
    let broken = |e: bollard::errors::Error| {
        let (reason, hint, absent) = explain(&e);
        no_daemon(reason, hint, absent)
    };
    let client = bollard::Docker::connect_with_host(&host).map_err(broken)?;
    let asked = tokio::time::timeout(Duration::from_secs(10), client.version()).await;
    let version = asked
        .map_err(|_| {
            let hint = "is the daemon stuck? try: docker version";
            no_daemon("it did not answer within 10 s".into(), hint.into(), false)
        })?
        .map_err(broken)?;
    let api = version.api_version.unwrap_or_default();
    if parse_api(&api).is_none_or(|api| api < API_MIN) {
        return Err(RuntimeError::TooOld {
            host,
            version: version.version.unwrap_or_default(),
            api,
        });
    }
    Ok(Daemon {
        client,
        os: version.os.unwrap_or_default(),
        arch: version.arch.unwrap_or_default(),
        local: host.starts_with("unix://"),
    })
}

/// The daemon's address and where it is written: `-H`, then `--context` or `DOCKER_CONTEXT`, then `DOCKER_HOST`, then the
/// config's current context, then the default socket (docker/cli: cli/command/cli.go resolveContextName).
fn address(
    flag: Option<&str>,
    context: Option<String>,
    docker_host: Option<String>,
    config_dir: Option<&Path>,
) -> Result<(String, String), RuntimeError> {
    if let Some(host) = flag {
        return Ok((host.into(), "-H".into()));
    }
    let context = match (context, docker_host) {
        (Some(context), _) => Some(context),
        (None, Some(host)) => return Ok((host, "DOCKER_HOST".into())),
        (None, None) => config_dir.and_then(current_context),
    };
    match (context, config_dir) {
        (Some(name), Some(dir)) if name != "default" => {
            let host = context_host(dir, &name).ok_or_else(|| RuntimeError::NoDaemon {
                host: "?".into(),
                source_of_host: format!("context {name:?}"),
                reason: format!("{} knows no such context", dir.display()),
                hint: "list them: docker context ls".into(),
                absent: false,
            })?;
            Ok((host, format!("context {name:?}")))
        }
        _ => Ok((DEFAULT_HOST.into(), DEFAULT_SOURCE.into())),
    }
}

fn current_context(config_dir: &Path) -> Option<String> {
    let text = std::fs::read(config_dir.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let name = config.get("currentContext")?.as_str()?;
    (!name.is_empty()).then(|| name.to_string())
}

/// A context's directory is named by the sha256 of its name (docker/cli: cli/context/store/metadatastore.go).
fn context_host(config_dir: &Path, name: &str) -> Option<String> {
    let dir = hex(&Sha256::digest(name.as_bytes()));
    let text = std::fs::read(config_dir.join("contexts/meta").join(dir).join("meta.json")).ok()?;
    let meta: serde_json::Value = serde_json::from_slice(&text).ok()?;
    Some(
        meta.pointer("/Endpoints/docker/Host")?
            .as_str()?
            .to_string(),
    )
}

/// Why an address is not for us. Docker's TCP port without TLS gives root on that machine to whoever reaches it.
fn unsupported(host: &str) -> Option<String> {
    let rest = host
        .strip_prefix("tcp://")
        .or_else(|| host.strip_prefix("http://"));
    if let Some(rest) = rest {
        let name = rest.split(['/', ':']).next().unwrap_or_default();
        let loopback = matches!(name, "127.0.0.1" | "localhost");
        return (!loopback).then(|| {
            "plain TCP to another machine is refused: it carries no authentication".into()
        });
    }
    (!host.starts_with("unix://")).then(|| "this build speaks to unix:// sockets only".into())
}

fn parse_api(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The reason and hint in what bollard and hyper report, by the system's error at the bottom of it; and whether there is no
/// daemon at all.
fn explain(error: &bollard::errors::Error) -> (String, String, bool) {
    use std::io::ErrorKind;
    if let bollard::errors::Error::SocketNotFoundError(path) = error {
        return (format!("{path} does not exist"), START.into(), true);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>() {
            match io.kind() {
                ErrorKind::NotFound => {
                    return ("the socket does not exist".into(), START.into(), true);
                }
                ErrorKind::ConnectionRefused => {
                    return (
                        "the socket is there but nobody listens".into(),
                        START.into(),
                        true,
                    );
                }
                ErrorKind::PermissionDenied => {
                    let hint = "sudo usermod -aG docker \"$USER\" && newgrp docker   ·   or: --runtime process";
                    return (
                        "permission denied: this user may not use the socket".into(),
                        hint.into(),
                        false,
                    );
                }
                _ => {}
            }
        }
        cause = e.source();
    }
    (error.to_string(), START.into(), false)
}

const START: &str = "start Docker (sudo systemctl start docker)   ·   or run the nodes as processes: --runtime process";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        flag: Option<&str>,
        context: Option<&str>,
        env: Option<&str>,
        dir: Option<&Path>,
        want: (&str, &str),
    ) {
        let got = address(flag, context.map(String::from), env.map(String::from), dir).unwrap();
        assert_eq!((got.0.as_str(), got.1.as_str()), want);
    }

    #[test]
    fn the_flag_beats_the_context_beats_the_environment_beats_the_current_context() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir
            .path()
            .join("contexts/meta")
            .join(hex(&Sha256::digest(b"colima")));
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"colima","Endpoints":{"docker":{"Host":"unix:///c.sock"}}}"#,
        )
        .unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"currentContext":"colima"}"#,
        )
        .unwrap();
        let dir = Some(dir.path());
        let env = Some("unix:///e.sock");
        check(
            Some("unix:///f.sock"),
            Some("colima"),
            env,
            dir,
            ("unix:///f.sock", "-H"),
        );
        check(
            None,
            Some("colima"),
            env,
            dir,
            ("unix:///c.sock", "context \"colima\""),
        );
        check(None, None, env, dir, ("unix:///e.sock", "DOCKER_HOST"));
        check(
            None,
            None,
            None,
            dir,
            ("unix:///c.sock", "context \"colima\""),
        );
        check(
            None,
            Some("default"),
            None,
            dir,
            (DEFAULT_HOST, DEFAULT_SOURCE),
        );
        check(None, None, None, None, (DEFAULT_HOST, DEFAULT_SOURCE));
        let unknown = address(None, Some("nope".into()), None, dir).unwrap_err();
        assert!(
            unknown.to_string().contains("knows no such context"),
            "{unknown}"
        );
    }

    #[test]
    fn unauthenticated_tcp_is_for_loopback_only() {
        assert_eq!(unsupported("unix:///var/run/docker.sock"), None);
        assert_eq!(unsupported("tcp://127.0.0.1:2375"), None);
        assert!(
            unsupported("tcp://10.0.0.5:2375")
                .unwrap()
                .contains("no authentication")
        );
        assert!(unsupported("ssh://host").unwrap().contains("unix://"));
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_absent_daemon_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let host = format!("unix://{}/none.sock", dir.path().display());
        let Err(error) = connect(Some(&host), None).await else {
            panic!("connected to nothing");
        };
        assert!(
            matches!(error, RuntimeError::NoDaemon { absent: true, .. }),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("--runtime process"));
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_an_absent_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let host = format!("unix://{}", path.display());
        let Err(error) = connect(Some(&host), None).await else {
            panic!("connected to nothing");
        };
        assert!(error.to_string().contains("nobody listens"), "{error}");
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_api("1.41").unwrap() >= API_MIN);
        assert!(parse_api("1.9").unwrap() < API_MIN);
        assert!(parse_api("1.100").unwrap() > API_MIN);
        assert_eq!(parse_api("x"), None);
    }
}
