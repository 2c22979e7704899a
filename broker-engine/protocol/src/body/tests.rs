use super::*;
use crate::json;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::{Read, Write};
use std::sync::Arc;

/// The text as Java writes it reads as the value, and the value is written as that text.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, java: &str) {
    assert_eq!(
        json::from_slice::<T>(java.as_bytes()).as_ref(),
        Ok(value),
        "{java}"
    );
    assert_eq!(json::to_fastjson(value), java);
}

fn version() -> DataVersion {
    DataVersion {
        counter: 3,
        state_version: 0,
        timestamp: 1_700_000_000_123,
    }
}

fn queue(queue_id: i32) -> MessageQueue {
    MessageQueue::new("TopicTest", "broker-a", queue_id)
}

#[test]
fn topics_json_is_as_java_writes_it() {
    let topic = TopicConfig::new("T", 8, 6);
    check(
        &TopicConfigSerializeWrapper {
            data_version: version(),
            topic_config_table: BTreeMap::from([(topic.topic_name.clone(), Arc::new(topic))]),
        },
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000123},"topicConfigTable":{"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":8}}}"#,
    );
}

#[test]
fn subscription_group_json_is_as_java_writes_it() {
    check(
        &SubscriptionGroupWrapper {
            data_version: version(),
            forbidden_table: BTreeMap::new(),
            subscription_group_table: BTreeMap::from([(
                "G".into(),
                Arc::new(SubscriptionGroupConfig::new("G")),
            )]),
        },
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000123},"forbiddenTable":{},"subscriptionGroupTable":{"G":{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"G","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}}}"#,
    );
}

#[test]
fn offset_files_have_bare_keys() {
    check(
        &ConsumerOffsetSerializeWrapper {
            data_version: version(),
            offset_table: BTreeMap::from([("T@G".into(), BTreeMap::from([(0, 12), (1, 9)]))]),
        },
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000123},"offsetTable":{"T@G":{0:12,1:9}}}"#,
    );
    check(
        &DelayOffsetSerializeWrapper {
            data_version: version(),
            offset_table: BTreeMap::from([(1, 0), (2, 15)]),
        },
        r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000123},"offsetTable":{1:0,2:15}}"#,
    );
    let java =
        b"{\n\t\"groupTopicMap\":{\"G\":[\"T\"]},\n\t\"offsetTable\":{\"T@G\":{0:12}\n\t}\n}";
    let table: ConsumerOffsetSerializeWrapper = json::from_slice(java).unwrap();
    assert_eq!(table.offset_table["T@G"], BTreeMap::from([(0, 12)]));
}

#[test]
fn tables_by_queue_have_objects_as_keys() {
    check(
        &TopicStatsTable {
            offset_table: BTreeMap::from([(
                queue(0),
                TopicOffset {
                    last_update_timestamp: 5,
                    max_offset: 9,
                    min_offset: 1,
                },
            )]),
            topic_put_tps: 0.0,
        },
        r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:{"lastUpdateTimestamp":5,"maxOffset":9,"minOffset":1}},"topicPutTps":0.0}"#,
    );
    let stats = ConsumeStats {
        consume_tps: 1.5,
        offset_table: BTreeMap::from([
            (
                queue(0),
                OffsetWrapper {
                    broker_offset: 9,
                    consumer_offset: 4,
                    last_timestamp: 0,
                    pull_offset: 6,
                },
            ),
            (
                queue(1),
                OffsetWrapper {
                    broker_offset: 2,
                    consumer_offset: 2,
                    last_timestamp: 7,
                    pull_offset: 2,
                },
            ),
        ]),
    };
    assert_eq!(stats.total_diff(), 5);
    check(
        &stats,
        r#"{"consumeTps":1.5,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:{"brokerOffset":9,"consumerOffset":4,"lastTimestamp":0,"pullOffset":6},{"brokerName":"broker-a","queueId":1,"topic":"TopicTest"}:{"brokerOffset":2,"consumerOffset":2,"lastTimestamp":7,"pullOffset":2}}}"#,
    );
    let reset = ResetOffsetBody {
        offset_table: BTreeMap::from([(queue(2), 17)]),
    };
    check(
        &reset,
        r#"{"offsetTable":{{"brokerName":"broker-a","queueId":2,"topic":"TopicTest"}:17}}"#,
    );
    check(
        &ResetOffsetBodyForC::from(&reset),
        r#"{"offsetTable":[{"brokerName":"broker-a","offset":17,"queueId":2,"topic":"TopicTest"}]}"#,
    );
    check(
        &GetConsumerStatusBody {
            consumer_table: BTreeMap::from([(
                "1@2".into(),
                QueueMap(BTreeMap::from([(queue(0), 1)])),
            )]),
            message_queue_table: BTreeMap::new(),
        },
        r#"{"consumerTable":{"1@2":{{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}:1}},"messageQueueTable":{}}"#,
    );
}

