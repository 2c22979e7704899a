//! A Docker daemon on a Unix socket that fails where it is told to. It keeps its things in memory ([`world`]), lets a started
//! container's ports answer as the engine would ([`engine`]), writes down every request, and can spoil the answer to one.
#![allow(clippy::unwrap_used)]

mod engine;
pub mod world;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use engine::Engines;
use world::{Answer, Request, World};

/// What goes wrong at one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not carried out, and answered with this status.
    Refused(u16),
    /// Carried out, and answered with this status all the same.
    DoneButRefused(u16),
    /// Carried out, and half of the answer sent before the stream ends.
    CutAnswer,
    /// Carried out, and the connection closed without an answer.
    LostAnswer,
    /// Not carried out, and the connection closed.
    LostRequest,
    /// Carried out, and answered late.
    Slow,
    /// States of containers are a word that no client knows.
    UnknownState,
    /// The client gets SIGINT, and its answer.
    Interrupted,
    /// Carried out, and the client gets SIGKILL before it hears of it.
    Killed,
}

/// The `nth` (from 1) request with this line is spoiled.
#[derive(Clone, Debug)]
pub struct At {
    pub line: String,
    pub nth: usize,
    pub fault: Fault,
}

/// Late enough that everything else has happened before.
const LATE: Duration = Duration::from_millis(150);

/// To be held while a process is started: until it has become another program it has every socket of this one, and a port that
/// was closed meanwhile is still taken.
pub fn spawning() -> MutexGuard<'static, ()> {
    static SPAWNING: Mutex<()> = Mutex::new(());
    lock(&SPAWNING)
}

pub struct FakeDocker {
    socket: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    engines: Engines,
    requests: Mutex<Vec<String>>,
    fault: Mutex<Option<At>>,
    /// The process that signals go to, once it is known.
    client: (Mutex<Option<u32>>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .expect("no thread of the fake panics while it holds a lock")
}

impl FakeDocker {
    pub fn start(dir: &Path, world: World) -> FakeDocker {
        let socket = dir.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            engines: Engines::default(),
            requests: Mutex::default(),
            fault: Mutex::default(),
            client: Default::default(),
        });
        let serving = shared.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = serving.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        FakeDocker { socket, shared }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn world(&self) -> World {
        let mut world = lock(&self.shared.world).clone();
        world.closed = self.shared.engines.closed();
        world
    }

    /// Puts the daemon into this state, and forgets what was asked.
    pub fn reset(&self, world: World, fault: Option<At>) {
        self.shared.engines.follow(&world);
        self.shared.engines.set_closed(world.closed.clone());
        *lock(&self.shared.world) = world;
        *lock(&self.shared.fault) = fault;
        *lock(&self.shared.client.0) = None;
        lock(&self.shared.requests).clear();
    }

    /// The process that gets the signals.
    pub fn client_is(&self, pid: u32) {
        *lock(&self.shared.client.0) = Some(pid);
        self.shared.client.1.notify_all();
    }

    /// The lines of all requests since the last reset, `GET /version`.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.shared.requests).clone()
    }

    /// Whether the fault was met.
    pub fn spoiled(&self) -> bool {
        lock(&self.shared.fault).is_none()
    }
}

impl Drop for FakeDocker {
    /// Closes what listens; the socket's own thread knows of nothing then.
    fn drop(&mut self) {
        let release = lock(&self.shared.world).release;
        self.reset(World::new(release), None);
    }
}

/// One request as it came.
struct Received {
    method: String,
    target: String,
    body: Vec<u8>,
}

