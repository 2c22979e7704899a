//! Bringing nodes up as planned: what `up`, `run`, `scale` and `upgrade` have in common. It walks, waits, dials, and takes a new
//! cluster back that failed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::up::{Resolved, WaitFor, check_files};
use super::{Session, dump, ephemeral, topics};
use crate::drain;
use crate::error::{Error, Exit};
use crate::execute::Outcome;
use crate::plan::{self, Action, Change, Kind, NodeState, Observed, Plan, Step, UpOptions};
use crate::probe::{self, NodeView, View};
use crate::properties::{self, Edited};
use crate::ready::{self, Wait};
use crate::runtime::{EngineImageAbout, Runtime, label};
use crate::topology::{BrokerId, Desired, Node, Role, Site};
use crate::ui::Structured;

/// How a cluster is brought up.
#[derive(Clone, Copy, Debug)]
pub struct Raise {
    /// For all of it.
    pub timeout: Duration,
    /// How far nodes must have come; `None`: nobody waits.
    pub wait_for: Option<WaitFor>,
    /// A new cluster that fails stays as it is; otherwise what this run made is taken back.
    pub keep_on_failure: bool,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Raised {
    /// To each thing, unchanged ones too.
    pub changes: Vec<Change>,
    /// How long after the wait began each node was ready; empty where nobody waited.
    ready: BTreeMap<String, Duration>,
    /// Whether there was nothing to do.
    pub is_nothing: bool,
}

/// The stable form of what a run did and what stands now, for programs.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    cluster: &'a str,
    runtime: &'static str,
    /// `ready`, or `started` where nobody waited.
    state: &'static str,
    changed: bool,
    seconds: f64,
    /// As clients outside the network dial them.
    namesrvs: Vec<String>,
    console: Option<String>,
    network: Option<&'a str>,
    nodes: Vec<NodeReport<'a>>,
    /// Nodes that went, and those that the spec does not name.
    removed: Vec<&'a str>,
    orphans: Vec<&'a str>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeReport<'a> {
    name: &'a str,
    container: &'a str,
    role: Role,
    broker: Option<&'a BrokerId>,
    /// As a client outside the network dials it.
    address: Option<String>,
    /// As one inside does; processes have no network of their own.
    inside_address: Option<String>,
    /// Ports of the host.
    ports: Vec<u16>,
    /// What was done: `create`, `recreate`, `start`, `unchanged` and so on.
    done: Kind,
    /// Why, or how.
    detail: &'a str,
    ready_seconds: Option<f64>,
}

impl Raised {
    /// Writes what was done and what stands, in a form that stays.
    pub fn report(
        &self,
        resolved: &Resolved,
        waited: bool,
        took: Duration,
        form: Structured,
        session: &Session<'_>,
    ) {
        let desired = &resolved.desired;
        let of_kind = |kind: Kind| -> Vec<&str> {
            let changes = self.changes.iter().filter(|c| c.kind == kind);
            changes.map(|c| c.what.as_str()).collect()
        };
        let report = Report {
            cluster: &desired.cluster,
            runtime: resolved.runtime.kind(),
            state: if waited { "ready" } else { "started" },
            changed: !self.is_nothing,
            seconds: millis(took),
            namesrvs: desired.namesrv_addrs(),
            console: desired.console_url(),
            network: (desired.site == Site::Network).then_some(desired.network.as_str()),
            nodes: desired
                .nodes
                .iter()
                .map(|node| self.node(node, desired))
                .collect(),
            removed: of_kind(Kind::Remove),
            orphans: of_kind(Kind::Orphan),
        };
        session.ui.value(&report, form.into());
    }

    fn node<'a>(&'a self, node: &'a Node, desired: &'a Desired) -> NodeReport<'a> {
        let change = self.changes.iter().find(|c| c.what == node.name);
        let port = ["main", "namesrv", "console"]
            .into_iter()
            .find_map(|purpose| node.port(purpose));
        NodeReport {
            name: &node.name,
            container: &node.container,
            role: node.role,
            broker: node.broker.as_ref(),
            address: port
                .and_then(|port| port.host)
                .map(|port| format!("{}:{port}", desired.advertise)),
            inside_address: port
                .filter(|_| desired.site == Site::Network)
                .map(|port| format!("{}:{}", node.name, port.container)),
            ports: node.ports.iter().filter_map(|p| p.host).collect(),
            done: change.map_or(Kind::Unchanged, |c| c.kind),
            detail: change.map_or("", |c| c.detail.as_str()),
            ready_seconds: self.ready.get(&node.name).copied().map(millis),
        }
    }
}

