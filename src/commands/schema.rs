//! `schema`: what may stand in a cluster.yaml, for editors and for checks in CI.

use serde_json::{Map, Value, json};

use super::{Session, engine};
use crate::spec::{self, yaml};
use crate::topology::Role;

/// Print the JSON schema of cluster.yaml
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  rmqctl schema > cluster.schema.json     then, as the first line of cluster.yaml:
                                          # yaml-language-server: $schema=./cluster.schema.json")]
pub struct Schema {}

/// `schema`
pub fn schema(Schema {}: Schema, session: &Session<'_>) -> u8 {
    let schema = yaml::schema(broker_properties());
    session.ui.value(&schema, crate::ui::Format::Json);
    0
}

/// A broker's properties: those of the engine that a spec may set, and those that it accepts without effect.
fn broker_properties() -> Value {
    let mut properties = Map::new();
    for row in engine::rows(Role::Master) {
        if spec::decided(row.name).is_none() {
            let about = format!(
                "{}. Allowed: {}. Default: {}",
                row.doc, row.allowed, row.default
            );
            let mut one = kind(&row.allowed);
            one["description"] = about.into();
            properties.insert(row.name.to_owned(), one);
        }
    }
    for name in engine::without_effect(Role::Master) {
        let one = json!({
            "description": "RocketMQ's Java engine has it; this one accepts it without effect",
            "deprecated": true,
        });
        properties.insert((*name).to_owned(), one);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

/// What YAML may hold for a property that allows this.
fn kind(allowed: &str) -> Value {
    if allowed == "true or false" {
        return json!({ "enum": [true, false, "true", "false", ""] });
    }
    if allowed.contains("whole number") {
        return json!({ "type": ["integer", "string"] });
    }
    if allowed.contains(", ") {
        let mut names: Vec<&str> = allowed.split(", ").collect();
        // An empty value takes the property back.
        names.push("");
        return json!({ "enum": names });
    }
    json!({ "type": ["string", "number", "boolean"] })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Whether the document is as the part of the schema says, as far as our schemas go: references, objects, enums and types.
    fn valid(schema: &Value, root: &Value, document: &Value) -> Result<(), String> {
        if let Some(name) = schema["$ref"].as_str() {
            let part = root.pointer(&name[1..]).ok_or(format!("no {name}"))?;
            return valid(part, root, document);
        }
        if let Some(options) = schema["anyOf"].as_array() {
            let tried: Vec<_> = options.iter().map(|o| valid(o, root, document)).collect();
            return match tried.iter().any(Result::is_ok) {
                true => Ok(()),
                false => tried.into_iter().next().unwrap_or(Ok(())),
            };
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(document)
        {
            return Err(format!("{document} is none of {allowed:?}"));
        }
        let kind = match document {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => vec![kind],
        };
        let fits = kinds.contains(&kind) || kind == "integer" && kinds.contains(&"number");
        if !fits {
            return Err(format!("{document} is no {kinds:?}"));
        }
        for (key, value) in document.as_object().into_iter().flatten() {
            let at = match schema["properties"].get(key) {
                Some(part) => part,
                None if schema["additionalProperties"] == json!(false) => {
                    return Err(format!("unknown key {key}"));
                }
                None => &schema["additionalProperties"],
            };
            valid(at, root, value).map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(())
    }

    #[track_caller]
    fn check(yaml: &str, expected: Result<(), &str>) {
        let schema = yaml::schema(broker_properties());
        let document: Value = serde_yaml::from_str(yaml).unwrap();
        let got = valid(&schema, &schema, &document);
        assert_eq!(got.as_ref().copied().map_err(String::as_str), expected);
    }

    #[test]
    fn the_starter_and_every_example_are_as_the_schema_says() {
        check(include_str!("../../templates/cluster.yaml"), Ok(()));
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clusters");
        for entry in std::fs::read_dir(dir).unwrap() {
            check(
                &std::fs::read_to_string(entry.unwrap().path()).unwrap(),
                Ok(()),
            );
        }
    }

    #[test]
    fn what_the_reader_refuses_the_schema_refuses_too() {
        check("topology: {slavez: 2}", Err("topology: unknown key slavez"));
        check(
            "properties: {brokerRolle: SLAVE}",
            Err("properties: unknown key brokerRolle"),
        );
        check(
            "nodes: {rmqmaster1: {properties: {listenPort: 1}}}",
            Err("nodes: rmqmaster1: properties: unknown key listenPort"),
        );
        check(
            "brokers: {broker-a: {properties: {traceOn: maybe}}}",
            Err(
                "brokers: broker-a: properties: traceOn: \"maybe\" is none of [Bool(true), Bool(false), String(\"true\"), String(\"false\"), String(\"\")]",
            ),
        );
        check(
            "topology: {masters: two}",
            Err("topology: masters: \"two\" is no [\"integer\", \"null\"]"),
        );
    }

    #[test]
    fn every_key_that_is_read_is_in_the_schema_with_a_description() {
        fn walk(part: &Value, path: &str, bare: &mut Vec<String>) {
            for (key, one) in part["properties"].as_object().into_iter().flatten() {
                if one["description"].as_str().unwrap_or_default().is_empty() {
                    bare.push(format!("{path}.{key}"));
                }
            }
        }
        let schema = yaml::schema(broker_properties());
        let mut bare = Vec::new();
        walk(&schema, "", &mut bare);
        for (name, part) in schema["$defs"].as_object().unwrap() {
            walk(part, name, &mut bare);
        }
        assert_eq!(bare, Vec::<String>::new());
        // The reader lists what it knows when it meets a key like no other.
        let error = yaml::draft("c", "zzzzzzzzzzzz: 1\n", Path::new("/x")).unwrap_err();
        let known = error.to_string();
        let known = known.split("known here: ").nth(1).unwrap().trim();
        let read: Vec<&str> = known.split(", ").collect();
        let mut listed: Vec<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        listed.sort_unstable();
        let mut read = read;
        read.sort_unstable();
        assert_eq!(listed, read);
    }
}
