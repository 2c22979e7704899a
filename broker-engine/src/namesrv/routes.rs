//! Who is registered and which topic has which queues: plain state that takes `now`.
//! Rules: `apache/rocketmq: namesrv/.../routeinfo/RouteInfoManager.java`.

use rocketmq_protocol::body::{
    BrokerData, BrokerMemberGroup, ClusterInfo, DataVersion, QueueData, TopicConfig, TopicList,
    TopicRouteData,
};
use rocketmq_protocol::topic::perm;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A broker without a heartbeat for so long is dropped, unless it named another time
/// (`DEFAULT_BROKER_CHANNEL_EXPIRED_TIME`).
const LIVE: Duration = Duration::from_secs(120);
/// Id of a master within its broker name.
const MASTER: i64 = 0;

/// Which of a broker's two addresses a caller can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The caller is inside the cluster's network.
    Internal,
    /// Anyone else.
    External,
}

/// What a broker says of itself in REGISTER_BROKER (103).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Registration {
    pub cluster: String,
    pub broker_name: String,
    pub broker_id: i64,
    /// What callers from outside are told; also the broker's identity in this table.
    pub addr: String,
    /// What callers inside the network are told.
    pub internal_addr: String,
    pub ha_addr: String,
    pub zone_name: Option<String>,
    pub heartbeat_timeout: Option<Duration>,
    /// `None` from brokers that do not know the field.
    pub acting_master: Option<bool>,
    pub topics: Vec<Arc<TopicConfig>>,
    pub data_version: DataVersion,
    /// Number of the connection it came on; when that closes the broker is gone.
    pub connection: u64,
}

/// How a registration ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Registered {
    /// It is in the table.
    Accepted {
        /// For a slave: its master's internal address, if that is alive.
        master_addr: Option<String>,
        /// For a slave: where its master sends the log from.
        ha_addr: Option<String>,
        /// The group has a new lowest id.
        changed: Option<MinIdChange>,
    },
    /// Another broker of newer state holds this id: nothing changed, and Java answers success with empty fields.
    Older,
    /// A first registration with one topic only is a topic change that overtook the registration: refused.
    TooEarly,
}

/// NOTIFY_MIN_BROKER_ID_CHANGE (905) and whom to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MinIdChange {
    pub broker_name: String,
    pub min_broker_id: i64,
    pub min_broker_addr: String,
    pub offline_broker_addr: Option<String>,
    pub ha_broker_addr: Option<String>,
    pub tell: Vec<String>,
}

#[derive(Clone, Debug)]
struct Member {
    addr: String,
    internal_addr: String,
}

impl Member {
    fn seen(&self, view: View) -> &str {
        match view {
            View::Internal => &self.internal_addr,
            View::External => &self.addr,
        }
    }
}

#[derive(Debug)]
struct Group {
    cluster: String,
    acting_master: bool,
    zone_name: Option<String>,
    members: BTreeMap<i64, Member>,
}

impl Group {
    fn addrs(&self, view: View) -> BTreeMap<i64, String> {
        self.members
            .iter()
            .map(|(id, member)| (*id, member.seen(view).to_string()))
            .collect()
    }
    fn data(&self, name: &str, view: View) -> BrokerData {
        BrokerData {
            cluster: self.cluster.clone(),
            broker_name: name.into(),
            broker_addrs: self.addrs(view),
            enable_acting_master: self.acting_master,
            zone_name: self.zone_name.clone(),
        }
    }
    fn lowest(&self) -> Option<i64> {
        self.members.keys().next().copied()
    }
}

#[derive(Debug)]
struct Live {
    updated: Instant,
    timeout: Duration,
    data_version: DataVersion,
    connection: u64,
    ha_addr: String,
}

/// A registered address: cluster and external address.
type Address = (String, String);

/// The table.
#[derive(Debug, Default)]
pub struct Routes {
    topics: HashMap<Arc<str>, BTreeMap<String, QueueData>>,
    groups: BTreeMap<String, Group>,
    live: HashMap<Address, Live>,
}

