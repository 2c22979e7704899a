#!/usr/bin/env bash
# rmqctl's commands on Apache's engine: an image laid out as the official one, made here from the published jars
# needs: docker peers rmqctl rmqload
# beside: conformance
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=rmqa offset=13500
namesrv=127.0.0.1:$((9876 + offset)) console=127.0.0.1:$((8181 + offset))
owns_cluster forget_guest
forget_guest() {
    docker image rm -f rmqa-guest:test >/dev/null 2>&1
    docker ps -aq --filter 'name=^rmqa-rmq(namesrv|master1)(-adopting|-before-adopt)?$' | xargs -r docker rm -f -v >/dev/null 2>&1
}
image=$(tests/peers/image.sh)
engine=apache:${image#*:}
# A JVM on a busy machine of two cores takes its time.
apache_up() { up --engine "$engine" --masters 1 --slaves 1 --memory 768m --timeout 300 "$@"; }
ids() { docker ps -a --no-trunc --filter "label=io.rmqctl.cluster=$cluster" --format '{{.Names}} {{.ID}}' | sort; }
java_line() { docker top "$cluster-$1" -o pid,args | grep -E 'java .*(Broker|Namesrv)Startup' | grep -v ' sh '; }

says_how_to_get_an_image_that_is_not_there() {
    exits 1 "$RMQCTL" --name rmqa2 up --runtime docker --engine apache:0.0.0-none --port-offset $((offset + 50)) --conf-dir "$work/none" >"$work/none.out" 2>&1
    has "$work/none.out" 'error\[RMQ-E006\]' 'docker pull apache/rocketmq:0.0.0-none' 'nothing was changed'
    same "what it made" "" "$(docker ps -aq --filter label=io.rmqctl.cluster=rmqa2)$(docker network ls -q --filter label=io.rmqctl.cluster=rmqa2)"
}
refuses_processes_and_exports() {
    exits 3 "$RMQCTL" --name rmqa2 up --runtime process --engine "$engine" >"$work/process.out" 2>&1; has "$work/process.out" RMQ-E107
    exits 3 "$RMQCTL" --name rmqa2 export compose - --engine "$engine" >"$work/export.out" 2>&1; has "$work/export.out" RMQ-E164
}
comes_up() {
    apache_up >"$work/up.out" 2>&1 || { cat "$work/up.out"; return 1; }
    has "$work/up.out" "$image" 'rmqslave1 .*in sync' '2/2 brokers from the host, 2/2 from'
    # A JVM that has just started may say that it is busy.
    lenient=1 produce first 2000 "$work/first.log"
    verify first "$work/first.log"
    curl -fsS "http://$console/" >/dev/null
}
runs_the_official_scripts_with_a_heap_for_its_memory() {
    java_line rmqmaster1 >"$work/java"
    has "$work/java" '-Xms8g .*-Xms384m -Xmx384m -XX:MaxDirectMemorySize=192m .*BrokerStartup -c /etc/rmq/broker-a-master.properties'
    java_line rmqnamesrv >"$work/java"; has "$work/java" '-Xmx384m .*NamesrvStartup -c /etc/rmq/namesrv.properties'
    same "user" 3000 "$(docker inspect -f '{{.Config.User}}' "$cluster-rmqmaster1" | cut -d: -f1)"
    same "limit" $((768 << 20)) "$(docker inspect -f '{{.HostConfig.Memory}}' "$cluster-rmqmaster1")"
}
serves_a_container() {
    mkdir -p "$work/guest"; cp "$RMQLOAD" "$work/guest/rmqload"
    printf 'FROM scratch\nCOPY rmqload /rmqload\nENTRYPOINT ["/rmqload"]\n' >"$work/guest/Dockerfile"
    DOCKER_BUILDKIT=0 docker build -q -t rmqa-guest:test "$work/guest"
    docker run --rm --network "$cluster-rmqnetwork" rmqa-guest:test consume --namesrv namesrv:9876 --topic first --json >"$work/inside.json"
    local acked read
    acked=$(json 'd["acked_total"]' <"$work/first.log.json") read=$(json 'd["messages"]' <"$work/inside.json")
    [ "$acked" -gt 1000 ] && [ "$read" -ge "$acked" ] || fail "$acked acknowledged, $read read in the network"
}
shows_its_status() {
    within 60 healthy
    rmq status >"$work/status"
    has "$work/status" "engine $image" 'rmqmaster1 .*broker-a:0 .*1 slave' 'rmqslave1 .*broker-a:1 .*in sync'
    # The shell that is process 1 is not the node's memory.
    [ "$(node rmqmaster1 'n["memoryBytes"] >> 20')" -gt 50 ] || fail "memory: $(node rmqmaster1 'n["memoryBytes"]')"
}
changes_nothing_when_nothing_changed() {
    local before; before=$(ids)
    apache_up >"$work/again" 2>&1
    same "containers" "$before" "$(ids)"
    has "$work/again" 'nothing to do'
}
gives_a_command_its_input_and_a_terminal() {
    same "what it read" "one two" "$(printf 'one\ntwo\n' | rmq exec rmqmaster1 -- sh -c 'read a; read b; echo "$a $b"')"
    same "its end" 5 "$(rmq exec rmqmaster1 -- sh -c 'while read -r x; do :; done; echo 5' </dev/null)"
    # At a terminal it has one of its own, and keys go to it as they are.
    python3 - "$RMQCTL" --name "$cluster" exec rmqmaster1 -- sh <<'PY'
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
seen = b""
os.write(terminal, b"[ -t 0 ] && [ -t 1 ] && echo at-a-$((1+1))-sided-terminal; exit 7\n")
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    seen += piece
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert b"at-a-2-sided-terminal" in seen and code == 7, (seen, code)
PY
}
stops_cleanly_and_starts() {
    rmq stop rmqmaster1 2>&1
    # The JVM ended by itself: it was not killed, and took the mark of an unclean end away.
    same "exit code" 0 "$(docker inspect -f '{{.State.ExitCode}}' "$cluster-rmqmaster1")"
    ! docker cp "$cluster-rmqmaster1:/var/lib/rmq/store/abort" - >/dev/null 2>&1 || fail "the store has its abort file"
    exits 7 rmq status >/dev/null
    rmq start rmqmaster1; rmq wait --timeout 300
    verify first "$work/first.log"
}
applies_a_property_and_keeps_the_messages() {
    apache_up --set fileReservedTime=71@rmqmaster1
    same "fileReservedTime" 71 "$(python3 tests/peers/probe.py config "127.0.0.1:$((10911 + offset))" fileReservedTime)"
    verify first "$work/first.log"
}
hands_its_store_to_the_bundled_engine() {
    rmq down
    up --engine bundled --masters 1 --slaves 1
    verify first "$work/first.log"
}
# As the official page has it: no properties but those of a mounted file, the store in the container itself.
a_container_made_by_hand_is_adopted_by_the_bundled_engine() {
    rmq down --volumes
    printf '%s\n' brokerClusterName=DefaultCluster brokerName=broker-a brokerId=0 deleteWhen=04 fileReservedTime=48 brokerRole=ASYNC_MASTER \
        flushDiskType=ASYNC_FLUSH brokerIP1=127.0.0.1 "listenPort=$((10911 + offset))" mappedFileSizeCommitLog=16777216 >"$work/broker.conf"
    docker run -d --name rmqa-rmqnamesrv -e JAVA_OPT_EXT='-Xms128m -Xmx128m -Xmn64m' -p "127.0.0.1:$((9876 + offset)):9876" "$image" sh mqnamesrv
    docker run -d --name rmqa-rmqmaster1 --link rmqa-rmqnamesrv:namesrv -e NAMESRV_ADDR=namesrv:9876 -e JAVA_OPT_EXT='-Xms256m -Xmx256m -XX:MaxDirectMemorySize=128m -XX:-AlwaysPreTouch' \
        -p "127.0.0.1:$((10911 + offset)):$((10911 + offset))" -v "$work/broker.conf:/home/rocketmq/broker.conf:ro" "$image" sh mqbroker -c /home/rocketmq/broker.conf
    within 120 load produce --namesrv "$namesrv" --topic warm --create-topic --count 1
    lenient=1 produce hand 3000 "$work/hand.log" --size 4000
    rmq adopt --all --dry-run >"$work/dry"
    has "$work/dry" 'rmqmaster1 +adopt .*← rmqa-rmqmaster1:/home/rocketmq/store +from apache/rocketmq'
    rmq adopt --all --conf-dir "$work/conf-adopted" --remove-old 2>"$work/adopt" || { cat "$work/adopt"; return 1; }
    has "$work/adopt" '2 containers adopted' 'Removed: rmqa-rmqnamesrv-before-adopt, rmqa-rmqmaster1-before-adopt|Removed: rmqa-rmqmaster1-before-adopt, rmqa-rmqnamesrv-before-adopt'
    verify hand "$work/hand.log"
    same "image" "" "$(docker inspect -f '{{.Config.Image}}' rmqa-rmqmaster1 | grep apache || true)"
}
leaves_nothing_behind() {
    rmq down --volumes
    same "left behind" "" "$(ids)$(docker volume ls -q --filter "label=io.rmqctl.cluster=$cluster")$(docker network ls -q --filter "label=io.rmqctl.cluster=$cluster")"
}

for c in says_how_to_get_an_image_that_is_not_there refuses_processes_and_exports comes_up; do check "$c" "$c"; done
[ "$last" = 0 ] || exit 1
for c in runs_the_official_scripts_with_a_heap_for_its_memory serves_a_container shows_its_status changes_nothing_when_nothing_changed \
    gives_a_command_its_input_and_a_terminal stops_cleanly_and_starts applies_a_property_and_keeps_the_messages hands_its_store_to_the_bundled_engine \
    a_container_made_by_hand_is_adopted_by_the_bundled_engine leaves_nothing_behind; do
    check "$c" "$c"
done
[ "$failed" = 0 ]
