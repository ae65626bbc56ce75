#!/bin/sh
# The C tests again, with the compiler's sanitizers: memory errors, leaks, undefined behaviour.
sanitize='-fsanitize=address,undefined -fno-sanitize-recover=all'
echo 'int main(void) { return 0; }' >"$OUT/sanitize.c"
# shellcheck disable=SC2086
if ! ${CC:-cc} $sanitize -o "$OUT/sanitize" "$OUT/sanitize.c"; then
    echo "the compiler has no sanitizers"
    exit 77
fi
# The sanitizer's allocator takes no locks for a fork (GCC 12): a child may find one taken by a thread that it has not.
export LEFT_OUT='test_fork test_fork_threads'
# shellcheck disable=SC2086
exec "$ROOT/tests/c/run.sh" c-asan $sanitize
