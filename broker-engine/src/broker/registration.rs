//! Tells every name server who this broker is and which topics it has (103), until the stop (104).
//!
//! One task a name server: they know nothing of each other, and a dead one must not hold up the rest. A registration runs at once at
//! the start, when a topic changed (changes in the meantime join the next one), when asked to ([`Registration::refresh`]) and
//! every `registerNameServerPeriod`. Until one was answered it is tried again after 200 ms, then ever more slowly. Between them a
//! QUERY_DATA_VERSION (322) each second asks whether the name server still knows this broker, so that a restarted one learns of
//! it within that second instead of the period. A slave hears of its master from the answers.
//!
//! The extra field [`INTERNAL_ADDR`] carries the address for callers inside the cluster's network; a foreign name server ignores it.
//! Source: `apache/rocketmq: broker/.../BrokerController.java` registerBrokerAll, `broker/.../out/BrokerOuterAPI.java`.

use crate::broker::Broker;
use crate::config::BrokerConfig;
use crate::net::{CallError, Client, INTERNAL_ADDR, Partitions};
use bytes::Bytes;
use parking_lot::Mutex;
use rocketmq_protocol::body::{
    self, KVTable, RegisterBrokerBody, TopicConfig, TopicConfigAndMappingSerializeWrapper,
    TopicConfigSerializeWrapper,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// First wait after a registration that was not answered; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a slave that has not heard of its master asks again, at most.
const MASTER_UNKNOWN: Duration = Duration::from_millis(500);
/// How often a name server is asked whether it still knows this broker, and how long it may think.
const KNOWN_PERIOD: Duration = Duration::from_secs(1);
const KNOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a name server may take over an UNREGISTER_BROKER while this broker stops.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);
/// `registerNameServerPeriod` is held between these.
const PERIOD: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_secs(60);

/// Handle to the registrations.
#[derive(Debug)]
pub struct Registration {
    client: Client,
    namesrvs: Vec<String>,
    /// Per name server: how many topic changes its last try covered, answered or not.
    covered: watch::Sender<Vec<u64>>,
    /// Whether any name server has answered.
    registered: watch::Sender<bool>,
    /// Slave: where its master answers requests, as a name server told it last.
    master_addr: watch::Sender<Option<String>>,
    /// Slave: where its master sends the log from.
    master_ha_addr: watch::Sender<Option<String>>,
    asked: watch::Sender<u64>,
    /// The last body sent and the change count it belongs to: all name servers get the same bytes.
    body: Mutex<Option<(BodyOf, Body)>>,
}

/// Bytes of a plain body beyond which it is sent deflated: a frame holds 16 MiB, and a name server that is sent more closes the
/// connection, which takes the broker out of every route.
const PLAIN_MAX: usize = 4 << 20;

/// A registration's body, and whether it is deflated.
#[derive(Clone, Debug)]
struct Body {
    bytes: Bytes,
    deflated: bool,
}

/// What a body depends on: topic changes and `brokerPermission`.
type BodyOf = (u64, u32);

impl Registration {
    /// For the name servers of the config, none of which knows of this broker yet; those that `partitions` cut off are not reached.
    pub fn new(config: &BrokerConfig, partitions: Partitions) -> Registration {
        let namesrvs = config.namesrvs();
        let configured =
            Some(config.ha_master_address.as_str()).filter(|address| !address.is_empty());
        Registration {
            client: Client::within(partitions),
            covered: watch::Sender::new(vec![0; namesrvs.len()]),
            namesrvs,
            registered: watch::Sender::new(false),
            master_addr: watch::Sender::new(None),
            master_ha_addr: watch::Sender::new(configured.map(str::to_owned)),
            asked: watch::Sender::new(0),
            body: Mutex::new(None),
        }
    }

