#!/bin/bash
# The soak test: tests/long/soak.sh
#
# SOAK_CALLS, SOAK_PLUGINS and SOAK_THREADS make it shorter or longer; EXTISM_LIB is what is tested.
set -eu

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
EXTISM_LIB=${EXTISM_LIB:-$ROOT/target/release/libextism.so}
out=$ROOT/build/long
mkdir -p "$out"

${CC:-cc} -std=gnu11 -O2 -g -Wall -Wextra -Werror -pthread -I"$ROOT/include" -I"$ROOT/tests/c" -o "$out/soak" \
    "$ROOT/tests/long/soak.c" "$EXTISM_LIB" -Wl,-rpath,"$(dirname "$EXTISM_LIB")"
# What the C library keeps of freed memory and of the stacks of ended threads would look like growth.
export GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.pthread.stack_cache_size=0
exec "$out/soak" "${SOAK_CALLS:-10000000}" "${SOAK_PLUGINS:-100000}" "${SOAK_THREADS:-8}"