#[test]
fn queues_are_ordered_by_topic_then_broker_then_id() {
    let mut queues = [
        MessageQueue::new("b", "a", 0),
        MessageQueue::new("a", "b", 0),
        MessageQueue::new("a", "a", 10),
        MessageQueue::new("a", "a", 2),
    ];
    queues.sort();
    let text: Vec<_> = queues
        .iter()
        .map(|q| format!("{}{}{}", q.topic, q.broker_name, q.queue_id))
        .collect();
    assert_eq!(text, ["aa2", "aa10", "ab0", "ba0"]);
}

#[test]
fn a_route_is_written_in_the_form_its_client_reads() {
    let route = TopicRouteData {
        broker_datas: vec![BrokerData {
            broker_addrs: BTreeMap::from([(0, "a:10911".into()), (1, "b:11911".into())]),
            broker_name: "broker-é".into(),
            cluster: "C".into(),
            ..BrokerData::default()
        }],
        queue_datas: vec![QueueData {
            broker_name: "broker-a".into(),
            perm: 6,
            read_queue_nums: 8,
            topic_sys_flag: 0,
            write_queue_nums: 8,
        }],
        ..TopicRouteData::default()
    };
    let old = r#"{"brokerDatas":[{"brokerAddrs":{0:"a:10911",1:"b:11911"},"brokerName":"broker-é","cluster":"C","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
    check(&route, old);
    let new = r#"{"brokerDatas":[{"brokerAddrs":{"0":"a:10911","1":"b:11911"},"brokerName":"broker-\u00E9","cluster":"C","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;
    assert_eq!(route.encode(400, false), old);
    assert_eq!(route.encode(401, false), new);
    assert_eq!(route.encode(0, true), new);
    assert_eq!(
        json::from_slice::<TopicRouteData>(new.as_bytes()),
        Ok(route)
    );
}

#[test]
fn cluster_info_has_bare_keys() {
    check(
        &ClusterInfo {
            broker_addr_table: BTreeMap::from([(
                "broker-a".into(),
                BrokerData {
                    broker_addrs: BTreeMap::from([(0, "a:1".into())]),
                    broker_name: "broker-a".into(),
                    cluster: "C".into(),
                    ..BrokerData::default()
                },
            )]),
            cluster_addr_table: BTreeMap::from([("C".into(), vec!["broker-a".into()])]),
        },
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"a:1"},"brokerName":"broker-a","cluster":"C","enableActingMaster":false}},"clusterAddrTable":{"C":["broker-a"]}}"#,
    );
}

const HEARTBEAT: &str = r#"{"clientID":"10.0.0.9@7#1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"G","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":1700000000000,"tagsSet":["TagA"],"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"P"}],"withoutSub":false}"#;

