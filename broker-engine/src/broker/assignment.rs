//! Which queues a consumer reads, decided here instead of by the clients: QUERY_ASSIGNMENT (400); and how a group consumes a
//! topic, by pulling or popping: SET_MESSAGE_REQUEST_MODE (401), `config/messageRequestMode.json`, GET_ALL_MESSAGE_REQUEST_MODE (402).
//! Source: `apache/rocketmq: broker/.../processor/QueryAssignmentProcessor.java`, `broker/.../loadbalance/MessageRequestModeManager.java`,
//! `client/.../consumer/rebalance/AllocateMessageQueueAveragely{,ByCircle}.java`.

use super::refusal::{Refusal, json_body};
use super::{Broker, table_file};
use crate::config::RequestMode;
use crate::net::Connection;
use parking_lot::Mutex;
use rocketmq_protocol::body::{
    MessageModel, MessageQueue, MessageQueueAssignment, MessageRequestMode,
    MessageRequestModeSerializeWrapper, QueryAssignmentRequestBody,
    SetMessageRequestModeRequestBody, TopicRouteData,
};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::topic::{self, perm};
use rocketmq_protocol::{Command, ExtFields, json};
use rocketmq_store::table::{self, TableError};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A topic's queues are asked for again after this. Java keeps them for 30 s; a consumer asks every 20 s.
const FRESH: Duration = Duration::from_secs(5);
/// For one name server to answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Topics whose queues are remembered.
const KEPT: usize = 10_000;

/// The modes that were set, and the queues of topics over all brokers.
#[derive(Debug)]
pub struct Assignments {
    path: PathBuf,
    modes: Mutex<MessageRequestModeSerializeWrapper>,
    queues: Mutex<HashMap<String, Known>>,
}

/// When a topic's queues were asked for, and what was answered.
type Known = (Instant, Arc<[MessageQueue]>);

/// How queues are dealt: to which client, which queues, among which members.
type Strategy = fn(&str, &[MessageQueue], &[Arc<str>]) -> Vec<MessageQueue>;

/// As Java's body, whose list is absent when nothing can be said: the client then keeps what it has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Assigned {
    #[serde(skip_serializing_if = "Option::is_none")]
    message_queue_assignments: Option<Vec<MessageQueueAssignment>>,
}

impl Assignments {
    pub(super) fn open(config_dir: &Path) -> Result<Assignments, TableError> {
        let path = config_dir.join("messageRequestMode.json");
        let modes = table_file::load(&path)?.unwrap_or_default();
        Ok(Assignments {
            path,
            modes: Mutex::new(modes),
            queues: Mutex::default(),
        })
    }

    fn set(&self, mode: SetMessageRequestModeRequestBody) -> Result<(), TableError> {
        let mut modes = self.modes.lock();
        let groups = modes
            .message_request_mode_map
            .entry(mode.topic.clone())
            .or_default();
        groups.insert(mode.consumer_group.clone(), mode);
        table::write(&self.path, &json::to_fastjson_pretty(&*modes))
    }

    fn mode(&self, topic: &str, group: &str) -> Option<(MessageRequestMode, i32)> {
        let modes = self.modes.lock();
        let mode = modes.message_request_mode_map.get(topic)?.get(group)?;
        Some((mode.mode, mode.pop_share_queue_num))
    }

    /// GET_ALL_MESSAGE_REQUEST_MODE's body.
    pub(super) fn wire_text(&self) -> String {
        json_body(&*self.modes.lock())
    }

    /// Slave: takes its master's table.
    pub(super) fn replace_all(&self, text: &[u8]) -> Result<(), String> {
        let new: MessageRequestModeSerializeWrapper =
            json::from_slice(text).map_err(|error| error.to_string())?;
        let mut modes = self.modes.lock();
        if *modes != new {
            table::write(&self.path, &json::to_fastjson_pretty(&new))
                .map_err(|error| error.to_string())?;
            *modes = new;
        }
        Ok(())
    }
}

impl Broker {
    /// SET_MESSAGE_REQUEST_MODE.
    pub(super) fn set_request_mode(&self, command: &Command) -> Result<Option<Command>, Refusal> {
        let mode: SetMessageRequestModeRequestBody = json::from_slice(&command.body)?;
        if topic::is_retry(&mode.topic) {
            return Err(Refusal::new(
                response::NO_PERMISSION,
                "retry topic is not allowed to set mode",
            ));
        }
        if self.topics.get(&mode.topic).is_none() {
            return Err(Refusal::new(
                response::TOPIC_NOT_EXIST,
                format!("topic[{}] not exist", mode.topic),
            ));
        }
        if self.groups.find(&mode.consumer_group).is_none() {
            return Err(Refusal::new(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                "subscription group does not exist",
            ));
        }
        self.assignments.set(mode)?;
        Ok(Some(command.response(response::SUCCESS)))
    }

