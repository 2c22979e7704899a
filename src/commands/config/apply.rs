//! Brings new texts of properties files to nodes: into the user's directory, into the node, and into the running process:
//! over the wire where the engine allows it, by a rolling restart where not. `set` and `push` share it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::running::{self, Untold};
use crate::commands::{Cluster, Session, engine};
use crate::error::{Error, Exit};
use crate::plan::{self, Action, NodeState};
use crate::properties;
use crate::spec::Properties;
use crate::topology::Node;
use crate::ui::{self, Format};

/// How a node comes to its new values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// Over the wire, at once.
    Live,
    /// It is restarted.
    Restart,
    /// It does not run, and has them when it starts.
    Start,
    /// Nothing that it works with changes.
    Nothing,
}

/// What one node gets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    #[allow(missing_docs)]
    pub node: String,
    #[allow(missing_docs)]
    pub how: How,
    #[allow(missing_docs)]
    pub keys: Vec<Key>,
    /// Keys that a running node does not take: why it is restarted.
    pub fixed: Vec<String>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct Key {
    pub key: String,
    pub from: Option<String>,
    pub to: String,
}

/// Asks each node that gets a new text what it works with now. Of `only` these keys when there are some: what else a file
/// holds is then not what was asked for.
pub async fn changes(
    cluster: &Cluster,
    texts: &BTreeMap<String, String>,
    only: &[String],
) -> Result<Vec<Change>, Error> {
    let observed = cluster.observe().await?;
    let runs = |node: &Node| {
        observed
            .nodes
            .iter()
            .any(|n| n.container == node.container && n.state == NodeState::Running)
    };
    let asked = cluster.desired.nodes.iter().filter_map(|node| {
        let text = texts.get(&node.name)?;
        let runs = runs(node);
        Some(async move {
            let base = if runs {
                running::ask(node, &cluster.desired.advertise)
                    .await
                    .map_err(|fault| untold(node, &fault))?
            } else {
                let has = cluster.runtime.file_of(node).await?.unwrap_or_default();
                engine::effective(node.role, &properties::read(&has).unwrap_or_default())
            };
            Ok::<_, Error>(change(node, text, &base, runs, only))
        })
    });
    futures_util::future::try_join_all(asked).await
}

fn change(node: &Node, text: &str, base: &Properties, runs: bool, only: &[String]) -> Change {
    let wanted = properties::read(text).unwrap_or_default();
    let target = engine::effective(node.role, &wanted);
    let now = engine::effective(node.role, base);
    let rows = engine::rows(node.role);
    let mut keys = Vec::new();
    let mut fixed = Vec::new();
    for row in rows {
        let asked = only.is_empty() || only.iter().any(|key| key == row.name);
        let (from, to) = (now.get(row.name), target.get(row.name));
        let runtimes = super::diff::OF_THE_RUNTIME.contains(&row.name);
        if !asked || runtimes || from == to || !base.contains_key(row.name) {
            continue;
        }
        keys.push(Key {
            key: row.name.to_owned(),
            from: from.cloned(),
            to: to.cloned().unwrap_or_default(),
        });
        if !row.live {
            fixed.push(row.name.to_owned());
        }
    }
    let how = match (keys.is_empty(), runs, fixed.is_empty()) {
        (true, _, _) => How::Nothing,
        (_, false, _) => How::Start,
        (_, true, true) => How::Live,
        (_, true, false) => How::Restart,
    };
    Change {
        node: node.name.clone(),
        how,
        keys,
        fixed,
    }
}

fn untold(node: &Node, why: &str) -> Error {
    Error::new(
        "RMQ-E142",
        Exit::Partial,
        format!("{} does not work with its file's values yet", node.name),
    )
    .detail(why.to_owned())
}