impl Routes {
    /// A broker registers. `drop_absent`: topics it no longer has go (`deleteTopicWithBrokerRegistration`).
    pub fn register(
        &mut self,
        registration: Registration,
        drop_absent: bool,
        now: Instant,
    ) -> Registered {
        let Registration {
            cluster,
            broker_name,
            broker_id,
            addr,
            data_version,
            ..
        } = registration;
        let address = (cluster.clone(), addr.clone());
        if let Some(group) = self.groups.get(&broker_name)
            && let Some(holder) = group
                .members
                .get(&broker_id)
                .filter(|holder| holder.addr != addr)
            && let Some(live) = self.live.get(&(cluster.clone(), holder.addr.clone()))
            && live.data_version.state_version > data_version.state_version
        {
            self.live.remove(&address);
            return Registered::Older;
        }
        let known = self
            .groups
            .get(&broker_name)
            .is_some_and(|group| group.members.contains_key(&broker_id));
        if !known && registration.topics.len() == 1 {
            return Registered::TooEarly;
        }
        let group = self
            .groups
            .entry(broker_name.clone())
            .or_insert_with(|| Group {
                cluster: cluster.clone(),
                acting_master: false,
                zone_name: None,
                members: BTreeMap::new(),
            });
        group.acting_master = registration.acting_master == Some(true);
        group.zone_name = registration.zone_name;
        let lowest_before = group.lowest();
        // A slave that became master keeps its address: it must not stand in the group under two ids.
        group
            .members
            .retain(|id, member| *id == broker_id || member.addr != addr);
        let member = Member {
            addr: addr.clone(),
            internal_addr: registration.internal_addr,
        };
        let replaced = group.members.insert(broker_id, member);
        let first = replaced.is_none();
        // The id moved to another address: the old one is no broker any more, and its silence must not drop the new one.
        if let Some(old) = replaced.filter(|old| old.addr != addr) {
            self.live.remove(&(cluster.clone(), old.addr));
        }

        let prime_slave = registration.acting_master.is_some()
            && broker_id != MASTER
            && group.lowest() == Some(broker_id);
        let acting = prime_slave && group.acting_master;
        if broker_id == MASTER || prime_slave {
            let unchanged = !first
                && self
                    .live
                    .get(&address)
                    .is_some_and(|live| live.data_version == data_version);
            if drop_absent {
                let has: BTreeSet<&str> = registration
                    .topics
                    .iter()
                    .map(|topic| &*topic.topic_name)
                    .collect();
                self.topics.retain(|topic, queues| {
                    if !has.contains(&**topic) {
                        queues.remove(&broker_name);
                    }
                    !queues.is_empty()
                });
            }
            for topic in &registration.topics {
                let queues = self.topics.entry(topic.topic_name.clone()).or_default();
                if unchanged && queues.contains_key(&broker_name) {
                    continue;
                }
                let mut data = QueueData {
                    broker_name: broker_name.clone(),
                    read_queue_nums: topic.read_queue_nums,
                    write_queue_nums: topic.write_queue_nums,
                    perm: topic.perm,
                    topic_sys_flag: topic.topic_sys_flag,
                };
                if acting {
                    data.perm &= !perm::WRITE;
                }
                queues.insert(broker_name.clone(), data);
            }
        }
        self.live.insert(
            address,
            Live {
                updated: now,
                timeout: registration.heartbeat_timeout.unwrap_or(LIVE),
                data_version,
                connection: registration.connection,
                ha_addr: registration.ha_addr.clone(),
            },
        );

        let group = &self.groups[&broker_name];
        let master = (broker_id != MASTER)
            .then(|| group.members.get(&MASTER))
            .flatten()
            .and_then(|master| Some((master, self.live.get(&(cluster, master.addr.clone()))?)));
        Registered::Accepted {
            master_addr: master.map(|(master, _)| master.internal_addr.clone()),
            ha_addr: master.map(|(_, live)| live.ha_addr.clone()),
            changed: (lowest_before.is_some_and(|lowest| broker_id < lowest))
                .then(|| min_id_change(&broker_name, group, None, Some(registration.ha_addr)))
                .flatten(),
        }
    }

