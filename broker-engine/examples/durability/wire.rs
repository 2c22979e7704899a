//! The requests of these tests, and a connection on which many of them are under way at a time.

use crate::Outcome;
use crate::message::{GROUP, Message, QUEUES_PER_TOPIC, Queue};
use broker_engine::net::Client;
use bytes::{Bytes, BytesMut};
use rocketmq_protocol::batch::{self, BatchEntry};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, Frame, message_id};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// For one answer of a broker that is well.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// SEND_MESSAGE_V2 of one message, SEND_BATCH_MESSAGE of several.
pub fn send(queue: Queue, messages: &[Message]) -> Outcome<Command> {
    let several = messages.len() > 1;
    let ext = ExtFields::new()
        .with("a", "durability")
        .with("b", queue.topic())
        .with("c", "TBW102")
        .with("d", QUEUES_PER_TOPIC)
        .with("e", queue.id())
        .with("f", 0)
        .with("g", 1_700_000_000_000_i64)
        .with("h", 0)
        .with("j", 0)
        .with("k", false)
        .with("m", several);
    if !several {
        let one = &messages[0];
        let ext = ext.with("i", one.properties());
        return Ok(Command::request(request::SEND_MESSAGE_V2, ext).with_body(one.body()));
    }
    let mut body = Vec::new();
    for one in messages {
        let properties = one.properties();
        batch::push(
            &BatchEntry {
                flag: 0,
                body: &one.body(),
                properties: &properties,
            },
            &mut body,
        )?;
    }
    let ext = ext.with("i", "");
    Ok(Command::request(request::SEND_BATCH_MESSAGE, ext).with_body(body))
}

/// Where a send's messages stand: the first one's queue offset, and the physical offset of each.
pub fn placed(answer: &Command) -> Outcome<(i64, Vec<i64>)> {
    let ids = answer.ext.str("msgId")?;
    let mut at = Vec::new();
    for id in ids.split(',') {
        at.push(message_id::parse(id).ok_or("an id that is none")?.1);
    }
    Ok((answer.ext.i64("queueOffset")?, at))
}

/// PULL_MESSAGE that does not wait and filters nothing.
pub fn pull(queue: Queue, offset: i64) -> Command {
    let ext = ExtFields::new()
        .with("consumerGroup", GROUP)
        .with("topic", queue.topic())
        .with("queueId", queue.id())
        .with("queueOffset", offset)
        .with("maxMsgNums", 1024)
        .with("sysFlag", 4)
        .with("commitOffset", 0)
        .with("suspendTimeoutMillis", 0)
        .with("subscription", "*")
        .with("subVersion", 0)
        .with("expressionType", "TAG");
    Command::request(request::PULL_MESSAGE, ext)
}

/// UPDATE_CONSUMER_OFFSET.
pub fn commit(queue: Queue, offset: i64) -> Command {
    Command::request(
        request::UPDATE_CONSUMER_OFFSET,
        of_group(queue).with("commitOffset", offset),
    )
}

fn of_group(queue: Queue) -> ExtFields {
    of_queue(queue).with("consumerGroup", GROUP)
}

fn of_queue(queue: Queue) -> ExtFields {
    ExtFields::new()
        .with("topic", queue.topic())
        .with("queueId", queue.id())
}

/// One broker, asked one question at a time.
#[derive(Clone)]
pub struct Broker {
    pub client: Client,
    pub address: String,
}

impl Broker {
    pub fn at(address: String) -> Broker {
        Broker {
            client: Client::new(),
            address,
        }
    }

    pub async fn call(&self, command: Command) -> Outcome<Command> {
        Ok(self.client.call(&self.address, command, TIMEOUT).await?)
    }

    async fn sure(&self, command: Command) -> Outcome<Command> {
        let code = command.code;
        let answer = self.call(command).await?;
        if answer.code == response::SUCCESS {
            return Ok(answer);
        }
        let remark = answer.remark.unwrap_or_default();
        Err(format!("request {code} was answered {}: {remark}", answer.code).into())
    }

    /// First offset and one past the last.
    pub async fn bounds(&self, queue: Queue) -> Outcome<(i64, i64)> {
        let min = Command::request(request::GET_MIN_OFFSET, of_queue(queue));
        let max = Command::request(request::GET_MAX_OFFSET, of_queue(queue));
        Ok((
            self.sure(min).await?.ext.i64("offset")?,
            self.sure(max).await?.ext.i64("offset")?,
        ))
    }

    /// What the group has committed; `None` when nothing.
    pub async fn committed(&self, queue: Queue) -> Outcome<Option<i64>> {
        let ext = of_group(queue).with("setZeroIfNotFound", false);
        let answer = self
            .call(Command::request(request::QUERY_CONSUMER_OFFSET, ext))
            .await?;
        match answer.code {
            response::SUCCESS => Ok(Some(answer.ext.i64("offset")?)),
            response::QUERY_NOT_FOUND => Ok(None),
            code => Err(format!("the committed offset was answered {code}").into()),
        }
    }

    /// One past the log's last byte.
    pub async fn log_end(&self) -> Outcome<i64> {
        let question = Command::request(request::GET_BROKER_RUNTIME_INFO, ExtFields::new());
        let answer = self.sure(question).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let (_, rest) = text
            .split_once("\"commitLogMaxOffset\":\"")
            .ok_or("no commitLogMaxOffset")?;
        Ok(rest.split('"').next().unwrap_or_default().parse()?)
    }

    /// The records of one pull; none when the queue has no more.
    pub async fn records(&self, queue: Queue, from: i64) -> Outcome<Bytes> {
        let answer = self.call(pull(queue, from)).await?;
        match answer.code {
            response::SUCCESS => Ok(answer.body),
            response::PULL_NOT_FOUND => Ok(Bytes::new()),
            code => {
                let remark = answer.remark.unwrap_or_default();
                Err(format!("{queue} at {from}: a pull was answered {code}: {remark}").into())
            }
        }
    }
}

/// The sending half of a connection.
pub struct Sending {
    half: OwnedWriteHalf,
    opaque: i32,
}

/// The half that answers come on.
pub struct Answers {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

/// A connection whose answers are read apart from its requests.
pub async fn connect(address: &str) -> std::io::Result<(Sending, Answers)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((
        Sending {
            half: write,
            opaque: 0,
        },
        Answers {
            half: read,
            buffer: BytesMut::new(),
        },
    ))
}

impl Sending {
    /// Writes requests in one go and returns the first one's number; the others' follow on it.
    pub async fn write(&mut self, requests: Vec<Command>) -> std::io::Result<i32> {
        let first = self.opaque;
        let mut out = BytesMut::new();
        for mut request in requests {
            request.opaque = self.opaque;
            self.opaque += 1;
            request.encode(&mut out);
        }
        self.half.write_all(&out).await?;
        Ok(first)
    }
}

impl Answers {
    /// The next answer; `None` when the connection has ended.
    pub async fn next(&mut self) -> Outcome<Option<Command>> {
        loop {
            if let Some(frame) = Frame::cut(&mut self.buffer)? {
                return Ok(Some(frame.decode()?));
            }
            match self.half.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }
}
