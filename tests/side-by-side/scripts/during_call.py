"""Host ABI, "While a call runs": what works from a host function of the same plug-in and from another thread.

1.41 holds a lock for the whole call, so that it hangs or answers much later; each case is a script of its own.
"""

import threading
import time

from capi import Function
from observe import script
from probe import Probe

HOOK = """(module (import "extism:host/user" "hook" (func $hook))
  (import "extism:host/env" "output_set" (func $out (param i64 i64)))
  (import "extism:host/env" "input_offset" (func $o (result i64)))
  (import "extism:host/env" "input_length" (func $n (result i64)))
  (func (export "f") (result i32) (call $out (call $o) (call $n)) (call $hook) (i32.const 6))
  (func (export "g") (result i32) (i32.const 8)))"""


class Hooked:
    """A plug-in whose export `f` sets an output, runs `hook`, and returns 6."""

    def __init__(self, t, hook, elsewhere):
        self.t, self.hook, self.elsewhere = t, hook, elsewhere
        self.failure = None
        self.plugin = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], self._hook)])

    def _hook(self, current, *_):
        self.current = current
        if not self.elsewhere:
            return self.hook(self)
        thread = threading.Thread(target=self.hook, args=(self,))
        thread.start()
        thread.join(3)
        if thread.is_alive():
            self.t.see("in time", False)

    def play(self, name="f"):
        self.t.result(name, self.plugin.call(name, b"set before"))


WHERE = ("inside", "thread")


def hooked(t, hook):
    it = Hooked(t, hook, t.variant == "thread")
    it.play()
    it.play("g")
    return it


@script(("inside",), deadline=8)
def call(t):
    """A call from inside is refused as busy."""

    def hook(it):
        code = it.plugin.call_code("g")
        t.see("code", code)
        t.error("error", it.plugin.error())

    hooked(t, hook)


@script(deadline=8)
def call_waits(t):
    """A call from another thread waits its turn."""
    order = []

    def later(it):
        it.result = it.plugin.call_code("g")
        order.append("second")

    def hook(current, *_):
        thread.start()
        time.sleep(0.3)
        order.append("first")

    plugin = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], hook)])
    it = type("It", (), {"plugin": plugin})()
    thread = threading.Thread(target=later, args=(it,))
    t.see("code", plugin.call_code("f"))
    thread.join()
    t.see("order", order)
    t.see("second code", it.result)


@script(WHERE, deadline=8)
def reset(t):
    hooked(t, lambda it: t.see("reset", it.plugin.reset()))


@script(WHERE, deadline=8)
def config(t):
    hooked(t, lambda it: t.see("config", it.plugin.config({"a": "b"})))


@script(deadline=8)
def config_is_seen(t):
    """A configuration changed during a call is seen by the guest's next config_get."""
    probe = Probe(t, {"config": {"k": "old"}})

    def steps(p):
        t.see("before", (yield from p.get((yield "config_get", (yield from p.put(b"k"))))))
        t.see("changed", probe.plugin.config({"k": "new"}))
        t.see("after", (yield from p.get((yield "config_get", (yield from p.put(b"k"))))))

    t.result("run", probe.run(steps))


@script(WHERE, deadline=8)
def identity(t):
    def hook(it):
        t.see("id", len(it.plugin.id()))
    hooked(t, hook)


@script(WHERE, deadline=8)
def exists(t):
    hooked(t, lambda it: t.see("exists", [it.plugin.exists("g"), it.plugin.exists("nope")]))


@script(WHERE, deadline=8)
def output(t):
    """Output: length 0, non-NULL pointer."""

    def hook(it):
        t.see("length", t.lib.extism_plugin_output_length(it.plugin.handle))
        t.see("data is not NULL", bool(t.lib.extism_plugin_output_data(it.plugin.handle)))

    hooked(t, hook)


@script(WHERE, deadline=8)
def error(t):
    """Error: that of the last finished call."""

    def hook(it):
        t.see("during", it.plugin.error())

    it = Hooked(t, hook, t.variant == "thread")
    it.plugin.call("nope")
    it.play()
    t.see("after", it.plugin.error())


