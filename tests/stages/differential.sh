#!/usr/bin/env bash
# one seeded sequence of client operations against our broker and the Java broker, answers compared field by field
# needs: peers differential
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# Three seeds take seconds; DIFFERENTIAL_SEEDS=200 is for a night.
seeds=${DIFFERENTIAL_SEEDS:-3}
port=27911
trap 'apache wipe >"$log/$stage.wipe.log" 2>&1 || true' EXIT
trap 'exit 143' TERM INT

start_java() {
    apache wipe
    apache up --masters 1 --namesrv-port 27876 --base-port "$port" --heap 512m --set enablePropertyFilter=true
}
play() { "$DIFFERENTIAL" --java "127.0.0.1:$port" "$@"; }
same_answers() {
    play --seeds "$seeds" >"$work/played"
    cat "$work/played"
    # A sequence that is refused from beginning to end would agree as well.
    has "$work/played" '^send: [0-9]+ SUCCESS' '^pull: [0-9]+ SUCCESS' '^end transaction: [0-9]+ SUCCESS'
}
notices() {
    exits 1 play --seeds 1 --plant >"$work/planted"
    has "$work/planted" 'header MSG_REGION: ours "Elsewhere", java "DefaultRegion"'
}

check java start_java
[ "$last" = 0 ] || exit 1
check "same-answers" same_answers
check "a-planted-difference-is-found" notices
