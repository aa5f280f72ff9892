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

CHUNK = 2048  # rows at a time, which stay in the cache between the logits and the gradient
LOOKED_AT = 16384  # rows that the curvature is taken from
HISTORY = 10  # pairs of steps and changes of the gradient that L-BFGS remembers
PATIENCE = 300  # steps
HALVINGS = 10  # of a step that does not go down
NOISE = 1e-7  # a smaller share of the value than float32 can tell apart


class Fit(NamedTuple):
    """A classifier."""

    weight: Tensor
    """[c, d]."""
    bias: Tensor
    """[c]."""
    objective: float
    """Mean loss in nats, plus the weights' share."""
    converged: bool
    """Whether the tolerance was reached."""

    def predict(self, x: Tensor) -> Tensor:
        """Classes of features. [n, d] -> int64 [n]."""
        return (x @ self.weight.T + self.bias).argmax(1)


class Problem:
    """Features and classes, with what all strengths of regularisation share."""

    def __init__(self, x: Tensor, classes: Tensor, c: int, like: "Problem | None" = None) -> None:
        """Take float32 features [n, d] and classes [n] from 0 to c - 1.

        The curvature may be taken from a problem of similar features: it steers, and decides
        nothing.
        """
        self.x, self.classes, self.c = x, classes, c
        self.n, self.d = x.shape
        self.mean = x.mean(0)
        self.curvature: Tensor
        self.axes: Tensor
        if like is None:
            self.curvature, self.axes = self._curvature()
        else:
            self.curvature, self.axes = like.curvature, like.axes

    def _curvature(self) -> tuple[Tensor, Tensor]:
        """Boehning's bound: its eigenvalues [d] and their axes [d, d]."""
        square = torch.zeros(self.d, self.d)
        some = self.x[:: -(-self.n // LOOKED_AT)]
        for part in some.split(CHUNK):
            centred = part - self.mean
            square.addmm_(centred.T, centred)
        curvature, axes = torch.linalg.eigh(square / len(some) / 4)
        return curvature.clamp(min=0), axes

    def fit(self, strength: float, start: Fit | None = None, *, tolerance: float = 3e-5) -> Fit:
        """Minimise for one strength of the losses, C in scikit-learn.

        Args:
            strength: the larger, the less regularised.
            start: where to begin, a neighbouring strength's fit for example.
            tolerance: of the gradient's largest entry, in whitened coordinates.
        """
        decay = 1 / (strength * self.n)
        flat = 1e-6 * float(self.curvature.max())  # where float32 sees no curvature any more
        scale = (self.curvature + decay + flat).rsqrt().float()

        def at(point: Tensor) -> tuple[float, Tensor]:
            """Value and gradient of whitened weights, and of the bias for centred features."""
            weight = (point[:, :-1] * scale) @ self.axes.T
            value, by_weight, by_bias = self._at(weight, point[:, -1] - weight @ self.mean, decay)
            whitened = (by_weight - torch.outer(by_bias, self.mean)) @ self.axes * scale
            return value, torch.cat([whitened, by_bias[:, None]], dim=1)

        point = torch.zeros(self.c, self.d + 1)
        if start is not None:
            point[:, :-1] = start.weight @ self.axes / scale
            point[:, -1] = start.bias + start.weight @ self.mean
        point, value, converged = minimise(at, point, tolerance=tolerance)
        weight = (point[:, :-1] * scale) @ self.axes.T
        return Fit(weight, point[:, -1] - weight @ self.mean, value, converged)

    def _at(self, weight: Tensor, bias: Tensor, decay: float) -> tuple[float, Tensor, Tensor]:
        """Mean loss with decay, and its gradients."""
        by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        total = 0.0
        for x, classes in zip(self.x.split(CHUNK), self.classes.split(CHUNK), strict=True):
            # a class for each row: the other way round these thin products take four times as long
            logits = torch.addmm(bias[:, None], weight, x.T)  # [c, chunk]
            logits -= logits.logsumexp(0)
            true = classes[None]
            total -= float(logits.gather(0, true).double().sum())
            share = logits.exp_()
            share.scatter_add_(0, true, torch.full((1, len(x)), -1.0))
            by_bias += share.sum(1)
            by_weight.addmm_(share, x)
        value = total / self.n + decay / 2 * float(weight.double().square().sum())
        return value, by_weight.div_(self.n).add_(weight, alpha=decay), by_bias.div_(self.n)


Value = Callable[[Tensor], tuple[float, Tensor]]


def minimise(at: Value, point: Tensor, *, tolerance: float) -> tuple[Tensor, float, bool]:
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.4) with steps halved until they go down.

    Args:
        at: value and gradient of a point.
        point: where to begin, any shape.
        tolerance: of the gradient's largest entry.

    Returns:
        The best point, its value, and whether the tolerance was reached, or a tenfold where float32
        ends.
    """
    value, gradient = at(point)
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for _ in range(PATIENCE):
        if float(gradient.abs().max()) <= tolerance:
            return point, value, True
        direction = _direction(gradient, pairs)
        slope, size = float((gradient * direction).sum()), 1.0
        for _ in range(HALVINGS):
            there = point + size * direction
            new, changed = at(there)
            if new <= value + 1e-4 * size * slope:
                break
            size /= 2
        else:
            return point, value, float(gradient.abs().max()) <= 10 * tolerance
        step, change = there - point, changed - gradient
        curvature = float((step * change).sum())
        if curvature > 1e-12:
            pairs = [*pairs[1 - HISTORY :], (step, change, 1 / curvature)]
        gained, point, value, gradient = value - new, there, new, changed
        if gained <= NOISE * abs(value):  # as good as float32 can do
            return point, value, float(gradient.abs().max()) <= 10 * tolerance
    return point, value, False


def _direction(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, float]]) -> Tensor:
    """Minus the inverse curvature that the pairs tell, times the gradient."""
    q = gradient.clone()
    shares = []
    for step, change, inverse in reversed(pairs):
        share = inverse * float((step * q).sum())
        q -= share * change
        shares.append(share)
    if pairs:
        step, change, inverse = pairs[-1]
        q /= inverse * float(change.square().sum())
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        q += step * (share - inverse * float((change * q).sum()))
    return -q
