//! When a broker asks a producer what became of its transactions, and how soon a commit is seen.

use crate::broker::{Broker, GROUP, Outcome, QUEUES, now_ms, property, spread};
use bytes::BytesMut;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::record::{self, View};
use rocketmq_protocol::{Command, ExtFields, Frame, sysflag};
use std::collections::HashSet;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Half messages sent together, so that the socket's buffers hold them and their answers.
const TOGETHER: usize = 64;

/// A producer's connection, over which the broker asks as well.
struct Line {
    stream: TcpStream,
    buffer: BytesMut,
    opaque: i32,
}

impl Line {
    async fn write(&mut self, mut command: Command) -> Outcome<()> {
        self.opaque += 1;
        command.opaque = self.opaque;
        Ok(self.stream.write_all(&command.to_bytes()).await?)
    }

    async fn read(&mut self) -> Outcome<Command> {
        loop {
            if let Some(frame) = Frame::cut(&mut self.buffer)? {
                return Ok(frame.decode()?);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the broker closed the connection".into());
            }
        }
    }
}

/// Leaves `count` half messages undecided, commits each when the broker asks, and reads all of them.
pub async fn checks(broker: &Broker, count: usize) -> Outcome<()> {
    let mut line = Line {
        stream: TcpStream::connect(&broker.address).await?,
        buffer: BytesMut::new(),
        opaque: 0,
    };
    let who = format!(
        r#"{{"clientID":"{GROUP}@{}","producerDataSet":[{{"groupName":"{GROUP}"}}],"consumerDataSet":[]}}"#,
        std::process::id()
    );
    let heartbeat = Command::request(request::HEART_BEAT, ExtFields::new()).with_body(who);
    line.write(heartbeat).await?;
    let (mut sent, mut answered, mut late) = (0, 0, Vec::with_capacity(count));
    let mut asked = HashSet::with_capacity(count);
    let mut began = Instant::now();
    while asked.len() < count {
        // The first answer is the heartbeat's.
        while sent < count && sent < answered + TOGETHER {
            let text = property("UNIQ_KEY", format!("K{sent}"))
                + &property("TRAN_MSG", true)
                + &property("PGROUP", GROUP);
            let mut half = broker.send(sent, &text);
            half.ext = half.ext.with("f", sysflag::TRANSACTION_PREPARED);
            line.write(half).await?;
            sent += 1;
        }
        let frame = line.read().await?;
        if frame.is_response() {
            if frame.code != response::SUCCESS {
                let why = frame.remark.unwrap_or_default();
                return Err(format!("answered {}: {why}", frame.code).into());
            }
            answered += 1;
            if answered == count + 1 {
                println!(
                    "{count} half messages taken in {:.1} s",
                    began.elapsed().as_secs_f64()
                );
                began = Instant::now();
            }
            continue;
        }
        if frame.code != request::CHECK_TRANSACTION_STATE {
            continue;
        }
        let half = View::record(&frame.body)?.decode()?;
        let at = frame.ext.str("tranStateTableOffset")?.to_owned();
        if asked.insert(at.clone()) {
            late.push(now_ms() - half.born_timestamp);
        }
        let key = frame.ext.str("msgId")?;
        let decision = ExtFields::new()
            .with("producerGroup", GROUP)
            .with("tranStateTableOffset", at)
            .with("commitLogOffset", frame.ext.str("commitLogOffset")?)
            .with("commitOrRollback", sysflag::TRANSACTION_COMMIT)
            .with("fromTransactionCheck", true)
            .with("msgId", key)
            .with("transactionId", key);
        line.write(Command::request(request::END_TRANSACTION, decision).oneway())
            .await?;
    }
    println!(
        "{count} asked about, after they were sent: {}",
        spread(late)
    );
    let mut offsets = [0i64; QUEUES as usize];
    while offsets.iter().sum::<i64>() < count as i64 {
        for queue in 0..QUEUES {
            let answer = broker.pull(queue, offsets[queue as usize]).await?;
            if answer.code == response::SUCCESS {
                offsets[queue as usize] += record::records(&answer.body).count() as i64;
            }
        }
    }
    println!(
        "all {count} committed and read {:.1} s after the last was sent",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}
