"""Host ABI, "Return codes": what a call returns, with which error and output."""

import threading
import time

from capi import Function, I64
from observe import script
from probe import ALL, Probe, data

PROC_EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'


@script(ALL)
def matrix(t):
    """The export's result, error and output set or not, in all combinations."""
    for code in (0, 1, -1, 134, 255, 256, -(1 << 31), (1 << 31) - 1):
        for error in (False, True):
            for output in (False, True):
                def steps(p):
                    if output:
                        yield "output_set", (yield from p.put(b"some output")), 11
                    if error:
                        yield "error_set", (yield from p.put(b"an error")),
                    yield "memory_bytes"
                    return code

                name = f"{code}{' error' if error else ''}{' output' if output else ''}"
                t.result(name, Probe(t).run(steps), own=True)


@script(ALL)
def traps(t):
    """A trap alone, with output, with an error, and in an error of the call."""

    def alone(p):
        yield "trap"

    def with_output(p):
        yield "output_set", (yield from p.put(b"set before")), 10
        yield "trap"

    def with_error(p):
        yield "error_set", (yield from p.put(b"the plug-in's text"))
        yield "trap"

    def with_both(p):
        yield "output_set", (yield from p.put(b"set before")), 10
        yield "error_set", (yield from p.put(b"the plug-in's text"))
        yield "trap"

    def cleared_error(p):
        yield "error_set", (yield from p.put(b"the plug-in's text"))
        yield "error_set", 0
        yield "trap"

    def deep(p):
        yield "recurse"

    def error_of_the_call(p):
        yield "output_set", (yield from p.put(b"set before")), 10
        yield "config_get", 1 << 40

    def error_of_the_call_with_error(p):
        yield "error_set", (yield from p.put(b"the plug-in's text"))
        yield "config_get", 1 << 40

    def works_again(p):
        yield "memory_bytes"

    for steps in (alone, with_output, with_error, with_both, cleared_error, deep, error_of_the_call, error_of_the_call_with_error):
        probe = Probe(t)
        t.result(steps.__name__, probe.run(steps), own=steps in (with_error, with_both, error_of_the_call_with_error))
        t.result(f"after {steps.__name__}", probe.run(works_again))


@script(ALL)
def instance_after_a_trap(t):
    """After a trap the instance keeps its state."""
    probe = Probe(t)

    def poke(p):
        yield "poke", 100, 42
        yield "memory.grow", 2
        yield "trap"

    def peek(p):
        t.see("its memory", (yield "peek", 100))
        t.see("its size", (yield "memory.size"))

    t.see("code", probe.run(poke).code)
    t.result("peek", probe.run(peek))


@script()
def export_types(t):
    """Exports of other types than () -> () and () -> i32."""
    wat = """(module (func (export "none")) (func (export "i32") (result i32) (i32.const 5))
      (func (export "i64") (result i64) (i64.const 5)) (func (export "f32") (result f32) (f32.const 5))
      (func (export "two") (result i32 i32) (i32.const 5) (i32.const 6))
      (func (export "param") (param i32) (result i32) (local.get 0))
      (func (export "param_only") (param i64)) (func (export "ref") (result funcref) (ref.null func))
      (memory (export "memory") 1) (global (export "global") i32 (i32.const 1)) (table (export "table") 1 funcref)
      (func (export "") (result i32) (i32.const 8)) (func (export "sp ace\\c3\\a9") (result i32) (i32.const 9)))"""
    plugin = t.lib.plugin(wat)
    for name in ("none", "i32", "i64", "f32", "two", "param", "param_only", "ref", "memory", "global", "table", "",
                 "sp aceé", "missing", "None"):
        t.see(f"{name!r} exists", plugin.exists(name))
        t.result(f"{name!r}", plugin.call(name))
        t.result(f"after {name!r}", plugin.call("none"))


@script()
def name_not_utf8(t):
    """A name that is not UTF-8."""
    plugin = t.lib.plugin('(module (func (export "f")))')
    t.see("exists", plugin.exists(b"\xff"))
    t.result("call", plugin.call(b"\xff"))
    t.result("afterwards", plugin.call("f"))


@script(ALL)
def timeout(t):
    """timeout_ms ends a call with 134 and `timeout`; the plug-in works afterwards."""
    for name in ("plain", "with output", "with error"):
        def spins(p):
            if name == "with output":
                yield "output_set", (yield from p.put(b"before")), 6
            if name == "with error":
                yield "error_set", (yield from p.put(b"set before"))
            yield "spin"

        def works(p):
            yield "output_set", (yield from p.put(b"fine")), 4

        probe = Probe(t, {"timeout_ms": 150})
        started = time.monotonic()
        t.result(name, probe.run(spins), own=True)
        t.see(f"{name}: in time", time.monotonic() - started < 3)
        t.result(f"{name}: afterwards", probe.run(works))


