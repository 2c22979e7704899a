#!/usr/bin/env bash
# clippy finds nothing
# needs: rust
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
check clippy cargo clippy --workspace --all-targets -- -D warnings
