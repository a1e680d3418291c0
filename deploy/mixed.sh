#!/usr/bin/env bash
# mixed.sh: builds the agents of the commit OLD, and runs the tests that let two versions work together on one etcd.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

old=$(git rev-parse --verify "${OLD:?say which version: make mixed OLD=<tag or commit>}^{commit}")
tree=target/mixed/$old
if [ ! -x "$tree/programs/register" ] || [ ! -x "$tree/programs/discover" ]; then
    say "building the agents of $OLD (some minutes the first time)"
    mkdir -p "$tree/source" "$tree/programs"
    git archive "$old" | tar -x -C "$tree/source"
    (cd "$tree/source" && cargo build --locked -p register -p discover --target-dir "$ROOT/target/mixed/build")
    install target/mixed/build/debug/{register,discover} "$tree/programs/"
    rm -rf "$tree/source"
fi
OLD_PROGRAMS=$ROOT/$tree/programs cargo nextest run --workspace --all-targets --locked -E 'binary(mixed_versions)'
