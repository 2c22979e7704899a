#!/usr/bin/env bash
# a master container is killed under load: nothing acknowledged is lost, the others go on, it comes back by itself
# needs: docker python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
owns_cluster
comes_up() { up --masters 2 --slaves 2; }
acked() { wc -l <"$work/acked.log"; }
more_acknowledged_than() { [ "$(acked)" -gt "$1" ]; }
dead() { [ "$(docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' "$cluster-rmqmaster1")" != "$1" ]; }

loses_nothing_when_a_master_is_killed() {
    load produce --namesrv "$namesrv" --topic killed --create-topic --rate 2000 --seconds 30 --reconnect --timeline \
        --acked-log "$work/acked.log" --json >"$work/produce.json" &
    local loading=$! was at
    within 10 test -s "$work/acked.log"; within 10 more_acknowledged_than 8000
    was=$(docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' "$cluster-rmqmaster1")
    # Killed from outside: `docker kill` counts as a wish of the user's, after which Docker restarts nothing.
    kill -9 "${was%% *}"
    within 5 dead "$was"
    # The other master goes on taking messages at once.
    at=$(acked); within 10 more_acknowledged_than "$at"
    # Docker brings the container back, and with it the broker.
    within 30 healthy
    wait "$loading"
    cat "$work/produce.json"
    verify killed "$work/acked.log"
}
serves_reads_from_the_slave_while_the_master_is_down() {
    produce fromslave 3000 "$work/fromslave.log" --broker broker-a
    within 20 rmq wait --for synced --timeout 15s
    # At once: the slave has been told of the topic by then, not only sent its messages.
    docker kill "$cluster-rmqmaster1"
    gone() { [ "$(nodes_json | json '[n["state"] for n in d["nodes"] if n["name"]=="rmqmaster1"]')" != running ]; }
    within 10 gone
    load_limit=30 load consume --addr "$slave1" --topic fromslave --json >"$work/fromslave.json"
    same "messages read from the slave" 3000 "$(json 'd["messages"]' <"$work/fromslave.json")"
    # What was killed by hand stays down until it is asked back.
    rmq start rmqmaster1
    within 30 healthy
    verify fromslave "$work/fromslave.log"
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
check loses_nothing_when_a_master_is_killed loses_nothing_when_a_master_is_killed
check serves_reads_from_the_slave_while_the_master_is_down serves_reads_from_the_slave_while_the_master_is_down
[ "$failed" = 0 ]
