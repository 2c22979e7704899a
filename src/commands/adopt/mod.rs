//! `adopt`: containers that were made by hand become nodes of a cluster, with their messages, offsets and settings.

mod choose;
mod launch;
mod old;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use self::choose::{Chosen, choose};
use self::launch::Kind;
use self::old::OldBroker;
use super::raise::{self, Raise};
use super::up::{self, Resolved, WaitFor};
use super::{Cluster, Session, Timeout};
use crate::error::{Error, Exit};
use crate::plan::{self, Adoption, Kind as Change, Observed, Phase, Plan};
use crate::probe;
use crate::runtime::Runtime;
use crate::runtime::stranger::Stranger;
use crate::spec::{ClusterSpec, DEFAULT_NAME, Draft, NodeSpec, Profile, Properties, SpecFlags};
use crate::topology::{self, Desired, Role};

/// Take over containers that were made by hand: their messages, offsets and settings
///
/// For containers of older recipes (`docker run --link … --name rmqmaster1`), of any image with RocketMQ in it. What each stored, in a
/// volume, a host directory or itself, is copied into its node's volume while it is stopped; its properties are kept; the node then runs
/// this engine, or the one that --engine says, in the cluster's network. The old container stays, stopped and renamed, until
/// --remove-old or `docker rm`. If the new nodes do not come up, all is put back as it was. Killed half-way, the same command goes on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl adopt --all --dry-run                     what would be done, and what is found in each
  rmqctl adopt --all                               every container whose name is a node's
  rmqctl adopt rmqnamesrv rmqmaster1
  rmqctl adopt rmqserver=rmqnamesrv mq1=rmqmaster1 containers of other names
  rmqctl adopt --all --remove-old                  and the old containers go once all is well")]
pub struct Adopt {
    /// Containers, each as CONTAINER (rmqmaster1, master1) or CONTAINER=NODE
    #[arg(value_name = "CONTAINER[=NODE]", required_unless_present = "all")]
    containers: Vec<String>,
    /// All whose names are those of nodes of this cluster, or rmqserver and rmqbroker
    #[arg(long)]
    all: bool,
    /// A broker whose name or id is not that of its node gets the node's
    #[arg(long)]
    rename: bool,
    /// Where the store of a node is in its container, if it is not found; none where the path is empty
    #[arg(long, value_name = "NODE=PATH")]
    store: Vec<String>,
    /// Remove the old containers when the nodes are ready, and those of earlier runs; volumes with a name and host directories stay
    #[arg(long)]
    remove_old: bool,
    /// Put back what an adoption that did not end has set aside
    #[arg(long, conflicts_with_all = ["remove_old", "dry_run"])]
    undo: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    timeout: Timeout,
    #[command(flatten)]
    spec: SpecFlags,
}

/// What was read of the containers, and the cluster that they make.
struct Made {
    resolved: Resolved,
    adoptions: Vec<Adoption>,
    /// What a person should know, besides the plan.
    notes: Vec<String>,
}

