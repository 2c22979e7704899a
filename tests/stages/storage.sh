#!/usr/bin/env bash
# where stores lie (directories of the host, memory), in which time zone nodes live, and from which image they run
# needs: docker python rmqctl
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=rmqst offset=16000
data=$work/data engine=rmqst/engine
owns_cluster 'docker rmi "$engine:1" "$engine:none" >/dev/null 2>&1; in_processes wipe_cluster'
small() { up --masters 1 --slaves 1 --no-console --timeout 60 "$@"; }
in_processes() { local runtime=process; "$@"; }
says() { rmq msg send kept "$1" >/dev/null; }
messages() { rmq topic describe kept -o json | json 'd["messages"]'; }
ids() { docker ps -aq --no-trunc --filter "name=^$cluster-rmq" | sort; }
refused() { # CODE ID PATTERN COMMAND…: with this exit code and these words, and no container touched
    local code=$1 id=$2 pattern=$3 before; shift 3; before=$(ids)
    exits "$code" "$@" >"$work/no" 2>&1; has "$work/no" "$id" "$pattern"
    same "containers after a refusal" "$before" "$(ids)"
}

keeps_stores_in_directories() {
    small --data-dir "$data"
    same "whose they are" "host $data/$cluster-rmqmaster1" "$(node rmqmaster1 '"%s %s" % (n["storage"], n["volume"])')"
    same "volumes of stores" "" "$(docker volume ls -q --filter "name=^$cluster.*-store")"
    # The engine runs as the owner of its directory, and that is not root.
    local owner; owner=$(stat -c %u:%g "$data/$cluster-rmqmaster1")
    same "user" "$owner" "$(docker inspect -f '{{.Config.User}}' "$cluster-rmqmaster1")"
    [ "${owner%%:*}" != 0 ]
    rmq topic create kept; says one
    ls "$data/$cluster-rmqmaster1/commitlog" >/dev/null
    rmq plan >"$work/plan"; has "$work/plan" 'unchanged'
    rmq plan --exit-code
    rmq doctor -o json | json '[c["found"] for c in d["checks"] if c["id"] == "disk"]' >"$work/disk"; has "$work/disk" '%'
}
survives_down_and_up() {
    rmq down 2>"$work/down"; has "$work/down" "messages stay in .*--data-dir $data"
    small --data-dir "$data"
    same "messages" 1 "$(messages)"
}
does_not_leave_messages_behind_unasked() {
    refused 5 RMQ-E017 "rmqmaster1: directory .* → directory $work/other/$cluster-rmqmaster1" small --data-dir "$work/other"
    printf 'storage: {kind: tmpfs}\n' >"$work/memory.yaml"
    refused 5 RMQ-E017 '→ memory' small -f "$work/memory.yaml"
    same "messages" 1 "$(messages)"
}
carries_messages_over() {
    local n
    rmq stop
    mkdir "$work/carried"
    for n in rmqmaster1 rmqslave1; do rmq cp "$n:/var/lib/rmq/store" "$work/carried/$cluster-$n"; done
    if [ "$(id -u)" = 0 ]; then
        refused 5 RMQ-E018 "chown -R 3000:3000 $work/carried/$cluster-rmqmaster1 $work/carried/$cluster-rmqslave1" small --data-dir "$work/carried"
        # The command that it prints is all that is needed.
        sh -c "$(grep -o 'chown -R 3000:3000 [^·]*' "$work/no")"
    fi
    small --data-dir "$work/carried"
    same "messages" 1 "$(messages)"
}
removes_what_the_engine_wrote_and_nothing_else() {
    # As a store that came from elsewhere.
    rm "$work/carried/$cluster-rmqmaster1/.rmqctl.json"
    rmq down --volumes 2>"$work/down"
    has "$work/down" "$cluster-rmqmaster1 stays: its store was there before"
    [ -d "$work/carried/$cluster-rmqmaster1/commitlog" ]
    rm -rf "$data"; small --data-dir "$data"
    rmq topic create kept; says one
    echo mine >"$data/$cluster-rmqslave1/notes.txt"
    rmq down --volumes 2>"$work/down"; has "$work/down" "$cluster-rmqslave1 stays, with notes.txt"
    same "what is left" "./$cluster-rmqslave1/notes.txt" "$(cd "$data" && find . -type f)"
    same "directories" "$cluster-rmqslave1" "$(ls "$data")"
}
refuses_what_it_cannot_write() {
    mkdir -p "$work/bad/$cluster-rmqmaster1"; echo x >"$work/bad/$cluster-rmqmaster1/holiday.jpg"
    refused 5 RMQ-E018 'is not empty, and holiday.jpg is of no store' small --data-dir "$work/bad"
    refused 3 RMQ-E104 'which is the system' small --data-dir /etc/rocketmq
    refused 3 RMQ-E104 'directory of the generated files' small --data-dir "$work/conf/data"
}
keeps_stores_in_memory() {
    printf 'storage: {kind: tmpfs, size: 256m}\n' >"$work/memory.yaml"
    small -f "$work/memory.yaml"
    same "kind" "tmpfs None" "$(node rmqmaster1 '"%s %s" % (n["storage"], n["volume"])')"
    rmq topic create kept; says one
    rmq restart rmqslave1; within 30 healthy
    refused 5 RMQ-E019 'rmqmaster1 has its store in memory' rmq restart
    same "messages" 1 "$(messages)"
    rmq down
    in_processes refused 3 RMQ-E108 'no stores in memory' small -f "$work/memory.yaml"
}
runs_leave_no_directory() {
    "$RMQCTL" -q run --data-dir "$work/run" -- sh -c 'ls "$1" | grep -c rmqmaster1' _ "$work/run" >"$work/seen"
    same "directories of a run" 1 "$(cat "$work/seen")"
    same "left of it" "" "$(ls "$work/run")"
}
serves_processes_too() {
    in_processes small --data-dir "$work/processes"
    rmq topic create kept; says one
    in_processes rmq down
    [ -d "$work/processes/$cluster-rmqmaster1/commitlog" ]
    in_processes small --data-dir "$work/processes"
    same "messages" 1 "$(messages)"
    rmq down --volumes
    same "left" "" "$(ls "$work/processes")"
}
lives_in_a_time_zone() {
    exits 2 small --tz Asia/Shangai 2>"$work/no"; has "$work/no" 'did you mean .Asia/Shanghai.'
    TZ=America/New_York small
    same "zone" "TZ=America/New_York" "$(docker inspect -f '{{range .Config.Env}}{{println .}}{{end}}' "$cluster-rmqmaster1" | grep ^TZ)"
    # A cluster keeps its zone, wherever it is brought up again from.
    TZ=Europe/Berlin rmq plan --exit-code
    rmq plan --tz Asia/Shanghai >"$work/plan"; has "$work/plan" 'time zone America/New_York → Asia/Shanghai'
    rmq up --tz Asia/Shanghai
    # Lines of the log say the zone's time, and are found by their moment all the same.
    rmq logs rmqmaster1 --since 2m >"$work/log"; has "$work/log" '\+08:00 .*broker ready'
}
runs_from_an_image_that_is_named() {
    local own; own=$(docker inspect -f '{{.Config.Image}}' "$cluster-rmqmaster1")
    rmq topic create kept; says one
    docker tag "$own" "$engine:1"
    # Another image with the name of an engine: it is what `docker load` makes of an archive without our labels.
    printf 'FROM scratch\nLABEL a=b\n' | docker build -q -t "$engine:none" - >/dev/null
    refused 3 RMQ-E007 'no image of rmqctl' rmq upgrade --image "$engine:none"
    refused 1 RMQ-E006 'could not be pulled' rmq upgrade --image 127.0.0.1:1/rmqst/engine:2
    rmq upgrade --image "$engine:1"
    same "image" "$engine:1" "$(node rmqslave1 'n["image"]')"
    local after; after=$(ids)
    rmq up; rmq plan --exit-code; rmq upgrade --image "$engine:1"
    same "containers after doing it again" "$after" "$(ids)"
    same "messages" 1 "$(messages)"
    rmq export compose - >"$work/compose.yml"; has "$work/compose.yml" "image: $engine:1"
    rmq upgrade --image bundled
    same "image" "$own" "$(node rmqslave1 'n["image"]')"
}
check keeps_stores_in_directories keeps_stores_in_directories
[ "$last" = 0 ] || exit 1
for c in survives_down_and_up does_not_leave_messages_behind_unasked carries_messages_over removes_what_the_engine_wrote_and_nothing_else \
    refuses_what_it_cannot_write keeps_stores_in_memory runs_leave_no_directory serves_processes_too lives_in_a_time_zone \
    runs_from_an_image_that_is_named; do check "$c" "$c"; done
[ "$failed" = 0 ]
