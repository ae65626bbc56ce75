#!/bin/sh
# The JavaScript SDK, beside the program that measures it: $CACHE/bench-peers/js
. "$(dirname "$0")/../../tests/fetch/common.sh"

need node
out=$CACHE/bench-peers/js
source=$ROOT/benches/peers/js
stamp=$(stamp "$source")
[ "$(cat "$out/built.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
need npm

work=$(scratch)
trap 'rm -rf "$work"' EXIT
cp "$source"/* "$work/"
fetch "the package @extism/extism" npm install --silent --no-audit --no-fund --prefix "$work"
echo "$stamp" >"$work/built.stamp"
mkdir -p "$CACHE/bench-peers"
rm -rf "$out"
mv "$work" "$out"
