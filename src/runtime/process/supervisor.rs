//! Keeps one node running: what `restart=always` is for a container, as one small process per node.
//!
//! `rmqctl engine supervise DIR` starts the node in `DIR`, starts it again when it ends (after 100 ms, doubling to 10 s while it
//! dies young), and on SIGTERM stops it and ends. A node of an ephemeral cluster it stops when that ends, and removes. It writes `run.json` at each change, and cuts the log.
//! It says `ok` on its standard output when the node has been started, and nothing after.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{Signal as Received, SignalKind, signal};

use super::super::pid::Process;
use super::super::{RuntimeError, hostdir, label};
use super::dir::{LastEnd, NodeDir, NodeFile, RunFile};
use crate::lease;

/// What `supervise` prints once the node runs.
pub const STARTED: &str = "ok";
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Docker waits up to 60 s; but a start costs next to nothing here, and what kept the node down (a taken port, a full disk)
/// may be mended any moment.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A node that ran this long was well: the next back-off starts over. It is ready within a second, recovery included.
const WELL: Duration = Duration::from_secs(3);
/// The log's length at which it is set aside; one such older log is kept.
const LOG_MAX: u64 = 10 << 20;
const LOG_LOOK: Duration = Duration::from_secs(30);

/// Supervises the node in `dir` until SIGTERM. Ends with an error only when the node could not be started the first time.
pub async fn supervise(dir: &Path) -> Result<(), RuntimeError> {
    let dir = NodeDir(dir.to_path_buf());
    let shown = dir.0.display().to_string();
    let failed = |e: std::io::Error| RuntimeError::failed("supervise", &shown, e);
    // Out of the terminal's session, so that its Ctrl-C and its closing do not reach the node. A failure means that this is
    // a group leader already, which is as good.
    let _ = rustix::process::setsid();
    let node = dir
        .node()
        .map_err(failed)?
        .ok_or_else(|| RuntimeError::failed("supervise", &shown, "no node.json"))?;
    let lock = File::create(dir.lock()).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(RuntimeError::failed(
                "supervise",
                &shown,
                "another supervisor runs it",
            ));
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    // Named, or their default would end the supervisor.
    let _hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let _interrupt = signal(SignalKind::interrupt()).map_err(failed)?;

    let mut child = spawn(&dir, &node)
        .map_err(|e| RuntimeError::failed("start", &node.binary.display().to_string(), e))?;
    let me = Process::of(std::process::id());
    let mut run = RunFile {
        supervisor: me
            .ok_or_else(|| RuntimeError::failed("supervise", &shown, "/proc is not mounted"))?,
        child: child.id().and_then(Process::of),
        started_at: unix_now().as_secs(),
        restarts: 0,
        last_end: None,
    };
    dir.write_run(&run).map_err(failed)?;
    // The reader may be gone; the node runs all the same.
    let _ = writeln!(std::io::stdout(), "{STARTED}");

    let lapse = async {
        match node.until {
            Some(until) => lease::lapse(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(lapse);
    let mut backoff = BACKOFF_FIRST;
    loop {
        let started = tokio::time::Instant::now();
        let end = tokio::select! {
            end = watch(&dir, &mut child, &mut term) => end,
            why = &mut lapse => {
                note(&dir, &format!("{why}: stopping"));
                // What it would write down goes with the directory.
                stop(&mut child, node.stop_timeout).await;
                return leave_nothing(&dir, &node);
            }
        };
        if end == End::Asked {
            let status = stop(&mut child, node.stop_timeout).await;
            run.child = None;
            run.last_end = Some(end_of(status));
            return dir.write_run(&run).map_err(failed);
        }
        run.child = None;
        run.last_end = Some(end_of(child.wait().await.ok()));
        dir.write_run(&run).map_err(failed)?;
        if started.elapsed() >= WELL {
            backoff = BACKOFF_FIRST;
        }
        // A node that cannot be spawned now (no memory, too many processes) is tried again like one that died.
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                _ = term.recv() => return Ok(()),
                _ = &mut lapse => return leave_nothing(&dir, &node),
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            match spawn(&dir, &node) {
                Ok(child) => break child,
                Err(e) => note(&dir, &format!("the node could not be started again: {e}")),
            }
        };
        run.child = child.id().and_then(Process::of);
        run.started_at = unix_now().as_secs();
        run.restarts += 1;
        dir.write_run(&run).map_err(failed)?;
    }
}

/// Removes all of a node that was raised to leave nothing, and what it kept in a directory that the user named.
fn leave_nothing(dir: &NodeDir, node: &NodeFile) -> Result<(), RuntimeError> {
    if let (Some(data), Some(cluster)) = (&node.data_dir, node.labels.get(label::CLUSTER)) {
        hostdir::remove(data, cluster)?;
    }
    dir.remove_ephemeral()
        .map_err(|e| RuntimeError::failed("remove", &node.container, e))
}

/// What a wait for a node's end ended with.
#[derive(PartialEq, Eq)]
enum End {
    /// The node ended.
    Own,
    /// SIGTERM came.
    Asked,
}

/// Waits for the node's end or SIGTERM, and keeps the log within its bound meanwhile.
async fn watch(dir: &NodeDir, child: &mut Child, term: &mut Received) -> End {
    let mut look = tokio::time::interval(LOG_LOOK);
    loop {
        tokio::select! {
            _ = child.wait() => return End::Own,
            _ = term.recv() => return End::Asked,
            _ = look.tick() => {
                if let Err(e) = cut_log(dir) {
                    note(dir, &format!("the log could not be cut: {e}"));
                }
            }
        }
    }
}

/// SIGTERM, and SIGKILL when that takes longer than `patience`.
async fn stop(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let process = child.id().and_then(Process::of);
    if let Some(handle) = process.and_then(Process::open) {
        // What cannot be signalled is killed below, through the child itself. A paused node is woken to see the signal.
        let _ = handle.signal(rustix::process::Signal::TERM);
        let _ = handle.signal(rustix::process::Signal::CONT);
    }
    match tokio::time::timeout(patience, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = child.kill().await;
            child.wait().await.ok()
        }
    }
}

fn spawn(dir: &NodeDir, node: &NodeFile) -> std::io::Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.log())?;
    Command::new(&node.binary)
        .args(&node.command)
        // Its zone is the cluster's, not that of whoever starts it.
        .env_remove("TZ")
        .envs(&node.env)
        .current_dir(&dir.0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
}

