//! What mqadmin, dashboards and slaves ask of a broker. Codes, remarks and body shapes are Java's: tools print them.
//! Source: `apache/rocketmq: broker/.../processor/AdminBrokerProcessor.java`.
//!
//! What only looks at tables is answered at once. What reads the store or writes a table runs off the connection's worker, and
//! what asks other processes (clients, name servers) runs as a task; both are bounded by [`Desk`].

mod config;
mod consumer;
mod copies;
mod group;
mod offsets;
mod queue;
mod relay;
mod runtime_info;
mod topic;

use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::clock;
use crate::net::Connection;
use parking_lot::Mutex;
use rocketmq_protocol::Command;
use rocketmq_protocol::body::{DataVersion, MessageQueue};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::partition;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Requests that may be in work at a time, beside those answered at once; more are told SYSTEM_BUSY.
const IN_WORK_MAX: usize = 256;

/// What the administration keeps for itself.
#[derive(Debug)]
pub struct Desk {
    in_work: Arc<Semaphore>,
    /// Of the broker's properties: changes with each UPDATE_BROKER_CONFIG.
    config_version: Mutex<DataVersion>,
}

impl Default for Desk {
    fn default() -> Self {
        Desk {
            in_work: Arc::new(Semaphore::new(IN_WORK_MAX)),
            config_version: Mutex::new(DataVersion::new(clock::now_ms())),
        }
    }
}

type Answer = Result<Command, Refusal>;
type Later = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// How a request is answered.
enum Way {
    /// From memory, on the connection's worker.
    AtOnce(fn(&Broker, &Command) -> Answer),
    /// With reads of the store or writes of a table, on a thread that may block.
    Blocking(fn(&Broker, &Command) -> Answer),
    /// Waiting for others.
    Task(fn(Arc<Broker>, Arc<Command>) -> Later),
}

fn way(code: i32) -> Option<Way> {
    use Way::{AtOnce, Blocking, Task};
    Some(match code {
        request::UPDATE_AND_CREATE_TOPIC => Task(topic::update_and_create),
        request::UPDATE_AND_CREATE_TOPIC_LIST => Task(topic::update_and_create_list),
        request::DELETE_TOPIC_IN_BROKER => Task(topic::delete),
        request::GET_ALL_TOPIC_CONFIG => AtOnce(topic::all_configs),
        request::GET_TOPIC_CONFIG => AtOnce(topic::config),
        request::GET_TOPIC_STATS_INFO => Blocking(topic::stats),
        request::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => AtOnce(topic::system_list),
        request::QUERY_TOPIC_CONSUME_BY_WHO => AtOnce(topic::consumed_by),
        request::CLEAN_UNUSED_TOPIC => AtOnce(queue::clean),

        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => Blocking(group::update_and_create),
        request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => {
            Blocking(group::update_and_create_list)
        }
        request::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => AtOnce(group::all_configs),
        request::GET_SUBSCRIPTIONGROUP_CONFIG => Blocking(group::config),
        request::DELETE_SUBSCRIPTIONGROUP => Blocking(group::delete),
        request::UPDATE_AND_GET_GROUP_FORBIDDEN => Blocking(group::forbidden),

        request::GET_CONSUMER_CONNECTION_LIST => AtOnce(consumer::connections),
        request::GET_PRODUCER_CONNECTION_LIST => AtOnce(consumer::producer_connections),
        request::GET_ALL_PRODUCER_INFO => AtOnce(consumer::producers),
        request::QUERY_TOPICS_BY_CONSUMER => AtOnce(consumer::topics),
        request::QUERY_SUBSCRIPTION_BY_CONSUMER => AtOnce(consumer::subscription),
        request::GET_CONSUME_STATS => Blocking(consumer::stats),
        request::GET_BROKER_CONSUME_STATS => Blocking(consumer::stats_of_all),
        request::QUERY_CONSUME_TIME_SPAN => Blocking(consumer::time_span),

        request::GET_CONSUMER_RUNNING_INFO => Task(relay::running_info),
        request::CONSUME_MESSAGE_DIRECTLY => Task(relay::consume_directly),
        request::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => Task(relay::consumer_status),

        request::INVOKE_BROKER_TO_RESET_OFFSET => Blocking(offsets::reset),
        request::CLONE_GROUP_OFFSET => AtOnce(offsets::clone),
        request::QUERY_CORRECTION_OFFSET => AtOnce(offsets::correction),

        request::SEARCH_OFFSET_BY_TIMESTAMP => Blocking(queue::offset_by_time),
        request::GET_MAX_OFFSET => AtOnce(queue::max_offset),
        request::GET_MIN_OFFSET => AtOnce(queue::min_offset),
        request::GET_EARLIEST_MSG_STORETIME => Blocking(queue::earliest_store_time),
        request::QUERY_CONSUME_QUEUE => Blocking(queue::entries),
        request::CLEAN_EXPIRED_CONSUMEQUEUE => AtOnce(queue::clean),
        request::DELETE_EXPIRED_COMMITLOG => AtOnce(queue::clean),

        request::GET_BROKER_CONFIG => AtOnce(config::get),
        request::UPDATE_BROKER_CONFIG => Blocking(config::update),

        request::GET_BROKER_RUNTIME_INFO => Blocking(runtime_info::table),
        request::VIEW_BROKER_STATS_DATA => AtOnce(runtime_info::stats_data),

        request::GET_ALL_CONSUMER_OFFSET => AtOnce(copies::consumer_offsets),
        request::GET_ALL_DELAY_OFFSET => AtOnce(copies::delay_offsets),
        request::GET_ALL_MESSAGE_REQUEST_MODE => AtOnce(copies::message_request_modes),
        request::GET_TIMER_CHECK_POINT => AtOnce(copies::timer_check_point),
        request::GET_TIMER_METRICS => AtOnce(copies::timer_metrics),
        request::GET_BROKER_HA_STATUS => AtOnce(copies::ha_status),
        request::GET_BROKER_EPOCH_CACHE => AtOnce(copies::epochs),
        _ => return None,
    })
}

