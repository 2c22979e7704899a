//! What tools, clients and slaves are answered about topics, groups, offsets and themselves, as text; and registration with a
//! real name server.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod support;

use broker_engine::config::{BrokerConfig, BrokerRole, NamesrvConfig};
use broker_engine::{namesrv, net};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields};
use std::net::SocketAddr;
use std::time::Duration;
use support::{Client, broker, config, pull, send};
use tokio::sync::watch;

/// A request with header fields as `a=1 b=2`.
fn ask(code: i32, fields: &str, body: &str) -> Command {
    let fields = fields.split(' ').filter_map(|field| field.split_once('='));
    let ext = fields.fold(ExtFields::new(), |ext, (name, value)| ext.with(name, value));
    Command::request(code, ext).with_body(body.to_owned())
}

/// An answer as one line: code, remark, fields, body; times of the day are `_`.
fn show(answer: &Command) -> String {
    let mut parts = vec![answer.code.to_string()];
    parts.extend(answer.remark.as_ref().map(|remark| format!("{remark:?}")));
    parts.extend(
        answer
            .ext
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    parts.push(String::from_utf8_lossy(&answer.body).into_owned());
    let mut shown = String::new();
    let line = parts.join(" ");
    let mut digits = String::new();
    for character in line.trim_end().chars().chain([' ']) {
        if character.is_ascii_digit() {
            digits.push(character);
            continue;
        }
        // Milliseconds since the epoch have 13 digits until the year 2286; nothing else here has.
        shown.push_str(if digits.len() == 13 { "_" } else { &digits });
        digits.clear();
        shown.push(character);
    }
    shown.trim_end().to_owned()
}

async fn check(client: &mut Client, code: i32, fields: &str, body: &str, want: &str) {
    let answer = client.call(ask(code, fields, body)).await;
    assert_eq!(show(&answer), want, "request {code} {fields}");
}

const CREATE: &str = "defaultTopic=TBW102 readQueueNums=1 writeQueueNums=2 perm=6 topicFilterType=SINGLE_TAG order=false";

#[tokio::test]
async fn a_topic_is_made_described_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    let create = request::UPDATE_AND_CREATE_TOPIC;
    let system = r#"29 "The topic[TBW102] is conflict with system topic.""#;
    check(c, create, &format!("topic=TBW102 {CREATE}"), "", system).await;
    let colour = r#"1 "unsupported key: colour""#;
    check(
        c,
        create,
        &format!("topic=T attributes=+colour {CREATE}"),
        "",
        r#"1 "delete attribute format is wrong: +colour""#,
    )
    .await;
    let answer = c
        .call(ask(create, &format!("topic=T {CREATE}"), "").with("attributes", "+colour=red"))
        .await;
    assert_eq!(show(&answer), colour);
    let answer = c
        .call(
            ask(create, &format!("topic=T {CREATE}"), "").with("attributes", "+message.type=FIFO"),
        )
        .await;
    assert_eq!(show(&answer), "0");
    let one = r#"{"attributes":{"message.type":"FIFO"},"order":false,"perm":6,"readQueueNums":1,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":2}"#;
    check(
        c,
        request::GET_TOPIC_CONFIG,
        "topic=T",
        "",
        &format!("0 {one}"),
    )
    .await;
    c.call(send("T", "", "hello")).await;
    let stats = r#"0 {"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":_,"maxOffset":1,"minOffset":0},{"brokerName":"broker-a","queueId":1,"topic":"T"}:{"lastUpdateTimestamp":0,"maxOffset":0,"minOffset":0}},"topicPutTps":1.0}"#;
    let answer = c
        .call(ask(request::GET_TOPIC_STATS_INFO, "topic=T", ""))
        .await;
    // The rate depends on how soon the question came.
    let shown = show(&answer);
    assert_eq!(
        shown.split(r#","topicPutTps""#).next(),
        stats.split(r#","topicPutTps""#).next()
    );
    let page = r#"0 totalTopicNum=14 {"dataVersion":{"counter":1,"stateVersion":0,"timestamp":_},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"topicConfigTable":{"T":"#;
    let answer = c
        .call(ask(
            request::GET_ALL_TOPIC_CONFIG,
            "topicSeq=0 maxTopicNum=2000",
            "",
        ))
        .await;
    let shown = show(&answer);
    assert!(shown.contains(&format!(r#""T":{one}"#)), "{shown}");
    assert_eq!(
        shown.split(r#""topicConfigTable""#).next(),
        page.split(r#""topicConfigTable""#).next()
    );
    check(c, request::DELETE_TOPIC_IN_BROKER, "topic=T", "", "0").await;
    check(
        c,
        request::GET_TOPIC_CONFIG,
        "topic=T",
        "",
        r#"17 "No topic in this broker. topic: T""#,
    )
    .await;
    check(
        c,
        request::GET_TOPIC_STATS_INFO,
        "topic=T",
        "",
        r#"17 "topic[T] not exist""#,
    )
    .await;
    check(
        c,
        request::GET_MAX_OFFSET,
        "topic=T queueId=0",
        "",
        "0 offset=0",
    )
    .await;
    check(c, 9999, "", "", r#"3 " request type 9999 not supported""#).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_group_is_set_described_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    let body = r#"{"groupName":"g","retryMaxTimes":3}"#;
    check(
        c,
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP,
        "",
        body,
        "0",
    )
    .await;
    let one = r#"0 {"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":3,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;
    check(c, request::GET_SUBSCRIPTIONGROUP_CONFIG, "group=g", "", one).await;
    check(
        c,
        request::UPDATE_AND_GET_GROUP_FORBIDDEN,
        "group=g topic=T readable=false",
        "",
        r#"0 "" {"group":"g","readable":false,"topic":"T"}"#,
    )
    .await;
    check(
        c,
        request::DELETE_SUBSCRIPTIONGROUP,
        "groupName=g cleanOffset=true",
        "",
        "0",
    )
    .await;
    let answer = c
        .call(ask(request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG, "", ""))
        .await;
    let shown = show(&answer);
    assert!(shown.starts_with(r#"0 totalGroupNum=8 {"dataVersion":{"counter":3,"stateVersion":0,"timestamp":_},"forbiddenTable":{},"#), "{shown}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_slave_makes_no_topic_but_lets_one_be_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = config(dir.path());
    settings.broker_role = BrokerRole::Slave;
    settings.broker_id = 1;
    let running = broker(settings).await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    let create = format!("topic=T {CREATE}");
    check(
        c,
        request::UPDATE_AND_CREATE_TOPIC,
        &create,
        "",
        r#"1 "Can't modify topic or subscription group from slave broker, please execute it from master broker.""#,
    )
    .await;
    check(c, request::DELETE_TOPIC_IN_BROKER, "topic=T", "", "0").await;
    running.stop().await.unwrap();
}

fn heartbeat(id: &str) -> String {
    format!(
        r#"{{"clientID":"{id}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[{{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"T"}}],"unitMode":false}}],"heartbeatFingerprint":0,"producerDataSet":[{{"groupName":"p"}}],"withoutSub":false}}"#
    )
}

#[tokio::test]
async fn consumers_are_listed_told_of_each_other_and_asked_for_their_state() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut first = Client::connect(running.address).await;
    let mut second = Client::connect(running.address).await;
    let mut tool = Client::connect(running.address).await;
    let alive = "0 IS_SUB_CHANGE=true IS_SUPPORT_HEART_BEAT_V2=true";
    async fn told(client: &mut Client) {
        let notice = client.read().await;
        assert_eq!(
            (notice.code, notice.is_oneway()),
            (request::NOTIFY_CONSUMER_IDS_CHANGED, true)
        );
        assert_eq!(notice.ext.get("consumerGroup"), Some("g"));
    }
    async fn beat(client: &mut Client, id: &str, want: &str) {
        client
            .write(vec![ask(request::HEART_BEAT, "", &heartbeat(id))])
            .await;
        // The notice about oneself comes before the answer.
        told(client).await;
        assert_eq!(show(&client.read().await), want);
    }
    beat(&mut first, "c1", alive).await;
    let list = request::GET_CONSUMER_LIST_BY_GROUP;
    check(
        &mut tool,
        list,
        "consumerGroup=g",
        "",
        r#"0 {"consumerIdList":["c1"]}"#,
    )
    .await;
    check(
        &mut tool,
        list,
        "consumerGroup=h",
        "",
        r#"1 "no consumer for this group, h""#,
    )
    .await;
    beat(&mut second, "c2", alive).await;
    told(&mut first).await;
    check(
        &mut tool,
        list,
        "consumerGroup=g",
        "",
        r#"0 {"consumerIdList":["c1","c2"]}"#,
    )
    .await;
    check(
        &mut tool,
        request::QUERY_TOPIC_CONSUME_BY_WHO,
        "topic=T",
        "",
        r#"0 {"groupList":["g"]}"#,
    )
    .await;
    let answer = tool
        .call(ask(request::GET_TOPIC_CONFIG, "topic=%RETRY%g", ""))
        .await;
    assert_eq!(
        answer.code,
        response::SUCCESS,
        "the group's retry topic stands"
    );
    check(
        &mut tool,
        request::GET_CONSUMER_CONNECTION_LIST,
        "consumerGroup=h",
        "",
        r#"206 "the consumer group[h] not online""#,
    )
    .await;
    check(
        &mut tool,
        request::GET_PRODUCER_CONNECTION_LIST,
        "producerGroup=q",
        "",
        r#"1 "the producer group[q] not exist""#,
    )
    .await;
    // mqadmin producer prints the address as it comes.
    let producers = show(&tool.call(ask(request::GET_ALL_PRODUCER_INFO, "", "")).await);
    assert!(
        producers.contains(r#""remoteIP":"/127.0.0.1:"#),
        "{producers}"
    );
    // mqadmin queryCq prints the filter's data when there is any text: Java says null for a list of tags.
    tool.call(send("T", "", "a")).await;
    let mut shown = String::new();
    for (group, data) in [("nobody", "nobody@T is not online!"), ("g", "null")] {
        let asked = format!("topic=T queueId=0 index=0 count=1 consumerGroup={group}");
        let code = request::QUERY_CONSUME_QUEUE;
        shown = show(&tool.call(ask(code, &asked, "")).await);
        let start = format!(r#"0 {{"filterData":"{data}","maxQueueIndex":1,"#);
        assert!(shown.starts_with(&start), "{shown}");
    }
    assert!(shown.contains(r#""subString":"*""#), "{shown}");

    let opaque = tool
        .write(vec![ask(
            request::GET_CONSUMER_RUNNING_INFO,
            "consumerGroup=g clientId=c1",
            "",
        )])
        .await[0];
    let asked = first.read().await;
    assert_eq!(
        (asked.code, asked.ext.get("clientId")),
        (request::GET_CONSUMER_RUNNING_INFO, Some("c1"))
    );
    first
        .answer(
            asked
                .response(response::SUCCESS)
                .with_body(r#"{"jstack":"x"}"#),
        )
        .await;
    let relayed = tool.read().await;
    assert_eq!(
        (relayed.opaque, show(&relayed)),
        (opaque, r#"0 {"jstack":"x"}"#.to_owned())
    );
    check(
        &mut tool,
        request::GET_CONSUMER_RUNNING_INFO,
        "consumerGroup=g clientId=c9",
        "",
        r#"1 "The Consumer <g> <c9> not online""#,
    )
    .await;

    drop(second);
    told(&mut first).await;
    check(
        &mut tool,
        list,
        "consumerGroup=g",
        "",
        r#"0 {"consumerIdList":["c1"]}"#,
    )
    .await;
    check(
        &mut first,
        request::UNREGISTER_CLIENT,
        "clientID=c1 consumerGroup=g producerGroup=p",
        "",
        "0",
    )
    .await;
    check(
        &mut tool,
        list,
        "consumerGroup=g",
        "",
        r#"1 "no consumer for this group, g""#,
    )
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn queues_are_locked_for_one_client() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    let queue = r#"{"brokerName":"broker-a","queueId":0,"topic":"T"}"#;
    let body = |id: &str| {
        format!(
            r#"{{"clientId":"{id}","consumerGroup":"g","mqSet":[{queue}],"onlyThisBroker":false}}"#
        )
    };
    let held = format!(r#"0 {{"lockOKMQSet":[{queue}]}}"#);
    check(c, request::LOCK_BATCH_MQ, "", &body("c1"), &held).await;
    check(
        c,
        request::LOCK_BATCH_MQ,
        "",
        &body("c2"),
        r#"0 {"lockOKMQSet":[]}"#,
    )
    .await;
    check(c, request::UNLOCK_BATCH_MQ, "", &body("c2"), "0").await;
    check(c, request::UNLOCK_BATCH_MQ, "", &body("c1"), "0").await;
    check(c, request::LOCK_BATCH_MQ, "", &body("c2"), &held).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn offsets_are_kept_measured_and_reset() {
    let dir = tempfile::tempdir().unwrap();
    let running = broker(config(dir.path())).await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    for body in ["a", "b", "c"] {
        c.call(send("T", "", body)).await;
    }
    let (query, update) = (
        request::QUERY_CONSUMER_OFFSET,
        request::UPDATE_CONSUMER_OFFSET,
    );
    let at = "consumerGroup=CG topic=T queueId=0";
    check(
        c,
        update,
        &format!("{at} commitOffset=2"),
        "",
        r#"26 "Group CG not exist!""#,
    )
    .await;
    // The first pull makes the group.
    c.call(pull("T", 0, 0, "*", 0)).await;
    check(c, query, at, "", "0 offset=0").await;
    check(
        c,
        query,
        &format!("{at} setZeroIfNotFound=false"),
        "",
        r#"22 "Not found, do not set to zero, maybe this group boot first""#,
    )
    .await;
    check(
        c,
        query,
        "consumerGroup=CG topic=T queueId=1",
        "",
        r#"22 "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first""#,
    )
    .await;
    check(c, update, &format!("{at} commitOffset=2"), "", "0").await;
    check(c, query, at, "", "0 offset=2").await;
    check(
        c,
        request::GET_MAX_OFFSET,
        "topic=T queueId=0",
        "",
        "0 offset=3",
    )
    .await;
    check(
        c,
        request::GET_MIN_OFFSET,
        "topic=T queueId=0",
        "",
        "0 offset=0",
    )
    .await;
    check(
        c,
        request::SEARCH_OFFSET_BY_TIMESTAMP,
        "topic=T queueId=0 timestamp=0",
        "",
        "0 offset=0",
    )
    .await;
    check(
        c,
        request::GET_EARLIEST_MSG_STORETIME,
        "topic=T queueId=0",
        "",
        "0 timestamp=_",
    )
    .await;
    check(
        c,
        request::GET_EARLIEST_MSG_STORETIME,
        "topic=T queueId=1",
        "",
        "0 timestamp=-1",
    )
    .await;
    let shown = show(
        &c.call(ask(request::GET_CONSUME_STATS, "consumerGroup=CG", ""))
            .await,
    );
    let first = r#""offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":3,"consumerOffset":2,"lastTimestamp":_,"pullOffset":2}"#;
    assert!(shown.contains(first), "{shown}");
    check(
        c,
        request::CLONE_GROUP_OFFSET,
        "srcGroup=CG destGroup=other topic=T offline=true",
        "",
        "0",
    )
    .await;
    check(
        c,
        query,
        "consumerGroup=other topic=T queueId=0",
        "",
        "0 offset=2",
    )
    .await;

    let reset = request::INVOKE_BROKER_TO_RESET_OFFSET;
    check(
        c,
        reset,
        "group=CG topic=T queueId=0 offset=9 timestamp=-1 isForce=true",
        "",
        r#"1 "Target offset 9 not in consume queue range [0-3]""#,
    )
    .await;
    check(
        c,
        reset,
        "group=nobody topic=T timestamp=-1 isForce=true",
        "",
        r#"26 "Group nobody does not exist""#,
    )
    .await;
    check(
        c,
        reset,
        "group=CG topic=T queueId=0 offset=1 timestamp=-1 isForce=true",
        "",
        r#"0 {"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:1}}"#,
    )
    .await;
    check(
        c,
        update,
        &format!("{at} commitOffset=3"),
        "",
        r#"0 "Offset has been previously reset""#,
    )
    .await;
    check(c, query, at, "", "0 offset=1").await;
    let moved = c.call(pull("T", 0, 3, "*", 0)).await;
    assert_eq!(
        (moved.code, moved.ext.get("nextBeginOffset")),
        (response::PULL_OFFSET_MOVED, Some("1"))
    );
    check(c, update, &format!("{at} commitOffset=3"), "", "0").await;
    running.stop().await.unwrap();

    let again = broker(config(dir.path())).await;
    let mut client = Client::connect(again.address).await;
    check(&mut client, query, at, "", "0 offset=3").await;
    again.stop().await.unwrap();
}

/// A port that is free together with the VIP port two below and the HA port above it.
fn free_port() -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    loop {
        let port = free(0)
            .and_then(|socket| socket.local_addr().ok())
            .expect("the system has ports")
            .port();
        if port > 1024
            && port < u16::MAX
            && [port - 2, port, port + 1]
                .into_iter()
                .all(|port| free(port).is_some())
        {
            return port;
        }
    }
}

#[tokio::test]
async fn properties_and_figures_are_told_and_only_live_properties_change() {
    let dir = tempfile::tempdir().unwrap();
    // An update checks the whole of the properties, and port 0 is no broker's port.
    let running = broker(BrokerConfig {
        listen_port: free_port(),
        ..config(dir.path())
    })
    .await;
    let mut client = Client::connect(running.address).await;
    let c = &mut client;
    let update = request::UPDATE_BROKER_CONFIG;
    check(c, update, "", "maxMessageSize=1024", "0").await;
    let refused = r#"16 "storePathRootDir cannot be changed in a running node: it is not on the list of live properties""#;
    check(c, update, "", "storePathRootDir=/tmp", refused).await;
    let text = show(&c.call(ask(request::GET_BROKER_CONFIG, "", "")).await);
    assert!(
        text.starts_with(r#"0 version={"counter":1,"stateVersion":0,"timestamp":_} "#),
        "{text}"
    );
    assert!(text.contains("\nmaxMessageSize=1024\n"), "{text}");
    // Read by `mqadmin exportConfigs` and `exportMetrics`.
    assert!(text.contains("\nuseTLS=false\n"), "{text}");
    let processors = std::thread::available_parallelism().unwrap();
    let line = format!("\nclientCallbackExecutorThreads={processors}");
    assert!(text.contains(&line), "{text}");
    let epochs = request::GET_BROKER_EPOCH_CACHE;
    let refused = r#"1 "this request only for controllerMode ""#;
    check(c, epochs, "", "", refused).await;

    c.call(send("T", "", "a")).await;
    let answer = c.call(ask(request::GET_BROKER_RUNTIME_INFO, "", "")).await;
    let table: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let told = |key: &str| {
        table["table"][key]
            .as_str()
            .unwrap_or_else(|| panic!("{key} is told"))
            .to_owned()
    };
    assert_eq!(told("brokerVersionDesc"), "V5_3_3");
    assert_eq!(told("msgPutTotalTodayNow"), "1");
    assert_eq!(told("getTransferredTps").split(' ').count(), 3);
    for number in [
        "timerReadBehind",
        "timerEnqueueTps",
        "pageCacheLockTimeMills",
        "commitLogDiskRatio",
        "earliestMessageTimeStamp",
    ] {
        told(number)
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("{number} is a number"));
    }
    let stats = request::VIEW_BROKER_STATS_DATA;
    check(
        c,
        stats,
        "statsName=TOPIC_PUT_NUMS statsKey=nobody",
        "",
        r#"1 "The stats <TOPIC_PUT_NUMS> <nobody> not exist""#,
    )
    .await;
    let shown = show(
        &c.call(ask(stats, "statsName=TOPIC_PUT_NUMS statsKey=T", ""))
            .await,
    );
    assert!(
        shown.starts_with(r#"0 {"statsDay":{"avgpt":1.0,"sum":1,"tps":"#),
        "{shown}"
    );
    running.stop().await.unwrap();
}

/// A name server on a port; it serves until the sender says stop.
async fn start_namesrv(
    address: SocketAddr,
    root: &std::path::Path,
) -> (SocketAddr, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
    let listener = net::bind(address).await.expect("the port is free");
    let address = listener.local_addr().unwrap();
    let config = NamesrvConfig {
        kv_config_path: root.join("kvConfig.json").display().to_string(),
        ..NamesrvConfig::default()
    };
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(async move {
        namesrv::serve(listener, config, stopped)
            .await
            .expect("the name server serves");
    });
    (address, stop, task)
}

/// Whether the name server has a route of a topic.
async fn routed(address: SocketAddr, topic: &str) -> bool {
    let mut client = Client::connect(address).await;
    let answer = client
        .call(ask(
            request::GET_ROUTEINFO_BY_TOPIC,
            &format!("topic={topic}"),
            "",
        ))
        .await;
    answer.code == response::SUCCESS
}

#[tokio::test]
async fn a_broker_is_registered_its_new_topics_are_routed_at_once_and_its_stop_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (address, stop, task) = start_namesrv("127.0.0.1:0".parse().unwrap(), dir.path()).await;
    // The second name server is dead, which must hold up nothing.
    let running = broker(BrokerConfig {
        namesrv_addr: format!("{address};127.0.0.1:1"),
        ..config(dir.path())
    })
    .await;
    running
        .broker
        .registration
        .registered()
        .wait_for(|registered| *registered)
        .await
        .unwrap();
    assert!(routed(address, "TBW102").await);
    let mut client = Client::connect(running.address).await;
    check(
        &mut client,
        request::UPDATE_AND_CREATE_TOPIC,
        &format!("topic=T {CREATE}"),
        "",
        "0",
    )
    .await;
    assert!(routed(address, "T").await);

    // The answer to a registration names the ordered topics.
    let mut namesrv = Client::connect(address).await;
    let put = "namespace=ORDER_TOPIC_CONFIG key=T value=broker-a:2";
    check(&mut namesrv, request::PUT_KV_CONFIG, put, "", "0").await;
    let mut changes = running.broker.topics.changes();
    changes.borrow_and_update();
    running.broker.registration.refresh();
    tokio::time::timeout(Duration::from_secs(20), changes.changed())
        .await
        .expect("the table changes")
        .unwrap();
    let config = show(
        &client
            .call(ask(request::GET_TOPIC_CONFIG, "topic=T", ""))
            .await,
    );
    assert!(config.contains(r#""order":true"#), "{config}");

    stop.send(true).unwrap();
    task.await.unwrap();
    let (address, stop, task) = start_namesrv(address, dir.path()).await;
    let learned = async { while !routed(address, "T").await {} };
    tokio::time::timeout(Duration::from_secs(20), learned)
        .await
        .expect("a restarted name server learns of the broker");

    running.stop().await.unwrap();
    assert!(!routed(address, "T").await);
    stop.send(true).unwrap();
    task.await.unwrap();
}
