//! `run`: an ephemeral cluster around one command, for tests and scripts.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getpgrp, kill_process, kill_process_group};
use tokio::process::Child;

use super::env::{self, Rename};
use super::ephemeral::{self, holder_lock};
use super::raise::{self, Raise};
use super::up::{self, Resolved, WaitFor};
use super::{Cluster, Session, Timeout, down, status};
use crate::error::{Error, Exit};
use crate::lock::Lock;
use crate::plan::UpOptions;
use crate::spec::{Profile, SpecFlags, parse_duration, suggest};
use crate::topology::Site;
use crate::ui::{Color, ProgressMode, Ui};

/// How long a cluster lives at most. Its holder's end is what ends it; this is for a holder that hangs, and for --keep.
const TTL: Duration = Duration::from_secs(12 * 3600);
/// Attempts at free ports: somebody who does not ask us may take one between our look and the node's start.
const ATTEMPTS: usize = 3;
/// Log lines shown of each node that is not well when the command failed.
const TAIL_LINES: usize = 20;

const EXAMPLES: &str = "\
Examples:
  rmqctl run -- mvn -B verify                           one master with its slave, around the tests
  rmqctl run --masters 2 --slaves 2 -- ./it.sh          another topology; all flags of `up` that describe a cluster
  rmqctl run --rename NAMESRV_ADDR=ROCKETMQ_NAME_SERVER -- npm test
  rmqctl run --runtime process -- go test ./...         no Docker needed
  rmqctl run --keep -- ./flaky.sh                       leaves the cluster to look at, until --ttl

The command gets NAMESRV_ADDR, RMQCTL_NAME, RMQCTL_RUNTIME, with --console RMQ_CONSOLE_URL, and on Docker RMQ_NETWORK, for
`docker run --network`. Its input and output are its own; what rmqctl says goes to standard error, and -q silences it.
The exit code is the command's, 128 + n when signal n ended it. The cluster goes when the command ends, and when rmqctl is
killed: its nodes notice by themselves. A Docker network cannot; the next `run`, `up --rm`, `down --expired` or `prune` takes it.";

/// Run a command against a cluster of its own, which is gone afterwards
///
/// The cluster has a name that no other has (unless --name gives one) and ports that are free, so that any number of runs
/// go side by side. Its profile is ci unless --profile or --file says another.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    #[command(flatten)]
    spec: SpecFlags,
    #[command(flatten)]
    timeout: Timeout,
    /// When the cluster counts as ready, and the command starts
    #[arg(long, value_name = "STATE", default_value = "synced")]
    wait_for: WaitFor,
    /// The longest that the cluster lives (12h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Leave the cluster when the command has ended, until its time is up
    #[arg(long)]
    keep: bool,
    /// Give the command the value of a variable under another name too: NAMESRV_ADDR=ROCKETMQ_NAME_SERVER
    #[arg(long = "rename", value_name = "A=B")]
    renames: Vec<Rename>,
    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// A name that no other run has.
pub fn unique_name() -> String {
    format!("run-{}", ephemeral::unique())
}

/// `run`
pub async fn run(args: Run, session: &Session<'_>) -> Result<u8, Error> {
    let mut flags = args.spec.clone();
    if flags.file.is_none() {
        flags.profile.get_or_insert(Profile::Ci);
    }
    let ttl = args.ttl.unwrap_or(TTL);
    flags.ephemeral = Some(ephemeral::lifetime_from_now(ttl, !args.keep));
    ephemeral::sweep(session).await;
    let raised = raise(&args, &flags, session).await?;
    let result = command(&args, &raised.cluster, session).await;
    if args.keep {
        let keep = |rest| suggest(&raised.cluster.spec.name, rest);
        session.ui.note(&format!(
            "Cluster {} is kept.   {}   {}",
            raised.cluster.spec.name,
            keep("status"),
            keep("down"),
        ));
    } else {
        raised.end(session).await?;
    }
    result
}

/// A cluster that is up, with what this process has of it.
struct Raised {
    cluster: Cluster,
    holder: Lock,
    /// Kept until the end: the ports are ours as long.
    _ports: Option<Lock>,
}

