//! Timer messages: delivered at a time the message names itself. Until then they lie in `rmq_sys_wheel_timer`, and which of them
//! comes when is in the wheel ([`rocketmq_store::timer`]).
//!
//! One task takes in what comes to the timer topic, loads a slot of the wheel (one second) when it begins, and delivers each of
//! its messages at its own millisecond: never before the time asked for. A slot of Java's holds what is due in the second
//! *behind* it; TIMER_OUT_MS is the slot's begin. What lies beyond [`WINDOW`] goes round: at the window's end it is put to the
//! timer topic anew. After a kill the wheel is made again from the timer topic's queue, and what was due before the last
//! checkpoint is not delivered again. A slave only copies how far its master is.
//! Source: `apache/rocketmq: broker/.../util/HookUtils.java`, `store/.../timer/TimerMessageStore.java`.

mod recall;
mod wheel;

pub(super) use wheel::run;

use super::Broker;
use super::refusal::Refusal;
use super::send::Place;
use crate::clock;
use crate::log::Arrival;
use rocketmq_protocol::code::response;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::topic;
use rocketmq_store::Reader;
use rocketmq_store::timer::{self, Progress, SLOT_MS};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// The one queue of the timer topic.
const QUEUE: i32 = 0;
/// How far ahead the wheel holds messages (`timerRollWindowSlot`).
const WINDOW: Duration = Duration::from_secs(2 * 24 * 3600);

/// What the rest of the broker knows of the timer.
#[derive(Debug, Default)]
pub struct Timer {
    arrived: Notify,
    /// As in [`rocketmq_store::timer::Progress`], for slaves that ask (60) and for the runtime info.
    pub read_ms: AtomicI64,
    /// The next entry of the timer topic's queue to read.
    pub queue_offset: AtomicI64,
    /// What was due by then, and came to the timer topic before, is delivered; ms.
    delivered_ms: watch::Sender<i64>,
    /// Messages that wait.
    pub waiting: AtomicI64,
}

/// What tools are told of the timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimerState {
    /// How long ago the wheel should have gone on, s.
    pub behind_s: i64,
    /// Messages of the timer topic that the wheel has not seen.
    pub not_taken_in: i64,
    /// Messages whose time has not come.
    pub waiting: i64,
}

impl Timer {
    /// Messages have arrived (told by whoever appended them).
    pub(super) fn on_arrivals(&self, arrivals: &[Arrival]) {
        if arrivals
            .iter()
            .any(|arrival| *arrival.topic == *topic::TIMER)
        {
            self.arrived.notify_one();
        }
    }

    /// Resolves with a time by which all that was due is delivered: now, or an earlier one when that takes longer than `patience`.
    pub(super) async fn delivered(&self, patience: Duration) -> i64 {
        let now = clock::now_ms();
        let mut told = self.delivered_ms.subscribe();
        self.arrived.notify_one();
        let _ = tokio::time::timeout(patience, told.wait_for(|ms| *ms >= now)).await;
        *self.delivered_ms.borrow()
    }

    /// How far the timer is, for tools.
    pub(super) fn state(&self, store: &Reader, now_ms: i64) -> TimerState {
        let waiting = self.waiting.load(Ordering::Acquire);
        let read_ms = self.read_ms.load(Ordering::Acquire);
        let taken_in = self.queue_offset.load(Ordering::Acquire);
        TimerState {
            // With nothing to deliver the wheel stands still.
            behind_s: if waiting > 0 {
                (now_ms - read_ms).max(0) / 1000
            } else {
                0
            },
            not_taken_in: (store.queue_bounds(topic::TIMER, QUEUE).1 - taken_in).max(0),
            waiting,
        }
    }

    /// GET_TIMER_CHECK_POINT (60): seven numbers (`TimerCheckpoint.encode`).
    pub(super) fn check_point(&self) -> Vec<u8> {
        let offset = self.queue_offset.load(Ordering::Acquire);
        let read_ms = self.read_ms.load(Ordering::Acquire);
        [read_ms, 0, offset, offset, 0, 0, 0]
            .map(i64::to_be_bytes)
            .concat()
    }
}

/// When a message with these properties asks to be delivered, ms: `Ok(None)` when it asks for nothing.
fn asked_ms(text: &str, now_ms: i64) -> Result<Option<i64>, ()> {
    let read =
        |name: &str| properties::get(text, name).map(|value| value.parse::<i64>().map_err(|_| ()));
    if let Some(seconds) = read(name::TIMER_DELAY_SEC) {
        return Ok(Some(now_ms.saturating_add(seconds?.saturating_mul(1000))));
    }
    if let Some(ms) = read(name::TIMER_DELAY_MS) {
        return Ok(Some(now_ms.saturating_add(ms?)));
    }
    read(name::TIMER_DELIVER_MS).transpose()
}

