"""Similarities and distances of embeddings, shared by losses and miners.

Shape letters: n and m rows, d embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import (
    at_least_float32,
    float64_norm,
    full_precision,
    normalize,
    with_float64,
)

EQUAL = 1e-14  # rows count as equal below this fraction: squared distance / squared lengths


class Measure(Protocol):
    """Compares rows pair by pair, and sends the gradient of the comparisons back to the rows."""

    def prepare(self, x: Tensor) -> Tensor:
        """Convert rows to float32 or float64 and normalise them if wanted. Differentiable."""

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """Compare all pairs of prepared rows, without gradient. [n, d], [m, d] -> [n, m]."""

    def add_gradient(
        self,
        gradient: Tensor,
        values: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        to_x: Tensor | None,
        to_y: Tensor | None,
    ) -> None:
        """Add the gradient of the values [n, m] to `to_x` [n, d] and `to_y` [m, d], in place.

        None stands for rows that need no gradient, such as a queue's.
        """


@dataclass(frozen=True)
class Similarity:
    """Dot product of two rows.

    normalize: scale rows to length 1 first, which makes it the cosine.
    """

    normalize: bool = True

    def prepare(self, x: Tensor) -> Tensor:
        """Convert rows to float32 or float64 and normalise them if wanted. [n, d] -> [n, d]."""
        x = at_least_float32(x)
        return normalize(x) if self.normalize else x

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute all dot products of prepared rows. [n, d], [m, d] -> [n, m]."""
        return x @ y.T

    def add_gradient(
        self,
        gradient: Tensor,
        values: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        to_x: Tensor | None,
        to_y: Tensor | None,
    ) -> None:
        """Add the gradient of the values [n, m] to `to_x` [n, d] and `to_y` [m, d], in place."""
        if to_x is not None:
            to_x.addmm_(gradient, y)
        if to_y is not None:
            to_y.addmm_(gradient.T, x)


COSINE = Similarity(normalize=True)
"""The measure of every loss that compares directions alone."""


@dataclass(frozen=True)
class Distance:
    """Distance of two embeddings: one object for miner and loss, so that they agree.

    kind: euclidean |x - y|, squared |x - y|^2, or cosine 1 - cos(x, y), formed as half the square
        so that equal rows are at exactly 0; a row of zeros is at 1/2 from all others.
    normalize: scale rows to length 1 first (cosine always does).

    Example:
        >>> x = torch.tensor([[0.0, 3.0], [4.0, 0.0]])
        >>> Distance("euclidean", normalize=False).matrix(x, x).tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """

    kind: Literal["euclidean", "squared", "cosine"] = "euclidean"
    normalize: bool = True

    def prepare(self, x: Tensor) -> Tensor:
        """Convert rows to float32 or float64 and normalise them if wanted. [n, d] -> [n, d]."""
        x = at_least_float32(x)
        return normalize(x) if self.normalize or self.kind == "cosine" else x

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute all distances of any rows, without gradient. [n, d], [m, d] -> [n, m]."""
        with torch.no_grad(), full_precision(x):
            return self.values(self.prepare(x), self.prepare(y))

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute all distances of prepared rows, without gradient. [n, d], [m, d] -> [n, m].

        Equal rows are at exactly 0. The product form of `torch.cdist` has errors up to 7e-4 in
        float32, which would break ties and duplicates; the form by differences takes ten times as
        long. So float32 rows are multiplied in float64 and the result is rounded: it is the nearest
        float32 to the true distance, where that is above 1e-7 of the rows' length. Below, the rows
        count as equal.
        """
        if x.dtype == torch.float64:
            distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
            return distances if self.kind == "euclidean" else self._from_square(distances.square())
        home = x
        x, y = with_float64(x).double(), with_float64(y).double()
        lengths = x.square().sum(1)[:, None] + y.square().sum(1)
        square = torch.addmm(lengths, x, y.T, alpha=-2)
        square.masked_fill_(square <= lengths.mul_(EQUAL), 0)
        distances = square.sqrt_() if self.kind == "euclidean" else self._from_square(square)
        return distances.to(home)

    def add_gradient(
        self,
        gradient: Tensor,
        values: Tensor,
        x: Tensor,
        y: Tensor,
        *,
        to_x: Tensor | None,
        to_y: Tensor | None,
    ) -> None:
        """Add the gradient of the values [n, m] to `to_x` [n, d] and `to_y` [m, d], in place.

        The gradient of a distance of 0 is 0.
        """
        if self.kind == "euclidean":
            gradient = (gradient / values).masked_fill_(values == 0, 0)
        elif self.kind == "squared":
            gradient = 2 * gradient
        if to_x is not None:
            to_x.addcmul_(gradient.sum(1, keepdim=True), x).addmm_(gradient, y, alpha=-1)
        if to_y is not None:
            to_y.addcmul_(gradient.sum(0)[:, None], y).addmm_(gradient.T, x, alpha=-1)

    def differentiable_values(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute all distances of prepared rows, with gradient. [n, d], [m, d] -> [n, m]."""
        distances: Tensor = _DistanceMatrix.apply(x, y, self)
        return distances

    def rowwise(self, x: Tensor, y: Tensor) -> Tensor:
        """Compute the distance of row i of x to row i of y, with gradient. [n, d] twice -> [n]."""
        with full_precision(x):
            x, y = self.prepare(x), self.prepare(y)
            length = float64_norm(x - y, dim=1)
            kept = length if self.kind == "euclidean" else self._from_square(length.square())
            return kept.to(x)

    def _from_square(self, square: Tensor) -> Tensor:
        return square / 2 if self.kind == "cosine" else square


def zeros_where(rows: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """Return a tensor of zeros for the gradient of each that needs one, else None."""
    pairs = zip(rows, needed, strict=False)
    return [torch.zeros_like(tensor) if wanted else None for tensor, wanted in pairs]


class _DistanceMatrix(torch.autograd.Function):
    """D_ij = |x_i - y_j|; gradient at x_i: sum over j of G_ij (x_i - y_j) / D_ij.

    That is x_i times a row sum of G / D, less a matrix product, so that the differences [n, m, d]
    are never held. (Squared: 2 G for G / D. Cosine: G, of half the square of unit rows.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, distance: Distance) -> Tensor:
        values = distance.values(x, y)
        ctx.save_for_backward(x, y, values)
        ctx.distance = distance
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, y, values = ctx.saved_tensors
        to_x, to_y = zeros_where((x, y), ctx.needs_input_grad)
        ctx.distance.add_gradient(grad_outputs[0], values, x, y, to_x=to_x, to_y=to_y)
        return to_x, to_y, None
