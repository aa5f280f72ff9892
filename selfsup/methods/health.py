"""The alarm of a run: is its encoder worse than when it began, and what to change.

The rules and their numbers come from runs whose quality was measured on classes that no training
had seen (`tools/bench/bench_defaults.py`, recipes/README.md). How near embeddings are to each other
says little: runs whose spread fell to 0.1 searched better than before, as long as positives stayed
as far from negatives as their spread allows. So what is watched is that gap.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

Signs = Mapping[str, float]
EQUAL_STD = 1e-4
"""Below this `std`, where 1 is an even spread over the sphere, rows are equal but for rounding."""
FLAT_STD = 0.1
"""Below this `std` a run whose gap has fallen is called collapsed."""
FEW_DIRECTIONS = 2.0
"""Below this effective rank, all embeddings are on one line."""
SMALLEST_GAP = 0.05
NOISE = 8.0
"""Gaps below `SMALLEST_GAP`, or `NOISE` / images of the batch, are noise: a run that begins there
cannot lose it."""
KNOWN_CLASSES = 0.7
"""Above this share of right neighbours at the beginning, the classes of training were told apart
before it began."""
ALARM = 0.4
"""From this score on, an encoder is taken to be worse than it began."""
JUDGED_REPORTS, JUDGED_IMAGES = 3, 192
"""So many reports at least, of so many images together, have their median judged: one batch is
noisy."""

State = Literal["healthy", "starving", "memorising", "collapsing", "collapsed"]


class Health(NamedTuple):
    """State of a run, and what to change."""

    state: State
    advice: str
    """Evidence and what to try; of a healthy run empty or a hint."""


class Change(NamedTuple):
    """How a run has changed since its first report; above `ALARM` for the worse."""

    lost: float
    """Logarithm of the first gap over the gap now: 0.69 is half of it."""
    memorised: float
    """Classes that were told apart at the beginning are now points: directions that fell away."""

    @property
    def score(self) -> float:
        """The larger of the two."""
        return max(self)


def window(images: int) -> int:
    """Return how many reports are judged together, of batches of so many images.

    >>> window(64), window(24)
    (3, 8)
    """
    return max(JUDGED_REPORTS, -(-JUDGED_IMAGES // images))


def change(first: Signs, recent: Sequence[Signs], images: int) -> Change:
    """Compare the last reports of a run with its first.

    Args:
        first: the signs of the first step, before anything was learnt.
        recent: those of the last reports; the median of each sign counts.
        images: of a batch.

    Example: a gap of 0.38 that fell to 0.24 has lost ln(0.38 / 0.24) = 0.46.
    """
    gap, rank = (median(signs[name] for signs in recent) for name in ("gap", "rank"))
    smallest = max(SMALLEST_GAP, NOISE / images)
    lost = math.log(max(first["gap"], smallest) / max(gap, smallest))
    if "positive" not in first:  # without labels there are no classes to memorise
        return Change(lost, 0.0)
    known = max(0.0, first["nearest"] - KNOWN_CLASSES) / (1 - KNOWN_CLASSES)
    return Change(lost, 5 * known * (1 - rank / first["rank"]) - 0.3)


def diagnose(first: Signs, recent: Sequence[Signs], images: int) -> Health:
    """Diagnose a run from the signs of its first report and of its last ones, see `change`.

    collapsed: embeddings are equal, or nearly so and classes less far apart than at first.
    collapsing: classes are less far apart than at first, or all embeddings are on a line.
    memorising: the classes of training were known from the beginning and are now points, so that
        what distinguishes other classes is lost.
    starving: nothing in the batch has a gradient.
    """
    last = recent[-1]
    if last["std"] < EQUAL_STD:
        return Health("collapsed", f"all embeddings are equal; {_less_force(last)}")
    if last["rank"] < FEW_DIRECTIONS:
        evidence = f"embeddings lie along {last['rank']:.1f} directions"
        return Health("collapsing", f"{evidence}; {_less_force(last)}")
    if "gap" in first and len(recent) >= window(images):
        found = change(first, recent, images)
        if found.score >= ALARM:
            return _worse(found, first, recent)
    if last.get("active") == 0:
        return Health("starving", _nothing_active(last))
    if last.get("relative_loss", 0) > 1 and last.get("active", 0) > 0.9:
        return Health(
            "healthy",
            f"the loss is {last['relative_loss']:.2f} of that of equal embeddings: the hardest "
            "triplets are still harder than no encoder at all; --miner semi-hard learns more here",
        )
    return Health("healthy", "")


def _worse(found: Change, first: Signs, recent: Sequence[Signs]) -> Health:
    last = recent[-1]
    if found.memorised > found.lost:
        return Health(
            "memorising",
            f"{first['nearest']:.0%} of the batch had its class nearest at the first step, and "
            f"directions fell from {first['rank']:.0f} to {last['rank']:.0f}: these classes are "
            "learnt by heart, others are told apart less well; try a quarter of --optim.lr, or "
            "fewer --epochs",
        )
    gap = median(signs["gap"] for signs in recent)
    evidence = f"negatives are {gap:.2f} deviations beyond positives, {first['gap']:.2f} at first"
    if last["std"] < FLAT_STD:
        evidence += f", and embeddings nearly equal (std {last['std']:.3f} of 1)"
        return Health("collapsed", f"{evidence}; {_less_force(last)}")
    return Health("collapsing", f"{evidence}; {_less_force(last)}")


def _less_force(signs: Signs) -> str:
    if "skipped" in signs:
        return "try --miner semi-hard, or else a quarter of --optim.lr"
    return "try a quarter of --optim.lr or a longer --optim.warmup"


def _nothing_active(signs: Signs) -> str:
    learnt = "no triplet or pair of the batch has a loss to learn from"
    if signs.get("nearest", 0) > 0.95:
        return f"{learnt}: its classes are learnt. End the run, or try a larger --method.margin"
    return f"{learnt}; try a larger --method.margin, a harder --miner or a larger batch"
