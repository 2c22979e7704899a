//! The client table as plain state: no lock, no clock, no socket.

use super::GroupView;
use rocketmq_protocol::Language;
use rocketmq_protocol::body::{
    ClientConnection, ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData,
    MessageModel, ProducerConnection, ProducerInfo, ProducerTableInfo, SubscriptionData,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One client of a group, on one connection `C`.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Member<C> {
    pub connection: C,
    pub client_id: Arc<str>,
    pub language: Language,
    /// The client's `MQVersion` ordinal.
    pub version: i32,
    /// Its last heartbeat.
    pub seen: Instant,
    /// The same in ms since the epoch, for tools.
    pub seen_ms: i64,
}

/// Members by connection id: the same client on a new connection is a new member until the old one closes, as in Java.
/// A heartbeat names one client and many groups, which share what is known of it.
type Members<C> = BTreeMap<u64, Arc<Member<C>>>;

/// Groups to tell of a change, with all their members.
type Told<C> = Vec<(Arc<str>, Vec<C>)>;

/// Producers and consumers by group.
#[derive(Debug)]
pub struct Registry<C> {
    consumers: HashMap<Arc<str>, ConsumerGroup<C>>,
    producers: HashMap<Arc<str>, Members<C>>,
    /// Which groups a connection stands in, so that its end costs what it held.
    of_connection: HashMap<u64, BTreeSet<(Kind, Arc<str>)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Consumer,
    Producer,
}

#[derive(Debug)]
struct ConsumerGroup<C> {
    consume_type: ConsumeType,
    message_model: MessageModel,
    consume_from_where: ConsumeFromWhere,
    subscriptions: BTreeMap<Arc<str>, Arc<SubscriptionData>>,
    members: Members<C>,
    /// Of the last heartbeat; 0 for clients that send none.
    fingerprint: Option<i32>,
    /// The group's `notifyConsumerIdsChangedEnable`.
    notify: bool,
}

/// What a consumer's heartbeat led to.
#[derive(Debug, PartialEq)]
pub struct Registered<C> {
    /// The group and its members, if they must be told.
    pub told: Option<(Arc<str>, Vec<C>)>,
    /// The client must send its subscriptions again (heartbeat V2).
    pub subscriptions_unknown: bool,
}

impl<C> Default for Registry<C> {
    fn default() -> Self {
        Registry {
            consumers: HashMap::new(),
            producers: HashMap::new(),
            of_connection: HashMap::new(),
        }
    }
}

impl<C: Clone> ConsumerGroup<C> {
    fn broadcasting(&self) -> bool {
        self.message_model == MessageModel::Broadcasting
    }
    fn told(&self, group: &Arc<str>) -> Option<(Arc<str>, Vec<C>)> {
        let wanted = self.notify && !self.broadcasting() && !self.members.is_empty();
        wanted.then(|| {
            (
                group.clone(),
                self.members
                    .values()
                    .map(|member| member.connection.clone())
                    .collect(),
            )
        })
    }
    /// Takes newer subscriptions, drops topics that are no longer there; whether the set of topics changed.
    fn subscribe(&mut self, subscriptions: Vec<SubscriptionData>) -> bool {
        let topics: BTreeSet<Arc<str>> = subscriptions
            .iter()
            .map(|subscription| subscription.topic.clone())
            .collect();
        let before = self.subscriptions.len();
        self.subscriptions.retain(|topic, _| topics.contains(topic));
        let mut changed = self.subscriptions.len() != before;
        for subscription in subscriptions {
            match self.subscriptions.get(&subscription.topic) {
                Some(old) if old.sub_version >= subscription.sub_version => continue,
                Some(_) => {}
                None => changed = true,
            }
            self.subscriptions
                .insert(subscription.topic.clone(), Arc::new(subscription));
        }
        changed
    }
}

impl<C: Clone> Registry<C> {
    /// One consumer of a heartbeat. `connection` is the id of the member's connection; `fingerprint` is 0 for clients of the first
    /// heartbeat form; `without_sub`: the client believes that its subscriptions are known here.
    pub fn register_consumer(
        &mut self,
        connection: u64,
        member: Arc<Member<C>>,
        data: ConsumerData,
        fingerprint: i32,
        without_sub: bool,
        notify: bool,
    ) -> Registered<C> {
        let name = data.group_name;
        let group = self
            .consumers
            .entry(name.clone())
            .or_insert_with(|| ConsumerGroup {
                consume_type: data.consume_type,
                message_model: data.message_model,
                consume_from_where: data.consume_from_where,
                subscriptions: BTreeMap::new(),
                members: Members::new(),
                fingerprint: None,
                notify,
            });
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        group.notify = notify;
        let joined = group.members.insert(connection, member).is_none();
        let before = group.fingerprint.replace(fingerprint);
        let (changed, subscriptions_unknown) = if without_sub && fingerprint != 0 {
            // After a restart of this broker nothing is known of what the client sent to the earlier one.
            (false, before != Some(fingerprint))
        } else {
            let unequal = before.is_some_and(|before| before != fingerprint);
            (
                group.subscribe(data.subscription_data_set),
                fingerprint != 0 && unequal,
            )
        };
        let told = (joined || changed).then(|| group.told(&name)).flatten();
        self.of_connection
            .entry(connection)
            .or_default()
            .insert((Kind::Consumer, name));
        Registered {
            told,
            subscriptions_unknown,
        }
    }

    /// One producer group of a heartbeat.
    pub fn register_producer(&mut self, connection: u64, member: Arc<Member<C>>, group: &str) {
        let name: Arc<str> = match self.producers.get_key_value(group) {
            Some((name, _)) => name.clone(),
            None => group.into(),
        };
        self.producers
            .entry(name.clone())
            .or_default()
            .insert(connection, member);
        self.of_connection
            .entry(connection)
            .or_default()
            .insert((Kind::Producer, name));
    }

    /// UNREGISTER_CLIENT of a consumer; the group to tell.
    pub fn unregister_consumer(
        &mut self,
        connection: u64,
        group: &str,
    ) -> Option<(Arc<str>, Vec<C>)> {
        self.forget(connection, Kind::Consumer, group);
        self.remove_consumer(connection, group)?;
        let (name, left) = self.consumers.get_key_value(group)?;
        left.told(name)
    }

    /// UNREGISTER_CLIENT of a producer.
    pub fn unregister_producer(&mut self, connection: u64, group: &str) {
        self.forget(connection, Kind::Producer, group);
        self.remove_producer(connection, group);
    }

    fn forget(&mut self, connection: u64, kind: Kind, group: &str) {
        if let Some(held) = self.of_connection.get_mut(&connection) {
            held.retain(|(of_kind, name)| !(*of_kind == kind && **name == *group));
            if held.is_empty() {
                self.of_connection.remove(&connection);
            }
        }
    }

    /// Takes a member out; a group without members goes with its subscriptions. `None`: it was no member.
    fn remove_consumer(&mut self, connection: u64, group: &str) -> Option<()> {
        let found = self.consumers.get_mut(group)?;
        found.members.remove(&connection)?;
        if found.members.is_empty() {
            self.consumers.remove(group);
        }
        Some(())
    }

    fn remove_producer(&mut self, connection: u64, group: &str) {
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&connection);
            if members.is_empty() {
                self.producers.remove(group);
            }
        }
    }

    /// A connection ended; the groups to tell.
    pub fn connection_closed(&mut self, connection: u64) -> Told<C> {
        let mut told = Told::new();
        for (kind, group) in self.of_connection.remove(&connection).unwrap_or_default() {
            match kind {
                Kind::Producer => self.remove_producer(connection, &group),
                Kind::Consumer => {
                    self.remove_consumer(connection, &group);
                    told.extend(
                        self.consumers
                            .get(&group)
                            .and_then(|left| left.told(&group)),
                    );
                }
            }
        }
        give_back(&mut self.producers);
        give_back(&mut self.consumers);
        give_back(&mut self.of_connection);
        told
    }

    /// Drops members that were silent for longer than `silence`: their connections, to be closed, and the groups to tell.
    pub fn expire(&mut self, now: Instant, silence: Duration) -> (Vec<C>, Told<C>) {
        let silent = |member: &Member<C>| now.saturating_duration_since(member.seen) > silence;
        let mut ended = BTreeMap::new();
        let members = self
            .consumers
            .values()
            .flat_map(|group| &group.members)
            .chain(self.producers.values().flatten());
        for (connection, member) in members {
            if silent(member) {
                ended.insert(*connection, member.connection.clone());
            }
        }
        let told = ended
            .keys()
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .flat_map(|id| self.connection_closed(id))
            .collect();
        (ended.into_values().collect(), told)
    }

    /// What pull must know.
    pub fn group_view(&self, group: &str, topic: &str) -> Option<GroupView> {
        let found = self.consumers.get(group)?;
        Some(GroupView {
            broadcasting: found.broadcasting(),
            subscription: found.subscriptions.get(topic).cloned(),
        })
    }

    /// All members of a consumer group.
    pub fn consumers(&self, group: &str) -> Vec<Arc<Member<C>>> {
        self.consumers
            .get(group)
            .map_or_else(Vec::new, |group| group.members.values().cloned().collect())
    }

    /// All members of a producer group.
    pub fn producers(&self, group: &str) -> Vec<Arc<Member<C>>> {
        self.producers
            .get(group)
            .map_or_else(Vec::new, |members| members.values().cloned().collect())
    }

    /// The producer with that client id.
    pub fn producer(&self, client_id: &str) -> Option<Arc<Member<C>>> {
        self.producers
            .values()
            .flat_map(BTreeMap::values)
            .find(|member| *member.client_id == *client_id)
            .cloned()
    }

    /// How many topics a group subscribes to.
    pub fn subscription_count(&self, group: &str) -> usize {
        self.consumers
            .get(group)
            .map_or(0, |group| group.subscriptions.len())
    }

    /// Groups that subscribe to a topic.
    pub fn groups_of(&self, topic: &str) -> BTreeSet<Arc<str>> {
        let subscribed = self
            .consumers
            .iter()
            .filter(|(_, group)| group.subscriptions.contains_key(topic));
        subscribed.map(|(name, _)| name.clone()).collect()
    }

    /// The body of 203.
    pub fn consumer_connection(
        &self,
        group: &str,
        address: impl Fn(&C) -> String,
    ) -> Option<ConsumerConnection> {
        let found = self.consumers.get(group)?;
        Some(ConsumerConnection {
            connection_set: found
                .members
                .values()
                .map(|member| info(member, &address))
                .collect(),
            subscription_table: found
                .subscriptions
                .iter()
                .map(|(topic, subscription)| (topic.clone(), (**subscription).clone()))
                .collect(),
            consume_type: found.consume_type,
            message_model: found.message_model,
            consume_from_where: found.consume_from_where,
        })
    }

    /// The body of 204.
    pub fn producer_connection(
        &self,
        group: &str,
        address: impl Fn(&C) -> String,
    ) -> Option<ProducerConnection> {
        let members = self.producers.get(group)?;
        Some(ProducerConnection {
            connection_set: members
                .values()
                .map(|member| info(member, &address))
                .collect(),
        })
    }

    /// The body of 328.
    pub fn producer_table(&self, address: impl Fn(&C) -> String) -> ProducerTableInfo {
        let of_group = |members: &Members<C>| {
            let of_member = |member: &Arc<Member<C>>| ProducerInfo {
                client_id: member.client_id.to_string(),
                remote_ip: address(&member.connection),
                language: member.language,
                version: member.version,
                last_update_timestamp: member.seen_ms,
            };
            members.values().map(of_member).collect()
        };
        ProducerTableInfo {
            data: self
                .producers
                .iter()
                .map(|(group, members)| (group.to_string(), of_group(members)))
                .collect(),
        }
    }
}

