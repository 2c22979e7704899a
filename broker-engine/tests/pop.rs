//! POP consumption as consumers see it.
#![allow(clippy::unwrap_used)]

mod support;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::record;
use rocketmq_protocol::{Command, ExtFields};
use std::time::{Duration, Instant};
use support::*;

const INVISIBLE_MS: i64 = 60_000;

fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// POP_MESSAGE of any queue of T for group g.
fn pop(invisible_ms: i64, poll_ms: i64) -> Command {
    let ext = ExtFields::new()
        .with("consumerGroup", "g")
        .with("topic", "T")
        .with("queueId", -1)
        .with("maxMsgNums", 32)
        .with("invisibleTime", invisible_ms)
        .with("pollTime", poll_ms)
        .with("bornTime", now_ms())
        .with("initMode", 0)
        .with("expType", "TAG")
        .with("exp", "*");
    Command::request(request::POP_MESSAGE, ext)
}

fn in_order(mut command: Command, attempt: &str) -> Command {
    command.ext.set("order", true);
    command.ext.set("attemptId", attempt);
    command
}

#[derive(Clone, Debug, PartialEq)]
struct Popped {
    body: String,
    topic: String,
    reconsume_times: i32,
    queue_id: i32,
    offset: i64,
    handle: String,
}

fn field<'c>(answer: &'c Command, name: &str) -> &'c str {
    answer
        .ext
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {answer:?}"))
}

/// The messages of an answer with their handles, made as the Java client makes them.
fn messages(answer: &Command) -> Vec<Popped> {
    assert_eq!(answer.code, response::SUCCESS, "{}", show(answer));
    let starts = field(answer, "startOffsetInfo");
    record::records(&answer.body)
        .map(|view| {
            let record = view.unwrap().decode().unwrap();
            let popped_before = rocketmq_protocol::properties::get(record.properties, "POP_CK");
            let handle = popped_before.map(str::to_owned).unwrap_or_else(|| {
                let of_queue = format!("0 {} ", record.queue_id);
                let start = starts
                    .split(';')
                    .find_map(|item| item.strip_prefix(&of_queue))
                    .unwrap();
                format!(
                    "{start} {} {} {} 0 broker-a {} {}",
                    field(answer, "popTime"),
                    field(answer, "invisibleTime"),
                    field(answer, "reviveQid"),
                    record.queue_id,
                    record.queue_offset
                )
            });
            Popped {
                body: String::from_utf8_lossy(record.body).into_owned(),
                topic: record.topic.to_owned(),
                reconsume_times: record.reconsume_times,
                queue_id: record.queue_id,
                offset: record.queue_offset,
                handle,
            }
        })
        .collect()
}

fn bodies(popped: &[Popped]) -> Vec<&str> {
    popped.iter().map(|each| each.body.as_str()).collect()
}

fn of(code: i32, popped: &Popped) -> Command {
    // The fifth field marks a message of the retry topic, which is named itself.
    let retried = popped.handle.split(' ').nth(4) == Some("1");
    let ext = ExtFields::new()
        .with("consumerGroup", "g")
        .with("topic", if retried { "%RETRY%g_T" } else { "T" })
        .with("queueId", popped.queue_id)
        .with("offset", popped.offset)
        .with("extraInfo", &popped.handle);
    Command::request(code, ext)
}

/// Pops until something comes.
async fn next(client: &mut Client, invisible_ms: i64) -> Vec<Popped> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = client.call(pop(invisible_ms, 2000)).await;
        if answer.code == response::SUCCESS {
            return messages(&answer);
        }
        assert_eq!(answer.code, response::POLLING_TIMEOUT, "{}", show(&answer));
        assert!(Instant::now() < end, "nothing came");
    }
}

async fn put(client: &mut Client, bodies: &[&str]) {
    for body in bodies {
        assert_eq!(
            client.call(send("T", "TAGS=A", body)).await.code,
            response::SUCCESS
        );
    }
}

fn config_of(root: &std::path::Path) -> broker_engine::config::BrokerConfig {
    let mut config = config(root);
    config.revive_interval = Duration::from_millis(100);
    config.broker_name = "broker-a".into();
    config
}

