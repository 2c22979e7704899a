//! What containers say: their logs.

use bollard::container::LogOutput;
use bollard::query_parameters as query;
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::mpsc::Sender;

use super::super::time::unix_nanos;
use super::super::{LogLine, LogRange, RuntimeError};
use super::Docker;

/// A line longer than this is cut: the engine writes none, and a follower must not grow without bound.
const LINE_MAX: usize = 64 << 10;

impl Docker {
    pub(super) async fn send_log(
        &self,
        container: &str,
        range: LogRange,
        lines: Sender<LogLine>,
    ) -> Result<(), RuntimeError> {
        let tail = range.tail.map_or("all".to_string(), |n| n.to_string());
        // The daemon counts in whole seconds; what is earlier in that second is left out below.
        let since = range.after.unwrap_or(0) / 1_000_000_000;
        let options = query::LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(range.follow)
            .since(i32::try_from(since).unwrap_or(i32::MAX))
            .timestamps(true)
            .tail(&tail)
            .build();
        let mut stream = std::pin::pin!(self.api.logs(container, Some(options)));
        // The two streams are cut into lines each by itself, as their pieces interleave.
        let (mut out, mut err) = (Lines::default(), Lines::default());
        loop {
            let piece = tokio::select! {
                piece = stream.next() => piece,
                () = lines.closed() => return Ok(()),
            };
            let (into, bytes) = match piece {
                Some(Ok(LogOutput::StdErr { message })) => (&mut err, message),
                Some(Ok(other)) => (&mut out, other.into_bytes()),
                Some(Err(e)) => return Err(RuntimeError::failed("read the log of", container, e)),
                None => break,
            };
            let wanted = into.push(&bytes).into_iter().map(stamped);
            for line in wanted.filter(|line| range.wants(line.at)) {
                if lines.send(line).await.is_err() {
                    return Ok(());
                }
            }
        }
        for rest in [out.rest(), err.rest()].into_iter().flatten() {
            if lines.send(stamped(rest)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn last_lines(
        &self,
        container: &str,
        tail: usize,
    ) -> Result<Vec<String>, RuntimeError> {
        let (send, mut receive) = tokio::sync::mpsc::channel::<LogLine>(64);
        let range = LogRange {
            tail: Some(tail),
            ..LogRange::default()
        };
        let collect = async {
            let mut lines = Vec::new();
            while let Some(line) = receive.recv().await {
                lines.push(line.text);
            }
            lines
        };
        let (sent, lines) = tokio::join!(self.send_log(container, range, send), collect);
        sent.map(|()| lines)
    }
}

/// A line with the daemon's time before it. The engine's own time, where it says one, is nearer to what happened.
fn stamped(line: String) -> LogLine {
    let Some((daemon, text)) = line.split_once(' ') else {
        return LogLine {
            at: None,
            text: line,
        };
    };
    let Some(daemon) = unix_nanos(daemon) else {
        return LogLine {
            at: None,
            text: line,
        };
    };
    let own = text.split_once(' ').and_then(|(own, _)| unix_nanos(own));
    LogLine {
        at: own.or(Some(daemon)),
        text: text.to_owned(),
    }
}

/// Cuts a byte stream into lines.
#[derive(Default)]
pub(super) struct Lines {
    partial: BytesMut,
}

impl Lines {
    /// The lines that `bytes` completes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = LINE_MAX.saturating_sub(self.partial.len());
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.partial
                .extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                let line = self.partial.split();
                let line = line.strip_suffix(b"\r").unwrap_or(&line);
                lines.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        lines
    }

    /// What stands after the last line's end.
    fn rest(self) -> Option<String> {
        (!self.partial.is_empty()).then(|| String::from_utf8_lossy(&self.partial).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_time_is_taken_off_the_line() {
        let line = stamped("1970-01-01T00:00:01.5Z a b".into());
        assert_eq!((line.at, line.text.as_str()), (Some(1_500_000_000), "a b"));
        let own = stamped("1970-01-01T00:00:01.5Z 1970-01-01T00:00:01.4Z INFO a".into());
        assert_eq!(own.at, Some(1_400_000_000));
        assert_eq!(own.text, "1970-01-01T00:00:01.4Z INFO a");
        let bare = stamped("no time".into());
        assert_eq!((bare.at, bare.text.as_str()), (None, "no time"));
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        let text = b"one\r\ntwo\n\nthree";
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let mut got = lines.push(&text[..cut]);
            got.extend(lines.push(&text[cut..]));
            assert_eq!(got, ["one", "two", ""], "cut at {cut}");
            assert_eq!(lines.rest().as_deref(), Some("three"));
        }
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let mut lines = Lines::default();
        for _ in 0..3 {
            lines.push(&[b'x'; LINE_MAX]);
        }
        assert_eq!(lines.push(b"y\n").first().map(String::len), Some(LINE_MAX));
        assert_eq!(lines.push(b"next\n"), ["next"]);
    }
}
