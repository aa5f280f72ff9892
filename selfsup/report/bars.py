"""Figures as bars with their intervals: a model beside what it has to beat."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any, NamedTuple


class Bar(NamedTuple):
    """A figure with its 95 % interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


def bar_of(figure: Any) -> Bar | None:
    """Read a figure of a record; None for one that is missing or cannot be drawn."""
    if isinstance(figure, dict):
        asked = (figure.get(key) for key in ("value", "low", "high"))
        numbers = [float(x) for x in asked if isinstance(x, int | float) and math.isfinite(x)]
        if len(numbers) < 3:
            return None
        bar = Bar(*numbers)
    elif isinstance(figure, int | float) and not isinstance(figure, bool):
        bar = Bar(float(figure))
    else:
        return None
    lowest = bar.value if bar.low is None else min(bar.value, bar.low)
    return bar if math.isfinite(bar.value) and lowest >= 0 else None


def bars(title: str, figures: Mapping[str, Bar], *, own: str = "", note: str = "") -> str:
    """Draw a bar with its interval for each model, in order.

    Args:
        title: of the figure.
        figures: by the model's name.
        own: the model that the page is about.
        note: for the reader, after the title.
    """
    if not figures:
        return ""
    top = _round_up(max(max(bar.value, bar.high or 0.0) for bar in figures.values()))
    lines = "".join(_bar(name, bar, top, name == own) for name, bar in figures.items())
    words = f"{': ' + note if note else ''} (0 to {top:g})"
    return (
        f'<figure class="bars"><figcaption><b>{escape(title)}</b>{escape(words)}</figcaption>'
        f"<ol>{lines}</ol></figure>"
    )


def _bar(name: str, bar: Bar, top: float, own: bool) -> str:
    whole = f"{100 * bar.value / top:.1f}%"
    interval = ""
    if bar.low is not None and bar.high is not None:
        left, width = 100 * bar.low / top, 100 * (bar.high - bar.low) / top
        interval = f'<i class="range" style="left: {left:.1f}%; width: {width:.1f}%"></i>'
    css_class = ' class="own"' if own else ""
    return (
        f'<li{css_class}><span class="name" title="{escape(name, quote=True)}">{escape(name)}'
        f'</span><span class="track"><i class="bar" style="width: {whole}"></i>{interval}</span>'
        f'<span class="value">{bar}</span></li>'
    )


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 or 10 times a power of ten: the end of a scale."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * m for m in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if power * m >= value * 0.999)
