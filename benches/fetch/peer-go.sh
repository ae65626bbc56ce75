#!/bin/sh
# The program that measures the Go SDK: $CACHE/bench-peers/go/bench
. "$(dirname "$0")/../../tests/fetch/common.sh"

out=$CACHE/bench-peers/go
source=$ROOT/benches/peers/go
stamp=$(stamp "$source")
[ "$(cat "$out/built.stamp" 2>/dev/null)" = "$stamp" ] && exit 0
need go

mkdir -p "$out"
(cd "$source" && fetch "the Go module github.com/extism/go-sdk" go mod download && go build -o "$out/bench" .)
echo "$stamp" >"$out/built.stamp"
