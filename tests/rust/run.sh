#!/bin/bash
# Runs the tests in Rust, each in a process of its own with a deadline, so that a crash or a hang is one failed
# test: tests/rust/run.sh [CARGO TEST OPTION...], such as --test limits --test 'guest_*'
#
# FILTER chooses tests by a part of their names; EXTISM_TEST_SLOWDOWN multiplies the deadline; RUN_UNDER is what each
# test is run by, such as valgrind; LEFT_OUT is a pattern of the names of those that are not; VERBOSE shows what those print that pass.
set -u
cd "$(dirname "$0")"

# What is on disk from an earlier run must not decide what is tested.
export EXTISM_CACHE_CONFIG=${EXTISM_CACHE_CONFIG-}

deadline=$((120 * ${EXTISM_TEST_SLOWDOWN:-1}))
failures=$(mktemp -d)
trap 'rm -rf "$failures"' EXIT
built=$(cargo test --locked -p extism-tests --no-run "$@" 2>&1) || { echo "$built"; exit 1; }
programs=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$built")

# run_test PROGRAM NAME: a line, and what it printed if it failed.
run_test() {
    local log status
    log=$failures/$(basename "$1").${2//:/_}
    # shellcheck disable=SC2086
    timeout --kill-after=5 "$deadline" ${RUN_UNDER:-} "$1" --exact "$2" --nocapture >"$log" 2>&1 </dev/null
    status=$?
    if [ $status -eq 0 ]; then
        echo "ok      $(basename "${1%-*}")::$2"
        [ -z "${VERBOSE:-}" ] || grep -vE '^(running|test|)( |$)' "$log"
        rm "$log"
    else
        [ $status -eq 124 ] && echo "no end within $deadline s" >>"$log"
        echo "FAILED  $(basename "${1%-*}")::$2 ($status)"
    fi
}
export -f run_test
export failures deadline

root=$(cd ../.. && pwd)
for program in $programs; do
    case $program in /*) ;; *) program=$root/$program ;; esac
    "$program" --list --format terse | sed -n 's/: test$//p' | grep -F -e "${FILTER:-}" | grep -vxE "${LEFT_OUT:- }" | sed "s|^|$program |"
done | xargs -P "$(nproc)" -L 1 bash -c 'run_test "$1" "$2"' _ | tee "$failures.lines"

failed=$(grep -c '^FAILED' "$failures.lines")
passed=$(grep -c '^ok' "$failures.lines")
rm "$failures.lines"
for log in "$failures"/*; do
    [ -e "$log" ] && echo "== $(basename "$log")" && tail -n 60 "$log"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
