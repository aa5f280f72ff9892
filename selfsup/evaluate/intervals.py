"""Uncertainty: a figure is a mean over images, and an interval by the bootstrap.

Shape letters: n values, m of each image.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SMALLEST_GAP = 1e-6
"""A smaller lead is rounding, not a gap that could be closed."""


class Figure(NamedTuple):
    """A mean and the interval that holds it in 95 % of resampled sets of images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format for a table: 0.912 [0.897, 0.926]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def figure(values: Tensor, groups: Tensor | None = None, *, seed: int, resamples: int) -> Figure:
    """Average per-image values, with a 95 % percentile bootstrap interval (Efron 1979).

    Args:
        values: [n], one for each image.
        groups: int64 [n], the class of each image where classes are resampled as a whole: values of
            one class are correlated, and resampling images would make the interval too narrow.
        seed: of the resampling. Differences of two models' values are paired by it.
        resamples: how many sets to draw, with replacement: of n images, or of as many classes.

    Raises:
        ValueError: there are no values.
    """
    if len(values) == 0:
        raise ValueError("no images to average over")
    means = _resampled_means(values[:, None], seed=seed, resamples=resamples, groups=groups)
    return _with_interval(float(values.double().mean()), means[:, 0])


class Gap(NamedTuple):
    """How far a student has come from a baseline towards its teacher."""

    lead: Figure
    """Teacher less baseline: the gap."""
    gain: Figure
    """Student less baseline."""
    closed: Figure | None
    """Gain / lead; None where the teacher does not lead in every resample."""


def gap_closed(
    teacher: Tensor,
    student: Tensor,
    baseline: Tensor,
    groups: Tensor | None = None,
    *,
    seed: int,
    resamples: int,
) -> Gap:
    """Compute the share of the gap between baseline and teacher that a student closes.

    (student - baseline) / (teacher - baseline), of means over the same images. All three are
    resampled together, so that what is hard for all does not widen the interval. Where the lead
    is not above 0 in some resample there is no share: the quotient would be of any size.

    Example: means 0.6, 0.5 and 0.4 are a lead of 0.2, a gain of 0.1 and a share of 0.5.

    Args:
        teacher: [n], a value for each image.
        student: [n], of the same images.
        baseline: [n], of the same images.
        groups: int64 [n], as in `figure`.
        seed: of the resampling.
        resamples: how many sets to draw, of images or of as many classes.

    Raises:
        ValueError: there are no values, or the three are of other images.
    """
    if not teacher.shape == student.shape == baseline.shape:
        shapes = ", ".join(str(tuple(x.shape)) for x in (teacher, student, baseline))
        raise ValueError(f"teacher, student and baseline have other images: {shapes}")
    if len(teacher) == 0:
        raise ValueError("no images to average over")
    both = torch.stack([teacher.double() - baseline.double(), student.double() - baseline], 1)
    means = _resampled_means(both, seed=seed, resamples=resamples, groups=groups)
    lead, gain = both.mean(0).tolist()
    closed = None
    if lead > SMALLEST_GAP and bool((means[:, 0] > SMALLEST_GAP).all()):
        closed = _with_interval(gain / lead, means[:, 1] / means[:, 0])
    return Gap(_with_interval(lead, means[:, 0]), _with_interval(gain, means[:, 1]), closed)


def _with_interval(value: float, resampled: np.ndarray) -> Figure:
    """Take the 95 % percentile interval of resampled values; without any, the value alone."""
    if len(resampled) == 0:
        return Figure(value, value, value)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Figure(value, float(low), float(high))


def _resampled_means(
    values: Tensor, *, seed: int, resamples: int, groups: Tensor | None
) -> np.ndarray:
    """Average [n, m] values over each resample of images or of whole groups. [resamples, m]."""
    draw = np.random.default_rng(seed)
    x = values.double()
    sums, counts = x.numpy(), np.ones(len(x))
    if groups is not None:
        index = groups.unique(return_inverse=True)[1]
        size = int(index.max()) + 1
        sums = x.new_zeros(size, x.shape[1]).index_add_(0, index, x).numpy()
        counts = torch.bincount(index, minlength=size).double().numpy()
    means = np.empty((resamples, x.shape[1]))
    for row in means:
        drawn = draw.integers(0, len(sums), len(sums))
        row[:] = sums[drawn].sum(0) / counts[drawn].sum()
    return means
