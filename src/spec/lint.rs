//! Broker properties that were said: whether the engine knows them, and whether the topology leaves them to the user.

use super::{ClusterSpec, Draft, Lint, Verdict, yaml};
use crate::error::{Error, Exit};

/// Properties that follow from the topology, and what to say instead.
const DECIDED: &[(&str, &str)] = &[
    ("brokerName", "names follow from the number of masters"),
    ("brokerId", "ids follow from the number of slaves"),
    (
        "listenPort",
        "use --port-offset, or nodes.NODE.ports.main in cluster.yaml",
    ),
    ("haListenPort", "it is listenPort + 1"),
    ("namesrvAddr", "use --namesrvs"),
    ("brokerIP1", "use --advertise HOST"),
    (
        "brokerIP2",
        "slaves always use the names inside the network",
    ),
    ("brokerInternalAddr", "it is the node's name and listenPort"),
    ("bindAddress", "use --bind"),
    ("storePathRootDir", "it is the node's volume"),
    ("storePathCommitLog", "it is inside the node's volume"),
    ("haMasterAddress", "slaves learn it from the name server"),
];

/// Whether the topology decides a property, so that nobody may set it; what to say instead.
pub fn decided(key: &str) -> Option<&'static str> {
    DECIDED
        .iter()
        .find(|(decided, _)| *decided == key)
        .map(|(_, instead)| *instead)
}

/// Properties that were accepted though they do nothing here, with a sentence for each.
pub fn warnings(spec: &ClusterSpec, lint: Lint) -> Vec<String> {
    if !spec.engine.is_bundled() {
        return Vec::new();
    }
    let all = [&spec.properties]
        .into_iter()
        .chain(spec.brokers.values())
        .chain(spec.nodes.values().map(|node| &node.properties));
    let mut said: Vec<String> = all
        .flatten()
        .filter(|(key, value)| lint(key, value) == Verdict::NoEffect)
        .map(|(key, _)| format!("property {key} is accepted, and has no effect in this engine"))
        .collect();
    said.sort();
    said.dedup();
    said
}

pub(super) fn check_properties(draft: &Draft, lint: Lint) -> Result<(), Error> {
    let of_nodes = draft
        .nodes
        .iter()
        .map(|(node, n)| (Some(node.as_str()), &n.properties));
    let of_brokers = draft
        .brokers
        .iter()
        .map(|(name, p)| (Some(name.as_str()), p));
    for (owner, properties) in [(None, &draft.properties)]
        .into_iter()
        .chain(of_nodes)
        .chain(of_brokers)
    {
        for (key, value) in properties {
            check_property(draft, owner, key, value, lint)?;
        }
    }
    Ok(())
}

fn check_property(
    draft: &Draft,
    owner: Option<&str>,
    key: &str,
    value: &str,
    lint: Lint,
) -> Result<(), Error> {
    let place = |title: &str, note: String| match &draft.text {
        Some(text) => yaml::at_key(&draft.origin, text, owner, key, title, &note),
        None => Error::new(
            "RMQ-E103",
            Exit::Spec,
            format!("{}: {title} `{key}`", draft.origin),
        )
        .detail(note),
    };
    if let Some(instead) = decided(key) {
        return Err(place("the topology decides", instead.to_owned()));
    }
    if value.is_empty() {
        return Ok(());
    }
    if key == "brokerRole" && value == "SLAVE" {
        return Err(place(
            "cannot make a slave with",
            "use --slaves N, or topology.slaves".to_owned(),
        ));
    }
    match lint(key, value) {
        Verdict::Good | Verdict::NoEffect => Ok(()),
        Verdict::Unknown(near) => Err(place(
            "unknown property",
            near.map_or_else(
                || "no property of a RocketMQ broker has a name like it".to_owned(),
                |near| format!("did you mean `{near}`?"),
            ),
        )),
        Verdict::Wrong(why) => Err(place("wrong value of", why)),
    }
}
