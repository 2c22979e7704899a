//! Which engine the brokers and name servers run.

use serde::{Deserialize, Serialize};

/// The engine of brokers and name servers. The console is ours with either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// This binary's own.
    #[default]
    Bundled,
    /// Apache's, in an image laid out as `apache/rocketmq` is.
    Apache(String),
}

/// Apache's images on Docker Hub, and the tag that is taken when none is said.
const REPOSITORY: &str = "apache/rocketmq";
const TAG: &str = "5.3.3";

impl Engine {
    /// Reads `bundled`, `apache` or `apache:TAG`.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let is_tag = |tag: &str| {
            (1..=128).contains(&tag.len())
                && !tag.starts_with(['.', '-'])
                && tag
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        match typed.split_once(':') {
            None if typed == "bundled" => Ok(Engine::Bundled),
            None if typed == "apache" => Ok(Engine::Apache(format!("{REPOSITORY}:{TAG}"))),
            Some(("apache", tag)) if is_tag(tag) => {
                Ok(Engine::Apache(format!("{REPOSITORY}:{tag}")))
            }
            _ => Err(format!(
                "`{typed}` is not an engine: bundled, apache or apache:{TAG}"
            )),
        }
    }

    /// Whether it is this binary's own.
    pub fn is_bundled(&self) -> bool {
        *self == Engine::Bundled
    }

    /// Its image, where it is not this binary's own.
    pub fn image(&self) -> Option<&str> {
        match self {
            Engine::Bundled => None,
            Engine::Apache(image) => Some(image),
        }
    }

    /// Seconds that nodes get to be ready: a JVM on a busy machine takes most of a minute.
    pub fn wait_seconds(&self) -> u64 {
        match self {
            Engine::Bundled => 60,
            Engine::Apache(_) => 120,
        }
    }
}

/// What `--image` and `engine.image` say for the image that is made from the running binary.
pub const OWN_IMAGE: &str = "bundled";

/// Reads an image's reference, `registry.example/rmqctl/engine:0.1.0`, or [`OWN_IMAGE`].
pub fn parse_image(typed: &str) -> Result<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    let good = (1..=255).contains(&typed.len())
        && typed.starts_with(|c: char| c.is_ascii_alphanumeric())
        && typed.ends_with(|c: char| c.is_ascii_alphanumeric())
        && typed.chars().all(is_part);
    match good {
        true => Ok(typed.to_owned()),
        false => Err(format!(
            "`{typed}` is no image's reference: registry.example/rmqctl/engine:0.1.0, or {OWN_IMAGE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_reference_and_no_option() {
        for good in [
            "bundled",
            "rmqctl/engine:0.1.0-7c0a8d21",
            "r.example:5000/mq/engine@sha256:00",
        ] {
            assert_eq!(parse_image(good).as_deref(), Ok(good));
        }
        for bad in ["", "-x", "a b", "engine:", "a\nb"] {
            assert!(parse_image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_engine_is_bundled_or_apaches_with_a_tag() {
        assert_eq!(Engine::parse("bundled"), Ok(Engine::Bundled));
        let image = |typed| Engine::parse(typed).map(|e| e.image().map(str::to_owned));
        assert_eq!(image("apache"), Ok(Some("apache/rocketmq:5.3.3".into())));
        assert_eq!(
            image("apache:5.4.0"),
            Ok(Some("apache/rocketmq:5.4.0".into()))
        );
        for wrong in [
            "",
            "java",
            "apache:",
            "apache:a b",
            "bundled:1",
            "apache:-x",
        ] {
            assert!(Engine::parse(wrong).is_err(), "{wrong}");
        }
    }
}
