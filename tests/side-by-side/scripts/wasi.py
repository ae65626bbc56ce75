"""WASI preview 1: what a plug-in with with_wasi sees of the world."""

import os
import threading
import time

from capi import Function, I32
from observe import script
from probe import data

# A guest that calls one WASI function and puts memory [0, 256) into the output.
GUEST = """(module
  (import "wasi_snapshot_preview1" "{name}" (func $it {type}))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory (export "memory") 2) {data}
  (func (export "f") (result i32) (local $b i64) (local $i i32) (local $code i32)
    {call}
    (local.set $b (call $alloc (i64.const 256)))
    (loop (call $store (i64.add (local.get $b) (i64.extend_i32_u (local.get $i))) (i32.load8_u (local.get $i)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if 0 (i32.lt_u (local.get $i) (i32.const 256))))
    (call $output (local.get $b) (i64.const 256))
    (local.get $code)))"""


def guest(name, kind, arguments, content=""):
    code = f"(call $it {arguments})"
    if "result" in kind:
        code = f"(local.set $code {code})"
    return GUEST.format(name=name, type=kind, call=code, data=content)


def i32s(*values):
    return " ".join(f"(i32.const {v})" for v in values)


TWO = "(param i32 i32) (result i32)"


@script()
def environment(t):
    """No arguments, no environment variables, no inherited directories."""
    cases = {
        "args_sizes_get": guest("args_sizes_get", TWO, i32s(0, 4)),
        "args_get": guest("args_get", TWO, i32s(0, 100)),
        "environ_sizes_get": guest("environ_sizes_get", TWO, i32s(0, 4)),
        "environ_get": guest("environ_get", TWO, i32s(0, 100)),
        "fd_prestat_get 3": guest("fd_prestat_get", TWO, i32s(3, 0)),
        "fd_prestat_get 0": guest("fd_prestat_get", TWO, i32s(0, 0)),
        "fd_fdstat_get 0": guest("fd_fdstat_get", TWO, i32s(0, 0)),
        "fd_fdstat_get 1": guest("fd_fdstat_get", TWO, i32s(1, 0)),
        "fd_fdstat_get 2": guest("fd_fdstat_get", TWO, i32s(2, 0)),
        "fd_fdstat_get 3": guest("fd_fdstat_get", TWO, i32s(3, 0)),
        "fd_close 99": guest("fd_close", "(param i32) (result i32)", i32s(99)),
        "fd_close 1": guest("fd_close", "(param i32) (result i32)", i32s(1)),
        "clock_res_get": guest("clock_res_get", TWO, i32s(1, 200)),
        "sched_yield": guest("sched_yield", "(result i32)", ""),
        "fd_read 0": guest("fd_read", "(param i32 i32 i32 i32) (result i32)", i32s(0, 0, 1, 8), '(data (i32.const 0) "\\64\\00\\00\\00\\20\\00\\00\\00")'),
        "fd_read 7": guest("fd_read", "(param i32 i32 i32 i32) (result i32)", i32s(7, 0, 1, 8)),
        "fd_write 9": guest("fd_write", "(param i32 i32 i32 i32) (result i32)", i32s(9, 0, 1, 8)),
        "pointer outside": guest("args_sizes_get", TWO, i32s(-1, -1)),
        "random_get 0": guest("random_get", TWO, i32s(0, 0)),
    }
    for name, wat in cases.items():
        plugin = t.created(f"{name}: created", lambda: t.lib.plugin(wat, wasi=True))
        if plugin:
            t.result(name, plugin.call("f"))


@script()
def clocks_and_random(t):
    """Clocks go on, random bytes are random."""
    clock = "(param i32 i64 i32) (result i32)"
    for number, name in enumerate(("realtime", "monotonic")):
        plugin = t.lib.plugin(guest("clock_time_get", clock, f"(i32.const {number}) (i64.const 0) (i32.const 0)"), wasi=True)
        first = plugin.call("f")
        second = plugin.call("f")
        times = [int.from_bytes(r.output[:8], "little") for r in (first, second)]
        t.see(f"{name}: codes", [first.code, second.code])
        t.see(f"{name}: goes on", times[0] <= times[1])
        if name == "realtime":
            t.see("is now", abs(times[0] / 1e9 - time.time()) < 60)
    plugin = t.lib.plugin(guest("clock_time_get", clock, "(i32.const 9) (i64.const 0) (i32.const 0)"), wasi=True)
    t.result("no such clock", plugin.call("f"))
    plugin = t.lib.plugin(guest("random_get", TWO, i32s(0, 32)), wasi=True)
    first, second = plugin.call("f").output[:32], plugin.call("f").output[:32]
    t.see("random differs", first != second and first != bytes(32))


