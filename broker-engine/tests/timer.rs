//! Messages that name their own time, as producers and consumers see them.
#![allow(clippy::unwrap_used)]

mod support;
use broker_engine::config::BrokerConfig;
use rocketmq_protocol::code::request;
use rocketmq_protocol::record::View;
use rocketmq_protocol::{Command, ExtFields, properties};
use support::*;

fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64
}

/// The first message of T from `offset` on, waited for.
async fn next(client: &mut Client, offset: i64) -> Command {
    loop {
        let answer = client.call(pull("T", 0, offset, "*", 15_000)).await;
        if answer.code == 0 {
            return answer;
        }
    }
}

#[tokio::test]
async fn a_message_comes_at_its_time_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    let began = now_ms();
    // The later one is sent first: each comes at its own time.
    let at = format!("TIMER_DELIVER_MS={} UNIQ_KEY=L", began + 1500);
    assert_eq!(client.call(send("T", &at, "later")).await.code, 0);
    assert_eq!(
        client
            .call(send("T", "TIMER_DELAY_MS=300 UNIQ_KEY=S", "sooner"))
            .await
            .code,
        0
    );
    assert_eq!(
        client
            .call(send("T", "TIMER_DELIVER_MS=1 UNIQ_KEY=P", "past"))
            .await
            .code,
        0
    );
    let mut seen = Vec::new();
    for offset in 0..3 {
        let answer = next(&mut client, offset).await;
        let record = View::record(&answer.body).unwrap();
        let text = record.properties().unwrap();
        let has = |name: &str| properties::get(text, name).is_some();
        seen.push((
            String::from_utf8_lossy(record.body()).into_owned(),
            has("TIMER_OUT_MS") && has("TIMER_ENQUEUE_MS") && has("TIMER_DEQUEUE_MS"),
        ));
        let earliest = [0, 300, 1500][offset as usize];
        assert!(record.store_timestamp() >= began + earliest, "{seen:?}");
    }
    let want = [("past", false), ("sooner", true), ("later", true)];
    assert_eq!(seen, want.map(|(body, timed)| (body.to_owned(), timed)));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn what_waits_survives_a_restart_and_a_lost_wheel_and_comes_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = now_ms() + 2500;
    let first = broker(config(dir.path())).await;
    let mut client = Client::connect(first.address).await;
    for n in 0..3 {
        let text = format!("TIMER_DELIVER_MS={at} UNIQ_KEY=U{n}");
        assert_eq!(client.call(send("T", &text, &n.to_string())).await.code, 0);
    }
    first.stop().await.unwrap();
    broker(config(dir.path())).await.stop().await.unwrap();
    std::fs::remove_file(dir.path().join("timerwheel")).unwrap();
    let again = broker(config(dir.path())).await;
    let mut client = Client::connect(again.address).await;
    let mut bodies = Vec::new();
    while bodies.len() < 3 {
        let answer = next(&mut client, bodies.len() as i64).await;
        for record in rocketmq_protocol::record::records(&answer.body) {
            let record = record.unwrap();
            assert!(record.store_timestamp() >= at);
            bodies.push(String::from_utf8_lossy(record.body()).into_owned());
        }
    }
    again.stop().await.unwrap();
    // Nothing comes a second time: a message behind them is the next.
    let last = broker(config(dir.path())).await;
    let mut client = Client::connect(last.address).await;
    client.call(send("T", "TIMER_DELAY_MS=50", "end")).await;
    let answer = next(&mut client, 3).await;
    bodies.extend(
        records(&answer.body)
            .iter()
            .map(|r| r.split('"').nth(1).unwrap().to_owned()),
    );
    bodies[..3].sort();
    assert_eq!(bodies, ["0", "1", "2", "end"]);
    last.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_can_be_taken_back_until_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let recalling = BrokerConfig {
        recall_message_enable: true,
        ..config(dir.path())
    };
    let broker = broker(recalling).await;
    let mut client = Client::connect(broker.address).await;
    let at = now_ms() + 2000;
    let sent = |key: &str| send("T", &format!("TIMER_DELIVER_MS={at} UNIQ_KEY={key}"), key);
    let gone = client.call(sent("U1")).await;
    client.call(sent("U2")).await;
    let handle = gone.ext.get("recallHandle").unwrap().to_owned();
    let recall = |handle: &str| {
        let ext = ExtFields::new()
            .with("topic", "T")
            .with("recallHandle", handle);
        Command::request(request::RECALL_MESSAGE, ext)
    };
    check(
        &client.call(recall(&handle)).await,
        "0 MSG_REGION=DefaultRegion msgId=U1",
    );
    check(
        &client.call(recall("bm9uZQ==")).await,
        "604 \"recall handle is invalid\"",
    );
    let answer = next(&mut client, 0).await;
    assert_eq!(records(&answer.body).len(), 1);
    assert!(
        records(&answer.body)[0].contains("\"U2\""),
        "{}",
        show(&answer)
    );
    check(
        &client.call(recall(&handle)).await,
        "604 \"recall failed, timestamp invalid\"",
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_time_that_cannot_be_kept_is_refused_with_javas_words() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let illegal = "13 \"timer message illegal, the delay time should not be bigger than the max delay 259200000ms; or if set del msg, the delay time should be bigger than the current time\" MSG_REGION=DefaultRegion TRACE_ON=true";
    for text in ["TIMER_DELAY_SEC=259300", "TIMER_DELIVER_MS=soon"] {
        check(&client.call(send("T", text, "x")).await, illegal);
    }
    running.stop().await.unwrap();
    let off = BrokerConfig {
        timer_wheel_enable: false,
        ..config(dir.path())
    };
    let running = broker(off).await;
    let mut client = Client::connect(running.address).await;
    check(
        &client.call(send("T", "TIMER_DELAY_SEC=5", "x")).await,
        "1 \"accurate timer message is not enabled, timerWheelEnable is false\" MSG_REGION=DefaultRegion TRACE_ON=true",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn tools_are_told_how_many_wait() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    for n in 0..3 {
        let text = format!("TIMER_DELAY_SEC=3600 UNIQ_KEY=U{n}");
        assert_eq!(client.call(send("T", &text, "x")).await.code, 0);
    }
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let ask = Command::request(request::GET_BROKER_RUNTIME_INFO, ExtFields::new());
        let text = String::from_utf8(client.call(ask).await.body.to_vec()).unwrap();
        let all = [
            "\"timerCongestNum\":\"3\"",
            "\"timerOffsetBehind\":\"0\"",
            "\"timerReadBehind\":\"0\"",
        ];
        if all.iter().all(|figure| text.contains(figure)) {
            break;
        }
        assert!(std::time::Instant::now() < end, "{text}");
    }
    broker.stop().await.unwrap();
}
