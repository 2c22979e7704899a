//! Topics: their configuration, and the tables and lists of it.

use super::DataVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A topic's configuration, as on the wire and in the file.
/// Source: `apache/rocketmq: common/.../TopicConfig.java`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicConfig {
    pub attributes: BTreeMap<String, String>,
    pub order: bool,
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_filter_type: String,
    pub topic_name: Arc<str>,
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}
impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            attributes: BTreeMap::new(),
            order: false,
            perm: 6,
            read_queue_nums: 16,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_name: "".into(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// A topic with as many queues to read as to write.
    pub fn new(topic: impl Into<Arc<str>>, queue_nums: i32, perm: i32) -> TopicConfig {
        TopicConfig {
            topic_name: topic.into(),
            read_queue_nums: queue_nums,
            write_queue_nums: queue_nums,
            perm,
            ..TopicConfig::default()
        }
    }
    /// The one-line form of a compressed registration (`TopicConfig.encode`).
    pub fn to_line(&self) -> String {
        format!(
            "{} {} {} {} {} {}",
            self.topic_name,
            self.read_queue_nums,
            self.write_queue_nums,
            self.perm,
            self.topic_filter_type,
            crate::json::to_fastjson(&self.attributes)
        )
    }
    /// Reads the one-line form (`TopicConfig.decode`); attributes that do not parse are passed over as Java does.
    pub fn from_line(line: &str) -> Option<TopicConfig> {
        let mut parts = line.splitn(6, ' ');
        let mut config = TopicConfig {
            topic_name: parts.next()?.into(),
            read_queue_nums: parts.next()?.parse().ok()?,
            write_queue_nums: parts.next()?.parse().ok()?,
            perm: parts.next()?.parse().ok()?,
            topic_filter_type: parts.next()?.into(),
            ..TopicConfig::default()
        };
        if let Some(attributes) = parts.next() {
            config.attributes = crate::json::from_slice(attributes.as_bytes()).unwrap_or_default();
        }
        Some(config)
    }
}

/// `config/topics.json`. Source: `apache/rocketmq: remoting/.../protocol/body/TopicConfigSerializeWrapper.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicConfigSerializeWrapper {
    pub data_version: DataVersion,
    pub topic_config_table: BTreeMap<Arc<str>, Arc<TopicConfig>>,
}

/// Answer of GET_ALL_TOPIC_CONFIG (21) and the heart of a registration. The static-topic mappings are kept as they came.
/// Source: `apache/rocketmq: remoting/.../protocol/body/TopicConfigAndMappingSerializeWrapper.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicConfigAndMappingSerializeWrapper {
    pub data_version: DataVersion,
    pub mapping_data_version: DataVersion,
    pub topic_config_table: BTreeMap<Arc<str>, Arc<TopicConfig>>,
    pub topic_queue_mapping_detail_map: BTreeMap<String, serde_json::Value>,
    pub topic_queue_mapping_info_map: BTreeMap<String, serde_json::Value>,
}

/// Names of topics (206, 224, 304, 305, 311-313, 343).
/// Source: `apache/rocketmq: remoting/.../protocol/body/TopicList.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TopicList {
    /// One broker's address, in the answer to 304 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    pub topic_list: Vec<String>,
}

/// Request of UPDATE_AND_CREATE_TOPIC_LIST (18).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct CreateTopicListRequestBody {
    pub topic_config_list: Vec<TopicConfig>,
}
