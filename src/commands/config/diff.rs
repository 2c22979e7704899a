//! `config diff`: three texts side by side: the file in the user's directory, the file that the node has, and what the running
//! node says. Where they differ, somebody thinks the cluster is what it is not.

use std::collections::BTreeSet;

use super::running;
use crate::commands::{Cluster, Session, engine};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec::Properties;
use crate::topology::{Node, Role};
use crate::ui::{self, Format};

/// Show where file, node and running broker differ, key by key. Exits with 7 when they do
///
/// FILE is the file in the conf dir, edits included; NODE HAS is the file that the node was given and will start with; RUNNING
/// is what it answers when it is asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config diff                 every node
  rmqctl config diff broker-a
  rmqctl config diff -o json         every key that differs, with the three values")]
pub struct Diff {
    /// rmqmaster1, master1, broker-a (its group) or broker-a:1; all when none is named
    nodes: Vec<String>,
    /// Form of the result; json and yaml are stable
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// What `-o json` prints.
#[derive(Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    cluster: String,
    drift: bool,
    nodes: Vec<Row>,
}

#[derive(Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    node: String,
    file: String,
    /// Why it could not be asked; then `running` of its keys is null.
    fault: Option<String>,
    keys: Vec<Key>,
}

/// A key whose three values are not one.
#[derive(Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    key: String,
    file: Option<String>,
    node_has: Option<String>,
    running: Option<String>,
}

/// The Docker runtime adds these to a name server's file: it alone knows the network.
pub const OF_THE_RUNTIME: [&str; 2] = ["internalSubnet", "internalGateway"];

/// `config diff`
pub async fn diff(args: Diff, session: &Session<'_>) -> Result<u8, Error> {
    let mut cluster = session.cluster().await?;
    let generated = cluster.desired.clone();
    properties::reconcile(&mut cluster.desired, Some(&generated), true)?;
    let report = look(&cluster, &args.nodes).await?;
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        Format::Name => report
            .nodes
            .iter()
            .filter(|row| !row.keys.is_empty())
            .for_each(|row| session.ui.out(&format!("{}\n", row.node))),
        Format::Table | Format::Wide => {
            session.ui.out(&text(&report));
            for hint in hints(&report, &|rest| session.again(rest)) {
                session.ui.note(&hint);
            }
        }
    }
    Ok(if report.drift {
        Exit::Degraded as u8
    } else {
        0
    })
}

async fn look(cluster: &Cluster, names: &[String]) -> Result<Report, Error> {
    let chosen = cluster.desired.select(names)?;
    let rows = chosen.into_iter().filter_map(|node| {
        let (file, text) = node.file.as_ref()?;
        Some(async move {
            let (has, said) = tokio::join!(
                cluster.runtime.file_of(node),
                running::ask(node, &cluster.desired.advertise)
            );
            let (said, fault) = match said {
                Ok(said) => (Some(said), None),
                Err(fault) => (None, Some(fault)),
            };
            Ok::<_, Error>(Row {
                node: node.name.clone(),
                file: file.clone(),
                keys: compare(node, text, has?.as_deref(), said.as_ref()),
                fault,
            })
        })
    });
    let nodes = futures_util::future::try_join_all(rows).await?;
    Ok(Report {
        cluster: cluster.desired.cluster.clone(),
        drift: nodes
            .iter()
            .any(|row| !row.keys.is_empty() || row.fault.is_some()),
        nodes,
    })
}

/// Keys whose values differ between the texts and what is said. A key that one of them cannot speak of is not compared there.
fn compare(node: &Node, file: &str, has: Option<&str>, said: Option<&Properties>) -> Vec<Key> {
    let raw = |text: &str| properties::read(text).unwrap_or_default();
    let (file, has) = (raw(file), has.map(raw));
    let full = |values: &Properties| engine::effective(node.role, values);
    let (file_all, has_all) = (full(&file), has.as_ref().map(full));
    let said_all = said.map(full);
    let mut keys: BTreeSet<&String> = file_all.keys().chain(file.keys()).collect();
    keys.extend(has.iter().flat_map(|has| has.keys()));
    let mut differing = Vec::new();
    for key in keys {
        let runtimes = node.role == Role::Namesrv && OF_THE_RUNTIME.contains(&key.as_str());
        // What the engine has no row for is compared as it is written, and nothing running speaks of it.
        let value = |all: &Properties, raw: &Properties| all.get(key).or(raw.get(key)).cloned();
        let one = Key {
            key: key.clone(),
            file: value(&file_all, &file),
            node_has: has
                .as_ref()
                .zip(has_all.as_ref())
                .and_then(|(raw, all)| value(all, raw)),
            running: said
                .filter(|said| said.contains_key(key))
                .and_then(|_| said_all.as_ref()?.get(key).cloned()),
        };
        let file_is = |other: &Option<String>| runtimes || *other == one.file;
        let same = (has.is_none() || file_is(&one.node_has))
            && (one.running.is_none() || file_is(&one.running))
            && (has.is_none() || one.running.is_none() || one.running == one.node_has);
        if !same {
            differing.push(one);
        }
    }
    differing
}

