# What the stages of ./test need, each a function need_NAME: brings it about, or fails with a last line that says what to
# do. Called by ./test in its own shell, since a need exports paths and may start a daemon. Each runs its work once.
# shellcheck shell=bash

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# apt-get: packages are installed only when the command they bring is missing.
provide() { # COMMAND PACKAGE…
    local command=$1; shift
    command -v "$command" >/dev/null && return 0
    can_install || { echo "$command is missing: install $* (this is done by itself for root where there is apt-get)"; return 1; }
    [ -n "${apt_updated:-}" ] || { apt-get update && apt_updated=1; } || true
    # Another installation may be under way, as on a machine that has just started.
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" </dev/null
    command -v "$command" >/dev/null || { echo "$command is missing although $* was installed"; return 1; }
}

need_rust() {
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust with https://rustup.rs"; return 1; }
    cargo fmt --version && cargo clippy --version ||
        { echo "rustfmt or clippy is missing: rustup component add rustfmt clippy"; return 1; }
}
need_python() { provide python3 python3; }

host_platform() { rustc -vV | sed -n 's/^host: //p'; }
need_rmqctl() {
    [ -z "${RMQCTL:-}" ] || return 0
    need_rust && cargo build --release --bin rmqctl || { echo "rmqctl does not build: cargo build --release"; return 1; }
    export RMQCTL=${CARGO_TARGET_DIR:-$root/target}/$(host_platform)/release/rmqctl
    [ -x "$RMQCTL" ] || { unset RMQCTL; echo "cargo built no rmqctl for $(host_platform)"; return 1; }
}
need_rmqload() {
    [ -z "${RMQLOAD:-}" ] || return 0
    need_rust && (cd benches/rmqload && cargo build --release) || { echo "rmqload does not build: cd benches/rmqload && cargo build --release"; return 1; }
    export RMQLOAD=${CARGO_TARGET_DIR:-$root/benches/rmqload/target}/$(host_platform)/release/rmqload
    [ -x "$RMQLOAD" ] || { unset RMQLOAD; echo "cargo built no rmqload for $(host_platform)"; return 1; }
}

# A program of broker-engine's examples, which `cargo test --workspace` has built already; with `-p broker-engine` it would have
# other features, and half of what it needs would be built again.
example() { # NAME VARIABLE: its path goes into the variable
    need_rust && cargo build --workspace --example "$1" || { echo "it does not build: cargo build --workspace --example $1"; return 1; }
    export "$2=${CARGO_TARGET_DIR:-$root/target}/$(host_platform)/debug/examples/$1"
}
# It leaves things in flight and collects them.
need_features() { example features FEATURES; }
# It kills, cuts off, fills up and floods real nodes.
need_durability() { example durability DURABILITY; }
# It asks two brokers the same things and compares what they answer.
need_differential() { example differential DIFFERENTIAL; }

need_jdk() {
    # A JDK rather than a JRE: the conformance suite is compiled.
    if can_install; then provide javac openjdk-17-jdk-headless || provide javac default-jdk-headless; else provide javac openjdk-17-jdk-headless; fi &&
        provide mvn maven && need_python
}
# The Apache servers and tools from Maven Central, in ~/.cache/rmq-peers.
need_peers() { need_jdk && tests/peers/install.sh -q || { echo "the Apache servers cannot be fetched: tests/peers/install.sh"; return 1; }; }

need_go() {
    if [ -x /usr/local/go/bin/go ]; then PATH=$PATH:/usr/local/go/bin; fi
    provide go golang-go
}

need_browser() {
    local b
    for b in chromium chromium-browser google-chrome; do
        if command -v "$b" >/dev/null; then export CHROMIUM=$b; return 0; fi
    done
    provide chromium chromium && export CHROMIUM=chromium
}

need_openssl() { provide openssl openssl; }
need_compose() { provide docker-compose docker-compose; }

dockerd_pid=
need_docker() {
    docker info >/dev/null 2>&1 && return 0
    [ "$(uname)" = Linux ] && [ "$(id -u)" = 0 ] ||
        { echo "no Docker daemon answers: start one (only root on Linux gets one started by ./test)"; return 1; }
    provide dockerd docker.io && provide iptables iptables && provide docker docker.io || return 1
    # A pid file of a daemon that is gone names a process that may be anybody's by now; dockerd would refuse to start.
    local old; old=$(cat /var/run/docker.pid 2>/dev/null || true)
    if [ -n "$old" ] && [ "$(cat "/proc/$old/comm" 2>/dev/null)" != dockerd ]; then rm -f /var/run/docker.pid; fi
    setsid dockerd >"$TEST_OUT/log/dockerd.log" 2>&1 </dev/null &
    dockerd_pid=$!
    local i
    for ((i = 0; i < 240; i++)); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 "$dockerd_pid" 2>/dev/null || break
        sleep 0.25
    done
    tail -5 "$TEST_OUT/log/dockerd.log"
    echo "dockerd did not start: $(tail -1 "$TEST_OUT/log/dockerd.log")"
    stop_docker_if_started
    return 1
}
stop_docker_if_started() {
    [ -n "$dockerd_pid" ] || return 0
    kill "$dockerd_pid" 2>/dev/null || true
    wait "$dockerd_pid" 2>/dev/null || true
    dockerd_pid=
}
