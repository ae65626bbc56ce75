#!/bin/sh
# A plug-in of the AssemblyScript PDK, built here from tests/guests/as-pdk: $CACHE/as-pdk-wasm/built.wasm
. "$(dirname "$0")/common.sh"

out=$CACHE/as-pdk-wasm
source=$ROOT/tests/guests/as-pdk
stamp=$(stamp "$source")
[ "$(cat "$out/built.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
need node
need npm

tools=$CACHE/as-pdk-tools
if [ ! -e "$tools/package.json" ]; then
    work=$(scratch)
    trap 'rm -rf "$work"' EXIT
    cp "$source/package.json" "$work/"
    fetch "assemblyscript and @extism/as-pdk" npm install --silent --no-audit --no-fund --prefix "$work"
    mv "$work" "$tools"
fi
rm -rf "$tools/assembly"
cp -r "$source/assembly" "$tools/assembly"
mkdir -p "$out"
(cd "$tools" && npx --no-install asc assembly/index.ts --outFile built.wasm --use abort=assembly/index/myAbort -O)
mv "$tools/built.wasm" "$out/built.wasm"
echo "$stamp" >"$out/built.stamp"
