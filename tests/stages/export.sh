#!/usr/bin/env bash
# export: what it writes is run by docker-compose, by a swarm of one machine and by a shell, and read by Kubernetes' own schemas
# needs: docker compose python rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
cluster=rmqx offset=12300
namesrv=127.0.0.1:$((9876 + offset)) console=127.0.0.1:$((8181 + offset))
owns_cluster forget_exported
forget_exported() {
    [ -z "${in_swarm:-}" ] || leave_swarm
    docker ps -aq --filter "name=^$cluster-rmq" --filter "name=^rmqx_" | xargs -r docker rm -f -v >/dev/null 2>&1
    docker volume ls -q --filter "name=^$cluster-rmq" | xargs -r docker volume rm >/dev/null 2>&1
    docker network rm "$cluster-rmqnetwork" >/dev/null 2>&1
}
forget_exported || true
exported() { # FORM DIR FLAG…
    local form=$1 dir=$2; shift 2
    rmq export "$form" "$dir" --masters 2 --slaves 2 --port-offset "$offset" --conf-dir "$work/conf" "$@"
}
# Messages sent through it are read back, and each slave has them too: its page of the console says so.
serves() { # TOPIC
    load produce --namesrv "$namesrv" --topic "$1" --create-topic --count 2000 --seconds 30 --acked-log "$work/$1.log" --json >"$work/$1.json"
    same "acknowledged" 2000 "$(json 'd["acked_total"]' <"$work/$1.json")"
    verify "$1" "$work/$1.log"
    curl -fsS "http://$console/" >/dev/null
}
routes_all() { # the name server knows both masters and both slaves
    python3 tests/peers/probe.py cluster "$namesrv" >"$work/routes"
    has "$work/routes" "broker-a.*:$((10911 + offset))" "broker-b.*:$((13911 + offset))" "127.0.0.1:$((11911 + offset))" "127.0.0.1:$((12911 + offset))"
}
healthy_containers() { ! docker ps --filter "name=^$cluster-rmq" --format '{{.Names}} {{.Status}}' | grep -v '(healthy)'; }

