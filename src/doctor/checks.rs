//! Facts -> verdicts. Pure: it asks nobody and reads no clock.

use std::collections::{BTreeMap, BTreeSet};

use super::Check;
use super::Verdict::{Fault, Warning};
use super::facts::{BrokerFacts, Facts};
use crate::client::join;
use crate::plan::{NodeState, ObservedNode, state_text};
use crate::properties;
use crate::ready;
use crate::runtime::describe::{Health, exit_words};
use crate::topology::{Desired, Node, Role, Site, volume_words};

/// Seconds that two clocks may differ: delayed messages and their times come this much off.
const SKEW_MAX: u64 = 2;
/// A store's disk this full, in percent of what brokers accept at most, is worth a word.
const DISK_NEAR: f64 = 0.9;
/// Bytes below which the disk of a store's directory has no room for the next segment file and its queues.
const DATA_DIR_FREE: u64 = 128 << 20;
/// A node that uses this much of its memory limit, in percent, is near its end.
const MEMORY_NEAR: u64 = 90;
/// RocketMQ's default of `diskMaxUsedSpaceRatio`.
const DISK_RATIO: f64 = 75.0;

/// All checks, in the order in which one would look: what it stands on, what runs, who finds whom, what goes through.
pub fn judge(desired: &Desired, facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        place(facts),
        disk(desired, facts),
        image(desired, facts),
        nodes(desired, facts),
        ports(desired, facts),
        memory(desired, facts),
    ];
    if desired.site == Site::Network {
        checks.push(network(desired, facts));
    }
    checks.extend([
        partitions(desired, facts),
        answers(desired, facts),
        registration(desired, facts),
        reachable(desired, facts),
        vip(desired, facts),
        replication(desired, facts),
    ]);
    checks.extend(console(desired, facts));
    checks.extend([
        versions(facts),
        settings(desired, facts),
        clients(facts),
        leftovers(desired, facts),
    ]);
    checks.extend(clock(facts));
    checks
}

fn seen<'a>(facts: &'a Facts, node: &Node) -> Option<&'a ObservedNode> {
    let mut nodes = facts.observed.nodes.iter();
    nodes.find(|n| n.container == node.container)
}

fn runs(facts: &Facts, node: &Node) -> bool {
    seen(facts, node).is_some_and(|n| n.state == NodeState::Running)
}

fn brokers(desired: &Desired) -> impl Iterator<Item = &Node> {
    desired.nodes.iter().filter(|n| n.broker.is_some())
}

fn place(facts: &Facts) -> Check {
    Check::good("runtime", facts.about.version.clone())
}

/// The brokers' own word counts: they refuse sends by it. What the runtime sees of its disk is told beside.
fn disk(desired: &Desired, facts: &Facts) -> Check {
    let (mut full, mut near) = (Vec::new(), Vec::new());
    let mut most: f64 = 0.0;
    for (node, broker) in &facts.brokers {
        let number = |text: Option<&String>| text.and_then(|t| t.trim().parse::<f64>().ok());
        let Some(ratio) = number(broker.info.get("commitLogDiskRatio")) else {
            continue;
        };
        let limit = broker
            .config
            .as_ref()
            .and_then(|c| c.get("diskMaxUsedSpaceRatio"));
        let (used, limit) = (ratio * 100.0, number(limit).unwrap_or(DISK_RATIO));
        most = most.max(used);
        let text =
            format!("{node}: DISK {used:.0} %, messages are deleted early above {limit:.0} %");
        if used >= limit {
            full.push(text);
        } else if used >= limit * DISK_NEAR {
            near.push(text);
        }
    }
    // A broker may stand, and its directory be gone or its disk full behind its back.
    for (node, disk) in &facts.data_dirs {
        match disk {
            None => full.push(format!("{node}: the directory of its store is gone")),
            Some(disk) if disk.free < DATA_DIR_FREE => full.push(format!(
                "{node}: {} MiB are free on the disk of {}",
                disk.free >> 20,
                disk.path
            )),
            Some(_) => {}
        }
    }
    for fault in &facts.observed.store_faults {
        near.push(format!(
            "{}: {} {}: it could not be started again",
            fault.node,
            fault.dir.display(),
            fault.why
        ));
    }
    // Where stores are the user's directories, their disk is what matters.
    let own = facts.data_dirs.values().flatten().next();
    let daemon = own.or(facts.about.disk.as_ref());
    let daemon_text = daemon.map_or(String::new(), |disk| {
        format!("{} {} % used", disk.path, disk.used_percent())
    });
    let found = match (facts.brokers.is_empty(), daemon_text.is_empty()) {
        (true, true) => "no broker answers, and the disk is not seen from here".to_owned(),
        (true, false) => daemon_text,
        (false, _) => format!("stores {most:.0} % used"),
    };
    let (verdict, details) = if full.is_empty() {
        (Warning, near)
    } else {
        (Fault, full)
    };
    Check::of(
        "disk",
        verdict,
        details,
        &found,
        format!("DISK {most:.0} %"),
    )
    .remedy("free space on it: `docker system prune`, or remove what else lies there")
    .remedy(desired.suggest("up --set diskMaxUsedSpaceRatio=95   lets brokers use more of it"))
}

