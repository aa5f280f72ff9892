"""A map of embeddings: a point for each image, with its name on hover and a legend of classes."""

from collections import Counter
from collections.abc import Sequence
from html import escape

from selfsup.report.curves import widened
from selfsup.report.style import COLOURS

SIDE = 620
SHAPES = (
    '<circle r="3.6"/>',
    '<rect x="-3.2" y="-3.2" width="6.4" height="6.4"/>',
    '<path d="M0 -4.2 4 3.2 -4 3.2z"/>',
    '<path d="M0 -4.6 4.6 0 0 4.6 -4.6 0z"/>',
    '<path d="M-3.4 -3.4 3.4 3.4M3.4 -3.4 -3.4 3.4" stroke-width="1.8"/>',
)
IN_LEGEND = COLOURS * len(SHAPES)
"""Classes that look different."""


def scatter(
    points: Sequence[tuple[float, float]],
    kinds: Sequence[int],
    names: Sequence[str],
    classes: Sequence[str] = (),
) -> str:
    """Draw points of a map, each with a name on hover; kinds differ in colour and shape.

    Args:
        points: x and y of each.
        kinds: the class of each.
        names: of each.
        classes: names of the classes for the legend, whose buttons emphasise one.
    """
    xs, ys = [x for x, _ in points], [y for _, y in points]
    (x0, x1), (y0, y1) = widened(min(xs), max(xs), 0.02), widened(min(ys), max(ys), 0.02)
    shapes = "".join(f'<g id="s{i}">{shape}</g>' for i, shape in enumerate(SHAPES))
    marks = []
    for (x, y), kind, name in zip(points, kinds, names, strict=True):
        right, down = (x - x0) / (x1 - x0) * SIDE, (1 - (y - y0) / (y1 - y0)) * SIDE
        marks.append(
            f'<use href="#s{_shape(kind)}" x="{right:.0f}" y="{down:.0f}" '
            f'class="c{kind % COLOURS}" data-kind="{kind}"><title>{escape(name)}</title></use>'
        )
    about = f"Map of {len(points)} images of {len(set(kinds))} classes"
    drawing = (
        f'<svg viewBox="-8 -8 {SIDE + 16} {SIDE + 16}" class="map" role="img" '
        f'aria-label="{about if classes else f"Map of {len(points)} images"}">'
        f"<defs>{shapes}</defs>{''.join(marks)}</svg>"
    )
    return f'<div class="mapped">{drawing}{_legend(kinds, classes) if classes else ""}</div>'


def _shape(kind: int) -> int:
    return kind // COLOURS % len(SHAPES)


def _legend(kinds: Sequence[int], classes: Sequence[str]) -> str:
    """A button for each class, the largest first, as far as they look different."""
    most = [kind for kind, _ in Counter(kinds).most_common(IN_LEGEND)]
    keys = "".join(
        f'<button type="button" class="c{kind % COLOURS}" aria-pressed="false" data-kind="{kind}">'
        f'<svg viewBox="-6 -6 12 12" fill="currentColor" stroke="currentColor" '
        f'aria-hidden="true">{SHAPES[_shape(kind)]}</svg> <b>{escape(classes[kind])}</b></button>'
        for kind in sorted(most)
    )
    remaining = len(set(kinds)) - len(most)
    more = f"<span><b>and {remaining} more classes</b></span>" if remaining else ""
    return f'<div class="legend">{keys}{more}</div>'
