//! Who may import whom: the rooms of the house, read from the sources as text. A wall that nobody checks is soon a door.
//!
//! The rules stand in [`ROOMS`], one row a room. Unit tests inside a file may reach further and are left out.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// A room: the sources below `path` (a directory, or one file), what of its own crate it may name, and words it must not contain.
struct Room {
    path: &'static str,
    /// Modules of its crate, besides itself. `None`: all.
    modules: Option<&'static [&'static str]>,
    /// Crates of this workspace.
    crates: &'static [&'static str],
    /// A word and why it is not said here.
    never: &'static [(&'static str, &'static str)],
}

const OURS: [&str; 3] = ["rocketmq_protocol", "rocketmq_store", "broker_engine"];

/// Protocol and store: bytes and files. Whoever calls them brings the time, the sockets and the dice.
const NO_WORLD: &[(&str, &str)] = &[
    ("async fn", "nothing here is async"),
    (".await", "nothing here is async"),
    ("tokio::", "nothing here is async"),
    ("TcpStream", "no sockets here"),
    ("TcpListener", "no sockets here"),
    ("UdpSocket", "no sockets here"),
    ("SystemTime::now", "the time is passed in"),
    ("Instant::now", "the time is passed in"),
    ("rand::", "random numbers are passed in"),
];

/// From what the user wrote to what shall be done: computed, so that a plan can be shown, tested and repeated.
const PURE: &[(&str, &str)] = &[
    ("async fn", "pure: it waits for nothing"),
    (".await", "pure: it waits for nothing"),
    ("tokio::", "pure: it waits for nothing"),
    ("bollard", "pure: it never sees a daemon"),
    ("std::fs", "pure: commands read and write files"),
    ("std::process", "pure: it starts nothing"),
    ("SystemTime::now", "the time is passed in"),
    ("Instant::now", "the time is passed in"),
];

const NO_DAEMON: &[(&str, &str)] = &[("bollard", "only runtime/ speaks to Docker")];

