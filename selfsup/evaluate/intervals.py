"""Uncertainty: a figure is a mean over images, and an interval by the bootstrap.

Shape letters: n values, c classes.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Figure(NamedTuple):
    """A mean and the interval that holds it in 95 % of resampled sets of images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format for a table: 0.912 [0.897, 0.926]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def figure(values: Tensor, *, seed: int, resamples: int, groups: Tensor | None = None) -> Figure:
    """Average per-image values, with a 95 % percentile bootstrap interval (Efron 1979).

    Args:
        values: [n], one for each image.
        seed: of the resampling. Differences of two models' values are paired by it.
        resamples: how many sets to draw, with replacement: of n images, or of as many classes.
        groups: int64 [n], the class of each image where classes are resampled as a whole: values of
            one class are correlated, and resampling images would make the interval too narrow.

    Raises:
        ValueError: there are no values.
    """
    x = values.double().numpy()
    if len(x) == 0:
        raise ValueError("no images to average over")
    draw = np.random.default_rng(seed)
    sums, counts = x, np.ones(len(x))
    if groups is not None:
        index = groups.unique(return_inverse=True)[1]
        size = int(index.max()) + 1
        sums = torch.zeros(size, dtype=torch.float64).index_add_(0, index, values.double()).numpy()
        counts = torch.bincount(index, minlength=size).double().numpy()
    means = []
    for _ in range(resamples):
        drawn = draw.integers(0, len(sums), len(sums))
        means.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975]) if means else (x.mean(), x.mean())
    return Figure(float(x.mean()), float(low), float(high))
