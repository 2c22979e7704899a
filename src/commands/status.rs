//! `status`: what each node is and does, asked of the runtime and of the nodes themselves.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Cluster, Session};
use crate::error::{Error, Exit};
use crate::plan::{NodeState, Observed, ObservedNode, state_text};
use crate::probe::{self, View};
use crate::ready;
use crate::topology::{Desired, Node, Port, Role};
use crate::ui::{self, Format};

/// Show each node: state, address, replication, memory, uptime, ports. Exits with 7 when something is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl status                each node, and what is wrong with it
  rmqctl status -o json        for programs; the keys do not change
  rmqctl status -w broker-a    one group, again every second")]
pub struct Status {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Show it again every second, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// How long one node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// What `-o json` prints.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    cluster: String,
    /// `ready`, `degraded` or `stopped`.
    state: &'static str,
    runtime: &'static str,
    /// Version of the engine.
    engine: Option<String>,
    /// Version of the protocol that it says it speaks, as `V5_3_3`.
    protocol: Option<String>,
    namesrv: Vec<String>,
    console: Option<String>,
    /// In the order of the topology.
    pub nodes: Vec<Row>,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Without the cluster's prefix.
    pub name: String,
    /// Its container's.
    pub container: String,
    role: Role,
    broker: Option<String>,
    broker_id: Option<u64>,
    /// `healthy`, `starting`, or what the runtime says.
    pub state: String,
    address: Option<String>,
    slaves: Option<u32>,
    lag_bytes: Option<i64>,
    max_offset: Option<i64>,
    memory_bytes: Option<u64>,
    memory_limit_bytes: Option<u64>,
    started_at: Option<u64>,
    uptime_seconds: Option<u64>,
    restarts: u32,
    ports: Vec<Port>,
    /// `volume`, `host` or `tmpfs`; nothing for a node without a store, or with one that goes with its container.
    storage: Option<&'static str>,
    /// The volume, or the directory of the host.
    volume: Option<String>,
    image: Option<String>,
    id: Option<String>,
    /// Nodes that `chaos partition` cut it off from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cut_off_from: Vec<String>,
    /// Why it is not healthy.
    pub fault: Option<String>,
}

/// `status`
pub async fn status(args: Status, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    loop {
        let report = look(&cluster, &args.nodes).await?;
        if args.watch {
            session.ui.home();
        }
        show(&report, args.output, session);
        if !args.watch {
            return Ok(if report.state == "ready" {
                0
            } else {
                Exit::Degraded as u8
            });
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_PERIOD) => {}
            () = session.interrupt.requested() => return Ok(0),
        }
    }
}

