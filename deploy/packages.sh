#!/usr/bin/env bash
# packages.sh [PROFILE [DIRECTORY]]: makes Debian packages and tarballs of the programs as they were built, for ARCH (this machine's
# architecture): the program, its manual pages and completions, its systemd unit, its settings. PROFILE is release (default) or dev;
# DIRECTORY is target/dist unless given. The same programs and commit give the same bytes. With dev there are packages only, made fast.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

profile=${1:-release}
out=${2:-target/dist}
version=$(version_of)
arch=$ARCH
programs=$RELEASE
[ "$profile" = release ] || programs=target/debug
SOURCE_DATE_EPOCH=$(commit_time %ct)
export SOURCE_DATE_EPOCH
compression=(-Zxz)
[ "$profile" = release ] || compression=(-Znone)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

declare -A package=([register]=docker-register [discover]=docker-discover)
declare -A summary=(
    [register]="registers healthy containers in etcd"
    [discover]="keeps HAProxy at what is registered in etcd"
)
declare -A depends=([register]="" [discover]=", haproxy (>= 2.6)")
declare -A directories=([register]="/run/register" [discover]="/var/lib/discover /run/discover")
maintainer="docker-register developers <developers@docker-register.invalid>"

# The least glibc that has all that the program asks for.
glibc_of() { readelf -V "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1 | sed 's/GLIBC_//'; }

# What is built for another architecture is run by an emulator.
run() { ${TARGET:+qemu-aarch64-static -L /usr/aarch64-linux-gnu} "$@"; }

# Everything under a directory has the commit's time, and its directories everybody's rights to look.
settle() {
    find "$1" -type d -exec chmod 755 {} +
    find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
}

# What both the package and the tarball hold below PREFIX.
lay_out() {
    local program=$work/bin/$1 prefix=$2 doc=$2/share/doc/${package[$1]} shell
    install -D -m 755 "$program" "$prefix/bin/$1"
    run "$program" man "$prefix/share/man/man1"
    gzip -9n "$prefix"/share/man/man1/*
    for shell in bash:bash-completion/completions/$1 zsh:zsh/vendor-completions/_$1 fish:fish/vendor_completions.d/$1.fish; do
        install -d "$(dirname "$prefix/share/${shell#*:}")"
        run "$program" completions "${shell%%:*}" >"$prefix/share/${shell#*:}"
    done
    install -d "$doc"
    install -m 644 README.md LICENSE-MIT LICENSE-APACHE "$doc/"
    gzip -9nc CHANGELOG.md >"$doc/changelog.gz"
    cp -r docs deploy/roles "$doc/"
}

for program in register discover; do
    name=${package[$program]}
    install -D -m 755 "$programs/$program" "$work/bin/$program"
    "${TARGET:+aarch64-linux-gnu-}strip" "$work/bin/$program"

    tree=$work/$name
    lay_out "$program" "$tree/usr"
    install -D -m 644 "deploy/systemd/$program.service" "$tree/usr/lib/systemd/system/$program.service"
    install -D -m 644 "deploy/debian/$program.default" "$tree/etc/default/$program"
    cp LICENSE-MIT "$tree/usr/share/doc/$name/copyright"
    mkdir "$tree/DEBIAN"
    echo "/etc/default/$program" >"$tree/DEBIAN/conffiles"
    for script in postinst prerm postrm; do
        sed -e "s,@PROGRAM@,$program,; s,@DIRECTORIES@,${directories[$program]}," "deploy/debian/$script" >"$tree/DEBIAN/$script"
        chmod 755 "$tree/DEBIAN/$script"
    done
    (cd "$tree" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: $name
Version: $version
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$tree/usr" | cut -f1)
Depends: libc6 (>= $(glibc_of "$work/bin/$program")), libgcc-s1${depends[$program]}
Recommends: ca-certificates
Section: net
Priority: optional
Description: ${summary[$program]}
 Service registration and discovery for containers: register keeps each ready
 container's address in etcd under a lease, and discover keeps HAProxy at that
 state, by its runtime API wherever that can do it.
CONTROL
    settle "$tree"
    # One thread: several would split the data by their number.
    dpkg-deb --root-owner-group --threads-max=1 "${compression[@]}" --build "$tree" "$out/${name}_${version}_$arch.deb" >/dev/null

    say "$out/${name}_${version}_$arch.deb"
    [ "$profile" = release ] || continue

    tarball=$name-$version-linux-$arch
    lay_out "$program" "$work/tar/$tarball"
    install -D -m 644 "deploy/systemd/$program.service" "$work/tar/$tarball/share/systemd/$program.service"
    settle "$work/tar/$tarball"
    tar -C "$work/tar" --sort=name --owner=0 --group=0 --numeric-owner -c "$tarball" | gzip -9n >"$out/$tarball.tar.gz"
    say "$out/$tarball.tar.gz"
done
