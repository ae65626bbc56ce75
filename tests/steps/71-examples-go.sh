#!/bin/sh
# examples/go passes go vet and prints what it should. It has no dependencies: no network is needed.
. "$ROOT/tests/fetch/common.sh"
need go
export LD_LIBRARY_PATH="$(dirname "$EXTISM_LIB")" GOFLAGS=-mod=mod GOTOOLCHAIN=local
export CGO_ENABLED=1 CGO_CFLAGS="-I$EXTISM_INCLUDE" CGO_LDFLAGS="-L$LD_LIBRARY_PATH"
cd "$ROOT/examples/go"

go vet .
go build -o "$OUT/go-example" .
"$OUT/go-example" >"$OUT/go.txt"
diff -u ../expected.txt "$OUT/go.txt"
