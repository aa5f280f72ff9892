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
NO_SPREAD = 0.02
"""Below this `std` embeddings without a gap are no use, whatever gap they began with."""
FALLEN = 0.25
"""Where no gap is known, a run is ill whose spread or rank fell below this share of the first."""
FEW_DIRECTIONS = 2.0
"""Below this effective rank, or half of what so few images or dimensions can have, all embeddings
are on one line."""
LARGEST_GAP = 10.0
"""From this gap on classes are apart, and more is no better."""
SMALLEST_GAP = 0.05
NOISE = 8.0
"""Gaps below `SMALLEST_GAP`, or `NOISE` / images of the batch, are noise: a run that begins there
cannot lose it."""
KNOWN_CLASSES = 0.7
"""Above this share of right neighbours at the beginning, the classes of training were told apart
before it began."""
ENOUGH_IMAGES = 48
"""Of a first batch, whose share of right neighbours is taken as it is; of fewer two deviations are
subtracted."""
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


class Remedies(NamedTuple):
    """Settings of a method that change what it learns from a batch; empty where it has none."""

    easier: str = ""
    """A miner of triplets that are less hard: "--miner semi-hard"."""
    harder: tuple[str, ...] = ()
    """What finds more to learn from: "a larger --method.margin"."""
    always_learns: bool = False
    """Whether every triplet has a gradient, active or not, as those of a soft margin have."""


NO_REMEDIES = Remedies()


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


def smallest_gap(images: int) -> float:
    """Return the gap below which a gap of batches of so many images is noise.

    >>> smallest_gap(64), smallest_gap(1024)
    (0.125, 0.05)
    """
    return max(SMALLEST_GAP, NOISE / images)


def change(first: Signs, recent: Sequence[Signs], images: int) -> Change:
    """Compare the last reports of a run with its first.

    Args:
        first: the signs of the first step, before anything was learnt.
        recent: those of the last reports; the median of each sign counts.
        images: of a batch.

    Example: a gap of 0.38 that fell to 0.24 has lost ln(0.38 / 0.24) = 0.46.
    """
    gap, rank = _median(recent, "gap"), _median(recent, "rank")
    begun, now = (min(LARGEST_GAP, max(x, smallest_gap(images))) for x in (first["gap"], gap))
    lost = math.log(begun / now)
    if "positive" not in first:  # without labels there are no classes to memorise
        return Change(lost, 0.0)
    # where 7 of 10 have the right neighbour, all 8 of a batch have it in 6 % of batches
    chance = max(0.0, 2 / math.sqrt(images) - 2 / math.sqrt(ENOUGH_IMAGES))
    known = max(0.0, first["nearest"] - chance - KNOWN_CLASSES) / (1 - KNOWN_CLASSES)
    return Change(lost, 5 * known * (1 - rank / first["rank"]) - 0.3)


def diagnose(
    first: Signs,
    recent: Sequence[Signs],
    images: int,
    remedies: Remedies = NO_REMEDIES,
    *,
    width: int | None = None,
) -> Health:
    """Diagnose a run from the signs of its first report and of its last ones, see `change`.

    collapsed: embeddings are equal, or nearly so and classes less far apart than at first or not
        apart at all.
    collapsing: classes are less far apart than at first, or all embeddings are on a line.
    memorising: the classes of training were known from the beginning and are now points, so that
        what distinguishes other classes is lost.
    starving: nothing in the last batches had a gradient.

    Where there is no gap, spread and rank are compared with the first.

    Args:
        first: the signs of the first step.
        recent: those of the last reports, the newest at the end.
        images: of a batch.
        remedies: what the method can change.
        width: of an embedding, if it is known.
    """
    last, less = recent[-1], _less_force(remedies)
    if last["std"] < EQUAL_STD and images > 1:  # the spread of one image is 0
        return Health("collapsed", f"all embeddings are equal; {less}")
    if last["rank"] < min(FEW_DIRECTIONS, min(images - 1, width or math.inf) / 2):
        return Health("collapsing", f"embeddings lie along {last['rank']:.1f} directions; {less}")
    if len(recent) >= window(images):
        judge = _by_gap if "gap" in first else _by_spread
        found = judge(first, recent, images, less)
        if found is not None:
            return found
    active = [signs["active"] for signs in recent if "active" in signs]
    learns = remedies.always_learns and _median(recent, "skipped") < 1
    if len(active) >= JUDGED_REPORTS and median(active) == 0 and not learns:
        return Health("starving", _nothing_active(last, remedies))
    return Health("healthy", _hint(last, remedies))


def _by_gap(first: Signs, recent: Sequence[Signs], images: int, less: str) -> Health | None:
    found, last = change(first, recent, images), recent[-1]
    gap, std = _median(recent, "gap"), _median(recent, "std")
    flat = std < min(NO_SPREAD, first["std"] / 2) and gap < smallest_gap(images)
    if found.score < ALARM and not flat:
        return None
    if found.memorised > found.lost and not flat:
        return Health(
            "memorising",
            f"{first['nearest']:.0%} of the batch had its class nearest at the first step, and "
            f"directions fell from {first['rank']:.0f} to {last['rank']:.0f}: these classes are "
            "learnt by heart, others are told apart less well; try a quarter of --optim.lr, or "
            "fewer --epochs",
        )
    evidence = f"negatives are {gap:.2f} deviations beyond positives, {first['gap']:.2f} at first"
    if flat or last["std"] < FLAT_STD:
        evidence += f", and embeddings nearly equal (std {last['std']:.3f} of 1)"
        return Health("collapsed", f"{evidence}; {less}")
    return Health("collapsing", f"{evidence}; {less}")


def _by_spread(first: Signs, recent: Sequence[Signs], images: int, less: str) -> Health | None:
    std, rank = _median(recent, "std"), _median(recent, "rank")
    if std < min(FLAT_STD, FALLEN * first["std"]):
        evidence = f"embeddings are nearly equal (std {std:.3f} of 1, {first['std']:.2f} at first)"
        return Health("collapsed", f"{evidence}; {less}")
    if rank < FALLEN * first["rank"]:
        evidence = f"embeddings lie along {rank:.1f} directions, {first['rank']:.1f} at first"
        return Health("collapsing", f"{evidence}; {less}")
    return None


def _median(recent: Sequence[Signs], name: str) -> float:
    return median(signs[name] for signs in recent)


def _hint(last: Signs, remedies: Remedies) -> str:
    if not remedies.easier or last.get("relative_loss", 0) <= 1 or last.get("active", 0) <= 0.9:
        return ""
    return (
        f"the loss is {last['relative_loss']:.2f} of that of equal embeddings: the miner's "
        f"triplets are still harder than no encoder at all; {remedies.easier} learns more here"
    )


def _less_force(remedies: Remedies) -> str:
    if remedies.easier:
        return f"try {remedies.easier}, or else a quarter of --optim.lr"
    return "try a quarter of --optim.lr or a longer --optim.warmup"


def _nothing_active(signs: Signs, remedies: Remedies) -> str:
    learnt = "no triplet or pair of the batch has a loss to learn from"
    if signs.get("nearest", 0) > 0.95:
        end = f"{learnt}: its classes are learnt. End the run"
        return f"{end}, or try {remedies.harder[0]}" if remedies.harder else end
    harder = f"{', '.join(remedies.harder)} or " if remedies.harder else ""
    return f"{learnt}; try {harder}a larger batch"
