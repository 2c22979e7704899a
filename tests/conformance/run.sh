#!/usr/bin/env bash
# Runs the conformance suite against a RocketMQ cluster that is already up. See README.md.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage() {
    cat <<'TXT'
run.sh --namesrv HOST:PORT[;HOST:PORT] [--proxy HOST:PORT] [options]
  --only SUITE        java | java-4.9 | grpc | go | python | node; may be repeated (default: all but java-4.9)
  --case GLOB         only these cases: 'Send.sync', 'Retry.*', 'java.Topics.*', 'python.push'
  --acl KEY:SECRET    credentials of an administrator
  --control CMD       a command that stops and starts servers, for the disruptive cases; called as
                      CMD stop|kill|start BROKER_NAME BROKER_ID
  --parallel N        cases at a time in the Java suites (12)
  --build             only build what the suites need
  --list              names of the suites
TXT
}
namesrv='' proxy='' case='' acl='' control='' parallel=12 build_only='' only=()
while [ $# -gt 0 ]; do
    case $1 in
        --namesrv) namesrv=$2; shift ;;   --proxy) proxy=$2; shift ;;
        --only) only+=("$2"); shift ;;    --case) case=$2; shift ;;
        --acl) acl=$2; shift ;;           --control) control=$2; shift ;;
        --parallel) parallel=$2; shift ;;
        --build) build_only=1 ;;
        --list) echo "java java-4.9 grpc go python node"; exit ;;
        -h|--help) usage; exit ;;
        *) echo "run.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