/// Answers an administrative request, now or later (`None`). Any code that is none of them is refused with code 3.
pub fn handle(broker: &Arc<Broker>, connection: &Connection, command: Command) -> Option<Command> {
    if command.code == partition::CODE {
        return Some(broker.partitions.obey(connection, &command));
    }
    let Some(way) = way(command.code) else {
        return Some(Refusal::unsupported(command.code).answer(&command));
    };
    if let Way::AtOnce(handler) = way {
        return Some(handler(broker, &command).unwrap_or_else(|refusal| refusal.answer(&command)));
    }
    let Ok(permit) = broker.desk.in_work.clone().try_acquire_owned() else {
        let remark =
            format!("[REJECTREQUEST]{IN_WORK_MAX} administrative requests are in work; try again");
        return Some(command.error(response::SYSTEM_BUSY, remark));
    };
    let broker = broker.clone();
    let connection = connection.clone();
    let reply = move |command: &Command, answer: Answer| {
        let answer = answer.unwrap_or_else(|refusal| refusal.answer(command));
        if !command.is_oneway() {
            connection.reply(&answer);
        }
        drop(permit);
    };
    let runtime = broker.runtime.clone();
    match way {
        Way::AtOnce(_) => unreachable!("answered above"),
        Way::Blocking(handler) => {
            runtime.spawn_blocking(move || reply(&command, handler(&broker, &command)));
        }
        Way::Task(handler) => {
            runtime.spawn(async move {
                let command = Arc::new(command);
                let answer = handler(broker, command.clone()).await;
                reply(&command, answer);
            });
        }
    }
    None
}

/// A slave's tables are its master's: a change made here would be gone with the next copy.
fn refuse_on_slave(broker: &Broker) -> Result<(), Refusal> {
    if broker.is_slave() {
        return Err(Refusal::system_error(
            "Can't modify topic or subscription group from slave broker, please execute it from master broker.",
        ));
    }
    Ok(())
}

fn message_queue(broker: &Broker, topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue::new(topic, &broker.config.get().broker_name, queue_id)
}

/// Store time in ms of a queue's message; `absent` when there is none.
fn store_time(
    broker: &Broker,
    topic: &str,
    queue_id: i32,
    offset: i64,
    absent: i64,
) -> Result<i64, Refusal> {
    if offset < 0 {
        return Ok(absent);
    }
    Ok(broker
        .store
        .store_time(topic, queue_id, offset)?
        .unwrap_or(absent))
}

/// A page of a sorted table (21, 201): all of it when the request names none of the three fields; from the start when the version
/// that the caller saw is not `version` any more.
fn page<V>(
    command: &Command,
    version: DataVersion,
    table: std::collections::BTreeMap<Arc<str>, V>,
    seq_field: &'static str,
    max_field: &'static str,
) -> Result<std::collections::BTreeMap<Arc<str>, V>, Refusal> {
    /// `splitMetadataSize`.
    const PAGE_MAX: usize = 2000;
    let seen = command.ext.get("dataVersion");
    let seq = command.ext.opt_i32(seq_field)?;
    let max = command.ext.opt_i32(max_field)?;
    if seen.is_none() && seq.is_none() && max.is_none() {
        return Ok(table);
    }
    let same = seen
        .and_then(|text| rocketmq_protocol::json::from_slice::<DataVersion>(text.as_bytes()).ok())
        .is_some_and(|seen| seen == version);
    let from = if same {
        seq.unwrap_or(0).max(0) as usize
    } else {
        0
    };
    let count = max.map_or(PAGE_MAX, |max| (max.max(0) as usize).min(PAGE_MAX));
    Ok(table.into_iter().skip(from).take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocketmq_protocol::ExtFields;
    use std::collections::BTreeMap;

    #[test]
    fn a_table_is_paged_by_sorted_name_and_starts_over_when_its_version_moved() {
        let version = DataVersion {
            counter: 2,
            ..DataVersion::default()
        };
        let check = |ext: ExtFields, expected: &[&str]| {
            let table: BTreeMap<Arc<str>, ()> =
                ["a", "b", "c", "d"].map(|name| (name.into(), ())).into();
            let command = Command::request(request::GET_ALL_TOPIC_CONFIG, ext);
            let names: Vec<Arc<str>> = page(&command, version, table, "topicSeq", "maxTopicNum")
                .unwrap()
                .into_keys()
                .collect();
            assert_eq!(
                names,
                expected
                    .iter()
                    .map(|name| Arc::from(*name))
                    .collect::<Vec<_>>()
            );
        };
        let seen =
            |counter: i32| format!(r#"{{"counter":{counter},"stateVersion":0,"timestamp":0}}"#);
        let ask = |counter, seq| {
            ExtFields::new()
                .with("topicSeq", seq)
                .with("dataVersion", seen(counter))
                .with("maxTopicNum", 2)
        };
        check(ExtFields::new(), &["a", "b", "c", "d"]);
        check(
            ExtFields::new().with("topicSeq", 0).with("maxTopicNum", 3),
            &["a", "b", "c"],
        );
        check(ask(2, 2), &["c", "d"]);
        check(ask(2, 3), &["d"]);
        check(ask(2, 4), &[]);
        check(ask(1, 2), &["a", "b"]);
    }
}
