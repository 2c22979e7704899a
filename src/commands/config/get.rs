//! `config get`: the values that running nodes work with, and where each comes from.

use std::collections::BTreeSet;

use super::running;
use crate::commands::{Cluster, Session, engine};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec::{self, ClusterSpec, Properties, unknown_name};
use crate::topology::{Node, Role};
use crate::ui::{self, Format};

/// Show the values that running nodes work with, and where each comes from
///
/// ORIGIN is `default` (the engine's), `profile` (rmqctl's), `topology` (follows from masters, slaves, replication …), `spec`
/// (--set, cluster.yaml), `edit` (the properties file) or `live` (changed over the wire, and in no file).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config get                               what is not the engine's default, of every node
  rmqctl config get rmqmaster1 maxMessageSize
  rmqctl config get broker-a --all -o json        every property, defaults too")]
pub struct Get {
    /// Nodes (rmqmaster1, master1, broker-a or broker-a:1) and keys, in any order; all nodes, all keys when none is named
    #[arg(value_name = "NODE|KEY")]
    words: Vec<String>,
    /// Engine defaults too
    #[arg(long)]
    all: bool,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

#[derive(Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    key: String,
    value: String,
    origin: &'static str,
    default: Option<String>,
}

/// `config get`
pub async fn get(args: Get, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let cluster = &cluster;
    let (names, keys) = sort_words(&args.words, cluster)?;
    let chosen = cluster.desired.select(&names)?;
    let looks = chosen
        .iter()
        .filter(|node| node.file.is_some())
        .map(|node| async move {
            let (has, said) = tokio::join!(
                cluster.runtime.file_of(node),
                running::ask(node, &cluster.desired.advertise)
            );
            Ok::<_, Error>((*node, has?, said))
        });
    let mut rows = Vec::new();
    let mut away = false;
    for (node, has, said) in futures_util::future::try_join_all(looks).await? {
        let said = said
            .inspect_err(|fault| {
                away = true;
                session.ui.warn(&format!(
                    "{} does not say what it works with ({fault}); these are its file's values",
                    node.name
                ));
            })
            .ok();
        rows.extend(
            rows_of(
                node,
                &cluster.spec,
                has.as_deref().unwrap_or_default(),
                said.as_ref(),
            )
            .into_iter()
            .filter(|row| match keys.is_empty() {
                true => args.all || row.origin != "default",
                false => keys.contains(&row.key),
            }),
        );
    }
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&rows, args.output),
        // One value of one node is what a script wants.
        Format::Name => rows
            .iter()
            .for_each(|row| session.ui.out(&format!("{}={}\n", row.key, row.value))),
        Format::Table | Format::Wide => {
            let cells: Vec<Vec<String>> = rows
                .into_iter()
                .map(|row| {
                    let default = row.default.unwrap_or_else(|| "-".to_owned());
                    vec![row.node, row.key, row.value, row.origin.to_owned(), default]
                })
                .collect();
            let header = ["NODE", "KEY", "VALUE", "ORIGIN", "DEFAULT"];
            session.ui.out(&ui::table(&header, &cells, |_, _| None));
        }
    }
    Ok(if away { Exit::Degraded as u8 } else { 0 })
}

/// Which of the words are nodes, and which keys.
fn sort_words(words: &[String], cluster: &Cluster) -> Result<(Vec<String>, Vec<String>), Error> {
    let rows: BTreeSet<&str> = [Role::Master, Role::Namesrv]
        .into_iter()
        .flat_map(engine::rows)
        .map(|row| row.name)
        .collect();
    let (mut nodes, mut keys) = (Vec::new(), Vec::new());
    for word in words {
        if cluster.desired.select(std::slice::from_ref(word)).is_ok() {
            nodes.push(word.clone());
        } else if rows.contains(word.as_str()) {
            keys.push(word.clone());
        } else {
            let names = cluster.desired.nodes.iter().map(|node| node.name.as_str());
            // Whoever types in camel case means a key; the list of a hundred keys would bury the hint.
            return Err(match crate::error::nearest(word, rows.iter().copied()) {
                Some(near) => Error::new(
                    "RMQ-E111",
                    Exit::Spec,
                    format!("no node or property `{word}`"),
                )
                .hint(format!("did you mean `{near}`?")),
                None => unknown_name("node or property", word, names),
            });
        }
    }
    Ok((nodes, keys))
}

/// Every property of a node with its value and its origin.
fn rows_of(node: &Node, spec: &ClusterSpec, has: &str, said: Option<&Properties>) -> Vec<Row> {
    let raw = |text: &str| properties::read(text).unwrap_or_default();
    let generated = raw(node.file.as_ref().map_or("", |(_, text)| text));
    let has = raw(has);
    let filed = engine::effective(node.role, &has);
    let running = said.map(|said| engine::effective(node.role, said));
    engine::rows(node.role)
        .into_iter()
        .filter(|row| said.is_none_or(|said| said.contains_key(row.name)))
        .map(|row| {
            let key = row.name;
            let in_file = filed.get(key).cloned().unwrap_or_default();
            let value = running
                .as_ref()
                .and_then(|all| all.get(key).cloned())
                .unwrap_or(in_file.clone());
            let origin = if value != in_file {
                "live"
            } else if node.role == Role::Namesrv && super::diff::OF_THE_RUNTIME.contains(&key) {
                "topology"
            } else if has.get(key) != generated.get(key) {
                "edit"
            } else if !has.contains_key(key) {
                "default"
            } else {
                said_by(node, spec, key)
            };
            Row {
                node: node.name.clone(),
                key: key.to_owned(),
                value,
                origin,
                default: Some(row.default),
            }
        })
        .collect()
}

/// Whom a generated line comes from.
fn said_by(node: &Node, spec: &ClusterSpec, key: &str) -> &'static str {
    let group = node.broker.as_ref().and_then(|b| spec.brokers.get(&b.name));
    let own = spec.nodes.get(&node.name).map(|own| &own.properties);
    let said = [Some(&spec.properties), group, own];
    if node.role == Role::Namesrv || spec::decided(key).is_some() {
        "topology"
    } else if said
        .into_iter()
        .flatten()
        .any(|said| said.contains_key(key))
    {
        "spec"
    } else if ["brokerRole", "inSyncReplicas", "flushDiskType"].contains(&key) {
        "topology"
    } else {
        "profile"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Site, desired};

    #[test]
    fn each_value_is_traced_to_where_it_was_said() {
        let mut spec = ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        spec.properties
            .insert("fileReservedTime".into(), "72".into());
        let all = desired(&spec, &Site::Network).unwrap();
        let node = &all.nodes[1];
        let generated = node.file.as_ref().unwrap().1.clone();
        let has = generated.replace("deleteWhen=04", "deleteWhen=05");
        let mut said = engine::effective(node.role, &properties::read(&has).unwrap());
        said.insert("maxMessageSize".into(), "1024".into());
        let rows = rows_of(node, &spec, &has, Some(&said));
        let origin = |key: &str| {
            let row = rows.iter().find(|row| row.key == key).unwrap();
            (row.value.as_str(), row.origin)
        };
        assert_eq!(origin("deleteWhen"), ("05", "edit"));
        assert_eq!(origin("fileReservedTime"), ("72", "spec"));
        assert_eq!(origin("mappedFileSizeCommitLog"), ("67108864", "profile"));
        assert_eq!(origin("listenPort"), ("10911", "topology"));
        assert_eq!(origin("inSyncReplicas"), ("1", "topology"));
        assert_eq!(origin("maxMessageSize"), ("1024", "live"));
        assert_eq!(origin("traceOn"), ("true", "default"));
    }
}
