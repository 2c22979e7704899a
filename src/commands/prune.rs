//! `prune`: removes what clusters left behind, ours only.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Session, ephemeral};
use crate::error::{Error, Exit};
use crate::lease;
use crate::runtime::{Leftover, Runtime};
use crate::spec::parse_duration;
use crate::ui::{self, Format};

const EXAMPLES: &str = "\
Examples:
  rmqctl prune                        shows what is left, and asks
  rmqctl prune -y --older-than 24h    in a nightly job
  rmqctl prune --expired -y           only clusters whose time is up, as `down --expired`";

/// Remove what clusters left behind: expired clusters, networks and volumes of clusters that are down, unused engines
///
/// Only what rmqctl made is looked at. It shows what it would remove and asks. Volumes hold messages that `down` kept.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Prune {
    /// Only clusters that were raised to end by themselves, and whose time is up or whose `rmqctl run` is gone
    #[arg(long)]
    expired: bool,
    /// Of all but expired clusters, only what was made, or for an engine's image loaded, longer ago: 24h. What does not tell its
    /// age stays, as an image that `docker load` brought
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Remove without asking
    #[arg(short, long)]
    yes: bool,
    /// Never ask: without --yes it is an error
    #[arg(long)]
    no_input: bool,
    /// Form of the list of what is removed
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Prune {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// `prune`
pub async fn prune(args: Prune, session: &Session<'_>) -> Result<u8, Error> {
    let over = ephemeral::over(session).await?;
    let expired: Vec<&str> = over.iter().map(|c| c.spec.name.as_str()).collect();
    let runtime = session.open(session.name()).await?;
    let left = if args.expired {
        Vec::new()
    } else {
        let mut left = runtime.leftovers().await?;
        left.retain(|left| {
            // They go with their cluster.
            let of_expired = left
                .cluster
                .as_deref()
                .is_some_and(|c| expired.contains(&c));
            !of_expired && is_old(left, args.older_than, lease::now())
        });
        left.sort_by(|a, b| (&a.cluster, a.kind, &a.name).cmp(&(&b.cluster, b.kind, &b.name)));
        left
    };
    show(&args, &expired, &left, session);
    if expired.is_empty() && left.is_empty() {
        session.ui.note("Nothing is left over.");
        return Ok(0);
    }
    if !args.yes && !agreed(&args, session)? {
        session.ui.note("Nothing was removed.");
        return Ok(0);
    }
    for cluster in &over {
        ephemeral::remove(cluster, session).await?;
    }
    let removed = remove(runtime.as_ref(), &left, session).await?;
    session.ui.note(&format!(
        "{} expired clusters and {removed} of {} other things are removed.",
        over.len(),
        left.len()
    ));
    Ok(0)
}

/// Whether it was made long enough ago; what does not tell its age was not.
fn is_old(left: &Leftover, older_than: Option<Duration>, now: u64) -> bool {
    older_than.is_none_or(|age| {
        left.created_at
            .is_some_and(|made| made.saturating_add(age.as_secs()) <= now)
    })
}

fn show(args: &Prune, expired: &[&str], left: &[Leftover], session: &Session<'_>) {
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(
            &serde_json::json!({ "expiredClusters": expired, "leftovers": left }),
            args.output,
        ),
        Format::Name => {
            let names = left.iter().map(|left| left.name.as_str());
            for name in expired.iter().copied().chain(names) {
                session.ui.out(&format!("{name}\n"));
            }
        }
        Format::Table | Format::Wide if expired.is_empty() && left.is_empty() => {}
        Format::Table | Format::Wide => {
            let now = lease::now();
            let dash = || "-".to_owned();
            let mut rows: Vec<Vec<String>> = expired
                .iter()
                .map(|name| {
                    let all = "all of it, its time is up";
                    vec![
                        "cluster".to_owned(),
                        (*name).to_owned(),
                        dash(),
                        dash(),
                        all.to_owned(),
                    ]
                })
                .collect();
            rows.extend(left.iter().map(|left| {
                let age = left.created_at.map(|at| ui::span(now.saturating_sub(at)));
                let what = if left.has_messages {
                    "its messages are lost"
                } else {
                    ""
                };
                vec![
                    left.kind.word().to_owned(),
                    left.name.clone(),
                    left.cluster.clone().unwrap_or_else(dash),
                    age.unwrap_or_else(dash),
                    what.to_owned(),
                ]
            }));
            let header = ["KIND", "NAME", "CLUSTER", "AGE", "WITH IT"];
            session.ui.out(&ui::table(&header, &rows, |_, _| None));
        }
    }
}

fn agreed(args: &Prune, session: &Session<'_>) -> Result<bool, Error> {
    let answer = (!args.no_input).then(|| session.ui.ask("Remove all of this? [y/N] "));
    match answer.flatten() {
        Some(answer) => Ok(matches!(answer.trim(), "y" | "Y" | "yes")),
        None => Err(Error::new(
            "RMQ-E074",
            Exit::Usage,
            "nobody is there to be asked, and nothing was removed",
        )
        .hint("rmqctl prune --yes")),
    }
}

/// Removes what is still left over once its cluster is locked: an `up` may have come in between.
pub(super) async fn remove(
    runtime: &dyn Runtime,
    left: &[Leftover],
    session: &Session<'_>,
) -> Result<usize, Error> {
    let mut removed = 0;
    let clusters: BTreeSet<Option<&str>> = left.iter().map(|l| l.cluster.as_deref()).collect();
    for cluster in clusters {
        let _lock = match cluster {
            Some(name) => Some(session.lock(runtime, name).await?),
            None => None,
        };
        let still = runtime.leftovers().await?;
        let mine = left.iter().filter(|l| l.cluster.as_deref() == cluster);
        for left in mine.filter(|left| still.contains(left)) {
            runtime.discard(left).await?;
            session
                .ui
                .done(&left.name, &format!("{} removed", left.kind.word()));
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::LeftoverKind;

    #[test]
    fn only_what_is_known_to_be_old_is_old() {
        let left = |created_at| Leftover {
            kind: LeftoverKind::Volume,
            name: "rmqmaster1-store".into(),
            cluster: Some("rmq".into()),
            created_at,
            has_messages: true,
        };
        let day = Some(Duration::from_secs(86_400));
        assert!(is_old(&left(Some(13_600)), day, 100_000));
        assert!(!is_old(&left(Some(13_601)), day, 100_000));
        assert!(!is_old(&left(None), day, 100_000));
        assert!(is_old(&left(None), None, 100_000));
    }
}
