# Sourced by the scripts in this folder: what they need, and where it is.

need() { # TOOL HOW: ends the script when TOOL is not installed.
    command -v "$1" >/dev/null 2>&1 || { echo "$1 is missing: $2" >&2 && exit 1; }
}

need rustc 'https://rustup.rs'
TARGET=$(rustc -vV | sed -n 's/^host: //p')

# Sanitizers and fuzzing are unstable options of Rust: of a nightly toolchain, or of the usual one if it is told so.
use_unstable_rust() {
    if cargo +nightly --version >/dev/null 2>&1; then
        export RUSTUP_TOOLCHAIN=nightly
    else
        export RUSTC_BOOTSTRAP=1
    fi
    compgen -G "$(rustc --print target-libdir)/librustc*_rt.asan.a" >/dev/null ||
        { echo "this Rust comes without sanitizers: use rustup's, https://rustup.rs" >&2 && exit 1; }
}

# fuzz_build OPTION... -- TARGET...: builds targets of fuzz/, and a libextism.so that is instrumented as they are.
FUZZ_TARGET_DIR=${FUZZ_TARGET_DIR:-$ROOT/build/fuzz/target}
FUZZ_PROGRAMS=$FUZZ_TARGET_DIR/$TARGET/release
fuzz_build() {
    local options=()
    while [ "$1" != -- ]; do
        options+=("$1")
        shift
    done
    shift
    need cargo-fuzz 'cargo install --locked cargo-fuzz'
    need c++ 'apt-get install g++'
    for target in "$@"; do
        (cd "$ROOT/fuzz" && cargo fuzz build "${options[@]}" --target-dir "$FUZZ_TARGET_DIR" "$target") || exit 1
    done
}
