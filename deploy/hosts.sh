#!/usr/bin/env bash
# hosts.sh demo|up [OPTION...]: builds the agents and brings several hosts up on this machine, in network namespaces, for
# the demonstration or to play with. That takes root; nothing but the lab's programs runs as root. All of it is removed at
# the end, and by the next start where this was killed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

profile=${HOSTS_PROFILE:-release}
say "building the agents (some minutes the first time)"
cargo build -q --locked --profile "${profile/debug/dev}" -p register -p discover -p whoami -p e2e --bin register --bin discover --bin whoami --bin hosts
# An interrupt from the keyboard reaches both: this waits while the lab removes its hosts.
trap : INT
as_root "${CARGO_TARGET_DIR:-target}/$profile/hosts" "$@"
