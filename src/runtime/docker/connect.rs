//! Whether the daemon is one we can talk to, and the client that does.
//!
//! bollard does not negotiate API versions (it sends every request without a version), so the version is asked for here.

use std::time::Duration;

use bollard::API_DEFAULT_VERSION;

use super::super::RuntimeError;
use super::address::{DEFAULT_SOURCE, Endpoint, Environment};
use super::ssh::Bridge;

/// Docker 20.10: `stats?one-shot`, and everything else we ask.
const API_MIN: (u32, u32) = (1, 41);
/// How long an answer's head may take; calls that wait set their own.
const ANSWER_SECONDS: u64 = 120;

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
    /// Name or address of the machine it runs on, where that is another.
    pub machine: Option<String>,
    /// It is Podman, which speaks Docker's API.
    pub podman: bool,
    /// What leads to it, where that is ssh.
    pub bridge: Option<Bridge>,
}

/// Finds the address, connects, and asks for the version. Where nobody answers at the default socket, Podman's are tried.
pub async fn connect(host: Option<&str>, context: Option<&str>) -> Result<Daemon, RuntimeError> {
    let environment = Environment::read();
    let endpoint = environment.docker(host, context)?;
    let is_default = endpoint.source == DEFAULT_SOURCE;
    match dial(endpoint).await {
        Err(error @ RuntimeError::NoDaemon { absent: true, .. }) if is_default => {
            first_podman(&environment).await.map_err(|_| error)
        }
        answer => answer,
    }
}

/// Podman at its own sockets, or where `-H` says.
pub async fn connect_podman(host: Option<&str>) -> Result<Daemon, RuntimeError> {
    let environment = Environment::read();
    match host {
        Some(_) => dial(environment.docker(host, None)?).await,
        None => first_podman(&environment).await,
    }
}

/// The first of Podman's sockets where somebody answers; else why the last did not.
async fn first_podman(environment: &Environment) -> Result<Daemon, RuntimeError> {
    let mut fault = None;
    for endpoint in environment.podman(rustix::process::getuid().as_raw()) {
        match dial(endpoint).await {
            Ok(daemon) => return Ok(daemon),
            Err(RuntimeError::NoDaemon {
                host,
                source_of_host,
                reason,
                absent,
                ..
            }) => {
                fault = Some(RuntimeError::NoDaemon {
                    host,
                    source_of_host,
                    reason,
                    hint: "start Podman's service: systemctl --user start podman.socket   ·   or: podman system service --time 0 &"
                        .into(),
                    absent,
                });
            }
            Err(e) => return Err(e),
        }
    }
    Err(fault.expect("there is always root's socket to try"))
}

