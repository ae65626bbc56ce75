"""Numbers and tables as people read them."""


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def quantity(value, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "ns":
        for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
            if value >= size:
                return f"{number(value / size)} {name}"
        return f"{number(value)} ns"
    if unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size:
                return f"{number(value / size)} {name}"
        return f"{number(value)} B"
    if unit == "file":
        return f"{value / 1e6:.1f} MB"
    return f"{number(value)}" + ("x" if unit == "times" else "")


def factor(value) -> str:
    return "-" if value is None else f"{number(value)}x"


def verdict(metric, result: dict) -> str:
    """`met` or `missed`, or what keeps one from saying."""
    if metric.at_least is not None:
        ours = result["contestants"].get("ours", {}).get("median")
        reached, wanted = ours, metric.at_least
    else:
        reached, wanted = result.get("ratio", {}).get("median"), metric.factor
    if reached is None:
        return "not measured"
    if wanted is None:
        return ""
    if reached < wanted:
        return "missed"
    return "met" + (", stretch too" if metric.stretch and reached >= metric.stretch else "")


def target(metric) -> str:
    wanted = f"{number(metric.at_least)}x" if metric.at_least is not None else factor(metric.factor)
    text = f"{wanted} ({metric.aim})" if metric.aim and metric.aim.rstrip("x") != wanted.rstrip("x") else wanted
    return text + (f"; stretch {factor(metric.stretch)}" if metric.stretch else "")


def value(result: dict, name: str, unit: str) -> str:
    found = result["contestants"].get(name)
    if found is None:
        return "-"
    return "failed" if "failed" in found else quantity(found["median"], unit)


def spread(found: dict, unit: str) -> str:
    if not found or "median" not in found:
        return "-"
    return f"{quantity(found['q1'], unit)} to {quantity(found['q3'], unit)}"


def text_table(header, lines) -> str:
    """For a terminal."""
    widths = [max(len(str(line[i])) for line in [header, *lines]) for i in range(len(header))]
    rows = [header, ["-" * width for width in widths], *lines]
    return "\n".join("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def markdown_table(header, lines) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def result_lines(rows, results: dict):
    """The table: one line for each metric that was measured."""
    for row in rows:
        for metric in row.metrics:
            result = results.get(metric.key)
            if result is None:
                continue
            what = f"{row.what}: {metric.what}" if metric.what else row.what
            ratio = result.get("ratio", {})
            yield [what, value(result, "reference", metric.unit), value(result, "ours", metric.unit),
                   factor(ratio.get("median")), target(metric), verdict(metric, result),
                   value(result, "floor", metric.unit)]


HEADER = ["what", "1.41", "ours", "ratio", "target", "result", "bare wasmtime"]
