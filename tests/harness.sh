# What the stages of ./test share: cases and their lines, a cluster of rmqctl's, loads, Apache peers.
# A stage sources it first. It runs from the repository's root, in a shell of its own, with TEST_OUT set by ./test.
# shellcheck shell=bash
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); cd "$root"
stage=$(basename "$0" .sh)
out=${TEST_OUT:-$root/target/test}; work=$out/$stage log=$out/log
mkdir -p "$log"; rm -rf "$work"; mkdir -p "$work"
# Nothing of a developer's own clusters is seen or touched: the process runtime keeps its state here.
export XDG_STATE_HOME=$out/state XDG_RUNTIME_DIR=$out/run NO_COLOR=1
mkdir -p "$XDG_STATE_HOME" "$XDG_RUNTIME_DIR"; chmod 700 "$XDG_RUNTIME_DIR"
unset RMQCTL_NAME NAMESRV_ADDR ROCKETMQ_HOME 2>/dev/null || true

# --- cases ----------------------------------------------------------------------------------------------------------
last=0 failed=0
# One case: a command or function of this file's, under set -e, its output in a log that is shown when it fails.
# Sets `last`; never call it in a condition, which would switch set -e off inside.
check() { # NAME COMMAND…
    local name=$stage.$1 file=$log/$stage.$1.log began=$EPOCHREALTIME seconds; shift
    set +e
    (set -euo pipefail; "$@") >"$file" 2>&1 </dev/null
    last=$?
    set -e
    seconds=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
    if [ "$last" = 0 ]; then echo "PASS $name $seconds"; return 0; fi
    failed=$((failed + 1))
    echo "FAIL $name $seconds - exit $last: $(grep -v '^[[:space:]]*$' "$file" | tail -1 | cut -c1-200)"
    { echo "--- the end of $file"; tail -40 "$file"; echo "---"; } >&2
}
# What `cargo test` counted, in one line.
cargo_tests() { # NAME CARGO-TEST-ARGUMENT…
    local name=$stage.$1 file=$log/$stage.$1.log began=$SECONDS rc=0 p f s; shift
    cargo test --no-fail-fast "$@" >"$file" 2>&1 </dev/null || rc=$?
    read -r p f s < <(awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$file")
    # A test binary that dies prints no result of its own.
    [ "$rc" = 0 ] || [ "$f" -gt 0 ] || f=1
    echo "TALLY $p $f $s $name $((SECONDS - began))"
    [ "$f" = 0 ] || { grep -E '^(test .* FAILED|error|---- )|panicked at' "$file" | head -40; echo "the whole of it: $file"; } >&2
    [ "$f" = 0 ]
}
fail() { echo "$*" >&2; return 1; }
same() { # WHAT WANTED GOT
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
}
has() { # FILE PATTERN…: every extended regular expression is found in the file
    local file=$1 pattern; shift
    for pattern in "$@"; do grep -qE -- "$pattern" "$file" || { cat "$file"; fail "nothing matches /$pattern/ in $file"; return 1; }; done
}
exits() { # CODE COMMAND…: ends with just this code
    local want=$1 got=0; shift
    "$@" || got=$?
    same "exit code of $*" "$want" "$got"
}
# Asks again until it holds or the time is up. Only for things outside that give no event to wait for.
within() { # SECONDS COMMAND…
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { "$@" || true; fail "not within the time: $*"; return 1; }
        sleep 0.1
    done
}
json() { # EXPRESSION of python, in which d is the document on stdin
    python3 -c 'import json,sys; d=json.load(sys.stdin); r=eval(sys.argv[1]); print(*(r if isinstance(r,list) else [r]),sep="\n")' "$1"
}

# --- a cluster of rmqctl's ------------------------------------------------------------------------------------------
# Its own name and ports, so that a developer's cluster may go on beside it. The ports stay below the ephemeral range.
cluster=rmqt offset=10000 runtime=docker
namesrv=127.0.0.1:$((9876 + offset)) console=127.0.0.1:$((8181 + offset))
master1=127.0.0.1:$((10911 + offset)) slave1=127.0.0.1:$((11911 + offset))
rmq() { "$RMQCTL" --name "$cluster" "$@"; }
up() { # FLAG…: two masters, two slaves unless told otherwise
    rmq up --runtime "$runtime" --port-offset "$offset" --conf-dir "$work/conf" "$@"
}
# Exit code 7, some node is not well, is no reason to show nothing.
nodes_json() { rmq status -o json || [ $? = 7 ]; }
node() { # NAME EXPRESSION of python over n, the node in `status -o json`
    nodes_json | python3 -c '
import json, sys
for n in json.load(sys.stdin)["nodes"]:
    if n["name"] == sys.argv[1]: print(eval(sys.argv[2])); break
else: sys.exit("no node " + sys.argv[1])' "$1" "$2"
}
pid_of() { # NODE: of the engine itself; nothing while its supervisor is starting it again
    if [ "$runtime" = docker ]; then docker inspect -f '{{.State.Pid}}' "$cluster-$1"; else node "$1" '"" if n["state"] == "restarting" else n["id"]'; fi
}
healthy() { rmq status >/dev/null; }
wipe_cluster() {
    [ -n "${RMQCTL:-}" ] && timeout 120 "$RMQCTL" --name "$cluster" down --volumes >"$log/$stage.wipe.log" 2>&1 </dev/null || true
    # What is left when rmqctl itself is at fault.
    if [ "$runtime" = docker ] && command -v docker >/dev/null; then
        docker ps -aq --filter "label=io.rmqctl.cluster=$cluster" | xargs -r docker rm -f -v >/dev/null 2>&1 || true
        docker volume ls -q --filter "label=io.rmqctl.cluster=$cluster" | xargs -r docker volume rm -f >/dev/null 2>&1 || true
        docker network ls -q --filter "label=io.rmqctl.cluster=$cluster" | xargs -r docker network rm >/dev/null 2>&1 || true
    fi
    if [ "$runtime" = process ]; then
        local p
        # Processes of this repository's binary under this cluster's state directory, and no others.
        for p in /proc/[0-9]*; do
            { tr '\0' '\n' <"$p/cmdline"; } 2>/dev/null | grep -q -- "^$XDG_STATE_HOME/rmqctl/$cluster/" && kill -9 "${p#/proc/}" 2>/dev/null || true
        done
        rm -rf "${XDG_STATE_HOME:?}/rmqctl/$cluster"
    fi
}
# Clears the cluster before the stage, after what an earlier run left, and after it. Further commands run before the last clearing.
owns_cluster() { # [COMMAND…]
    wipe_cluster
    # shellcheck disable=SC2064
    trap "${*:+$* || true;} wipe_cluster" EXIT
    trap 'exit 143' TERM INT
}

# --- loads ----------------------------------------------------------------------------------------------------------
# Bounded: catching up with a server that never has it all would take for ever.
load() { timeout -k 5 "${load_limit:-180}" "$RMQLOAD" "$@"; }
# Sends COUNT messages with a log of what was acknowledged, and requires all of them to be; of a cold JVM, which refuses
# some as busy, only that it took messages at all (lenient=1).
produce() { # TOPIC COUNT ACKED-LOG [OPTION…]
    local topic=$1 count=$2 acked=$3; shift 3
    load produce --namesrv "$namesrv" --topic "$topic" --create-topic --count "$count" --seconds 120 --acked-log "$acked" --json "$@" >"$acked.json"
    [ -n "${lenient:-}" ] || same "acknowledged of $count" "$count" "$(json 'd["acked_total"]' <"$acked.json")"
}
verify() { # TOPIC ACKED-LOG [OPTION…]
    local topic=$1 acked=$2; shift 2
    load verify --namesrv "$namesrv" --topic "$topic" --acked "$acked" "$@"
}

# --- Apache peers ---------------------------------------------------------------------------------------------------
apache_lib=${RMQ_PEER_HOME:-$HOME/.cache/rmq-peers/apache}/lib
mqadmin() { NAMESRV_ADDR=$namesrv tests/peers/mqadmin.sh "$@"; }
# Two cores that other stages use as well make the Java broker refuse sends as busy: after 200 ms in its queue, or with one
# append that took a second (apache/rocketmq: broker/latency/BrokerFastFailure.java, store/config/MessageStoreConfig.java).
# Neither is what a stage asks about.
apache() { # cluster.sh COMMAND…: an Apache cluster in the stage's own directory
    tests/peers/cluster.sh "$@" --store "$work/apache" --set brokerFastFailureEnable=false --set osPageCacheBusyTimeOutMills=60000
}
