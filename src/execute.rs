//! Walks a plan on a runtime, in parallel where free. Decides nothing.
//!
//! After the first failure, or the first Ctrl-C, nothing new begins; calls in flight end, since one whose answer is lost
//! could leave a container that nobody knows of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt};

use crate::drain::{self, Drain};
use crate::error::{Error, Exit};
use crate::interrupt::Interrupt;
use crate::plan::{Action, Plan, Step};
use crate::ready::{self, Wait};
use crate::runtime::{Runtime, RuntimeError};
use crate::topology::Desired;

/// What a plan is walked on.
pub struct Walk<'a> {
    /// Where nodes run.
    pub runtime: &'a dyn Runtime,
    /// The state that the plan leads to.
    pub desired: &'a Desired,
    /// Calls at a time.
    pub parallel: usize,
    /// How long `AwaitNode` and `Drain` wait.
    pub await_timeout: Duration,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Told of every step that begins (`false`) and of every one done (`true`).
    pub on_step: &'a (dyn Fn(&Step, bool) + Sync),
    /// Told how far a step that takes long has come.
    pub on_progress: &'a (dyn Fn(&Step, &str) + Sync),
}

/// How far a plan came.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps done.
    pub done: Vec<Step>,
    /// Steps that failed, each with its error.
    pub failed: Vec<(Step, Error)>,
    /// Steps that were not begun.
    pub left: Vec<Step>,
}

/// Walks the whole plan, or as far as it goes.
pub async fn execute(plan: &Plan, walk: &Walk<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let halt = AtomicBool::new(false);
    for stage in &plan.stages {
        let mut running = stream::iter(chains(stage))
            .map(|chain| {
                let halt = &halt;
                async move {
                    let mut ended = Vec::with_capacity(chain.len());
                    for step in chain {
                        // Asked when a step's turn comes, so that nothing begins after a failure or a Ctrl-C.
                        if halt.load(Ordering::Relaxed) || walk.interrupt.is_requested() {
                            ended.push((step, None));
                            continue;
                        }
                        (walk.on_step)(step, false);
                        let result = one(step, walk).await;
                        match &result {
                            Ok(()) => (walk.on_step)(step, true),
                            Err(_) => halt.store(true, Ordering::Relaxed),
                        }
                        ended.push((step, Some(result)));
                    }
                    ended
                }
            })
            .buffer_unordered(walk.parallel.max(1));
        while let Some(chain) = running.next().await {
            for (step, result) in chain {
                match result {
                    Some(Ok(())) => outcome.done.push(step.clone()),
                    Some(Err(error)) => outcome.failed.push((step.clone(), error)),
                    None => outcome.left.push(step.clone()),
                }
            }
        }
    }
    outcome
}

/// The steps of a stage, those of one node together.
fn chains(stage: &[Step]) -> Vec<Vec<&Step>> {
    let mut chains: Vec<Vec<&Step>> = Vec::new();
    for step in stage {
        let node = step.action.container();
        let same = chains
            .iter_mut()
            .find(|chain| node.is_some() && chain[0].action.container() == node);
        match same {
            Some(chain) => chain.push(step),
            None => chains.push(vec![step]),
        }
    }
    chains
}

async fn one(step: &Step, walk: &Walk<'_>) -> Result<(), Error> {
    match &step.action {
        Action::AwaitNode(container) => await_node(container, walk).await,
        Action::Drain(departure) => {
            let drain = Drain {
                departure,
                desired: walk.desired,
                timeout: walk.await_timeout,
                interrupt: walk.interrupt,
                on_progress: &|how_far| (walk.on_progress)(step, how_far),
            };
            drain::drain(&drain).await
        }
        Action::Reopen(brokers) => drain::reopen(walk.desired, brokers).await,
        action => walk
            .runtime
            .apply(walk.desired, action)
            .await
            .map_err(Error::from),
    }
}

async fn await_node(container: &str, walk: &Walk<'_>) -> Result<(), Error> {
    let names: Vec<String> = walk
        .desired
        .nodes
        .iter()
        .filter(|n| n.container == *container)
        .map(|n| n.name.clone())
        .collect();
    let wait = Wait {
        runtime: walk.runtime,
        desired: walk.desired,
        names: &names,
        synced: true,
        timeout: walk.await_timeout,
        since: SystemTime::now(),
        interrupt: walk.interrupt,
        on_ready: &|_, _, _| {},
    };
    ready::wait(&wait).await.map(|_| ())
}

