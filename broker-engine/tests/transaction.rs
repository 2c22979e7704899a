//! Transactional messages as producers and consumers see them.
#![allow(clippy::unwrap_used)]

mod support;
use broker_engine::config::BrokerConfig;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, message_id};
use std::path::Path;
use std::time::Duration;
use support::*;

const COMMIT: i32 = 8;
const ROLLBACK: i32 = 12;
const HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";

/// Half messages are old enough to be asked about at once, and that often.
fn impatient(root: &Path) -> BrokerConfig {
    BrokerConfig {
        transaction_time_out: Duration::ZERO,
        transaction_check_interval: Duration::from_millis(20),
        transaction_op_batch_interval: Duration::from_millis(5),
        ..config(root)
    }
}

fn half(key: &str) -> Command {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    send(
        "T",
        &format!("UNIQ_KEY={key} TRAN_MSG=true PGROUP=PG TAGS=a"),
        key,
    )
    .with("f", 4)
    .with("g", now)
}

/// Where a half message lies: its queue and log offsets.
fn place(sent: &Command) -> (i64, i64) {
    assert_eq!(sent.code, response::SUCCESS, "{}", show(sent));
    let (_, at) = message_id::parse(sent.ext.get("msgId").unwrap()).unwrap();
    (sent.ext.i64("queueOffset").unwrap(), at)
}

fn end((queue_offset, at): (i64, i64), decision: i32, from_check: bool) -> Command {
    let ext = ExtFields::new()
        .with("producerGroup", "PG")
        .with("tranStateTableOffset", queue_offset)
        .with("commitLogOffset", at)
        .with("commitOrRollback", decision)
        .with("fromTransactionCheck", from_check);
    Command::request(request::END_TRANSACTION, ext)
}

fn produces() -> Command {
    Command::request(request::HEART_BEAT, ExtFields::new()).with_body(
        r#"{"clientID":"c","producerDataSet":[{"groupName":"PG"}],"consumerDataSet":[]}"#,
    )
}

/// The next question the broker asks this producer: about which message, and where its copy lies.
async fn asked(client: &mut Client) -> (String, (i64, i64)) {
    let question = client.read().await;
    assert_eq!(
        question.code,
        request::CHECK_TRANSACTION_STATE,
        "{}",
        show(&question)
    );
    let field = |name| question.ext.i64(name).unwrap();
    (
        question.ext.get("transactionId").unwrap().to_owned(),
        (field("tranStateTableOffset"), field("commitLogOffset")),
    )
}

