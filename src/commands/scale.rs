//! `scale`: more or fewer brokers. What goes is emptied first.

use std::time::{Duration, Instant};

use super::raise::{self, Raise};
use super::up::{Resolved, WaitFor};
use super::{Cluster, Session};
use crate::drain;
use crate::error::{Error, Exit};
use crate::plan::{self, Kind, Observed, ScaleOptions};
use crate::spec::{ClusterSpec, parse_duration};
use crate::topology::{self, Desired, Role};
use crate::ui::Structured;

/// Add brokers, or take some away without losing a message
///
/// More brokers come as with `up`; no other moves. Fewer: the highest numbers go, since names and ports follow from a broker's
/// number. A master is emptied before it goes: name servers send no producer there any more, every group reads what it has to,
/// its slaves copy all, delayed messages come due; then it stops. If that cannot be, the numbers are shown, it takes sends as
/// before, and nothing has changed.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  rmqctl scale --masters 3 --slaves 3
  rmqctl scale --masters 1 --slaves 1 --timeout 10m      # gives consumers ten minutes to read on
  rmqctl scale --slaves 0                                # copies only: nothing to empty
  rmqctl scale rm rmqmaster3                             # the highest master
  rmqctl scale --masters 1 --dry-run

Exit codes: 5 refused, messages that no group reads would be lost; 7 not empty in time; in both cases nothing has changed."
)]
pub struct Scale {
    #[command(subcommand)]
    remove: Option<What>,
    /// Master brokers there shall be
    #[arg(long, value_name = "N")]
    masters: Option<u32>,
    /// Slave brokers there shall be in all, dealt round-robin to the masters
    #[arg(long, value_name = "N")]
    slaves: Option<u32>,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Rm(Rm),
}

/// Take one broker away: the highest-numbered master or slave
#[derive(Debug, clap::Args)]
struct Rm {
    /// rmqmaster3, slave2 or broker-b:1
    node: String,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, clap::Args)]
struct How {
    /// Time to empty masters, and to become ready (5m)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5m", hide_default_value = true)]
    timeout: Duration,
    /// How long nobody may have sent to a master before it goes, where producers are connected or were lately. Clients ask for
    /// routes every 30 s; what they send until then is stored and must be read as well (35s)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "35s", hide_default_value = true)]
    settle: Duration,
    /// Do not empty masters: what nobody has read stays in their volumes, out of reach until they are back
    #[arg(long)]
    force: bool,
    /// Remove the volumes of what goes as well
    #[arg(long)]
    volumes: bool,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// What stands and what was done, for programs, as of `up`
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Structured>,
}

impl Scale {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        let how = match &self.remove {
            Some(What::Rm(rm)) => &rm.how,
            None => &self.how,
        };
        how.output == Some(Structured::Json)
    }
}

/// `scale`
pub async fn scale(args: Scale, session: &Session<'_>) -> Result<u8, Error> {
    let began = Instant::now();
    let cluster = session.cluster().await?;
    let (masters, slaves, how) = match &args.remove {
        Some(What::Rm(rm)) => {
            let (masters, slaves) = without(&cluster, &rm.node)?;
            (masters, slaves, &rm.how)
        }
        None if args.masters.is_none() && args.slaves.is_none() => {
            let counts = (cluster.spec.masters, cluster.spec.slaves);
            return Err(Error::new("RMQ-E064", Exit::Usage, "scale to what?")
                .detail(format!(
                    "there are {} masters and {} slaves",
                    counts.0, counts.1
                ))
                .hint(session.again("scale --masters 3 --slaves 3"))
                .hint(session.again("scale rm NODE")));
        }
        None => (
            args.masters.unwrap_or(cluster.spec.masters),
            args.slaves.unwrap_or(cluster.spec.slaves),
            &args.how,
        ),
    };
    let Cluster {
        runtime,
        spec: before,
        desired: previous,
    } = cluster;
    let spec = with_counts(&before, masters, slaves)?;
    let site = runtime.site(&spec.name);
    let desired = topology::desired(&spec, &site)?;
    let mut resolved = Resolved {
        runtime,
        spec,
        desired,
        previous: Some(previous),
        keeps_files: before.ephemeral.is_none(),
    };
    let options = ScaleOptions {
        drain: !how.force,
        settle: how.settle,
        volumes: how.volumes,
    };
    let planner = |desired: &Desired, previous: Option<&Desired>, observed: &Observed| {
        let all = large_enough(&before, observed, desired)?;
        plan::scale(desired, previous, &all, observed, options)
    };
    if how.dry_run {
        raise::dry_run(&mut resolved, planner, how.output, session).await?;
        return Ok(0);
    }
    let _lock = session
        .lock(resolved.runtime.as_ref(), &resolved.spec.name)
        .await?;
    let (plan, edits) = raise::look(&mut resolved, planner, false).await?;
    let gone = plan.named(Kind::Remove);
    if how.force && !gone.is_empty() {
        warn_of_loss(&before, &resolved, session).await?;
    }
    let raise = Raise {
        timeout: how.timeout,
        wait_for: Some(WaitFor::Synced),
        keep_on_failure: true,
    };
    let raised = raise.carry_out(&plan, &edits, &resolved, session).await?;
    if let Some(form) = how.output {
        raised.report(&resolved, true, began.elapsed(), form, session);
    }
    let (masters, slaves) = (resolved.spec.masters, resolved.spec.slaves);
    let many =
        |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    session.ui.note(&format!(
        "Cluster {}: {}, {}; done in {:.1}s.",
        resolved.spec.name,
        many(masters, "master"),
        many(slaves, "slave"),
        began.elapsed().as_secs_f64()
    ));
    if !gone.is_empty() && !how.volumes {
        let many = if gone.len() == 1 {
            "its volume keeps"
        } else {
            "their volumes keep"
        };
        session.ui.note(&format!(
            "{} gone; {many} what was stored, and a later scale finds it again.",
            gone.join(", ")
        ));
    }
    Ok(0)
}

