#!/bin/bash
# What the shared library shows to the outside: exactly the functions of tests/abi/symbols.txt, its
# name, and the marks that keep it loaded and its stack without code. (Prototypes: tests/c/test_abi.c.)
set -euo pipefail
export LC_ALL=C

nm -D --defined-only "$EXTISM_LIB" | awk '{ print $NF }' | sort | diff -u "$ROOT/tests/abi/symbols.txt" -

# shows PATTERN TEXT: the text has such a line.
shows() {
    grep -qE "$1" <<<"$2" || { printf 'no line has %s:\n%s\n' "$1" "$2"; exit 1; }
}
# hides PATTERN TEXT: the text has no such line.
hides() {
    ! grep -E "$1" <<<"$2" || { printf 'a line has %s\n' "$1"; exit 1; }
}

dynamic=$(readelf -dW "$EXTISM_LIB")
shows 'SONAME.*\[libextism\.so\]' "$dynamic"
shows 'FLAGS_1.*NODELETE' "$dynamic"
hides 'TEXTREL|RPATH|RUNPATH' "$dynamic"
# Nothing that a Debian without development packages would lack.
hides . "$(grep NEEDED <<<"$dynamic" | grep -vE '\[(libc|libm|libgcc_s|ld-linux-[^]]*)\.so\.[0-9]\]' || true)"

shows 'GNU_STACK .* RW ' "$(readelf -lW "$EXTISM_LIB")"
hides ' \.(symtab|debug_[a-z]+) ' "$(readelf -SW "$EXTISM_LIB")"

echo "size: $(stat -c %s "$EXTISM_LIB") bytes, needs glibc $(readelf -VW "$EXTISM_LIB" |
    grep -oE 'GLIBC_[0-9.]+' | sort -Vu | tail -n 1)"