    /// The first answer that any of the name servers gives.
    pub async fn ask(&self, request: Command, timeout: Duration) -> Option<Command> {
        for address in &self.namesrvs {
            match self.client.call(address, request.clone(), timeout).await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    tracing::debug!(namesrv = %address, %error, "not answered; asking the next")
                }
            }
        }
        None
    }

    /// Whether any name server has answered a registration.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Slave: the master's `host:port` for requests. `None` until a name server named one; then the last one named.
    pub fn master_addr(&self) -> watch::Receiver<Option<String>> {
        self.master_addr.subscribe()
    }

    /// Slave: the master's `host:port` for replication; `haMasterAddress` if that is set.
    pub fn master_ha_addr(&self) -> watch::Receiver<Option<String>> {
        self.master_ha_addr.subscribe()
    }

    fn heard_of_master(&self, config: &BrokerConfig, master: &Master) {
        let set = |known: &watch::Sender<Option<String>>, told: &str| {
            known.send_if_modified(|known| {
                let news = !told.is_empty() && known.as_deref() != Some(told);
                if news {
                    *known = Some(told.to_owned());
                }
                news
            });
        };
        set(&self.master_addr, &master.addr);
        if config.ha_master_address.is_empty() {
            set(&self.master_ha_addr, &master.ha_addr);
        }
    }

    /// Registers again at once (a slave lost its master, a permission changed).
    pub fn refresh(&self) {
        self.asked.send_modify(|count| *count += 1);
    }

    /// Waits until every name server was told of so many topic changes, or could not be; at most `timeout`.
    pub async fn covered(&self, changes: u64, timeout: Duration) {
        let mut covered = self.covered.subscribe();
        let all = covered.wait_for(|covered| covered.iter().all(|told| *told >= changes));
        // Late is no failure: the registration goes on behind.
        let _ = tokio::time::timeout(timeout, all).await;
    }
}

/// Keeps this broker registered until `stop`; then unregisters it and returns.
pub async fn run(broker: Arc<Broker>, stop: watch::Receiver<bool>) {
    let mut keepers = tokio::task::JoinSet::new();
    for index in 0..broker.registration.namesrvs.len() {
        keepers.spawn(keep(broker.clone(), index, stop.clone()));
    }
    while keepers.join_next().await.is_some() {}
}

async fn keep(broker: Arc<Broker>, index: usize, mut stop: watch::Receiver<bool>) {
    let reached = AtomicBool::new(false);
    let stopped = async {
        // An error means that the sender is gone, which is a stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::select! {
        () = stopped => {}
        () = register_forever(&broker, index, &reached) => {}
    }
    let address = &broker.registration.namesrvs[index];
    if reached.load(Ordering::Relaxed)
        && let Err(error) = unregister(&broker, address).await
    {
        tracing::warn!(namesrv = %address, %error, "not unregistered; the name server will see the connection close");
    }
}

/// `reached`: the name server may know this broker, so that it must hear of the stop.
async fn register_forever(broker: &Arc<Broker>, index: usize, reached: &AtomicBool) {
    let registration = &broker.registration;
    let address = &registration.namesrvs[index];
    let mut changes = broker.topics.changes();
    let mut asked = registration.asked.subscribe();
    let mut partitions = broker.partitions.changes();
    let mut retry = RETRY_MIN;
    let mut told_of_failure = false;
    loop {
        let covered = *changes.borrow_and_update();
        asked.borrow_and_update();
        // Before the call, which a stop may cut off after it was sent.
        reached.store(true, Ordering::Relaxed);
        let outcome = register(broker, address, covered).await;
        if let Err(RegisterError::Call(CallError::Connect { .. } | CallError::CutOff { .. })) =
            &outcome
        {
            reached.store(false, Ordering::Relaxed);
        }
        registration.covered.send_modify(|all| all[index] = covered);
        let wait = match outcome {
            Ok((master, ordered)) => {
                order(broker, ordered).await;
                let again = std::mem::take(&mut told_of_failure);
                if !registration.registered.send_replace(true) || again {
                    tracing::info!(namesrv = %address, "registered");
                }
                registration.heard_of_master(&broker.config.get(), &master);
                // A slave without its master asks on: it may not be there yet, or come back under another address.
                let alone =
                    broker.is_slave() && !broker.ha_status().ha_client_runtime_info.activated;
                if alone {
                    let unknown = master.ha_addr.is_empty();
                    let wait = retry.min(if unknown { MASTER_UNKNOWN } else { RETRY_MAX });
                    retry = (retry * 2).min(RETRY_MAX);
                    wait
                } else {
                    retry = RETRY_MIN;
                    broker
                        .config
                        .get()
                        .register_name_server_period
                        .clamp(*PERIOD.start(), *PERIOD.end())
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told_of_failure, true) {
                    tracing::warn!(namesrv = %address, %error, "not registered; trying on");
                }
                let wait = retry;
                retry = (retry * 2).min(RETRY_MAX);
                wait
            }
        };
        let until = Instant::now() + wait;
        let forgotten = async {
            if told_of_failure {
                std::future::pending::<()>().await;
            }
            loop {
                tokio::time::sleep(KNOWN_PERIOD).await;
                if !still_known(broker, address).await {
                    return;
                }
            }
        };
        tokio::select! {
            _ = changes.changed() => {}
            _ = asked.changed() => {}
            () = tokio::time::sleep_until(until) => {}
            () = forgotten => {}
            // It may be this name server that is reached again.
            () = partitions.next() => retry = RETRY_MIN,
        }
    }
}

