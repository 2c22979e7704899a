#!/usr/bin/env bash
# the same cluster without Docker: plain processes on 127.0.0.1
# needs: python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqp offset=11100
namesrv=127.0.0.1:$((9876 + offset)) console=127.0.0.1:$((8181 + offset)) master1=127.0.0.1:$((10911 + offset)) slave1=127.0.0.1:$((11911 + offset))
owns_cluster
pids() { nodes_json | json 'sorted("%s %s" % (n["name"], n["id"]) for n in d["nodes"])'; }
all_gone() { local p; for p in "$@"; do ! kill -0 "$p" 2>/dev/null || return 1; done; }

comes_up() {
    up --masters 2 --slaves 2 --timeout 60
    produce first 3000 "$work/first.log"
    verify first "$work/first.log"
    curl -fsS "http://$console/" >/dev/null
    same "nodes" "rmqconsole rmqmaster1 rmqmaster2 rmqnamesrv rmqslave1 rmqslave2" "$(pids | sed 's/ .*//' | paste -sd' ')"
}
chooses_processes_where_no_daemon_answers() {
    DOCKER_HOST=unix://$work/none.sock "$RMQCTL" --name rmqp2 up --port-offset $((offset + 3000)) --conf-dir "$work/conf2" --masters 1 --slaves 0
    local pid; pid=$(DOCKER_HOST=unix://$work/none.sock "$RMQCTL" --name rmqp2 status -o json | json '[n["id"] for n in d["nodes"] if n["name"]=="rmqmaster1"]')
    kill -0 "$pid"
    DOCKER_HOST=unix://$work/none.sock "$RMQCTL" --name rmqp2 down --volumes
    all_gone "$pid" || fail "the broker runs on after down"
}
says_what_docker_would_need() {
    exits 4 env DOCKER_HOST="unix://$work/none.sock" "$RMQCTL" --name rmqp3 up --runtime docker --conf-dir "$work/conf3" >"$work/nodocker" 2>&1
    has "$work/nodocker" RMQ-E "$work/none.sock"
}
shows_its_status() { rmq status >"$work/status"; has "$work/status" "rmqmaster1 .*broker-a:0" "rmqslave2 .*broker-b:1"; }
changes_nothing_when_nothing_changed() {
    local before; before=$(pids)
    up --masters 2 --slaves 2
    same "processes" "$before" "$(pids)"
}
adds_one_slave_and_moves_none() {
    local before; before=$(pids)
    up --masters 2 --slaves 3
    same "processes that were there" "$before" "$(pids | grep -v rmqslave3)"
    healthy
}
stops_starts_and_restarts() {
    rmq stop rmqslave1; exits 7 rmq status >/dev/null
    rmq start rmqslave1; within 30 healthy
    rmq restart; within 30 healthy
    verify first "$work/first.log"
}
shows_logs() { rmq logs --tail 5 rmqmaster1 >"$work/logs"; [ -s "$work/logs" ] || fail "no log of rmqmaster1"; }
leaves_nothing_behind() {
    local running; mapfile -t running < <(pids | sed 's/.* //')
    rmq down --volumes
    all_gone "${running[@]}" || fail "processes run on after down"
    [ ! -e "$XDG_STATE_HOME/rmqctl/$cluster" ] || fail "$(find "$XDG_STATE_HOME/rmqctl/$cluster" | head)"
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in shows_its_status changes_nothing_when_nothing_changed adds_one_slave_and_moves_none stops_starts_and_restarts shows_logs \
    leaves_nothing_behind chooses_processes_where_no_daemon_answers says_what_docker_would_need; do check "$c" "$c"; done
[ "$failed" = 0 ]
