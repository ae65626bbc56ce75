"""The environment variables that the library reads."""

import os
from pathlib import Path

from observe import script

TRAPS = """(module (memory (export "memory") 1) (func (export "trap") unreachable)
  (func (export "f") (result i32) (i32.const 7)))"""


def use(t):
    plugin = t.created("created", lambda: t.lib.plugin(TRAPS))
    if plugin:
        t.result("f", plugin.call("f"))
        result = plugin.call("trap")
        t.see("trap.code", result.code)
        t.error("trap.error", result.error)


@script(env={"EXTISM_CACHE_CONFIG": "/nonexistent/cache.toml"})
def cache_config_missing(t):
    use(t)


@script(env={"EXTISM_CACHE_CONFIG": "cache.toml"})
def cache_config(t):
    """A configuration of Wasmtime's cache."""
    t.text_file("cache.toml", f'[cache]\ndirectory = "{t.scratch}/cached"\n')
    use(t)


@script(env={"EXTISM_CACHE_CONFIG": "cache.toml"})
def cache_config_broken(t):
    t.text_file("cache.toml", "[cache\n")
    use(t)


@script(env={"EXTISM_DEBUG": "1"})
def debug(t):
    use(t)


@script(env={"EXTISM_COREDUMP": "core.wasm"})
def core_dump(t):
    """A trap writes a core dump of the guest, itself a WebAssembly module."""
    use(t)
    path = t.scratch / "core.wasm"
    t.see("written", path.exists())
    t.see("begins with", path.read_bytes()[:8].hex() if path.exists() else None)


@script(env={"EXTISM_MEMDUMP": "memory.bin"})
def memory_dump(t):
    """A trap writes the guest's Extism memory."""
    use(t)
    path = t.scratch / "memory.bin"
    t.see("written", path.exists())
    t.see("has content", path.exists() and path.stat().st_size > 0)


@script(env={"EXTISM_PROFILE": "perf"})
def profile_perf(t):
    """perf's map of this process's code is written to /tmp."""
    use(t)
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    t.see("written", path.exists())
    path.unlink(missing_ok=True)


@script(env={"EXTISM_PROFILE": "nonsense"})
def profile_nonsense(t):
    use(t)


@script(env={"EXTISM_SIGNALS": "0"})
def without_signals(t):
    use(t)
