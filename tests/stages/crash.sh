#!/usr/bin/env bash
# kill -9 of a master under load: its supervisor brings it back, and everything acknowledged is found there and on its slave
# needs: python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqk offset=11200 rounds=${CRASH_ROUNDS:-3}
namesrv=127.0.0.1:$((9876 + offset)) master1=127.0.0.1:$((10911 + offset))
owns_cluster stop_load
loading=
stop_load() { [ -z "$loading" ] || kill "$loading" 2>/dev/null; }
comes_up() { up --masters 1 --slaves 1 --no-console; }
acked() { wc -l <"$work/acked.log"; }
more_acknowledged_than() { [ "$(acked)" -gt "$1" ]; }
other_process_than() { local now; now=$(pid_of rmqmaster1) && [ -n "$now" ] && [ "$now" != "$1" ] && kill -0 "$now"; }

ended() { ! kill -0 "$1" 2>/dev/null || [ "$(awk '{ print $3 }' "/proc/$1/stat")" = Z ]; }

survives_a_kill() { # ROUND: the message sizes and the moment of the kill differ from round to round
    local pid at
    pid=$(pid_of rmqmaster1); at=$(acked)
    within 20 more_acknowledged_than "$((at + 300 + 137 * $1 % 1000))"
    kill -9 "$pid"
    # Its supervisor brings it back.
    within 20 other_process_than "$pid"
    at=$(acked); within 20 more_acknowledged_than "$at"
}
finds_everything_acknowledged() {
    kill -0 "$loading" 2>/dev/null || fail "the load ended before the kills did: $(cat "$work/produce.err")"
    # It writes its log out every second; what it had not written by now was never known to be acknowledged.
    kill "$loading"; within 5 ended "$loading"
    verify crash "$work/acked.log"
}
slave_has_it_all() {
    within 30 rmq wait --for synced --timeout 25s
    # The slave serves the same bytes at the same offsets.
    load verify --addr "127.0.0.1:$((11911 + offset))" --topic crash --acked "$work/acked.log" || fail "the slave lacks acknowledged messages that the master has"
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
"$RMQLOAD" produce --namesrv "$namesrv" --topic crash --create-topic --rate 1500 --size 700 --seconds 900 --reconnect --acked-log "$work/acked.log" --json \
    >"$work/produce.json" 2>"$work/produce.err" </dev/null &
loading=$!
check load_runs within 20 test -s "$work/acked.log"
for ((r = 1; r <= rounds; r++)); do check "survives_kill_$r" survives_a_kill "$r"; done
check finds_everything_acknowledged finds_everything_acknowledged
check slave_has_it_all slave_has_it_all
[ "$failed" = 0 ]
