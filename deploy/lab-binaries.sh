#!/usr/bin/env bash
# lab-binaries.sh: puts the HAProxy and etcd versions that the host-side tests use under target/lab/bin:
# haproxy-3.0, haproxy-2.6, etcd-3.5, etcdctl-3.5, etcd-3.4, etcdctl-3.4; and haproxy-3.4 while Debian's experimental
# packages have it: the tests that need it pass over what is not there.
# A version that the host's own packages have is a link to them. The others come from the packages of the Debian that
# has them (trixie or bookworm), with the libraries and the dynamic loader they were built for, and are patched to use
# these: so HAProxy's master can re-execute itself, which a wrapper around the loader would not survive.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

lab=$ROOT/target/lab
bin=$lab/bin
mkdir -p "$bin"

# The major.minor version that a program tells of itself.
version_of() {
    case ${1##*/} in
        haproxy*) "$1" -v ;;
        etcdctl*) ETCDCTL_API=3 "$1" version ;;
        etcd*) "$1" --version ;;
    esac 2>/dev/null | grep -oE '[0-9]+\.[0-9]+' | sed -n 1p
}

works() { [ -x "$bin/$1" ] && [ "$(version_of "$bin/$1")" = "${1##*-}" ]; }

# Which of the given names are not in place, or do not run (a copied target directory breaks absolute paths).
missing() {
    local name
    for name in "$@"; do works "$name" || echo "$name"; done
}

link_host_programs() {
    local program path
    for program in haproxy etcd etcdctl; do
        path=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$program") || continue
        ln -sfn "$path" "$bin/$program-$(version_of "$path")"
    done
}

# Runs in a container of the suite: installs the packages and writes the programs, the loader and every library they
# need, as a tar file to standard output.
IN_CONTAINER='
set -e
exec 3>&1 1>&2
export DEBIAN_FRONTEND=noninteractive
printf "#!/bin/sh\nexit 101\n" > /usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
if [ -n "$EXPERIMENTAL" ]; then
    # What it is built for comes from sid. A mirror that stands still is as good here as a fresh one.
    printf "deb %s sid main\ndeb %s experimental main\n" "$EXPERIMENTAL" "$EXPERIMENTAL" > /etc/apt/sources.list.d/experimental.list
    printf "Acquire::Check-Valid-Until \"false\";\n" > /etc/apt/apt.conf.d/still
fi
apt-get update -q=2
# shellcheck disable=SC2086
apt-get install -q=2 --no-install-recommends $PACKAGES > /tmp/apt.log 2>&1 || { cat /tmp/apt.log; exit 1; }
mkdir -p /out/lib /out/orig
for program in /usr/sbin/haproxy /usr/bin/etcd /usr/bin/etcdctl; do
    [ -e "$program" ] || continue
    cp "$program" /out/orig/
    ldd "$program" | grep -oE "/[^ ]+" | while read -r lib; do cp -Ln "$lib" /out/lib/; done || :
done
# Loaded at run time only, when a thread is cancelled.
cp -Ln "$(ldconfig -p | grep -oE "/[^ ]+/libgcc_s.so.1" | sed -n 1p)" /out/lib/ || :
tar -C /out -c . >&3
'

# from_suite SUITE NAME...: takes the named programs from the suite's packages. Each step says what follows from its
# failure, as `set -e` is off in a function whose outcome is asked for.
from_suite() {
    local suite=$1 base dir name program loader of=$1 packages="haproxy etcd-server etcd-client" experimental=
    shift
    if [ "$suite" = experimental ]; then
        of=trixie packages=haproxy/experimental experimental=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
    fi
    command -v patchelf >/dev/null || die "patchelf is missing: run deploy/setup.sh (make setup)"
    dir=$lab/$suite
    if [ ! -e "$dir/complete" ]; then
        base=$("$(dirname "$0")/base-image.sh" "$of") || return 1
        say "taking $* from the packages of $suite"
        rm -rf "$dir"
        mkdir -p "$dir"
        docker run --rm -e PACKAGES="$packages" -e EXPERIMENTAL="$experimental" "$base" sh -c "$IN_CONTAINER" </dev/null |
            tar -C "$dir" -x --no-same-owner || return 1
        touch "$dir/complete"
    fi
    loader=$(find "$dir/lib" -name 'ld-linux*' | sed -n 1p)
    for name in "$@"; do
        program=${name%-*}
        cp -f "$dir/orig/$program" "$dir/$name" || return 1
        if readelf -l "$dir/$name" | grep -q INTERP; then
            patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$dir/lib" "$dir/$name" || return 1
        fi
        ln -sfn "../$suite/$name" "$bin/$name"
    done
}

take() {
    local suite=$1 wanted
    shift
    wanted=$(missing "$@")
    [ -z "$wanted" ] && return
    # shellcheck disable=SC2086 # one name a word
    from_suite "$suite" $wanted || say "could not take the programs of $suite"
}

all=(haproxy-3.0 haproxy-2.6 etcd-3.5 etcdctl-3.5 etcd-3.4 etcdctl-3.4)
if [ -n "$(missing "${all[@]}")" ]; then
    link_host_programs
    take trixie haproxy-3.0 etcd-3.5 etcdctl-3.5
    take bookworm haproxy-2.6 etcd-3.4 etcdctl-3.4
fi
# Nothing depends on it, so whatever goes wrong here is no failure.
(take experimental haproxy-3.4) || :
for name in "${all[@]}" haproxy-3.4; do
    if works "$name"; then say "$name: $(readlink -f "$bin/$name")"; else say "$name: MISSING"; fi
done
[ -z "$(missing "${all[@]}")" ] || die "not every program could be had; see above"
