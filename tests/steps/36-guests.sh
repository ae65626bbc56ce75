#!/bin/bash
# The committed plug-ins of the examples are what clang 19 makes of their sources, byte for byte.
set -euo pipefail

for tool in clang-19 wasm-ld-19; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is not installed"
        exit 77
    fi
done

out=$OUT/guests
mkdir -p "$out"
CLANG=clang-19 WASM_LD=wasm-ld-19 "$ROOT/c-examples/guests/build.sh" "$out"
diff -r "$ROOT/c-examples/wasm" "$out"
