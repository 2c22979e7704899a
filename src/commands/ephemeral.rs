//! Clusters that end by themselves: how long they live, free ports for them, and what is swept up after those that could not.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::up::{self, Resolved};
use super::{Cluster, Session, down};
use crate::error::{Error, Exit};
use crate::lease;
use crate::lock::Lock;
use crate::plan::Observed;
use crate::runtime::Runtime;
use crate::spec::{ClusterSpec, Ephemeral, SpecFlags, Storage, parse_duration};
use crate::topology::{Desired, Site};

/// How long a cluster of `up --rm` lives when nobody says.
const TTL: Duration = Duration::from_secs(3600);

/// Port offsets that are tried: the ports of two clusters meet at none of them, as brokers stand 1000 apart and take four ports
/// each, and none comes near the ports that the kernel gives to outgoing connections.
const OFFSETS: std::ops::Range<u16> = 1..100;
const OFFSET_STEP: u16 = 10;

/// `--rm`, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Rm {
    /// The cluster ends by itself and leaves nothing, messages included, when its time is up. Nodes that end before are not
    /// started again by Docker
    #[arg(long)]
    pub rm: bool,
    /// How long it lives (1h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "rm")]
    pub ttl: Option<Duration>,
}

impl Rm {
    /// What a cluster raised now is to be; `None` where `--rm` is not said.
    pub fn ephemeral(&self) -> Option<Ephemeral> {
        self.rm
            .then(|| lifetime_from_now(self.ttl.unwrap_or(TTL), false))
    }
}

/// A lifetime that begins now.
pub fn lifetime_from_now(ttl: Duration, held: bool) -> Ephemeral {
    Ephemeral {
        until: lease::now() + ttl.as_secs(),
        held,
    }
}

/// When a cluster ends that was asked to, over one that stands: what stands keeps its end, as its nodes know no other.
pub fn lifetime(
    said: Option<Ephemeral>,
    stored: Option<&ClusterSpec>,
) -> Result<Option<Ephemeral>, Error> {
    match (said, stored) {
        (Some(_), Some(stored)) if stored.ephemeral.is_none() => Err(Error::new(
            "RMQ-E070",
            Exit::Conflict,
            format!("cluster {} stands already, and is to stay", stored.name),
        )
        .detail("--rm is for a cluster that it makes; nothing was changed")
        .hint("another name: rmqctl --name NAME up --rm")
        .hint(crate::spec::suggest(&stored.name, "down --volumes"))),
        (_, Some(stored)) => Ok(stored.ephemeral),
        (said, None) => Ok(said),
    }
}

/// A cluster that leaves nothing must not be raised on messages that another of its name left.
pub fn refuse_kept_messages(spec: &ClusterSpec, observed: &Observed) -> Result<(), Error> {
    // Its own directories are no older cluster's.
    let stands = !observed.nodes.is_empty() && matches!(spec.storage, Storage::Host { .. });
    if spec.ephemeral.is_none() || observed.volumes.is_empty() || stands {
        return Ok(());
    }
    Err(Error::new(
        "RMQ-E070",
        Exit::Conflict,
        format!("cluster {} left messages, and is to stay", spec.name),
    )
    .detail(format!("in {}", observed.volumes.join(", ")))
    .detail("--rm is for a cluster that it makes; nothing was changed")
    .hint("another name: rmqctl --name NAME …")
    .hint(crate::spec::suggest(
        &spec.name,
        "down --volumes   loses them",
    )))
}

/// Containers that leave nothing are gone once they stop, and what they held with them.
pub fn refuse_stop(desired: &Desired) -> Result<(), Error> {
    if desired.ephemeral.is_none() || desired.site != Site::Network {
        return Ok(());
    }
    Err(Error::new(
        "RMQ-E075",
        Exit::Conflict,
        format!(
            "cluster {} was raised to leave nothing: Docker removes a node of it that stops",
            desired.cluster
        ),
    )
    .detail("nothing was changed")
    .hint("a cluster raised without --rm")
    .hint("--runtime process, whose nodes of such a cluster stop and start"))
}

/// Name of the lock that the holder of a cluster has as long as it lives.
pub fn holder_lock(runtime: &dyn Runtime, cluster: &str) -> String {
    format!("{}-{cluster}.holder", runtime.kind())
}

/// Eight hex digits that no other run has: the standard library's seed of hash maps, which the system draws.
pub fn unique() -> String {
    format!("{:08x}", RandomState::new().hash_one(0) as u32)
}

/// Whether a cluster's time is up, or it was held by a process of this host that is gone.
pub fn is_over(runtime: &dyn Runtime, spec: &ClusterSpec) -> bool {
    spec.ephemeral.is_some_and(|ephemeral| {
        ephemeral.is_over(lease::now())
            || ephemeral.held && Lock::is_orphaned(&holder_lock(runtime, &spec.name))
    })
}

