"""A guest that does what a Python generator tells it.

The module's export `run` asks the host function `next` for an operation, carries it out,
and hands the result to the next `next`. A script is a generator, and `(yield "alloc", 10)`
is what the guest's own call of `alloc` returned. It runs inside a host call, so it may use
the current plug-in as well.
"""

import base64
import struct

from capi import Function, I32, I64

# Guest functions of `extism:host/env` with their types.
GUEST = {
    "alloc": ("i64", "i64"), "free": ("i64", ""), "length": ("i64", "i64"), "length_unsafe": ("i64", "i64"),
    "load_u8": ("i64", "i32"), "load_u64": ("i64", "i64"), "store_u8": ("i64 i32", ""), "store_u64": ("i64 i64", ""),
    "input_offset": ("", "i64"), "input_length": ("", "i64"), "input_load_u8": ("i64", "i32"),
    "input_load_u64": ("i64", "i64"), "input_set": ("i64 i64", ""), "output_set": ("i64 i64", ""),
    "output_offset": ("", "i64"), "output_length": ("", "i64"), "error_set": ("i64", ""), "error_get": ("", "i64"),
    "reset": ("", ""), "memory_bytes": ("", "i64"), "config_get": ("i64", "i64"), "var_get": ("i64", "i64"),
    "var_set": ("i64 i64", ""), "http_request": ("i64 i64", "i64"), "http_status_code": ("", "i32"),
    "http_headers": ("", "i64"), "log_trace": ("i64", ""), "log_debug": ("i64", ""), "log_info": ("i64", ""),
    "log_warn": ("i64", ""), "log_error": ("i64", ""), "get_log_level": ("", "i32"),
}
# Operations of the guest itself: parameters, result, body ("{0}" is the first argument).
OWN = {
    "trap": ("", "", "unreachable"),
    "spin": ("", "", "(loop (br 0))"),
    "recurse": ("", "", "(call $recurse)"),
    "return": ("i32", "", "(return {0})"),
    "memory.size": ("", "i32", "memory.size"),
    "memory.grow": ("i32", "i32", "(memory.grow {0})"),
    "peek": ("i32", "i32", "(i32.load8_u {0})"),
    "poke": ("i32 i32", "", "(i32.store8 {0} {1})"),
    "fill": ("i32 i32 i32", "", "(memory.fill {0} {1} {2})"),
    "table.grow": ("i32", "i32", "(table.grow $t (ref.null func) {0})"),
}
OPS = list(GUEST) + list(OWN)
ALL = ("direct", "indirect", "linked", "debug")


def _types(params, result):
    return (f"(param {params})" if params else "") + (f"(result {result})" if result else "")


def _argument(index, kind):
    value = f"(call $arg (i32.const {index}))"
    return f"(i32.wrap_i64 {value})" if kind == "i32" else value


def module(indirect=False, without=(), memory="1"):
    """The WAT text of the guest; `indirect`: guest functions are called through a table."""
    guest = {k: v for k, v in GUEST.items() if k not in without}
    lines = ["(module"]
    lines += [f'(import "extism:host/env" "{n}" (func ${n} {_types(*t)}))' for n, t in guest.items()]
    lines += ['(import "extism:host/user" "next" (func $next (param i64) (result i64)))',
              '(import "extism:host/user" "arg" (func $arg (param i32) (result i64)))',
              f'(memory (export "memory") {memory})',
              f'(table $t {len(guest)} funcref)',
              '(elem (table $t) (i32.const 0) func ' + " ".join(f"${n}" for n in guest) + ")" if indirect else "",
              '(func $recurse (call $recurse) (drop (memory.size)))',
              '(func (export "run") (result i32) (local $r i64) (local $op i64) (loop $again',
              '(local.set $op (call $next (local.get $r)))']
    for code, name in enumerate(OPS):
        if name in guest:
            params, result = guest[name]
            arguments = " ".join(_argument(i, k) for i, k in enumerate(params.split()))
            if indirect:
                body = f"(call_indirect $t {_types(params, result)} {arguments} (i32.const {list(guest).index(name)}))"
            else:
                body = f"(call ${name} {arguments})"
        elif name in OWN:
            params, result, body = OWN[name]
            body = body.format(*(_argument(i, k) for i, k in enumerate(params.split())))
        else:
            continue
        if result == "i32":
            body = f"(i64.extend_i32_u {body})"
        body = f"(local.set $r {body})" if result else f"{body} (local.set $r (i64.const 0))"
        lines.append(f"(if (i64.eq (local.get $op) (i64.const {code})) (then {body} (br $again)))")
    lines.append(") (unreachable)))")
    return "\n".join(lines)


MAIN = """(module (import "probe" "run" (func $run (result i32)))
  (func (export "run") (result i32) (call $run)))"""


def data(wasm):
    wasm = wasm.encode() if isinstance(wasm, str) else wasm
    return {"data": base64.b64encode(wasm).decode()}


def signed(value):
    """A 64-bit pattern as ctypes wants to hand it out."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


class Probe:
    """A plug-in of the guest above in one of the variants; `run` plays a generator."""

    def __init__(self, t, manifest=None, functions=(), wasi=False, fuel=None, variant=None, **shape):
        self.t, self.current, self.generator, self.arguments = t, None, None, []
        self.failure = None
        variant = variant or t.variant or "direct"
        wasm = module(indirect=variant == "indirect", **shape)
        manifest = dict(manifest or {})
        if variant == "linked":
            manifest["wasm"] = [dict(data(wasm), name="probe"), dict(data(MAIN), name="main")]
        else:
            manifest["wasm"] = [data(wasm)]
        self.functions = [
            Function(t.lib, "next", [I64], [I64], self._next),
            Function(t.lib, "arg", [I32], [I64], lambda _c, args, _d: signed(self.arguments[args[0]])),
        ]
        self.plugin = t.lib.plugin(manifest, self.functions + list(functions), wasi, fuel)

    def _next(self, current, args, _data):
        self.current = current
        try:
            operation = self.generator.send(None if self.fresh else args[0])
            self.fresh = False
        except StopIteration as stop:
            operation = ("return", stop.value or 0)
        except Exception as failure:  # shown by run(): an exception cannot cross the guest
            self.failure = failure
            operation = "trap"
        operation = operation if isinstance(operation, tuple) else (operation,)
        self.arguments = list(operation[1:])
        return OPS.index(operation[0])

    def run(self, steps, data=b"", context=None):
        """Calls `run`; `steps(probe)` is the generator that leads the guest."""
        self.generator, self.fresh = steps(self), True
        result = self.plugin.call("run", data, context)
        if self.failure:
            raise self.failure
        return result

    # Pieces for generators: `block = yield from p.put(b"...")`.

    def put(self, content):
        """A block with this content, written by the guest's own stores."""
        block = yield "alloc", len(content)
        whole = len(content) // 8 * 8
        for at in range(0, whole, 8):
            yield "store_u64", block + at, struct.unpack_from("<q", content, at)[0]
        for at in range(whole, len(content)):
            yield "store_u8", block + at, content[at]
        return block

    def get(self, block):
        """The content of a block, read by the guest's own loads; None for 0."""
        if block == 0:
            return None
        size = yield "length", block
        return (yield from self.load(block, size))

    def each(self, operation, arguments):
        """The results of an operation of one argument, for each of `arguments`."""
        results = []
        for argument in arguments:
            results.append((yield operation, argument))
        return results

    def load(self, offset, size):
        content = bytearray()
        for at in range(size):
            content.append((yield "load_u8", offset + at))
        return bytes(content)
