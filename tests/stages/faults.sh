#!/usr/bin/env bash
# every command against a Docker daemon that fails at every request, then again: it converges (a fake daemon; nothing runs)
# needs: rust rmqctl
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# `cargo test` takes a sample of the cases; this takes all, with the release build.
export FAULTS=all RMQCTL
# More at a time than there are cores: much of a case is waiting, for a late answer or a client's patience.
# Of the whole workspace, though it is one package's: that has other features of what both use, and everything would be built again.
cargo_tests every_request --workspace --test faults -- --test-threads=6