fn image(desired: &Desired, facts: &Facts) -> Check {
    let wanted = facts.observed.image.as_deref();
    let others: Vec<String> = facts
        .observed
        .nodes
        .iter()
        .filter(|n| wanted.is_some() && n.image.as_deref() != wanted)
        .map(|n| {
            let image = n.image.as_deref().unwrap_or("an unknown engine");
            format!(
                "{}: {image}, the cluster's is {}",
                n.name,
                wanted.unwrap_or_default()
            )
        })
        .collect();
    let (found, details) = match wanted {
        Some(image) => (image.to_owned(), others),
        None => (
            String::new(),
            vec![
                "this rmqctl's engine was never loaded here: other nodes' is another build".into(),
            ],
        ),
    };
    Check::of(
        "engine",
        Warning,
        details,
        found,
        "nodes run another engine than this rmqctl's",
    )
    .remedy(desired.suggest("up   rolls this rmqctl's engine out, node by node"))
}

fn nodes(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    for node in &desired.nodes {
        let described = facts.descriptions.get(&node.name);
        let end = described.and_then(|d| Some(exit_words(d.exit_code?, d.oom_killed)));
        let end = end.map_or(String::new(), |end| format!(": {end}"));
        match seen(facts, node) {
            None => details.push(format!("{} does not exist", node.name)),
            Some(n) if n.state == NodeState::Restarting => {
                let count = n.restarts;
                details.push(format!(
                    "{} ends again and again, {count} times so far{end}",
                    node.name
                ));
            }
            Some(n) if n.state == NodeState::Paused => {
                details.push(format!("{} is paused", node.name));
            }
            Some(n) if n.state != NodeState::Running => {
                details.push(format!(
                    "{} does not run, {}{end}",
                    node.name,
                    state_text(&n.state)
                ));
            }
            Some(_) => {
                let health = described.and_then(|d| d.health.as_ref());
                // Docker says unhealthy of what was paused, too, until its next check: then no check has failed.
                let failing =
                    |health: &&Health| health.status == "unhealthy" && health.failing_streak > 0;
                if let Some(health) = health.filter(failing) {
                    let last = health.failures.last().map_or("", String::as_str);
                    details.push(format!("{} is unhealthy: {last}", node.name));
                }
            }
        }
    }
    let first = desired.nodes.iter().find(|n| {
        details
            .iter()
            .any(|d| d.starts_with(&format!("{} ", n.name)))
    });
    let count = desired.nodes.len();
    let bad = format!("{} of {count} do not run as they shall", details.len());
    let check = Check::of(
        "nodes",
        Fault,
        details,
        format!("{count} of {count} run"),
        bad,
    )
    .remedy(desired.suggest("doctor --fix   starts what stands and makes what is missing"));
    let why = first.map(|node| desired.suggest(&format!("why {}", node.name)));
    match why {
        Some(why) => check.remedy(why).fixable(),
        None => check,
    }
}

