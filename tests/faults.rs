//! `rmqctl` against a Docker daemon that fails: every request that a command makes is spoiled in every way that fits it, and
//! then the same command is run again. It must come to the state that an undisturbed run comes to, with nothing of others
//! touched and nothing left over, whatever the first run said.
//!
//! All cases are some thousand runs of the program. `cargo test` takes a sample; `FAULTS=all` takes all, and with `RMQCTL` of a
//! release build that takes minutes (`./test faults`).
#![allow(clippy::unwrap_used)]

mod fake_docker;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fake_docker::world::{Release, World};
use fake_docker::{At, FakeDocker, Fault};
use serde_json::json;

/// Longer than any run; a program that hangs is ended then.
const HANGS: Duration = Duration::from_secs(60);
/// One case in so many is tried by a plain `cargo test`.
const SAMPLE: usize = 41;
const CLUSTER: &str = "rmq";

/// A daemon, a directory and ports of a test's own.
struct Bench {
    daemon: FakeDocker,
    dir: tempfile::TempDir,
    offset: u16,
    /// Holds the offset: of all ports of the cluster only this one, replication's, is never published.
    _reserved: TcpListener,
}

/// How a run ended.
#[derive(Debug)]
struct Ran {
    /// 128 + n for signal n.
    code: i32,
    out: String,
    err: String,
}

impl Bench {
    fn new(world: World) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let _ports_are_closed_at_once = fake_docker::spawning();
        // Less than 1000 apart, so that no two share a port, nor one and what another moves to.
        let (offset, reserved) = (12_000..12_980)
            .step_by(20)
            .find_map(|offset| {
                let reserved = TcpListener::bind(("127.0.0.1", 10_912 + offset)).ok()?;
                // A cluster of somebody else's may stand in the way with any of them.
                let ports = [
                    8_181, 9_876, 10_909, 10_911, 11_909, 11_911, 12_909, 12_911, 13_909, 13_911,
                ];
                let free = |port: &u16| TcpListener::bind(("127.0.0.1", port + offset)).is_ok();
                ports.iter().all(free).then_some((offset, reserved))
            })
            .expect("some offset is free");
        Bench {
            daemon: FakeDocker::start(dir.path(), world),
            dir,
            offset,
            _reserved: reserved,
        }
    }

    fn run(&self, command: &str) -> Ran {
        let program = std::env::var("RMQCTL").unwrap_or(env!("CARGO_BIN_EXE_rmqctl").into());
        let mut arguments: Vec<String> = command.split(' ').map(String::from).collect();
        if matches!(arguments[0].as_str(), "up" | "plan") && !command.contains("--port-offset") {
            arguments.extend(["--port-offset".into(), self.offset.to_string()]);
        }
        // One call at a time, so that requests come in the same order in every run.
        let spawning = fake_docker::spawning();
        let child = Command::new(program)
            .args(["--parallel", "1"])
            .args(arguments)
            .env_clear()
            .env("DOCKER_HOST", self.daemon.host())
            .env("HOME", self.dir.path())
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("USER", "tester")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(spawning);
        let pid = child.id();
        self.daemon.client_is(pid);
        let (tell, told) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            let output = child.wait_with_output().unwrap();
            tell.send(()).unwrap();
            output
        });
        let hung = told.recv_timeout(HANGS).is_err();
        if hung {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        let output = waiting.join().unwrap();
        let ran = Ran {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(
            !hung,
            "`{command}` hangs: {ran:#?}\n{:#?}",
            self.daemon.requests()
        );
        assert!(
            !ran.err.contains("panicked"),
            "`{command}` panics: {}",
            ran.err
        );
        ran
    }

    #[track_caller]
    fn done(&self, command: &str) -> Ran {
        let ran = self.run(command);
        assert_eq!(
            ran.code,
            0,
            "`{command}`: {}{}\n{:#?}",
            ran.out,
            ran.err,
            self.daemon.requests()
        );
        ran
    }

    /// The world after a command that nothing disturbs.
    fn after(&self, world: &World, command: &str) -> World {
        self.daemon.reset(world.clone(), None);
        self.done(command);
        self.daemon.world()
    }
}

