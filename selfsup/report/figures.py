"""The figures of evaluations in a report: bars beside the baselines' bars, and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsup.report.bars import Bar, bar_of, bars
from selfsup.report.page import beside, facts, folded, heading, paragraph, table
from selfsup.report.seen import ImageSet, is_seen, measured_on

Record = dict[str, Any]
DRAWN = 6
"""Figures of an evaluation that are drawn; all of them are in its table."""
MEANING = {
    "k-NN": "fraction of images whose nearest ones vote for the right class",
    "linear probe": "fraction that a linear classifier on top gets right",
    "Recall@": "fraction of queries with a right image among the first so many",
    "R-precision": "of the first R, the fraction that is right; R images are of the query's class",
    "MAP@R": "the same, but early hits count more: 1 only if the first R are all right",
    "mAP": "mean average precision over the whole ranking",
    "AUC": "chance that two images of one class are more similar than two of different ones",
    "EER": "error where false accepts and false rejects are equally frequent; lower is better",
    "TAR at FAR": "pairs of one class that are accepted where so many false ones are",
    "balanced accuracy": "mean of accepted same and refused different pairs; 0.5 is chance",
    "random": "the same network with random weights: what training has to beat",
    "pixels": "no network, the image itself",
    "colours": "no network, the histogram of the image's colours",
}
"""Of figures and baselines whose names begin so."""
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
        words_of_facts = ", ".join(
            f"{key} {_fact(value)}" for key, value in record["facts"].items()
        )
        all_figures = table(head, rows, own=1, caption=_caption(record))
        charts = _bars(name, record, short)
        parts += [
            heading(f"{TOOLS.get(record['tool'], record['tool'])}{on_what(record, seen)}"),
            *(paragraph(f"Warning: {words}") for words in record.get("warnings", [])),
            *([beside(charts[0], all_figures)] if len(charts) == 1 else []),
            *([_grid(charts), all_figures] if len(charts) != 1 else []),
            paragraph(f"{words_of_facts}.") if words_of_facts else "",
        ]
    return [*parts, _explained(records)] if parts else []


def _fact(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _grid(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if charts else ""


def _explained(records: Sequence[Record]) -> str:
    """Explain the figures and the baselines that there are, in plain words."""
    names = {name for record in records for name in record["figures"]}
    names |= {name for record in records for name in record.get("baselines", {})}
    meanings = [(k, v) for k, v in MEANING.items() if any(name.startswith(k) for name in names)]
    bar = (
        "bar and line",
        "a figure, and its 95 % interval: how far chance of the images may move it",
    )
    return folded("What do these figures mean?", facts([*meanings, bar]))


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


def _bars(name: str, record: Record, short: Mapping[str, str]) -> list[str]:
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
    return charts[:DRAWN]


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
