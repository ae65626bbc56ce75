"""The C ABI of libextism through ctypes, as thin as a test wants it."""

import ctypes as c
import json
from typing import NamedTuple, Optional

I32, I64, F32, F64, V128, FUNCREF, EXTERNREF = range(7)


class ValUnion(c.Union):
    _fields_ = [("i32", c.c_int32), ("i64", c.c_int64), ("f32", c.c_float), ("f64", c.c_double)]


class Val(c.Structure):
    _fields_ = [("t", c.c_uint32), ("v", ValUnion)]


FIELD = {I32: "i32", I64: "i64", F32: "f32", F64: "f64"}

Callback = c.CFUNCTYPE(None, c.c_void_p, c.POINTER(Val), c.c_uint64, c.POINTER(Val), c.c_uint64, c.c_void_p)
Finaliser = c.CFUNCTYPE(None, c.c_void_p)
Drain = c.CFUNCTYPE(None, c.c_void_p, c.c_uint64)

# Booleans are 32 bits wide here in both directions, as some hosts pass and read them.
# Pointers to text that the library owns are plain addresses, read by `text_at`.
P, N, B, S = c.c_void_p, c.c_uint64, c.c_uint32, c.c_char_p
NEW = [S, N, P, N, B]
PROTOTYPES = {
    "extism_version": (P, []),
    "extism_plugin_new": (P, NEW + [P]),
    "extism_plugin_new_with_fuel_limit": (P, NEW + [N, P]),
    "extism_plugin_new_error_free": (None, [P]),
    "extism_compiled_plugin_new": (P, NEW + [P]),
    "extism_compiled_plugin_new_with_fuel_limit": (P, NEW + [N, P]),
    "extism_compiled_plugin_free": (None, [P]),
    "extism_plugin_new_from_compiled": (P, [P, P]),
    "extism_plugin_free": (None, [P]),
    "extism_plugin_id": (P, [P]),
    "extism_plugin_config": (B, [P, S, N]),
    "extism_plugin_function_exists": (B, [P, S]),
    "extism_plugin_call": (c.c_int32, [P, S, S, N]),
    "extism_plugin_call_with_host_context": (c.c_int32, [P, S, S, N, P]),
    "extism_plugin_output_length": (N, [P]),
    "extism_plugin_output_data": (P, [P]),
    "extism_plugin_error": (P, [P]),
    "extism_error": (P, [P]),
    "extism_plugin_reset": (B, [P]),
    "extism_plugin_allow_http_response_headers": (None, [P]),
    "extism_plugin_cancel_handle": (P, [P]),
    "extism_plugin_cancel": (B, [P]),
    "extism_function_new": (P, [S, P, N, P, N, P, P, P]),
    "extism_function_set_namespace": (None, [P, S]),
    "extism_function_free": (None, [P]),
    "extism_current_plugin_memory": (P, [P]),
    "extism_current_plugin_memory_alloc": (N, [P, N]),
    "extism_current_plugin_memory_length": (N, [P, N]),
    "extism_current_plugin_memory_free": (None, [P, N]),
    "extism_current_plugin_host_context": (P, [P]),
    "extism_log_file": (B, [S, S]),
    "extism_log_custom": (B, [S]),
    "extism_log_drain": (None, [P]),
}


def text_at(address) -> Optional[str]:
    return None if not address else c.string_at(address).decode("utf-8", "replace")


class Refused(Exception):
    """Creating a plug-in failed; the text is what `errmsg` received."""


class Result(NamedTuple):
    code: int
    output: bytes
    error: Optional[str]


class Function:
    """A host function. `body(current, args, user_data)` returns one value, a list, or None."""

    def __init__(self, lib, name, ins, outs, body, namespace=None, user_data=None, finaliser=None):
        self.lib = lib
        outs = list(outs)

        def entry(current, inputs, n_in, outputs, n_out, data):
            args = [getattr(inputs[i].v, FIELD.get(inputs[i].t, "i64")) for i in range(n_in)]
            values = body(Current(lib, current), args, data)
            if values is None:
                return
            values = values if isinstance(values, list) else [values]
            for i, value in enumerate(values[:n_out]):
                setattr(outputs[i].v, FIELD[outs[i]], value)

        self.handle = self.raw(lib, name, ins, outs, entry, user_data, finaliser)
        if namespace is not None:
            lib.extism_function_set_namespace(self.handle, namespace.encode())

    @staticmethod
    def raw(lib, name, ins, outs, entry, user_data=None, finaliser=None):
        """`extism_function_new` with a callback that gets the arguments as they come."""
        entry = Callback(entry) if entry else None
        finaliser = Finaliser(finaliser) if finaliser else None
        lib.keep += [entry, finaliser]
        name = name if isinstance(name, (bytes, type(None))) else name.encode()
        return lib.extism_function_new(
            name, (c.c_uint32 * len(ins))(*ins), len(ins), (c.c_uint32 * len(outs))(*outs), len(outs),
            c.cast(entry, P), user_data, c.cast(finaliser, P) if finaliser else None)

    def free(self):
        self.lib.extism_function_free(self.handle)


