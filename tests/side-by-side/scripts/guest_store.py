"""Guest ABI: configuration and variables."""

from observe import script
from probe import ALL, Probe, data

BIG = 1 << 40


def get_config(p, key):
    return (yield from p.get((yield "config_get", (yield from p.put(key)))))


def get_var(p, key):
    return (yield from p.get((yield "var_get", (yield from p.put(key)))))


def set_var(p, key, value):
    block = yield from p.put(value)
    yield "var_set", (yield from p.put(key)), block


@script(ALL)
def config(t):
    """config_get: values of the manifest, changed by extism_plugin_config."""
    probe = Probe(t, {"config": {"a": "1", "empty": "", "ünï": "cödé", "long": "x" * 5000}})
    keys = (b"a", b"empty", "ünï".encode(), b"long", b"missing", b"", b"b", b"\xff\xfe")

    def steps(p):
        for key in keys[:-2]:
            t.see(f"{label} {key!r}", (yield from get_config(p, key)))

    label = "manifest"
    t.result("manifest", probe.run(steps))
    t.see("merge", probe.plugin.config({"a": "2", "b": "3"}))
    keys = (b"a", b"empty", b"b", b"long", b"x", b"x")
    label = "merged"
    t.result("merged", probe.run(steps))
    t.see("null removes", probe.plugin.config({"a": None, "never": None}))
    label = "removed"
    t.result("removed", probe.run(steps))


@script()
def config_refused(t):
    """extism_plugin_config refuses what is no object of strings and then changes nothing."""
    bad = {"no JSON": b"{", "array": b"[]", "string": b'"a"', "number value": b'{"a":1}', "bool value": b'{"a":true}',
           "object value": b'{"a":{}}', "empty": b"", "trailing": b'{"a":"2"} x', "not UTF-8": b'{"a":"\xff"}',
           "null": b"null", "good with a bad one": b'{"a":"2","b":1}'}
    for name, text in bad.items():
        probe = Probe(t, {"config": {"a": "1"}})

        def steps(p):
            t.see(f"{name}: a", (yield from get_config(p, b"a")))

        t.see(name, probe.plugin.config(text))
        t.error(f"{name}: error", probe.plugin.error())
        t.result(f"{name}: call", probe.run(steps))
    probe = Probe(t)
    t.see("empty object", probe.plugin.config({}))
    t.see("doubled key", probe.plugin.config(b'{"a":"1","a":"2"}'))


@script()
def config_null(t):
    """extism_plugin_config with NULL and length 0."""
    probe = Probe(t)
    t.see("NULL", t.lib.extism_plugin_config(probe.plugin.handle, None, 0) & 0xFF)
    t.see("no plug-in", t.lib.extism_plugin_config(None, b"{}", 2) & 0xFF)


@script(ALL)
def config_takes_over(t):
    """config_get frees the key's block and answers with another one; a later free does nothing."""

    def steps(p):
        key = yield from p.put(b"key of some length")
        value = yield "config_get", key
        t.see("key freed", (yield "length", key))
        t.see("another block", value != key)
        yield "free", key
        t.see("value", (yield from p.get(value)))
        second = yield from p.put(b"none")
        t.see("missing", (yield "config_get", second))
        t.see("freed also when missing", (yield "length", second))

    t.result("run", Probe(t, {"config": {"key of some length": "value of some length"}}).run(steps))


@script(ALL)
def variables(t):
    """var_get and var_set, over several calls."""
    probe = Probe(t)

    def first(p):
        t.see("missing", (yield from get_var(p, b"a")))
        yield from set_var(p, b"a", b"one")
        yield from set_var(p, b"b", bytes(range(256)))
        yield from set_var(p, "ü".encode(), b"umlaut")
        t.see("same call", (yield from get_var(p, b"a")))
        t.see("binary", (yield from get_var(p, b"b")) == bytes(range(256)))

    def second(p):
        t.see("next call", (yield from get_var(p, b"a")))
        t.see("umlaut", (yield from get_var(p, "ü".encode())))
        yield from set_var(p, b"a", b"two")
        t.see("replaced", (yield from get_var(p, b"a")))
        yield "var_set", (yield from p.put(b"a")), 0
        t.see("removed", (yield from get_var(p, b"a")))
        yield "var_set", (yield from p.put(b"never there")), 0
        t.see("b stays", len((yield from get_var(p, b"b"))))

    def third(p):
        yield "trap"

    def fourth(p):
        t.see("after a trap", len((yield from get_var(p, b"b"))))

    for steps in (first, second, third, fourth):
        t.result(steps.__name__, probe.run(steps))
    t.see("reset", probe.plugin.reset())

    def fifth(p):
        t.see("after the host's reset", len((yield from get_var(p, b"b"))))

    t.result("fifth", probe.run(fifth))


@script(ALL)
def empty_value(t):
    """A variable set to a block that is no longer live, and one with an empty key."""
    probe = Probe(t)

    def empty_key(p):
        yield "var_set", 0, (yield from p.put(b"v"))
        t.see("key 0 continues", True)

    t.result("key 0", probe.run(empty_key))

    def get_empty(p):
        t.see("get of key 0", (yield "var_get", 0))

    t.result("get key 0", Probe(t).run(get_empty))

    def config_of_zero(p):
        t.see("config of key 0", (yield "config_get", 0))

    t.result("config key 0", Probe(t).run(config_of_zero))


