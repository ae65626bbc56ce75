#!/bin/sh
# The C tests, compiled with warnings as errors.
exec "$ROOT/tests/c/run.sh" c
