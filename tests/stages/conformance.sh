#!/usr/bin/env bash
# the conformance suite on a cluster of ours: Java clients 5.x and 4.9 and the Go client from the host, Java from a container in its network
# needs: docker peers go rmqctl
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
owns_cluster forget_guest
forget_guest() { docker rm -f rmqt-java >/dev/null 2>&1; docker image rm -f rmqt-empty:test >/dev/null 2>&1; }
forget_guest || true

# Cases that are known not to pass yet count as skipped, by name; a case that is not listed must pass.
not_yet=tests/conformance/not-yet.txt
judge() { # PREFIX, the suite's output on stdin
    awk -v prefix="$1" -v list="$not_yet" '
        BEGIN { while ((getline line < list) > 0) if (line !~ /^(#|$)/) { split(line, w, " "); known[w[1]] = 1 } }
        /^(PASS|FAIL|SKIP) / {
            bare = $2; sub(/^java(-4\.9)?\./, "", bare)
            if ($1 == "FAIL" && bare in known) { $1 = "SKIP"; $4 = "- not yet:" (NF > 3 ? " " $4 : "") }
            if ($1 == "PASS" && bare in known) print prefix "." $2 " passes and may leave " list > "/dev/stderr"
            $2 = prefix "." $2; print; fflush()
        }'
}
suite() { # PREFIX NAME NAMESRV "SUITE…" COMMAND-PREFIX… : prints the cases' lines; NAME is the logs'
    local prefix=$1 name=$2 ns=$3 only=$4 each; shift 4
    local -a which=(); for each in $only; do which+=(--only "$each"); done
    export CONFORMANCE_REPORT=$root/tests/conformance/.build/report.$name
    "$@" tests/conformance/run.sh --namesrv "$ns" "${which[@]}" ${control:+--control "$control"} 2>"$log/conformance.$name.err" </dev/null |
        tee "$log/conformance.$name.out" | judge "conformance.$prefix" || true
    rm -rf "$log/conformance.$name"; cp -r "$CONFORMANCE_REPORT" "$log/conformance.$name" 2>/dev/null || true
    grep -qE '^[0-9]+ passed' "$log/conformance.$name.out" || { echo "FAIL conformance.$name.ended 0 - $(tail -1 "$log/conformance.$name.err")"; return 1; }
}

comes_up() { up --masters 2 --slaves 2 --replication sync --set slaveReadEnable=true --set enablePropertyFilter=true --set traceTopicEnable=true --set recallMessageEnable=true; }
check comes_up comes_up
[ "$last" = 0 ] || exit 1

# What --control calls: one server stopped, killed or started by broker name and id.
control=$work/control
cat >"$control" <<TXT
#!/usr/bin/env bash
set -euo pipefail
node="\$2:\$3"
export XDG_STATE_HOME='$XDG_STATE_HOME' XDG_RUNTIME_DIR='$XDG_RUNTIME_DIR'
case \$1 in
    kill) container=\$('$RMQCTL' --name $cluster status -o json | python3 -c '
import json, sys
print(next(n["container"] for n in json.load(sys.stdin)["nodes"] if n.get("broker") and "%s:%s" % (n["broker"], n["brokerId"]) == sys.argv[1]))' "\$node")
        exec docker kill "\$container" ;;
    *) exec '$RMQCTL' --name $cluster "\$1" "\$node" ;;
esac
TXT
chmod +x "$control"
# From the network: the host's own JDK and the compiled suite, mounted read-only into an image of nothing.
tar -cf - --files-from /dev/null | docker import - rmqt-empty:test >/dev/null
mounts=()
for p in /usr /bin /lib /lib64 /opt /etc/alternatives /etc/java* /etc/ssl /etc/passwd "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")" "$root" "$HOME/.m2" "${RMQ_PEER_HOME:-$HOME/.cache}"; do
    if [ -e "$p" ]; then mounts+=(-v "$p:$p:ro"); fi
done
build=$root/tests/conformance/.build
guest() {
    docker run --rm --name rmqt-java --network "$cluster-rmqnetwork" "${mounts[@]}" -v "$build:$build" --tmpfs /tmp:exec \
        -e HOME="$HOME" -e PATH="$PATH" -e LANG=C.UTF-8 -e CONFORMANCE_REPORT -w "$root" rmqt-empty:test "$@"
}
check build tests/conformance/run.sh --build --only java --only java-4.9 --only go
[ "$last" = 0 ] || exit 1
# Side by side: neither stops a server. The Java suites of the host do, which is why they come last and alone.
disrupts=$control control=
suite host go "$namesrv" go env & go=$!
suite container container namesrv:9876 java guest || failed=1
wait "$go" || failed=1
control=$disrupts
suite host host "$namesrv" "java java-4.9" env || failed=1
[ "$failed" = 0 ]
