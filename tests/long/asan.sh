#!/bin/bash
# AddressSanitizer: tests/long/asan.sh [units] [library]
#
#   units      the unit tests, which need no wasmtime: two minutes
#   library    the tests in C and in Rust on a library that is instrumented from end to end, wasmtime included: it is the
#              one of the fuzz targets, which takes a quarter of an hour to build
#
# TESTS chooses Rust tests: TESTS="--test limits --test hostile". The C tests on the ordinary library are a step of `make test`.
set -u

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/long/common.sh"
use_unstable_rust
[ $# -gt 0 ] || set -- units library
cd "$ROOT" || exit 1
export EXTISM_TEST_SLOWDOWN=${EXTISM_TEST_SLOWDOWN:-5}
export CARGO_TARGET_DIR=$ROOT/build/asan OUT=$ROOT/build/asan/c EXTISM_INCLUDE=$ROOT/include ROOT
failed=0

# A suite with instrumentation of its own, in programs whose runtime the library finds.
sanitized() {
    RUSTFLAGS='-Zsanitizer=address -Clink-arg=-rdynamic' CARGO_BUILD_TARGET=$TARGET "$@" || failed=1
}

for part in "$@"; do
    echo "== $part"
    case $part in
        units)
            sanitized cargo test --locked -p libextism --no-default-features
            ;;
        library)
            fuzz_build --features runtime -- module
            # Nothing but targets is copied out of `deps`.
            export EXTISM_LIB=$FUZZ_PROGRAMS/deps/libextism.so
            # As in the step of `make test`: the sanitizer's allocator takes no locks for a fork.
            LEFT_OUT='test_fork test_fork_threads' tests/c/run.sh . -fsanitize=address || failed=1
            # Not what measures memory, time or stacks, has little address space, or compiles in six processes at once:
            # the sanitizer takes much of all that. And ittapi, which tells VTune, leaks the names that it is given.
            left_out='bombs::.*|bounds::log_lines_that_nobody_drains_end|bounds::many_small_blocks|stacks::.*'
            left_out="$left_out|endless::a_bulk_instruction_is_bounded_by_its_size|wasi::every_function_of_wasi_with_.*"
            left_out="$left_out|greedy::every_kind_of_memory_ends_at_the_limit|nested::plugins_that_make_plugins_without_end"
            left_out="$left_out|.*_gives?_(everything|its_memory)_back|commands::a_command_may_be_called_without_end"
            left_out="$left_out|little_address_space|processes_share_a_folder|profile_for_vtune"
            # shellcheck disable=SC2086
            LEFT_OUT=$left_out sanitized tests/rust/run.sh ${TESTS:-}
            ;;
        *)
            echo "there is no part $part" >&2
            exit 1
            ;;
    esac
done
exit $failed
