#!/bin/bash
# ThreadSanitizer over the unit tests, which need no wasmtime: tests/long/tsan.sh [FILTER]
#
# It has to see the standard library as well, so that is built from its source: Debian's, or that of rustup.
set -u

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/long/common.sh"
flags='-Zsanitizer=thread'

# has_source RUSTC: whether this compiler has the source of its standard library.
has_source() {
    [ -e "$("$1" --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

if RUSTUP_TOOLCHAIN=nightly has_source rustc; then
    export RUSTUP_TOOLCHAIN=nightly
elif has_source rustc; then
    export RUSTC_BOOTSTRAP=1
elif has_source /usr/bin/rustc; then
    export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc RUSTC_BOOTSTRAP=1 PATH=/usr/bin:$PATH
    clang=$(compgen -c clang- | grep -E '^clang-[0-9]+$' | sort -V | tail -n 1)
    need "${clang:-clang}" 'apt-get install clang-19 libclang-rt-19-dev'
    flags="$flags -Zexternal-clangrt -Clinker=$clang -Clink-arg=-fsanitize=thread"
else
    echo "no Rust here has the source of its standard library: rustup component add rust-src --toolchain nightly, or" \
        'apt-get install rustc-web cargo-web rust-web-src clang-19 libclang-rt-19-dev' >&2
    exit 1
fi

cd "$ROOT" || exit 1
export EXTISM_TEST_SLOWDOWN=${EXTISM_TEST_SLOWDOWN:-10} CARGO_TARGET_DIR=$ROOT/build/tsan RUSTFLAGS=$flags
exec cargo test --locked -Zbuild-std --target "$TARGET" -p libextism --no-default-features --lib -- "$@"
