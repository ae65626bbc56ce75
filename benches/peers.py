#!/usr/bin/env python3
"""The other Extism runtimes, on the same plug-ins: the JavaScript SDK on Node, the Go SDK on wazero, Chicory.

    peers.py [--quick] [--only WORD,WORD] [--out FILE]

A runtime that is not installed is left out, with a message.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import contest
import figures
import run
from metrics import GUESTS, ROOT, ROWS

# What just-in-time compilers want before they are at their best.
FULL = contest.Effort(sample=0.02, seconds=3, rounds=range(5, 16), slow_rounds=3, warm_up=1.5)
QUICK = contest.Effort(sample=0.004, seconds=0.5, rounds=range(3, 6), slow_rounds=1, warm_up=0.2)

NAMES = {
    "js": "JavaScript SDK 2.0.0-rc13, Node",
    "go": "Go SDK 1.7.1, wazero",
    "chicory": "Chicory SDK 0.3.0, compiler",
}


def commands(cache):
    chicory = cache / "chicory"
    return {
        "js": ("node", "--no-warnings", str(cache / "js/main.js")),
        "go": (str(cache / "go/bench"),),
        "chicory": ("java", "-cp", f"{chicory}/target/classes:{chicory}/lib/*", "Main"),
    }


def others(args, found):
    """The runtimes that can be had; says which cannot, and why."""
    ours, absent = found[0], {}
    runtimes = []
    for name, command in commands(ours.cache / "bench-peers").items():
        fetched = subprocess.run([ROOT / f"benches/fetch/peer-{name}.sh"], capture_output=True, text=True, cwd=ROOT,
                                 env={**os.environ, "CACHE": str(ours.cache)})
        if fetched.returncode == 0:
            runtimes.append(contest.Contestant(name, command, ours.cache, ours.scratch))
            continue
        output = (fetched.stdout.strip() or fetched.stderr.strip() or "no reason given").splitlines()
        absent[name] = output[-1]
        print(f"skipped: {NAMES[name]}: {output[-1]}", file=sys.stderr)
    return runtimes, absent


def assemble(floor, folder):
    """The guests as binary modules: not every runtime takes text."""
    if not floor.exists():
        sys.exit(f"{floor.name} is not there, which turns the guests into binaries: `make bench-peers` builds it")
    folder.mkdir(parents=True, exist_ok=True)
    for text in sorted((ROOT / GUESTS).glob("*.wat")):
        subprocess.run([floor, "assemble", text, folder / f"{text.stem}.wasm"], check=True)


def lines(results, names):
    for row in ROWS:
        for metric in row.metrics:
            result = results.get(metric.key)
            if result:
                what = f"{row.what}: {metric.what}" if metric.what else row.what
                yield [what, *(figures.value(result, name, metric.unit) for name in names), ahead(metric, result)]


def ahead(metric, result) -> str:
    """Who is first."""
    medians = {name: found["median"] for name, found in result["contestants"].items()
               if "median" in found and name != "reference"}
    if not medians:
        return "-"
    best = (max if metric.more_is_better else min)(medians, key=medians.get)
    if best == "ours":
        return "this library"
    if "ours" not in medians:
        return NAMES[best].split(" SDK")[0]
    lead = medians["ours"] / medians[best]
    return f"{NAMES[best].split(' SDK')[0]}, {figures.factor(1 / lead if metric.more_is_better else lead)}"


HEADER = {"reference": "1.41", "ours": "this library", "js": "JavaScript", "go": "Go", "chicory": "Chicory"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    parser.add_argument("--only", default="", help="metrics whose names contain one of these words")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    run.add_paths(parser)
    args = parser.parse_args()

    everything = [metric for row in ROWS for metric in row.metrics if metric.peers]
    metrics = [metric for metric in everything if run.wanted(metric.key, args.only)]
    if not metrics:
        sys.exit(f"no metric has a name with `{args.only}`: {', '.join(metric.key for metric in everything)}")
    libraries = [contestant for contestant in run.contestants(args) if contestant.name != "floor"]
    binaries = ROOT / "build/bench/guests"
    assemble((ROOT / args.floor).resolve(), binaries)
    runtimes, absent = others(args, libraries)
    found = [contestant.with_guests(binaries) for contestant in [*libraries, *runtimes]]

    report = run.about(args, libraries, "peers")
    report["absent"] = absent
    report["results"] = run.measure(metrics, found, QUICK if args.quick else FULL)
    report["busy"]["after"] = run.busy()
    report["complete"] = len(metrics) == len(everything) and not args.quick
    out = args.out or ROOT / "build/bench" / ("peers.json" if report["complete"] else "peers-part.json")
    out.write_text(json.dumps(report, indent=1) + "\n")
    names = [contestant.name for contestant in found]
    header = ["what", *(HEADER[name] for name in names), "first"]
    print()
    print(figures.text_table(header, list(lines(report["results"], names))))


if __name__ == "__main__":
    main()