impl Raised {
    /// Takes the cluster away, whoever asked us to hurry.
    async fn end(self, session: &Session<'_>) -> Result<(), Error> {
        let silent = Ui::new(Color::Auto, ProgressMode::None, true);
        let closing = Session {
            ui: &silent,
            ..session.unhurried()
        };
        let timeout = Duration::from_secs(self.cluster.spec.wait_timeout_seconds);
        down::take_down(&self.cluster, false, timeout, &closing).await?;
        self.holder.discard();
        session
            .ui
            .note(&format!("Cluster {} is gone.", self.cluster.spec.name));
        Ok(())
    }
}

async fn raise(args: &Run, flags: &SpecFlags, session: &Session<'_>) -> Result<Raised, Error> {
    let any_port = flags.port_offset.is_none();
    let mut attempt = 1;
    loop {
        let began = Instant::now();
        let (mut resolved, ports) = up::resolve_to_raise(flags, any_port, session).await?;
        if resolved.previous.is_some() {
            return Err(taken(&resolved));
        }
        if attempt == 1 {
            up::warn(&resolved, session);
        }
        let holder = holder_lock(resolved.runtime.as_ref(), &resolved.spec.name);
        let holder = Lock::try_take(&holder)?.ok_or_else(|| taken(&resolved))?;
        if !args.keep {
            resolved.runtime.hold();
        }
        let lock = session
            .lock(resolved.runtime.as_ref(), &resolved.spec.name)
            .await?;
        let raise = Raise {
            timeout: args.timeout.of(&resolved.spec),
            wait_for: Some(args.wait_for),
            // Whatever is made is taken away below.
            keep_on_failure: true,
        };
        let planner = raise::as_up(UpOptions::default());
        let result = raise.walk(&mut resolved, planner, session).await;
        lock.discard();
        let Resolved {
            runtime,
            spec,
            desired,
            ..
        } = resolved;
        let raised = Raised {
            cluster: Cluster {
                runtime,
                spec,
                desired,
            },
            holder,
            _ports: ports,
        };
        let Err(mut error) = result else {
            session.ui.note(&format!(
                "Cluster {} is ready in {:.1}s.",
                raised.cluster.spec.name,
                began.elapsed().as_secs_f64()
            ));
            return Ok(raised);
        };
        if args.keep {
            return Err(error);
        }
        session.ui.clear();
        raised.end(session).await?;
        if any_port && attempt < ATTEMPTS && is_port_conflict(&error) {
            attempt += 1;
            continue;
        }
        // They speak of a cluster that stands.
        if matches!(
            error.exit,
            Exit::NotReady | Exit::Partial | Exit::Interrupted | Exit::Terminated
        ) {
            error.hints.clear();
            error = error
                .detail("the cluster was taken away again")
                .hint("rmqctl run --keep …   leaves it to look at");
        }
        return Err(error);
    }
}

/// The name is another cluster's.
fn taken(resolved: &Resolved) -> Error {
    let name = &resolved.spec.name;
    Error::new(
        "RMQ-E073",
        Exit::Conflict,
        format!("there is a cluster `{name}` already; a run makes its own"),
    )
    .detail("nothing was changed")
    .hint("leave --name away, and unset RMQCTL_NAME")
    .hint(suggest(name, "down"))
}

/// Whether somebody took one of our ports after we had looked: in the words of the kernel, or of the daemon.
fn is_port_conflict(error: &Error) -> bool {
    error.id == "RMQ-E021"
        || std::iter::once(&error.title)
            .chain(&error.details)
            .map(|line| line.to_lowercase())
            .any(|line| {
                line.contains("address already in use")
                    || line.contains("port is already allocated")
            })
}