async fn dial(endpoint: Endpoint) -> Result<Daemon, RuntimeError> {
    let no_daemon = |reason: String, hint: String, absent: bool| RuntimeError::NoDaemon {
        host: endpoint.host.clone(),
        source_of_host: endpoint.source.clone(),
        reason,
        hint,
        absent,
    };
    if let Some((reason, hint)) = endpoint.unsupported() {
        return Err(no_daemon(reason, hint, false));
    }
    let local = endpoint.host.starts_with("unix://");
    let bridge = match endpoint.host.starts_with("ssh://") {
        true => Some(Bridge::open(&endpoint.host).await.map_err(|reason| {
            let hint = "-H ssh://USER@HOST, where `ssh USER@HOST docker version` works";
            no_daemon(reason, hint.into(), false)
        })?),
        false => None,
    };
    let broken = |e: bollard::errors::Error| {
        let (reason, hint, absent) = explain(&e);
        match bridge.as_ref().map(Bridge::said) {
            // ssh says why more plainly than the connection that it closed.
            Some(said) => {
                let hint = "does it work by hand? ssh HOST docker version";
                no_daemon(said.unwrap_or(reason), hint.into(), false)
            }
            None if local => no_daemon(reason, hint, absent),
            None => {
                let hint =
                    "is it the right address, and are the keys this daemon's? docker -H … version";
                no_daemon(reason, hint.into(), false)
            }
        }
    };
    let client = match (&endpoint.tls, &bridge) {
        (Some(tls), _) => {
            if let Some(fault) = tls.fault() {
                let hint = "DOCKER_CERT_PATH names the directory of ca.pem, cert.pem and key.pem";
                return Err(no_daemon(fault, hint.into(), false));
            }
            bollard::Docker::connect_with_ssl(
                &endpoint.host,
                &tls.key,
                &tls.cert,
                &tls.ca,
                ANSWER_SECONDS,
                API_DEFAULT_VERSION,
            )
        }
        (None, Some(bridge)) => bollard::Docker::connect_with_host(&bridge.url()),
        (None, None) => bollard::Docker::connect_with_host(&endpoint.host),
    };
    let client = client.map_err(broken)?;
    let asked = tokio::time::timeout(Duration::from_secs(15), client.version()).await;
    let version = asked
        .map_err(|_| {
            let said = bridge.as_ref().and_then(Bridge::said);
            let reason = said.unwrap_or_else(|| "it did not answer within 15 s".into());
            let hint = "is the daemon stuck? try: docker version";
            no_daemon(reason, hint.into(), false)
        })?
        .map_err(broken)?;
    let api = version.api_version.unwrap_or_default();
    if parse_api(&api).is_none_or(|api| api < API_MIN) {
        return Err(RuntimeError::TooOld {
            host: endpoint.host,
            version: version.version.unwrap_or_default(),
            api,
        });
    }
    let podman = version
        .components
        .iter()
        .flatten()
        .any(|component| component.name.contains("Podman"));
    let machine = endpoint.machine().map(|written| {
        let configured = bridge.as_ref().and_then(|bridge| bridge.machine.clone());
        configured.unwrap_or_else(|| written.to_owned())
    });
    Ok(Daemon {
        client,
        os: version.os.unwrap_or_default(),
        arch: version.arch.unwrap_or_default(),
        local,
        machine,
        podman,
        bridge,
    })
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
    let mut deepest = error.to_string();
    while let Some(e) = cause {
        deepest = e.to_string();
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
    (deepest, START.into(), false)
}

const START: &str = "start Docker (sudo systemctl start docker)   ·   or run the nodes as processes: --runtime process";

#[cfg(test)]
mod tests {
    use super::*;

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

    #[tokio::test]
    async fn tls_keys_that_are_not_there_are_named() {
        let endpoint = Endpoint {
            host: "tcp://127.0.0.1:1".into(),
            source: "-H".into(),
            tls: Some(super::super::address::Tls {
                ca: "/none/ca.pem".into(),
                cert: "/none/cert.pem".into(),
                key: "/none/key.pem".into(),
            }),
        };
        let Err(error) = dial(endpoint).await else {
            panic!("connected without keys");
        };
        assert!(error.to_string().contains("/none/ca.pem"), "{error}");
        assert!(error.hint().unwrap().contains("DOCKER_CERT_PATH"));
    }

    /// Answers every request of one connection after another as a version call.
    async fn serve(listener: tokio::net::UnixListener, body: &'static str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    }

    #[tokio::test]
    async fn podman_is_known_by_its_components_and_an_old_daemon_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let answer = async |name: &str, body| {
            let path = dir.path().join(name);
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            let serving = tokio::spawn(serve(listener, body));
            let host = format!("unix://{}", path.display());
            let answer = connect_podman(Some(&host)).await;
            serving.abort();
            answer
        };
        let body = r#"{"ApiVersion":"1.41","Version":"4.3.1","Os":"linux","Arch":"amd64","Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#;
        let daemon = answer("p.sock", body).await.ok().unwrap();
        assert!(daemon.podman && daemon.local && daemon.machine.is_none());
        let body = r#"{"ApiVersion":"1.40","Version":"19.03.1"}"#;
        let Err(old) = answer("o.sock", body).await else {
            panic!("API 1.40 was taken");
        };
        assert!(matches!(old, RuntimeError::TooOld { .. }), "{old}");
    }
}
