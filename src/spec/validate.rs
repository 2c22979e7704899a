//! Whether a spec can be: names, counts, addresses and limits.

use std::net::IpAddr;

use super::ClusterSpec;
use crate::error::{Error, Exit};

impl ClusterSpec {
    /// Checks all that does not need the drafts' places: names, counts, addresses.
    pub fn validate(&self) -> Result<(), Error> {
        let bad = |title: String| Error::new("RMQ-E104", Exit::Spec, title);
        let name_ok = !self.name.is_empty()
            && self.name.len() <= 40
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self
                .name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !name_ok {
            return Err(bad(format!("`{}` cannot be the name of a cluster", self.name))
                .detail("letters, digits, `-`, `_` and `.`, starting with a letter or digit, 40 at most"));
        }
        if !(1..=9).contains(&self.namesrvs) {
            return Err(bad(format!(
                "{} name servers; it must be 1 to 9",
                self.namesrvs
            )));
        }
        if self.masters == 0 {
            return Err(bad("no master; a cluster needs one".to_owned()).hint("--masters 1"));
        }
        if self.bind.is_ipv6() {
            return Err(bad(format!("cannot bind {}", self.bind))
                .detail("brokers register IPv4 addresses or host names")
                .hint("--bind 127.0.0.1"));
        }
        if self.advertise == "gateway" || !is_host(&self.advertise) {
            return Err(bad(format!(
                "`{}` is not a host that can be advertised",
                self.advertise
            ))
            .hint("--advertise 10.0.0.5")
            .hint("--advertise auto"));
        }
        if let Some((why, instead)) = self
            .storage
            .fault(self.profile, self.memory, &self.conf_dir)
        {
            return Err(bad(why).hint(instead));
        }
        for topic in &self.topics {
            if let Some(why) = topic.fault() {
                return Err(bad(format!("topic `{}`: {why}", topic.name)));
            }
        }
        let java = !self.engine.is_bundled();
        if let Some(memory) = self.memory.filter(|memory| java && *memory < 256 << 20) {
            return Err(bad(format!(
                "a memory limit of {memory} bytes is below the 256 MiB that a JVM with RocketMQ needs"
            ))
            .hint("--memory 1g"));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !cpus.is_finite() || *cpus < 0.01) {
            return Err(bad(format!("{cpus} cpus; it must be 0.01 or more")));
        }
        if let Some(memory) = self.memory.filter(|memory| *memory < 16 << 20) {
            return Err(bad(format!(
                "a memory limit of {memory} bytes is below the 16 MiB that a node needs"
            ))
            .hint("--memory 256m"));
        }
        Ok(())
    }
}

/// Whether it is this machine as it calls itself.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}
