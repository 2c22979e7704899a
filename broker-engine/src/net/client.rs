//! Our own requests to other servers: one connection to each address, made when needed and again after it broke.

use super::connection::Connection;
use super::reactor::{self, Group};
use super::{CallError, Partitions, Round, Service, resolve};
use parking_lot::Mutex;
use rocketmq_protocol::{Command, Frame};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How long a connection may take to come about (`NettySystemConfig.connectTimeoutMillis`).
const CONNECT: Duration = Duration::from_secs(3);
/// Addresses kept; beyond it those without a connection are forgotten.
const ADDRESSES_MAX: usize = 1024;

/// Calls other servers by `host:port`, keeping one connection to each; names are resolved in-process.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// Peers that are not to be reached.
    partitions: Partitions,
    /// Stopped with the last handle.
    connections: Arc<Group>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connections.begin_stop();
    }
}

/// One address. The async lock lets one caller connect while the others wait for it.
#[derive(Debug, Default)]
struct Slot(tokio::sync::Mutex<Option<Connection>>);

/// A client's connections are there for our own calls: what a server asks over one of them is not answered.
#[derive(Default)]
struct Unserved {
    ended: Notify,
}
impl Service for Unserved {
    fn begin(self: Arc<Self>) -> Box<dyn Round> {
        Box::new(PassedOver)
    }
    fn on_close(&self, _connection: &Connection) {
        self.ended.notify_one();
    }
}
struct PassedOver;
impl Round for PassedOver {
    fn on_frames(&mut self, connection: &Connection, frames: &mut Vec<Frame>) {
        tracing::debug!(peer = %connection.peer(), requests = frames.len(), "requests over our own connection passed over");
    }
}

impl Default for Client {
    fn default() -> Self {
        Client::new()
    }
}

impl Client {
    /// A client with no connections yet, which is cut off from nobody.
    pub fn new() -> Client {
        Client::within(Partitions::default())
    }
    /// A client with no connections yet, which reaches no peer that `partitions` cut off.
    pub fn within(partitions: Partitions) -> Client {
        Client(Arc::new(Inner {
            slots: Mutex::default(),
            partitions,
            connections: Arc::default(),
        }))
    }
    /// Sends a request and waits for its answer. `timeout` covers connecting too.
    pub async fn call(
        &self,
        address: &str,
        request: Command,
        timeout: Duration,
    ) -> Result<Command, CallError> {
        let code = request.code;
        let began = tokio::time::Instant::now();
        let connection = tokio::time::timeout(timeout, self.connection(address))
            .await
            .map_err(|_| CallError::Timeout {
                address: address.into(),
                code,
                timeout,
            })??;
        let left = timeout.saturating_sub(began.elapsed());
        connection.call_as(address, request, left).await
    }
    /// Sends without waiting for an answer.
    pub async fn oneway(&self, address: &str, request: Command) -> Result<(), CallError> {
        self.connection(address).await?.oneway(request);
        Ok(())
    }
    /// The live connection to an address, made now if there is none.
    async fn connection(&self, address: &str) -> Result<Connection, CallError> {
        let slot = {
            let mut slots = self.0.slots.lock();
            if slots.len() >= ADDRESSES_MAX && !slots.contains_key(address) {
                slots.retain(|_, slot| {
                    slot.0.try_lock().map_or(true, |held| {
                        held.as_ref()
                            .is_some_and(|connection| !connection.is_closed())
                    })
                });
            }
            match slots.get(address) {
                Some(slot) => slot.clone(),
                None => slots.entry(address.into()).or_default().clone(),
            }
        };
        let mut held = slot.0.lock().await;
        if let Some(connection) = held.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        *held = None;
        let connection = self.connect(address).await?;
        *held = Some(connection.clone());
        Ok(connection)
    }
    async fn connect(&self, address: &str) -> Result<Connection, CallError> {
        let failed = |reason: String| CallError::Connect {
            address: address.into(),
            reason,
        };
        let partitions = self.0.partitions.clone();
        let connect = async {
            let target = resolve(address).await.map_err(|e| failed(e.to_string()))?;
            if let Some(peer) = partitions.refused(address, target).await {
                let address = address.into();
                return Err(CallError::CutOff { address, peer });
            }
            let opened = async {
                let stream = TcpStream::connect(target).await?;
                stream.set_nodelay(true)?;
                let connection = Connection::new(target, stream.local_addr()?);
                Ok::<_, std::io::Error>((stream, connection, target))
            };
            opened.await.map_err(|e| failed(e.to_string()))
        };
        let (stream, connection, target) = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| failed(format!("no connection within {CONNECT:?}")))??;
        let service = Arc::new(Unserved::default());
        reactor::add(
            stream,
            connection.clone(),
            service.clone(),
            self.0.connections.clone(),
        )
        .map_err(|e| failed(e.to_string()))?;
        let (held, address) = (connection.clone(), address.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = service.ended.notified() => {}
                peer = partitions.cuts(&address, target) => {
                    tracing::info!(address, peer, "connection closed: cut off on purpose");
                    held.close();
                }
            }
        });
        Ok(connection)
    }
}
