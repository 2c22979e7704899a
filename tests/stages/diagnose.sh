#!/usr/bin/env bash
# what went wrong and why: chaos, doctor, why, dump, exec, cp, logs; on plain processes and on Docker
# needs: python rmqctl docker
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=rmqd offset=13100

# One cluster a runtime: `place process`, then the cases, then `place docker`.
conf() { echo "$work/conf-$runtime"; }
raise() { rmq up --runtime "$runtime" --port-offset "$offset" --conf-dir "$(conf)" --masters 1 --slaves 1 --replication sync --timeout 90s "$@"; }
ready() { within 60 healthy; }
verdict() { # CHECK: its verdict
    { rmq doctor -o json || [ $? = 7 ]; } | json "[c['verdict'] for c in d['checks'] if c['id']=='$1']"
}
doctor_says() { # CHECK PATTERN: it is a fault or a warning, and its details match
    { rmq doctor -o json || [ $? = 7 ]; } >"$work/doctor.json"
    json "[c['verdict']+': '+x for c in d['checks'] if c['id']=='$1' for x in c['details']]" <"$work/doctor.json" >"$work/doctor.txt"
    has "$work/doctor.txt" "$2"
}
# What doctor shows, in $work/doctor, and no check at fault. How full this machine's disk is, is not the cluster's matter.
well() { # ARGUMENT…
    rmq doctor "$@" >"$work/doctor" || [ $? = 7 ]
    ! grep -E "^ +✘" "$work/doctor" | grep -v "✘ disk" || { cat "$work/doctor"; fail "doctor finds a fault"; }
}
engine_path() { # NODE FILE: of its configuration, as the runtime names it
    if [ "$runtime" = docker ]; then echo "/etc/rmq/$2"; else echo "$2"; fi
}