@script()
def without_wasi(t):
    """Without with_wasi its functions are missing imports."""
    t.created("created", lambda: t.lib.plugin(guest("sched_yield", "(result i32)", "")))


@script()
def unknown_function(t):
    t.created("preview 1", lambda: t.lib.plugin('(module (import "wasi_snapshot_preview1" "nope" (func)))', wasi=True))
    t.created("unstable", lambda: t.lib.plugin('(module (import "wasi_unstable" "sched_yield" (func (result i32))))', wasi=True))


WRITE = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1) (data (i32.const 0) "\\10\\00\\00\\00\\06\\00\\00\\00") (data (i32.const 16) "hello\\n")
  (func (export "out") (result i32) (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
  (func (export "err") (result i32) (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8))))"""


def streams(t):
    from logs import captured, read
    out, err = str(t.scratch / "out"), str(t.scratch / "err")
    with captured(1, out), captured(2, err):
        plugin = t.lib.plugin(WRITE, wasi=True)
        codes = [plugin.call("out").code, plugin.call("err").code]
        plugin.free()
        time.sleep(0.1)
    t.see("codes", codes)
    t.see("stdout", read(out))
    t.see("stderr", read(err))


@script()
def output_closed(t):
    """A plug-in's standard streams go nowhere by default."""
    streams(t)


@script(env={"EXTISM_ENABLE_WASI_OUTPUT": "1"})
def output_enabled(t):
    """EXTISM_ENABLE_WASI_OUTPUT connects them with the process's."""
    streams(t)


@script()
def sleeping(t):
    """poll_oneoff waits, for as long as asked, and not past the timeout."""
    # One subscription: relative monotonic clock, 300 ms or 5 s.
    for name, nanos, timeout in (("300 ms", 300_000_000, None), ("5 s with timeout", 5_000_000_000, 300), ("0", 0, None)):
        subscription = bytes(8) + bytes([0] * 8) + (1).to_bytes(8, "little") + nanos.to_bytes(8, "little") + bytes(16)
        content = "".join(f"\\{b:02x}" for b in subscription)
        wat = guest("poll_oneoff", "(param i32 i32 i32 i32) (result i32)", i32s(1024, 64, 1, 128), f'(data (i32.const 1024) "{content}")')
        manifest = {"wasm": [data(wat)], "timeout_ms": timeout}
        plugin = t.lib.plugin(manifest, wasi=True)
        started = time.monotonic()
        result = plugin.call("f")
        took = time.monotonic() - started
        t.see(f"{name}: code", result.code)
        t.error(f"{name}: error", result.error)
        t.see(f"{name}: took", "short" if took < 0.25 else "as asked" if took < 1.5 else "long")


@script()
def cancelled_sleep(t):
    """A cancel ends a sleep."""
    subscription = bytes(8) + bytes(8) + (1).to_bytes(8, "little") + (3_000_000_000).to_bytes(8, "little") + bytes(16)
    content = "".join(f"\\{b:02x}" for b in subscription)
    wat = guest("poll_oneoff", "(param i32 i32 i32 i32) (result i32)", i32s(1024, 64, 1, 128), f'(data (i32.const 1024) "{content}")')
    plugin = t.lib.plugin(wat, wasi=True)
    threading.Timer(0.3, plugin.cancel).start()
    started = time.monotonic()
    result = plugin.call("f")
    t.see("code", result.code)
    t.error("error", result.error)
    t.see("in time", time.monotonic() - started < 2)


# Opens the file "a.txt" below file descriptor 3 and reads from it, or writes "new!" into it.
FILES = """(module
  (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $name (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_unlink_file" (func $unlink (param i32 i32 i32) (result i32)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\00\\02\\00\\00\\40\\00\\00\\00") (data (i32.const 16) "\\20\\00\\00\\00\\04\\00\\00\\00")
  (data (i32.const 32) "new!") (data (i32.const 64) "{path}")
  (func $give (param $at i32) (param $n i32) (local $b i64) (local $i i32)
    (local.set $b (call $alloc (i64.extend_i32_u (local.get $n))))
    (loop (call $store (i64.add (local.get $b) (i64.extend_i32_u (local.get $i))) (i32.load8_u (i32.add (local.get $at) (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if 0 (i32.lt_u (local.get $i) (local.get $n))))
    (call $output (local.get $b) (i64.extend_i32_u (local.get $n))))
  (func $path (param $flags i32) (param $rights i64) (result i32)
    (call $open (i32.const {fd}) (i32.const 0) (i32.const 64) (i32.const {length}) (local.get $flags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 8)))
  (func (export "read") (result i32) (local $code i32)
    (local.set $code (call $path (i32.const 0) (i64.const 2)))
    (if (local.get $code) (then (return (local.get $code))))
    (local.set $code (call $read (i32.load (i32.const 8)) (i32.const 0) (i32.const 1) (i32.const 12)))
    (if (i32.load (i32.const 12)) (then (call $give (i32.const 512) (i32.load (i32.const 12)))))
    (drop (call $close (i32.load (i32.const 8)))) (local.get $code))
  (func (export "write") (result i32) (local $code i32)
    (local.set $code (call $path (i32.const 9) (i64.const 64)))
    (if (local.get $code) (then (return (local.get $code))))
    (local.set $code (call $write (i32.load (i32.const 8)) (i32.const 16) (i32.const 1) (i32.const 12)))
    (drop (call $close (i32.load (i32.const 8)))) (local.get $code))
  (func (export "unlink") (result i32) (call $unlink (i32.const {fd}) (i32.const 64) (i32.const {length})))
  (func (export "name") (result i32) (local $code i32)
    (local.set $code (call $name (i32.const {fd}) (i32.const 512) (i32.const {length})))
    (call $give (i32.const 512) (i32.const {length})) (local.get $code)))"""


