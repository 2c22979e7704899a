//! The table alone with a clock of the test's own, then the server over real sockets.

use super::*;
use crate::net::INTERNAL_ADDR;
use rocketmq_protocol::body::{DataVersion, RegisterBrokerBody, TopicConfig};
use rocketmq_protocol::code::response;
use rocketmq_protocol::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;

const PATIENCE: Duration = Duration::from_secs(20);

fn broker(name: &str, id: i64, port: u16, connection: u64) -> Registration {
    let node = if id == 0 { "master" } else { "slave" };
    Registration {
        cluster: "C".into(),
        broker_name: name.into(),
        broker_id: id,
        addr: format!("127.0.0.1:{port}"),
        internal_addr: format!("{name}-{node}:{port}"),
        ha_addr: format!("{name}-{node}:{}", port + 1),
        zone_name: None,
        heartbeat_timeout: None,
        acting_master: None,
        topics: topics(&["orders", "logs"]),
        data_version: DataVersion {
            counter: 1,
            ..DataVersion::default()
        },
        connection,
    }
}

fn topics(names: &[&str]) -> Vec<Arc<TopicConfig>> {
    names
        .iter()
        .map(|name| Arc::new(TopicConfig::new(*name, 4, 6)))
        .collect()
}

/// A table with broker-a's master and slave and broker-b's master, registered on connections 1, 2, 3.
fn two_masters_and_a_slave(now: Instant) -> Routes {
    let mut routes = Routes::default();
    for registration in [
        broker("broker-a", 0, 10911, 1),
        broker("broker-a", 1, 11911, 2),
        broker("broker-b", 0, 13911, 3),
    ] {
        assert!(matches!(
            routes.register(registration, false, now),
            Registered::Accepted { .. }
        ));
    }
    routes
}

/// `broker[id=addr …]` of a topic's route; `-` when there is none.
fn route(routes: &Routes, topic: &str, view: View) -> String {
    let Some(route) = routes.route(topic, view, false) else {
        return "-".into();
    };
    let brokers = route.broker_datas.iter().map(|broker| {
        let addrs: Vec<String> = broker
            .broker_addrs
            .iter()
            .map(|(id, addr)| format!("{id}={addr}"))
            .collect();
        format!("{}[{}]", broker.broker_name, addrs.join(" "))
    });
    brokers.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_route_shows_the_addresses_its_caller_can_reach() {
    let routes = two_masters_and_a_slave(Instant::now());
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:10911 1=127.0.0.1:11911] broker-b[0=127.0.0.1:13911]"
    );
    assert_eq!(
        route(&routes, "orders", View::Internal),
        "broker-a[0=broker-a-master:10911 1=broker-a-slave:11911] broker-b[0=broker-b-master:13911]"
    );
    let info = routes.cluster_info(View::Internal);
    assert_eq!(
        info.broker_addr_table["broker-a"].broker_addrs[&1],
        "broker-a-slave:11911"
    );
    assert_eq!(
        info.cluster_addr_table,
        BTreeMap::from([("C".into(), vec!["broker-a".into(), "broker-b".into()])])
    );
    assert_eq!(
        routes
            .member_group("C", "broker-a", View::External)
            .broker_addrs[&0],
        "127.0.0.1:10911"
    );
}

#[test]
fn a_slave_is_told_its_masters_internal_addresses_while_that_is_alive() {
    let now = Instant::now();
    let mut routes = Routes::default();
    let slave = || broker("broker-a", 1, 11911, 2);
    let told = |routes: &mut Routes| match routes.register(slave(), false, now) {
        Registered::Accepted {
            master_addr,
            ha_addr,
            ..
        } => (master_addr, ha_addr),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut routes), (None, None));
    routes.register(broker("broker-a", 0, 10911, 1), false, now);
    assert_eq!(
        told(&mut routes),
        (
            Some("broker-a-master:10911".into()),
            Some("broker-a-master:10912".into())
        )
    );
    routes.connection_closed(1);
    assert_eq!(told(&mut routes), (None, None));
}

#[test]
fn a_closed_connection_drops_its_brokers_at_once_but_not_those_registered_anew() {
    let now = Instant::now();
    let mut routes = two_masters_and_a_slave(now);
    assert_eq!(routes.connection_closed(3).0, ["127.0.0.1:13911"]);
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:10911 1=127.0.0.1:11911]"
    );
    // The master restarted and registered before the old connection's end was seen.
    routes.register(broker("broker-a", 0, 10911, 9), false, now);
    assert!(routes.connection_closed(1).0.is_empty());
    // Without its master a name's topics stay, for the slave serves them.
    routes.connection_closed(9);
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[1=127.0.0.1:11911]"
    );
    routes.connection_closed(2);
    assert_eq!(route(&routes, "orders", View::External), "-");
}