#[tokio::test]
async fn what_is_acknowledged_stays_away_and_the_rest_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config_of(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    put(&mut client, &["a", "b", "c", "d"]).await;
    let got = messages(&client.call(pop(1500, 0)).await);
    assert_eq!(bodies(&got), ["a", "b", "c", "d"]);
    assert_eq!(
        client.call(pop(1500, 0)).await.code,
        response::POLLING_TIMEOUT
    );
    assert_eq!(
        client.call(of(request::ACK_MESSAGE, &got[1])).await.code,
        response::SUCCESS
    );
    // Offsets 2 and 3 of the checkpoint that begins at 0: bits 2 and 3.
    let handle: Vec<&str> = got[0].handle.split(' ').collect();
    let body = format!(
        "{{\"acks\":[{{\"b\":\"{}\",\"c\":\"g\",\"it\":{},\"pt\":{},\"q\":{},\"r\":\"0\",\"rq\":{},\"so\":{},\"t\":\"T\"}}],\"brokerName\":\"broker-a\"}}",
        STANDARD.encode([0b1100]),
        handle[2],
        handle[1],
        got[0].queue_id,
        handle[3],
        handle[0]
    );
    let batch =
        Command::request(request::BATCH_ACK_MESSAGE, ExtFields::new()).with_body(body.into_bytes());
    assert_eq!(client.call(batch).await.code, response::SUCCESS);
    let began = Instant::now();
    let again = next(&mut client, INVISIBLE_MS).await;
    assert_eq!(bodies(&again), ["a"]);
    assert!(
        began.elapsed() > Duration::from_millis(1000),
        "it was invisible for 1.5 s"
    );
    assert_eq!(
        (again[0].topic.as_str(), again[0].reconsume_times),
        ("T", 1)
    );
    assert!(
        again[0].handle.ends_with(" 1 broker-a 0 0"),
        "{}",
        again[0].handle
    );
    assert_eq!(
        client.call(of(request::ACK_MESSAGE, &again[0])).await.code,
        response::SUCCESS
    );
    assert_eq!(
        client.call(pop(1500, 0)).await.code,
        response::POLLING_TIMEOUT
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_changed_invisible_time_holds_and_what_is_open_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(config_of(dir.path())).await;
    let mut client = Client::connect(first.address).await;
    put(&mut client, &["a", "b"]).await;
    let got = messages(&client.call(pop(INVISIBLE_MS, 0)).await);
    let mut change = of(request::CHANGE_MESSAGE_INVISIBLETIME, &got[0]);
    change.ext.set("invisibleTime", 1000);
    let changed = client.call(change).await;
    assert_eq!(changed.code, response::SUCCESS, "{}", show(&changed));
    assert_eq!(field(&changed, "invisibleTime"), "1000");
    first.stop().await.unwrap();
    let second = broker(config_of(dir.path())).await;
    let mut client = Client::connect(second.address).await;
    assert_eq!(bodies(&next(&mut client, INVISIBLE_MS).await), ["a"]);
    // "b" is invisible for a minute still; its handle is as good as before.
    assert_eq!(
        client.call(of(request::ACK_MESSAGE, &got[1])).await.code,
        response::SUCCESS
    );
    second.stop().await.unwrap();
}

#[tokio::test]
async fn who_finds_nothing_waits_and_one_message_goes_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config_of(dir.path())).await;
    let (mut producer, mut one, mut two) = (
        Client::connect(broker.address).await,
        Client::connect(broker.address).await,
        Client::connect(broker.address).await,
    );
    put(&mut producer, &["first"]).await;
    assert_eq!(
        bodies(&messages(&one.call(pop(INVISIBLE_MS, 0)).await)),
        ["first"]
    );
    one.write(vec![pop(INVISIBLE_MS, 4000)]).await;
    two.write(vec![pop(INVISIBLE_MS, 4000)]).await;
    let waiting = ExtFields::new()
        .with("consumerGroup", "g")
        .with("topic", "T")
        .with("queueId", -1);
    loop {
        let info = producer
            .call(Command::request(request::POLLING_INFO, waiting.clone()))
            .await;
        if field(&info, "pollingNum") == "2" {
            break;
        }
    }
    let notify = Command::request(
        request::NOTIFICATION,
        waiting.with("pollTime", 4000).with("bornTime", now_ms()),
    );
    let mut listener = Client::connect(broker.address).await;
    listener.write_to_wait(notify).await;
    let began = Instant::now();
    put(&mut producer, &["second"]).await;
    let (first, second) = tokio::join!(one.read(), two.read());
    let codes = [first.code, second.code];
    assert!(
        codes.contains(&response::SUCCESS) && codes.contains(&response::POLLING_TIMEOUT),
        "{codes:?}"
    );
    let (found, nothing) = if first.code == response::SUCCESS {
        (&first, &second)
    } else {
        (&second, &first)
    };
    assert_eq!(bodies(&messages(found)), ["second"]);
    assert!(
        began.elapsed() > Duration::from_secs(3),
        "the other waited its time: {}",
        show(nothing)
    );
    assert_eq!(listener.read().await.code, response::SUCCESS);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn in_order_a_queue_is_blocked_until_its_messages_are_acknowledged_or_visible() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config_of(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    put(&mut client, &["a", "b"]).await;
    let answer = client.call(in_order(pop(INVISIBLE_MS, 0), "try-1")).await;
    assert_eq!(field(&answer, "reviveQid"), "999");
    let got = messages(&answer);
    assert_eq!(bodies(&got), ["a", "b"]);
    put(&mut client, &["c"]).await;
    assert_eq!(
        client
            .call(in_order(pop(INVISIBLE_MS, 0), "try-2"))
            .await
            .code,
        response::POLLING_TIMEOUT
    );
    // The same try gets the same messages, and what came since.
    let answer = client.call(in_order(pop(INVISIBLE_MS, 0), "try-1")).await;
    let got = messages(&answer);
    assert_eq!(bodies(&got), ["a", "b", "c"]);
    let mut waiting = Client::connect(broker.address).await;
    waiting
        .write_to_wait(in_order(pop(INVISIBLE_MS, 15_000), "try-3"))
        .await;
    assert_eq!(
        client.call(of(request::ACK_MESSAGE, &got[0])).await.code,
        response::SUCCESS
    );
    assert_eq!(
        client.call(of(request::ACK_MESSAGE, &got[1])).await.code,
        response::SUCCESS
    );
    let mut change = of(request::CHANGE_MESSAGE_INVISIBLETIME, &got[2]);
    change.ext.set("invisibleTime", 700);
    let began = Instant::now();
    assert_eq!(client.call(change).await.code, response::SUCCESS);
    // What waits looks again by itself when the message becomes visible, and finds only what is open.
    let answer = waiting.read().await;
    assert_eq!(bodies(&messages(&answer)), ["c"]);
    assert!(began.elapsed() >= Duration::from_millis(600));
    assert!(
        field(&answer, "orderCountInfo").contains("qo0%2 1"),
        "{}",
        show(&answer)
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config_of(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    assert_eq!(
        client.call(pop(1000, 0)).await.code,
        response::TOPIC_NOT_EXIST
    );
    put(&mut client, &["a"]).await;
    let mut many = pop(1000, 0);
    many.ext.set("maxMsgNums", 33);
    assert_eq!(client.call(many).await.code, response::INVALID_PARAMETER);
    let mut late = pop(1000, 1000);
    late.ext.set("bornTime", now_ms() - 2000);
    assert_eq!(client.call(late).await.code, response::POLLING_TIMEOUT);
    let got = messages(&client.call(pop(INVISIBLE_MS, 0)).await);
    let spoilt = |name: &str, value: &str| {
        let mut ack = of(request::ACK_MESSAGE, &got[0]);
        ack.ext.set(name, value);
        ack
    };
    assert_eq!(
        client.call(spoilt("offset", "99")).await.code,
        response::NO_MESSAGE
    );
    assert_eq!(
        client.call(spoilt("queueId", "99")).await.code,
        response::MESSAGE_ILLEGAL
    );
    assert_eq!(
        client
            .call(spoilt("extraInfo", "0 1 2 77 0 b 0 0"))
            .await
            .code,
        response::SYSTEM_ERROR
    );
    assert_eq!(
        client.call(spoilt("extraInfo", "nonsense")).await.code,
        response::SYSTEM_ERROR
    );
    let empty = Command::request(request::BATCH_ACK_MESSAGE, ExtFields::new());
    assert_eq!(client.call(empty).await.code, response::NO_MESSAGE);
    // The port of sends does not pop.
    let mut fast = Client::connect(broker.fast_address).await;
    assert_eq!(
        fast.call(pop(1000, 0)).await.code,
        response::REQUEST_CODE_NOT_SUPPORTED
    );
    assert_eq!(
        fast.call(of(request::ACK_MESSAGE, &got[0])).await.code,
        response::SUCCESS
    );
    broker.stop().await.unwrap();
}
