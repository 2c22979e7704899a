#!/usr/bin/env bash
# a store goes to the Apache broker and back, after a clean stop and after kill -9: what is acknowledged and what is in flight
# (timed, delayed, half, popped, sent back) is all there
# needs: peers rmqctl rmqload features
# beside: conformance
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqh offset=11300
namesrv=127.0.0.1:$((9876 + offset)) master1=127.0.0.1:$((10911 + offset))
java_namesrv=127.0.0.1:$((9876 + offset + 50)) java_port=$((10911 + offset + 50))
owns_cluster apache wipe
conf=$work/conf/broker-a-master.properties
property() { sed -n "s/^$1 *= *//p" "$conf" | tail -1; }
# Both must cut the log into files of one size; everything else is each side's own default.
sizes() { local k v; for k in mappedFileSizeCommitLog mappedFileSizeConsumeQueue maxHashSlotNum maxIndexNum; do v=$(property "$k"); [ -z "$v" ] || printf -- '--set\n%s=%s\n' "$k" "$v"; done; }
java_up() {
    local set; mapfile -t set < <(sizes)
    apache up --masters 1 --namesrv-port "${java_namesrv##*:}" --base-port "$java_port" --heap 512m ${set[@]+"${set[@]}"}
}
java_store=$work/apache/broker-a-0/store

comes_up() { up --masters 1 --slaves 0 --no-console; }
fill() { # LOG: several topics, sizes, tags and keys; more than one file of the log
    produce "plain$1" 20000 "$work/plain$1.log" --size 1024
    produce "tagged$1" 5000 "$work/tagged$1.log" --size 200 --tags 5 --keys
    produce "large$1" 500 "$work/large$1.log" --size 100000
    produce "batched$1" 4000 "$work/batched$1.log" --size 300 --batch 16
}
finds() { # LOG… on the server at $namesrv
    local l t; for l in "$@"; do for t in plain tagged large batched; do verify "$t$l" "$work/$t$l.log"; done; done
}
java_broker=127.0.0.1:$java_port
leave() { "$FEATURES" "$1" leave "$work/left"; } # BROKER
collect() { "$FEATURES" "$1" collect "$work/left" "${@:2}"; } # BROKER [killed]
goes_to_java_after_a_clean_stop() {
    fill 1
    leave "$master1"
    rmq stop rmqmaster1
    mkdir -p "$(dirname "$java_store")"; cp -a "$(property storePathRootDir)" "$java_store"
    java_up
    namesrv=$java_namesrv finds 1
    # It goes on writing where ours ended.
    lenient=1 namesrv=$java_namesrv produce plain1 2000 "$work/more.log" --size 1024
    namesrv=$java_namesrv verify plain1 "$work/more.log"
    collect "$java_broker"
    leave "$java_broker"
}
comes_back_from_java() {
    apache down
    local store; store=$(property storePathRootDir)
    rm -rf "$store"; cp -a "$java_store" "$store"
    rmq start rmqmaster1
    finds 1
    verify plain1 "$work/more.log"
    collect "$master1"
    fill 2
    finds 2
}
goes_to_java_after_a_kill() {
    fill 3
    leave "$master1"
    apache wipe; mkdir -p "$(dirname "$java_store")"
    # Frozen in the middle of its work, copied, then killed: the files as a kill leaves them, before any restart mends them.
    local pid; pid=$(pid_of rmqmaster1)
    kill -STOP "$pid"
    cp -a "$(property storePathRootDir)" "$java_store"
    kill -9 "$pid"
    rmq stop rmqmaster1
    [ -e "$java_store/abort" ] || fail "the copy bears no mark of a broker that did not end: it proves nothing"
    java_up
    namesrv=$java_namesrv finds 1 2 3
    collect "$java_broker" killed
}
comes_back_from_a_killed_java() {
    lenient=1 namesrv=$java_namesrv fill 4
    leave "$java_broker"
    apache kill broker-a-0
    apache down
    local store; store=$(property storePathRootDir)
    rm -rf "$store"; cp -a "$java_store" "$store"
    rmq start rmqmaster1
    finds 1 2 3 4
    collect "$master1" killed
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in goes_to_java_after_a_clean_stop comes_back_from_java goes_to_java_after_a_kill comes_back_from_a_killed_java; do
    check "$c" "$c"
    # Each begins where the one before ended.
    [ "$last" = 0 ] || exit 1
done
[ "$failed" = 0 ]
