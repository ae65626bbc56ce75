"""A trap of a plug-in in a Python program that has its faulthandler on: faulthandler_trap.py LIBRARY WHEN

WHEN is `before`, `after` (the first plug-in, at which the library installs its own handlers) or `never`.
Prints the code of the call and the first line of the error."""

import ctypes
import faulthandler
import sys

library = ctypes.CDLL(sys.argv[1])
library.extism_plugin_new.restype = ctypes.c_void_p
library.extism_plugin_new.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p,
                                      ctypes.c_uint64, ctypes.c_bool, ctypes.c_void_p]
library.extism_plugin_call.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
library.extism_plugin_error.restype = ctypes.c_char_p
library.extism_plugin_error.argtypes = [ctypes.c_void_p]

WAT = b'(module (func (export "trap") unreachable) (func $deep (export "deep") (call $deep)))'

if sys.argv[2] == "before":
    faulthandler.enable()
plugin = library.extism_plugin_new(WAT, len(WAT), None, 0, False, None)
if sys.argv[2] == "after":
    faulthandler.enable()
for function in b"trap", b"deep":
    code = library.extism_plugin_call(plugin, function, b"", 0)
    print(code, library.extism_plugin_error(plugin).decode().splitlines()[0], flush=True)
