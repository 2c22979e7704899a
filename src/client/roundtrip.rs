//! A message through a broker and back: what nothing else proves of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::record::{self, Parsed};
use rocketmq_protocol::topic::{AUTO_CREATE_TOPIC_KEY, group};
use rocketmq_protocol::{Command, ExtFields};

use super::Peer;

/// `PullSysFlag`: the request carries its subscription.
const SUBSCRIPTION: i32 = 4;

/// Sends a message to the topic that the broker has under its own name, and pulls it again; how long that took. It must come back
/// within `each`.
pub async fn roundtrip(address: &str, broker: &str, each: Duration) -> Result<Duration, String> {
    let began = SystemTime::now();
    tokio::time::timeout(each, through(address, broker, began))
        .await
        .unwrap_or_else(|_| Err(format!("no message came back within {each:?}")))
        .map_err(|why| format!("{address}: {why}"))?;
    Ok(began.elapsed().unwrap_or_default())
}

async fn through(address: &str, broker: &str, born: SystemTime) -> Result<(), String> {
    let mut peer = Peer::connect(address).await?;
    let born_ns = born
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let body = format!("rmqctl roundtrip {born_ns}");
    let sent = peer.call(send(broker, &body, born_ns / 1_000_000)).await?;
    if sent.code != response::SUCCESS {
        return Err(refused("a send", &sent));
    }
    let offset = sent.ext.i64("queueOffset").map_err(|why| why.to_string())?;
    let pulled = peer.call(pull(broker, offset)).await?;
    if pulled.code != response::SUCCESS {
        return Err(refused("the pull of what it took", &pulled));
    }
    match record::parse(&pulled.body, true) {
        Ok(Parsed::Record(record, _)) if record.body == body.as_bytes() => Ok(()),
        Ok(_) => Err("another message came back than was sent".to_owned()),
        Err(why) => Err(format!("what came back is no message: {why}")),
    }
}

fn refused(what: &str, answer: &Command) -> String {
    format!(
        "{what} was answered with {} {}: {}",
        answer.code,
        response::name(answer.code),
        answer.remark.as_deref().unwrap_or_default()
    )
}

/// Fields of SendMessageRequestHeaderV2: group, topic, template topic, its queues, queue, sysFlag, born, flag, properties,
/// reconsume times, unit mode, batch.
fn send(topic: &str, body: &str, born_ms: u128) -> Command {
    let mut properties = String::new();
    properties::push(&mut properties, name::WAIT, "true");
    let ext = ExtFields::new()
        .with("a", group::TOOLS_CONSUMER)
        .with("b", topic)
        .with("c", AUTO_CREATE_TOPIC_KEY)
        .with("d", 1)
        .with("e", 0)
        .with("f", 0)
        .with("g", born_ms)
        .with("h", 0)
        .with("i", properties)
        .with("j", 0)
        .with("k", false)
        .with("m", false);
    Command::request(request::SEND_MESSAGE_V2, ext).with_body(body.as_bytes().to_vec())
}

fn pull(topic: &str, offset: i64) -> Command {
    let ext = ExtFields::new()
        .with("consumerGroup", group::TOOLS_CONSUMER)
        .with("topic", topic)
        .with("queueId", 0)
        .with("queueOffset", offset)
        .with("maxMsgNums", 1)
        .with("sysFlag", SUBSCRIPTION)
        .with("commitOffset", 0)
        .with("suspendTimeoutMillis", 0)
        .with("subscription", "*")
        .with("subVersion", 0)
        .with("expressionType", "TAG");
    Command::request(request::PULL_MESSAGE, ext)
}
