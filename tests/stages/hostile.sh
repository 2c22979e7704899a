#!/usr/bin/env bash
# half frames, announced 16 MiB, connect storms, very many groups: good clients do not feel it, and memory does not grow
# needs: rmqctl durability
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# HOSTILE_SECONDS=60 HOSTILE_GROUPS=100000 HOSTILE_FLOOR=3 is the campaign of the README; a second is too little to judge times closely.
seconds=${HOSTILE_SECONDS:-1} groups=${HOSTILE_GROUPS:-10000} floor=${HOSTILE_FLOOR:-25}
for attack in halves announced storms producers consumers; do
    check "$attack" timeout -k 5 120 "$DURABILITY" hostile --attack "$attack" --seconds "$seconds" --groups "$groups" --floor-ms "$floor" --rmqctl "$RMQCTL" --work "$work" --port 28310
done
[ "$failed" = 0 ]
