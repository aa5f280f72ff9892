"""What distillation brought: a student beside its teacher and a student that had none."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.config import CompareDistilledConfig
from selfsup.core.distributed import on_main, start
from selfsup.core.errors import flags_renamed, require
from selfsup.core.paths import check_file
from selfsup.core.settings import to_dict
from selfsup.core.version import __version__
from selfsup.data.subset import searchable_images
from selfsup.evaluate.comparison import accuracy
from selfsup.evaluate.features import Features
from selfsup.evaluate.intervals import Figure, Gap, figure, gap_closed
from selfsup.evaluate.model import EvaluatedModel, embed, open_images, open_model, search_device
from selfsup.evaluate.results import write_record
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.evaluate.speed import images_per_second
from selfsup.evaluate.votes import Vote, knn_votes
from selfsup.search.gallery import Queries
from selfsup.search.products import parse_bytes

RECALL, PRECISION = "Recall@1", "MAP@R"
WIDTH, LABEL, COLUMN, NAME = 80, 11, 23, 19  # of the table and of its columns
LEGEND = (
    "gap: teacher - baseline; gain: student - baseline; closed: gain / gap",
    "95 % intervals: all models on the same resampled classes (k-NN: images)",
)


class Values(NamedTuple):
    """A value for each query of one figure."""

    values: Tensor
    groups: Tensor | None
    """The class of each, where classes are resampled as a whole."""


@dataclass(frozen=True)
class Contender:
    """One of the models, and what it costs."""

    name: str
    """As it was given."""
    parameters: int
    images_per_s: float
    size: int
    """Side of its images in pixels."""
    width: int
    """Of its features."""
    figures: dict[str, Figure]


@dataclass(frozen=True)
class CompareDistilled:
    """Figures of teacher, student and baseline, and the share of the gap that is closed."""

    models: dict[str, Contender]
    """By role: teacher, student, baseline and, if given, published."""
    gaps: dict[str, Gap]
    """By the name of the figure."""
    over_published: dict[str, Figure]
    """Student less published weights, if those are given."""
    facts: dict[str, Any]
    settings: dict[str, Any] = field(repr=False)

    def table(self) -> str:
        """Everything in plain text, at most 80 columns wide."""
        names = list(self.gaps)
        lines = [_row("", names)]
        for role, model in self.models.items():
            lines.append(_row(role, [str(model.figures[name]) for name in names]))
        lines.append(_row("gap", [_difference(gap.lead) for gap in self.gaps.values()]))
        lines.append(_row("gain", [_difference(gap.gain) for gap in self.gaps.values()]))
        lines.append(_row("closed", [_closed(gap) for gap in self.gaps.values()]))
        if self.over_published:
            lines.append(_row("over publ.", map(_difference, self.over_published.values())))
        lines += ["", *self._costs(), "", *self._sentences()]
        return "\n".join(lines)

    def _costs(self) -> list[str]:
        """Size and speed of each model."""
        head = f"{'parameters':>14}{'images/s':>10}{'':>9}{'pixels':>8}{'width':>7}  model"
        lines = [" " * LABEL + head]
        of_teacher = self.models["teacher"].images_per_s
        for role, m in self.models.items():
            name = m.name if len(m.name) <= NAME else "..." + m.name[3 - NAME :]
            speed = f"{m.images_per_s:>10,.0f}{m.images_per_s / of_teacher:>8.1f}x"
            lines.append(
                f"{role:<{LABEL}}{m.parameters:>14,}{speed}{m.size:>8}{m.width:>7}  {name}"
            )
        return lines

    def _sentences(self) -> list[str]:
        """What the figures are of, and which gaps cannot be closed."""
        lines = [*LEGEND]
        if self.over_published:
            lines.append("over publ.: student - published")
        facts = self.facts
        lines.append(
            f"{facts['images']} images of {facts['classes']} classes, leave one out; "
            f"{facts['unmatched']} without a match, {facts['unreadable']} unreadable"
        )
        lines.append(f"images/s: {facts['timed']}")
        for name, gap in self.gaps.items():
            if gap.closed is None:
                lines.append(f"{name}: {_why_not(gap)}")
        return [part for line in lines for part in textwrap.wrap(line, WIDTH)]

    def to_dict(self) -> dict[str, Any]:
        """The record: numbers, strings, lists and dictionaries."""
        models = {}
        for role, model in self.models.items():
            figures = {name: each._asdict() for name, each in model.figures.items()}
            models[role] = {**vars(model), "figures": figures}
        return {
            "tool": "compare-distilled",
            "models": models,
            "gaps": {
                name: {key: each and each._asdict() for key, each in gap._asdict().items()}
                for name, gap in self.gaps.items()
            },
            "over_published": {n: each._asdict() for n, each in self.over_published.items()},
            "facts": self.facts,
            "settings": self.settings,
            "selfsup": __version__,
        }

    def save(self) -> Path | None:
        """Write the record to the file of --out and return it; None without one.

        Raises:
            UserError: it cannot be written there.
        """
        if not self.settings["out"]:
            return None
        return write_record(Path(self.settings["out"]), self.to_dict())


def compare_distilled(config: CompareDistilledConfig) -> CompareDistilled:
    """Measure a student, its teacher and a student without one on a set of labelled images.

    Each image of the set searches all the others.

    Raises:
        UserError: a setting is wrong, a model cannot be opened, or the images have no two classes.
    """
    _check(config)
    if config.out:
        on_main(lambda: check_file(Path(config.out)))
    opened = {role: _open(role, name, config) for role, name in _names(config).items()}
    features = {role: _features(model, config) for role, model in opened.items()}
    measured = {role: _measure(each, config) for role, each in features.items()}
    speeds = _speeds(opened, config)
    models = {
        role: Contender(
            name=getattr(config, role),
            parameters=sum(p.numel() for p in model.encoder.parameters()),
            images_per_s=speeds[role],
            size=model.views.size,
            width=features[role].x.shape[1],
            figures={name: figure(*each, **_how(config)) for name, each in measured[role].items()},
        )
        for role, model in opened.items()
    }
    gaps, over_published = _differences(measured, config)
    facts = _facts(features["teacher"], measured["teacher"], config)
    return CompareDistilled(models, gaps, over_published, facts, to_dict(config))


def _names(config: CompareDistilledConfig) -> dict[str, str]:
    """The models by role, those that are given."""
    roles = ("teacher", "student", "baseline", "published")
    return {role: name for role in roles if (name := getattr(config, role))}


def _check(config: CompareDistilledConfig) -> None:
    """Raise a UserError if a number is too small, or a model is missing or has two roles."""
    for setting in ("k", "temperature", "resamples", "timed", "rounds"):
        value = getattr(config, setting)
        require(value > 0, f"--{setting} must be above 0, not {value}")
    parse_bytes(config.memory)
    for role in ("teacher", "student", "baseline"):
        require(bool(getattr(config, role)), f"--{role} needs a model: a run, a folder, a file...")
    roles: dict[str, str] = {}
    for role, name in _names(config).items():
        place = str(Path(name).resolve()) if Path(name).exists() else name
        require(
            place not in roles,
            f"--{roles.get(place)} and --{role} are both {name}: give two models",
        )
        roles[place] = role


def _open(role: str, name: str, config: CompareDistilledConfig) -> EvaluatedModel:
    """Open the model of a role; what is wrong with it is said under the name of its flag."""
    with flags_renamed("--model", f"--{role}"), flags_renamed("--init", f"--{role}"):
        return open_model(replace(config, model=name))


def _features(model: EvaluatedModel, config: CompareDistilledConfig) -> Features:
    opened = open_images(model, config.data, config.split, config)
    return embed(model, searchable_images(opened, config.data), config)


def _measure(features: Features, config: CompareDistilledConfig) -> dict[str, Values]:
    """Compute a value for each query of each figure."""
    memory, vote = parse_bytes(config.memory), Vote(config.k, config.temperature)
    x = features.x.to(search_device(features.x))
    searched = retrieval(Queries(x, features.labels), cuts=(1,), memory=memory)
    (predicted,) = knn_votes(x, features.labels, votes=[vote], memory=memory)
    groups = features.labels[searched.queries]
    return {
        RECALL: Values(searched.figures[RECALL], groups),
        PRECISION: Values(searched.figures[PRECISION], groups),
        f"k-NN, {vote}": Values(accuracy(predicted, features.labels), None),
    }


def _speeds(opened: dict[str, EvaluatedModel], config: CompareDistilledConfig) -> dict[str, float]:
    """Images a second of each model, of noise at its own size."""
    draw = torch.Generator().manual_seed(0)
    timed = {}
    for role, model in opened.items():
        shape = (config.timed, model.views.channels, model.views.size, model.views.size)
        images = torch.randn(shape, generator=draw).to(start().device)
        timed[role] = (model.encoder.to(images.device), images)
    return images_per_second(timed, rounds=config.rounds)


def _differences(
    measured: dict[str, dict[str, Values]], config: CompareDistilledConfig
) -> tuple[dict[str, Gap], dict[str, Figure]]:
    """Compute the gap of each figure, and the student's lead over published weights."""
    gaps, over_published = {}, {}
    for name, (teacher, groups) in measured["teacher"].items():
        student, baseline = (measured[role][name].values for role in ("student", "baseline"))
        gaps[name] = gap_closed(teacher, student, baseline, groups, **_how(config))
        if "published" in measured:
            lead = student - measured["published"][name].values
            over_published[name] = figure(lead, groups, **_how(config))
    return gaps, over_published


