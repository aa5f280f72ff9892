"""Curves and maps as SVG within a page: no script, readable without colour."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM = 420, 190, 56, 22
COLOURS = ("#1a5fb4", "#c01c28", "#26713a", "#813d9c", "#9a5b00", "#1c1c1c", "#0a7a7a", "#a0306a")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4", "12 4", "4 4 1 4", "6 2 2 2 2 2")
SHAPES = (
    '<circle r="3"/>',
    '<rect x="-2.7" y="-2.7" width="5.4" height="5.4"/>',
    '<path d="M0 -3.6 3.3 2.6 -3.3 2.6z"/>',
    '<path d="M0 -3.8 3.8 0 0 3.8 -3.8 0z"/>',
    '<path d="M-3 -3 3 3M3 -3 -3 3" stroke-width="1.6"/>',
)
Line = Sequence[tuple[float, float]]


def chart(title: str, lines: Mapping[str, Line], *, note: str = "") -> str:
    """Draw lines over the steps of runs, each with a name and dashes of its own."""
    finite = {name: [(x, y) for x, y in line if math.isfinite(y)] for name, line in lines.items()}
    drawn = {name: _thinned(line) for name, line in finite.items() if line}
    if not drawn:
        return ""
    xs = [x for line in drawn.values() for x, _ in line]
    ys = [y for line in drawn.values() for _, y in line]
    (x0, x1), (y0, y1) = _with_margin(min(xs), max(xs), 0), _with_margin(min(ys), max(ys), 0.05)

    def at(x: float, y: float) -> str:
        right = LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 8)
        down = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - BOTTOM - 10)
        return f"{right:.1f} {down:.1f}"

    parts = [_axes(y0, y1, x0, x1)]
    for i, (name, line) in enumerate(drawn.items()):
        path = "M" + "L".join(at(x, y) for x, y in line)
        style = f'stroke="{COLOURS[i % 8]}" stroke-dasharray="{DASHES[i % 8]}"'
        last = f"{name}: {line[-1][1]:.4g} at step {line[-1][0]:g}"
        parts.append(
            f'<path d="{path}" fill="none" stroke-width="1.6" {style}><title>{escape(last)}</title>'
            "</path>"
        )
        if len(line) == 1:
            x, y = at(*line[0]).split()
            parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{COLOURS[i % 8]}"/>')
    shown = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">{"".join(parts)}</svg>'
    legend = _legend(list(drawn)) if len(drawn) > 1 or next(iter(drawn)) else ""
    words = f"<b>{escape(title)}</b>{' ' + escape(note) if note else ''}"
    return f'<figure class="chart"><figcaption>{words}</figcaption>{shown}{legend}</figure>'


def _thinned(line: Line, most: int = 400) -> Line:
    """Drop points until there are as many as pixels; the last one stays."""
    step = -(-len(line) // most)
    return [*line[:-1:step], line[-1]]


def _with_margin(low: float, high: float, fraction: float) -> tuple[float, float]:
    """Widen an interval on both sides by a fraction of it, so that it is not empty."""
    width = high - low or abs(high) or 1.0
    return low - fraction * width, high + fraction * width if high > low else high + width * 0.5


def ticks(low: float, high: float) -> list[float]:
    """Choose two to five round numbers in an interval: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _axes(y0: float, y1: float, x0: float, x1: float) -> str:
    parts = []
    for y in ticks(y0, y1):
        down = HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - BOTTOM - 10)
        parts.append(
            f'<path d="M{LEFT} {down:.1f}H{WIDTH - 8}" stroke="#ddd"/>'
            f'<text x="{LEFT - 5}" y="{down + 4:.1f}" text-anchor="end">{y:,.6g}</text>'
        )
    base = HEIGHT - BOTTOM
    parts.append(f'<path d="M{LEFT} {base}H{WIDTH - 8}" stroke="#888"/>')
    for x, place, anchor in ((x0, LEFT, "start"), (x1, WIDTH - 8, "end")):
        parts.append(f'<text x="{place}" y="{HEIGHT - 6}" text-anchor="{anchor}">{x:g}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    keys = [
        f'<span><svg width="34" height="8"><path d="M0 4H34" stroke="{COLOURS[i % 8]}" '
        f'stroke-width="2" stroke-dasharray="{DASHES[i % 8]}"/></svg> {escape(name)}</span>'
        for i, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(keys)}</div>'


def scatter(
    points: Sequence[tuple[float, float]], kinds: Sequence[int], names: Sequence[str]
) -> str:
    """Draw points of a map, each with a name on hover; kinds differ in colour and shape."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    (x0, x1), (y0, y1) = _with_margin(min(xs), max(xs), 0.02), _with_margin(min(ys), max(ys), 0.02)
    side = 620
    shapes = "".join(f'<g id="s{i}">{shape}</g>' for i, shape in enumerate(SHAPES))
    marks = []
    for (x, y), kind, name in zip(points, kinds, names, strict=True):
        right, down = (x - x0) / (x1 - x0) * side, (1 - (y - y0) / (y1 - y0)) * side
        colour = COLOURS[kind % len(COLOURS)]
        shape = kind // len(COLOURS) % len(SHAPES)
        marks.append(
            f'<use href="#s{shape}" x="{right:.0f}" y="{down:.0f}" fill="{colour}" '
            f'stroke="{colour}"><title>{escape(name)}</title></use>'
        )
    return (
        f'<svg viewBox="-5 -5 {side + 10} {side + 10}" width="{side}" class="map" role="img">'
        f"<defs>{shapes}</defs>{''.join(marks)}</svg>"
    )