fn text(report: &Report) -> String {
    let dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = report
        .nodes
        .iter()
        .flat_map(|row| row.keys.iter().map(move |key| (row, key)))
        .map(|(row, key)| {
            vec![
                row.node.clone(),
                key.key.clone(),
                dash(&key.file),
                dash(&key.node_has),
                dash(&key.running),
            ]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        let header = ["NODE", "KEY", "FILE", "NODE HAS", "RUNNING"];
        text += &ui::table(&header, &rows, |_, _| None);
    }
    for row in &report.nodes {
        if let Some(fault) = &row.fault {
            text += &format!("! {}: {fault}\n", row.node);
        }
    }
    text
}

/// What each kind of difference comes from, and what ends it.
fn hints(report: &Report, again: &dyn Fn(&str) -> String) -> Vec<String> {
    let mut hints = Vec::new();
    for row in &report.nodes {
        if row.keys.iter().any(|key| key.file != key.node_has) {
            let restart = again(&format!("restart {}", row.node));
            hints.push(format!(
                "{} has not got its file's values yet   ({restart} applies them)",
                row.node
            ));
        }
        let live: Vec<&str> = row
            .keys
            .iter()
            .filter(|key| key.running.is_some() && key.running != key.node_has)
            .map(|key| key.key.as_str())
            .collect();
        if !live.is_empty() {
            hints.push(format!(
                "{} runs with other values than its file ({}): changed over the wire, or the file since it started   ({} keeps them, a restart takes them back)",
                row.node,
                live.join(", "),
                again(&format!("config set KEY=VALUE {}", row.node))
            ));
        }
    }
    if !report.drift {
        hints.push(format!(
            "Cluster {}: no drift; {} nodes run what their files say.",
            report.cluster,
            report.nodes.len()
        ));
    }
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role) -> Node {
        let spec = crate::spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        let all = crate::topology::desired(&spec, &crate::topology::Site::Network).unwrap();
        all.nodes.into_iter().find(|n| n.role == role).unwrap()
    }

    fn said(pairs: &[(&str, &str)]) -> Properties {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[track_caller]
    fn check(role: Role, file: &str, has: &str, running: &[(&str, &str)], expected: &[&str]) {
        let found = compare(&node(role), file, Some(has), Some(&said(running)));
        let dash = |value: &Option<String>| value.clone().unwrap_or("-".into());
        let got: Vec<String> = found
            .iter()
            .map(|k| {
                format!(
                    "{} {} {} {}",
                    k.key,
                    dash(&k.file),
                    dash(&k.node_has),
                    dash(&k.running)
                )
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn an_edit_a_live_change_and_a_value_written_otherwise_are_told_apart() {
        // Edited, not yet applied.
        check(
            Role::Master,
            "deleteWhen=05\n",
            "deleteWhen=04\n",
            &[("deleteWhen", "04")],
            &["deleteWhen 05 04 04"],
        );
        // Changed over the wire; the default stands in no file.
        check(
            Role::Master,
            "",
            "",
            &[("maxMessageSize", "1024"), ("deleteWhen", "04")],
            &["maxMessageSize 4194304 4194304 1024"],
        );
        // The same value in another hand.
        check(
            Role::Master,
            "traceOn=TRUE\nslaveTimeout: 3000\n",
            "traceOn=true\n",
            &[("traceOn", "true"), ("slaveTimeout", "3000")],
            &[],
        );
        // Nobody knows the key: the files speak for themselves.
        check(Role::Master, "mine=1\n", "", &[], &["mine 1 - -"]);
    }

    #[test]
    fn what_the_runtime_adds_to_a_name_server_is_no_drift() {
        check(
            Role::Namesrv,
            "listenPort=9876\n",
            "listenPort=9876\ninternalSubnet=10.0.0.0/8\n",
            &[("listenPort", "9876"), ("internalSubnet", "10.0.0.0/8")],
            &[],
        );
    }

    #[test]
    fn each_difference_is_given_its_remedy() {
        let key = |file: &str, has: &str, running: &str| Key {
            key: "maxMessageSize".into(),
            file: Some(file.into()),
            node_has: Some(has.into()),
            running: Some(running.into()),
        };
        let report = |keys: Vec<Key>| Report {
            cluster: "rmq".into(),
            drift: !keys.is_empty(),
            nodes: vec![Row {
                node: "rmqmaster1".into(),
                file: "f".into(),
                fault: None,
                keys,
            }],
        };
        let again = |rest: &str| format!("rmqctl {rest}");
        let told = hints(&report(vec![key("2", "1", "1")]), &again);
        assert!(
            told.len() == 1 && told[0].contains("rmqctl restart rmqmaster1"),
            "{told:?}"
        );
        let told = hints(&report(vec![key("1", "1", "2")]), &again);
        assert!(
            told.len() == 1 && told[0].contains("config set"),
            "{told:?}"
        );
        let told = hints(&report(vec![]), &again);
        assert!(told[0].contains("no drift; 1 nodes"), "{told:?}");
    }
}
