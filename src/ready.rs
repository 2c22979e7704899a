//! Waits until nodes are ready, as their own protocol tells: one deadline for all, and an end at once when one dies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, Exit};
use crate::interrupt::Interrupt;
use crate::probe::{self, NodeView, View};
use crate::runtime::Runtime;
use crate::topology::{Desired, Node, Role};

/// Between two looks at the cluster. A look is a few frames over loopback.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// How long one answer may take within a look.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// A slave of a master that takes sends is never at 0; this near, it is in sync.
const MOVING_LAG_MAX: i64 = 1 << 20;
/// Log lines shown of a node that died.
const TAIL_LINES: usize = 20;

/// Id of the error that a node ended; its last lines are in it.
pub const DIED: &str = "RMQ-E042";

/// What is waited for.
pub struct Wait<'a> {
    /// Where the nodes run.
    pub runtime: &'a dyn Runtime,
    /// The whole cluster.
    pub desired: &'a Desired,
    /// Names of the nodes that must be ready.
    pub names: &'a [String],
    /// Slaves must have caught up, not only be registered.
    pub synced: bool,
    /// From now.
    pub timeout: Duration,
    /// Ends of nodes before it are none of ours.
    pub since: SystemTime,
    /// Ctrl-C.
    pub interrupt: &'a Interrupt,
    /// Told of every node that becomes ready: name, how, after how long.
    pub on_ready: &'a (dyn Fn(&str, &str, Duration) + Sync),
}

/// Whether a node is ready: how, or why not yet.
pub fn judge(
    node: &Node,
    view: &View,
    before: &View,
    advertise: &str,
    synced: bool,
) -> Result<String, String> {
    let silent = NodeView::default();
    let seen = view.nodes.get(&node.name).unwrap_or(&silent);
    let why = |default: &str| Err(seen.fault.clone().unwrap_or_else(|| default.to_owned()));
    if !seen.answers {
        return why("does not answer yet");
    }
    let Some(main) = node.port("main") else {
        return Ok("ready".to_owned());
    };
    let Some(registered) = &seen.registered else {
        return why("is not registered with every name server");
    };
    let expected = format!("{advertise}:{}", main.host.unwrap_or(main.container));
    if *registered != expected {
        return Err(format!("registered {registered}, not {expected}"));
    }
    if node.role == Role::Master || !synced {
        return Ok(format!("{} registered", node.broker_text()));
    }
    match seen.lag {
        Some(lag) if lag <= 0 => Ok(format!("{} in sync", node.broker_text())),
        Some(lag) if lag <= MOVING_LAG_MAX && master_moved(node, view, before) => {
            Ok(format!("{} in sync", node.broker_text()))
        }
        Some(lag) => Err(format!("is {lag} bytes behind its master")),
        None => why("has not reached its master"),
    }
}

/// Whether the log of this slave's master grew between two looks.
fn master_moved(slave: &Node, view: &View, before: &View) -> bool {
    // The slave's own end says it too: it only grows by what the master sends.
    let end = |view: &View| view.nodes.get(&slave.name).and_then(|n| n.max_offset);
    end(view) > end(before) && end(before).is_some()
}

/// Returns when all are ready, with the last look.
pub async fn wait(wait: &Wait<'_>) -> Result<View, Error> {
    let began = Instant::now();
    let chosen: Vec<&Node> = wait
        .desired
        .nodes
        .iter()
        .filter(|n| wait.names.contains(&n.name))
        .collect();
    let mut ready: Vec<&str> = Vec::new();
    let mut missing: BTreeMap<&str, String> = BTreeMap::new();
    let mut before = View::default();
    let mut end = wait.runtime.first_end(wait.desired, wait.since);
    let mut watching = true;
    let deadline = tokio::time::sleep(wait.timeout);
    tokio::pin!(deadline);
    let mut pace = tokio::time::interval(LOOK_PERIOD);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = async {
            pace.tick().await;
            probe::look(wait.desired, ANSWER_TIMEOUT).await
        };
        let view = tokio::select! {
            biased;
            () = wait.interrupt.requested() => return Err(given_up(wait, &missing)),
            ended = &mut end, if watching => match ended {
                Ok(ended) if chosen.iter().any(|n| n.container == ended.container) => {
                    return Err(died(wait, &ended.container, ended.exit_code).await);
                }
                // Or the watch broke, which only makes an end be seen later: by the deadline.
                Ok(_) | Err(_) => { watching = false; continue }
            },
            () = &mut deadline => return Err(late(wait, &missing).await),
            view = look => view,
        };
        missing.clear();
        for node in &chosen {
            match judge(node, &view, &before, &wait.desired.advertise, wait.synced) {
                Ok(how) => {
                    if !ready.contains(&node.name.as_str()) {
                        ready.push(&node.name);
                        (wait.on_ready)(&node.name, &how, began.elapsed());
                    }
                }
                Err(why) => {
                    missing.insert(&node.name, why);
                }
            }
        }
        if missing.is_empty() {
            return Ok(view);
        }
        before = view;
    }
}

