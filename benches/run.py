#!/usr/bin/env python3
"""Benchmarks: libextism 1.41, this library and bare wasmtime, in turn, on the same plug-ins.

    run.py [--quick] [--only WORD,WORD] [--real] [--out FILE]

Prints the table, and writes what was measured as JSON. `make bench` builds what is needed first.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import contest
import figures
from metrics import REAL, ROOT, ROWS, TABLE, real_metrics


class Progress:
    """One line that changes, on a terminal; else one line for each metric."""

    def __init__(self, count):
        self.count, self.done, self.began = count, 0, time.monotonic()
        self.changes = sys.stderr.isatty()

    def head(self, key):
        return f"[{self.done + 1:2}/{self.count} {time.monotonic() - self.began:4.0f} s] {key}"

    def step(self, key, text):
        if self.changes:
            print(f"\r\033[K{self.head(key)}: {text}", end="", file=sys.stderr, flush=True)

    def end(self, key, text):
        clear = "\r\033[K" if self.changes else ""
        print(f"{clear}{self.head(key)}: {text}", file=sys.stderr, flush=True)
        self.done += 1


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    parser.add_argument("--only", default="", help="metrics whose names contain one of these words")
    parser.add_argument("--real", action="store_true", help="the real plug-ins instead of the table")
    parser.add_argument("--list", action="store_true", help="print the names of the metrics")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    add_paths(parser)
    return parser.parse_args()


def add_paths(parser):
    """Where the contestants are; the environment has them too, as for the tests."""
    def path(name, variable, default):
        parser.add_argument(name, type=Path, default=os.environ.get(variable) or default)

    path("--library", "EXTISM_LIB", "target/release/libextism.so")
    path("--floor", "BENCH_FLOOR", "target/release/bench-floor")
    path("--cache", "CACHE", "build/cache")


def wanted(key, only):
    words = [word for word in only.split(",") if word]
    return not words or any(word in key for word in words)


def contestants(args):
    """Those that can be had; without this library there is nothing to measure."""
    scratch = ROOT / "build/bench/scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    worker = ROOT / "build/bench/worker"
    libraries = {"reference": args.cache / "reference/libextism.so", "ours": args.library}
    found = []
    for name, library in libraries.items():
        path = (ROOT / library).resolve()
        if not path.exists():
            sys.exit(f"{library} is not there: `make bench` builds and fetches what is needed")
        found.append(contest.Contestant(name, (str(worker), str(path)), (ROOT / args.cache).resolve(), scratch))
    floor = (ROOT / args.floor).resolve()
    if floor.exists():
        found.append(contest.Contestant("floor", (str(floor),), (ROOT / args.cache).resolve(), scratch))
    else:
        print(f"bare wasmtime is not measured: {args.floor} is not there", file=sys.stderr)
    return found


def machine():
    """What a reader has to know of the machine; nothing that names it."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": model, "processors": os.cpu_count(), "memory": memory,
            "system": f"{platform.system()} {platform.release().split('-')[0]}"}


def commit():
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


def busy() -> float:
    """How much of the processors others use at the moment, from 0 to 1."""
    def times():
        values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(values), values[3] + values[4]

    total, idle = times()
    time.sleep(0.5)
    total_after, idle_after = times()
    return 1 - (idle_after - idle) / max(total_after - total, 1)


def about(args, found, kind):
    """What was measured, where and when."""
    sizes = {c.name: Path(c.command[1]).stat().st_size for c in found if len(c.command) > 1}
    return {"kind": kind, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
            "commit": commit(), "effort": "quick" if args.quick else "full", "machine": machine(),
            "library_sizes": sizes, "busy": {"before": busy()}}


def sizes(found):
    values = {c.name: contest.summary([Path(c.command[1]).stat().st_size]) for c in found if len(c.command) > 1}
    ratio = contest.summary([values["reference"]["median"] / values["ours"]["median"]])
    return {"contestants": values, "ratio": ratio}


def short(metric, result):
    parts = [f"{name} {figures.value(result, name, metric.unit)}" for name in result["contestants"]]
    failures = [f"{name}: {found['failed']}" for name, found in result["contestants"].items() if "failed" in found]
    if "ratio" in result:
        parts.append(f"ratio {figures.factor(result['ratio']['median'])} {figures.verdict(metric, result)}".strip())
    return ", ".join(parts) + "".join(f"\n    {failure}" for failure in failures)


def measure(metrics, found, effort):
    results, progress = {}, Progress(len(metrics))
    for metric in metrics:
        if metric.key == "library_size":
            result = sizes(found)
        else:
            result = contest.hold(metric, found, effort, lambda text, key=metric.key: progress.step(key, text))
        results[metric.key] = result
        progress.end(metric.key, short(metric, result))
    return results


def print_table(results):
    lines = list(figures.result_lines(ROWS, results))
    print(figures.text_table(figures.HEADER, lines))
    verdicts = [line[5] for line in lines]
    met = sum(verdict.startswith("met") for verdict in verdicts)
    print(f"\n{met} met, {verdicts.count('missed')} missed, {verdicts.count('not measured')} not measured")


def real_plugins(args):
    """Those whose files are there, with their metrics; and the names of the others."""
    found, absent = [], []
    for plugin in REAL:
        path = ROOT / plugin.file.replace("cache:", f"{args.cache}/")
        if path.exists():
            size = path.stat().st_size
            found.append((plugin, size, list(real_metrics(plugin, size / 1e6))))
        else:
            absent.append(plugin.what)
    return found, absent


def real_lines(found, results):
    for plugin, size, metrics in found:
        for metric in metrics:
            result = results.get(metric.key)
            if result:
                yield [plugin.what, figures.quantity(size, "bytes"), metric.what,
                       figures.value(result, "reference", "ns"), figures.value(result, "ours", "ns"),
                       figures.factor(result.get("ratio", {}).get("median"))]


REAL_HEADER = ["plug-in", "size", "what", "1.41", "ours", "ratio"]


def main():
    args = options()
    kind = "real" if args.real else "table"
    plugins, absent = real_plugins(args) if args.real else ([], [])
    everything = [metric for _, _, metrics in plugins for metric in metrics] if args.real else list(TABLE)
    metrics = [metric for metric in everything if wanted(metric.key, args.only)]
    if args.list:
        print("\n".join(metric.key for metric in metrics))
        return
    if not metrics:
        sys.exit(f"no metric has a name with `{args.only}`; --list prints them")

    found = contestants(args)
    run = about(args, found, kind)
    if run["busy"]["before"] > 0.1:
        print(f"The machine is busy ({run['busy']['before']:.0%}): the figures will be off.", file=sys.stderr)
    run["results"] = measure(metrics, found, contest.QUICK if args.quick else contest.FULL)
    run["busy"]["after"] = busy()
    run["complete"] = len(metrics) == len(everything) and not args.quick
    if args.real:
        run["plugins"] = {plugin.key: {"what": plugin.what, "size": size} for plugin, size, _ in plugins}
    # A run of a part does not take the place of a whole one.
    name = ("real.json" if args.real else "results.json") if run["complete"] else "part.json"
    out = args.out or ROOT / "build/bench" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(run, indent=1) + "\n")

    print()
    if args.real:
        print(figures.text_table(REAL_HEADER, list(real_lines(plugins, run["results"]))))
        for what in absent:
            print(f"not measured, because it is not there: {what}")
    else:
        print_table(run["results"])
    print(f"written to {out.relative_to(ROOT) if out.is_relative_to(ROOT) else out}")


if __name__ == "__main__":
    main()
