"""Several runs side by side: figures of the same images in one table, and where settings differ."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.core.paths import exists
from selfsup.report.bars import bar_of, bars
from selfsup.report.figures import TOOLS, cell
from selfsup.report.page import Verdict, heading, paragraph, side_by_side, table
from selfsup.report.seen import ImageSet, measured_on
from selfsup.report.verdict import MAIN

Record = dict[str, Any]
Groups = dict[tuple[str, str], dict[str, Record]]
"""By tool and images: the record of each run that has one."""
DRAWN = 6
"""Figures of an evaluation that are drawn."""
MEASURE = "Measure the runs on the same images: selfsup knn, linear and retrieval do that."
COUNTS = re.compile(r"^(gallery|queries|images|pairs|test|train)")
"""Facts that two evaluations of the same images share."""


def grouped(records: Mapping[str, Sequence[Record]]) -> Groups:
    """Sort the records of runs by what was measured on which images; the larger groups first.

    Images are the same if their names and the numbers of them are.
    """
    groups: Groups = {}
    for run, theirs in records.items():
        for record in theirs:
            counts = [f"{k} {v}" for k, v in record["facts"].items() if COUNTS.match(k)]
            words = (
                f"{_place(measured_on(record))} ({', '.join(counts) or 'how many is not known'})"
            )
            groups.setdefault((record["tool"], words), {})[run] = record
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def _place(images: ImageSet | None) -> str:
    """Name images the same, wherever a tool ran."""
    if images is None:
        return "images that its record does not name"
    path = Path(images.data).resolve()
    if not exists(images.data):
        return str(images)
    here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return str(images._replace(data=str(here)))


def compared(records: Mapping[str, Sequence[Record]]) -> Verdict:
    """Say which run leads, where they were measured on the same images."""
    groups = grouped(records)
    if not groups:
        return Verdict("unknown", "Not measured: nothing tells which run is better", [MEASURE])
    together = {key: group for key, group in groups.items() if len(group) > 1}
    alone = [
        f"Only {next(iter(group))} has {TOOLS.get(tool, tool)} on {images}."
        for (tool, images), group in groups.items()
        if len(group) == 1
    ]
    if not together:
        words = "Not comparable: no two runs were measured on the same images"
        return Verdict("bad", words, [*alone, MEASURE])
    leads = [_lead(tool, images, group) for (tool, images), group in together.items()]
    proven = {lead.run for lead in leads if lead.clear}
    sentences = [*(lead.sentence for lead in leads), *alone]
    if all(lead.clear for lead in leads) and len(proven) == 1:
        return Verdict("good", f"{proven.pop()} leads", sentences)
    some = f"{' and '.join(sorted(proven))} lead in some figures, not in all"
    words = some if proven else "No run leads clearly"
    return Verdict("mixed", words, sentences)


class Lead(NamedTuple):
    """Which run leads in a tool's main figure."""

    run: str
    clear: bool
    """Whether its interval lies above all others'."""
    sentence: str


def _lead(tool: str, images: str, group: Mapping[str, Record]) -> Lead:
    figure = main_figure(group)
    each = {run: bar_of(record["figures"].get(figure)) for run, record in group.items()}
    values = {run: bar for run, bar in each.items() if bar is not None}
    begin = f"{TOOLS.get(tool, tool)} on {images}"
    if figure is None or len(values) < 2:
        return Lead("", False, f"{begin}: the runs share no figure.")
    order = sorted(values, key=lambda run: -values[run].value)
    numbers = ", ".join(f"{run} {values[run]}" for run in order)
    best, *others = (values[run] for run in order)
    ends = [other.high for other in others]
    clear = best.low is not None and all(end is not None and best.low > end for end in ends)
    if clear:
        words = f"{order[0]} leads in {figure}, its interval above all others: {numbers}."
    else:
        words = (
            f"intervals of {figure} overlap: {numbers}. A paired comparison tells more: evaluate "
            "one run with the other as --against."
        )
    return Lead(order[0], clear, f"{begin}: {words}")


def main_figure(group: Mapping[str, Record]) -> str | None:
    """Return the figure that speaks for a tool, of those that all its records have."""
    first, *others = (record["figures"] for record in group.values())
    shared = [name for name in first if all(name in figures for figures in others)]
    order = {name: i for i, name in enumerate(MAIN)}
    return min(shared, key=lambda name: order.get(name, len(MAIN)), default=None)


def side_by_side_figures(records: Mapping[str, Sequence[Record]]) -> list[str]:
    """Lay out one table for each evaluation on the same images, a column for each run."""
    parts: list[str] = []
    alone: list[str] = []
    for (tool, images), group in grouped(records).items():
        names = dict.fromkeys(f for record in group.values() for f in record["figures"])
        rows = [[f, *(cell(each["figures"].get(f)) for each in group.values())] for f in names]
        of_group = [
            heading(f"{TOOLS.get(tool, tool)} on {images}"),
            _bars(group, list(names)),
            table(["figure", *group], rows),
            paragraph(_baselines(next(iter(group.values())))),
        ]
        (alone if len(group) == 1 else parts).append("".join(of_group))
    return [*parts, side_by_side(*alone)]


def _bars(group: Mapping[str, Record], names: Sequence[str]) -> str:
    charts = []
    for name in names[:DRAWN] if len(group) > 1 else ():
        each = {run: bar_of(record["figures"].get(name)) for run, record in group.items()}
        charts.append(bars(name, {run: bar for run, bar in each.items() if bar is not None}))
    return f'<div class="charts">{"".join(charts)}</div>'


def _baselines(record: Record) -> str:
    """Name the best baseline in the main figure."""
    figure = main_figure({"": record})
    each = {name: bar_of(v.get(figure)) for name, v in record.get("baselines", {}).items()}
    values = {name: bar.value for name, bar in each.items() if bar is not None}
    if not values:
        return "It was not measured beside baselines."
    best = max(values, key=lambda name: values[name])
    return f"Best of what it was compared with: {best}, {figure} {values[best]:.3f}."
