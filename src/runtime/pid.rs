//! A process of ours, named so that a reused pid is never taken for it: pid and start time.

use std::time::Duration;

use super::proc_memory;
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process by pid and start time (clock ticks after boot, `/proc/PID/stat` field 22).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its start time.
    pub start: u64,
}

impl Process {
    /// The process that has `pid` now; `None` when there is none or it is a zombie.
    pub fn of(pid: u32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start) = parse_stat(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Process { pid, start })
    }

    /// Whether it still runs.
    pub fn lives(self) -> bool {
        Process::of(self.pid) == Some(self)
    }

    /// Whether it is stopped by SIGSTOP.
    pub fn stands_still(self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let seen = stat.ok().and_then(|stat| parse_stat(&stat));
        seen == Some(('T', self.start))
    }

    /// Memory of its own in bytes; `None` when it has ended.
    pub fn memory(self) -> Option<u64> {
        let memory = proc_memory(self.pid)?;
        self.lives().then_some(memory)
    }

    /// A handle that means this process for ever; `None` when it has ended.
    pub fn open(self) -> Option<Handle> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // The handle is of whoever has the pid now: only after this check is it known to be ours.
        self.lives().then_some(Handle { fd })
    }
}

/// A process handle (pidfd).
pub struct Handle {
    fd: OwnedFd,
}

impl Handle {
    /// Sends a signal; a process that has ended meanwhile is no error.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until it has ended.
    #[expect(
        deprecated,
        reason = "its successor is unsafe; what it warns of, a type that does not own or borrow its descriptor, is not passed here"
    )]
    pub async fn ended(&self) -> std::io::Result<()> {
        let fd = AsyncFd::with_interest(self.fd.as_fd(), Interest::READABLE)?;
        fd.readable().await.map(drop)
    }

    /// SIGTERM, which a paused process is woken for, then SIGKILL when it has not ended within `patience`. Says whether the
    /// kill was needed.
    pub async fn stop(&self, patience: Duration) -> std::io::Result<bool> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)?;
        if let Ok(ended) = tokio::time::timeout(patience, self.ended()).await {
            return ended.map(|()| false);
        }
        self.signal(Signal::KILL)?;
        self.ended().await.map(|()| true)
    }
}

/// State and start time. The command's name, second field, is in parentheses and may hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // `start` is field 22; the state was field 3.
    let start = fields.nth(22 - 4)?.parse().ok()?;
    Some((state, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 777 1000 1";
        assert_eq!(parse_stat(stat), Some(('S', 777)));
        assert_eq!(parse_stat("42 (a"), None);
        assert_eq!(parse_stat("42 (a) S 1 2"), None);
    }

    #[test]
    fn a_reused_pid_is_not_the_process() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(me.memory().unwrap() > 0);
        let earlier = Process {
            start: me.start - 1,
            ..me
        };
        assert!(!earlier.lives());
        assert!(earlier.open().is_none());
        assert_eq!(earlier.memory(), None);
    }

    #[tokio::test]
    async fn a_stopped_process_is_seen_to_end_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let handle = process.open().unwrap();
        assert!(!handle.stop(Duration::from_secs(60)).await.unwrap());
        assert!(!process.lives(), "a zombie does not live");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_paused_process_lives_and_can_be_stopped_without_a_kill() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process::of(child.id()).unwrap();
        let handle = process.open().unwrap();
        assert!(!process.stands_still());
        handle.signal(Signal::STOP).unwrap();
        // waitid tells when the stop has taken hold; the signal is only sent above.
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
        assert!(process.stands_still() && process.lives());
        assert!(!handle.stop(Duration::from_secs(60)).await.unwrap());
        child.wait().unwrap();
    }
}
