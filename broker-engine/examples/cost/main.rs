//! A broker that counts its own allocations. `benches/cost.py` starts it, puts it under load and prints what a message costs.
//!
//!     cargo run --release -p broker-engine --example cost -- BROKER.properties
//!
//! For each line on standard input it prints one of JSON: what was allocated since the start. It ends as the engine does, on SIGTERM.

use broker_engine::run::{NodeArgs, run_broker};
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::error::Error;
use std::io::{BufRead, Write};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> Result<(), Box<dyn Error>> {
    let config = std::env::args_os().nth(1).map(Into::into);
    // A thread of its own: the broker's are busy, and its runtime would be one of the things counted.
    std::thread::spawn(answer);
    // As in `rmqctl engine broker`.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(run_broker(NodeArgs { config }))?)
}

/// Says the counts so far, as often as asked.
fn answer() {
    let mut out = std::io::stdout();
    for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
        let so_far = COUNTED.stats();
        let line = json!({
            "allocations": so_far.allocations,
            "reallocations": so_far.reallocations,
            "deallocations": so_far.deallocations,
            "bytes": so_far.bytes_allocated,
        });
        // Whoever asked is gone if this fails; the broker goes on until it is told to stop.
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
