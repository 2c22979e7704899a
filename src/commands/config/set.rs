//! `config set`: a property of nodes that run: at once where the engine allows it, else by a rolling restart; kept either way.

use std::collections::BTreeMap;

use super::apply::{self, How};
use crate::commands::up::check_files;
use crate::commands::{Cluster, Session, Timeout, engine};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec::{self, Verdict};
use crate::topology::{Desired, Node};
use crate::ui::Format;

/// Set properties of running nodes: at once where the engine allows it, else by a rolling restart, and say which
///
/// The new value is written into the node's properties file in the conf dir, as an edit of yours, and into the node, so that a
/// restart and an `up` keep it. An empty value takes an earlier edit back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config set maxMessageSize=8388608             all brokers, at once
  rmqctl config set fileReservedTime=72 broker-a       one group, by a rolling restart
  rmqctl config set fileReservedTime=72 --dry-run      what it would take
  rmqctl config set maxMessageSize=                    as it was before")]
pub struct Set {
    /// KEY=VALUE, one or more, then nodes (rmqmaster1, master1, broker-a or broker-a:1); all brokers when none is named
    #[arg(required = true, value_name = "KEY=VALUE|NODE")]
    words: Vec<String>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    timeout: Timeout,
}

/// `config set`
pub async fn set(args: Set, session: &Session<'_>) -> Result<u8, Error> {
    let (settings, names) = sort_words(&args.words)?;
    let mut cluster = session.cluster().await?;
    let _lock = match args.dry_run {
        true => None,
        false => Some(
            session
                .lock(cluster.runtime.as_ref(), &cluster.spec.name)
                .await?,
        ),
    };
    let generated = cluster.desired.clone();
    properties::reconcile(&mut cluster.desired, Some(&generated), args.dry_run)?;
    let chosen = choose(&cluster.desired, &names)?;
    for node in &chosen {
        for (key, value) in &settings {
            if let Some(warning) = judge(node, key, value)? {
                session.ui.warn(&warning);
            }
        }
    }
    let generated = texts_of(&generated);
    let texts: BTreeMap<String, String> = chosen
        .iter()
        .filter_map(|node| {
            let (_, text) = node.file.as_ref()?;
            let new = with_settings(text, &settings, generated.get(&node.name));
            Some((node.name.clone(), new))
        })
        .collect();
    check_texts(&cluster, &texts)?;
    let keys: Vec<String> = settings.iter().map(|(key, _)| key.clone()).collect();
    let mut changes = apply::changes(&cluster, &texts, &keys).await?;
    if args.dry_run {
        apply::show(&changes, args.output, session);
        return Ok(0);
    }
    let timeout = args.timeout.of(&cluster.spec);
    apply::carry_out(
        &mut cluster,
        &generated,
        &texts,
        &mut changes,
        timeout,
        session,
    )
    .await?;
    session.ui.clear();
    apply::show(&changes, args.output, session);
    let count = |how| changes.iter().filter(|change| change.how == how).count();
    let dir = cluster.desired.conf_dir.display();
    session.ui.note(&match (count(How::Live), count(How::Restart), count(How::Start)) {
        (0, 0, 0) => format!("All that was named has these values; nothing to do.   Kept in {dir}"),
        (live, restarted, later) => format!(
            "{live} changed at once, {restarted} restarted, {later} have it when they start.   Kept in {dir}"
        ),
    });
    Ok(0)
}

/// A key and the value it shall have.
type Setting = (String, String);

/// Which of the words are settings, and which nodes. A node's name has no `=`.
fn sort_words(words: &[String]) -> Result<(Vec<Setting>, Vec<String>), Error> {
    let (mut settings, mut nodes) = (Vec::new(), Vec::new());
    for word in words {
        match word.split_once('=') {
            Some((key, value)) => {
                let key = key.trim();
                settings.push((key.to_owned(), spec::padded(key, value.trim())));
            }
            None => nodes.push(word.clone()),
        }
    }
    if settings.is_empty() {
        return Err(
            Error::new("RMQ-E104", Exit::Usage, "there is no KEY=VALUE to set")
                .hint("rmqctl config set maxMessageSize=8388608"),
        );
    }
    Ok((settings, nodes))
}

/// All brokers when none is named; of those named, those that have a file.
fn choose<'a>(desired: &'a Desired, names: &[String]) -> Result<Vec<&'a Node>, Error> {
    let chosen = desired.select(names)?;
    let with_file: Vec<&Node> = chosen
        .iter()
        .copied()
        .filter(|node| node.file.is_some() && (!names.is_empty() || node.broker.is_some()))
        .collect();
    if with_file.is_empty() {
        let name = chosen.first().map_or("it", |node| node.name.as_str());
        return Err(Error::new(
            "RMQ-E104",
            Exit::Usage,
            format!("{name} has no properties file"),
        )
        .detail("the console takes its settings from its command line, which rmqctl makes"));
    }
    Ok(with_file)
}

