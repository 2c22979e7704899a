//! The CI jobs in `examples/ci` hold command lines that people copy: each must be one that this program takes.

use clap::Parser;

use super::Cli;

/// The words of a shell's command line, quotes taken away; good for what stands in examples.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) if word.is_empty() => {}
            (' ', None) => words.push(std::mem::take(&mut word)),
            (c, _) => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Every `rmqctl …` in a script: at the start of a line or of a command substitution, up to where the shell ends it.
fn command_lines(script: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in script.lines() {
        for (at, _) in line.match_indices("rmqctl ") {
            let before = line[..at].trim_end();
            if before.is_empty() || before.ends_with("$(") || before.ends_with([';', '&', '|']) {
                let rest = line[at..].split([')', ';', '|', '>', '&']).next();
                found.push(words(rest.unwrap_or_default()));
            }
        }
    }
    found
}

/// All texts of a document.
fn texts<'a>(value: &'a serde_yaml::Value, into: &mut Vec<&'a str>) {
    match value {
        serde_yaml::Value::String(text) => into.push(text),
        serde_yaml::Value::Sequence(items) => items.iter().for_each(|item| texts(item, into)),
        serde_yaml::Value::Mapping(map) => map.values().for_each(|item| texts(item, into)),
        _ => {}
    }
}

#[test]
fn every_command_line_of_the_ci_examples_is_one_of_ours() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    for name in ["github-workflow.yml", "gitlab-ci.yml"] {
        let text = std::fs::read_to_string(dir.join(name)).unwrap();
        let job: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
        let mut scripts = Vec::new();
        texts(&job, &mut scripts);
        let lines: Vec<_> = scripts.iter().flat_map(|s| command_lines(s)).collect();
        for line in &lines {
            if let Err(refused) = Cli::try_parse_from(line) {
                panic!("{name}: {}\n{refused}", line.join(" "));
            }
        }
        let has = |words: &str| lines.iter().any(|line| line.join(" ").starts_with(words));
        assert!(
            has("rmqctl run ") && has("rmqctl up --rm --ttl ") && has("rmqctl env"),
            "{name}: {lines:?}"
        );
    }
}

#[test]
fn a_command_line_that_is_not_ours_is_seen() {
    let lines = command_lines("mvn verify; rmqctl upp --masters 2 | cat\neval \"$(rmqctl env)\"");
    assert_eq!(
        lines,
        [
            vec!["rmqctl", "upp", "--masters", "2"],
            vec!["rmqctl", "env"]
        ]
    );
    assert!(Cli::try_parse_from(&lines[0]).is_err());
    assert!(Cli::try_parse_from(&lines[1]).is_ok());
}
