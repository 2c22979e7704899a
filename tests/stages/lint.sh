#!/usr/bin/env bash
# clippy finds nothing
# needs: rust
# beside: cluster
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# It takes what others leave of the processors, those that it stands beside above all.
check clippy nice -n 19 cargo clippy --workspace --all-targets -- -D warnings
