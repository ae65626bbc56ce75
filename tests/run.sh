#!/bin/bash
# Runs the steps in tests/steps, one after the other: tests/run.sh [WORD...]
#
# With words, only the steps whose names contain one of them. A step is a program that ends with 0 if
# it passed, with 77 if something that it needs is missing (its last line of output says what), and
# with anything else if it failed. TEST_STRICT=1 counts a skipped step as failed; TEST_SECONDS bounds
# each step, and EXTISM_TEST_SLOWDOWN multiplies all deadlines, for slow machines and tools.
set -u

ROOT=$(cd "$(dirname "$0")/.." && pwd)
EXTISM_LIB=${EXTISM_LIB:-$ROOT/target/release/libextism.so} # what is tested
EXTISM_INCLUDE=$ROOT/include
OUT=$ROOT/build/test                                        # scratch, empty at the start
CACHE=${CACHE:-$ROOT/build/cache}                           # downloads, kept
export ROOT EXTISM_LIB EXTISM_INCLUDE OUT CACHE
logs=$ROOT/build/test-logs
export EXTISM_CACHE_CONFIG= # what is on disk from an earlier run must not decide what is tested
unset MAKEFLAGS MAKELEVEL # of `make test`; steps that call make start afresh

if [ ! -e "$EXTISM_LIB" ]; then
    echo "$EXTISM_LIB does not exist: run make first" >&2
    exit 1
fi
rm -rf "$OUT" "$logs"
mkdir -p "$OUT" "$logs" "$CACHE"

# wanted NAME WORD...: whether the name contains one of the words, or there are none.
wanted() {
    local name=$1
    shift
    [ $# -eq 0 ] && return 0
    for word in "$@"; do
        [[ $name == *"$word"* ]] && return 0
    done
    return 1
}

# report OUTCOME: one line for the step that just ended.
report() {
    printf '%-8s %-28s %5d s\n' "$1" "$name" $((SECONDS - began))
}

passed=0 failed=() skipped=()
for step in "$ROOT"/tests/steps/[0-9]*; do
    name=$(basename "$step" .sh)
    wanted "$name" "$@" || continue
    log=$logs/$name.log
    began=$SECONDS
    timeout --kill-after=10 "$((${TEST_SECONDS:-1800} * ${EXTISM_TEST_SLOWDOWN:-1}))" "$step" >"$log" 2>&1 </dev/null
    case $? in
        0)
            report passed
            passed=$((passed + 1))
            ;;
        77)
            report skipped
            skipped+=("$name: $(tail -n 1 "$log")")
            ;;
        124 | 137)
            report 'TIME UP'
            failed+=("$name")
            tail -n 40 "$log" | sed 's/^/    /'
            ;;
        *)
            report FAILED
            failed+=("$name")
            tail -n 40 "$log" | sed 's/^/    /'
            ;;
    esac
done

echo
for name in "${failed[@]}"; do
    echo "failed: $name (build/test-logs/$name.log)"
done
for reason in "${skipped[@]}"; do
    echo "skipped: $reason"
done
failures=${#failed[@]}
if [ "${TEST_STRICT:-0}" = 1 ] && [ ${#skipped[@]} -gt 0 ]; then
    echo "TEST_STRICT=1: a skipped step is a failed one"
    failures=$((failures + ${#skipped[@]}))
    skipped=()
fi
if [ $((passed + failures + ${#skipped[@]})) -eq 0 ]; then
    echo "no step has a name with: $*"
    exit 1
fi
echo "$passed passed, $failures failed, ${#skipped[@]} skipped"
[ "$failures" -eq 0 ]
