//! The broker's properties over the wire: 26, 25. What may be changed is an allow-list, declared with the properties.

use super::Answer;
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::clock;
use crate::config::{self, UpdateError};
use rocketmq_protocol::code::response;
use rocketmq_protocol::{Command, json};

/// GET_BROKER_CONFIG (26).
pub(super) fn get(broker: &Broker, command: &Command) -> Answer {
    let version = json::to_fastjson(&*broker.desk.config_version.lock());
    let text = config::to_text(&*broker.config.get()) + &facts();
    Ok(command
        .response(response::SUCCESS)
        .with("version", version)
        .with_body(text))
}

/// What tools look for among the properties and is none of this engine's: `exportConfigs` asks for the first, `exportMetrics`
/// takes the second for the number of processors.
fn facts() -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("useTLS=false\nclientCallbackExecutorThreads={processors}\n")
}

/// UPDATE_BROKER_CONFIG (25): all or nothing. A change of `brokerPermission` is told to the name servers at once.
pub(super) fn update(broker: &Broker, command: &Command) -> Answer {
    let changed = broker.config.update(&command.body).map_err(|error| {
        let code = match error {
            UpdateError::NotLive(_) | UpdateError::Unknown(_) => response::NO_PERMISSION,
            UpdateError::Value(_) => response::INVALID_PARAMETER,
        };
        Refusal::new(code, error.to_string())
    })?;
    if !changed.is_empty() {
        broker.desk.config_version.lock().bump(clock::now_ms());
        tracing::info!(
            properties = changed.join(", "),
            "properties changed over the wire"
        );
    }
    if changed.iter().any(|name| name == "brokerPermission") {
        // A name server takes topics over only with a new version of the table.
        broker.topics.renew()?;
    }
    Ok(command.response(response::SUCCESS))
}
