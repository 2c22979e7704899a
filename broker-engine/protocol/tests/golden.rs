//! What the Java classes of Apache RocketMQ 5.5.0 write reads as it should, and ours is written as theirs.
//!
//! `golden/Golden.java` made the files and tells how to make them anew. What ours writes is left in the target directory's
//! `tmp/golden`: `Golden.java` reads it back there with the Java classes.

#![allow(clippy::unwrap_used)] // Helpers of tests stand outside `#[test]`.

use bytes::BytesMut;
use rocketmq_protocol::body::*;
use rocketmq_protocol::hot::Hot;
use rocketmq_protocol::record::{self, Record, View};
use rocketmq_protocol::{
    Command, Frame, Language, Serialize, batch, json, message_id, properties, sysflag,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn leave(name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("golden");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(name), bytes).unwrap();
}

/// Java's file reads as the value, and the value is written as Java's file, byte for byte.
fn check<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug>(
    name: &str,
    value: &T,
) {
    let java = golden(name);
    assert_eq!(json::from_slice::<T>(&java).as_ref(), Ok(value), "{name}");
    let ours = encode(value);
    assert_eq!(
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(&java),
        "{name}"
    );
    leave(name, &ours);
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

fn broker() -> BrokerData {
    BrokerData {
        broker_addrs: BTreeMap::from([(0, "10.0.0.1:10911".into()), (1, "10.0.0.2:11911".into())]),
        broker_name: "broker-a".into(),
        cluster: "C".into(),
        enable_acting_master: false,
        zone_name: None,
    }
}

fn subscription() -> SubscriptionData {
    let mut subscription = SubscriptionData::parse_tags("TopicTest", "TagA || 标签");
    subscription.sub_version = 1_700_000_000_000;
    subscription
}

fn heartbeat() -> HeartbeatData {
    HeartbeatData {
        client_id: "10.0.0.9@7#1".into(),
        consumer_data_set: vec![ConsumerData {
            consume_from_where: ConsumeFromWhere::LastOffset,
            consume_type: ConsumeType::ConsumePassively,
            group_name: "G".into(),
            message_model: MessageModel::Clustering,
            subscription_data_set: vec![subscription()],
            unit_mode: false,
        }],
        heartbeat_fingerprint: 0,
        producer_data_set: vec![ProducerData {
            group_name: "P".into(),
        }],
        without_sub: false,
    }
}

fn registration() -> RegisterBrokerBody {
    let mut topic = TopicConfig::new("TopicTest", 8, 6);
    topic.write_queue_nums = 4;
    topic
        .attributes
        .insert("message.type".into(), "FIFO".into());
    let mut body = RegisterBrokerBody::default();
    let wrapper = &mut body.topic_config_serialize_wrapper;
    wrapper.data_version = version();
    wrapper.mapping_data_version = version();
    wrapper
        .topic_config_table
        .insert(topic.topic_name.clone(), Arc::new(topic));
    body
}

#[test]
fn bodies_are_read_and_written_as_javas() {
    check("heartbeat.json", &heartbeat());
    check("register.json", &registration());
    check(
        "cluster.json",
        &ClusterInfo {
            broker_addr_table: BTreeMap::from([("broker-a".into(), broker())]),
            cluster_addr_table: BTreeMap::from([("C".into(), vec!["broker-a".into()])]),
        },
    );
    check(
        "consume-stats.json",
        &ConsumeStats {
            consume_tps: 1.5,
            offset_table: BTreeMap::from([(
                queue(0),
                OffsetWrapper {
                    broker_offset: 9,
                    consumer_offset: 4,
                    last_timestamp: 1_700_000_000_000,
                    pull_offset: 6,
                },
            )]),
        },
    );
    check(
        "topic-stats.json",
        &TopicStatsTable {
            offset_table: BTreeMap::from([(
                queue(0),
                TopicOffset {
                    last_update_timestamp: 1_700_000_000_000,
                    max_offset: 9,
                    min_offset: 1,
                },
            )]),
            topic_put_tps: 0.0,
        },
    );
    check(
        "reset-offset.json",
        &ResetOffsetBody {
            offset_table: BTreeMap::from([(queue(2), 17)]),
        },
    );
    check(
        "groups.json",
        &SubscriptionGroupWrapper {
            data_version: version(),
            forbidden_table: BTreeMap::new(),
            subscription_group_table: BTreeMap::from([(
                "G".into(),
                Arc::new(SubscriptionGroupConfig::new("G")),
            )]),
        },
    );
    check(
        "lock.json",
        &LockBatchRequestBody {
            client_id: "10.0.0.9@7#1".into(),
            consumer_group: "G".into(),
            mq_set: vec![queue(0)],
            only_this_broker: false,
        },
    );
    check(
        "consumer-connection.json",
        &ConsumerConnection {
            connection_set: vec![ClientConnection {
                client_addr: "10.0.0.9:5".into(),
                client_id: "10.0.0.9@7#1".into(),
                language: Language::from_name("GO"),
                version: 479,
            }],
            consume_from_where: ConsumeFromWhere::FirstOffset,
            consume_type: ConsumeType::ConsumePassively,
            message_model: MessageModel::Clustering,
            subscription_table: BTreeMap::from([("TopicTest".into(), subscription())]),
        },
    );
}

#[test]
fn a_route_is_read_and_written_as_javas() {
    let route = TopicRouteData {
        broker_datas: vec![broker()],
        queue_datas: vec![QueueData {
            broker_name: "broker-a".into(),
            perm: 6,
            read_queue_nums: 8,
            topic_sys_flag: 0,
            write_queue_nums: 4,
        }],
        ..TopicRouteData::default()
    };
    check("route.json", &route);
    leave(
        "route-standard.json",
        &route.encode(STANDARD_JSON_SINCE, false),
    );
}

#[test]
fn javas_ha_status_is_read() {
    // Java leaves a master's missing upstream address out, ours says it is empty.
    let want = HARuntimeInfo {
        ha_connection_info: vec![HAConnectionRuntimeInfo {
            addr: "10.0.0.3:5".into(),
            in_sync: true,
            ..HAConnectionRuntimeInfo::default()
        }],
        in_sync_slave_nums: 1,
        master: true,
        ..HARuntimeInfo::default()
    };
    assert_eq!(json::from_slice(&golden("ha.json")).as_ref(), Ok(&want));
    leave("ha.json", &encode(&want));
}

#[test]
fn javas_deflated_registration_is_read() {
    let mut want = registration();
    // The deflated form has no place for it.
    want.topic_config_serialize_wrapper.mapping_data_version = DataVersion::default();
    let read = RegisterBrokerBody::decode(&golden("register.deflated"), true, 479).unwrap();
    assert_eq!(read, want);
}

fn read(name: &str) -> (Frame, Command) {
    let mut bytes = BytesMut::from(&golden(name)[..]);
    let frame = Frame::cut(&mut bytes).unwrap().unwrap();
    assert!(bytes.is_empty());
    let command = frame.decode().unwrap();
    (frame, command)
}

#[test]
fn java_requests_are_read_alike_in_both_forms_and_both_ways() {
    for (name, body) in [("send", "hello"), ("pull", "")] {
        let (json_frame, json) = read(&format!("{name}.json.frame"));
        let (binary_frame, binary) = read(&format!("{name}.binary.frame"));
        assert_eq!(
            (json.body.as_ref(), json.language),
            (body.as_bytes(), Language::JAVA)
        );
        let fields = |c: &Command| {
            c.ext
                .iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let (mut as_map, binary_map) = (fields(&json), fields(&binary));
        // Java's binary form spells the header out itself and keeps the broker's name under another letter.
        if let Some(broker) = as_map.remove("bname") {
            as_map.insert(
                if binary_map.contains_key("n") {
                    "n"
                } else {
                    "bname"
                }
                .into(),
                broker,
            );
        }
        assert_eq!(as_map, binary_map);
        // The scanner finds the same in both.
        let scanned = Hot::scan(&json_frame).unwrap();
        assert_eq!(Hot::scan(&binary_frame), Some(scanned.clone()));
        match &scanned {
            Hot::Send(send) => {
                assert_eq!(properties::get(&send.properties, "TAGS"), Some("标签😀"));
                assert_eq!(properties::get(&send.properties, "KEYS"), Some("k\"1"));
                assert_eq!(
                    (send.queue_id, send.message_flag, send.max_reconsume_times),
                    (2, 7, Some(16))
                );
            }
            Hot::Pull(pull) => {
                assert_eq!(
                    (pull.queue_offset, pull.max_msg_bytes),
                    (17, Some(i32::MAX))
                );
                assert_eq!(pull.subscription.as_deref(), Some("TagA || TagB"));
            }
            Hot::Other(head) => panic!("{head:?}"),
        }
        for (form, serialize) in [("json", Serialize::Json), ("binary", Serialize::RocketMq)] {
            leave(
                &format!("{name}.{form}.frame"),
                &Command {
                    serialize,
                    ..json.clone()
                }
                .to_bytes(),
            );
        }
    }
}

#[test]
fn javas_batch_body_is_read() {
    let body = golden("batch.body");
    let entries: Vec<_> = batch::entries(&body).map(Result::unwrap).collect();
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (e.flag, e.body, properties::get(e.properties, "TAGS")))
        .collect();
    assert_eq!(
        seen,
        [(3, &b"one"[..], Some("TagA")), (3, &b""[..], Some("TagA"))]
    );
    let mut ours = vec![];
    for entry in &entries {
        batch::push(entry, &mut ours).unwrap();
    }
    assert_eq!(ours, body);
}

#[test]
fn javas_records_are_read_and_written_byte_for_byte() {
    for (name, born, store, sys_flag) in [
        ("record.v1", "10.0.0.9:50123", "10.0.0.1:10911", 0),
        (
            "record.v1-ipv6",
            "[fe80::9]:50123",
            "[fe80::1]:10911",
            sysflag::BORN_HOST_V6 | sysflag::STORE_HOST_V6,
        ),
    ] {
        let java = golden(name);
        let view = View::record(&java).unwrap();
        view.check_body_crc().unwrap();
        let want = Record {
            queue_id: 3,
            flag: 7,
            queue_offset: 1_000,
            physical_offset: 4_096,
            sys_flag,
            born_timestamp: 1_700_000_000_123,
            born_host: born.parse().unwrap(),
            store_timestamp: 1_700_000_000_456,
            store_host: store.parse().unwrap(),
            reconsume_times: 2,
            prepared_transaction_offset: 0,
            body: b"hello",
            topic: "TopicTest",
            properties: view.properties().unwrap(),
        };
        assert_eq!(properties::get(want.properties, "TAG_LIKE"), Some("标签"));
        assert_eq!(view.decode().as_ref(), Ok(&want));
        let mut ours = BytesMut::new();
        record::encode(&want, &mut ours).unwrap();
        assert_eq!(ours, java);
        leave(name, &ours);
    }
    let id = String::from_utf8(golden("message-id.txt")).unwrap();
    assert_eq!(
        message_id::parse(&id),
        Some(("10.0.0.1:10911".parse().unwrap(), 66_051))
    );
}
