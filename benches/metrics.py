"""What is measured: the rows of the table, and the real plug-ins.

A metric names what a worker is to do (benches/worker), and for the table what the aim is: by which
factor this library is to be ahead of libextism 1.41. `old` and `peer` are the figures that the aims
were set by; what counts is the ratio of two medians of the same run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

ROOT = Path(__file__).resolve().parent.parent
GUESTS = Path("benches/guests")
GO_SDK = Path("go-sdk-wasm")

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Metric:
    key: str
    what: str
    # The words for the worker: a metric of its own, and options. A path in an option is one below
    # the repository, or with `cache:` before it one of what was fetched.
    worker: tuple
    unit: str = "ns"
    # What is divided by: operations in one iteration.
    per: int = 1
    # The answer is no sum over the iterations, but what is looked for (as it always is where the unit is no time).
    whole: bool = False
    # The words for the bare-wasmtime program, if it has something to compare with.
    floor: Optional[tuple] = None
    # How it is sampled. None: one process takes all samples, and the number of iterations is chosen
    # to make each long enough. A number: a fresh process for each sample, and so many iterations.
    fresh: Optional[int] = None
    # A fixed number of iterations for one process.
    iterations: Optional[int] = None
    # With how many the search for the right number begins: fewer say nothing.
    at_first: int = 1
    disk_cache: bool = False
    more_is_better: bool = False
    # The aim.
    factor: Optional[float] = None
    stretch: Optional[float] = None
    # Instead of a factor: what ours is to reach by itself.
    at_least: Optional[float] = None
    aim: str = ""
    old: str = ""
    peer: str = ""
    # Whether the other runtimes can be asked, and under which name.
    peers: bool = False
    # Samples may be few where one takes seconds.
    slow: bool = False


@dataclass(frozen=True)
class Row:
    what: str
    metrics: tuple


def worker(name, **options):
    words = {key: int(value) if isinstance(value, bool) else value for key, value in options.items()}
    return (name, *(f"{key}={value}" for key, value in words.items()))


def small(name, call="empty", size=0, **options):
    return worker(name, file=GUESTS / "small.wat", call=call, size=size, **options)


def loop(call, **options):
    return worker("loop", file=GUESTS / "loops.wat", call=call, **options)


# The two large plug-ins: of the Rust PDK with its debug information (50 KB of code), and of Go's own
# compiler (1.4 MB of code).
RUST = {"file": f"cache:{GO_SDK}/count_vowels.wasm", "call": "count_vowels", "size": 20}
GO = {"file": f"cache:{GO_SDK}/fs_std.wasm", "call": "", "wasi": True}
RUST_SIZE, GO_SIZE = "1.9 MB Rust plug-in", "2.3 MB Go module"


def calls(key, what, size, export, factor, old, aim="", peer="", **more):
    words = small("call", export, size)
    return Metric(key, what, words, floor=words, factor=factor, old=old, aim=aim, peer=peer, **more)


def blocks(count, factor, old, aim, peer=""):
    return Metric(f"blocks_{count}", f"{count:,} live blocks", loop("blocks", count=count), per=3, factor=factor,
                  old=old, aim=aim, peer=peer, peers=True)


def six_times(key, old):
    return Metric(key, key, loop(key), factor=6, old=old, peers=True)


ROWS = (
    Row("call of an empty export", (
        Metric("call_empty", "", small("call"), floor=small("call"), factor=65, stretch=90, old="4.5 us", aim="70 ns",
               peer="73 ns (Chicory, no timeout), 530 ns (JS)", peers=True),)),
    Row("the same with host context, or with a timeout", (
        Metric("call_context", "host context", small("call_with_context"), floor=small("call"), factor=40,
               old="4.4 us", aim="110 ns"),
        Metric("call_timeout", "timeout", small("call", timeout_ms=60_000), floor=small("call"), factor=40,
               old="4.4 us", aim="110 ns", peer="31 us (Go)"))),
    Row("echo: the guest copies in, allocates, copies out, 8 bytes a time", (
        calls("echo_64", "64 B", 64, "echo", 20, "5.0 us", "0.25 us", "0.68 us (Chicory)", peers=True),
        calls("echo_4k", "4 KiB", 4 * KIB, "echo", 6, "8.2 us", "", "34 us", peers=True),
        calls("echo_64k", "64 KiB", 64 * KIB, "echo", 3.5, "54 us", "", "530 us", peers=True),
        calls("echo_64m", "64 MiB", 64 * MIB, "echo", 2, "55 ms"))),
    Row("output = input", (
        calls("identity_64k", "64 KiB", 64 * KIB, "identity", 2.5, "10.2 us"),
        calls("identity_64m", "64 MiB", 64 * MIB, "identity", 1.3, "8.3 ms"))),
    Row("consume (input only)", (
        calls("consume_64k", "64 KiB", 64 * KIB, "consume", 3.5, "31.6 us"),)),
    Row("alloc + length + free, per operation", (
        blocks(10, 7.7 / 12, "7.7 ns", "12 ns"),
        blocks(1_000, 555 / 20, "555 ns", "20 ns", "132 ns (JS)"),
        blocks(20_000, 11_480 / 25, "11,480 ns", "25 ns"))),
    Row("host function i64 -> i64", (
        Metric("host_function", "", loop("add_one"), floor=worker("loop", call="add_one_raw"), factor=7, stretch=9,
               old="71 ns", aim="10 ns", peer="13 ns (Chicory), 20 ns (JS)", peers=True),)),
    Row("host function that does alloc, length, memory, free", (
        Metric("host_memory", "", loop("use_block"), factor=10.6, old="1,060 ns", aim="100 ns", peers=True),)),
    Row("var_set / var_get / config_get / log below the level", (
        six_times("var_set", "1,180 ns"), six_times("var_get", "907 ns"), six_times("config_get", "925 ns"),
        six_times("log_debug", "496 ns"))),
    Row("first plug-in of a process, small module, no disk cache", (
        Metric("first_small", "", small("first"), floor=small("first"), fresh=1, factor=10.3 / 1.8, old="10.3 ms",
               aim="1.8 ms", peer="2.1 ms (JS)", peers=True),)),
    Row("the same module again", (
        Metric("again_small", "small", small("again"), factor=74, old="7.4 ms", aim="100 us", peer="0.8 ms (JS)",
               peers=True),
        Metric("again_large", GO_SIZE, worker("again", **GO), factor=745, old="1,490 ms", aim="2 ms",
               peer="45 ms (JS), 35 ms (Go, cached)", peers=True, slow=True))),
    Row("the same module in a new process, from disk", (
        Metric("disk_large", GO_SIZE, worker("first", **GO), floor=worker("load", **GO), fresh=1, disk_cache=True,
               factor=9.5, old="19 to 61 ms", aim="2 ms", peer="38 ms (Go)"),)),
    Row("a module never seen", (
        Metric("never_rust", f"{RUST_SIZE}, bytes to first result", worker("never", **RUST),
               floor=worker("compile", **RUST), factor=1, old="67 ms", aim="not slower", peer="8.6 ms (JS, lazily)",
               peers=True),
        Metric("compile_large", f"{GO_SIZE}, compile", worker("compile", **GO), floor=worker("compile", **GO),
               factor=1, old="1,100 to 1,500 ms", aim="not slower", peer="45 ms (JS, lazily)", slow=True))),
    Row("new from compiled + first call", (
        Metric("new_small", "small", small("new"), floor=small("new", pool=True), factor=10, old="41 + 18 us",
               aim="6 us", peer="67 us (Go)", peers=True),
        Metric("new_rust", RUST_SIZE, worker("new", **RUST), factor=10, old="94 + 36 us", aim="13 us",
               peer="710 us", peers=True))),
    Row("free of a plug-in", (
        Metric("free_small", "", small("free"), floor=small("free", pool=True), factor=41 / 6, old="41 us",
               aim="6 us"),)),
    Row("resident memory for each plug-in", (
        Metric("resident_small", "small", small("resident"), "bytes", fresh=1_000, factor=38 / 12, old="38 KiB",
               aim="12 KiB", peer="21 KiB (JS)"),
        Metric("resident_rust", RUST_SIZE, worker("resident", **RUST), "bytes", fresh=500, factor=2, old="90 KiB",
               aim="45 KiB"),
        Metric("resident_data", "the same from a manifest with `data`", worker("resident", data=True, **RUST), "bytes",
               fresh=100, factor=1_875 / 45, old="1,875 KiB", aim="45 KiB"))),
    Row("plug-ins alive at once", (
        Metric("alive", "(up to 20,000 are tried)", small("alive"), "count", fresh=20_000, more_is_better=True,
               factor=15_000 / 8_065, old="8,065", aim="15,000", slow=True),)),
    Row("kept after one 64 MiB call and 100 empty ones", (
        Metric("kept", "", small("kept", "identity", 64 * MIB), "bytes", fresh=100, factor=32, old="64 to 192 MiB",
               aim="2 MiB"),)),
    Row("first empty call after a 190 MiB one", (
        Metric("after_large", "", small("after", "identity", 190 * MIB), iterations=1, factor=107, old="107 ms",
               aim="1 ms"),)),
    Row("two threads, two plug-ins, empty calls", (
        Metric("two_threads", "", small("scaling", count=2), "times", floor=small("scaling", count=2), at_first=10_000,
               more_is_better=True, at_least=1.95, old="0.9 to 1.3", aim="1.95", peer="1.95 (JS)", peers=True),)),
    Row("timeout overshoot / cancel latency, medians", (
        Metric("overshoot", "timeout overshoot", worker("overshoot", file=GUESTS / "spin.wat", timeout_ms=5),
               whole=True, iterations=10, factor=1, old="118 us", aim="not worse"),
        Metric("cancel", "cancel latency", worker("cancel", file=GUESTS / "spin.wat"), whole=True, iterations=10,
               factor=1, old="93 us", aim="not worse"))),
    Row("size of the shared library", (
        Metric("library_size", "", (), "file", factor=29.6 / 15, old="29.6 MB", aim="15 MB"),)),
)

TABLE = tuple(metric for row in ROWS for metric in row.metrics)


@dataclass(frozen=True)
class RealPlugin:
    """A plug-in that people have made, or a program."""

    key: str
    what: str
    file: str
    call: str
    wasi: bool = False
    # Whether it takes a text, so that an input of 64 KiB means something.
    takes_text: bool = False
    # The script of tests/fetch or benches/fetch that brings it.
    fetch: str = ""


REAL = (
    RealPlugin("c", "C, `c-examples/guests/count_vowels.c`", "c-examples/wasm/count_vowels.wasm", "count_vowels",
               takes_text=True),
    RealPlugin("as", "AssemblyScript PDK, `count_vowels`", "cache:as-pdk-wasm/built.wasm", "count_vowels",
               takes_text=True, fetch="tests/fetch/as-pdk.sh"),
    RealPlugin("rust", "Rust PDK, `count_vowels`", "cache:rust-pdk-wasm/count_vowels.wasm", "count_vowels",
               takes_text=True, fetch="tests/fetch/rust-pdk.sh"),
    RealPlugin("rust_debug", "Rust PDK with debug information, `count_vowels`", RUST["file"], "count_vowels",
               takes_text=True, fetch="tests/fetch/go-sdk.sh"),
    RealPlugin("tinygo", "TinyGo PDK, `var`", f"cache:{GO_SDK}/var.wasm", "run_test", wasi=True,
               fetch="tests/fetch/go-sdk.sh"),
    RealPlugin("go", "Go's own compiler, `count_vowels`, a command", f"cache:{GO_SDK}/count_vowels_std.wasm", "_start",
               wasi=True, takes_text=True, fetch="tests/fetch/go-sdk.sh"),
    RealPlugin("haskell", "Haskell PDK, `hello`", f"cache:{GO_SDK}/hello_haskell.wasm", "testing", wasi=True,
               fetch="tests/fetch/go-sdk.sh"),
    RealPlugin("graphviz", "Graphviz, a WASI command", "cache:programs/graphviz.wasm", "_start", wasi=True,
               fetch="benches/fetch/programs.sh"),
    RealPlugin("flite", "the speech synthesiser Flite, a WASI command", "cache:programs/flite.wasm", "_start",
               wasi=True, fetch="benches/fetch/programs.sh"),
)


def real_metrics(plugin: RealPlugin, megabytes: float):
    """What is measured of a real plug-in."""
    options = {"file": plugin.file, "call": plugin.call, "wasi": plugin.wasi}
    text = {"text": "Hello, World!"}
    heavy = megabytes > 0.6
    yield Metric(f"{plugin.key}_never", "never seen: bytes to first result", worker("never", **options, **text),
                 slow=heavy)
    yield Metric(f"{plugin.key}_again", "seen before: bytes to first result", worker("again", **options, **text),
                 slow=heavy)
    yield Metric(f"{plugin.key}_new", "new from compiled + first call", worker("new", **options, **text))
    yield Metric(f"{plugin.key}_call", "call, 13 bytes", worker("call", **options, **text))
    if plugin.takes_text:
        yield Metric(f"{plugin.key}_call_64k", "call, 64 KiB", worker("call", **options, size=64 * KIB))
