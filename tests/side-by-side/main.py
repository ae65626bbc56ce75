#!/usr/bin/env python3
"""Runs the same scripts on the reference library and on ours, and compares what they saw.

    main.py --reference OLD.so --library NEW.so --cache DIR [--only TEXT] [--show]

Every script runs in a process of its own for each library, with a deadline. A crash or a hang
of ours is a failure; of the reference it is something seen. Every difference must be listed in
deviations.py, with the value that ours is to have; an entry there that explains nothing fails too.
"""

import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from deviations import DEVIATIONS, MISSING
from observe import load_scripts

HERE = Path(__file__).parent

class Run:
    """What one library showed of one script."""

    def __init__(self):
        self.values, self.notes, self.end, self.stderr = {}, {}, "", ""


def play(library, name, script, cache, scratch):
    """Runs one script on one library."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("EXTISM_") and not k.lower().endswith("_proxy")}
    env.update(script.env)
    env.setdefault("EXTISM_CACHE_CONFIG", "")
    env["PYTHONPATH"] = str(HERE)
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    run = Run()
    child = subprocess.Popen(
        [sys.executable, str(HERE / "observe.py"), str(library), name, str(cache), str(scratch)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=scratch)
    try:
        out, err = child.communicate(timeout=script.deadline)
        code = child.returncode
        run.end = "ended" if code == 0 else signal.Signals(-code).name if code < 0 else f"exit {code}"
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        run.end = "hangs"
    run.stderr = err.decode("utf-8", "replace")
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            seen = json.loads(line)
            run.values[seen["path"]] = seen["value"]
        except (ValueError, KeyError, TypeError):
            continue  # what the library itself writes to standard output
        if "note" in seen:
            run.notes[seen["path"]] = seen["note"]
    return run


def deviation_for(name, path):
    """The first entry for this observation; in both names `*` stands for any text."""
    for entry in DEVIATIONS:
        if matches(name, entry.script) and matches(path, entry.path):
            return entry
    return None


def matches(text, pattern):
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text, re.DOTALL)


class Report:
    def __init__(self, show):
        self.failures, self.compared, self.used, self.show, self.crashes = [], 0, set(), show, []

    def fail(self, name, text):
        self.failures.append(f"{name}: {text}")
        print(f"FAIL {name}: {text}", flush=True)

    def compare(self, name, old, new):
        if new.end != "ended":
            self.fail(name, f"ours {new.end}\n{new.stderr[-1500:]}")
            if new.end.startswith("exit"):
                return
        if old.end.startswith("exit"):
            self.fail(name, f"the script itself fails on the reference: {old.stderr[-1500:]}")
            return
        if old.end != "ended":
            self.crashes.append(f"{name}: {old.end}")
        for path in dict.fromkeys([*old.values, *new.values]):
            self.compared += 1
            a, b = old.values.get(path, MISSING), new.values.get(path, MISSING)
            if self.show:
                notes = [n for n in (old.notes.get(path), new.notes.get(path)) if n]
                print(f"     {name} {path}: {a!r}" + (f" | ours {b!r}" if a != b else "") + "".join(f"\n         {n}" for n in notes))
            self.judge(name, path, a, b, old.notes.get(path), new.notes.get(path))

    def judge(self, name, path, a, b, old_note, new_note):
        entry = deviation_for(name, path)
        if entry is None:
            if a != b:
                self.fail(name, f"{path}\n    reference {a!r} {old_note or ''}\n    ours      {b!r} {new_note or ''}")
            return
        if a != b or entry.unstable:
            self.used.add(id(entry))
        if not entry.allows(b):
            self.fail(name, f"{path} deviates ({entry.why})\n    expected  {entry.ours!r}\n    ours      {b!r} {new_note or ''}\n    reference {a!r} {old_note or ''}")

    def unneeded(self, names):
        for entry in DEVIATIONS:
            if not any(matches(name, entry.script) for name in names):
                continue
            if id(entry) not in self.used:
                self.fail("deviations", f"the entry for {entry.script} {entry.path} explains no difference")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--reference", required=True, type=Path)
    options.add_argument("--library", required=True, type=Path)
    options.add_argument("--cache", required=True, type=Path, help="folder of what tests/fetch brought")
    options.add_argument("--scratch", type=Path, default=Path("/tmp/side-by-side"))
    options.add_argument("--only", default="", help="scripts whose name contains this")
    options.add_argument("--show", action="store_true", help="print every observation")
    options.add_argument("--list", action="store_true", help="print the names of the scripts")
    args = options.parse_args()

    scripts = {n: s for n, s in load_scripts().items() if args.only in n}
    absent = sorted({s.needs for s in scripts.values() if s.needs and not (args.cache / s.needs).exists()})
    scripts = {n: s for n, s in scripts.items() if s.needs not in absent}
    if args.list:
        print("\n".join(scripts))
        return 0
    started = time.monotonic()
    report = Report(args.show)
    same = args.reference.resolve() == args.library.resolve()
    if same:
        DEVIATIONS.clear()

    def both(name):
        folder = args.scratch.resolve() / re.sub(r"\W", "_", name)
        old = play(args.reference.resolve(), name, scripts[name], args.cache.resolve(), folder / "old")
        new = play(args.library.resolve(), name, scripts[name], args.cache.resolve(), folder / "new")
        return name, old, new

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, old, new in pool.map(both, scripts):
            if same and old.end == new.end:
                new.end = "ended"
            report.compare(name, old, new)
    report.unneeded(scripts)
    shutil.rmtree(args.scratch, ignore_errors=True)

    for crash in report.crashes:
        print(f"the reference did not survive {crash}")
    for folder in absent:
        print(f"not compared, because {folder} is missing from the cache")
    print(f"{len(scripts)} scripts, {report.compared} observations, {len(report.used)} deviations, "
          f"{len(report.failures)} failures in {time.monotonic() - started:.0f} s")
    if report.failures:
        return 1
    return 77 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
