//! Bytes of strangers on the broker's port: whatever they are, their own connection may end, and nothing else happens.

// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod support;

use broker_engine::broker::RunningBroker;
use broker_engine::config::NamesrvConfig;
use broker_engine::{namesrv, net};
use bytes::Bytes;
use rocketmq_protocol::batch::{self, BatchEntry};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, Serialize};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Client, broker, config, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Panics of any thread since the test began: one in a connection's task would end that connection and be heard of by nobody.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The tests of this file share the count, and one that fails must not fail the others.
        if panic
            .location()
            .is_some_and(|place| place.file() != file!())
        {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
        shown(panic);
    }));
}

async fn running() -> (tempfile::TempDir, RunningBroker) {
    let directory = tempfile::tempdir().unwrap();
    let running = broker(config(directory.path())).await;
    (directory, running)
}

/// The kept inputs of a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

fn framed(kind: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + header.len() + body.len()).unwrap();
    let header_len = u32::try_from(header.len()).unwrap();
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend((u32::from(kind) << 24 | header_len).to_be_bytes());
    frame.extend(header);
    frame.extend(body);
    frame
}

#[tokio::test]
async fn hostile_frames_end_no_connection_but_their_own() {
    count_panics();
    let (_directory, broker) = running().await;
    let address = broker.address;
    let mut neighbour = Client::connect(address).await;
    // The first byte of these steers the target.
    let mut streams: Vec<Vec<u8>> = (corpus("frame").iter())
        .map(|input| input[1..].to_vec())
        .collect();
    for (kind, target) in [(0, "header_json"), (1, "header_binary")] {
        streams.extend(
            corpus(target)
                .iter()
                .map(|header| framed(kind, header, b"body")),
        );
    }
    assert!(streams.len() > 100);
    for (at, bytes) in streams.iter().enumerate() {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        // A frame cut short ends with the connection.
        stranger.shutdown().await.unwrap();
        let mut answers = vec![];
        // A connection that the broker closes with bytes unread is reset: that is an end as well.
        let _ = stranger.read_to_end(&mut answers).await;
        if at % 16 == 0 {
            let answer = neighbour.call(send("T", "", "still here")).await;
            assert_eq!(answer.code, 0, "{:?}", answer.remark);
        }
    }
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn properties_with_a_zero_byte_are_refused_alone_and_in_a_batch() {
    count_panics();
    let (_directory, broker) = running().await;
    let mut client = Client::connect(broker.address).await;
    let single = send("T", "a=b\0c", "body");
    let mut body = vec![];
    for properties in ["a\u{1}b\u{2}", "a\u{1}b\0c\u{2}"] {
        let entry = BatchEntry {
            flag: 0,
            body: b"body",
            properties,
        };
        batch::push(&entry, &mut body).unwrap();
    }
    let mut batch = send("T", "", "");
    batch.code = request::SEND_BATCH_MESSAGE;
    batch.body = Bytes::from(body);
    for request in [single, batch] {
        let answer = client.call(request).await;
        assert_eq!(answer.code, response::MESSAGE_ILLEGAL);
        assert!(answer.remark.unwrap().contains("zero byte"));
    }
    assert_eq!(client.call(send("T", "", "whole")).await.code, 0);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    broker.stop().await.unwrap();
}

/// What requests carry, read out of the handlers: a name that is missing here is only tried less.
const FIELDS: &str = "acceptStandardJsonOnly attributes beginTimestamp bornTimestamp boundaryType brokerAddr brokerId brokerName \
    changed cleanOffset clientID clientId cluster clusterName commitLogOffset commitOffset commitOrRollback compareGroup compressed \
    consumerGroup count dataVersion defaultTopic delayLevel destGroup enableActingMaster endTimestamp expressionType flag \
    fromTransactionCheck group groupName haServerAddr index isForce isOrder key masterAddr maxMsgBytes maxMsgNums maxNum \
    maxReconsumeTimes msgId namespace offline offset offsetMsgId order originMsgId originTopic perm producerGroup properties queueId \
    queueOffset readQueueNums readable recallHandle reconsumeTimes setZeroIfNotFound srcGroup statsKey statsName subVersion subscription \
    suspendTimeoutMillis sysFlag timestamp topic topicFilterType topicList topicSysFlag tranStateTableOffset transactionId unitMode value \
    writeQueueNums a b c d e f g h i j k l m n";

/// Names that exist lead a request further than names that do not, and so do the few values that are checked first.
const FIXED: &[&[(&str, &str)]] = &[
    &[],
    &[
        ("topic", "T"),
        ("b", "T"),
        ("consumerGroup", "G"),
        ("group", "G"),
        ("a", "G"),
    ],
    &[
        ("topic", "T"),
        ("defaultTopic", "TBW102"),
        ("perm", "6"),
        ("topicFilterType", "SINGLE_TAG"),
        ("order", "false"),
        ("attributes", ""),
        ("topicSysFlag", "0"),
    ],
];

/// What stands in all of them at once, apart from those that [`FIXED`] says otherwise of.
const VALUES: [&str; 10] = [
    "",
    "0",
    "1",
    "-1",
    "2147483647",
    "-2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "T",
    "%RETRY%\u{1}\u{2} ../é",
];

fn bodies() -> Vec<Bytes> {
    let mut run = vec![];
    let entry = BatchEntry {
        flag: -1,
        body: b"b",
        properties: "DELAY\u{1}-1\u{2}TIMER_DELAY_MS\u{1}9223372036854775807\u{2}INNER_NUM\u{1}-5\u{2}",
    };
    batch::push(&entry, &mut run).unwrap();
    [
        &b""[..],
        b"{}",
        b"[",
        b"{\"topicConfigList\":[{\"topicName\":\"T\",\"readQueueNums\":2147483647}],\"mqSet\":[{\"queueId\":-1}]}",
        &run,
        &[0xff; 64],
    ]
    .map(Bytes::copy_from_slice)
    .into()
}

/// Every request code with every value in all fields, over one connection, which must live on and answer a question after each code.
async fn every_code(address: std::net::SocketAddr, question: &Command) {
    let bodies = bodies();
    let known = (0..210_000).filter(|code| request::name(*code) != "UNKNOWN");
    for code in known.chain([-1, 9_999]) {
        let mut client = Client::connect(address).await;
        let mut requests = vec![];
        for (at, value) in VALUES.iter().enumerate() {
            for names in FIXED {
                let mut ext = ExtFields::new();
                for name in FIELDS.split_ascii_whitespace() {
                    ext.set(name, value);
                }
                for (name, value) in *names {
                    ext.set(name, value);
                }
                for body in &bodies {
                    let mut request = Command::request(code, ext.clone()).with_body(body.clone());
                    if at % 2 == 1 {
                        request.serialize = Serialize::RocketMq;
                    }
                    requests.push(request);
                }
            }
        }
        requests.push(Command::request(code, ExtFields::new()));
        requests.push(question.clone());
        let last = client.write(requests).await.pop();
        // What comes before may be held, or a question to this client.
        loop {
            let answer = client.read().await;
            if answer.is_response() && Some(answer.opaque) == last {
                break;
            }
        }
        assert_eq!(PANICS.load(Ordering::SeqCst), 0, "after code {code}");
    }
}

#[tokio::test]
async fn no_request_code_breaks_the_broker_whatever_its_fields_say() {
    count_panics();
    let (_directory, broker) = running().await;
    every_code(
        broker.address,
        &Command::request(request::GET_MIN_OFFSET, ExtFields::new()),
    )
    .await;
    let answer = Client::connect(broker.address)
        .await
        .call(send("After", "", "well"))
        .await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn no_request_code_breaks_the_name_server_whatever_its_fields_say() {
    count_panics();
    let directory = tempfile::tempdir().unwrap();
    let listener = net::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = NamesrvConfig {
        kv_config_path: directory.path().join("kv.json").display().to_string(),
        ..NamesrvConfig::default()
    };
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(namesrv::serve(listener, config, stopped));
    every_code(
        address,
        &Command::request(request::GET_BROKER_CLUSTER_INFO, ExtFields::new()),
    )
    .await;
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    stop.send(true).unwrap();
    serving.await.unwrap().unwrap();
}