comes_up() { raise; ready; }
finds_nothing_in_a_healthy_cluster() {
    well
    has "$work/doctor" "✔ nodes" "✔ replication" "✔ console" "✔ reachability" "REACHES +PORT +host"
    [ "$runtime" = process ] || has "$work/doctor" "host +rmqnamesrv +rmqmaster1" "✔ network"
    rmq why rmqmaster1 >"$work/why"; has "$work/why" "master broker-a:0" "well" "log "
}
sees_a_crash_and_the_way_back() {
    local before after; before=$(pid_of rmqmaster1)
    rmq chaos kill rmqmaster1
    ready; after=$(pid_of rmqmaster1)
    [ "$before" != "$after" ] || fail "pid $before was not killed"
    rmq why rmqmaster1 >"$work/why"
    has "$work/why" "last end +137: killed by force" "restarts +1 by itself"
}
pauses_and_lets_go_on() {
    rmq chaos pause rmqslave1
    exits 7 rmq status >"$work/status"; has "$work/status" "rmqslave1 .*paused"
    exits 7 rmq why slave1 >"$work/why"; has "$work/why" "it is paused" "chaos unpause rmqslave1"
    same "verdict of doctor" fault "$(verdict nodes)"
    rmq chaos unpause rmqslave1; ready
}
heals_after_a_time() {
    local began=$SECONDS
    rmq chaos kill rmqslave1 --for 2s
    [ $((SECONDS - began)) -ge 2 ] || fail "it did not wait"
    ready
}
heals_at_ctrl_c() {
    rm -f "$work/chaos"
    "$RMQCTL" --name "$cluster" chaos pause rmqslave1 --for 600s >"$work/chaos" 2>&1 & local chaos=$!
    within 20 grep -q "Ctrl-C heals" "$work/chaos"
    kill -INT "$chaos"
    exits 130 wait "$chaos"
    ready
}
cuts_a_node_off() {
    if [ "$runtime" = process ]; then
        exits 2 rmq chaos partition rmqmaster1 2>"$work/err"; has "$work/err" "RMQ-E005" "loopback"
        return
    fi
    rmq chaos partition rmqmaster1
    exits 7 rmq status >"$work/status"
    doctor_says network "fault: rmqmaster1 is not on"
    rmq chaos heal rmqmaster1; ready
    # The name server may see only now that the old connection is dead, and not know the master until that registers again, 5 s later at most.
    within 10 well
}
# Two nodes of a cluster whose acknowledgements need both: each serves its clients, and nothing passes between them.
two_nodes_do_not_reach_each_other() {
    local sent answered
    rmq topic create cut >/dev/null
    rmq msg send cut before --count 200 -o json >"$work/before"
    rmq chaos partition rmqslave1 rmqmaster1 >"$work/cut" 2>&1; has "$work/cut" "rmqslave1 .*and rmqmaster1 do not reach each other" "chaos heal rmqslave1 rmqmaster1"
    exits 7 rmq status >"$work/status"; has "$work/status" "rmqslave1 .*cut off" "rmqmaster1 .*cut off" "chaos heal rmqslave1 rmqmaster1"
    exits 7 rmq why slave1 >"$work/why"; has "$work/why" "cut off from rmqmaster1" "chaos heal rmqslave1 rmqmaster1"
    doctor_says partitions "fault: rmqmaster1 and rmqslave1 do not reach each other"
    # As RocketMQ has it: stored, and not acknowledged. The slave is registered and is asked as before.
    rmq msg send cut meanwhile >"$work/meanwhile"; has "$work/meanwhile" "FLUSH_SLAVE_TIMEOUT"
    same "a client of the slave is served" True "$(nodes_json | json 'all(n["address"] for n in d["nodes"] if n["role"] in ("master", "slave"))')"
    rmq chaos heal rmqslave1 rmqmaster1; ready
    rmq msg send cut after --count 100 -o json >"$work/after"
    sent=$(cat "$work/before" "$work/after" | grep -c '"status": "SUCCESS"')
    same "acknowledged" 300 "$sent"
    answered=$(rmq msg tail cut --from earliest -n 1000 -o json | json 'len({m["messageId"] for m in d if m["body"] != "meanwhile"})')
    same "acknowledged and found" 300 "$answered"
    rmq verify ha --all -o json >"$work/ha"
    same "the slave holds the same" "True 0 0" "$(json '"%s %d %d" % (d["ok"], sum(s["missing"] for s in d["slaves"]), sum(s["different"] for s in d["slaves"]))' <"$work/ha")"
    well
}
a_broker_does_not_reach_the_name_server() {
    rmq chaos partition broker-a:0 rmqnamesrv
    exits 7 rmq status -o json >"$work/status"
    same "who is cut off" "rmqmaster1:rmqnamesrv rmqnamesrv:rmqmaster1" "$(json 'sorted(n["name"] + ":" + ",".join(n["cutOffFrom"]) for n in d["nodes"] if "cutOffFrom" in n)' <"$work/status" | paste -sd' ')"
    same "its address is not handed out" None "$(json '[n["address"] for n in d["nodes"] if n["name"] == "rmqmaster1"]' <"$work/status")"
    # The slave goes on following it.
    same "the slave is in sync" "healthy 0" "$(json '["%s %d" % (n["state"], n["lagBytes"]) for n in d["nodes"] if n["name"] == "rmqslave1"]' <"$work/status")"
    rmq chaos heal --all; ready
    exits 2 rmq chaos partition broker-a rmqslave1 2>"$work/err"; has "$work/err" RMQ-E086
    exits 2 rmq chaos partition rmqmaster1 rmqconsole 2>"$work/err"; has "$work/err" RMQ-E005
    healthy
}
# Nobody is left to heal it: the nodes do so themselves.
a_cut_ends_though_rmqctl_was_killed() {
    rm -f "$work/chaos"
    "$RMQCTL" --name "$cluster" chaos partition rmqslave1 rmqmaster1 --for 4s >"$work/chaos" 2>&1 & local chaos=$!
    within 20 grep -q "Ctrl-C heals" "$work/chaos"; kill -9 "$chaos"; wait "$chaos" || true
    exits 7 rmq status >"$work/status"; has "$work/status" "rmqslave1 .*cut off"
    ready
    rm -f "$work/chaos"
    "$RMQCTL" --name "$cluster" chaos partition rmqslave1 rmqmaster1 --for 600s >"$work/chaos" 2>&1 & chaos=$!
    within 20 grep -q "Ctrl-C heals" "$work/chaos"; kill -TERM "$chaos"; exits 143 wait "$chaos"
    ready
}
# Started in between, it would run with the file that the other is about to replace.
leaves_a_node_to_whoever_changes_the_cluster() {
    # What an earlier case or the other runtime's turn left must not be taken for this one's; so in the cases above.
    rm -f "$work/kill" "$work/heal"
    "$RMQCTL" --name "$cluster" chaos kill rmqslave1 --for 600s >"$work/kill" 2>&1 & local chaos=$! lock
    within 20 grep -q "Ctrl-C heals" "$work/kill"
    lock=$(find "$XDG_RUNTIME_DIR" -name "*$runtime-$cluster.lock"); [ -f "$lock" ] || fail "no lock file: $(find "$XDG_RUNTIME_DIR")"
    exec 8>"$lock"; flock 8
    "$RMQCTL" --name "$cluster" chaos heal rmqslave1 8>&- >"$work/heal" 2>&1 & local heal=$!
    within 20 grep -q "another rmqctl is changing cluster" "$work/heal"
    exits 7 rmq status -o json 8>&- >"$work/status"
    same "it waits" "exited (137)" "$(json '[n["state"] for n in d["nodes"] if n["name"] == "rmqslave1"]' <"$work/status")"
    exec 8>&-; wait "$heal"; ready
    kill -INT "$chaos"; exits 130 wait "$chaos"
    ready
}
finds_and_starts_a_stopped_slave() {
    rmq stop rmqslave1
    exits 7 rmq doctor >"$work/doctor"; has "$work/doctor" "✘ nodes" "rmqslave1 does not run" "doctor --fix"
    exits 7 rmq why slave1 >"$work/why"; has "$work/why" "start rmqslave1"
    well --fix; has "$work/doctor" "✔ nodes" "✔ replication"
    healthy
}
names_who_holds_a_port() {
    rm -f "$work/held"
    rmq stop rmqslave1
    python3 -c '
import socket, sys, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1]))); s.listen(); print("held", flush=True); time.sleep(600)' "$((11911 + offset))" >"$work/held" & local holder=$!
    within 20 grep -q held "$work/held"
    local rc=0
    doctor_says ports "rmqslave1 needs host port $((11911 + offset)), held by .*(python|pid)" || rc=1
    kill "$holder"; wait "$holder" || true
    rmq start rmqslave1; ready
    [ "$rc" = 0 ]
}
tells_a_wrong_address() {
    # An address that clients here cannot use; `up` would not return with it.
    local file; file=$(conf)/broker-a-slave1.properties
    cp "$file" "$work/good.properties"
    sed -i 's/^brokerIP1=.*/brokerIP1=203.0.113.7/' "$file"
    rmq restart rmqslave1 --timeout 5s || true
    exits 7 rmq doctor >"$work/doctor"
    has "$work/doctor" "✘ registration" "203.0.113.7:$((11911 + offset))"
    cp "$work/good.properties" "$file"
    rmq restart rmqslave1; ready
}
dumps_what_it_says() {
    rm -rf "$work/dump" "$work/report.tar.gz" "$work/report"
    rmq dump "$work/dump"
    local f; for f in versions.json spec.json checks.json routes.json reachability.json plan.txt runtime.json \
        nodes/rmqmaster1/{inspect.json,log.txt,made-with.properties,running.properties,state.json}; do
        [ -s "$work/dump/$f" ] || fail "no $f in the dump"
    done
    has "$work/dump/nodes/rmqmaster1/running.properties" "^listenPort=$((10911 + offset))"
    rmq dump "$work/report.tar.gz"
    mkdir -p "$work/report"; tar xzf "$work/report.tar.gz" -C "$work/report"
    [ -s "$work/report/report/nodes/rmqslave1/log.txt" ] || fail "no log in the archive"
    exits 1 rmq dump "$work/dump" 2>"$work/err"; has "$work/err" RMQ-E085
}
runs_commands_and_returns_their_code() {
    rmq exec rmqmaster1 -- rmqctl --version >"$work/exec"; has "$work/exec" "^rmqctl "
    exits 2 rmq exec rmqmaster1 -- rmqctl no-such-command 2>/dev/null
    if [ "$runtime" = docker ]; then
        rmq exec rmqnamesrv -- rmqctl engine health
        ! rmq exec rmqmaster1 -- sh -c true 2>"$work/err" || fail "there is a shell"; has "$work/err" "holds nothing but the engine"
    else
        exits 7 rmq exec rmqmaster1 -- sh -c 'exit 7'
    fi
}
copies_out_and_in() {
    rm -rf "$work/out"; mkdir -p "$work/out"
    local conf; conf=$(engine_path rmqmaster1 broker-a-master.properties)
    rmq cp "rmqmaster1:$conf" "$work/out/"
    has "$work/out/broker-a-master.properties" "^brokerName=broker-a"
    echo hello >"$work/hello"
    rmq cp "$work/hello" "rmqmaster1:$(dirname "$conf")/said"
    rmq cp "rmqmaster1:$(dirname "$conf")/said" "$work/out/back"
    same "what came back" hello "$(cat "$work/out/back")"
    exits 1 rmq cp "rmqmaster1:$conf" "$work/out/small" --max-size 10 2>"$work/err"; has "$work/err" "more than 10 bytes"
    [ "$runtime" = docker ] || { exits 1 rmq cp rmqmaster1:../../../../etc/passwd "$work/out/" 2>"$work/err"; }
}
merges_logs_by_time() {
    rmq logs --since 1h --no-prefix | cut -c1-27 | grep -E '^[0-9]{4}-' >"$work/times"
    [ "$(wc -l <"$work/times")" -gt 10 ] || fail "too few lines"
    sort -c "$work/times"
    rmq logs --tail 3 rmqmaster1 rmqslave1 >"$work/logs"; has "$work/logs" "^rmqmaster1 \| " "^rmqslave1  \| "
}
follows_a_node_over_its_restart() {
    "$RMQCTL" --name "$cluster" logs -f --tail 1 rmqslave1 >"$work/followed" & local logs=$!
    within 20 test -s "$work/followed"
    rmq restart rmqslave1
    local rc=0
    within 20 grep -q "broker ready" "$work/followed" || rc=1
    kill -INT "$logs"; wait "$logs" || true
    [ "$rc" = 0 ]
}
# As a killed `rmqctl run` leaves one; made when this stage began, since a young one may be another's that is being raised.
removes_a_network_that_is_nobodys() {
    [ "$runtime" = docker ] || return 0
    within 60 eval 'rmq doctor | grep "network $cluster-gone-rmqnetwork of cluster $cluster-gone has no node"'
    well --fix; has "$work/doctor" "✔ leftovers"
    ! docker network inspect "$cluster-gone-rmqnetwork" >/dev/null 2>&1 || fail "it stands"
    docker network inspect "my-$cluster-rmqnetwork" >/dev/null
}
leaves_nothing_behind() { rmq down --volumes; }

