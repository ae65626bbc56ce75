"""Manifests: every field, good and bad, in JSON and in TOML."""

import base64
import ctypes as c
import hashlib
import json

from observe import script
from probe import data

TINY = b'(module (func (export "f") (result i32) (i32.const 7)))'
ENCODED = base64.b64encode(TINY).decode()
DIGEST = hashlib.sha256(TINY).hexdigest()
GOOD = {"data": ENCODED}


def toml(value):
    """A JSON value as inline TOML; None is left out by the caller."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    raise TypeError(value)


def has_null(value):
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is None or any(has_null(child) for child in children)


def in_both(t, name, manifest):
    """Offers the manifest as JSON and, where it can be said so, as TOML."""
    texts = {"JSON": json.dumps(manifest)}
    if isinstance(manifest, dict) and not has_null(manifest):
        texts["TOML"] = "".join(f"{k} = {toml(v)}\n" for k, v in manifest.items())
    for kind, text in texts.items():
        plugin = t.created(f"{name} ({kind})", lambda: t.lib.plugin(text))
        if plugin:
            result = plugin.call("f")
            t.see(f"{name} ({kind}): f", result.code)
            t.error(f"{name} ({kind}): error", result.error)


@script()
def data_entries(t):
    """wasm[].data as base64 text."""
    binary = base64.b64encode(bytes.fromhex("0061736d01000000")).decode()
    cases = {
        "good": ENCODED, "module": binary, "empty": "", "no base64": "%%%", "url-safe alphabet": ENCODED.replace("+", "-").replace("/", "_"),
        "without padding": ENCODED.rstrip("="), "with spaces": ENCODED[:8] + " " + ENCODED[8:], "with newlines": ENCODED[:8] + "\n" + ENCODED[8:],
        "base64 of text": base64.b64encode(b"hello").decode(), "number": 5, "null": None, "array of numbers": list(TINY[:4]), "boolean": True,
    }
    for name, value in cases.items():
        in_both(t, name, {"wasm": [{"data": value}]})


@script()
def pointer_entries(t):
    """wasm[].data as an address in this process, as the C++ SDK sends every module."""
    buffer = c.create_string_buffer(TINY, len(TINY))
    address = c.addressof(buffer)
    in_both(t, "good", {"wasm": [{"data": {"ptr": address, "len": len(TINY)}}]})
    in_both(t, "with hash", {"wasm": [{"data": {"ptr": address, "len": len(TINY)}, "hash": DIGEST}]})
    in_both(t, "with name", {"wasm": [{"data": {"ptr": address, "len": len(TINY)}, "name": "main"}]})
    for name, value in {"no len": {"ptr": address}, "no ptr": {"len": 4}, "text": {"ptr": "x", "len": 4}, "negative": {"ptr": address, "len": -1},
                        "empty": {}, "another field": {"ptr": address, "len": len(TINY), "x": 1}}.items():
        in_both(t, name, {"wasm": [{"data": value}]})
    compiled = t.lib.compiled({"wasm": [{"data": {"ptr": address, "len": len(TINY)}}]})
    c.memset(address, 0, len(TINY))
    t.see("copied", compiled.plugin().call("f").code)


@script()
def pointer_null(t):
    t.created("null", lambda: t.lib.plugin({"wasm": [{"data": {"ptr": 0, "len": 10}}]}))


@script()
def pointer_bad(t):
    t.created("bad", lambda: t.lib.plugin({"wasm": [{"data": {"ptr": 4096, "len": 10}}]}))


@script()
def pointer_too_long(t):
    buffer = c.create_string_buffer(TINY, len(TINY))
    t.created("too long", lambda: t.lib.plugin({"wasm": [{"data": {"ptr": c.addressof(buffer), "len": 1 << 46}}]}))


@script()
def path_entries(t):
    """wasm[].path."""
    wat = t.text_file("plugin.wat", TINY)
    module = t.text_file("plugin.wasm", bytes.fromhex("0061736d01000000"))
    spaced = t.text_file("with spaces ü.wasm", TINY)
    for name, path in {"WAT": wat, "module": module, "spaces": spaced, "missing": wat + "x", "folder": str(t.scratch), "empty": "",
                       "relative": "plugin.wat", "relative with dot": "./plugin.wat", "number": 5, "null": None, "NUL": "a\0b",
                       "no module": t.text_file("text.wasm", "hello"), "empty file": t.text_file("empty.wasm", "")}.items():
        in_both(t, name, {"wasm": [{"path": path}]})
    in_both(t, "a manifest as module", {"wasm": [{"path": t.text_file("m.json", json.dumps({"wasm": [GOOD]}))}]})


@script()
def hashes(t):
    """hash: SHA-256 of what was read."""
    path = t.text_file("plugin.wat", TINY)
    for kind, entry in {"data": GOOD, "path": {"path": path}}.items():
        for name, value in {"right": DIGEST, "upper case": DIGEST.upper(), "wrong": "0" * 64, "short": DIGEST[:-1], "long": DIGEST + "0",
                            "empty": "", "no hex": "x" * 64, "null": None, "number": 5, "spaces": " " + DIGEST}.items():
            in_both(t, f"{kind}: {name}", {"wasm": [dict(entry, hash=value)]})


@script()
def names(t):
    for name, value in {"main": "main", "other": "x", "empty": "", "umlaut": "ü", "null": None, "number": 5, "long": "x" * 5000}.items():
        in_both(t, name, {"wasm": [dict(GOOD, name=value)]})


@script()
def entries(t):
    """Entries that are no entries."""
    for name, value in {"no source": {}, "two sources": {"data": ENCODED, "path": "/x"}, "unknown field": dict(GOOD, unknown=1),
                        "unknown null field": dict(GOOD, unknown=None), "text": "x", "number": 5, "null": None, "array": [],
                        "method beside data": dict(GOOD, method="GET"), "headers beside path": {"path": "/x", "headers": {}},
                        "url without scheme": {"url": "x"}, "url number": {"url": 5}, "upper-case field": {"Data": ENCODED},
                        "url and path": {"url": "http://127.0.0.1:1/", "path": "/x"}}.items():
        in_both(t, name, {"wasm": [value]})
    for name, value in {"object": GOOD, "text": ENCODED, "null": None, "empty": [], "number": 5}.items():
        in_both(t, f"wasm is {name}", {"wasm": value})
    in_both(t, "no wasm", {"config": {}})


FIELDS = {
    "config": {"good": {"a": "b"}, "empty": {}, "null": None, "number value": {"a": 1}, "null value": {"a": None}, "bool value": {"a": True},
               "object value": {"a": {}}, "array": [], "text": "x", "number": 1, "empty key": {"": "x"}, "float value": {"a": 1.5}},
    "allowed_hosts": {"good": ["a.b"], "empty": [], "null": None, "star": ["*"], "number": [5], "text": "a.b", "object": {}, "null entry": [None],
                      "bad glob": ["["], "double star": ["**"], "empty text": [""]},
    "allowed_paths": {"empty": {}, "null": None, "array": [], "number value": {"/": 5}, "null value": {"/": None}, "text": "/"},
    "timeout_ms": {"good": 1000, "null": None, "negative": -1, "float": 1.5, "text": "5", "large": 1 << 62, "2^63": 1 << 63, "2^64-1": (1 << 64) - 1, "2^64": 1 << 64,
                   "bool": True, "whole float": 1000.0},
    "memory": {"empty": {}, "null": None, "all": {"max_pages": 100, "max_http_response_bytes": 5, "max_var_bytes": 5}, "unknown": {"max": 1},
               "array": [], "number": 5, "pages null": {"max_pages": None}, "pages negative": {"max_pages": -1}, "pages text": {"max_pages": "5"},
               "pages large": {"max_pages": 65536}, "pages 2^32-1": {"max_pages": (1 << 32) - 1}, "pages 2^32": {"max_pages": 1 << 32}, "pages float": {"max_pages": 1.5},
               "response null": {"max_http_response_bytes": None}, "response negative": {"max_http_response_bytes": -1},
               "response large": {"max_http_response_bytes": (1 << 64) - 1}, "vars null": {"max_var_bytes": None}, "vars negative": {"max_var_bytes": -1},
               "vars text": {"max_var_bytes": "x"}},
    "unknown": {"number": 1, "null": None}, "Config": {"upper case": {}}, "timeout": {"number": 5}, "version": {"number": 1},
}


@script(tuple(FIELDS))
def fields(t):
    """Each field with good, odd and bad values."""
    for name, value in FIELDS[t.variant].items():
        in_both(t, name, {t.variant: value, "wasm": [GOOD]})


@script()
def json_texts(t):
    """JSON that is odd in itself."""
    wasm = f'"wasm":[{{"data":"{ENCODED}"}}]'
    texts = {
        "trailing comma": f"{{{wasm},}}", "trailing text": f"{{{wasm}}} x", "two objects": f"{{{wasm}}}{{{wasm}}}", "comment": f"{{ // x\n{wasm}}}",
        "single quotes": f"{{{wasm}}}".replace('"', "'"), "doubled field": f'{{"timeout_ms":1000,"timeout_ms":2000,{wasm}}}',
        "doubled wasm": f"{{{wasm},{wasm}}}", "doubled config key": f'{{"config":{{"a":"1","a":"2"}},{wasm}}}', "BOM": f"\ufeff{{{wasm}}}",
        "escaped field": f'{{"\\u0077asm":[{{"data":"{ENCODED}"}}]}}', "deep": "[" * 200 + "]" * 200, "leading newline": f"\n\t {{{wasm}}}",
        "lone surrogate": f'{{"config":{{"a":"\\ud800"}},{wasm}}}', "NUL in text": f'{{"config":{{"a":"\\u0000"}},{wasm}}}',
        "trailing newline": f"{{{wasm}}}\n", "NaN": f'{{"timeout_ms":NaN,{wasm}}}', "exponent": f'{{"timeout_ms":1e3,{wasm}}}', "minus zero": f'{{"timeout_ms":-0,{wasm}}}',
    }
    for name, text in texts.items():
        t.created(name, lambda: t.lib.plugin(text))


@script()
def toml_texts(t):
    """TOML in its several forms."""
    texts = {
        "tables": f'timeout_ms = 1000\n[[wasm]]\ndata = "{ENCODED}"\n[config]\na = "b"\n[memory]\nmax_pages = 10\n',
        "dotted keys": f'memory.max_pages = 10\nconfig.a = "b"\n[[wasm]]\ndata = "{ENCODED}"\n',
        "two modules": f'[[wasm]]\nname = "a"\ndata = "{ENCODED}"\n[[wasm]]\nname = "main"\ndata = "{ENCODED}"\n',
        "literal strings": f"[[wasm]]\ndata = '{ENCODED}'\n", "multi-line string": f'[[wasm]]\ndata = """{ENCODED}"""\n',
        "wasm as a table": f'[wasm]\ndata = "{ENCODED}"\n', "doubled key": f'timeout_ms = 1\ntimeout_ms = 2\n[[wasm]]\ndata = "{ENCODED}"\n',
        "hexadecimal": f'timeout_ms = 0x100\n[[wasm]]\ndata = "{ENCODED}"\n', "underscores": f'timeout_ms = 1_000\n[[wasm]]\ndata = "{ENCODED}"\n',
        "only a comment": "# nothing\n", "broken": "[[wasm\n", "unknown field": f'x = 1\n[[wasm]]\ndata = "{ENCODED}"\n',
        "unknown table": f'[x]\n[[wasm]]\ndata = "{ENCODED}"\n', "date": f'timeout_ms = 2020-01-01\n[[wasm]]\ndata = "{ENCODED}"\n',
        "pointer": '[[wasm]]\ndata = { ptr = 0, len = "x" }\n', "CRLF": f'[[wasm]]\r\ndata = "{ENCODED}"\r\n',
        "empty array": "wasm = []\n", "key without value": "wasm\n",
    }
    for name, text in texts.items():
        plugin = t.created(name, lambda: t.lib.plugin(text))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def not_kept(t):
    """What a manifest says holds for each plug-in of a compiled one."""
    spin = b'(module (func (export "spin") (loop (br 0))))'
    compiled = t.lib.compiled({"wasm": [data(spin)], "timeout_ms": 150})
    for _ in range(2):
        t.result(f"plug-in {len(t.seen)}", compiled.plugin().call("spin"))


@script()
def messages(t):
    """A wrong manifest is refused with a message that names the field."""
    from capi import Refused
    for field, manifest in {"max_pagez": {"wasm": [GOOD], "memory": {"max_pagez": 1}}, "timeout_ms": {"wasm": [GOOD], "timeout_ms": "x"},
                            "unknown_thing": {"wasm": [GOOD], "unknown_thing": 1}, "nowhere.wasm": {"wasm": [{"path": "/nowhere.wasm"}]}}.items():
        for kind in ("JSON", "TOML"):
            text = json.dumps(manifest) if kind == "JSON" else "".join(f"{k} = {toml(v)}\n" for k, v in manifest.items())
            try:
                t.lib.plugin(text)
            except Refused as refused:
                t.see(f"{field} ({kind})", field in str(refused), note=str(refused))
