//! Topics of the spec: made when the brokers are ready, so that no client meets a cluster without them.

use std::time::{Duration, SystemTime};

use rocketmq_protocol::body::TopicConfig;
use rocketmq_protocol::topic::perm;

use super::Session;
use super::up::Resolved;
use crate::client::admin::Admin;
use crate::client::join;
use crate::error::{Error, Exit};
use crate::ready::{self, Wait};
use crate::spec::TopicSpec;
use crate::topology::{Desired, Node, Role};

/// Makes what the spec names and a master lacks, and waits until every name server has a route for it. A topic with more queues
/// than asked for keeps them: what is in them would be out of reach.
pub async fn make(resolved: &Resolved, left: Duration, session: &Session<'_>) -> Result<(), Error> {
    let (spec, desired) = (&resolved.spec, &resolved.desired);
    if spec.topics.is_empty() {
        return Ok(());
    }
    let mut made: Vec<String> = Vec::new();
    let mut admin = Admin::new(desired.namesrv_addrs());
    let masters = desired.nodes.iter().filter(|n| n.role == Role::Master);
    for master in masters {
        let topics = on_broker(master, desired, &spec.topics, &mut admin)
            .await
            .map_err(|why| {
                Error::new(
                    "RMQ-E046",
                    Exit::NotReady,
                    format!("topics could not be made on {}", master.name),
                )
                .detail(why)
                .detail("the cluster stands, without some of its topics")
                .hint(session.goes_on())
            })?;
        made.extend(
            topics
                .into_iter()
                .map(|t| format!("{t} on {}", master.name)),
        );
    }
    for topic in made {
        session.ui.done("topic", &topic);
    }
    let names: Vec<String> = spec.topics.iter().map(|topic| topic.name.clone()).collect();
    let wait = Wait {
        runtime: resolved.runtime.as_ref(),
        desired,
        names: &[],
        synced: false,
        timeout: left,
        since: SystemTime::now(),
        interrupt: &session.interrupt,
        on_ready: &|_, _, _| {},
    };
    ready::wait_for_topics(&wait, &names).await
}

/// Makes the missing ones of these on one master; returns each with its queues.
async fn on_broker(
    master: &Node,
    desired: &Desired,
    topics: &[TopicSpec],
    admin: &mut Admin,
) -> Result<Vec<String>, String> {
    let broker = master.broker.as_ref().map_or("", |b| b.name.as_str());
    let port = master.port("main").and_then(|port| port.host);
    let port = port.ok_or_else(|| format!("{} publishes no port", master.name))?;
    let address = join(&desired.advertise, port);
    let known = admin.topic_configs(&address).await;
    let known = known.map_err(|fault| fault.to_string())?.topic_config_table;
    let mut made = Vec::new();
    let wanted = topics
        .iter()
        .filter(|topic| topic.brokers.is_empty() || topic.brokers.iter().any(|b| b == broker));
    for topic in wanted {
        let has = known.get(topic.name.as_str());
        let queues = i32::try_from(topic.queues).unwrap_or(i32::MAX);
        let enough = has.is_some_and(|has| has.read_queue_nums.min(has.write_queue_nums) >= queues);
        if !enough {
            let config = TopicConfig::new(&*topic.name, queues, perm::READ | perm::WRITE);
            let put = admin.put_topic(&address, &config).await;
            put.map_err(|fault| fault.to_string())?;
            made.push(format!("{}, {} queues", topic.name, topic.queues));
        }
    }
    Ok(made)
}