/// Looks at the nodes that `names` mean, all when there are none.
pub async fn look(cluster: &Cluster, names: &[String]) -> Result<Report, Error> {
    let chosen = cluster.desired.select(names)?;
    let containers: Vec<String> = chosen.iter().map(|n| n.container.clone()).collect();
    let (observed, view, memory) = tokio::join!(
        cluster.observe(),
        probe::look(&cluster.desired, ANSWER_TIMEOUT),
        cluster.runtime.memory(&containers),
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Ok(report(
        &cluster.desired,
        &chosen,
        &observed?,
        &view,
        &memory?,
        cluster.runtime.kind(),
        now,
    ))
}

fn report(
    desired: &Desired,
    chosen: &[&Node],
    observed: &Observed,
    view: &View,
    memory: &BTreeMap<String, u64>,
    runtime: &'static str,
    now: u64,
) -> Report {
    let nodes: Vec<Row> = chosen
        .iter()
        .map(|node| row(desired, node, observed, view, memory, now))
        .collect();
    let state = if nodes.iter().all(|n| n.state == "healthy") {
        "ready"
    } else if nodes.iter().all(|n| n.started_at.is_none()) {
        "stopped"
    } else {
        "degraded"
    };
    Report {
        cluster: desired.cluster.clone(),
        state,
        runtime,
        engine: match desired.foreign_image() {
            Some(image) => Some(image.to_owned()),
            None => observed.nodes.iter().find_map(|n| n.version.clone()),
        },
        protocol: view.nodes.values().find_map(|n| n.version.clone()),
        namesrv: desired.namesrv_addrs(),
        console: desired.console_url(),
        nodes,
    }
}

fn row(
    desired: &Desired,
    node: &Node,
    observed: &Observed,
    view: &View,
    memory: &BTreeMap<String, u64>,
    now: u64,
) -> Row {
    let seen = observed
        .nodes
        .iter()
        .find(|n| n.container == node.container);
    let said = view.nodes.get(&node.name).cloned().unwrap_or_default();
    let runs = seen.is_some_and(|n| n.state == NodeState::Running);
    // A slave that is behind is at work; only one that cannot reach its master is at fault.
    let registered = ready::judge(node, view, view, &desired.advertise, false);
    let alone = node.role == Role::Slave && said.lag.is_none();
    let partition = view.partition_of(desired, &node.name);
    let (state, fault) = match (seen, registered) {
        (None, _) => (
            "missing".to_owned(),
            Some(format!(
                "it does not exist; `{}` makes it",
                desired.suggest("up")
            )),
        ),
        (Some(n), _) if n.state != NodeState::Running => {
            (state_text(&n.state), ended(n, node, desired))
        }
        (Some(_), _) if said.answers && partition.is_some() => ("cut off".to_owned(), partition),
        (Some(_), Err(why)) => ("starting".to_owned(), Some(why)),
        (Some(_), Ok(_)) if alone => (
            "no master".to_owned(),
            Some(
                said.fault
                    .clone()
                    .unwrap_or("it has not reached its master".to_owned()),
            ),
        ),
        (Some(_), Ok(_)) => ("healthy".to_owned(), None),
    };
    let started_at = seen.filter(|_| runs).and_then(|n| n.started_at);
    Row {
        name: node.name.clone(),
        container: node.container.clone(),
        role: node.role,
        broker: node.broker.as_ref().map(|b| b.name.clone()),
        broker_id: node.broker.as_ref().map(|b| b.id),
        state,
        address: if node.broker.is_some() {
            said.registered
        } else {
            published(desired, node)
        },
        slaves: (node.role == Role::Master && runs).then_some(said.slaves),
        lag_bytes: said.lag.filter(|_| node.role == Role::Slave),
        max_offset: said.max_offset,
        memory_bytes: memory.get(&node.container).copied(),
        memory_limit_bytes: node.memory,
        started_at,
        uptime_seconds: started_at.map(|at| now.saturating_sub(at)),
        restarts: seen.map_or(0, |n| n.restarts),
        ports: node.ports.clone(),
        storage: match (&node.volume, node.tmpfs) {
            (Some(_), _) if node.data_dir().is_some() => Some("host"),
            (Some(_), _) => Some("volume"),
            (None, Some(_)) => Some("tmpfs"),
            (None, None) => None,
        },
        volume: node.volume.clone(),
        image: seen.and_then(|n| n.image.clone()),
        id: seen.map(|n| n.id.clone()),
        cut_off_from: view
            .cut_off_from(&node.name)
            .into_iter()
            .map(str::to_owned)
            .collect(),
        fault,
    }
}

fn published(desired: &Desired, node: &Node) -> Option<String> {
    let port = node.ports.iter().find_map(|p| p.host)?;
    Some(format!("{}:{port}", desired.advertise))
}

fn ended(seen: &ObservedNode, node: &Node, desired: &Desired) -> Option<String> {
    let limit = node.memory.map_or(String::new(), |bytes| {
        format!(", limit {}", ui::bytes(bytes))
    });
    match (&seen.state, seen.oom_killed) {
        (_, true) => Some(format!(
            "killed for memory{limit}; `{}` gives it more",
            desired.suggest("up --memory SIZE")
        )),
        (NodeState::Restarting, _) => Some(format!(
            "ends again and again, {} times so far; `{}` says why",
            seen.restarts,
            desired.suggest(&format!("logs {}", node.name))
        )),
        (NodeState::Exited(_), _) => Some(format!(
            "it does not run; `{}` starts it",
            desired.suggest(&format!("start {}", node.name))
        )),
        _ => None,
    }
}

fn show(report: &Report, format: Format, session: &Session<'_>) {
    match format {
        Format::Json | Format::Yaml => session.ui.value(report, format),
        Format::Name => report
            .nodes
            .iter()
            .for_each(|row| session.ui.out(&format!("{}\n", row.name))),
        Format::Table | Format::Wide => session.ui.out(&text(report, format == Format::Wide)),
    }
}

fn text(report: &Report, wide: bool) -> String {
    let mut head = format!("CLUSTER {}   {}", report.cluster, report.state);
    if let Some(engine) = &report.engine {
        head += &format!("   engine {engine}");
        if let Some(protocol) = &report.protocol {
            head += &format!(" ({protocol})");
        }
    }
    head += &format!("   namesrv {}", report.namesrv.join(";"));
    if let Some(console) = &report.console {
        head += &format!("   console {console}");
    }
    let mut header = vec![
        "NODE", "ROLE", "BROKER", "STATE", "ADDRESS", "HA", "MEM", "UP", "PORTS",
    ];
    if wide {
        header.extend(["RESTARTS", "VOLUME", "IMAGE", "ID"]);
    }
    let rows: Vec<Vec<String>> = report.nodes.iter().map(|row| cells(row, wide)).collect();
    let table = ui::table(&header, &rows, |column, cell| {
        (header[column] == "STATE").then(|| cell == "healthy")
    });
    let faults: String = report
        .nodes
        .iter()
        .filter_map(|row| Some(format!("! {}: {}\n", row.name, row.fault.as_ref()?)))
        .collect();
    format!("{head}\n{table}{faults}")
}

fn cells(row: &Row, wide: bool) -> Vec<String> {
    let dash = || "-".to_owned();
    let ports: Vec<String> = row
        .ports
        .iter()
        .filter_map(|p| {
            p.host.map(|host| {
                if host == p.container {
                    host.to_string()
                } else {
                    format!("{host}→{}", p.container)
                }
            })
        })
        .collect();
    let ha = match (row.role, row.slaves, row.lag_bytes) {
        (Role::Master, Some(0), _) => "no slave".to_owned(),
        (Role::Master, Some(1), _) => "1 slave".to_owned(),
        (Role::Master, Some(count), _) => format!("{count} slaves"),
        (Role::Slave, _, Some(lag)) if lag <= 0 => "in sync".to_owned(),
        (Role::Slave, _, Some(lag)) => format!("behind {}", ui::bytes(lag.unsigned_abs())),
        _ => dash(),
    };
    let broker = match (&row.broker, row.broker_id) {
        (Some(name), Some(id)) => format!("{name}:{id}"),
        _ => dash(),
    };
    let mut cells = vec![
        row.name.clone(),
        row.role.word().to_owned(),
        broker,
        row.state.clone(),
        row.address.clone().unwrap_or_else(|| {
            if row.broker.is_some() {
                "MISSING".to_owned()
            } else {
                dash()
            }
        }),
        ha,
        row.memory_bytes.map_or_else(dash, ui::bytes),
        row.uptime_seconds.map_or_else(dash, ui::span),
        ports.join(" "),
    ];
    if wide {
        let short = |id: &String| id.chars().take(12).collect::<String>();
        cells.push(row.restarts.to_string());
        let in_memory = || row.storage.map_or_else(dash, str::to_owned);
        cells.push(row.volume.clone().unwrap_or_else(in_memory));
        cells.push(row.image.clone().unwrap_or_else(dash));
        cells.push(row.id.as_ref().map_or_else(dash, short));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::NodeView;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::{Site, desired};

    #[test]
    fn the_table_shows_what_runs_what_lags_and_what_is_gone() {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, "/x".into());
        spec.masters = 2;
        spec.slaves = 2;
        let all = desired(&spec, &Site::Network).unwrap();
        let node = |n: &Node, state: NodeState| ObservedNode {
            id: "0123456789abcdef".into(),
            name: n.name.clone(),
            container: n.container.clone(),
            config_hash: n.config_hash.clone(),
            broker: None,
            state,
            image: None,
            version: Some("0.1.0".into()),
            started_at: Some(1000),
            restarts: 3,
            ports: Vec::new(),
            cut_off: false,
            oom_killed: false,
        };
        let mut observed = Observed::default();
        let mut view = View::default();
        for n in all.nodes.iter().filter(|n| n.name != "rmqslave2") {
            let dead = n.name == "rmqmaster2";
            observed.nodes.push(node(
                n,
                if dead {
                    NodeState::Restarting
                } else {
                    NodeState::Running
                },
            ));
            let main = n.port("main").and_then(|p| p.host);
            view.nodes.insert(
                n.name.clone(),
                NodeView {
                    answers: !dead,
                    registered: main
                        .filter(|_| !dead)
                        .map(|port| format!("127.0.0.1:{port}")),
                    lag: (n.role == Role::Slave).then_some(19_083_264),
                    slaves: 1,
                    version: Some("V5_3_3".into()),
                    ..NodeView::default()
                },
            );
        }
        let memory = BTreeMap::from([("rmqmaster1".to_owned(), 21 << 20)]);
        let chosen: Vec<&Node> = all.nodes.iter().collect();
        let got = text(
            &report(&all, &chosen, &observed, &view, &memory, "docker", 1125),
            false,
        );
        assert_eq!(
            anstream::adapter::strip_str(&got).to_string(),
            "CLUSTER rmq   degraded   engine 0.1.0 (V5_3_3)   namesrv 127.0.0.1:9876   console http://127.0.0.1:8181\n \
             NODE        ROLE     BROKER      STATE       ADDRESS          HA               MEM       UP  PORTS\n \
             rmqnamesrv  namesrv  -           healthy     127.0.0.1:9876   -                -         2m  9876\n \
             rmqmaster1  master   broker-a:0  healthy     127.0.0.1:10911  1 slave          21.0 MiB  2m  10911 10909\n \
             rmqmaster2  master   broker-b:0  restarting  MISSING          -                -         -   13911 13909\n \
             rmqslave1   slave    broker-a:1  healthy     127.0.0.1:11911  behind 18.2 MiB  -         2m  11911 11909\n \
             rmqslave2   slave    broker-b:1  missing     MISSING          -                -         -   12911 12909\n \
             rmqconsole  console  -           healthy     127.0.0.1:8181   -                -         2m  8181→8080\n\
             ! rmqmaster2: ends again and again, 3 times so far; `rmqctl logs rmqmaster2` says why\n\
             ! rmqslave2: it does not exist; `rmqctl up` makes it\n"
        );
    }
}
