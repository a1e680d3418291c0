#!/usr/bin/env bash
# test.sh: runs every test of the workspace, and its documentation's examples, and says at the end how it went.
set -uo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT" || exit

status=0
# Each test that is passed over adds a line with its reason.
export SKIPPED_TESTS="$ROOT/target/skipped-tests"
: >"$SKIPPED_TESTS"
# The end to end tests start the agents as programs; a test run by itself builds only its own package's.
cargo build --workspace --all-targets --locked || exit
deploy/packages.sh dev "${CARGO_TARGET_DIR:-target}/debug/packages" || exit
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast || status=$?
else
    cargo test --workspace --locked --no-fail-fast --all-targets || status=$?
fi
cargo test --workspace --locked --no-fail-fast --doc -q || status=$?
cat "$SKIPPED_TESTS"
echo "test result: $(wc -l <"$SKIPPED_TESTS") tests SKIPPED"
exit "$status"