def _how(config: CompareDistilledConfig) -> dict[str, Any]:
    """Settings of the bootstrap."""
    return {"seed": config.seed, "resamples": config.resamples}


def _facts(
    features: Features, measured: dict[str, Values], config: CompareDistilledConfig
) -> dict[str, Any]:
    """What the figures are of, and how the models were timed."""
    return {
        "images": len(features.x),
        "classes": len(features.labels.unique()),
        "unmatched": len(features.x) - len(measured[RECALL].values),
        "unreadable": features.bad,
        "timed": f"batches of {config.timed}, one thread, {start().device.type}, median of "
        f"{config.rounds} rounds in turn",
    }


def _row(label: str, cells: Iterable[str]) -> str:
    return (f"{label:<{LABEL}}" + "".join(f"{cell:<{COLUMN}}" for cell in cells)).rstrip()


def _difference(each: Figure) -> str:
    return f"{each.value:+.3f} [{each.low:+.2f}, {each.high:+.2f}]"


def _closed(gap: Gap) -> str:
    """The share in percent: 26 % [10, 41]."""
    if gap.closed is None:
        return "no gap"
    value, low, high = (100 * each for each in gap.closed)
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _why_not(gap: Gap) -> str:
    """Say why there is no share of a gap."""
    if gap.lead.value <= 0:
        return f"the teacher is not better than the baseline ({gap.lead.value:+.3f}): no gap"
    return f"the teacher's lead {_difference(gap.lead)} is too uncertain to divide by"