impl Received {
    /// `None` when the client has closed the connection.
    fn read(from: &mut impl BufRead) -> Option<Received> {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            from.read_line(&mut line).ok().filter(|n| *n > 0)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        let mut body = Vec::new();
        if headers
            .get("transfer-encoding")
            .is_some_and(|v| v == "chunked")
        {
            loop {
                let mut size = String::new();
                from.read_line(&mut size).ok().filter(|n| *n > 0)?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let at = body.len();
                body.resize(at + size, 0);
                from.read_exact(&mut body[at..]).ok()?;
                from.read_line(&mut String::new()).ok()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = headers.get("content-length") {
            body.resize(length.parse().ok()?, 0);
            from.read_exact(&mut body).ok()?;
        }
        Some(Received {
            method,
            target,
            body,
        })
    }

    fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    fn query(&self) -> BTreeMap<String, String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.map(|(k, v)| (decoded(k), decoded(v))).collect()
    }

    /// What names it in a list of requests; the time that an event stream begins at is none of it.
    fn line(&self) -> String {
        match self.path() {
            path @ "/events" => format!("{} {path}", self.method),
            _ => format!("{} {}", self.method, decoded(&self.target)),
        }
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let hex: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Shared {
    fn serve(&self, stream: UnixStream) {
        let mut from = BufReader::new(stream.try_clone().unwrap());
        while let Some(request) = Received::read(&mut from) {
            if self.respond(&request, &stream, &mut from).is_none() {
                break;
            }
        }
        // Whoever is gone already minds nothing.
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// The fault for this request, if it is its turn.
    fn fault_for(&self, line: &str) -> Option<Fault> {
        let mut armed = lock(&self.fault);
        let at = armed.as_mut().filter(|at| at.line == line)?;
        at.nth -= 1;
        let due = (at.nth == 0).then_some(at.fault);
        if due.is_some() {
            *armed = None;
        }
        due
    }

    /// Answers one request; `None` when the connection is at its end.
    fn respond(&self, request: &Received, mut to: &UnixStream, from: &mut impl Read) -> Option<()> {
        let line = request.line();
        lock(&self.requests).push(line.clone());
        let fault = self.fault_for(&line);
        match fault {
            Some(Fault::LostRequest) => return None,
            Some(Fault::Refused(status)) => {
                let message = r#"{"message":"told to fail"}"#;
                return to
                    .write_all(&head(status, "application/json", message).into_bytes())
                    .ok();
            }
            Some(Fault::Interrupted) => self.signal(rustix::process::Signal::INT),
            Some(Fault::Slow) => std::thread::sleep(LATE),
            _ => {}
        }
        let parts: Vec<&str> = request
            .path()
            .split('/')
            .filter(|p| !p.is_empty())
            .collect();
        let answer = match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["events"]) => {
                to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").ok()?;
                if fault == Some(Fault::CutAnswer) {
                    return None;
                }
                // Nothing happens here that nobody asked for: it stands until the client has heard enough.
                let _ = from.read(&mut [0]);
                return None;
            }
            ("POST", ["containers", name, "exec"]) => {
                let command = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
                let id = self.engines.keep_exec(name, &command["Cmd"]);
                (201, Some(serde_json::json!({"Id": id})))
            }
            ("POST", ["exec", id, "start"]) => {
                let text = self.engines.run_exec(id);
                if !matches!(
                    fault,
                    None | Some(Fault::CutAnswer | Fault::Slow | Fault::Interrupted)
                ) {
                    return self.send((200, None), fault, to);
                }

                let mut said = vec![1, 0, 0, 0];
                said.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                said.extend(text.as_bytes());
                let half = if fault == Some(Fault::CutAnswer) {
                    said.len() / 2
                } else {
                    said.len()
                };
                to.write_all(b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n").ok()?;
                to.write_all(&said[..half]).ok()?;
                return None;
            }
            ("GET", ["containers", _, "logs"]) => {
                return to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\nContent-Length: 0\r\n\r\n").ok();
            }
            ("GET", ["containers", name, "archive"]) => {
                let path = request.query().remove("path").unwrap_or_default();
                match lock(&self.world).download(name, &path) {
                    Some(tar) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
                            tar.len()
                        );
                        to.write_all(head.as_bytes()).ok()?;
                        let sent = if fault == Some(Fault::CutAnswer) {
                            &tar[..tar.len() / 2]
                        } else {
                            &tar
                        };
                        to.write_all(sent).ok()?;
                        return (fault != Some(Fault::CutAnswer)).then_some(());
                    }
                    None => (
                        404,
                        Some(
                            serde_json::json!({"message": format!("Could not find the file {path}")}),
                        ),
                    ),
                }
            }
            _ => self.act(request),
        };
        self.send(answer, fault, to)
    }

    fn act(&self, request: &Received) -> Answer {
        let mut world = lock(&self.world);
        let answer = world.answer(&Request {
            method: &request.method,
            path: request.path(),
            query: request.query(),
            body: &request.body,
        });
        self.engines.follow(&world);
        answer
    }

    fn send(
        &self,
        (status, body): Answer,
        fault: Option<Fault>,
        mut to: &UnixStream,
    ) -> Option<()> {
        let mut status = status;
        let mut body = body;
        match fault {
            Some(Fault::Killed) => {
                self.signal(rustix::process::Signal::KILL);
                return None;
            }
            Some(Fault::LostAnswer) => return None,
            Some(Fault::DoneButRefused(instead)) => {
                (status, body) = (
                    instead,
                    Some(serde_json::json!({"message": "told to fail"})),
                )
            }
            Some(Fault::UnknownState) => body.iter_mut().for_each(unknown_states),
            _ => {}
        }
        let text = body.map_or(String::new(), |body| body.to_string());
        let answer = head(status, "application/json", &text).into_bytes();
        if fault == Some(Fault::CutAnswer) {
            let keep = answer.len() - text.len().max(8) / 2;
            to.write_all(&answer[..keep]).ok()?;
            return None;
        }
        to.write_all(&answer).ok()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let known = |pid: &mut Option<u32>| pid.is_none();
        let pid = self
            .client
            .1
            .wait_while(lock(&self.client.0), known)
            .unwrap();
        let pid = pid
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
            .unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

fn head(status: u16, kind: &str, body: &str) -> String {
    // These two have no body, nor a length.
    if matches!(status, 204 | 304) {
        return format!("HTTP/1.1 {status} -\r\n\r\n");
    }
    format!(
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Every state of a container becomes a word that is in no enumeration.
fn unknown_states(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(word) if matches!(key.as_str(), "State" | "Status") => {
                        *word = "hibernating".into()
                    }
                    other => unknown_states(other),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(unknown_states),
        _ => {}
    }
}
