//! The broker's end of replication: what it gives the streams and tables of [`crate::replication`], and what it tells of them.

use super::Broker;
use crate::config::BrokerConfig;
use crate::log::Arrival;
use crate::net::Client;
use crate::replication::master::{self, MasterOptions, MayReplicate, Slaves};
use crate::replication::metadata::{self, Table, Tables};
use crate::replication::peers::KnownSlaves;
use crate::replication::slave::{self, Following, SlaveOptions};
use rocketmq_protocol::body::{HARuntimeInfo, TopicConfigSerializeWrapper};
use rocketmq_protocol::json;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// How replication goes: a master's slaves, or a slave's way behind its master.
#[derive(Debug, Default)]
pub struct Replicas {
    slaves: Arc<Slaves>,
    following: Arc<Following>,
    /// Slave: the log brought a message of a topic that the master's tables did not have when they were last copied.
    unknown_topic: Arc<Notify>,
}

impl Broker {
    /// Slave: messages have arrived (told by whoever appended them). Has the tables copied at once when they are of an unknown topic.
    pub(super) fn learn_topics(&self, arrivals: &[Arrival]) {
        let unknown = arrivals
            .chunk_by(|a, b| a.topic == b.topic)
            .any(|run| self.topics.get(&run[0].topic).is_none());
        if unknown {
            self.replicas.unknown_topic.notify_one();
        }
    }

    /// GET_BROKER_HA_STATUS (907). Source: `apache/rocketmq: store/.../ha/DefaultHAService.java` getRuntimeInfo.
    pub fn ha_status(&self) -> HARuntimeInfo {
        let end = self.store.log_end();
        if self.is_slave() {
            return HARuntimeInfo {
                master: false,
                ha_client_runtime_info: self.replicas.following.status(end),
                ..HARuntimeInfo::default()
            };
        }
        let slaves = self
            .replicas
            .slaves
            .status(end, self.config.get().ha_max_gap_not_in_sync);
        HARuntimeInfo {
            master: true,
            master_commit_log_max_offset: end,
            in_sync_slave_nums: slaves.iter().filter(|slave| slave.in_sync).count() as i32,
            ha_connection_info: slaves,
            ..HARuntimeInfo::default()
        }
    }
}

impl Tables for Broker {
    fn apply(&self, table: Table, body: &[u8]) -> Result<(), String> {
        match table {
            Table::Topics => {
                let topics: TopicConfigSerializeWrapper =
                    json::from_slice(body).map_err(|error| error.to_string())?;
                self.topics
                    .replace_all(topics)
                    .map_err(|error| error.to_string())?;
            }
            Table::Groups => {
                let groups = json::from_slice(body).map_err(|error| error.to_string())?;
                self.groups
                    .replace_all(groups)
                    .map_err(|error| error.to_string())?;
            }
            Table::ConsumerOffsets => self
                .offsets
                .replace_all(body)
                .map_err(|error| error.to_string())?,
            Table::DelayOffsets => {
                let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
                self.schedule
                    .replace(text)
                    .map_err(|error| error.to_string())?;
            }
            Table::RequestModes => self.assignments.replace_all(body)?,
            Table::TimerProgress => self.note_timer_progress(body)?,
        }
        Ok(())
    }
}

/// Master: serves slaves on `listener` until `stop`, which comes after the log has stopped.
pub(super) fn serve_slaves(
    broker: &Arc<Broker>,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<> {
    let config = broker.config.get();
    let known = Arc::new(KnownSlaves::new(
        Client::within(broker.partitions.clone()),
        config.namesrvs(),
        config.broker_cluster_name.clone(),
        config.broker_name.clone(),
    ));
    let may_replicate: MayReplicate = Arc::new(move |peer| {
        let known = known.clone();
        Box::pin(async move { known.contain(peer).await })
    });
    master::serve(
        listener,
        broker.log.clone(),
        broker.store.clone(),
        master_options(&config),
        may_replicate,
        broker.replicas.slaves.clone(),
        stop,
    )
}

/// Slave: follows the master that the name servers name, until `stop`.
pub(super) fn follow(broker: &Arc<Broker>, work: &mut JoinSet<()>, stop: &watch::Receiver<bool>) {
    let config = broker.config.get();
    let following = broker.replicas.following.clone();
    work.spawn(slave::follow(
        broker.log.clone(),
        broker.store.clone(),
        broker.registration.master_ha_addr(),
        slave_options(&config),
        following.clone(),
        broker.partitions.clone(),
        stop.clone(),
    ));
    work.spawn(metadata::sync(
        Client::within(broker.partitions.clone()),
        broker.registration.master_addr(),
        broker.clone(),
        broker.replicas.unknown_topic.clone(),
        stop.clone(),
    ));
    let (broker, mut connected, mut stop) = (broker.clone(), following.connected(), stop.clone());
    work.spawn(async move {
        loop {
            let online = *connected.borrow_and_update();
            broker.set_master_online(online);
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                changed = connected.changed() => if changed.is_err() { return },
            }
        }
    });
}

fn master_options(config: &BrokerConfig) -> MasterOptions {
    MasterOptions {
        heartbeat: config.ha_send_heartbeat_interval,
        housekeeping: config.ha_housekeeping_interval,
        transfer_batch: config.ha_transfer_batch_size as usize,
    }
}

fn slave_options(config: &BrokerConfig) -> SlaveOptions {
    SlaveOptions {
        heartbeat: config.ha_send_heartbeat_interval,
        housekeeping: config.ha_housekeeping_interval,
        sync_flush: config.flush_disk_type == crate::config::FlushDiskType::SyncFlush,
    }
}
