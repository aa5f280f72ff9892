"""Multinomial logistic regression by L-BFGS in whitened coordinates.

The objective is scikit-learn's: C times the sum of the losses plus half the squared weights, the
bias free. Its curvature is bounded by that of the features (Boehning 1992), so L-BFGS runs in
coordinates where the bound is the identity, and needs the same few steps on ill-conditioned
features as on easy ones.

Shape letters: n features, d width, c classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.threads import single_threaded
from selfsup.evaluate.softmax import cross_entropy

CURVATURE_ROWS = 8192, 16  # that the curvature is taken from: at least, and for each dimension
HISTORY = 10  # pairs of steps and changes of the gradient that L-BFGS remembers
PATIENCE = 300  # steps
FLOORS = 6  # of the curvature that are tried, each ten times the last
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
    """Features and classes, prepared once for all strengths of regularisation."""

    def __init__(self, x: Tensor, classes: Tensor, c: int, like: "Problem | None" = None) -> None:
        """Take float32 features [n, d] and classes [n] from 0 to c - 1.

        `like` is a problem of similar features whose curvature is used: the curvature changes how
        fast the minimum is reached, not where it is.
        """
        self.x, self.classes, self.c = x, classes, c
        self.n, self.d = x.shape
        self.mean = x.mean(0)
        self.curvature: Tensor = self._bound() if like is None else like.curvature

    def _bound(self) -> Tensor:
        """Compute Boehning's bound of the curvature; float64 [d, d]."""
        some = self.x[:: max(1, self.n // max(CURVATURE_ROWS[0], CURVATURE_ROWS[1] * self.d))]
        square = torch.zeros(self.d, self.d)
        for block in some.split(4096):
            centred = block - self.mean
            square.addmm_(centred.T, centred)
        return square.double() / (4 * len(some))

    def _root(self, decay: float) -> Tensor:
        """Factorise curvature plus decay as R R^T; R is lower triangular [d, d]."""
        flat = 1e-6 * float(self.curvature.norm())  # below this float32 resolves no curvature
        for _ in range(FLOORS):
            floor = (decay + flat) * torch.eye(self.d, dtype=torch.float64)
            root: Tensor
            root, failed = torch.linalg.cholesky_ex(self.curvature + floor)
            if not failed:
                break
            flat *= 10
        return root.float()

    def fit(self, strength: float, start: Fit | None = None, *, tolerance: float = 3e-5) -> Fit:
        """Minimise for one strength of the losses, C in scikit-learn.

        Args:
            strength: the larger, the less regularised.
            start: where to begin, a neighbouring strength's fit for example.
            tolerance: of the gradient's largest entry, in whitened coordinates.
        """
        decay = 1 / (strength * self.n)
        root = self._root(decay)
        back = torch.linalg.solve_triangular(root, torch.eye(self.d), upper=False)

        def at(point: Tensor) -> tuple[float, Tensor]:
            """Compute value and gradient for whitened weights and the bias of centred features."""
            weight = point[:, :-1] @ back
            value, by_weight, by_bias = self._at(weight, point[:, -1] - weight @ self.mean, decay)
            whitened = (by_weight - torch.outer(by_bias, self.mean)) @ back.T
            return value, torch.cat([whitened, by_bias[:, None]], dim=1)

        point = torch.zeros(self.c, self.d + 1)
        if start is not None:
            point[:, :-1] = start.weight @ root
            point[:, -1] = start.bias + start.weight @ self.mean
        with single_threaded():
            point, value, converged = minimise(at, point, tolerance=tolerance)
        weight = point[:, :-1] @ back
        return Fit(weight, point[:, -1] - weight @ self.mean, value, converged)

    def _at(self, weight: Tensor, bias: Tensor, decay: float) -> tuple[float, Tensor, Tensor]:
        """Compute the mean loss with decay, and its gradients."""
        summed = cross_entropy(self.x, self.classes, weight, bias)
        value = summed.loss / self.n + decay / 2 * float(weight.double().square().sum())
        by_weight = summed.by_weight.div_(self.n).add_(weight, alpha=decay)
        return value, by_weight, summed.by_bias.div_(self.n)


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
