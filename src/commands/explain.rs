//! `explain`: an error id's cause and remedy.

use super::Session;
use crate::error::Error;
use crate::error::catalogue::{CATALOGUE, Entry};
use crate::spec::unknown_name;
use crate::ui::Format;

/// Say what an error id means and what to do
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl explain RMQ-E021     what it is, why, and what helps
  rmqctl explain              every id there is
  rmqctl explain -o json")]
pub struct Explain {
    /// As RMQ-E021, E021 or 21; all when none is named
    id: Option<String>,
    /// Form of the result
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Explain {
    /// Whether errors are to be JSON too.
    pub fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// `explain`
pub fn explain(args: Explain, session: &Session<'_>) -> Result<u8, Error> {
    let entries = match &args.id {
        Some(typed) => vec![find(typed)?],
        None => CATALOGUE.iter().collect(),
    };
    match args.output {
        Format::Json | Format::Yaml => session.ui.value(&entries, args.output),
        Format::Name => entries
            .iter()
            .for_each(|entry| session.ui.out(&format!("{}\n", entry.id))),
        Format::Table | Format::Wide if args.id.is_none() => entries
            .iter()
            .for_each(|entry| session.ui.out(&format!("{}  {}\n", entry.id, entry.title))),
        Format::Table | Format::Wide => entries
            .iter()
            .for_each(|entry| session.ui.out(&text(entry))),
    }
    Ok(0)
}

fn find(typed: &str) -> Result<&'static Entry, Error> {
    let upper = typed.trim().to_uppercase();
    let number = upper
        .strip_prefix("RMQ-")
        .unwrap_or(&upper)
        .trim_start_matches('E');
    let id = format!("RMQ-E{number:0>3}");
    CATALOGUE
        .iter()
        .find(|entry| entry.id == id)
        .ok_or_else(|| unknown_name("error id", typed, CATALOGUE.iter().map(|e| e.id)))
}

fn text(entry: &Entry) -> String {
    let exits: Vec<String> = entry
        .exits
        .iter()
        .map(|exit| (*exit as u8).to_string())
        .collect();
    format!(
        "{}  {}\n\n  cause   {}\n  remedy  {}\n  exit    {}\n",
        entry.id,
        entry.title,
        entry.cause,
        entry.remedy,
        exits.join(" or ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_however_it_is_typed_and_a_wrong_one_names_its_neighbour() {
        for typed in ["RMQ-E021", "rmq-e021", "E021", "21"] {
            assert_eq!(find(typed).unwrap().id, "RMQ-E021");
        }
        let error = find("RMQ-E020").unwrap_err();
        assert_eq!(error.id, "RMQ-E111");
        assert!(error.hints[0].contains("RMQ-E0"), "{error}");
    }

    #[test]
    fn an_explanation_has_cause_remedy_and_exit_code() {
        let text = text(find("RMQ-E021").unwrap());
        for word in ["cause", "remedy", "--port-offset", "exit    5"] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }
}
