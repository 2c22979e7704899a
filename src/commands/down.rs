//! `down`: takes a cluster away. Messages stay unless asked otherwise.

use super::{Cluster, Session, Timeout};
use crate::error::Error;
use crate::plan;
use crate::spec::{ClusterSpec, Profile};
use crate::topology;

/// Stop and remove the cluster; volumes with the messages stay
#[derive(Debug, clap::Args)]
pub struct Down {
    /// Remove the volumes too: all messages are lost
    #[arg(long)]
    volumes: bool,
    /// Every cluster here
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    timeout: Timeout,
}

/// `down`
pub async fn down(args: Down, session: &Session<'_>) -> Result<u8, Error> {
    if !args.all {
        one(&args, &found(session).await?, session).await?;
        return Ok(0);
    }
    let names = session.open(session.name()).await?.clusters().await?;
    if names.is_empty() {
        session.ui.note("There is no cluster; nothing to do.");
    }
    for name in names {
        if let Some(cluster) = Cluster::find(session.open(&name).await?, &name).await? {
            one(&args, &cluster, session).await?;
        }
    }
    Ok(0)
}

/// The cluster; where no spec is kept, for its name alone, since volumes outlive the spec and an interrupted `up` may too.
async fn found(session: &Session<'_>) -> Result<Cluster, Error> {
    let name = session.name();
    let runtime = session.open(name).await?;
    if runtime.stored_spec(name).await?.is_some() {
        return session.cluster().await;
    }
    let spec = ClusterSpec::defaults(name, Profile::default(), session.cwd.clone());
    spec.validate()?;
    let desired = topology::desired(&spec, &runtime.site(name))?;
    let cluster = Cluster {
        runtime,
        spec,
        desired,
    };
    let observed = cluster.observe().await?;
    if observed.nodes.is_empty() && observed.network.is_none() && observed.volumes.is_empty() {
        return session.cluster().await;
    }
    Ok(cluster)
}

async fn one(args: &Down, cluster: &Cluster, session: &Session<'_>) -> Result<(), Error> {
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let observed = cluster.observe().await?;
    let plan = plan::down(&cluster.desired, &observed, args.volumes);
    let outcome = session
        .walk(
            &plan,
            cluster.runtime.as_ref(),
            &cluster.desired,
            args.timeout.of(&cluster.spec),
        )
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("up   brings it back"),
    )?;
    session.ui.clear();
    let kept = if args.volumes || observed.volumes.is_empty() {
        String::new()
    } else {
        format!(
            "   {} volumes keep its messages ({} removes them).",
            observed.volumes.len(),
            session.again("down --volumes")
        )
    };
    session
        .ui
        .note(&format!("Cluster {} is down.{kept}", cluster.spec.name));
    Ok(())
}
