"""Host ABI, "Ownership of functions": who frees them when, and what their finaliser is told."""

import threading

from capi import Function, I64, Refused
from observe import script

CALLS_H = '(module (import "extism:host/user" "h" (func $h)) (func (export "f") (call $h)))'
NO_IMPORT = '(module (func (export "f")))'


class Counted:
    """A host function `h` whose finaliser writes down what it got."""

    def __init__(self, t, user_data=0x77, name="h"):
        self.finalised, self.calls = [], 0
        self.function = Function(t.lib, name, [], [], self._called, user_data=user_data, finaliser=self.finalised.append)

    def _called(self, *_):
        self.calls += 1


@script()
def never_used(t):
    """A function that no plug-in took is finalised at its free."""
    counted = Counted(t)
    t.see("before", counted.finalised)
    counted.function.free()
    t.see("after", counted.finalised)


@script()
def without_user_data(t):
    """No finaliser runs for user_data NULL."""
    counted = Counted(t, user_data=None)
    counted.function.free()
    t.see("after", counted.finalised)


@script()
def freed_before_the_plugin(t):
    """Java: functions are freed before the plug-in, Python: right after compiling. They go on working."""
    counted = Counted(t)
    plugin = t.lib.plugin(CALLS_H, [counted.function])
    counted.function.free()
    t.see("not yet", counted.finalised)
    t.result("f", plugin.call("f"))
    plugin.free()
    t.see("with the plug-in", counted.finalised)


@script()
def freed_after_the_plugin(t):
    counted = Counted(t)
    plugin = t.lib.plugin(CALLS_H, [counted.function])
    plugin.call("f")
    plugin.free()
    first = list(counted.finalised)
    counted.function.free()
    t.see("in the end once", counted.finalised)
    t.see("with the plug-in", first)


@script()
def compiled(t):
    """A function of a compiled plug-in lives as long as it or a plug-in of it."""
    counted = Counted(t)
    compiled = t.lib.compiled(CALLS_H, [counted.function])
    counted.function.free()
    a, b = compiled.plugin(), compiled.plugin()
    compiled.free()
    t.see("after the compiled one", counted.finalised)
    a.call("f")
    a.free()
    t.see("after the first", counted.finalised)
    b.call("f")
    t.see("calls", counted.calls)
    b.free()
    t.see("after the last", counted.finalised)


@script()
def compiled_unused(t):
    counted = Counted(t)
    compiled = t.lib.compiled(CALLS_H, [counted.function])
    counted.function.free()
    compiled.free()
    t.see("after", counted.finalised)


@script()
def unused_by_the_guest(t):
    """A function that the guest does not import belongs to the plug-in all the same."""
    counted = Counted(t)
    plugin = t.lib.plugin(NO_IMPORT, [counted.function])
    counted.function.free()
    t.see("not yet", counted.finalised)
    plugin.call("f")
    plugin.free()
    t.see("with the plug-in", counted.finalised)


@script()
def failed_creation(t):
    """A creation that fails leaves the function to its caller."""
    counted = Counted(t)
    for wasm in (b"x", '(module (import "extism:host/user" "other" (func)))'):
        try:
            t.lib.plugin(wasm, [counted.function])
            t.see("created", True)
        except Refused:
            pass
    t.see("not by the failure", counted.finalised)
    plugin = t.created("still of use", lambda: t.lib.plugin(CALLS_H, [counted.function]))
    if plugin:
        t.result("f", plugin.call("f"))
        plugin.free()
    counted.function.free()
    t.see("once", counted.finalised)


@script()
def shared(t):
    """Any number of plug-ins may share a function (1.41: one)."""
    counted = Counted(t)
    first = t.created("first", lambda: t.lib.plugin(CALLS_H, [counted.function]))
    second = t.created("second", lambda: t.lib.plugin(CALLS_H, [counted.function]))
    compiled = t.created("compiled", lambda: t.lib.compiled(CALLS_H, [counted.function]))
    counted.function.free()
    for name, plugin in (("first", first), ("second", second)):
        if plugin:
            t.result(f"{name}.f", plugin.call("f"))
            t.see(f"{name} before its end", counted.finalised)
            plugin.free()
    t.see("before the compiled one's end", counted.finalised)
    if compiled:
        compiled.free()
    t.see("in the end", counted.finalised)


@script()
def spent(t):
    """When its last user has gone, a function is spent."""
    counted = Counted(t)
    t.lib.plugin(CALLS_H, [counted.function]).free()
    t.see("finalised", counted.finalised)
    t.created("used again", lambda: t.lib.plugin(CALLS_H, [counted.function]))
    counted.function.free()
    t.see("once", counted.finalised)


@script()
def finaliser_thread(t):
    """Finalisers run on the thread that makes the call which ends the function."""
    threads = []
    function = Function(t.lib, "h", [], [], lambda *_: None, user_data=5,
                        finaliser=lambda _data: threads.append(threading.get_ident()))
    plugin = t.lib.plugin(CALLS_H, [function])
    function.free()
    plugin.call("f")
    plugin.free()
    t.see("ours", threads == [threading.get_ident()])


@script()
def many(t):
    """Many functions, duplicates and unused ones, each finalised once."""
    finalised = []
    functions = [Function(t.lib, "h", [], [], lambda *_: None, user_data=n + 1, finaliser=finalised.append) for n in range(20)]
    functions += [Function(t.lib, f"u{n}", [I64], [I64], lambda *_: 0, user_data=100 + n, finaliser=finalised.append) for n in range(20)]
    plugin = t.lib.plugin(CALLS_H, functions)
    for function in functions:
        function.free()
    t.result("f", plugin.call("f"))
    plugin.free()
    t.see("all once", sorted(finalised))