    /// A broker leaves, or is taken to have left. Returns the group's new lowest id, if that changed.
    pub fn unregister(
        &mut self,
        cluster: &str,
        broker_name: &str,
        addr: &str,
    ) -> Option<MinIdChange> {
        self.live.remove(&(cluster.to_string(), addr.to_string()));
        let group = self.groups.get_mut(broker_name)?;
        let lowest_before = group.lowest();
        let gone = group
            .members
            .values()
            .find(|member| member.addr == addr)
            .map(|member| member.internal_addr.clone());
        group.members.retain(|_, member| member.addr != addr);
        if group.members.is_empty() {
            self.groups.remove(broker_name);
            self.topics.retain(|_, queues| {
                queues.remove(broker_name);
                !queues.is_empty()
            });
            return None;
        }
        if group.acting_master && !group.members.contains_key(&MASTER) {
            for queue in self
                .topics
                .values_mut()
                .filter_map(|queues| queues.get_mut(broker_name))
            {
                queue.perm &= !perm::WRITE;
            }
        }
        if group.acting_master && group.lowest() != lowest_before {
            return min_id_change(broker_name, group, gone, None);
        }
        None
    }

    /// A connection closed: whoever registered on it last is gone at once.
    pub fn connection_closed(&mut self, connection: u64) -> (Vec<String>, Vec<MinIdChange>) {
        self.drop_where(|live| live.connection == connection)
    }

    /// Drops who has been silent for too long; returns their addresses and the groups' new lowest ids.
    pub fn expire(&mut self, now: Instant) -> (Vec<String>, Vec<MinIdChange>) {
        self.drop_where(|live| now.saturating_duration_since(live.updated) > live.timeout)
    }

    fn drop_where(&mut self, gone: impl Fn(&Live) -> bool) -> (Vec<String>, Vec<MinIdChange>) {
        let addresses: Vec<Address> = self
            .live
            .iter()
            .filter(|(_, live)| gone(live))
            .map(|(address, _)| address.clone())
            .collect();
        let mut changes = vec![];
        for (cluster, addr) in &addresses {
            let name = self
                .groups
                .iter()
                .find(|(_, group)| group.members.values().any(|member| member.addr == *addr))
                .map(|(name, _)| name.clone());
            match name {
                Some(name) => changes.extend(self.unregister(cluster, &name, addr)),
                None => {
                    self.live.remove(&(cluster.clone(), addr.clone()));
                }
            }
        }
        (
            addresses.into_iter().map(|(_, addr)| addr).collect(),
            changes,
        )
    }

    /// BROKER_HEARTBEAT (904), and a side effect of QUERY_DATA_VERSION (322).
    pub fn heartbeat(&mut self, cluster: &str, addr: &str, now: Instant) {
        if let Some(live) = self.live.get_mut(&(cluster.to_string(), addr.to_string())) {
            live.updated = now;
        }
    }

    /// The version of its topics that a broker registered last.
    pub fn data_version(&self, cluster: &str, addr: &str) -> Option<&DataVersion> {
        self.live
            .get(&(cluster.to_string(), addr.to_string()))
            .map(|live| &live.data_version)
    }

    /// A topic's route; `None` when no broker has it. `acting_master`: show the lowest slave of a group without a master
    /// as one, where it may not be written to (`supportActingMaster`).
    pub fn route(&self, topic: &str, view: View, acting_master: bool) -> Option<TopicRouteData> {
        let queues = self.topics.get(topic)?;
        let mut brokers: Vec<BrokerData> = queues
            .keys()
            .filter_map(|name| Some(self.groups.get(name)?.data(name, view)))
            .collect();
        if brokers.is_empty() {
            return None;
        }
        for broker in brokers
            .iter_mut()
            .filter(|broker| acting_master && broker.enable_acting_master)
        {
            if !broker.broker_addrs.contains_key(&MASTER)
                && queues[&broker.broker_name].perm & perm::WRITE == 0
                && let Some((_, lowest)) = broker.broker_addrs.pop_first()
            {
                broker.broker_addrs.insert(MASTER, lowest);
            }
        }
        Some(TopicRouteData {
            broker_datas: brokers,
            queue_datas: queues.values().cloned().collect(),
            ..TopicRouteData::default()
        })
    }

