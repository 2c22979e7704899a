//! Request and response bodies: serde structs with the wire's names, members in alphabetical order as fastjson writes them.
//!
//! Read with [`crate::json::from_slice`], which takes fastjson's dialect; a missing or null member is its default. Written with
//! [`encode`] (fastjson's dialect, what Java peers exchange); the same text, on several lines, is what the files under `config/` hold.

mod cluster;
mod consumer;
mod controller;
mod group;
mod ha;
mod offset;
mod queue;
mod register;
mod stats;
mod table;
mod topic;
mod user;

pub use cluster::*;
pub use consumer::*;
pub use controller::*;
pub use group::*;
pub use ha::*;
pub use offset::*;
pub use queue::*;
pub use register::*;
pub use stats::*;
pub use table::*;
pub use topic::*;
pub use user::*;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};

/// A body as bytes, in fastjson's dialect.
pub fn encode<T: Serialize>(body: &T) -> Bytes {
    crate::json::to_fastjson(body).into()
}

/// Reads a number that some clients write as text, as fastjson coerces it.
fn number<'de, D: Deserializer<'de>, T: TryFrom<i64>>(deserializer: D) -> Result<T, D::Error> {
    let Number(number) = Number::deserialize(deserializer)?;
    T::try_from(number)
        .map_err(|_| serde::de::Error::custom(format!("{number} is out of the member's range")))
}

/// Reads a list of numbers, each as [`number`] does.
fn numbers<'de, D: Deserializer<'de>, T: TryFrom<i64>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Vec::<Number>::deserialize(deserializer)?
        .into_iter()
        .map(|Number(number)| {
            T::try_from(number).map_err(|_| {
                serde::de::Error::custom(format!("{number} is out of the member's range"))
            })
        })
        .collect()
}

struct Number(i64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Number;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a number")
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
                i64::try_from(value).map(Number).map_err(E::custom)
            }
            fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Number, E> {
                value.trim().parse().map(Number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// A Java enum: written by name; read by name or, as C++ clients write it, by number. An unknown one reads as the default.
macro_rules! java_enum {
    ($(#[$doc:meta])* $kind:ident default $default:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum $kind {
            $($(#[$variant_doc])* $variant,)*
        }
        impl $kind {
            const ALL: &'static [($kind, &'static str)] = &[$(($kind::$variant, $name),)*];
            /// The wire's name.
            pub fn name(self) -> &'static str {
                match self {
                    $($kind::$variant => $name,)*
                }
            }
        }
        impl Default for $kind {
            fn default() -> Self {
                $kind::$default
            }
        }
        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                let found = match &value {
                    serde_json::Value::String(name) => Self::ALL.iter().find(|(_, n)| n == name),
                    value => value.as_u64().and_then(|n| Self::ALL.get(usize::try_from(n).ok()?)),
                };
                Ok(found.map_or(Self::default(), |(kind, _)| *kind))
            }
        }
    };
}
use java_enum;

#[cfg(test)]
mod tests;
