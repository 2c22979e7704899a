#!/usr/bin/env bash
# clusters around one command or for a time: what the command gets, and that nothing is left, whatever ends it
# needs: docker python rmqctl rmqload
# beside: diagnose
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
command -v setsid >/dev/null || fail "setsid is missing (util-linux)"
rt=process
run() { "$RMQCTL" run --runtime "$rt" --timeout "${limit:-90s}" "$@"; }
# Of clusters that a run named, and of this stage's named ones; a developer's others are not looked at.
mine='^(run-[0-9a-f]{8}|rmqe[0-9]+)([- ]|$)'
left() {
    if [ "$rt" = docker ]; then
        docker ps -a --format '{{.Label "io.rmqctl.cluster"}} {{.Names}} {{.Status}}' --filter label=io.rmqctl.expires-at | grep -E "$mine" || true
        docker network ls --format '{{.Name}}' --filter label=io.rmqctl.expires-at | grep -E "$mine" || true
        docker volume ls --format '{{.Label "io.rmqctl.cluster"}} {{.Name}}' --filter label=io.rmqctl.expires-at | grep -E "$mine" || true
    else
        (cd "$XDG_STATE_HOME/rmqctl" 2>/dev/null && ls -d -- * | grep -E "$mine") || true
        # Engines and supervisors: each has its directory or its file among its arguments.
        grep -laE -- "$XDG_STATE_HOME/rmqctl/(run-|rmqe)" /proc/[0-9]*/cmdline 2>/dev/null || true
    fi
}
something_left() { [ -n "$(left)" ]; }
nothing_left() { [ -z "$(left)" ] || { left; fail "$rt: this is left"; }; }
# What a killed rmqctl may leave on Docker: never a running node; a network, and containers it had not started yet.
no_node_runs() { [ "$rt" = process ] || case "$(left)" in *' Up '*) return 1 ;; esac; }
sweeps() { "$RMQCTL" --runtime "$rt" down --expired && nothing_left; }
# Starts `run ARG…` as the leader of a process group, and waits until its command has written its file. Sets `pid`.
begin() { # FILE ARG…
    local file=$1; shift; rm -f "$file"
    setsid "$RMQCTL" run --runtime "$rt" --timeout 90s "$@" >"$work/begin.out" 2>&1 &
    pid=$!
    within 120 test -s "$file" || { cat "$work/begin.out"; return 1; }
}