    /// QUERY_ASSIGNMENT; answered when the name server has said which queues there are.
    pub(super) fn query_assignment(self: &Arc<Self>, connection: &Connection, command: Command) {
        let (broker, connection) = (Arc::clone(self), connection.clone());
        self.runtime.spawn(async move {
            let answer = match broker.assign(&command).await {
                Ok(assigned) => command
                    .response(response::SUCCESS)
                    .with_body(json_body(&assigned)),
                Err(refusal) => refusal.answer(&command),
            };
            if !command.is_oneway() {
                connection.reply(&answer);
            }
        });
    }

    async fn assign(&self, command: &Command) -> Result<Assigned, Refusal> {
        let asked: QueryAssignmentRequestBody = json::from_slice(&command.body)?;
        let config = self.config.get();
        let (mode, share) = self
            .assignments
            .mode(&asked.topic, &asked.consumer_group)
            .unwrap_or_else(|| {
                // A retry topic is small, and read by whoever is told its queue.
                if config.default_message_request_mode == RequestMode::Pop
                    && !topic::is_retry(&asked.topic)
                {
                    (MessageRequestMode::Pop, config.default_pop_share_queue_num)
                } else {
                    (MessageRequestMode::Pull, 0)
                }
            });
        let nothing_known = Assigned {
            message_queue_assignments: None,
        };
        let Some(all) = self.queues_of(&asked.topic).await else {
            return Ok(nothing_known);
        };
        let broadcast = asked.message_model == MessageModel::Broadcasting;
        let queues = if broadcast || !config.server_load_balancer_enable {
            all.to_vec()
        } else {
            let members = self.clients.consumers(&asked.consumer_group);
            let mut members: Vec<Arc<str>> = members
                .iter()
                .map(|member| member.client_id.clone())
                .collect();
            members.sort();
            members.dedup();
            if members.is_empty() {
                return Ok(nothing_known);
            }
            let strategy: Strategy = match asked.strategy_name.as_str() {
                "AVG" => averagely,
                "AVG_BY_CIRCLE" => by_circle,
                _ => return Ok(nothing_known),
            };
            match mode {
                MessageRequestMode::Pop => {
                    for_pop(strategy, &asked.client_id, &all, &members, share)
                }
                MessageRequestMode::Pull => strategy(&asked.client_id, &all, &members),
            }
        };
        let assigned = queues
            .into_iter()
            .map(|message_queue| MessageQueueAssignment {
                attachments: BTreeMap::new(),
                message_queue,
                mode,
            });
        Ok(Assigned {
            message_queue_assignments: Some(assigned.collect()),
        })
    }

    /// The topic's readable queues over all brokers, sorted; `None` when no name server knows the topic.
    async fn queues_of(&self, topic: &str) -> Option<Arc<[MessageQueue]>> {
        if topic::is_lmq(topic) && self.config.get().enable_lmq {
            let broker_name = &self.config.get().broker_name;
            return Some(Arc::from([MessageQueue::new(topic, broker_name, 0)]));
        }
        let known = self.assignments.queues.lock().get(topic).cloned();
        if let Some((at, queues)) = &known
            && at.elapsed() < FRESH
        {
            return Some(Arc::clone(queues));
        }
        let ask = Command::request(
            request::GET_ROUTEINFO_BY_TOPIC,
            ExtFields::new().with("topic", topic),
        );
        let queues = match self.registration.ask(ask, TIMEOUT).await {
            Some(answer) if answer.code == response::SUCCESS => {
                let route: TopicRouteData = json::from_slice(&answer.body)
                    .inspect_err(
                        |error| tracing::warn!(topic, %error, "the route of a topic does not read"),
                    )
                    .ok()?;
                queues_in(topic, &route)
            }
            Some(answer) if answer.code == response::TOPIC_NOT_EXIST => {
                self.assignments.queues.lock().remove(topic);
                return None;
            }
            // Nobody answers: what was known is better than nothing.
            _ => return known.map(|(_, queues)| queues),
        };
        let mut all = self.assignments.queues.lock();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(topic.to_owned(), (Instant::now(), Arc::clone(&queues)));
        Some(queues)
    }
}

fn queues_in(topic: &str, route: &TopicRouteData) -> Arc<[MessageQueue]> {
    let mut queues: Vec<MessageQueue> = (route.queue_datas.iter())
        .filter(|data| perm::readable(data.perm))
        .flat_map(|data| {
            (0..data.read_queue_nums)
                .map(|queue| MessageQueue::new(topic, &data.broker_name, queue))
        })
        .collect();
    queues.sort();
    queues.into()
}