#[test]
fn a_heartbeat_reads_as_java_writes_it_and_as_other_clients_do() {
    let heartbeat: HeartbeatData = json::from_slice(HEARTBEAT.as_bytes()).unwrap();
    check(&heartbeat, HEARTBEAT);
    let mut subscription = SubscriptionData::parse_tags("T", "TagA");
    subscription.sub_version = 1_700_000_000_000;
    assert_eq!(
        heartbeat.consumer_data_set[0].subscription_data_set,
        [subscription]
    );
    // C++: enums by number, numbers as text, members that are missing or null.
    let other = br#"{"clientID":"c","consumerDataSet":[{"groupName":"G","consumeType":0,"messageModel":0,"consumeFromWhere":"NEW_ONE","subscriptionDataSet":[{"topic":"T","subVersion":"17","codeSet":["5",-6],"tagsSet":null}]}],"producerDataSet":null}"#;
    let heartbeat: HeartbeatData = json::from_slice(other).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(
        (
            consumer.consume_type,
            consumer.message_model,
            consumer.consume_from_where
        ),
        (
            ConsumeType::ConsumeActively,
            MessageModel::Broadcasting,
            ConsumeFromWhere::LastOffset
        )
    );
    let subscription = &consumer.subscription_data_set[0];
    assert_eq!(
        (
            subscription.sub_version,
            &subscription.code_set[..],
            &*subscription.sub_string
        ),
        (17, &[5, -6][..], "*")
    );
}

#[test]
fn a_heartbeat_cut_at_any_byte_is_an_error() {
    for n in 0..HEARTBEAT.len() {
        assert!(
            json::from_slice::<HeartbeatData>(&HEARTBEAT.as_bytes()[..n]).is_err(),
            "{n}"
        );
    }
}

#[test]
fn a_tag_expression_passes_the_tags_it_names() {
    let list = SubscriptionData::parse_tags("T", " TagA||TagB || TagA|| ");
    assert_eq!(list.tags_set, ["TagA", "TagB"]);
    // Sign-extended, as the queue entry holds it.
    let code = |tag: &str| i64::from(crate::hash::java_string(tag));
    assert!(list.matches(code("TagA")) && list.matches(code("TagB")));
    assert!(!list.matches(code("TagC")) && !list.matches(0));
    let negative = SubscriptionData::parse_tags("T", "a-tag-with-a-negative-hash!");
    assert!(negative.matches(code("a-tag-with-a-negative-hash!")));
    for all in ["*", ""] {
        let all = SubscriptionData::parse_tags("T", all);
        assert!(
            all.matches(0)
                && all.matches(code("TagC"))
                && all.sub_string == "*"
                && !all.is_empty_list()
        );
    }
    assert!(SubscriptionData::parse_tags("T", "||||").is_empty_list());
    assert!(!list.is_empty_list());
}

#[test]
fn connections_name_their_language() {
    check(
        &ProducerConnection {
            connection_set: vec![ClientConnection {
                client_addr: "10.0.0.9:5".into(),
                client_id: "c".into(),
                language: crate::Language(9),
                version: 479,
            }],
        },
        r#"{"connectionSet":[{"clientAddr":"10.0.0.9:5","clientId":"c","language":"GO","version":479}]}"#,
    );
}

#[test]
fn locks_and_assignments_are_as_java_writes_them() {
    check(
        &LockBatchResponseBody {
            lock_ok_mq_set: vec![queue(0)],
        },
        r#"{"lockOKMQSet":[{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}]}"#,
    );
    check(
        &QueryAssignmentResponseBody {
            message_queue_assignments: vec![MessageQueueAssignment {
                message_queue: queue(1),
                ..MessageQueueAssignment::default()
            }],
        },
        r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"broker-a","queueId":1,"topic":"TopicTest"},"mode":"PULL"}]}"#,
    );
}

