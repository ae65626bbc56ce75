#!/usr/bin/env python3
"""Where the time of some metrics goes, in this library; of two metrics, where the bytes go.

    profile.py [METRIC,METRIC]
    profile.py METRIC --seconds 60          runs it for so long, for a profiler to be attached

Most metrics: instructions of each function, per iteration, by callgrind. They are the same on a busy machine; what the
kernel does is not among them. Metrics that mostly wait for the kernel are sampled by perf instead, `resident_*` looks
at the mappings of the process, and `library_size` at the symbols of the library. Functions have names in a library that
was built with symbols (`make bench-profile` does that: the profile `symbols` of Cargo.toml). What was found is written
as JSON too, for the documents.
"""

import argparse
import json
import re
import shutil
import signal
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
DOCUMENTED = "first_small,echo_64m,new_rust,resident_rust,after_large,library_size"

# What is sampled by perf, and the system call of which alone samples count, where the row times little else and
# the loop around it does much more.
SAMPLED = {"echo_64m": None, "new_rust": None, "after_large": "__x64_sys_madvise"}

SAMPLING = 8  # seconds


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


def stacks(pid, work):
    """The call stacks that perf finds in a process while it works, as lists of (function, where it lies)."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        perf = subprocess.Popen(["perf", "record", "-q", "-g", "-F", "4999", "-o", str(data), "-p", str(pid)],
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1)
        end = time.monotonic() + SAMPLING
        while time.monotonic() < end:
            work()
        perf.send_signal(signal.SIGINT)
        perf.wait()
        script = subprocess.run(["perf", "script", "-i", str(data), "-F", "ip,sym,dso"], capture_output=True, text=True)
    if script.returncode != 0:
        sys.exit(f"perf sampled nothing: {script.stderr}")
    for sample in script.stdout.split("\n\n"):
        frames = [re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line) for line in sample.strip().splitlines()]
        if frames and all(frames):
            yield [(frame[1], Path(frame[2]).name) for frame in frames]


def samples(contestant, metric):
    """What was running, and how often it was found; the most comes first."""
    only = SAMPLED[metric.key]
    sampler = contest.Sampler(contestant, metric, contest.FULL)
    counts = {}
    for stack in stacks(sampler.worker.process.pid, sampler.sample):
        inside = [function for function, _ in stack]
        if only and only not in inside:
            continue
        function, place = stack[0]
        entries = [name for name in inside if name == "asm_exc_page_fault" or name.startswith("__x64_sys_")]
        if only:
            name = f"the system: {function}"
        elif place.startswith("[kernel"):
            entry = entries[-1].removeprefix("__x64_sys_") if entries else "other"
            name = "the system: " + ("page faults" if entry == "asm_exc_page_fault" else entry)
        elif place.startswith("libextism"):
            name = short(function)
        elif place.startswith("libc"):
            name = f"{function} (C library)"
        elif place == "worker":
            name = "the benchmark"
        else:
            name = "the guest"
        counts[name] = counts.get(name, 0) + 1
    sampler.stop()
    return sorted(counts.items(), key=lambda pair: -pair[1])


def mappings(contestant, metric):
    """What lies in memory for each plug-in, by the kind of mapping."""
    def look(pid):
        found, kind = {}, None
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            mapping = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)", line)
            if mapping:
                kind = {"": "memories and tables of guests", "[heap]": "the heap"}.get(mapping[1], "other files")
                if "memfd:" in mapping[1]:
                    kind = "memories of guests that have data"
            elif line.startswith("Rss:"):
                found[kind] = found.get(kind, 0) + int(line.split()[1]) * 1024
        return found

    plugins = metric.fresh
    with contestant.start(metric) as worker:
        before = look(worker.process.pid)
        worker.measure(plugins)
        after = look(worker.process.pid)
    counts = {kind: (size - before.get(kind, 0)) / plugins for kind, size in after.items()}
    return sorted(((kind, size) for kind, size in counts.items() if size >= 100), key=lambda pair: -pair[1])


def crates(library):
    """What takes up the room in the library: the code of each crate, and the sections that are not code."""
    counts = {}
    sections = subprocess.run(["readelf", "-SW", library], capture_output=True, text=True, check=True).stdout
    for name, kind, size in re.findall(r"\] (\.\S+) +(\S+) +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+)", sections):
        if name not in (".text", ".symtab", ".strtab") and not name.startswith(".debug") and kind != "NOBITS":
            name = {".eh_frame": "unwinding", ".eh_frame_hdr": "unwinding", ".gcc_except_table": "unwinding",
                    ".rodata": "constants", ".data.rel.ro": "constants", ".rela.dyn": "relocations"}.get(name, "other")
            counts[name] = counts.get(name, 0) + int(size, 16)
    symbols = subprocess.run(["nm", "-CS", "--defined-only", library], capture_output=True, text=True, check=True)
    seen = set()
    for address, size, name in re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [tTwW] (.*)$", symbols.stdout, re.MULTILINE):
        if address not in seen:
            seen.add(address)
            crate = re.search(r"([a-z_][a-z0-9_]*)::", name)
            crate = f"code of {crate[1]}" if crate else "code in C and assembly"
            counts[crate] = counts.get(crate, 0) + int(size, 16)
    return sorted(counts.items(), key=lambda pair: -pair[1])


def missing(metric):
    """The program that the metric's profile needs, if it is not installed."""
    if metric.key == "library_size" or metric.key.startswith("resident"):
        return None
    tool = "perf" if metric.key in SAMPLED else "valgrind"
    return None if shutil.which(tool) else tool


