//! `doctor`: everything that can be wrong with a cluster, looked at once, each with what mends it.

use std::time::SystemTime;

use super::power::await_nodes;
use super::up::check_files;
use super::{Cluster, Session, Timeout, prune};
use crate::doctor::checks::judge;
use crate::doctor::facts::{self, Reach};
use crate::doctor::{Check, Verdict};
use crate::error::{Error, Exit};
use crate::plan::{self, Kind, NodeState, Plan, UpOptions};
use crate::properties;
use crate::runtime::Leftover;
use crate::ui::{self, Format};

/// Look at everything that can be wrong with the cluster, and say what mends it. Exits with 7 on a fault
///
/// Every address that clients are told is dialled from this host and, on Docker, from inside each node.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl doctor
  rmqctl doctor --fix        starts nodes that stand, makes those that are missing; changes no others; removes orphan networks
  rmqctl doctor -o json | jq '.checks[] | select(.verdict != \"good\")'")]
pub struct Doctor {
    /// Do what is safe: start nodes that do not run, let paused ones go on, make missing ones, remove networks of rmqctl's own that
    /// have no node and no messages. Running nodes are not touched
    #[arg(long)]
    fix: bool,
    #[command(flatten)]
    timeout: Timeout,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Doctor {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// What `-o json` prints.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    cluster: String,
    runtime: &'static str,
    /// The worst of all checks.
    verdict: Verdict,
    checks: Vec<Check>,
    reachability: Vec<Dialled>,
    /// Nodes that --fix did something to, and networks that it removed.
    fixed: Vec<String>,
}

#[derive(Debug, serde::Serialize)]
struct Dialled {
    from: String,
    to: String,
    purpose: &'static str,
    address: String,
    /// Why it was not reached.
    fault: Option<String>,
}

impl From<Reach> for Dialled {
    fn from(reach: Reach) -> Self {
        Self {
            from: reach.from,
            to: reach.to,
            purpose: reach.purpose,
            address: reach.dial.address,
            fault: reach.dial.fault,
        }
    }
}

/// `doctor`
pub async fn doctor(args: Doctor, session: &Session<'_>) -> Result<u8, Error> {
    let mut cluster = session.cluster().await?;
    let (mut report, networks) = examine(&cluster, session).await?;
    if args.fix && report.checks.iter().any(|check| check.fixable) {
        let mut fixed = fix(&args, &mut cluster, session).await?;
        // Under the locks of their own clusters, after this one's was given back.
        prune::remove(cluster.runtime.as_ref(), &networks, session).await?;
        let left;
        (report, left) = examine(&cluster, session).await?;
        let gone = networks.into_iter().filter(|was| !left.contains(was));
        fixed.extend(gone.map(|network| network.name));
        report.fixed = fixed;
    }
    session.ui.clear();
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        Format::Name => report
            .checks
            .iter()
            .filter(|check| check.verdict != Verdict::Good)
            .for_each(|check| session.ui.out(&format!("{}\n", check.id))),
        Format::Table | Format::Wide => show(&report, session),
    }
    Ok(match report.verdict {
        Verdict::Fault => Exit::Degraded as u8,
        Verdict::Good | Verdict::Warning => 0,
    })
}

/// The report, and the networks that are nobody's any more.
async fn examine(
    cluster: &Cluster,
    session: &Session<'_>,
) -> Result<(Report, Vec<Leftover>), Error> {
    session.ui.doing("doctor", "asking everybody");
    let facts = tokio::select! {
        facts = facts::gather(cluster.runtime.as_ref(), &cluster.desired) => facts?,
        () = session.interrupt.requested() => return Err(session.interrupt.error()),
    };
    let checks = judge(&cluster.desired, &facts);
    session.ui.clear();
    let report = Report {
        cluster: cluster.spec.name.clone(),
        runtime: facts.runtime,
        verdict: checks
            .iter()
            .map(|check| check.verdict)
            .max()
            .unwrap_or(Verdict::Good),
        checks,
        reachability: facts.reach.into_iter().map(Dialled::from).collect(),
        fixed: Vec::new(),
    };
    Ok((report, facts.networks))
}

