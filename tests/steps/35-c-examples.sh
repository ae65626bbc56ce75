#!/bin/bash
# Each C example: built by the line on its top (with warnings as errors), run, its output compared.
set -euo pipefail

out=$OUT/c-examples
mkdir -p "$out"
cd "$ROOT/c-examples"
libraries=$(dirname "$EXTISM_LIB")

for source in *.c; do
    name=${source%.c}
    echo "== $name"
    [ "$(wc -l <"$source")" -lt 120 ]

    line=$(sed -n 's/^ \* Build: *//p' "$source")
    [[ $line == cc*" -o $name $source -lextism" ]]
    flags=${line#cc} && flags=${flags%% -o *}
    # shellcheck disable=SC2086
    ${CC:-cc} -std=c99 -Wall -Wextra -pedantic -Werror $flags -I"$EXTISM_INCLUDE" -o "$out/$name" \
        "$source" -L"$libraries" -lextism -Wl,-rpath,"$libraries"
    # shellcheck disable=SC2086
    timeout --kill-after=10 $((60 * ${EXTISM_TEST_SLOWDOWN:-1})) ${RUN_UNDER:-} "$out/$name" | tee "$out/$name.txt"
    diff -u "expected/$name.txt" "$out/$name.txt"
done

echo "== hello, with other files"
# 10 MiB of text: as many vowels as `tr` finds.
(set +o pipefail && yes "$(cat hello.txt)" | head -c 10485760 >"$out/large.txt")
vowels=$(tr -cd aeiouAEIOU <"$out/large.txt" | wc -c)
[ "$("$out/hello" wasm/count_vowels.wasm "$out/large.txt")" = "{\"count\":$vowels}" ]
[ "$("$out/hello" wasm/count_vowels.wasm /dev/null count_vowels)" = '{"count":0}' ]

# fails TEXT ARGUMENT...: hello ends with 1 and says so on the standard error stream.
fails() {
    local text=$1 status=0
    shift
    "$out/hello" "$@" >"$out/stdout" 2>"$out/stderr" || status=$?
    cat "$out/stderr"
    [ $status -eq 1 ] && [ ! -s "$out/stdout" ] && grep -q "$text" "$out/stderr"
}
fails 'no/such.wasm' no/such.wasm
fails 'hello.txt' hello.txt
fails 'kv_read' wasm/kv.wasm
fails 'Function not found: nowhere' wasm/count_vowels.wasm hello.txt nowhere