/// The counts without the node named, which must be the highest of its role.
fn without(cluster: &Cluster, typed: &str) -> Result<(u32, u32), Error> {
    let desired = &cluster.desired;
    let chosen = desired.select(&[typed.to_owned()])?;
    let no = |title: String| Error::new("RMQ-E062", Exit::Usage, title);
    let [node] = chosen.as_slice() else {
        let names: Vec<&str> = chosen.iter().map(|n| n.name.as_str()).collect();
        return Err(no(format!("{typed} is {}", names.join(", ")))
            .hint(desired.suggest("scale rm NODE   takes one"))
            .hint(desired.suggest("scale --masters N --slaves N   takes several")));
    };
    let (masters, slaves) = (cluster.spec.masters, cluster.spec.slaves);
    let hint = match node.role {
        Role::Console => Some("up --no-console --remove-orphans"),
        Role::Namesrv => Some("up --namesrvs N --remove-orphans"),
        Role::Master if masters == 1 => Some("down   takes the cluster away"),
        Role::Master | Role::Slave => None,
    };
    if let Some(hint) = hint {
        let title = format!("{} cannot go by scale", node.name);
        return Err(no(title).hint(desired.suggest(hint)));
    }
    let last = desired.nodes.iter().rfind(|n| n.role == node.role);
    let last = last.map_or("", |n| n.name.as_str());
    if last != node.name {
        return Err(no(format!(
            "{} cannot go before {last}",
            node.name
        ))
        .detail("a broker's name and ports follow from its number, and a slave's master too: only the highest can go without moving others")
        .hint(desired.suggest(&format!("scale rm {last}"))));
    }
    Ok(match node.role {
        Role::Master => (masters - 1, slaves),
        _ => (masters, slaves - 1),
    })
}

/// The spec with other counts; what it says of nodes that go is dropped, or it would speak of nobody.
fn with_counts(before: &ClusterSpec, masters: u32, slaves: u32) -> Result<ClusterSpec, Error> {
    let mut spec = before.clone();
    (spec.masters, spec.slaves) = (masters, slaves);
    spec.validate()?;
    topology::forget_missing(&mut spec);
    Ok(spec)
}

/// A cluster that has every broker which stands, whether the kept spec still names it or an interrupted run has left it behind.
fn large_enough(
    before: &ClusterSpec,
    observed: &Observed,
    desired: &Desired,
) -> Result<Desired, Error> {
    let highest = |role: Role| {
        let numbers = observed
            .nodes
            .iter()
            .filter_map(|n| role.number_of(&n.name));
        numbers.max().unwrap_or(0)
    };
    let mut all = before.clone();
    all.masters = all.masters.max(highest(Role::Master));
    all.slaves = all.slaves.max(highest(Role::Slave));
    topology::desired(&all, &desired.site)
}

/// What `--force` gives up, in numbers.
async fn warn_of_loss(
    before: &ClusterSpec,
    resolved: &Resolved,
    session: &Session<'_>,
) -> Result<(), Error> {
    let observed = resolved.runtime.observe(&resolved.desired).await?;
    let all = large_enough(before, &observed, &resolved.desired)?;
    let groups = plan::departing(&resolved.desired, &all, &observed);
    for line in drain::stock(&groups, &resolved.desired).await {
        session.ui.warn(&format!("goes unread: {line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{NodeSpec, Profile};
    use crate::topology::Site;

    #[test]
    fn a_spec_of_fewer_brokers_says_nothing_of_those_that_went() {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/conf".into());
        (spec.masters, spec.slaves) = (3, 3);
        for name in ["rmqmaster3", "rmqslave1", "rmqconsole"] {
            spec.nodes.insert(name.into(), NodeSpec::default());
        }
        spec.brokers.insert("broker-c".into(), Default::default());
        let fewer = with_counts(&spec, 2, 1).unwrap();
        let names: Vec<&String> = fewer.nodes.keys().collect();
        assert_eq!(names, ["rmqconsole", "rmqslave1"]);
        assert!(fewer.brokers.is_empty());
        assert!(topology::desired(&fewer, &Site::Network).is_ok());
        assert_eq!(with_counts(&spec, 0, 0).unwrap_err().id, "RMQ-E104");
    }
}