def profile(contestant, metric, args):
    """What the metric consists of: the unit, the whole, and its parts."""
    if metric.key == "library_size":
        found = crates(args.library)
        return {"unit": "bytes of the library", "total": sum(size for _, size in found), "functions": found}
    if metric.key in SAMPLED:
        found = samples(contestant, metric)
        what = "samples" if SAMPLED[metric.key] is None else "samples in madvise"
        return {"unit": what, "total": sum(count for _, count in found), "functions": found}
    if metric.key.startswith("resident"):
        found = mappings(contestant, metric)
        return {"unit": "bytes of a plug-in", "total": sum(size for _, size in found), "functions": found}
    counts, iterations = instructions(contestant, metric, args.iterations)
    per = iterations * metric.per
    total = counts.pop("PROGRAM TOTALS") / per
    unit = "instructions of an operation" if metric.per > 1 else "instructions of an iteration"
    return {"unit": unit, "total": total, "functions": merged(counts, per)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", nargs="?", default=DOCUMENTED,
                        help=f"their names, as `run.py --list` prints them, with commas; {DOCUMENTED}, if there are none")
    parser.add_argument("--seconds", type=float, help="run the first for so long, without callgrind")
    parser.add_argument("--iterations", type=int, default=2000, help="under callgrind")
    parser.add_argument("--lines", type=int, default=40, help="how many functions are printed")
    run.add_paths(parser)
    args = parser.parse_args()
    known = {metric.key: metric for metric in TABLE if metric.worker or metric.key == "library_size"}
    unknown = [key for key in args.metrics.split(",") if key not in known]
    if unknown:
        sys.exit(f"there is no metric `{unknown[0]}` to profile; run.py --list prints them")
    metrics = [known[key] for key in args.metrics.split(",")]
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
        if missing(metric):
            print(f"{metric.key}: skipped, {missing(metric)} is not installed", flush=True)
            continue
        result = profile(ours, metric, args)
        result["functions"] = result["functions"][:args.lines]
        profiles["results"][metric.key] = result
        print(f"{metric.key}: {result['unit']}\n{result['total']:14,.1f}  in all", flush=True)
        for name, count in result["functions"]:
            print(f"{count:14,.1f}  {name[:110]}")
    # A part does not take the place of what the documents show.
    whole = list(profiles["results"]) == DOCUMENTED.split(",")
    name = "profiles.json" if whole else "profiles-part.json"
    out = ROOT / "build/bench" / name
    out.write_text(json.dumps(profiles, indent=1) + "\n")
    print(f"written to {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
