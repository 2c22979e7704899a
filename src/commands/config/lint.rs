//! `config lint`: properties files and cluster files against what the engine really knows, every fault of them at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::commands::{Cluster, Session, engine, up};
use crate::error::{Error, Exit, nearest};
use crate::properties;
use crate::spec::{self, DEFAULT_NAME, Properties, Verdict, yaml};
use crate::topology::{self, Role, Site};
use crate::ui::Format;

/// Check properties files and cluster.yaml before a node meets them. Exits with 3 when there is an error
///
/// Keys are checked against the engine's own, with what was probably meant; values against what each key takes; files
/// against each other: two brokers with one port, or one identity. A file is a name server's when its name says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl config lint                             the files of the cluster
  rmqctl config lint conf/*.properties           others, from a broker made by hand as well
  rmqctl config lint cluster.yaml -o json")]
pub struct Lint {
    /// Properties files, or cluster files (.yaml); those of the cluster when none is named
    files: Vec<PathBuf>,
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A node would not start, or the line does nothing of what it says.
    Error,
    /// It works, though perhaps not as meant.
    Warning,
}

/// One thing found in one file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 where it is the file as a whole.
    pub line: usize,
    #[allow(missing_docs)]
    pub level: Level,
    /// The property, where it is one's.
    pub key: Option<String>,
    #[allow(missing_docs)]
    pub message: String,
    /// What was probably meant.
    pub suggestion: Option<String>,
}

/// What `-o json` prints.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    files: usize,
    errors: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

/// A properties file as read.
pub struct Source {
    /// As it is named in findings.
    pub name: String,
    #[allow(missing_docs)]
    pub role: Role,
    #[allow(missing_docs)]
    pub text: String,
}

/// `config lint`
pub async fn lint(args: Lint, session: &Session<'_>) -> Result<u8, Error> {
    let named = match args.files.is_empty() {
        true => of_cluster(session).await?,
        false => args.files,
    };
    let count = named.len();
    let mut findings = Vec::new();
    let mut sources = Vec::new();
    for path in named {
        if is_yaml(&path) {
            findings.extend(cluster_file(&path, &session.cwd));
        } else {
            let text = read(&session.cwd.join(&path))?;
            let name = path.display().to_string();
            let role = role_of(&name, &text);
            sources.push(Source { name, role, text });
        }
    }
    findings.extend(check(&sources));
    let report = Report {
        files: count,
        errors: findings.iter().filter(|f| f.level == Level::Error).count(),
        warnings: findings
            .iter()
            .filter(|f| f.level == Level::Warning)
            .count(),
        findings,
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&report, args.output),
        _ => {
            session.ui.out(&text(&report.findings));
            session.ui.note(&format!(
                "{count} files: {} errors, {} warnings.",
                report.errors, report.warnings
            ));
        }
    }
    Ok(if report.errors == 0 {
        0
    } else {
        Exit::Spec as u8
    })
}

/// As compilers say it, so that editors find the place.
pub fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        let place = match finding.line {
            0 => finding.file.clone(),
            line => format!("{}:{line}", finding.file),
        };
        text += &format!("{place}: {level}: {}", finding.message);
        if let Some(meant) = &finding.suggestion {
            text += &format!("; did you mean `{meant}`?");
        }
        text += "\n";
    }
    text
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

/// A file's text.
pub fn read(path: &Path) -> Result<String, Error> {
    // Java reads these files as Latin-1; a stray byte must not keep the rest from being looked at.
    let bytes = std::fs::read(path).map_err(|reason| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot read {}", path.display()),
        )
        .detail(reason.to_string())
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The properties files in the cluster's directory; that of a cluster to be where there is none.
async fn of_cluster(session: &Session<'_>) -> Result<Vec<PathBuf>, Error> {
    let name = session.name();
    let cluster = Cluster::find(session.open(name).await?, name).await?;
    let dir = match cluster {
        Some(cluster) => cluster.desired.conf_dir,
        None if name == DEFAULT_NAME => session.cwd.join("rmq/conf"),
        None => session.cwd.join(format!("rmq/{name}/conf")),
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "properties"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::new(
            "RMQ-E140",
            Exit::Spec,
            format!("there is no properties file in {}", dir.display()),
        )
        .hint("rmqctl config lint FILE")
        .hint(session.again("config render")));
    }
    Ok(files)
}

/// A name server's file says so in its name, or speaks of what only name servers have.
fn role_of(name: &str, text: &str) -> Role {
    let file = Path::new(name).file_name().unwrap_or_default();
    let values = properties::read(text).unwrap_or_default();
    if values.contains_key("brokerName") || values.contains_key("brokerId") {
        Role::Master
    } else if file.to_string_lossy().contains("namesrv") || values.contains_key("kvConfigPath") {
        Role::Namesrv
    } else {
        Role::Master
    }
}

/// A cluster file, up to the properties files that it would make.
fn cluster_file(path: &Path, cwd: &Path) -> Vec<Finding> {
    let looked = || -> Result<Vec<String>, Error> {
        let draft = yaml::load(path, cwd)?;
        let name = draft.name.clone().unwrap_or(DEFAULT_NAME.to_owned());
        let none = spec::Draft::default();
        let made = spec::resolve(
            &name,
            None,
            Some(&draft),
            &none,
            cwd.join("rmq"),
            engine::lint,
        )?;
        let desired = topology::desired(&made, &Site::Network)?;
        up::check_files(&desired, &[])?;
        Ok(spec::warnings(&made, engine::lint))
    };
    let finding = |level, line, message| Finding {
        file: path.display().to_string(),
        line,
        level,
        key: None,
        message,
        suggestion: None,
    };
    match looked() {
        Ok(warnings) => warnings
            .into_iter()
            .map(|said| finding(Level::Warning, 0, said))
            .collect(),
        Err(error) => {
            // `cluster.yaml:4:3  unknown key "slavez"`
            let place = error.title.strip_prefix(&format!("{}:", path.display()));
            let parts = place.and_then(|rest| rest.split_once("  "));
            let line = parts
                .and_then(|(place, _)| place.split(':').next()?.parse().ok())
                .unwrap_or(0);
            let mut message = parts.map_or(error.title.clone(), |(_, said)| said.to_owned());
            let note = error
                .details
                .last()
                .map(|last| last.trim_matches([' ', '|', '^']));
            if let Some(note) = note.filter(|note| !note.is_empty()) {
                message += &format!(": {note}");
            }
            vec![finding(Level::Error, line, message)]
        }
    }
}

/// Everything that is to be said of these files.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut read = Vec::new();
    for source in sources {
        match properties::lines(&source.text) {
            Ok(lines) => {
                findings.extend(check_one(source, &lines));
                read.push((source, lines));
            }
            Err((line, why)) => findings.push(Finding {
                file: source.name.clone(),
                line,
                level: Level::Error,
                key: None,
                message: why,
                suggestion: None,
            }),
        }
    }
    findings.extend(check_together(&read));
    findings
}

type Lines = Vec<properties::Line>;

fn finding(
    source: &Source,
    lines: &Lines,
    level: Level,
    key: &str,
    message: impl Into<String>,
) -> Finding {
    let line = lines.iter().rev().find(|(_, k, _)| k == key);
    Finding {
        file: source.name.clone(),
        line: line.map_or(0, |(number, _, _)| *number),
        level,
        key: Some(key.to_owned()),
        message: message.into(),
        suggestion: None,
    }
}

fn values(lines: &Lines) -> Properties {
    lines
        .iter()
        .map(|(_, key, value)| (key.clone(), value.clone()))
        .collect()
}

fn check_one(source: &Source, lines: &Lines) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, key, value) in lines {
        let here = |level, message: String, suggestion| Finding {
            file: source.name.clone(),
            line: *number,
            level,
            key: Some(key.clone()),
            message,
            suggestion,
        };
        match engine::lint_of(source.role, key, value.trim()) {
            Verdict::Good => {}
            Verdict::NoEffect => found.push(here(
                Level::Warning,
                format!("{key} is accepted, and has no effect in this engine"),
                None,
            )),
            Verdict::Unknown(near) => found.push(here(
                Level::Error,
                format!("unknown property `{key}`"),
                near,
            )),
            Verdict::Wrong(why) => {
                let allowed = why.split("allowed: ").nth(1).unwrap_or_default();
                let near = nearest(value.trim(), allowed.split(", ")).map(str::to_owned);
                found.push(here(
                    Level::Error,
                    format!("wrong value of {key}: {why}"),
                    near,
                ));
            }
        }
        if let Some(before) = seen.insert(key, *number) {
            found.push(here(
                Level::Warning,
                format!("{key} stands in line {before} too; this one counts"),
                None,
            ));
        }
    }
    let all = values(lines);
    if let Some(rule) = engine::broken_rule(source.role, &all) {
        let about = lines.iter().map(|(_, key, _)| key.as_str());
        let key = about
            .filter(|key| rule.contains(*key))
            .max_by_key(|key| key.len());
        found.push(finding(
            source,
            lines,
            Level::Error,
            key.unwrap_or_default(),
            rule,
        ));
    }
    let is = |key: &str, value: &str| all.get(key).is_some_and(|v| v.trim() == value);
    if is("brokerRole", "SYNC_MASTER")
        && all
            .get("inSyncReplicas")
            .is_none_or(|copies| copies.trim() == "1")
    {
        let message =
            "SYNC_MASTER waits for nobody while inSyncReplicas is 1, RocketMQ 5's default";
        let mut one = finding(source, lines, Level::Warning, "brokerRole", message);
        one.suggestion = Some("inSyncReplicas=2".to_owned());
        found.push(one);
    }
    found
}

/// What is wrong only beside the other files.
fn check_together(read: &[(&Source, Lines)]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut ports: BTreeMap<(String, u64), (&str, &str)> = BTreeMap::new();
    let mut identities: BTreeMap<(String, String), &str> = BTreeMap::new();
    let mut masters = Vec::new();
    for (source, lines) in read {
        let all = engine::effective(source.role, &values(lines));
        let get = |key: &str| all.get(key).cloned().unwrap_or_default();
        let listen: u64 = get("listenPort").parse().unwrap_or_default();
        let mut mine = vec![("listenPort", listen)];
        // Containers have their own 0.0.0.0 each; brokers are published with their ports all the same, name servers are not.
        let host = match (source.role, get("bindAddress").as_str()) {
            (Role::Namesrv, "0.0.0.0") => source.name.clone(),
            (_, address) => address.to_owned(),
        };
        if source.role != Role::Namesrv {
            let ha = get("haListenPort").parse().unwrap_or_default();
            mine.push(("VIP port", listen.saturating_sub(2)));
            mine.push(("haListenPort", if ha == 0 { listen + 1 } else { ha }));
            let identity = (get("brokerName"), get("brokerId"));
            if identity.1 == "0" {
                masters.push(identity.0.clone());
            }
            if let Some(other) = identities.insert(identity.clone(), &source.name) {
                let message = format!("{}:{} is {other} already", identity.0, identity.1);
                found.push(finding(source, lines, Level::Error, "brokerId", message));
            }
        }
        for (what, port) in mine {
            if let Some((other, theirs)) =
                ports.insert((host.clone(), port), (source.name.as_str(), what))
                && other != source.name
            {
                let key = if what == "haListenPort" && values(lines).contains_key(what) {
                    what
                } else {
                    "listenPort"
                };
                let message = format!("{what} {port} is the {theirs} of {other}");
                found.push(finding(source, lines, Level::Error, key, message));
            }
        }
    }
    if read.len() > 1 {
        for ((name, id), file) in &identities {
            if id != "0" && !masters.contains(name) {
                let (source, lines) = read
                    .iter()
                    .find(|(source, _)| source.name == **file)
                    .expect("identities come from these files");
                let message = format!("a slave of {name}, which has no master among these files");
                found.push(finding(
                    source,
                    lines,
                    Level::Warning,
                    "brokerName",
                    message,
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<Source> = files
            .iter()
            .map(|(name, text)| Source {
                name: (*name).to_owned(),
                role: role_of(name, text),
                text: (*text).to_owned(),
            })
            .collect();
        let got = text(&check(&sources));
        assert_eq!(got.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn slips_that_blogs_pass_on_are_found_with_what_was_meant() {
        check_text(
            &[(
                "a.properties",
                "# mine\nbrokerName=broker-a\nmapedFileSizeCommitLog=1\nbrokerRole=SYSC_MASTER\nsendMessageThreadPoolNums=4\n",
            )],
            &[
                "a.properties:3: error: unknown property `mapedFileSizeCommitLog`; did you mean `mappedFileSizeCommitLog`?",
                "a.properties:4: error: wrong value of brokerRole: it is \"SYSC_MASTER\"; allowed: ASYNC_MASTER, SYNC_MASTER, SLAVE; did you mean `SYNC_MASTER`?",
                "a.properties:5: warning: sendMessageThreadPoolNums is accepted, and has no effect in this engine",
            ],
        );
    }

    #[test]
    fn a_slave_that_is_nobody_and_a_sync_master_that_waits_for_nobody_are_told() {
        check_text(
            &[(
                "s.properties",
                "brokerName=broker-a\nbrokerRole=SLAVE\nbrokerId=0\n",
            )],
            &["s.properties:2: error: brokerRole=SLAVE needs brokerId > 0, it is 0"],
        );
        check_text(
            &[(
                "m.properties",
                "brokerName=b\nbrokerRole=SYNC_MASTER\nbrokerName=broker-a\n",
            )],
            &[
                "m.properties:3: warning: brokerName stands in line 1 too; this one counts",
                "m.properties:2: warning: SYNC_MASTER waits for nobody while inSyncReplicas is 1, RocketMQ 5's default; did you mean `inSyncReplicas=2`?",
            ],
        );
    }

    #[test]
    fn files_that_do_not_go_together_are_told_of_each_other() {
        check_text(
            &[
                ("a.properties", "brokerName=broker-a\nlistenPort=10911\n"),
                (
                    "b.properties",
                    "brokerName=broker-b\nlistenPort=10910\nhaListenPort=1\n",
                ),
                ("c.properties", "brokerName=broker-b\nlistenPort=10913\n"),
                (
                    "d.properties",
                    "brokerName=broker-x\nbrokerId=1\nbrokerRole=SLAVE\nlistenPort=20911\n",
                ),
            ],
            &[
                "c.properties: error: broker-b:0 is b.properties already",
                "c.properties:2: error: VIP port 10911 is the listenPort of a.properties",
                "d.properties:1: warning: a slave of broker-x, which has no master among these files",
            ],
        );
    }

    #[test]
    fn the_files_of_a_cluster_with_two_name_servers_are_clean() {
        let mut spec = spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        (spec.namesrvs, spec.masters, spec.slaves) = (2, 2, 3);
        for site in [Site::Network, Site::Loopback { dir: "/x".into() }] {
            let all = topology::desired(&spec, &site).unwrap();
            let sources: Vec<Source> = all
                .nodes
                .iter()
                .filter_map(|node| node.file.clone())
                .map(|(name, text)| Source {
                    role: role_of(&name, &text),
                    name,
                    text,
                })
                .collect();
            assert_eq!(sources.len(), 7);
            assert_eq!(text(&check(&sources)), "");
        }
    }

    #[test]
    fn a_cluster_file_is_read_as_far_as_its_properties_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        let found = |said: &str| {
            std::fs::write(&path, said).unwrap();
            cluster_file(&path, dir.path())
        };
        assert_eq!(found("topology: {masters: 2}\n"), []);
        let wrong = found("name: x\ntopology:\n  slavez: 2\n");
        assert_eq!((wrong[0].line, wrong[0].level), (3, Level::Error));
        assert!(
            wrong[0].message.contains("did you mean `slaves`?"),
            "{wrong:?}"
        );
        let ports = found("nodes: {rmqmaster1: {ports: {main: 11911}}}\n");
        assert!(
            ports[0].message.contains("would both have port"),
            "{ports:?}"
        );
        let odd = found("properties: {sendMessageThreadPoolNums: 4}\n");
        assert_eq!((odd[0].level, odd.len()), (Level::Warning, 1));
    }
}
