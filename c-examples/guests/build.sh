#!/bin/sh
# Builds the plug-ins of the examples: build.sh [output-directory], by default ../wasm.
# Needs clang with the wasm32 target and LLVM's linker; CLANG and WASM_LD override them.
set -eu

cd "$(dirname "$0")"
out=${1:-../wasm}

first_of() {
  for name in "$@"; do
    command -v "$name" && return
  done
  echo "none of these found: $*" >&2
  return 1
}
clang=${CLANG:-$(first_of clang-19 clang)}
wasm_ld=$(command -v "${WASM_LD:-$(first_of wasm-ld-19 wasm-ld)}")

for source in *.c; do
  "$clang" --target=wasm32 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib \
    -fuse-ld="$wasm_ld" -Wl,--no-entry -Wl,--strip-all \
    -o "$out/$(basename "$source" .c).wasm" "$source"
done
