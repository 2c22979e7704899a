//! Who is connected: producers and consumers by group, from their heartbeats; dropped on close or 120 s of silence.
//!
//! [`Registry`] decides in plain state that takes `now`; [`Clients`] puts a lock around it and sends what it says to send
//! (NOTIFY_CONSUMER_IDS_CHANGED 40, one-way, over the members' own connections).
//! Source: `apache/rocketmq: broker/.../client/{ConsumerManager,ConsumerGroupInfo,ProducerManager}.java`,
//! `broker/.../processor/ClientManageProcessor.java`.

mod registry;

pub use registry::{Member, Registry};

use crate::broker::Broker;
use crate::broker::filter::property_filter_is_off;
use crate::broker::refusal::{Refusal, json_body};
use crate::clock;
use crate::net::Connection;
use parking_lot::RwLock;
use rocketmq_protocol::body::{
    CheckClientRequestBody, ConsumerConnection, GetConsumerListByGroupResponseBody, HeartbeatData,
    ProducerConnection, ProducerTableInfo, SubscriptionData,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What pull must know of a group.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct GroupView {
    pub broadcasting: bool,
    pub subscription: Option<Arc<SubscriptionData>>,
}

/// The registry, shared.
#[derive(Debug, Default)]
pub struct Clients {
    registry: RwLock<Registry<Connection>>,
}

impl Clients {
    /// The group's view of a topic; `None` when no consumer of the group is known (code 24).
    pub fn group_view(&self, group: &str, topic: &str) -> Option<GroupView> {
        self.registry.read().group_view(group, topic)
    }

    /// A connection closed: its clients go, their groups are told (40).
    pub fn connection_closed(&self, connection: &Connection) {
        let told = self.registry.write().connection_closed(connection.id());
        notify(told);
    }

    /// Drops clients that were silent for `silence`, closes their connections and tells their groups.
    pub fn expire(&self, now: Instant, silence: Duration) {
        let (silent, told) = self.registry.write().expire(now, silence);
        for connection in silent {
            connection.close_for(format_args!("its client sent no heartbeat for {silence:?}"));
        }
        notify(told);
    }

    /// The member of a consumer group with that client id.
    pub fn consumer(&self, group: &str, client_id: &str) -> Option<Arc<Member<Connection>>> {
        self.consumers(group)
            .into_iter()
            .find(|member| *member.client_id == *client_id)
    }

    /// All members of a consumer group.
    pub fn consumers(&self, group: &str) -> Vec<Arc<Member<Connection>>> {
        self.registry.read().consumers(group)
    }

    /// The producer with that client id, of any group (request-reply).
    pub fn producer(&self, client_id: &str) -> Option<Arc<Member<Connection>>> {
        self.registry.read().producer(client_id)
    }

    /// All members of a producer group (transaction check-back picks one).
    pub fn producers(&self, group: &str) -> Vec<Arc<Member<Connection>>> {
        self.registry.read().producers(group)
    }

    /// A group's subscription to a topic, from its heartbeats.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<Arc<SubscriptionData>> {
        self.group_view(group, topic)?.subscription
    }

    /// How many topics a group's online members subscribe to; 0 when none is online.
    pub fn subscription_count(&self, group: &str) -> usize {
        self.registry.read().subscription_count(group)
    }

    /// Groups whose online members subscribe to a topic.
    pub fn groups_of(&self, topic: &str) -> BTreeSet<Arc<str>> {
        self.registry.read().groups_of(topic)
    }

    /// GET_CONSUMER_CONNECTION_LIST (203); `None`: nobody online.
    pub fn consumer_connection(&self, group: &str) -> Option<ConsumerConnection> {
        self.registry
            .read()
            .consumer_connection(group, |connection| connection.peer().to_string())
    }

    /// GET_PRODUCER_CONNECTION_LIST (204); `None`: nobody online.
    pub fn producer_connection(&self, group: &str) -> Option<ProducerConnection> {
        self.registry
            .read()
            .producer_connection(group, |connection| connection.peer().to_string())
    }

    /// GET_ALL_PRODUCER_INFO (328).
    pub fn producer_table(&self) -> ProducerTableInfo {
        self.registry
            .read()
            // As Java prints a socket's address, unlike in 203 and 204.
            .producer_table(|connection| format!("/{}", connection.peer()))
    }
}

/// NOTIFY_CONSUMER_IDS_CHANGED to every member of the groups.
fn notify(told: Vec<(Arc<str>, Vec<Connection>)>) {
    for (group, members) in told {
        for member in members {
            let header = ExtFields::new().with("consumerGroup", &group);
            member.oneway(Command::request(
                request::NOTIFY_CONSUMER_IDS_CHANGED,
                header,
            ));
        }
    }
}

