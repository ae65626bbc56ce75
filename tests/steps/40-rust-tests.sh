#!/bin/sh
# The tests in Rust, which load the built library as any host does.
set -eu
cd "$ROOT"
cargo test --locked -p extism-tests