[ -n "$namesrv$build_only" ] || { usage >&2; exit 2; }
[ ${#only[@]} -gt 0 ] || only=(java grpc go python node)
build=${CONFORMANCE_BUILD:-$here/.build}; mkdir -p "$build"
run=$(printf '%05x' $(( ($(date +%s) ^ $$ << 4) & 0xfffff )))
# Runs side by side have a report each.
report=${CONFORMANCE_REPORT:-$build/report}
export CF_NAMESRV=$namesrv CF_PROXY=$proxy CF_RUN=$run CF_ACL=$acl CF_CASE=$case
want() { local s; for s in "${only[@]}"; do [ "$s" = "$1" ] && return 0; done; return 1; }

# --- build what is needed; a stamp of the sources tells whether it is ----------------------------------------------
stamp() { (cd "$here" && find "$@" -type f -not -path '*/target/*' -not -path '*/node_modules/*' -print0 | sort -z | xargs -0 sha256sum) | sha256sum | cut -c1-16; }
built() { # NAME STAMP COMMAND...
    local name=$1 s=$2; shift 2
    [ "$(cat "$build/$name.stamp" 2>/dev/null)" = "$s" ] && return 0
    echo "building $name" >&2
    "$@" >"$build/$name.log" 2>&1 || { tail -30 "$build/$name.log" >&2; echo "run.sh: building $name failed" >&2; exit 2; }
    echo "$s" >"$build/$name.stamp"
}
jvm=(java -Xmx1g -Xss512k -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Drun="$run" -Dnamesrv="$namesrv" -Dproxy="$proxy"
    -Dacl="$acl" -Dcontrol="$control" -Dparallel="$parallel" -Duser.home="$build/home" -Drocketmq.client.localOffsetStoreDir="$build/offsets")
if want java; then built java "$(stamp java harness)" mvn -B -q -f "$here/java/pom.xml" test-compile; fi
if want java-4.9; then built java-4.9 "$(stamp java harness)" mvn -B -q -f "$here/java/pom.xml" -Pclient-4.9 test-compile; fi
if want grpc || want go || want python || want node; then
    built grpc-java "$(stamp grpc-java harness)" mvn -B -q -f "$here/grpc-java/pom.xml" test-compile
fi
if want go; then built go "$(stamp go)" env -C "$here/go" go build -o "$build/go-cases" .; fi
if want python; then
    built python "$(stamp python/requirements.txt)" sh -c "python3 -m venv '$build/venv' && '$build/venv/bin/pip' install -q -r '$here/python/requirements.txt'"
fi
if want node; then built node "$(stamp node/package.json node/package-lock.json)" npm --prefix "$here/node" ci --silent; fi

[ -z "$build_only" ] || exit 0
rm -rf "$report"; mkdir -p "$report"

# --- topics and groups for the clients that cannot make their own ---------------------------------------------------
make=()
if want go; then for t in sync async batch filter order delay tx retry broadcast; do make+=("topic:NORMAL:4:cf_${run}_go_$t"); done; fi
for s in python:py node:js; do
    if want "${s%:*}" && [ -n "$proxy" ]; then
        p=cf_${run}_${s#*:}
        for t in normal tags push; do make+=("topic:NORMAL:2:${p}_$t"); done
        make+=("topic:DELAY:2:${p}_delay" "topic:FIFO:2:${p}_fifo" "topic:TRANSACTION:2:${p}_tx" "group:fifo:${p}_fifo_g")
        for t in normal tags push delay tx; do make+=("group:normal:${p}_${t}_g"); done
    fi
done
if [ ${#make[@]} -gt 0 ]; then
    "${jvm[@]}" -cp "$here/grpc-java/target/test-classes:$(cat "$here/grpc-java/target/classpath")" conformance.grpc.Make "${make[@]}" \
        >"$report/make.log" 2>&1 || { tail -5 "$report/make.log" >&2; echo "run.sh: cannot make topics on $namesrv" >&2; exit 2; }
fi

# --- run -------------------------------------------------------------------------------------------------------------
out=$report/lines; : >"$out"
suite() { # NAME COMMAND...: its case lines go to the screen and to the report, the rest to a log
    local name=$1; shift
    { rc=0; timeout -k 5 900 "$@" 2>"$report/$name.err" || rc=$?; echo "$rc" >"$report/$name.exit"; } | tee "$report/$name.out" | { grep --line-buffered -E '^(PASS|FAIL|SKIP) ' || true; } | tee -a "$out"
    if ! grep -qE '^(PASS|FAIL|SKIP) ' "$report/$name.out" && [ -z "$case" ]; then
        echo "FAIL $name.start 0 - printed no case: $(tail -1 "$report/$name.err" 2>/dev/null)" | tee -a "$out"
    elif [ "$(cat "$report/$name.exit")" != 0 ] && ! grep -q '^FAIL ' "$report/$name.out"; then
        # 124: the time was up; 137 and others: it died. What it had not reached is not passed.
        echo "FAIL $name.end 0 - ended with $(cat "$report/$name.exit") before all cases ran" | tee -a "$out"
    fi
}
skipped() { echo "SKIP $1.all 0 - no --proxy was given" | tee -a "$out"; }
junit() { # SUITE DIR TARGET PACKAGE
    # Two Java suites count their names alike: each has a run of its own, or one reads what the other sent.
    suite "$1" "${jvm[@]}" -Drun="$run${1//[^a-z0-9]/}" -cp "$2/$3/test-classes:$(cat "$2/$3/classpath")" conformance.harness.Main "$1" "$4" "$report" ${case:+"$case"}
}
pids=()
if want grpc; then if [ -n "$proxy" ]; then junit grpc "$here/grpc-java" target conformance.grpc & pids+=($!); else skipped grpc; fi; fi
if want go; then suite go "$build/go-cases" & pids+=($!); fi
if want python; then if [ -n "$proxy" ]; then suite python env HOME="$build/home" PYTHONDONTWRITEBYTECODE=1 "$build/venv/bin/python" "$here/python/cases.py" & pids+=($!); else skipped python; fi; fi
if want node; then if [ -n "$proxy" ]; then suite node node "$here/node/cases.mjs" & pids+=($!); else skipped node; fi; fi
# The disruptive cases of the Java suites stop servers: those suites run after the others where there is a --control.
if [ -n "$control" ] && [ ${#pids[@]} -gt 0 ]; then wait "${pids[@]}"; pids=(); fi
if want java; then junit java "$here/java" target/5 conformance.remoting & pids+=($!); fi
if want java-4.9; then
    [ ${#pids[@]} -gt 0 ] && wait "${pids[@]}"; pids=()
    junit java-4.9 "$here/java" target/4.9 conformance.remoting & pids+=($!)
fi
[ ${#pids[@]} -gt 0 ] && wait "${pids[@]}"
count() { grep -c "^$1 " "$out" || true; }
p=$(count PASS) f=$(count FAIL) s=$(count SKIP)
echo "$p passed, $f failed, $s skipped"
[ "$f" -eq 0 ] && [ $((p + s)) -gt 0 ]
