//! Statistics that a broker keeps.

use super::DataVersion;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answer of VIEW_BROKER_STATS_DATA (315). Source: `apache/rocketmq: remoting/.../protocol/body/BrokerStatsData.java`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BrokerStatsData {
    pub stats_day: BrokerStatsItem,
    pub stats_hour: BrokerStatsItem,
    pub stats_minute: BrokerStatsItem,
}

/// One statistic over one window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BrokerStatsItem {
    /// Average per call.
    pub avgpt: f64,
    pub sum: i64,
    /// Average per second.
    pub tps: f64,
}

/// `timermetrics` and the answer of GET_TIMER_METRICS (61). Source: `apache/rocketmq: store/.../timer/TimerMetrics.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TimerMetricsSerializeWrapper {
    pub data_version: DataVersion,
    /// Topic -> messages that wait.
    pub timing_count: BTreeMap<String, TimerMetric>,
}

/// Messages of one topic that wait for their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TimerMetric {
    pub count: i64,
    /// Time of the last change, ms since the epoch.
    pub time_stamp: i64,
}
