#!/usr/bin/env bash
# demo.sh up|show|down [edge]: brings the demo's stack (compose.yaml; with edge: compose-edge.yaml over it) up, shows what it
# does, or stops it and removes everything of it. A start that fails is undone, and so is one that is interrupted, or a show.
# Ports that clash with something else on this machine: DEMO_SERVICE_PORT, DEMO_EDGE_PORT, DEMO_ETCD_PORT,
# DEMO_ETCD_PEER_PORT, DEMO_STATS_PORT, DEMO_REGISTER_PORT, DEMO_DISCOVER_PORT; with edge also DEMO_CLIENT_PORT,
# DEMO_MEMCACHED_PORT. For tests: DEMO_PROJECT is the project's name, DEMO_BIN the program that shows.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

which=${2:-}
case $which in
    "") project=docker-register-demo files=(-f "$ROOT/deploy/compose.yaml") scale=() ;;
    edge)
        project=docker-register-demo-edge
        files=(-f "$ROOT/deploy/compose.yaml" -f "$ROOT/deploy/compose-edge.yaml")
        scale=(--scale whoami=0)
        ;;
    *) die "usage: $0 up|show|down [edge]" ;;
esac

project=${DEMO_PROJECT:-$project}
# compose.yaml names its containers by it, so that register takes in no others.
export DEMO_PROJECT=$project
if [ "$which" = edge ] && [ -z "${DEMO_LISTEN:-}" ]; then
    # The tiers call HAProxy by the bridge's address, which is host-gateway to them.
    export DEMO_LISTEN=127.0.0.1
    for address in $(ip -4 -o address show docker0 2>/dev/null | awk '{ print $4 }'); do DEMO_LISTEN+=,${address%/*}; done
fi

compose=$(compose_command) || die "neither docker compose nor docker-compose is here: run deploy/setup.sh (make setup)"
# shellcheck disable=SC2086 # a command of one or two words
compose() { $compose -p "$project" "${files[@]}" "$@"; }

# refuse_taken NAME PORT: a port that is in use shows here, with its owner, and not as a container that keeps restarting.
refuse_taken() {
    local owner
    owner=$(ss -Hltnp "sport = :$2" | sed -n 1p)
    [ -z "$owner" ] || die "port $2 ($1) is in use: $(awk '{ print $4, $6 }' <<<"$owner")${3:+; choose another by $3}"
}

remove() {
    compose stop --timeout 5
    # Containers that the demo started by itself bear the project's label, but are unknown to compose; they would
    # keep its network from going.
    docker ps -aq --filter "label=com.docker.compose.project=$project" | xargs -r docker rm -f >/dev/null
    compose down --volumes --remove-orphans
}

# abandon WORDS: whoever interrupts that, too, would be left with a part of it.
abandon() {
    trap '' INT TERM
    say "$1; removing what there is of it"
    remove
}

case ${1:-} in
    up)
        if [ -z "$(compose ps -q 2>/dev/null)" ]; then
            refuse_taken "the service" "${DEMO_SERVICE_PORT:-8000}" DEMO_SERVICE_PORT
            refuse_taken "the edge" "${DEMO_EDGE_PORT:-8080}" DEMO_EDGE_PORT
            refuse_taken etcd "${DEMO_ETCD_PORT:-2379}" DEMO_ETCD_PORT
            refuse_taken "etcd's peers" "${DEMO_ETCD_PEER_PORT:-2380}" DEMO_ETCD_PEER_PORT
            refuse_taken "HAProxy's stats page" "${DEMO_STATS_PORT:-1936}" DEMO_STATS_PORT
            refuse_taken "register's status" "${DEMO_REGISTER_PORT:-9180}" DEMO_REGISTER_PORT
            refuse_taken "discover's status" "${DEMO_DISCOVER_PORT:-9181}" DEMO_DISCOVER_PORT
            if [ "$which" = edge ]; then
                refuse_taken "the client tier" "${DEMO_CLIENT_PORT:-8001}" DEMO_CLIENT_PORT
                refuse_taken memcached "${DEMO_MEMCACHED_PORT:-11211}" DEMO_MEMCACHED_PORT
            fi
            # What is half up is of no use to anybody.
            trap 'abandon "not up"' EXIT
            trap 'exit 130' INT TERM
        fi
        say "starting etcd, register, discover and ${which:+three tiers of }two containers${which:+ each}"
        compose up -d "${scale[@]}"
        trap - EXIT
        ;;
    show)
        # Whoever interrupts it has seen enough.
        trap 'abandon interrupted; exit 130' INT TERM
        program=${DEMO_BIN:-${CARGO_TARGET_DIR:-$ROOT/target}/demo/demo}
        [ -x "$program" ] || die "the program that shows is missing: run PROFILE=demo deploy/build-images.sh (make demo)"
        "$program" "$which"
        ;;
    down)
        say "stopping and removing the demo"
        remove
        ;;
    *) die "usage: $0 up|show|down [edge]" ;;
esac