/// Whether an error is a signal's.
fn is_stop(error: &Error) -> bool {
    matches!(error.exit, Exit::Interrupted | Exit::Terminated)
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        let (id, exit) = match &error {
            RuntimeError::NoDaemon { .. } => ("RMQ-E002", Exit::Daemon),
            RuntimeError::TooOld { .. } => ("RMQ-E003", Exit::Daemon),
            RuntimeError::Image { .. } => ("RMQ-E004", Exit::Failed),
            RuntimeError::Unsupported { .. } => ("RMQ-E005", Exit::Usage),
            RuntimeError::NoImage { .. } => ("RMQ-E006", Exit::Failed),
            RuntimeError::NotEngine { .. } => ("RMQ-E007", Exit::Spec),
            RuntimeError::NotOurs { .. } => ("RMQ-E014", Exit::Conflict),
            RuntimeError::Failed { .. } => ("RMQ-E001", Exit::Failed),
        };
        let hint = error.hint();
        let mut made = Error::new(id, exit, error.to_string());
        if let RuntimeError::NoImage { reason, .. } | RuntimeError::NotEngine { reason, .. } =
            &error
        {
            made = made.detail(reason).detail("nothing was changed");
        }
        match hint {
            Some(hint) => made.hint(hint),
            None => made,
        }
    }
}

impl Outcome {
    /// Whether a step failed, for another reason than a signal.
    pub fn has_failed(&self) -> bool {
        self.failed.iter().any(|(_, error)| !is_stop(error))
    }

    /// Steps that were done or failed half-way, in their order.
    pub fn touched(&self) -> Vec<Step> {
        let failed = self.failed.iter().map(|(step, _)| step);
        self.done.iter().chain(failed).cloned().collect()
    }

    /// The failures as one error, where nothing of what was done stands any more.
    pub fn into_error(self) -> Option<Error> {
        let mut failed = self.failed.into_iter().filter(|(_, e)| !is_stop(e));
        let (_, mut error) = failed.next()?;
        for (step, other) in failed {
            error = error
                .detail(format!("{} failed too: {}", step.action, other.title))
                .lines(other.details);
        }
        Some(error)
    }

    /// The outcome as an error, or nothing when all was done. `again` and `back` are hints: what goes on, and what takes back
    /// what was done.
    pub fn into_result(self, interrupt: &Interrupt, again: &str, back: &str) -> Result<(), Error> {
        if self.failed.is_empty() && self.left.is_empty() {
            return Ok(());
        }
        let stands = self.stands();
        let untouched = self.done.is_empty();
        let mut failed = self.failed.into_iter();
        let first = failed.next();
        let Some((first_step, first)) = first.filter(|(_, error)| !is_stop(error)) else {
            let error = interrupt.error().lines(stands).hint(again);
            return Err(if untouched { error } else { error.hint(back) });
        };
        let rest: Vec<(Step, Error)> = failed.collect();
        // Whoever did nothing leaves nothing behind: the first error alone says it all.
        if untouched && rest.is_empty() {
            return Err(first);
        }
        let mut error = Error::new(
            "RMQ-E050",
            Exit::Partial,
            format!("{} failed: {}", first_step.action, first.title),
        )
        .lines(first.details);
        if first.exit == Exit::NotReady {
            error.exit = first.exit;
        }
        for (step, other) in rest {
            error = error
                .detail(format!("{} failed too: {}", step.action, other.title))
                .lines(other.details);
        }
        error = error.lines(stands);
        for hint in first.hints {
            error = error.hint(hint);
        }
        Err(error.hint(again).hint(back))
    }

    /// What was done, in words: each node with the last thing that happened to it.
    fn stands(&self) -> Vec<String> {
        let done = self.done.len();
        if done == 0 {
            return vec!["nothing was changed".to_owned()];
        }
        let total = done + self.failed.len() + self.left.len();
        let mut last: Vec<(&str, &str)> = Vec::new();
        for step in &self.done {
            let Some(container) = step.action.container() else {
                continue;
            };
            let word = match &step.action {
                Action::CreateNode(_) => "created, not started",
                Action::Configure(_) => "configured, not started",
                Action::StartNode(_) => "started",
                Action::StopNode(_) => "stopped",
                Action::RemoveNode(_) => "removed",
                _ => "ready",
            };
            last.retain(|(_, other)| *other != container);
            last.push((word, container));
        }
        let mut lines = vec![format!("{done} of {total} steps are done, and stand")];
        last.sort_unstable();
        for same in last.chunk_by(|a, b| a.0 == b.0) {
            let names: Vec<&str> = same.iter().map(|(_, container)| *container).collect();
            lines.push(format!("{}: {}", same[0].0, names.join(", ")));
        }
        lines
    }
}
