#!/bin/bash
# What pkg-config says about the installed library is enough to build with it.
. "$ROOT/tests/fetch/common.sh"
need pkg-config
set -o pipefail
cd "$ROOT"

stage=$OUT/pkg-config
make --no-print-directory install DESTDIR="$stage" PREFIX=/opt/extism BUILT="$(dirname "$EXTISM_LIB")"
export PKG_CONFIG_LIBDIR=$stage/opt/extism/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage
for name in extism extism-static; do
    pkg-config --modversion $name | grep -qx '[0-9]*\.[0-9]*\.[0-9]*'
    # shellcheck disable=SC2046
    ${CC:-cc} c-examples/hello.c -o "$OUT/hello-$name" $(pkg-config --cflags --libs $name)
    (cd c-examples && LD_LIBRARY_PATH=$stage/opt/extism/lib "$OUT/hello-$name") |
        diff -u c-examples/expected/hello.txt -
done
