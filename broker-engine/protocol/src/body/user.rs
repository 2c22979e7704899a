//! Users and access rules of RocketMQ's ACL 2.0 (3001-3010).

use serde::{Deserialize, Serialize};

/// A user. Source: `apache/rocketmq: remoting/.../protocol/body/UserInfo.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct UserInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `enable` or `disable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_status: Option<String>,
    /// `Super` or `Normal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_type: Option<String>,
    pub username: String,
}

/// What a subject may do. Source: `apache/rocketmq: remoting/.../protocol/body/AclInfo.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct AclInfo {
    pub policies: Vec<PolicyInfo>,
    /// `User:name`.
    pub subject: String,
}

/// Rules of one kind: `Custom` or `Default`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PolicyInfo {
    pub entries: Vec<PolicyEntryInfo>,
    pub policy_type: String,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct PolicyEntryInfo {
    pub actions: Vec<String>,
    /// `Allow` or `Deny`.
    pub decision: String,
    /// `Topic:t`, `Group:g`, `Cluster:c`, `Namespace:n` or `*`; a trailing `*` matches a prefix.
    pub resource: String,
    pub source_ips: Vec<String>,
}
