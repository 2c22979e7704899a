#!/usr/bin/env bash
# rmqctl killed at random moments, and then run again; clusters side by side; larger topologies
# needs: docker python rmqctl
# beside: conformance
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
# The rounds of each runtime (50 make a thorough run), and what makes them the same again.
rounds=${CONVERGE_ROUNDS:-14} seed=${CONVERGE_SEED:-$RANDOM}
cluster=rmqk offset=12650
RANDOM=$seed

# --- strangers: named much like ours, and not to be touched -----------------------------------------------------------
strangers() {
    docker ps -a --format '{{.Names}} {{.State}} {{.ID}}' --filter "name=^(my-$cluster|${cluster}2)-"
    docker network ls --format '{{.Name}} {{.ID}}' --filter "name=^(my-$cluster|${cluster}2)-"
    docker volume ls --format '{{.Name}}' --filter "name=^(my-$cluster|${cluster}2)-"
}
make_strangers() {
    docker network create "my-$cluster-rmqnetwork" >/dev/null
    docker network create --label "io.rmqctl.cluster=${cluster}2" "${cluster}2-rmqnetwork" >/dev/null
    docker volume create "my-$cluster-rmqmaster1-store" >/dev/null
    docker volume create --label "io.rmqctl.cluster=${cluster}2" --label io.rmqctl.volume=store "${cluster}2-rmqmaster1-store" >/dev/null
    # Any image will do for a container that is never started: the one that `up` has loaded.
    docker create --name "my-$cluster-rmqmaster1" --label "io.rmqctl.cluster=my-$cluster" "$(docker inspect -f '{{.Image}}' "$cluster-rmqnamesrv")" >/dev/null
}
remove_strangers() {
    docker rm -f "my-$cluster-rmqmaster1" >/dev/null 2>&1 || true
    docker network rm "my-$cluster-rmqnetwork" "${cluster}2-rmqnetwork" >/dev/null 2>&1 || true
    docker volume rm "my-$cluster-rmqmaster1-store" "${cluster}2-rmqmaster1-store" >/dev/null 2>&1 || true
}
wipe_others() {
    local name
    remove_strangers
    for name in "${cluster}a" "${cluster}b" "${cluster}c" "${cluster}m"; do
        (cluster=$name; wipe_cluster)
        (cluster=$name runtime=process; wipe_cluster)
    done
    (runtime=process; wipe_cluster)
}

