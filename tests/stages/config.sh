#!/usr/bin/env bash
# properties of a running cluster: lint, diff, get, set at once and by restart, pull and push; completions, pages, schema
# needs: python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
runtime=process cluster=rmqcfg offset=14800
namesrv=127.0.0.1:$((9876 + offset)) console=127.0.0.1:$((8181 + offset)) master1=127.0.0.1:$((10911 + offset)) slave1=127.0.0.1:$((11911 + offset))
owns_cluster
config() { rmq config "$@"; }
pids() { nodes_json | json 'sorted("%s %s" % (n["name"], n["id"]) for n in d["nodes"])'; }
value() { config get "$@" -o json | json '[r["value"] + " " + r["origin"] for r in d]'; }
edited=$work/conf/broker-a-master.properties

comes_up() { up --masters 1 --slaves 1 --no-console --timeout 60; produce kept 500 "$work/kept.log"; }
is_clean_at_first() {
    config lint
    config diff >"$work/diff"; same "lines of a diff without drift" 0 "$(wc -l <"$work/diff")"
    same "where the port comes from" "$((10911 + offset)) topology" "$(value rmqmaster1 listenPort)"
    same "where the segment size comes from" "67108864 profile" "$(value rmqmaster1 mappedFileSizeCommitLog)"
}
finds_slips_in_files() {
    mkdir -p "$work/blog"
    printf 'brokerName=broker-a\nmapedFileSizeCommitLog=1\nbrokerRole=SYSC_MASTER\n' >"$work/blog/a.properties"
    printf 'brokerName=broker-a\nbrokerRole=SLAVE\nbrokerId=0\nlistenPort=10909\n' >"$work/blog/b.properties"
    exits 3 config lint "$work/blog/a.properties" "$work/blog/b.properties" >"$work/lint"
    has "$work/lint" 'a.properties:2: error: .*did you mean `mappedFileSizeCommitLog`' 'a.properties:3: error: .*did you mean `SYNC_MASTER`' \
        'b.properties:2: error: brokerRole=SLAVE needs brokerId > 0' 'b.properties:4: error: listenPort 10909 is the VIP port of .*a.properties'
    (config lint "$work/blog/a.properties" -o json || [ $? = 3 ]) >"$work/lint.json"
    same "findings" "2 2 mappedFileSizeCommitLog" "$(json '"%d %d %s" % (d["errors"], d["findings"][0]["line"], d["findings"][0]["suggestion"])' <"$work/lint.json")"
    config lint templates/cluster.yaml
}
shows_an_edit_as_drift_until_the_restart() {
    sed -i 's/^deleteWhen=04/deleteWhen=05/' "$edited"
    exits 7 config diff >"$work/diff"; has "$work/diff" 'rmqmaster1 +deleteWhen +05 +04 +04'
    (config diff -o json || [ $? = 7 ]) | json '[(k["key"], k["file"], k["running"]) for n in d["nodes"] for k in n["keys"]]' >"$work/drift"
    same "what differs" "('deleteWhen', '05', '04')" "$(cat "$work/drift")"
    rmq restart rmqmaster1; within 30 healthy
    config diff
    same "after the restart" "05 edit" "$(value rmqmaster1 deleteWhen)"
}
sets_at_once_and_keeps_it() {
    local before; before=$(pids)
    config set maxMessageSize=2097152 --dry-run >"$work/dry"; has "$work/dry" 'rmqmaster1 +maxMessageSize +4194304 +2097152 +live'
    same "after a dry run" "4194304 default" "$(value rmqmaster1 maxMessageSize)"
    config set maxMessageSize=2097152 >"$work/set"; has "$work/set" 'rmqslave1 +maxMessageSize +4194304 +2097152 +live'
    same "processes" "$before" "$(pids)"
    same "value" "2097152 edit" "$(value rmqmaster1 maxMessageSize)"
    config diff
    # A crash and an `up` keep it.
    kill -9 "$(pid_of rmqmaster1)"; within 30 healthy
    up --masters 1 --slaves 1 --no-console
    same "after a crash and an up" "2097152 edit" "$(value rmqmaster1 maxMessageSize)"
    config diff
}
sets_by_restart_and_keeps_it() {
    local before; before=$(pids | grep rmqslave1)
    config set fileReservedTime=96 rmqmaster1 >"$work/set"; has "$work/set" 'rmqmaster1 +fileReservedTime +48 +96 +restart: fileReservedTime'
    within 30 healthy
    same "value" "96 edit" "$(value rmqmaster1 fileReservedTime)"
    same "the slave's process" "$before" "$(pids | grep rmqslave1)"
    verify kept "$work/kept.log"
    config set fileReservedTime= rmqmaster1; same "taken back" "48 profile" "$(value rmqmaster1 fileReservedTime)"
}
refuses_what_cannot_be() {
    exits 3 config set maxMesageSize=1 2>"$work/no"; has "$work/no" RMQ-E103 'did you mean `maxMessageSize`'
    exits 3 config set listenPort=1 2>"$work/no"; has "$work/no" 'topology decides' 'port-offset'
    exits 3 config set traceOn=maybe 2>"$work/no"; has "$work/no" 'true or false'
    exits 2 config set rmqmaster1 2>"$work/no"; has "$work/no" 'KEY=VALUE'
    same "nothing has changed" "true default" "$(value rmqmaster1 traceOn)"
}
pulls_and_pushes() {
    config pull "$work/running"; has "$work/running/broker-a-master.properties" '^maxMessageSize=2097152$'
    config push "$work/running" --dry-run >"$work/push"; same "changes of a pushed pull" "" "$(cat "$work/push")"
    sed -i 's/^maxMessageSize=.*/maxMessageSize=3145728/' "$work/running"/broker-a-*.properties
    sed -i 's/^deleteWhen=.*/deleteWhen=03/' "$work/running/broker-a-slave1.properties"
    exits 5 config pull "$work/running" 2>"$work/no"; has "$work/no" RMQ-E141 'maxMessageSize'
    local before; before=$(pids | grep rmqmaster1)
    config push "$work/running" >"$work/push"
    has "$work/push" 'rmqmaster1 +maxMessageSize +2097152 +3145728 +live' 'rmqslave1 +deleteWhen +04 +03 +restart'
    same "the master's process" "$before" "$(pids | grep rmqmaster1)"
    within 30 healthy; config diff
    same "pushed" "3145728 edit" "$(value rmqslave1 maxMessageSize)"
    # A file that would break its node changes nothing.
    echo brokerRole=SYSC_MASTER >>"$work/running/broker-a-master.properties"
    sed -i 's/^listenPort=.*/listenPort=1111/' "$work/running/broker-a-slave1.properties"
    exits 3 config push "$work/running" 2>"$work/no"; has "$work/no" RMQ-E143 'SYSC_MASTER' 'listenPort must be'
    config diff
}
colours_as_told() {
    local esc; esc=$(printf '\033')
    NO_COLOR=1 "$RMQCTL" --name "$cluster" status | grep -q "$esc" && fail "colours in spite of NO_COLOR"
    "$RMQCTL" --name "$cluster" --color never status | grep -q "$esc" && fail "colours in spite of --color never"
    env -u NO_COLOR "$RMQCTL" --name "$cluster" --color always status | grep -q "$esc"
}
writes_completions_pages_and_schema() {
    "$RMQCTL" completion bash >"$work/completion"; bash -n "$work/completion"
    bash -c '. "$1"; complete -p rmqctl' _ "$work/completion" >"$work/complete"; has "$work/complete" rmqctl
    "$RMQCTL" man "$work/man"; has "$work/man/rmqctl-up.1" '^\.TH' 'Examples'
    "$RMQCTL" schema >"$work/schema.json"
    same "what may stand in topology" "console masters namesrvs slaves slavesPerMaster" \
        "$(json '" ".join(sorted(d["$defs"]["Topology"]["properties"]))' <"$work/schema.json")"
    (cd "$work" && "$RMQCTL" init --full full.yaml); config lint "$work/full.yaml"
    "$RMQCTL" explain RMQ-E021 >"$work/explain"; has "$work/explain" cause remedy port-offset
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in is_clean_at_first finds_slips_in_files shows_an_edit_as_drift_until_the_restart sets_at_once_and_keeps_it \
    sets_by_restart_and_keeps_it refuses_what_cannot_be pulls_and_pushes colours_as_told writes_completions_pages_and_schema; do check "$c" "$c"; done
[ "$failed" = 0 ]
