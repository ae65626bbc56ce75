"""Guest ABI, Extism memory: alloc, free, length, loads and stores, reset, memory_bytes."""

from observe import script
from probe import ALL, Probe

BIG = 1 << 40


@script(ALL)
def blocks(t):
    """alloc, length and free in their usual and odd uses."""

    def steps(p):
        t.see("alloc(0)", (yield "alloc", 0))
        a = yield "alloc", 1
        b = yield "alloc", 100
        c = yield "alloc", 70000
        t.see("handles are above 15", min(a, b, c) >= 16)
        t.see("blocks do not overlap", b >= a + 1 and c >= b + 100)
        t.see("length", (yield from p.each("length", (a, b, c))))
        t.see("length_unsafe", (yield from p.each("length_unsafe", (a, b, c))))
        t.see("length(0)", (yield "length", 0))
        t.see("length inside a block", (yield "length", b + 1))
        t.see("length of an absurd offset", (yield "length", BIG))
        yield "free", b
        t.see("length after free", (yield "length", b))
        yield "free", b
        yield "free", 0
        yield "free", c + 1
        yield "free", BIG
        yield "free", -1
        t.see("others stay", (yield from p.each("length", (a, c))))
        t.see("length by the host", [p.current.length(x) for x in (a, b, c, 0, c + 1, BIG)])
        return 0

    t.result("run", Probe(t).run(steps))


@script(ALL)
def many_blocks(t):
    """A thousand live blocks keep their contents and lengths; freed ones are reused."""

    def steps(p):
        live = {}
        for n in range(1, 500):
            live[(yield "alloc", n)] = n
        t.see("distinct", len(live))
        spans = sorted((h, h + n) for h, n in live.items())
        t.see("disjoint", all(a[1] <= b[0] for a, b in zip(spans, spans[1:])))
        lengths = []
        for handle in live:
            lengths.append((yield "length", handle))
        t.see("lengths", lengths == list(live.values()))
        for handle in list(live)[::2]:
            yield "free", handle
        before = yield "memory_bytes"
        for n in range(1, 250):
            yield "alloc", n
        t.see("no growth for what fits", (yield "memory_bytes") == before)

    t.result("run", Probe(t).run(steps))


@script(ALL)
def contents(t):
    """Stores and loads of all widths, seen from guest and host."""

    def steps(p):
        text = bytes(range(1, 60))
        block = yield from p.put(text)
        t.see("guest reads what it wrote", (yield from p.get(block)) == text)
        t.see("host reads it at base + handle", p.current.block(block) == text)
        yield "store_u64", block + 3, -2
        t.see("load_u64 unaligned", (yield "load_u64", block + 3))
        t.see("load_u8 is unsigned", (yield "load_u8", block + 5))
        yield "store_u8", block, 0x1FF
        t.see("store_u8 keeps the low byte", (yield "load_u8", block))
        mine = p.current.put(b"from the host")
        t.see("guest reads the host's block", (yield from p.get(mine)))
        t.see("length of the host's block", (yield "length", mine))
        yield "free", mine
        t.see("freed by the guest, asked by the host", p.current.length(mine))
        another = yield "alloc", 10
        p.current.free(another)
        t.see("freed by the host, asked by the guest", (yield "length", another))
        keep = yield from p.put(b"stays")
        yield "free", keep
        t.see("freed bytes stay as they are", (yield from p.load(keep, 5)))
        t.see("byte 0", (yield "load_u8", 0))

    t.result("run", Probe(t).run(steps))


@script(ALL)
def past_the_end(t):
    """Loads and stores at the last bytes of Extism memory and behind them."""

    def inside(p):
        end = yield "memory_bytes"
        yield "store_u8", end - 1, 7
        t.see("last byte", (yield "load_u8", end - 1))
        t.see("last word", (yield "load_u64", end - 8))

    t.result("inside", Probe(t).run(inside))
    odd = {
        "load_u8": lambda end: ("load_u8", end), "load_u64": lambda end: ("load_u64", end - 7),
        "load_u8 far": lambda end: ("load_u8", BIG), "load_u64 at -1": lambda end: ("load_u64", -1),
        "store_u8": lambda end: ("store_u8", end, 1), "store_u64": lambda end: ("store_u64", end - 7, 1),
        "store_u8 at -1": lambda end: ("store_u8", -1, 1), "store_u64 far": lambda end: ("store_u64", BIG, 1),
    }
    for name, operation in odd.items():
        def steps(p):
            end = yield "memory_bytes"
            got = yield operation(end)
            t.see(f"{name} gives", got)

        t.result(name, Probe(t).run(steps))