/// `adopt`
pub async fn adopt(args: Adopt, session: &Session<'_>) -> Result<u8, Error> {
    let began = Instant::now();
    if let Some(name) = args.spec.file_draft(&session.cwd)?.and_then(|f| f.name) {
        session.file_name.get_or_init(|| name);
    }
    let name = session.name().to_owned();
    let runtime = session.open(&name).await?;
    let strangers = runtime.strangers().await?;
    let prefix = match name.as_str() {
        DEFAULT_NAME => String::new(),
        name => format!("{name}-"),
    };
    let stored = match runtime.stored_spec(&name).await? {
        Some(text) => Some(ClusterSpec::from_json(&text)?),
        None => None,
    };
    let typed = still_to_do(
        &args.containers,
        stored.as_ref(),
        &strangers,
        runtime.as_ref(),
        session,
    )?;
    let chosen = choose(&typed, args.all, &prefix, &strangers)?;
    if chosen.is_empty() {
        session
            .ui
            .note("There is no container to adopt; nothing to do.");
        return Ok(0);
    }
    if args.undo {
        return undo(&chosen, runtime, session).await;
    }
    let mut made = read(&args, &chosen, stored.as_ref(), runtime.as_ref(), session).await?;
    made.notes
        .extend(links(&chosen, &strangers, &made.resolved.desired));
    up::warn(&made.resolved, session);
    if args.dry_run {
        let adoptions = made.adoptions.clone();
        raise::dry_run(&mut made.resolved, as_adopt(&adoptions), None, session).await?;
        tell(&made.notes, session);
        return Ok(0);
    }
    let _lock = session.lock(runtime.as_ref(), &name).await?;
    let before = runtime.observe(&made.resolved.desired).await?;
    let (plan, edits) = raise::look(&mut made.resolved, as_adopt(&made.adoptions), false).await?;
    let adopted = plan.named(Change::Adopt).len();
    if !plan.is_nothing() {
        session.ui.note(plan.to_string().trim_end());
        tell(&made.notes, session);
    }
    let raise = Raise {
        timeout: args.timeout.of(&made.resolved.spec),
        wait_for: Some(WaitFor::Synced),
        keep_on_failure: true,
    };
    let carried = raise
        .carry_out(&plan, &edits, &made.resolved, session)
        .await;
    if let Err(error) = carried {
        return Err(put_back(error, &made, &before, session).await);
    }
    let old = kept_containers(runtime.as_ref(), &made).await?;
    let removed = args.remove_old && !old.is_empty();
    if removed {
        remove_old(&old, &made, session).await?;
    }
    conclude(adopted, &old, removed, began.elapsed(), &made, session);
    Ok(0)
}

/// The plan of `adopt`.
fn as_adopt(adoptions: &[Adoption]) -> impl raise::Planner + use<'_> {
    move |desired: &Desired, previous: Option<&Desired>, observed: &Observed| {
        plan::adopt(desired, previous, observed, adoptions)
    }
}

fn tell(notes: &[String], session: &Session<'_>) {
    for note in notes {
        session.ui.note(&format!("  {note}"));
    }
}

/// The containers that were typed, without those that are nodes of this cluster already.
fn still_to_do(
    typed: &[String],
    stored: Option<&ClusterSpec>,
    strangers: &[Stranger],
    runtime: &dyn Runtime,
    session: &Session<'_>,
) -> Result<Vec<String>, Error> {
    let Some(spec) = stored else {
        return Ok(typed.to_vec());
    };
    let desired = topology::desired(spec, &runtime.site(&spec.name))?;
    let is_node = |word: &&String| {
        let by_hand = strangers.iter().any(|s| {
            let name = s.container.as_str();
            let old = plan::adopt::of_aside(name).map(|(old, _)| old);
            old.or_else(|| plan::adopt::of_kept(name)).unwrap_or(name) == word.as_str()
        });
        !by_hand && desired.select(&[(*word).clone()]).is_ok()
    };
    let (nodes, rest): (Vec<&String>, Vec<&String>) = typed.iter().partition(is_node);
    for node in nodes {
        session.ui.note(&format!(
            "{node} is a node of cluster {} already.",
            spec.name
        ));
    }
    Ok(rest.into_iter().cloned().collect())
}

