"""Host ABI: host functions, their names and types, what their callbacks get and give."""

import ctypes as c

from capi import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128, Function, Refused
from observe import script
from probe import Probe


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