@script(ALL)
def variables_take_over(t):
    """var_set frees key and value, var_get the key."""

    def steps(p):
        key = yield from p.put(b"the key")
        value = yield from p.put(b"the value")
        yield "var_set", key, value
        t.see("freed by var_set", (yield from p.each("length", (key, value))))
        yield "free", value
        yield "free", key
        key = yield from p.put(b"the key")
        got = yield "var_get", key
        t.see("another block", got != key)
        t.see("freed by var_get", (yield "length", key))
        yield "free", key
        t.see("value", (yield from p.get(got)))

    t.result("run", Probe(t).run(steps))


@script(ALL)
def no_blocks(t):
    """A handle that is neither 0 nor a live block is an error of the call."""
    uses = {
        "config_get": lambda b: ("config_get", b), "var_get": lambda b: ("var_get", b),
        "var_set key": lambda b: ("var_set", b, 0), "http_request": lambda b: ("http_request", b, 0),
        "log_info": lambda b: ("log_info", b), "log_error": lambda b: ("log_error", b),
    }
    for name, use in uses.items():
        for kind in ("inside a block", "freed", "absurd"):
            def steps(p):
                block = yield from p.put(b"0123456789abcdef")
                if kind == "freed":
                    yield "free", block
                handle = {"inside a block": block + 1, "freed": block, "absurd": BIG}[kind]
                t.see(f"{name} {kind} gives", (yield use(handle)))

            t.result(f"{name} {kind}", Probe(t).run(steps))


@script(ALL)
def value_that_is_no_block(t):
    """var_set with a value that is no live block."""
    for kind, value in {"inside": 1, "absurd": BIG}.items():
        probe = Probe(t)

        def steps(p):
            key = yield from p.put(b"k")
            block = yield from p.put(b"0123456789abcdef")
            yield "var_set", key, block + 1 if kind == "inside" else value
            t.see(f"{kind} continues", True)

        t.result(kind, probe.run(steps))

        def then(p):
            t.see(f"{kind}: variable", (yield from get_var(p, b"k")))

        probe.run(then)


MIB = 1 << 20


@script(("direct", "debug"))
def default_limit(t):
    """All variables together hold 1 MiB; keys count or not as in 1.41."""
    sizes = (MIB - 100, MIB - 2, MIB - 1, MIB, MIB + 1)
    for size in sizes:
        def steps(p):
            block = p.current.alloc(size)
            yield "var_set", (yield from p.put(b"k")), block
            t.see(f"{size} continues", True)

        t.result(f"one of {size}", Probe(t).run(steps))
    probe = Probe(t)

    def half(key):
        def steps(p):
            yield "var_set", (yield from p.put(key)), p.current.alloc(MIB // 2)
        return steps

    for key in (b"one", b"two", b"three"):
        t.result(f"half a MiB as {key.decode()}", probe.run(half(key)))
    t.result("replaced by as much", probe.run(half(b"one")))


@script(("direct", "debug"))
def given_limit(t):
    """memory.max_var_bytes, 0 included."""
    for limit in (0, 1, 10, 4 * MIB):
        for size in (1, 5, 9, 10, 11, 3 * MIB):
            def steps(p):
                yield "var_set", (yield from p.put(b"k")), p.current.alloc(size)
                t.see(f"{limit}: {size} continues", True)

            t.result(f"{limit}: {size}", Probe(t, {"memory": {"max_var_bytes": limit}}).run(steps))

    def read(p):
        t.see("get with limit 0", (yield from get_var(p, b"k")))
        yield "var_set", (yield from p.put(b"k")), 0
        t.see("removal with limit 0", True)

    t.result("reading with limit 0", Probe(t, {"memory": {"max_var_bytes": 0}}).run(read))


@script()
def not_utf8_keys(t):
    """Keys that are not UTF-8."""
    for name in ("config_get", "var_get"):
        def steps(p):
            t.see(f"{name} gives", (yield name, (yield from p.put(b"\xff\xfe"))))

        t.result(name, Probe(t).run(steps))

    def setting(p):
        yield "var_set", (yield from p.put(b"\xff\xfe")), (yield from p.put(b"v"))
        t.see("var_set continues", True)

    t.result("var_set", Probe(t).run(setting))


@script()
def per_plugin(t):
    """Variables and configuration belong to one plug-in, also among those of one compiled plug-in."""
    wat = """(module
      (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
      (import "extism:host/env" "length" (func $length (param i64) (result i64)))
      (import "extism:host/env" "config_get" (func $config (param i64) (result i64)))
      (import "extism:host/env" "var_get" (func $get (param i64) (result i64)))
      (import "extism:host/env" "var_set" (func $set (param i64 i64)))
      (import "extism:host/env" "output_set" (func $output (param i64 i64)))
      (func $key (result i64) (local $b i64)
        (local.set $b (call $alloc (i64.const 1))) (call $store (local.get $b) (i32.const 107)) (local.get $b))
      (func (export "config") (local $b i64) (local.set $b (call $config (call $key)))
        (call $output (local.get $b) (call $length (local.get $b))))
      (func (export "get") (local $b i64) (local.set $b (call $get (call $key)))
        (call $output (local.get $b) (call $length (local.get $b))))
      (func (export "set") (call $set (call $key) (call $key))))"""
    compiled = t.lib.compiled({"wasm": [data(wat)], "config": {"k": "manifest"}})
    a, b = compiled.plugin(), compiled.plugin()
    a.config({"k": "changed"})
    t.result("a.config", a.call("config"))
    t.result("b.config", b.call("config"))
    t.result("a.set", a.call("set"))
    t.result("a.get", a.call("get"))
    t.result("b.get", b.call("get"))
    t.result("later.config", compiled.plugin().call("config"))
