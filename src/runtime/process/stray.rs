//! A node's processes that no file tells of. A supervisor writes its engine's pid down after it has started it, and its own after
//! that: one that is killed in between, or whose starter was, leaves an engine that holds the node's ports and store, and that
//! `run.json` does not name. The process table does.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::dir::{NodeDir, NodeFile};
use crate::runtime::pid::{Handle, Process};

/// A node's processes that live.
#[derive(Default)]
pub struct Strays {
    supervisors: Vec<Handle>,
    engines: Vec<Handle>,
}

impl Strays {
    /// Whether a supervisor is about to say that the node runs.
    pub fn is_starting(&self) -> bool {
        !self.supervisors.is_empty()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.supervisors.is_empty() && self.engines.is_empty()
    }
}

/// Looks for the node's processes, written down or not.
pub fn find(dir: &NodeDir, node: &NodeFile) -> std::io::Result<Strays> {
    let mut found = Strays::default();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Opened before it is looked at, so that what is seen is what the handle means.
        let Some(handle) = Process::of(process).and_then(Process::open) else {
            continue;
        };
        match kind(&Path::new("/proc").join(&name), dir, node) {
            Some(Kind::Supervisor) => found.supervisors.push(handle),
            Some(Kind::Engine) => found.engines.push(handle),
            None => {}
        }
    }
    Ok(found)
}

enum Kind {
    Supervisor,
    Engine,
}

/// What a process is to the node, by its command line, and for an engine by where it runs, too. One that has ended meanwhile, or
/// is another user's, is nothing to it.
fn kind(process: &Path, dir: &NodeDir, node: &NodeFile) -> Option<Kind> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let mut words = line.strip_suffix(&[0])?.split(|byte| *byte == 0);
    if words.next()? != node.binary.as_os_str().as_bytes() {
        return None;
    }
    let words: Vec<&[u8]> = words.collect();
    let supervisor = [
        b"engine".as_slice(),
        b"supervise",
        dir.0.as_os_str().as_bytes(),
    ];
    if words == supervisor {
        return Some(Kind::Supervisor);
    }
    let engine = words
        .iter()
        .copied()
        .eq(node.command.iter().map(String::as_bytes));
    let runs_there = || std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == dir.0);
    (engine && runs_there()).then_some(Kind::Engine)
}

/// Ends them, as a stop does: with time to end in order.
pub async fn stop(dir: &NodeDir, node: &NodeFile) -> std::io::Result<()> {
    end(dir, node, Some(node.stop_timeout)).await.map(drop)
}

/// Ends them as kill -9 does; whether there was any.
pub async fn kill(dir: &NodeDir, node: &NodeFile) -> std::io::Result<bool> {
    end(dir, node, None).await
}

async fn end(dir: &NodeDir, node: &NodeFile, patience: Option<Duration>) -> std::io::Result<bool> {
    let mut any = false;
    loop {
        let found = find(dir, node)?;
        if found.is_empty() {
            return Ok(any);
        }
        any = true;
        // Supervisors first: they would start another engine.
        for process in found.supervisors.into_iter().chain(found.engines) {
            match patience {
                Some(patience) => drop(process.stop(patience).await?),
                None => {
                    process.signal(rustix::process::Signal::KILL)?;
                    process.ended().await?;
                }
            }
        }
        // A supervisor may have started an engine since they were looked for.
    }
}

#[cfg(test)]
mod tests {
    use super::super::dir::RunFile;
    use super::super::disturb::kill_for_good;
    use super::*;
    use std::process::{Child, Command};

    struct Given {
        dir: NodeDir,
        node: NodeFile,
        _root: tempfile::TempDir,
    }

    /// A node whose engine is a program that waits.
    fn given() -> Given {
        let root = tempfile::tempdir().unwrap();
        let dir = NodeDir(root.path().canonicalize().unwrap().join("rmqmaster1"));
        std::fs::create_dir(&dir.0).unwrap();
        let sleep = ["/usr/bin/sleep", "/bin/sleep"].map(Path::new);
        let binary = sleep.into_iter().find(|path| path.exists()).unwrap();
        let node = NodeFile {
            binary: binary.into(),
            command: vec!["86400".into()],
            stop_timeout: Duration::from_secs(60),
            ..NodeFile::bare("rmqmaster1")
        };
        Given {
            dir,
            node,
            _root: root,
        }
    }

    fn run(node: &NodeFile, arguments: &[String], cwd: &Path) -> Child {
        let mut command = Command::new(&node.binary);
        command.args(arguments).current_dir(cwd).spawn().unwrap()
    }

    #[tokio::test]
    async fn an_engine_that_no_file_tells_of_is_ended_and_others_are_not() {
        for kills in [false, true] {
            let Given { dir, node, _root } = given();
            let mut own = run(&node, &node.command, &dir.0);
            let mut elsewhere = run(&node, &node.command, dir.0.parent().unwrap());
            let mut other = run(&node, &["86401".into()], &dir.0);
            let found = find(&dir, &node).unwrap();
            assert!(!found.is_empty() && !found.is_starting());
            match kills {
                true => assert!(kill(&dir, &node).await.unwrap()),
                false => stop(&dir, &node).await.unwrap(),
            }
            use std::os::unix::process::ExitStatusExt;
            let signal = if kills { 9 } else { 15 };
            assert_eq!(own.wait().unwrap().signal(), Some(signal));
            for child in [&mut elsewhere, &mut other] {
                assert_eq!(child.try_wait().unwrap(), None, "it is not the node's");
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }

    /// What is left when the supervisor is killed between the start of an engine and the line about it.
    #[tokio::test]
    async fn an_engine_that_its_supervisor_had_just_started_dies_with_it() {
        let Given { dir, node, _root } = given();
        // A stand-in for the supervisor.
        let mut supervisor = run(&node, &["86402".into()], &dir.0);
        let written = RunFile {
            supervisor: Process::of(supervisor.id()).unwrap(),
            child: None,
            started_at: 0,
            restarts: 0,
            last_end: None,
        };
        dir.write_run(&written).unwrap();
        let mut engine = run(&node, &node.command, &dir.0);
        kill_for_good(&dir, &node, written).await.unwrap();
        supervisor.wait().unwrap();
        engine.wait().unwrap();
        let now = dir.run().unwrap().unwrap();
        assert_eq!(now.child, None);
        assert_eq!(now.last_end.unwrap().code, 128 + 9);
    }

    #[test]
    fn a_supervisor_is_known_by_the_directory_it_was_given() {
        let Given { dir, node, _root } = given();
        let supervise = |dir: &str| ["engine", "supervise", dir].map(String::from);
        let own = dir.0.display().to_string();
        assert!(matches!(
            kind_of_line(&node, &supervise(&own), &dir),
            Some(Kind::Supervisor)
        ));
        let other = format!("{own}2");
        assert!(kind_of_line(&node, &supervise(&other), &dir).is_none());
        assert!(matches!(
            kind_of_line(&node, &node.command, &dir),
            Some(Kind::Engine)
        ));
    }

    /// What a process of this command line would be; it runs nothing.
    fn kind_of_line(node: &NodeFile, arguments: &[String], dir: &NodeDir) -> Option<Kind> {
        let process = tempfile::tempdir().unwrap();
        let mut line = node.binary.as_os_str().as_bytes().to_vec();
        for argument in arguments {
            line.push(0);
            line.extend(argument.as_bytes());
        }
        line.push(0);
        std::fs::write(process.path().join("cmdline"), line).unwrap();
        std::os::unix::fs::symlink(&dir.0, process.path().join("cwd")).unwrap();
        kind(process.path(), dir, node)
    }
}
