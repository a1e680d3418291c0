#!/usr/bin/env bash
# base-image.sh [SUITE]: makes sure that a Debian base image is there and prints its name (the BASE of the Dockerfiles).
# SUITE is trixie (default) or bookworm. Debian's own image where a registry answers, else one bootstrapped from the
# package mirror under a name of our own. DEBIAN_MIRROR chooses the mirror, PULL_TIMEOUT (seconds) the patience.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

suite=${1:-trixie}
official=debian:$suite-slim
own=docker-register-base:$suite

present() { docker image inspect "$1" >/dev/null 2>&1; }

for image in "$official" "$own"; do
    if present "$image"; then
        say "$image is here"
        echo "$image"
        exit 0
    fi
done

say "pulling $official (at most ${PULL_TIMEOUT:-15} s)"
if timeout "${PULL_TIMEOUT:-15}" docker pull -q "$official" >/dev/null 2>&1; then
    echo "$official"
    exit 0
fi

say "no registry answered; bootstrapping $own from Debian's packages (about half a minute)"
command -v debootstrap >/dev/null || die "debootstrap is missing: run deploy/setup.sh (make setup)"
work=$(as_root mktemp -d)
trap 'as_root rm -rf "$work"' EXIT
# debootstrap's own steps are the progress; its log tells the reason of a failure.
as_root debootstrap --variant=minbase "$suite" "$work/root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} 2>&1 |
    sed -u 's/^/  /' | grep --line-buffered -vE 'Retrieving|Validating|(Extracting|Unpacking|Configuring) [^ ]+\.\.\.$' >&2 ||
    die "debootstrap of $suite failed; see the lines above"

# As in Debian's slim images: no package lists, no manuals, updates and security fixes switched on.
mirror=$(as_root awk '$1 == "deb" { print $2; exit }' "$work/root/etc/apt/sources.list")
as_root sh -c "cat >> '$work/root/etc/apt/sources.list'" <<SOURCES
deb $mirror $suite-updates main
deb ${mirror%/debian*}/debian-security $suite-security main
SOURCES
as_root sh -c "
    cd '$work/root'
    rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* usr/share/man/* usr/share/locale/* usr/share/info/*
    find usr/share/doc -type f ! -name copyright -delete
    printf 'path-exclude /usr/share/%s/*\n' doc man locale info > etc/dpkg/dpkg.cfg.d/slim
    echo 'path-include /usr/share/doc/*/copyright' >> etc/dpkg/dpkg.cfg.d/slim
    printf 'APT::Install-Recommends \"false\";\nAcquire::Languages \"none\";\n' > etc/apt/apt.conf.d/slim
"
say "importing the image"
as_root tar -C "$work/root" --numeric-owner -c . | docker import --change 'CMD ["bash"]' - "$own" >/dev/null
say "$own is made"
echo "$own"
