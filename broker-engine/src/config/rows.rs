//! Rows: a property is declared once, with its wire name, type, default, doc and whether it may change while running.
//! Reading a file, its warnings and errors, the dump and the live allow-list all come from the rows.

use java_properties::{LineContent, PropertiesIter};
use std::fmt;
use std::path::Path;

/// What is known of one property; for `lint`, help and documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Java's name, as in the file and on the wire.
    pub name: &'static str,
    /// The default, as it would stand in a file.
    pub default: String,
    /// What values are allowed.
    pub allowed: String,
    /// One line: what it is for.
    pub doc: &'static str,
    /// Whether UPDATE_BROKER_CONFIG (25) or UPDATE_NAMESRV_CONFIG (318) may set it in a running node.
    pub live: bool,
}

/// A set of properties: what [`crate::config::BrokerConfig`] and [`crate::config::NamesrvConfig`] have in common.
pub trait Properties: Clone + Default {
    /// All rows, in the order they are declared.
    fn rows() -> Vec<Property>;
    /// Names that RocketMQ's Java engine knows and this one accepts without effect.
    fn without_effect() -> &'static [&'static str];
    /// Sets one property from text. `None`: no such property; `Some(Err(allowed))`: not a value of its kind.
    fn set(&mut self, name: &str, value: &str) -> Option<Result<(), String>>;
    /// All properties as `(name, text)`, in the order they are declared.
    fn texts(&self) -> Vec<(&'static str, String)>;
    /// Rules between properties; the error says which and why.
    fn check(&self) -> Result<(), String>;
}

/// Declares a config struct from its rows.
macro_rules! properties {
    (
        $(#[$meta:meta])* $config:ident, without effect: $without_effect:expr;
        $($wire:literal $field:ident: $kind:ty = $default:expr, $live:ident, $doc:literal;)*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $config { $(#[doc = concat!("`", $wire, "`: ", $doc)] pub $field: $kind,)* }

        impl Default for $config {
            fn default() -> Self {
                $config { $($field: $default,)* }
            }
        }

        impl $crate::config::Properties for $config {
            fn rows() -> Vec<$crate::config::Property> {
                let defaults = $config::default();
                vec![$($crate::config::Property {
                    name: $wire,
                    default: $crate::config::Value::print(&defaults.$field),
                    allowed: <$kind as $crate::config::Value>::allowed(),
                    doc: $doc,
                    live: properties!(@live $live),
                },)*]
            }
            fn without_effect() -> &'static [&'static str] {
                $without_effect
            }
            fn set(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
                match name {
                    $($wire => Some(match <$kind as $crate::config::Value>::parse(value) {
                        Some(value) => {
                            self.$field = value;
                            Ok(())
                        }
                        None => Err(<$kind as $crate::config::Value>::allowed()),
                    }),)*
                    _ => None,
                }
            }
            fn texts(&self) -> Vec<(&'static str, String)> {
                vec![$(($wire, $crate::config::Value::print(&self.$field)),)*]
            }
            fn check(&self) -> Result<(), String> {
                $config::rules(self)
            }
        }
    };
    (@live live) => { true };
    (@live fixed) => { false };
}
pub(super) use properties;

/// How a name stands to the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is a property of this engine.
    Property(Property),
    /// RocketMQ's Java engine has it; here it changes nothing.
    WithoutEffect,
    /// Nobody has it; the nearest name, if one is near.
    Unknown(Option<&'static str>),
}

/// Looks a name up.
pub fn known<C: Properties>(name: &str) -> Known {
    let rows = C::rows();
    if let Some(row) = rows.iter().find(|row| row.name == name) {
        return Known::Property(row.clone());
    }
    if C::without_effect().contains(&name) {
        return Known::WithoutEffect;
    }
    let nearest = rows
        .iter()
        .map(|row| row.name)
        .chain(C::without_effect().iter().copied())
        .map(|candidate| {
            (
                strsim::osa_distance(&candidate.to_lowercase(), &name.to_lowercase()),
                candidate,
            )
        })
        .min();
    // A third of the letters wrong is still a slip; more is another word.
    Known::Unknown(
        nearest
            .filter(|(distance, _)| *distance <= 1 + name.len() / 3)
            .map(|(_, candidate)| candidate),
    )
}

/// Something in a file that changes nothing and that its writer should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The file, or what else the text came from.
    pub source: String,
    /// Line, from 1.
    pub line: usize,
    /// The key as written.
    pub key: String,
    /// What is the matter.
    pub what: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.source, self.line, self.key, self.what
        )
    }
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("reading {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not properties text.
    #[error("{origin}:{line}: {what}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A value is not of its property's kind.
    #[error("{origin}:{line}: {key} is {value:?}; allowed: {allowed}")]
    Value {
        /// The file.
        origin: String,
        /// Line, from 1.
        line: usize,
        /// The property.
        key: String,
        /// What it held.
        value: String,
        /// What it may hold.
        allowed: String,
    },
    /// Properties that do not go together.
    #[error("{origin}: {what}")]
    Rule {
        /// The file.
        origin: String,
        /// Which, and why.
        what: String,
    },
}

