"""Logging: log_* and get_log_level of the guest, extism_log_file, extism_log_custom, extism_log_drain."""

import ctypes as c
import os
import re
from contextlib import contextmanager

from capi import Drain
from observe import script
from probe import Probe

LEVELS = ("trace", "debug", "info", "warn", "error")


def normal(text):
    """Log lines without what differs in each run: time, plug-in, place of wasm in memory."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", text)
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)


def of_plugins(text):
    """The lines of the plug-in itself: what the library says beside them is its own business."""
    return [line for line in normal(text).splitlines() if "extism::pdk" in line]


def log_all(p):
    p.t.see(f"get_log_level {len(p.t.seen)}", (yield "get_log_level"))
    for level in LEVELS:
        yield f"log_{level}", (yield from p.put(f"to {level}".encode()))


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@contextmanager
def captured(fd, path):
    """What is written to a standard stream goes into a file meanwhile."""
    kept = os.dup(fd)
    with open(path, "wb") as file:
        os.dup2(file.fileno(), fd)
    yield
    os.dup2(kept, fd)


def to_file(t, level, name="log.txt"):
    path = t.text_file(name, "")
    ok = t.lib.extism_log_file(path.encode(), None if level is None else level.encode()) & 0xFF
    t.see(f"extism_log_file {level}", ok)
    return path


@script(LEVELS + ("off", "extism=trace", "extism::pdk=info", "extism=error,cranelift=debug", "other=trace", "WARN", "none"))
def file(t):
    """Each level and filter: what comes through, and what get_log_level says."""
    level = None if t.variant == "none" else t.variant
    path = to_file(t, level)
    t.result("run", Probe(t).run(log_all))
    t.see("lines", of_plugins(read(path)))


@script(("direct", "debug", "linked", "indirect"))
def ways(t):
    """The lines are the same by all ways of importing log_*."""
    path = to_file(t, "trace")
    t.result("run", Probe(t).run(log_all))
    t.see("lines", of_plugins(read(path)))


@script()
def without_logging(t):
    """No log is set up: nothing is written, the level is off."""
    t.result("run", Probe(t).run(log_all))


@script()
def contents(t):
    """Empty, multi-line, long, non-UTF-8 and odd texts."""
    path = to_file(t, "info")
    texts = {"empty": b"", "two lines": b"a\nb", "umlaut": "größe".encode(), "quotes": b'say "x"', "braces": b"{} {x}",
             "tab": b"a\tb", "escape": b"\x1b[31mred", "NUL": b"a\0b", "long": b"x" * 3000}
    for name, text in texts.items():
        def steps(p):
            yield "log_info", (yield from p.put(text))

        start = len(read(path))
        t.result(name, Probe(t).run(steps))
        t.see(f"{name}: lines", normal(read(path)[start:]))


@script()
def not_utf8(t):
    path = to_file(t, "info")

    def steps(p):
        yield "log_info", (yield from p.put(b"\xff\xfe"))
        t.see("continues", True)

    t.result("run", Probe(t).run(steps))
    t.see("lines", len(of_plugins(read(path))))


@script()
def takes_over(t):
    """log_* frees the block, also when its level is off."""
    to_file(t, "warn")

    def steps(p):
        for level in LEVELS:
            block = yield from p.put(b"text")
            yield f"log_{level}", block
            t.see(f"{level}: length", (yield "length", block))
            yield "free", block

    t.result("run", Probe(t).run(steps))


@script(("trace", "error"))
def dead_handles(t):
    """log_* with 0, a freed block and an absurd handle."""
    to_file(t, t.variant)
    for name, handle in {"none": 0, "absurd": 1 << 40}.items():
        for level in ("info", "error"):
            def steps(p):
                yield f"log_{level}", handle
                t.see(f"{level} {name} continues", True)

            t.result(f"{level} {name}", Probe(t).run(steps))


@script()
def bad_arguments(t):
    """Levels and files that do not exist."""
    lib = t.lib
    t.see("no such folder", lib.extism_log_file(b"/nonexistent/folder/log.txt", b"info") & 0xFF)
    t.see("empty path", lib.extism_log_file(b"", b"info") & 0xFF)
    t.see("not UTF-8 level", lib.extism_log_file(t.text_file("a", "").encode(), b"\xff") & 0xFF)


@script(("nonsense", "extism=nonsense", "", "a=b=c", "5"))
def bad_level(t):
    path = t.text_file("log.txt", "")
    t.see("result", t.lib.extism_log_file(path.encode(), t.variant.encode()) & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("lines", of_plugins(read(path)))


@script()
def empty_level(t):
    path = t.text_file("log.txt", "")
    t.see("result", t.lib.extism_log_file(path.encode(), b"") & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("lines", of_plugins(read(path)))


@script()
def appends(t):
    """An existing file is continued, not emptied."""
    path = t.text_file("log.txt", "what stood there\n")
    t.see("result", t.lib.extism_log_file(path.encode(), b"info") & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("content", normal(read(path)).splitlines()[:2])


@script()
def second_file(t):
    """A second extism_log_file in one process."""
    first, second = to_file(t, "info", "first.txt"), t.text_file("second.txt", "")
    t.result("before", Probe(t).run(log_all))
    t.see("second", t.lib.extism_log_file(second.encode(), b"error") & 0xFF)
    t.result("after", Probe(t).run(log_all))
    t.see("first's lines", len(of_plugins(read(first))))
    t.see("second's lines", len(of_plugins(read(second))))


@script(("-", "stderr", "stdout", "NULL"))
def streams(t):
    """The names of the standard streams; NULL is stderr."""
    out, err = str(t.scratch / "out"), str(t.scratch / "err")
    name = None if t.variant == "NULL" else t.variant.encode()
    with captured(1, out), captured(2, err):
        result = t.lib.extism_log_file(name, b"info") & 0xFF

        def steps(p):
            yield "log_warn", (yield from p.put(b"to a stream"))

        Probe(t).run(steps)
    t.see("result", result)
    plain = lambda path: [re.sub(r"\x1b\[\d*m", "", line) for line in of_plugins(read(path))]
    t.see("stdout", plain(out))
    t.see("stderr", plain(err))


def drained(t):
    lines = []
    t.lib.extism_log_drain(Drain(lambda data, size: lines.append(c.string_at(data, size).decode())))
    return lines


@script(LEVELS + ("none",))
def custom(t):
    """extism_log_custom buffers, extism_log_drain hands over."""
    t.see("result", t.lib.extism_log_custom(None if t.variant == "none" else t.variant.encode()) & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("drained", [normal(line) for line in drained(t) if "extism::pdk" in line])
    t.see("again", [line for line in drained(t) if "extism::pdk" in line])
    t.result("second run", Probe(t).run(log_all))
    t.see("second", len([line for line in drained(t) if "extism::pdk" in line]))


@script()
def drain_without_custom(t):
    t.see("drained", drained(t))


@script()
def custom_bad_level(t):
    t.see("result", t.lib.extism_log_custom(b"nonsense") & 0xFF)
    t.see("drained", drained(t))


@script()
def custom_twice(t):
    t.see("first", t.lib.extism_log_custom(b"info") & 0xFF)
    t.see("second", t.lib.extism_log_custom(b"debug") & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("drained", len([line for line in drained(t) if "extism::pdk" in line]))


@script()
def file_then_custom(t):
    path = to_file(t, "info")
    t.see("custom", t.lib.extism_log_custom(b"info") & 0xFF)
    t.result("run", Probe(t).run(log_all))
    t.see("in the file", len(of_plugins(read(path))))
    t.see("drained", len([line for line in drained(t) if "extism::pdk" in line]))


@script()
def drain_null(t):
    t.lib.extism_log_custom(b"info")
    t.lib.extism_log_drain(None)
    t.see("survived", True)
