"""The figures of evaluations in a report: bars beside the baselines' bars, and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsup.report.bars import Bar, bar_of, bars
from selfsup.report.page import heading, paragraph, table
from selfsup.report.seen import ImageSet, is_seen, measured_on

Record = dict[str, Any]
DRAWN = 6
"""Figures of an evaluation that are drawn; all of them are in its table."""
BASELINES = (
    "What has to be beaten: random is the same network with random weights; pixels and colours use "
    "no network, but the image itself and its histogram of colours. A bar is a figure, the thin "
    "line its 95 % interval."
)
TOOLS = {
    "demo": "Recognition",
    "knn": "k-NN",
    "linear": "Linear probe",
    "retrieval": "Retrieval",
    "verify": "Verification",
    "health": "Health of embeddings",
}


def figures(name: str, records: Sequence[Record], seen: Sequence[ImageSet]) -> list[str]:
    """Lay out each evaluation of a run: on which images, bars, all figures, facts.

    Args:
        name: of the run.
        records: what evaluation tools wrote.
        seen: images that the run has seen in training.
    """
    parts: list[str] = []
    for record in records:
        baselines = record.get("baselines", {})
        short = short_names(list(baselines))
        head = ["figure", "value [95 % interval]", *short.values(), "margin"]
        rows = []
        for figure, value in record["figures"].items():
            others = [cell(baseline.get(figure)) for baseline in baselines.values()]
            margin = cell(record.get("margins", {}).get(figure), sign=True)
            rows.append([figure, cell(value), *others, margin])
        facts = ", ".join(f"{key} {value}" for key, value in record["facts"].items())
        parts += [
            heading(f"{TOOLS.get(record['tool'], record['tool'])}{on_what(record, seen)}"),
            *(paragraph(f"Warning: {words}") for words in record.get("warnings", [])),
            _bars(name, record, short),
            table(head, rows, own=1, caption=_caption(record)),
            paragraph(f"{facts}.") if facts else "",
        ]
    return [*parts, paragraph(BASELINES)] if parts else []


def on_what(record: Record, seen: Sequence[ImageSet]) -> str:
    """Say on which images an evaluation's figures are, and whether training has seen them."""
    images = measured_on(record)
    if images is None:
        return ""
    return f" on {images}{', which training has seen' if is_seen(images, seen) else ''}"


def _caption(record: Record) -> str:
    if not record.get("margins"):
        return "All figures"
    return "All figures; the margin is that over the best of the others, from paired differences"


def _bars(name: str, record: Record, short: Mapping[str, str]) -> str:
    """Draw the figures that are compared, each with the model's bar first."""
    charts = []
    for figure in record.get("margins") or {}:
        each: dict[str, Bar] = {}
        models = {name: record["figures"], **{short[k]: v for k, v in record["baselines"].items()}}
        for model, values in models.items():
            bar = bar_of(values.get(figure))
            if bar is not None:
                each[model] = bar
        charts.append(bars(figure, each, own=name))
    return f'<div class="charts">{"".join(charts[:DRAWN])}</div>'


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Take the last part of a name that is a path, where it is not another's, too."""
    last = [Path(name).name if "/" in name and " " not in name else name for name in names]
    return {
        name: short if last.count(short) == 1 else name
        for name, short in zip(names, last, strict=True)
    }


def cell(value: Any, *, sign: bool = False) -> str:
    """Write a figure, with its interval if it has one."""
    if isinstance(value, dict):
        first = f"{value['value']:+.3f}" if sign else f"{value['value']:.3f}"
        return f"{first} [{value['low']:.3f}, {value['high']:.3f}]"
    return "" if value is None else f"{value:.4g}"
