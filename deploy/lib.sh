# shellcheck shell=bash
# What the scripts of this directory share: where the project is, how they speak, and root rights only where needed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Progress goes to standard error, so that a script's standard output stays a value that others can read.
say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}

# What the programs are built for, in Debian's words: the machine's own architecture, or arm64 on another one (make dist ARCH=arm64).
OWN_ARCH=$(dpkg --print-architecture 2>/dev/null || uname -m)
ARCH=${ARCH:-$OWN_ARCH}
case $ARCH in
    "$OWN_ARCH") TARGET= ;;
    arm64) TARGET=aarch64-unknown-linux-gnu ;;
    *) die "programs for $ARCH cannot be built on $OWN_ARCH" ;;
esac
# Where release_build puts the programs.
RELEASE=${CARGO_TARGET_DIR:-$ROOT/target}${TARGET:+/$TARGET}/release

# Runs a command as root: directly, or by sudo for a person's account.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root rights for: $* (neither root nor sudo is at hand)"
    fi
}

# The compose command of this machine: the plugin, or the older program of its own.
compose_command() {
    if docker compose version >/dev/null 2>&1; then
        echo "docker compose"
    elif command -v docker-compose >/dev/null; then
        echo "docker-compose"
    else
        return 1
    fi
}

# The workspace's version.
version_of() { sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | sed -n 1p; }

# The commit's time in one of git's formats, so that the same commit gives the same bytes; without git's history, now.
commit_time() { git -C "$ROOT" log -1 --format="$1" 2>/dev/null || { [ "$1" = %ct ] && date +%s || date -u +%FT%TZ; }; }

# Builds release programs. Paths of this machine do not get into them, so the same commit gives the same bytes elsewhere.
release_build() {
    if [ -n "$TARGET" ]; then
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    fi
    RUSTFLAGS="--remap-path-prefix=$ROOT=. --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo${RUSTFLAGS:+ $RUSTFLAGS}" \
        cargo build --release --locked ${TARGET:+--target "$TARGET"} "$@"
}

# run_release PROGRAM [ARGUMENT...]: builds a program of e2e so, and runs it.
run_release() {
    local program=$1
    shift
    release_build -q -p e2e --bin "$program" && "$RELEASE/$program" "$@"
}
