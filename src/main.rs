//! `rmqctl`: from a cluster spec to running nodes. Parse, run, print the error with its hint, exit code; nothing else.

mod archive;
mod client;
mod commands;
mod doctor;
mod drain;
mod error;
mod execute;
mod export;
mod interrupt;
mod lease;
mod lock;
mod memory;
mod moment;
mod plan;
mod probe;
mod properties;
mod ready;
mod redact;
mod runtime;
mod spec;
mod topology;
mod ui;

use std::process::ExitCode;

/// A message is several short-lived allocations, often freed on another thread than the one that made them; and what a flood of
/// clients took goes back to the system when they are gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    commands::main()
}
