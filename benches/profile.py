#!/usr/bin/env python3
"""Where the time of one metric goes, in this library.

    profile.py METRIC                       instructions of each function, per iteration, by callgrind
    profile.py METRIC --seconds 60          runs it for so long, for a profiler to be attached

Counts of instructions are the same on a busy machine. A library that was built with symbols
(`make bench-profile BENCH_BUILD=fast`) has names for its functions.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import contest
import figures
import run
from metrics import ROOT, TABLE


def counted(contestant, metric, iterations):
    """How many instructions each function runs while so many iterations are measured."""
    words = contestant.words(metric)
    # Both names stand for one function of the worker.
    measured = "measure_first" if words[0] == "again" else f"measure_{words[0]}"
    environment = {**os.environ, "EXTISM_CACHE_CONFIG": ""}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        ran = subprocess.run(
            ["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={out}", f"--toggle-collect={measured}",
             *contestant.command, *words],
            input=f"{iterations}\n", capture_output=True, text=True, env=environment, cwd=ROOT)
        if ran.returncode != 0 or not out.exists():
            sys.exit(f"{ran.stdout}\n{ran.stderr}")
        listed = subprocess.run(["callgrind_annotate", "--threshold=100", str(out)], capture_output=True, text=True)
    counts = {}
    for line in listed.stdout.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(.*)", line)
        if found:
            name = re.sub(r"^\S*?:(?=\S)", "", re.sub(r"\s*\[[^\]]*\]$", "", found[2]))
            counts[name] = counts.get(name, 0) + int(found[1].replace(",", ""))
    return counts


def instructions(contestant, metric, iterations):
    """Functions, and how many of their instructions one operation runs; the most come first."""
    if metric.fresh:
        return counted(contestant, metric, metric.fresh), metric.fresh
    # What comes before the first iteration is in both.
    once, twice = (counted(contestant, metric, times * iterations) for times in (1, 2))
    return {name: count - once.get(name, 0) for name, count in twice.items()}, iterations


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metric", help="its name, as `run.py --list` prints it")
    parser.add_argument("--seconds", type=float, help="run for so long, without callgrind")
    parser.add_argument("--iterations", type=int, default=2000, help="under callgrind")
    parser.add_argument("--lines", type=int, default=40, help="how many functions are printed")
    run.add_paths(parser)
    args = parser.parse_args()
    metric = next((metric for metric in TABLE if metric.key == args.metric and metric.worker), None)
    if metric is None:
        sys.exit(f"there is no metric `{args.metric}` to profile; run.py --list prints them")
    if not args.seconds and not shutil.which("valgrind"):
        sys.exit("valgrind is not installed")
    ours = next(contestant for contestant in run.contestants(args) if contestant.name == "ours")

    if args.seconds:
        sampler = contest.Sampler(ours, metric, contest.FULL)
        print(f"for {args.seconds:.0f} s: perf record -g -p {sampler.worker.process.pid}", flush=True)
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            print(figures.quantity(sampler.sample(), metric.unit), flush=True)
        sampler.stop()
        return
    print(f"{metric.key}: instructions per {'operation' if metric.per > 1 else 'iteration'}")
    counts, iterations = instructions(ours, metric, args.iterations)
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    for name, count in ordered[:args.lines]:
        print(f"{count / (iterations * metric.per):12,.1f}  {name[:110]}")


if __name__ == "__main__":
    main()
