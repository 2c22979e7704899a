//! Topics: 17, 18, 215, 21, 351, 202, 305, 300.

use super::{Answer, Later, message_queue, page, refuse_on_slave, store_time};
use crate::broker::Broker;
use crate::broker::attributes;
use crate::broker::refusal::{Refusal, json_body};
use crate::broker::topics::UpdateError;
use crate::clock;
use rocketmq_protocol::body::{
    CreateTopicListRequestBody, GroupList, TopicConfig, TopicConfigAndMappingSerializeWrapper,
    TopicConfigSerializeWrapper, TopicList, TopicOffset, TopicStatsTable,
};
use rocketmq_protocol::code::response;
use rocketmq_protocol::{Command, json, topic};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long creating a topic waits for the name servers; below the 5 s that tools wait.
const REGISTER_WAIT: Duration = Duration::from_secs(3);
/// More queues than any use has, few enough to walk.
const QUEUES_MAX: i32 = 1 << 16;

/// UPDATE_AND_CREATE_TOPIC (17): stored, written and known to the name servers before the answer, so that a route can be asked at once.
pub(super) fn update_and_create(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        let ext = &command.ext;
        let topic = TopicConfig {
            topic_name: ext.str("topic")?.into(),
            read_queue_nums: ext.i32("readQueueNums")?,
            write_queue_nums: ext.i32("writeQueueNums")?,
            perm: ext.i32("perm")?,
            topic_filter_type: ext.get("topicFilterType").unwrap_or("SINGLE_TAG").into(),
            topic_sys_flag: ext.opt_i32("topicSysFlag")?.unwrap_or(0),
            order: ext.bool_or("order", false)?,
            attributes: attributes::parse(ext.get("attributes").unwrap_or_default())
                .map_err(Refusal::system_error)?,
        };
        update(broker, command, vec![topic]).await
    })
}

/// UPDATE_AND_CREATE_TOPIC_LIST (18).
pub(super) fn update_and_create_list(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        let body: CreateTopicListRequestBody = json::from_slice(&command.body)?;
        update(broker, command, body.topic_config_list).await
    })
}

async fn update(broker: Arc<Broker>, command: Arc<Command>, topics: Vec<TopicConfig>) -> Answer {
    refuse_on_slave(&broker)?;
    for topic in &topics {
        check(&broker, topic)?;
    }
    let table = broker.clone();
    let updated = tokio::task::spawn_blocking(move || table.topics.update(topics)).await;
    updated.map_err(|error| Refusal::system_error(error.to_string()))??;
    let changes = *broker.topics.changes().borrow();
    broker.registration.covered(changes, REGISTER_WAIT).await;
    Ok(command.response(response::SUCCESS))
}

impl From<UpdateError> for Refusal {
    fn from(error: UpdateError) -> Self {
        Refusal::system_error(error.to_string())
    }
}

fn check(broker: &Broker, topic: &TopicConfig) -> Result<(), Refusal> {
    let invalid = |remark: String| Refusal::new(response::INVALID_PARAMETER, remark);
    topic::validate_topic(&topic.topic_name).map_err(|error| invalid(error.to_string()))?;
    refuse_system(broker, &topic.topic_name)?;
    for (name, queues) in [
        ("readQueueNums", topic.read_queue_nums),
        ("writeQueueNums", topic.write_queue_nums),
    ] {
        if !(0..=QUEUES_MAX).contains(&queues) {
            return Err(invalid(format!(
                "{name} is {queues}; 0 to {QUEUES_MAX} are allowed"
            )));
        }
    }
    if topic
        .attributes
        .get("+message.type")
        .is_some_and(|kind| kind == "MIXED")
    {
        return Err(invalid("MIXED message type is not supported.".into()));
    }
    Ok(())
}

fn refuse_system(broker: &Broker, topic: &str) -> Result<(), Refusal> {
    if broker.config.get().validate_system_topic_when_update_topic && broker.topics.is_system(topic)
    {
        let remark = format!("The topic[{topic}] is conflict with system topic.");
        return Err(Refusal::new(response::INVALID_PARAMETER, remark));
    }
    Ok(())
}