const ROOMS: &[Room] = &[
    Room {
        path: "broker-engine/protocol/src",
        modules: None,
        crates: &[],
        never: NO_WORLD,
    },
    Room {
        path: "broker-engine/store/src",
        modules: None,
        crates: &["rocketmq_protocol"],
        never: NO_WORLD,
    },
    Room {
        path: "broker-engine/src/clock.rs",
        modules: Some(&[]),
        crates: &[],
        never: &[],
    },
    Room {
        path: "broker-engine/src/config",
        modules: Some(&["clock"]),
        crates: &["rocketmq_protocol", "rocketmq_store"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/net",
        modules: Some(&["clock"]),
        crates: &["rocketmq_protocol"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/namesrv",
        modules: Some(&["clock", "config", "net", "snapshot"]),
        crates: &["rocketmq_protocol"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/log",
        modules: Some(&["clock", "config"]),
        crates: &["rocketmq_protocol", "rocketmq_store"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/replication",
        modules: Some(&["clock", "config", "net", "log"]),
        crates: &["rocketmq_protocol", "rocketmq_store"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/broker",
        modules: Some(&["clock", "config", "net", "log", "replication", "snapshot"]),
        crates: &["rocketmq_protocol", "rocketmq_store"],
        never: &[],
    },
    Room {
        path: "broker-engine/src/console",
        modules: Some(&["clock", "config", "net"]),
        crates: &["rocketmq_protocol"],
        never: &[],
    },
    // The one place of the specification that opens a file: the one the user named.
    Room {
        path: "src/spec/yaml.rs",
        modules: Some(&["error", "spec"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/spec",
        modules: Some(&["error"]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/topology",
        modules: Some(&["error", "properties", "spec"]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/properties",
        modules: Some(&["error", "spec", "topology"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/export",
        modules: Some(&["error", "properties", "spec", "topology"]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/plan",
        modules: Some(&["error", "properties", "topology"]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/execute",
        modules: Some(&[
            "drain",
            "error",
            "interrupt",
            "plan",
            "ready",
            "runtime",
            "topology",
        ]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/runtime",
        modules: Some(&[
            "archive",
            "error",
            "lease",
            "plan",
            "probe",
            "properties",
            "topology",
        ]),
        crates: &["rocketmq_protocol"],
        never: &[],
    },
    Room {
        path: "src/redact",
        modules: Some(&[]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/archive",
        modules: Some(&[]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/client",
        modules: Some(&["error"]),
        crates: &["rocketmq_protocol"],
        never: NO_DAEMON,
    },
    Room {
        path: "src/probe",
        modules: Some(&["client", "error", "topology"]),
        crates: &["rocketmq_protocol"],
        never: NO_DAEMON,
    },
    Room {
        path: "src/doctor/checks",
        modules: Some(&[
            "client",
            "doctor",
            "plan",
            "properties",
            "ready",
            "runtime",
            "topology",
        ]),
        crates: &[],
        never: PURE,
    },
    Room {
        path: "src/doctor",
        modules: Some(&["client", "error", "plan", "probe", "runtime", "topology"]),
        crates: &["rocketmq_protocol"],
        never: NO_DAEMON,
    },
    // Readiness, the lock and Ctrl-C: small rooms beside the commands that use them.
    Room {
        path: "src/ready",
        modules: Some(&["error", "interrupt", "probe", "runtime", "topology"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/drain",
        modules: Some(&["client", "error", "interrupt", "plan", "topology"]),
        crates: &["rocketmq_protocol"],
        never: NO_DAEMON,
    },
    Room {
        path: "src/lock",
        modules: Some(&["error"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/lease",
        modules: Some(&[]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/memory",
        modules: Some(&[]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/moment",
        modules: Some(&["spec"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/interrupt",
        modules: Some(&["error"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/ui",
        modules: Some(&["error", "plan", "probe", "spec", "topology"]),
        crates: &[],
        never: NO_DAEMON,
    },
    Room {
        path: "src/error",
        modules: Some(&["runtime", "spec", "plan", "topology"]),
        crates: &[],
        never: NO_DAEMON,
    },
    // The engine is started from one command, and known to nothing else of rmqctl.
    Room {
        path: "src/commands/engine.rs",
        modules: None,
        crates: &["rocketmq_protocol", "broker_engine"],
        never: NO_DAEMON,
    },
    Room {
        path: "src/commands",
        modules: None,
        crates: &["rocketmq_protocol"],
        never: NO_DAEMON,
    },
];

/// The first row that holds the file: `src/plan` is `src/plan.rs` and all below `src/plan/`.
fn room_of(path: &str) -> Option<&'static Room> {
    ROOMS.iter().find(|r| {
        path.strip_prefix(r.path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest == ".rs")
    })
}

/// The module of its crate that a room is: `broker-engine/src/net` is `net`.
fn module_of(room: &Room) -> &'static str {
    let name = room.path.rsplit('/').next().unwrap_or(room.path);
    name.strip_suffix(".rs").unwrap_or(name)
}

/// The text as the rules see it: without comments, and without the unit tests, which stand last in a file.
fn product(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim_start() == "#[cfg(test)]"
            && lines
                .peek()
                .is_some_and(|l| l.trim_start().starts_with("mod ") && l.trim_end().ends_with('{'))
        {
            break;
        }
        // `://` is part of an address, not a comment.
        let code = match line.find("//") {
            Some(at) if at == 0 || !line[..at].ends_with(':') => &line[..at],
            _ => line,
        };
        kept.push_str(code);
        kept.push('\n');
    }
    kept
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// First names after each `root::`, those in braces too: `crate::{a::B, c}` names `a` and `c`.
fn named_after(text: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(root) {
        if text[..at]
            .chars()
            .next_back()
            .is_some_and(|c| is_word(c) || c == ':' || c == '$')
        {
            continue;
        }
        let rest = &text[at + root.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut begins) = (0, true);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    _ if begins && is_word(c) => {
                        begins = false;
                        let name = group[i..].chars().take_while(|c| is_word(*c)).collect();
                        found.push((at, name));
                    }
                    _ => {}
                }
            }
        } else {
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            if !name.is_empty() {
                found.push((at, name));
            }
        }
    }
    found
}

/// Every breach of a rule in one file, as `path:line: what`.
fn breaches(path: &str, text: &str) -> Vec<String> {
    let Some(room) = room_of(path) else {
        return Vec::new();
    };
    let text = product(text);
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    if let Some(allowed) = room.modules {
        let own = module_of(room);
        let mut named = named_after(&text, "crate::");
        // In a file at the top of its crate, `super` is the crate itself.
        if path
            .rsplit_once('/')
            .is_some_and(|(dir, _)| dir.ends_with("src"))
        {
            named.extend(named_after(&text, "super::"));
        }
        for (at, module) in named {
            // Types and macros at the crate's root are nobody's room.
            let is_module = module.chars().next().is_some_and(char::is_lowercase);
            if is_module && module != own && !allowed.contains(&module.as_str()) {
                found.push(format!(
                    "{path}:{}: {own} must not import {module}",
                    line(at)
                ));
            }
        }
    }
    for krate in OURS {
        if room.crates.contains(&krate) {
            continue;
        }
        if let Some((at, _)) = text.match_indices(krate).find(|(at, _)| {
            !text[..*at].chars().next_back().is_some_and(is_word)
                && !text[at + krate.len()..].chars().next().is_some_and(is_word)
        }) {
            found.push(format!(
                "{path}:{}: must not import the crate {krate}",
                line(at)
            ));
        }
    }
    for (word, why) in room.never {
        if let Some(at) = text.find(word) {
            found.push(format!("{path}:{}: `{word}`: {why}", line(at)));
        }
    }
    found
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry
            .expect("a directory of the repository can be read")
            .path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs")
            && path.file_name().is_some_and(|n| n != "tests.rs")
        {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for dir in [
        "src",
        "broker-engine/src",
        "broker-engine/protocol/src",
        "broker-engine/store/src",
    ] {
        sources(&root.join(dir), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|p| {
            let text = std::fs::read_to_string(&p).expect("a source file is text");
            let name = p
                .strip_prefix(root)
                .expect("below the root")
                .to_str()
                .expect("named in UTF-8");
            (name.to_owned(), text)
        })
        .collect()
}

#[test]
fn no_room_reaches_through_a_wall() {
    let mut report = String::new();
    for (path, text) in all_sources() {
        for breach in breaches(&path, &text) {
            writeln!(report, "  {breach}").unwrap();
        }
    }
    assert!(
        report.is_empty(),
        "imports that the house forbids (tests/layering.rs has the rules):\n{report}"
    );
}

#[test]
fn unsafe_code_stands_in_two_files() {
    let allowed: Vec<String> = all_sources()
        .into_iter()
        .filter(|(_, text)| product(text).contains("unsafe_code"))
        .map(|(path, _)| path)
        .collect();
    assert_eq!(
        allowed,
        ["broker-engine/store/src/disk/map.rs", "src/memory.rs"]
    );
}

#[test]
fn every_source_file_stands_in_a_room() {
    // These tie the rooms together.
    let halls = [
        "src/main.rs",
        "broker-engine/src/lib.rs",
        "broker-engine/src/run.rs",
    ];
    let homeless: Vec<_> = all_sources()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| room_of(path).is_none() && !halls.contains(&path.as_str()))
        .collect();
    assert_eq!(
        homeless,
        Vec::<String>::new(),
        "give each of these a row in tests/layering.rs"
    );
}

#[test]
fn the_library_crates_depend_on_nothing_async() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for krate in ["protocol", "store"] {
        let manifest =
            std::fs::read_to_string(root.join("broker-engine").join(krate).join("Cargo.toml"))
                .unwrap();
        for word in ["tokio", "futures", "rand", "broker-engine"] {
            assert!(
                !manifest
                    .lines()
                    .any(|l| l.starts_with(word)
                        && l[word.len()..].starts_with(['.', ' ', '=', '-'])),
                "{krate}/Cargo.toml depends on {word}"
            );
        }
    }
}

#[test]
fn a_planted_breach_is_seen() {
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[&str]) {
        assert_eq!(breaches(path, text), expected, "in {path}:\n{text}");
    }
    check(
        "src/plan.rs",
        "use crate::runtime::Runtime;\n",
        &["src/plan.rs:1: plan must not import runtime"],
    );
    check(
        "src/plan.rs",
        "use super::runtime::Runtime;\n",
        &["src/plan.rs:1: plan must not import runtime"],
    );
    check(
        "src/plan.rs",
        "use crate::{\n    topology::{Node, Role},\n    ui,\n};\n",
        &["src/plan.rs:1: plan must not import ui"],
    );
    check(
        "src/topology.rs",
        "\nfn f() { std::fs::read(\"x\"); }\n",
        &["src/topology.rs:2: `std::fs`: pure: commands read and write files"],
    );
    check(
        "src/commands/up.rs",
        "use broker_engine::config;\n",
        &["src/commands/up.rs:1: must not import the crate broker_engine"],
    );
    check(
        "broker-engine/src/replication/master.rs",
        "fn f(b: &crate::broker::Broker) {}\n",
        &["broker-engine/src/replication/master.rs:1: replication must not import broker"],
    );
    check(
        "broker-engine/store/src/writer.rs",
        "fn now() -> Instant { Instant::now() }\n",
        &["broker-engine/store/src/writer.rs:1: `Instant::now`: the time is passed in"],
    );
    check(
        "broker-engine/src/namesrv/table.rs",
        "use rocketmq_store::Writer;\n",
        &["broker-engine/src/namesrv/table.rs:1: must not import the crate rocketmq_store"],
    );
}

#[test]
fn what_is_allowed_or_only_spoken_of_is_no_breach() {
    #[track_caller]
    fn check(path: &str, text: &str) {
        assert_eq!(
            breaches(path, text),
            Vec::<String>::new(),
            "in {path}:\n{text}"
        );
    }
    check(
        "src/plan.rs",
        "//! Never calls crate::runtime.\nuse crate::topology::{Node, Role};\n",
    );
    check(
        "src/plan.rs",
        "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::runtime::memory::Memory;\n}\n",
    );
    check("src/commands/engine.rs", "use broker_engine::run;\n");
    check(
        "src/execute.rs",
        "use crate::plan::Action;\nuse crate::runtime::{Runtime, RuntimeError};\n",
    );
    check(
        "broker-engine/src/broker/send.rs",
        "use crate::{log::Log, net::Connection};\nuse rocketmq_store::Reader;\n",
    );
    check(
        "broker-engine/src/log/acks.rs",
        "use super::Requirement;\nuse crate::log::Outcome;\n",
    );
}
