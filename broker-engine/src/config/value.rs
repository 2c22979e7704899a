//! The types a property's value may have: how each is read, printed and described to whoever wrote a wrong one.

use std::time::Duration;

/// A type of property value. Text form is Java's, so that a dump can be read back by either engine.
pub trait Value: Sized {
    /// What the type allows, for an error text: `true or false`, `a whole number from 0 to 65535`.
    fn allowed() -> String;
    /// Reads the trimmed text; `None` when it is not [`Value::allowed`].
    fn parse(text: &str) -> Option<Self>;
    /// The text [`Value::parse`] reads back.
    fn print(&self) -> String;
}

impl Value for String {
    fn allowed() -> String {
        "any text".into()
    }
    fn parse(text: &str) -> Option<Self> {
        Some(text.into())
    }
    fn print(&self) -> String {
        self.clone()
    }
}

impl Value for bool {
    fn allowed() -> String {
        "true or false".into()
    }
    fn parse(text: &str) -> Option<Self> {
        // Java's Boolean.parseBoolean ignores case, and takes everything else for false; we refuse everything else.
        if text.eq_ignore_ascii_case("true") {
            Some(true)
        } else if text.eq_ignore_ascii_case("false") {
            Some(false)
        } else {
            None
        }
    }
    fn print(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Value for $number {
            fn allowed() -> String {
                format!("a whole number from {} to {}", <$number>::MIN, <$number>::MAX)
            }
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn print(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
whole_numbers!(u16, u32, u64, i32, i64);

/// Java writes every interval and time-out as milliseconds; so does a row of this type.
impl Value for Duration {
    fn allowed() -> String {
        format!("milliseconds, a whole number from 0 to {}", i64::MAX)
    }
    fn parse(text: &str) -> Option<Self> {
        let ms: u64 = text.parse().ok()?;
        (ms <= i64::MAX as u64).then(|| Duration::from_millis(ms))
    }
    fn print(&self) -> String {
        self.as_millis().to_string()
    }
}

/// Declares an enum whose wire names are Java's constant names.
macro_rules! named_values {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $wire:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vmeta])* $variant),* }
        impl Value for $name {
            fn allowed() -> String {
                [$($wire),*].join(", ")
            }
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($wire => Some($name::$variant),)*
                    _ => None,
                }
            }
            fn print(&self) -> String {
                match self { $($name::$variant => $wire),* }.into()
            }
        }
    };
}

named_values! {
    /// `brokerRole` (`apache/rocketmq: store/.../config/BrokerRole.java`).
    BrokerRole {
        /// Acknowledges without waiting for slaves.
        AsyncMaster = "ASYNC_MASTER",
        /// Waits for `inSyncReplicas` - 1 slaves.
        SyncMaster = "SYNC_MASTER",
        /// Takes its master's log.
        Slave = "SLAVE",
    }
}

named_values! {
    /// `flushDiskType` (`apache/rocketmq: store/.../config/FlushDiskType.java`).
    FlushDiskType {
        /// A send is acknowledged once it is on disk.
        SyncFlush = "SYNC_FLUSH",
        /// A send is acknowledged once it is in the page cache.
        AsyncFlush = "ASYNC_FLUSH",
    }
}

named_values! {
    /// `defaultMessageRequestMode` (`apache/rocketmq: common/.../message/MessageRequestMode.java`).
    RequestMode {
        /// Consumers pull from the queues they are assigned.
        Pull = "PULL",
        /// Consumers pop from any queue.
        Pop = "POP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Value + PartialEq + std::fmt::Debug>(text: &str, value: T) {
        assert_eq!(T::parse(text).as_ref(), Some(&value));
        assert_eq!(T::parse(&value.print()), Some(value));
    }

    #[test]
    fn every_kind_of_value_reads_what_it_prints() {
        check("rmqmaster1", "rmqmaster1".to_string());
        check("TRUE", true);
        check("10911", 10911u16);
        check("-1", -1i64);
        check("3000", Duration::from_secs(3));
        check("SYNC_MASTER", BrokerRole::SyncMaster);
        check("ASYNC_FLUSH", FlushDiskType::AsyncFlush);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused() {
        assert_eq!(bool::parse("yes"), None);
        assert_eq!(u16::parse("70000"), None);
        assert_eq!(BrokerRole::parse("SYSC_MASTER"), None);
        assert_eq!(Duration::parse("3s"), None);
    }
}