#[test]
fn ha_status_is_as_java_writes_it() {
    check(
        &HARuntimeInfo {
            ha_connection_info: vec![HAConnectionRuntimeInfo {
                addr: "10.0.0.3:5".into(),
                in_sync: true,
                ..HAConnectionRuntimeInfo::default()
            }],
            in_sync_slave_nums: 1,
            master: true,
            ..HARuntimeInfo::default()
        },
        r#"{"haClientRuntimeInfo":{"activated":false,"lastReadTimestamp":0,"lastWriteTimestamp":0,"masterAddr":"","masterFlushOffset":0,"maxOffset":0,"transferredByteInSecond":0},"haConnectionInfo":[{"addr":"10.0.0.3:5","diff":0,"inSync":true,"slaveAckOffset":0,"transferFromWhere":0,"transferredByteInSecond":0}],"inSyncSlaveNums":1,"master":true,"masterCommitLogMaxOffset":0}"#,
    );
}

fn registration() -> RegisterBrokerBody {
    let mut topic = TopicConfig::new("T", 8, 6);
    topic.write_queue_nums = 4;
    topic
        .attributes
        .insert("message.type".into(), "FIFO".into());
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = version();
    wrapper
        .topic_config_table
        .insert("T".into(), Arc::new(topic));
    body
}

/// The deflated form, as `RegisterBrokerBody.encode(true)` builds it.
fn inflated(body: &RegisterBrokerBody) -> Vec<u8> {
    let wrapper = &body.topic_config_serialize_wrapper;
    let mut out = vec![];
    let mut part = |text: &[u8]| {
        out.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        out.extend_from_slice(text);
    };
    part(json::to_fastjson(&wrapper.data_version).as_bytes());
    let mut lines = vec![];
    for topic in wrapper.topic_config_table.values() {
        let line = topic.to_line();
        lines.extend_from_slice(&u32::try_from(line.len()).unwrap().to_be_bytes());
        lines.extend_from_slice(line.as_bytes());
    }
    out.extend_from_slice(
        &u32::try_from(wrapper.topic_config_table.len())
            .unwrap()
            .to_be_bytes(),
    );
    out.extend_from_slice(&lines);
    out.extend_from_slice(b"\0\0\0\x02[]");
    out.extend_from_slice(&[0; 4]);
    out
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

#[test]
fn a_registration_reads_plain_deflated_and_from_old_brokers() {
    let body = registration();
    assert_eq!(
        body.topic_config_serialize_wrapper.topic_config_table["T"].to_line(),
        r#"T 8 4 6 SINGLE_TAG {"message.type":"FIFO"}"#
    );
    let plain = encode(&body);
    assert_eq!(
        RegisterBrokerBody::decode(&plain, false, 479).unwrap(),
        body
    );
    assert_eq!(
        RegisterBrokerBody::decode(&deflate(&inflated(&body)), true, 479).unwrap(),
        body
    );
    let mut written = vec![];
    flate2::read::ZlibDecoder::new(&super::deflate(&body).unwrap()[..])
        .read_to_end(&mut written)
        .unwrap();
    assert_eq!(
        written,
        inflated(&body),
        "what is written is what Java writes"
    );
    let wrapper = encode(&body.topic_config_serialize_wrapper);
    assert_eq!(
        RegisterBrokerBody::decode(&wrapper, false, 36).unwrap(),
        body
    );
}

#[test]
fn a_deflated_registration_cut_at_any_byte_is_an_error() {
    let whole = inflated(&registration());
    for n in 0..whole.len() {
        assert!(
            RegisterBrokerBody::decode(&deflate(&whole[..n]), true, 479).is_err(),
            "{n}"
        );
    }
    let deflated = deflate(&whole);
    assert!(RegisterBrokerBody::decode(&deflated[..deflated.len() / 2], true, 479).is_err());
    let bomb = deflate(&vec![0; (64 << 20) + 1]);
    assert!(matches!(
        RegisterBrokerBody::decode(&bomb, true, 479),
        Err(RegisterError::TooLong)
    ));
}

#[test]
fn a_newer_version_is_greater() {
    let old = version();
    let mut new = old;
    new.bump(old.timestamp - 5);
    assert!(new > old, "the counter counts before the clock");
    assert!(
        DataVersion {
            state_version: 1,
            ..DataVersion::default()
        } > new
    );
}