/// Things of others, named much like ours.
fn others(release: Release) -> World {
    let mut world = World::new(release);
    for (name, cluster) in [
        ("rmqnetwork2", None),
        ("my-rmqnetwork", None),
        ("rmq2-rmqnetwork", Some("rmq2")),
    ] {
        let labels = cluster.map_or(
            json!({}),
            |c| json!({"io.rmqctl.cluster": c, "io.rmqctl.spec": "{}"}),
        );
        world.create_network(&json!({"Name": name, "Labels": labels}));
    }
    let conf = json!({"io.rmqctl.cluster": "rmq2", "io.rmqctl.volume": "conf"});
    for (name, labels) in [
        ("rmqmaster1-store2", json!({})),
        ("rmq2-rmqmaster1-store", conf),
        ("rmqnetwork-spec-0", json!({"a": "b"})),
    ] {
        world.create_volume(&json!({"Name": name, "Labels": labels}));
    }
    world.images.insert("redis:7".into(), json!({}));
    for (name, cluster) in [("rmqmaster11", None), ("rmq2-rmqmaster1", Some("rmq2"))] {
        let labels = cluster.map_or(
            json!({}),
            |c| json!({"io.rmqctl.cluster": c, "io.rmqctl.node": "rmqmaster1"}),
        );
        world.create_stranger(name, labels);
    }
    world
}

/// Ways to spoil a request that fit it.
fn faults_for(line: &str) -> Vec<Fault> {
    use Fault::{
        CutAnswer, DoneButRefused, Interrupted, Killed, LostAnswer, LostRequest, Refused, Slow,
        UnknownState,
    };
    let path = line
        .split_whitespace()
        .nth(1)
        .unwrap()
        .split('?')
        .next()
        .unwrap();
    if line.starts_with("GET ") {
        let mut faults = vec![CutAnswer, LostAnswer, Refused(500)];
        if path.starts_with("/containers/") && path.ends_with("/json") {
            faults.push(UnknownState);
        }
        return faults;
    }
    let mut faults = vec![
        CutAnswer,
        LostAnswer,
        LostRequest,
        Refused(409),
        Refused(500),
        DoneButRefused(500),
        Slow,
        Interrupted,
        Killed,
    ];
    if path.starts_with("/containers/") && (path.ends_with("/start") || path.ends_with("/stop")) {
        faults.push(DoneButRefused(304));
    }
    faults
}

/// Every fault at every request of a command, from a world where it has something to do.
fn every_fault(bench: &Bench, before: &World, command: &str) {
    every_fault_at(bench, before, command, |_| true);
}

fn every_fault_at(bench: &Bench, before: &World, command: &str, chosen: impl Fn(&str) -> bool) {
    let wanted = bench.after(before, command).text();
    let strangers = before.part(CLUSTER, false).text();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut cases = Vec::new();
    for line in bench
        .daemon
        .requests()
        .into_iter()
        .filter(|line| chosen(line))
    {
        let nth = seen
            .entry(line.clone())
            .and_modify(|n| *n += 1)
            .or_insert(1);
        cases.extend(faults_for(&line).into_iter().map(|fault| At {
            line: line.clone(),
            nth: *nth,
            fault,
        }));
    }
    assert!(!cases.is_empty(), "`{command}` asks the daemon nothing");
    let step = if std::env::var("FAULTS").is_ok_and(|v| v == "all") {
        1
    } else {
        SAMPLE
    };
    let began = Instant::now();
    let (mut met, mut unharmed) = (0, 0);
    for at in cases.iter().step_by(step) {
        match one_fault(bench, before, command, at, &wanted, &strangers) {
            Met::No => {}
            Met::AndAgain => met += 1,
            Met::Unharmed => (met, unharmed) = (met + 1, unharmed + 1),
        }
    }
    // Where a fault did no harm the second run is that of an undisturbed first one: the same for all of them, so it is tried once.
    if unharmed > 0 {
        bench.after(before, command);
        bench.done(command);
        assert_eq!(bench.daemon.world().text(), wanted, "`{command}` again");
    }
    println!(
        "{command}: {met} of {} faults tried, {unharmed} did no harm; {} s",
        cases.len(),
        began.elapsed().as_secs()
    );
}

/// Whether a fault was met: what runs beside (the watch for nodes that end) may come once more or less.
enum Met {
    No,
    /// The command came to its end all the same.
    Unharmed,
    /// It was run again.
    AndAgain,
}

