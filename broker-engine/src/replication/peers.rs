//! Who may connect to the HA port: the slaves of this broker name that are registered with a name server, and nobody else.
//! RocketMQ itself asks nothing, so any peer's report could acknowledge a send (apache/rocketmq#3015).

use crate::net::{self, Client};
use parking_lot::Mutex;
use rocketmq_protocol::body::GetBrokerMemberGroupResponseBody;
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3);

/// The registered slaves' addresses, asked for when a stranger connects.
#[derive(Debug)]
pub struct KnownSlaves {
    client: Client,
    namesrvs: Vec<String>,
    cluster: String,
    broker_name: String,
    /// Who was let in before: a name server that is away for a moment must not keep a slave out.
    known: Mutex<BTreeSet<IpAddr>>,
}

impl KnownSlaves {
    /// Of `broker_name`, by these name servers.
    pub fn new(
        client: Client,
        namesrvs: Vec<String>,
        cluster: String,
        broker_name: String,
    ) -> KnownSlaves {
        KnownSlaves {
            client,
            namesrvs,
            cluster,
            broker_name,
            known: Mutex::default(),
        }
    }

    /// Whether a registered slave has this address.
    pub async fn contain(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let mut found = BTreeSet::new();
        let mut asked = false;
        for namesrv in &self.namesrvs {
            let header = ExtFields::new()
                .with("clusterName", &self.cluster)
                .with("brokerName", &self.broker_name);
            let call = self.client.call(
                namesrv,
                Command::request(request::GET_BROKER_MEMBER_GROUP, header),
                TIMEOUT,
            );
            let body = match call.await {
                Ok(answer) if answer.code == response::SUCCESS => answer.body,
                Ok(answer) => {
                    tracing::warn!(
                        namesrv,
                        code = answer.code,
                        "asking who this broker's slaves are failed"
                    );
                    continue;
                }
                Err(error) => {
                    tracing::warn!(namesrv, %error, "asking who this broker's slaves are failed");
                    continue;
                }
            };
            let Ok(body) = json::from_slice::<GetBrokerMemberGroupResponseBody>(&body) else {
                continue;
            };
            asked = true;
            for (id, addr) in body.broker_member_group.unwrap_or_default().broker_addrs {
                if id > 0
                    && let Ok(address) = net::resolve(&addr).await
                {
                    found.insert(address.ip().to_canonical());
                }
            }
            if found.contains(&peer) {
                break;
            }
        }
        let mut known = self.known.lock();
        if asked {
            *known = found;
        }
        known.contains(&peer)
    }
}
