#!/bin/sh
# The unit tests of what builds without wasmtime.
set -eu
cd "$ROOT"
cargo test --locked -p libextism --no-default-features --lib