/// Returns when every name server has a route for each topic, which a topic gets when it is made, by hand or by a first send.
pub async fn wait_for_topics(wait: &Wait<'_>, topics: &[String]) -> Result<(), Error> {
    let began = Instant::now();
    let mut missing: BTreeMap<String, String> = BTreeMap::new();
    let mut ready: Vec<&String> = Vec::new();
    let deadline = tokio::time::sleep(wait.timeout);
    tokio::pin!(deadline);
    let mut pace = tokio::time::interval(LOOK_PERIOD);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let look = async {
            pace.tick().await;
            probe::missing_routes(wait.desired, topics, ANSWER_TIMEOUT).await
        };
        missing = tokio::select! {
            () = wait.interrupt.requested() => {
                return Err(wait.interrupt.error().detail("waiting was given up; the cluster stands"));
            }
            () = &mut deadline => break,
            missing = look => missing,
        };
        for topic in topics.iter().filter(|t| !missing.contains_key(*t)) {
            if !ready.contains(&topic) {
                ready.push(topic);
                (wait.on_ready)(topic, "has a route", began.elapsed());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    let title = format!(
        "{} of {} topics have no route after {} s",
        missing.len().max(topics.len() - ready.len()),
        topics.len(),
        wait.timeout.as_secs()
    );
    Err(Error::new("RMQ-E043", Exit::NotReady, title)
        .lines(
            missing
                .into_iter()
                .map(|(topic, why)| format!("topic {topic}: {why}")),
        )
        .hint("a topic gets its route when it is made, or with the first send to it"))
}

fn given_up(wait: &Wait<'_>, missing: &BTreeMap<&str, String>) -> Error {
    let mut error = wait
        .interrupt
        .error()
        .detail("waiting was given up; what was started stands");
    for (name, why) in missing {
        error = error.detail(format!("not ready yet: {name} {why}"));
    }
    error
        .hint(wait.desired.suggest("wait   goes on waiting"))
        .hint(wait.desired.suggest("down   takes it back"))
}

async fn died(wait: &Wait<'_>, container: &str, exit_code: Option<i64>) -> Error {
    let code = exit_code.map_or(String::new(), |code| match code {
        137 => " (exit 137: killed, for memory or by hand)".to_owned(),
        code => format!(" (exit {code})"),
    });
    let tail = wait
        .runtime
        .log_tail(container, TAIL_LINES)
        .await
        .unwrap_or_default();
    Error::new(
        DIED,
        Exit::NotReady,
        format!("{container} ended while it was waited for{code}"),
    )
    .lines(tail.into_iter().map(|line| format!("{container} | {line}")))
    .hint(
        wait.desired
            .suggest(&format!("logs {}", wait.desired.node_name(container))),
    )
}

async fn late(wait: &Wait<'_>, missing: &BTreeMap<&str, String>) -> Error {
    let mut error = Error::new(
        "RMQ-E041",
        Exit::NotReady,
        format!(
            "{} of {} nodes are not ready after {} s",
            missing.len(),
            wait.names.len(),
            wait.timeout.as_secs()
        ),
    );
    for (name, why) in missing {
        error = error.detail(format!("{name} {why}"));
    }
    if let Some(node) = missing
        .keys()
        .next()
        .and_then(|name| wait.desired.nodes.iter().find(|n| n.name == **name))
    {
        let tail = wait
            .runtime
            .log_tail(&node.container, TAIL_LINES)
            .await
            .unwrap_or_default();
        error = error.lines(
            tail.into_iter()
                .map(|line| format!("{} | {line}", node.container)),
        );
    }
    error
        .hint(wait.desired.suggest("wait   waits on"))
        .hint(wait.desired.suggest("logs"))
        .hint(wait.desired.suggest("down   takes it back"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::{Site, desired};

    fn judged(
        registered: Option<&str>,
        lag: Option<i64>,
        end: i64,
        end_before: i64,
    ) -> Result<String, String> {
        let all = desired(
            &ClusterSpec::defaults("rmq", Profile::Dev, "/x".into()),
            &Site::Network,
        )
        .unwrap();
        let slave = &all.nodes[2];
        let view = |end| View {
            nodes: BTreeMap::from([(
                slave.name.clone(),
                NodeView {
                    answers: true,
                    registered: registered.map(str::to_owned),
                    lag,
                    max_offset: Some(end),
                    ..NodeView::default()
                },
            )]),
        };
        judge(slave, &view(end), &view(end_before), "127.0.0.1", true)
    }

    #[test]
    fn a_slave_is_ready_when_it_has_what_its_master_has() {
        let address = Some("127.0.0.1:11911");
        assert_eq!(
            judged(address, Some(0), 9, 9),
            Ok("broker-a:1 in sync".into())
        );
        assert_eq!(
            judged(address, Some(5), 9, 9),
            Err("is 5 bytes behind its master".into())
        );
        assert_eq!(
            judged(address, None, 9, 9),
            Err("has not reached its master".into())
        );
        assert_eq!(
            judged(None, Some(0), 9, 9),
            Err("is not registered with every name server".into())
        );
    }

    #[test]
    fn a_slave_near_a_master_that_takes_sends_is_ready() {
        assert_eq!(
            judged(Some("127.0.0.1:11911"), Some(5), 9, 4),
            Ok("broker-a:1 in sync".into())
        );
        assert!(judged(Some("127.0.0.1:11911"), Some(2 << 20), 9, 4).is_err());
    }

    #[test]
    fn an_address_that_is_not_the_advertised_one_is_a_fault() {
        assert_eq!(
            judged(Some("172.18.0.3:11911"), Some(0), 9, 9),
            Err("registered 172.18.0.3:11911, not 127.0.0.1:11911".into())
        );
    }
}