/// Runs the command with the fault, and again without where that left anything to do.
fn one_fault(
    bench: &Bench,
    before: &World,
    command: &str,
    at: &At,
    wanted: &str,
    strangers: &str,
) -> Met {
    bench.daemon.reset(before.clone(), Some(at.clone()));
    let first = bench.run(command);
    if !bench.daemon.spoiled() {
        return Met::No;
    }
    let shown = || {
        format!(
            "`{command}` with {at:?}\nfirst run: {first:#?}\nrequests: {:#?}",
            bench.daemon.requests()
        )
    };
    let now = bench.daemon.world();
    assert_eq!(
        now.part(CLUSTER, false).text(),
        strangers,
        "something of others was touched: {}",
        shown()
    );
    let codes: &[i32] = match at.fault {
        Fault::Slow | Fault::UnknownState | Fault::DoneButRefused(304) => &[0],
        Fault::Interrupted => &[130, 0],
        Fault::Killed => &[137],
        // Failed, no daemon, not ready, partly done; or it helped itself.
        _ => &[0, 1, 4, 6, 8],
    };
    assert!(
        codes.contains(&first.code),
        "exit code not of {codes:?}: {}",
        shown()
    );
    match first.code {
        0 => {
            assert_eq!(now.text(), wanted, "it said it was done: {}", shown());
            return Met::Unharmed;
        }
        137 => {}
        _ => assert!(
            first.err.contains("error[RMQ-E"),
            "no error is told: {}",
            shown()
        ),
    }
    let again = bench.run(command);
    assert_eq!(again.code, 0, "again: {again:#?}\n{}", shown());
    assert_eq!(
        bench.daemon.world().text(),
        wanted,
        "again: {again:#?}\n{}",
        shown()
    );
    Met::AndAgain
}

#[test]
fn up_from_nothing() {
    let bench = Bench::new(others(Release::V20));
    let nothing = bench.daemon.world();
    let mut loaded = nothing.clone();
    loaded.images = bench.after(&nothing, "up --masters 1 --slaves 1").images;
    every_fault(&bench, &loaded, "up --masters 1 --slaves 1");
    every_fault_at(
        &bench,
        &nothing,
        "up --masters 1 --slaves 0 --no-console",
        |line| line.contains("/images/"),
    );
}

#[test]
fn up_with_a_change() {
    let bench = Bench::new(others(Release::V29));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    every_fault(&bench, &up, "up --slaves 2 --set fileReservedTime=72");
}

/// Every port moves to where another node's was.
#[test]
fn up_with_ports_that_change_hands() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(
        &bench.daemon.world(),
        "up --masters 1 --slaves 1 --no-console",
    );
    let moved = format!("up --port-offset {}", bench.offset + 1000);
    every_fault(&bench, &up, &moved);
}

#[test]
fn down() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    let changed = bench.after(&up, "up --set fileReservedTime=72@rmqslave1");
    every_fault(&bench, &changed, "down");
    every_fault(&bench, &changed, "down --volumes");
}

#[test]
fn restart() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    every_fault(&bench, &up, "restart");
    every_fault(&bench, &up, "restart --all-at-once");
}

#[test]
fn stop_and_start() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    let stopped = bench.after(&up, "stop");
    assert!(
        stopped
            .part(CLUSTER, true)
            .containers
            .iter()
            .all(|c| c.status == "exited")
    );
    every_fault(&bench, &up, "stop");
    every_fault(&bench, &stopped, "up --set fileReservedTime=72");
    every_fault(&bench, &stopped, "start");
}

/// A master with its slave more, and then away again, emptied first.
#[test]
fn scale() {
    let bench = Bench::new(others(Release::V29));
    let up = bench.after(
        &bench.daemon.world(),
        "up --masters 1 --slaves 1 --no-console",
    );
    let more = "scale --masters 2 --slaves 2";
    every_fault(&bench, &up, more);
    let grown = bench.after(&up, more);
    assert!(grown.closed.is_empty());
    every_fault(&bench, &grown, "scale --masters 1 --slaves 1");
}

