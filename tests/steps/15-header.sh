#!/bin/sh
# include/extism.h is what src/ffi says, and C programs can include it: alone, and twice.
set -eu
ROOT=${ROOT:-$(cd "$(dirname "$0")/../.." && pwd)} OUT=${OUT:-$ROOT/build/test}
cd "$ROOT"
mkdir -p "$OUT"

cargo run --quiet --locked -p header -- "$OUT/extism.h"
if ! diff -u include/extism.h "$OUT/extism.h"; then
    echo "include/extism.h is not what src/ffi says: run make header"
    exit 1
fi

cat >"$OUT/header.c" <<'C'
#include <extism.h>
#include <extism.h>
EXTISM_FUNCTION(a_host_function);
EXTISM_GO_FUNCTION(a_go_function);
ExtismValType handle = EXTISM_PTR;
C
for standard in c99 c11 c17; do
    ${CC:-cc} -std=$standard -Wall -Wextra -pedantic -Werror -Iinclude -fsyntax-only -x c "$OUT/header.c"
    ${CC:-cc} -std=$standard -Wall -Wextra -pedantic -Werror -fsyntax-only -x c - <include/extism.h
done