#[test]
fn a_silent_broker_expires_after_its_time_and_a_heartbeat_puts_that_off() {
    let start = Instant::now();
    let mut routes = two_masters_and_a_slave(start);
    let quick = Registration {
        heartbeat_timeout: Some(Duration::from_secs(10)),
        ..broker("broker-b", 0, 13911, 3)
    };
    routes.register(quick, false, start);
    assert!(routes.expire(start + Duration::from_secs(10)).0.is_empty());
    assert_eq!(
        routes.expire(start + Duration::from_secs(11)).0,
        ["127.0.0.1:13911"]
    );
    routes.heartbeat("C", "127.0.0.1:10911", start + Duration::from_secs(100));
    assert_eq!(
        routes.expire(start + Duration::from_secs(121)).0,
        ["127.0.0.1:11911"]
    );
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:10911]"
    );
}

#[test]
fn a_broker_that_changes_its_id_or_address_stands_in_the_table_once() {
    let now = Instant::now();
    let mut routes = two_masters_and_a_slave(now);
    routes.connection_closed(1);
    routes.register(broker("broker-a", 0, 11911, 2), false, now);
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:11911] broker-b[0=127.0.0.1:13911]"
    );
    routes.register(broker("broker-b", 0, 14911, 4), false, now);
    assert!(routes.connection_closed(3).0.is_empty());
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:11911] broker-b[0=127.0.0.1:14911]"
    );
}

#[test]
fn a_registration_of_older_state_is_ignored_and_one_topic_alone_is_no_first_registration() {
    let now = Instant::now();
    let mut routes = Routes::default();
    let newer = DataVersion {
        state_version: 2,
        ..DataVersion::default()
    };
    routes.register(
        Registration {
            data_version: newer,
            ..broker("broker-a", 0, 10911, 1)
        },
        false,
        now,
    );
    assert_eq!(
        routes.register(broker("broker-a", 0, 11911, 2), false, now),
        Registered::Older
    );
    let one = Registration {
        topics: topics(&["orders"]),
        ..broker("broker-b", 0, 13911, 3)
    };
    assert_eq!(routes.register(one, false, now), Registered::TooEarly);
    assert_eq!(
        route(&routes, "orders", View::External),
        "broker-a[0=127.0.0.1:10911]"
    );
}

#[test]
fn topics_come_from_the_master_and_stay_unless_told_otherwise() {
    let now = Instant::now();
    let mut routes = two_masters_and_a_slave(now);
    let version = |counter| DataVersion {
        counter,
        ..DataVersion::default()
    };
    let slave = Registration {
        topics: topics(&["slaves-own", "x"]),
        data_version: version(2),
        ..broker("broker-a", 1, 11911, 2)
    };
    routes.register(slave, false, now);
    let changed = Registration {
        topics: topics(&["orders", "new"]),
        data_version: version(2),
        ..broker("broker-b", 0, 13911, 3)
    };
    routes.register(changed.clone(), false, now);
    assert_eq!(
        routes.topic_list(|_| true).topic_list,
        ["logs", "new", "orders"]
    );
    assert_eq!(
        routes
            .route("logs", View::External, false)
            .unwrap()
            .broker_datas
            .len(),
        2
    );
    routes.register(changed, true, now);
    assert_eq!(
        routes
            .route("logs", View::External, false)
            .unwrap()
            .broker_datas
            .len(),
        1
    );
    routes.delete_topic("orders", Some("another cluster"));
    assert_ne!(route(&routes, "orders", View::External), "-");
    routes.delete_topic("orders", Some("C"));
    assert_eq!(route(&routes, "orders", View::External), "-");
}

#[test]
fn write_permission_can_be_taken_and_given_back_until_topics_are_registered_anew() {
    let now = Instant::now();
    let mut routes = two_masters_and_a_slave(now);
    let perms = |routes: &Routes| -> Vec<i32> {
        routes
            .route("orders", View::External, false)
            .unwrap()
            .queue_datas
            .iter()
            .map(|queue| queue.perm)
            .collect()
    };
    assert_eq!(routes.set_writable("broker-a", false), 2);
    assert_eq!(perms(&routes), [4, 6]);
    // The same version again brings nothing back.
    routes.register(broker("broker-a", 0, 10911, 1), false, now);
    assert_eq!(perms(&routes), [4, 6]);
    assert_eq!(routes.set_writable("broker-a", true), 2);
    assert_eq!(perms(&routes), [6, 6]);
}

