//! `up` and `plan`: bring the cluster to what is asked for, or show what that would take.

use std::time::{Duration, Instant, SystemTime};

use super::ephemeral::{self, Rm};
use super::{Cluster, Session, Timeout, engine};
use crate::error::{Error, Exit};
use crate::lease;
use crate::lock::Lock;
use crate::plan::{self, Kind, Plan, UpOptions};
use crate::probe::View;
use crate::properties::{self, Edited};
use crate::ready::{self, Wait};
use crate::runtime::Runtime;
use crate::spec::{self, ClusterSpec, DEFAULT_NAME, SpecFlags};
use crate::topology::{self, Desired, Role, Site};
use crate::ui::{self, Format};

/// Bring up the cluster, or bring a running one to what is asked for
///
/// What runs already and is as asked stays untouched; a changed property recreates the nodes it concerns, one after
/// another, and their messages stay. Without --file, what you do not say stays as it is.
#[derive(Debug, clap::Args)]
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
    /// Stop and remove nodes that are no longer asked for; their volumes stay
    #[arg(long)]
    remove_orphans: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// In a new cluster: other ports than the usual ones, all of them free
    #[arg(long, conflicts_with = "port_offset")]
    any_port: bool,
    #[command(flatten)]
    rm: Rm,
}

/// How far nodes must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// Every broker is registered with every name server.
    Registered,
    /// And slaves have what their masters have.
    Synced,
}

/// Show what `up` with the same flags would do
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    spec: SpecFlags,
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
    };
    let (plan, edits) = look(&mut resolved, options, true).await?;
    match args.output {
        PlanFormat::Text => {
            session.ui.out(&plan.to_string());
            tell_edits(&edits, &plan, &resolved, session).await?;
        }
        PlanFormat::Json => session.ui.value(
            &serde_json::json!({
                "cluster": resolved.desired.cluster,
                "runtime": resolved.runtime.kind(),
                "pending": !plan.is_nothing(),
                "changes": plan.changes,
                "edits": edits,
            }),
            Format::Json,
        ),
    }
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
    };
    if args.dry_run {
        let mut resolved = resolve(&flags, session).await?;
        warn(&resolved, session);
        let (plan, edits) = look(&mut resolved, options, true).await?;
        session.ui.out(&plan.to_string());
        tell_edits(&edits, &plan, &resolved, session).await?;
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
        options,
        timeout: args.timeout.of(&resolved.spec),
        wait_for: (!args.no_wait).then_some(args.wait_for),
    };
    let nothing = raise.walk(&mut resolved, session).await?;
    let state = if args.no_wait {
        "is started"
    } else {
        "is ready"
    };
    let how = if nothing {
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
}

/// How a cluster is brought up: what `up` and `run` have in common.
pub struct Raise {
    /// What may be done beyond making what is missing.
    pub options: UpOptions,
    /// For all of it.
    pub timeout: Duration,
    /// How far nodes must have come; `None`: nobody waits.
    pub wait_for: Option<WaitFor>,
}

impl Raise {
    /// Observes, plans, walks, waits and dials, telling as it goes. Returns whether there was nothing to do. The cluster's lock
    /// is the caller's.
    pub async fn walk(
        &self,
        resolved: &mut Resolved,
        session: &Session<'_>,
    ) -> Result<bool, Error> {
        let (began, since) = (Instant::now(), SystemTime::now());
        let (plan, edits) = look(resolved, self.options, false).await?;
        let Resolved {
            runtime, desired, ..
        } = &*resolved;
        let nothing = plan.is_nothing();
        let outcome = session
            .walk(&plan, runtime.as_ref(), desired, self.timeout)
            .await;
        outcome.into_result(
            &session.interrupt,
            &session.goes_on(),
            &session.again("down   takes it back"),
        )?;
        if let Some(wait_for) = self.wait_for {
            let left = self
                .timeout
                .saturating_sub(began.elapsed())
                .max(Duration::from_secs(1));
            let view = await_all(
                session,
                runtime.as_ref(),
                desired,
                left,
                since,
                wait_for,
                nothing,
            )
            .await?;
            reachable(session, runtime.as_ref(), desired, &view, nothing).await?;
        }
        session.ui.clear();
        tell_edits(&edits, &plan, resolved, session).await?;
        for orphan in plan.named(Kind::Orphan) {
            let remove = session.again("up --remove-orphans");
            session.ui.warn(&format!(
                "{orphan} is no longer asked for, and is left alone   ({remove} removes it)"
            ));
        }
        Ok(nothing)
    }
}

