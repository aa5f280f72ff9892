"""How two embeddings compare: similarities and distances, shared by losses and miners.

Shape letters: n and m rows, d embedding width.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import at_least_float32, full_precision, normalize

EQUAL = 1e-14  # rows whose squared distance is a smaller share of their squared lengths are equal


def _sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 by definition, not infinite."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


class Measure(Protocol):
    """How two rows compare: a value for each pair, and the way back for its gradient."""

    def prepare(self, x: Tensor) -> Tensor:
        """Rows as they are compared: float32 at least, scaled if wanted. Differentiable."""

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """Prepared rows compared, without gradient. [n, d], [m, d] -> [n, m]."""

    def pull(
        self, gradient: Tensor, values: Tensor, x: Tensor, y: Tensor, *, to_x: Tensor, to_y: Tensor
    ) -> None:
        """Add the gradient at the values [n, m] to those of x [n, d] and y [m, d], in place."""


@dataclass(frozen=True)
class Similarity:
    """Dot product of two rows.

    normalize: scale rows to length 1 first, which makes it the cosine.
    """

    normalize: bool = True

    def prepare(self, x: Tensor) -> Tensor:
        """Rows as they are compared. [n, d] -> [n, d]."""
        x = at_least_float32(x)
        return normalize(x) if self.normalize else x

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """[n, d], [m, d] -> [n, m]."""
        return x @ y.T

    def pull(
        self, gradient: Tensor, values: Tensor, x: Tensor, y: Tensor, *, to_x: Tensor, to_y: Tensor
    ) -> None:
        """Add the gradient at the values [n, m] to those of x [n, d] and y [m, d], in place."""
        to_x.addmm_(gradient, y)
        to_y.addmm_(gradient.T, x)


COSINE = Similarity(normalize=True)
"""The measure of every loss that compares directions alone."""


@dataclass(frozen=True)
class Distance:
    """How far apart two embeddings are: one object for miner and loss, so that they agree.

    kind: euclidean |x - y|, squared |x - y|^2, or cosine 1 - cos(x, y), formed as half the square
        so that equal rows are at exactly 0; a row of zeros is at 1/2 from all others.
    normalize: scale rows to length 1 first (cosine always does).
    """

    kind: Literal["euclidean", "squared", "cosine"] = "euclidean"
    normalize: bool = True

    def prepare(self, x: Tensor) -> Tensor:
        """Rows as they are compared. [n, d] -> [n, d]."""
        x = at_least_float32(x)
        return normalize(x) if self.normalize or self.kind == "cosine" else x

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Every distance, of rows in any scale, without gradient. [n, d], [m, d] -> [n, m]."""
        with torch.no_grad(), full_precision(x):
            return self.values(self.prepare(x), self.prepare(y))

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """Every distance of prepared rows, equal rows at exactly 0. [n, d], [m, d] -> [n, m].

        The product form of `torch.cdist` errs by up to 7e-4 in float32, which would break ties and
        duplicates, and differences one by one take ten times as long. So float32 rows are
        multiplied in float64 and the result is rounded: it is the nearest float32 to the true
        distance, where that is above 1e-7 of the rows' length; below, the rows count as equal.
        """
        if x.dtype == torch.float64:
            apart = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
            return apart if self.kind == "euclidean" else self._of_square(apart.square())
        x, y = x.double(), y.double()
        lengths = x.square().sum(1)[:, None] + y.square().sum(1)
        square = torch.addmm(lengths, x, y.T, alpha=-2)
        square.masked_fill_(square <= lengths.mul_(EQUAL), 0)
        return (square.sqrt_() if self.kind == "euclidean" else self._of_square(square)).float()

    def pull(
        self, gradient: Tensor, values: Tensor, x: Tensor, y: Tensor, *, to_x: Tensor, to_y: Tensor
    ) -> None:
        """Add the gradient at the values [n, m] to those of x [n, d] and y [m, d], in place.

        That of a distance of 0 is 0.
        """
        if self.kind == "euclidean":
            gradient = (gradient / values).masked_fill_(values == 0, 0)
        elif self.kind == "squared":
            gradient = 2 * gradient
        to_x.addcmul_(gradient.sum(1, keepdim=True), x).addmm_(gradient, y, alpha=-1)
        to_y.addcmul_(gradient.sum(0)[:, None], y).addmm_(gradient.T, x, alpha=-1)

    def whole(self, x: Tensor, y: Tensor) -> Tensor:
        """Every distance of prepared rows, differentiable. [n, d], [m, d] -> [n, m]."""
        apart: Tensor = _Whole.apply(x, y, self)
        return apart

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of row i of x to row i of y, differentiable. [n, d], [n, d] -> [n]."""
        with full_precision(x):
            x, y = self.prepare(x), self.prepare(y)
            square = (x - y).square().sum(1)
            return _sqrt(square) if self.kind == "euclidean" else self._of_square(square)

    def _of_square(self, square: Tensor) -> Tensor:
        return square / 2 if self.kind == "cosine" else square


class _Whole(torch.autograd.Function):
    """A matrix of distances whose gradient does not hold a difference for each pair."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, distance: Distance) -> Tensor:
        values = distance.values(x, y)
        ctx.save_for_backward(x, y, values)
        ctx.distance = distance
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        x, y, values = ctx.saved_tensors
        to_x, to_y = torch.zeros_like(x), torch.zeros_like(y)
        ctx.distance.pull(gradients[0], values, x, y, to_x=to_x, to_y=to_y)
        return to_x, to_y, None
