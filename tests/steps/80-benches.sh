#!/bin/sh
# The benchmarks run: one metric of each kind, few samples. What they measure here says nothing.
. "$ROOT/tests/fetch/common.sh"
need python3
"$ROOT/tests/fetch/reference.sh"

mkdir -p "$ROOT/build/bench"
make -s -C "$ROOT" build/bench/worker
metrics=call_empty,call_context,host_function,first_small,new_small,free_small,resident_small,kept,two_threads,cancel
"$ROOT/benches/run.py" --quick --only "$metrics,library_size" --library "$EXTISM_LIB" --cache "$CACHE" \
    --floor "$OUT/no-such-file" --out "$OUT/benches.json"
python3 - "$OUT/benches.json" <<'EOF'
import json, sys
results = json.load(open(sys.argv[1]))["results"]
unmeasured = [f"{key}: {name}: {found}" for key, result in results.items()
              for name, found in result["contestants"].items() if "median" not in found]
unmeasured += [key for key, result in results.items() if "ratio" not in result]
print("\n".join(unmeasured) or f"{len(results)} metrics, each of both libraries")
sys.exit(bool(unmeasured) or len(results) != 11)
EOF