/// Observes, plans, and brings the user's files in.
async fn look(
    resolved: &mut Resolved,
    options: UpOptions,
    dry: bool,
) -> Result<(Plan, Vec<Edited>), Error> {
    let observed = resolved.runtime.observe(&resolved.desired).await?;
    ephemeral::refuse_kept_messages(&resolved.spec, &observed)?;
    let mut plan = plan::up(
        &resolved.desired,
        resolved.previous.as_ref(),
        &observed,
        options,
    )?;
    // After the plan: a conflict leaves the files untouched as well.
    let edits = properties::reconcile(
        &mut resolved.desired,
        resolved.previous.as_ref(),
        dry || !resolved.keeps_files,
    )?;
    check_files(&resolved.desired, &edits)?;
    plan.use_files_of(&resolved.desired);
    Ok((plan, edits))
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

/// Says of each edited file whether its node has it already.
async fn tell_edits(
    edits: &[Edited],
    plan: &Plan,
    resolved: &Resolved,
    session: &Session<'_>,
) -> Result<(), Error> {
    let new: Vec<&str> = plan
        .named(Kind::Create)
        .into_iter()
        .chain(plan.named(Kind::Recreate))
        .collect();
    for edit in edits {
        let Some(node) = resolved.desired.nodes.iter().find(|n| n.name == edit.node) else {
            continue;
        };
        let wanted = node.file.as_ref().map_or("", |(_, text)| text);
        // A runtime may add lines of its own after the user's.
        let has_it = || async {
            let there = resolved.runtime.file_of(node).await?;
            Ok::<_, Error>(there.is_some_and(|there| there.starts_with(wanted)))
        };
        let fate = if new.contains(&edit.node.as_str()) || has_it().await? {
            "is used".to_owned()
        } else {
            format!(
                "is kept   ({} applies it)",
                session.again(&format!("restart {}", edit.node))
            )
        };
        session.ui.note(&format!(
            "your edit of {} ({}) {fate}",
            edit.file,
            edit.changes.join(", ")
        ));
    }
    Ok(())
}

async fn await_all(
    session: &Session<'_>,
    runtime: &dyn Runtime,
    desired: &Desired,
    timeout: Duration,
    since: SystemTime,
    wait_for: WaitFor,
    silent: bool,
) -> Result<View, Error> {
    let names: Vec<String> = desired.nodes.iter().map(|n| n.name.clone()).collect();
    let console = desired.console_url().unwrap_or_default();
    let on_ready = |name: &str, how: &str, after: Duration| match name {
        _ if silent => {}
        "rmqconsole" => session.ui.done(name, &console),
        _ => session
            .ui
            .done(name, &format!("{how}  {:.1}s", after.as_secs_f64())),
    };
    let wait = Wait {
        runtime,
        desired,
        names: &names,
        synced: wait_for == WaitFor::Synced,
        timeout,
        since,
        interrupt: &session.interrupt,
        on_ready: &on_ready,
    };
    ready::wait(&wait).await
}

/// The last look dialled every address that clients are told, from the host; here from inside the network as well.
async fn reachable(
    session: &Session<'_>,
    runtime: &dyn Runtime,
    desired: &Desired,
    view: &View,
    silent: bool,
) -> Result<(), Error> {
    let brokers: Vec<_> = desired
        .nodes
        .iter()
        .filter(|n| n.broker.is_some())
        .collect();
    let from_host = brokers
        .iter()
        .filter(|n| view.nodes.get(&n.name).is_some_and(|seen| seen.answers))
        .count();
    let mut text = format!("{from_host}/{} brokers from the host", brokers.len());
    if desired.site == Site::Network
        && let Some(inside) = desired.nodes.iter().find(|n| n.role == Role::Namesrv)
    {
        let addresses: Vec<String> = brokers
            .iter()
            .filter_map(|n| Some(format!("{}:{}", n.name, n.port("main")?.container)))
            .collect();
        let dials = runtime.dial_inside(&inside.container, &addresses).await?;
        let faults: Vec<String> = dials
            .iter()
            .filter_map(|d| {
                d.fault
                    .as_ref()
                    .map(|why| format!("dialled {} from {}: {why}", d.address, desired.network))
            })
            .collect();
        if !faults.is_empty() {
            let title = format!(
                "{} of {} brokers cannot be reached from {}",
                faults.len(),
                brokers.len(),
                desired.network
            );
            return Err(Error::new("RMQ-E031", Exit::NotReady, title)
                .lines(faults)
                .hint(session.again("logs")));
        }
        text += &format!(
            ", {}/{} from {}",
            dials.len(),
            brokers.len(),
            desired.network
        );
    }
    if !silent {
        session.ui.done("reachable", &text);
    }
    Ok(())
}
