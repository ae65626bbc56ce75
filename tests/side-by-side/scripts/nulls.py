"""Host ABI: NULL where it is legal, and where 1.41 crashes."""

import ctypes as c

from capi import Function
from observe import script
from probe import Probe

TINY = '(module (func (export "f") (result i32) (i32.const 7)))'


@script()
def frees_of_null(t):
    for name in ("extism_plugin_free", "extism_compiled_plugin_free", "extism_function_free", "extism_plugin_new_error_free"):
        getattr(t.lib, name)(None)
        t.see(name, "survived")


@script()
def input_null(t):
    """Input of length 0 may be NULL; the empty string as well."""
    probe = Probe(t)

    def steps(p):
        t.see(f"length {len(t.seen)}", (yield "input_length"))

    t.result("NULL", probe.run(steps, None))
    t.result("empty", probe.run(steps, b""))


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
def namespace_null(t):
    handle = Function.raw(t.lib, b"f", [], [], lambda *_: None)
    t.lib.extism_function_set_namespace(handle, None)
    t.see("survived", True)


@script()
def function_name_null(t):
    t.see("handle", Function.raw(t.lib, None, [], [], lambda *_: None))


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