/// Clusters here that are over. Their nodes end by themselves; a network on Docker cannot, nor a container that its killed
/// `rmqctl` had not started yet.
pub async fn over(session: &Session<'_>) -> Result<Vec<Cluster>, Error> {
    let names = session.open(session.name()).await?.clusters().await?;
    let mut over = Vec::new();
    for name in names {
        // One that another version of rmqctl wrote cannot be judged.
        if let Ok(Some(cluster)) = Cluster::find(session.open(&name).await?, &name).await
            && is_over(cluster.runtime.as_ref(), &cluster.spec)
        {
            over.push(cluster);
        }
    }
    Ok(over)
}

/// Removes all of a cluster that is over, and the lock of its holder.
pub async fn remove(cluster: &Cluster, session: &Session<'_>) -> Result<(), Error> {
    let timeout = Duration::from_secs(cluster.spec.wait_timeout_seconds);
    // Volumes are none of its own: whatever bears its name was there before it.
    down::take_down(cluster, false, timeout, session).await?;
    let holder = holder_lock(cluster.runtime.as_ref(), &cluster.spec.name);
    if let Some(lock) = Lock::try_take(&holder)? {
        lock.discard();
    }
    Ok(())
}

/// Sweeps up after clusters that are over. That it cannot is no reason not to raise another.
pub async fn sweep(session: &Session<'_>) {
    let swept = async {
        for cluster in over(session).await? {
            remove(&cluster, session).await?;
        }
        let runtime = session.open(session.name()).await?;
        // Processes end without us, and leave their holder's lock. Of another daemon's cluster we may need it yet.
        if runtime.kind() == "process" {
            let names = runtime.clusters().await?;
            Lock::discard_orphans(|lock| {
                lock.strip_prefix("process-")
                    .and_then(|rest| rest.strip_suffix(".holder"))
                    .is_some_and(|name| !names.iter().any(|n| n == name))
            });
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = swept.await {
        session.ui.warn(&format!(
            "an expired cluster could not be removed: {}",
            error.title
        ));
    }
}

/// Resolves with a port offset at which all ports are free. Two that choose at a time cannot choose the same: the lock is to
/// be kept until the nodes listen.
pub async fn resolve_at_free_ports(
    flags: &SpecFlags,
    session: &Session<'_>,
) -> Result<(Resolved, Lock), Error> {
    let (first, count) = (OFFSETS.start, OFFSETS.end - OFFSETS.start);
    let begin = (RandomState::new().hash_one(0) % u64::from(count)) as u16;
    let mut taken = None;
    for k in 0..count {
        let offset = (first + (begin + k) % count) * OFFSET_STEP;
        let Some(lock) = Lock::try_take(&format!("ports-{offset}"))? else {
            continue;
        };
        let flags = SpecFlags {
            port_offset: Some(offset),
            ..flags.clone()
        };
        let resolved = up::resolve(&flags, session).await?;
        let observed = resolved.runtime.observe(&resolved.desired).await?;
        let conflict = observed
            .conflicts
            .into_iter()
            .find(|c| c.what.starts_with("host port"));
        match conflict {
            None => return Ok((resolved, lock)),
            Some(conflict) => taken = Some(conflict),
        }
    }
    let error = Error::new(
        "RMQ-E071",
        Exit::Conflict,
        format!("all {count} port offsets are taken"),
    );
    let error = match taken {
        Some(last) => error.detail(format!(
            "the last: {} is held by {}",
            last.what, last.holder
        )),
        None => error.detail("each by another rmqctl that raises a cluster or runs a command"),
    };
    Err(error.hint("rmqctl ls").hint("rmqctl down --expired"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Profile;
    use crate::topology::desired;
    use std::collections::BTreeSet;

    #[test]
    fn clusters_at_two_offsets_have_no_port_in_common() {
        let ports = |offset: u16| -> BTreeSet<u16> {
            let mut spec = ClusterSpec::defaults("x", Profile::Dev, "/x".into());
            (spec.masters, spec.slaves, spec.namesrvs) = (8, 8, 3);
            spec.port_offset = offset;
            let all = desired(&spec, &Site::Network).unwrap();
            let ports = all.nodes.iter().flat_map(|n| &n.ports);
            ports.map(|p| p.host.unwrap_or(p.container)).collect()
        };
        let mut seen = ports(0);
        for k in OFFSETS {
            let more = ports(k * OFFSET_STEP);
            assert!(seen.is_disjoint(&more), "offset {}", k * OFFSET_STEP);
            seen.extend(more);
        }
    }

    #[test]
    fn what_stands_keeps_its_end_and_what_is_to_stay_is_not_made_to_end() {
        let end = |until| Some(Ephemeral { until, held: false });
        let mut stored = ClusterSpec::defaults("ci", Profile::Ci, "/x".into());
        assert_eq!(lifetime(end(5), None), Ok(end(5)));
        assert_eq!(lifetime(None, Some(&stored)), Ok(None));
        assert_eq!(lifetime(end(5), Some(&stored)).unwrap_err().id, "RMQ-E070");
        stored.ephemeral = end(9);
        assert_eq!(lifetime(end(5), Some(&stored)), Ok(end(9)));
        assert_eq!(lifetime(None, Some(&stored)), Ok(end(9)));
    }
}