/// Seconds with three places: more would be noise.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// Makes a plan of the desired state, the one before, and what was observed.
pub trait Planner: FnOnce(&Desired, Option<&Desired>, &Observed) -> Result<Plan, Error> {}
impl<F: FnOnce(&Desired, Option<&Desired>, &Observed) -> Result<Plan, Error>> Planner for F {}

/// The plan of `up`.
pub fn as_up(options: UpOptions) -> impl Planner {
    move |desired: &Desired, previous: Option<&Desired>, observed: &Observed| {
        plan::up(desired, previous, observed, options)
    }
}

/// Shows what a plan would do: to a person, or in a form that stays.
pub async fn dry_run(
    resolved: &mut Resolved,
    planner: impl Planner,
    form: Option<Structured>,
    session: &Session<'_>,
) -> Result<Plan, Error> {
    let (plan, edits) = look(resolved, planner, true).await?;
    if let Some(form) = form {
        session.ui.value(
            &serde_json::json!({
                "cluster": resolved.desired.cluster,
                "runtime": resolved.runtime.kind(),
                "pending": !plan.is_nothing(),
                "changes": plan.changes,
                "edits": edits,
            }),
            form.into(),
        );
        return Ok(plan);
    }
    session.ui.out(&plan.to_string());
    tell_edits(&edits, &plan, resolved, session).await?;
    Ok(plan)
}