@script(ALL)
def reset(t):
    """reset frees everything, empties input and output, keeps the error."""

    def steps(p):
        block = yield from p.put(b"own text")
        yield "output_set", block, 8
        message = yield from p.put(b"kept error")
        yield "error_set", message
        yield "reset"
        t.see("length after reset", (yield "length", block))
        t.see("input_length", (yield "input_length"))
        t.see("input_load_u8", (yield "input_load_u8", 0))
        t.see("output_length", (yield "output_length"))
        again = yield from p.put(b"afterwards")
        t.see("alloc afterwards", (yield from p.get(again)))
        return 0

    probe = Probe(t)
    t.result("run", probe.run(steps, b"the input"), own=True)
    t.see("host's reset", probe.plugin.reset())
    t.see("output after the host's reset", probe.plugin.output())
    t.error("error after the host's reset", probe.plugin.error(), own=True)

    def second(p):
        t.see("input of the next call", (yield "input_length"))
        block = yield "alloc", 3
        t.see("fresh length", (yield "length", block))

    t.result("next", probe.run(second, b"abc"))


@script(ALL)
def grows(t):
    """Extism memory grows with what is asked of it; memory_bytes says how large it is."""

    def steps(p):
        before = yield "memory_bytes"
        for size in (1 << 16, 1 << 20, 10 << 20, 100 << 20):
            block = yield "alloc", size
            t.see(f"length of {size}", (yield "length", block))
            t.see(f"{size} fits", (yield "memory_bytes") >= block + size)
            yield "store_u8", block + size - 1, 9
            t.see(f"last byte of {size}", (yield "load_u8", block + size - 1))

    t.result("run", Probe(t).run(steps))


@script(ALL)
def fresh_each_call(t):
    """Blocks of one call are gone in the next, and their bytes are erased."""
    probe = Probe(t)
    kept = []

    def first(p):
        kept.append((yield from p.put(b"secret" * 10)))

    def second(p):
        t.see("length", (yield "length", kept[0]))
        block = yield "alloc", 60
        t.see("erased", (yield from p.get(block)) == bytes(60))

    t.result("first", probe.run(first))
    t.result("second", probe.run(second))


@script(ALL)
def absurd_sizes(t):
    """A request that cannot be met ends the call with oom."""
    for name, size in {"5 GiB": 5 << 30, "2^40": 1 << 40, "2^63": -(1 << 63), "-1": -1, "-17": -17}.items():
        def steps(p):
            t.see(f"{name} gives", (yield "alloc", size) == 0)

        t.result(name, Probe(t, {"memory": {"max_pages": 100}}).run(steps))


@script()
def host_alloc(t):
    """extism_current_plugin_memory_*: limits and odd arguments."""

    def steps(p):
        now = p.current
        t.see("alloc(0)", now.alloc(0))
        block = now.put(b"12345")
        t.see("length", now.length(block))
        t.see("absurd alloc gives 0", now.alloc(1 << 60))
        now.free(0)
        now.free(block + 1)
        t.see("still there", now.length(block))
        now.free(block)
        now.free(block)
        t.see("freed", now.length(block))
        t.see("length(0)", now.length(0))
        t.see("byte 0 of the memory", now.read(0, 1))
        yield "memory_bytes"

    t.result("run", Probe(t).run(steps))


@script()
def host_alloc_over_limit(t):
    """From a host function, what a limit forbids gives 0 and does not end the call."""

    def steps(p):
        t.see("alloc", p.current.alloc(50 << 20))
        t.see("alloc again", p.current.alloc(10) != 0)
        yield "memory_bytes"
        return 5

    t.result("run", Probe(t, {"memory": {"max_pages": 20}}).run(steps))


