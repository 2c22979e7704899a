//! SQL92 filters as consumers see them.
#![allow(clippy::unwrap_used)]

mod support;
use broker_engine::config::BrokerConfig;
use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields};
use std::path::Path;
use support::*;

fn filtering(root: &Path) -> BrokerConfig {
    BrokerConfig {
        enable_property_filter: true,
        ..config(root)
    }
}

/// A pull of queue 0 that brings its own expression.
fn pull_sql(expression: &str, offset: i64, suspend: i64) -> Command {
    pull("T", 0, offset, expression, suspend).with("expressionType", "SQL92")
}

/// Sends a heartbeat. The broker may first tell the group that its members changed.
async fn beat(client: &mut Client, heartbeat: Command) {
    client.write(vec![heartbeat]).await;
    loop {
        let answer = client.read().await;
        if answer.is_response() {
            assert_eq!(answer.code, 0, "{}", show(&answer));
            return;
        }
        assert_eq!(answer.code, request::NOTIFY_CONSUMER_IDS_CHANGED);
    }
}

fn bodies(answer: &Command) -> Vec<String> {
    let quoted = |record: &String| record.split('"').nth(1).unwrap().to_owned();
    records(&answer.body).iter().map(quoted).collect()
}

#[tokio::test]
async fn a_list_of_tags_without_a_tag_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(config(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    client.call(send("T", "TAGS=a", "one")).await;
    for (expression, code) in [("||", 23), ("||||", 23), ("a ||", 0), ("", 0)] {
        let pulled = client.call(pull("T", 0, 0, expression, 0)).await;
        assert_eq!(pulled.code, code, "{expression}: {}", show(&pulled));
    }
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn only_messages_whose_properties_pass_are_pulled() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(filtering(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    for (body, properties) in [
        ("one", "n=1 TAGS=a"),
        ("two", "n=2 TAGS=b"),
        ("text", "n=x"),
        ("none", ""),
    ] {
        client.call(send("T", properties, body)).await;
    }
    for (expression, want) in [
        ("n > 1", &["two"][..]),
        ("n IS NOT NULL AND TAGS IS NULL", &["text"]),
        ("n IS NULL OR TAGS = 'a'", &["one", "none"]),
        ("TRUE", &["one", "two", "text", "none"]),
    ] {
        let pulled = client.call(pull_sql(expression, 0, 0)).await;
        assert_eq!(
            (pulled.code, bodies(&pulled)),
            (0, want.iter().map(|s| (*s).into()).collect()),
            "{expression}"
        );
        assert_eq!(pulled.ext.i64("nextBeginOffset").unwrap(), 4);
    }
    check(
        &client.call(pull_sql("n > 5", 0, 0)).await,
        "20 \"NO_MATCHED_MESSAGE\" groupSysFlag=0 maxOffset=4 minOffset=0 nextBeginOffset=4 suggestWhichBrokerId=0 topicSysFlag=0",
    );
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_group_reads_by_the_expression_of_its_heartbeat_and_waits_for_what_passes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(filtering(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    let mut consumer = Client::connect(broker.address).await;
    client.call(send("T", "n=1", "one")).await;
    let heartbeat = |expression: &str, version: i64| {
        let body = format!(
            r#"{{"clientID":"c","producerDataSet":[],"consumerDataSet":[{{"groupName":"CG","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","unitMode":false,"subscriptionDataSet":[
            {{"topic":"T","subString":"{expression}","expressionType":"SQL92","subVersion":{version},"classFilterMode":false,"tagsSet":[],"codeSet":[]}}]}}]}}"#
        );
        Command::request(request::HEART_BEAT, ExtFields::new()).with_body(body)
    };
    let by_heartbeat = |offset: i64, suspend: i64| {
        pull("T", 0, offset, "", suspend).with("sysFlag", if suspend == 0 { 0 } else { 2 })
    };
    beat(&mut consumer, heartbeat("n >", 1)).await;
    check(
        &consumer.call(by_heartbeat(0, 0)).await,
        "27 \"The broker's consumer filter data is not exist!Your expression may be wrong!\"",
    );
    beat(&mut consumer, heartbeat("n > 1", 2)).await;
    let passed_over = consumer.call(by_heartbeat(0, 0)).await;
    assert_eq!(
        (
            passed_over.code,
            passed_over.ext.i64("nextBeginOffset").unwrap()
        ),
        (20, 1)
    );
    consumer.write_to_wait(by_heartbeat(1, 30_000)).await;
    client.call(send("T", "n=2", "two")).await;
    assert_eq!(bodies(&consumer.read().await), ["two"]);
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn an_expression_that_does_not_compile_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(filtering(dir.path())).await;
    let mut client = Client::connect(broker.address).await;
    client.call(send("T", "", "x")).await;
    check(
        &client.call(pull_sql("n >", 0, 0)).await,
        "23 \"parse the consumer's subscription failed\"",
    );
    let ask = |kind: &str, expression: &str| {
        let body = format!(
            r#"{{"clientId":"c","group":"CG","subscriptionData":{{"topic":"T","subString":"{expression}","expressionType":"{kind}"}}}}"#
        );
        Command::request(request::CHECK_CLIENT_CONFIG, ExtFields::new()).with_body(body)
    };
    check(&client.call(ask("SQL92", "n > 1")).await, "0");
    check(&client.call(ask("TAG", "a || b")).await, "0");
    check(
        &client.call(ask("SQL92", "n >")).await,
        "23 \"Invalid MessageSelector. at character 4: a value, a property or ( is missing\"",
    );
    check(
        &client.call(ask("XPATH", "n")).await,
        "23 \"Invalid MessageSelector. there are no expressions of the type XPATH\"",
    );
    broker.stop().await.unwrap();
}
