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
suite() { # PREFIX NAMESRV "SUITE…" COMMAND-PREFIX… : prints the cases' lines
    local prefix=$1 ns=$2 only=$3 each; shift 3
    local -a which=(); for each in $only; do which+=(--only "$each"); done
    "$@" tests/conformance/run.sh --namesrv "$ns" "${which[@]}" ${control:+--control "$control"} 2>"$log/conformance.$prefix.err" </dev/null |
        tee "$log/conformance.$prefix.out" | judge "conformance.$prefix" || true
    rm -rf "$log/conformance.$prefix"; cp -r tests/conformance/.build/report "$log/conformance.$prefix" 2>/dev/null || true
    grep -qE '^[0-9]+ passed' "$log/conformance.$prefix.out" || { echo "FAIL conformance.$prefix.ended 0 - $(tail -1 "$log/conformance.$prefix.err")"; failed=1; }
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
suite host "$namesrv" "java java-4.9 go" env

# From the network: the host's own JDK and the compiled suite, mounted read-only into an image of nothing.
control=
tar -cf - --files-from /dev/null | docker import - rmqt-empty:test >/dev/null
mounts=()
for p in /usr /bin /lib /lib64 /opt /etc/alternatives /etc/java* /etc/ssl /etc/passwd "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")" "$root" "$HOME/.m2" "${RMQ_PEER_HOME:-$HOME/.cache}"; do
    if [ -e "$p" ]; then mounts+=(-v "$p:$p:ro"); fi
done
build=$root/tests/conformance/.build
guest() {
    docker run --rm --name rmqt-java --network "$cluster-rmqnetwork" "${mounts[@]}" -v "$build:$build" --tmpfs /tmp:exec \
        -e HOME="$HOME" -e PATH="$PATH" -e LANG=C.UTF-8 -w "$root" rmqt-empty:test "$@"
}
suite container namesrv:9876 java guest
[ "$failed" = 0 ]