/// A config and what was odd in its file.
#[derive(Clone, Debug)]
pub struct Loaded<C> {
    /// The values.
    pub config: C,
    /// Unknown keys and keys without effect.
    pub warnings: Vec<Warning>,
}

/// Reads a properties file over the defaults.
pub fn load<C: Properties>(path: &Path) -> Result<Loaded<C>, ConfigError> {
    let origin = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| ConfigError::Read {
        path: origin.clone(),
        source,
    })?;
    parse(&origin, &bytes)
}

/// Reads properties text over the defaults. `origin` names it in warnings and errors.
pub fn parse<C: Properties>(origin: &str, text: &[u8]) -> Result<Loaded<C>, ConfigError> {
    let mut config = C::default();
    let mut warnings = vec![];
    for line in PropertiesIter::new(text) {
        let line = line.map_err(|error| ConfigError::Syntax {
            origin: origin.into(),
            line: error.line_number().unwrap_or(0),
            what: error.to_string(),
        })?;
        let number = line.line_number();
        let LineContent::KVPair(key, value) = line.consume_content() else {
            continue;
        };
        match config.set(&key, value.trim()) {
            Some(Ok(())) => {}
            Some(Err(allowed)) => {
                return Err(ConfigError::Value {
                    origin: origin.into(),
                    line: number,
                    key,
                    value,
                    allowed,
                });
            }
            None => {
                let what = match known::<C>(&key) {
                    Known::WithoutEffect => {
                        "RocketMQ's Java engine has it; this one accepts it without effect".into()
                    }
                    Known::Unknown(Some(nearest)) => {
                        format!("unknown property, ignored; did you mean {nearest}?")
                    }
                    _ => "unknown property, ignored".into(),
                };
                warnings.push(Warning {
                    source: origin.into(),
                    line: number,
                    key,
                    what,
                });
            }
        }
    }
    config.check().map_err(|what| ConfigError::Rule {
        origin: origin.into(),
        what,
    })?;
    Ok(Loaded { config, warnings })
}

/// All properties as `name=value` lines, as GET_BROKER_CONFIG (26) and GET_NAMESRV_CONFIG (319) answer.
pub fn to_text<C: Properties>(config: &C) -> String {
    let mut text = String::new();
    for (name, value) in config.texts() {
        text.push_str(name);
        text.push('=');
        text.push_str(&value);
        text.push('\n');
    }
    text
}

/// Why UPDATE_BROKER_CONFIG (25) or UPDATE_NAMESRV_CONFIG (318) changed nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UpdateError {
    /// Not on the allow-list: code 16.
    #[error("{0} cannot be changed in a running node: it is not on the list of live properties")]
    NotLive(String),
    /// Nothing has this name: code 16 as well, since it is not on the list either.
    #[error("{0} is no property of this engine")]
    Unknown(String),
    /// The value, or its company, is wrong: code 29.
    #[error("{0}")]
    Value(String),
}

/// Applies properties text from the wire. Only live properties may change; a key that keeps its value passes.
/// All or nothing: returns the new config and the names that changed.
///
/// An allow-list, because Java's deny-list let a path and a command line through (CVE-2023-33246, CVE-2023-37582).
pub fn update<C: Properties>(current: &C, text: &[u8]) -> Result<(C, Vec<String>), UpdateError> {
    let mut next = current.clone();
    let mut changed = vec![];
    let rows = C::rows();
    for line in PropertiesIter::new(text) {
        let line = line.map_err(|error| {
            UpdateError::Value(format!("the properties text does not parse: {error}"))
        })?;
        let LineContent::KVPair(key, value) = line.consume_content() else {
            continue;
        };
        let value = value.trim();
        let Some(row) = rows.iter().find(|row| row.name == key) else {
            return Err(if C::without_effect().contains(&key.as_str()) {
                UpdateError::NotLive(key)
            } else {
                UpdateError::Unknown(key)
            });
        };
        let mut one = next.clone();
        match one.set(&key, value) {
            Some(Ok(())) => {}
            _ => {
                return Err(UpdateError::Value(format!(
                    "{key} is {value:?}; allowed: {}",
                    row.allowed
                )));
            }
        }
        if one.texts() == next.texts() {
            continue;
        }
        if !row.live {
            return Err(UpdateError::NotLive(key));
        }
        next = one;
        changed.push(key);
    }
    next.check().map_err(UpdateError::Value)?;
    Ok((next, changed))
}
