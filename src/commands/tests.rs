//! What all commands owe whoever types them: help for every flag, examples that parse, pages that say only what works.

use std::path::Path;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, Parser};

use super::Cli;

/// Every command that is shown, with its words and whether one above it has examples.
fn all(command: &Command, words: &str, above: bool, found: &mut Vec<(String, Command, bool)>) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let words = format!("{words} {}", sub.get_name());
        let has = above || sub.get_after_help().is_some();
        found.push((words.clone(), sub.clone(), has));
        all(sub, &words, has, found);
    }
}

fn commands() -> Vec<(String, Command, bool)> {
    let mut found = Vec::new();
    all(&Cli::command(), "rmqctl", false, &mut found);
    found
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_every_flag_has_help_and_every_command_examples() {
    let mut faults = Vec::new();
    for (words, command, examples) in commands() {
        if command.get_about().is_none() {
            faults.push(format!(
                "{words}: no sentence (a doc comment on its struct)"
            ));
        }
        if !examples {
            faults.push(format!(
                "{words}: no examples: #[command(after_help = \"Examples:\\n  rmqctl …\")] on its struct"
            ));
        }
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            if argument.get_help().is_none() {
                faults.push(format!("{words} {}: no help", argument.get_id()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn examples_look_alike_and_parse() {
    let mut faults = Vec::new();
    let mut parsed = 0;
    for (words, command, _) in
        commands()
            .into_iter()
            .chain([("rmqctl".to_owned(), Cli::command(), true)])
    {
        let Some(examples) = command.get_after_help() else {
            continue;
        };
        let examples = examples.to_string();
        if !examples.starts_with("Examples:\n  ") {
            faults.push(format!(
                "{words}: it does not begin with `Examples:` and an indented line"
            ));
        }
        for line in examples.lines() {
            for tried in command_lines(line) {
                parsed += 1;
                faults.extend(parse(&tried).err().map(|why| format!("{words}: {why}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(parsed > 30, "only {parsed} examples were found");
}

#[test]
fn what_the_pages_tell_people_to_type_parses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
    let mut faults = Vec::new();
    let mut parsed = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for (number, line) in text.lines().enumerate() {
            for tried in command_lines(line) {
                parsed += 1;
                let place = format!("{}:{}", page.display(), number + 1);
                faults.extend(parse(&tried).err().map(|why| format!("{place}: {why}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(parsed > 15, "only {parsed} command lines were found");
}

#[test]
fn a_slip_of_the_finger_is_answered_with_what_was_meant() {
    #[track_caller]
    fn check(typed: &[&str], meant: &str) {
        let error = Cli::try_parse_from(typed).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(text.contains(&format!("'{meant}'")), "{typed:?}: {text}");
    }
    check(&["rmqctl", "statsu"], "status");
    check(&["rmqctl", "up", "--mastres", "2"], "--masters");
    check(&["rmqctl", "config", "rendr"], "render");
    check(&["rmqctl", "up", "--replication", "snyc"], "sync");
}

#[test]
fn command_lines_are_found_where_people_would_copy_them() {
    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let found: Vec<String> = command_lines(line).iter().map(|w| w.join(" ")).collect();
        assert_eq!(found, expected, "{line}");
    }
    check("    rmqctl up --masters 2    # two", &["up --masters 2"]);
    check("  rmqctl logs -f NODE     live", &["logs -f rmqmaster1"]);
    check("`eval \"$(rmqctl env)\"` and `rmqctl ls`", &["env", "ls"]);
    check(
        "cargo run --release -- up --slaves 2     # a cluster",
        &["up --slaves 2"],
    );
    check(
        "      - run: rmqctl env --shell github >> \"$GITHUB_ENV\"",
        &["env --shell github"],
    );
    check(
        "        run: rmqctl status; rmqctl logs --tail 200",
        &["status", "logs --tail 200"],
    );
    check("# put the static rmqctl binary where PATH finds it", &[]);
    check("| 2 masters, 2 slaves | rmqctl | Apache |", &[]);
    check("  rmqctl: from a spec to nodes", &[]);
    check("    benches/ready.py --rmqctl target/rmqctl", &[]);
}

/// The arguments of each `rmqctl …` of a line that stands where a command stands: at its start, after a prompt of YAML, in
/// backticks, in `$(…)`, after `;` or `&&`.
fn command_lines(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for start in ["rmqctl ", "cargo run --release -- "] {
        for (at, _) in line.match_indices(start) {
            let before = line[..at].trim_end();
            let command = before.is_empty()
                || ["`", "(", "- ", "-", "run:", ";", "&&", "|| "]
                    .iter()
                    .any(|end| before.ends_with(end.trim_end()))
                    && !before.ends_with('|')
                    // `--rmqctl PATH` is an option of another program's.
                    && !before.ends_with("--");
            if command {
                found.push(words(&line[at + start.len()..]));
            }
        }
    }
    found
}

/// Words as a shell splits them, up to where the command ends: at an operator, a comment, or two spaces with words after them.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => words.last_mut().unwrap().push(c),
            (None, '\'' | '"') => quote = Some(c),
            (None, ';' | '|' | '>' | '<' | '&' | ')' | '`' | '#' | '→' | '·') => break,
            (None, ' ') if chars.peek() == Some(&' ') => break,
            (None, ' ') => words.push(String::new()),
            (None, c) => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty() && word != "…" && !word.starts_with('['));
    words.into_iter().map(placeholder).collect()
}

/// What a placeholder may stand for.
fn placeholder(word: String) -> String {
    match word.trim_end_matches('…') {
        "COMMAND" => "up".to_owned(),
        "NODE" => "rmqmaster1".to_owned(),
        "N" => "2".to_owned(),
        "SHELL" => "bash".to_owned(),
        "TIME" => "60s".to_owned(),
        "SIZE" => "256m".to_owned(),
        other => other.to_owned(),
    }
}

fn parse(arguments: &[String]) -> Result<(), String> {
    let line = ["rmqctl"]
        .into_iter()
        .chain(arguments.iter().map(String::as_str));
    match Cli::try_parse_from(line) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(e) => Err(format!("`rmqctl {}`: {e}", arguments.join(" "))),
    }
}
