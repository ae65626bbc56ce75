"""memory.max_pages: what must fit, what may grow, and the messages."""

from observe import script
from probe import ALL, Probe, data

GROW = """(module (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (memory (export "memory") {pages})
  (func (export "nothing"))
  (func (export "size") (result i32) memory.size)
  (func (export "one") (result i32) (memory.grow (i32.const 1)))
  (func (export "five") (result i32) (memory.grow (i32.const 5)))
  (func (export "alloc") (result i32) (i64.gt_u (call $alloc (i64.const 60000)) (i64.const 0))))"""


@script(tuple(f"{limit} pages, {size} initial" for limit in (0, 1, 2, 3, 4, 5) for size in (0, 1, 2, 3)))
def initial_size(t):
    """The initial sizes of all memories together must fit."""
    limit, _, size, _ = t.variant.split()
    manifest = {"wasm": [data(GROW.format(pages=size))], "memory": {"max_pages": int(limit)}}
    plugin = t.created("created", lambda: t.lib.plugin(manifest))
    if plugin:
        t.result("nothing", plugin.call("nothing"))
        t.result("with input", plugin.call("nothing", b"some input"))


@script()
def growth(t):
    """After that, all memories together may grow by up to max_pages."""
    for limit in (1, 2, 3, 5, 8):
        plugin = t.created(f"{limit}", lambda: t.lib.plugin({"wasm": [data(GROW.format(pages=1))], "memory": {"max_pages": limit}}))
        if not plugin:
            continue
        for n in range(limit + 2):
            result = plugin.call("one")
            t.see(f"{limit}: growth {n}", [result.code, result.error])
        result = plugin.call("size")
        t.see(f"{limit}: size", [result.code, result.error])


@script()
def growth_of_extism_memory(t):
    """alloc counts too."""
    for limit in (2, 4, 8):
        probe = Probe(t, {"memory": {"max_pages": limit}})
        count = []

        def steps(p):
            for _ in range(40):
                yield "alloc", 65536
                count.append(1)

        result = probe.run(steps)
        t.see(f"{limit}: ended", [result.code, result.error])
        t.see(f"{limit}: between", limit - 2 <= len(count) <= limit + 2)


@script()
def big_input(t):
    """An input that does not fit."""
    for limit, size in ((4, 10), (4, 100_000), (4, 1 << 20), (100, 5 << 20), (100, 10 << 20)):
        probe = Probe(t, {"memory": {"max_pages": limit}})

        def steps(p):
            t.see(f"{limit}: {size} length", (yield "input_length"))

        t.result(f"{limit}: {size}", probe.run(steps, bytes(size)))

        def small(p):
            t.see(f"{limit}: after {size}", (yield "input_length"))

        t.result(f"{limit}: after {size} call", probe.run(small, b"small"))


@script()
def own_maximum(t):
    """A module's own maximum holds besides."""
    plugin = t.lib.plugin(GROW.format(pages="1 3"))
    t.see("grown", [plugin.call("one").code for _ in range(4)])


@script()
def tables(t):
    """Table growth is limited."""
    wat = """(module (table 1 funcref) (func (export "small") (result i32) (table.grow (ref.null func) (i32.const 10)))
      (func (export "large") (result i32) (table.grow (ref.null func) (i32.const 1000000))))"""
    for limit in (None, 10):
        plugin = t.lib.plugin({"wasm": [data(wat)], "memory": {"max_pages": limit}})
        t.result(f"{limit}: small", plugin.call("small"))
        t.result(f"{limit}: large", plugin.call("large"))


@script()
def big_initial_table(t):
    for size in (100_000, 10_000_000):
        wat = f'(module (table {size} funcref) (func (export "f")))'
        plugin = t.created(f"{size}", lambda: t.lib.plugin({"wasm": [data(wat)], "memory": {"max_pages": 10}}))
        if plugin:
            t.result(f"{size}: f", plugin.call("f"))


@script()
def without_limit(t):
    """Without max_pages a guest may have a lot of memory."""
    plugin = t.lib.plugin(GROW.format(pages=1).replace("(i32.const 5)", "(i32.const 16384)"))
    t.see("a GiB more", plugin.call("five").code)
    t.see("size", plugin.call("size").code)


@script()
def wide_memory(t):
    """64-bit memories."""
    wat = """(module (memory i64 1) (func (export "f") (result i32) (i64.store (i64.const 8) (i64.const 5))
      (i32.wrap_i64 (i64.load (i64.const 8)))) (func (export "grow") (result i32) (i32.wrap_i64 (memory.grow (i64.const 3))))
      (func (export "past") (result i32) (i32.wrap_i64 (memory.grow (i64.const 70000)))))"""
    plugin = t.created("created", lambda: t.lib.plugin(wat))
    if plugin:
        for name in ("f", "grow", "past"):
            t.result(name, plugin.call(name))


@script(ALL)
def growth_denied(t):
    """oom: growth was denied by a limit, and the call then ended in a trap or a failed alloc."""
    limits = {"memory": {"max_pages": 10}}

    def alloc(p):
        yield "alloc", 4 << 20

    def alloc_with_error(p):
        yield "error_set", (yield from p.put(b"set before"))
        yield "alloc", 4 << 20

    def alloc_with_output(p):
        yield "output_set", (yield from p.put(b"set before")), 10
        yield "alloc", 4 << 20

    def small(p):
        block = yield "alloc", 65536
        t.see("small", block != 0)

    for steps in (alloc, alloc_with_error, alloc_with_output, small):
        probe = Probe(t, limits)
        t.result(steps.__name__, probe.run(steps), own=True)

        def works(p):
            yield from p.put(b"works")

        t.result(f"after {steps.__name__}", probe.run(works))


@script(("direct",))
def own_growth_denied(t):
    """A guest's own memory.grow past max_pages."""

    def grow(p):
        t.see("memory.grow", (yield "memory.grow", 100))
        return 3

    def grow_and_trap(p):
        yield "memory.grow", 100
        yield "trap"

    def grow_and_error(p):
        yield "memory.grow", 100
        yield "error_set", (yield from p.put(b"no memory"))
        return 1

    def grow_a_little(p):
        t.see("a little", (yield "memory.grow", 2))

    def grow_and_trap_later(p):
        yield "trap"

    for steps in (grow, grow_and_trap, grow_and_error, grow_a_little):
        probe = Probe(t, {"memory": {"max_pages": 10}})
        t.result(steps.__name__, probe.run(steps), own=True)
        t.result(f"trap after {steps.__name__}", probe.run(grow_and_trap_later))


@script(tuple(f"{limit} pages" for limit in (3, 4, 5, 6, 10)))
def initial_size_of_linked_modules(t):
    """The memories of linked modules count as well."""
    lib = '(module (memory 4) (func (export "one") (result i32) (i32.const 1)))'
    main = '(module (import "lib" "one" (func $one (result i32))) (memory 1) (func (export "f") (result i32) (call $one)))'
    manifest = {"wasm": [dict(data(lib), name="lib"), dict(data(main), name="main")], "memory": {"max_pages": int(t.variant.split()[0])}}
    plugin = t.created("created", lambda: t.lib.plugin(manifest))
    if plugin:
        t.result("f", plugin.call("f"))
