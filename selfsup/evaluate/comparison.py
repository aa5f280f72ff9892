"""The course of every evaluation: the model and each baseline are measured in the same way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.core.distributed import from_main, is_main, on_main
from selfsup.core.errors import UserError, require
from selfsup.core.live import doing
from selfsup.core.paths import check_file
from selfsup.core.settings import to_dict
from selfsup.evaluate.intervals import Figure, figure
from selfsup.evaluate.model import EvaluatedModel, open_baselines, open_model
from selfsup.evaluate.results import NOT_IN_TRAIN, Evaluation, Figures, result_file
from selfsup.search.products import parse_bytes

T = TypeVar("T")


class Measurement(NamedTuple):
    """The values of one model."""

    values: dict[str, Tensor]
    """A value for each image or query, by the figure's name: a figure is their mean."""
    facts: dict[str, Any]
    """What was chosen, left out and counted."""
    numbers: dict[str, float] = {}  # noqa: RUF012  (never written to)
    """Figures that are no mean over images."""
    groups: Tensor | None = None
    """The class of each value, where classes are resampled as a whole."""
    without_leaks: Tensor | None = None
    """bool, which values are of images that are not in train too."""
    leave_one_out: dict[str, Tensor] = {}  # noqa: RUF012  (never written to)
    """The values without each image's copies in train, where all images have one."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before the figures."""
    details: dict[str, Any] = {}  # noqa: RUF012  (never written to)
    """What is saved but not printed."""


def compare(
    tool: str,
    config: EvaluateConfig,
    embed: Callable[[EvaluatedModel], T],
    measure: Callable[[T], Measurement],
    *,
    notes: tuple[str, ...] = (),
) -> Evaluation:
    """Measure a model, and in the same way the baselines and models that its figures have to beat.

    Args:
        tool: the kind of evaluation, for the table and the file: "knn".
        config: names the model, its `baselines`, the models `against` it, and the runs (`seeds`)
            that differ from it in the seed alone, for a mean over them.
        embed: computes one model's features; called for each model on every process.
        measure: turns features into a value for each image or query; on the main process alone. Its
            ValueError becomes a UserError that names the data.
        notes: sentences below the table.

    Returns:
        Figures with intervals of each model, and how far the model lies above the best other. On
        other processes than the main one, without figures.

    Raises:
        UserError: a setting is wrong, a model cannot be opened, or its images cannot be measured.
            The model comes before its baselines, so the first error is about itself; one of a
            baseline ends the evaluation, too.
    """
    parse_bytes(config.memory)
    require(config.resamples >= 0, f"--resamples must be 0 or more, not {config.resamples}")
    if config.out:
        on_main(lambda: check_file(Path(config.out)))
    model = open_model(config)
    measured = _measure_all([model, *open_baselines(model, config)], config, embed, measure)
    runs = [open_model(replace(config, model=run)) for run in config.seeds]
    seeds = [_measure_on_main(run.short_name, embed(run), config, measure) for run in runs]
    file = Path(config.out) if config.out else result_file(f"{tool}.json", model)
    if not is_main():
        return Evaluation(tool, model.name, file, to_dict(config))
    first, *others = measured.values()
    if seeds:
        first.facts.update(_mean_over_seeds([first, *filter(None, seeds)]))
    doing("intervals by bootstrap")
    figures = {name: _figures(each, config) for name, each in measured.items()}
    return Evaluation(
        tool=tool,
        model=model.name,
        file=file,
        settings=to_dict(config),
        figures=figures.pop(model.name),
        baselines=figures,
        margins=paired_margins(
            first.values,
            [each.values for each in others],
            config=config,
            groups=first.groups,
        ),
        facts=first.facts,
        notes=notes,
        warnings=(*model.warnings, *first.warnings),
        details=first.details,
    )


def _measure_all(
    models: Sequence[EvaluatedModel],
    config: EvaluateConfig,
    embed: Callable[[EvaluatedModel], T],
    measure: Callable[[T], Measurement],
) -> dict[str, Measurement]:
    """Values by the name of the model; a name that is taken gets a number. Empty but on main."""
    measured: dict[str, Measurement] = {}
    for model in models:
        features = embed(model)
        name = model.name if model.name not in measured else f"{model.name} ({len(measured) + 1})"
        measurement = _measure_on_main(model.short_name, features, config, measure)
        if measurement is not None:
            measured[name] = measurement
    return measured


def _measure_on_main(
    name: str, features: T, config: EvaluateConfig, measure: Callable[[T], Measurement]
) -> Measurement | None:
    """Measure on the main process; an error there is raised on all, so that none goes on alone."""
    measurement, error = None, None
    doing(f"measuring {name}")
    if is_main():
        try:
            measurement = measure(features)
        except UserError as wrong:
            error = wrong
        except ValueError as wrong:
            error = UserError(f"{config.data}: {wrong}")
    error = from_main(error)
    if error is not None:
        raise error
    return measurement


def accuracy(predictions: Tensor, labels: Tensor) -> Tensor:
    """1 where a prediction is right, else 0. float64."""
    return (predictions == labels).to(torch.float64)


def _mean_over_seeds(runs: list[Measurement]) -> dict[str, str]:
    """Mean and deviation of each figure over runs that differ in their seed."""
    facts = {}
    for name in runs[0].values:
        means = torch.stack([run.values[name].double().mean() for run in runs])
        facts[f"{name} over {len(runs)} seeds"] = f"{means.mean():.3f} +- {means.std():.3f}"
    return facts


def _figures(measured: Measurement, config: EvaluateConfig) -> Figures:
    """Every figure, and those over test images without leaks if there are any leaks."""
    figures: Figures = dict(measured.numbers)  # first: AUC before an accuracy
    for name, values in measured.values.items():
        figures[name] = _interval(values, measured.groups, config)
    rows = measured.without_leaks
    if rows is not None and not bool(rows.all()) and bool(rows.any()):
        groups = None if measured.groups is None else measured.groups[rows]
        for name, values in measured.values.items():
            figures[name + NOT_IN_TRAIN] = _interval(values[rows], groups, config)
    for name, values in measured.leave_one_out.items():
        figures[name + NOT_IN_TRAIN] = _interval(values, None, config)
    return figures


def _interval(values: Tensor, groups: Tensor | None, config: EvaluateConfig) -> Figure:
    return figure(values, seed=config.seed, resamples=config.resamples, groups=groups)


def paired_margins(
    own: dict[str, Tensor],
    others: Sequence[dict[str, Tensor]],
    *,
    config: EvaluateConfig,
    groups: Tensor | None = None,
) -> dict[str, Figure]:
    """Compute how far each figure lies above the best of the others, image by image.

    Args:
        own: a value for each image or query, by the figure's name.
        others: the same of what it is compared with.
        config: has seed and resamples of the intervals.
        groups: the class of each value, where classes are resampled as a whole.
    """
    margins = {}
    for name, values in own.items():
        same = [each[name] for each in others if name in each]
        same = [each for each in same if each.shape == values.shape]
        if same:
            best = max(same, key=lambda each: float(each.double().mean()))
            margins[name] = _interval(values.double() - best.double(), groups, config)
    return margins
