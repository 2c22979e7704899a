//! `down`: takes a cluster away. Messages stay unless asked otherwise.

use std::time::Duration;

use super::{Cluster, Session, Timeout, ephemeral};
use crate::error::{Error, Exit};
use crate::plan;
use crate::runtime::hostdir;
use crate::spec::{ClusterSpec, Profile, Storage, quoted};
use crate::topology::{self, data_dir, quoted_path};

/// Stop and remove the cluster; volumes with the messages stay
///
/// With --volumes, directories of --data-dir lose what the engine wrote and nothing else; a store that was there before rmqctl stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl down                  nodes and network go, the messages stay
  rmqctl down --volumes        nothing of the cluster is left
  rmqctl down --all --volumes  nothing of any cluster is left")]
pub struct Down {
    /// Remove the volumes too: all messages are lost
    #[arg(long)]
    volumes: bool,
    /// Every cluster here
    #[arg(long)]
    all: bool,
    /// Every cluster here that was raised to end by itself, and whose time is up or whose `rmqctl run` is gone; messages too
    #[arg(long, conflicts_with = "all")]
    expired: bool,
    #[command(flatten)]
    timeout: Timeout,
}

/// `down`
pub async fn down(args: Down, session: &Session<'_>) -> Result<u8, Error> {
    if args.expired {
        let over = ephemeral::over(session).await?;
        if over.is_empty() {
            session.ui.note("No cluster has expired; nothing to do.");
        }
        for cluster in over {
            ephemeral::remove(&cluster, session).await?;
            session
                .ui
                .note(&format!("Cluster {} is gone.", cluster.spec.name));
        }
        return Ok(0);
    }
    if !args.all {
        match found(session).await? {
            Some(cluster) => one(&args, &cluster, session).await?,
            // Whoever runs `down` twice, or after one that was interrupted at its end, has what was asked for.
            None => session.ui.note(&format!(
                "There is no cluster {}; nothing to do.",
                session.name()
            )),
        }
        return Ok(0);
    }
    let names = session.open(session.name()).await?.clusters().await?;
    if names.is_empty() {
        session.ui.note("There is no cluster; nothing to do.");
    }
    let mut unreadable = None;
    for name in names {
        match Cluster::find(session.open(&name).await?, &name).await {
            Ok(Some(cluster)) => one(&args, &cluster, session).await?,
            Ok(None) => {}
            // One that another version of rmqctl made must not keep the others.
            Err(error) if error.exit == Exit::Spec => {
                unreadable = Some(error.detail(format!("cluster {name} is left as it is")));
            }
            Err(error) => return Err(error),
        }
    }
    unreadable.map_or(Ok(0), Err)
}

/// The cluster, if there is one; where no spec is kept, for its name alone, since volumes outlive the spec and an interrupted `up` may too.
async fn found(session: &Session<'_>) -> Result<Option<Cluster>, Error> {
    let name = session.name();
    let runtime = session.open(name).await?;
    if runtime.stored_spec(name).await?.is_some() {
        return Cluster::find(runtime, name).await;
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
    let nothing =
        observed.nodes.is_empty() && observed.network.is_none() && observed.volumes.is_empty();
    // A look counts two networks of one name as none.
    if nothing && !cluster.runtime.clusters().await?.iter().any(|c| c == name) {
        return Ok(None);
    }
    Ok(Some(cluster))
}

async fn one(args: &Down, cluster: &Cluster, session: &Session<'_>) -> Result<(), Error> {
    let taken = take_down(
        cluster,
        args.volumes,
        args.timeout.of(&cluster.spec),
        session,
    )
    .await?;
    let (volumes, dirs): (Vec<&String>, Vec<&String>) =
        taken.iter().partition(|v| data_dir(v).is_none());
    let kept = match volumes.len() {
        0 => String::new(),
        kept => format!(
            "   {kept} volumes keep its messages ({} removes them).",
            session.again("down --volumes")
        ),
    };
    session
        .ui
        .note(&format!("Cluster {} is down.{kept}", cluster.spec.name));
    tell_dirs(args, cluster, &dirs, session);
    Ok(())
}

/// Says where messages stay that lie in directories of the host, and what else is left in those.
fn tell_dirs(args: &Down, cluster: &Cluster, kept: &[&String], session: &Session<'_>) {
    let Storage::Host { path } = &cluster.spec.storage else {
        return;
    };
    let shown = quoted_path(path);
    if let Some(machine) = cluster.runtime.machine() {
        session.ui.note(&format!(
            "Its messages stay in {shown} on {machine}, where nothing is removed from here."
        ));
        return;
    }
    if !args.volumes {
        let again = session.again(&format!("up --data-dir {shown}"));
        let dirs: Vec<String> = kept.iter().map(|dir| quoted(dir)).collect();
        if !dirs.is_empty() {
            session.ui.note(&format!(
                "Its messages stay in {shown}   ({again}   uses them again; rm -r {}   removes them).",
                dirs.join(" ")
            ));
        }
        return;
    }
    for (dir, names) in hostdir::left(&cluster.desired) {
        let shown = dir.display();
        let found = kept.iter().any(|kept| **kept == shown.to_string());
        session.ui.note(&match found {
            true => format!("{shown} stays: its store was there before rmqctl."),
            false => format!(
                "{shown} stays, with {} that the engine did not write.",
                names.join(", ")
            ),
        });
    }
}

/// Stops and removes what is found of a cluster; returns the volumes and directories that stay.
pub async fn take_down(
    cluster: &Cluster,
    volumes: bool,
    timeout: Duration,
    session: &Session<'_>,
) -> Result<Vec<String>, Error> {
    let lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let observed = cluster.observe().await?;
    // One that leaves nothing has no volumes; the directories that it was given are emptied.
    let leaves_nothing = cluster.spec.ephemeral.is_some();
    let volumes = volumes || leaves_nothing && matches!(cluster.spec.storage, Storage::Host { .. });
    let plan = plan::down(&cluster.desired, &observed, volumes);
    let outcome = session
        .walk(&plan, cluster.runtime.as_ref(), &cluster.desired, timeout)
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("up   brings it back"),
    )?;
    session.ui.clear();
    if cluster.spec.ephemeral.is_some() {
        // Its name may never be needed again.
        lock.discard();
    }
    let removed = |volume: &String| volumes && !observed.found_stores.contains(volume);
    let stay = observed.volumes.iter().filter(|v| !removed(v));
    Ok(stay.cloned().collect())
}