class Current:
    """An `ExtismCurrentPlugin*` inside a host function."""

    def __init__(self, lib, handle):
        self.lib, self.handle = lib, handle

    def base(self):
        return self.lib.extism_current_plugin_memory(self.handle)

    def alloc(self, size):
        return self.lib.extism_current_plugin_memory_alloc(self.handle, size)

    def length(self, block):
        return self.lib.extism_current_plugin_memory_length(self.handle, block)

    def free(self, block):
        self.lib.extism_current_plugin_memory_free(self.handle, block)

    def context(self):
        return self.lib.extism_current_plugin_host_context(self.handle)

    def read(self, offset, size):
        return c.string_at(self.base() + offset, size)

    def write(self, offset, data):
        c.memmove(self.base() + offset, data, len(data))

    def block(self, block):
        return self.read(block, self.length(block))

    def put(self, data):
        block = self.alloc(len(data))
        self.write(block, data)
        return block


class Library:
    """The library; its functions are attributes under their C names."""

    def __init__(self, path):
        self.dll = c.CDLL(path)
        self.keep = []
        for name, (result, params) in PROTOTYPES.items():
            function = self.dll[name]
            function.restype, function.argtypes = result, params
            setattr(self, name, function)
        try:
            self.extism_last_error = self.dll["extism_last_error"]
            self.extism_last_error.restype, self.extism_last_error.argtypes = P, []
        except AttributeError:
            self.extism_last_error = None

    def array(self, functions):
        handles = [f.handle if isinstance(f, Function) else f for f in functions]
        return (P * len(handles))(*handles)

    def create(self, function, wasm, functions, wasi, fuel):
        if isinstance(wasm, dict):
            wasm = json.dumps(wasm)
        wasm = wasm.encode() if isinstance(wasm, str) else wasm
        message = P()
        extra = [fuel] if fuel is not None else []
        handle = function(wasm, len(wasm), self.array(functions), len(functions), wasi, *extra, c.addressof(message))
        if not handle:
            text = text_at(message.value)
            self.extism_plugin_new_error_free(message.value)
            raise Refused(text)
        return handle

    def plugin(self, wasm, functions=(), wasi=False, fuel=None):
        new = self.extism_plugin_new if fuel is None else self.extism_plugin_new_with_fuel_limit
        return Plugin(self, self.create(new, wasm, functions, wasi, fuel))

    def compiled(self, wasm, functions=(), wasi=False, fuel=None):
        new = self.extism_compiled_plugin_new if fuel is None else self.extism_compiled_plugin_new_with_fuel_limit
        return Compiled(self, self.create(new, wasm, functions, wasi, fuel))


class Compiled:
    def __init__(self, lib, handle):
        self.lib, self.handle = lib, handle

    def plugin(self):
        message = P()
        handle = self.lib.extism_plugin_new_from_compiled(self.handle, c.addressof(message))
        if not handle:
            text = text_at(message.value)
            self.lib.extism_plugin_new_error_free(message.value)
            raise Refused(text)
        return Plugin(self.lib, handle)

    def free(self):
        self.lib.extism_compiled_plugin_free(self.handle)


class Plugin:
    def __init__(self, lib, handle):
        self.lib, self.handle = lib, handle

    def call_code(self, name, data=b"", context=None):
        """Only the return code. `context` chooses the function with a host context."""
        data = data.encode() if isinstance(data, str) else data
        name = name.encode() if isinstance(name, str) else name
        size = len(data or b"")
        if context is None:
            return self.lib.extism_plugin_call(self.handle, name, data, size)
        return self.lib.extism_plugin_call_with_host_context(self.handle, name, data, size, context)

    def call(self, name, data=b"", context=None) -> Result:
        code = self.call_code(name, data, context)
        return Result(code, self.output(), self.error())

    def output(self):
        size = self.lib.extism_plugin_output_length(self.handle)
        return c.string_at(self.lib.extism_plugin_output_data(self.handle), size)

    def error(self):
        return text_at(self.lib.extism_plugin_error(self.handle))

    def config(self, values):
        text = values if isinstance(values, bytes) else json.dumps(values).encode()
        return self.lib.extism_plugin_config(self.handle, text, len(text)) & 0xFF

    def exists(self, name):
        name = name.encode() if isinstance(name, str) else name
        return self.lib.extism_plugin_function_exists(self.handle, name) & 0xFF

    def reset(self):
        return self.lib.extism_plugin_reset(self.handle) & 0xFF

    def cancel_handle(self):
        return self.lib.extism_plugin_cancel_handle(self.handle)

    def cancel(self):
        return self.lib.extism_plugin_cancel(self.cancel_handle()) & 0xFF

    def id(self):
        return c.string_at(self.lib.extism_plugin_id(self.handle), 16)

    def free(self):
        self.lib.extism_plugin_free(self.handle)
