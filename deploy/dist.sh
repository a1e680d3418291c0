#!/usr/bin/env bash
# dist.sh: makes what a release has, for ARCH (this machine's architecture), into target/dist: Debian packages, tarballs of the programs,
# the images as files for `docker load`, bills of materials, and checksums.
# The same commit gives the same bytes with the same compiler (images: as long as Debian's packages are the same).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

version=$(version_of)
arch=$ARCH
out=target/dist
rm -rf "$out"
mkdir -p "$out"
[ -z "$(git status --porcelain)" ] || say "note: the tree differs from the commit; so will what is made"

say "building the programs (some minutes the first time)"
release_build -p register -p discover
deploy/packages.sh release "$out"

images=(docker-register docker-discover)
if [ -n "$TARGET" ]; then
    say "no images: their parts are $arch programs, which only such a machine runs"
    images=()
else
    say "making the images"
    deploy/build-images.sh register discover
fi
for image in "${images[@]}"; do
    file=$out/$image-$version-$arch.docker.tar
    python3 deploy/image-file.py "$image:$version" "$file" "$(commit_time %ct)"
    python3 deploy/sbom.py "${image#docker-}" "$version" "$file" >"$out/$image-$version.cdx.json"
    gzip -9n "$file"
done

(cd "$out" && sha256sum -- * >SHA256SUMS)
say "made in $out:"
(cd "$out" && du -h -- * | awk '{ printf "  %-6s %s\n", $1, $2 }' >&2)