#[test]
fn a_slave_acts_as_master_read_only_and_the_group_hears_of_its_lowest_id() {
    let now = Instant::now();
    let mut routes = Routes::default();
    let acting = |id, port, connection| Registration {
        acting_master: Some(true),
        ..broker("broker-a", id, port, connection)
    };
    routes.register(acting(1, 11911, 2), false, now);
    let Registered::Accepted { changed, .. } = routes.register(acting(0, 10911, 1), false, now)
    else {
        panic!("a master registers");
    };
    let told = changed.unwrap();
    assert_eq!(
        (told.min_broker_id, told.tell),
        (0, vec!["broker-a-slave:11911".to_string()])
    );
    let (_, changes) = routes.connection_closed(1);
    assert_eq!(
        changes,
        [MinIdChange {
            broker_name: "broker-a".into(),
            min_broker_id: 1,
            min_broker_addr: "broker-a-slave:11911".into(),
            offline_broker_addr: Some("broker-a-master:10911".into()),
            ha_broker_addr: None,
            tell: vec!["broker-a-slave:11911".into()],
        }]
    );
    let shown = routes.route("orders", View::External, true).unwrap();
    assert_eq!(
        shown.broker_datas[0].broker_addrs,
        BTreeMap::from([(0, "127.0.0.1:11911".to_string())])
    );
    assert_eq!(shown.queue_datas[0].perm, 4);
}

async fn server(config: NamesrvConfig) -> (String, watch::Sender<bool>) {
    let listener = net::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { serve(listener, config, stopped).await.unwrap() });
    (address, stop)
}

fn register_request(crc_of: Option<&[u8]>) -> Command {
    let mut body = RegisterBrokerBody::default();
    for topic in topics(&["orders", "größe"]) {
        body.topic_config_serialize_wrapper
            .topic_config_table
            .insert(topic.topic_name.clone(), topic);
    }
    let body = json::to_fastjson(&body);
    let header = ExtFields::new()
        .with("brokerName", "broker-a")
        .with("brokerAddr", "127.0.0.1:10911")
        .with("clusterName", "C")
        .with("haServerAddr", "rmqmaster1:10912")
        .with("brokerId", 0)
        .with(
            "bodyCrc32",
            crc32fast::hash(crc_of.unwrap_or(body.as_bytes())) & 0x7FFF_FFFF,
        )
        .with(INTERNAL_ADDR, "rmqmaster1:10911");
    Command::request(request::REGISTER_BROKER, header).with_body(body)
}

async fn ask(client: &Client, address: &str, code: i32, header: ExtFields) -> Command {
    client
        .call(address, Command::request(code, header), PATIENCE)
        .await
        .unwrap()
}

fn text(answer: &Command) -> &str {
    std::str::from_utf8(&answer.body).unwrap()
}

