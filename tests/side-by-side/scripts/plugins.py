"""Real plug-ins: those that the Go SDK and the Rust PDK bring, and those built by the Rust and the AssemblyScript PDK."""

import hashlib
import json
import re
from pathlib import Path

from capi import Function, I32, I64
from logs import of_plugins, read
from observe import script
from probe import data
from web import server

TEXT = b"Hello, World! AEIOU and \xc3\xbc. " * 20


def transformed(change):
    """A host function of type (i64) -> (i64): reads its block, frees it, returns the changed text."""

    def body(current, args, _data):
        text = current.block(args[0])
        current.free(args[0])
        return current.put(change(text))

    return body


def host_functions(t, calls):
    """All host functions that any of the plug-ins imports: SDKs hand in unused ones, too."""
    one = lambda name, change, namespace=None: Function(t.lib, name, [I64], [I64], transformed(change), namespace)
    note = lambda name: Function(t.lib, name, [I32], [], lambda *_: calls.append(name), "dylibso_observe")
    return [
        Function(t.lib, "mult", [I64, I64], [I64], lambda _c, args, _d: args[0] * args[1]),
        one("to_upper", bytes.upper, "host"), one("hostGreenMessage", lambda x: b"green " + x), one("hostPurpleMessage", lambda x: b"purple " + x),
        one("hello_world", lambda x: json.dumps({"count": json.loads(x)["count"] * 100}).encode()), one("shout", bytes.upper),
        note("instrument_enter"), note("instrument_exit"), note("instrument_memory_grow"),
    ]


def load(t, wasm, **manifest):
    """A plug-in with WASI, a log, all host functions; what its calls are is written down."""
    calls = []
    plugin = t.created("created", lambda: t.lib.plugin(dict(manifest, wasm=wasm if isinstance(wasm, list) else [data(wasm)]), host_functions(t, calls), wasi=True))
    return plugin, calls


def play(t, plugin, *calls, own=False):
    for n, (name, text) in enumerate(calls):
        t.see(f"{n} {name}: exists", plugin.exists(name))
        t.result(f"{n} {name}", plugin.call(name, text), own)


# For each plug-in of the Go SDK the calls; what it reads stands in SETTINGS.
GO = {
    "alloc": [("run_test", b"")] * 3,
    "config": [("run_test", b"")] * 2,
    "count_vowels": [("count_vowels", b""), ("count_vowels", b"Hello, World!"), ("count_vowels", TEXT), ("count_vowels", b"x" * 100000)],
    "count_vowels_std": [("_start", b"Hello, World!"), ("_start", TEXT), ("_start", b"")],
    "exit": [("_start", b"")] * 2,
    "fail": [("run_test", b"")] * 2,
    "fs": [("run_test", b""), ("_start", b""), ("run_test", b"")],
    "fs_std": [("run_test", b"")] * 2,
    "hello": [("run_test", b"")] * 2,
    "hello_haskell": [("testing", b"John"), ("testing", b"Jane")],
    "host": [("run_test", b"")] * 2,
    "host_memory": [("run_test", b"Frodo"), ("run_test", b"")],
    "host_multiple": [("say_green", b"John Doe"), ("say_purple", b"Jane Doe"), ("say_green", b"x" * 1000)],
    "http": [("run_test", b"")],
    "input_offset": [("input_offset_length", b"hello world"), ("input_offset_length", b"")],
    "lib": [("capitalize", b"x"), ("_start", b"")],
    "log": [("run_test", b"")] * 2,
    "main": [("run_test", b"benjamin"), ("run_test", b"x"), ("run_test", b"benjamin")],
    "nested.c.instr": [("_start", b"")] * 2,
    "noop": [("run_test", b"")] * 2,
    "println": [("run_test", b"printed")] * 2,
    "read_write": [("try_read", b""), ("try_write", b"hello hello!"), ("try_read", b"")],
    "replace": [("run_test", b"a test with a word"), ("run_test", TEXT)],
    "sleep": [("run_test", b"")],
    "std_command": [("_start", b"ben"), ("_start", b"jane")],
    "var": [("run_test", b"")] * 3,
}