fn ports(desired: &Desired, facts: &Facts) -> Check {
    let details = facts
        .observed
        .conflicts
        .iter()
        .map(|c| format!("{} needs {}, held by {}", c.node, c.what, c.holder));
    let details: Vec<String> = details.collect();
    Check::of(
        "ports",
        Fault,
        details,
        "no port or name that a node needs is somebody else's",
        "somebody else holds what nodes need",
    )
    .remedy("stop what holds them")
    .remedy(desired.suggest("up --port-offset N   moves the cluster"))
}

fn memory(desired: &Desired, facts: &Facts) -> Check {
    let (mut details, mut limited) = (Vec::new(), 0);
    for node in &desired.nodes {
        let described = facts.descriptions.get(&node.name);
        let limit = described.and_then(|d| d.memory_limit);
        if seen(facts, node).is_some_and(|n| n.oom_killed) {
            let limit = limit.map_or(String::new(), |l| format!(" of {} MiB", l >> 20));
            details.push(format!("{} was killed for memory, limit{limit}", node.name));
            continue;
        }
        let Some(limit) = limit else { continue };
        limited += 1;
        let used = facts.memory.get(&node.container).copied().unwrap_or(0);
        if used.saturating_mul(100) / limit.max(1) >= MEMORY_NEAR {
            details.push(format!(
                "{} uses {} of {} MiB",
                node.name,
                used >> 20,
                limit >> 20
            ));
        }
    }
    let good = match limited {
        0 => "no limits are set".to_owned(),
        count => format!("{count} nodes stay within their limits"),
    };
    Check::of(
        "memory",
        Fault,
        details,
        good,
        "nodes reach their memory limits",
    )
    .remedy(desired.suggest("up --memory SIZE"))
}

/// The network, and the two properties by which name servers tell who asks from inside it.
fn network(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    if facts.observed.network.is_none() {
        details.push(format!("the network {} does not exist", desired.network));
    }
    for node in &desired.nodes {
        let Some(described) = facts
            .descriptions
            .get(&node.name)
            .filter(|_| runs(facts, node))
        else {
            continue;
        };
        let Some(end) = described
            .networks
            .iter()
            .find(|n| n.name == desired.network)
        else {
            details.push(format!("{} is not on {}", node.name, desired.network));
            continue;
        };
        if node.role != Role::Namesrv {
            continue;
        }
        let told = facts
            .files
            .get(&node.name)
            .and_then(|text| properties::read(text).ok());
        let told = told.unwrap_or_default();
        let pairs = [
            ("internalSubnet", facts.observed.subnet.as_ref()),
            ("internalGateway", end.gateway.as_ref()),
        ];
        for (key, is) in pairs {
            let says = told.get(key);
            if is.is_some() && says != is {
                details.push(format!(
                    "{}: {key} is {}, but the network's is {}",
                    node.name,
                    says.map_or("missing", String::as_str),
                    is.map_or("", String::as_str)
                ));
            }
        }
    }
    let subnet = facts.observed.subnet.as_deref().unwrap_or_default();
    Check::of(
        "network",
        Fault,
        details,
        format!("{} {subnet}", desired.network),
        "the network is not as its nodes believe",
    )
    .remedy(desired.suggest("chaos heal   takes nodes back onto the network"))
    .remedy(desired.suggest("down, then up   makes it anew; messages stay"))
}

/// Made by `chaos partition`, and forgotten perhaps. What follows from it, other checks say.
fn partitions(desired: &Desired, facts: &Facts) -> Check {
    let mut pairs: BTreeSet<(&str, &str)> = BTreeSet::new();
    for node in &desired.nodes {
        for peer in facts.view.cut_off_from(&node.name) {
            pairs.insert((peer.min(&node.name), peer.max(&node.name)));
        }
    }
    let details = pairs
        .iter()
        .map(|(a, b)| format!("{a} and {b} do not reach each other"));
    let remedies: Vec<String> = pairs
        .iter()
        .map(|(a, b)| desired.suggest(&format!("chaos heal {a} {b}")))
        .collect();
    let check = Check::of(
        "partitions",
        Fault,
        details.collect(),
        "no nodes are cut off from each other on purpose",
        "nodes are cut off from each other by `chaos partition`",
    );
    remedies.into_iter().fold(check, Check::remedy)
}

