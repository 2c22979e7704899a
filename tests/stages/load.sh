#!/usr/bin/env bash
# the load generator's own tests: what judges the engine is judged first
# needs: rust
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cargo_tests rmqload --manifest-path benches/rmqload/Cargo.toml
