#!/bin/sh
# This library and libextism 1.41 in one process.
. "$ROOT/tests/fetch/common.sh"
"$ROOT/tests/fetch/reference.sh"
export EXTISM_REFERENCE="$CACHE/reference/libextism.so"
SOURCES=$ROOT/tests/c/beside/test_*.c exec "$ROOT/tests/c/run.sh" c-beside
