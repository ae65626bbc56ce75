"""Guest ABI: who provides an import, and linked modules."""

from capi import Function, I32, I64
from observe import script
from probe import data


def named(**modules):
    return {"wasm": [dict(data(wat), name=name.rstrip("_")) for name, wat in modules.items()]}


@script()
def who_is_main(t):
    """Of several modules the one named main, else the last if the others have names."""
    number = lambda n: data(f'(module (func (export "f") (result i32) (i32.const {n})))')
    cases = {
        "one without name": [number(1)], "one with name": [dict(number(1), name="x")], "one named main": [dict(number(1), name="main")],
        "main first": [dict(number(1), name="main"), dict(number(2), name="b")],
        "main last": [dict(number(1), name="a"), dict(number(2), name="main")],
        "main in the middle": [dict(number(1), name="a"), dict(number(2), name="main"), dict(number(3), name="c")],
        "last without name": [dict(number(1), name="a"), number(2)], "all with other names": [dict(number(1), name="a"), dict(number(2), name="b")],
        "first without name": [number(1), dict(number(2), name="b")], "none with a name": [number(1), number(2)],
        "main and last without name": [dict(number(1), name="main"), number(2)], "twice main": [dict(number(1), name="main"), dict(number(2), name="main")],
        "twice the same name": [dict(number(1), name="a"), dict(number(2), name="a"), dict(number(3), name="main")],
        "empty name": [dict(number(1), name=""), number(2)], "null names": [dict(number(1), name=None), dict(number(2), name=None)],
    }
    for name, modules in cases.items():
        plugin = t.created(name, lambda: t.lib.plugin({"wasm": modules}))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def precedence(t):
    """Linked module, then user function, then WASI, then extism:host/env."""
    calls = []
    note = lambda name, answer: lambda *_: (calls.append(name), answer)[1]
    lib = lambda export, kind, body: f'(module (func (export "{export}") {kind} {body}))'
    # A user function in the place of a linked module's.
    main = '(module (import "lib" "g" (func $g (result i32))) (func (export "f") (result i32) (call $g)))'
    user = Function(t.lib, "g", [], [I32], note("user", 2), namespace="lib")
    plugin = t.created("module and user", lambda: t.lib.plugin(named(lib=lib("g", "(result i32)", "(i32.const 1)"), main=main), [user]))
    if plugin:
        t.result("module and user: f", plugin.call("f"))
    # Something of the user function's that the module lacks.
    two = '(module (import "lib" "g" (func $g (result i32))) (import "lib" "h" (func $h (result i32))) (func (export "f") (result i32) (i32.add (call $g) (call $h))))'
    user = Function(t.lib, "h", [], [I32], note("user h", 20), namespace="lib")
    plugin = t.created("module beside user", lambda: t.lib.plugin(named(lib=lib("g", "(result i32)", "(i32.const 1)"), main=two), [user]))
    if plugin:
        t.result("module beside user: f", plugin.call("f"))
    # A user function in the place of WASI's.
    main = '(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32))) (memory (export "memory") 1) (func (export "f") (result i32) (call $y)))'
    for wasi in (True, False):
        user = Function(t.lib, "sched_yield", [], [I32], note("user yield", 5), namespace="wasi_snapshot_preview1")
        plugin = t.created(f"user and WASI {wasi}", lambda: t.lib.plugin(main, [user], wasi=wasi))
        if plugin:
            t.result(f"user and WASI {wasi}: f", plugin.call("f"))
    # A linked module in the place of WASI's and of extism:host/env.
    plugin = t.created("module and WASI", lambda: t.lib.plugin(named(wasi_snapshot_preview1=lib("sched_yield", "(result i32)", "(i32.const 6)"), main=main), wasi=True))
    if plugin:
        t.result("module and WASI: f", plugin.call("f"))
    t.see("calls", calls)


ENV = """(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "input_length" (func $n (result i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (func (export "alloc") (result i32) (i32.wrap_i64 (call $alloc (i64.const 9))))
  (func (export "n") (result i32) (i32.wrap_i64 (call $n))))"""


@script()
def user_function_shadows_env(t):
    """A user function may take the place of one of extism:host/env, for the guest only."""
    shadow = [Function(t.lib, "input_length", [], [I64], lambda *_: 4242, namespace="extism:host/env"),
              Function(t.lib, "alloc", [I64], [I64], lambda *_: 77777, namespace="extism:host/env")]
    plugin = t.created("created", lambda: t.lib.plugin(ENV, shadow))
    if plugin:
        t.result("n", plugin.call("n", b"12345"))
        t.result("alloc", plugin.call("alloc", b"12345"))