/// A table that held many more than it does now gives their room back.
fn give_back<K: Eq + std::hash::Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}

fn info<C>(member: &Member<C>, address: impl Fn(&C) -> String) -> ClientConnection {
    ClientConnection {
        client_id: member.client_id.to_string(),
        client_addr: address(&member.connection),
        language: member.language,
        version: member.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(120);

    fn member(connection: &'static str, seen: Instant) -> Arc<Member<&'static str>> {
        Arc::new(Member {
            connection,
            client_id: format!("client-{connection}").into(),
            language: Language(0),
            version: 479,
            seen,
            seen_ms: 1_700_000_000_000,
        })
    }

    fn group_g(topics: &[(&str, i64)]) -> ConsumerData {
        let subscriptions = topics.iter().map(|(topic, version)| SubscriptionData {
            topic: (*topic).into(),
            sub_version: *version,
            ..SubscriptionData::default()
        });
        ConsumerData {
            group_name: "g".into(),
            subscription_data_set: subscriptions.collect(),
            ..ConsumerData::default()
        }
    }

    fn told(members: &[&'static str]) -> Option<(Arc<str>, Vec<&'static str>)> {
        (!members.is_empty()).then(|| ("g".into(), members.to_vec()))
    }

    fn join(
        registry: &mut Registry<&'static str>,
        id: u64,
        name: &'static str,
        topics: &[(&str, i64)],
    ) -> Registered<&'static str> {
        registry.register_consumer(
            id,
            member(name, Instant::now()),
            group_g(topics),
            0,
            false,
            true,
        )
    }

    #[test]
    fn a_group_is_told_when_a_member_joins_or_its_topics_change_and_not_by_a_repeated_heartbeat() {
        let mut registry = Registry::default();
        assert_eq!(join(&mut registry, 1, "a", &[("T", 1)]).told, told(&["a"]));
        assert_eq!(join(&mut registry, 1, "a", &[("T", 1)]).told, told(&[]));
        assert_eq!(
            join(&mut registry, 2, "b", &[("T", 1)]).told,
            told(&["a", "b"])
        );
        assert_eq!(join(&mut registry, 2, "b", &[("T", 2)]).told, told(&[]));
        assert_eq!(
            join(&mut registry, 2, "b", &[("T", 2), ("U", 1)]).told,
            told(&["a", "b"])
        );
        assert_eq!(
            join(&mut registry, 2, "b", &[("U", 1)]).told,
            told(&["a", "b"])
        );
        assert_eq!(registry.groups_of("T"), BTreeSet::new());
        assert_eq!(registry.groups_of("U"), BTreeSet::from(["g".into()]));
    }

    #[test]
    fn only_a_newer_subscription_replaces_the_standing_one() {
        let mut registry = Registry::default();
        let version = |registry: &Registry<_>| {
            registry
                .group_view("g", "T")
                .and_then(|view| view.subscription)
                .map(|subscription| subscription.sub_version)
        };
        join(&mut registry, 1, "a", &[("T", 5)]);
        join(&mut registry, 1, "a", &[("T", 4)]);
        assert_eq!(version(&registry), Some(5));
        join(&mut registry, 1, "a", &[("T", 6)]);
        assert_eq!(version(&registry), Some(6));
        assert!(
            registry
                .group_view("g", "Other")
                .is_some_and(|view| view.subscription.is_none())
        );
        assert!(registry.group_view("other", "T").is_none());
    }

    #[test]
    fn a_closed_connection_leaves_its_groups_and_the_others_are_told() {
        let mut registry = Registry::default();
        join(&mut registry, 1, "a", &[("T", 1)]);
        join(&mut registry, 2, "b", &[("T", 1)]);
        registry.register_producer(1, member("a", Instant::now()), "p");
        assert_eq!(registry.connection_closed(1), Vec::from_iter(told(&["b"])));
        assert!(registry.producers("p").is_empty());
        assert_eq!(registry.connection_closed(1), vec![]);
        assert_eq!(registry.connection_closed(2), vec![]);
        assert!(registry.group_view("g", "T").is_none());
        assert!(registry.of_connection.is_empty());
    }

    #[test]
    fn unregistering_tells_the_members_that_stay() {
        let mut registry = Registry::default();
        join(&mut registry, 1, "a", &[("T", 1)]);
        join(&mut registry, 2, "b", &[("T", 1)]);
        assert_eq!(registry.unregister_consumer(1, "g"), told(&["b"]));
        assert_eq!(registry.unregister_consumer(1, "g"), None);
        assert_eq!(registry.unregister_consumer(2, "g"), None);
        assert!(registry.consumers("g").is_empty());
    }

    #[test]
    fn a_broadcasting_group_or_one_that_does_not_want_it_is_told_nothing() {
        let mut registry = Registry::default();
        let broadcasting = ConsumerData {
            message_model: MessageModel::Broadcasting,
            ..group_g(&[("T", 1)])
        };
        let now = Instant::now();
        assert_eq!(
            registry
                .register_consumer(1, member("a", now), broadcasting, 0, false, true)
                .told,
            None
        );
        assert_eq!(registry.connection_closed(1), vec![]);
        assert_eq!(
            registry
                .register_consumer(2, member("b", now), group_g(&[("T", 1)]), 0, false, false)
                .told,
            None
        );
    }

    #[test]
    fn a_silent_client_is_dropped_and_its_connection_named() {
        let mut registry = Registry::default();
        let start = Instant::now();
        registry.register_consumer(1, member("a", start), group_g(&[("T", 1)]), 0, false, true);
        registry.register_consumer(
            2,
            member("b", start + SILENCE),
            group_g(&[("T", 1)]),
            0,
            false,
            true,
        );
        registry.register_producer(3, member("c", start), "p");
        assert_eq!(registry.expire(start + SILENCE, SILENCE), (vec![], vec![]));
        let late = start + SILENCE + Duration::from_millis(1);
        assert_eq!(
            registry.expire(late, SILENCE),
            (vec!["a", "c"], Vec::from_iter(told(&["b"])))
        );
    }

    #[test]
    fn a_short_heartbeat_keeps_subscriptions_and_asks_for_them_when_they_are_unknown() {
        let mut registry = Registry::default();
        let now = Instant::now();
        let mut beat = |fingerprint, topics: &[(&str, i64)], without_sub| {
            let answer = registry.register_consumer(
                1,
                member("a", now),
                group_g(topics),
                fingerprint,
                without_sub,
                true,
            );
            (
                answer.subscriptions_unknown,
                registry.subscription_count("g"),
            )
        };
        assert_eq!(beat(7, &[], true), (true, 0));
        assert_eq!(beat(7, &[("T", 1)], false), (false, 1));
        assert_eq!(beat(7, &[], true), (false, 1));
        assert_eq!(beat(8, &[], true), (true, 1));
        assert_eq!(beat(9, &[("T", 1)], false), (true, 1));
    }
}