/// Writes, tells, restarts. `cluster.desired` holds the new texts afterwards. Returns the nodes that were restarted.
pub async fn carry_out(
    cluster: &mut Cluster,
    generated: &BTreeMap<String, String>,
    texts: &BTreeMap<String, String>,
    changes: &mut [Change],
    timeout: Duration,
    session: &Session<'_>,
) -> Result<(), Error> {
    let advertise = cluster.desired.advertise.clone();
    let to_restart = changes.iter().filter(|change| change.how == How::Restart);
    let to_restart = to_restart.map(|change| node(cluster, &change.node));
    plan::refuse_memory_loss(&cluster.desired, to_restart, &cluster.observe().await?)?;
    for node in &mut cluster.desired.nodes {
        if let (Some(file), Some(text)) = (&mut node.file, texts.get(&node.name)) {
            let base = generated.get(&node.name).map_or("", String::as_str);
            properties::keep(&cluster.desired.conf_dir, &file.0, base, text)?;
            file.1.clone_from(text);
        }
    }
    for change in changes.iter_mut() {
        if session.interrupt.is_requested() {
            return Err(session.interrupt.error().hint(session.goes_on()));
        }
        let node = node(cluster, &change.node);
        if change.how == How::Restart {
            continue;
        }
        // A node that is restarted after a crash starts with the file it has, so that must be the new one too.
        let configure = Action::Configure(Box::new(node.clone()));
        cluster.runtime.apply(&cluster.desired, &configure).await?;
        if change.how != How::Live {
            continue;
        }
        let values: Properties = change
            .keys
            .iter()
            .map(|key| (key.key.clone(), key.to.clone()))
            .collect();
        match running::tell(node, &advertise, &values).await {
            Ok(()) => check(node, &advertise, &values).await?,
            // Another engine's list of what may change is another one.
            Err(Untold::Refused(_)) => {
                change.how = How::Restart;
                change.fixed = values.into_keys().collect();
            }
            Err(Untold::Failed(why)) => {
                let restart = session.again(&format!("restart {}", node.name));
                return Err(untold(node, &why).hint(restart));
            }
        }
        if change.how == How::Live {
            session.ui.done(&change.node, "has its new values");
        }
    }
    restart(cluster, changes, timeout, session).await
}

/// That a node took values is believed when it says them itself.
async fn check(node: &Node, advertise: &str, values: &Properties) -> Result<(), Error> {
    let said = running::ask(node, advertise)
        .await
        .map_err(|fault| untold(node, &fault))?;
    let said = engine::effective(node.role, &said);
    match values
        .iter()
        .find(|(key, value)| said.get(*key) != Some(value))
    {
        None => Ok(()),
        Some((key, value)) => {
            let is = said.get(key).map_or("-", String::as_str);
            Err(untold(node, &format!("told {key}={value}, it says {is}")))
        }
    }
}

async fn restart(
    cluster: &Cluster,
    changes: &[Change],
    timeout: Duration,
    session: &Session<'_>,
) -> Result<(), Error> {
    let chosen: Vec<&Node> = changes
        .iter()
        .filter(|change| change.how == How::Restart)
        .map(|change| node(cluster, &change.node))
        .collect();
    if chosen.is_empty() {
        return Ok(());
    }
    let plan = plan::restart(&cluster.desired, &chosen, &cluster.observe().await?, false);
    let outcome = session
        .walk(&plan, cluster.runtime.as_ref(), &cluster.desired, timeout)
        .await;
    outcome.into_result(
        &session.interrupt,
        &session.again("restart   goes on: the files are written"),
        &session.again("status   shows what runs"),
    )
}

fn node<'a>(cluster: &'a Cluster, name: &str) -> &'a Node {
    let found = cluster.desired.nodes.iter().find(|node| node.name == name);
    found.expect("changes are made of this cluster's nodes")
}

/// Says what is changed, or would be, and how.
pub fn show(changes: &[Change], output: Format, session: &Session<'_>) {
    if matches!(output, Format::Json | Format::Yaml) {
        session.ui.value(&changes, output);
        return;
    }
    let rows: Vec<Vec<String>> = changes
        .iter()
        .flat_map(|change| change.keys.iter().map(move |key| (change, key)))
        .map(|(change, key)| {
            vec![
                change.node.clone(),
                key.key.clone(),
                key.from.clone().unwrap_or_else(|| "-".to_owned()),
                key.to.clone(),
                how(change),
            ]
        })
        .collect();
    if !rows.is_empty() {
        let header = ["NODE", "KEY", "FROM", "TO", "HOW"];
        session.ui.out(&ui::table(&header, &rows, |_, _| None));
    }
}

