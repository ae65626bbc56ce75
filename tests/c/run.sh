#!/bin/bash
# Compiles and runs each tests/c/test_*.c on the built library: tests/c/run.sh NAME [FLAG...]
#
# NAME is the scratch directory below $OUT that the programs lie and run in; the flags are more flags
# for the compiler, such as -fsanitize=address. A failing program does not keep the others from running.
# EXTISM_TEST_SLOWDOWN multiplies the deadline of each; RUN_UNDER is what they are run by, such as valgrind.
# LEFT_OUT names programs that are not.
set -u

out=$OUT/$1
shift
mkdir -p "$out"
cd "$out" || exit 1

failed=0
for source in "$ROOT"/tests/c/test_*.c; do
    name=$(basename "$source" .c)
    [[ " ${LEFT_OUT:-} " != *" $name "* ]] || continue
    echo "== $name"
    ${CC:-cc} -std=c11 -Wall -Wextra -pedantic -Werror -g -pthread "$@" -I"$EXTISM_INCLUDE" \
        -o "$name" "$source" "$EXTISM_LIB" -Wl,-rpath,"$(dirname "$EXTISM_LIB")" &&
        timeout --kill-after=10 $((300 * ${EXTISM_TEST_SLOWDOWN:-1})) ${RUN_UNDER:-} "./$name"
    status=$?
    if [ $status -ne 0 ]; then
        echo "$name: ended with $status"
        failed=1
    fi
done
exit $failed
