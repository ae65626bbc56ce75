#!/bin/bash
# memcheck over the C examples, the C tests and tests in Rust: tests/long/valgrind.sh [examples] [c] [rust]
#
# TESTS chooses Rust tests. Those that are left out by default start thousands of plug-ins, or would take hours.
set -u

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/long/common.sh"
need valgrind 'apt-get install valgrind'
[ $# -gt 0 ] || set -- examples c rust
cd "$ROOT" || exit 1
export EXTISM_LIB=${EXTISM_LIB:-$ROOT/target/symbols/libextism.so} EXTISM_INCLUDE=$ROOT/include OUT=$ROOT/build/valgrind ROOT
export EXTISM_TEST_SLOWDOWN=${EXTISM_TEST_SLOWDOWN:-30}
# Traps that are raised by a signal are, to valgrind, what they would be in any other program: faults.
export EXTISM_SIGNALS=0
export RUN_UNDER="valgrind -q --trace-children=yes --error-exitcode=9 --leak-check=full --show-leak-kinds=definite
    --errors-for-leak-kinds=definite --suppressions=$ROOT/tests/long/valgrind.supp"
rm -rf "$OUT" && mkdir -p "$OUT"
failed=0

for part in "$@"; do
    echo "== $part"
    case $part in
        examples) tests/steps/35-c-examples.sh || failed=1 ;;
        # A child has what the threads of its parent had, and nobody who frees it; some programs fault on purpose; there is
        # no room for the addresses of a pool; and of threads that loop only one gets on.
        c)
            left_out='test_fork test_fork_threads test_ending test_loading test_signals test_a_reader_that_stops'
            LEFT_OUT="$left_out test_without_address_space test_first_use_by_many_threads" tests/c/run.sh c || failed=1
            ;;
        rust)
            # One measures what the process has in memory.
            # shellcheck disable=SC2086
            LEFT_OUT=the_text_of_an_error_is_bounded tests/rust/run.sh \
                ${TESTS:---test 'guest_*' --test host_functions --test errors --test linking} || failed=1
            ;;
        *) echo "there is no part $part" >&2 && exit 1 ;;
    esac
done
exit $failed
