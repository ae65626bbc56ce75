#!/usr/bin/env python3
"""Puts what was measured into the documents: tables between markers, figures, and the numbers as JSON.

    docs.py [--from FOLDER]

Takes only complete runs of `make bench`, `bench-real`, `bench-curves` and `bench-peers`, and the last of
`bench-profile`: what is not there leaves its section as it is.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import charts
import curves
import figures
import peers
from metrics import REAL, ROOT, ROWS, TABLE, real_metrics
from run import REAL_HEADER, real_lines

PERFORMANCE, README = ROOT / "docs/performance.md", ROOT / "README.md"
FIGURES = ROOT / "docs/figures"

# What the chart and the README show, in short words.
SHOWN = {
    "call_empty": "empty call", "call_timeout": "empty call with a timeout", "echo_64": "echo 64 B",
    "echo_4k": "echo 4 KiB", "echo_64k": "echo 64 KiB", "echo_64m": "echo 64 MiB",
    "identity_64k": "output = input, 64 KiB", "host_function": "host function", "blocks_1000": "alloc, length, free",
    "var_get": "variable read", "first_small": "first plug-in of a process", "again_small": "small module, again",
    "again_large": "2.3 MB module, again", "disk_large": "2.3 MB module, from disk",
    "new_small": "new plug-in + first call", "free_small": "free of a plug-in",
    "resident_small": "memory for each plug-in", "alive": "plug-ins alive at once",
    "kept": "kept after 64 MiB", "after_large": "empty call after 190 MiB",
}


def runs(folder):
    """The complete runs in this folder, by kind."""
    found = {}
    for kind, name in (("table", "results"), ("real", "real"), ("curves", "curves"), ("peers", "peers"),
                       ("profiles", "profiles")):
        path = folder / f"{name}.json"
        if path.exists():
            run = json.loads(path.read_text())
            if run["complete"]:
                found[kind] = run
    return found


def where(run) -> str:
    """On what machine, when, of which state: one sentence or two."""
    machine = run["machine"]
    used = run["busy"]
    return (f"Measured on {run['date']} at commit `{run['commit']}`: {machine['processor']}, "
            f"{machine['processors']} processors, {machine['memory'] / (1 << 30):.0f} GiB, {machine['system']}; "
            f"others used {used['before']:.0%} of it before and {used['after']:.0%} after.")


def table(run) -> str:
    header = ["what", "1.41", "ours", "ratio", "middle half", "target", "result", "bare wasmtime", "best peer"]
    lines = []
    for row in ROWS:
        for metric in row.metrics:
            result = run["results"].get(metric.key, {"contestants": {}})
            what = f"{row.what}: {metric.what}" if metric.what else row.what
            ratio = result.get("ratio", {})
            middle = f"{figures.factor(ratio['q1'])} to {figures.factor(ratio['q3'])}" if ratio else "-"
            lines.append([what, figures.value(result, "reference", metric.unit),
                          figures.value(result, "ours", metric.unit), figures.factor(ratio.get("median")), middle,
                          figures.target(metric), figures.verdict(metric, result),
                          figures.value(result, "floor", metric.unit), metric.peer or "-"])
    met = sum(line[6].startswith("met") for line in lines)
    return f"{where(run)}\n\n{met} of {len(lines)} targets are met.\n\n{figures.markdown_table(header, lines)}"


def summary(run) -> str:
    """For the README."""
    lines = []
    for metric in TABLE:
        result = run["results"].get(metric.key)
        if metric.key in SHOWN and result and "ratio" in result:
            lines.append([SHOWN[metric.key], figures.value(result, "reference", metric.unit),
                          figures.value(result, "ours", metric.unit), figures.factor(result["ratio"]["median"])])
    header = ["", "libextism 1.41", "libextism 2", "ahead by"]
    return (f"![How far this library is ahead of libextism 1.41](docs/figures/bench.svg)\n\n"
            f"{figures.markdown_table(header, lines)}\n\n{where(run)}")


def chart(run) -> str:
    items = []
    for metric in TABLE:
        result = run["results"].get(metric.key)
        if metric.key in SHOWN and result and "ratio" in result:
            ratio = result["ratio"]["median"]
            old, ours = (figures.value(result, name, metric.unit) for name in ("reference", "ours"))
            items.append(charts.Bar(SHOWN[metric.key], ratio, metric.factor or 1,
                                    f"{figures.factor(ratio)}: {old} → {ours}"))
    title, subtitle = "libextism 2 against libextism 1.41", "How many times faster, or smaller. The mark is the target."
    return charts.bars(title, subtitle, items)


def real(run) -> str:
    plugins = [(plugin, run["plugins"][plugin.key]["size"], list(real_metrics(plugin, 0)))
               for plugin in REAL if plugin.key in run["plugins"]]
    return f"{where(run)}\n\n{figures.markdown_table(REAL_HEADER, list(real_lines(plugins, run['results'])))}"


def drawn(run) -> str:
    images = [f"![{curve.title}](figures/curve-{curve.key}.svg)" for curve in curves.CURVES]
    return "\n\n".join([*images, where(run)])


def others(run) -> str:
    names = [name for name in peers.HEADER if any(name in r["contestants"] for r in run["results"].values())]
    header = ["what", *(peers.HEADER[name] for name in names), "first"]
    versions = ", ".join(text for name, text in peers.NAMES.items() if name in names)
    absent = "".join(f" Not measured: {peers.NAMES[name]} ({why})." for name, why in run["absent"].items())
    return (f"{where(run)} {versions}.{absent}\n\n"
            f"{figures.markdown_table(header, list(peers.lines(run['results'], names)))}")


def profiles(run) -> str:
    """Of each metric the functions that run the most instructions."""
    names = {metric.key: f"{row.what}: {metric.what}" if metric.what else row.what
             for row in ROWS for metric in row.metrics}
    texts = []
    for key, result in run["results"].items():
        total = result["total"]
        # Nine tenths of it, if these are not too many functions.
        lines, rest = [], total
        for name, count in result["functions"][:12]:
            if rest < total / 10:
                break
            is_function = "::" in name or re.fullmatch(r"\w*_\w*", name)
            lines.append([f"`{name}`" if is_function else name, f"{count:,.0f}", f"{count / total:.0%}"])
            rest -= count
        if rest >= total / 1000:
            lines.append(["all others", f"{rest:,.0f}", f"{rest / total:.0%}"])
        unit = result["unit"]
        table = figures.markdown_table(["what", unit.split()[0], "share"], lines)
        texts.append(f"**{names[key]}**: {total:,.0f} {unit}.\n\n{table}")
    return "\n\n".join([*texts, f"Found at commit `{run['commit']}`."])


def insert(path, name, text):
    """Puts a text between the markers of this name."""
    document = path.read_text()
    pattern = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
    if not pattern.search(document):
        sys.exit(f"{path.relative_to(ROOT)} has no markers for `{name}`")
    path.write_text(pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", document))


def compact(value):
    """Without the single samples."""
    if isinstance(value, dict):
        return {key: compact(inner) for key, inner in value.items() if key != "samples"}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, default=ROOT / "build/bench")
    args = parser.parse_args()
    found = runs(args.folder)
    if "table" not in found:
        sys.exit("there is no complete run of the table: make bench")
    FIGURES.mkdir(exist_ok=True)
    insert(PERFORMANCE, "table", table(found["table"]))
    insert(README, "summary", summary(found["table"]))
    (FIGURES / "bench.svg").write_text(chart(found["table"]))
    for kind, text in (("real", real), ("curves", drawn), ("peers", others), ("profiles", profiles)):
        if kind in found:
            insert(PERFORMANCE, kind, text(found[kind]))
    for curve in curves.CURVES if "curves" in found else ():
        (FIGURES / f"curve-{curve.key}.svg").write_text(curves.draw(curve, found["curves"]["curves"][curve.key]))
    (FIGURES / "bench.json").write_text(json.dumps(compact(found), indent=1) + "\n")
    found.pop("profiles", None)  # says of which commit it is by itself
    commits = {run["commit"] for run in found.values()}
    print(f"written: {', '.join(sorted(found))}" + ("" if len(commits) == 1 else "; the runs are of different commits"))


if __name__ == "__main__":
    main()
