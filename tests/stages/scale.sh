#!/usr/bin/env bash
# more and fewer brokers under load, as plain processes: nothing acknowledged is lost
# needs: python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqscale offset=13100
namesrv=127.0.0.1:$((9876 + offset))
pids_of_ours=()
# shellcheck disable=SC2317  # called by the trap
end_ours() { local p; for p in "${pids_of_ours[@]}"; do kill "$p" 2>/dev/null || true; done; }
owns_cluster end_ours
names() { nodes_json | json '" ".join(sorted(n["name"] for n in d["nodes"]))'; }
ids() { nodes_json | json 'sorted("%s %s" % (n["name"], n["id"]) for n in d["nodes"])'; }
small="rmqconsole rmqmaster1 rmqnamesrv rmqslave1"

comes_up() { up --masters 1 --slaves 1 --timeout 90s --topic audit:3 --wait-for roundtrip 2>"$work/up"; has "$work/up" 'broker-a +a message came back'; load produce --namesrv "$namesrv" --topic orders --create-topic --count 10 --json >/dev/null; }
grows_and_moves_none() {
    local before; before=$(ids)
    rmq scale --masters 3 --slaves 3
    same "processes that were there" "$before" "$(ids | grep -E "$(tr ' ' '|' <<<"$small")")"
    within 30 healthy
    # A topic of the spec stands on the new ones too.
    rmq wait --topic audit
    load produce --namesrv "$namesrv" --topic audit --count 90 --acked-log "$work/audit.log" --json >/dev/null
    has "$work/audit.log" '^0 ' '^1 ' '^2 '
    # Topics are made broker by broker; the new ones learn this one as an operator would make it.
    load produce --namesrv "$namesrv" --topic orders --create-topic --count 300 --acked-log "$work/spread.log" --json >/dev/null
    has "$work/spread.log" '^0 ' '^1 ' '^2 '
}
refuses_what_nobody_reads() {
    load produce --namesrv "$namesrv" --topic unread --create-topic --count 30 --acked-log "$work/unread.log" --json >/dev/null
    local before; before=$(ids)
    tests/follow.py consume "$namesrv" audit auditors "$work/audit.consumed" & local reader=$!
    within 30 tests/follow.py check "$work/audit.consumed" "$work/audit.log"
    kill "$reader"; wait "$reader" || true
    exits 5 rmq scale --masters 1 --slaves 1 2>"$work/refused"
    has "$work/refused" 'RMQ-E060' 'broker-[bc]: topic unread: [0-9]+ that no group reads' 'nothing was changed' '--force'
    same "processes" "$before" "$(ids)"
    load verify --namesrv "$namesrv" --topic unread --acked "$work/unread.log"
}
# Groups behind are waited for, and told in numbers when the time is up; sends go on as before then.
gives_up_in_time_and_opens_again() {
    local out=$work/unread.consumed
    tests/follow.py consume "$namesrv" unread readers "$out" & local reader=$!
    within 30 tests/follow.py check "$out" "$work/unread.log"
    kill "$reader"; wait "$reader" || true
    load produce --namesrv "$namesrv" --topic unread --count 30 --acked-log "$work/more.log" --json >/dev/null
    exits 7 rmq scale --masters 1 --slaves 1 --timeout 3s --settle 1s 2>"$work/late"
    has "$work/late" 'RMQ-E061' 'topic unread: group readers has [0-9]+ to read'
    load produce --namesrv "$namesrv" --topic unread --count 300 --acked-log "$work/open.log" --json >/dev/null
    has "$work/open.log" '^0 ' '^1 ' '^2 '
    tests/follow.py consume "$namesrv" unread readers "$out" & reader=$!
    within 30 tests/follow.py check "$out" "$work/more.log" "$work/open.log"
    # What was read is committed with the next pull, which comes at once.
    kill "$reader"; wait "$reader" || true
}
shows_what_it_would_do() {
    rmq scale --masters 1 --slaves 1 --dry-run >"$work/dry"
    has "$work/dry" '^- rmqmaster2 +remove +broker-b:0  emptied first   volume .*rmqmaster2-store stays' '^- rmqslave3 '
    exits 2 rmq scale rm rmqmaster1 2>"$work/rm"
    has "$work/rm" 'RMQ-E062' 'scale rm rmqmaster3'
}
# The promise: a producer that follows its routes, a group that reads, and every acknowledged message is read though two of three
# masters go.
loses_nothing_under_load() {
    local out=$work/orders.consumed producer
    load produce --namesrv "$namesrv" --topic orders --reconnect --rate 400 --seconds 25 --acked-log "$work/orders.log" --json >"$work/orders.json" &
    producer=$!
    within 20 has "$work/orders.log" '^0 ' '^1 ' '^2 '
    rmq scale --masters 1 --slaves 1 --settle 4s --timeout 3m
    kill -0 "$producer" || fail "the load ended before the masters had gone: nothing was proven"
    same "nodes" "$small" "$(names)"
    wait "$producer"
    within 30 tests/follow.py check "$out" "$work/orders.log" "$work/spread.log"
    same "answers that refused" 0 "$(json 'd["refused"]' <"$work/orders.json")"
}
finds_the_stores_of_what_went() {
    rmq scale --masters 2 --slaves 2 >"$work/again" 2>&1
    within 30 healthy
    # What broker-b had stored before it went is there again.
    grep -E '^#|^1 ' "$work/spread.log" >"$work/spread-b.log"
    load verify --namesrv "$namesrv" --topic orders --acked "$work/spread-b.log"
}
one_goes_by_name() {
    rmq scale rm rmqslave2
    rmq scale rm rmqmaster2 --force --volumes
    same "nodes" "$small" "$(names)"
    [ ! -e "$XDG_STATE_HOME/rmqctl/$cluster/rmqmaster2" ] || fail "its store is still there"
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
# One group reads all the time, wherever the topic is.
tests/follow.py consume "$namesrv" orders billing "$work/orders.consumed" 2>"$log/$stage.billing.log" & pids_of_ours+=("$!")
for c in grows_and_moves_none refuses_what_nobody_reads gives_up_in_time_and_opens_again shows_what_it_would_do loses_nothing_under_load \
    finds_the_stores_of_what_went one_goes_by_name; do check "$c" "$c"; done
[ "$failed" = 0 ]
