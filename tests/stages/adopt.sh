#!/usr/bin/env bash
# containers made by hand, with links and stores of every kind, become a cluster: every message and offset is there after it
# needs: docker python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=adopt offset=14000
namesrv=127.0.0.1:$((9876 + offset)) master1=127.0.0.1:$((10911 + offset))
owns_cluster forget
forget() {
    docker ps -aq --filter "name=^adopt-(rmq|guest)" | xargs -r docker rm -f -v >/dev/null 2>&1
    }
forget || true
nodes="adopt-rmqconsole adopt-rmqmaster1 adopt-rmqmaster2 adopt-rmqnamesrv adopt-rmqslave1"
# Names of containers with whether they run, of those that rmqctl made (ours) or did not (theirs).
standing() { # ours|theirs
    docker ps -a --filter "name=^adopt-rmq" --format '{{.Names}} {{.State}} {{.Label "io.rmqctl.cluster"}}' |
        awk -v ours="$1" '($3 != "") == (ours == "ours") { print $1, $2 }' | sort | paste -sd,
}
running() { local n; for n in $nodes; do echo "$n running"; done | paste -sd,; }
old() { local n; for n in $nodes; do echo "$n-before-adopt exited"; done | paste -sd,; }
lag() { rmq group describe readers -o json | json 'd["lag"]'; }
written() { # FILE BROKER PORT LINE…
    local file=$1 broker=$2 port=$3; shift 3
    printf '%s\n' "brokerName=$broker" namesrvAddr=namesrv:9876 "listenPort=$port" brokerIP1=127.0.0.1 \
        mappedFileSizeCommitLog=16777216 mappedFileSizeConsumeQueue=600000 maxHashSlotNum=100000 maxIndexNum=400000 maxMessageSize=8388608 "$@" >"$file"
}

# As in the recipes that people copy: links, mounted files, the host's address for all; so the slave follows nobody. One store is in a
# host directory, the others in the containers themselves.
by_hand() {
    rmq image load
    local image; image=$(rmq image ls -o json | json '[i["tag"] for i in d if i["current"]][0]')
    mkdir -p "$work/by-hand/store"
    written "$work/by-hand/master1.conf" broker-a $((10911 + offset)) storePathRootDir=/data/store
    written "$work/by-hand/master2.conf" broker-b $((13911 + offset)) storePathRootDir=/var/lib/rmq/store
    written "$work/by-hand/slave1.conf" broker-a $((11911 + offset)) brokerId=1 brokerRole=SLAVE storePathRootDir=/var/lib/rmq/store
    echo bindAddress=0.0.0.0 >"$work/by-hand/namesrv.conf"
    made() { # NAME PORT-INSIDE PORT ARGUMENT…
        local name=$1 inside=$2 port=$(($3 + offset)); shift 3
        docker run -d --restart always --name "adopt-$name" -p "127.0.0.1:$port:$inside" "$@" >/dev/null
    }
    broker() { # NAME PORT ARGUMENT…
        local name=$1 port=$2; shift 2
        made "$name" $((port + offset)) "$port" --link adopt-rmqnamesrv:namesrv -v "$work/by-hand/${name#rmq}.conf:/etc/broker.conf:ro" "$@" \
            "$image" engine broker -c /etc/broker.conf
    }
    made rmqnamesrv 9876 9876 -v "$work/by-hand/namesrv.conf:/etc/namesrv.conf:ro" "$image" engine namesrv -c /etc/namesrv.conf
    broker rmqmaster1 10911 --user "$(id -u):$(id -g)" -v "$work/by-hand/store:/data/store"
    broker rmqmaster2 13911
    broker rmqslave1 11911
    made rmqconsole 8080 8181 --link adopt-rmqnamesrv:namesrv "$image" engine console --namesrv namesrv:9876 --listen 0.0.0.0:8080
    docker run -d --name adopt-guest --link adopt-rmqmaster1:mq -v "$work/by-hand/namesrv.conf:/etc/namesrv.conf:ro" "$image" engine namesrv -c /etc/namesrv.conf >/dev/null
    registered() { python3 tests/peers/probe.py cluster "$namesrv" >"$work/registered"; has "$work/registered" 'broker-a +id 0' 'broker-a +id 1' 'broker-b +id 0'; }
    within 30 registered
    produce orders 3000 "$work/first.log" --size 2000
    tests/follow.py consume "$namesrv" orders readers "$work/read" & local reader=$!
    within 30 tests/follow.py check "$work/read" "$work/first.log"
    kill "$reader"; wait "$reader" || true
    produce orders 2000 "$work/second.log" --size 10000
    same "containers" "$(running)" "$(standing theirs)"
}
finds_all() { verify orders "$work/first.log"; verify orders "$work/second.log"; }

