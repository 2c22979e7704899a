//! `up` and `plan`: bring the cluster to what is asked for, or show what that would take.

use std::path::PathBuf;
use std::time::Instant;

use super::ephemeral::{self, Rm};
use super::raise::{self, Raise};
use super::{Cluster, Session, Timeout, engine, zone};
use crate::error::{Error, Exit};
use crate::lease;
use crate::lock::Lock;
use crate::plan::{Recreate, UpOptions};
use crate::properties::Edited;
use crate::runtime::Runtime;
use crate::spec::{self, ClusterSpec, DEFAULT_NAME, SpecFlags, Storage};
use crate::topology::{self, Desired};
use crate::ui::{self, Structured};

/// Bring up the cluster, or bring a running one to what is asked for
///
/// What runs already and is as asked stays untouched; a changed property recreates the nodes it concerns, one after
/// another, and their messages stay. Without --file, what you do not say stays as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl up --masters 2 --slaves 2              a new cluster, or the running one made so
  rmqctl up --set fileReservedTime=72           one broker property, rolled out node by node
  rmqctl up --replication sync --flush sync     acknowledged = on disk and on a slave
  rmqctl up --data-dir ./data                   each node's store in a directory of its own below ./data
  rmqctl up -f cluster.yaml --dry-run           what the file would change
  rmqctl up -q -o json                          addresses, ports and what was done, for a program")]
pub struct Up {
    #[command(flatten)]
    spec: SpecFlags,
    #[command(flatten)]
    timeout: Timeout,
    /// When the cluster counts as ready
    #[arg(long, value_name = "STATE", default_value = "synced")]
    wait_for: WaitFor,
    /// Return as soon as the nodes are started
    #[arg(long)]
    no_wait: bool,
    /// Stop and remove nodes that are no longer asked for, whatever they hold; their volumes stay. `scale` empties them first
    #[arg(long)]
    remove_orphans: bool,
    /// Which nodes that stand already are made anew, one after another; their messages stay
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    recreate: Recreate,
    /// When a new cluster fails to come up, leave what was made of it for you to look at; it is taken back otherwise
    #[arg(long)]
    keep_on_failure: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// In a new cluster: other ports than the usual ones, all of them free
    #[arg(long, conflicts_with = "port_offset")]
    any_port: bool,
    #[command(flatten)]
    rm: Rm,
    /// When it fails, write what `rmqctl dump` would into a new directory in DIR (rmqctl-dump where CI=true)
    #[arg(long, value_name = "DIR")]
    pub dump_on_failure: Option<PathBuf>,
    /// What stands and what was done, for programs: stable, on standard output; progress stays on standard error
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Structured>,
}

impl Up {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Some(Structured::Json)
    }
}

/// How far nodes must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// Every broker is registered with every name server.
    Registered,
    /// And slaves have what their masters have.
    Synced,
    /// And a message comes back through each master.
    Roundtrip,
}

/// Show what `up` with the same flags would do
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl plan --masters 2 --slaves 3            what a third slave would take
  rmqctl plan -f cluster.yaml --exit-code       10 when the cluster is not as the file says
  rmqctl plan --set maxMessageSize=8388608 -o json")]
pub struct PlanArgs {
    #[command(flatten)]
    spec: SpecFlags,
    /// Which nodes that stand already would be made anew
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    recreate: Recreate,
    /// Include the removal of nodes that are no longer asked for
    #[arg(long)]
    remove_orphans: bool,
    /// Exit with 10 when something would change
    #[arg(long)]
    exit_code: bool,
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: PlanFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlanFormat {
    Text,
    Json,
    Yaml,
}

impl PlanArgs {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == PlanFormat::Json
    }
}

/// What flags and file make of a cluster, and what it was before.
pub struct Resolved {
    /// Where it runs or will run.
    pub runtime: Box<dyn Runtime>,
    /// The whole spec.
    pub spec: ClusterSpec,
    /// Its nodes.
    pub desired: Desired,
    /// Nodes of the spec that was kept with the cluster, as generated then.
    pub previous: Option<Desired>,
    /// Whether the nodes' files are written for the user to edit: an ephemeral cluster leaves none unless told where.
    pub keeps_files: bool,
}

