#!/bin/sh
# examples/python prints what it should.
. "$ROOT/tests/fetch/common.sh"
need python3
export LD_LIBRARY_PATH="$(dirname "$EXTISM_LIB")"

python3 "$ROOT/examples/python/main.py" >"$OUT/python.txt"
diff -u "$ROOT/examples/expected.txt" "$OUT/python.txt"