# shellcheck disable=SC2317  # called by the trap
no_networks() { docker network rm "$cluster-gone-rmqnetwork" "my-$cluster-rmqnetwork" >/dev/null 2>&1 || true; }
owns_cluster no_networks
no_networks
docker network create --label "io.rmqctl.cluster=$cluster-gone" "$cluster-gone-rmqnetwork" >/dev/null
docker network create "my-$cluster-rmqnetwork" >/dev/null
for runtime in process docker; do
    wipe_cluster
    export RMQCTL_RUNTIME=$runtime
    check "$runtime.comes_up" comes_up
    [ "$last" = 0 ] || continue
    for c in finds_nothing_in_a_healthy_cluster sees_a_crash_and_the_way_back pauses_and_lets_go_on heals_after_a_time heals_at_ctrl_c \
        cuts_a_node_off two_nodes_do_not_reach_each_other a_broker_does_not_reach_the_name_server a_cut_ends_though_rmqctl_was_killed \
        leaves_a_node_to_whoever_changes_the_cluster removes_a_network_that_is_nobodys finds_and_starts_a_stopped_slave names_who_holds_a_port tells_a_wrong_address dumps_what_it_says \
        runs_commands_and_returns_their_code copies_out_and_in merges_logs_by_time follows_a_node_over_its_restart \
        leaves_nothing_behind; do
        check "$runtime.$c" "$c"
    done
done
[ "$failed" = 0 ]