/// Runs the command and returns the code to end with.
async fn command(args: &Run, cluster: &Cluster, session: &Session<'_>) -> Result<u8, Error> {
    let variables = env::with_renames(variables(cluster), &args.renames)?;
    let program = &args.command[0];
    let mut command = tokio::process::Command::new(program);
    command.args(&args.command[1..]).envs(variables);
    let terminal = terminal_is_ours();
    if !terminal {
        // Nobody but us signals it then, so that each signal reaches it, and all it started, just once.
        command.process_group(0);
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(reason) => {
            let error = Error::new(
                "RMQ-E072",
                Exit::Failed,
                format!("cannot run {}", program.display()),
            )
            .detail(reason.to_string());
            session.ui.error(&error, false);
            // As shells have it.
            return Ok(match reason.kind() {
                ErrorKind::NotFound => 127,
                _ => 126,
            });
        }
    };
    let mut told = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = session.interrupt.requested(), if !told => {
                told = true;
                pass_on(&child, session.interrupt.error().exit, terminal);
            }
        }
    };
    let status = status.map_err(|reason| {
        Error::new("RMQ-E072", Exit::Failed, "the command cannot be waited for")
            .detail(reason.to_string())
    })?;
    let code = exit_code(status);
    if code != 0 && !told {
        show_the_unwell(cluster, session).await;
    }
    Ok(code)
}

/// Whether Ctrl-C at a terminal reaches us, and so the child too, from the terminal itself.
fn terminal_is_ours() -> bool {
    let terminal = std::fs::File::open("/dev/tty");
    terminal.is_ok_and(|tty| rustix::termios::tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}

/// Passes the signal that we got on to the command.
fn pass_on(child: &Child, exit: Exit, terminal: bool) {
    let signal = match exit {
        Exit::Interrupted => Signal::INT,
        _ => Signal::TERM,
    };
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    // One that has ended meanwhile needs no signal.
    let _ = match (pid, terminal) {
        (None, _) => Ok(()),
        (Some(_), true) if signal == Signal::INT => Ok(()),
        (Some(pid), true) => kill_process(pid, signal),
        (Some(pid), false) => kill_process_group(pid, signal),
    };
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(Exit::Failed as u8)
}

fn variables(cluster: &Cluster) -> Vec<(String, String)> {
    let mut all = env::variables(&cluster.desired, false);
    if cluster.desired.site == Site::Network {
        all.push(("RMQ_NETWORK".to_owned(), cluster.desired.network.clone()));
    }
    all.push(("RMQCTL_NAME".to_owned(), cluster.spec.name.clone()));
    all.push((
        "RMQCTL_RUNTIME".to_owned(),
        cluster.runtime.kind().to_owned(),
    ));
    all
}

/// When the command failed: which nodes are not well, and what they said last. It may be their fault.
async fn show_the_unwell(cluster: &Cluster, session: &Session<'_>) {
    let Ok(report) = status::look(cluster, &[]).await else {
        return;
    };
    for row in report.nodes.iter().filter(|row| row.state != "healthy") {
        let why = row.fault.as_deref().unwrap_or_default();
        let tail = cluster.runtime.log_tail(&row.container, TAIL_LINES).await;
        let mut text = format!("{} is {}: {why}", row.name, row.state);
        for line in tail.unwrap_or_default() {
            text += &format!("\n  {} | {line}", row.name);
        }
        session.ui.warn(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_commands_or_says_which_signal_ended_it() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(Signal::TERM.as_raw())), 143);
    }

    #[test]
    fn a_port_that_was_taken_meanwhile_is_told_from_other_failures() {
        let error = |detail: &str| {
            Error::new("RMQ-E042", Exit::NotReady, "rmqnamesrv ended").detail(detail)
        };
        assert!(is_port_conflict(&error(
            "rmqnamesrv | error: Address already in use (os error 98)"
        )));
        assert!(is_port_conflict(&error(
            "Bind for 127.0.0.1:9886 failed: port is already allocated"
        )));
        assert!(!is_port_conflict(&error("No space left on device")));
    }

    #[test]
    fn two_runs_have_two_names() {
        let (one, two) = (unique_name(), unique_name());
        assert_ne!(one, two);
        assert_eq!(one.len(), "run-".len() + 8, "{one}");
    }
}
