#!/usr/bin/env bash
# build-images.sh [IMAGE...]: builds the binaries on this host and the images around them.
# IMAGE is register, discover, whoami or etcd; all of them by default. BASE chooses the base image, else base-image.sh does.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

images=("$@")
[ ${#images[@]} -gt 0 ] || images=(register discover whoami etcd)

# The image that a name stands for. What only the demo uses is kept apart, so that nobody's own whoami is overwritten.
tag_of() {
    case $1 in
        register | discover) echo "docker-$1" ;;
        whoami | etcd) echo "docker-register-demo/$1" ;;
        *) die "no such image: $1 (register, discover, whoami, etcd)" ;;
    esac
}

packages=()
for image in "${images[@]}"; do
    tag_of "$image" >/dev/null
    [ "$image" = etcd ] || packages+=(-p "$image")
done

context=target/image
mkdir -p "$context"
needed=0
if [ ${#packages[@]} -gt 0 ]; then
    say "building the release binaries (some minutes the first time)"
    cargo build --release --locked "${packages[@]}"
    for image in "${images[@]}"; do
        [ "$image" = etcd ] && continue
        install -m 755 "${CARGO_TARGET_DIR:-target}/release/$image" "$context/$image"
        needs=$(readelf -V "$context/$image" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1)
        say "$image: $(du -h "$context/$image" | cut -f1), needs glibc ${needs#GLIBC_}"
        needed=$(printf '%s\n' "$needed" "${needs#GLIBC_}" | sort -V | tail -1)
    done
fi

base=${BASE:-$("$(dirname "$0")/base-image.sh")}

# A binary asks for the glibc of the host that built it: an older one in the image would only tell at run time.
given=$(docker run --rm "$base" ldd --version | sed -n 1p | grep -oE '[0-9]+\.[0-9]+$')
[ "$(printf '%s\n' "$needed" "$given" | sort -V | tail -1)" = "$given" ] ||
    die "the binaries built here need glibc $needed, but $base has $given: choose a newer BASE, or build on an older host"
say "$base has glibc $given: enough"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | sed -n 1p)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
for image in "${images[@]}"; do
    tag=$(tag_of "$image")
    say "building $tag"
    docker build -q -t "$tag" -f "deploy/$(basename "$tag").Dockerfile" \
        --build-arg BASE="$base" --build-arg VERSION="$version" \
        --label org.opencontainers.image.revision="$revision" "$context" >/dev/null
    say "$tag: $(($(docker image inspect -f '{{.Size}}' "$tag") / 1000000)) MB"
done