#[test]
fn requests_carry_no_version_and_containers_no_rights() {
    for release in [Release::V20, Release::V29] {
        let bench = Bench::new(others(release));
        bench.done("up --masters 1 --slaves 1");
        let asked = bench.daemon.requests();
        // A client that pins a version here is refused by daemons that are older or much newer: look before it is let in.
        let versioned = asked.iter().filter(|line| line.contains(" /v1."));
        assert_eq!(versioned.count(), 0, "{asked:#?}");
        for container in bench.daemon.world().part(CLUSTER, true).containers {
            let host = &container.spec["HostConfig"];
            assert!(
                container
                    .published()
                    .iter()
                    .all(|(ip, _)| ip == "127.0.0.1"),
                "{host}"
            );
            assert_eq!(host.get("Privileged").filter(|v| **v != false), None);
            assert_eq!(
                host.get("Binds").filter(|v| !v.is_null()),
                None,
                "no socket, no directory of the host"
            );
            assert_eq!(host["CapDrop"], json!(["ALL"]));
            assert_eq!(host["SecurityOpt"], json!(["no-new-privileges:true"]));
            assert_eq!(host["ReadonlyRootfs"], true);
            assert_eq!(host["RestartPolicy"]["Name"], "always");
        }
        let world = bench.daemon.world();
        bench.daemon.reset(world, None);
        bench.done("up");
        let changing = |line: &&String| !line.starts_with("GET ") && !line.contains("exec");
        let asked = bench.daemon.requests();
        assert_eq!(
            asked.iter().find(changing),
            None,
            "up again changes nothing"
        );
        assert_eq!(bench.run("plan --exit-code").code, 0);
    }
}

#[test]
fn two_networks_of_one_name_become_one() {
    let bench = Bench::new(others(Release::V20));
    let mut world = bench.daemon.world();
    for _ in 0..2 {
        world.create_network(
            &json!({"Name": "rmqnetwork", "Labels": {"io.rmqctl.cluster": CLUSTER}}),
        );
    }
    let oldest = world.networks[world.networks.len() - 2].id.clone();
    bench.daemon.reset(world.clone(), None);
    bench.done("up --masters 1 --slaves 0 --no-console");
    let ours = bench.daemon.world().part(CLUSTER, true);
    assert_eq!(
        ours.networks.iter().map(|n| &n.id).collect::<Vec<_>>(),
        [&oldest]
    );
    assert!(
        ours.containers
            .iter()
            .all(|c| c.runs() && c.network_id == oldest)
    );
    bench.daemon.reset(world, None);
    bench.done("down");
    assert_eq!(
        bench.daemon.world().part(CLUSTER, true).text(),
        "0 containers, 0 networks, 0 volumes\n"
    );
}

/// `docker network prune` while the cluster rests: its containers remember a network that is gone.
#[test]
fn a_network_that_was_pruned_is_made_anew_with_what_was_in_it() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    let mut pruned = bench.after(&up, "stop");
    pruned.networks.retain(|n| n.name != "rmqnetwork");
    bench.daemon.reset(pruned, None);
    bench.done("up --masters 1 --slaves 1");
    assert_eq!(bench.daemon.world().text(), up.text());
}

#[test]
fn a_state_that_nobody_knows_is_shown_as_unknown() {
    let bench = Bench::new(others(Release::V20));
    let up = bench.after(&bench.daemon.world(), "up --masters 1 --slaves 1");
    let master = up
        .containers
        .iter()
        .find(|c| c.name == "rmqmaster1")
        .unwrap();
    let at = At {
        line: format!("GET /containers/{}/json", master.id),
        nth: 1,
        fault: Fault::UnknownState,
    };
    bench.daemon.reset(up.clone(), Some(at));
    let ran = bench.run("status -o json");
    assert!(bench.daemon.spoiled());
    assert!(matches!(ran.code, 0 | 7), "{ran:?}");
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let nodes = shown["nodes"].as_array().unwrap();
    let states: Vec<_> = nodes
        .iter()
        .map(|n| (n["name"].as_str().unwrap(), n["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states.len(), 4, "{states:?}");
    assert!(states.contains(&("rmqmaster1", "unknown")), "{states:?}");
}

#[test]
fn a_strangers_name_is_a_conflict_that_changes_nothing() {
    let bench = Bench::new(others(Release::V20));
    let empty = bench.daemon.world();
    let mut container = empty.clone();
    container.create_stranger("rmqmaster1", json!({}));
    let mut network = empty.clone();
    network.create_network(&json!({"Name": "rmqnetwork", "Labels": {}}));
    let mut volume = empty;
    volume.create_volume(
        &json!({"Name": "rmqmaster1-store", "Labels": {"io.rmqctl.cluster": "rmq2"}}),
    );
    for world in [container, network, volume] {
        bench.daemon.reset(world.clone(), None);
        let ran = bench.run("up --masters 1 --slaves 1");
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.err.contains("RMQ-E014"), "{ran:?}");
        bench.done("down --volumes");
        assert_eq!(bench.daemon.world().text(), world.text());
    }
}
