#!/usr/bin/env bash
# build-images.sh [IMAGE...]: builds the binaries on this host and the images around them.
# IMAGE is register, discover, whoami, publisher, etcd or memcached, all of them by default, or the tests' host, theirs alone. BASE chooses the base image, else base-image.sh does.
# PROFILE is cargo's: release (the default), demo (a third of the time; the demo's own program is built with it), or dev, as the tests have it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

images=("$@")
profile=${PROFILE:-release}
[ ${#images[@]} -gt 0 ] || images=(register discover whoami publisher etcd memcached)
[ "$profile" != dev ] || [ $# -gt 0 ] || images+=(host)

# The image that a name stands for. What only the demo uses is kept apart, so that nobody's own whoami is overwritten.
tag_of() {
    case $1 in
        register | discover) echo "docker-$1" ;;
        whoami | publisher | etcd | memcached | host) echo "docker-register-demo/$1" ;;
        *) die "no such image: $1 (register, discover, whoami, publisher, etcd, memcached, host)" ;;
    esac
}

# The programs that an image holds; what is not here comes from the distribution.
programs_of() {
    case $1 in
        etcd | memcached | host) ;;
        publisher) echo register whoami ;;
        *) echo "$1" ;;
    esac
}

packages=()
programs=()
bins=()
for image in "${images[@]}"; do
    tag_of "$image" >/dev/null
    for program in $(programs_of "$image"); do
        case " ${programs[*]-} " in
            *" $program "*) ;;
            *)
                programs+=("$program")
                packages+=(-p "$program")
                bins+=(--bin "$program")
                ;;
        esac
    done
done
[ "$profile" != demo ] || bins+=(--bin demo)

context=target/image
mkdir -p "$context"
install -m 755 deploy/rootfs.sh "$context/"
needed=0
if [ ${#packages[@]} -gt 0 ]; then
    say "building the binaries, profile $profile (some minutes the first time)"
    case $profile in
        release) release_build "${packages[@]}" ;;
        # As deploy/test.sh does: with another set of targets cargo would compile the dependencies once more, with other features.
        dev) cargo build --workspace --all-targets --locked ;;
        *) cargo build --profile "$profile" --workspace --locked "${bins[@]}" ;;
    esac
    for program in "${programs[@]}"; do
        install -m 755 "${CARGO_TARGET_DIR:-target}/${profile/#dev/debug}/$program" "$context/$program"
        [ "$profile" = release ] || strip "$context/$program"
        needs=$(readelf -V "$context/$program" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -1)
        say "$program: $(du -h "$context/$program" | cut -f1), needs glibc ${needs#GLIBC_}"
        needed=$(printf '%s\n' "$needed" "${needs#GLIBC_}" | sort -V | tail -1)
    done
fi

base=${BASE:-$("$(dirname "$0")/base-image.sh")}

# A binary asks for the glibc of the host that built it: an older one in the image would only tell at run time.
given=$(docker run --rm "$base" ldd --version | sed -n 1p | grep -oE '[0-9]+\.[0-9]+$')
[ "$(printf '%s\n' "$needed" "$given" | sort -V | tail -1)" = "$given" ] ||
    die "the binaries built here need glibc $needed, but $base has $given: choose a newer BASE, or build on an older host"
say "$base has glibc $given: enough"

version=$(version_of)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
created=$(commit_time %cI)
for image in "${images[@]}"; do
    tag=$(tag_of "$image")
    say "building $tag"
    # A tag for each version beside the moving one.
    docker build -q -t "$tag" -t "$tag:$version" -f "deploy/$(basename "$tag").Dockerfile" \
        --build-arg BASE="$base" --build-arg VERSION="$version" \
        --label org.opencontainers.image.revision="$revision" --label org.opencontainers.image.created="$created" \
        "$context" >/dev/null
    say "$tag: $(($(docker image inspect -f '{{.Size}}' "$tag") / 1000000)) MB"
done
