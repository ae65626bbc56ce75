#!/bin/sh
# examples/ruby prints what it should.
. "$ROOT/tests/fetch/common.sh"
need ruby
ruby -e 'require "fiddle"; require "json"' || skip "ruby has no fiddle or json"
export LD_LIBRARY_PATH="$(dirname "$EXTISM_LIB")"

ruby -w "$ROOT/examples/ruby/main.rb" >"$OUT/ruby.txt"
diff -u "$ROOT/examples/expected.txt" "$OUT/ruby.txt"