up_names_adopt() {
    exits 5 up --masters 1 --slaves 1 2>"$work/up"
    has "$work/up" 'RMQ-E014' 'hint: rmqctl --name adopt adopt --all'
}
shows_what_it_would_do() {
    rmq adopt --all --dry-run >"$work/dry" 2>"$work/dry.notes"
    has "$work/dry" 'network adopt-rmqnetwork +create' '~ rmqmaster1 +adopt +broker-a:0 .*volume adopt-rmqmaster1-store ← adopt-rmqmaster1:/data/store ' \
        '~ rmqmaster2 .*← adopt-rmqmaster2:/var/lib/rmq/store' '5 to adopt'
    has "$work/dry.notes" 'adopt-guest reaches adopt-rmqmaster1 by --link, which ends: docker network connect adopt-rmqnetwork adopt-guest'
    same "containers" "$(running)" "$(standing theirs)"
    same "ours" "" "$(standing ours)$(docker network ls -q --filter label=io.rmqctl.cluster=adopt)"
}
refuses_what_does_not_fit() {
    exits 5 rmq adopt rmqnamesrv rmqslave1=rmqmaster1 2>"$work/refused"
    has "$work/refused" RMQ-E025 'would be broker-a:0, and its container is broker-a:1, which is another role' 'nothing was changed'
    exits 2 rmq adopt rmqmastr1 2>"$work/refused"; has "$work/refused" RMQ-E026 'did you mean `rmqmaster1`'
    docker volume create --label io.rmqctl.cluster=adopt --label io.rmqctl.volume=store adopt-rmqmaster1-store >/dev/null
    exits 5 rmq adopt --all 2>"$work/refused"; has "$work/refused" RMQ-E024 'docker volume rm adopt-rmqmaster1-store'
    docker volume rm adopt-rmqmaster1-store >/dev/null
    same "containers" "$(running)" "$(standing theirs)"
}
# A stranger has the name that one copy needs: by then all are stopped and set aside, and two stores are copied.
puts_all_back_when_something_fails() {
    docker create --name adopt-rmqslave1-copy "$(docker inspect -f '{{.Config.Image}}' adopt-rmqslave1)" >/dev/null
    exits 8 rmq adopt --all --conf-dir "$work/conf" 2>"$work/back"
    docker rm adopt-rmqslave1-copy >/dev/null
    has "$work/back" 'RMQ-E050.*copy the store of adopt-rmqslave1-adopting' 'the old containers are put back, as they were'
    same "containers" "$(running)" "$(standing theirs)"
    same "left" "" "$(standing ours)$(docker volume ls -q --filter label=io.rmqctl.cluster=adopt)$(docker network ls -q --filter label=io.rmqctl.cluster=adopt)"
    within 30 finds_all
}
killed_half_way_it_goes_back() {
    docker events --filter event=rename --format x >"$work/renamed" & local events=$!
    "$RMQCTL" --name adopt adopt --all --conf-dir "$work/conf" 2>"$work/killed" & local adopting=$!
    until [ -s "$work/renamed" ] || ! kill -0 "$adopting" 2>/dev/null; do :; done
    kill -9 "$adopting"; wait "$adopting" || true
    kill "$events"; wait "$events" || true
    docker ps -a --format '{{.Names}}' >"$work/names"; has "$work/names" '^adopt-rmq.*-adopting$'
    exits 5 up --masters 1 --slaves 1 2>"$work/up"; has "$work/up" 'RMQ-E023|RMQ-E014' 'adopt --all'
    rmq adopt --all --undo
    # What was stopped and not yet set aside is still called what it was.
    docker start $nodes >/dev/null
    same "containers" "$(running)" "$(standing theirs)"
    within 30 finds_all
}
killed_half_way_it_goes_on_and_adopts() {
    docker events --filter event=rename --format x >"$work/renamed" & local events=$!
    "$RMQCTL" --name adopt adopt --all --conf-dir "$work/conf" 2>"$work/killed" & local adopting=$!
    until [ "$(wc -l <"$work/renamed")" -ge 5 ] || ! kill -0 "$adopting" 2>/dev/null; do :; done
    kill -9 "$adopting"; wait "$adopting" || true
    kill "$events"; wait "$events" || true
    rmq adopt --all --conf-dir "$work/conf" 2>"$work/adopt" || { cat "$work/adopt"; return 1; }
    has "$work/adopt" 'rmqmaster1 +broker-a:0 registered' 'rmqslave1 +broker-a:1 in sync' '3/3 brokers from the host, 3/3 from adopt-rmqnetwork' \
        'Cluster adopt is ready: 5 containers adopted' 'adopt --all --remove-old'
    same "nodes" "$(running)" "$(standing ours)"
    docker ps -a --format '{{.Names}} {{.State}}' --filter name=before-adopt | sort | paste -sd, >"$work/old"
    same "old ones" "$(old)" "$(cat "$work/old")"
}
has_every_message_offset_and_setting() {
    finds_all
    same "lag of the group, as before" 2000 "$(lag)"
    same "maxMessageSize" 8388608 "$(python3 tests/peers/probe.py config "$master1" maxMessageSize)"
    same "size of a log file" 16777216 "$(python3 tests/peers/probe.py config "$master1" mappedFileSizeCommitLog)"
    same "size of a queue file" 600000 "$(python3 tests/peers/probe.py config "$master1" mappedFileSizeConsumeQueue)"
    same "fileReservedTime, RocketMQ's own" 72 "$(python3 tests/peers/probe.py config "$master1" fileReservedTime)"
    produce orders 500 "$work/third.log"
    rmq verify ha -o json >"$work/ha" || { cat "$work/ha"; return 1; }
}
is_a_cluster_like_any_other() {
    rmq plan --exit-code >/dev/null
    rmq adopt --all 2>"$work/again"; has "$work/again" 'nothing to adopt'
    rmq adopt rmqmaster1 2>"$work/again"; has "$work/again" 'rmqmaster1 is a node of cluster adopt already'
    rmq stop; rmq start; rmq wait
    finds_all; verify orders "$work/third.log"
    rmq up --slaves 2 --timeout 60s   # one more, of broker-b
    within 30 healthy
}
removes_the_old_ones_when_asked() {
    rmq adopt --all --remove-old 2>"$work/removed"; has "$work/removed" 'Removed: adopt-rmq.*-before-adopt'
    same "old ones" "" "$(standing theirs)"
    [ -s "$(ls "$work"/by-hand/store/commitlog/* | head -1)" ] || fail "the host directory was touched"
    finds_all
}
check by_hand by_hand
[ "$last" = 0 ] || exit 1
for c in up_names_adopt shows_what_it_would_do refuses_what_does_not_fit puts_all_back_when_something_fails killed_half_way_it_goes_back \
    killed_half_way_it_goes_on_and_adopts has_every_message_offset_and_setting is_a_cluster_like_any_other removes_the_old_ones_when_asked; do
    check "$c" "$c"
done
[ "$failed" = 0 ]
