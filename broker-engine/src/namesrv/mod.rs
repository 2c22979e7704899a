//! The name server: who is registered, which topic has which queues, small KV tables.
//!
//! It answers with the address that the caller can reach: a broker registers the address that clients are told and, in an
//! extra field that a foreign name server ignores ([`net::INTERNAL_ADDR`]), one for callers inside the cluster's network. Slaves
//! are always told internal addresses. Name servers do not talk to each other: brokers register with all of them.

mod kv;
mod requests;
mod routes;
#[cfg(test)]
mod tests;

pub use kv::{KvConfig, KvError};
pub use routes::{MinIdChange, Registered, Registration, Routes, View};

use crate::config::{Live, NamesrvConfig};
use crate::net::{self, Client, Connection, Limits, Partitions, Round, Service};
use bytes::BytesMut;
use parking_lot::{Mutex, RwLock};
use rocketmq_protocol::code::request;
use rocketmq_protocol::{Command, ExtFields, Frame};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// All that a request handler needs.
struct Namesrv {
    config: Live<NamesrvConfig>,
    routes: RwLock<Routes>,
    kv: Mutex<KvConfig>,
    /// For telling brokers of a new lowest id.
    client: Client,
    /// Brokers that it is cut off from on purpose.
    partitions: Partitions,
}

/// Serves a listener until `stop` holds true.
pub async fn serve(
    listener: TcpListener,
    config: NamesrvConfig,
    mut stop: watch::Receiver<bool>,
) -> Result<(), KvError> {
    let limits = Limits {
        idle: Duration::from_secs(config.server_channel_max_idle_time_seconds.into()),
        ..Limits::default()
    };
    let scan_every = config.scan_not_active_broker_interval;
    let partitions = Partitions::default();
    let namesrv = Arc::new(Namesrv {
        kv: Mutex::new(KvConfig::open(config.kv_file())?),
        config: Live::new(config),
        routes: RwLock::default(),
        client: Client::within(partitions.clone()),
        partitions,
    });
    let scanner = namesrv.clone();
    let scan = async {
        let mut scans = tokio::time::interval(scan_every);
        loop {
            scans.tick().await;
            let (gone, changes) = scanner.routes.write().expire(Instant::now());
            for addr in gone {
                tracing::warn!(
                    broker = addr,
                    "dropped: it has not been heard of for too long"
                );
            }
            scanner.tell(changes);
        }
    };
    tokio::select! {
        () = net::serve(listener, Arc::new(namesrv.clone()), limits, stop.clone()) => {}
        () = scan => {}
    }
    // `serve` ends only by `stop`; waiting for it again keeps that true should the scan ever end first.
    let _ = stop.wait_for(|stop| *stop).await;
    Ok(())
}

impl Service for Arc<Namesrv> {
    fn begin(self: Arc<Self>) -> Box<dyn Round> {
        Box::new(Answering(Arc::clone(&*self)))
    }
    fn on_close(&self, connection: &Connection) {
        let (gone, changes) = self.routes.write().connection_closed(connection.id());
        for addr in gone {
            tracing::info!(broker = addr, "dropped: its connection closed");
        }
        self.tell(changes);
    }
}

/// Each request is answered as it comes.
struct Answering(Arc<Namesrv>);

impl Round for Answering {
    fn on_frames(&mut self, connection: &Connection, frames: &mut Vec<Frame>) {
        let mut answers = BytesMut::new();
        for frame in frames.drain(..) {
            let request = match frame.decode() {
                Ok(request) => request,
                Err(error) => {
                    connection.close_for(error);
                    return;
                }
            };
            if request.is_response() {
                continue;
            }
            if matches!(
                request.code,
                request::PUT_KV_CONFIG | request::DELETE_KV_CONFIG
            ) {
                // These wait for the disk.
                let (namesrv, connection) = (self.0.clone(), connection.clone());
                tokio::task::spawn_blocking(move || {
                    let answer = namesrv.answer(&connection, &request);
                    if !request.is_oneway() {
                        connection.reply(&answer);
                    }
                });
                continue;
            }
            let answer = self.0.answer(connection, &request);
            if !request.is_oneway() {
                answer.encode(&mut answers);
            }
        }
        connection.send(answers.freeze());
    }
}

impl Namesrv {
    /// Sends NOTIFY_MIN_BROKER_ID_CHANGE (905) where brokers asked for an acting master and this server is set to.
    fn tell(&self, changes: impl IntoIterator<Item = MinIdChange>) {
        if !self.config.get().notify_min_broker_id_changed {
            return;
        }
        for change in changes {
            for addr in change.tell {
                let header = ExtFields::new()
                    .with("brokerName", &change.broker_name)
                    .with("minBrokerId", change.min_broker_id)
                    .with("minBrokerAddr", &change.min_broker_addr)
                    .with_some("offlineBrokerAddr", change.offline_broker_addr.as_ref())
                    .with_some("haBrokerAddr", change.ha_broker_addr.as_ref());
                let client = self.client.clone();
                tokio::spawn(async move {
                    let request = Command::request(request::NOTIFY_MIN_BROKER_ID_CHANGE, header);
                    if let Err(error) = client.oneway(&addr, request).await {
                        tracing::warn!(broker = addr, %error, "telling a broker of its group's new lowest id failed");
                    }
                });
            }
        }
    }
    fn view(&self, connection: &Connection) -> View {
        if self.config.get().is_internal(connection.peer().ip()) {
            View::Internal
        } else {
            View::External
        }
    }
}
