#!/bin/sh
# libextism 1.41, the library that ours stands in for: $CACHE/reference/libextism.so
. "$(dirname "$0")/common.sh"

[ -e "$CACHE/reference/libextism.so" ] && exit 0
need python3
python3 -m pip --version >/dev/null 2>&1 || skip "python3 has no pip (Debian: python3-pip)"

work=$(scratch)
trap 'rm -rf "$work"' EXIT
fetch "the wheel extism-sys 1.41.0" \
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" extism-sys==1.41.0
mkdir "$work/reference"
python3 -c 'import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
open(sys.argv[2], "wb").write(wheel.read("extism_sys/libextism_sys.so"))' \
    "$work"/*.whl "$work/reference/libextism.so"
mv "$work/reference" "$CACHE/reference"
