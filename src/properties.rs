//! A node's .properties text from templates/, and the files in the user's directory, whose edits win.
//!
//! A file's first line carries the hash of what was generated, so that an edit is seen without a state file:
//! `# rmqctl 3f2a91c0 …`. What the user changed stays when the generated text changes elsewhere (three-way, by key).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Exit};
use crate::spec::Properties;
use crate::topology::Desired;

const BROKER: &str = include_str!("../templates/broker.properties");
const NAMESRV: &str = include_str!("../templates/namesrv.properties");
/// Starts the first line of a file that we wrote; eight hex digits follow.
const MARK: &str = "# rmqctl ";

/// Text of a broker's file.
pub fn broker(who: &str, values: &Properties) -> String {
    render(BROKER, who, values)
}

/// Text of a name server's file.
pub fn namesrv(who: &str, values: &Properties) -> String {
    render(NAMESRV, who, values)
}

/// The two properties by which a name server tells callers inside the network from those that come through its gateway
/// (published ports).
pub fn split_horizon(subnet: &str, gateway: &str) -> String {
    format!(
        "\n# Written by rmqctl when the node was made: who is inside the network, and who comes through its gateway.\n\
         internalSubnet={subnet}\ninternalGateway={gateway}\n"
    )
}

/// Fills a template: keys without a value go with their comment, values without a key come at the end.
fn render(template: &str, who: &str, values: &Properties) -> String {
    let mut left = values.clone();
    let mut text = String::new();
    let mut comments = String::new();
    for line in template.lines() {
        if let Some(key) = line.strip_suffix('=') {
            if let Some(value) = left.remove(key) {
                text += &std::mem::take(&mut comments);
                text += &format!("{key}={}\n", escape(&value));
            } else {
                comments.clear();
            }
        } else if line.is_empty() {
            text += &std::mem::take(&mut comments);
            text += "\n";
        } else {
            comments += &format!("{}\n", line.replace("${who}", who));
        }
    }
    if !left.is_empty() {
        text += "\n# Asked for in the spec.\n";
        for (key, value) in &left {
            text += &format!("{key}={}\n", escape(value));
        }
    }
    text
}

/// A value as java.util.Properties reads it back.
fn escape(value: &str) -> String {
    let mut text = String::new();
    for (at, c) in value.char_indices() {
        match c {
            '\\' => text += "\\\\",
            '\n' => text += "\\n",
            '\r' => text += "\\r",
            '\t' => text += "\\t",
            ' ' if at == 0 => text += "\\ ",
            c if c.is_ascii() => text.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    text += &format!("\\u{unit:04x}");
                }
            }
        }
    }
    text
}

/// Keys and values of a file's text.
pub fn read(text: &str) -> Result<Properties, String> {
    let mut values = BTreeMap::new();
    java_properties::PropertiesIter::new(text.as_bytes())
        .read_into(|key, value| {
            values.insert(key, value);
        })
        .map_err(|reason| reason.to_string())?;
    Ok(values)
}

/// A line that gives a key its value.
pub fn line(key: &str, value: &str) -> String {
    format!("{key}={}\n", escape(value))
}

/// A key and its value with their line, counted from 1.
pub type Line = (usize, String, String);

/// Keys and values in the order of the text; or the line that is none, and why.
pub fn lines(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut found = Vec::new();
    for line in java_properties::PropertiesIter::new(text.as_bytes()) {
        let line = line.map_err(|e| (e.line_number().unwrap_or_default(), e.to_string()))?;
        let number = line.line_number();
        if let java_properties::LineContent::KVPair(key, value) = line.consume_content() {
            found.push((number, key, value));
        }
    }
    Ok(found)
}