def files(path, fd=3):
    return data(FILES.replace("{path}", path).replace("{fd}", str(fd)).replace("{length}", str(len(path))))


@script()
def allowed_paths(t):
    """allowed_paths: readable and writable, `ro:` only readable, nothing outside."""
    t.text_file("outside.txt", "secret")
    folder = str(t.scratch / "dir")
    os.symlink("../outside.txt", (os.makedirs(folder), f"{folder}/link.txt")[1])
    for mode in ("", "ro:"):
        for path in ("a.txt", "../outside.txt", "link.txt", "/etc/passwd", "missing.txt", "sub/b.txt"):
            t.text_file("dir/a.txt", "content of a")
            t.text_file("dir/sub/b.txt", "content of b")
            manifest = {"wasm": [files(path)], "allowed_paths": {mode + folder: "/data"}}
            plugin = t.created(f"{mode}{path}", lambda: t.lib.plugin(manifest, wasi=True))
            if not plugin:
                continue
            for call in ("read", "write", "unlink"):
                result = plugin.call(call)
                t.see(f"{mode}{path}: {call}", [result.code, plugin.output() if call == "read" else ""])
                t.error(f"{mode}{path}: {call} error", result.error)
            t.see(f"{mode}{path}: left", sorted(os.listdir(folder)))
    t.see("outside", open(t.scratch / "outside.txt").read())


@script()
def guest_paths(t):
    """Names under which directories appear; several of them; ones that do not exist."""
    folder = str(t.scratch / "dir")
    t.text_file("dir/a.txt", "content of a")
    for name, paths in {"slash": {folder: "/"}, "relative": {folder: "data"}, "deep": {folder: "/x/y"}, "none": {}, "null": None,
                        "missing": {folder + "/nope": "/d"}, "a file": {folder + "/a.txt": "/d"}, "empty name": {folder: ""},
                        "two": {folder: "/one", str(t.scratch): "/two"}, "ro missing": {"ro:" + folder + "/nope": "/d"}}.items():
        plugin = t.created(f"{name}: created", lambda: t.lib.plugin({"wasm": [files("a.txt")], "allowed_paths": paths}, wasi=True))
        if plugin:
            result = plugin.call("read")
            t.see(f"{name}: read", result.code if name != "two" else "not compared")
            t.error(f"{name}: error", result.error)
            if name == "two":
                continue
            t.see(f"{name}: name", plugin.call("name").code)
            t.see(f"{name}: its text", plugin.output())


@script()
def paths_without_wasi(t):
    """allowed_paths without with_wasi."""
    t.created("created", lambda: t.lib.plugin({"wasm": [data("(module)")], "allowed_paths": {"/": "/"}}))


@script()
def memory_under_another_name(t):
    """A WASI module that does not export its memory."""
    wat = """(module (import "wasi_snapshot_preview1" "sched_yield" (func $y (result i32)))
      (import "wasi_snapshot_preview1" "random_get" (func $r (param i32 i32) (result i32)))
      (memory 1) (func (export "f") (result i32) (call $r (i32.const 0) (i32.const 8))))"""
    plugin = t.created("created", lambda: t.lib.plugin(wat, wasi=True))
    if plugin:
        t.result("f", plugin.call("f"))


