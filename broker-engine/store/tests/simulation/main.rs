//! The store on a simulated disk. A run of operations, crashes and failures follows from a seed; what must hold is checked
//! after every stop. `SEED=n` tries one, `SEEDS=n` that many from 0 (or from `FROM=n`), `MUTATIONS=n` that many mutated stores.
// Helpers unwrap too: that fails the test as an assertion does.
#![allow(clippy::unwrap_used)]

mod bugs;
mod errors;
#[path = "../given/mod.rs"]
mod given;
mod model;
mod mutations;
mod run;
mod side;

use run::{Bug, Counts, Run};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs one seed; the failure says how to see it again.
fn check(seed: u64, bug: Option<Bug>) -> Result<Counts, String> {
    let ran = std::panic::catch_unwind(|| Run::new(seed, bug).whole());
    let why = match ran {
        Ok(Ok(counts)) => return Ok(counts),
        Ok(Err(why)) => why,
        Err(panic) => match panic.downcast::<String>() {
            Ok(text) => format!("panic: {text}"),
            Err(panic) => format!("panic: {:?}", panic.downcast_ref::<&str>()),
        },
    };
    Err(format!(
        "SEED={seed} cargo test -p rocketmq-store --test simulation seeds: {why}"
    ))
}

fn check_number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

/// Runs seeds on all cores; the first failure of each core, and what was met.
fn check_all(from: u64, count: u64) -> (Counts, Vec<String>) {
    let next = AtomicU64::new(from);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = check_number("CORES").map_or(cores, |cores| cores as usize);
    std::thread::scope(|scope| {
        let work = || {
            let mut counts = Counts::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= from + count {
                    return (counts, None);
                }
                match check(seed, None) {
                    Ok(met) => counts.add(&met),
                    Err(why) => return (counts, Some(why)),
                }
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut all = Counts::default();
        let mut failures = Vec::new();
        for thread in threads {
            let (counts, failure) = thread.join().unwrap();
            all.add(&counts);
            failures.extend(failure);
        }
        (all, failures)
    })
}

#[test]
fn seeds() {
    if let Some(seed) = check_number("SEED") {
        check(seed, None).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    let count = check_number("SEEDS").unwrap_or(5000);
    let (counts, failures) = check_all(check_number("FROM").unwrap_or(0), count);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{count} seeds: {counts:?}");
    // A harness that meets nothing finds nothing.
    assert!(count < 1000 || counts.met_all(), "{counts:?}");
}
