#!/usr/bin/env bash
# setup.sh: prepares a Debian 12 or 13 machine for building, testing and the demo. It installs what is missing and
# nothing else, may run any number of times, and runs as root or as a person who may use sudo.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

RUST_NEEDED=1.95
guard=/usr/sbin/policy-rc.d
guard_is_ours=

have() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# Debian starts what it installs. While our policy file is there, it does not; a file of somebody else stays as it is.
forbid_starts() {
    [ -e "$guard" ] && return
    guard_is_ours=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$guard" >/dev/null
    as_root chmod 755 "$guard"
}

allow_starts() {
    [ -z "$guard_is_ours" ] || as_root rm -f "$guard"
    guard_is_ours=
}

apt_updated=
install() {
    say "installing: $*"
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -q=2
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q=2 --no-install-recommends "$@" >/dev/null
}

# Debian enables a service's unit when it installs the package: what came by us does not start at the next boot either.
disable_unit() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now -q "$1" || say "note: could not disable $1"
    elif have update-rc.d; then
        as_root update-rc.d "$1" disable >/dev/null 2>&1 || :
    fi
}

# program → package that brings it
missing=()
services=()
need() { have "$1" || missing+=("$2"); }
need cc gcc
have cc || missing+=(libc6-dev)
# etcd-client's build runs protoc, on files that import Google's own; those come with the compiler only as a recommendation.
need protoc protobuf-compiler
[ -e /usr/include/google/protobuf/descriptor.proto ] || missing+=(libprotobuf-dev)
need readelf binutils
need curl curl
need ip iproute2
# The lab's hosts: links are cut by its rules.
need iptables iptables
need debootstrap debootstrap
need patchelf patchelf
need etcdctl etcd-client
have haproxy || { missing+=(haproxy) && services+=(haproxy); }
have etcd || { missing+=(etcd-server) && services+=(etcd); }
# The checks are tried on the real ones.
have redis-server || { missing+=(redis-server) && services+=(redis-server); }
have rabbitmq-server || { missing+=(rabbitmq-server) && services+=(rabbitmq-server epmd); }
# The nginx generator is tried on the real one, with its module for plain TCP.
have nginx || { missing+=(nginx) && services+=(nginx); }
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing+=(libnginx-mod-stream)
# The agents' clock jumps in a test; the machine's does not.
need faketime faketime
# register is tried on a live Podman; runc comes with Docker.
have podman || { missing+=(podman) && services+=(podman.socket); }
# ZooKeeper without its daemon: the tests start their own servers. It runs on Java.
[ -e /usr/share/java/zookeeper.jar ] || missing+=(libzookeeper-java)
need java default-jre-headless

# For programs of another architecture (make dist ARCH=arm64).
if [ -n "$TARGET" ]; then
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    [ -e /usr/aarch64-linux-gnu/include/stdio.h ] || missing+=(libc6-dev-arm64-cross)
    need qemu-aarch64-static qemu-user-static
fi

# moto's server, a real EC2 and S3 API for the tests, lives in a venv (deploy/moto.sh).
need python3 python3
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)

if [ ${#missing[@]} -gt 0 ]; then
    have apt-get || die "no apt-get here; install by hand what brings: ${missing[*]}"
    trap allow_starts EXIT
    forbid_starts
    install "${missing[@]}"
    for service in "${services[@]}"; do disable_unit "$service"; done
    allow_starts
    trap - EXIT
fi

# The edge and the agents' pages are tried in a real browser; without one those tests say SKIPPED.
if ! have chromium && have apt-get; then
    install chromium || say "note: no chromium here; the tests in a browser will be skipped"
fi

if ! have docker; then
    install docker.io
    # From Debian 13 on the client is a package of its own.
    have docker || install docker-cli
fi
compose_command >/dev/null || install docker-compose

if ! docker version >/dev/null 2>&1 && [ -z "${DOCKER_HOST:-}" ]; then
    say "the Docker daemon does not answer; starting it"
    if [ -d /run/systemd/system ]; then as_root systemctl start docker || :; else as_root service docker start >/dev/null || :; fi
    for _ in $(seq 30); do
        docker version >/dev/null 2>&1 && break
        sleep 1
    done
fi
docker version >/dev/null 2>&1 ||
    die "no Docker daemon reachable: start dockerd, or set DOCKER_HOST, or let this account use its socket (group docker)"

have cargo || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
rust_hint="install Rust $RUST_NEEDED or later from https://rustup.rs, or run: rustup update stable"
{ have rustc && have cargo; } || die "no Rust compiler found; $rust_hint"
rust=$(rustc --version | awk '{ print $2 }')
[ "$(printf '%s\n' "$RUST_NEEDED" "$rust" | sort -V | sed -n 1p)" = "$RUST_NEEDED" ] || die "Rust $rust is too old; $rust_hint"

[ -z "$TARGET" ] || rustup target add "$TARGET" || die "Rust's libraries for $TARGET are missing: rustup target add $TARGET"

say "ready: Rust $rust, Docker $(docker version --format '{{.Server.Version}}'), $(compose_command)"