returns_the_commands_code() {
    exits 0 run -- true
    exits 7 run -- sh -c 'exit 7'
    exits 143 run -- sh -c 'kill -TERM $$'
    exits 127 run -- ./no-such-command
    nothing_left
}
leaves_the_output_alone() {
    same output "hello" "$(echo hello | run -- cat 2>"$work/stderr")"
    has "$work/stderr" 'ready in' 'is gone'
    same "output and errors under -q" "" "$(run -q -- true 2>&1)"
    [ ! -e "rmq/run-"* ] 2>/dev/null || fail "properties files are left"
}
the_command_can_produce_and_sees_the_cluster() {
    run --masters 1 --slaves 1 --console --rename NAMESRV_ADDR=ADDR -- sh -euc '
        [ "$ADDR" = "$NAMESRV_ADDR" ]
        "$RMQLOAD" produce --namesrv "$NAMESRV_ADDR" --topic t --create-topic --count 2000 --seconds 60 --acked-log "$0/acked" --json >"$0/produced"
        "$RMQLOAD" verify --namesrv "$NAMESRV_ADDR" --topic t --acked "$0/acked"
        "$RMQCTL" wait --topic t --timeout 20s -o json >"$0/wait"
        "$RMQCTL" env -o json >"$0/env"
        GITHUB_ENV="$0/github" "$RMQCTL" env --shell github
        "$RMQCTL" ls -o json >"$0/ls"
        printf "%s\n" "$RMQCTL_NAME" >"$0/name"
        python3 -c "import urllib.request,os; urllib.request.urlopen(os.environ[\"RMQ_CONSOLE_URL\"]).read()"' "$work"
    same acknowledged 2000 "$(json 'd["acked_total"]' <"$work/produced")"
    same "waited for" "t" "$(json '[r["name"] for r in d["ready"]][-1]' <"$work/wait")"
    has "$work/github" '^NAMESRV_ADDR=127.0.0.1:[0-9]+$'
    same "state and end in ls" "running True" \
        "$(RUN=$(cat "$work/name") json '[" ".join([c["state"], str(0 < c["expiresInSeconds"] <= 43200)]) for c in d if c["cluster"] == __import__("os").environ["RUN"]]' <"$work/ls")"
    nothing_left
}
takes_back_what_does_not_come_up() {
    # An address of the documentation's, which nobody has: no node is ever reached at it.
    limit=3s exits 6 run --advertise 192.0.2.1 --bind 127.0.0.1 -- touch "$work/late.ran" 2>"$work/late"
    has "$work/late" RMQ-E041 'taken away again'
    [ ! -e "$work/late.ran" ] || fail "the command ran on a cluster that was not ready"
    nothing_left
}
refuses_a_name_that_is_taken() {
    begin "$work/began" --name rmqe1 -- sh -c 'echo $$ >"$0"; sleep 60' "$work/began"
    exits 5 run --name rmqe1 -- true 2>"$work/taken"
    has "$work/taken" RMQ-E073
    kill -INT "$pid"; wait "$pid" || true
    nothing_left
}
ctrl_c_reaches_the_command_and_leaves_nothing() {
    begin "$work/began" -- sh -c 'trap "echo told >>\"$0\"; exit 9" INT; echo began >"$0"; while :; do sleep 0.1; done' "$work/began"
    kill -INT -- "-$pid"
    exits 9 wait "$pid"
    same "what the command saw" "began told" "$(paste -sd' ' "$work/began")"
    nothing_left
}
ctrl_c_while_it_comes_up_leaves_nothing() {
    rm -f "$work/early"
    setsid "$RMQCTL" run --runtime "$rt" -- sh -c 'touch "$0"; sleep 60' "$work/early" >"$work/early.out" 2>&1 &
    local p=$!
    within 60 something_left
    kill -INT "$p"
    # The command's own end, should it have begun meanwhile.
    exits 130 wait "$p"
    [ ! -e "$work/early" ] || echo "it was up before the signal came"
    nothing_left
}
a_killed_rmqctl_leaves_no_node() {
    begin "$work/began" --masters 2 --slaves 2 -- sh -c 'echo $$ >"$0"; exec sleep 60' "$work/began"
    local child; child=$(cat "$work/began")
    kill -KILL "$pid"; wait "$pid" || true
    kill "$child" 2>/dev/null || true
    if [ "$rt" = process ]; then within 20 nothing_left; else within 30 no_node_runs; sweeps; fi
}
a_killed_rmqctl_at_any_moment_leaves_no_node() {
    local delay
    for delay in 0.2 0.6 1.0 1.6 2.4; do
        setsid "$RMQCTL" run --runtime "$rt" -- sleep 60 >"$work/killed" 2>&1 &
        local p=$!
        sleep "$delay"   # it is the moment itself that is tried here
        pkill -KILL -g "$p" sleep 2>/dev/null || true
        kill -KILL "$p" 2>/dev/null || true; wait "$p" || true
        within 30 no_node_runs
        if [ "$rt" = docker ]; then sweeps; else "$RMQCTL" --runtime process down --expired; within 20 nothing_left; fi
    done
}
two_go_side_by_side() {
    local a b
    run -- sh -c 'echo "$RMQCTL_NAME $NAMESRV_ADDR"; "$RMQCTL" status >/dev/null' >"$work/a" 2>"$work/a.err" & a=$!
    run -- sh -c 'echo "$RMQCTL_NAME $NAMESRV_ADDR"; "$RMQCTL" status >/dev/null' >"$work/b" 2>"$work/b.err" & b=$!
    wait "$a" || { cat "$work/a.err"; fail "the first failed"; }
    wait "$b" || { cat "$work/b.err"; fail "the second failed"; }
    same "names and addresses" 4 "$(tr ' ' '\n' <"$work/a" | cat - <(tr ' ' '\n' <"$work/b") | sort -u | wc -l | tr -d ' ')"
    nothing_left
}
a_cluster_ends_when_its_time_is_up() {
    local e=rmqe2
    "$RMQCTL" --name $e --runtime "$rt" up --rm --ttl 12s --any-port --profile ci --masters 1 --slaves 0
    "$RMQCTL" --name $e --runtime "$rt" status >/dev/null
    exits 5 "$RMQCTL" --name $e --runtime "$rt" run -- true
    if [ "$rt" = process ]; then within 40 nothing_left; else within 40 no_node_runs; sweeps; fi
}
keep_leaves_it_until_down() {
    exits 3 run --name rmqe3 --keep -- sh -c 'exit 3'
    "$RMQCTL" --name rmqe3 --runtime "$rt" status >/dev/null
    "$RMQCTL" --name rmqe3 --runtime "$rt" down
    nothing_left
}
tells_progress_as_json() {
    run --progress json -- true 2>"$work/progress"
    python3 - "$work/progress" <<'PY'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
assert all("time" in e for e in events), events
ready = [e for e in events if e.get("node") == "rmqmaster1" and "registered" in e["state"]]
assert ready and 0 < ready[0]["done"] <= ready[0]["total"], events
PY
}
prune_asks_and_takes_only_what_is_over() {
    exits 2 "$RMQCTL" --runtime "$rt" prune --no-input --older-than 8000h >"$work/prune" 2>&1 || has "$work/prune" "Nothing is left over"
    "$RMQCTL" --runtime "$rt" prune --expired -y
}
a_node_that_would_be_gone_is_not_stopped() {
    [ "$rt" = docker ] || return 0
    run -- sh -c '"$RMQCTL" restart rmqslave1 2>"$0"; [ $? = 5 ] && "$RMQCTL" status >/dev/null' "$work/restart"
    has "$work/restart" RMQ-E075
    nothing_left
}
cases=(returns_the_commands_code leaves_the_output_alone the_command_can_produce_and_sees_the_cluster takes_back_what_does_not_come_up
    refuses_a_name_that_is_taken ctrl_c_reaches_the_command_and_leaves_nothing ctrl_c_while_it_comes_up_leaves_nothing a_killed_rmqctl_leaves_no_node
    a_killed_rmqctl_at_any_moment_leaves_no_node two_go_side_by_side a_cluster_ends_when_its_time_is_up keep_leaves_it_until_down
    tells_progress_as_json prune_asks_and_takes_only_what_is_over a_node_that_would_be_gone_is_not_stopped)
export RMQCTL RMQLOAD
for rt in ${EPHEMERAL_RUNTIMES:-process docker}; do
    for c in "${cases[@]}"; do check "$c.$rt" "$c"; done
done
[ "$failed" = 0 ]
