//! Subnets of a cluster's network.

use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::error::{Error, Exit};

/// An IPv4 network and its first address, which is the gateway of a Docker bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Subnet {
    /// `10.213.7.0/24`.
    pub text: String,
    pub gateway: Ipv4Addr,
}

impl Subnet {
    /// Reads `172.28.0.0/16`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('/').and_then(|(base, bits)| {
            let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
            let bits: u32 = bits.parse().ok().filter(|bits| (8..=29).contains(bits))?;
            // The host part must be zero, as daemons want it.
            (base.trailing_zeros() >= 32 - bits).then_some(Ipv4Addr::from(base + 1))
        });
        match parsed {
            Some(gateway) => Ok(Self {
                text: text.to_owned(),
                gateway,
            }),
            None => Err(Error::new(
                "RMQ-E104",
                Exit::Spec,
                format!("`{text}` is not an IPv4 subnet"),
            )
            .hint("--subnet 172.28.0.0/16")),
        }
    }

    /// The subnet of a cluster that must know one before its network stands and was told none: beside those that Docker hands
    /// out by itself, and another for each name.
    pub fn of_cluster(name: &str) -> Self {
        let third = Sha256::digest(name.as_bytes())[0];
        Self {
            text: format!("10.213.{third}.0/24"),
            gateway: Ipv4Addr::new(10, 213, third, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnets_gateway_is_its_first_address() {
        let gateway = |text: &str| Subnet::parse(text).map(|subnet| subnet.gateway.to_string());
        assert_eq!(gateway("172.28.0.0/16"), Ok("172.28.0.1".into()));
        assert_eq!(gateway("10.1.2.128/25"), Ok("10.1.2.129".into()));
        for wrong in [
            "172.28.0.1/16",
            "10.0.0.0",
            "10.0.0.0/31",
            "fd00::/64",
            "x/24",
        ] {
            assert_eq!(gateway(wrong).unwrap_err().id, "RMQ-E104", "{wrong}");
        }
        let own = Subnet::of_cluster("rmq");
        assert_eq!(Subnet::parse(&own.text), Ok(own));
    }
}
