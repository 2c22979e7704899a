//! What a slave copies beside the log and the tables of `topic` and `group`: 43, 45, 402, 60, 61; and how copying goes: 907, 1007.

use super::Answer;
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use rocketmq_protocol::Command;
use rocketmq_protocol::body::TimerMetricsSerializeWrapper;
use rocketmq_protocol::code::response;

/// GET_ALL_CONSUMER_OFFSET (43).
pub(super) fn consumer_offsets(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(broker.offsets.wire_text()))
}

/// GET_ALL_DELAY_OFFSET (45).
pub(super) fn delay_offsets(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(broker.schedule.text()))
}

/// GET_ALL_MESSAGE_REQUEST_MODE (402).
pub(super) fn message_request_modes(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(broker.assignments.wire_text()))
}

/// GET_TIMER_CHECK_POINT (60).
pub(super) fn timer_check_point(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(broker.timer.check_point()))
}

/// GET_TIMER_METRICS (61): no topic has timed messages.
pub(super) fn timer_metrics(_: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&TimerMetricsSerializeWrapper::default())))
}

/// GET_BROKER_HA_STATUS (907).
pub(super) fn ha_status(broker: &Broker, command: &Command) -> Answer {
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&broker.ha_status())))
}

/// GET_BROKER_EPOCH_CACHE (1007): only a broker that a controller governs has epochs, and this engine has none.
pub(super) fn epochs(_: &Broker, _: &Command) -> Answer {
    Err(Refusal::system_error(
        "this request only for controllerMode ",
    ))
}
