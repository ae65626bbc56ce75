#!/bin/sh
# Python's SDK extism 1.1.1 with extism-sys 1.41.0, in an environment of its own: $CACHE/python-sdk
. "$(dirname "$0")/common.sh"

[ -e "$CACHE/python-sdk/complete" ] && exit 0
need python3
python3 -c 'import venv, ensurepip' 2>/dev/null || skip "python3 has no venv (Debian: python3-venv)"

rm -rf "$CACHE/python-sdk"
trap '[ -e "$CACHE/python-sdk/complete" ] || rm -rf "$CACHE/python-sdk"' EXIT
python3 -m venv "$CACHE/python-sdk"
fetch "the packages extism 1.1.1 and extism-sys 1.41.0" \
    "$CACHE/python-sdk/bin/pip" install --quiet --disable-pip-version-check extism==1.1.1 extism-sys==1.41.0
touch "$CACHE/python-sdk/complete"