/// Keys whose values differ: `fileReservedTime 48 → 72`.
pub fn differences(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (read(old).unwrap_or_default(), read(new).unwrap_or_default());
    let mut said = Vec::new();
    for key in old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)))
    {
        match (old.get(key), new.get(key)) {
            (Some(a), Some(b)) if a != b => said.push(format!("{key} {a} → {b}")),
            (Some(a), None) => said.push(format!("{key} {a} → default")),
            (None, Some(b)) => said.push(format!("{key} default → {b}")),
            _ => {}
        }
    }
    said
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Edited {
    /// Node whose file it is.
    pub node: String,
    /// The file's name.
    pub file: String,
    /// What the user changed, as [`differences`] has it.
    pub changes: Vec<String>,
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn marked(generated: &str) -> String {
    format!("{MARK}{}\n{generated}", digest(generated))
}

/// Splits off the mark: the hash of what was generated, and the rest.
fn unmark(file: &str) -> (Option<&str>, &str) {
    match file
        .strip_prefix(MARK)
        .and_then(|rest| rest.split_once('\n'))
    {
        Some((hash, body)) => (Some(hash.trim()), body),
        None => (None, file),
    }
}

/// A file's text without our mark.
pub fn unmarked(file: &str) -> &str {
    unmark(file).1
}

/// Writes a node's file as if its user had edited it: `generated` is what it was made from, `text` what it shall say.
pub fn keep(dir: &Path, name: &str, generated: &str, text: &str) -> Result<(), Error> {
    let path = dir.join(name);
    let whole = format!("{MARK}{}\n{text}", digest(generated));
    write(&path, &whole).map_err(|reason| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write {}", path.display()),
        )
        .detail(reason.to_string())
        .hint("mend the directory's permissions, then give the same command again")
    })
}

/// Brings the user's directory and the desired state together: what the user edited wins, in both. Nothing is written with
/// `dry`. `previous` is the state that the files were generated from, if it is known.
pub fn reconcile(
    desired: &mut Desired,
    previous: Option<&Desired>,
    dry: bool,
) -> Result<Vec<Edited>, Error> {
    let dir = desired.conf_dir.clone();
    let failed = |what: &str, path: &Path, reason: std::io::Error| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot {what} {}", path.display()),
        )
        .detail(reason.to_string())
        .hint("--conf-dir DIR   (a directory that you may write)")
    };
    if !dry {
        std::fs::create_dir_all(&dir).map_err(|e| failed("create", &dir, e))?;
    }
    let mut edits = Vec::new();
    for node in &mut desired.nodes {
        let Some((name, generated)) = node.file.clone() else {
            continue;
        };
        let path = dir.join(&name);
        let found = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed("read", &path, e)),
        };
        let base = previous
            .and_then(|p| p.nodes.iter().find(|n| n.name == node.name))
            .and_then(|n| n.file.as_ref())
            .map(|(_, text)| text.as_str());
        let kept = match &found {
            Some(text) => keep_edits(text, base, &generated).map_err(|why| {
                Error::new("RMQ-E103", Exit::Spec, format!("{}: {why}", path.display()))
            })?,
            None => None,
        };
        let text = match &kept {
            Some(body) => {
                let changes = differences(&generated, body);
                if !changes.is_empty() {
                    edits.push(Edited {
                        node: node.name.clone(),
                        file: name.clone(),
                        changes,
                    });
                }
                // The mark stays that of the generated text: the file still counts as edited.
                format!("{MARK}{}\n{body}", digest(&generated))
            }
            None => marked(&generated),
        };
        if !dry && found.as_deref() != Some(&text) {
            write(&path, &text).map_err(|e| failed("write", &path, e))?;
        }
        node.file = Some((name, kept.unwrap_or(generated)));
    }
    Ok(edits)
}

/// The body that a found file shall have, or `None` when the user changed nothing in it.
fn keep_edits(found: &str, base: Option<&str>, generated: &str) -> Result<Option<String>, String> {
    let (mark, body) = unmark(found);
    if mark.is_some_and(|hash| hash == digest(body)) {
        return Ok(None);
    }
    let theirs = read(body)?;
    let new = read(generated)?;
    // Without the very text it was generated from, every difference counts as the user's.
    let Some(base) = base.filter(|base| mark == Some(digest(base).as_str())) else {
        return Ok(Some(body.to_owned()));
    };
    let base = read(base)?;
    let mut text = body.to_owned();
    for key in base
        .keys()
        .chain(new.keys().filter(|key| !base.contains_key(*key)))
    {
        if base.get(key) != new.get(key) && theirs.get(key) == base.get(key) {
            text = with_value(&text, key, new.get(key).map(String::as_str));
        }
    }
    Ok(Some(text))
}

