#!/bin/sh
# C++ programs can include the header, alone and twice, and its functions are C functions there.
. "$ROOT/tests/fetch/common.sh"
need g++

cat >"$OUT/header.cpp" <<'CPP'
#include <extism.h>
#include <extism.h>
EXTISM_FUNCTION(a_host_function);
int main() { return extism_version() == 0; }
CPP
for standard in c++11 c++17; do
    g++ -std=$standard -Wall -Wextra -pedantic -Werror -fsyntax-only -x c++ - <"$EXTISM_INCLUDE/extism.h"
    g++ -std=$standard -Wall -Wextra -pedantic -Werror -I"$EXTISM_INCLUDE" "$OUT/header.cpp" \
        -o "$OUT/header-cpp" "$EXTISM_LIB" -Wl,-rpath,"$(dirname "$EXTISM_LIB")"
    "$OUT/header-cpp"
done