saves_and_loads_its_image() {
    local tag; tag=$("$RMQCTL" image load)
    "$RMQCTL" image save "$work/engine.tar"
    docker load -q -i "$work/engine.tar" >"$work/loaded"
    has "$work/loaded" "$tag"
    same "the image of the archive" "$(docker image inspect -f '{{.Id}}' "$tag")" "sha256:$(tar -xOf "$work/engine.tar" manifest.json | json 'd[0]["Config"].split(".")[0]')"
    "$RMQCTL" image ls -o json >"$work/images.json"
    same "current" "$tag" "$(json '[i["tag"] for i in d if i["current"]]' <"$work/images.json")"
}
removes_an_unused_image_and_no_other() {
    local tag; tag=$("$RMQCTL" image load)
    docker create --name "$cluster-rmqholder" "$tag" >/dev/null
    exits 5 "$RMQCTL" image rm "$tag" >"$work/rm.out" 2>&1
    has "$work/rm.out" RMQ-E163 "$cluster-rmqholder"
    docker rm "$cluster-rmqholder" >/dev/null
    exits 3 "$RMQCTL" image rm rmqctl/engine:none 2>"$work/rm.out"; has "$work/rm.out" RMQ-E111
}
compose_runs_the_file() {
    exported compose "$work/compose"
    docker-compose -p rmqx -f "$work/compose/docker-compose.yml" up -d
    within 30 routes_all
    serves composed
    same "containers" "$cluster-rmqconsole $cluster-rmqmaster1 $cluster-rmqmaster2 $cluster-rmqnamesrv $cluster-rmqslave1 $cluster-rmqslave2" \
        "$(docker ps --filter "name=^$cluster-rmq" --format '{{.Names}}' | sort | paste -sd' ')"
    same "ports of rmqmaster1" "127.0.0.1:$((10909 + offset)) 127.0.0.1:$((10911 + offset))" \
        "$(docker inspect -f '{{range $b := .HostConfig.PortBindings}}{{range $b}}{{.HostIp}}:{{.HostPort}} {{end}}{{end}}' "$cluster-rmqmaster1" | tr ' ' '\n' | grep . | sort | paste -sd' ')"
    within 60 healthy_containers
}
compose_serves_a_container_too() {
    # The name server tells who asks: the console reads the brokers by their names in the network.
    curl -fsS "http://$console/" >"$work/page"
    docker run --rm --network "$cluster-rmqnetwork" "$("$RMQCTL" image load)" engine health --dial "rmqmaster1:$((10911 + offset))" --dial namesrv:9876 >"$work/dials"
    has "$work/dials" '^ok rmqmaster1' '^ok namesrv'
}
compose_changes_nothing_when_exported_again() {
    local before; before=$(docker ps -q --filter "name=^$cluster-rmq" | sort)
    exported compose "$work/compose"
    docker-compose -p rmqx -f "$work/compose/docker-compose.yml" up -d
    same "containers" "$before" "$(docker ps -q --filter "name=^$cluster-rmq" | sort)"
    docker-compose -p rmqx -f "$work/compose/docker-compose.yml" down -v
    same "left behind" "" "$(docker ps -aq --filter "name=^$cluster-rmq")$(docker volume ls -q --filter "name=^$cluster-rmq")"
}
leaves_a_file_of_yours_alone() {
    mkdir -p "$work/yours"; echo 'services: {}' >"$work/yours/docker-compose.yml"
    exits 5 exported compose "$work/yours" 2>"$work/yours.out"
    has "$work/yours.out" RMQ-E162
    same "your file" 'services: {}' "$(cat "$work/yours/docker-compose.yml")"
}
a_shell_runs_the_script() {
    exported docker-run - >"$work/script.sh"
    (mkdir -p "$work/shell" && cd "$work/shell" && sh "$work/script.sh")
    within 30 routes_all
    serves scripted
    docker ps -aq --filter "name=^$cluster-rmq" | xargs docker rm -f -v >/dev/null
    docker volume ls -q --filter "name=^$cluster-rmq" | xargs docker volume rm >/dev/null
    docker network rm "$cluster-rmqnetwork" >/dev/null
}
leave_swarm() { docker stack rm rmqx >/dev/null 2>&1; within 60 no_tasks; docker swarm leave --force >/dev/null 2>&1; in_swarm=; }
no_tasks() { [ -z "$(docker ps -aq --filter label=com.docker.stack.namespace=rmqx)" ]; }
a_swarm_deploys_the_stack() {
    same "a swarm that is not ours" inactive "$(docker info -f '{{.Swarm.LocalNodeState}}')"
    in_swarm=1
    # shellcheck disable=SC2064
    trap leave_swarm EXIT
    docker swarm init --advertise-addr 127.0.0.1 >/dev/null
    exported stack "$work/stack"
    docker stack deploy -c "$work/stack/docker-stack.yml" rmqx
    within 60 routes_all
    serves stacked
    same "services" 6 "$(docker stack services -q rmqx | wc -l)"
}
# Kubernetes' own JSON schemas, which this Python package carries.
kubernetes_reads_the_manifests() {
    [ -x "$out/kubernetes/bin/kubernetes-validate" ] ||
        { python3 -m venv "$out/kubernetes" && "$out/kubernetes/bin/pip" -q install kubernetes-validate==1.37.0; }
    exported k8s "$work" --namespace mq --storage 20Gi --memory 512m --cpus 0.5
    "$out/kubernetes/bin/kubernetes-validate" --strict "$work/rocketmq.yaml" >"$work/validated" 2>&1 || { cat "$work/validated"; return 1; }
    ! grep -iE 'error|fail' "$work/validated" || fail "the schemas refuse it"
    same "kinds" "ConfigMap ConfigMap ConfigMap Deployment Deployment Namespace PersistentVolumeClaim" \
        "$(sed -n 's/^kind: //p' "$work/rocketmq.yaml" | grep -v -e Service -e StatefulSet | sort | paste -sd' ')"
    # The check itself sees a fault.
    sed 's/^  replicas: 2$/  replicas: two/' "$work/rocketmq.yaml" >"$work/wrong.yaml"
    ! "$out/kubernetes/bin/kubernetes-validate" --strict "$work/wrong.yaml" >/dev/null 2>&1 || fail "a wrong manifest passes"
}

check saves_and_loads_its_image saves_and_loads_its_image
[ "$last" = 0 ] || exit 1
for c in removes_an_unused_image_and_no_other compose_runs_the_file compose_serves_a_container_too compose_changes_nothing_when_exported_again \
    leaves_a_file_of_yours_alone a_shell_runs_the_script a_swarm_deploys_the_stack kubernetes_reads_the_manifests; do check "$c" "$c"; done
[ "$failed" = 0 ]
