//! Listening and accepting.

use super::connection::Connection;
use super::reactor::{self, Group};
use super::{Limits, Service};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// Connections the kernel keeps ready for us (`NettySystemConfig.socketBacklog`).
const BACKLOG: u32 = 1024;

/// Listens; a taken port is an error that names it.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // A restart must not wait for the last life's connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error| {
        let hint = if error.kind() == std::io::ErrorKind::AddrInUse {
            "; another process listens there (`ss -ltnp` tells which)"
        } else {
            ""
        };
        std::io::Error::new(
            error.kind(),
            format!("listening on {address}: {error}{hint}"),
        )
    })
}

/// Accepts and serves until `stop` holds true (or its sender is gone); then nothing more is read, every connection
/// writes what is queued by then, and this returns. Stop the log first where its acknowledgements should still go out.
pub async fn serve(
    listener: TcpListener,
    service: Arc<dyn Service>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let connections = Connections(Group::within(limits));
    let mut refused: u64 = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: they come back as connections end, which nothing announces.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let allowed = connections.0.limits.connections;
        if connections.0.live() >= allowed {
            refused += 1;
            if refused.is_power_of_two() {
                tracing::warn!(%peer, refused, connections = allowed, "connection refused: there are as many as allowed");
            }
            continue;
        }
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let connection = Connection::new(peer, local);
        let added = reactor::add(stream, connection, service.clone(), connections.0.clone());
        if let Err(error) = added {
            tracing::warn!(%peer, %error, "taking a connection in failed");
        }
    }
    drop(listener);
    connections.0.stop().await;
}

/// A server's connections, which do not outlive it.
struct Connections(Arc<Group>);

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.kill();
    }
}
