#!/usr/bin/env python3
"""How long Winch takes to compile the two large plug-ins, against Cranelift, in turns."""

import os
import statistics
import sys
from pathlib import Path

import contest
import figures
from metrics import GO, GO_SIZE, ROOT, RUST, RUST_SIZE, Metric, worker

ROUNDS = 5


def main():
    floor, cache = Path(os.environ.get("BENCH_FLOOR", "")), Path(os.environ.get("CACHE") or "build/cache")
    if not floor.is_file():
        sys.exit("make bench-winch builds what this needs")
    contestant = contest.Contestant("floor", (str((ROOT / floor).resolve()),), (ROOT / cache).resolve(), ROOT)
    lines = []
    for what, options in ((RUST_SIZE, RUST), (GO_SIZE, GO)):
        times = {"compile": [], "compile_winch": []}
        for _ in range(ROUNDS):
            for name, values in times.items():
                with contestant.start(Metric(name, what, (), floor=worker(name, **options))) as process:
                    values.append(process.measure(1))
        cranelift, winch = (statistics.median(values) for values in times.values())
        lines.append([what, figures.quantity(cranelift, "ns"), figures.quantity(winch, "ns"),
                      figures.factor(cranelift / winch)])
    print(figures.text_table(["compiled", "Cranelift", "Winch", "ratio"], lines))


if __name__ == "__main__":
    main()
