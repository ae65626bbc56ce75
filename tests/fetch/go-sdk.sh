#!/bin/sh
# The plug-ins of the Go SDK 1.7.1, made with TinyGo, Go, Rust and Haskell: $CACHE/go-sdk-wasm/*.wasm
. "$(dirname "$0")/common.sh"

[ -e "$CACHE/go-sdk-wasm" ] && exit 0
need go

work=$(scratch)
trap 'rm -rf "$work"' EXIT
module=github.com/extism/go-sdk@v1.7.1
fetch "the Go module $module" sh -c "cd '$work' && go mod download -json $module >module.json"
dir=$(sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p' "$work/module.json")
mkdir "$work/wasm"
cp "$dir"/wasm/*.wasm "$work/wasm/"
chmod u+w "$work"/wasm/*
mv "$work/wasm" "$CACHE/go-sdk-wasm"
