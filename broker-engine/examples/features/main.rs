//! What the load generator does not do: timed messages, transactions, POP. Against any broker, ours or Java's.
//!
//!     cargo run --release -p broker-engine --example features -- 127.0.0.1:10911 timers 10000
//!     … pending 1000000 [PID]      messages due in a day; PID: the broker's, to read its memory
//!     … pops 100000                pop and acknowledge, then some that nobody acknowledges
//!     … checks 10000               half messages nobody decides: when the broker asks
//!     … leave FILE                 leaves things in flight: timed, delayed, half, popped, sent back; FILE says which
//!     … collect FILE [killed]      finds all of them, perhaps on another engine that took the store over
//!
//! The topics are made by the sends: `autoCreateTopicEnable` must be on.

mod broker;
mod checks;
mod handover;
mod measure;

use broker::{Broker, Outcome, now_ms};
use broker_engine::net::Client;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, what, of, rest @ ..] = arguments.as_slice() else {
        return Err(
            "features HOST:PORT timers|pending|pops|checks COUNT, or leave|collect FILE".into(),
        );
    };
    let broker = Broker {
        client: Client::new(),
        address: address.clone(),
        topic: format!("features_{what}_{}", now_ms()),
    };
    match what.as_str() {
        "timers" => measure::timers(&broker, of.parse()?).await,
        "pending" => measure::pending(&broker, of.parse()?, rest.first().map(String::as_str)).await,
        "pops" => measure::pops(&broker, of.parse()?).await,
        "checks" => checks::checks(&broker, of.parse()?).await,
        "leave" => handover::leave(&broker, of).await,
        "collect" => {
            handover::collect(&broker, of, rest.first().is_some_and(|how| how == "killed")).await
        }
        other => Err(format!("{other}: timers, pending, pops, checks, leave or collect").into()),
    }
}
