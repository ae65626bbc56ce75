"""Host ABI: the functions one by one, their legal NULLs, lifetimes, odd arguments."""

import ctypes as c
import threading
import uuid

from capi import F32, F64, FUNCREF, EXTERNREF, I32, I64, V128, Function, Refused, Val, text_at
from observe import script
from probe import Probe, data

TINY = '(module (func (export "f") (result i32) (i32.const 7)))'
BINARY = bytes.fromhex("0061736d010000000105016000017f030201000705010166000"
                       "00a060104004107" + "0b")


@script()
def version(t):
    first, second = t.lib.extism_version(), t.lib.extism_version()
    t.see("text", text_at(first))
    t.see("static", first == second)


@script()
def kinds_of_input(t):
    """A module as bytes, WAT text, JSON and TOML manifests."""
    import base64
    encoded = base64.b64encode(BINARY).decode()
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
def frees_of_null(t):
    for name in ("extism_plugin_free", "extism_compiled_plugin_free", "extism_function_free", "extism_plugin_new_error_free"):
        getattr(t.lib, name)(None)
        t.see(name, "survived")


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
def input_null(t):
    """Input of length 0 may be NULL; the empty string as well."""
    probe = Probe(t)

    def steps(p):
        t.see(f"length {len(t.seen)}", (yield "input_length"))

    t.result("NULL", probe.run(steps, None))
    t.result("empty", probe.run(steps, b""))


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
def functions_null(t):
    """functions may be NULL, whatever n says."""
    handle = t.lib.extism_plugin_new(TINY.encode(), len(TINY), None, 3, 0, None)
    t.see("created", bool(handle))


@script()
def functions_with_null_entries(t):
    array = (c.c_void_p * 2)(None, None)
    handle = t.lib.extism_plugin_new(TINY.encode(), len(TINY), array, 2, 0, None)
    t.see("created", bool(handle))


@script()
def function_names(t):
    """extism_function_new and set_namespace with odd names."""
    entry = lambda *_: None
    t.see("not UTF-8", Function.raw(t.lib, b"\xff", [], [], entry))
    t.see("empty", bool(Function.raw(t.lib, b"", [], [], entry)))
    t.see("umlaut", bool(Function.raw(t.lib, "fü".encode(), [], [], entry)))
    handle = Function.raw(t.lib, b"f", [], [], entry)
    t.lib.extism_function_set_namespace(handle, "ünï".encode())
    t.lib.extism_function_free(handle)
    t.see("survived", True)


@script()
def namespace_not_utf8(t):
    handle = Function.raw(t.lib, b"f", [], [], lambda *_: None)
    t.lib.extism_function_set_namespace(handle, b"\xff")
    t.see("survived", True)


@script()
def namespace_null(t):
    handle = Function.raw(t.lib, b"f", [], [], lambda *_: None)
    t.lib.extism_function_set_namespace(handle, None)
    t.see("survived", True)


@script()
def function_name_null(t):
    t.see("handle", Function.raw(t.lib, None, [], [], lambda *_: None))


@script()
def function_type_out_of_range(t):
    handle = Function.raw(t.lib, b"f", [9], [1 << 20], lambda *_: None)
    t.see("survived", True)


@script()
def value_types(t):
    """All value types go in and out of a host function."""
    calls = []

    def echo(_current, args, _data):
        calls.append([a if isinstance(a, int) else round(a, 3) for a in args])
        return args

    ways = Function(t.lib, "ways", [I32, I64, F32, F64], [I32, I64, F32, F64], echo)
    wat = """(module (import "extism:host/user" "ways" (func $w (param i32 i64 f32 f64) (result i32 i64 f32 f64)))
      (func (export "f") (result i32) (local f64 f32 i64 i32)
        (call $w (i32.const -5) (i64.const -6000000000) (f32.const 1.5) (f64.const -2.25))
        (local.set 0) (local.set 1) (local.set 2) (local.set 3)
        (i32.and (i32.and (i32.eq (local.get 3) (i32.const -5)) (i64.eq (local.get 2) (i64.const -6000000000)))
                 (i32.and (f32.eq (local.get 1) (f32.const 1.5)) (f64.eq (local.get 0) (f64.const -2.25))))))"""
    plugin = t.lib.plugin(wat, [ways])
    t.result("f", plugin.call("f"))
    t.see("arguments", calls)


