"""Results: a table for the eye and a JSON file for the record, baselines beside every figure."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.core.distributed import is_main
from selfsup.core.errors import UserError, require
from selfsup.core.settings import to_dict
from selfsup.core.version import __version__
from selfsup.evaluate.intervals import Figure, figure
from selfsup.evaluate.model import Subject, open_subject, rivals
from selfsup.search.products import bytes_of

T = TypeVar("T")
CLEAN = ", not in train"


Figures = dict[str, Figure | float]


class Measured(NamedTuple):
    """What a tool finds of one model."""

    values: dict[str, Tensor]
    """A value for each image or query, by the figure's name: a figure is their mean."""
    facts: dict[str, Any]
    """What was chosen, left out and counted."""
    numbers: dict[str, float] = {}  # noqa: RUF012  (never written to)
    """Figures that are no mean over images."""
    groups: Tensor | None = None
    """The class of each value, where classes are resampled as a whole."""
    clean: Tensor | None = None
    """Which values are of images that are not in train too."""


def judge(
    tool: str,
    config: EvaluateConfig,
    look: Callable[[Subject], T],
    measure: Callable[[T], Measured],
) -> None:
    """Measure a model and what it has to beat, print the table, and write it beside the run.

    Args:
        tool: its name, for the file.
        config: of the model and its rivals.
        look: makes a model's features; every process takes part.
        measure: makes figures of them, on the main process alone.

    Raises:
        UserError: the images do not fit; the first error is of the model itself.
    """
    bytes_of(config.memory)
    require(config.resamples >= 0, f"--resamples must be 0 or more, not {config.resamples}")
    subject = open_subject(config)
    found: dict[str, Measured] = {}
    for one in [subject, *rivals(subject, config)]:
        seen = look(one)
        if is_main():
            name = one.name if one.name not in found else f"{one.name} ({len(found) + 1})"
            try:
                found[name] = measure(seen)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"{config.data}: {error}") from None
    again = [look(open_subject(replace(config, model=run))) for run in config.seeds]
    if is_main():
        told = _over_seeds([found[subject.name], *map(measure, again)]) if again else {}
        found[subject.name].facts.update(told)
        _report(tool, subject, config, found)


def _over_seeds(runs: list[Measured]) -> dict[str, str]:
    """Mean and deviation of each figure over runs that differ in their seed."""
    told = {}
    for name in runs[0].values:
        means = torch.stack([run.values[name].double().mean() for run in runs])
        told[f"{name} over {len(runs)} seeds"] = f"{means.mean():.3f} +- {means.std():.3f}"
    return told


def _report(
    tool: str, subject: Subject, config: EvaluateConfig, found: dict[str, Measured]
) -> None:
    first, *others = found.values()
    figures = {name: _intervals(one, config) for name, one in found.items()}
    leads = _leads(first, others, config)
    console = Console()
    known = [row for row in figures[subject.name] if row.endswith(CLEAN)]
    console.print(_table(f"{tool}: {subject.name}", figures, leads, set(known)))
    if known:
        rows = {
            name: {row.removesuffix(CLEAN): each[row] for row in known if row in each}
            for name, each in figures.items()
        }
        console.print(_table("the same without images that are in train too", rows, {}, set()))
    told = ", ".join(f"{key} {value}" for key, value in first.facts.items())
    console.print(told, highlight=False)
    if leads:
        console.print(
            "lead: over the best of the others; * where its 95 % interval, paired, is above 0",
            highlight=False,
        )
    plain = {
        name: {row: _plain(value) for row, value in each.items()} for name, each in figures.items()
    }
    record = {
        "tool": tool,
        "model": subject.name,
        "figures": plain.pop(subject.name),
        "beside": plain,
        "leads": {row: lead._asdict() for row, lead in leads.items()},
        "facts": first.facts,
        "settings": to_dict(config),
        "selfsup": __version__,
    }
    file = Path(config.out) if config.out else beside(f"{tool}.json", subject)
    write_record(file, record)
    console.print(f"written to {file}", highlight=False, soft_wrap=True)


def _table(
    title: str, figures: dict[str, Figures], leads: dict[str, Figure], apart: set[str]
) -> Table:
    """Rows of the first model's figures but those `apart`, other models beside them."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("value [95 % interval]", justify="right", no_wrap=True)
    own, *others = figures.values()
    for name in list(figures)[1:]:
        table.add_column(name, justify="right", overflow="fold")
    if leads:
        table.add_column("lead", justify="right", no_wrap=True)
    for row, value in own.items():
        if row not in apart:
            cells = [_short(each.get(row)) for each in others]
            table.add_row(row, _told(value), *cells, *([_sure(leads.get(row))] if leads else []))
    return table


def _intervals(one: Measured, config: EvaluateConfig) -> Figures:
    """Every figure, and of images that are not in train too."""
    found: Figures = {}
    for name, values in one.values.items():
        found[name] = _of(values, one.groups, config)
    found |= one.numbers
    if one.clean is not None and not bool(one.clean.all()) and bool(one.clean.any()):
        for name, values in one.values.items():
            groups = None if one.groups is None else one.groups[one.clean]
            found[name + CLEAN] = _of(values[one.clean], groups, config)
    return found


def _of(values: Tensor, groups: Tensor | None, config: EvaluateConfig) -> Figure:
    return figure(values, seed=config.seed, resamples=config.resamples, groups=groups)


def _leads(first: Measured, others: list[Measured], config: EvaluateConfig) -> dict[str, Figure]:
    """How far each figure lies above the best of the others, image by image."""
    leads = {}
    for name, values in first.values.items():
        same = [o.values[name] for o in others if name in o.values]
        same = [o for o in same if o.shape == values.shape]
        if same:
            best = max(same, key=lambda o: float(o.double().mean()))
            lead = _of(values.double() - best.double(), first.groups, config)
            leads[name] = lead
    return leads


def _told(value: Figure | float) -> str:
    return str(value) if isinstance(value, Figure) else f"{value:.4g}"


def _short(value: Figure | float | None) -> str:
    if value is None:
        return ""
    return f"{value.value:.3f}" if isinstance(value, Figure) else f"{value:.4g}"


def _sure(lead: Figure | None) -> str:
    return "" if lead is None else f"{lead.value:+.3f}{'*' if lead.low > 0 else ' '}"


def _plain(value: Figure | float) -> Any:
    if isinstance(value, Figure):
        return value._asdict()
    return value if math.isfinite(value) else None  # JSON knows no infinity


def beside(file: str, subject: Subject) -> Path:
    """In the run folder; for other models here, under the model's name."""
    if subject.folder is not None:
        return subject.folder / file
    stem, dot, kind = file.rpartition(".")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", subject.name).strip("-")[:80]
    return Path(f"{stem}-{name}{dot}{kind}" if dot else f"{kind}-{name}")


def write_record(file: Path, record: dict[str, Any]) -> None:
    """As JSON.

    Raises:
        UserError: it cannot be written there.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None


def right(predictions: Tensor, labels: Tensor) -> Tensor:
    """1 where a prediction is right, else 0. float64."""
    return (predictions == labels).to(torch.float64)