fn answers(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    for node in desired.nodes.iter().filter(|n| runs(facts, n)) {
        let view = facts.view.nodes.get(&node.name);
        if let Some(view) = view.filter(|view| !view.answers) {
            let why = view.fault.as_deref().unwrap_or("no answer");
            details.push(format!("{}: {why}", node.name));
        }
    }
    let count = desired.nodes.iter().filter(|n| runs(facts, n)).count();
    Check::of(
        "answers",
        Fault,
        details,
        format!("{count} running nodes answer"),
        "nodes run and do not answer this host",
    )
    .remedy(desired.suggest("logs NODE --tail 50"))
}

/// Brokers are where name servers say, and name servers say nothing else.
fn registration(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    let mut expected: BTreeMap<(String, String), String> = BTreeMap::new();
    for node in brokers(desired) {
        let (Some(broker), Some(port)) = (&node.broker, node.port("main").and_then(|p| p.host))
        else {
            continue;
        };
        let address = join(&desired.advertise, port);
        expected.insert((broker.name.clone(), broker.id.to_string()), address);
        if !runs(facts, node) {
            continue;
        }
        if let Err(why) = ready::judge(node, &facts.view, &facts.view, &desired.advertise, false)
            && facts
                .view
                .nodes
                .get(&node.name)
                .is_some_and(|view| view.answers)
        {
            details.push(format!("{} ({}): {why}", node.name, node.broker_text()));
        }
    }
    for (namesrv, brokers) in &facts.routes {
        let told = brokers
            .iter()
            .flat_map(|(name, ids)| ids.iter().map(move |(id, address)| (name, id, address)));
        for (name, id, address) in told {
            if !expected.contains_key(&(name.clone(), id.clone())) {
                details.push(format!(
                    "{namesrv} knows {name}:{id} at {address}, which is no node of this cluster"
                ));
            }
        }
    }
    let count = expected.len();
    Check::of(
        "registration",
        Fault,
        details,
        format!("{count} brokers are registered as this host reaches them"),
        "what name servers hand out is not what it shall be",
    )
    .remedy(desired.suggest("up --advertise HOST   says what clients are to be told"))
    .remedy(desired.suggest("restart   registers all anew"))
}

fn unreached<'a>(
    facts: &'a Facts,
    purposes: &'a [&str],
    desired: &'a Desired,
) -> impl Iterator<Item = String> + 'a {
    // A node that does not run is told once, and not from every place.
    let down: BTreeSet<&str> = desired
        .nodes
        .iter()
        .filter(|n| !runs(facts, n))
        .map(|n| n.name.as_str())
        .collect();
    facts
        .reach
        .iter()
        .filter(move |r| purposes.contains(&r.purpose) && !down.contains(r.to.as_str()))
        .filter_map(|r| {
            let why = r.dial.fault.as_ref()?;
            Some(format!(
                "{} -> {} at {}: {why}",
                r.from, r.to, r.dial.address
            ))
        })
}

fn reachable(desired: &Desired, facts: &Facts) -> Check {
    let details = unreached(facts, &["main", "namesrv"], desired).collect();
    let places: BTreeSet<&str> = facts.reach.iter().map(|r| r.from.as_str()).collect();
    let good = match places.len() {
        0 | 1 => "every address is reached from this host".to_owned(),
        count => format!("every address is reached from {count} places"),
    };
    Check::of(
        "reachability",
        Fault,
        details,
        good,
        "addresses that clients are told are not reached",
    )
    .remedy(
        desired.suggest("up --advertise HOST   for clients elsewhere; 127.0.0.1 serves this host"),
    )
    .remedy("a firewall or a full accept queue may be in the way")
}

fn vip(desired: &Desired, facts: &Facts) -> Check {
    let details = unreached(facts, &["vip"], desired).collect();
    Check::of(
        "vip",
        Warning,
        details,
        "the ports two below are served too",
        "clients with the VIP channel on (4.x before 4.5.1) fail",
    )
    .remedy("vipChannelEnabled=false in the client")
}