/// The text with one key set, or taken out; everything else stays as it is, comments too.
pub fn with_value(text: &str, key: &str, value: Option<&str>) -> String {
    let line_of = |line: &str| line.split_once('=').is_some_and(|(k, _)| k.trim() == key);
    let mut out = String::new();
    let mut done = false;
    for line in text.lines() {
        if !line_of(line) {
            out += &format!("{line}\n");
        } else if let Some(value) = value.filter(|_| !std::mem::replace(&mut done, true)) {
            out += &self::line(key, value);
        }
    }
    if let (Some(value), false) = (value, done) {
        out += &line(key, value);
    }
    out
}

/// Writes a file whole or not at all, so that an interrupted `up` leaves no half of one that would count as edited.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let partial = path.with_extension("properties.partial");
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&partial, path)
}

/// Writes all generated files into a directory, for `config render`.
pub fn render_into(desired: &Desired, dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |reason: std::io::Error| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write into {}", dir.display()),
        )
        .detail(reason.to_string())
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut names = Vec::new();
    for (name, text) in desired.nodes.iter().filter_map(|node| node.file.as_ref()) {
        write(&dir.join(name), &marked(text)).map_err(failed)?;
        names.push(name.clone());
    }
    Ok(names)
}

/// Writes files that were read elsewhere; one that is there with other values is an error unless `force`, and then nothing
/// is written.
pub fn write_new(
    dir: &Path,
    texts: &[(String, String)],
    force: bool,
) -> Result<Vec<String>, Error> {
    let failed = |reason: std::io::Error| {
        Error::new(
            "RMQ-E130",
            Exit::Failed,
            format!("cannot write into {}", dir.display()),
        )
        .detail(reason.to_string())
    };
    let mut edited = Vec::new();
    for (name, text) in texts {
        match std::fs::read_to_string(dir.join(name)) {
            Ok(there) if !differences(unmarked(&there), text).is_empty() => {
                edited.push(format!(
                    "{name}: {}",
                    differences(text, unmarked(&there)).join(", ")
                ));
            }
            _ => {}
        }
    }
    if !edited.is_empty() && !force {
        return Err(Error::new(
            "RMQ-E141",
            Exit::Conflict,
            format!(
                "{} files in {} have other values",
                edited.len(),
                dir.display()
            ),
        )
        .lines(edited)
        .hint("name another directory")
        .hint("--force   writes over them"));
    }
    std::fs::create_dir_all(dir).map_err(failed)?;
    for (name, text) in texts {
        write(&dir.join(name), text).map_err(failed)?;
    }
    Ok(texts.iter().map(|(name, _)| name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ClusterSpec, Profile};
    use crate::topology::{Site, desired};

    fn cluster(dir: &Path, reserved: &str) -> Desired {
        let mut spec = ClusterSpec::defaults("rmq", Profile::Dev, dir.to_owned());
        spec.properties
            .insert("fileReservedTime".into(), reserved.into());
        desired(&spec, &Site::Network).unwrap()
    }

    fn master(desired: &Desired) -> Properties {
        read(&desired.nodes[1].file.as_ref().unwrap().1).unwrap()
    }

    #[test]
    fn what_is_written_reads_back_equal_however_odd() {
        let values = Properties::from([
            ("brokerName".into(), " a=b:c#d!\\e\tf ".into()),
            ("messageDelayLevel".into(), "1s 5s".into()),
            ("odd".into(), "名前\n2 é".into()),
        ]);
        assert_eq!(read(&broker("x", &values)), Ok(values));
    }

    #[test]
    fn every_key_has_a_comment_and_none_is_left_out() {
        let text = cluster(Path::new("/x"), "48").nodes[1]
            .file
            .clone()
            .unwrap()
            .1;
        assert!(
            !text.contains("${") && !text.contains("Asked for"),
            "{text}"
        );
    }

    #[test]
    fn an_edit_stays_while_the_rest_of_the_file_follows_the_spec() {
        let dir = tempfile::tempdir().unwrap();
        let before = cluster(dir.path(), "48");
        assert_eq!(reconcile(&mut before.clone(), None, false), Ok(vec![]));
        let path = dir.path().join("broker-a-master.properties");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.replace("deleteWhen=04", "# mine\ndeleteWhen=05"),
        )
        .unwrap();

        let mut after = cluster(dir.path(), "72");
        let edits = reconcile(&mut after, Some(&before), false).unwrap();
        assert_eq!(
            edits,
            [Edited {
                node: "rmqmaster1".into(),
                file: "broker-a-master.properties".into(),
                changes: vec!["deleteWhen 04 → 05".into()],
            }]
        );
        assert_eq!(
            (
                master(&after)["deleteWhen"].as_str(),
                master(&after)["fileReservedTime"].as_str()
            ),
            ("05", "72")
        );
        assert!(std::fs::read_to_string(&path).unwrap().contains("# mine\n"));

        // The same again finds the same edit, and a key that both changed is the user's.
        std::fs::write(
            &path,
            std::fs::read_to_string(&path)
                .unwrap()
                .replace("Time=72", "Time=1"),
        )
        .unwrap();
        let base = cluster(dir.path(), "72");
        let mut again = cluster(dir.path(), "99");
        let edits = reconcile(&mut again, Some(&base), false).unwrap();
        assert_eq!(
            edits[0].changes,
            ["deleteWhen 04 → 05", "fileReservedTime 99 → 1"]
        );
    }

    #[test]
    fn an_untouched_file_follows_the_spec_and_a_dry_run_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        reconcile(&mut cluster(dir.path(), "48"), None, false).unwrap();
        let path = dir.path().join("broker-a-master.properties");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            reconcile(&mut cluster(dir.path(), "72"), None, true),
            Ok(vec![])
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        reconcile(&mut cluster(dir.path(), "72"), None, false).unwrap();
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains("\nfileReservedTime=72\n")
        );
    }

    #[test]
    fn a_file_that_rmqctl_did_not_write_is_the_users_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("broker-a-master.properties"),
            "brokerName=broker-a\nbrokerId=0\n",
        )
        .unwrap();
        let mut all = cluster(dir.path(), "48");
        reconcile(&mut all, None, false).unwrap();
        assert_eq!(master(&all).len(), 2);
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        assert_eq!(
            lines("# a\n\nbrokerName = b\nlong=1\\\n  2\nlast:x\n").unwrap(),
            [
                (3, "brokerName".into(), "b".into()),
                (4, "long".into(), "12".into()),
                (6, "last".into(), "x".into())
            ]
        );
        assert_eq!(lines("a=1\nb=\\u00zz\n").unwrap_err().0, 2);
    }

    #[test]
    fn files_with_other_values_are_written_over_only_by_force() {
        let dir = tempfile::tempdir().unwrap();
        let texts = [("a".to_owned(), "x=1\n".to_owned())];
        assert_eq!(write_new(dir.path(), &texts, false), Ok(vec!["a".into()]));
        // The same values under a mark and a comment are no edit.
        std::fs::write(dir.path().join("a"), "# rmqctl 00000000\n# mine\nx=1\n").unwrap();
        assert!(write_new(dir.path(), &texts, false).is_ok());
        std::fs::write(dir.path().join("a"), "x=2\n").unwrap();
        let error = write_new(dir.path(), &texts, false).unwrap_err();
        assert_eq!(
            (error.id, error.details),
            ("RMQ-E141", vec!["a: x 1 → 2".to_owned()])
        );
        assert!(write_new(dir.path(), &texts, true).is_ok());
    }

    #[test]
    fn what_is_kept_as_an_edit_survives_the_next_reconciling() {
        let dir = tempfile::tempdir().unwrap();
        let mut all = cluster(dir.path(), "48");
        reconcile(&mut all, None, false).unwrap();
        let (name, generated) = all.nodes[1].file.clone().unwrap();
        let text = with_value(&generated, "maxMessageSize", Some("1024"));
        keep(dir.path(), &name, &generated, &text).unwrap();
        let before = all.clone();
        let edits = reconcile(&mut all, Some(&before), false).unwrap();
        assert_eq!(edits[0].changes, ["maxMessageSize default → 1024"]);
        assert_eq!(all.nodes[1].file, Some((name, text)));
    }
}
