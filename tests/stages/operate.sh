#!/usr/bin/env bash
# day two over the wire: topics, groups, messages, verify, bench
# needs: python rmqctl
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqo offset=12470
namesrv=127.0.0.1:$((9876 + offset)) master1=127.0.0.1:$((10911 + offset))
consumer=
owns_cluster '[ -z "${consumer:-}" ] || kill "$consumer" 2>/dev/null'

comes_up() { up --masters 2 --slaves 2 --no-console --timeout 60; }
creates_and_changes_topics() {
    rmq topic create orders --queues 4 -o json | json '[p["result"] for p in d]' >"$work/made"
    same made "created created" "$(paste -sd' ' "$work/made")"
    same again "unchanged unchanged" "$(rmq topic create orders -o json | json '[p["result"] for p in d]' | paste -sd' ')"
    rmq topic create local --type fifo --brokers broker-a
    rmq topic create local --perm r
    same local "fifo R-- 16" "$(rmq topic list -o json | json '["%s %s %d" % (t["type"], t["perm"], t["queues"]) for t in d if t["topic"]=="local"]')"
    rmq topic list >"$work/list"; has "$work/list" "orders +normal +RW- +8"
    ! grep -q TBW102 "$work/list" || fail "a system topic is listed"
    rmq topic list --all -o name >"$work/all"; has "$work/all" "^TBW102$"
}
names_the_nearest() {
    exits 1 rmq topic describe orderz 2>"$work/near"; has "$work/near" "RMQ-E310" "did you mean .orders."
    exits 3 rmq topic create x --brokers broker-c 2>"$work/unknown"; has "$work/unknown" "broker-a, broker-b"
}
sends() {
    rmq msg send orders '{"id": 1}' --key order-1 --tag paid --property region=eu -o json >"$work/sent"
    printf 'from\tstdin' | rmq msg send orders - --key order-2 --queue broker-a:3 -o json >"$work/sent2"
    same "queue" "broker-a 3" "$(json '"%s %d" % (d[0]["broker"], d[0]["queue"])' <"$work/sent2")"
    same "one queue" 1 "$(rmq msg send orders step --ordered-by c7 --count 5 -o json | json 'len({(s["broker"], s["queue"]) for s in d})')"
    rmq msg send orders bulk --count 93 --tag bulk >"$work/bulk"
    same lines 93 "$(wc -l <"$work/bulk")"
    printf '\xff\x00' | rmq msg send orders --key raw >/dev/null
    exits 1 rmq msg send local x 2>"$work/closed"; has "$work/closed" RMQ-E331
}
tails() {
    same "the last three" 3 "$(rmq msg tail orders -n 3 -o json | json 'len(d)')"
    same all 101 "$(rmq msg tail orders --from earliest -o json | json 'len(d)')"
    same "by time" True "$(rmq msg tail orders --from earliest -o json | json '[m["storedAt"] for m in d] == sorted(m["storedAt"] for m in d)')"
    same paid 1 "$(rmq msg tail orders --from earliest --filter 'paid || none' -o json | json 'len(d)')"
    same "nothing in an hour's time" 0 "$(rmq msg tail orders --from latest -o json | json 'len(d)')"
    same "from an hour ago" 101 "$(rmq msg tail orders --from -1h -o json | json 'len(d)')"
    rmq msg tail orders --from earliest --filter paid >"$work/tail"; has "$work/tail" 'broker-.:.@0  tag=paid  keys=order-1  \{"id": 1\}'
    # What is sent while it follows ends it.
    rmq msg tail orders -f --from latest -n 1 -o json >"$work/follow" & local pid=$!
    within 20 eval 'rmq msg send orders late --key late >/dev/null; ! kill -0 '"$pid"' 2>/dev/null'
    wait "$pid"; same late late "$(json 'd["body"]' <"$work/follow")"
    rmq group list -o json >"$work/groups"
    same "tail leaves no group" "[]" "$(tr -d '\n ' <"$work/groups")"
}
finds() {
    same "by key" '{"id": 1}' "$(rmq msg get --key order-1 -o json | json 'd[0]["body"]')"
    same "by unique id" order-1 "$(rmq msg get "$(json 'd[0]["uniqueId"]' <"$work/sent")" -o json | json 'd[0]["keys"]')"
    same "by message id" order-1 "$(rmq msg get "$(json 'd[0]["messageId"]' <"$work/sent")" --topic orders -o json | json 'd[0]["keys"]')"
    same "no text" "hex ff00" "$(rmq msg get --key raw --topic orders -o json | json 'd[0]["bodyForm"] + " " + d[0]["body"]')"
    rmq msg get --key order-1 >"$work/page"; has "$work/page" "^Tag +paid" "region = eu" '^  \{"id": 1\}'
    exits 1 rmq msg get --key nobody 2>"$work/none"; has "$work/none" RMQ-E335
}
shows_a_group() {
    mkfifo "$work/hold"; python3 tests/consumer.py "$master1" billing orders '*' <"$work/hold" >"$work/read" & consumer=$!
    exec 7>"$work/hold"
    within 20 test -s "$work/read"
    local on_a; on_a=$(rmq topic describe orders -o json | json 'sum(q["maxOffset"] for q in d["queues"] if q["broker"]=="broker-a")')
    same "read on broker-a" "$on_a" "$(cat "$work/read")"
    rmq group describe billing -o json >"$work/group"
    same member "stage@1 PYTHON V4_9_4" "$(json '["%s %s %s" % (m["clientId"], m["language"], m["version"]) for m in d["members"]]' <"$work/group")"
    same "its subscription" 'orders *' "$(json '[s["topic"] + " " + s["expression"] for s in d["subscriptions"] if s["topic"]=="orders"]' <"$work/group")"
    same "lag on broker-a" 0 "$(json 'sum(q["lag"] for q in d["queues"] if q["broker"]=="broker-a")' <"$work/group")"
    rmq group list >"$work/groups"; has "$work/groups" "billing +1 +passively +clustering"
    rmq topic describe orders >"$work/topic"; has "$work/topic" "billing +[0-9]+ +1"
    same "it has consumed" consumed "$(rmq msg trace --key order-2 -o json | json '[g["state"] for g in d[0]["groups"] if g["group"]=="billing"]')"
    # Online: the broker keeps the reset for the member's next pull.
    exits 10 rmq group reset billing --to earliest >"$work/preview"; has "$work/preview" "orders +broker-a:3 +[0-9]+ +0 +-[0-9]+"
    same "nothing was changed" "$(cat "$work/read")" "$(rmq group describe billing -o json | json 'sum(q["offset"] for q in d["queues"] if q["broker"]=="broker-a")')"
    rmq group reset billing --to earliest --yes >"$work/reset"
    same "back at the beginning" 0 "$(rmq group describe billing -o json | json 'sum(q["offset"] for q in d["queues"])')"
    exec 7>&-; wait "$consumer"
}
moves_an_idle_group() {
    within 10 eval 'rmq group describe billing -o json | json "1/(len(d[\"members\"])==0)"'
    rmq group reset billing --to latest --topic orders --yes >/dev/null
    same lag 0 "$(rmq group describe billing -o json | json 'd["lag"]')"
    rmq group reset billing --to 1 --topic orders --yes >/dev/null
    same "at 1 where the queue has it" True "$(rmq group describe billing -o json | json 'all(q["offset"] == min(1, q["maxOffset"]) for q in d["queues"])')"
    rmq group reset billing --to -1h --yes -o json >"$work/hour"; same "an hour ago is the beginning" 0 "$(json 'sum(m["to"] for m in d["moves"])' <"$work/hour")"
    same "what it has yet to consume" 5 "$(rmq msg tail orders --group billing -n 5 -o json | json 'len(d)')"
    exits 1 rmq group describe bill1ng 2>"$work/nogroup"; has "$work/nogroup" RMQ-E320 billing
}
verifies_smoke() {
    rmq verify smoke -o json >"$work/smoke"
    same smoke "True 2 200 200" "$(json '"%s %d %d %d" % (d["ok"], len(d["masters"]), sum(m["acknowledged"] for m in d["masters"]), sum(m["found"] for m in d["masters"]))' <"$work/smoke")"
}
verifies_ha() {
    rmq verify ha --all -o json >"$work/ha"
    same ha "True 2 0 0" "$(json '"%s %d %d %d" % (d["ok"], len(d["slaves"]), sum(s["missing"] for s in d["slaves"]), sum(s["different"] for s in d["slaves"]))' <"$work/ha")"
    # All that was sent so far, and a hundred of its own on each master.
    [ "$(json 'sum(s["compared"] for s in d["slaves"])' <"$work/ha")" -ge 301 ] || fail "too few were compared: $(cat "$work/ha")"
    rmq stop rmqslave1; exits 7 rmq verify ha --timeout 2s >"$work/no-slave" 2>&1; has "$work/no-slave" "broker-a:1"
    rmq start rmqslave1
}
verifies_failover() {
    # A kill may take back what a group committed within the last five seconds (flushConsumerOffsetInterval).
    within 10 grep -qs orders@billing "$XDG_STATE_HOME/rmqctl/$cluster/rmqmaster1/store/config/consumerOffset.json"
    rmq verify failover --messages 2000 -o json >"$work/failover"
    same failover "True 2000 2000 0" "$(json '"%s %d %d %d" % (d["ok"], d["acknowledged"], d["found"], d["lost"])' <"$work/failover")"
    same "ready, and a gap was measured" True "$(json 'd["readyAfterMs"] > 0 and d["longestGapMs"] > 0 and d["readFromSlave"] > 0' <"$work/failover")"
    healthy
    ! rmq topic list -o name | grep rmqctl_ || fail "its topic is left"
    # Ctrl-C while the master is dead: it comes back, and the topic goes. (Not `rmq`: the signal must reach the program.)
    "$RMQCTL" --name "$cluster" verify failover --messages 20000 >"$work/stopped" 2>&1 & local pid=$! rc=0
    within 60 grep -q killed "$work/stopped"; kill -INT "$pid"; wait "$pid" || rc=$?
    same "exit code after Ctrl-C" 130 "$rc"
    healthy
    ! rmq topic list -o name | grep rmqctl_ || fail "its topic is left after Ctrl-C"
}
benches() {
    local mode
    for mode in produce consume e2e; do
        rmq bench "$mode" --seconds 1 --connections 2 --in-flight 4 -o json >"$work/bench.$mode"
        same "$mode" True "$(json 'd["messages"] > 0 and d["refused"] == 0 and d["p50Ms"] > 0 and d["p999Ms"] >= d["p99Ms"]' <"$work/bench.$mode")"
    done
}
deletes_topics() {
    exits 10 rmq topic delete orders >"$work/would"; has "$work/would" "messages would be lost" billing
    rmq topic describe orders >/dev/null
    rmq topic delete orders --yes; rmq topic delete local --yes
    same left "" "$(rmq topic list -o name)"
    exits 2 rmq topic delete TBW102 --yes 2>"$work/own"; has "$work/own" RMQ-E313
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in creates_and_changes_topics names_the_nearest sends tails finds shows_a_group moves_an_idle_group verifies_smoke verifies_ha \
    verifies_failover benches deletes_topics; do check "$c" "$c"; done
[ "$failed" = 0 ]