/// Merges defaults or the running cluster's spec, the file and the flags.
pub async fn resolve(flags: &SpecFlags, session: &Session<'_>) -> Result<Resolved, Error> {
    let file = flags.file_draft(&session.cwd)?;
    let mut said = flags.draft(&session.cwd)?;
    if let Some(name) = file.as_ref().and_then(|f| f.name.clone()) {
        session.file_name.get_or_init(|| name);
    }
    let name = session.name().to_owned();
    let conf_dir = if name == DEFAULT_NAME {
        "rmq/conf".to_owned()
    } else {
        format!("rmq/{name}/conf")
    };
    // The name reaches file and container names before the whole spec is checked.
    ClusterSpec::defaults(&name, spec::Profile::Dev, conf_dir.clone().into()).validate()?;
    let runtime = session.open(&name).await?;
    let stored = match runtime.stored_spec(&name).await? {
        Some(text) if file.is_none() => Some(ClusterSpec::from_json(&text)?),
        // A file says everything, so a kept spec of another version is no obstacle.
        Some(text) => ClusterSpec::from_json(&text).ok(),
        None => None,
    };
    said.ephemeral = ephemeral::lifetime(said.ephemeral, stored.as_ref())?;
    // On another machine 127.0.0.1 is nobody's broker.
    let nobody_said = said.advertise.is_none()
        && file.as_ref().is_none_or(|file| file.advertise.is_none())
        && (stored.is_none() || file.is_some());
    if let (Some(machine), true) = (runtime.machine(), nobody_said) {
        said.advertise = Some(machine.to_owned());
        session.ui.warn(&format!(
            "the daemon is on another machine: clients are told {machine}, and ports are published on all its addresses   \
             (--advertise HOST and --bind IP say otherwise)"
        ));
    }
    if said.tz.is_none() && file.as_ref().is_none_or(|file| file.tz.is_none()) {
        // A cluster keeps its zone, whoever brings it up again from where.
        said.tz = match &stored {
            Some(stored) => stored.tz.clone(),
            None => zone::of_this_host(),
        };
    }
    let spec = spec::resolve(
        &name,
        stored.as_ref(),
        file.as_ref(),
        &said,
        session.cwd.join(conf_dir),
        engine::lint,
    )?;
    let site = runtime.site(&name);
    let desired = topology::desired(&spec, &site)?;
    let previous = stored.and_then(|stored| topology::desired(&stored, &site).ok());
    let conf_dir_said = |draft: &spec::Draft| draft.conf_dir.is_some();
    let keeps_files = spec.ephemeral.is_none()
        || conf_dir_said(&said)
        || file.as_ref().is_some_and(conf_dir_said);
    Ok(Resolved {
        runtime,
        spec,
        desired,
        previous,
        keeps_files,
    })
}

/// `plan`
pub async fn plan(args: PlanArgs, session: &Session<'_>) -> Result<u8, Error> {
    let mut resolved = resolve(&args.spec, session).await?;
    let options = UpOptions {
        remove_orphans: args.remove_orphans,
        recreate: args.recreate,
        ..UpOptions::default()
    };
    let form = match args.output {
        PlanFormat::Text => None,
        PlanFormat::Json => Some(Structured::Json),
        PlanFormat::Yaml => Some(Structured::Yaml),
    };
    let plan = raise::dry_run(&mut resolved, raise::as_up(options), form, session).await?;
    Ok(if args.exit_code && !plan.is_nothing() {
        Exit::Pending as u8
    } else {
        0
    })
}

