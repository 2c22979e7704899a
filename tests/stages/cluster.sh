#!/usr/bin/env bash
# rmqctl's commands on a Docker daemon: up, status, plan, scaling, changes, stop, start, restart, logs, down
# needs: docker python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
owns_cluster forget_foreign
foreign=rmqt2
forget_foreign() {
    docker rm -f "$foreign-rmqmaster1" rmqt-guest >/dev/null 2>&1
    docker image rm -f rmqt-guest:test >/dev/null 2>&1
    [ -z "${holder:-}" ] || kill "$holder" 2>/dev/null
}
forget_foreign || true
ids() { docker ps -a --no-trunc --filter "label=io.rmqctl.cluster=$cluster" --format '{{.Names}} {{.ID}}' | sort; }
id() { docker inspect -f '{{.Id}}' "$cluster-$1"; }

comes_up() {
    # The suspect first: the very next command after `up` has returned finds every address served.
    up --masters 2 --slaves 2 --timeout 60
    load produce --namesrv "$namesrv" --topic first --create-topic --count 2000 --seconds 30
    load consume --namesrv "$namesrv" --topic first --json >"$work/first.json"
    same "messages read" 2000 "$(json 'd["messages"]' <"$work/first.json")"
    same "containers" "rmqconsole rmqmaster1 rmqmaster2 rmqnamesrv rmqslave1 rmqslave2" \
        "$(ids | sed "s/^$cluster-//; s/ .*//" | paste -sd' ')"
    curl -fsS "http://$console/" >/dev/null
}
serves_a_container() {
    # The load generator is static as the engine is: a guest image of one file.
    mkdir -p "$work/guest"; cp "$RMQLOAD" "$work/guest/rmqload"
    printf 'FROM scratch\nCOPY rmqload /rmqload\nENTRYPOINT ["/rmqload"]\n' >"$work/guest/Dockerfile"
    DOCKER_BUILDKIT=0 docker build -q -t rmqt-guest:test "$work/guest"
    guest() { docker run --rm --name rmqt-guest --network "$cluster-rmqnetwork" rmqt-guest:test "$@"; }
    guest produce --namesrv namesrv:9876 --topic inside --create-topic --count 2000 --seconds 30
    guest consume --namesrv rmqnamesrv:9876 --topic inside --json >"$work/inside.json"
    same "messages read in the network" 2000 "$(json 'd["messages"]' <"$work/inside.json")"
    load consume --namesrv "$namesrv" --topic inside --json >"$work/inside-host.json"
    same "the same read from the host" 2000 "$(json 'd["messages"]' <"$work/inside-host.json")"
}
binds_to_loopback_only() {
    local wide; wide=$(docker ps -q --filter "label=io.rmqctl.cluster=$cluster" | xargs docker inspect -f \
        '{{.Name}}{{range $p, $b := .HostConfig.PortBindings}}{{range $b}} {{.HostIp}}:{{$p}}{{end}}{{end}}' | grep -vE '^[^ ]+( 127\.0\.0\.1:[0-9]+/tcp)*$' || true)
    same "ports published elsewhere than on loopback" "" "$wide"
    ! docker inspect "$cluster-rmqmaster1" -f '{{json .HostConfig.PortBindings}}' | grep -q "$((10912 + offset))" || fail "the HA port is published"
}
restarts_always() {
    local policy; policy=$(docker ps -q --filter "label=io.rmqctl.cluster=$cluster" | xargs docker inspect -f '{{.HostConfig.RestartPolicy.Name}}' | sort -u)
    same "restart policy" always "$policy"
}
is_healthy_to_docker() {
    all_healthy() { ! docker ps --filter "label=io.rmqctl.cluster=$cluster" --format '{{.Names}} {{.Status}}' | grep -v '(healthy)'; }
    within 40 all_healthy
}
shows_its_status() {
    rmq status >"$work/status"
    has "$work/status" "rmqmaster1 .*broker-a:0" "rmqmaster2 .*broker-b:0" "rmqslave1 .*broker-a:1" "rmqslave2 .*broker-b:1" rmqnamesrv rmqconsole
    nodes_json >"$work/status.json"
    same "nodes" 6 "$(json 'len(d["nodes"])' <"$work/status.json")"
    rmq status -o yaml >"$work/status.yaml"; has "$work/status.yaml" 'rmqmaster1'
}
tells_programs_what_stands() {
    up --masters 2 --slaves 2 -o json >"$work/up.json" 2>"$work/up.err"
    same "its result" "rmqt False ready 6 ['unchanged']" \
        "$(json '"%s %s %s %d %s" % (d["cluster"], d["changed"], d["state"], len(d["nodes"]), sorted({n["done"] for n in d["nodes"]}))' <"$work/up.json")"
    same "addresses" "$namesrv $master1 rmqmaster1:${master1##*:}" \
        "$(json '" ".join(d["namesrvs"] + [n[k] for n in d["nodes"] if n["name"] == "rmqmaster1" for k in ("address", "insideAddress")])' <"$work/up.json")"
    has "$work/up.err" 'nothing to do'
    rmq up -o yaml --dry-run --set fileReservedTime=71@broker-b:1 >"$work/plan.yaml"
    has "$work/plan.yaml" 'pending: true' 'what: rmqslave2'
    exits 3 rmq up -o json --set fileReservedTime=x >"$work/wrong.json" 2>/dev/null; has "$work/wrong.json" '"id": "RMQ-E103"'
}
plans_what_up_would_do() {
    local before; before=$(ids)
    rmq plan --runtime docker --port-offset "$offset" --conf-dir "$work/conf" --masters 2 --slaves 2 --exit-code
    exits 10 rmq plan --runtime docker --port-offset "$offset" --conf-dir "$work/conf" --masters 2 --slaves 3 --exit-code >"$work/plan"
    has "$work/plan" 'rmqslave3'
    up --masters 2 --slaves 3 --dry-run >"$work/dry"
    has "$work/dry" 'rmqslave3'
    same "containers after planning" "$before" "$(ids)"
}
changes_nothing_when_nothing_changed() {
    local before; before=$(ids)
    up --masters 2 --slaves 2 >"$work/again" 2>&1
    same "containers" "$before" "$(ids)"
    has "$work/again" '[Nn]othing|unchanged|up to date'
}
adds_one_slave_and_moves_none() {
    local before; before=$(ids)
    up --masters 2 --slaves 3
    same "containers that were there" "$before" "$(ids | grep -v rmqslave3)"
    same "place of the new one" "broker-a:2" "$(node rmqslave3 '"%s:%s" % (n["broker"], n["brokerId"])')"
    healthy
}
recreates_only_a_changed_node_and_keeps_its_data() {
    produce kept 5000 "$work/kept.log" --size 512
    local before after; before=$(ids)
    up --masters 2 --slaves 3 --set fileReservedTime=71@rmqmaster1
    after=$(ids)
    same "containers replaced" "rmqmaster1" "$(diff <(echo "$before") <(echo "$after") | sed -n "s/^> $cluster-\([^ ]*\).*/\1/p" | paste -sd' ')"
    verify kept "$work/kept.log"
    same "fileReservedTime of rmqmaster1" 71 "$(python3 tests/peers/probe.py config "$master1" fileReservedTime)"
}
keeps_an_edit_and_applies_it_at_restart() {
    local file=$work/conf/broker-b-master.properties before
    before=$(id rmqmaster2)
    printf '\nfileReservedTime=37\n' >>"$file"
    up --masters 2 --slaves 3 --set fileReservedTime=71@rmqmaster1 >"$work/edited" 2>&1
    grep -q '^fileReservedTime=37' "$file" || fail "up overwrote the edit in $file"
    rmq restart rmqmaster2
    same "fileReservedTime after the restart" 37 "$(python3 tests/peers/probe.py config "127.0.0.1:$((13911 + offset))" fileReservedTime)"
    healthy
}
stops_and_starts() {
    rmq stop rmqslave1
    same "state of rmqslave1" exited "$(docker inspect -f '{{.State.Status}}' "$cluster-rmqslave1")"
    exits 7 rmq status >/dev/null
    rmq start rmqslave1
    within 30 healthy
    rmq stop
    same "running after stop" "" "$(docker ps -q --filter "label=io.rmqctl.cluster=$cluster")"
    rmq start
    within 30 healthy
    verify kept "$work/kept.log"
}
restarts_under_load_without_losing_anything() {
    load produce --namesrv "$namesrv" --topic rolling --create-topic --rate 500 --seconds 25 --reconnect --acked-log "$work/rolling.log" --json >"$work/rolling.json" &
    local loading=$!
    within 10 test -s "$work/rolling.log"
    rmq restart
    wait "$loading"
    healthy
    verify rolling "$work/rolling.log"
}
shows_logs_and_environment() {
    rmq logs --tail 5 >"$work/logs"
    has "$work/logs" rmqmaster1 rmqnamesrv
    rmq logs rmqslave1 >"$work/logs1"; [ -s "$work/logs1" ] || fail "no log of rmqslave1"
    same "NAMESRV_ADDR" "$namesrv" "$(eval "$(rmq env)"; echo "$NAMESRV_ADDR")"
}
renders_its_configuration() {
    rmq config render "$work/rendered" --masters 2 --slaves 2
    local f; for f in broker-{a,b}-master broker-{a,b}-slave1; do [ -s "$work/rendered/$f.properties" ] || fail "no $f.properties: $(ls "$work/rendered")"; done
    has "$work/rendered/broker-a-slave1.properties" '^brokerRole *= *SLAVE' '^slaveReadEnable *= *true' '^brokerId *= *1'
}
refuses_a_foreign_container_name() {
    docker create --name "$foreign-rmqmaster1" "$(docker inspect -f '{{.Image}}' "$cluster-rmqmaster1")" >/dev/null
    exits 5 "$RMQCTL" --name "$foreign" up --runtime docker --port-offset $((offset + 5000)) --conf-dir "$work/foreign" >"$work/foreign.out" 2>&1
    has "$work/foreign.out" "$foreign-rmqmaster1" RMQ-E
    same "what it made" "" "$(docker ps -aq --filter "label=io.rmqctl.cluster=$foreign")$(docker network ls -q --filter "label=io.rmqctl.cluster=$foreign")"
    docker rm "$foreign-rmqmaster1" >/dev/null
}
refuses_a_taken_port() {
    python3 -c 'import socket,sys,time; s=socket.create_server(("127.0.0.1",int(sys.argv[1]))); print("held",flush=True); time.sleep(600)' $((10911 + offset + 5000)) >"$work/held" &
    local holder=$!
    # shellcheck disable=SC2064
    trap "kill $holder" EXIT
    within 5 test -s "$work/held"
    exits 5 "$RMQCTL" --name "$foreign" up --runtime docker --port-offset $((offset + 5000)) --conf-dir "$work/foreign" >"$work/port.out" 2>&1
    has "$work/port.out" "$((10911 + offset + 5000))" RMQ-E
    same "what it made" "" "$(docker ps -aq --filter "label=io.rmqctl.cluster=$foreign")$(docker network ls -q --filter "label=io.rmqctl.cluster=$foreign")"
}
refuses_a_wrong_property() {
    exits 3 rmq up --runtime docker --port-offset "$offset" --conf-dir "$work/wrong" --set brokerRole=SYSC_MASTER >"$work/wrong.out" 2>&1
    has "$work/wrong.out" SYNC_MASTER
}
keeps_volumes_on_down_and_removes_them_when_told() {
    rmq down
    same "containers" "" "$(ids)"
    [ -n "$(docker volume ls -q --filter "label=io.rmqctl.cluster=$cluster")" ] || fail "down removed the volumes"
    up --masters 2 --slaves 2
    verify kept "$work/kept.log"
    rmq down --volumes
    same "left behind" "" "$(ids)$(docker volume ls -q --filter "label=io.rmqctl.cluster=$cluster")$(docker network ls -q --filter "label=io.rmqctl.cluster=$cluster")"
}

check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in serves_a_container binds_to_loopback_only restarts_always shows_its_status tells_programs_what_stands plans_what_up_would_do changes_nothing_when_nothing_changed \
    is_healthy_to_docker shows_logs_and_environment renders_its_configuration adds_one_slave_and_moves_none \
    recreates_only_a_changed_node_and_keeps_its_data keeps_an_edit_and_applies_it_at_restart stops_and_starts \
    restarts_under_load_without_losing_anything refuses_a_foreign_container_name refuses_a_taken_port refuses_a_wrong_property \
    keeps_volumes_on_down_and_removes_them_when_told; do
    check "$c" "$c"
done
[ "$failed" = 0 ]
