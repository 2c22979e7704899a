//! `why`: one screen on one node: what it is, what happened to it, why it is not well, and what to do next.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::plan::{NodeState, Observed, state_text};
use crate::probe::{self, View};
use crate::ready;
use crate::runtime::describe::{About, Description, advice, exit_words};
use crate::topology::{Node, Role};
use crate::ui::{self, Format};

/// Say on one screen what a node is, what happened to it, why it is not well, and what to do next
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl why rmqmaster1
  rmqctl why broker-a:1 --tail 50
  rmqctl why slave1 -o json")]
pub struct Why {
    /// rmqmaster1, master1 or broker-a:1
    #[arg(value_name = "NODE")]
    node: String,
    /// Log lines shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    tail: usize,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Why {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Past events shown.
const EVENTS_MAX: usize = 6;

/// What `-o json` prints.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Story {
    node: String,
    container: String,
    role: Role,
    broker: Option<String>,
    cluster: String,
    runtime: &'static str,
    healthy: bool,
    /// Why it is not.
    fault: Option<String>,
    /// How it ended last, in words.
    last_end: Option<String>,
    description: Option<Description>,
    /// What it runs on.
    place: About,
    log: Vec<String>,
    next: Vec<Next>,
}

/// Something to do.
#[derive(Debug, serde::Serialize)]
struct Next {
    command: String,
    why: &'static str,
}

/// `why`
pub async fn why(args: Why, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let chosen = cluster.desired.select(std::slice::from_ref(&args.node))?;
    let [node] = chosen.as_slice() else {
        let names: Vec<&str> = chosen.iter().map(|n| n.name.as_str()).collect();
        return Err(Error::new(
            "RMQ-E082",
            Exit::Usage,
            format!("`{}` names {} nodes; say one", args.node, names.len()),
        )
        .hint(session.again(&format!("why {}", names[0])))
        .hint(session.again("doctor   looks at all")));
    };
    let (observed, view, description, log, place) = tokio::join!(
        cluster.observe(),
        probe::look(&cluster.desired, ANSWER_TIMEOUT),
        cluster.runtime.describe(&cluster.desired, &node.container),
        cluster.runtime.log_tail(&node.container, args.tail),
        cluster.runtime.about(),
    );
    let description = description?;
    // Of a node that does not exist there is no log.
    let log = match &description {
        Some(_) => log?,
        None => Vec::new(),
    };
    let seen = Seen {
        observed: observed?,
        view,
        description,
        place: place?,
        log,
    };
    let story = story(&cluster, node, seen, session);
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&story, args.output),
        Format::Name => session.ui.out(&format!("{}\n", story.node)),
        Format::Table | Format::Wide => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            session
                .ui
                .out(&text(&story, now.map_or(0, |now| now.as_secs())));
        }
    }
    Ok(if story.healthy {
        0
    } else {
        Exit::Degraded as u8
    })
}

/// What was asked of everybody.
struct Seen {
    observed: Observed,
    view: View,
    description: Option<Description>,
    place: About,
    log: Vec<String>,
}

fn story(cluster: &Cluster, node: &Node, all: Seen, session: &Session<'_>) -> Story {
    let Seen {
        observed,
        view,
        description,
        place,
        log,
    } = all;
    let seen = observed
        .nodes
        .iter()
        .find(|n| n.container == node.container);
    let fault = fault_of(cluster, node, seen.map(|n| &n.state), &view);
    let code = description.as_ref().and_then(|d| d.exit_code);
    let oom = description.as_ref().is_some_and(|d| d.oom_killed);
    let limit = description.as_ref().and_then(|d| d.memory_limit);
    let last_end = code.map(|code| {
        let limit = limit
            .filter(|_| oom)
            .map(|bytes| format!(" of {}", ui::bytes(bytes)));
        format!(
            "{code}: {}{}",
            exit_words(code, oom),
            limit.unwrap_or_default()
        )
    });
    let cut_off = view.cut_off_from(&node.name);
    let steps = match seen {
        None => vec![("makes it", "up".to_owned())],
        Some(_) if fault.is_none() => Vec::new(),
        Some(_) if !cut_off.is_empty() => cut_off
            .iter()
            .map(|peer| {
                (
                    "lets them reach each other again",
                    format!("chaos heal {} {peer}", node.name),
                )
            })
            .collect(),
        Some(seen) => advice(&node.name, &seen.state, code, oom),
    };
    Story {
        node: node.name.clone(),
        container: node.container.clone(),
        role: node.role,
        broker: node.broker.as_ref().map(|_| node.broker_text()),
        cluster: cluster.spec.name.clone(),
        runtime: cluster.runtime.kind(),
        healthy: fault.is_none(),
        fault,
        last_end,
        description,
        place,
        log,
        next: steps
            .into_iter()
            .map(|(why, rest)| Next {
                command: session.again(&rest),
                why,
            })
            .collect(),
    }
}

/// Why a node is not well, in one sentence.
fn fault_of(
    cluster: &Cluster,
    node: &Node,
    state: Option<&NodeState>,
    view: &View,
) -> Option<String> {
    match state {
        None => Some("it does not exist".to_owned()),
        Some(NodeState::Running) => {
            if let Some(cut_off) = view.partition_of(&cluster.desired, &node.name) {
                return Some(cut_off.replacen("is", "it is", 1));
            }
            let judged = ready::judge(node, view, view, &cluster.desired.advertise, false);
            let alone = node.role == Role::Slave
                && view.nodes.get(&node.name).is_some_and(|n| n.lag.is_none());
            match judged {
                Err(why) => Some(why),
                Ok(_) if alone => Some("it does not follow its master".to_owned()),
                Ok(_) => None,
            }
        }
        Some(NodeState::Restarting) => Some("it ends again and again".to_owned()),
        Some(NodeState::Paused) => Some("it is paused".to_owned()),
        Some(other) => Some(format!("it does not run: {}", state_text(other))),
    }
}

