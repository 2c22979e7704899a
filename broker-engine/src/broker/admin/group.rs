//! Consumer groups: 200, 225, 201, 352, 207, 353.

use super::{Answer, page, refuse_on_slave};
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use rocketmq_protocol::body::{SubscriptionGroupConfig, SubscriptionGroupList};
use rocketmq_protocol::code::response;
use rocketmq_protocol::{Command, json, topic};
use serde::Serialize;

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200).
pub(super) fn update_and_create(broker: &Broker, command: &Command) -> Answer {
    let group: SubscriptionGroupConfig = json::from_slice(&command.body)?;
    update(broker, command, vec![group])
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225).
pub(super) fn update_and_create_list(broker: &Broker, command: &Command) -> Answer {
    let body: SubscriptionGroupList = json::from_slice(&command.body)?;
    update(broker, command, body.group_config_list)
}

fn update(broker: &Broker, command: &Command, groups: Vec<SubscriptionGroupConfig>) -> Answer {
    refuse_on_slave(broker)?;
    for group in &groups {
        topic::validate_group(&group.group_name)
            .map_err(|error| Refusal::new(response::INVALID_PARAMETER, error.to_string()))?;
    }
    broker.groups.update(groups)?;
    Ok(command.response(response::SUCCESS))
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201).
pub(super) fn all_configs(broker: &Broker, command: &Command) -> Answer {
    let mut file = broker.groups.snapshot();
    let total = file.subscription_group_table.len();
    file.subscription_group_table = page(
        command,
        file.data_version,
        file.subscription_group_table,
        "groupSeq",
        "maxGroupNum",
    )?;
    let shown = &file.subscription_group_table;
    file.forbidden_table
        .retain(|group, _| shown.contains_key(group.as_str()));
    Ok(command
        .response(response::SUCCESS)
        .with("totalGroupNum", total)
        .with_body(json_body(&file)))
}

/// GET_SUBSCRIPTIONGROUP_CONFIG (352).
pub(super) fn config(broker: &Broker, command: &Command) -> Answer {
    let Some(group) = broker.groups.find(command.ext.str("group")?) else {
        return Err(Refusal::new(
            response::SUBSCRIPTION_GROUP_NOT_EXIST,
            "No group in this broker",
        ));
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&*group)))
}

/// DELETE_SUBSCRIPTIONGROUP (207).
pub(super) fn delete(broker: &Broker, command: &Command) -> Answer {
    refuse_on_slave(broker)?;
    let group = command.ext.str("groupName")?;
    broker.groups.delete(group)?;
    if command.ext.bool_or("cleanOffset", false)? {
        broker.offsets.remove_group(group);
    }
    broker.stats.group_deleted(group);
    Ok(command.response(response::SUCCESS))
}

#[derive(Serialize)]
struct GroupForbidden<'a> {
    group: &'a str,
    readable: bool,
    topic: &'a str,
}

/// UPDATE_AND_GET_GROUP_FORBIDDEN (353).
pub(super) fn forbidden(broker: &Broker, command: &Command) -> Answer {
    let group = command.ext.str("group")?;
    let topic = command.ext.str("topic")?;
    if command.ext.get("readable").is_some() {
        refuse_on_slave(broker)?;
        broker
            .groups
            .forbid_read(group, topic, !command.ext.bool_or("readable", true)?)?;
    }
    let body = GroupForbidden {
        group,
        readable: !broker.groups.read_forbidden(group, topic),
        topic,
    };
    Ok(command
        .error(response::SUCCESS, "")
        .with_body(json_body(&body)))
}
