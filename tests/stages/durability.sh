#!/usr/bin/env bash
# real brokers killed, cut from their disk and filled up under load: what was acknowledged is there, from a ledger outside them
# needs: python rmqctl durability
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# DURABILITY_ROUNDS=17 is about the campaign of the README: 1,020 kills, 170 power cuts, 68 full disks.
times=${DURABILITY_ROUNDS:-1}
tried() { "$DURABILITY" "$@" --rmqctl "$RMQCTL" --work "$work"; }
# The same run with a loss that was made on purpose: what finds none there is worth nothing.
finds_the_loss() { # PATTERN ARGUMENT…
    local pattern=$1; shift
    exits 1 tried "$@" >"$work/planted" 2>&1
    has "$work/planted" "$pattern"
    rm -rf "$work"/durability-*
}
needs_a_disk() { # NAME COMMAND…: a case that mounts a file system of its own
    if [ -n "${no_disk:-}" ]; then echo "SKIP $stage.$1 0 - $no_disk"; else check "$@"; fi
}
no_disk=$("$DURABILITY" disk --work "$work" 2>&1) && no_disk=

check kills-async tried kills --flush async --rounds $((30 * times)) --port 28010
check kills-sync tried kills --flush sync --rounds $((30 * times)) --port 28030
check kills-finds-a-planted-loss finds_the_loss 'acknowledged messages are lost' kills --flush async --rounds 2 --plant --port 28050
check sync-master tried replicated --rounds $((6 * times)) --port 28070
check sync-master-finds-a-planted-loss finds_the_loss 'on the slave: ' replicated --rounds 2 --plant --port 28110
needs_a_disk power-sync tried power --flush sync --rounds $((10 * times)) --port 28150
needs_a_disk power-async tried power --flush async --rounds $((3 * times)) --port 28170
needs_a_disk power-finds-an-early-acknowledgement finds_the_loss 'acknowledged messages are lost|it held .* before|was given|is committed' power --flush async --expect sync --rounds 10 --port 28190
needs_a_disk disk-full tried full --rounds $((4 * times)) --port 28210
[ "$failed" = 0 ]