/// Why a registration did not come about.
#[derive(Debug, thiserror::Error)]
enum RegisterError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("answered {code}: {remark}")]
    Refused { code: i32, remark: String },
}

fn accepted(answer: Command) -> Result<Command, RegisterError> {
    match answer.code {
        response::SUCCESS => Ok(answer),
        code => Err(RegisterError::Refused {
            code,
            remark: answer.remark.unwrap_or_default(),
        }),
    }
}

/// What a registration's answer tells a slave; empty texts while there is no master.
struct Master {
    addr: String,
    ha_addr: String,
}

/// Takes over which topics are ordered. A slave's table is its master's.
async fn order(broker: &Arc<Broker>, names: Vec<String>) {
    let unordered = |name: &String| broker.topics.get(name).is_some_and(|topic| !topic.order);
    if broker.is_slave() || !names.iter().any(unordered) {
        return;
    }
    let topics = names.join(", ");
    let table = broker.clone();
    let set = tokio::task::spawn_blocking(move || table.topics.set_ordered(&names)).await;
    match set {
        Ok(Ok(())) => tracing::info!(topics, "ordered, as the name server has it"),
        Ok(Err(error)) => {
            tracing::error!(topics, %error, "ordered, but it would be lost by a restart");
        }
        Err(error) => tracing::error!(topics, %error, "marking topics as ordered failed"),
    }
}

/// The topics of a registration's answer, whose body is the name server's order configuration or nothing.
fn ordered(answer: &Command) -> Vec<String> {
    if answer.body.is_empty() {
        return Vec::new();
    }
    match json::from_slice::<KVTable>(&answer.body) {
        Ok(table) => table.table.into_keys().collect(),
        Err(error) => {
            tracing::warn!(%error, "the order configuration of a registration's answer does not parse");
            Vec::new()
        }
    }
}

/// What a slave is told, and which topics are ordered.
async fn register(
    broker: &Arc<Broker>,
    address: &str,
    changes: u64,
) -> Result<(Master, Vec<String>), RegisterError> {
    let config = broker.config.get();
    // A table of very many takes long, and this thread does other work too.
    let (of_task, as_of) = (Arc::clone(broker), Arc::clone(&config));
    let body = move || of_task.registration.body(&of_task, &as_of, changes);
    let body = tokio::task::spawn_blocking(body)
        .await
        .expect("encoding a table does not panic");
    let header = identity(&config)
        .with("haServerAddr", config.ha_addr())
        .with("compressed", body.deflated)
        // Over the bytes as sent; the sign bit is cut off, as in Java's UtilAll.crc32.
        .with("bodyCrc32", crc32fast::hash(&body.bytes) & 0x7FFF_FFFF)
        .with(INTERNAL_ADDR, config.internal_addr());
    let command = Command::request(request::REGISTER_BROKER, header).with_body(body.bytes);
    let timeout = config.register_broker_timeout_mills;
    let answer = accepted(
        broker
            .registration
            .client
            .call(address, command, timeout)
            .await?,
    )?;
    let ordered = ordered(&answer);
    let master = Master {
        addr: answer.ext.get("masterAddr").unwrap_or_default().to_owned(),
        ha_addr: answer
            .ext
            .get("haServerAddr")
            .unwrap_or_default()
            .to_owned(),
    };
    Ok((master, ordered))
}

