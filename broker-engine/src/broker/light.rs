//! Light message queues (LMQ): with `enableLmq` a message may name further queues it shall stand in, `%LMQ%…`, in its property
//! INNER_MULTI_DISPATCH. They are made by their first message and need no configuration. Where it stands in each is written when
//! the log takes it ([`rocketmq_store::lmq`]).
//! Source: `apache/rocketmq: store/.../LmqDispatch.java`, `broker/.../topic/LmqTopicConfigManager.java`.

use super::Broker;
use super::refusal::Refusal;
use super::send::Place;
use rocketmq_protocol::code::response;
use rocketmq_protocol::properties::{self, name};
use rocketmq_protocol::topic;
use rocketmq_store::lmq;

impl Broker {
    /// Makes room for the message's places in the light queues it names; one that names none, or may not, stays as it is.
    pub(super) fn in_light_queues<'t>(&self, place: Place<'t>) -> Result<Place<'t>, Refusal> {
        let config = self.config.get();
        if !config.enable_lmq || !topic::allows_lmq(&place.topic) {
            return Ok(place);
        }
        let names: Vec<&str> = lmq::names(&place.properties).collect();
        if names.is_empty() {
            return Ok(place);
        }
        let fits =
            |queue: &&str| topic::is_lmq(queue) && queue.len() <= topic::RETRY_OR_DLQ_LEN_MAX;
        if let Some(bad) = names
            .iter()
            .find(|queue| !fits(queue) || queue.contains('/'))
        {
            return Err(Refusal::new(
                response::MESSAGE_ILLEGAL,
                format!(
                    "{} names {bad:?}: a light queue is {}NAME, at most {} characters, none of them a slash",
                    name::INNER_MULTI_DISPATCH,
                    topic::LMQ_PREFIX,
                    topic::RETRY_OR_DLQ_LEN_MAX
                ),
            ));
        }
        if self.store.light_queues() > config.max_lmq_consume_queue_num as usize {
            return Err(Refusal::system_error(
                "[LMQ_CONSUME_QUEUE_NUM_EXCEEDED]broker config enableLmq and enableMultiDispatch, lmq consumeQueue num exceed maxLmqConsumeQueueNum config num, default limit 2w.",
            ));
        }
        let room = lmq::room(names.len());
        let set = [(name::INNER_MULTI_QUEUE_OFFSET, room.as_str())];
        let text = properties::edit(&place.properties, &set, &[name::WAIT]);
        Ok(Place {
            properties: text.into(),
            ..place
        })
    }
}
