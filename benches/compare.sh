#!/usr/bin/env bash
# One table: our broker, the Apache broker and rmqload's sink under the same loads, by turns, in one run.
#   benches/compare.sh [RUNS (3)] [SECONDS (8)]
# Sends of 1 KiB, 16 connections with 64 in flight each, and 64 connections with one; then a consumer of what is stored.
# Each server is alone with the client on 127.0.0.1 while it is measured; the others idle. Medians are printed.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd); cd "$root"
runs=${1:-3} seconds=${2:-8}
# shellcheck source=../tests/needs.sh
. tests/needs.sh
need_rmqctl >&2; need_rmqload >&2; need_peers >&2
work=$root/target/compare; rm -rf "$work"; mkdir -p "$work"
export XDG_STATE_HOME=$work/state XDG_RUNTIME_DIR=$work/run; mkdir -p "$XDG_RUNTIME_DIR"; chmod 700 "$XDG_RUNTIME_DIR"
offset=11500 sink=0
ours=127.0.0.1:$((9876 + offset)) java=127.0.0.1:$((9876 + offset + 50)) sink_at=127.0.0.1:$((9876 + offset + 100))
finish() {
    if [ "$sink" != 0 ]; then kill "$sink" 2>/dev/null || true; fi
    "$RMQCTL" --name rmqcompare down --volumes >/dev/null 2>&1 || true
    tests/peers/cluster.sh wipe --store "$work/java" >/dev/null 2>&1 || true
}
trap finish EXIT
"$RMQCTL" --name rmqcompare up --runtime process --masters 1 --slaves 0 --no-console --port-offset "$offset" --conf-dir "$work/conf" --profile prod >&2
tests/peers/cluster.sh up --masters 1 --store "$work/java" --namesrv-port "${java##*:}" --base-port $((10911 + offset + 50)) --heap 2g >&2
(cd "$work" && exec "$RMQLOAD" sink --listen "$sink_at" >"$work/sink.log" 2>&1) & sink=$!
declare -A pid=(
    [ours]=$("$RMQCTL" --name rmqcompare status -o json | python3 -c 'import json,sys; print(next(n["id"] for n in json.load(sys.stdin)["nodes"] if n["name"] == "rmqmaster1"))')
    [java]=$(cat "$work/java/broker-a-0/pid") [sink]=$sink)
where() { case $1 in ours) echo "--namesrv $ours --create-topic" ;; java) echo "--namesrv $java --create-topic" ;; sink) echo "--addr $sink_at" ;; esac; }
row() { # SERVER LOAD RUN COMMAND…
    local server=$1 load=$2 run=$3; shift 3
    # shellcheck disable=SC2046
    "$RMQLOAD" "$1" $(where "$server") --queues 8 --server-pid "${pid[$server]}" --json "${@:2}" >"$work/one.json" || true
    python3 - "$server" "$load" "$run" "$work/one.json" >>"$work/rows" <<'PY'
import json, sys
d = json.load(open(sys.argv[4]))
lat = d.get("latency") or {}
print(json.dumps({"server": sys.argv[1], "load": sys.argv[2], "run": int(sys.argv[3]), "rate": d.get("msgs_per_s", 0), "ok": d.get("ok"),
    "server_us": (d.get("server") or {}).get("cpu_us_per_msg"), "client_us": d.get("client_cpu_us_per_msg"),
    "p50": lat.get("p50_us"), "p99": lat.get("p99_us"), "rss_anon": (d.get("server") or {}).get("rss_anon_mb"),
    "others": (d.get("machine") or {}).get("other_busy_cores"), "refused": d.get("refused", 0)}))
PY
}
# The Apache broker is slow until its hot code is compiled.
echo "warming the Apache broker up" >&2
for _ in 1 2; do "$RMQLOAD" produce --namesrv "$java" --topic warm --create-topic --queues 8 --connections 16 --in-flight 256 --seconds 15 >/dev/null || true; done
for ((r = 1; r <= runs; r++)); do
    for s in ours java sink; do
        row "$s" "send 1 KiB 16x64" "$r" produce --topic "deep$r" --connections 16 --in-flight 1024 --warmup 2 --seconds "$seconds" --size 1024
        row "$s" "send 1 KiB 64x1" "$r" produce --topic "wide$r" --connections 64 --in-flight 64 --warmup 2 --seconds "$seconds" --size 1024
        [ "$s" = sink ] || row "$s" "consume 1 KiB" "$r" consume --topic "deep$r"
    done
done
python3 - "$work/rows" <<'PY'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(f"{'load':<18} {'server':<6} {'msg/s':>9} {'server us':>10} {'client us':>10} {'p50 us':>9} {'p99 us':>9} {'anon MB':>8} {'refused':>8} {'others':>7}")
for load in dict.fromkeys(r["load"] for r in rows):
    for server in dict.fromkeys(r["server"] for r in rows):
        of = [r for r in rows if r["load"] == load and r["server"] == server]
        if not of:
            continue
        med = lambda k: statistics.median([r[k] for r in of if r[k] is not None] or [float("nan")])
        print(f"{load:<18} {server:<6} {med('rate'):>9.0f} {med('server_us'):>10.2f} {med('client_us'):>10.2f} {med('p50'):>9.0f} {med('p99'):>9.0f}"
              f" {med('rss_anon'):>8.0f} {sum(r['refused'] for r in of):>8} {max(r['others'] or 0 for r in of):>7.2f}" + ("" if all(r["ok"] for r in of) else "  NOT OK"))
PY
