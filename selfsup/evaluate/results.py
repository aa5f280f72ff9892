"""The result of an evaluation: figures with intervals, next to the baselines' figures.

It is a table for the eye (`print`, `str`) and a JSON file for the record (`save`).
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from selfsup.core.disk import cannot_write, write_whole
from selfsup.core.distributed import is_main
from selfsup.core.version import __version__
from selfsup.encoders.model_card import refresh_card
from selfsup.evaluate.intervals import Figure
from selfsup.evaluate.model import EvaluatedModel

Figures = dict[str, Figure | float]
NOT_IN_TRAIN = ", not in train"
"""Ends the name of a figure over test images without leaks."""
BESIDE = 4
"""Models beside the one that is judged, in a table of 80 characters."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """A model's figures and what they are compared with.

    On other processes than the main one it has no figures: `print` does nothing there, and `save`
    writes nothing.
    """

    tool: str
    """The kind of evaluation: knn, linear, retrieval, verify or health."""
    model: str
    """Its name, with the state of its weights."""
    file: Path
    """Where `save` writes by default."""
    settings: dict[str, Any]
    figures: Figures = field(default_factory=dict)
    """By name; a `Figure` is a mean over images with its 95 % interval."""
    baselines: dict[str, Figures] = field(default_factory=dict)
    """The same figures of each baseline, and of each model that it is compared with."""
    margins: dict[str, Figure] = field(default_factory=dict)
    """How far each figure lies above the best baseline's, paired image by image."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was chosen, left out and counted."""
    notes: tuple[str, ...] = ()
    """Sentences below the table."""
    warnings: tuple[str, ...] = ()
    """Sentences above the table: why its figures are not what they seem."""
    details: dict[str, Any] = field(default_factory=dict)
    """What is saved but not printed: of `verify` the thresholds by the size of a gallery."""

    def to_dict(self) -> dict[str, Any]:
        """The record that `save` writes: numbers, strings, lists and dictionaries."""
        return {
            "tool": self.tool,
            "model": self.model,
            "figures": _plain(self.figures),
            "baselines": {name: _plain(figures) for name, figures in self.baselines.items()},
            "margins": {name: margin._asdict() for name, margin in self.margins.items()},
            "facts": self.facts,
            "warnings": list(self.warnings),
            "details": self.details,
            "settings": self.settings,
            "selfsup": __version__,
        }

    def save(self, file: str | Path | None = None) -> Path | None:
        """Write the record as JSON and return the file; None on other processes.

        Raises:
            UserError: it cannot be written there.
        """
        if not is_main():
            return None
        written = write_record(self.file if file is None else Path(file), self.to_dict())
        refresh_card(written.parent)
        return written

    def print(self) -> None:
        """Print the table, with the terminal's width and styles."""
        self._print_to(Console())

    def __str__(self) -> str:
        text = StringIO()
        self._print_to(Console(file=text))
        return text.getvalue().rstrip("\n")

    __repr__ = __str__  # a notebook shows the table

    def _print_to(self, console: Console) -> None:
        if not self.figures:
            return
        for warning in self.warnings:
            console.print(f"WARNING: {warning}", style="bold red", highlight=False, markup=False)
        for table in self._tables():
            console.print(table)
        facts = ", ".join(f"{key} {_fact(value)}" for key, value in self.facts.items())
        lines = [facts, *self.notes]
        if self.margins:
            lines.insert(
                1, "margin: over the best baseline; 95 % interval, paired: * above 0, ! below 0"
            )
            better = sum(margin.low > 0 for margin in self.margins.values())
            worse = sum(margin.high < 0 for margin in self.margins.values())
            alone = len(self.margins) == 1 < len(self.figures)
            of = f" in {next(iter(self.margins))}" if alone else ""
            lines.append(f"verdict: {judgement(better, worse, len(self.margins))}{of}")
        for line in lines:
            console.print(line, highlight=False, markup=False)

    def _tables(self) -> Iterator[Table]:
        """All figures, and below them those without leaks."""
        columns = {self.model: self.figures, **self.baselines}
        without_leaks = [row for row in self.figures if row.endswith(NOT_IN_TRAIN)]
        rows = [row for row in self.figures if row not in without_leaks]
        yield from _tables(f"{self.tool}: {self.model}", columns, rows, self.margins)
        if without_leaks:
            short = {
                name: {row.removesuffix(NOT_IN_TRAIN): f[row] for row in without_leaks if row in f}
                for name, f in columns.items()
            }
            rows = [row.removesuffix(NOT_IN_TRAIN) for row in without_leaks]
            yield from _tables("the same without images that are in train too", short, rows, {})