/// HEART_BEAT (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38), CHECK_CLIENT_CONFIG (46).
pub fn handle(broker: &Broker, connection: &Connection, command: &Command) -> Option<Command> {
    let answer = match command.code {
        request::HEART_BEAT => heartbeat(broker, connection, command),
        request::UNREGISTER_CLIENT => unregister(broker, connection, command),
        request::GET_CONSUMER_LIST_BY_GROUP => consumer_list(broker, command),
        request::CHECK_CLIENT_CONFIG => check_client_config(broker, command),
        _ => Err(Refusal::unsupported(command.code)),
    };
    Some(answer.unwrap_or_else(|refusal| refusal.answer(command)))
}

fn heartbeat(
    broker: &Broker,
    connection: &Connection,
    command: &Command,
) -> Result<Command, Refusal> {
    let data: HeartbeatData = json::from_slice(&command.body)?;
    let member = Arc::new(Member {
        connection: connection.clone(),
        client_id: data.client_id,
        language: command.language,
        version: command.version,
        seen: Instant::now(),
        seen_ms: clock::now_ms(),
    });
    let mut told = Vec::new();
    let mut subscriptions_changed = false;
    for consumer in data.consumer_data_set {
        let Some(group) = broker.groups.find(&consumer.group_name) else {
            continue;
        };
        let ordered = |topic: &str| broker.topics.get(topic).is_some_and(|topic| topic.order);
        let order = consumer
            .subscription_data_set
            .iter()
            .any(|subscription| ordered(&subscription.topic));
        // TopicSysFlag.buildSysFlag(unit = false, hasUnitSub = true).
        let sys_flag = if consumer.unit_mode { 2 } else { 0 };
        broker
            .topics
            .ensure_retry(&group.group_name, group.retry_queue_nums, order, sys_flag);
        let outcome = broker.clients.registry.write().register_consumer(
            connection.id(),
            member.clone(),
            consumer,
            data.heartbeat_fingerprint,
            data.without_sub,
            group.notify_consumer_ids_changed_enable,
        );
        told.extend(outcome.told);
        subscriptions_changed |= outcome.subscriptions_unknown;
    }
    for producer in data.producer_data_set {
        broker.clients.registry.write().register_producer(
            connection.id(),
            member.clone(),
            &producer.group_name,
        );
    }
    if connection.is_closed() {
        // The close was told before the registration: take the client out again.
        broker.clients.connection_closed(connection);
    }
    notify(told);
    let changed = data.heartbeat_fingerprint == 0 || subscriptions_changed;
    Ok(command
        .response(response::SUCCESS)
        .with("IS_SUB_CHANGE", changed)
        .with("IS_SUPPORT_HEART_BEAT_V2", true))
}

fn unregister(
    broker: &Broker,
    connection: &Connection,
    command: &Command,
) -> Result<Command, Refusal> {
    command.ext.str("clientID")?;
    let mut told = None;
    {
        let mut registry = broker.clients.registry.write();
        if let Some(group) = command.ext.get("producerGroup") {
            registry.unregister_producer(connection.id(), group);
        }
        if let Some(group) = command.ext.get("consumerGroup") {
            told = registry.unregister_consumer(connection.id(), group);
        }
    }
    notify(told.into_iter().collect());
    Ok(command.response(response::SUCCESS))
}

fn consumer_list(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let group = command.ext.str("consumerGroup")?;
    let ids: Vec<String> = broker
        .clients
        .consumers(group)
        .iter()
        .map(|member| member.client_id.to_string())
        .collect();
    if ids.is_empty() {
        return Err(Refusal::system_error(format!(
            "no consumer for this group, {group}"
        )));
    }
    let body = GetConsumerListByGroupResponseBody {
        consumer_id_list: ids,
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&body)))
}

fn check_client_config(broker: &Broker, command: &Command) -> Result<Command, Refusal> {
    let body: CheckClientRequestBody = json::from_slice(&command.body)?;
    if let Some(subscription) = body.subscription_data {
        // Here Java asks for the property before it looks at the expression.
        if !subscription.is_tag_type() && !broker.config.get().enable_property_filter {
            return Err(property_filter_is_off(&subscription.expression_type));
        }
        broker.expression(&subscription, |reason| {
            Refusal::new(
                response::SUBSCRIPTION_PARSE_FAILED,
                format!("Invalid MessageSelector. {reason}"),
            )
        })?;
    }
    Ok(command.response(response::SUCCESS))
}
