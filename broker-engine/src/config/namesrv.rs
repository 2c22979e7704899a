//! A name server's rows.
//! Source of names and defaults: `apache/rocketmq: common/.../namesrv/NamesrvConfig.java`,
//! `namesrv/.../NamesrvStartup.java` (port 9876). `internalSubnet`, `internalGateway` and `storePathRootDir` are this engine's own.

use super::rows::properties;
use super::without_effect::NAMESRV;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

properties! {
    /// A name server's properties.
    NamesrvConfig, without effect: NAMESRV;

    "bindAddress" bind_address: String = "0.0.0.0".into(), fixed, "address to listen on";
    "listenPort" listen_port: u16 = 9876, fixed, "port for brokers and clients";
    "serverChannelMaxIdleTimeSeconds" server_channel_max_idle_time_seconds: u32 = 120, fixed, "a connection without traffic for so long is closed";
    "kvConfigPath" kv_config_path: String = String::new(), fixed, "file of the KV configuration; empty: kept in memory only";
    "internalSubnet" internal_subnet: String = String::new(), fixed, "callers from this network (a.b.c.d/bits) are told brokers' internal addresses; empty: nobody is";
    "internalGateway" internal_gateway: String = String::new(), fixed, "the one address of that network that stands for callers from outside";
    "scanNotActiveBrokerInterval" scan_not_active_broker_interval: Duration = Duration::from_secs(5), fixed, "how often silent brokers are looked for";
    "orderMessageEnable" order_message_enable: bool = false, live, "whether routes carry the order configuration";
    "returnOrderTopicConfigToBroker" return_order_topic_config_to_broker: bool = true, live, "whether brokers are told the order configuration";
    "supportActingMaster" support_acting_master: bool = false, live, "whether a route without a master shows its lowest slave as one";
    "enableAllTopicList" enable_all_topic_list: bool = true, live, "whether the list of all topics is answered";
    "enableTopicList" enable_topic_list: bool = true, live, "whether the other topic lists are answered";
    "notifyMinBrokerIdChanged" notify_min_broker_id_changed: bool = false, live, "whether brokers are told when a group's lowest id changes";
    "deleteTopicWithBrokerRegistration" delete_topic_with_broker_registration: bool = false, live, "whether topics a broker no longer registers go";
}

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    address: u32,
    mask: u32,
}

impl Subnet {
    /// Reads `a.b.c.d/bits`.
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, bits) = text.split_once('/')?;
        let address: Ipv4Addr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        Some(Subnet {
            address: u32::from(address) & mask,
            mask,
        })
    }
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => u32::from(address) & self.mask == self.address,
            IpAddr::V6(_) => false,
        }
    }
}

impl NamesrvConfig {
    pub(super) fn rules(&self) -> Result<(), String> {
        if !self.internal_subnet.is_empty() && self.subnet().is_none() {
            return Err(format!(
                "internalSubnet is {:?}; allowed: an IPv4 network such as 172.18.0.0/16",
                self.internal_subnet
            ));
        }
        if !self.internal_gateway.is_empty() && self.internal_gateway.parse::<IpAddr>().is_err() {
            return Err(format!(
                "internalGateway is {:?}; allowed: an IP address",
                self.internal_gateway
            ));
        }
        if self.scan_not_active_broker_interval.is_zero() {
            return Err("scanNotActiveBrokerInterval is 0; at least 1 ms is needed".into());
        }
        Ok(())
    }
    /// The cluster's own network, if one is set.
    pub fn subnet(&self) -> Option<Subnet> {
        Subnet::parse(&self.internal_subnet)
    }
    /// Whether a caller is inside the cluster's network: in the subnet, and not the gateway that stands for the host.
    pub fn is_internal(&self, caller: IpAddr) -> bool {
        let caller = caller.to_canonical();
        self.subnet().is_some_and(|subnet| subnet.contains(caller))
            && self
                .internal_gateway
                .parse::<IpAddr>()
                .map(|gateway| gateway.to_canonical())
                != Ok(caller)
    }
    /// File of the KV configuration.
    pub fn kv_file(&self) -> Option<PathBuf> {
        (!self.kv_config_path.is_empty()).then(|| PathBuf::from(&self.kv_config_path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_in_the_subnet_is_internal_unless_it_is_the_gateway() {
        let config = NamesrvConfig {
            internal_subnet: "172.18.0.0/16".into(),
            internal_gateway: "172.18.0.1".into(),
            ..NamesrvConfig::default()
        };
        let seen = |caller: &str| config.is_internal(caller.parse().unwrap());
        assert_eq!(
            [
                "172.18.0.5",
                "::ffff:172.18.0.5",
                "172.18.0.1",
                "172.19.0.5",
                "127.0.0.1",
                "::1"
            ]
            .map(seen),
            [true, true, false, false, false, false]
        );
        assert!(!NamesrvConfig::default().is_internal("172.18.0.5".parse().unwrap()));
    }
}