@script(("direct", "linked"))
def timeout_in_host_function(t):
    """Time that a host function takes counts."""

    def steps(p):
        yield "memory_bytes"
        time.sleep(0.6)
        yield "spin"

    t.result("run", Probe(t, {"timeout_ms": 300}).run(steps))


@script()
def timeout_zero(t):
    """timeout_ms 0 and null."""

    def steps(p):
        yield "memory_bytes"

    for value in (None, 1 << 40):
        t.result(str(value), Probe(t, {"timeout_ms": value}).run(steps))


@script(ALL)
def cancelled(t):
    """Cancel from another thread ends the call in progress with 134."""
    probe = Probe(t)

    def spins(p):
        yield "output_set", (yield from p.put(b"before")), 6
        threading.Timer(0.2, lambda: t.see("cancel", probe.plugin.cancel())).start()
        yield "spin"

    def works(p):
        yield "memory_bytes"
        return 4

    t.result("spins", probe.run(spins))
    t.result("works", probe.run(works))
    t.result("again", probe.run(spins_quietly(probe)))
    t.result("and works", probe.run(works))


def spins_quietly(probe):
    def steps(p):
        yield "error_set", (yield from p.put(b"set before"))
        threading.Timer(0.2, probe.plugin.cancel).start()
        yield "spin"
    return steps


@script()
def cancel_while_nothing_runs(t):
    """A cancel while nothing runs says true and touches no later call."""
    probe = Probe(t)

    def works(p):
        yield "memory_bytes"
        return 4

    t.see("before the first call", probe.plugin.cancel())
    t.result("first", probe.run(works))
    t.see("between calls", probe.plugin.cancel())
    t.see("twice", probe.plugin.cancel())
    t.result("second", probe.run(works))
    t.see("same handle", probe.plugin.cancel_handle() == probe.plugin.cancel_handle())


@script()
def cancel_in_host_function(t):
    """A cancel from the plug-in's own host function."""
    probe = Probe(t)

    def steps(p):
        t.see("cancel", probe.plugin.cancel())
        yield "memory_bytes"
        yield "spin"

    t.result("run", probe.run(steps))


@script()
def one_cancel_one_plugin(t):
    """A cancel touches only its plug-in, also among those of one compiled plug-in."""
    ready = threading.Barrier(2)
    wait = Function(t.lib, "wait", [], [], lambda _c, _a, _d: ready.wait(5) and None)
    done = {}
    stop = Function(t.lib, "stop", [], [I64], lambda _c, _a, _d: int("first" in done))
    compiled = t.lib.compiled("""(module (import "extism:host/user" "wait" (func $wait))
      (import "extism:host/user" "stop" (func $stop (result i64)))
      (func (export "spin") (call $wait) (loop (br 0)))
      (func (export "until") (call $wait) (loop (br_if 0 (i64.eqz (call $stop))))))""", [wait, stop])
    first, second = compiled.plugin(), compiled.plugin()

    def play(name, plugin, export):
        result = plugin.call(export)
        done[name] = result

    threads = [threading.Thread(target=play, args=("first", first, "spin")),
               threading.Thread(target=play, args=("second", second, "until"))]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    first.cancel()
    for thread in threads:
        thread.join()
    t.result("cancelled", done["first"])
    t.result("the other", done["second"])


