"""Host ABI: creation, getters, lifetimes; NULL stands in nulls.py, host functions in host_functions.py."""

import ctypes as c
import threading
import uuid

from capi import text_at
from observe import script
from probe import Probe, data

TINY = '(module (func (export "f") (result i32) (i32.const 7)))'
BINARY = bytes.fromhex("0061736d010000000105016000017f03020100070501016600000a0601040041070b")  # the same


@script()
def version(t):
    first, second = t.lib.extism_version(), t.lib.extism_version()
    t.see("text", text_at(first))
    t.see("static", first == second)


@script()
def kinds_of_input(t):
    """A module as bytes, WAT text, JSON and TOML manifests."""
    encoded = data(BINARY)["data"]
    kinds = {
        "binary": BINARY, "WAT": TINY, "WAT with leading space": "\n\n  " + TINY, "WAT with a comment": ";; hello\n" + TINY,
        "WAT with BOM": b"\xef\xbb\xbf" + TINY.encode(),
        "JSON": f'{{"wasm":[{{"data":"{encoded}"}}]}}', "JSON with spaces": f' \n{{ "wasm" : [ {{"data":"{encoded}"}} ] }}\n ',
        "JSON with WAT": {"wasm": [data(TINY)]},
        "TOML": f'[[wasm]]\ndata = "{encoded}"\n', "TOML inline": f'wasm = [{{ data = "{encoded}" }}]\n',
        "TOML with a comment": f'# a manifest\n[[wasm]]\ndata = "{encoded}"\n',
    }
    for name, wasm in kinds.items():
        plugin = t.created(name, lambda: t.lib.plugin(wasm))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def bad_input(t):
    """What is none of these is refused with a message."""
    kinds = {
        "empty": b"", "text": b"hello", "truncated module": BINARY[:-3], "only the magic": b"\0asm",
        "magic and version": b"\0asm\1\0\0\0", "version 2": b"\0asm\2\0\0\0", "component": b"\0asm\x0d\0\1\0",
        "invalid module": '(module (func (result i32)))', "empty module": "(module)", "broken WAT": "(module (func",
        "empty JSON": "{}", "broken JSON": '{"wasm":', "JSON array": "[]", "no modules": '{"wasm":[]}',
        "not UTF-8": b"\xff\xfe\xfd", "NUL bytes": b"\0\0\0\0\0\0\0\0",
    }
    for name, wasm in kinds.items():
        t.created(name, lambda: t.lib.plugin(wasm))


@script()
def errmsg(t):
    """errmsg: written on failure only; NULL is legal; NULL may be freed."""
    handle = t.lib.extism_plugin_new(TINY.encode(), len(TINY), None, 0, 0, None)
    t.see("success without errmsg", bool(handle))
    t.lib.extism_plugin_free(handle)
    t.see("failure without errmsg", t.lib.extism_plugin_new(b"x", 1, None, 0, 0, None))
    message = c.c_void_p(0x1234)
    handle = t.lib.extism_plugin_new(TINY.encode(), len(TINY), None, 0, 0, c.addressof(message))
    t.see("not written on success", message.value)
    compiled = t.lib.extism_compiled_plugin_new(TINY.encode(), len(TINY), None, 0, 0, c.addressof(message))
    t.see("not written on success of compiled", message.value)
    plugin = t.lib.extism_plugin_new_from_compiled(compiled, c.addressof(message))
    t.see("not written on success from compiled", message.value)
    t.see("all made", [bool(x) for x in (handle, compiled, plugin)])
    t.see("compiled without errmsg fails", t.lib.extism_compiled_plugin_new(b"x", 1, None, 0, 0, None))
    t.lib.extism_plugin_new_error_free(None)
    t.see("freed NULL", True)


@script()
def compiled(t):
    """Compile once; plug-ins made from it stay valid when it is freed, on any thread."""
    compiled = t.lib.compiled(TINY)
    plugins = [compiled.plugin() for _ in range(5)]
    t.see("calls", [p.call("f").code for p in plugins])
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(compiled.plugin().call("f").code)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.see("on threads", seen)
    compiled.free()
    t.see("after the free", [p.call("f").code for p in plugins])
    t.see("ids differ", len({p.id() for p in plugins}))
    for plugin in plugins:
        plugin.free()
    t.see("freed", True)


@script()
def ids(t):
    """16 bytes, a version 4 UUID, the same until the plug-in is freed."""
    plugin = t.lib.plugin(TINY)
    first = plugin.id()
    t.see("version", uuid.UUID(bytes=first).version)
    t.see("variant", uuid.UUID(bytes=first).variant)
    plugin.call("f")
    plugin.reset()
    t.see("stays", plugin.id() == first)
    t.see("same address", t.lib.extism_plugin_id(plugin.handle) == t.lib.extism_plugin_id(plugin.handle))
    t.see("another's differs", t.lib.plugin(TINY).id() != first)


