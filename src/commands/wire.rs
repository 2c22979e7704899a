//! What the commands that speak to a running cluster share: whom to ask, which topics are the system's, how names are checked.

use std::collections::BTreeSet;

use rocketmq_protocol::body::{ClusterInfo, TopicRouteData};
use rocketmq_protocol::topic;

use super::Cluster;
use crate::client::admin::{Admin, Fault};
use crate::error::{Error, Exit, nearest};

impl Cluster {
    /// Whom an administrator asks, as a client on this host does.
    pub(super) fn admin(&self) -> Admin {
        Admin::new(self.desired.namesrv_addrs())
    }

    /// A topic's route, or an error that names the nearest topic there is.
    pub(super) async fn route(
        &self,
        admin: &mut Admin,
        topic: &str,
    ) -> Result<TopicRouteData, Error> {
        if let Some(route) = admin.route(topic).await? {
            return Ok(route);
        }
        let topics = admin.topics().await?;
        let error = Error::new(
            "RMQ-E310",
            Exit::Failed,
            format!("there is no topic `{topic}`"),
        );
        let error = match nearest(topic, topics.iter().map(String::as_str)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(self.desired.suggest("topic list")),
        };
        Err(error.hint(self.desired.suggest(&format!("topic create {topic}"))))
    }
}

/// Whether a topic is made by RocketMQ itself: the system's own, those named after clusters and brokers, retries, dead letters.
pub fn is_internal(name: &str, cluster: &ClusterInfo) -> bool {
    topic::is_system(name)
        || topic::is_retry(name)
        || topic::is_dlq(name)
        || cluster.broker_addr_table.contains_key(name)
        || cluster
            .cluster_addr_table
            .iter()
            .any(|(own, _)| name == own || name.strip_prefix(own.as_str()) == Some("_REPLY_TOPIC"))
}

/// The topics to show: the user's, or all.
pub async fn topics(admin: &mut Admin, all: bool) -> Result<BTreeSet<String>, Fault> {
    let cluster = admin.cluster().await?;
    let topics = admin.topics().await?.into_iter();
    Ok(topics
        .filter(|name| all || !is_internal(name, &cluster))
        .collect())
}

/// Text from a message or a client, which must not steer a terminal: control characters are shown as `\u{1b}`.
pub fn plain(text: &str) -> String {
    let escaped = |c: char| match c {
        '\t' => vec![c],
        c if c.is_control() => c.escape_unicode().collect(),
        c => vec![c],
    };
    text.chars().flat_map(escaped).collect()
}
