//! What stands behind the ports of a started container: just enough of a name server, broker and console that `rmqctl` finds
//! them ready. A port answers while its container runs, as it would in a real daemon.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use rocketmq_protocol::{Command, Frame};
use serde_json::{Value, json};

use super::lock;
use super::world::{Container, World};

#[derive(Default)]
pub struct Engines {
    listening: Mutex<BTreeMap<u16, Listening>>,
    /// Commands by exec id.
    execs: Mutex<BTreeMap<String, Vec<String>>>,
    brokers: Arc<Mutex<Value>>,
}

/// Ends when dropped.
struct Listening {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listening {
    fn at(port: u16, listener: TcpListener, role: String, brokers: Arc<Mutex<Value>>) -> Listening {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let accepts = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (role, brokers) = (role.clone(), brokers.clone());
                std::thread::spawn(move || serve(stream, &role, &brokers));
            }
        };
        Listening {
            port,
            stop,
            thread: Some(std::thread::spawn(accepts)),
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _no_child_holds_it = super::spawning();
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it, so that the port is free when this returns.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Engines {
    /// Opens and closes ports as containers of `rmqctl` run or not.
    pub fn follow(&self, world: &World) {
        let running: Vec<&Container> = world
            .containers
            .iter()
            .filter(|c| c.status == "running")
            .collect();
        *lock(&self.brokers) = brokers(&running);
        let mut wanted: BTreeMap<u16, String> = BTreeMap::new();
        for container in running {
            if let Some(role) = container.label("io.rmqctl.role") {
                wanted.extend(
                    container
                        .published()
                        .into_iter()
                        .map(|(_, port)| (port, role.to_owned())),
                );
            }
        }
        let mut listening = lock(&self.listening);
        listening.retain(|port, _| wanted.contains_key(port));
        for (port, role) in wanted {
            let Entry::Vacant(free) = listening.entry(port) else {
                continue;
            };
            // Taken by another: then it does not answer, and the test says so.
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                free.insert(Listening::at(port, listener, role, self.brokers.clone()));
            }
        }
    }

    /// Keeps a command that is to be run in a container.
    pub fn keep_exec(&self, container: &str, command: &Value) -> String {
        let words = command.as_array().into_iter().flatten();
        let words = words.filter_map(|w| Some(w.as_str()?.to_owned())).collect();
        let id = format!("exec-in-{container}");
        lock(&self.execs).insert(id.clone(), words);
        id
    }

    /// What the engine's own dialler would print: a broker's name in the network is reached while its container runs.
    pub fn run_exec(&self, id: &str) -> String {
        let words = lock(&self.execs).remove(id).unwrap_or_default();
        let addresses = words
            .iter()
            .skip_while(|w| *w != "--dial")
            .filter(|w| *w != "--dial");
        let alive = lock(&self.listening);
        addresses
            .map(|address| {
                let port = address
                    .rsplit(':')
                    .next()
                    .and_then(|p| p.parse().ok())
                    .unwrap_or(0);
                match alive.contains_key(&port) {
                    true => format!("ok {address}\n"),
                    false => format!("fail {address} connection refused\n"),
                }
            })
            .collect()
    }
}

/// `ClusterInfo` of all brokers that run.
fn brokers(running: &[&Container]) -> Value {
    let mut table = json!({});
    for container in running {
        let (Some(name), Some(id)) = (
            container.label("io.rmqctl.broker"),
            container.label("io.rmqctl.broker-id"),
        ) else {
            continue;
        };
        // The main port is the one that the VIP port is two below.
        let main = container
            .published()
            .into_iter()
            .map(|(_, port)| port)
            .max()
            .unwrap_or(0);
        table[name]["brokerName"] = json!(name);
        table[name]["cluster"] = json!("DefaultCluster");
        table[name]["brokerAddrs"][id] = json!(format!("127.0.0.1:{main}"));
    }
    json!({"brokerAddrTable": table, "clusterAddrTable": {}})
}

fn serve(mut stream: TcpStream, role: &str, brokers: &Mutex<Value>) {
    if role == "console" {
        let mut head = [0; 512];
        if stream.read(&mut head).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
        return;
    }
    let mut buffer = BytesMut::new();
    let mut piece = [0; 4096];
    while let Ok(read) = stream.read(&mut piece) {
        if read == 0 {
            return;
        }
        buffer.extend_from_slice(&piece[..read]);
        while let Ok(Some(frame)) = Frame::cut(&mut buffer) {
            let Ok(request) = frame.decode() else { return };
            if stream
                .write_all(&answer(&request, brokers).to_bytes())
                .is_err()
            {
                return;
            }
        }
    }
}

fn answer(request: &Command, brokers: &Mutex<Value>) -> Command {
    let body = match request.code {
        106 => lock(brokers).clone(),
        28 => json!({"table": {"commitLogMaxOffset": "0", "brokerVersionDesc": "fake"}}),
        907 => json!({"haConnectionInfo": [], "haClientRuntimeInfo": {"activated": true}}),
        other => return request.error(3, format!("request type {other} not supported")),
    };
    request.response(0).with_body(body.to_string())
}