@script(WHERE, deadline=8)
def cancel(t):
    hooked(t, lambda it: t.see("cancel", it.plugin.cancel()))


@script(WHERE, deadline=8)
def free(t):
    """Free returns at once; the running call ends as it would have."""
    it = Hooked(t, lambda it: it.plugin.free(), t.variant == "thread")
    t.see("code", it.plugin.call_code("f", b"set before"))


@script(deadline=8)
def free_then_memory(t):
    """After a free from inside, the current plug-in still works until the call has left."""

    def hook(it):
        it.plugin.free()
        block = it.current.alloc(10)
        t.see("alloc works", block != 0)
        t.see("length", it.current.length(block))
        t.see("cancel handle of before", t.lib.extism_plugin_cancel(it.cancel) & 0xFF)

    it = Hooked(t, hook, False)
    it.cancel = it.plugin.cancel_handle()
    t.see("code", it.plugin.call_code("f"))


@script(deadline=8)
def refused_text(t):
    """A refused operation leaves its text for the asking thread, until its next operation."""

    def hook(it):
        it.plugin.call_code("g")
        t.see("busy has a text", it.plugin.error() is not None)
        seen = []
        other = threading.Thread(target=lambda: seen.append(it.plugin.error()))
        other.start()
        other.join(2)
        t.see("other thread", seen)

    it = Hooked(t, hook, False)
    t.see("code", it.plugin.call_code("f"))
    t.see("after the call", it.plugin.error())


@script(deadline=8)
def refused_config_text(t):
    """A bad configuration leaves its text too, and the call's error afterwards is the call's."""
    probe = Probe(t)
    t.see("config", probe.plugin.config(b"{"))
    t.see("has a text", probe.plugin.error() is not None)

    def steps(p):
        yield "error_set", (yield from p.put(b"the call's"))
        return 1

    t.result("run", probe.run(steps), own=True)
    t.see("config again", probe.plugin.config(b"{"))
    text = probe.plugin.error()
    t.see("that of the config", text is not None and text != "the call's")
    t.see("exists", probe.plugin.exists("run"))
    t.see("after another operation", probe.plugin.error())


@script(deadline=8)
def circle(t):
    """Two plug-ins whose host functions call each other: refused instead of waiting for ever."""
    plugins = {}

    def hook_a(*_):
        t.see("b called", plugins["b"].call_code("f"))

    def hook_b(*_):
        t.see("a called", plugins["a"].call_code("g"))

    plugins["a"] = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], hook_a)])
    plugins["b"] = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], hook_b)])
    t.see("a", plugins["a"].call_code("f"))


@script(deadline=8)
def another_plugin_inside(t):
    """A host function may create and call another plug-in."""

    def hook(it):
        other = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], lambda *_: None)])
        t.result("other", other.call("f", b"other's"))
        other.free()

    hooked(t, hook)


@script(deadline=8)
def kept_current_plugin(t):
    """A kept ExtismCurrentPlugin* is refused outside of callbacks and works again in a later one."""
    kept = []

    def hook(current, *_):
        kept.append(current)
        t.see(f"inside {len(kept)}", kept[0].alloc(5) != 0)

    plugin = t.lib.plugin(HOOK, [Function(t.lib, "hook", [], [], hook)])
    plugin.call("f")
    t.see("between", kept[0].alloc(5))
    t.see("base between", kept[0].base())
    plugin.call("f")


@script(deadline=8)
def waiting_counts(t):
    """Waiting counts against the waiting call's timeout_ms."""
    started, results = threading.Event(), []

    def hook(*_):
        started.set()
        time.sleep(1.0)

    from probe import data
    plugin = t.lib.plugin({"wasm": [data(HOOK)], "timeout_ms": 400}, [Function(t.lib, "hook", [], [], hook)])

    def waits():
        started.wait(3)
        begin = time.monotonic()
        code = plugin.call_code("g")
        results.append([code, time.monotonic() - begin < 0.9])

    thread = threading.Thread(target=waits)
    thread.start()
    plugin.call_code("f")
    thread.join()
    t.see("the waiting call", results)