fn replication(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    let mut slaves = 0;
    for slave in brokers(desired).filter(|n| n.role == Role::Slave && runs(facts, n)) {
        slaves += 1;
        let group = slave.broker.as_ref().map(|b| b.name.as_str());
        let master = brokers(desired).find(|n| {
            n.role == Role::Master && n.broker.as_ref().map(|b| b.name.as_str()) == group
        });
        let lag = facts.view.nodes.get(&slave.name).and_then(|view| view.lag);
        let follows = facts
            .brokers
            .get(&slave.name)
            .and_then(|b| b.follows.as_deref());
        let expected = master.and_then(|m| m.port("ha")).map(|p| p.container);
        let port = follows.and_then(|address| address.rsplit(':').next()?.parse::<u16>().ok());
        // Ports are unique in a cluster, so the port says which master it is.
        if let (Some(address), Some(expected)) = (follows, expected)
            && port != Some(expected)
        {
            details.push(format!(
                "{} follows {address}, but its master's HA port is {expected}",
                slave.name
            ));
        }
        match lag {
            None => details.push(format!("{} does not follow its master", slave.name)),
            Some(lag) if lag > 0 => {
                details.push(format!("{} is {lag} bytes behind its master", slave.name));
            }
            Some(_) => {}
        }
    }
    // A slave that is behind catches up by itself; one that does not follow does not.
    let behind = details.iter().all(|text| text.contains("bytes behind"));
    let verdict = if behind { Warning } else { Fault };
    let good = match slaves {
        0 => "there are no slaves: a master's loss is its messages' loss".to_owned(),
        count => format!("{count} slaves have what their masters have"),
    };
    Check::of(
        "replication",
        verdict,
        details,
        good,
        "slaves are not in sync",
    )
    .remedy(desired.suggest("wait   waits until they are"))
    .remedy(desired.suggest("logs broker-a --tail 50"))
}

fn console(desired: &Desired, facts: &Facts) -> Option<Check> {
    let said = facts.console.as_ref()?;
    let mut details = Vec::new();
    match said {
        Err(why) => details.push(format!("rmqconsole: {why}")),
        Ok(shown) => {
            for node in brokers(desired).filter(|n| runs(facts, n)) {
                match shown.get(&node.broker_text()) {
                    None => details.push(format!("it does not show {}", node.broker_text())),
                    Some(Some(why)) => details.push(format!("{}: {why}", node.broker_text())),
                    Some(None) => {}
                }
            }
        }
    }
    let url = desired.console_url().unwrap_or_default();
    let check = Check::of(
        "console",
        Fault,
        details,
        format!("{url} reaches every broker"),
        "the console does not reach every broker",
    );
    Some(check.remedy(desired.suggest("restart rmqconsole")))
}

fn versions(facts: &Facts) -> Check {
    let mut by_version: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, view) in &facts.view.nodes {
        if let Some(version) = &view.version {
            by_version.entry(version).or_default().push(node);
        }
    }
    let found: Vec<String> = by_version.keys().map(|v| (*v).to_owned()).collect();
    let details = match by_version.len() {
        0 | 1 => Vec::new(),
        _ => by_version
            .iter()
            .map(|(version, nodes)| format!("{version}: {}", nodes.join(", ")))
            .collect(),
    };
    Check::of(
        "versions",
        Warning,
        details,
        found.join(", "),
        "brokers differ in version",
    )
}

