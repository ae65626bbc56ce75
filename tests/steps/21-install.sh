#!/bin/bash
# `make install` into an empty folder: an example builds against what is there, with the shared and
# with the static library, and runs; `make uninstall` leaves nothing.
set -euo pipefail
cd "$ROOT"
stage=$OUT/stage
under_test=(DESTDIR="$stage" PREFIX=/usr BUILT="$(dirname "$EXTISM_LIB")")
make --no-print-directory install "${under_test[@]}"
lib=$stage/usr/lib

# The same list of libraries that the .pc file of the static library gives.
system_libs=$(sed -n 's/^Libs:.* -l:libextism\.a //p' "$lib/pkgconfig/extism-static.pc")
build=("${CC:-cc}" c-examples/hello.c -I"$stage/usr/include" -L"$lib" -o "$OUT/hello-installed")

run() {
    (cd c-examples && "$@" "$OUT/hello-installed") | diff -u c-examples/expected/hello.txt -
}
"${build[@]}" -lextism
run env LD_LIBRARY_PATH="$lib"
# shellcheck disable=SC2086
"${build[@]}" -l:libextism.a $system_libs
run env -u LD_LIBRARY_PATH

make --no-print-directory uninstall "${under_test[@]}"
left=$(find "$stage" -not -type d)
[ -z "$left" ] || { printf 'make uninstall left:\n%s\n' "$left"; exit 1; }
