//! `config pull` and `config push`: the files of running nodes, out and in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::apply::{self, How};
use super::lint::{self, Level, Source};
use super::{diff, running, set};
use crate::commands::{Session, Timeout, engine};
use crate::error::{Error, Exit};
use crate::properties;
use crate::spec;
use crate::topology::{Node, Role};
use crate::ui::Format;

/// Write the files that nodes run with, values changed over the wire in them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config pull running           into ./running
  rmqctl config pull running --force   over files that were edited there")]
pub struct Pull {
    /// Directory to write into
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Over files that are there with other values
    #[arg(long)]
    force: bool,
}

/// Apply a directory's files: checked first, kept as your edits, taken over live or by a rolling restart of the changed nodes
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config push running --dry-run     what it would change, and which nodes it would restart
  rmqctl config push running")]
pub struct Push {
    /// Directory with files named as `pull` and `render` name them; nodes without one stay as they are
    dir: PathBuf,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    timeout: Timeout,
}

/// `config pull`
pub async fn pull(args: Pull, session: &Session<'_>) -> Result<u8, Error> {
    let cluster = session.cluster().await?;
    let mut texts = Vec::new();
    for node in &cluster.desired.nodes {
        let Some((name, _)) = &node.file else {
            continue;
        };
        let Some(has) = cluster.runtime.file_of(node).await? else {
            session
                .ui
                .warn(&format!("{} has no file: it does not exist", node.name));
            continue;
        };
        let said = running::ask(node, &cluster.desired.advertise).await;
        if let Err(fault) = &said {
            session.ui.warn(&format!(
                "{} does not say what it works with ({fault}); this is its file as it is",
                node.name
            ));
        }
        texts.push((name.clone(), pulled(node, &has, said.ok().as_ref())));
    }
    let dir = session.cwd.join(&args.dir);
    let written = properties::write_new(&dir, &texts, args.force)?;
    for name in written {
        session
            .ui
            .out(&format!("{}\n", args.dir.join(name).display()));
    }
    Ok(0)
}

/// A node's file with what it was told over the wire, and without what the runtime added.
fn pulled(node: &Node, has: &str, said: Option<&spec::Properties>) -> String {
    let raw = properties::read(has).unwrap_or_default();
    let filed = engine::effective(node.role, &raw);
    let mut text = has.to_owned();
    if node.role == Role::Namesrv {
        for key in diff::OF_THE_RUNTIME {
            text = properties::with_value(&text, key, None);
        }
    }
    let Some(said) = said else {
        return text;
    };
    for (key, value) in engine::effective(node.role, said) {
        let runtimes = diff::OF_THE_RUNTIME.contains(&key.as_str());
        if said.contains_key(&key) && !runtimes && filed.get(&key) != Some(&value) {
            text = properties::with_value(&text, &key, Some(&value));
        }
    }
    text
}

/// `config push`
pub async fn push(args: Push, session: &Session<'_>) -> Result<u8, Error> {
    let mut cluster = session.cluster().await?;
    let _lock = match args.dry_run {
        true => None,
        false => Some(
            session
                .lock(cluster.runtime.as_ref(), &cluster.spec.name)
                .await?,
        ),
    };
    let generated = set::texts_of(&cluster.desired);
    let dir = session.cwd.join(&args.dir);
    let mut texts = BTreeMap::new();
    let mut sources = Vec::new();
    for node in &cluster.desired.nodes {
        let Some((name, base)) = &node.file else {
            continue;
        };
        if !dir.join(name).exists() {
            continue;
        }
        let text = properties::unmarked(&lint::read(&dir.join(name))?).to_owned();
        let name = args.dir.join(name).display().to_string();
        sources.push((
            Source {
                name,
                role: node.role,
                text: text.clone(),
            },
            base,
        ));
        texts.insert(node.name.clone(), text);
    }
    if texts.is_empty() {
        let names: Vec<&str> = cluster
            .desired
            .nodes
            .iter()
            .filter_map(|node| Some(node.file.as_ref()?.0.as_str()))
            .collect();
        return Err(Error::new(
            "RMQ-E140",
            Exit::Spec,
            format!(
                "{} has no file of a node of this cluster",
                args.dir.display()
            ),
        )
        .detail(format!("they are called {}", names.join(", ")))
        .hint(session.again(&format!("config pull {}", args.dir.display()))));
    }
    refuse_faults(sources, session)?;
    let mut changes = apply::changes(&cluster, &texts, &[]).await?;
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
    session.ui.note(&format!(
        "{} files pushed: {} changed at once, {} restarted, {} as they were.",
        texts.len(),
        count(How::Live),
        count(How::Restart),
        count(How::Nothing)
    ));
    Ok(0)
}

