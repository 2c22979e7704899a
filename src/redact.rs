//! Takes secrets out of what leaves this machine: a report is read by strangers.

/// What stands where a secret stood.
const HIDDEN: &str = "***";

/// Names whose values are secrets, in lower case; a name that contains one counts.
const SECRET_NAMES: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "token",
    "credential",
    "accesskey",
    "access_key",
    "privatekey",
    "private_key",
    "apikey",
    "api_key",
];

/// Whether a property, variable or field of this name holds a secret.
pub fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    SECRET_NAMES.iter().any(|secret| lower.contains(secret))
}

/// Text without the values of `name=value`, `name: value` and `"name":"value"` whose names are secrets.
pub fn text(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        rest = after;
        let name = before[..at].trim_end_matches(['"', '\'', ' ']);
        let start = name
            .rfind(|c: char| !(c.is_alphanumeric() || "._-".contains(c)))
            .map_or(0, |at| {
                at + name[at..].chars().next().map_or(1, char::len_utf8)
            });
        if !is_secret(&name[start..]) {
            continue;
        }
        let value = rest.trim_start_matches([' ', '"', '\'']);
        let quoted = rest[..rest.len() - value.len()].contains(['"', '\'']);
        out.push_str(&rest[..rest.len() - value.len()]);
        // A value that is not quoted may hold anything up to the line's end in a properties file: blanks end it only where more
        // fields of a log line follow.
        let end = match quoted {
            true => value.find(['"', '\'', '\n']),
            false => value.find([' ', ',', '}', '\n', '\r', '\t']),
        };
        out.push_str(HIDDEN);
        rest = &value[end.unwrap_or(value.len())..];
    }
    out.push_str(rest);
    out
}

/// Hides the values of fields whose names are secrets, and secrets in texts, all the way down.
pub fn json(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(_) | Value::Number(_) if is_secret(name) => {
                        *value = HIDDEN.into();
                    }
                    other => json(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::String(string) => *string = text(string),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_all_else_stays() {
        let cases = [
            (
                "secretKey=abc123\nbrokerId=0\n",
                "secretKey=***\nbrokerId=0\n",
            ),
            (
                "rocketmq.client.accessKey = a b",
                "rocketmq.client.accessKey = *** b",
            ),
            (
                r#"{"password":"a b","user":"x"}"#,
                r#"{"password":"***","user":"x"}"#,
            ),
            (
                "INFO login token=abc user=bob",
                "INFO login token=*** user=bob",
            ),
            (
                "http://127.0.0.1:8181/ listens",
                "http://127.0.0.1:8181/ listens",
            ),
            (
                "16:40:06 registered broker=\"a\"",
                "16:40:06 registered broker=\"a\"",
            ),
        ];
        for (from, to) in cases {
            assert_eq!(text(from), to);
        }
    }

    #[test]
    fn secrets_in_documents_go_at_every_depth() {
        let mut value = serde_json::json!({
            "env": {"ROCKETMQ_SECRET": "abc", "TZ": "UTC"},
            "command": ["engine", "--token=abc"],
            "tokens": {"kept": 1},
        });
        json(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "env": {"ROCKETMQ_SECRET": "***", "TZ": "UTC"},
                "command": ["engine", "--token=***"],
                "tokens": {"kept": 1},
            })
        );
    }
}