/// Observes, plans, and brings the user's files in.
pub async fn look(
    resolved: &mut Resolved,
    planner: impl Planner,
    dry: bool,
) -> Result<(Plan, Vec<Edited>), Error> {
    let mut observed = resolved.runtime.observe(&resolved.desired).await?;
    ephemeral::refuse_kept_messages(&resolved.spec, &observed)?;
    observed.closed = closed(&resolved.desired, &observed).await;
    observed.empty = empty(resolved, &observed).await;
    let mut plan = planner(&resolved.desired, resolved.previous.as_ref(), &observed)?;
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

/// Brokers that hold no message, where it matters: when stores would lie elsewhere, or are in memory.
async fn empty(resolved: &Resolved, observed: &Observed) -> Vec<String> {
    /// A broker that says nothing by then counts as full.
    const ANSWER: Duration = Duration::from_secs(2);
    let Some(previous) = resolved
        .previous
        .as_ref()
        .filter(|_| !observed.nodes.is_empty())
    else {
        return Vec::new();
    };
    let place = |node: &Node| (node.volume.clone(), node.tmpfs);
    let stays = |node: &Node| {
        let mut after = resolved.desired.nodes.iter();
        node.tmpfs.is_none()
            && after
                .find(|n| n.name == node.name)
                .is_none_or(|n| place(n) == place(node))
    };
    if previous.nodes.iter().all(stays) {
        return Vec::new();
    }
    let view = probe::look(previous, ANSWER).await;
    let holds_nothing =
        |(name, seen): (String, NodeView)| (seen.max_offset == Some(0)).then_some(name);
    view.nodes.into_iter().filter_map(holds_nothing).collect()
}

/// Masters that run and that name servers tell clients not to send to.
async fn closed(desired: &Desired, observed: &Observed) -> Vec<String> {
    let runs = |container: &str| {
        observed
            .nodes
            .iter()
            .any(|n| n.container == container && n.state == NodeState::Running)
    };
    let masters: Vec<String> = desired
        .nodes
        .iter()
        .filter(|node| node.role == Role::Master && runs(&node.container))
        .filter_map(|node| Some(node.broker.as_ref()?.name.clone()))
        .collect();
    if masters.is_empty() {
        return masters;
    }
    drain::closed(desired, &masters).await
}

impl Raise {
    /// Observes, plans and carries the plan out. The cluster's lock is the caller's.
    pub async fn walk(
        &self,
        resolved: &mut Resolved,
        planner: impl Planner,
        session: &Session<'_>,
    ) -> Result<Raised, Error> {
        let (plan, edits) = look(resolved, planner, false).await?;
        self.carry_out(&plan, &edits, resolved, session).await
    }

    /// Walks the plan, waits and dials, telling as it goes.
    pub async fn carry_out(
        &self,
        plan: &Plan,
        edits: &[Edited],
        resolved: &Resolved,
        session: &Session<'_>,
    ) -> Result<Raised, Error> {
        let (began, since) = (Instant::now(), SystemTime::now());
        let (runtime, desired) = (resolved.runtime.as_ref(), &resolved.desired);
        if let (Some(image), false) = (desired.foreign_image(), plan.is_nothing()) {
            let tell = |how: &str| session.ui.doing(image, how);
            runtime.fetch_image(image, &tell).await?;
            session.ui.done(image, "in place");
            session.ui.note(&format!(
                "Apache's name server tells every client one address of a broker: {} for the host and containers alike",
                desired.advertise
            ));
        }
        if let (Some(image), false) = (desired.engine_image(), plan.is_nothing()) {
            let tell = |how: &str| session.ui.doing(image, how);
            runtime.fetch_image(image, &tell).await?;
            let about = check_engine(image, runtime, desired).await?;
            session.ui.done(
                "engine image",
                &format!("{image}  rmqctl {}", about.version),
            );
        }
        let outcome = session.walk(plan, runtime, desired, self.timeout).await;
        let touched = outcome.touched();
        let fresh = touched
            .iter()
            .any(|step| step.action == Action::CreateNetwork);
        let takes_back = fresh && !self.keep_on_failure;
        let ended = async {
            if takes_back && outcome.has_failed() {
                return outcome.into_error().map_or(Ok(BTreeMap::new()), Err);
            }
            reopen(&outcome, resolved, session).await?;
            outcome.into_result(
                &session.interrupt,
                &session.goes_on(),
                &session.again("down   takes it back"),
            )?;
            let left = self.timeout.saturating_sub(began.elapsed());
            self.prove(plan, left, since, resolved, session).await
        };
        let ready = match ended.await {
            Ok(ready) => ready,
            Err(error) => {
                // Before anything is taken back.
                let error = dump::after(error, runtime, desired, session).await;
                let stopped = matches!(error.exit, Exit::Interrupted | Exit::Terminated);
                if stopped || !takes_back {
                    return Err(error);
                }
                return Err(take_back(error, &touched, resolved, session).await);
            }
        };
        session.ui.clear();
        tell_edits(edits, plan, resolved, session).await?;
        for orphan in plan.named(Kind::Orphan) {
            let remove = session.again("up --remove-orphans");
            session.ui.warn(&format!(
                "{orphan} is no longer asked for, and is left alone   ({remove} removes it)"
            ));
        }
        Ok(Raised {
            changes: plan.changes.clone(),
            ready,
            is_nothing: plan.is_nothing(),
        })
    }

    /// Waits until the cluster is as ready as asked for, and dials every address it hands out. When each node was ready.
    async fn prove(
        &self,
        plan: &Plan,
        left: Duration,
        since: SystemTime,
        resolved: &Resolved,
        session: &Session<'_>,
    ) -> Result<BTreeMap<String, Duration>, Error> {
        let Some(wait_for) = self.wait_for else {
            return Ok(BTreeMap::new());
        };
        let (runtime, desired) = (resolved.runtime.as_ref(), &resolved.desired);
        let nothing = plan.is_nothing();
        let left = left.max(Duration::from_secs(1));
        let (view, ready) =
            await_all(session, runtime, desired, left, since, wait_for, nothing).await?;
        reachable(session, runtime, desired, &view, nothing).await?;
        topics::make(resolved, left, session).await?;
        if wait_for == WaitFor::Roundtrip {
            roundtrips(desired, session).await?;
        }
        Ok(ready)
    }
}

/// An image that was named is one of rmqctl's engine, and opens what the cluster's nodes have written.
async fn check_engine(
    image: &str,
    runtime: &dyn Runtime,
    desired: &Desired,
) -> Result<EngineImageAbout, Error> {
    let about = runtime.engine_of(image).await?;
    let mut newest = 0;
    for node in &desired.nodes {
        let described = runtime.describe(desired, &node.container).await?;
        let format = described.and_then(|d| d.labels.get(label::STORE_FORMAT)?.parse().ok());
        newest = newest.max(format.unwrap_or(0));
    }
    refuse_older_format(image, about.store_format, newest)?;
    Ok(about)
}

fn refuse_older_format(image: &str, writes: u32, newest: u32) -> Result<(), Error> {
    if writes >= newest {
        return Ok(());
    }
    Err(Error::new(
        "RMQ-E022",
        Exit::Conflict,
        format!("the engine of {image} cannot open what the nodes have written"),
    )
    .detail(format!(
        "it writes store format {writes}, and the nodes have format {newest}"
    ))
    .detail("nothing was changed")
    .hint("an image that is as new: rmqctl image ls"))
}

/// Proves that each master takes a message and gives it back.
pub async fn roundtrips(desired: &Desired, session: &Session<'_>) -> Result<(), Error> {
    /// A message through a master that was just found ready.
    const EACH: Duration = Duration::from_secs(10);
    let all = probe::roundtrips(desired, EACH).await;
    let mut faults = Vec::new();
    for (broker, result) in &all {
        match result {
            Ok(took) => session.ui.done(
                broker,
                &format!("a message came back in {:.1} ms", took.as_secs_f64() * 1e3),
            ),
            Err(why) => faults.push(format!("{broker} at {why}")),
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let title = format!(
        "no message comes back through {} of {} masters",
        faults.len(),
        all.len()
    );
    Err(Error::new("RMQ-E045", Exit::NotReady, title)
        .lines(faults)
        .hint(session.again("logs")))
}

/// Lets masters that were emptied, and were to go, take sends again when the run ended before they went.
async fn reopen(
    outcome: &Outcome,
    resolved: &Resolved,
    session: &Session<'_>,
) -> Result<(), Error> {
    if outcome.failed.is_empty() && outcome.left.is_empty() {
        return Ok(());
    }
    // One that failed has opened them itself.
    let drains: Vec<Step> = outcome
        .done
        .iter()
        .filter(|step| matches!(step.action, Action::Drain(_) | Action::StopNode(_)))
        .cloned()
        .collect();
    match walk_back(&plan::undo(&drains), resolved, session)
        .await
        .into_error()
    {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The end of a run, which a first Ctrl-C may have brought about; a second one leaves at once.
async fn walk_back(back: &Plan, resolved: &Resolved, session: &Session<'_>) -> Outcome {
    let (runtime, desired) = (resolved.runtime.as_ref(), &resolved.desired);
    let timeout = desired.stop_timeout;
    session
        .unhurried()
        .walk(back, runtime, desired, timeout)
        .await
}

/// Takes back what this run made of a new cluster; the error then says that nothing stands.
async fn take_back(
    mut error: Error,
    touched: &[Step],
    resolved: &Resolved,
    session: &Session<'_>,
) -> Error {
    if error.exit == Exit::NotReady && error.id != ready::DIED {
        error = error.lines(last_words(resolved).await);
    }
    let ended = walk_back(&plan::undo(touched), resolved, session).await;
    // They lead to nodes that are gone.
    error.hints.clear();
    match ended.into_error() {
        None => error
            .detail("what this run had made of the new cluster is taken back; volumes that were there before stay")
            .hint("--keep-on-failure leaves it, to look at"),
        Some(also) => error
            .detail(format!("and it could not be taken back: {}", also.title))
            .lines(also.details)
            .hint(session.again("down   takes back what stands")),
    }
}

/// The last lines of the nodes, before they are taken away.
async fn last_words(resolved: &Resolved) -> Vec<String> {
    const LINES: usize = 5;
    let mut said = Vec::new();
    for node in &resolved.desired.nodes {
        let tail = resolved.runtime.log_tail(&node.container, LINES).await;
        let lines = tail.unwrap_or_default();
        said.extend(lines.iter().map(|line| format!("{} | {line}", node.name)));
    }
    said
}

/// Says of each edited file whether its node has it already.
pub async fn tell_edits(
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
) -> Result<(View, BTreeMap<String, Duration>), Error> {
    let names: Vec<String> = desired.nodes.iter().map(|n| n.name.clone()).collect();
    let times = Mutex::new(BTreeMap::new());
    let console = desired.console_url().unwrap_or_default();
    let on_ready = |name: &str, how: &str, after: Duration| {
        let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
        times.insert(name.to_owned(), after);
        match name {
            _ if silent => {}
            "rmqconsole" => session.ui.done(name, &console),
            _ => session
                .ui
                .done(name, &format!("{how}  {:.1}s", after.as_secs_f64())),
        }
    };
    let wait = Wait {
        runtime,
        desired,
        names: &names,
        synced: wait_for != WaitFor::Registered,
        timeout,
        since,
        interrupt: &session.interrupt,
        on_ready: &on_ready,
    };
    let view = ready::wait(&wait).await?;
    Ok((
        view,
        times.into_inner().unwrap_or_else(PoisonError::into_inner),
    ))
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
        // The dialler is the engine's; another's image has none.
        && let Some(inside) = desired.nodes.iter().find(|n| n.image.is_none())
    {
        let addresses: Vec<String> = brokers
            .iter()
            .filter_map(|n| {
                let port = n.port("main")?;
                // A foreign name server tells a caller in the network what it tells all.
                Some(match n.image {
                    None => format!("{}:{}", n.name, port.container),
                    Some(_) => format!("{}:{}", desired.advertise, port.host?),
                })
            })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_cannot_open_the_stores_is_refused() {
        assert!(refuse_older_format("e:2", 2, 2).is_ok());
        assert!(refuse_older_format("e:2", 2, 0).is_ok());
        let error = refuse_older_format("e:1", 1, 2).unwrap_err();
        assert_eq!((error.id, error.exit), ("RMQ-E022", Exit::Conflict));
    }
}
