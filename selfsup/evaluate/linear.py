"""The linear probe: logistic regression on frozen features.

Shape letters: n training features, q test features, d width.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from selfsup.evaluate.features import split_rows

STRENGTHS = tuple(10.0**power for power in (-4, -3, -2, -1, 0, 1))
"""Inverse regularisation (scikit-learn's C) to choose from."""


class Probe(NamedTuple):
    """What the probe found."""

    predictions: Tensor
    """int64 [q]."""
    strength: float
    """The C that was chosen."""
    converged: bool
    """Whether L-BFGS reached its tolerance with it."""


def linear_probe(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    seed: int,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[int], None] = lambda fits: None,
) -> Probe:
    """Multinomial logistic regression by L-BFGS; C chosen on a tenth of train, refitted on all.

    Features are standardised by the mean and deviation of the training features. The test features
    take no part in any choice. Source of the protocol: Oquab et al. 2023 (DINOv2), which tries 45
    values of C; here six, for time.

    Args:
        train: [n, d].
        labels: [n] integers, two different ones at least.
        test: [q, d].
        seed: of the split of train.
        strengths: values of C.
        progress: called with 1 after each fit.

    Raises:
        ValueError: there is only one class, or no class has two images to choose C with.
    """
    if len(labels.unique()) < 2:
        raise ValueError("all labels are the same: a linear probe needs 2 classes or more")
    kept, held = split_rows(labels, share=0.1, seed=seed)
    if len(held) == 0:
        raise ValueError("no class has 2 images: nothing is left to choose C with")
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    x, q, y = (((train - mean) / std).numpy(), ((test - mean) / std).numpy(), labels.numpy())
    best, best_score = strengths[0], -1.0
    for strength in strengths:
        model, _ = _fit(x[kept], y[kept], strength)
        score = float((model.predict(x[held]) == y[held]).mean())
        progress(1)
        if score > best_score:  # of equal ones the smallest, which regularises most
            best, best_score = strength, score
    model, converged = _fit(x, y, best)
    progress(1)
    return Probe(torch.from_numpy(model.predict(q).astype(np.int64)), best, converged)


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[LogisticRegression, bool]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(C=strength, max_iter=300).fit(x, y)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)
