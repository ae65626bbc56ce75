#!/bin/sh
# The tests in Rust, which load the built library as any host does; those of guests once more with modules as they
# came (EXTISM_DEBUG) and without signals.
set -eu
cd "$ROOT"
tests/rust/run.sh
for variable in EXTISM_DEBUG=1 EXTISM_SIGNALS=0; do
    echo "== $variable"
    env "$variable" tests/rust/run.sh --test 'guest_*' --test linking --test start_up
done
