#!/usr/bin/env bash
# fuzz.sh [SECONDS] [TARGET…]: fuzzes what reads other people's texts, each target for so long (60 s by default). A
# finding stops it and stays in target/fuzz/findings/TARGET; mend it, then keep the input in e2e/fuzz/corpus/TARGET.
# The flags are what cargo-fuzz passes without a sanitizer: our own code has no unsafe parts, so a stable compiler does.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

seconds=${1:-60}
shift || :
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(labels docker values haproxy config)
host=$(rustc -vV | sed -n 's/^host: //p')
instrumented=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing)
command -v c++ >/dev/null || die "libFuzzer needs a C++ compiler: install g++"
say "building with the fuzzer's instrumentation (some minutes the first time)"
# A target of its own keeps the flags from build scripts, which have no fuzzer to link with.
RUSTFLAGS="${instrumented[*]}" cargo build --release --locked -q \
    --manifest-path e2e/fuzz/Cargo.toml --target "$host" --target-dir target/fuzz --bins
for target in "${targets[@]}"; do
    say "$target: $seconds s"
    found=target/fuzz/findings/$target
    grown=target/fuzz/corpus/$target
    mkdir -p "$found" "$grown"
    log=target/fuzz/$target.log
    "target/fuzz/$host/release/$target" -max_total_time="$seconds" -max_len=8192 -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$found/" "$grown" "e2e/fuzz/corpus/$target" 2>"$log" ||
        { tail -30 "$log" >&2; die "$target failed; its input is in $found"; }
    say "$target: $(grep -o 'Done .*' "$log")"
done