fn how(change: &Change) -> String {
    match change.how {
        How::Live => "live".to_owned(),
        How::Start => "when it starts".to_owned(),
        How::Nothing => "nothing".to_owned(),
        How::Restart => format!(
            "restart: {} cannot change while it runs",
            change.fixed.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Site, desired};

    #[track_caller]
    fn check(edit: (&str, &str), runs: bool, only: &[&str], how: How, keys: &[&str]) {
        let spec = crate::spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        let node = desired(&spec, &Site::Network).unwrap().nodes[1].clone();
        let text = &node.file.as_ref().unwrap().1;
        let base = engine::effective(node.role, &properties::read(text).unwrap());
        let new = format!("{}maxMessageSize=1024\n", text.replace(edit.0, edit.1));
        let only: Vec<String> = only.iter().map(|key| (*key).to_owned()).collect();
        let got = change(&node, &new, &base, runs, &only);
        let said: Vec<String> = got
            .keys
            .iter()
            .map(|k| format!("{} {} {}", k.key, k.from.as_deref().unwrap_or("-"), k.to))
            .collect();
        assert_eq!(
            (got.how, said),
            (how, keys.iter().map(|k| (*k).to_owned()).collect())
        );
    }

    #[test]
    fn a_node_is_restarted_only_when_a_key_of_the_change_asks_for_it() {
        let live = "maxMessageSize 4194304 1024";
        let fixed = "deleteWhen 04 05";
        let edit = ("deleteWhen=04", "deleteWhen=05");
        check(("x=", "x="), true, &[], How::Live, &[live]);
        check(edit, true, &[], How::Restart, &[fixed, live]);
        check(edit, true, &["maxMessageSize"], How::Live, &[live]);
        check(edit, false, &[], How::Start, &[fixed, live]);
        check(edit, true, &["traceOn"], How::Nothing, &[]);
    }

    /// A master whose port a fake node answers, raised in memory, with its files in a directory of its own.
    async fn raised(port: u16, dir: &std::path::Path) -> Cluster {
        use crate::runtime::{Runtime, memory::Memory};
        let mut spec = crate::spec::ClusterSpec::defaults("rmq", Default::default(), dir.into());
        (spec.slaves, spec.console) = (0, false);
        spec.nodes.entry("rmqmaster1".into()).or_default().main_port = Some(port);
        let desired = desired(&spec, &Site::Network).unwrap();
        let runtime = Memory::default();
        let master = desired.nodes[1].clone();
        for action in [
            Action::CreateNetwork,
            Action::CreateVolume(master.volume.clone().unwrap()),
            Action::CreateNode(Box::new(master.clone())),
            Action::StartNode(master.container),
        ] {
            runtime.apply(&desired, &action).await.unwrap();
        }
        std::fs::create_dir_all(dir).unwrap();
        Cluster {
            runtime: Box::new(runtime),
            spec,
            desired,
        }
    }

    #[tokio::test]
    async fn a_live_value_is_in_the_process_the_node_and_the_users_file() {
        let dir = tempfile::tempdir().unwrap();
        let (port, held) =
            running::tests::listen(&[("maxMessageSize", "4194304"), ("storeType", "x")]).await;
        let mut cluster = raised(port, dir.path()).await;
        let (name, generated) = cluster.desired.nodes[1].file.clone().unwrap();
        let bases = BTreeMap::from([("rmqmaster1".to_owned(), generated.clone())]);
        let text = properties::with_value(&generated, "maxMessageSize", Some("1024"));
        let texts = BTreeMap::from([("rmqmaster1".to_owned(), text.clone())]);
        let only = ["maxMessageSize".to_owned()];
        let mut changes = changes(&cluster, &texts, &only).await.unwrap();
        assert_eq!(changes[0].how, How::Live);

        let ui = crate::ui::Ui::new(Default::default(), crate::ui::ProgressMode::None, true);
        let session = Session::for_tests(&ui);
        let timeout = Duration::from_secs(1);
        carry_out(
            &mut cluster,
            &bases,
            &texts,
            &mut changes,
            timeout,
            &session,
        )
        .await
        .unwrap();
        assert_eq!(held.lock().unwrap()["maxMessageSize"], "1024");
        let node = &cluster.desired.nodes[1];
        assert_eq!(
            cluster.runtime.file_of(node).await.unwrap(),
            Some(text.clone())
        );
        let kept = std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(properties::unmarked(&kept), text);
    }
}