@script()
def raw_values(t):
    """What stands in ExtismVal: types set on both sides, arrays writable, NULL when empty."""
    seen = {}

    def entry(current, inputs, n_in, outputs, n_out, data):
        seen["in"] = [n_in, [inputs[i].t for i in range(n_in)], inputs[0].v.i64]
        seen["out"] = [n_out, [outputs[i].t for i in range(n_out)]]
        seen["data"] = data
        inputs[0].v.i64 = 99
        outputs[0].v.i64 = 5

    def nothing(current, inputs, n_in, outputs, n_out, data):
        seen["empty"] = [bool(inputs), n_in, bool(outputs), n_out, data]

    some = Function.raw(t.lib, b"some", [I64, I32], [I64], entry, 0x5678)
    none = Function.raw(t.lib, b"none", [], [], nothing)
    wat = """(module (import "extism:host/user" "some" (func $s (param i64 i32) (result i64)))
      (import "extism:host/user" "none" (func $n))
      (func (export "f") (result i32) (call $n) (i32.wrap_i64 (call $s (i64.const 3) (i32.const 4)))))"""
    t.result("f", t.lib.plugin(wat, [some, none]).call("f"))
    t.see("seen", seen)


@script()
def result_of_another_type(t):
    """A callback that writes another type into its output."""

    def entry(current, inputs, n_in, outputs, n_out, data):
        outputs[0].t = F64
        outputs[0].v.f64 = 1.0

    wrong = Function.raw(t.lib, b"wrong", [], [I64], entry)
    wat = '(module (import "extism:host/user" "wrong" (func $w (result i64))) (func (export "f") (drop (call $w))))'
    t.result("f", t.lib.plugin(wat, [wrong]).call("f"))


@script()
def output_not_written(t):
    """A callback that leaves its output as it was."""
    lazy = Function.raw(t.lib, b"lazy", [], [I64], lambda *_: None)
    wat = """(module (import "extism:host/user" "lazy" (func $l (result i64)))
      (func (export "f") (result i32) (i32.wrap_i64 (call $l))))"""
    t.result("f", t.lib.plugin(wat, [lazy]).call("f"))


@script()
def reference_types(t):
    """Functions with v128 and reference types in their signature."""
    for name, kind, wat in (("v128", V128, "v128"), ("funcref", FUNCREF, "funcref"), ("externref", EXTERNREF, "externref")):
        function = Function.raw(t.lib, b"r", [kind], [], lambda *_: None)
        module = f'(module (import "extism:host/user" "r" (func (param {wat}))) (func (export "f") (result i32) (i32.const 1)))'
        plugin = t.created(f"{name}: created", lambda: t.lib.plugin(module, [function]))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def signature_mismatch(t):
    """A host function of another type than the import."""
    wat = '(module (import "extism:host/user" "h" (func $h (param i64) (result i64))) (func (export "f")))'
    for name, (ins, outs) in {"fewer": ([], [I64]), "other": ([I32], [I64]), "no result": ([I64], []), "right": ([I64], [I64])}.items():
        function = Function.raw(t.lib, b"h", ins, outs, lambda *_: None)
        t.created(name, lambda: t.lib.plugin(wat, [function]))


@script()
def missing_function(t):
    """A missing import names itself; another namespace does not serve."""
    wat = '(module (import "extism:host/user" "absent" (func)) (func (export "f")))'
    t.created("none given", lambda: t.lib.plugin(wat))
    other = Function(t.lib, "absent", [], [], lambda *_: None, namespace="elsewhere")
    t.created("in another namespace", lambda: t.lib.plugin(wat, [other]))
    for name in ("none", "other"):
        try:
            t.lib.plugin(wat, [] if name == "none" else [Function(t.lib, "b", [], [], lambda *_: None)])
        except Refused as refused:
            t.see(f"{name}: named in the message", "absent" in str(refused))


@script()
def namespaces(t):
    """Functions under several namespaces; env and the default; unused and duplicate ones."""
    calls = []

    def named(name):
        return lambda *_: calls.append(name)

    functions = [Function(t.lib, "f", [], [], named("default")), Function(t.lib, "f", [], [], named("a"), "a"),
                 Function(t.lib, "f", [], [], named("env"), "env"), Function(t.lib, "unused", [I64], [], named("unused")),
                 Function(t.lib, "f", [], [], named("empty"), "")]
    wat = """(module (import "extism:host/user" "f" (func $d)) (import "a" "f" (func $a)) (import "env" "f" (func $e))
      (import "" "f" (func $n)) (func (export "f") (call $d) (call $a) (call $e) (call $n)))"""
    plugin = t.created("created", lambda: t.lib.plugin(wat, functions))
    if plugin:
        t.result("f", plugin.call("f"))
        t.see("calls", calls)


@script()
def duplicates(t):
    """Among user functions of one name the last wins."""
    calls = []
    functions = [Function(t.lib, "f", [], [], lambda *_, n=n: calls.append(n)) for n in range(3)]
    wat = '(module (import "extism:host/user" "f" (func $f)) (func (export "f") (call $f)))'
    plugin = t.created("created", lambda: t.lib.plugin(wat, functions))
    if plugin:
        t.result("f", plugin.call("f"))
        t.see("calls", calls)


