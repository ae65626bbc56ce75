"""Python's own SDK, extism 1.1.1 from PyPI, on this library: nothing of the SDK is changed but its shared object.

    python main.py PLUGIN.wasm     # c-examples/wasm/count_vowels.wasm

The step tests/steps/50-python-sdk.sh copies the installed packages and puts the library in its place.
"""

import base64
import gc
import json
import sys
import threading
import time
import typing
import uuid
from pathlib import Path

import extism
from extism.extism import CompiledPlugin

# A guest with one export for each thing that is tried; ENV makes strings in Extism memory.
GUEST = r"""(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "input_offset" (func $input (result i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/env" "error_set" (func $error (param i64)))
  (import "extism:host/env" "config_get" (func $config (param i64) (result i64)))
  (import "extism:host/env" "var_get" (func $var_get (param i64) (result i64)))
  (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
  (import "extism:host/env" "log_warn" (func $warn (param i64)))
  (import "extism:host/user" "shout" (func $shout (param i64) (result i64)))
  (import "extism:host/user" "note" (func $note (param i64)))
  (import "extism:host/user" "context" (func $context (result i64)))
  (import "extism:host/user" "typed" (func $typed (param i64) (result i64)))
  (func $give (param i64) (call $output (local.get 0) (call $length (local.get 0))))
  (func $key (result i64) (local $b i64)
    (local.set $b (call $alloc (i64.const 1))) (call $store (local.get $b) (i32.const 107)) (local.get $b))
  (func (export "echo") (call $give (call $input)))
  (func (export "shout") (call $give (call $shout (call $input))))
  (func (export "note") (call $note (call $input)))
  (func (export "context") (call $give (call $context)))
  (func (export "typed") (call $give (call $typed (call $input))))
  (func (export "config") (call $give (call $config (call $key))))
  (func (export "remember") (call $var_set (call $key) (call $input)))
  (func (export "recall") (call $give (call $var_get (call $key))))
  (func (export "forget") (call $var_set (call $key) (i64.const 0)))
  (func (export "fail") (result i32) (call $error (call $input)) (i32.const 3))
  (func (export "code") (result i32) (i32.const 9))
  (func (export "trap") unreachable)
  (func (export "spin") (loop (br 0)))
  (func (export "log") (call $warn (call $input))))"""


@extism.host_fn(user_data=b"the user data")
def shout(text: str, *data) -> str:
    return f"{text.upper()} ({data[0].decode()})"


NOTES = []


@extism.host_fn(signature=([extism.ValType.PTR], []), user_data=[b"one", b"two"])
def note(plugin: extism.CurrentPlugin, inputs, _outputs, *data):
    memory = plugin.memory_at_offset(inputs[0])
    NOTES.append((bytes(plugin.memory(memory)), data[:2]))
    plugin.free(memory)


@extism.host_fn(signature=([], [extism.ValType.PTR]))
def context(plugin: extism.CurrentPlugin, _inputs, outputs, *_data):
    plugin.return_string(outputs[0], json.dumps(plugin.host_context()))


@extism.host_fn()
def typed(data: typing.Annotated[dict, extism.Json], *_data) -> typing.Annotated[dict, extism.Json]:
    return {"doubled": data["number"] * 2}


def manifest(**more):
    return {"wasm": [{"data": base64.b64encode(GUEST.encode()).decode()}], **more}


def refused(text, run):
    """The message of the extism.Error that `run` raises; it must hold `text`."""
    try:
        run()
    except extism.Error as error:
        assert text in str(error), f"{text!r} is not in {error}"
        return str(error)
    raise AssertionError(f"nothing was raised, {text!r} was expected")


def test_version():
    assert extism.extism_version().startswith("2."), extism.extism_version()


def test_count_vowels():
    wasm = Path(sys.argv[1]).read_bytes()
    with extism.Plugin(wasm) as plugin:
        assert json.loads(plugin.call("count_vowels", "Hello, World!")) == {"count": 3}
        assert plugin.function_exists("count_vowels") and not plugin.function_exists("nothing")


def test_calls():
    with extism.Plugin(manifest()) as plugin:
        assert plugin.call("echo", b"\x00\xff bytes") == b"\x00\xff bytes"
        assert plugin.call("echo", "") == b""
        assert plugin.call("echo", "parsed", parse=lambda b: bytes(b).decode()[::-1]) == "desrap"
        assert plugin.call("echo", b"x" * 5_000_000) == b"x" * 5_000_000
        assert plugin.id.version == 4 and isinstance(plugin.id, uuid.UUID)


def test_errors():
    with extism.Plugin(manifest()) as plugin:
        assert refused("", lambda: plugin.call("fail", "its own words")) == "its own words"
        assert refused("", lambda: plugin.call("code", "")) == "Error code: 9"
        refused("unreachable", lambda: plugin.call("trap", ""))
        assert refused("", lambda: plugin.call("absent", "")) == "Function not found: absent"
        assert plugin.call("echo", "and on") == b"and on"
    refused("", lambda: extism.Plugin(b"no plug-in"))
    refused("nothing", lambda: extism.Plugin('(module (import "extism:host/user" "nothing" (func)))'))
    refused("max_pagez", lambda: extism.Plugin(manifest(memory={"max_pagez": 1})))


