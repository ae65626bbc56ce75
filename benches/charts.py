"""Charts as SVG, drawn with nothing but text."""

import math
from dataclasses import dataclass
from html import escape

OURS, OLD, FLOOR, GRID, INK, MISSED = "#1d6fd1", "#8a8f98", "#2f9e62", "#e3e6ea", "#24292f", "#c98a1b"
COLOURS = {"ours": OURS, "reference": OLD, "floor": FLOOR}
NAMES = {"ours": "this library", "reference": "libextism 1.41", "floor": "bare wasmtime"}


def svg(width, height, body) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">\n'
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, **more):
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{escape(str(words))}</text>'


def line(x1, y1, x2, y2, colour=GRID, **more):
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in more.items())
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{extra}/>'


def powers(low, high):
    """The powers of ten from below `low` to above `high`."""
    return range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    target: float
    note: str


def bars(title, subtitle, items) -> str:
    """Factors on a logarithmic scale; a mark where the aim is."""
    left, right, top, step = 210, 210, 74, 24
    width, height = 860, top + step * len(items) + 34
    exponents = powers(min([1, *(bar.value for bar in items)]), max([10, *(bar.value for bar in items)]))
    low, high = exponents[0], exponents[-1]

    def x(value):
        return left + (math.log10(value) - low) / (high - low) * (width - left - right)

    bottom = top + step * len(items)
    body = [text(16, 26, title, font_size=16, font_weight=600), text(16, 46, subtitle, fill="#57606a")]
    for exponent in exponents:
        at = x(10 ** exponent)
        body.append(line(at, top - 6, at, bottom))
        body.append(text(at, bottom + 18, f"{10 ** exponent:g}x", text_anchor="middle", fill="#57606a"))
    body.append(line(x(1), top - 6, x(1), bottom, INK))
    for index, bar in enumerate(items):
        y = top + index * step
        begin, end = sorted((x(1), x(bar.value)))
        colour = OURS if bar.value >= bar.target else MISSED
        body.append(text(left - 10, y + 14, bar.label, text_anchor="end"))
        body.append(f'<rect x="{begin:.1f}" y="{y + 3:.1f}" width="{max(end - begin, 1):.1f}" height="14" rx="2" '
                    f'fill="{colour}"/>')
        body.append(line(x(bar.target), y, x(bar.target), y + 20, INK, stroke_width=2))
        body.append(text(max(end, x(bar.target)) + 8, y + 14, bar.note, fill="#57606a"))
    return svg(width, height, body)


def tick(value, unit) -> str:
    """A power of ten or two as an axis shows it."""
    if unit == "bytes":
        for size, name in ((1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")):
            if value >= size:
                return f"{value / size:g} {name}"
    if unit == "ns":
        for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1, "ns")):
            if value >= size * 0.999:
                return f"{value / size:g} {name}"
        return f"{value:g} ns"
    for size, name in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"


def curves(title, across, upwards, series, ticks, units=("count", "ns"), logarithmic=True) -> str:
    """Lines over a logarithmic axis. `series` has lists of (x, y, low, high) by name; `ticks` are marked below."""
    width, height, left, right, top, bottom = 720, 400, 84, 24, 64, 56
    points = [point for values in series.values() for point in values]
    if logarithmic:
        exponents = powers(min(point[2] for point in points), max(point[3] for point in points))
        marks = [10 ** exponent for exponent in exponents]
        if len(marks) < 2:
            marks.append(marks[0] * 10)
    else:
        size = 10 ** math.floor(math.log10(max(point[3] for point in points)))
        count = math.ceil(max(point[3] for point in points) / size)
        marks = [size * index for index in range(count + 1)]
    scale = math.log10 if logarithmic else float
    low, high = scale(marks[0]), scale(marks[-1])
    first, last = math.log2(ticks[0]), math.log2(ticks[-1])

    def x(value):
        return left + (math.log2(value) - first) / (last - first) * (width - left - right)

    def y(value):
        return height - bottom - (scale(value) - low) / (high - low) * (height - top - bottom)

    body = [text(16, 24, title, font_size=15, font_weight=600)]
    for mark in marks:
        body.append(line(left, y(mark), width - right, y(mark)))
        body.append(text(left - 8, y(mark) + 4, tick(mark, units[1]), text_anchor="end", fill="#57606a"))
    shown = ticks if len(ticks) <= 9 else ticks[::2]
    for mark in shown:
        body.append(line(x(mark), height - bottom, x(mark), height - bottom + 5, INK))
        body.append(text(x(mark), height - bottom + 20, tick(mark, units[0]), text_anchor="middle", fill="#57606a"))
    body.append(line(left, height - bottom, width - right, height - bottom, INK))
    body.append(text((left + width - right) / 2, height - 12, across, text_anchor="middle"))
    body.append(text(left, top - 12, upwards, fill="#57606a"))
    at = width - right
    for name in reversed(series):
        label = NAMES.get(name, name)
        at -= 7 * len(label) + 34
        body.append(line(at, top - 16, at + 18, top - 16, COLOURS.get(name, INK), stroke_width=3))
        body.append(text(at + 24, top - 12, label))
    for name, values in series.items():
        colour = COLOURS.get(name, INK)
        path = " ".join(f"{'M' if i == 0 else 'L'}{x(p[0]):.1f} {y(p[1]):.1f}" for i, p in enumerate(values))
        dashes = ' stroke-dasharray="5 4"' if name == "floor" else ""
        body.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>')
        for value, middle, least, most in values:
            body.append(line(x(value), y(least), x(value), y(most), colour))
            body.append(f'<circle cx="{x(value):.1f}" cy="{y(middle):.1f}" r="3" fill="{colour}"/>')
    return svg(width, height, body)
