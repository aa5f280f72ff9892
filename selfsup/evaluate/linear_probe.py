"""The linear probe: a linear classifier on frozen features, its one setting chosen inside train.

Shape letters: n training features, q test features, d width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.labels import class_labels
from selfsup.evaluate.features import split_rows
from selfsup.evaluate.logistic import Fit, Problem

STRENGTHS = tuple(10.0 ** (-6 + 11 * i / 44) for i in range(45))
"""Inverse regularisation (scikit-learn's C) to choose from: DINOv2's 45."""
HELD_OUT = 0.1
"""Fraction of the training images that choices are made on."""


class Probe(NamedTuple):
    """A fitted probe's predictions."""

    predictions: Tensor
    """int64 [q]."""
    setting: float
    """The chosen C, or learning rate."""
    converged: bool
    """Whether the optimiser reached its tolerance; always true for a fixed number of epochs."""


class Prepared(NamedTuple):
    """Standardised features, the classes as numbers from 0, and the split that chooses."""

    train: Tensor
    test: Tensor
    classes: Tensor
    """int64 [n]."""
    names: Tensor
    """The label of each class."""
    fitted: Tensor
    """int64, rows that candidates are fitted on."""
    held_out: Tensor
    """int64, rows that they are compared on."""


def prepare(train: Tensor, labels: Tensor, test: Tensor, *, seed: int) -> Prepared:
    """Standardise by the mean and deviation of the training features.

    Raises:
        ValueError: there is only one class, or no class has two images to choose with.
    """
    labels = class_labels(labels)
    names, classes = labels.unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError("all labels are the same: a linear probe needs 2 classes or more")
    fitted, held_out = split_rows(labels, fraction=HELD_OUT, seed=seed)
    if len(held_out) == 0:
        raise ValueError("no class has 2 images: nothing is left to choose C with")
    train, test = standardize(train, test)
    return Prepared(train, test, classes, names, fitted, held_out)


def standardize(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each column to mean 0 and deviation 1 in train; one that does not change becomes 0.

    Columns are divided by their largest entry first, since squares of 1e25 and of 1e-30 are
    infinite and 0 in float32.
    """
    largest = train.abs().amax(0)
    largest = torch.where(largest > 0, largest, 1)
    x = train / largest
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    return x.sub_(mean).div_(std), (test / largest - mean) / std


def linear_probe(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    seed: int,
    strengths: tuple[float, ...] = STRENGTHS,
    progress: Callable[[int], None] = lambda fits: None,
) -> Probe:
    """Fit multinomial logistic regression; C chosen on a tenth of train, refitted on all.

    The test features take no part in any choice. Source of the protocol: Oquab et al. 2023
    (DINOv2), https://arxiv.org/abs/2304.07193, section 7.1.

    Args:
        train: float32 [n, d].
        labels: [n] integers, two different ones at least.
        test: float32 [q, d].
        seed: of the split of train.
        strengths: values of C, ascending: each fit begins where the one before it ended.
        progress: called with 1 after each fit.

    Raises:
        ValueError: there is only one class, or no class has two images to choose C with.
    """
    ready = prepare(train, labels, test, seed=seed)
    problem = Problem(ready.train, ready.classes, len(ready.names))
    held_out, truth = ready.train[ready.held_out], ready.classes[ready.held_out]
    subset, ready = problem.select(ready.fitted), ready._replace(train=held_out)
    best: Fit | None = None
    chosen, score, fit = strengths[0], -1.0, None
    for strength in strengths:
        fit = subset.fit(strength, fit)
        accuracy = float((fit.predict(held_out) == truth).double().mean())
        progress(1)
        if accuracy > score:  # of equal ones the smallest, which regularises most
            best, chosen, score = fit, strength, accuracy
    final = problem.fit(chosen, best)
    progress(1)
    return Probe(ready.names[final.predict(ready.test)], chosen, final.converged)