/// Lints all files, and refuses what the topology decides; warnings are only shown.
fn refuse_faults(sources: Vec<(Source, &String)>, session: &Session<'_>) -> Result<(), Error> {
    let (sources, bases): (Vec<Source>, Vec<&String>) = sources.into_iter().unzip();
    let mut findings = lint::check(&sources);
    for (source, base) in sources.iter().zip(bases) {
        findings.extend(moved(source, base));
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = findings
        .into_iter()
        .partition(|finding| finding.level == Level::Error);
    for line in lint::text(&warnings).lines() {
        session.ui.warn(line);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        "RMQ-E143",
        Exit::Spec,
        format!(
            "{} errors in these files; nothing was changed",
            errors.len()
        ),
    )
    .lines(lint::text(&errors).lines().map(str::to_owned)))
}

/// Names, ports and paths follow from the topology: a file that says others would take its node out of the cluster.
fn moved(source: &Source, base: &str) -> Vec<lint::Finding> {
    let (new, base) = (
        properties::read(&source.text).unwrap_or_default(),
        properties::read(base).unwrap_or_default(),
    );
    let lines = properties::lines(&source.text).unwrap_or_default();
    base.iter()
        .filter(|(key, value)| new.get(*key) != Some(value))
        .filter_map(|(key, value)| {
            let instead = spec::decided(key)?;
            let line = lines.iter().rev().find(|(_, k, _)| k == key);
            Some(lint::Finding {
                file: source.name.clone(),
                line: line.map_or(0, |(number, _, _)| *number),
                level: Level::Error,
                key: Some(key.clone()),
                message: format!("{key} must be {value}: the topology decides it ({instead})"),
                suggestion: None,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Site, desired};

    #[test]
    fn what_is_pulled_has_the_live_values_and_nothing_of_the_runtimes() {
        let spec = spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        let all = desired(&spec, &Site::Network).unwrap();
        let master = &all.nodes[1];
        let has = master.file.as_ref().unwrap().1.clone();
        let mut said = engine::effective(master.role, &properties::read(&has).unwrap());
        assert_eq!(pulled(master, &has, Some(&said)), has);
        said.insert("maxMessageSize".into(), "1024".into());
        assert_eq!(
            pulled(master, &has, Some(&said)),
            format!("{has}maxMessageSize=1024\n")
        );
        assert_eq!(pulled(master, &has, None), has);

        let namesrv = &all.nodes[0];
        let has = &namesrv.file.as_ref().unwrap().1;
        let more = format!("{has}internalSubnet=10.0.0.0/8\ninternalGateway=10.0.0.1\n");
        assert_eq!(pulled(namesrv, &more, None), *has);
    }

    #[test]
    fn a_file_that_would_move_its_node_is_refused() {
        let source = Source {
            name: "f".into(),
            role: Role::Master,
            text: "brokerName=broker-b\ndeleteWhen=05\n".into(),
        };
        let found = moved(&source, "brokerName=broker-a\ndeleteWhen=04\n");
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].line, found[0].key.as_deref()),
            (1, Some("brokerName"))
        );
    }
}
