#!/usr/bin/env bash
# promtool.sh: puts promtool, which tries the alert rules of deploy/observability, under target/lab/bin. It is taken out of Debian's package prometheus, of
# which nothing is installed. Does nothing where it is there already; where it cannot be had, the test says SKIPPED.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

tool=$ROOT/target/lab/bin/promtool
if "$tool" --version >/dev/null 2>&1 || command -v promtool >/dev/null; then exit 0; fi
command -v apt-get >/dev/null || { say "note: no apt-get here; the alert rules will not be tried" && exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
say "taking promtool out of Debian's package prometheus"
{ apt-get download -q=2 prometheus 2>/dev/null && dpkg-deb -x prometheus_*.deb unpacked; } || { say "note: no package prometheus here; the alert rules will not be tried" && exit 0; }
mkdir -p "$(dirname "$tool")"
cp unpacked/usr/bin/promtool "$tool.new"
mv "$tool.new" "$tool"
say "promtool: $tool"
