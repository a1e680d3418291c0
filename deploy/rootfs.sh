#!/bin/sh
# rootfs.sh [PROGRAM...]: collects into /rootfs what an image holds beside our own program, and nothing else: the C library,
# certificates, the user database, and the PROGRAMs with their libraries. It runs in the first stage of the images' Dockerfiles.
# For whoever scans an image, /var/lib/dpkg/status.d says which Debian packages the files are from.
set -eu
root=/rootfs

for dir in bin sbin lib lib64; do
    mkdir -p "$root/usr/$dir"
    ln -s "usr/$dir" "$root/$dir"
done
mkdir -p "$root/etc/ssl/certs" "$root/var/lib/dpkg/status.d" "$root/usr/share/doc" "$root/usr/local/bin" "$root/run"
mkdir -m 1777 "$root/tmp"

# What Rust's programs are linked with, wherever this architecture has it.
own=$(ldconfig -p | awk '$1 ~ /^(libc\.so\.6|libm\.so\.6|libgcc_s\.so\.1|ld-linux.*)$/ { print $NF }')
libraries=$(for program in "$@" $own; do ldd "$program" 2>/dev/null || :; done | grep -oE '/[^ ]+' || :)
files=$(printf '%s\n' "$@" $own $libraries | sort -u)
for file in $files; do
    mkdir -p "$root$(dirname "$file")"
    cp -L "$file" "$root$file"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
for table in passwd group; do grep -E '^(root|nobody|nogroup|haproxy):' "/etc/$table" >"$root/etc/$table"; done
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

# The package database names a file by the path that it was unpacked to, with or without /usr in front.
package_of() { dpkg-query -S "$1" "$(readlink -f "$1")" "/usr$1" "${1#/usr}" 2>/dev/null | grep -v '^diversion ' | sed -n 's/[:,].*//p' | head -n 1; }
for package in ca-certificates base-files $(for file in $files; do package_of "$file"; done | sort -u); do
    dpkg-query -s "$package" >"$root/var/lib/dpkg/status.d/$package"
    copyright=/usr/share/doc/$package/copyright
    [ ! -e "$copyright" ] || { mkdir -p "$root/usr/share/doc/$package" && cp -L "$copyright" "$root$copyright"; }
done
cp -L /etc/os-release "$root/etc/os-release"
