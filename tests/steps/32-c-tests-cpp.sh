#!/bin/sh
# What C++ programs do: exceptions, and objects that are destroyed late.
. "$ROOT/tests/fetch/common.sh"
need g++
SOURCES=$ROOT/tests/c/cpp/test_*.cpp exec "$ROOT/tests/c/run.sh" c-cpp