async fn unregister(broker: &Broker, address: &str) -> Result<(), RegisterError> {
    let command = Command::request(request::UNREGISTER_BROKER, identity(&broker.config.get()));
    accepted(
        broker
            .registration
            .client
            .call(address, command, UNREGISTER_TIMEOUT)
            .await?,
    )
    .map(drop)
}

/// Whether the name server knows this state of this broker. An answer that does not say is a yes.
async fn still_known(broker: &Broker, address: &str) -> bool {
    let body = json::to_fastjson(&broker.topics.version());
    let command = Command::request(request::QUERY_DATA_VERSION, identity(&broker.config.get()))
        .with_body(body);
    match broker
        .registration
        .client
        .call(address, command, KNOWN_TIMEOUT)
        .await
    {
        Ok(answer) => answer.code != response::SUCCESS || answer.ext.get("changed") != Some("true"),
        Err(_) => false,
    }
}

fn identity(config: &BrokerConfig) -> ExtFields {
    ExtFields::new()
        .with("brokerName", &config.broker_name)
        .with("brokerAddr", config.broker_addr())
        .with("clusterName", &config.broker_cluster_name)
        .with("brokerId", config.broker_id)
}

impl Registration {
    fn body(&self, broker: &Broker, config: &BrokerConfig, changes: u64) -> Body {
        let of = (changes, config.broker_permission);
        let mut last = self.body.lock();
        // On a slave the table is replaced without being counted as a change: its body is made each time.
        if let Some((known, body)) = &*last
            && *known == of
            && !broker.is_slave()
        {
            return body.clone();
        }
        let body = encode_body(&register_body(
            broker.topics.snapshot(),
            config.broker_permission as i32,
        ));
        *last = Some((of, body.clone()));
        body
    }
}

/// Plain, as long as it is not too large for that.
fn encode_body(body: &RegisterBrokerBody) -> Body {
    let plain = json::to_fastjson(body);
    if plain.len() > PLAIN_MAX {
        match body::deflate(body) {
            Ok(bytes) => {
                return Body {
                    bytes: bytes.into(),
                    deflated: true,
                };
            }
            Err(error) => {
                tracing::error!(%error, "deflating the registration failed; it is sent as it is")
            }
        }
    }
    Body {
        bytes: plain.into(),
        deflated: false,
    }
}

/// What is registered. A broker that may not be read or written shows its topics so.
fn register_body(
    topics: TopicConfigSerializeWrapper,
    broker_permission: i32,
) -> RegisterBrokerBody {
    let shown = |topic: &TopicConfig| {
        Arc::new(TopicConfig {
            perm: topic.perm & broker_permission,
            ..topic.clone()
        })
    };
    let restricted = broker_permission & 6 != 6;
    let table = topics.topic_config_table.into_iter().map(|(name, topic)| {
        let topic = if restricted { shown(&topic) } else { topic };
        (name, topic)
    });
    RegisterBrokerBody {
        topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
            data_version: topics.data_version,
            topic_config_table: table.collect(),
            ..TopicConfigAndMappingSerializeWrapper::default()
        },
        filter_server_list: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_protocol::frame::FRAME_MAX;

    fn body_of(topics: usize) -> (RegisterBrokerBody, Body) {
        let table = (0..topics).map(|number| {
            let topic = TopicConfig::new(format!("%RETRY%group-{number}"), 1, 6);
            (topic.topic_name.clone(), Arc::new(topic))
        });
        let topics = TopicConfigSerializeWrapper {
            topic_config_table: table.collect(),
            ..TopicConfigSerializeWrapper::default()
        };
        let body = register_body(topics, 6);
        let encoded = encode_body(&body);
        (body, encoded)
    }

    #[test]
    fn so_many_topics_that_no_frame_would_hold_them_are_registered_deflated() {
        for (topics, deflated) in [(100, false), (100_000, true)] {
            let (body, encoded) = body_of(topics);
            assert_eq!(encoded.deflated, deflated, "{topics} topics");
            assert!(encoded.bytes.len() < FRAME_MAX / 4);
            let read = RegisterBrokerBody::decode(&encoded.bytes, deflated, 479).unwrap();
            assert_eq!(read, body);
        }
    }
}
