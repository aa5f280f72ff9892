"""Whether adapted weights are better than the published ones, and by how much."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.evaluate.blend import PRECISION, RECALL
from selfsup.evaluate.intervals import Figure, figure
from selfsup.evaluate.model import labelled_features, open_model
from selfsup.evaluate.results import write_record
from selfsup.evaluate.retrieval_figures import retrieval
from selfsup.search.gallery import Queries

PUBLISHED, TRAINED, ADAPTED = "published", "fine-tuned", "adapted: the mix"
"""The encoders of a verdict."""
WIDTH, LABEL, CELL = 80, 28, 26
"""Columns of the table, of a name and of a figure."""
FORGOTTEN = 0.01
"""Loss of MAP@R on images to remember that is told as a loss."""


@dataclass(frozen=True)
class Sets:
    """Images that are there already, as settings take them."""

    train: str
    choice: tuple[str, ...]
    """Those that a mix is chosen by."""
    own: str
    """Those of the verdict."""
    remembered: str | None
    """Those on which it is seen what was forgotten."""
    facts: tuple[str, ...]
    """What is in each."""


@dataclass(frozen=True)
class SetVerdict:
    """Figures of several encoders on one set, and how far the last leads over the first."""

    name: str
    figures: dict[str, dict[str, Figure]]
    """By the encoder: Recall@1 and MAP@R."""
    lead: dict[str, Figure]
    """The last encoder less the first, paired."""

    @property
    def short(self) -> str:
        """The name without folders, at most 26 characters."""
        return self.name.rstrip("/").split("/")[-1][-LABEL + 2 :]


@dataclass(frozen=True)
class Adaptation:
    """What adapting gave."""

    own: SetVerdict
    """On the user's images."""
    remembered: SetVerdict | None
    """On images to remember."""
    facts: Sequence[str]
    """What the figures are of."""

    @property
    def helped(self) -> bool:
        """Whether the adapted encoder leads in MAP@R by more than chance explains."""
        return self.own.lead[PRECISION].low > 0

    def verdict(self) -> str:
        """One sentence on what to use, and on what was forgotten."""
        lead = self.own.lead[PRECISION]
        if self.helped:
            first = f"adapted leads by {signed(lead)} MAP@R"
        elif lead.high < 0:
            first = f"keep the published weights: adapting lost {signed(lead)} MAP@R"
        else:
            first = f"keep the published weights: no lead is proven, {signed(lead)} MAP@R"
        if self.remembered is None or not self.helped:
            return first
        change, name = self.remembered.lead[PRECISION], self.remembered.short
        if change.value < -FORGOTTEN:
            return f"{first}, but it forgot: {signed(change)} on {name}"
        return f"{first}, and forgot nothing: {signed(change)} on {name}"

    def table(self) -> str:
        """Every figure with its interval, at most 80 columns wide."""
        lines = [line for fact in self.facts for line in wrap(fact, WIDTH)]
        for each in [self.own, *([self.remembered] if self.remembered else [])]:
            lines += ["", _row(each.short, RECALL, PRECISION)]
            for encoder, figures in each.figures.items():
                lines.append(_row(f"  {encoder}", str(figures[RECALL]), str(figures[PRECISION])))
            lead = each.lead
            lines.append(_row("  lead", signed(lead[RECALL]), signed(lead[PRECISION])))
        return "\n".join([*lines, "", *wrap(f"verdict: {self.verdict()}", WIDTH)])

    def save(self, file: Path, **more: Any) -> None:
        """Write everything as JSON."""
        record = {
            "verdict": self.verdict(),
            "helped": self.helped,
            "facts": list(self.facts),
            "sets": [_plain(each) for each in (self.own, self.remembered) if each is not None],
        }
        write_record(file, record | more)


def signed(each: Figure) -> str:
    """A difference with its interval: +.050 [.030, .070]."""
    return f"{each.value:+.3f} [{each.low:+.3f}, {each.high:+.3f}]"


def judge_all(sets: Sets, encoders: Mapping[str, str], config: EvaluateConfig) -> Adaptation:
    """Judge encoders on the user's images and on those to remember.

    Args:
        sets: the images.
        encoders: what --model of evaluations takes, by name; the last is compared with the first.
        config: for all else.
    """
    own = judge(sets.own, encoders, config)
    remembered = judge(sets.remembered, encoders, config) if sets.remembered else None
    return Adaptation(own, remembered, sets.facts)


def judge(data: str, encoders: Mapping[str, str], config: EvaluateConfig) -> SetVerdict:
    """Search each image of a set among the others with several encoders.

    Args:
        data: labelled images.
        encoders: what --model of evaluations takes, by name; the last is compared with the first.
        config: for all else.

    Raises:
        UserError: the set has no labels, or no class with two images.
    """
    values: dict[str, dict[str, Tensor]] = {}
    groups = None
    for encoder, model in encoders.items():
        opened = open_model(replace(config, model=model))
        features = labelled_features(opened, data, "", config)
        searched = retrieval(Queries(features.x, features.labels), cuts=(1,))
        values[encoder] = {key: searched.figures[key] for key in (RECALL, PRECISION)}
        groups = features.labels[searched.queries]
    how: dict[str, Any] = {"seed": config.seed, "resamples": config.resamples, "groups": groups}
    first, *_, last = values.values()
    return SetVerdict(
        data,
        {
            encoder: {k: figure(v, **how) for k, v in each.items()}
            for encoder, each in values.items()
        },
        {key: figure(last[key] - first[key], **how) for key in first},
    )


def _row(label: str, *cells: str) -> str:
    return f"{label:<{LABEL}}" + "".join(f"{cell:<{CELL}}" for cell in cells).rstrip()


def _plain(each: SetVerdict) -> dict[str, Any]:
    figures = {
        encoder: {key: value._asdict() for key, value in rows.items()}
        for encoder, rows in each.figures.items()
    }
    return {"name": each.name, "figures": figures} | {
        "lead": {key: value._asdict() for key, value in each.lead.items()}
    }
