#!/bin/sh
# Python's SDK from PyPI, with its shared object replaced by ours.
. "$ROOT/tests/fetch/common.sh"
"$ROOT/tests/fetch/python-sdk.sh"

packages=$OUT/python-sdk
rm -rf "$packages"
mkdir -p "$packages"
cp -r "$CACHE"/python-sdk/lib/python3*/site-packages/. "$packages"
cp "$EXTISM_LIB" "$packages/extism_sys/libextism_sys.so"

# Its own packages come first; the interpreter of the environment brings nothing else.
PYTHONPATH=$packages PYTHONDONTWRITEBYTECODE=1 "$CACHE/python-sdk/bin/python" -s \
    "$ROOT/tests/python-sdk/main.py" "$ROOT/c-examples/wasm/count_vowels.wasm"