@script()
def user_function_shadows_with_another_type(t):
    wat = '(module (import "extism:host/env" "alloc" (func $a (param i32) (result i32))) (func (export "f") (result i32) (call $a (i32.const 4))))'
    shadow = Function(t.lib, "alloc", [I32], [I32], lambda _c, args, _d: args[0] + 1, namespace="extism:host/env")
    plugin = t.created("created", lambda: t.lib.plugin(wat, [shadow]))
    if plugin:
        t.result("f", plugin.call("f"))


@script()
def module_shadows_env(t):
    """A linked module named extism:host/env."""
    lib = '(module (func (export "input_length") (result i64) (i64.const 31)))'
    main = '(module (import "extism:host/env" "input_length" (func $n (result i64))) (func (export "f") (result i32) (i32.wrap_i64 (call $n))))'
    manifest = {"wasm": [dict(data(lib), name="extism:host/env"), dict(data(main), name="main")]}
    plugin = t.created("created", lambda: t.lib.plugin(manifest))
    if plugin:
        t.result("f", plugin.call("f", b"12345"))


@script()
def unknown_env_function_by_user(t):
    """A name that extism:host/env does not have can come from a user function."""
    wat = '(module (import "extism:host/env" "future" (func $f (result i32))) (func (export "f") (result i32) (call $f)))'
    plugin = t.created("created", lambda: t.lib.plugin(wat, [Function(t.lib, "future", [], [I32], lambda *_: 3, namespace="extism:host/env")]))
    if plugin:
        t.result("f", plugin.call("f"))


@script()
def shared_memory_of_modules(t):
    """Linked modules share Extism memory, input, output, variables and error."""
    lib = """(module
      (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
      (import "extism:host/env" "input_length" (func $n (result i64)))
      (import "extism:host/env" "input_load_u8" (func $in (param i64) (result i32)))
      (global $state (mut i32) (i32.const 0))
      (func (export "mark") (param i64) (call $store (local.get 0) (call $in (i64.const 0)))
        (global.set $state (i32.add (global.get $state) (i32.const 1))))
      (func (export "state") (result i32) (global.get $state))
      (func (export "n") (result i64) (call $n)))"""
    main = """(module
      (import "lib" "mark" (func $mark (param i64))) (import "lib" "state" (func $state (result i32))) (import "lib" "n" (func $n (result i64)))
      (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "output_set" (func $output (param i64 i64)))
      (func (export "f") (result i32) (local $b i64) (local.set $b (call $alloc (i64.const 3)))
        (call $mark (local.get $b)) (call $mark (i64.add (local.get $b) (i64.const 1)))
        (call $output (local.get $b) (i64.const 2)) (i32.add (i32.mul (call $state) (i32.const 100)) (i32.wrap_i64 (call $n)))))"""
    plugin = t.lib.plugin(named(lib=lib, main=main))
    t.result("first", plugin.call("f", b"xyz"))
    t.result("state stays", plugin.call("f", b"ab"))
    t.see("lib's exports are not the plug-in's", [plugin.exists("state"), plugin.exists("mark")])


@script()
def memories_tables_globals(t):
    """A module may import the memory, table and globals of a linked one."""
    lib = """(module (memory (export "mem") 1) (data (i32.const 5) "\\2a") (global (export "g") (mut i32) (i32.const 8))
      (table (export "tab") 1 funcref) (func $seven (result i32) (i32.const 7)) (elem (i32.const 0) $seven))"""
    main = """(module (import "lib" "mem" (memory 1)) (import "lib" "g" (global $g (mut i32))) (import "lib" "tab" (table 1 funcref))
      (type $t (func (result i32)))
      (func (export "f") (result i32) (i32.add (i32.load8_u (i32.const 5)) (i32.add (global.get $g) (call_indirect (type $t) (i32.const 0))))))"""
    plugin = t.created("created", lambda: t.lib.plugin(named(lib=lib, main=main)))
    if plugin:
        t.result("f", plugin.call("f"))