/// `up`
pub async fn up(args: Up, session: &Session<'_>) -> Result<u8, Error> {
    let began = Instant::now();
    let mut flags = args.spec;
    flags.ephemeral = args.rm.ephemeral();
    let options = UpOptions {
        remove_orphans: args.remove_orphans,
        recreate: args.recreate,
        ..UpOptions::default()
    };
    if args.dry_run {
        let mut resolved = resolve(&flags, session).await?;
        warn(&resolved, session);
        raise::dry_run(&mut resolved, raise::as_up(options), args.output, session).await?;
        return Ok(0);
    }
    if args.rm.rm {
        ephemeral::sweep(session).await;
    }
    let (mut resolved, _ports) = resolve_to_raise(&flags, args.any_port, session).await?;
    warn(&resolved, session);
    let _lock = session
        .lock(resolved.runtime.as_ref(), &resolved.spec.name)
        .await?;
    let raise = Raise {
        timeout: args.timeout.of(&resolved.spec),
        wait_for: (!args.no_wait).then_some(args.wait_for),
        keep_on_failure: args.keep_on_failure,
    };
    let raised = raise
        .walk(&mut resolved, raise::as_up(options), session)
        .await?;
    if let Some(form) = args.output {
        raised.report(&resolved, !args.no_wait, began.elapsed(), form, session);
    }
    let state = if args.no_wait {
        "is started"
    } else {
        "is ready"
    };
    let how = if raised.is_nothing {
        "; nothing to do".to_owned()
    } else {
        format!(" in {:.1}s", began.elapsed().as_secs_f64())
    };
    session.ui.note(&format!(
        "Cluster {} {state}{how}.   export NAMESRV_ADDR='{}'   (or: eval \"$({})\")",
        resolved.spec.name,
        resolved.desired.namesrv_addrs().join(";"),
        session.again("env")
    ));
    if let Some(ephemeral) = resolved.spec.ephemeral {
        let left = ephemeral.until.saturating_sub(lease::now());
        session.ui.note(&format!(
            "It ends by itself in {}.   {}   ends it now",
            ui::span(left),
            session.again("down")
        ));
    }
    Ok(0)
}

/// Resolves what is to be raised; what stands of an ephemeral cluster of that name whose time is up is removed first. With
/// `any_port`, a new cluster gets ports that are free, and a lock on them.
pub async fn resolve_to_raise(
    flags: &SpecFlags,
    any_port: bool,
    session: &Session<'_>,
) -> Result<(Resolved, Option<Lock>), Error> {
    let resolved = resolve(flags, session).await?;
    if !ephemeral::is_over(resolved.runtime.as_ref(), &resolved.spec) {
        return match any_port && resolved.previous.is_none() {
            true => ephemeral::resolve_at_free_ports(flags, session)
                .await
                .map(|(resolved, ports)| (resolved, Some(ports))),
            // A node keeps its ports for life.
            false => Ok((resolved, None)),
        };
    }
    let over = Cluster {
        runtime: resolved.runtime,
        spec: resolved.spec,
        desired: resolved.desired,
    };
    ephemeral::remove(&over, session).await?;
    Box::pin(resolve_to_raise(flags, any_port, session)).await
}

/// Says what was asked for and has no effect.
pub fn warn(resolved: &Resolved, session: &Session<'_>) {
    for warning in spec::warnings(&resolved.spec, engine::lint) {
        session.ui.warn(&warning);
    }
    if let (Storage::Host { path }, Some(machine)) =
        (&resolved.spec.storage, resolved.runtime.machine())
    {
        let dirs = resolved.desired.nodes.iter().filter_map(|n| n.data_dir());
        let dirs: Vec<String> = dirs.map(topology::quoted_path).collect();
        let uid = topology::CONTAINER_UID;
        session.ui.warn(&format!(
            "stores are in {} on {machine}, which cannot be checked from here; they must be there:   \
             sudo install -d -o {uid} -g {uid} {}",
            path.display(),
            dirs.join(" ")
        ));
    }
}

/// A file that the engine would not start with is an error now, not of a node that dies.
pub fn check_files(desired: &Desired, edits: &[Edited]) -> Result<(), Error> {
    for node in &desired.nodes {
        let Some((file, text)) = &node.file else {
            continue;
        };
        let path = desired.conf_dir.join(file).display().to_string();
        let hint = if edits.iter().any(|edit| edit.node == node.name) {
            "mend the file, or delete it to have it generated anew".to_owned()
        } else {
            format!(
                "say another value: --set KEY=VALUE@{}, or in cluster.yaml",
                node.name
            )
        };
        engine::check_file(node.role, &path, text).map_err(|error| error.hint(hint))?;
    }
    Ok(())
}
