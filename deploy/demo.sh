#!/usr/bin/env bash
# demo.sh up|down: brings the demo's stack (compose.yaml) up, or stops it and removes everything of it.
# Ports that clash with something else on this machine: DEMO_SERVICE_PORT, DEMO_ETCD_PORT, DEMO_ETCD_PEER_PORT.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

compose=$(compose_command) || die "neither docker compose nor docker-compose is here: run deploy/setup.sh (make setup)"
# shellcheck disable=SC2086 # a command of one or two words
compose() { $compose -p docker-register-demo -f "$ROOT/deploy/compose.yaml" "$@"; }

# refuse_taken NAME PORT: a port that is in use shows here, with its owner, and not as a container that keeps restarting.
refuse_taken() {
    local owner
    owner=$(ss -Hltnp "sport = :$2" | sed -n 1p)
    [ -z "$owner" ] || die "port $2 ($1) is in use: $(awk '{ print $4, $6 }' <<<"$owner")${3:+; choose another by $3}"
}

case ${1:-} in
    up)
        if [ -z "$(compose ps -q 2>/dev/null)" ]; then
            refuse_taken "the service" "${DEMO_SERVICE_PORT:-8000}" DEMO_SERVICE_PORT
            refuse_taken etcd "${DEMO_ETCD_PORT:-2379}" DEMO_ETCD_PORT
            refuse_taken "etcd's peers" "${DEMO_ETCD_PEER_PORT:-2380}" DEMO_ETCD_PEER_PORT
            refuse_taken "HAProxy's stats page" 1936
            refuse_taken "register's status" 9180
            refuse_taken "discover's status" 9181
        fi
        say "starting etcd, register, discover and two whoami"
        compose up -d
        ;;
    down)
        say "stopping and removing the demo"
        compose stop --timeout 5
        # Containers that the demo started by itself bear the project's label, but are unknown to compose; they would
        # keep its network from going.
        docker ps -aq --filter label=com.docker.compose.project=docker-register-demo | xargs -r docker rm -f >/dev/null
        compose down --volumes --remove-orphans
        ;;
    *) die "usage: $0 up|down" ;;
esac
