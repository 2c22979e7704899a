//! Reads a node's log file: its last lines, and those that come.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use tokio::sync::mpsc::Sender;

use super::super::pid::Handle;
use super::super::time::unix_nanos;
use super::super::{LogLine, LogRange};
use super::watch::Watch;

/// How far back a tail is looked for; the supervisor cuts logs at 10 MiB.
const LOOK_BACK_MAX: u64 = 16 << 20;

/// The last `count` whole lines and the position after them. A line without its end stands for later.
pub fn tail(path: &Path, count: usize) -> io::Result<(Vec<String>, u64)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(e) => return Err(e),
    };
    let len = file.metadata()?.len();
    let from = len.saturating_sub(LOOK_BACK_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut text = Vec::new();
    file.take(LOOK_BACK_MAX).read_to_end(&mut text)?;
    let whole = text
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let mut lines: Vec<&[u8]> = text[..whole].split_inclusive(|b| *b == b'\n').collect();
    lines.drain(..lines.len().saturating_sub(count));
    Ok((
        lines.into_iter().map(line_text).collect(),
        from + whole as u64,
    ))
}

fn line_text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)).into_owned()
}

/// A line with the time that the engine writes before it.
fn timed(text: String) -> LogLine {
    let at = text.split_once(' ').and_then(|(at, _)| unix_nanos(at));
    LogLine { at, text }
}

/// Sends the lines that `range` names, then those that come until the process `until` ends. A line without a time goes with the
/// one before it.
pub async fn send(
    path: &Path,
    range: LogRange,
    until: Option<&Handle>,
    lines: &Sender<LogLine>,
) -> io::Result<()> {
    // Watched before the first read, so that nothing written in between is missed.
    let watch = until.map(|process| Watch::writes(path).map(|watch| (watch, process)));
    let (first, mut at) = tail(path, range.tail.unwrap_or(usize::MAX))?;
    let mut wanted = range.after.is_none();
    for line in first.into_iter().map(timed) {
        wanted = line.at.map_or(wanted, |_| range.wants(line.at));
        if !wanted {
            continue;
        }
        if lines.send(line).await.is_err() {
            return Ok(());
        }
    }
    let Some((watch, process)) = watch.transpose()? else {
        return Ok(());
    };
    loop {
        let ended = tokio::select! {
            changed = watch.changed() => changed.map(|()| false)?,
            ended = process.ended() => ended.map(|()| true)?,
            () = lines.closed() => return Ok(()),
        };
        for line in new_lines(path, &mut at)?.into_iter().map(timed) {
            if lines.send(line).await.is_err() {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
    }
}

/// Whole lines after `at`, which moves behind them; back to the start when the file has been cut.
fn new_lines(path: &Path, at: &mut u64) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < *at {
        *at = 0;
    }
    file.seek(SeekFrom::Start(*at))?;
    let mut text = Vec::new();
    file.take(LOOK_BACK_MAX).read_to_end(&mut text)?;
    let whole = text
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |end| end + 1);
    *at += whole as u64;
    Ok(text[..whole]
        .split_inclusive(|b| *b == b'\n')
        .map(line_text)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pid::Process;
    use std::io::Write;

    #[test]
    fn the_tail_is_the_last_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(tail(&path, 5).unwrap(), (vec![], 0));
        std::fs::write(&path, "one\ntwo\nthree\nhalf").unwrap();
        assert_eq!(
            tail(&path, 2).unwrap(),
            (vec!["two".into(), "three".into()], 14)
        );
        assert_eq!(tail(&path, 9).unwrap().0.len(), 3);
        let mut at = 14;
        std::fs::write(&path, "one\ntwo\nthree\nhalf done\n").unwrap();
        assert_eq!(new_lines(&path, &mut at).unwrap(), ["half done"]);
        std::fs::write(&path, "after the cut\n").unwrap();
        assert_eq!(new_lines(&path, &mut at).unwrap(), ["after the cut"]);
    }

    #[tokio::test]
    async fn a_follower_gets_what_comes_and_ends_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "old\nlast\n").unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let handle = Process::of(child.id()).unwrap().open().unwrap();
        let (lines, mut got) = tokio::sync::mpsc::channel(8);
        let range = LogRange {
            tail: Some(1),
            ..LogRange::default()
        };
        let follow = send(&path, range, Some(&handle), &lines);
        let drive = async {
            assert_eq!(got.recv().await.unwrap().text, "last");
            let mut file = std::fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .unwrap();
            write!(file, "ne").unwrap();
            writeln!(file, "w").unwrap();
            assert_eq!(got.recv().await.unwrap().text, "new");
            drop(child.stdin.take());
        };
        let (followed, ()) = tokio::join!(follow, drive);
        followed.unwrap();
        child.wait().unwrap();
    }
}
