//! A daemon behind ssh, as the `docker` command reaches it: `ssh HOST docker system dial-stdio`.
//!
//! bollard is given a Unix socket that only this user may open; each connection to it is one ssh session. They share one
//! connection to the machine (ControlMaster), so that its handshake is paid once.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// The socket and what serves it, as long as this lives.
pub struct Bridge {
    dir: PathBuf,
    serving: JoinHandle<()>,
    said: Said,
    /// The machine's name or address, as ssh's configuration resolves it.
    pub machine: Option<String>,
}

/// The last thing that an ssh wrote to its standard error.
type Said = Arc<Mutex<String>>;

/// Whom ssh is to call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// Options before the host: port and user.
    options: Vec<String>,
    host: String,
}

impl Target {
    /// Reads `ssh://[USER@]HOST[:PORT]`.
    fn parse(url: &str) -> Option<Self> {
        let authority = url.strip_prefix("ssh://")?.trim_end_matches('/');
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (host, port) = match address.strip_prefix('[') {
            Some(v6) => {
                let (host, rest) = v6.split_once(']')?;
                (host, rest.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            },
        };
        // A leading `-` would be an option; what ssh or the far shell could read otherwise is in no name.
        let is_name = |text: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c))
        };
        if !is_name(host) || user.is_some_and(|user| !is_name(user)) {
            return None;
        }
        let mut options = Vec::new();
        if let Some(port) = port {
            let port: u16 = port.parse().ok()?;
            options.extend(["-p".to_owned(), port.to_string()]);
        }
        if let Some(user) = user {
            options.extend(["-l".to_owned(), user.to_owned()]);
        }
        Some(Self {
            options,
            host: host.to_owned(),
        })
    }

    fn ssh(&self, options: &[String]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(options)
            .args(&self.options)
            .arg("--")
            .arg(&self.host);
        command
    }

    /// What a name that stands in ssh's configuration leads to.
    async fn machine(&self) -> Option<String> {
        let asked = self.ssh(&["-G".to_owned()]).output().await.ok()?;
        let text = String::from_utf8(asked.stdout).ok()?;
        let name = text
            .lines()
            .find_map(|line| line.strip_prefix("hostname "))?;
        Some(name.trim().to_owned())
    }
}

impl Bridge {
    /// Opens the socket. Nothing is dialled before somebody connects to it.
    pub async fn open(url: &str) -> Result<Self, String> {
        let target = Target::parse(url).ok_or("it is not ssh://[USER@]HOST[:PORT]")?;
        let dir = private_dir().map_err(|e| format!("no directory for a socket: {e}"))?;
        let listener = UnixListener::bind(socket(&dir))
            .map_err(|e| format!("{}: {e}", socket(&dir).display()))?;
        let said = Said::default();
        let machine = target.machine().await;
        let options: Vec<String> = [
            "ConnectTimeout=10".to_owned(),
            "ControlMaster=auto".to_owned(),
            format!("ControlPath={}", dir.join("master").display()),
        ]
        .into_iter()
        .flat_map(|option| ["-o".to_owned(), option])
        .collect();
        let serving = tokio::spawn(serve(listener, target, options, said.clone()));
        Ok(Self {
            dir,
            serving,
            said,
            machine,
        })
    }

    /// The socket's address, as a URL.
    pub fn url(&self) -> String {
        format!("unix://{}", socket(&self.dir).display())
    }

    /// Why ssh failed, in its own words.
    pub fn said(&self) -> Option<String> {
        let said = self.said.lock().ok()?;
        (!said.is_empty()).then(|| said.clone())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.serving.abort();
        // It is in a directory for temporary files, should this fail.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("docker.sock")
}

/// A new directory that only this user may enter. Socket paths are short, so it is not below a deep one.
fn private_dir() -> std::io::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let base = runtime
        .filter(|dir| dir.is_dir() && dir.as_os_str().len() < 50)
        .unwrap_or_else(std::env::temp_dir);
    let mut number = 0;
    loop {
        let dir = base.join(format!("rmqctl-ssh-{}-{number}", std::process::id()));
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            // Left by a process of the same number.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && number < 1000 => number += 1,
            made => return made.map(|()| dir),
        }
    }
}

async fn serve(listener: UnixListener, target: Target, options: Vec<String>, said: Said) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut ssh = target.ssh(&options);
        ssh.args(["docker", "system", "dial-stdio"]);
        let said = said.clone();
        tokio::spawn(async move {
            if let Err(reason) = session(ssh, stream, &said).await
                && let Ok(mut said) = said.lock()
            {
                *said = format!("ssh: {reason}");
            }
        });
    }
}

/// One connection: what is written goes to the daemon, what the daemon says comes back, each until it ends.
async fn session(mut ssh: Command, stream: UnixStream, said: &Said) -> std::io::Result<()> {
    let mut child = ssh
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut to), Some(mut from), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(std::io::Error::other("it has no pipes"));
    };
    let (mut read, mut write) = stream.into_split();
    let there = async move {
        let copied = tokio::io::copy(&mut read, &mut to).await;
        // `dial-stdio` ends its own side when it reads an end.
        drop(to);
        copied
    };
    let back = async move {
        let copied = tokio::io::copy(&mut from, &mut write).await;
        let _ = write.shutdown().await;
        copied
    };
    let listen = async {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let (false, Ok(mut said)) = (line.trim().is_empty(), said.lock()) {
                *said = line;
            }
        }
    };
    // The answer's end ends the session, even while the caller holds its side open.
    tokio::select! {
        _ = async { tokio::join!(back, listen) } => {}
        _ = async { let _ = there.await; std::future::pending::<()>().await } => {}
    }
    child.wait().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_sshs_arguments_and_no_option_slips_in() {
        let target = |url| Target::parse(url).map(|t| (t.options.join(" "), t.host));
        assert_eq!(
            target("ssh://me@far:2222"),
            Some(("-p 2222 -l me".into(), "far".into()))
        );
        assert_eq!(target("ssh://far/"), Some((String::new(), "far".into())));
        assert_eq!(
            target("ssh://[fd00::5]:22"),
            Some(("-p 22".into(), "fd00::5".into()))
        );
        for wrong in [
            "ssh://",
            "ssh://-oProxyCommand=x",
            "ssh://me@-x",
            "ssh://-l@far",
            "ssh://far:http",
            "ssh://far;ls",
            "tcp://far",
        ] {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
    }
}