/// Sets the log aside when it has grown. The node keeps its file open for appending, so the content is copied and the file
/// cut to nothing; what the node prints between the two is lost.
fn cut_log(dir: &NodeDir) -> std::io::Result<()> {
    let log = OpenOptions::new().write(true).open(dir.log())?;
    if log.metadata()?.len() < LOG_MAX {
        return Ok(());
    }
    std::fs::copy(dir.log(), dir.old_log())?;
    log.set_len(0)
}

/// A line of the supervisor's own, in the node's log; it has no other place to speak.
fn note(dir: &NodeDir, text: &str) {
    if let Ok(mut log) = OpenOptions::new().append(true).open(dir.log()) {
        let _ = writeln!(log, "supervisor: {text}");
    }
}

fn end_of(status: Option<ExitStatus>) -> LastEnd {
    let code = status.and_then(|s| s.code().or_else(|| s.signal().map(|n| 128 + n)));
    LastEnd {
        code: code.map_or(-1, i64::from),
        at_ms: now_ms(),
    }
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX)
}

fn unix_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Starts the supervisor of the node in `dir` and waits until it says that the node has been started. With `hold`, the node ends
/// when what this returns is dropped, as it is with this process.
pub async fn launch(
    dir: &NodeDir,
    node: &NodeFile,
    hold: bool,
) -> Result<Option<ChildStdin>, RuntimeError> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let failed = |reason: String| RuntimeError::failed("start", &node.container, reason);
    let mut supervisor = Command::new(&node.binary)
        .args(["engine", "supervise"])
        .arg(&dir.0)
        .stdin(if hold { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("{}: {e}", node.binary.display())))?;
    let mut input = supervisor.stdin.take();
    if let Some(input) = &mut input {
        let told = input.write_all(lease::HELD).await;
        told.map_err(|e| failed(format!("its supervisor does not listen: {e}")))?;
    }
    let mut said = [0; STARTED.len()];
    let mut out = supervisor
        .stdout
        .take()
        .expect("stdout was asked to be piped");
    let heard = tokio::time::timeout(Duration::from_secs(10), out.read_exact(&mut said)).await;
    match heard {
        Ok(Ok(_)) if said == *STARTED.as_bytes() => Ok(input),
        Err(_) => {
            let _ = supervisor.kill().await;
            Err(failed("its supervisor said nothing for 10 s".into()))
        }
        _ => {
            let mut why = String::new();
            if let Some(err) = supervisor.stderr.take() {
                // A person reads this: a few lines are enough.
                let _ = err.take(4096).read_to_string(&mut why).await;
            }
            let _ = supervisor.wait().await;
            Err(failed(why.trim().to_string()))
        }
    }
}

/// Keeps the engine's binary under its hash in `bin`, so that nodes outlive a rebuild of it; returns its path.
pub fn keep_binary(
    bin: &Path,
    engine: &super::super::image::Engine,
) -> Result<PathBuf, RuntimeError> {
    use std::os::unix::fs::PermissionsExt;
    let path = bin.join(format!("rmqctl-{}", &engine.sha256[..8]));
    if path.exists() {
        return Ok(path);
    }
    let bytes = engine.bytes()?;
    let write = || {
        std::fs::create_dir_all(bin)?;
        let partial = bin.join(format!("partial-{}", std::process::id()));
        std::fs::write(&partial, &bytes)?;
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&partial, &path)
    };
    write()
        .map_err(|e| RuntimeError::failed("keep the engine in", &bin.display().to_string(), e))?;
    Ok(path)
}