#[tokio::test]
async fn a_broker_registers_over_the_wire_and_goes_with_its_connection() {
    let (address, _stop) = server(NamesrvConfig::default()).await;
    let asker = Client::new();
    let orders = || ExtFields::new().with("topic", "orders");
    let none = ask(&asker, &address, request::GET_ROUTEINFO_BY_TOPIC, orders()).await;
    assert_eq!(none.code, response::TOPIC_NOT_EXIST);
    assert!(
        none.remark
            .unwrap()
            .starts_with("No topic route info in name server for the topic: orders")
    );

    let broker = Client::new();
    let refused = broker
        .call(&address, register_request(Some(b"other bytes")), PATIENCE)
        .await
        .unwrap();
    assert_eq!(
        (refused.code, refused.remark.as_deref()),
        (response::SYSTEM_ERROR, Some("crc32 not match"))
    );
    assert_eq!(
        broker
            .call(&address, register_request(None), PATIENCE)
            .await
            .unwrap()
            .code,
        response::SUCCESS
    );

    let route = ask(&asker, &address, request::GET_ROUTEINFO_BY_TOPIC, orders()).await;
    assert_eq!(
        text(&route),
        r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911"},"brokerName":"broker-a","cluster":"C","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#
    );
    let mut old = Command::request(request::GET_ROUTEINFO_BY_TOPIC, orders());
    old.version = 399;
    let route = asker.call(&address, old, PATIENCE).await.unwrap();
    assert!(
        text(&route).contains(r#""brokerAddrs":{0:"127.0.0.1:10911"}"#),
        "{}",
        text(&route)
    );
    let info = ask(
        &asker,
        &address,
        request::GET_BROKER_CLUSTER_INFO,
        ExtFields::new(),
    )
    .await;
    assert_eq!(
        text(&info),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911"},"brokerName":"broker-a","cluster":"C","enableActingMaster":false}},"clusterAddrTable":{"C":["broker-a"]}}"#
    );

    drop(broker);
    // The name server sees the close on its own time: ask until it has.
    while ask(&asker, &address, request::GET_ROUTEINFO_BY_TOPIC, orders())
        .await
        .code
        == response::SUCCESS
    {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_caller_inside_the_subnet_is_told_internal_addresses() {
    let config = NamesrvConfig {
        internal_subnet: "127.0.0.0/8".into(),
        ..NamesrvConfig::default()
    };
    let (inside, _stop) = server(config.clone()).await;
    let (gateway, _stop) = server(NamesrvConfig {
        internal_gateway: "127.0.0.1".into(),
        ..config
    })
    .await;
    let client = Client::new();
    for (address, expected) in [(&inside, "rmqmaster1:10911"), (&gateway, "127.0.0.1:10911")] {
        client
            .call(address, register_request(None), PATIENCE)
            .await
            .unwrap();
        for (code, header) in [
            (
                request::GET_ROUTEINFO_BY_TOPIC,
                ExtFields::new().with("topic", "orders"),
            ),
            (request::GET_BROKER_CLUSTER_INFO, ExtFields::new()),
            (
                request::GET_BROKER_MEMBER_GROUP,
                ExtFields::new()
                    .with("clusterName", "C")
                    .with("brokerName", "broker-a"),
            ),
            (request::GET_SYSTEM_TOPIC_LIST_FROM_NS, ExtFields::new()),
        ] {
            let answer = ask(&client, address, code, header).await;
            assert!(
                text(&answer).contains(&format!("\"{expected}\"")),
                "{code}: {}",
                text(&answer)
            );
        }
    }
}

#[tokio::test]
async fn kv_values_are_kept_listed_and_given_to_brokers() {
    let (address, _stop) = server(NamesrvConfig::default()).await;
    let client = Client::new();
    let key = || {
        ExtFields::new()
            .with("namespace", "ORDER_TOPIC_CONFIG")
            .with("key", "orders")
    };
    assert_eq!(
        ask(&client, &address, request::GET_KV_CONFIG, key())
            .await
            .code,
        response::QUERY_NOT_FOUND
    );
    ask(
        &client,
        &address,
        request::PUT_KV_CONFIG,
        key().with("value", "broker-a:4"),
    )
    .await;
    assert_eq!(
        ask(&client, &address, request::GET_KV_CONFIG, key())
            .await
            .ext
            .get("value"),
        Some("broker-a:4")
    );
    let registered = client
        .call(&address, register_request(None), PATIENCE)
        .await
        .unwrap();
    assert_eq!(text(&registered), r#"{"table":{"orders":"broker-a:4"}}"#);
    ask(&client, &address, request::DELETE_KV_CONFIG, key()).await;
    let list = ask(&client, &address, request::GET_KVLIST_BY_NAMESPACE, key()).await;
    assert_eq!(text(&list), r#"{"table":{}}"#);
}

#[tokio::test]
async fn what_cannot_be_done_is_answered_and_the_connection_lives_on() {
    let (address, _stop) = server(NamesrvConfig::default()).await;
    let client = Client::new();
    let unknown = ask(&client, &address, 4711, ExtFields::new()).await;
    assert_eq!(
        (unknown.code, unknown.remark.as_deref()),
        (3, Some(" request type 4711 not supported"))
    );
    let lacking = ask(
        &client,
        &address,
        request::GET_ROUTEINFO_BY_TOPIC,
        ExtFields::new(),
    )
    .await;
    assert_eq!(
        (lacking.code, lacking.remark.as_deref()),
        (1, Some("the header lacks the field topic"))
    );
    let update = Command::request(request::UPDATE_NAMESRV_CONFIG, ExtFields::new())
        .with_body("kvConfigPath=/etc/passwd\n");
    assert_eq!(
        client.call(&address, update, PATIENCE).await.unwrap().code,
        response::NO_PERMISSION
    );
    let update = Command::request(request::UPDATE_NAMESRV_CONFIG, ExtFields::new())
        .with_body("enableAllTopicList=false\n");
    assert_eq!(
        client.call(&address, update, PATIENCE).await.unwrap().code,
        response::SUCCESS
    );
    let list = ask(
        &client,
        &address,
        request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
        ExtFields::new(),
    )
    .await;
    assert_eq!((list.code, list.remark.as_deref()), (1, Some("disable")));
    let config = ask(
        &client,
        &address,
        request::GET_NAMESRV_CONFIG,
        ExtFields::new(),
    )
    .await;
    assert!(text(&config).contains("enableAllTopicList=false\n"));
}
