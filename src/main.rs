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

fn main() -> ExitCode {
    commands::main()
}
