"""Uncertainty: a figure is a mean over images, and an interval by the bootstrap."""

from typing import NamedTuple

import numpy as np
from torch import Tensor


class Figure(NamedTuple):
    """A mean and the interval that holds it in 95 % of resampled sets of images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """For a table: .912 [.897, .926]."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def figure(values: Tensor, *, seed: int, resamples: int) -> Figure:
    """The mean of per-image values with its 95 % percentile bootstrap interval (Efron 1979).

    Args:
        values: [n], one for each image.
        seed: of the resampling.
        resamples: how many sets of n images to draw, with replacement.

    Raises:
        ValueError: there are no values.
    """
    x = values.double().numpy()
    if len(x) == 0:
        raise ValueError("no images to average over")
    draw = np.random.default_rng(seed)
    means = [x[draw.integers(0, len(x), len(x))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975]) if means else (x.mean(), x.mean())
    return Figure(float(x.mean()), float(low), float(high))
