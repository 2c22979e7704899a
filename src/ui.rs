//! Tables, progress, JSON: the only writer to the terminal. Results go to standard output, all else to standard error.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::error::Error;

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

/// How to show progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// Live lines on a terminal, plain ones elsewhere.
    #[default]
    Auto,
    /// Live lines.
    Tty,
    /// One line a thing, when it is done.
    Plain,
    /// JSON lines on standard error, one object an event.
    Json,
    /// Nothing.
    None,
}

/// Form of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals.
    Wide,
    /// Stable, for programs.
    Json,
    /// The same in YAML.
    Yaml,
    /// Names only, one a line.
    Name,
}

/// Form of a result that has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Structured {
    Json,
    Yaml,
}

impl From<Structured> for Format {
    fn from(form: Structured) -> Self {
        match form {
            Structured::Json => Format::Json,
            Structured::Yaml => Format::Yaml,
        }
    }
}

/// The terminal.
#[derive(Debug)]
pub struct Ui {
    progress: ProgressMode,
    live: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
    count: Mutex<Count>,
}

/// How far a plan has come, for events.
#[derive(Debug, Default)]
struct Count {
    cluster: String,
    done: usize,
    total: usize,
}

/// Neither red nor yellow, which mean something.
const SPEAKERS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightMagenta,
];

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const ODD: Style = AnsiColor::Yellow.on_default();

impl Ui {
    /// Sets colours for the whole process; `quiet` leaves results and errors only.
    pub fn new(color: Color, progress: ProgressMode, quiet: bool) -> Self {
        match color {
            // `anstream` itself looks at NO_COLOR, CLICOLOR and whether it writes to a terminal.
            Color::Auto => {}
            Color::Always => anstream::ColorChoice::Always.write_global(),
            Color::Never => anstream::ColorChoice::Never.write_global(),
        }
        let progress = match progress {
            _ if quiet => ProgressMode::None,
            ProgressMode::Auto if std::io::stderr().is_terminal() => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        };
        Self {
            progress,
            live: MultiProgress::new(),
            bars: Mutex::new(BTreeMap::new()),
            count: Mutex::default(),
        }
    }

    /// A result's text, as it is.
    pub fn out(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        // A reader that has seen enough closes the pipe; that is no fault of ours.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// What another program printed, byte for byte.
    pub fn raw(&self, bytes: &[u8], to_err: bool) {
        let written = if to_err {
            let mut err = std::io::stderr().lock();
            err.write_all(bytes).and_then(|()| err.flush())
        } else {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        };
        // A reader that has seen enough closes the pipe; that is no fault of ours.
        let _ = written;
    }

    /// A result as JSON or YAML.
    pub fn value<T: serde::Serialize>(&self, value: &T, format: Format) {
        match format {
            Format::Yaml => self.out(&crate::spec::yaml::to_string(value)),
            _ => self.out(&format!(
                "{}\n",
                serde_json::to_string_pretty(value)
                    .expect("our outputs have string keys and finite numbers only")
            )),
        }
    }

    /// A sentence beside the result.
    pub fn note(&self, text: &str) {
        match self.progress {
            ProgressMode::None => {}
            ProgressMode::Json => self.event(serde_json::json!({ "note": text })),
            _ => self.err(text),
        }
    }

    /// A plan of so many steps begins on a cluster.
    pub fn begin(&self, cluster: &str, total: usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = Count {
            cluster: cluster.to_owned(),
            done: 0,
            total,
        };
    }

    /// One of its steps is done.
    pub fn step(&self) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        count.done += 1;
    }

    /// What a thing has come to, as an event.
    fn state(&self, what: &str, state: &str) {
        let event = {
            let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            serde_json::json!({
                "cluster": count.cluster,
                "node": what,
                "state": state,
                "done": count.done,
                "total": count.total,
            })
        };
        self.event(event);
    }