@script()
def getters_before_any_call(t):
    plugin = t.lib.plugin(TINY)
    t.see("output length", t.lib.extism_plugin_output_length(plugin.handle))
    t.see("output data is not NULL", bool(t.lib.extism_plugin_output_data(plugin.handle)))
    t.error("error", plugin.error())
    t.see("alias", t.lib.extism_error(plugin.handle))
    t.see("reset", plugin.reset())
    t.see("reset again", plugin.reset())
    t.result("call", plugin.call("f"))
    t.see("data not NULL for an empty output", bool(t.lib.extism_plugin_output_data(plugin.handle)))


@script()
def function_exists(t):
    """function_exists before and after a call, of a plug-in and of one from a compiled plug-in."""
    plugin = t.lib.compiled(TINY).plugin()
    t.see("before", [plugin.exists("f"), plugin.exists("g"), plugin.exists("")])
    plugin.call("f")
    t.see("after", [plugin.exists("f"), plugin.exists("g"), plugin.exists("")])


@script()
def error_alias(t):
    """extism_error is extism_plugin_error under its old name; both can be asked again."""
    probe = Probe(t)

    def fails(p):
        yield "error_set", (yield from p.put(b"the text"))
        return 1

    probe.run(fails)
    handle = probe.plugin.handle
    t.see("extism_error", text_at(t.lib.extism_error(handle)))
    t.see("extism_plugin_error", text_at(t.lib.extism_plugin_error(handle)))
    t.see("again", text_at(t.lib.extism_error(handle)))


@script()
def output_lifetime(t):
    """The output stays until the next call, reset or free."""
    probe = Probe(t)

    def steps(p):
        yield "output_set", (yield from p.put(b"stays readable")), 14

    probe.run(steps)
    address = t.lib.extism_plugin_output_data(probe.plugin.handle)
    other = Probe(t)
    other.run(steps)
    probe.plugin.exists("run")
    probe.plugin.config({"a": "b"})
    t.see("after other operations", c.string_at(address, 14))
    t.see("same address", t.lib.extism_plugin_output_data(probe.plugin.handle) == address)
    probe.plugin.call("no such function")
    t.see("after a call that did not start", probe.plugin.output())
    t.error("its error", probe.plugin.error())


@script()
def wasi_flag(t):
    """with_wasi: any byte that is not 0 is true (JNA passes -1)."""
    wat = '(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32))) (memory (export "memory") 1) (func (export "f") (result i32) (call $y)))'
    for flag in (0, 1, 0xFF, 0xFFFFFFFF, 2, 0x80):
        plugin = t.created(f"{flag:#x}", lambda: t.lib.plugin(wat, wasi=flag))
        if plugin:
            t.result(f"{flag:#x}: f", plugin.call("f"))
    compiled = t.lib.compiled(wat, wasi=0xFFFFFFFF)
    t.result("compiled: f", compiled.plugin().call("f"))


@script()
def wide_booleans(t):
    """Results are read as 32 bits by some hosts: 0 or 1, nothing in the upper bytes."""
    plugin = t.lib.plugin(TINY)
    handle = plugin.handle
    for _ in range(3):
        answers = [t.lib.extism_plugin_function_exists(handle, b"f"), t.lib.extism_plugin_function_exists(handle, b"g"),
                   t.lib.extism_plugin_config(handle, b"{}", 2), t.lib.extism_plugin_config(handle, b"x", 1),
                   t.lib.extism_plugin_reset(handle), t.lib.extism_plugin_cancel(plugin.cancel_handle())]
    t.see("answers", answers)


@script()
def last_error(t):
    """extism_last_error is ours alone."""
    if t.lib.extism_last_error is None:
        t.see("there", False)
        return
    last = lambda: bool(t.lib.extism_last_error())
    t.see("there", True)
    t.lib.extism_version()
    t.see("before any error", last())
    plugin = t.lib.plugin(TINY)
    t.see("after success", last())
    t.lib.extism_plugin_call(None, b"f", None, 0)
    t.see("after a call on NULL", last())
    t.see("still there when asked again", last())
    plugin.call("f")
    t.see("after success again", last())
    t.lib.extism_plugin_call(0x123456, b"f", None, 0)
    t.see("after a call on what is no handle", last())
    seen = []
    thread = threading.Thread(target=lambda: seen.append(last()))
    thread.start()
    thread.join()
    t.see("another thread's", seen)


@script()
def lifecycle(t):
    """Many plug-ins made and freed in odd orders."""
    for _ in range(50):
        compiled = t.lib.compiled(TINY)
        a, b = compiled.plugin(), compiled.plugin()
        a.free()
        compiled.free()
        assert b.call("f").code == 7
        b.free()
    t.see("survived", True)


@script()
def calls_from_many_threads(t):
    """One plug-in called by several threads: calls take turns."""
    probe = t.lib.plugin("""(module
      (import "extism:host/env" "input_length" (func $n (result i64)))
      (import "extism:host/env" "input_offset" (func $o (result i64)))
      (import "extism:host/env" "output_set" (func $out (param i64 i64)))
      (func (export "f") (result i32) (call $out (call $o) (call $n)) (i32.wrap_i64 (call $n))))""")
    wrong = []

    def play(size):
        for _ in range(200):
            if probe.call_code("f", b"x" * size) != size:
                wrong.append(size)

    threads = [threading.Thread(target=play, args=(n,)) for n in (1, 10, 100, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.see("wrong answers", wrong)