@script()
def base_stays(t):
    """The base address of Extism memory is the same before and after growth and in later calls."""
    probe = Probe(t)
    bases = []

    def steps(p):
        bases.append(p.current.base())
        yield "alloc", 200 << 20
        bases.append(p.current.base())

    probe.run(steps)
    probe.run(steps)
    t.see("one base", len(set(bases)))
    t.see("not NULL", all(bases))


@script()
def imports_that_are_no_functions(t):
    """A guest may not import a memory, table or global from extism:host/env."""
    for kind in ("(memory 1)", "(table 1 funcref)", "(global i64)", "(global (mut i64))", "(memory i64 1)"):
        for name in ("memory", "x"):
            wat = f'(module (import "extism:host/env" "{name}" {kind}) (func (export "f")))'
            t.created(f"{name} {kind}", lambda: t.lib.plugin(wat))


@script()
def wrong_types(t):
    """An import of a guest function with another type is refused at creation."""
    for kind in ("(func (param i32) (result i64))", "(func (param i64))", "(func)"):
        wat = f'(module (import "extism:host/env" "alloc" {kind}) (func (export "f")))'
        t.created(f"alloc {kind}", lambda: t.lib.plugin(wat))
    t.created("unknown function", lambda: t.lib.plugin('(module (import "extism:host/env" "nope" (func)))'))


@script()
def all_importable(t):
    """Each function of docs/abi.md may be imported alone, with exactly its type."""
    from probe import GUEST, _types
    for name, kind in GUEST.items():
        wat = f'(module (import "extism:host/env" "{name}" (func {_types(*kind)})) (func (export "f")))'
        plugin = t.created(name, lambda: t.lib.plugin(wat))
        if plugin:
            t.result(f"{name} call", plugin.call("f"))


@script()
def exported_import(t):
    """A guest function that a module exports again can be called by a linked module."""
    from probe import data
    lib = '(module (import "extism:host/env" "alloc" (func $a (param i64) (result i64))) (export "again" (func $a)))'
    main = """(module (import "lib" "again" (func $a (param i64) (result i64)))
      (import "extism:host/env" "length" (func $l (param i64) (result i64)))
      (func (export "f") (result i32) (i32.wrap_i64 (call $l (call $a (i64.const 77))))))"""
    manifest = {"wasm": [dict(data(lib), name="lib"), dict(data(main), name="main")]}
    plugin = t.created("created", lambda: t.lib.plugin(manifest))
    if plugin:
        t.result("f", plugin.call("f"))


@script()
def functions_as_values(t):
    """ref.func, call_ref, return_call and tables of guest functions."""
    wat = """(module
      (type $one (func (param i64) (result i64)))
      (import "extism:host/env" "alloc" (func $alloc (type $one)))
      (import "extism:host/env" "length" (func $length (type $one)))
      (import "extism:host/env" "input_length" (func $input_length (result i64)))
      (elem declare func $alloc $length)
      (table (export "table") 2 funcref)
      (func $tail (param i64) (result i64) (return_call $length (local.get 0)))
      (func (export "by_ref") (result i32)
        (i32.wrap_i64 (call_ref $one (call_ref $one (i64.const 12) (ref.func $alloc)) (ref.func $length))))
      (func (export "by_tail") (result i32) (i32.wrap_i64 (call $tail (call $alloc (i64.const 13)))))
      (func (export "by_tail_input") (result i32) (i32.wrap_i64 (call $both)))
      (func $both (result i64) (return_call $input_length))
      (func (export "by_table") (result i32)
        (table.set (i32.const 1) (ref.func $alloc))
        (table.set (i32.const 0) (ref.func $length))
        (i32.wrap_i64 (call_indirect (type $one) (call_indirect (type $one) (i64.const 14) (i32.const 1)) (i32.const 0)))))"""
    plugin = t.created("created", lambda: t.lib.plugin(wat))
    if plugin:
        for name in ("by_ref", "by_tail", "by_tail_input", "by_table"):
            t.result(name, plugin.call(name, b"12345"))