fn place_of(client: &str, members: &[Arc<str>]) -> Option<usize> {
    members.iter().position(|member| **member == *client)
}

/// Each member gets a run of queues; the first ones get one more when they do not divide.
fn averagely(client: &str, queues: &[MessageQueue], members: &[Arc<str>]) -> Vec<MessageQueue> {
    let Some(place) = place_of(client, members) else {
        return Vec::new();
    };
    let (each, over) = (queues.len() / members.len(), queues.len() % members.len());
    let begin = place * each + place.min(over);
    let count = each + usize::from(place < over);
    queues[begin..begin + count].to_vec()
}

/// Each member gets every so manieth queue.
fn by_circle(client: &str, queues: &[MessageQueue], members: &[Arc<str>]) -> Vec<MessageQueue> {
    let Some(place) = place_of(client, members) else {
        return Vec::new();
    };
    queues
        .iter()
        .skip(place)
        .step_by(members.len())
        .cloned()
        .collect()
}

/// Popping members share queues: any queue of each broker, or their own and those of the `share` members behind them.
fn for_pop(
    strategy: Strategy,
    client: &str,
    queues: &[MessageQueue],
    members: &[Arc<str>],
    share: i32,
) -> Vec<MessageQueue> {
    if share <= 0 || share as usize >= members.len() - 1 {
        let mut any: Vec<MessageQueue> = (queues.iter())
            .map(|queue| MessageQueue::new(&queue.topic, &queue.broker_name, -1))
            .collect();
        any.dedup();
        return any;
    }
    let Some(place) = place_of(client, members) else {
        return Vec::new();
    };
    if members.len() > queues.len() {
        return queues
            .get(place % queues.len().max(1))
            .cloned()
            .into_iter()
            .collect();
    }
    (0..=share as usize)
        .flat_map(|next| strategy(&members[(place + next) % members.len()], queues, members))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(brokers: &[&str], each: i32) -> Vec<MessageQueue> {
        let of = |broker: &&str| {
            (0..each)
                .map(|queue| MessageQueue::new("T", broker, queue))
                .collect::<Vec<_>>()
        };
        brokers.iter().flat_map(of).collect()
    }

    fn members(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|n| format!("c{n}").into()).collect()
    }

    fn names(queues: Vec<MessageQueue>) -> Vec<String> {
        queues
            .iter()
            .map(|queue| format!("{}{}", queue.broker_name, queue.queue_id))
            .collect()
    }

    #[test]
    fn queues_are_dealt_whole_and_once() {
        let (all, who) = (queues(&["a", "b"], 4), members(3));
        assert_eq!(names(averagely("c0", &all, &who)), ["a0", "a1", "a2"]);
        assert_eq!(names(averagely("c1", &all, &who)), ["a3", "b0", "b1"]);
        assert_eq!(names(averagely("c2", &all, &who)), ["b2", "b3"]);
        assert_eq!(names(by_circle("c1", &all, &who)), ["a1", "b0", "b3"]);
        assert_eq!(names(averagely("c2", &queues(&["a"], 2), &who)), [""; 0]);
        assert_eq!(names(averagely("stranger", &all, &who)), [""; 0]);
    }

    #[test]
    fn who_pops_shares() {
        let (all, who) = (queues(&["a", "b"], 4), members(4));
        let pop = |client: &str, share| names(for_pop(averagely, client, &all, &who, share));
        assert_eq!(pop("c0", -1), ["a-1", "b-1"]);
        assert_eq!(pop("c0", 3), ["a-1", "b-1"]);
        assert_eq!(pop("c3", 1), ["b2", "b3", "a0", "a1"]);
        let few = queues(&["a"], 2);
        assert_eq!(names(for_pop(averagely, "c3", &few, &who, 1)), ["a1"]);
    }

    #[test]
    fn modes_are_javas_file() {
        let dir = tempfile::tempdir().unwrap();
        let table = Assignments::open(dir.path()).unwrap();
        table
            .set(SetMessageRequestModeRequestBody {
                consumer_group: "g".into(),
                mode: MessageRequestMode::Pop,
                pop_share_queue_num: 2,
                topic: "T".into(),
            })
            .unwrap();
        let again = Assignments::open(dir.path()).unwrap();
        assert_eq!(again.mode("T", "g"), Some((MessageRequestMode::Pop, 2)));
        assert_eq!(again.mode("T", "h"), None);
        let text = "{\"messageRequestModeMap\":{\"T\":{\"g\":{\"consumerGroup\":\"g\",\"mode\":\"POP\",\"popShareQueueNum\":2,\"topic\":\"T\"}}}}";
        assert_eq!(again.wire_text(), text);
    }
}
