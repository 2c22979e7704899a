#!/usr/bin/env bash
# the workspace's own tests, the import rules among them (tests/layering.rs)
# needs: rust
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
check build cargo test --workspace --no-run
[ "$last" = 0 ] || exit 1
cargo_tests workspace --workspace
