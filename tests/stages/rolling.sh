#!/usr/bin/env bash
# rolling restarts of two masters with two slaves under 500 messages/s: no send fails past the retries of a Java client
# needs: rmqctl durability
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqroll offset=11400
owns_cluster
check no-send-fails "$DURABILITY" rolling --rounds "${ROLLING_ROUNDS:-2}" --rmqctl "$RMQCTL" --name "$cluster" --port-offset "$offset" --work "$work"
[ "$failed" = 0 ]