/// Whether a node takes this value; a sentence when it does nothing with it.
fn judge(node: &Node, key: &str, value: &str) -> Result<Option<String>, Error> {
    let refused = |why: String| {
        Error::new(
            "RMQ-E103",
            Exit::Spec,
            format!("{} cannot have {key}={value}", node.name),
        )
        .detail(why)
    };
    if let Some(instead) = spec::decided(key) {
        return Err(refused(format!("the topology decides it: {instead}")));
    }
    match engine::lint_of(node.role, key, value) {
        Verdict::Good => Ok(None),
        // Nothing is to be read from a value that is taken back.
        Verdict::Wrong(_) if value.is_empty() => Ok(None),
        Verdict::NoEffect => Ok(Some(format!(
            "{}: {key} is accepted, and has no effect in this engine",
            node.name
        ))),
        Verdict::Wrong(why) => Err(refused(why)),
        Verdict::Unknown(near) => {
            let error = refused(format!(
                "no property of a {} has this name",
                node.role.word()
            ));
            Err(match near {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            })
        }
    }
}

/// The text with the new values; where one is empty, with what was generated.
fn with_settings(text: &str, settings: &[Setting], generated: Option<&String>) -> String {
    let base = properties::read(generated.map_or("", String::as_str)).unwrap_or_default();
    settings.iter().fold(text.to_owned(), |text, (key, value)| {
        let value = Some(value).filter(|value| !value.is_empty());
        let value = value.or_else(|| base.get(key));
        properties::with_value(&text, key, value.map(String::as_str))
    })
}

/// Nodes' texts as they are in this state.
pub fn texts_of(desired: &Desired) -> BTreeMap<String, String> {
    desired
        .nodes
        .iter()
        .filter_map(|node| Some((node.name.clone(), node.file.as_ref()?.1.clone())))
        .collect()
}

/// Refuses texts that their nodes would not start with.
pub fn check_texts(cluster: &Cluster, texts: &BTreeMap<String, String>) -> Result<(), Error> {
    let mut desired = cluster.desired.clone();
    for node in &mut desired.nodes {
        if let (Some(file), Some(text)) = (&mut node.file, texts.get(&node.name)) {
            file.1.clone_from(text);
        }
    }
    check_files(&desired, &[])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Site, desired};

    fn cluster() -> Desired {
        let spec = spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        desired(&spec, &Site::Network).unwrap()
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn settings_and_nodes_may_stand_in_any_order_and_one_setting_must_be_there() {
        let (settings, nodes) = sort_words(&owned(&["broker-a", "deleteWhen=4", "a=b=c"])).unwrap();
        assert_eq!(
            (settings, nodes),
            (
                vec![
                    ("deleteWhen".into(), "04".into()),
                    ("a".into(), "b=c".into())
                ],
                vec!["broker-a".into()]
            )
        );
        assert_eq!(
            sort_words(&owned(&["broker-a"])).unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn brokers_are_meant_when_none_is_named_and_a_console_has_nothing_to_set() {
        let all = cluster();
        let names = |chosen: Vec<&Node>| -> Vec<String> {
            chosen.iter().map(|node| node.name.clone()).collect()
        };
        assert_eq!(
            names(choose(&all, &[]).unwrap()),
            ["rmqmaster1", "rmqslave1"]
        );
        assert_eq!(
            names(choose(&all, &owned(&["namesrv"])).unwrap()),
            ["rmqnamesrv"]
        );
        assert_eq!(
            choose(&all, &owned(&["console"])).unwrap_err().id,
            "RMQ-E104"
        );
    }

    #[test]
    fn what_a_node_does_not_take_is_refused_with_the_reason() {
        let all = cluster();
        let why =
            |key: &str, value: &str| judge(&all.nodes[1], key, value).unwrap_err().to_string();
        assert!(why("listenPort", "1").contains("use --port-offset"));
        assert!(why("maxMesageSize", "1").contains("did you mean `maxMessageSize`?"));
        assert!(why("traceOn", "maybe").contains("true or false"));
        assert_eq!(judge(&all.nodes[1], "traceOn", ""), Ok(None));
        let odd = judge(&all.nodes[1], "sendMessageThreadPoolNums", "4").unwrap();
        assert!(odd.unwrap().contains("no effect"));
    }

    #[test]
    fn an_empty_value_gives_the_generated_one_back() {
        let generated = "a=1\n".to_owned();
        let settings = [
            ("a".to_owned(), String::new()),
            ("b".to_owned(), String::new()),
        ];
        assert_eq!(
            with_settings("a=2\nb=3\n", &settings, Some(&generated)),
            "a=1\n"
        );
    }
}
