"""Curves as SVG within a page, readable without colour and without a script."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from selfsup.report.style import COLOURS

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 420, 200, 58, 10, 26, 10
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 4", "12 4", "4 4 1 4", "6 2 2 2 2 2")
MOST = 400
"""Points of a line."""
Line = Sequence[tuple[float, float]]
Bounds = tuple[float, float]


class Axes(NamedTuple):
    """What the sides of a chart stand for."""

    x0: float
    x1: float
    y0: float
    y1: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place a point, in units of the drawing."""
        right = LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)
        base = HEIGHT - BOTTOM
        return right, base - (y - self.y0) / (self.y1 - self.y0) * (base - TOP)


def chart(
    title: str, lines: Mapping[str, Line], *, note: str = "", within: Bounds | None = None
) -> str:
    """Draw lines over the steps of runs, each with a name and dashes of its own.

    Args:
        title: of the chart.
        lines: by name; values that are not finite are left out.
        note: for the reader, after the title.
        within: lowest and highest value that there can be: the axis does not go beyond them.
    """
    finite = {name: [(x, y) for x, y in line if math.isfinite(y)] for name, line in lines.items()}
    drawn = {name: _thinned(line) for name, line in finite.items() if line}
    if not drawn:
        return ""
    axes = _axes(drawn, within)
    paths = "".join(
        _path(i, name or title, line, axes) for i, (name, line) in enumerate(drawn.items())
    )
    summary = "; ".join(_summary(name, line) for name, line in drawn.items()).strip()
    shown = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" '
        f'aria-label="{escape(f"{title}: {summary}", quote=True)}" '
        f'data-axis="{LEFT} {WIDTH - RIGHT} {axes.x0:g} {axes.x1:g}">{_grid(axes)}{paths}'
        f'<path class="cursor" data-bottom="{HEIGHT - BOTTOM}" d=""/></svg>'
    )
    legend = _legend(list(drawn)) if len(drawn) > 1 or next(iter(drawn)) else ""
    words = f"<b>{escape(title)}</b>{': ' + escape(note) if note else ''}"
    return f'<figure class="chart"><figcaption>{words}</figcaption>{shown}{legend}</figure>'


def _summary(name: str, line: Line) -> str:
    (first, start), (last, end) = line[0], line[-1]
    if len(line) == 1:
        return f"{name} {start:.4g} at step {first:.0f}"
    return f"{name} from {start:.4g} at step {first:.0f} to {end:.4g} at step {last:.0f}"


def _path(i: int, name: str, line: Line, axes: Axes) -> str:
    """Draw the i-th line; its points are there for the script, too."""
    places = [axes.at(x, y) for x, y in line]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    points = " ".join(f"{x:.0f}:{y:.4g}" for x, y in line)
    one = f'<circle cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3" fill="currentColor"/>'
    return (
        f'<g class="c{i % COLOURS}"><path d="{path}" fill="none" stroke="currentColor" '
        f'stroke-width="1.8" stroke-dasharray="{DASHES[i % len(DASHES)]}" '
        f'data-name="{escape(name, quote=True)}" data-points="{points}"/>'
        f"{one if len(line) == 1 else ''}</g>"
    )


def _thinned(line: Line) -> Line:
    """Drop points until there are as many as pixels; the last one stays."""
    step = -(-len(line) // MOST)
    return [*line[:-1:step], line[-1]]


def _axes(lines: Mapping[str, Line], within: Bounds | None) -> Axes:
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    y0, y1 = widened(min(ys), max(ys), 0.05)
    if within:
        y0, y1 = max(y0, min(within[0], *ys)), min(y1, max(within[1], *ys))
        y0, y1 = (y0, y1) if y1 > y0 else within
    return Axes(*widened(min(xs), max(xs), 0), y0, y1)


def widened(low: float, high: float, fraction: float) -> Bounds:
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


def _grid(axes: Axes) -> str:
    right, parts = WIDTH - RIGHT, []
    for y in ticks(axes.y0, axes.y1):
        down = axes.at(axes.x0, y)[1]
        parts.append(
            f'<path class="axis" d="M{LEFT} {down:.1f}H{right}"/>'
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">{y:,.6g}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{right}"/>')
    for x, place, anchor in ((axes.x0, LEFT, "start"), (axes.x1, right, "end")):
        words = f"step {x:,.6g}" if anchor == "start" else f"{x:,.6g}"
        parts.append(f'<text x="{place}" y="{HEIGHT - 7}" text-anchor="{anchor}">{words}</text>')
    return "".join(parts)


def _legend(names: Sequence[str]) -> str:
    keys = [
        f'<span class="c{i % COLOURS}"><svg viewBox="0 0 34 8" aria-hidden="true">'
        f'<path d="M0 4H34" stroke="currentColor" stroke-width="2" '
        f'stroke-dasharray="{DASHES[i % len(DASHES)]}"/></svg><b>{escape(name)}</b></span>'
        for i, name in enumerate(names)
    ]
    return f'<div class="legend">{"".join(keys)}</div>'
