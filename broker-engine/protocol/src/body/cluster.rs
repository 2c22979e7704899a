//! Routes, clusters, member groups: what a name server tells.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The brokers of one name: id -> address. Source: `apache/rocketmq: remoting/.../protocol/route/BrokerData.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BrokerData {
    pub broker_addrs: BTreeMap<i64, String>,
    pub broker_name: String,
    pub cluster: String,
    pub enable_acting_master: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_name: Option<String>,
}

/// A topic's queues on one broker name. Source: `apache/rocketmq: remoting/.../protocol/route/QueueData.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct QueueData {
    pub broker_name: String,
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

/// Answer of GET_ROUTEINFO_BY_TOPIC (105). Source: `apache/rocketmq: remoting/.../protocol/route/TopicRouteData.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicRouteData {
    pub broker_datas: Vec<BrokerData>,
    /// Broker address -> filter servers; nobody has any, but old clients read it.
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_topic_conf: Option<String>,
    pub queue_datas: Vec<QueueData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, serde_json::Value>>,
}

/// The first `MQVersion` whose clients read routes as standard JSON: V4_9_4.
/// Source: `apache/rocketmq: namesrv/.../processor/ClientRequestProcessor.java`.
pub const STANDARD_JSON_SINCE: i32 = 401;

impl TopicRouteData {
    /// The body for a client of that version; `accept_standard_json_only` is the request's field of that name.
    pub fn encode(&self, client_version: i32, accept_standard_json_only: bool) -> bytes::Bytes {
        if client_version >= STANDARD_JSON_SINCE || accept_standard_json_only {
            crate::json::to_browser(self).into()
        } else {
            super::encode(self)
        }
    }
}

/// Answer of GET_BROKER_CLUSTER_INFO (106). Source: `apache/rocketmq: remoting/.../protocol/body/ClusterInfo.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ClusterInfo {
    /// Broker name -> its addresses.
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Cluster -> its broker names.
    pub cluster_addr_table: BTreeMap<String, Vec<String>>,
}

/// The brokers of one name. Source: `apache/rocketmq: remoting/.../protocol/body/BrokerMemberGroup.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BrokerMemberGroup {
    pub broker_addrs: BTreeMap<i64, String>,
    pub broker_name: String,
    pub cluster: String,
}

/// Answer of GET_BROKER_MEMBER_GROUP (901).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GetBrokerMemberGroupResponseBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_member_group: Option<BrokerMemberGroup>,
}
