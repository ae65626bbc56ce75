#!/bin/sh
# The same scripts on libextism 1.41 and on this library; every difference must be listed.
. "$ROOT/tests/fetch/common.sh"
"$ROOT/tests/fetch/reference.sh"

# Plug-ins that cannot be had are left out, and the reason is given in the end.
missing=
for what in go-sdk rust-pdk as-pdk; do
    status=0
    reason=$("$ROOT/tests/fetch/$what.sh") || status=$?
    case $status in
        0) ;;
        77) missing="$missing${missing:+; }$what: $(echo "$reason" | tail -n 1)" ;;
        *) exit "$status" ;;
    esac
done

python3 "$ROOT/tests/side-by-side/main.py" --reference "$CACHE/reference/libextism.so" \
    --library "$EXTISM_LIB" --cache "$CACHE" --scratch "$OUT/side-by-side" || {
    status=$?
    [ "$status" -eq 77 ] || exit "$status"
}
[ -z "$missing" ] || skip "not compared: $missing"
