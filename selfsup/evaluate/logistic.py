"""Multinomial logistic regression by L-BFGS in whitened coordinates.

The objective is scikit-learn's: C times the sum of the losses plus half the squared weights, the
bias free. Its curvature is bounded by that of the features (Boehning 1992), so L-BFGS runs in
coordinates where the bound is the identity, and needs the same few steps on ill-conditioned
features as on easy ones.

Shape letters: n features, d width, r axes, c classes.
"""

from collections.abc import Callable
from copy import copy
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.threads import single_threaded
from selfsup.evaluate.softmax import cross_entropy

CURVATURE_ROWS = 8192, 16  # that the curvature is taken from: at least, and for each dimension
HISTORY = 10  # pairs of steps and changes of the gradient that L-BFGS remembers
PATIENCE = 300  # steps
FLAT = 1e-6  # of the curvature's norm: below this float32 resolves none
RANK = 1e-12  # of the largest eigenvalue: rows whose products are below it add no direction
BLOCK = 4096  # rows at a time
HALVINGS = 30  # of a step that does not go down
NOISE = 1e-7  # a relative change of the value that float32 does not resolve


class Fit(NamedTuple):
    """A fitted classifier."""

    weight: Tensor
    """[c, d]."""
    bias: Tensor
    """[c]."""
    objective: float
    """Mean loss in nats, plus the penalty on the weights."""
    converged: bool
    """Whether the tolerance was reached."""

    def predict(self, x: Tensor) -> Tensor:
        """Predict the classes of features. [n, d] -> int64 [n]."""
        return (x @ self.weight.T + self.bias).argmax(1)


class Problem:
    """Features and classes, prepared once for all strengths of regularisation.

    The features are centred and turned to the axes of their curvature (`basis`, [d, r]), where
    whitening for any strength is one factor for each axis. With fewer rows than columns the weights
    lie in the space of the rows: r is at most n, and time depends on n, not on d.
    """

    def __init__(self, x: Tensor, classes: Tensor, c: int) -> None:
        """Take float32 features [n, d] and classes [n] from 0 to c - 1."""
        self.classes, self.c = classes, c
        self.mean = x.mean(0)
        self.basis, self.curvature = _axes(x, self.mean)
        self.x = torch.cat([(block - self.mean) @ self.basis for block in x.split(BLOCK)])

    def select(self, rows: Tensor) -> "Problem":
        """The problem of some rows, with the axes and the curvature of all.

        The curvature changes how fast the minimum is reached, not where it is.
        """
        few = copy(self)
        few.x, few.classes = self.x[rows], self.classes[rows]
        return few

    def fit(self, strength: float, start: Fit | None = None, *, tolerance: float = 3e-5) -> Fit:
        """Minimise for one strength of the losses, C in scikit-learn.

        Args:
            strength: the larger, the less regularised.
            start: where to begin, a neighbouring strength's fit for example.
            tolerance: of the gradient's largest entry, in whitened coordinates.
        """
        decay = 1 / (strength * len(self.x))
        flat = FLAT * float(self.curvature.norm())
        scale = (self.curvature + decay + flat).rsqrt().float()  # [r], of the whitened weights

        def at(point: Tensor) -> tuple[float, Tensor]:
            """Compute value and gradient for whitened weights and the bias of centred features."""
            value, by_weight, by_bias = self._at(point[:, :-1] * scale, point[:, -1], decay)
            return value, torch.cat([by_weight * scale, by_bias[:, None]], dim=1)

        point = torch.zeros(self.c, len(scale) + 1)
        if start is not None:
            point[:, :-1] = start.weight @ self.basis / scale
            point[:, -1] = start.bias + start.weight @ self.mean
        with single_threaded():
            point, value, converged = minimise(at, point, tolerance=tolerance)
        weight = point[:, :-1] * scale @ self.basis.T
        return Fit(weight, point[:, -1] - weight @ self.mean, value, converged)

    def _at(self, weight: Tensor, bias: Tensor, decay: float) -> tuple[float, Tensor, Tensor]:
        """Compute the mean loss with decay, and its gradients."""
        n, summed = len(self.x), cross_entropy(self.x, self.classes, weight, bias)
        value = summed.loss / n + decay / 2 * float(weight.double().square().sum())
        by_weight = summed.by_weight.div_(n).add_(weight, alpha=decay)
        return value, by_weight, summed.by_bias.div_(n)


def _axes(x: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Axes of the curvature's bound (Boehning) and the curvature along each. [d, r], float64 [r].

    With more rows than columns r = d. Else the axes come from the products of rows: for 40 images
    of 2,048 numbers an eigenproblem of 40, not of 2,048.
    """
    n, d = x.shape
    if n > d:
        some = x[:: max(1, n // max(CURVATURE_ROWS[0], CURVATURE_ROWS[1] * d))]
        square = torch.zeros(d, d)
        for block in some.split(BLOCK):
            centred = block - mean
            square.addmm_(centred.T, centred)
        values, axes = torch.linalg.eigh(square.double())
        return axes.float(), values.clamp(min=0) / (4 * len(some))
    centred = (x - mean).double()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    real = values > RANK * values[-1].clamp(min=torch.finfo(torch.float64).tiny)
    values, vectors = values[real], vectors[:, real]
    return (centred.T @ vectors / values.sqrt()).float(), values / (4 * n)


Value = Callable[[Tensor], tuple[float, Tensor]]


def minimise(at: Value, point: Tensor, *, tolerance: float) -> tuple[Tensor, float, bool]:
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with steps halved until they go down.

    Args:
        at: value and gradient of a point.
        point: where to begin, any shape.
        tolerance: of the gradient's largest entry.

    Returns:
        The best point, its value, and whether the tolerance was reached; ten times the tolerance
        where float32 resolves no further step.
    """
    value, gradient = at(point)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(PATIENCE):
        if float(gradient.abs().max()) <= tolerance:
            return point, value, True
        direction = _direction(gradient, pairs)
        slope, size = float((gradient * direction).sum()), 1.0
        for _ in range(HALVINGS):
            moved = point + size * direction
            new, new_gradient = at(moved)
            if new <= value + 1e-4 * size * slope:
                break
            size /= 2
        else:
            return point, value, float(gradient.abs().max()) <= 10 * tolerance
        step, change = moved - point, new_gradient - gradient
        curvature = float((step * change).sum())
        if curvature > 1e-12:
            pairs = [*pairs[1 - HISTORY :], (step, change, 1 / curvature)]
        gained, point, value, gradient = value - new, moved, new, new_gradient
        if gained <= NOISE * abs(value):  # float32 resolves no more
            return point, value, float(gradient.abs().max()) <= 10 * tolerance
    return point, value, False


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Compute minus the gradient times the inverse curvature that the pairs estimate."""
    q = gradient.clone()
    weights = []
    for step, change, inverse in reversed(pairs):
        weight = inverse * float((step * q).sum())
        q -= weight * change
        weights.append(weight)
    if pairs:
        step, change, inverse = pairs[-1]
        q /= inverse * float(change.square().sum())
    for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        q += step * (weight - inverse * float((change * q).sum()))
    return -q