# --- killed at random moments -----------------------------------------------------------------------------------------
what_is_left() {
    case $runtime in
        docker)
            docker ps -aq --filter "label=io.rmqctl.cluster=$cluster"
            docker volume ls -q --filter "label=io.rmqctl.cluster=$cluster"
            docker network ls -q --filter "label=io.rmqctl.cluster=$cluster" ;;
        process)
            find "$XDG_STATE_HOME/rmqctl/$cluster" 2>/dev/null || true
            # An engine or a supervisor that no file tells of any more.
            local p
            for p in /proc/[0-9]*; do
                { tr '\0' '\n' <"$p/cmdline"; } 2>/dev/null | grep -q -- "^$XDG_STATE_HOME/rmqctl/$cluster/" && echo "process ${p#/proc/}" || true
            done ;;
    esac
}
exec {silence}<> <(:)
# Runs a command, kills it at a random moment of the time that it may take on Docker, and runs it again.
killed_then_again() { # MILLISECONDS COMMAND…
    local most=$1 after pid; shift
    # Commands on processes take a tenth of that.
    [ "$runtime" = docker ] || most=$((most / 10))
    after=$((RANDOM % most))
    "$@" >"$work/killed.out" 2>&1 &
    pid=$!
    # The shell's own clock: a program would take longer to start than some of these commands to end.
    read -rt "$((after / 1000)).$(printf '%03d' $((after % 1000)))" -u "$silence" || true
    if kill -9 "$pid" 2>/dev/null; then hits=$((hits + 1)); echo "  killed after $after ms: $*"; else echo "  ended before $after ms: $*"; fi
    wait "$pid" 2>/dev/null || true
    ("$@")
}
# It takes the place of the shell that runs it, so that the process which is killed is rmqctl itself.
rmqctl() { exec "$RMQCTL" --name "$cluster" "$@"; }
converges() { # RUNTIME
    runtime=$1
    local before='' round hours=48 hits=0
    echo "seed $seed"
    with_slaves() { rmqctl up --runtime "$runtime" --port-offset "$offset" --conf-dir "$work/conf" --timeout 60 --masters 1 --slaves "$@"; }
    (with_slaves 1)
    if [ "$runtime" = docker ]; then make_strangers; before=$(strangers); fi
    for ((round = 1; round <= rounds; round++)); do
        echo "round $round"
        case $((round % 7)) in
            1) killed_then_again 2500 rmqctl restart ;;
            2) hours=$((120 - hours)); killed_then_again 3000 with_slaves 1 --set "fileReservedTime=$hours" ;;
            3) killed_then_again 2000 rmqctl stop; killed_then_again 1500 rmqctl start ;;
            4) killed_then_again 1500 rmqctl down; killed_then_again 2000 with_slaves 1 ;;
            5) killed_then_again 2500 with_slaves 2; killed_then_again 1500 with_slaves 1 --remove-orphans ;;
            # Down again as well: what is gone half-way comes back empty or is taken away.
            6) killed_then_again 3000 rmqctl scale --masters 2 --slaves 2 --settle 1s; within 30 healthy
                killed_then_again 2500 rmqctl scale --masters 1 --slaves 1 --settle 1s --volumes ;;
            0) killed_then_again 1500 rmqctl down --volumes; same "left behind" "" "$(what_is_left)"; killed_then_again 2500 with_slaves 1 ;;
        esac
        (rmqctl plan --runtime "$runtime" --exit-code >"$work/plan") || { cat "$work/plan"; fail "round $round: the plan is not empty"; }
        within 30 healthy
        [ "$runtime" != docker ] || same "what is not ours" "$before" "$(strangers)"
    done
    (rmqctl down --volumes)
    same "left behind" "" "$(what_is_left)"
    echo "$hits runs were killed"
    [ "$hits" -ge $((rounds / 4)) ] || fail "only $hits runs of $rounds rounds were killed before they ended"
}

# --- side by side, and larger -----------------------------------------------------------------------------------------
three_side_by_side() {
    local name i=0 pids=() pid
    for name in a b c; do
        i=$((i + 1))
        "$RMQCTL" --name "$cluster$name" up --port-offset $((offset + 100 * i)) --conf-dir "$work/conf-$name" --masters 1 --slaves 1 --timeout 120 >"$work/up-$name" 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || { cat "$work"/up-?; fail "one of them did not come up"; }; done
    for name in a b c; do "$RMQCTL" --name "$cluster$name" status >/dev/null; done
    same "clusters" "${cluster}a ${cluster}b ${cluster}c" "$("$RMQCTL" ls -o json | json 'sorted(c["cluster"] for c in d)' | grep "^$cluster[abc]\$" | paste -sd' ')"
    local others; others=$(for name in a c; do docker ps -q --no-trunc --filter "label=io.rmqctl.cluster=$cluster$name"; done | sort)
    "$RMQCTL" --name "${cluster}b" down --volumes
    same "what the others run" "$others" "$(for name in a c; do docker ps -q --no-trunc --filter "label=io.rmqctl.cluster=$cluster$name"; done | sort)"
    for name in a c; do "$RMQCTL" --name "$cluster$name" status >/dev/null; "$RMQCTL" --name "$cluster$name" down --volumes; done
}
comes_up_with() { # MASTERS SLAVES
    cluster=${cluster}m runtime=process
    up --masters "$1" --slaves "$2" --timeout 120
    same "brokers" "$(($1 + $2))" "$(nodes_json | json 'len([n for n in d["nodes"] if n["role"] in ("master", "slave") and n["state"] in ("running", "healthy")])')"
    rmq down --volumes
    same "left behind" "" "$(what_is_left)"
}

owns_cluster wipe_others
wipe_others
check processes_converge converges process
check containers_converge converges docker
check three_side_by_side three_side_by_side
check comes_up_2m_4s comes_up_with 2 4
check comes_up_4m_4s comes_up_with 4 4
[ "$failed" = 0 ]
