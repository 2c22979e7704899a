#!/usr/bin/env bash
# the sources are formatted
# needs: rust
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
check rmqctl cargo fmt --all --check
check rmqload cargo fmt --manifest-path benches/rmqload/Cargo.toml --check
check fuzz cargo fmt --manifest-path broker-engine/fuzz/Cargo.toml --check
