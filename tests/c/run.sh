#!/bin/bash
# Compiles and runs C tests on the built library: tests/c/run.sh NAME [FLAG...]
#
# NAME is the scratch directory below $OUT that the programs lie and run in; the flags are more flags
# for the compiler, such as -fsanitize=address. A failing program does not keep the others from running.
# SOURCES are the programs to run (tests/c/test_*.c if it is not set), FILTER chooses tests by a part of
# their names, EXTISM_TEST_SLOWDOWN multiplies the deadlines.
# What failed is said once more at the end, where the output of a long run is looked at first.
# RUN_UNDER is what they are run by, such as valgrind. LEFT_OUT names programs and tests that are not.
set -u

out=$OUT/$1
shift
mkdir -p "$out"
cd "$out" || exit 1
deadline=$((600 * ${EXTISM_TEST_SLOWDOWN:-1}))
flags=(-Wall -Wextra -pedantic -Werror -g -pthread "$@" -I"$EXTISM_INCLUDE" -I"$ROOT/tests/c")
# Programs that load the library themselves name none of its functions, and are not linked to it.
library=(-Wl,--as-needed "$EXTISM_LIB" -Wl,-rpath,"$(dirname "$EXTISM_LIB")")

${CC:-cc} -std=c11 "${flags[@]}" -c -o check.o "$ROOT/tests/c/check.c" || exit 1

failed=()
for source in ${SOURCES:-"$ROOT"/tests/c/test_*.c}; do
    name=$(basename "${source%.*}")
    [[ " ${LEFT_OUT:-} " != *" $name "* ]] || continue
    echo "== $name"
    case $source in
        *.cpp) compiler="${CXX:-g++} -std=c++17" ;;
        *) compiler="${CC:-cc} -std=c11" ;;
    esac
    # Not into a pipe: a process that a test left behind would hold its end.
    {
        $compiler "${flags[@]}" -o "$name" "$source" check.o "${library[@]}" &&
            timeout --kill-after=10 "$deadline" ${RUN_UNDER:-} "./$name" ${FILTER:+"$FILTER"}
    } >"$name.output" 2>&1
    status=$?
    cat "$name.output"
    if [ "$status" -ne 0 ]; then
        echo "$name: ended with $status"
        failed+=("$name")
    fi
done

for name in "${failed[@]}"; do
    printf '\n== %s failed\n' "$name"
    grep -B 12 FAILED "$name.output" || tail -n 12 "$name.output"
done
[ ${#failed[@]} -eq 0 ]