@script()
def same_function_twice(t):
    """One function handle given twice in one array."""
    calls = []
    function = Function(t.lib, "f", [], [], lambda *_: calls.append(1))
    wat = '(module (import "extism:host/user" "f" (func $f)) (func (export "f") (call $f)))'
    plugin = t.created("created", lambda: t.lib.plugin(wat, [function, function]))
    if plugin:
        t.result("f", plugin.call("f"))
        t.see("calls", calls)


@script()
def host_context(t):
    """The context is readable during its call only; NULL without."""
    seen = []
    look = Function(t.lib, "look", [], [], lambda current, *_: seen.append(current.context()))
    wat = '(module (import "extism:host/user" "look" (func $l)) (func (export "f") (call $l)) (func (export "t") (call $l) unreachable))'
    plugin = t.lib.plugin(wat, [look])
    plugin.call("f")
    plugin.call("f", context=0xABCD)
    plugin.call("f")
    plugin.call("t", context=0x1111)
    plugin.call("f")
    plugin.call("f", context=0x2222)
    plugin.call("f", context=0)
    t.see("contexts", seen)


@script()
def user_data(t):
    """user_data is handed to each call."""
    seen = []
    functions = [Function(t.lib, f"u{n}", [], [], lambda _c, _a, data: seen.append(data), user_data=data_)
                 for n, data_ in enumerate((None, 1, 0xFFFF_FFFF_FFFF, 77))]
    imports = "".join(f'(import "extism:host/user" "u{n}" (func $u{n}))' for n in range(4))
    plugin = t.lib.plugin(f'(module {imports} (func (export "f") (call $u0) (call $u1) (call $u2) (call $u3)))', functions)
    t.result("f", plugin.call("f"))
    t.see("data", seen)


@script()
def memory_from_host_functions(t):
    """A host function that reads its argument's block and returns a new one."""

    def upper(current, args, _data):
        t.see("length", current.length(args[0]))
        text = current.block(args[0])
        t.see("text", text)
        current.free(args[0])
        return current.put(text.upper() + b"!")

    def steps(p):
        block = yield from p.put(b"shout this")
        answer = upper(p.current, [block], None)
        t.see("argument freed", (yield "length", block))
        yield "output_set", answer, (yield "length", answer)

    t.result("run", Probe(t).run(steps))


@script()
def byte_zero(t):
    """Zig reads from the memory's base up to the first NUL byte."""

    def steps(p):
        t.see("at base", c.string_at(p.current.base(), 1))
        yield "store_u8", 0, 65
        t.see("after the guest wrote there", c.string_at(p.current.base(), 1))
        yield "memory_bytes"

    t.result("run", Probe(t).run(steps))


@script()
def null_plugin(t):
    """Every function of a plug-in with NULL."""
    lib = t.lib
    t.see("call", lib.extism_plugin_call(None, b"f", None, 0))
    t.see("call with context", lib.extism_plugin_call_with_host_context(None, b"f", None, 0, 1))
    t.see("output length", lib.extism_plugin_output_length(None))
    t.see("output data", lib.extism_plugin_output_data(None))
    t.see("error", lib.extism_plugin_error(None))
    t.see("old error", lib.extism_error(None))
    t.see("reset", lib.extism_plugin_reset(None) & 0xFF)
    t.see("exists", lib.extism_plugin_function_exists(None, b"f") & 0xFF)
    t.see("id", lib.extism_plugin_id(None))
    t.see("cancel handle", lib.extism_plugin_cancel_handle(None))
    lib.extism_plugin_allow_http_response_headers(None)
    t.see("headers", "survived")


@script()
def null_cancel_handle(t):
    t.see("cancel", t.lib.extism_plugin_cancel(None) & 0xFF)


@script()
def null_name_call(t):
    plugin = t.lib.plugin(TINY)
    t.result("call", plugin.call(None))
    t.result("afterwards", plugin.call("f"))


@script()
def null_name_exists(t):
    t.see("exists", t.lib.plugin(TINY).exists(None))


@script()
def null_wasm(t):
    t.see("plug-in", t.lib.extism_plugin_new(None, 0, None, 0, 0, None))
    t.see("compiled", t.lib.extism_compiled_plugin_new(None, 0, None, 0, 0, None))


@script()
def null_compiled(t):
    t.see("plug-in", t.lib.extism_plugin_new_from_compiled(None, None))


@script()
def null_function(t):
    t.lib.extism_function_set_namespace(None, b"x")
    t.see("survived", True)


@script()
def null_current_plugin(t):
    lib = t.lib
    t.see("memory", lib.extism_current_plugin_memory(None))
    t.see("alloc", lib.extism_current_plugin_memory_alloc(None, 5))
    t.see("length", lib.extism_current_plugin_memory_length(None, 5))
    lib.extism_current_plugin_memory_free(None, 5)
    t.see("context", lib.extism_current_plugin_host_context(None))


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
