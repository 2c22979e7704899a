//! Peers that this node is cut off from on purpose, so that one sees what a network that fails between two nodes does.
//!
//! Every connection between two nodes was made by one of them: a slave's to its master, a broker's to a name server. A node that is
//! to cut a peer off closes those that it made to it and makes none; when both ends are told, nothing passes between the two, while
//! each serves everybody else. That needs no rights on the machine, and works where all nodes share one address. It is kept in
//! memory only: a node that is started anew is cut off from nobody.

use super::{Connection, resolve};
use rocketmq_protocol::Command;
use rocketmq_protocol::code::response;
use rocketmq_protocol::partition::{CUT_OFF, Order};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// More peers than a cluster has nodes; beyond it an order is refused.
const PEERS_MAX: usize = 256;
/// Addresses of one peer: a handful of ports under one or two names.
const ADDRESSES_MAX: usize = 32;

/// The peers a node is cut off from. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Partitions(Arc<watch::Sender<Cuts>>);

#[derive(Debug, Default)]
struct Cuts {
    peers: Vec<Cut>,
    /// Numbers the cuts, so that the end of an old one does not heal a newer.
    made: u64,
}

#[derive(Clone, Debug)]
struct Cut {
    peer: String,
    addresses: Vec<String>,
    number: u64,
}

impl Partitions {
    /// Names of the peers cut off now.
    pub fn peers(&self) -> Vec<String> {
        let cuts = self.0.borrow();
        cuts.peers.iter().map(|cut| cut.peer.clone()).collect()
    }

    /// Marks an answer with the peers cut off now, if there are any.
    pub fn tell(&self, answer: Command) -> Command {
        match self.peers() {
            peers if peers.is_empty() => answer,
            peers => answer.with(CUT_OFF, peers.join(",")),
        }
    }

    /// Answers a request with an order. Only whoever is on this very machine, in this very container, may give one: with it a broker can
    /// be kept from its slaves.
    pub fn obey(&self, connection: &Connection, command: &Command) -> Command {
        let (peer, local) = (connection.peer().ip(), connection.local().ip());
        let here = peer.to_canonical().is_loopback() || peer.to_canonical() == local.to_canonical();
        if !here {
            tracing::warn!(peer = %connection.peer(), "an order to cut off a peer was refused: it came from another machine");
            let remark = "orders of this kind are taken from this node's own machine only";
            return command.error(response::NO_PERMISSION, remark);
        }
        let order = match Order::of(command) {
            Ok(order) => order,
            Err(what) => return command.error(response::INVALID_PARAMETER, what),
        };
        match self.apply(order) {
            Ok(()) => self.tell(command.response(response::SUCCESS)),
            Err(what) => command.error(response::INVALID_PARAMETER, what),
        }
    }

    /// Does what an order says; the error says what is wrong with it.
    pub fn apply(&self, order: Order) -> Result<(), String> {
        match order {
            Order::Cut {
                peer,
                addresses,
                lasts_ms,
            } => {
                if peer.is_empty() || peer.contains(',') {
                    return Err(format!("{peer:?} is no peer's name"));
                }
                if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
                    let count = addresses.len();
                    return Err(format!("{count} addresses; 1 to {ADDRESSES_MAX} are taken"));
                }
                let others = self.peers().iter().filter(|known| **known != peer).count();
                if others >= PEERS_MAX {
                    return Err(format!("{PEERS_MAX} peers are cut off already"));
                }
                tracing::warn!(peer, ?addresses, ?lasts_ms, "cut off on purpose");
                self.cut(peer, addresses, lasts_ms.map(Duration::from_millis));
            }
            Order::Heal { peer } => self.heal(peer.as_deref()),
        }
        Ok(())
    }

    fn cut(&self, peer: String, addresses: Vec<String>, lasts: Option<Duration>) {
        let mut number = 0;
        self.0.send_modify(|cuts| {
            cuts.made += 1;
            number = cuts.made;
            cuts.peers.retain(|cut| cut.peer != peer);
            cuts.peers.push(Cut {
                peer,
                addresses,
                number,
            });
        });
        let Some(lasts) = lasts else { return };
        // Whoever asked may be gone by then, so it is not left to them.
        let cuts = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            cuts.drop_where(|cut| cut.number == number);
        });
    }

    /// One peer, or all.
    fn heal(&self, peer: Option<&str>) {
        self.drop_where(|cut| peer.is_none_or(|peer| cut.peer == peer));
    }

    fn drop_where(&self, healed: impl Fn(&Cut) -> bool) {
        self.0.send_if_modified(|cuts| {
            let before = cuts.peers.len();
            cuts.peers.retain(|cut| {
                let goes = healed(cut);
                if goes {
                    tracing::info!(peer = cut.peer, "no longer cut off");
                }
                !goes
            });
            cuts.peers.len() != before
        });
    }

    /// The peer cut off that `address` belongs to, under this or another of its names; `target` is what it resolves to.
    pub async fn refused(&self, address: &str, target: SocketAddr) -> Option<String> {
        let cuts: Vec<Cut> = self.0.borrow().peers.clone();
        let mut known = cuts.iter();
        if let Some(cut) = known.find(|cut| cut.addresses.iter().any(|known| known == address)) {
            return Some(cut.peer.clone());
        }
        for cut in cuts {
            for known in &cut.addresses {
                if resolve(known).await.is_ok_and(|known| known == target) {
                    return Some(cut.peer);
                }
            }
        }
        None
    }

    /// Resolves with the peer's name once a connection to `address`, which is `target`, is not to be, now or later.
    pub async fn cuts(&self, address: &str, target: SocketAddr) -> String {
        let mut changes = self.0.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(peer) = self.refused(address, target).await {
                return peer;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells of every cut and every healing from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// What tells of cuts and healings.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Cuts>);

impl Changes {
    /// Resolves at the next one; never, once none can come.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
