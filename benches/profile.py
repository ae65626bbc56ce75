#!/usr/bin/env python3
"""Where the time of some metrics goes, in this library.

    profile.py [METRIC,METRIC]              instructions of each function, per iteration, by callgrind
    profile.py METRIC --seconds 60          runs it for so long, for a profiler to be attached

Counts of instructions are the same on a busy machine. What the kernel does is not in them. Functions have names in
a library that was built with symbols (`make bench-profile` does that: the profile `symbols` of Cargo.toml). The
counts of several metrics are written as JSON too, for the documents.
"""

import argparse
import json
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


# The profiles in docs/performance.md.
DOCUMENTED = "host_function,first_small,disk_large"


def counted(contestant, metric, iterations):
    """How many instructions each function runs while so many iterations are measured."""
    words = contestant.words(metric)
    # Both names stand for one function of the worker.
    measured = "measure_first" if words[0] == "again" else f"measure_{words[0]}"
    environment = contestant.environment(metric)
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
    if metric.disk_cache:  # under callgrind too, whose processor has other features: they are in the artifact's key
        counted(contestant, metric, metric.fresh)
    if metric.fresh:
        return counted(contestant, metric, metric.fresh), metric.fresh
    # What comes before the first iteration is in both.
    once, twice = (counted(contestant, metric, times * iterations) for times in (1, 2))
    return {name: count - once.get(name, 0) for name, count in twice.items()}, iterations


def short(name):
    """A function's name without the types that it was made for."""
    while True:
        shorter = re.sub(r"<[^<>]*>(?!:)", "", name)
        if shorter == name:
            return re.sub(r"^<(.*)>(?=::)", r"\1", name)
        name = shorter


def merged(counts, per):
    """Functions by their short names, and the instructions of each; the most come first."""
    found = {}
    for function, count in counts.items():
        name = "code without a name (guest, assembly)" if function.startswith("0x") else short(function)
        found[name] = found.get(name, 0) + count / per
    return sorted(found.items(), key=lambda pair: -pair[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="?", default=DOCUMENTED,
                        help=f"their names, as `run.py --list` prints them, with commas; {DOCUMENTED}, if there are none")
    parser.add_argument("--seconds", type=float, help="run the first for so long, without callgrind")
    parser.add_argument("--iterations", type=int, default=2000, help="under callgrind")
    parser.add_argument("--lines", type=int, default=40, help="how many functions are printed")
    run.add_paths(parser)
    args = parser.parse_args()
    known = {metric.key: metric for metric in TABLE if metric.worker}
    unknown = [key for key in args.metrics.split(",") if key not in known]
    if unknown:
        sys.exit(f"there is no metric `{unknown[0]}` to profile; run.py --list prints them")
    metrics = [known[key] for key in args.metrics.split(",")]
    if not args.seconds and not shutil.which("valgrind"):
        sys.exit("valgrind is not installed")
    ours = next(contestant for contestant in run.contestants(args) if contestant.name == "ours")

    if args.seconds:
        sampler = contest.Sampler(ours, metrics[0], contest.FULL)
        print(f"for {args.seconds:.0f} s: perf record -g -p {sampler.worker.process.pid}", flush=True)
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            print(figures.quantity(sampler.sample(), metrics[0].unit), flush=True)
        sampler.stop()
        return
    profiles = {"kind": "profiles", "commit": run.commit(), "complete": True, "results": {}}
    for metric in metrics:
        unit = "operation" if metric.per > 1 else "iteration"
        print(f"{metric.key}: instructions per {unit}", flush=True)
        counts, iterations = instructions(ours, metric, args.iterations)
        per = iterations * metric.per
        total = counts.pop("PROGRAM TOTALS") / per
        functions = merged(counts, per)
        profiles["results"][metric.key] = {"unit": unit, "total": total, "functions": functions[:args.lines]}
        print(f"{total:14,.1f}  in all")
        for function, count in functions[:args.lines]:
            print(f"{count:14,.1f}  {function[:110]}")
    # A part does not take the place of what the documents show.
    name = "profiles.json" if args.metrics == DOCUMENTED else "profiles-part.json"
    out = ROOT / "build/bench" / name
    out.write_text(json.dumps(profiles, indent=1) + "\n")
    print(f"written to {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