@script()
def commands(t):
    """_start runs in a fresh instance each time; variables survive."""
    wat = """(module
      (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
      (import "extism:host/env" "store_u8" (func $store (param i64 i32)))
      (import "extism:host/env" "length" (func $length (param i64) (result i64)))
      (import "extism:host/env" "load_u8" (func $load (param i64) (result i32)))
      (import "extism:host/env" "output_set" (func $output (param i64 i64)))
      (import "extism:host/env" "var_get" (func $get (param i64) (result i64)))
      (import "extism:host/env" "var_set" (func $set (param i64 i64)))
      (global $count (mut i32) (i32.const 0)) (memory (export "memory") 1)
      (func $block (param i32) (result i64) (local $b i64) (local.set $b (call $alloc (i64.const 1)))
        (call $store (local.get $b) (local.get 0)) (local.get $b))
      (func $step (local $old i64) (local $n i32)
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (local.set $old (call $get (call $block (i32.const 107))))
        (if (i64.ne (local.get $old) (i64.const 0)) (then (local.set $n (call $load (local.get $old)))))
        (call $set (call $block (i32.const 107)) (call $block (i32.add (local.get $n) (i32.const 1))))
        (local.set $old (call $alloc (i64.const 2)))
        (call $store (local.get $old) (i32.add (i32.const 48) (global.get $count)))
        (call $store (i64.add (local.get $old) (i64.const 1)) (i32.add (i32.const 49) (local.get $n)))
        (call $output (local.get $old) (i64.const 2)))
      (func (export "_start") (call $step)) (func (export "step") (call $step)))"""
    for wasi in (True, False):
        plugin = t.lib.plugin(wat, wasi=wasi)
        for n, name in enumerate(("_start", "_start", "step", "step", "_start", "step")):
            t.result(f"wasi {wasi}: {n} {name}", plugin.call(name))


@script()
def commands_that_end(t):
    """_start that exits, traps, or returns a number."""
    bodies = {"exit 0": "(call $exit (i32.const 0))", "exit 5": "(call $exit (i32.const 5))", "trap": "unreachable", "nothing": ""}
    for name, body in bodies.items():
        plugin = t.lib.plugin(f"""(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (func (export "_start") {body}))""", wasi=True)
        for attempt in (1, 2):
            t.result(f"{name} {attempt}", plugin.call("_start"))


INITIALISERS = ("hs_init", "_initialize", "__wasm_call_ctors")


@script(tuple(" ".join(n for i, n in enumerate(INITIALISERS) if mask >> i & 1) or "none" for mask in range(8)))
def start_up_order(t):
    """hs_init after _initialize, else __wasm_call_ctors, else _initialize; once, before the first call."""
    present = [n for n in INITIALISERS if n in t.variant.split()]
    calls = []
    note = Function(t.lib, "note", [I32], [], lambda _c, args, _d: calls.append((*INITIALISERS, "f")[args[0]]))
    exports = "".join(f'(func (export "{n}") {"(param i32 i32)" if n == "hs_init" else ""} (call $note (i32.const {INITIALISERS.index(n)})))'
                      for n in present)
    plugin = t.lib.plugin(f"""(module (import "extism:host/user" "note" (func $note (param i32))) (memory (export "memory") 1)
      {exports} (func (export "f") (call $note (i32.const 3))))""", [note], wasi=True)
    t.see("at creation", list(calls))
    calls.clear()
    plugin.call("f")
    plugin.call("f")
    t.see("in two calls", list(calls))
    plugin.reset()
    calls.clear()
    plugin.call("f")
    t.see("after a reset", list(calls))


@script()
def start_function_calls_the_host(t):
    """A start function that calls a host function: never at creation, before the first call."""
    calls = []
    note = Function(t.lib, "note", [], [], lambda *_: calls.append(1))
    plugin = t.lib.plugin("""(module (import "extism:host/user" "note" (func $note)) (func $s (call $note)) (start $s)
      (func (export "f") (result i32) (i32.const 2)))""", [note])
    t.see("at creation", list(calls))
    t.result("f", plugin.call("f"))
    t.result("f again", plugin.call("f"))
    t.see("in two calls", calls)


@script()
def odd_initialisers(t):
    """Start-up exports of another type are no start-up exports."""
    for name, export in {"_initialize with a parameter": '(func (export "_initialize") (param i32) unreachable)',
                         "_initialize with a result": '(func (export "_initialize") (result i32) (i32.const 1))',
                         "_initialize is a memory": '(memory (export "_initialize") 1)',
                         "hs_init without parameters": '(func (export "hs_init") unreachable)',
                         "ctors with a parameter": '(func (export "__wasm_call_ctors") (param i32) unreachable)',
                         "_start with a result": '(func (export "_start") (result i32) (i32.const 4))'}.items():
        plugin = t.created(name, lambda: t.lib.plugin(f'(module {export} (func (export "f") (result i32) (i32.const 3)))', wasi=True))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))
            if "_start" in name:
                t.result(f"{name}: _start", plugin.call("_start"))
