"""What a script writes down: a list of (path, value), one JSON line each, flushed at once,
so that a library that crashes leaves what was seen before."""

import hashlib
import json
import os
import re
import sys
import threading
from pathlib import Path

from capi import Library, Refused

# The texts that are the same in every version: programs match on them.
FIXED = re.compile(r"timeout|cancelled|oom|plugin ran out of fuel|Function not found: .*|Variable store is full")
REGISTRY = {}


class Script:
    def __init__(self, run, env, deadline, variant, needs):
        self.run, self.env, self.deadline, self.variant, self.needs = run, env, deadline, variant, needs


def script(variants=(None,), env=None, deadline=60, needs=None):
    """Registers a script under `module.function` or `module.function[variant]`.

    `needs` names a folder of $CACHE without which there is nothing to compare.
    """

    def register(run):
        for variant in variants:
            name = f"{run.__module__.rsplit('.', 1)[-1]}.{run.__name__}" + (f"[{variant}]" if variant else "")
            environment = dict(env or {})
            if variant == "debug":
                environment["EXTISM_DEBUG"] = "1"
            REGISTRY[name] = Script(run, environment, deadline, variant, needs)
        return run

    return register


def plain(value):
    """A value as JSON can hold it; long bytes as their length and hash."""
    if isinstance(value, (bytes, bytearray)):
        if len(value) > 256:
            return f"{len(value)} bytes, sha256 {hashlib.sha256(value).hexdigest()[:16]}"
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


class Observer:
    """Handed to every script as `t`."""

    def __init__(self, library, variant, cache, scratch):
        self.lib = Library(library)
        self.library_path = library
        self.variant = variant
        self.cache = Path(cache)
        self.scratch = Path(scratch)
        self.seen = set()
        self.lock = threading.Lock()  # scripts see from several threads

    def see(self, path, value, note=None):
        """Writes down a value. `note` is shown beside a difference but not compared."""
        line = {"path": path, "value": plain(value)}
        if note is not None:
            line["note"] = note
        with self.lock:
            if path in self.seen:
                raise KeyError(f"{path} is seen twice")
            self.seen.add(path)
            sys.__stdout__.write(json.dumps(line) + "\n")
            sys.__stdout__.flush()

    def error(self, path, text, own=False):
        """An error text: verbatim where it is fixed or the plug-in's `own`, else only that there is one."""
        if text is None or own or FIXED.fullmatch(text):
            self.see(path, text)
        else:
            self.see(path, "(some error)", note=text)

    def result(self, path, result, own=False):
        self.see(f"{path}.code", result.code)
        self.see(f"{path}.output", result.output)
        self.error(f"{path}.error", result.error, own)

    def created(self, path, make):
        """Whether `make()` gives a plug-in; returns it, or None."""
        try:
            plugin = make()
            self.see(path, "accepted")
            return plugin
        except Refused as refused:
            self.see(path, "refused", note=str(refused))
            return None

    def file(self, *parts):
        return (self.cache / Path(*parts)).read_bytes()

    def text_file(self, name, content):
        """A file of this script's own folder; its path."""
        path = self.scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)


def load_scripts():
    """Imports every file of scripts/, which fills the registry."""
    folder = Path(__file__).parent / "scripts"
    sys.path.insert(0, str(folder))
    for file in sorted(folder.glob("*.py")):
        __import__(file.stem)
    return REGISTRY


def main():
    library, name, cache, scratch = sys.argv[1:]
    entry = load_scripts()[name]
    t = Observer(library, entry.variant, cache, scratch)
    entry.run(t)
    t.see("end", "reached")
    sys.__stdout__.flush()
    # What a library does when the process ends is no script's business.
    os._exit(0)


if __name__ == "__main__":
    # Scripts import this file by its name: there must be one registry only.
    import observe

    observe.main()
