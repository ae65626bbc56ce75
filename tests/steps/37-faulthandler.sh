#!/bin/bash
# Python's faulthandler, the best-known handler of signals that is installed after ours. Then a trap of a
# plug-in ends the process, as the header says; before ours, or with EXTISM_SIGNALS=0, it does not.
set -uo pipefail
. "$ROOT/tests/fetch/common.sh"
set +e
need python3

# trap_in_python WHEN: how the program ended, in $status; what it printed, in $out/printed and $out/said.
out=$OUT/faulthandler
mkdir -p "$out"
trap_in_python() {
    echo "== $*"
    timeout --kill-after=5 $((60 * ${EXTISM_TEST_SLOWDOWN:-1})) \
        python3 "$ROOT/tests/signals/faulthandler_trap.py" "$EXTISM_LIB" "$1" >"$out/printed" 2>"$out/said"
    status=$?
    cat "$out/printed" "$out/said"
}

faults=0
errors='134 wasm trap: wasm `unreachable` instruction executed
134 wasm trap: call stack exhausted'
is_error() {
    [ $status -eq 0 ] && [ "$(<"$out/printed")" = "$errors" ] && [ ! -s "$out/said" ] && return
    echo "expected two errors, and the end with 0; it ended with $status"
    faults=$((faults + 1))
}

trap_in_python never && is_error
trap_in_python before && is_error
EXTISM_SIGNALS=0 trap_in_python after && is_error
EXTISM_SIGNALS=0 trap_in_python before && is_error

trap_in_python after
if [ $status -ne $((128 + 4)) ] || ! grep -q 'Fatal Python error: Illegal instruction' "$out/said"; then
    echo "expected the end by SIGILL, and Python's words on it; it ended with $status"
    faults=$((faults + 1))
fi
[ $faults -eq 0 ]
