"""Calls a plug-in from Python, with nothing but ctypes.

The plug-in counts visits. It keeps them in a store that this program offers as two host functions,
kv_read and kv_write (c-examples/guests/kv.c is its source).

    LD_LIBRARY_PATH=target/release python3 examples/python/main.py
"""

import ctypes
import json
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[2] / "c-examples/wasm/kv.wasm"


# The part of extism.h that this program needs. Handles are opaque: c_void_p.
class Union(ctypes.Union):
    _fields_ = [("i32", c_int32), ("i64", c_int64), ("f32", c_float), ("f64", c_double)]


class Val(ctypes.Structure):
    _fields_ = [("t", c_uint32), ("v", Union)]


HostFunction = CFUNCTYPE(None, c_void_p, POINTER(Val), c_uint64, POINTER(Val), c_uint64, c_void_p)
I64 = 1


def declare(name, result, *parameters):
    function = getattr(extism, name)
    function.restype, function.argtypes = result, parameters


extism = ctypes.CDLL("libextism.so")
declare("extism_plugin_new", c_void_p, c_char_p, c_uint64, POINTER(c_void_p), c_uint64, c_bool, POINTER(c_void_p))
declare("extism_plugin_new_error_free", None, c_void_p)
declare("extism_plugin_free", None, c_void_p)
declare("extism_plugin_call", c_int32, c_void_p, c_char_p, c_char_p, c_uint64)
declare("extism_plugin_output_length", c_uint64, c_void_p)
declare("extism_plugin_output_data", c_void_p, c_void_p)
declare("extism_plugin_error", c_char_p, c_void_p)
declare("extism_function_new", c_void_p, c_char_p, POINTER(c_uint32), c_uint64, POINTER(c_uint32), c_uint64,
        HostFunction, c_void_p, c_void_p)
declare("extism_function_free", None, c_void_p)
declare("extism_current_plugin_memory", c_void_p, c_void_p)
declare("extism_current_plugin_memory_alloc", c_uint64, c_void_p, c_uint64)
declare("extism_current_plugin_memory_length", c_uint64, c_void_p, c_uint64)


# Bytes travel through the plug-in's memory: a handle is an offset in it.
def read_block(plugin, handle):
    length = extism.extism_current_plugin_memory_length(plugin, handle)
    return ctypes.string_at(extism.extism_current_plugin_memory(plugin) + handle, length)


def write_block(plugin, data):
    handle = extism.extism_current_plugin_memory_alloc(plugin, len(data))
    if handle:
        ctypes.memmove(extism.extism_current_plugin_memory(plugin) + handle, data, len(data))
    return handle


store = {}


# An exception must not leave a host function: ctypes would print and forget it.
@HostFunction
def kv_read(plugin, inputs, _n_inputs, outputs, _n_outputs, _data):
    value = store.get(read_block(plugin, inputs[0].v.i64))
    outputs[0].v.i64 = write_block(plugin, value) if value is not None else 0


@HostFunction
def kv_write(plugin, inputs, _n_inputs, _outputs, _n_outputs, _data):
    store[read_block(plugin, inputs[0].v.i64)] = read_block(plugin, inputs[1].v.i64)


def new_function(name, n_inputs, n_outputs, callback):
    inputs, outputs = (c_uint32 * n_inputs)(*[I64] * n_inputs), (c_uint32 * n_outputs)(*[I64] * n_outputs)
    return extism.extism_function_new(name, inputs, n_inputs, outputs, n_outputs, callback, None, None)


def new_plugin(manifest, functions):
    """A plug-in, which from then on keeps the functions alive. Python must keep the callbacks."""
    errmsg = c_void_p()
    handles = (c_void_p * len(functions))(*functions)
    plugin = extism.extism_plugin_new(manifest, len(manifest), handles, len(handles), False, ctypes.byref(errmsg))
    for function in functions:
        extism.extism_function_free(function)
    if not plugin:
        message = ctypes.string_at(errmsg).decode()
        extism.extism_plugin_new_error_free(errmsg)
        raise RuntimeError(message)
    return plugin


def call(plugin, function, data):
    if extism.extism_plugin_call(plugin, function, data, len(data)) != 0:
        error = extism.extism_plugin_error(plugin) or b"failed without saying why"
        raise RuntimeError(error.decode())
    return ctypes.string_at(extism.extism_plugin_output_data(plugin), extism.extism_plugin_output_length(plugin))


manifest = json.dumps({"wasm": [{"path": str(PLUGIN)}]}).encode()
plugin = new_plugin(manifest, [new_function(b"kv_read", 1, 1, kv_read), new_function(b"kv_write", 2, 0, kv_write)])
try:
    for visitor in [b"Ada", b"Grace", b"Ada", b""]:
        print(f"{visitor.decode()}: visit {call(plugin, b'visit', visitor).decode()}")
except RuntimeError as error:
    print(f"error: {error}")
finally:
    extism.extism_plugin_free(plugin)
print("the host keeps:", *(f"{key.decode()}={store[key].decode()}" for key in sorted(store)))
