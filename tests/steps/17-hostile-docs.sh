#!/bin/bash
# Every test that docs/hostile.md names is there, and is run.
set -uo pipefail
export LC_ALL=C.UTF-8
ROOT=${ROOT:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$ROOT" || exit 1

# has FILE TEST: whether the tests of this file include this one.
has() {
    case $1 in
        test_* | */test_*)
            local source
            for source in tests/c/"$1".c tests/c/"$1".cpp; do
                [ -e "$source" ] && grep -q "^static bool $2(" "$source" && grep -q "^ *RUN($2);" "$source" && return
            done
            ;;
        *)
            local source=tests/rust/tests/$1.rs
            [ -e "$source" ] || source=tests/rust/tests/$1/main.rs
            [ -e "$source" ] && grep -A 2 '^ *#\[test\]' "$source" | grep -E "^ *fn $2\(" >/dev/null && return
            ;;
    esac
    return 1
}

faults=0
named=$(grep -oE '`[a-z_/0-9]+::[a-z_0-9]+`' docs/hostile.md | tr -d '`' | sort -u)
for test in $named; do
    has "${test%%::*}" "${test##*::}" || {
        echo "docs/hostile.md names $test, which is not there"
        faults=$((faults + 1))
    }
done
echo "$(wc -l <<<"$named") tests are named"
[ $faults -eq 0 ] && [ "$(wc -l <<<"$named")" -gt 100 ]