/// Settings that a node does not run with: of the spec, of its file here, of the file in it.
fn settings(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    for node in &desired.nodes {
        if seen(facts, node).is_some_and(|n| n.config_hash != node.config_hash) {
            details.push(format!(
                "{} was made with other settings than the cluster's",
                node.name
            ));
        }
        let Some(inside) = facts.files.get(&node.name) else {
            continue;
        };
        if let Some(here) = facts.edited.get(&node.name) {
            // The runtime may have added lines of its own.
            let added = |text: &&String| text.starts_with("internal");
            let changes = properties::differences(inside, here);
            let changes: Vec<String> = changes.iter().filter(|c| !added(c)).cloned().collect();
            if !changes.is_empty() {
                let file = node.file.as_ref().map_or("", |(file, _)| file);
                details.push(format!(
                    "{}: {file} was edited: {}",
                    node.name,
                    changes.join(", ")
                ));
            }
        }
        let running = facts
            .brokers
            .get(&node.name)
            .and_then(|b| b.config.as_ref());
        if let (Some(running), Ok(file)) = (running, properties::read(inside)) {
            details.extend(drift(&node.name, &file, running));
        }
    }
    Check::of(
        "settings",
        Warning,
        details,
        "nodes run with the settings of their files",
        "nodes run with other settings than their files say",
    )
    .remedy(desired.suggest("restart NODE   applies an edited file"))
    .remedy(desired.suggest("up   makes nodes as the cluster's settings say"))
}

fn drift(
    node: &str,
    file: &BTreeMap<String, String>,
    running: &BTreeMap<String, String>,
) -> Vec<String> {
    file.iter()
        .filter_map(|(key, value)| {
            let is = running.get(key)?;
            (is.trim() != value.trim())
                .then(|| format!("{node} runs with {key}={is}, its file says {value}"))
        })
        .collect()
}

/// Two connections of one client id in one group at one broker: two programs that share it, and split each other's messages.
fn clients(facts: &Facts) -> Check {
    let mut details = BTreeSet::new();
    let mut online = 0;
    for BrokerFacts { consumers, .. } in facts.brokers.values() {
        for (group, clients) in consumers {
            let mut by_id: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (id, address) in clients {
                by_id.entry(id).or_default().push(address);
            }
            online += by_id.len();
            for (id, addresses) in by_id.iter().filter(|(_, a)| a.len() > 1) {
                details.insert(format!(
                    "group {group}: {id} is connected {} times, from {}",
                    addresses.len(),
                    addresses.join(" and ")
                ));
            }
        }
    }
    let good = match online {
        0 => "no consumers are online".to_owned(),
        _ => "every consumer has a client id of its own".to_owned(),
    };
    let details = details.into_iter().collect();
    Check::of(
        "clients",
        Warning,
        details,
        good,
        "consumers share a client id, and some get no messages",
    )
    .remedy("give each its own instanceName, or do not run containers in the host's network")
}

fn leftovers(desired: &Desired, facts: &Facts) -> Check {
    let mut details = Vec::new();
    for node in &facts.observed.nodes {
        if !desired.nodes.iter().any(|n| n.container == node.container) {
            details.push(format!("{} is not in the cluster's spec", node.name));
        }
    }
    for volume in &facts.observed.volumes {
        if !desired
            .nodes
            .iter()
            .any(|n| n.volume.as_ref() == Some(volume))
        {
            details.push(format!(
                "{} holds messages of a node that is no more",
                volume_words(volume)
            ));
        }
    }
    let own = details.len();
    details.extend(facts.networks.iter().map(|network| {
        let cluster = network.cluster.as_deref().unwrap_or("?");
        format!(
            "network {} of cluster {cluster} has no node and no messages",
            network.name
        )
    }));
    let mut check = Check::of(
        "leftovers",
        Warning,
        details,
        "none",
        "things stand that no spec names",
    );
    if own > 0 {
        check = check.remedy(
            desired.suggest("up --remove-orphans   removes such nodes; their volumes stay"),
        );
    }
    if facts.networks.is_empty() {
        return check;
    }
    check
        .fixable()
        .remedy(desired.suggest("doctor --fix   removes such networks"))
}

/// Nodes have their runtime's clock: on this host it is this host's; a virtual machine's may run off.
fn clock(facts: &Facts) -> Option<Check> {
    let skew = facts.about.clock?.abs_diff(facts.now);
    let details = match skew > SKEW_MAX {
        true => vec![format!(
            "the nodes' clock and this host's are {skew} s apart"
        )],
        false => Vec::new(),
    };
    let check = Check::of(
        "clock",
        Warning,
        details,
        "nodes have this host's time",
        "clocks differ",
    );
    Some(check.remedy("restart the virtual machine that Docker runs in"))
}

#[cfg(test)]
mod tests;
