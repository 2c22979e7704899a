//! Request-reply as its two ends see it: golden frames through a broker.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod support;

use broker_engine::config::BrokerConfig;
use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields};
use support::{Client, broker, check, config, pull, send, show};

const TOPIC: &str = "DefaultCluster_REPLY_TOPIC";

/// SEND_REPLY_MESSAGE_V2; `properties` as `A=1 B=2`.
fn reply(properties: &str, body: &str) -> Command {
    let mut command = send(TOPIC, properties, body);
    command.code = request::SEND_REPLY_MESSAGE_V2;
    command
}

/// The same in the header's long form.
fn long_reply(properties: &str, body: &str) -> Command {
    let short = reply(properties, body);
    let names = [
        ("producerGroup", "a"),
        ("topic", "b"),
        ("defaultTopic", "c"),
        ("defaultTopicQueueNums", "d"),
        ("queueId", "e"),
        ("sysFlag", "f"),
        ("bornTimestamp", "g"),
        ("flag", "h"),
        ("properties", "i"),
        ("reconsumeTimes", "j"),
        ("unitMode", "k"),
    ];
    let ext = names.iter().fold(ExtFields::new(), |ext, (long, letter)| {
        ext.with(long, short.ext.get(letter).expect("a send has the field"))
    });
    Command::request(request::SEND_REPLY_MESSAGE, ext).with_body(short.body)
}

/// A producer that the broker knows as `asker`.
async fn asker(address: std::net::SocketAddr) -> Client {
    let mut client = Client::connect(address).await;
    let beat = r#"{"clientID":"asker","consumerDataSet":[],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"p"}],"withoutSub":false}"#;
    let heartbeat = Command::request(request::HEART_BEAT, ExtFields::new());
    let answer = client
        .call(heartbeat.with_body(beat.as_bytes().to_vec()))
        .await;
    check(
        &answer,
        "0 IS_SUB_CHANGE=true IS_SUPPORT_HEART_BEAT_V2=true",
    );
    client
}

/// Reads what is pushed to who asked, compares it whole, and answers it with `code`.
async fn pushed(client: &mut Client, queue_id: i32, body: &str, code: i32) {
    let push = client.read().await;
    let mut fields: Vec<String> = (push.ext.iter())
        .map(|(name, value)| match name {
            // Addresses and times are of this run.
            "bornHost" | "storeHost" | "storeTimestamp" => format!("{name}=_"),
            "properties" => {
                let pairs = rocketmq_protocol::properties::pairs(value).map(|(name, value)| {
                    let value = if name == "PUSH_REPLY_TIME" {
                        "_"
                    } else {
                        value
                    };
                    format!("{name}:{value}")
                });
                format!("properties={}", pairs.collect::<Vec<_>>().join(","))
            }
            _ => format!("{name}={value}"),
        })
        .collect();
    fields.sort();
    assert_eq!(
        (push.code, fields.join(" "), &push.body[..]),
        (
            request::PUSH_REPLY_MESSAGE_TO_CLIENT,
            format!(
                "bornHost=_ bornTimestamp=1700000000000 defaultTopic=TBW102 defaultTopicQueueNums=4 flag=7 producerGroup=PG properties=REPLY_TO_CLIENT:asker,CORRELATION_ID:1,PUSH_REPLY_TIME:_ queueId={queue_id} reconsumeTimes=0 storeHost=_ storeTimestamp=_ sysFlag=0 topic={TOPIC} unitMode=false"
            ),
            body.as_bytes()
        )
    );
    client.answer(push.response(code)).await;
}

const STORED: &str = "0 MSG_REGION=DefaultRegion TRACE_ON=true";
const TO_ASKER: &str = "REPLY_TO_CLIENT=asker CORRELATION_ID=1";

#[tokio::test]
async fn a_reply_reaches_who_asked_before_the_replier_is_answered_and_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut asker = asker(running.address).await;
    let mut replier = Client::connect(running.address).await;

    replier.write(vec![reply(TO_ASKER, "yes")]).await;
    pushed(&mut asker, 0, "yes", 0).await;
    let answer = replier.read().await;
    check(
        &answer,
        &format!("{STORED} msgId=@0 queueId=0 queueOffset=0"),
    );

    replier.write(vec![long_reply(TO_ASKER, "no")]).await;
    pushed(&mut asker, 0, "no", 0).await;
    let second = show(&replier.read().await);
    assert!(second.ends_with("queueId=0 queueOffset=1"), "{second}");

    let pulled = replier.call(pull(TOPIC, 0, 0, "*", 0)).await;
    check(
        &pulled,
        &format!(
            "0 \"FOUND\" groupSysFlag=0 maxOffset=2 minOffset=0 nextBeginOffset=2 suggestWhichBrokerId=0 topicSysFlag=0
            {TOPIC}[0]@0 flag=7 sys=0 retried=0 \"yes\" {TO_ASKER}
            {TOPIC}[0]@1 flag=7 sys=0 retried=0 \"no\" {TO_ASKER}"
        ),
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_reply_nobody_can_be_given_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(BrokerConfig {
        store_reply_message_enable: false,
        ..config(dir.path())
    })
    .await;
    let mut asker = asker(running.address).await;
    let mut replier = Client::connect(running.address).await;
    let unstored = "MSG_REGION=DefaultRegion TRACE_ON=true msgId=0 queueId=0 queueOffset=0";
    let answer = replier.call(reply("CORRELATION_ID=1", "x")).await;
    check(
        &answer,
        &format!("1 \"reply message properties[REPLY_TO_CLIENT] is null\" {unstored}"),
    );
    let answer = replier.call(reply("REPLY_TO_CLIENT=gone", "x")).await;
    check(
        &answer,
        &format!("1 \"push reply message fail, channel of <gone> not found.\" {unstored}"),
    );
    replier.write(vec![reply(TO_ASKER, "x")]).await;
    pushed(&mut asker, 0, "x", 1).await;
    let answer = replier.read().await;
    check(
        &answer,
        &format!("1 \"push reply message to asker fail: it answered 1 \" {unstored}"),
    );
    let mut elsewhere = reply(TO_ASKER, "x");
    elsewhere.ext.set("b", "no such topic!");
    let answer = replier.call(elsewhere).await;
    assert_eq!(answer.code, 29, "{}", show(&answer));
    running.stop().await.unwrap();
}
