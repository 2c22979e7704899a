#!/usr/bin/env bash
# daemons elsewhere: TLS with keys on both sides, Docker's contexts, ssh, Podman's socket; here the far machine is this one
# needs: docker openssl python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=rmqr offset=14200
ip=$(hostname -I 2>/dev/null | tr ' ' '\n' | grep -E '^[0-9.]+$' | grep -v '^127' | head -1 || true)
[ -n "$ip" ] || { echo "SKIP remote.all 0 - this machine has no address but loopback"; exit 0; }
namesrv=$ip:$((9876 + offset))
owns_cluster close_proxy
close_proxy() { [ -z "${proxy:-}" ] || kill "$proxy" 2>/dev/null; }
unset DOCKER_HOST DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
socket=/var/run/docker.sock

# --- a daemon behind TLS: a proxy before the socket that wants a client's certificate ---------------------------------
keys=$work/keys; mkdir -p "$keys" "$work/stranger"
authority() { openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$2" -keyout "$1/ca-key.pem" -out "$1/ca.pem" 2>/dev/null; }
issue() { # DIR NAME SUBJECT EXTENSION
    openssl req -newkey rsa:2048 -nodes -subj "/CN=$3" -keyout "$1/$2key.pem" -out "$1/$2.csr" 2>/dev/null
    openssl x509 -req -days 2 -in "$1/$2.csr" -CA "$1/ca.pem" -CAkey "$1/ca-key.pem" -CAcreateserial -extfile <(printf '%s' "$4") -out "$1/$2cert.pem" 2>/dev/null
}
authority "$keys" rmqt-authority; authority "$work/stranger" another
issue "$keys" server- far "subjectAltName=IP:$ip"; issue "$keys" '' client 'extendedKeyUsage=clientAuth'
issue "$work/stranger" '' client 'extendedKeyUsage=clientAuth'
cat >"$work/proxy.py" <<'PY'
import socket, ssl, sys, threading
keys, target = sys.argv[1:3]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{keys}/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain(f"{keys}/server-cert.pem", f"{keys}/server-key.pem")
def pump(source, sink):
    try:
        while data := source.recv(1 << 16): sink.sendall(data)
    except OSError: pass
    if isinstance(sink, ssl.SSLSocket):
        # An end of the daemon's is an end of TLS, as a daemon with TLS of its own says it.
        try: sink.settimeout(1); sink.unwrap()
        except (OSError, ValueError): pass
    for s in (source, sink):
        try: s.shutdown(socket.SHUT_RDWR)
        except OSError: pass
def serve(raw):
    try: near = context.wrap_socket(raw, server_side=True)
    except (OSError, ssl.SSLError): return
    far = socket.socket(socket.AF_UNIX); far.connect(target)
    threading.Thread(target=pump, args=(far, near), daemon=True).start()
    pump(near, far)
listener = socket.create_server(("0.0.0.0", 0)); print(listener.getsockname()[1], flush=True)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
PY
python3 "$work/proxy.py" "$keys" "$socket" >"$work/port" & proxy=$!
within 10 test -s "$work/port"
far=tcp://$ip:$(cat "$work/port")
with_keys() { DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=${keys_dir:-$keys} "$@"; }
far_up() { rmq "$@" up --masters 1 --slaves 1 --no-console --port-offset "$offset" --conf-dir "$work/conf" --timeout 120 ${data:+--data-dir "$data"}; }

refuses_tcp_without_keys() {
    exits 4 rmq -H "$far" ls >"$work/plain" 2>&1; has "$work/plain" RMQ-E002 'no authentication' DOCKER_TLS_VERIFY
}
refuses_and_is_refused_by_a_stranger() {
    # Its authority did not sign the daemon's certificate; the daemon's did not sign its own.
    keys_dir=$work/stranger exits 4 with_keys rmq -H "$far" ls >"$work/stranger.out" 2>&1
    has "$work/stranger.out" RMQ-E002 -i 'certificate|issuer' || has "$work/stranger.out" RMQ-E002
    cp "$keys/ca.pem" "$work/stranger/ca.pem"
    keys_dir=$work/stranger exits 4 with_keys rmq -H "$far" ls >"$work/stranger.out" 2>&1; has "$work/stranger.out" RMQ-E002
}
comes_up_through_tls_and_tells_clients_the_machine() {
    with_keys far_up -H "$far" >"$work/up.out" 2>&1 || { cat "$work/up.out"; return 1; }
    has "$work/up.out" "clients are told $ip" '2/2 brokers from the host'
    python3 tests/peers/probe.py cluster "$namesrv" >"$work/routes"; has "$work/routes" "$ip:$((10911 + offset))"
    load produce --namesrv "$namesrv" --topic far --create-topic --count 2000 --seconds 30 --acked-log "$work/far.log"
    verify far "$work/far.log"
    with_keys rmq -H "$far" status >"$work/status"; has "$work/status" "$ip:$((10911 + offset))"
}
uses_a_context_with_its_own_keys() {
    export DOCKER_CONFIG=$work/docker
    docker context create far --docker "host=$far,ca=$keys/ca.pem,cert=$keys/cert.pem,key=$keys/key.pem" >/dev/null
    same "by name" "$cluster" "$("$RMQCTL" --context far ls -o name | grep -x "$cluster")"
    docker context use far >/dev/null
    same "as the current one" "$cluster" "$("$RMQCTL" --runtime docker ls -o name | grep -x "$cluster")"
    exits 4 "$RMQCTL" --context nowhere ls >"$work/nowhere" 2>&1; has "$work/nowhere" 'knows no such context'
}

# --- a daemon behind ssh: a stand-in that runs the far command here ---------------------------------------------------
mkdir -p "$work/bin"
cat >"$work/bin/ssh" <<TXT
#!/usr/bin/env bash
echo "\$*" >>"$work/ssh.log"
[ ! -e "$work/ssh.denies" ] || { echo 'me@far: Permission denied (publickey).' >&2; exit 255; }
case " \$* " in *" -G "*) echo "hostname $ip"; exit ;; esac
while [ "\$1" != -- ]; do shift; done
shift 2
exec "\$@"
TXT
chmod +x "$work/bin/ssh"
with_ssh() { PATH=$work/bin:$PATH "$@"; }
comes_up_through_ssh() {
    rmq down --volumes || true
    with_ssh far_up -H ssh://me@far:2222 >"$work/up.out" 2>&1 || { cat "$work/up.out"; return 1; }
    has "$work/up.out" "clients are told $ip" '2/2 brokers from the host'
    has "$work/ssh.log" '-p 2222 -l me -- far docker system dial-stdio$'
    load produce --namesrv "$namesrv" --topic far --create-topic --count 500 --seconds 30
    with_ssh rmq -H ssh://me@far:2222 logs --tail 3 rmqmaster1 >"$work/logs"; [ -s "$work/logs" ] || fail "no log through ssh"
    with_ssh rmq -H ssh://me@far:2222 down --volumes
    same "left behind" "" "$(docker ps -aq --filter "label=io.rmqctl.cluster=$cluster")"
    same "sockets left behind" "" "$(find /tmp "$XDG_RUNTIME_DIR" -maxdepth 1 -name 'rmqctl-ssh-*' 2>/dev/null)"
}
keeps_stores_where_the_daemon_is() {
    # On that machine nothing is checked, made or removed from here; what is to be done there is said.
    data=$work/there with_ssh far_up -H ssh://me@far >"$work/up.out" 2>&1 && fail "it came up without its directories"
    has "$work/up.out" "stores are in $work/there on $ip, which cannot be checked" 'bind source path does not exist'
    sh -c "$(grep -o 'install -d -o 3000 .*' "$work/up.out" | head -1)"
    data=$work/there with_ssh far_up -H ssh://me@far >"$work/up.out" 2>&1 || { cat "$work/up.out"; return 1; }
    with_ssh rmq -H ssh://me@far down --volumes 2>"$work/down"; has "$work/down" "messages stay in $work/there on $ip"
    [ -d "$work/there/$cluster-rmqmaster1/commitlog" ]
}
says_what_ssh_said() {
    touch "$work/ssh.denies"
    exits 4 with_ssh rmq -H ssh://me@far ls >"$work/denied" 2>&1; rm "$work/ssh.denies"
    has "$work/denied" RMQ-E002 'Permission denied'
    exits 4 rmq -H ssh://-oProxyCommand=x ls >"$work/option" 2>&1; has "$work/option" RMQ-E002
}
finds_podmans_socket() {
    # Podman's service speaks Docker's API: Docker's own socket stands in for it, where Podman's would be.
    mkdir -p "$work/x/podman"; ln -s "$socket" "$work/x/podman/podman.sock"
    XDG_RUNTIME_DIR=$work/x "$RMQCTL" --runtime podman ls
    exits 4 env XDG_RUNTIME_DIR="$work/none" "$RMQCTL" --runtime podman ls >"$work/nopodman" 2>&1
    has "$work/nopodman" RMQ-E002 podman.socket
}
for c in refuses_tcp_without_keys refuses_and_is_refused_by_a_stranger comes_up_through_tls_and_tells_clients_the_machine \
    uses_a_context_with_its_own_keys comes_up_through_ssh keeps_stores_where_the_daemon_is says_what_ssh_said finds_podmans_socket; do check "$c" "$c"; done
[ "$failed" = 0 ]
