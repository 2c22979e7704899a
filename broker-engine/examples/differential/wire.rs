//! One connection to a server, and what it has answered that later requests name.

use bytes::BytesMut;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, Frame, message_id};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may be busy with itself, as a cold JVM is.
const BUSY: Duration = Duration::from_secs(10);
/// How long a message may take from its acknowledgement to its queue.
const DISPATCH: Duration = Duration::from_secs(5);

/// A send that a server took.
#[derive(Clone, Debug)]
pub struct Sent {
    pub msg_id: String,
    pub queue_offset: i64,
    pub log_offset: i64,
}

/// A server under comparison.
pub struct Server {
    pub name: &'static str,
    stream: TcpStream,
    buffer: BytesMut,
    opaque: i32,
    /// One entry for every send that was tried, `None` where it was refused: both servers' lists have the same places.
    pub sent: Vec<Option<Sent>>,
}

impl Server {
    pub fn connect(name: &'static str, address: &str) -> Result<Server> {
        let stream = TcpStream::connect(address)
            .map_err(|e| Error::new(e.kind(), format!("connecting to {name} at {address}: {e}")))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Server {
            name,
            stream,
            buffer: BytesMut::new(),
            opaque: 0,
            sent: vec![],
        })
    }

    /// A request's answer. A server that says it is busy is asked again.
    pub fn call(&mut self, request: &Command) -> Result<Command> {
        let began = Instant::now();
        loop {
            let answer = self.call_once(request)?;
            if answer.code != response::SYSTEM_BUSY || began.elapsed() > BUSY {
                return Ok(answer);
            }
        }
    }

    fn call_once(&mut self, request: &Command) -> Result<Command> {
        self.opaque += 1;
        let mut request = request.clone();
        request.opaque = self.opaque;
        let code = request.code;
        let named = |e: Error, name| Error::new(e.kind(), format!("{name}, request {code}: {e}"));
        self.stream
            .write_all(&request.to_bytes())
            .map_err(|e| named(e, self.name))?;
        loop {
            let frame = Frame::cut(&mut self.buffer).map_err(Error::other)?;
            if let Some(frame) = frame {
                let command = frame.decode().map_err(Error::other)?;
                // What a server asks a client of its own accord is not compared.
                if command.is_response() && command.opaque == self.opaque {
                    return Ok(command);
                }
                continue;
            }
            let mut part = [0; 64 << 10];
            match self.stream.read(&mut part) {
                Ok(0) => {
                    let closed = Error::new(ErrorKind::UnexpectedEof, "it closed the connection");
                    return Err(named(closed, self.name));
                }
                Ok(count) => self.buffer.extend_from_slice(&part[..count]),
                Err(error) => return Err(named(error, self.name)),
            }
        }
    }

    /// Notes what became of a send.
    pub fn note(&mut self, answer: &Command) {
        let sent = (|| {
            let msg_id = answer.ext.get("msgId")?;
            let first = msg_id.split(',').next()?;
            Some(Sent {
                msg_id: first.into(),
                queue_offset: answer.ext.i64("queueOffset").ok()?,
                log_offset: message_id::parse(first)?.1,
            })
        })();
        self.sent
            .push(sent.filter(|_| answer.code == response::SUCCESS));
    }

    /// Waits until a message that was acknowledged can be pulled: the Java broker fills its queues behind the acknowledgement.
    pub fn dispatched(&mut self, topic: &str, queue_id: i32, offset: i64) -> Result<()> {
        let ext = ExtFields::new()
            .with("topic", topic)
            .with("queueId", queue_id);
        let question = Command::request(request::GET_MAX_OFFSET, ext);
        let began = Instant::now();
        while self.call(&question)?.ext.i64("offset").unwrap_or(0) <= offset {
            if began.elapsed() > DISPATCH {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!(
                        "{}: {topic}[{queue_id}]@{offset} was acknowledged and is not in its queue after {DISPATCH:?}",
                        self.name
                    ),
                ));
            }
        }
        Ok(())
    }
}