def test_host_functions():
    with extism.Plugin(manifest()) as plugin:
        assert plugin.call("shout", "hello") == b"HELLO (the user data)"
        plugin.call("note", "first")
        plugin.call("note", "second")
        assert NOTES == [(b"first", (b"one", b"two")), (b"second", (b"one", b"two"))], NOTES
        assert json.loads(plugin.call("typed", '{"number": 21}')) == {"doubled": 42}


def test_functions_outlive_their_handles():
    plugins = [extism.Plugin(manifest()) for _ in range(20)]
    gc.collect()  # the SDK frees its handles of functions right after compiling
    assert all(p.call("shout", "x") == b"X (the user data)" for p in plugins)


def test_host_context():
    with extism.Plugin(manifest()) as plugin:
        assert json.loads(plugin.call("context", "", host_context={"user": 7})) == {"user": 7}
        assert json.loads(plugin.call("context", "", host_context=[1, 2])) == [1, 2]


def test_variables():
    with extism.Plugin(manifest()) as plugin, extism.Plugin(manifest()) as other:
        assert plugin.call("recall", "") == b""
        plugin.call("remember", "kept between calls")
        assert plugin.call("recall", "") == b"kept between calls"
        assert other.call("recall", "") == b""
        plugin.call("forget", "")
        assert plugin.call("recall", "") == b""


def test_configuration():
    with extism.Plugin(manifest(config={"k": "of the manifest"})) as plugin:
        assert plugin.call("config", "") == b"of the manifest"
    with extism.Plugin(manifest(config={"k": "of the manifest"}), config={"k": "given"}) as plugin:
        assert plugin.call("config", "") == b"given"
    with extism.Plugin(manifest(config={"k": "of the manifest"}), config={"k": None}) as plugin:
        assert plugin.call("config", "") == b""


def test_timeout():
    with extism.Plugin(manifest(timeout_ms=200)) as plugin:
        began = time.monotonic()
        assert refused("", lambda: plugin.call("spin", "")) == "timeout"
        assert time.monotonic() - began < 5
        assert plugin.call("echo", "still there") == b"still there"


def test_cancel():
    with extism.Plugin(manifest()) as plugin:
        handle = plugin.cancel_handle()
        timer = threading.Timer(0.2, handle.cancel)
        timer.start()
        assert refused("", lambda: plugin.call("spin", "")) == "cancelled"
        timer.join()
        assert plugin.call("echo", "still there") == b"still there"


def test_compiled_plugin():
    compiled = CompiledPlugin(manifest(config={"k": "shared"}))
    plugins = [extism.Plugin(compiled) for _ in range(5)]
    del compiled
    gc.collect()
    for n, plugin in enumerate(plugins):
        plugin.call("remember", f"of {n}")
    assert [p.call("recall", "") for p in plugins] == [f"of {n}".encode() for n in range(5)]
    assert {p.call("config", "") for p in plugins} == {b"shared"}


def test_threads():
    compiled, answers = CompiledPlugin(manifest()), {}

    def work(n):
        plugin = extism.Plugin(compiled)
        answers[n] = {plugin.call("echo", f"thread {n}") for _ in range(200)}

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: {f"thread {n}".encode()} for n in range(8)}, answers


def test_fuel():
    """The SDK has no parameter for fuel: its own FFI module calls the C function."""
    from extism_sys import ffi, lib
    errors, wat = ffi.new("char**"), b'(module (func (export "spin") (loop (br 0))) (func (export "f") (result i32) (i32.const 4)))'
    plugin = lib.extism_plugin_new_with_fuel_limit(wat, len(wat), ffi.NULL, 0, False, 10_000, errors)
    assert plugin != ffi.NULL
    assert lib.extism_plugin_call(plugin, b"spin", b"", 0) == -1
    assert ffi.string(lib.extism_plugin_error(plugin)) == b"plugin ran out of fuel"
    assert lib.extism_plugin_call(plugin, b"f", b"", 0) == 4
    lib.extism_plugin_free(plugin)


def test_wasi():
    wat = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 1) (func (export "leave") (call $exit (i32.const 5))) (func (export "stay") (call $exit (i32.const 0))))"""
    with extism.Plugin(wat, wasi=True) as plugin:
        refused("", lambda: plugin.call("leave", ""))
        assert plugin.call("stay", "") == b""
    refused("proc_exit", lambda: extism.Plugin(wat))


def test_logging():
    """The log is the process's, and set up once: so this is the last test."""
    lines = []
    logger = extism.set_log_custom(lines.append, "warn")
    with extism.Plugin(manifest()) as plugin:
        plugin.call("log", "a warning")
        identity = str(plugin.id)
    logger.drain()
    ours = [line for line in lines if "a warning" in line]
    assert len(ours) == 1 and "WARN extism::pdk: a warning" in ours[0] and identity in ours[0], lines


def main():
    tests = [(name, test) for name, test in list(globals().items()) if name.startswith("test_")]
    for name, test in tests:
        test()
        print(f"passed {name}", flush=True)
    print(f"{len(tests)} tests passed")


if __name__ == "__main__":
    main()