/// Reads the containers, and makes of them and of what was said the cluster that they are to be.
async fn read(
    args: &Adopt,
    chosen: &[Chosen<'_>],
    stored: Option<&ClusterSpec>,
    runtime: &dyn Runtime,
    session: &Session<'_>,
) -> Result<Made, Error> {
    let mut notes = Vec::new();
    let stores = stores(&args.store)?;
    let mut brokers: BTreeMap<String, OldBroker> = BTreeMap::new();
    let mut adoptions = Vec::new();
    for one in chosen {
        let copies = match old::check_kind(one)? {
            Kind::Broker => {
                let store = stores.get(&one.node).map(String::as_str);
                let broker = old::broker(one, store, runtime).await?;
                let copies = broker.copies.clone();
                brokers.insert(one.node.clone(), broker);
                copies
            }
            Kind::Namesrv => old::namesrv(one, runtime).await?,
            Kind::Console => {
                notes.push(format!("{}: rmqctl's own console takes its place; users and settings of the old one are not taken over", one.node));
                Vec::new()
            }
        };
        adoptions.push(Adoption {
            node: one.node.clone(),
            old: one.old.clone(),
            phase: one.phase,
            // What an earlier run has stopped ran before.
            runs: one.stranger.runs || one.phase == Phase::Aside,
            image: one.stranger.image.clone(),
            copies,
        });
    }
    let unknown = stores.keys().find(|node| !brokers.contains_key(*node));
    if let Some(node) = unknown {
        return Err(crate::spec::unknown_name(
            "broker to adopt",
            node,
            brokers.keys().map(String::as_str),
        ));
    }
    let masters: Vec<&OldBroker> = brokers.values().filter(|b| b.id == 0).collect();
    let flags = flags(&args.spec, chosen, stored, settings::advertised(&masters));
    let mut resolved = up::resolve(&flags, session).await?;
    if resolved.spec.ephemeral.is_some() {
        return Err(Error::new(
            "RMQ-E075",
            Exit::Conflict,
            "a cluster that ends by itself adopts nobody",
        )
        .detail("its nodes leave nothing behind, and what they adopt would go with them")
        .hint("rmqctl --name NAME adopt …   into another cluster"));
    }
    let missing: Vec<&str> = chosen
        .iter()
        .map(|c| c.node.as_str())
        .filter(|node| resolved.desired.nodes.iter().all(|n| n.name != *node))
        .collect();
    if !missing.is_empty() {
        return Err(Error::new(
            "RMQ-E104",
            Exit::Usage,
            format!("the cluster asked for has no {}", missing.join(", ")),
        )
        .hint("leave --masters, --slaves, --namesrvs and --no-console away: they follow from what is adopted"));
    }
    let draft = draft(
        args,
        chosen,
        &brokers,
        &resolved,
        stored.is_none(),
        &mut notes,
    )?;
    resolved.spec.apply(&draft);
    // What was said on the command line counts more than what was found.
    resolved.spec.apply(&flags.draft(&session.cwd)?);
    resolved.spec.validate()?;
    let site = resolved.runtime.site(&resolved.spec.name);
    resolved.desired = topology::desired(&resolved.spec, &site)?;
    check_identities(args, &brokers, &resolved.desired, &mut notes)?;
    let homeless = resolved
        .desired
        .nodes
        .iter()
        .find(|n| n.volume.is_none() && brokers.contains_key(&n.name));
    if let Some(node) = homeless {
        return Err(Error::new(
            "RMQ-E025",
            Exit::Conflict,
            format!("{} would keep what it adopts in memory", node.name),
        )
        .detail("its messages would be gone when it stops; nothing was changed")
        .hint("storage: volume   in cluster.yaml, or --data-dir PATH"));
    }
    Ok(Made {
        resolved,
        adoptions,
        notes,
    })
}

/// `NODE=PATH`, by node.
fn stores(said: &[String]) -> Result<BTreeMap<String, String>, Error> {
    said.iter()
        .map(|word| {
            let (node, path) = word.split_once('=').ok_or_else(|| {
                Error::new("RMQ-E104", Exit::Usage, format!("--store {word}: no `=`"))
                    .hint("--store rmqmaster1=/home/rocketmq/store")
            })?;
            let node = match node.starts_with("rmq") {
                true => node.to_owned(),
                false => format!("rmq{node}"),
            };
            Ok((node, path.trim_end_matches('/').to_owned()))
        })
        .collect()
}

/// The flags, with what follows from the containers where nobody said it.
fn flags(
    said: &SpecFlags,
    chosen: &[Chosen<'_>],
    stored: Option<&ClusterSpec>,
    advertised: Option<String>,
) -> SpecFlags {
    let mut flags = said.clone();
    if flags.file.is_some() {
        return flags;
    }
    let count = |role: Role, has: Option<u32>| {
        let numbers = chosen.iter().filter(|c| c.role == role).map(|c| c.number);
        numbers.chain(has).max().unwrap_or(0)
    };
    let masters = count(Role::Master, stored.map(|s| s.masters)).max(1);
    flags.masters.get_or_insert(masters);
    if flags.slaves_per_master.is_none() {
        let slaves = count(Role::Slave, stored.map(|s| s.slaves));
        flags.slaves.get_or_insert(slaves);
    }
    let namesrvs = count(Role::Namesrv, stored.map(|s| s.namesrvs)).max(1);
    flags.namesrvs.get_or_insert(namesrvs);
    if !flags.console && !flags.no_console {
        let console = chosen.iter().any(|c| c.role == Role::Console);
        flags.console = console;
        flags.no_console = !console && stored.is_none();
    }
    if stored.is_some() {
        return flags;
    }
    // RocketMQ's own sizes and limits, as whoever made containers by hand had them.
    flags.profile.get_or_insert(Profile::Prod);
    let namesrv = chosen
        .iter()
        .find(|c| (c.role, c.number) == (Role::Namesrv, 1));
    if let (None, Some(port)) = (
        flags.port_offset,
        namesrv.and_then(|c| host_port(c.stranger, 9876)),
    ) {
        flags.port_offset = port.checked_sub(9876);
    }
    if flags.advertise.is_none() {
        flags.advertise = advertised;
    }
    flags
}

/// Where a port of the container is published.
fn host_port(stranger: &Stranger, inside: u16) -> Option<u16> {
    let mut ports = stranger.ports.iter();
    ports
        .find(|(port, _, _)| *port == inside)
        .map(|(_, _, host)| *host)
}

/// What the spec must say so that nodes are what their containers were.
fn draft(
    args: &Adopt,
    chosen: &[Chosen<'_>],
    brokers: &BTreeMap<String, OldBroker>,
    resolved: &Resolved,
    is_new: bool,
    notes: &mut Vec<String>,
) -> Result<Draft, Error> {
    let bundled = resolved.spec.engine.is_bundled();
    let mut kept: BTreeMap<String, Properties> = BTreeMap::new();
    let mut refused = Vec::new();
    for node in &resolved.desired.nodes {
        let Some(old) = brokers.get(&node.name) else {
            continue;
        };
        let mut taken = settings::take(old, node, bundled);
        let said = args
            .spec
            .sets
            .iter()
            .filter_map(|set| Some(set.split_once('=')?.0));
        let said: BTreeSet<&str> = said.collect();
        taken
            .refused
            .retain(|line| !said.contains(line.split(':').next().unwrap_or_default()));
        refused.extend(
            taken
                .refused
                .iter()
                .map(|line| format!("{}: {line}", node.name)),
        );
        notes.extend(
            taken
                .dropped
                .iter()
                .map(|line| format!("{}: left out: {line}", node.name)),
        );
        kept.insert(node.name.clone(), taken.kept);
    }
    if !refused.is_empty() {
        return Err(Error::new(
            "RMQ-E025",
            Exit::Conflict,
            format!("{} settings cannot be taken over", refused.len()),
        )
        .lines(refused)
        .detail("nothing was changed")
        .hint("--set KEY=VALUE   says another value")
        .hint("--engine apache:TAG   keeps Apache's engine"));
    }
    let mut draft = settings::share(&kept, is_new);
    for one in chosen {
        let Some(node) = resolved.desired.nodes.iter().find(|n| n.name == one.node) else {
            continue;
        };
        let own: &mut NodeSpec = draft.nodes.entry(one.node.clone()).or_default();
        own.memory = one.stranger.memory;
        own.cpus = one.stranger.nano_cpus.map(|nano| nano as f64 / 1e9);
        if let Some(old) = brokers.get(&one.node) {
            let published = host_port(one.stranger, old.port);
            let would = node.port("main").and_then(|port| port.host);
            own.main_port = published.filter(|port| Some(*port) != would);
        }
        match one.role {
            Role::Console => {
                // A console of any make listens on one port.
                let host = one.stranger.ports.first().map(|(_, _, host)| *host);
                let base = host.and_then(|host| host.checked_sub(resolved.spec.port_offset));
                draft.console_port = base.filter(|port| is_new && *port > 0);
            }
            Role::Namesrv => {
                let would = node.port("namesrv").and_then(|port| port.host);
                let was = host_port(one.stranger, 9876);
                if was.is_some() && was != would {
                    notes.push(format!(
                        "{}: clients find it at port {} from now on, not {}",
                        one.node,
                        would.unwrap_or_default(),
                        was.unwrap_or_default()
                    ));
                }
            }
            Role::Master | Role::Slave => {}
        }
    }
    // An empty entry says nothing.
    draft.nodes.retain(|_, own| *own != NodeSpec::default());
    Ok(draft)
}

/// Refuses brokers that are not who their nodes would be.
fn check_identities(
    args: &Adopt,
    brokers: &BTreeMap<String, OldBroker>,
    desired: &Desired,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    let mut wrong = Vec::new();
    for node in &desired.nodes {
        let Some(old) = brokers.get(&node.name) else {
            continue;
        };
        if let Some(why) = settings::mismatch(old, node, args.rename) {
            let file = old
                .file
                .as_deref()
                .unwrap_or("its command line, which names no properties file");
            wrong.push(format!("{why} (by {file})"));
        } else if let Some(why) = settings::mismatch(old, node, false) {
            notes.push(format!("{why}: it is renamed; offsets that clients keep themselves by a broker's name begin anew"));
        }
    }
    // A slave's store is a copy of one master's log, and cannot go on as a copy of another's.
    let by_name: BTreeMap<&str, &str> = desired
        .nodes
        .iter()
        .filter(|n| n.role == Role::Master)
        .filter_map(|n| {
            Some((
                brokers.get(&n.name)?.name.as_str(),
                n.broker.as_ref()?.name.as_str(),
            ))
        })
        .collect();
    for node in desired.nodes.iter().filter(|n| n.role == Role::Slave) {
        let (Some(old), Some(broker)) = (brokers.get(&node.name), &node.broker) else {
            continue;
        };
        let follows = by_name.get(old.name.as_str()).copied();
        let other = match follows {
            Some(now) => now != broker.name,
            None => args.rename && old.name != broker.name,
        };
        if other && args.rename {
            wrong.push(format!(
                "{} would copy {}, and its store is a copy of {}'s log",
                node.name,
                broker.name,
                follows.unwrap_or(&old.name)
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "RMQ-E025",
        Exit::Conflict,
        format!("{} of {} brokers are not who their nodes would be", wrong.len(), brokers.len()),
    )
    .lines(wrong)
    .detail("nothing was changed")
    .hint("CONTAINER=NODE   where another node is meant")
    .hint("--rename   gives a broker its node's name and id")
    .hint("a slave that does not fit: leave it out and remove it; `up --slaves N` makes one that copies its master anew"))
}

/// Containers that reach the adopted ones by a link, which ends with the old container.
fn links(chosen: &[Chosen<'_>], strangers: &[Stranger], desired: &Desired) -> Vec<String> {
    let names: Vec<&str> = chosen.iter().map(|c| c.old.as_str()).collect();
    let taken: Vec<&str> = chosen
        .iter()
        .map(|c| c.stranger.container.as_str())
        .collect();
    strangers
        .iter()
        .filter(|s| !taken.contains(&s.container.as_str()))
        .filter_map(|s| {
            let reached: Vec<&str> = s
                .links
                .iter()
                .map(|(to, _)| to.as_str())
                .filter(|to| names.contains(to))
                .collect();
            (!reached.is_empty()).then(|| {
                format!(
                    "{} reaches {} by --link, which ends: docker network connect {} {}",
                    s.container,
                    reached.join(", "),
                    desired.network,
                    s.container
                )
            })
        })
        .collect()
}

/// Puts the old containers back after a run that failed or was interrupted; the error then says how it is.
async fn put_back(
    mut error: Error,
    made: &Made,
    before: &Observed,
    session: &Session<'_>,
) -> Error {
    /// A broker that took part is near.
    const ANSWER: Duration = Duration::from_secs(2);
    let (runtime, desired) = (made.resolved.runtime.as_ref(), &made.resolved.desired);
    // A master that answered may have taken messages which nobody else has.
    let view = probe::look(desired, ANSWER).await;
    let observed = match runtime.observe(desired).await {
        Ok(observed) => observed,
        Err(reason) => {
            return error
                .detail(format!("and what stands could not be seen: {reason}"))
                .hint(session.goes_on());
        }
    };
    let keep: Vec<String> = desired
        .nodes
        .iter()
        .filter(|n| n.role == Role::Master && view.nodes.get(&n.name).is_some_and(|v| v.answers))
        .filter(|n| {
            observed
                .nodes
                .iter()
                .any(|seen| seen.container == n.container)
        })
        .filter_map(|n| n.volume.clone())
        .filter(|volume| observed.volumes.contains(volume) && !before.volumes.contains(volume))
        .collect();
    let back = plan::put_back(desired, &observed, before, &made.adoptions, &keep);
    let walked = walk(&back, desired, runtime, session).await;
    let restored = match (walked, made.resolved.previous.as_ref()) {
        (Ok(()), Some(previous)) if before.network.is_some() => {
            let mut spec = Plan::default();
            spec.stages.push(vec![plan::Step {
                action: plan::Action::StoreSpec,
                cause: "put back".to_owned(),
            }]);
            walk(&spec, previous, runtime, session).await
        }
        (walked, _) => walked,
    };
    // They lead to nodes that are gone.
    error.hints.clear();
    if let Err(also) = restored {
        return error
            .detail(format!(
                "and the old containers could not all be put back: {}",
                also.title
            ))
            .lines(also.details)
            .hint(session.goes_on())
            .hint(session.again("adopt --all --undo   puts back what was set aside"));
    }
    error = error.detail("the old containers are put back, as they were");
    if !keep.is_empty() {
        error = error
            .detail(format!(
                "the new masters had answered, so what they may have taken is kept in {}",
                keep.join(", ")
            ))
            .hint(format!(
                "docker volume rm {}   where nothing was sent meanwhile",
                keep.join(" ")
            ));
    }
    error.hint(session.goes_on())
}

async fn walk(
    plan: &Plan,
    desired: &Desired,
    runtime: &dyn Runtime,
    session: &Session<'_>,
) -> Result<(), Error> {
    let unhurried = session.unhurried();
    let outcome = unhurried
        .walk(plan, runtime, desired, desired.stop_timeout)
        .await;
    outcome.into_error().map_or(Ok(()), Err)
}

/// Puts back what an adoption that was killed has set aside.
async fn undo(
    chosen: &[Chosen<'_>],
    runtime: Box<dyn Runtime>,
    session: &Session<'_>,
) -> Result<u8, Error> {
    let half: Vec<&Chosen<'_>> = chosen.iter().filter(|c| c.phase == Phase::Aside).collect();
    let done: Vec<&str> = chosen
        .iter()
        .filter(|c| c.phase == Phase::Kept)
        .map(|c| c.stranger.container.as_str())
        .collect();
    if !done.is_empty() {
        session.ui.warn(&format!(
            "left alone: {}: what nodes have stored since would be lost   (docker rename and docker start, after `rmqctl down`, go back by hand)",
            done.join(", ")
        ));
    }
    if half.is_empty() {
        session.ui.note("No adoption is half done; nothing to do.");
        return Ok(0);
    }
    let _lock = session.lock(runtime.as_ref(), session.name()).await?;
    let name = session.name().to_owned();
    let Some(cluster) = Cluster::find(runtime, &name).await? else {
        return Err(Error::new(
            "RMQ-E110",
            Exit::Failed,
            format!("there is no cluster `{name}`"),
        )
        .hint("docker rename and docker start put a container back by hand"));
    };
    let adoptions: Vec<Adoption> = half
        .iter()
        .map(|c| Adoption {
            node: c.node.clone(),
            old: c.old.clone(),
            phase: c.phase,
            runs: true,
            image: c.stranger.image.clone(),
            copies: Vec::new(),
        })
        .collect();
    let observed = cluster.observe().await?;
    // Nothing of it but what the adoption made: then it was no cluster before.
    let is_half = |container: &str| {
        let bare = container.strip_suffix("-copy").unwrap_or(container);
        let mut nodes = cluster.desired.nodes.iter();
        nodes.any(|n| n.container == bare && adoptions.iter().any(|a| a.node == n.name))
    };
    let before = Observed {
        nodes: observed
            .nodes
            .iter()
            .filter(|n| !is_half(&n.container))
            .cloned()
            .collect(),
        ..Observed::default()
    };
    let before = Observed {
        network: (!before.nodes.is_empty() || !done.is_empty())
            .then(|| cluster.desired.network.clone()),
        ..before
    };
    let back = plan::put_back(&cluster.desired, &observed, &before, &adoptions, &[]);
    walk(&back, &cluster.desired, cluster.runtime.as_ref(), session).await?;
    let names: Vec<&str> = adoptions.iter().map(|a| a.old.as_str()).collect();
    session.ui.note(&format!("Put back: {}.", names.join(", ")));
    Ok(0)
}

/// Old containers whose nodes are there, by the names that they have now.
async fn kept_containers(runtime: &dyn Runtime, made: &Made) -> Result<Vec<String>, Error> {
    let kept: Vec<String> = made
        .adoptions
        .iter()
        .map(|a| plan::adopt::kept_name(&a.old))
        .collect();
    let there = runtime.strangers().await?;
    Ok(there
        .into_iter()
        .map(|s| s.container)
        .filter(|name| kept.contains(name))
        .collect())
}

async fn remove_old(old: &[String], made: &Made, session: &Session<'_>) -> Result<(), Error> {
    let mut plan = Plan::default();
    plan.stages.push(
        old.iter()
            .map(|name| plan::Step {
                action: plan::Action::RemoveForeign(name.clone()),
                cause: "its node is ready".to_owned(),
            })
            .collect(),
    );
    walk(
        &plan,
        &made.resolved.desired,
        made.resolved.runtime.as_ref(),
        session,
    )
    .await
}

fn conclude(
    adopted: usize,
    old: &[String],
    removed: bool,
    took: Duration,
    made: &Made,
    session: &Session<'_>,
) {
    let resolved = &made.resolved;
    let how = match adopted {
        0 => "; nothing to adopt".to_owned(),
        count => format!(": {count} containers adopted in {:.1}s", took.as_secs_f64()),
    };
    session.ui.note(&format!(
        "Cluster {} is ready{how}.   export NAMESRV_ADDR='{}'   (or: eval \"$({})\")",
        resolved.spec.name,
        resolved.desired.namesrv_addrs().join(";"),
        session.again("env")
    ));
    if removed {
        session.ui.note(&format!("Removed: {}.", old.join(", ")));
    } else if !old.is_empty() {
        session.ui.note(&format!(
            "The old containers stay, stopped: {}.   {}   removes them",
            old.join(", "),
            session.again("adopt --all --remove-old")
        ));
    }
}
