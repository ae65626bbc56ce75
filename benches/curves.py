#!/usr/bin/env python3
"""How the cost grows with the work: each curve as JSON and as a figure.

    curves.py [--quick] [--only WORD,WORD] [--out FOLDER]
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import charts
import contest
import run
from metrics import KIB, MIB, ROOT, Metric, loop, small

FULL = contest.Effort(sample=0.02, seconds=1.5, rounds=range(5, 16), slow_rounds=3)
QUICK = contest.Effort(sample=0.004, seconds=0.2, rounds=range(3, 6), slow_rounds=1)


@dataclass(frozen=True)
class Curve:
    key: str
    title: str
    across: str
    upwards: str
    at: tuple
    # The metric at a point of the curve.
    metric: Callable[[int], Metric]
    # What is drawn, of a point and what was measured there.
    drawn: Callable[[int, float], float] = lambda _, value: value
    units: tuple = ("count", "ns")
    # Beyond this nobody wants to wait for 1.41.
    patience: int = 1 << 40
    logarithmic: bool = True


SIZES = (1, 8, 64, 512, 4 * KIB, 32 * KIB, 256 * KIB, 2 * MIB, 16 * MIB, 64 * MIB, 256 * MIB)


def sized(export):
    def metric(size):
        words = small("call", export, size)
        return Metric(f"{export}_{size}", "", words, floor=words)
    return metric


CURVES = (
    Curve("threads", "Empty calls in several threads, each with a plug-in of its own", "threads", "calls per second",
          (1, 2, 4, 8, 16), lambda threads: Metric(f"threads_{threads}", "", small("threads", count=threads),
                                                   floor=small("threads", count=threads), at_first=5_000),
          drawn=lambda threads, nanoseconds: threads * 1e9 / nanoseconds, units=("count", "count")),
    Curve("echo", "Echo: the guest copies the input in, and out again", "bytes of input", "time of one call", SIZES,
          sized("echo"), units=("bytes", "ns")),
    Curve("identity", "Output = input: the guest copies nothing", "bytes of input", "time of one call", SIZES,
          sized("identity"), units=("bytes", "ns")),
    Curve("creation", "New plug-in of a compiled one, and its first call", "plug-ins alive", "time",
          (1, 10, 100, 1_000, 4_000, 6_000, 12_000),
          lambda alive: Metric(f"creation_{alive}", "", small("new", count=alive), floor=small("new")),
          units=("count", "ns"), patience=6_000),
    Curve("blocks", "alloc, length and free, for each of them", "live blocks", "time of one operation",
          (1, 10, 100, 1_000, 10_000, 100_000),
          lambda live: Metric(f"blocks_{live}", "", loop("blocks", count=live), per=3,
                              # Blocks that are made before it takes longer than that: chosen here, not found out.
                              iterations=20_000 if live > 10_000 else None),
          units=("count", "ns"), patience=10_000),
)


def points(curve, found, effort, progress):
    """What was measured at each place."""
    results = {}
    for at in curve.at:
        metric = curve.metric(at)
        taking_part = [c for c in found if c.name != "reference" or at <= curve.patience]
        result = contest.hold(metric, taking_part, effort, lambda words: progress.step(metric.key, words))
        results[at] = result["contestants"]
        progress.end(metric.key, run.short(metric, result))
    return results


def draw(curve, results) -> str:
    series = {}
    for name in ("reference", "ours", "floor"):
        values = []
        for at, found in results.items():
            at = int(at)
            if "median" in found.get(name, {}):
                drawn = [curve.drawn(at, found[name][part]) for part in ("median", "q1", "q3")]
                values.append((at, drawn[0], min(drawn[1:]), max(drawn[1:])))
        if values:
            series[name] = values
    return charts.curves(curve.title, curve.across, curve.upwards, series, curve.at, curve.units, curve.logarithmic)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples")
    parser.add_argument("--only", default="", help="curves whose names contain one of these words")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench")
    run.add_paths(parser)
    args = parser.parse_args()
    curves = [curve for curve in CURVES if run.wanted(curve.key, args.only)]
    if not curves:
        sys.exit(f"no curve has a name with `{args.only}`: {', '.join(curve.key for curve in CURVES)}")

    found = run.contestants(args)
    report = run.about(args, found, "curves")
    progress = run.Progress(sum(len(curve.at) for curve in curves))
    report["curves"] = {}
    args.out.mkdir(parents=True, exist_ok=True)
    for curve in curves:
        results = points(curve, found, QUICK if args.quick else FULL, progress)
        report["curves"][curve.key] = {str(at): found for at, found in results.items()}
        (args.out / f"curve-{curve.key}.svg").write_text(draw(curve, results))
    report["busy"]["after"] = run.busy()
    report["complete"] = len(curves) == len(CURVES) and not args.quick
    name = "curves.json" if report["complete"] else "curves-part.json"
    (args.out / name).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