def judgement(better: int, worse: int, total: int) -> str:
    """Say what margins over the best baseline prove, in a few words.

    >>> judgement(2, 0, 3)
    'better than every baseline in 2 of 3 figures'
    """
    of = f"of {total} figures"
    if better == total:
        return "better than every baseline"
    if worse == total:
        return "worse than a baseline"
    if better and worse:
        return f"better than every baseline in {better} {of}, worse than one in {worse}"
    if better:
        return f"better than every baseline in {better} {of}"
    if worse:
        return f"worse than a baseline in {worse} {of}"
    return "not proven better than the baselines"


def _tables(
    title: str, columns: dict[str, Figures], rows: list[str], margins: dict[str, Figure]
) -> Iterator[Table]:
    """A table of the first column and as many others as 80 characters hold, then of the rest."""
    own, *others = columns
    for start in range(0, max(1, len(others)), BESIDE):
        shown = {name: columns[name] for name in (own, *others[start : start + BESIDE])}
        more = f"{title}, beside more models" if start else title
        yield _table(more, shown, rows, {} if start else margins)


def _table(
    title: str, columns: dict[str, Figures], rows: list[str], margins: dict[str, Figure]
) -> Table:
    """Rows of the first column's figures, with intervals; the other columns next to it."""
    table = Table(
        title=escape(title),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    longest = max((len(word) for row in rows for word in row.split()), default=0)
    table.add_column("figure", overflow="fold", min_width=longest)  # breaks between words alone
    table.add_column("value [95 % interval]", justify="right", no_wrap=True)
    own, *others = columns.values()
    for name in list(columns)[1:]:
        widest = max(len(_value_cell(columns[name].get(row))) for row in rows)
        table.add_column(escape(name), justify="right", overflow="fold", min_width=widest)
    if margins:
        table.add_column("margin", justify="right", no_wrap=True)
    for row in rows:
        cells = [_value_cell(figures.get(row)) for figures in others]
        margin = [_margin_cell(margins.get(row))] if margins else []
        table.add_row(escape(row), _interval_cell(own[row]), *cells, *margin)
    return table


def _interval_cell(value: Figure | float) -> str:
    return escape(str(value)) if isinstance(value, Figure) else f"{value:.4g}"


def _value_cell(value: Figure | float | None) -> str:
    if value is None:
        return ""
    return f"{value.value:.3f}" if isinstance(value, Figure) else f"{value:.3g}"


def _fact(value: Any) -> str:
    """A fact in a line: four digits of a number, which has all in the file."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _margin_cell(margin: Figure | None) -> str:
    if margin is None:
        return ""
    mark = "*" if margin.low > 0 else "!" if margin.high < 0 else " "
    return f"{margin.value:+.3f}{mark}"


def write_record(path: Path, record: dict[str, Any]) -> Path:
    """Write a record as JSON, its folder too, and return the file.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(path, error.errno or 0, error) from None
    return path


def _plain(figures: Figures) -> dict[str, Any]:
    """Figures as JSON has them, which knows no infinity."""
    return {
        name: value._asdict()
        if isinstance(value, Figure)
        else (value if math.isfinite(value) else None)
        for name, value in figures.items()
    }


def result_file(file: str, model: EvaluatedModel) -> Path:
    """The file in the run folder; for other models here, with the model's name."""
    if model.folder is not None:
        return model.folder / file
    stem, dot, kind = file.rpartition(".")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", model.name).strip("-")[:80]
    return Path(f"{stem}-{name}{dot}{kind}" if dot else f"{kind}-{name}")
