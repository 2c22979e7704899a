//! Light message queues, as who sends to them and reads from them sees them.
#![allow(clippy::unwrap_used)]

mod support;
use broker_engine::config::BrokerConfig;
use rocketmq_protocol::code::response;
use rocketmq_protocol::record;
use rocketmq_protocol::{Command, properties};
use support::*;

fn with_lmq(root: &std::path::Path) -> BrokerConfig {
    BrokerConfig {
        enable_lmq: true,
        max_lmq_consume_queue_num: 3,
        ..config(root)
    }
}

/// Body and offsets of each message of an answer.
fn seen(answer: &Command) -> Vec<(String, String)> {
    assert_eq!(answer.code, response::SUCCESS, "{}", show(answer));
    record::records(&answer.body)
        .map(|view| {
            let record = view.unwrap().decode().unwrap();
            let offsets = properties::get(record.properties, "INNER_MULTI_QUEUE_OFFSET");
            let offsets = offsets.unwrap_or_default().split(',');
            // As Java reads them.
            let offsets: Vec<_> = offsets
                .map(|text| text.parse::<i64>().unwrap().to_string())
                .collect();
            (
                String::from_utf8_lossy(record.body).into_owned(),
                offsets.join(","),
            )
        })
        .collect()
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
        .collect()
}

#[tokio::test]
async fn a_message_stands_in_the_queues_it_names_and_still_does_after_the_queues_were_lost() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(with_lmq(dir.path())).await;
    let mut client = Client::connect(first.address).await;
    let mut reader = Client::connect(first.address).await;
    // Who waits at a light queue is woken by its first message.
    reader
        .write_to_wait(pull("%LMQ%b", 0, 0, "*", 10_000))
        .await;
    for (body, queues) in [
        ("one", "%LMQ%a"),
        ("two", "%LMQ%a,%LMQ%b"),
        ("three", "%LMQ%a"),
    ] {
        let text = format!("INNER_MULTI_DISPATCH={queues}");
        assert_eq!(
            client.call(send("T", &text, body)).await.code,
            response::SUCCESS
        );
    }
    assert_eq!(seen(&reader.read().await), owned(&[("two", "1,0")]));
    let all = owned(&[("one", "0"), ("two", "1,0"), ("three", "2")]);
    assert_eq!(seen(&client.call(pull("%LMQ%a", 0, 0, "*", 0)).await), all);
    assert_eq!(seen(&client.call(pull("T", 0, 0, "*", 0)).await), all);
    first.stop().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("consumequeue")).unwrap();
    let second = broker(with_lmq(dir.path())).await;
    let mut client = Client::connect(second.address).await;
    assert_eq!(seen(&client.call(pull("%LMQ%a", 0, 0, "*", 0)).await), all);
    assert_eq!(
        seen(&client.call(pull("%LMQ%b", 0, 0, "*", 0)).await),
        owned(&[("two", "1,0")])
    );
    // The next one goes on where they ended.
    let more = send("T", "INNER_MULTI_DISPATCH=%LMQ%b,%LMQ%a", "four");
    assert_eq!(client.call(more).await.code, response::SUCCESS);
    assert_eq!(
        seen(&client.call(pull("%LMQ%a", 0, 3, "*", 0)).await),
        owned(&[("four", "1,3")])
    );
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_delayed_message_stands_there_when_its_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(with_lmq(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    for property in ["DELAY=1", "TIMER_DELAY_MS=200"] {
        let text = format!("INNER_MULTI_DISPATCH=%LMQ%a {property} UNIQ_KEY={property}");
        assert_eq!(
            client.call(send("T", &text, "later")).await.code,
            response::SUCCESS
        );
    }
    for offset in 0..2 {
        let answer = client.call(pull("%LMQ%a", 0, offset, "*", 10_000)).await;
        assert_eq!(seen(&answer), [("later".to_owned(), offset.to_string())]);
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn names_that_are_none_and_too_many_queues_are_refused_and_without_the_setting_nothing_happens()
 {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(with_lmq(dir.path())).await;
    let mut client = Client::connect(first.address).await;
    for bad in ["other", "%LMQ%a,other", "%LMQ%../x"] {
        let answer = client
            .call(send("T", &format!("INNER_MULTI_DISPATCH={bad}"), "x"))
            .await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL, "{bad}");
    }
    let many = "INNER_MULTI_DISPATCH=%LMQ%1,%LMQ%2,%LMQ%3,%LMQ%4";
    assert_eq!(
        client.call(send("T", many, "x")).await.code,
        response::SUCCESS
    );
    let answer = client.call(send("T", many, "x")).await;
    assert_eq!(answer.code, response::SYSTEM_ERROR, "{}", show(&answer));
    assert!(
        answer
            .remark
            .unwrap()
            .starts_with("[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]")
    );
    first.stop().await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let plain = broker(config(dir.path())).await;
    let mut client = Client::connect(plain.address).await;
    assert_eq!(
        client.call(send("T", many, "x")).await.code,
        response::SUCCESS
    );
    assert_eq!(
        client.call(pull("%LMQ%1", 0, 0, "*", 0)).await.code,
        response::TOPIC_NOT_EXIST
    );
    plain.stop().await.unwrap();
}