/// Does what `up` would do to nodes that do not run; those that run are left out, whatever they run.
async fn fix(
    args: &Doctor,
    cluster: &mut Cluster,
    session: &Session<'_>,
) -> Result<Vec<String>, Error> {
    let since = SystemTime::now();
    let _lock = session
        .lock(cluster.runtime.as_ref(), &cluster.spec.name)
        .await?;
    let generated = cluster.desired.clone();
    let edits = properties::reconcile(&mut cluster.desired, Some(&generated), false)?;
    check_files(&cluster.desired, &edits)?;
    let observed = cluster.observe().await?;
    let mut idle = cluster.desired.clone();
    idle.nodes.retain(|node| {
        let seen = observed
            .nodes
            .iter()
            .find(|n| n.container == node.container);
        seen.is_none_or(|n| !matches!(n.state, NodeState::Running | NodeState::Restarting))
    });
    let plan = plan::up(&idle, None, &observed, UpOptions::default())?;
    let timeout = args.timeout.of(&cluster.spec);
    let outcome = session
        .walk(&plan, cluster.runtime.as_ref(), &cluster.desired, timeout)
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.goes_on(),
        &session.again("stop   stops what was started"),
    )?;
    let fixed = touched(&plan);
    let names: Vec<&str> = fixed.iter().map(String::as_str).collect();
    // One that still is not ready is told by the report that follows, with all else.
    if let Err(error) = await_nodes(session, cluster, &names, timeout, since).await {
        session.ui.warn(&error.title);
    }
    Ok(fixed)
}

fn touched(plan: &Plan) -> Vec<String> {
    [Kind::Start, Kind::Create, Kind::Recreate]
        .into_iter()
        .flat_map(|kind| plan.named(kind))
        .filter(|what| !what.contains(' '))
        .map(str::to_owned)
        .collect()
}

fn show(report: &Report, session: &Session<'_>) {
    for check in &report.checks {
        session.ui.verdict(
            match check.verdict {
                Verdict::Good => Some(true),
                Verdict::Warning => None,
                Verdict::Fault => Some(false),
            },
            check.id,
            &check.found,
        );
        for detail in &check.details {
            session.ui.out(&format!("     {detail}\n"));
        }
        for remedy in &check.remedies {
            session.ui.out(&format!("     -> {remedy}\n"));
        }
    }
    session.ui.out(&matrix(&report.reachability));
    if !report.fixed.is_empty() {
        session
            .ui
            .note(&format!("fixed: {}", report.fixed.join(", ")));
    }
    let count = |verdict| {
        report
            .checks
            .iter()
            .filter(|c| c.verdict == verdict)
            .count()
    };
    session.ui.note(&format!(
        "Cluster {}: {} checks, {} faults, {} warnings.",
        report.cluster,
        report.checks.len(),
        count(Verdict::Fault),
        count(Verdict::Warning)
    ));
}

/// Who reaches whom: a row for each address, a column for each place it was dialled from.
fn matrix(reach: &[Dialled]) -> String {
    let mut places: Vec<&str> = Vec::new();
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for one in reach {
        if !places.contains(&one.from.as_str()) {
            places.push(&one.from);
        }
        if !rows.contains(&(&one.to, one.purpose)) {
            rows.push((&one.to, one.purpose));
        }
    }
    let mut header = vec!["REACHES", "PORT"];
    header.extend(&places);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(to, purpose)| {
            let cell = |place: &&str| {
                let found = reach
                    .iter()
                    .find(|r| r.from == **place && r.to == *to && r.purpose == *purpose);
                match found.map(|r| &r.fault) {
                    None => "-".to_owned(),
                    Some(None) => "ok".to_owned(),
                    Some(Some(why)) => why.clone(),
                }
            };
            let mut cells = vec![(*to).to_owned(), (*purpose).to_owned()];
            cells.extend(places.iter().map(cell));
            cells
        })
        .collect();
    ui::table(&header, &cells, |column, cell| {
        (column > 1 && cell != "-").then(|| cell == "ok")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_has_a_column_for_each_place_and_says_why_not() {
        let dialled = |from: &str, to: &str, fault: Option<&str>| Dialled {
            from: from.into(),
            to: to.into(),
            purpose: "main",
            address: String::new(),
            fault: fault.map(str::to_owned),
        };
        let got = matrix(&[
            dialled("host", "rmqmaster1", None),
            dialled("host", "rmqslave1", Some("connection refused")),
            dialled("rmqnamesrv", "rmqmaster1", None),
        ]);
        let plain = anstream::adapter::strip_str(&got).to_string();
        let plain: String = plain
            .lines()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        assert_eq!(
            plain,
            " REACHES     PORT  host                rmqnamesrv\n \
             rmqmaster1  main  ok                  ok\n \
             rmqslave1   main  connection refused  -\n"
        );
    }
}
