#!/usr/bin/env bash
# moto.sh: puts moto's server, a real EC2 and S3 API on loopback for the tests, under target/lab/moto (a Python venv).
# Does nothing where it is there already.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

VERSION=5.1
venv=$ROOT/target/lab/moto
server=$venv/bin/moto_server
# A copied target directory has a venv whose programs point elsewhere.
mkdir -p "$ROOT/target/lab"
exec 9>"$ROOT/target/lab/moto.lock"
flock 9 # several tests may ask at once
if [ -e "$venv/complete" ] && grep -q "$venv" "$server"; then
    say "moto_server: $server"
    exit 0
fi
command -v python3 >/dev/null || die "python3 is missing: run deploy/setup.sh (make setup)"
rm -rf "$venv"
python3 -m venv "$venv" || die "python3-venv is missing: run deploy/setup.sh (make setup)"
say "installing moto $VERSION from PyPI into $venv"
"$venv/bin/pip" install -q --disable-pip-version-check "moto[server]~=$VERSION.0"
"$server" --help >/dev/null
touch "$venv/complete"
say "moto_server: $server"