    /// A line of JSON with the time in Unix seconds; `fields` is an object.
    fn event(&self, mut fields: serde_json::Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_millis());
        fields["time"] = (now as f64 / 1000.0).into();
        let _ = writeln!(std::io::stderr().lock(), "{fields}");
    }

    /// Asks the person at the terminal; `None` where nobody is there.
    pub fn ask(&self, question: &str) -> Option<String> {
        let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !terminal {
            return None;
        }
        self.live.suspend(|| {
            let mut err = anstream::stderr().lock();
            let _ = err
                .write_all(question.as_bytes())
                .and_then(|()| err.flush());
        });
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok().map(|_| answer)
    }

    /// A warning; it is shown under `--quiet` too.
    pub fn warn(&self, text: &str) {
        match self.progress {
            ProgressMode::Json => self.event(serde_json::json!({ "warning": text })),
            _ => self.err(&format!("{ODD}!{ODD:#} {text}")),
        }
    }

    /// The end of a command that failed.
    pub fn error(&self, error: &Error, json: bool) {
        self.clear();
        if json {
            self.value(&serde_json::json!({ "error": error }), Format::Json);
            return;
        }
        if self.progress == ProgressMode::Json {
            self.event(serde_json::json!({ "error": error }));
            return;
        }
        let text = error.to_string();
        let body = text.strip_prefix("error").unwrap_or(&text);
        self.err(format!("{BAD}error{BAD:#}{body}").trim_end());
    }

    fn err(&self, text: &str) {
        self.live.suspend(|| {
            let _ = writeln!(anstream::stderr().lock(), "{text}");
        });
    }

    /// Something is being done to `what`.
    pub fn doing(&self, what: &str, doing: &str) {
        match self.progress {
            ProgressMode::Tty => {}
            ProgressMode::Json => return self.state(what, doing),
            _ => return,
        }
        let mut bars = self
            .bars
            .lock()
            .expect("no thread panics while it holds the bars");
        let bar = bars.entry(what.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template(" {spinner} {prefix:<16} {msg}")
                .expect("the template is constant and valid");
            let bar = self.live.add(
                ProgressBar::new_spinner()
                    .with_style(style)
                    .with_prefix(what.to_owned()),
            );
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.set_message(doing.to_owned());
    }

    /// `what` is done.
    pub fn done(&self, what: &str, how: &str) {
        self.clear_one(what);
        if self.progress == ProgressMode::Json {
            return self.state(what, how);
        }
        self.note(format!(" {GOOD}✔{GOOD:#} {what:<16} {how}").trim_end());
    }

    /// A line of one of several speakers, whose name stands before it, `wide` columns wide and always in the same colour.
    pub fn says(&self, speaker: usize, name: &str, wide: usize, text: &str) {
        let style = SPEAKERS[speaker % SPEAKERS.len()].on_default();
        self.out(&format!("{style}{name:<wide$} |{style:#} {text}\n"));
    }

    /// One line of a report: well (`true`), doubtful (`None`) or wrong.
    pub fn verdict(&self, good: Option<bool>, what: &str, found: &str) {
        let (style, sign) = match good {
            Some(true) => (GOOD, '✔'),
            None => (ODD, '!'),
            Some(false) => (BAD, '✘'),
        };
        self.out(&format!(
            "{}\n",
            format!(" {style}{sign}{style:#} {what:<16} {found}").trim_end()
        ));
    }

    fn clear_one(&self, what: &str) {
        let mut bars = self
            .bars
            .lock()
            .expect("no thread panics while it holds the bars");
        if let Some(bar) = bars.remove(what) {
            bar.finish_and_clear();
        }
    }

    /// Takes all live lines away.
    pub fn clear(&self) {
        let mut bars = self
            .bars
            .lock()
            .expect("no thread panics while it holds the bars");
        for (_, bar) in std::mem::take(&mut *bars) {
            bar.finish_and_clear();
        }
    }

    /// Clears the screen before a repeated result.
    pub fn home(&self) {
        if std::io::stdout().is_terminal() {
            self.out("\x1b[H\x1b[2J");
        }
    }
}

/// A table without borders. `good` says of a cell whether it is to be green or red. Nothing is cut or wrapped: a program may
/// read it, and a terminal wraps it by itself.
pub fn table(
    header: &[&str],
    rows: &[Vec<String>],
    good: impl Fn(usize, &str) -> Option<bool>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    // `anstream` takes the colours out again where they are not wanted.
    table.enforce_styling();
    for row in rows {
        table.add_row(
            row.iter()
                .enumerate()
                .map(|(column, cell)| match good(column, cell) {
                    Some(true) => Cell::new(cell).fg(comfy_table::Color::Green),
                    Some(false) => Cell::new(cell).fg(comfy_table::Color::Red),
                    None => Cell::new(cell),
                }),
        );
    }
    table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

/// `2m`, `3h 5m`, `4d 2h`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `0 B`, `18.2 MiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scaled = count as f64 / 1024.0;
    let mut unit = 0;
    while scaled >= 1024.0 && unit < UNITS.len() - 1 {
        scaled /= 1024.0;
        unit += 1;
    }
    if scaled >= 100.0 {
        format!("{scaled:.0} {}", UNITS[unit])
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        assert_eq!(
            table(
                &["NODE", "UP"],
                &[
                    vec!["rmqmaster1".into(), "2m".into()],
                    vec!["x".into(), "-".into()]
                ],
                |_, _| None
            ),
            " NODE        UP\n rmqmaster1  2m\n x           -\n"
        );
    }

    #[test]
    fn sizes_and_spans_are_short() {
        assert_eq!(
            [bytes(0), bytes(19_083_264), bytes(1 << 30)],
            ["0 B", "18.2 MiB", "1.0 GiB"]
        );
        assert_eq!(
            [span(4), span(125), span(11_100), span(356_400)],
            ["4s", "2m", "3h 5m", "4d 3h"]
        );
    }
}