@script()
def one_timeout_one_plugin(t):
    """A timeout touches only its plug-in."""
    ready = threading.Barrier(2)
    waits = [Function(t.lib, "wait", [], [], lambda _c, _a, _d: ready.wait(5) and None) for _ in range(2)]
    spin = """(module (import "extism:host/user" "wait" (func $wait))
      (func (export "spin") (call $wait) (loop (br 0))))"""
    short = t.lib.plugin({"wasm": [data(spin)], "timeout_ms": 200}, waits[:1])
    long = t.lib.plugin({"wasm": [data(spin)], "timeout_ms": 1500}, waits[1:])
    times = {}

    def play(name, plugin):
        started = time.monotonic()
        t.result(name, plugin.call("spin"))
        times[name] = time.monotonic() - started

    threads = [threading.Thread(target=play, args=p) for p in (("short", short), ("long", long))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    t.see("each its own time", times["short"] < 1 < times["long"])


@script(ALL)
def fuel(t):
    """Running out of fuel: -1 and the text; each call has the whole amount."""
    spin = {"fuel": 1_000_000}
    probe = Probe(t, **spin)

    def spins(p):
        yield "spin"

    def with_error(p):
        yield "error_set", (yield from p.put(b"set before"))
        yield "spin"

    def with_output(p):
        yield "output_set", (yield from p.put(b"set before")), 10
        yield "spin"

    def works(p):
        yield "memory_bytes"
        return 9

    for steps in (works, spins, works, with_error, with_output, works):
        t.result(f"{len(t.seen)} {steps.__name__}", probe.run(steps), own=True)


@script()
def fuel_budget(t):
    """No fuel at all, a little, and a lot."""
    wat = """(module (func (export "nothing")) (func (export "some") (result i32) (local i32)
      (loop (local.set 0 (i32.add (local.get 0) (i32.const 1))) (br_if 0 (i32.lt_u (local.get 0) (i32.const 1000)))) (local.get 0)))"""
    for amount in (0, 1, 100, 1 << 20, (1 << 63) - 1, (1 << 64) - 1):
        plugin = t.created(f"{amount}: created", lambda: t.lib.plugin(wat, fuel=amount))
        if plugin:
            for name in ("nothing", "some"):
                t.result(f"{amount}: {name}", plugin.call(name))
                t.result(f"{amount}: {name} again", plugin.call(name))
    compiled = t.lib.compiled(wat, fuel=100)
    plugin = compiled.plugin()
    t.result("compiled: some", plugin.call("some"))
    t.result("compiled: nothing", plugin.call("nothing"))


@script()
def exit_codes(t):
    """WASI proc_exit: its code is the call's, 0 is success."""
    for code in (0, 1, 2, 3, 77, 125, 126, 127, 255, 1000):
        plugin = t.lib.plugin(f"""(module {PROC_EXIT} (memory (export "memory") 1)
          (func (export "f") (call $exit (i32.const {code}))) (func (export "g") (result i32) (i32.const 6)))""", wasi=True)
        t.result(f"exit {code}", plugin.call("f"))
        t.result(f"after exit {code}", plugin.call("g"))


@script()
def exit_with_error_and_output(t):
    """proc_exit after error_set and output_set."""
    wat = f"""(module {PROC_EXIT}
      (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
      (import "extism:host/env" "output_set" (func $output (param i64 i64)))
      (import "extism:host/env" "error_set" (func $error (param i64)))
      (memory (export "memory") 1)
      (func $letter (result i64) (local $b i64)
        (local.set $b (call $alloc (i64.const 1))) (call $store (local.get $b) (i32.const 69)) (local.get $b))
      (func (export "output0") (call $output (call $letter) (i64.const 1)) (call $exit (i32.const 0)))
      (func (export "output3") (call $output (call $letter) (i64.const 1)) (call $exit (i32.const 3)))
      (func (export "error0") (call $error (call $letter)) (call $exit (i32.const 0)))
      (func (export "error3") (call $error (call $letter)) (call $exit (i32.const 3))))"""
    for name in ("output0", "output3", "error0", "error3"):
        t.result(name, t.lib.plugin(wat, wasi=True).call(name), own="error" in name)


@script()
def start_up(t):
    """Start-up code that fails: at creation in 1.41, in the first call here."""
    kinds = {
        "start function": '(func $s unreachable) (start $s)',
        "_initialize": '(func (export "_initialize") unreachable)',
        "__wasm_call_ctors": '(func (export "__wasm_call_ctors") unreachable)',
        "hs_init": '(func (export "hs_init") (param i32 i32) unreachable)',
        "active data outside": '(memory 1) (data (i32.const 70000) "x")',
    }
    for name, body in kinds.items():
        plugin = t.created(f"{name}: created", lambda: t.lib.plugin(f'(module {body} (func (export "f")))'))
        for attempt in ("first", "second"):
            if plugin:
                t.result(f"{name}: {attempt} call", plugin.call("f"))


@script()
def start_up_fuel(t):
    """Fuel and time run out during start-up as well."""
    spin = '(module (func (export "_initialize") (loop (br 0))) (func (export "f")))'
    plugin = t.created("fuel: created", lambda: t.lib.plugin(spin, fuel=10000))
    if plugin:
        t.result("fuel", plugin.call("f"))


@script(deadline=8)
def start_up_time(t):
    """timeout_ms bounds start-up."""
    spin = '(module (func (export "_initialize") (loop (br 0))) (func (export "f")))'
    plugin = t.created("created", lambda: t.lib.plugin({"wasm": [data(spin)], "timeout_ms": 200}))
    if plugin:
        t.result("call", plugin.call("f"))
