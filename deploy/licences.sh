#!/usr/bin/env bash
# licences.sh: checks the dependencies against deny.toml: with cargo-deny where it is installed (then its advisories
# and sources as well), else the licences only, by a test of our own.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

if cargo deny --version >/dev/null 2>&1; then
    cargo deny check licenses bans sources
    # The advisories' database is fetched anew: its being out of reach is no fault of the dependencies.
    if cargo deny fetch db; then cargo deny check advisories; else say "note: the advisories could not be fetched"; fi
else
    cargo test -q --locked -p e2e --test licences
fi
