//! An in-process broker on ports the system chose, and a client that speaks raw frames to it.
// Each test binary uses its part.
#![allow(dead_code)]

use broker_engine::broker::{RunningBroker, start};
use broker_engine::config::BrokerConfig;
use bytes::{Bytes, BytesMut};
use rocketmq_protocol::batch::{self, BatchEntry};
use rocketmq_protocol::code::request;
use rocketmq_protocol::record::{self, Parsed};
use rocketmq_protocol::{Command, ExtFields, Frame, message_id, properties};
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Small files, system ports, no name server, every delay level due at once unless a test says otherwise.
pub fn config(root: &Path) -> BrokerConfig {
    BrokerConfig {
        bind_address: "127.0.0.1".into(),
        listen_port: 0,
        ha_listen_port: 0,
        store_path_root_dir: root.display().to_string(),
        mapped_file_size_commit_log: 16 << 20,
        mapped_file_size_consume_queue: 20 * 1000,
        max_hash_slot_num: 1000,
        max_index_num: 4000,
        message_delay_level: "0s 0s 0s 0s 0s 1h".into(),
        ..BrokerConfig::default()
    }
}

pub async fn broker(config: BrokerConfig) -> RunningBroker {
    start(config).await.expect("the broker starts")
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    opaque: i32,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.expect("the port is open");
        stream.set_nodelay(true).unwrap();
        Client {
            stream,
            buffer: BytesMut::new(),
            opaque: 0,
        }
    }

    /// Writes requests in one go; returns their opaques.
    pub async fn write(&mut self, requests: Vec<Command>) -> Vec<i32> {
        let mut out = BytesMut::new();
        let mut opaques = Vec::new();
        for mut request in requests {
            self.opaque += 1;
            request.opaque = self.opaque;
            opaques.push(self.opaque);
            request.encode(&mut out);
        }
        self.stream.write_all(&out).await.expect("the broker reads");
        opaques
    }

    /// Writes a request that the broker is to keep waiting, and returns its opaque once it does: the requests of one
    /// connection are taken in their order, so the answer to a later one tells that this one stands.
    pub async fn write_to_wait(&mut self, request: Command) -> i32 {
        let opaque = self.write(vec![request]).await[0];
        let asked = ExtFields::new().with("topic", "T").with("queueId", 0);
        self.call(Command::request(request::GET_MAX_OFFSET, asked))
            .await;
        opaque
    }

    /// The next frame.
    pub async fn read(&mut self) -> Command {
        loop {
            if let Some(frame) = Frame::cut(&mut self.buffer).expect("whole frames come") {
                return frame.decode().expect("the header parses");
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            assert_ne!(
                read.expect("the broker writes"),
                0,
                "the broker closed the connection"
            );
        }
    }

    /// Answers what the broker asked.
    pub async fn answer(&mut self, answer: Command) {
        self.stream
            .write_all(&answer.to_bytes())
            .await
            .expect("the broker reads");
    }

    pub async fn call(&mut self, request: Command) -> Command {
        let opaque = self.write(vec![request]).await[0];
        let answer = self.read().await;
        assert_eq!(answer.opaque, opaque, "{}", show(&answer));
        assert!(answer.is_response());
        answer
    }
}

/// SEND_MESSAGE_V2 to queue 0 of a topic; `properties` as `A=1 B=2`.
pub fn send(topic: &str, properties: &str, body: &str) -> Command {
    let ext = ExtFields::new()
        .with("a", "PG")
        .with("b", topic)
        .with("c", "TBW102")
        .with("d", 4)
        .with("e", 0)
        .with("f", 0)
        .with("g", 1_700_000_000_000i64)
        .with("h", 7)
        .with("i", text(properties))
        .with("j", 0)
        .with("k", false)
        .with("m", false);
    Command::request(request::SEND_MESSAGE_V2, ext).with_body(body.as_bytes().to_vec())
}

/// SEND_BATCH_MESSAGE of bodies.
pub fn send_batch(topic: &str, bodies: &[&str]) -> Command {
    let mut body = Vec::new();
    for (at, text_of_body) in bodies.iter().enumerate() {
        let properties = text(&format!("UNIQ_KEY=U{at} TAGS=T{at}"));
        let entry = BatchEntry {
            flag: at as i32,
            body: text_of_body.as_bytes(),
            properties: &properties,
        };
        batch::push(&entry, &mut body).unwrap();
    }
    let mut command = send(topic, "UNIQ_KEY=U0,U1", "").with("m", true);
    command.code = request::SEND_BATCH_MESSAGE;
    command.with_body(body)
}

/// PULL_MESSAGE with its own subscription; waits `suspend` ms when not 0.
pub fn pull(topic: &str, queue_id: i32, offset: i64, tags: &str, suspend: i64) -> Command {
    let ext = ExtFields::new()
        .with("consumerGroup", "CG")
        .with("topic", topic)
        .with("queueId", queue_id)
        .with("queueOffset", offset)
        .with("maxMsgNums", 32)
        .with("sysFlag", if suspend == 0 { 4 } else { 6 })
        .with("commitOffset", 0)
        .with("suspendTimeoutMillis", suspend)
        .with("subscription", tags)
        .with("subVersion", 0)
        .with("expressionType", "TAG");
    Command::request(request::PULL_MESSAGE, ext)
}

/// `A=1 B=2` as a property string.
pub fn text(pairs: &str) -> String {
    let mut text = String::new();
    for pair in pairs.split(' ').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').expect("name=value");
        properties::push(&mut text, name, value);
    }
    text
}

/// An answer as text: code, remark, header fields by name (message ids as physical offsets), then the records of its body.
pub fn show(answer: &Command) -> String {
    let mut fields: Vec<String> = answer
        .ext
        .iter()
        .map(|(name, value)| match name {
            "msgId" => {
                // A reply that is not stored has the id 0.
                let ids = value.split(',').map(|id| match message_id::parse(id) {
                    Some((_, at)) => format!("@{at}"),
                    None => id.to_string(),
                });
                format!("msgId={}", ids.collect::<Vec<_>>().join(","))
            }
            _ => format!("{name}={value}"),
        })
        .collect();
    fields.sort();
    let remark = answer
        .remark
        .as_deref()
        .map_or(String::new(), |remark| format!(" {remark:?}"));
    let mut shown = format!("{}{remark} {}", answer.code, fields.join(" "));
    for record in records(&answer.body) {
        shown.push('\n');
        shown.push_str(&record);
    }
    shown.trim_end().to_string()
}

/// The records of a body, each as a line.
pub fn records(body: &Bytes) -> Vec<String> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < body.len() {
        match record::parse(&body[at..], true).expect("a whole record") {
            Parsed::Record(record, len) => {
                at += len;
                let pairs: Vec<String> = properties::pairs(record.properties)
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                lines.push(format!(
                    "{}[{}]@{} flag={} sys={} retried={} {:?} {}",
                    record.topic,
                    record.queue_id,
                    record.queue_offset,
                    record.flag,
                    record.sys_flag,
                    record.reconsume_times,
                    String::from_utf8_lossy(record.body),
                    pairs.join(" ")
                ));
            }
            Parsed::Blank => panic!("a body holds no filler"),
        }
    }
    lines
}

pub fn check(answer: &Command, want: &str) {
    let want: Vec<&str> = want.trim().lines().map(str::trim).collect();
    assert_eq!(show(answer), want.join("\n"));
}
