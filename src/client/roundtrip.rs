//! A message through a broker and back: what nothing else proves of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Peer;
use super::message::{Draft, Pull, Pulled, UniqueIds, sent};

/// Sends a message to the topic that the broker has under its own name, and pulls it again; how long that took. It must come back
/// within `each`.
pub async fn roundtrip(address: &str, broker: &str, each: Duration) -> Result<Duration, String> {
    let began = SystemTime::now();
    tokio::time::timeout(each, through(address, broker, began))
        .await
        .unwrap_or_else(|_| Err(format!("{address}: no message came back within {each:?}")))?;
    Ok(began.elapsed().unwrap_or_default())
}

async fn through(address: &str, broker: &str, born: SystemTime) -> Result<(), String> {
    let at = |why: String| format!("{address}: {why}");
    let born = born.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(born.as_millis()).unwrap_or(i64::MAX);
    let message = Draft {
        topic: broker.to_owned(),
        body: format!("rmqctl roundtrip {}", born.as_nanos()).into(),
        properties: Vec::new(),
    };
    let mut peer = Peer::connect(address).await.map_err(at)?;
    let unique = UniqueIds::new(now).next(now);
    let taken = peer.call(message.send(0, &unique, now)).await.map_err(at)?;
    let taken = sent(&taken, broker, address, unique).map_err(|fault| fault.to_string())?;
    let pull = Pull {
        topic: broker,
        queue: 0,
        offset: taken.offset,
        max: 1,
        filter: "*",
        hold: None,
    };
    let answer = peer.call(pull.request()).await.map_err(at)?;
    let came = Pulled::read(&answer, address)
        .and_then(|pulled| pulled.messages(broker, address))
        .map_err(|fault| fault.to_string())?;
    match came.first() {
        Some(came) if came.body == message.body => Ok(()),
        Some(_) => Err(at("another message came back than was sent".to_owned())),
        None => Err(at("what it took does not come back".to_owned())),
    }
}
