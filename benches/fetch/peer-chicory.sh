#!/bin/sh
# The program that measures Chicory, and the libraries that it needs: $CACHE/bench-peers/chicory
. "$(dirname "$0")/../../tests/fetch/common.sh"

need java
out=$CACHE/bench-peers/chicory
source=$ROOT/benches/peers/chicory
stamp=$(stamp "$source")
[ "$(cat "$out/built.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
need mvn

work=$(scratch)
trap 'rm -rf "$work"' EXIT
cp -r "$source"/* "$work/"
fetch "the artifact org.extism.sdk:chicory-sdk-core" \
    mvn -q -B -f "$work/pom.xml" -DoutputDirectory="$work/lib" compile dependency:copy-dependencies
echo "$stamp" >"$work/built.stamp"
mkdir -p "$CACHE/bench-peers"
rm -rf "$out"
mv "$work" "$out"
