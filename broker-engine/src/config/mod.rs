//! Properties of a broker and a name server: each is one row (wire name, type, default, doc, live or not).
//! Field names are the Java names in snake_case.

mod broker;
mod namesrv;
mod rows;
mod value;
mod without_effect;

pub use broker::BrokerConfig;
pub use namesrv::NamesrvConfig;
pub use rows::{
    ConfigError, Known, Loaded, Properties, Property, UpdateError, Warning, known, load, parse,
    to_text, update,
};
pub use value::{BrokerRole, FlushDiskType, RequestMode, Value};

use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

/// A config that may change while the node runs: readers take a snapshot, one update at a time replaces it.
#[derive(Debug)]
pub struct Live<C> {
    current: RwLock<Arc<C>>,
    updating: Mutex<()>,
}

impl<C: Properties> Live<C> {
    /// Starts from what the file held.
    pub fn new(config: C) -> Self {
        Live {
            current: RwLock::new(Arc::new(config)),
            updating: Mutex::new(()),
        }
    }
    /// The values of now. Take it once per request.
    pub fn get(&self) -> Arc<C> {
        self.current.read().clone()
    }
    /// Applies properties text from the wire ([`update`]); returns the names that changed.
    pub fn update(&self, text: &[u8]) -> Result<Vec<String>, UpdateError> {
        let _one_at_a_time = self.updating.lock();
        let (next, changed) = update(&*self.get(), text)?;
        *self.current.write() = Arc::new(next);
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(text: &str) -> Result<Loaded<BrokerConfig>, String> {
        parse("broker-a.properties", text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest_at_its_default() {
        let loaded = broker("# a comment\nbrokerName=broker-b\n brokerIP1 = rmqmaster2 \nlistenPort=13911\ndeleteWhen=04\n").unwrap();
        let expected = BrokerConfig {
            broker_name: "broker-b".into(),
            broker_ip1: "rmqmaster2".into(),
            listen_port: 13911,
            ..BrokerConfig::default()
        };
        assert_eq!(loaded.config, expected);
        assert_eq!(loaded.warnings, vec![]);
    }

    #[test]
    fn an_unknown_key_is_a_warning_that_names_it_and_the_nearest() {
        let warnings: Vec<String> =
            broker("brokerRolle=SLAVE\nsendMessageThreadPoolNums=4\nzzz=1\n")
                .unwrap()
                .warnings
                .iter()
                .map(Warning::to_string)
                .collect();
        assert_eq!(
            warnings,
            [
                "broker-a.properties:1: brokerRolle: unknown property, ignored; did you mean brokerRole?",
                "broker-a.properties:2: sendMessageThreadPoolNums: RocketMQ's Java engine has it; this one accepts it without effect",
                "broker-a.properties:3: zzz: unknown property, ignored",
            ]
        );
    }

    #[test]
    fn a_wrong_value_is_an_error_with_place_and_allowed_values() {
        assert_eq!(
            broker("brokerId=0\nbrokerRole=SYSC_MASTER\n").unwrap_err(),
            "broker-a.properties:2: brokerRole is \"SYSC_MASTER\"; allowed: ASYNC_MASTER, SYNC_MASTER, SLAVE"
        );
    }

    #[test]
    fn a_slave_with_id_0_is_refused() {
        assert_eq!(
            broker("brokerRole=SLAVE\n").unwrap_err(),
            "broker-a.properties: brokerRole=SLAVE needs brokerId > 0, it is 0"
        );
    }

    #[test]
    fn the_dump_reads_back_as_the_same_config() {
        let config = broker("brokerName=broker-b\nslaveTimeout=1234\nflushDiskType=SYNC_FLUSH\n")
            .unwrap()
            .config;
        let again = broker(&to_text(&config)).unwrap();
        assert_eq!(again.config, config);
        assert_eq!(again.warnings, vec![]);
    }

    #[test]
    fn an_update_changes_live_properties_only_and_all_or_nothing() {
        let live = Live::new(BrokerConfig::default());
        assert_eq!(
            live.update(b"maxMessageSize=1024\nbrokerName=broker-a\n"),
            Ok(vec!["maxMessageSize".into()])
        );
        assert_eq!(
            live.update(b"maxMessageSize=2048\nstorePathRootDir=/etc\n"),
            Err(UpdateError::NotLive("storePathRootDir".into()))
        );
        assert_eq!(
            live.update(b"rocketmqHome=/tmp\n"),
            Err(UpdateError::NotLive("rocketmqHome".into()))
        );
        assert_eq!(live.get().max_message_size, 1024);
    }

    #[test]
    fn no_name_is_declared_twice() {
        fn check<C: Properties>() {
            let mut names: Vec<&str> = C::rows()
                .iter()
                .map(|row| row.name)
                .chain(C::without_effect().iter().copied())
                .collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
        check::<BrokerConfig>();
        check::<NamesrvConfig>();
    }
}
