//! One broker that something is done to under load, with the ledger of what it promised.

use crate::ledger::{Expect, Ledger};
use crate::message::{QUEUES_PER_TOPIC, Queue};
use crate::node::{Node, Part};
use crate::wire::Broker;
use crate::{Common, Outcome, rebuild};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::{Command, ExtFields};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The broker, how it is asked, and what it promised since it began.
pub struct Trial {
    pub node: Node,
    pub broker: Broker,
    pub ledger: Arc<Ledger>,
    pub began: Instant,
}

impl Trial {
    /// Starts a broker and makes its topics.
    pub async fn begin(
        common: &Common,
        dir: &Path,
        properties: &[(&str, String)],
    ) -> Outcome<Trial> {
        let mut node = Node::new(&common.rmqctl, dir, Part::Broker, common.port, properties)?;
        let broker = Broker::at(node.address());
        let began = Instant::now();
        node.start().await?;
        make_topics(&broker).await?;
        Ok(Trial {
            node,
            broker,
            ledger: Arc::default(),
            began,
        })
    }

    /// Queues and index of the broker, which does not run, beside a rebuild at `copy`; how many entries and keys were compared.
    pub fn compare(&self, round: usize, copy: &Path) -> Outcome<(usize, usize)> {
        let options = self.node.config()?.store_options();
        rebuild::compare(&options, &self.ledger, copy)
            .map_err(|error| format!("round {round}, compared with a rebuild: {error}").into())
    }

    /// The broker, which was taken down at `down`, holds what it promised.
    pub async fn holds(&self, round: usize, down: Instant, expect: Expect) -> Outcome<()> {
        let held = self.ledger.check(&self.broker, down, expect).await;
        held.map_err(|error| format!("round {round}: {error}\n{}", self.node.tail()).into())
    }

    /// So little acknowledged that it shows nothing is a failure as well.
    pub fn shows_something(&self, rounds: usize) -> Outcome<()> {
        if self.ledger.counts().acknowledged < 10 * rounds as u64 {
            return Err("hardly anything was acknowledged: this shows nothing".into());
        }
        Ok(())
    }
}

/// Makes the topics, so that no round begins without them.
pub async fn make_topics(broker: &Broker) -> Outcome<()> {
    for first in Queue::all().step_by(QUEUES_PER_TOPIC.into()) {
        let answer = broker.call(topic(&first.topic())).await?;
        if answer.code != response::SUCCESS {
            return Err(format!(
                "making a topic was answered {}: {:?}",
                answer.code, answer.remark
            )
            .into());
        }
    }
    Ok(())
}

/// UPDATE_AND_CREATE_TOPIC.
pub fn topic(name: &str) -> Command {
    let ext = ExtFields::new()
        .with("topic", name)
        .with("defaultTopic", "TBW102")
        .with("readQueueNums", QUEUES_PER_TOPIC)
        .with("writeQueueNums", QUEUES_PER_TOPIC)
        .with("perm", 6)
        .with("topicFilterType", "SINGLE_TAG")
        .with("topicSysFlag", 0)
        .with("order", false);
    Command::request(request::UPDATE_AND_CREATE_TOPIC, ext)
}