@script(tuple(GO), deadline=120, needs="go-sdk-wasm")
def go_sdk(t):
    """The Go SDK's plug-ins: TinyGo, Go, Rust, Haskell, C."""
    log = t.text_file("log.txt", "")
    t.lib.extism_log_file(log.encode(), b"trace")
    t.text_file("mnt/test.txt", "hello world!")
    wasm = [dict(data(t.file("go-sdk-wasm", f"{t.variant}.wasm")), name="main")]
    if t.variant == "main":
        wasm.append(dict(data(t.file("go-sdk-wasm", "lib.wasm")), name="lib"))
    config = {"thing": "123", "code": "12", "path": "/mnt/test.txt", "greeting": "Howdy", "duration": "0"}
    plugin, calls = load(t, wasm, config=config, allowed_paths={str(t.scratch / "mnt"): "/mnt"})
    if plugin:
        play(t, plugin, *GO[t.variant], own=t.variant == "fail")
    t.see("host functions", len(calls))
    # host_memory logs handles, which are each library's own choice.
    t.see("log", [re.sub(r"offset: \d+", "offset: N", line) for line in of_plugins(read(log))])
    t.see("file", read(t.scratch / "mnt" / "test.txt"))


@script(("0", "1", "2", "100", "-1", "500", "abc", ""), needs="go-sdk-wasm")
def go_exit(t):
    """exit.wasm ends with the code of its configuration."""
    config = {"code": t.variant} if t.variant else {}
    plugin, _ = load(t, t.file("go-sdk-wasm", "exit.wasm"), config=config)
    play(t, plugin, ("_start", b""), ("_start", b""))


@script(needs="go-sdk-wasm", deadline=30)
def go_sleep_timeout(t):
    """sleep.wasm sleeps longer than its plug-in may."""
    plugin, _ = load(t, t.file("go-sdk-wasm", "sleep.wasm"), config={"duration": "2"}, timeout_ms=300)
    play(t, plugin, ("run_test", b""))


@script(needs="go-sdk-wasm")
def go_http_headers(t):
    """http_headers.wasm asks our own server."""
    web = server()
    for allowed in (False, True):
        plugin = t.lib.plugin({"wasm": [data(t.file("go-sdk-wasm", "http_headers.wasm"))], "allowed_hosts": ["127.0.0.1"]})
        if allowed:
            t.lib.extism_plugin_allow_http_response_headers(plugin.handle)
        result = plugin.call("http_get", json.dumps({"url": web.base + "/a"}).encode())
        names = json.loads(result.output or b"{}")
        t.see(f"allowed {allowed}", [result.code, {k: v for k, v in names.items() if k.startswith("x-")}])
        t.error(f"allowed {allowed}: error", result.error)


@script(("count_vowels", "code", "host_function"), needs="rust-pdk-wasm")
def rust_pdk_ready_made(t):
    """The plug-ins that the crate extism-pdk brings."""
    plugin, _ = load(t, t.file("rust-pdk-wasm", f"{t.variant}.wasm"), config={"thing": "a thing"})
    if plugin:
        play(t, plugin, *[("count_vowels", text) for text in (b"", b"Hello, World!", TEXT, b"\xff not UTF-8", b"aeiou" * 50000)], own=True)


@script(("http", "http_headers"), needs="rust-pdk-wasm")
def rust_pdk_http(t):
    web = server()
    for allowed in (False, True):
        plugin, _ = t.lib.plugin({"wasm": [data(t.file("rust-pdk-wasm", f"{t.variant}.wasm"))], "allowed_hosts": ["127.0.0.1"]}), None
        if allowed:
            t.lib.extism_plugin_allow_http_response_headers(plugin.handle)
        for name, text in {"get": json.dumps({"url": web.base + "/a"}).encode(), "no JSON": b"{", "404": json.dumps({"url": web.base + "/status/404"}).encode()}.items():
            result = plugin.call("http_get", text)
            output = result.output
            if t.variant == "http_headers" and output:
                output = {k: v for k, v in json.loads(output).items() if k.startswith("x-")}
            t.see(f"{allowed} {name}", [result.code, output])
            t.error(f"{allowed} {name}: error", result.error)
    plugin = t.lib.plugin({"wasm": [data(t.file("rust-pdk-wasm", f"{t.variant}.wasm"))]})
    t.result("not allowed", plugin.call("http_get", json.dumps({"url": web.base + "/a"}).encode()))