#[tokio::test]
async fn a_message_is_seen_when_it_is_committed_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    let sent = client.call(half("U1")).await;
    check(
        &sent,
        "0 MSG_REGION=DefaultRegion TRACE_ON=true msgId=@0 queueId=0 queueOffset=0 transactionId=U1",
    );
    check(
        &client.call(pull("T", 0, 0, "*", 0)).await,
        "19 \"NO_MATCHED_LOGIC_QUEUE\" groupSysFlag=0 maxOffset=0 minOffset=0 nextBeginOffset=0 suggestWhichBrokerId=0 topicSysFlag=0",
    );
    check(&client.call(end(place(&sent), COMMIT, false)).await, "0");
    let pulled = client.call(pull("T", 0, 0, "a", 0)).await;
    assert_eq!(
        records(&pulled.body),
        [
            "T[0]@0 flag=7 sys=8 retried=0 \"U1\" UNIQ_KEY=U1 TRAN_MSG=true PGROUP=PG TAGS=a \
          MSG_REGION=DefaultRegion TRACE_ON=true CLUSTER=DefaultCluster __transactionId__=U1"
        ]
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn who_may_not_decide_is_refused_with_javas_words() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    let (queue_offset, at) = place(&client.call(half("U1")).await);
    let (_, plain) = place(&client.call(send("T", "", "plain")).await);
    let answers = [
        (
            end((queue_offset, at + 1), COMMIT, false),
            "1 \"Find prepared transaction message failed\"",
        ),
        (
            end((0, plain), COMMIT, false),
            "1 \"Find prepared transaction message failed\"",
        ),
        (
            end((queue_offset + 1, at), ROLLBACK, false),
            "1 \"The transaction state table offset wrong\"",
        ),
        (
            end((queue_offset, at), COMMIT, false).with("producerGroup", "other"),
            "1 \"The producer group wrong\"",
        ),
    ];
    for (request, want) in answers {
        check(&client.call(request).await, want);
    }
    let late = half("U2")
        .with(
            "i",
            text("UNIQ_KEY=U2 TRAN_MSG=true PGROUP=PG CHECK_IMMUNITY_TIME_IN_SECONDS=1"),
        )
        .with("g", 0);
    let late = place(&client.call(late).await);
    check(&client.call(end(late, COMMIT, false)).await, "604");
    check(&client.call(end(late, COMMIT, true)).await, "0");
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_producer_is_asked_about_what_it_left_open_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    // A half message that a round of checks meets before its decision is copied, and the copy is asked about: all is decided
    // before the first round.
    let broker = broker(BrokerConfig {
        transaction_check_interval: Duration::from_secs(1),
        ..impatient(dir.path())
    })
    .await;
    let mut producer = Client::connect(broker.address).await;
    let mut client = Client::connect(broker.address).await;
    let gone = place(&client.call(half("U1")).await);
    check(&client.call(end(gone, ROLLBACK, false)).await, "0");
    let done = place(&client.call(half("U2")).await);
    check(&client.call(end(done, COMMIT, false)).await, "0");
    client.call(half("U3")).await;
    assert_eq!(producer.call(produces()).await.code, response::SUCCESS);
    let (key, copy) = asked(&mut producer).await;
    assert_eq!(key, "U3");
    // It does not know yet, so it is asked again, about a newer copy.
    producer.write(vec![end(copy, 0, true).oneway()]).await;
    let (key, newer) = asked(&mut producer).await;
    assert_eq!(key, "U3");
    assert!(newer > copy);
    producer
        .write(vec![end(newer, COMMIT, true).oneway()])
        .await;
    // The commit wakes the pull that waits behind U2.
    let pulled = client.call(pull("T", 0, 1, "*", 30_000)).await;
    assert_eq!(records(&pulled.body).len(), 1, "{}", show(&pulled));
    assert!(records(&pulled.body)[0].contains("\"U3\""));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_nobody_decides_on_is_given_up_and_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let few = BrokerConfig {
        transaction_check_max: 1,
        ..impatient(dir.path())
    };
    let broker = broker(few).await;
    let mut client = Client::connect(broker.address).await;
    let mut producer = Client::connect(broker.address).await;
    client.call(half("U1")).await;
    assert_eq!(producer.call(produces()).await.code, response::SUCCESS);
    let (key, _) = asked(&mut producer).await;
    assert_eq!(key, "U1");
    let given_up = client
        .call(pull("TRANS_CHECK_MAX_TIME_TOPIC", 0, 0, "*", 0))
        .await;
    // It is moved in the round after the question: wait for it where it goes.
    let given_up = match given_up.code {
        response::SUCCESS => given_up,
        _ => loop {
            let answer = client
                .call(pull("TRANS_CHECK_MAX_TIME_TOPIC", 0, 0, "*", 15_000))
                .await;
            if answer.code == response::SUCCESS {
                break answer;
            }
            tokio::task::yield_now().await;
        },
    };
    let at = rocketmq_protocol::record::View::record(&given_up.body)
        .unwrap()
        .physical_offset();
    let id = message_id::format("127.0.0.1:10911".parse().unwrap(), at);
    let resume = Command::request(
        request::RESUME_CHECK_HALF_MESSAGE,
        ExtFields::new().with("topic", HALF).with("msgId", id),
    );
    check(&client.call(resume).await, "0");
    let (key, copy) = asked(&mut producer).await;
    assert_eq!(key, "U1");
    producer.write(vec![end(copy, COMMIT, true).oneway()]).await;
    let pulled = client.call(pull("T", 0, 0, "*", 30_000)).await;
    assert_eq!(records(&pulled.body).len(), 1, "{}", show(&pulled));
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_open_transaction_survives_a_restart_and_a_closed_one_stays_closed() {
    let dir = tempfile::tempdir().unwrap();
    let first = broker(config(dir.path())).await;
    let mut client = Client::connect(first.address).await;
    let open = place(&client.call(half("U1")).await);
    let closed = place(&client.call(half("U2")).await);
    check(&client.call(end(closed, COMMIT, false)).await, "0");
    // The decision waits for others to share an op message with; the stop writes it.
    first.stop().await.unwrap();
    let again = broker(impatient(dir.path())).await;
    let mut client = Client::connect(again.address).await;
    let mut producer = Client::connect(again.address).await;
    assert_eq!(producer.call(produces()).await.code, response::SUCCESS);
    let (key, copy) = asked(&mut producer).await;
    assert_eq!(key, "U1");
    assert!(copy > open);
    check(&client.call(end(copy, COMMIT, false)).await, "0");
    let pulled = client.call(pull("T", 0, 0, "*", 0)).await;
    let bodies: Vec<bool> = records(&pulled.body)
        .iter()
        .map(|r| r.contains("\"U2\""))
        .collect();
    assert_eq!(bodies, [true, false]);
    again.stop().await.unwrap();
}