@script()
def chains(t):
    """Modules that import each other's functions, in any order."""
    a = '(module (func (export "one") (result i32) (i32.const 1)))'
    b = '(module (import "a" "one" (func $o (result i32))) (func (export "two") (result i32) (i32.add (call $o) (i32.const 1))))'
    main = '(module (import "b" "two" (func $t (result i32))) (func (export "f") (result i32) (call $t)))'
    for name, manifest in {"in order": named(a=a, b=b, main=main), "backwards": named(main=main, b=b, a=a), "mixed": named(b=b, main=main, a=a)}.items():
        plugin = t.created(name, lambda: t.lib.plugin(manifest))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def circle(t):
    """Two modules that import from each other."""
    circle_a = '(module (import "b" "x" (func)) (func (export "y")))'
    circle_b = '(module (import "a" "y" (func)) (func (export "x")))'
    main = '(module (import "a" "y" (func $y)) (func (export "f") (call $y)))'
    t.created("created", lambda: t.lib.plugin(named(a=circle_a, b=circle_b, main=main)))


@script()
def self_import(t):
    """A module that imports from itself."""
    main = '(module (import "main" "g" (func $g)) (func (export "g")) (func (export "f") (call $g)))'
    t.created("created", lambda: t.lib.plugin(named(main=main)))


@script()
def missing_in_linked(t):
    """A linked module lacks what is asked of it, or has it with another type."""
    lib = '(module (func (export "g") (param i32)))'
    for name, main in {"lacking": '(module (import "lib" "h" (func)))', "other type": '(module (import "lib" "g" (func)))',
                       "right": '(module (import "lib" "g" (func (param i32))))'}.items():
        t.created(name, lambda: t.lib.plugin(named(lib=lib, main=main)))
    t.created("import of the linked one missing", lambda: t.lib.plugin(named(lib='(module (import "x" "y" (func)))', main="(module)")))


@script()
def linked_commands(t):
    """A linked module with _start is instantiated anew for every call into it."""
    lib = """(module (global $n (mut i32) (i32.const 0)) (memory (export "memory") 1)
      (func (export "_start") (global.set $n (i32.add (global.get $n) (i32.const 10))))
      (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"""
    main = """(module (import "lib" "next" (func $next (result i32)))
      (func (export "f") (result i32) (i32.add (i32.mul (call $next) (i32.const 100)) (call $next))))"""
    plugin = t.created("created", lambda: t.lib.plugin(named(lib=lib, main=main)))
    if plugin:
        t.result("f", plugin.call("f"))
        t.result("again", plugin.call("f"))


@script()
def linked_initialisers(t):
    """A linked module without _start keeps its state and gets _initialize."""
    lib = """(module (global $n (mut i32) (i32.const 0))
      (func (export "_initialize") (global.set $n (i32.add (global.get $n) (i32.const 50))))
      (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"""
    main = '(module (import "lib" "next" (func $next (result i32))) (func (export "f") (result i32) (call $next)))'
    for wasi in (False, True):
        plugin = t.lib.plugin(named(lib=lib, main=main), wasi=wasi)
        t.result(f"wasi {wasi}: f", plugin.call("f"))
        t.result(f"wasi {wasi}: again", plugin.call("f"))


@script()
def linked_traps(t):
    """A trap, an exit and an error in a linked module."""
    lib = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 1)
      (func (export "trap") unreachable) (func (export "exit") (call $exit (i32.const 4))) (func (export "spin") (loop (br 0))))"""
    main = """(module (import "lib" "trap" (func $t)) (import "lib" "exit" (func $e)) (import "lib" "spin" (func $s))
      (func (export "trap") (call $t)) (func (export "exit") (call $e)) (func (export "spin") (call $s)))"""
    manifest = dict(named(lib=lib, main=main), timeout_ms=200)
    for name in ("trap", "exit", "spin"):
        t.result(name, t.lib.plugin(manifest, wasi=True).call(name))


@script()
def reserved_looking_names(t):
    """A module's own names are its own, whatever they are."""
    for name in ("extism", "__extism_memory", "memory", "extism:memory", "__heap_base"):
        wat = f'(module (memory (export "{name}") 1) (global (export "g") i32 (i32.const 1)) (func (export "f") (result i32) (i32.const 1)))'
        plugin = t.created(name, lambda: t.lib.plugin(wat))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script(deadline=120)
def linked_command_many_times(t):
    """12,000 calls into a linked command over a plug-in's life (1.41 gives out after about 10,000)."""
    lib = '(module (memory 1) (func (export "_start")) (func (export "one") (result i32) (i32.const 1)))'
    main = '(module (import "lib" "one" (func $one (result i32))) (func (export "f") (result i32) (call $one)))'
    plugin = t.lib.plugin(named(lib=lib, main=main))
    t.see("calls that gave 1", sum(plugin.call_code("f") == 1 for _ in range(12_000)))
