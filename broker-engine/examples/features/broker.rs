//! A broker as a client sees it: raw requests, many at a time.

use broker_engine::net::Client;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, properties};
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinSet;

/// Requests that wait for their answers at a time.
const IN_FLIGHT: usize = 128;
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Queues of the topics that sends make.
pub const QUEUES: i32 = 4;
/// The consumer group.
pub const GROUP: &str = "features";

/// What a command comes to.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Now, ms since the epoch.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// One topic of a broker.
#[derive(Clone)]
pub struct Broker {
    pub client: Client,
    pub address: String,
    pub topic: String,
}

impl Broker {
    pub async fn call(&self, command: Command) -> Outcome<Command> {
        Ok(self.client.call(&self.address, command, TIMEOUT).await?)
    }

    pub fn send(&self, number: usize, properties: &str) -> Command {
        let ext = ExtFields::new()
            .with("a", "features")
            .with("b", &self.topic)
            .with("c", "TBW102")
            .with("d", QUEUES)
            .with("e", number as i32 % QUEUES)
            .with("f", 0)
            .with("g", now_ms())
            .with("h", 0)
            .with("i", properties)
            .with("j", 0)
            .with("k", false)
            .with("m", false);
        Command::request(request::SEND_MESSAGE_V2, ext).with_body(vec![b'x'; 128])
    }

    /// Sends all, [`IN_FLIGHT`] at a time.
    pub async fn send_all(&self, count: usize, of: impl Fn(usize) -> String) -> Outcome<()> {
        let mut flying = JoinSet::new();
        for number in 0..count {
            if flying.len() >= IN_FLIGHT {
                accepted(flying.join_next().await)?;
            }
            let (broker, command) = (self.clone(), self.send(number, &of(number)));
            flying.spawn(async move { broker.call(command).await });
        }
        while !flying.is_empty() {
            accepted(flying.join_next().await)?;
        }
        Ok(())
    }

    pub fn of_group(&self) -> ExtFields {
        ExtFields::new()
            .with("consumerGroup", GROUP)
            .with("topic", &self.topic)
    }

    pub async fn pull(&self, queue: i32, offset: i64) -> Outcome<Command> {
        let ext = self
            .of_group()
            .with("queueId", queue)
            .with("queueOffset", offset)
            .with("maxMsgNums", 32)
            .with("sysFlag", 6)
            .with("commitOffset", 0)
            .with("suspendTimeoutMillis", 1000)
            .with("subscription", "*")
            .with("subVersion", 0)
            .with("expressionType", "TAG");
        self.call(Command::request(request::PULL_MESSAGE, ext))
            .await
    }

    pub async fn pop(&self, invisible_ms: i64, poll_ms: i64) -> Outcome<Command> {
        let ext = self
            .of_group()
            .with("queueId", -1)
            .with("maxMsgNums", 32)
            .with("invisibleTime", invisible_ms)
            .with("pollTime", poll_ms)
            .with("bornTime", now_ms())
            .with("initMode", 0)
            .with("expType", "TAG")
            .with("exp", "*");
        self.call(Command::request(request::POP_MESSAGE, ext)).await
    }
}

/// An answer of [`JoinSet::join_next`], if it says yes.
pub fn accepted(answer: Option<Result<Outcome<Command>, tokio::task::JoinError>>) -> Outcome<()> {
    let Some(answer) = answer else { return Ok(()) };
    let answer = answer??;
    match answer.code {
        response::SUCCESS => Ok(()),
        code => Err(format!("answered {code}: {}", answer.remark.unwrap_or_default()).into()),
    }
}

/// One property, encoded.
pub fn property(name: &str, value: impl ToString) -> String {
    let mut text = String::new();
    properties::push(&mut text, name, &value.to_string());
    text
}

/// Least, half, 99 % and most.
pub fn spread(mut values: Vec<i64>) -> String {
    values.sort_unstable();
    let at = |share: f64| values[((values.len() - 1) as f64 * share) as usize];
    format!(
        "min {} p50 {} p99 {} max {} ms",
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
