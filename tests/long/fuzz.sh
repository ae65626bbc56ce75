#!/bin/bash
# Fuzzes: FUZZ_SECONDS=1800 FUZZ_TARGETS="memory manifest" tests/long/fuzz.sh
#
# Builds the targets of fuzz/ with AddressSanitizer and runs each of them for so many seconds, FUZZ_JOBS at a time. New
# inputs are kept in build/fuzz/corpus for the next run, what fails in build/fuzz/artifacts. module, host_abi and
# differential need a wasmtime that is built with the sanitizer, which takes a quarter of an hour; the others do not.
set -u

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/long/common.sh"
use_unstable_rust
seconds=${FUZZ_SECONDS:-60}
jobs=${FUZZ_JOBS:-$(nproc)}
out=$ROOT/build/fuzz
runtime=(module host_abi differential)
light=(memory manifest http_request rewrite)
read -ra targets <<<"${FUZZ_TARGETS:-${light[*]} ${runtime[*]}}"
mkdir -p "$out"

for target in "${targets[@]}"; do
    [ -e "$ROOT/fuzz/targets/$target.rs" ] || { echo "there is no target $target: ${light[*]} ${runtime[*]}" >&2 && exit 1; }
done

features=()
for target in "${runtime[@]}"; do
    [[ " ${targets[*]} " != *" $target "* ]] || features=(--features runtime)
done
fuzz_build "${features[@]}" -- "${targets[@]}"

# run TARGET: its log is build/fuzz/TARGET.log.
run() {
    mkdir -p "$out/corpus/$1" "$out/artifacts/$1"
    "$FUZZ_PROGRAMS/$1" -max_total_time="$seconds" -timeout=$((60 * ${EXTISM_TEST_SLOWDOWN:-1})) -rss_limit_mb=4096 \
        -print_final_stats=1 -artifact_prefix="$out/artifacts/$1/" "$out/corpus/$1" "$ROOT/fuzz/corpus/$1" \
        >"$out/$1.log" 2>&1
    echo $? >"$out/$1.status"
}

# report TARGET: one line.
report() {
    local log=$out/$1.log status done executions
    status=$(cat "$out/$1.status")
    done=$(grep -aE '^#[0-9]+.*cov: ' "$log" | tail -n 1)
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    printf '%-14s %12s runs  cov %6s  features %7s  inputs %6s  %s\n' "$1" "${executions:-?}" \
        "$(sed -nE 's/.*cov: ([0-9]+).*/\1/p' <<<"$done")" "$(sed -nE 's/.*ft: ([0-9]+).*/\1/p' <<<"$done")" \
        "$(sed -nE 's/.*corp: ([0-9]+).*/\1/p' <<<"$done")" \
        "$([ "$status" = 0 ] && echo 'nothing found' || echo "FAILED: build/fuzz/$1.log")"
    [ "$status" = 0 ]
}

echo "${#targets[@]} targets, $seconds s each, $jobs at a time"
for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    run "$target" &
done
wait

failed=0
for target in "${targets[@]}"; do
    report "$target" || failed=1
done
if [ $failed -ne 0 ]; then
    echo "an input that fails: build/fuzz/artifacts. Make it small: $FUZZ_PROGRAMS/TARGET -minimize_crash=1 -runs=10000 INPUT"
fi
exit $failed
