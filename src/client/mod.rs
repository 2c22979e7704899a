//! Speaks to name servers and brokers as any RocketMQ client does, for commands that ask or change a running cluster.
//!
//! [`Peer`] is one connection; [`admin`] has the questions of an administrator, each with its types; [`message`] sends and reads
//! messages.

pub mod admin;
pub mod message;

mod roundtrip;

pub use roundtrip::roundtrip;

use bytes::BytesMut;
use rocketmq_protocol::{Command, ExtFields, Frame, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// `apache/rocketmq: remoting/.../protocol/ResponseCode.java`
const SUCCESS: i32 = 0;

/// `host:port`, with an IPv6 address in brackets.
pub fn join(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A connection to a name server or broker for a few questions.
pub struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
    opaque: i32,
}

impl Peer {
    /// Connects to `host:port`; the error says why not, in few words.
    pub async fn connect(address: &str) -> Result<Peer, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| words(&e))?;
        stream.set_nodelay(true).map_err(|e| words(&e))?;
        Ok(Peer {
            stream,
            buffer: BytesMut::new(),
            opaque: 0,
        })
    }

    /// Asks a question without header fields and reads the JSON body of a successful answer.
    pub async fn ask<T: serde::de::DeserializeOwned>(&mut self, code: i32) -> Result<T, String> {
        self.ask_all(code).await.map(|(body, _)| body)
    }

    /// The same, and the answer's header fields.
    pub async fn ask_all<T: serde::de::DeserializeOwned>(
        &mut self,
        code: i32,
    ) -> Result<(T, ExtFields), String> {
        let answer = self.done(Command::request(code, ExtFields::new())).await?;
        let body = json::from_slice(&answer.body)
            .map_err(|e| format!("the answer to request {code} does not parse: {e}"))?;
        Ok((body, answer.ext))
    }

    /// Sends a request and reads the answer to it, which must be a successful one.
    pub async fn done(&mut self, request: Command) -> Result<Command, String> {
        let code = request.code;
        let answer = self.call(request).await?;
        if answer.code != SUCCESS {
            let remark = answer.remark.unwrap_or_default();
            return Err(format!(
                "request {code} was answered with code {}: {remark}",
                answer.code
            ));
        }
        Ok(answer)
    }

    /// Sends a request and reads the answer to it, whatever its code; what else comes meanwhile is skipped.
    pub async fn call(&mut self, request: Command) -> Result<Command, String> {
        let opaque = self.post(request).await?;
        loop {
            let answer = self.next().await?;
            if answer.opaque == opaque {
                return Ok(answer);
            }
        }
    }

    /// Sends a request and waits for nothing; its answer will carry the number returned. So several may be in flight.
    pub async fn post(&mut self, mut request: Command) -> Result<i32, String> {
        self.opaque += 1;
        request.opaque = self.opaque;
        let mut out = BytesMut::new();
        request.encode(&mut out);
        self.stream.write_all(&out).await.map_err(|e| words(&e))?;
        Ok(self.opaque)
    }

    /// The next answer, to whichever request. It may be dropped while it waits: no byte is lost.
    pub async fn next(&mut self) -> Result<Command, String> {
        loop {
            while let Some(frame) = Frame::cut(&mut self.buffer).map_err(|e| e.to_string())? {
                let answer = frame.decode().map_err(|e| e.to_string())?;
                if answer.is_response() {
                    return Ok(answer);
                }
            }
            let read = self.stream.read_buf(&mut self.buffer).await;
            if read.map_err(|e| words(&e))? == 0 {
                // A published port of a container whose engine does not listen yet: Docker's proxy accepts, then closes.
                return Err("the connection was closed before an answer came".into());
            }
        }
    }
}

/// An error of the system in few words: `connection refused`.
pub fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset => "connection reset".into(),
        ErrorKind::TimedOut => "timed out".into(),
        _ => error.to_string(),
    }
}
