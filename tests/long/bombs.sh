#!/bin/bash
# What is dear to compile, up to the dearest that passes: tests/long/bombs.sh
#
# FILTER=bombs::casts chooses one shape; EXTISM_LIB is what is tested. Takes half an hour.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
export EXTISM_LIB=${EXTISM_LIB:-$ROOT/target/release/libextism.so}
export EXTISM_TEST_LONG=1
export EXTISM_TEST_SLOWDOWN=${EXTISM_TEST_SLOWDOWN:-2}
export FILTER=${FILTER:-bombs::}
# Prints what each size took.
export VERBOSE=1
exec "$ROOT/tests/rust/run.sh" --test hostile