@script((None, "debug"), needs="rust-pdk-wasm/built.wasm")
def rust_pdk_built(t):
    """The plug-in of tests/guests/rust-pdk: each part of the PDK."""
    web = server()
    log = t.text_file("log.txt", "")
    t.lib.extism_log_file(log.encode(), b"debug")
    plugin, _ = load(t, t.file("rust-pdk-wasm", "built.wasm"), config={"key": "its value"}, allowed_hosts=["127.0.0.1"])
    t.lib.extism_plugin_allow_http_response_headers(plugin.handle)
    play(t, plugin, ("count_vowels", TEXT), ("count_vowels", b""), ("echo", bytes(range(256)) * 100), ("echo", b""),
         ("remember", b""), ("remember", b""), ("remember", b"forget"), ("remember", b""), ("configured", b"key"), ("configured", b"none"),
         ("ask_host", b"whisper"), ("logs", b"a line"), ("words", b"one two one three two one"), ("blocks", (5000).to_bytes(4, "little")))
    play_own = [("fail", b"the reason"), ("fail", b"")]
    for n, (name, text) in enumerate(play_own):
        t.result(f"own {n} {name}", plugin.call(name, text), own=True)
    result = plugin.call("panic", b"at the disco")
    t.see("panic", [result.code, result.output])
    t.error("panic: error", result.error)
    t.result("afterwards", plugin.call("echo", b"still here"))
    for path in ("/a", "/status/404", "/empty"):
        t.result(f"fetch {path}", plugin.call("fetch", json.dumps({"url": web.base + path}).encode()))
    t.result("fetch elsewhere", plugin.call("fetch", b'{"url":"http://192.0.2.1/"}'))
    t.see("log", of_plugins(read(log)))


@script((None, "debug"), needs="as-pdk-wasm")
def as_pdk_built(t):
    """The plug-in of tests/guests/as-pdk."""
    log = t.text_file("log.txt", "")
    t.lib.extism_log_file(log.encode(), b"info")
    plugin, _ = load(t, t.file("as-pdk-wasm", "built.wasm"), config={"key": "its value"})
    play(t, plugin, ("count_vowels", b"Hello, World!"), ("count_vowels", b""), ("echo", bytes(range(256)) * 20), ("echo", b""), ("remember", b""), ("remember", b""),
         ("remember", b"forget"), ("remember", b""), ("configured", b"key"), ("configured", b"none"), ("ask_host", b"whisper"), ("logs", b"a line"), ("aborts", b""), ("echo", b"x"))
    t.see("log", of_plugins(read(log)))


@script(("count_vowels", "counter", "kv", "shout"), deadline=40)
def c_examples(t):
    """The plug-ins of c-examples."""
    wasm = (Path(__file__).parents[3] / "c-examples" / "wasm" / f"{t.variant}.wasm").read_bytes()
    store = {}

    def read_key(current, args, _data):
        value = store.get(current.block(args[0]))
        return current.put(value) if value else 0

    def write_key(current, args, _data):
        store[current.block(args[0])] = current.block(args[1])

    functions = [Function(t.lib, "kv_read", [I64], [I64], read_key), Function(t.lib, "kv_write", [I64, I64], [], write_key),
                 Function(t.lib, "to_upper", [I64], [I64], transformed(bytes.upper))]
    plugin = t.lib.plugin({"wasm": [data(wasm)], "timeout_ms": 500}, functions)
    calls = {"count_vowels": [("count_vowels", b""), ("count_vowels", TEXT)], "counter": [("next", b""), ("next", b""), ("forever", b""), ("next", b"")],
             "kv": [("visit", b"ada"), ("visit", b"ada"), ("visit", b"bob"), ("visit", b"")], "shout": [("shout", b"quiet"), ("shout", b"")]}
    play(t, plugin, *calls[t.variant], own=t.variant == "kv")
    t.see("store", sorted(k.decode() + "=" + v.decode("latin-1") for k, v in store.items()))


@script(("c-examples", "rust-pdk", "go-sdk"), deadline=120)
def ten_mebibytes(t):
    """Count vowels in a text of 10 MiB."""
    places = {"c-examples": Path(__file__).parents[3] / "c-examples/wasm/count_vowels.wasm", "rust-pdk": t.cache / "rust-pdk-wasm/count_vowels.wasm",
              "go-sdk": t.cache / "go-sdk-wasm/count_vowels.wasm"}
    if not places[t.variant].exists():
        return
    text = b"".join(hashlib.sha256(str(n).encode()).hexdigest().encode() for n in range((10 << 20) // 64))
    plugin, _ = load(t, places[t.variant].read_bytes())
    t.result("call", plugin.call("count_vowels", text))
    t.result("again", plugin.call("count_vowels", text[:1000]))
