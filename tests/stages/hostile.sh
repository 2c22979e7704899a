#!/usr/bin/env bash
# half frames, announced 16 MiB, connect storms, very many groups: good clients do not feel it, and memory does not grow
# needs: rmqctl durability
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# A minute each is the campaign of the README.
seconds=${HOSTILE_SECONDS:-2}
for attack in halves announced storms producers consumers; do
    check "$attack" "$DURABILITY" hostile --attack "$attack" --seconds "$seconds" --rmqctl "$RMQCTL" --work "$work" --port 28310
done
[ "$failed" = 0 ]