/// DELETE_TOPIC_IN_BROKER (215): the topic, its groups' POP retry topics, their offsets, statistics and queues.
pub(super) fn delete(broker: Arc<Broker>, command: Arc<Command>) -> Later {
    Box::pin(async move {
        // Not refused on a slave, as in Java: deleteSubGroup deletes a group's topics there too, and stops at an error before
        // the name servers are told. What the master still has comes back with the next copy.
        let name = command.ext.str("topic")?;
        if name.trim().is_empty() {
            return Err(Refusal::new(
                response::INVALID_PARAMETER,
                "The specified topic is blank.",
            ));
        }
        refuse_system(&broker, name)?;
        let mut doomed = vec![name.to_owned()];
        if broker.config.get().clear_retry_topic_when_delete_topic {
            for group in broker.offsets.groups_of(name) {
                let retries = [true, false].map(|v2| topic::pop_retry(&group, name, v2));
                doomed.extend(
                    retries
                        .into_iter()
                        .filter(|retry| broker.topics.get(retry).is_some()),
                );
            }
        }
        for topic in doomed {
            let table = broker.clone();
            let name = topic.clone();
            let deleted = tokio::task::spawn_blocking(move || table.topics.delete(&name)).await;
            deleted.map_err(|error| Refusal::system_error(error.to_string()))??;
            broker.offsets.remove_topic(&topic);
            broker.stats.topic_deleted(&topic);
            let failed = |error| {
                Refusal::system_error(format!("deleting the queues of {topic} failed: {error}"))
            };
            broker
                .log
                .delete_topic(topic.clone())
                .await
                .map_err(failed)?;
        }
        Ok(command.response(response::SUCCESS))
    })
}

/// GET_ALL_TOPIC_CONFIG (21).
pub(super) fn all_configs(broker: &Broker, command: &Command) -> Answer {
    let TopicConfigSerializeWrapper {
        data_version,
        topic_config_table,
    } = broker.topics.snapshot();
    let total = topic_config_table.len();
    let body = TopicConfigAndMappingSerializeWrapper {
        data_version,
        topic_config_table: page(
            command,
            data_version,
            topic_config_table,
            "topicSeq",
            "maxTopicNum",
        )?,
        // This engine has no static topics.
        ..TopicConfigAndMappingSerializeWrapper::default()
    };
    Ok(command
        .response(response::SUCCESS)
        .with("totalTopicNum", total)
        .with_body(json_body(&body)))
}

/// GET_TOPIC_CONFIG (351).
pub(super) fn config(broker: &Broker, command: &Command) -> Answer {
    let name = command.ext.str("topic")?;
    let Some(topic) = broker.topics.get(name) else {
        let remark = format!("No topic in this broker. topic: {name}");
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&*topic)))
}

pub(super) fn not_exist(topic: &str) -> Refusal {
    Refusal::new(
        response::TOPIC_NOT_EXIST,
        format!("topic[{topic}] not exist"),
    )
}

/// GET_TOPIC_STATS_INFO (202).
pub(super) fn stats(broker: &Broker, command: &Command) -> Answer {
    let name = command.ext.str("topic")?;
    let topic = broker.topics.get(name).ok_or_else(|| not_exist(name))?;
    let mut table = TopicStatsTable {
        offset_table: BTreeMap::new(),
        topic_put_tps: broker.stats.topic_put_tps(name, clock::now_ms()),
    };
    for queue_id in 0..topic.read_queue_nums.max(topic.write_queue_nums) {
        let (min, max) = broker.store.queue_bounds(name, queue_id);
        let offset = TopicOffset {
            min_offset: min.max(0),
            max_offset: max.max(0),
            last_update_timestamp: store_time(broker, name, queue_id, max - 1, 0)?,
        };
        table
            .offset_table
            .insert(message_queue(broker, name, queue_id), offset);
    }
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&table)))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305).
pub(super) fn system_list(broker: &Broker, command: &Command) -> Answer {
    let names = broker.topics.system_names();
    let body = TopicList {
        topic_list: names.iter().map(ToString::to_string).collect(),
        ..TopicList::default()
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

/// QUERY_TOPIC_CONSUME_BY_WHO (300): groups that subscribe to the topic or have offsets in it.
pub(super) fn consumed_by(broker: &Broker, command: &Command) -> Answer {
    let name = command.ext.str("topic")?;
    let mut groups = broker.clients.groups_of(name);
    groups.append(&mut broker.offsets.groups_of(name));
    let body = GroupList {
        group_list: groups.iter().map(ToString::to_string).collect(),
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}
