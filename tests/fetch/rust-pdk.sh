#!/bin/sh
# Plug-ins of the Rust PDK 1.4.1 in $CACHE/rust-pdk-wasm: the ready-made ones that its crate
# brings, and built.wasm, built here from tests/guests/rust-pdk. No toolchain of rustup's can
# build for wasm32 without downloading a target; Debian's own compiler can, with its source.
. "$(dirname "$0")/common.sh"

out=$CACHE/rust-pdk-wasm
source=$ROOT/tests/guests/rust-pdk
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT

if [ ! -e "$out/count_vowels.wasm" ]; then
    need cargo
    work=$(scratch)
    cp -r "$source" "$work/crate"
    fetch "the crate extism-pdk 1.4.1" cargo vendor --locked --manifest-path "$work/crate/Cargo.toml" "$work/vendor"
    crate=$work/vendor/extism-pdk
    mkdir -p "$out"
    for plugin in code host_function http http_headers; do
        cp "$crate/test/$plugin.wasm" "$out/$plugin.wasm"
    done
    cp "$crate/count_vowels.wasm" "$out/count_vowels.wasm"
fi

# The build takes a minute or two: only when the source has changed.
stamp=$(stamp "$source")
[ "$(cat "$out/built.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
hint="Debian: rustc-web cargo-web rust-web-src lld-22"
need /usr/bin/rustc "$hint"
need /usr/bin/cargo "$hint"
need wasm-ld-22 "$hint"
[ -e /usr/lib/rustlib/src/rust ] || skip "the source of Debian's Rust is not installed ($hint)"

export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-22
export CARGO_TARGET_DIR="$CACHE/rust-pdk-target"
unset RUSTFLAGS RUSTUP_TOOLCHAIN || true
fetch "what the plug-in of tests/guests/rust-pdk depends on" \
    /usr/bin/cargo fetch --locked --manifest-path "$source/Cargo.toml"
/usr/bin/cargo build --quiet --locked --release --manifest-path "$source/Cargo.toml" \
    --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort >&2
cp "$CARGO_TARGET_DIR/wasm32-unknown-unknown/release/rust_pdk_plugin.wasm" "$out/built.wasm"
echo "$stamp" >"$out/built.stamp"
rm -rf "$CARGO_TARGET_DIR"