    /// GET_BROKER_CLUSTER_INFO (106).
    pub fn cluster_info(&self, view: View) -> ClusterInfo {
        let mut info = ClusterInfo::default();
        for (name, group) in &self.groups {
            info.broker_addr_table
                .insert(name.clone(), group.data(name, view));
            info.cluster_addr_table
                .entry(group.cluster.clone())
                .or_default()
                .push(name.clone());
        }
        info
    }

    /// GET_BROKER_MEMBER_GROUP (901); an unknown name has no members.
    pub fn member_group(&self, cluster: &str, broker_name: &str, view: View) -> BrokerMemberGroup {
        BrokerMemberGroup {
            cluster: cluster.into(),
            broker_name: broker_name.into(),
            broker_addrs: self
                .groups
                .get(broker_name)
                .map(|group| group.addrs(view))
                .unwrap_or_default(),
        }
    }

    /// All topics that pass.
    pub fn topic_list(&self, pass: impl Fn(&BTreeMap<String, QueueData>) -> bool) -> TopicList {
        let mut names: Vec<String> = self
            .topics
            .iter()
            .filter(|(_, queues)| pass(queues))
            .map(|(topic, _)| topic.to_string())
            .collect();
        names.sort_unstable();
        TopicList {
            topic_list: names,
            ..TopicList::default()
        }
    }

    /// GET_TOPICS_BY_CLUSTER (224).
    pub fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        self.topic_list(|queues| {
            queues.keys().any(|name| {
                self.groups
                    .get(name)
                    .is_some_and(|group| group.cluster == cluster)
            })
        })
    }

    /// GET_SYSTEM_TOPIC_LIST_FROM_NS (304): names of clusters and brokers, which are topics too, and the address of one
    /// broker that knows the others.
    pub fn system_topics(&self, view: View) -> TopicList {
        let mut names: BTreeSet<String> = BTreeSet::new();
        for (name, group) in &self.groups {
            names.insert(group.cluster.clone());
            names.insert(name.clone());
        }
        let one = self
            .groups
            .values()
            .flat_map(|group| group.members.values())
            .next();
        TopicList {
            topic_list: names.into_iter().collect(),
            broker_addr: one.map(|member| member.seen(view).to_string()),
        }
    }

    /// WIPE_WRITE_PERM_OF_BROKER (205) and ADD_WRITE_PERM_OF_BROKER (327); returns how many topics it has.
    pub fn set_writable(&mut self, broker_name: &str, writable: bool) -> usize {
        let mut topics = 0;
        for queue in self
            .topics
            .values_mut()
            .filter_map(|queues| queues.get_mut(broker_name))
        {
            queue.perm = if writable {
                perm::READ | perm::WRITE
            } else {
                queue.perm & !perm::WRITE
            };
            topics += 1;
        }
        topics
    }

    /// DELETE_TOPIC_IN_NAMESRV (216), in one cluster or everywhere.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(cluster) = cluster else {
            self.topics.remove(topic);
            return;
        };
        if let Some(queues) = self.topics.get_mut(topic) {
            queues.retain(|name, _| {
                self.groups
                    .get(name)
                    .is_none_or(|group| group.cluster != cluster)
            });
            if queues.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// REGISTER_TOPIC_IN_NAMESRV (217): only for brokers that are registered.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) {
        if queues.is_empty()
            || queues
                .iter()
                .any(|queue| !self.groups.contains_key(&queue.broker_name))
        {
            return;
        }
        let held = self.topics.entry(topic.into()).or_default();
        for queue in queues {
            held.insert(queue.broker_name.clone(), queue);
        }
    }
}

fn min_id_change(
    broker_name: &str,
    group: &Group,
    offline_broker_addr: Option<String>,
    ha_broker_addr: Option<String>,
) -> Option<MinIdChange> {
    let (min_broker_id, lowest) = group.members.first_key_value()?;
    // Who is new knows; when one went, all that remain are told.
    let tell = group
        .members
        .iter()
        .filter(|(id, _)| {
            offline_broker_addr.is_some() || group.members.len() == 1 || *id != min_broker_id
        })
        .map(|(_, member)| member.internal_addr.clone())
        .collect();
    Some(MinIdChange {
        broker_name: broker_name.into(),
        min_broker_id: *min_broker_id,
        min_broker_addr: lowest.internal_addr.clone(),
        offline_broker_addr,
        ha_broker_addr,
        tell,
    })
}
