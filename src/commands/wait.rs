//! `wait`: for scripts that start a cluster elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::raise;
use super::up::WaitFor;
use super::{Session, Timeout};
use crate::error::Error;
use crate::ready::{self, Wait};
use crate::ui::Structured;

const EXAMPLES: &str = "\
Examples:
  rmqctl wait                                      every node is ready, every slave in sync
  rmqctl wait --for registered --timeout 30s
  rmqctl wait --topic orders --topic payments      clients that start now find these topics
  rmqctl wait -o json                              what became ready, how, and after how long";

/// Wait until the cluster is ready
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct WaitArgs {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// When they count as ready
    #[arg(long = "for", value_name = "STATE", default_value = "synced")]
    wait_for: WaitFor,
    /// A topic that every name server must have a route for, so that clients find it; may be given again
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    #[command(flatten)]
    timeout: Timeout,
    /// Form of the result; by default there is none
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Structured>,
}

/// What became ready.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    name: String,
    how: String,
    seconds: f64,
}

impl WaitArgs {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Some(Structured::Json)
    }
}

/// `wait`
pub async fn wait(args: WaitArgs, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let names: Vec<String> = cluster
        .desired
        .select(&args.nodes)?
        .iter()
        .map(|n| n.name.clone())
        .collect();
    let all: Mutex<Vec<Ready>> = Mutex::default();
    let on_ready = |name: &str, how: &str, after: Duration| {
        all.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Ready {
                name: name.to_owned(),
                how: how.to_owned(),
                seconds: (after.as_secs_f64() * 1000.0).round() / 1000.0,
            });
        session
            .ui
            .done(name, &format!("{how}  {:.1}s", after.as_secs_f64()))
    };
    let began = Instant::now();
    let timeout = args.timeout.of(&cluster.spec);
    let mut wait = Wait {
        runtime: cluster.runtime.as_ref(),
        desired: &cluster.desired,
        names: &names,
        synced: args.wait_for != WaitFor::Registered,
        timeout,
        since: SystemTime::now(),
        interrupt: &session.interrupt,
        on_ready: &on_ready,
    };
    ready::wait(&wait).await?;
    let mut topics = args.topics.clone();
    topics.extend(cluster.spec.topics.iter().map(|topic| topic.name.clone()));
    if !topics.is_empty() {
        wait.timeout = timeout
            .saturating_sub(began.elapsed())
            .max(Duration::from_secs(1));
        ready::wait_for_topics(&wait, &topics).await?;
    }
    if args.wait_for == WaitFor::Roundtrip {
        raise::roundtrips(&cluster.desired, session).await?;
    }
    if let Some(format) = args.output {
        let all = all.lock().unwrap_or_else(PoisonError::into_inner);
        let value = serde_json::json!({ "cluster": cluster.spec.name, "ready": *all });
        session.ui.value(&value, format.into());
    }
    Ok(0)
}
