//! What clients see of a broker: raw frames in, golden answers out.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod support;

use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields};
use support::{Client, broker, check, config, pull, records, send, send_batch, show};

const MINE: &str = "MSG_REGION=DefaultRegion TRACE_ON=true CLUSTER=DefaultCluster";

#[tokio::test]
async fn a_message_is_answered_with_its_place_and_pulled_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let sent = send(
        "T",
        "UNIQ_KEY=U1 TAGS=a POP_CK=forged MSG_REGION=mars K=v",
        "hello",
    );
    let answer = client.call(sent).await;
    check(
        &answer,
        "0 MSG_REGION=DefaultRegion TRACE_ON=true msgId=@0 queueId=0 queueOffset=0 transactionId=U1",
    );
    let answer = client.call(pull("T", 0, 0, "*", 0)).await;
    check(
        &answer,
        &format!(
            "0 \"FOUND\" groupSysFlag=0 maxOffset=1 minOffset=0 nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0
            T[0]@0 flag=7 sys=0 retried=0 \"hello\" UNIQ_KEY=U1 TAGS=a K=v {MINE}"
        ),
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_without_a_unique_key_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let answer = client.call(send("T", "", "x")).await;
    let key = answer.ext.get("transactionId").unwrap().to_string();
    assert_eq!(key.len(), 32, "{key}");
    let stored = client.call(pull("T", 0, 0, "*", 0)).await;
    assert!(
        show(&stored).contains(&format!("UNIQ_KEY={key}")),
        "{}",
        show(&stored)
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn sends_of_one_write_are_answered_in_order_with_consecutive_places() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let mut requests: Vec<Command> = (0..100)
        .map(|at| send("T", &format!("UNIQ_KEY=U{at}"), &format!("body {at}")))
        .collect();
    // One that wants no answer and one that does not wait go with them.
    requests[50] = send("T", "UNIQ_KEY=U50", "body 50").oneway();
    requests[60] = send("other", "UNIQ_KEY=U60 WAIT=false", "body 60");
    let opaques = client.write(requests).await;
    let mut answered = Vec::new();
    for _ in 0..99 {
        let answer = client.read().await;
        assert_eq!(answer.code, 0, "{}", show(&answer));
        let at = opaques.iter().position(|o| *o == answer.opaque).unwrap();
        assert_eq!(
            answer.ext.get("transactionId"),
            Some(format!("U{at}").as_str())
        );
        answered.push((at, answer.ext.i64("queueOffset").unwrap()));
    }
    answered.sort();
    let want: Vec<(usize, i64)> = (0..100)
        .filter(|at| *at != 50)
        .map(|at| match at {
            60 => (at, 0),
            at if at > 60 => (at, at as i64 - 1),
            at => (at, at as i64),
        })
        .collect();
    assert_eq!(answered, want);
    let mut pulled = Vec::new();
    while pulled.len() < 99 {
        let answer = client.call(pull("T", 0, pulled.len() as i64, "*", 0)).await;
        assert_eq!(answer.code, 0, "{}", show(&answer));
        pulled.extend(records(&answer.body));
    }
    assert!(pulled[50].contains("\"body 50\""), "{}", pulled[50]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_batch_becomes_consecutive_records_and_one_answer() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U", "first")).await;
    let answer = client.call(send_batch("T", &["one", "two", "three"])).await;
    assert_eq!(answer.code, 0, "{}", show(&answer));
    assert_eq!(answer.ext.get("queueOffset"), Some("1"));
    assert_eq!(answer.ext.get("transactionId"), Some("U0,U1"));
    assert_eq!(answer.ext.get("msgId").unwrap().split(',').count(), 3);
    let answer = client.call(pull("T", 0, 1, "*", 0)).await;
    check(
        &answer,
        "0 \"FOUND\" groupSysFlag=0 maxOffset=4 minOffset=0 nextBeginOffset=4 suggestWhichBrokerId=0 topicSysFlag=0
        T[0]@1 flag=0 sys=0 retried=0 \"one\" UNIQ_KEY=U0 TAGS=T0
        T[0]@2 flag=1 sys=0 retried=0 \"two\" UNIQ_KEY=U1 TAGS=T1
        T[0]@3 flag=2 sys=0 retried=0 \"three\" UNIQ_KEY=U2 TAGS=T2",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_may_not_be_sent_is_refused_with_javas_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.max_message_size = 1024;
    settings.reject_transaction_message = true;
    settings.timer_wheel_enable = false;
    let running = broker(settings).await;
    let mut client = Client::connect(running.address).await;
    let peer = "MSG_REGION=DefaultRegion TRACE_ON=true";
    let faq = "\\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    let cases = [
        (send("T", "", &"x".repeat(1025)), "13 \"the message is illegal, maybe msg body or properties length not matched. msg body length limit 1024B, msg properties length limit 32KB.\"".to_string()),
        (send("bad topic", "", "x"), "29 \"The specified topic: bad topic, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$\"".into()),
        (send("SCHEDULE_TOPIC_XXXX", "", "x"), "16 \"Sending message to topic[SCHEDULE_TOPIC_XXXX] is forbidden.\"".into()),
        (send("unknown", "", "x").with("c", "nobody"), format!("17 \"topic[unknown] not exist, apply first please!{faq}\"")),
        (send("T", "TRAN_MSG=true", "x"), "16 \"the broker[127.0.0.1] sending transaction message is forbidden\"".into()),
        (send("T", "TIMER_DELAY_SEC=5", "x"), "1 \"accurate timer message is not enabled, timerWheelEnable is false\"".into()),
        (send("T", "DELAY=soon", "x"), "1 \"the property DELAY is \\\"soon\\\", not a delay level\"".into()),
        (send_batch("%RETRY%CG", &["x"]), "13 \"batch request does not support retry group %RETRY%CG\"".into()),
        (send_batch("T", &["x"]).with_body(b"\0\0\0\x09torn".to_vec()), "13 \"batch entry 0 at byte 0 is malformed: ".into()),
    ];
    for (request, want) in cases {
        let shown = show(&client.call(request).await);
        let shown = shown
            .strip_suffix(peer)
            .unwrap_or_else(|| panic!("{shown} lacks {peer}"));
        assert!(shown.starts_with(&want), "\n{shown}\n{want}");
    }
    let outside = client.call(send("T", "", "x").with("e", 99)).await;
    assert_eq!(outside.code, 29);
    assert!(
        outside
            .remark
            .unwrap()
            .starts_with("request queueId[99] is illegal, TopicConfig [topicName=T,")
    );
    let unknown = client
        .call(Command::request(31_999, ExtFields::new()))
        .await;
    check(&unknown, "3 \" request type 31999 not supported\"");
    // After all that the connection and the topic are well, and nothing was stored.
    check(
        &client.call(pull("T", 0, 0, "*", 0)).await,
        "19 \"NO_MATCHED_LOGIC_QUEUE\" groupSysFlag=0 maxOffset=0 minOffset=0 nextBeginOffset=0 suggestWhichBrokerId=0 topicSysFlag=0",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_may_not_be_pulled_is_refused_with_javas_words() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U", "x")).await;
    let faq = "\\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";
    let tail = "groupSysFlag=0 maxOffset=1 minOffset=0";
    let cases = [
        (pull("nowhere", 0, 0, "*", 0), format!("17 \"topic[nowhere] not exist, apply first please! {faq}\"")),
        (pull("T", 0, 0, "*", 0).with("sysFlag", 0), format!("24 \"the consumer's group info not exist{faq}\"")),
        (pull("T", 0, 0, "a > 1", 0).with("expressionType", "SQL92"), "1 \"The broker does not support consumer to filter message by SQL92\"".into()),
        (pull("T", 0, 5, "*", 0), format!("21 \"OFFSET_OVERFLOW_BADLY\" {tail} nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0")),
        (pull("T", 0, 1, "*", 0), format!("19 \"OFFSET_OVERFLOW_ONE\" {tail} nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0")),
        (pull("T", 0, 0, "b", 0), format!("20 \"NO_MATCHED_MESSAGE\" {tail} nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0")),
        (pull("T", 1, 3, "*", 0), "21 \"NO_MATCHED_LOGIC_QUEUE\" groupSysFlag=0 maxOffset=0 minOffset=0 nextBeginOffset=0 suggestWhichBrokerId=0 topicSysFlag=0".into()),
    ];
    for (request, want) in cases {
        check(&client.call(request).await, &want);
    }
    let outside = client.call(pull("T", 4, 0, "*", 0)).await;
    assert_eq!(outside.code, 29);
    let mut fast = Client::connect(running.fast_address).await;
    check(
        &fast.call(pull("T", 0, 0, "*", 0)).await,
        "3 \" request type 11 not supported\"",
    );
    check(
        &fast.call(send("T", "UNIQ_KEY=V", "x")).await,
        &format!(
            "0 MSG_REGION=DefaultRegion TRACE_ON=true msgId=@{} queueId=0 queueOffset=1 transactionId=V",
            166
        ),
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_pull_at_the_end_waits_for_a_message_of_its_tag_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut producer = Client::connect(running.address).await;
    let mut consumer = Client::connect(running.address).await;
    producer.call(send("T", "UNIQ_KEY=U0 TAGS=a", "0")).await;
    let waiting = consumer.write_to_wait(pull("T", 0, 1, "b", 20_000)).await;
    producer
        .call(send("T", "UNIQ_KEY=U1 TAGS=a", "not for b"))
        .await;
    producer
        .call(send("T", "UNIQ_KEY=U2 TAGS=b", "for b"))
        .await;
    let answer = consumer.read().await;
    assert_eq!(answer.opaque, waiting);
    check(
        &answer,
        &format!(
            "0 \"FOUND\" groupSysFlag=0 maxOffset=3 minOffset=0 nextBeginOffset=3 suggestWhichBrokerId=0 topicSysFlag=0
            T[0]@2 flag=7 sys=0 retried=0 \"for b\" UNIQ_KEY=U2 TAGS=b {MINE}"
        ),
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_pull_that_others_messages_pass_by_is_told_how_far_they_go_before_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut producer = Client::connect(running.address).await;
    let mut consumer = Client::connect(running.address).await;
    producer.call(send("T", "UNIQ_KEY=U0 TAGS=a", "0")).await;
    consumer.write_to_wait(pull("T", 0, 1, "b", 60_000)).await;
    producer
        .call(send("T", "UNIQ_KEY=U1 TAGS=a", "not for b"))
        .await;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(30), consumer.read()).await;
    let answer = answer.expect("it is swept after five seconds");
    check(
        &answer,
        "20 \"NO_MATCHED_MESSAGE\" groupSysFlag=0 maxOffset=2 minOffset=0 nextBeginOffset=2 suggestWhichBrokerId=0 topicSysFlag=0",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_pull_that_nothing_comes_for_is_answered_not_found_at_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U", "x")).await;
    let answer = client.call(pull("T", 0, 1, "*", 1)).await;
    check(
        &answer,
        "19 \"OFFSET_OVERFLOW_ONE\" groupSysFlag=0 maxOffset=1 minOffset=0 nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_delayed_message_reaches_its_own_queue_and_still_tells_its_delay() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=now", "first")).await;
    let answer = client
        .call(send("T", "UNIQ_KEY=U DELAY=2 TAGS=a", "later").with("e", 1))
        .await;
    assert_eq!(
        (
            answer.code,
            answer.ext.get("queueId"),
            answer.ext.get("queueOffset")
        ),
        (0, Some("1"), Some("0"))
    );
    let answer = client.call(pull("T", 1, 0, "a", 20_000)).await;
    check(
        &answer,
        &format!(
            "0 \"FOUND\" groupSysFlag=0 maxOffset=1 minOffset=0 nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0
            T[1]@0 flag=7 sys=0 retried=0 \"later\" UNIQ_KEY=U DELAY=2 TAGS=a {MINE} REAL_TOPIC=T REAL_QID=1"
        ),
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_not_due_waits_across_a_restart_and_delivered_ones_do_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U0 DELAY=1", "due")).await;
    client
        .call(send("T", "UNIQ_KEY=U1 DELAY=6", "in an hour"))
        .await;
    // Level 18 is beyond the last of six: it is the last.
    client
        .call(send("T", "UNIQ_KEY=U2 DELAY=18", "in an hour too"))
        .await;
    assert_eq!(client.call(pull("T", 0, 0, "*", 20_000)).await.code, 0);
    running.stop().await.unwrap();
    let running = broker(config(dir.path())).await;
    let broker = &running.broker;
    assert_eq!(broker.store.queue_bounds("SCHEDULE_TOPIC_XXXX", 5), (0, 2));
    assert_eq!(broker.schedule.offsets().get(&1), Some(&1));
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U3 DELAY=3", "due")).await;
    let answer = client.call(pull("T", 0, 1, "*", 20_000)).await;
    assert_eq!(records(&answer.body).len(), 1);
    assert!(records(&answer.body)[0].contains("UNIQ_KEY=U3"));
    running.stop().await.unwrap();
}

fn send_back(offset: &str, level: i32, max: i32) -> Command {
    let ext = ExtFields::new()
        .with("offset", offset)
        .with("group", "CG")
        .with("delayLevel", level)
        .with("originMsgId", "")
        .with("originTopic", "T")
        .with("unitMode", false)
        .with("maxReconsumeTimes", max);
    Command::request(request::CONSUMER_SEND_MSG_BACK, ext)
}

#[tokio::test]
async fn a_message_sent_back_is_retried_and_after_too_many_times_is_a_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let sent = client.call(send("T", "UNIQ_KEY=U TAGS=a", "again")).await;
    let id = sent.ext.get("msgId").unwrap().to_string();
    check(&client.call(send_back("0", 0, 1)).await, "0");
    let retried = client.call(pull("%RETRY%CG", 0, 0, "*", 20_000)).await;
    check(
        &retried,
        &format!(
            "0 \"FOUND\" groupSysFlag=0 maxOffset=1 minOffset=0 nextBeginOffset=1 suggestWhichBrokerId=0 topicSysFlag=0
            %RETRY%CG[0]@0 flag=7 sys=0 retried=1 \"again\" UNIQ_KEY=U TAGS=a {MINE} WAIT=false DELAY=3 RETRY_TOPIC=T ORIGIN_MESSAGE_ID={id} REAL_TOPIC=%RETRY%CG REAL_QID=0"
        ),
    );
    let place = i64::from_be_bytes(retried.body[28..36].try_into().unwrap());
    check(&client.call(send_back(&place.to_string(), 0, 1)).await, "0");
    let dead = client.call(pull("%DLQ%CG", 0, 0, "*", 0)).await;
    assert_eq!(dead.code, 0, "{}", show(&dead));
    assert!(
        records(&dead.body)[0]
            .starts_with("%DLQ%CG[0]@0 flag=7 sys=0 retried=2 \"again\" UNIQ_KEY=U TAGS=a")
    );
    check(
        &client.call(send_back("99999", 0, 1)).await,
        "1 \"look message by offset failed, 99999\"",
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_retry_message_that_a_client_sends_itself_goes_to_the_dead_letters_when_it_came_too_often()
 {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let often = send("%RETRY%CG", "UNIQ_KEY=U DELAY=5", "x")
        .with("j", 3)
        .with("l", 2);
    assert_eq!(client.call(often).await.code, 0);
    let dead = client.call(pull("%DLQ%CG", 0, 0, "*", 0)).await;
    assert_eq!(dead.code, 0, "{}", show(&dead));
    assert!(
        records(&dead.body)[0].contains("retried=3 \"x\" UNIQ_KEY=U DELAY=-1"),
        "{}",
        show(&dead)
    );
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_is_found_by_its_place_and_by_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    client.call(send("T", "UNIQ_KEY=U KEYS=order1", "x")).await;
    let view = |offset: i64| {
        let ext = ExtFields::new().with("offset", offset);
        Command::request(request::VIEW_MESSAGE_BY_ID, ext)
    };
    let found = client.call(view(0)).await;
    assert_eq!((found.code, records(&found.body).len()), (0, 1));
    check(
        &client.call(view(3)).await,
        "1 \"can not find message by the offset, 3\"",
    );
    let query = |key: &str| {
        let ext = ExtFields::new()
            .with("topic", "T")
            .with("key", key)
            .with("maxNum", 10)
            .with("beginTimestamp", 0)
            .with("endTimestamp", i64::MAX);
        Command::request(request::QUERY_MESSAGE, ext)
    };
    // The index is built behind the log, and stopping waits for it.
    running.stop().await.unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    for key in ["order1", "U"] {
        let found = client.call(query(key)).await;
        assert_eq!(records(&found.body).len(), 1, "{key}: {}", show(&found));
    }
    assert_eq!(client.call(query("nothing")).await.code, 22);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_slave_refuses_sends_and_serves_pulls_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let slave = || {
        let mut settings = config(dir.path());
        settings.broker_role = broker_engine::config::BrokerRole::Slave;
        settings.broker_id = 1;
        settings
    };
    let busy = "2 \"[REJECTREQUEST]system busy, start flow control for a while\"";
    let running = broker(slave()).await;
    let mut client = Client::connect(running.address).await;
    check(
        &client.call(send("T", "", "x")).await,
        &format!("{busy} MSG_REGION=DefaultRegion TRACE_ON=true"),
    );
    check(&client.call(pull("T", 0, 0, "*", 0)).await, busy);
    check(&client.call(send_back("0", 0, 1)).await, busy);
    running.stop().await.unwrap();
    let mut reading = slave();
    reading.slave_read_enable = true;
    let running = broker(reading).await;
    let mut client = Client::connect(running.address).await;
    assert_eq!(client.call(pull("nowhere", 0, 0, "*", 0)).await.code, 17);
    running.stop().await.unwrap();
}