/// The slot of a time: it begins before the time, by one whole slot when the time is a slot's begin.
fn slot_of(asked_ms: i64) -> i64 {
    let slot = asked_ms - asked_ms.rem_euclid(SLOT_MS);
    if slot == asked_ms {
        slot - SLOT_MS
    } else {
        slot
    }
}

impl Broker {
    /// Slave: keeps what its master answered to 60.
    pub(super) fn note_timer_progress(&self, body: &[u8]) -> Result<(), String> {
        let number = |at: usize| {
            body.get(at * 8..at * 8 + 8)
                .and_then(|bytes| bytes.try_into().ok())
                .map(i64::from_be_bytes)
        };
        let (Some(read_ms), Some(queue_offset)) = (number(0), number(2)) else {
            return Err(format!(
                "{} bytes are no timer check point: 7 numbers of 8 bytes",
                body.len()
            ));
        };
        let progress = Progress {
            read_ms,
            queue_offset,
            // Slots before `read_ms` are delivered, and each holds what is due in the second behind it.
            delivered_ms: read_ms,
        };
        let root = self.config.get().store_path_root_dir.clone();
        timer::note_masters_progress(root.as_ref(), progress).map_err(|error| error.to_string())
    }

    /// Puts a message that names its time of delivery among those that wait (`HookUtils.transformTimerMessage`); one whose time has
    /// come, or that was timed before, stays where it is.
    pub(super) fn timed<'t>(&self, place: Place<'t>) -> Result<Place<'t>, Refusal> {
        let config = self.config.get();
        if !config.timer_wheel_enable {
            return Err(Refusal::system_error(
                "accurate timer message is not enabled, timerWheelEnable is false",
            ));
        }
        if properties::get(&place.properties, name::TIMER_OUT_MS).is_some() {
            return Ok(place);
        }
        let max_ms = (config.timer_max_delay_sec as i64).saturating_mul(1000);
        let illegal = || {
            Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!(
                    "timer message illegal, the delay time should not be bigger than the max delay {max_ms}ms; or if set del msg, the delay time should be bigger than the current time"
                ),
            )
        };
        let now = clock::now_ms();
        let Some(asked) = asked_ms(&place.properties, now).map_err(|()| illegal())? else {
            return Ok(place);
        };
        if asked <= now {
            return if properties::get(&place.properties, name::TIMER_DEL_UNIQKEY).is_some() {
                Err(illegal())
            } else {
                Ok(place)
            };
        }
        if asked - now > max_ms {
            return Err(illegal());
        }
        let text = properties::edit(
            &place.properties,
            &[
                (name::TIMER_OUT_MS, &slot_of(asked).to_string()),
                (name::REAL_TOPIC, &place.topic),
                (name::REAL_QID, &place.queue_id.to_string()),
            ],
            &[],
        );
        Ok(Place {
            topic: Arc::from(topic::TIMER),
            queue_id: QUEUE,
            properties: text.into(),
        })
    }
}

impl Broker {
    /// The same for what the broker itself puts: only a message that asks for a time is looked at more closely.
    pub(super) fn timed_if_asked<'t>(&self, place: Place<'t>) -> Result<Place<'t>, Refusal> {
        match asked_ms(&place.properties, 0) {
            Ok(None) => Ok(place),
            _ => self.timed(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, value: &str) -> String {
        let mut text = String::new();
        properties::push(&mut text, name, value);
        text
    }

    #[test]
    fn a_message_asks_by_seconds_by_milliseconds_or_by_a_time() {
        assert_eq!(
            asked_ms(&text(name::TIMER_DELAY_SEC, "3"), 500),
            Ok(Some(3500))
        );
        assert_eq!(
            asked_ms(&text(name::TIMER_DELAY_MS, "3"), 500),
            Ok(Some(503))
        );
        assert_eq!(
            asked_ms(&text(name::TIMER_DELIVER_MS, "3"), 500),
            Ok(Some(3))
        );
        assert_eq!(asked_ms(&text(name::TIMER_DELIVER_MS, "x"), 500), Err(()));
        assert_eq!(asked_ms("", 500), Ok(None));
    }

    #[test]
    fn a_slot_begins_before_every_time_in_it() {
        assert_eq!(
            [5001, 5999, 6000, 6001].map(slot_of),
            [5000, 5000, 5000, 6000]
        );
    }
}
