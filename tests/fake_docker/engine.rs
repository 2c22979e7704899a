//! What stands behind the ports of a started container: just enough of a name server, broker and console that `rmqctl` finds
//! them ready. A port answers while its container runs, as it would in a real daemon.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use rocketmq_protocol::body::{
    ConsumerOffsetSerializeWrapper, MessageQueue, ProducerTableInfo, QueueData, TopicConfig,
    TopicConfigAndMappingSerializeWrapper, TopicOffset, TopicRouteData, TopicStatsTable,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::topic::perm;
use rocketmq_protocol::{Command, Frame, json};
use serde_json::{Value, json};

use super::lock;
use super::world::{Container, World};

#[derive(Default)]
pub struct Engines {
    listening: Mutex<BTreeMap<u16, Listening>>,
    /// Commands by exec id.
    execs: Mutex<BTreeMap<String, Vec<String>>>,
    known: Arc<Mutex<Known>>,
}

/// What all name servers know.
#[derive(Default)]
struct Known {
    /// `ClusterInfo` of the brokers that run.
    brokers: Value,
    /// Masters whose topics clients are told not to send to.
    closed: BTreeSet<String>,
}

impl Known {
    fn is_master(&self, broker: &str) -> bool {
        self.brokers["brokerAddrTable"][broker]["brokerAddrs"]
            .get("0")
            .is_some()
    }
}

/// Who answers on a port.
#[derive(Clone)]
struct Who {
    role: String,
    /// Its broker's name.
    broker: String,
}

/// Ends when dropped.
struct Listening {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Listening {
    fn at(port: u16, listener: TcpListener, who: Who, known: Arc<Mutex<Known>>) -> Listening {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let accepts = move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (who, known) = (who.clone(), known.clone());
                std::thread::spawn(move || serve(stream, &who, &known));
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
        {
            let mut known = lock(&self.known);
            known.brokers = brokers(&running);
            // One that comes back registers its topics as it has them: open.
            let masters = std::mem::take(&mut known.closed);
            known.closed = masters
                .into_iter()
                .filter(|broker| known.is_master(broker))
                .collect();
        }
        let mut wanted: BTreeMap<u16, Who> = BTreeMap::new();
        for container in running {
            if let Some(role) = container.label("io.rmqctl.role") {
                let who = Who {
                    role: role.to_owned(),
                    broker: container
                        .label("io.rmqctl.broker")
                        .unwrap_or_default()
                        .to_owned(),
                };
                let ports = container.published().into_iter();
                wanted.extend(ports.map(|(_, port)| (port, who.clone())));
            }
        }
        let mut listening = lock(&self.listening);
        listening.retain(|port, _| wanted.contains_key(port));
        for (port, who) in wanted {
            let Entry::Vacant(free) = listening.entry(port) else {
                continue;
            };
            // Taken by another: then it does not answer, and the test says so.
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                free.insert(Listening::at(port, listener, who, self.known.clone()));
            }
        }
    }

    /// Masters whose topics clients are told not to send to.
    pub fn closed(&self) -> BTreeSet<String> {
        lock(&self.known).closed.clone()
    }

    pub fn set_closed(&self, closed: BTreeSet<String>) {
        lock(&self.known).closed = closed;
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

fn serve(mut stream: TcpStream, who: &Who, known: &Mutex<Known>) {
    if who.role == "console" {
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
            let answer = match who.role.as_str() {
                "namesrv" => of_namesrv(&request, known),
                _ => of_broker(&request, &who.broker),
            };
            if stream.write_all(&answer.to_bytes()).is_err() {
                return;
            }
        }
    }
}

fn of_namesrv(asked: &Command, known: &Mutex<Known>) -> Command {
    let mut known = lock(known);
    let broker = asked.ext.get("brokerName").unwrap_or_default();
    match asked.code {
        request::GET_BROKER_CLUSTER_INFO => asked
            .response(response::SUCCESS)
            .with_body(known.brokers.to_string()),
        // Each master has a topic of its own name; others are not asked for.
        request::GET_ROUTEINFO_BY_TOPIC => {
            let topic = asked.ext.get("topic").unwrap_or_default();
            if !known.is_master(topic) {
                return asked.error(response::TOPIC_NOT_EXIST, "no route");
            }
            let open = perm::READ | perm::WRITE;
            let perm = match known.closed.contains(topic) {
                true => perm::READ,
                false => open,
            };
            let queue = QueueData {
                broker_name: topic.into(),
                perm,
                read_queue_nums: 1,
                topic_sys_flag: 0,
                write_queue_nums: 1,
            };
            body(
                asked,
                &TopicRouteData {
                    queue_datas: vec![queue],
                    ..TopicRouteData::default()
                },
            )
        }
        request::WIPE_WRITE_PERM_OF_BROKER if known.is_master(broker) => {
            known.closed.insert(broker.to_owned());
            asked.response(response::SUCCESS)
        }
        request::WIPE_WRITE_PERM_OF_BROKER => asked.response(response::SUCCESS),
        request::ADD_WRITE_PERM_OF_BROKER => {
            known.closed.remove(broker);
            asked.response(response::SUCCESS)
        }
        _ => unsupported(asked),
    }
}

/// A broker that holds nothing, so that it can be emptied at once.
fn of_broker(asked: &Command, broker: &str) -> Command {
    match asked.code {
        request::GET_BROKER_RUNTIME_INFO => asked.response(response::SUCCESS).with_body(
            json!({"table": {"commitLogMaxOffset": "0", "brokerVersionDesc": "fake"}}).to_string(),
        ),
        request::GET_BROKER_HA_STATUS => asked.response(response::SUCCESS).with_body(
            json!({"haConnectionInfo": [], "haClientRuntimeInfo": {"activated": true}}).to_string(),
        ),
        request::GET_ALL_TOPIC_CONFIG => {
            let topics = [broker, "orders"].map(|name| {
                let topic = TopicConfig {
                    topic_name: name.into(),
                    ..TopicConfig::default()
                };
                (name.into(), Arc::new(topic))
            });
            body(
                asked,
                &TopicConfigAndMappingSerializeWrapper {
                    topic_config_table: topics.into(),
                    ..TopicConfigAndMappingSerializeWrapper::default()
                },
            )
        }
        request::GET_TOPIC_STATS_INFO => {
            let topic = asked.ext.get("topic").unwrap_or_default();
            let queue = MessageQueue::new(topic, broker, 0);
            body(
                asked,
                &TopicStatsTable {
                    offset_table: [(queue, TopicOffset::default())].into(),
                    ..TopicStatsTable::default()
                },
            )
        }
        request::GET_ALL_CONSUMER_OFFSET => body(asked, &ConsumerOffsetSerializeWrapper::default()),
        request::GET_ALL_PRODUCER_INFO => body(asked, &ProducerTableInfo::default()),
        _ => unsupported(asked),
    }
}

fn body(asked: &Command, body: &impl serde::Serialize) -> Command {
    asked
        .response(response::SUCCESS)
        .with_body(json::to_fastjson(body))
}

fn unsupported(asked: &Command) -> Command {
    let remark = format!("request type {} not supported", asked.code);
    asked.error(response::REQUEST_CODE_NOT_SUPPORTED, remark)
}