fn text(story: &Story, now: u64) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        out += format!("  {name:<10} {text}").trim_end();
        out.push('\n');
    };
    let ago = |at: u64| format!("{} ago", ui::span(now.saturating_sub(at)));
    let state = story.description.as_ref().map_or("missing", |d| &d.state);
    let verdict = if story.healthy { "well" } else { "not well" };
    let broker = story.broker.as_deref().unwrap_or_default();
    let what = format!(
        "{} {broker} of cluster {} ({}), {state}, {verdict}",
        story.role.word(),
        story.cluster,
        story.runtime
    );
    if let Some(fault) = &story.fault {
        line("why", fault);
    }
    if let Some(end) = &story.last_end {
        let at = story.description.as_ref().and_then(|d| d.finished_at);
        line(
            "last end",
            &format!(
                "{end}{}",
                at.map_or(String::new(), |at| format!("   ({})", ago(at)))
            ),
        );
    }
    if let Some(d) = &story.description {
        describe(d, &ago, &mut line);
    }
    let mut place = vec![story.place.version.clone()];
    place.extend(story.place.disk.as_ref().map(|disk| {
        format!(
            "disk {} % used, {} free",
            disk.used_percent(),
            ui::bytes(disk.free)
        )
    }));
    line("runs on", &place.join("   "));
    for (at, text) in story.log.iter().enumerate() {
        line(if at == 0 { "log" } else { "" }, text);
    }
    for (at, next) in story.next.iter().enumerate() {
        line(
            if at == 0 { "next" } else { "" },
            &format!("{}   {}", next.command, next.why),
        );
    }
    format!("{}: {}\n{out}", story.node, what.replace("  ", " "))
}

fn describe(d: &Description, ago: &dyn Fn(u64) -> String, line: &mut dyn FnMut(&str, &str)) {
    if let Some(error) = &d.error {
        line("start", &format!("the daemon said: {error}"));
    }
    if let Some(health) = d.health.as_ref().filter(|h| h.status != "healthy") {
        line(
            "health",
            &format!(
                "{}, {} failures in a row",
                health.status, health.failing_streak
            ),
        );
        for failure in &health.failures {
            line("", failure.lines().next().unwrap_or_default());
        }
    }
    if d.restarts > 0 {
        line("restarts", &format!("{} by itself", d.restarts));
    }
    let recent = &d.events[d.events.len().saturating_sub(EVENTS_MAX)..];
    for (at, event) in recent.iter().enumerate() {
        line(
            if at == 0 { "happened" } else { "" },
            &format!("{}   {}", event.what, ago(event.at)),
        );
    }
    let mut made: Vec<String> = Vec::new();
    made.extend(d.image.clone());
    made.extend(d.created_at.map(|at| format!("made {}", ago(at))));
    made.extend(d.created_by.as_ref().map(|by| format!("by {by}")));
    made.push(format!("id {}", d.id.chars().take(12).collect::<String>()));
    line("made of", &made.join("   "));
    let mut limits: Vec<String> = Vec::new();
    limits.extend(
        d.memory_limit
            .map(|bytes| format!("memory {}", ui::bytes(bytes))),
    );
    limits.extend(
        d.nano_cpus
            .map(|nano| format!("cpus {}", nano as f64 / 1e9)),
    );
    if !limits.is_empty() {
        line("limits", &limits.join("   "));
    }
    for mount in &d.mounts {
        line("mount", &format!("{} <- {}", mount.target, mount.source));
    }
    for network in &d.networks {
        line(
            "network",
            &format!(
                "{} {}",
                network.name,
                network.address.as_deref().unwrap_or("without an address")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::describe::Event;

    #[test]
    fn the_screen_says_why_before_what_it_is_made_of() {
        let story = Story {
            node: "rmqmaster1".into(),
            container: "rmqmaster1".into(),
            role: Role::Master,
            broker: Some("broker-a:0".into()),
            cluster: "rmq".into(),
            runtime: "docker",
            healthy: false,
            fault: Some("it does not run: exited (137)".into()),
            last_end: Some("137: killed by force".into()),
            description: Some(Description {
                state: "exited (137)".into(),
                id: "0123456789abcdef".into(),
                image: Some("rmqctl/engine:x".into()),
                finished_at: Some(940),
                events: vec![Event {
                    at: 940,
                    what: "was sent signal 9".into(),
                }],
                ..Description::default()
            }),
            place: About {
                version: "Docker 28.2.2".into(),
                ..About::default()
            },
            log: vec!["first".into(), "last".into()],
            next: vec![Next {
                command: "rmqctl start rmqmaster1".into(),
                why: "starts it",
            }],
        };
        assert_eq!(
            text(&story, 1000),
            "rmqmaster1: master broker-a:0 of cluster rmq (docker), exited (137), not well\n  \
             why        it does not run: exited (137)\n  \
             last end   137: killed by force   (1m ago)\n  \
             happened   was sent signal 9   1m ago\n  \
             made of    rmqctl/engine:x   id 0123456789ab\n  \
             runs on    Docker 28.2.2\n  \
             log        first\n             last\n  \
             next       rmqctl start rmqmaster1   starts it\n"
        );
    }
}
