"""Values of rows: what a loss needs of a matrix that is too large to keep.

Most losses are a mean over anchors, and each anchor's term needs one row of the matrix that
compares every embedding with every other. `each_row` makes that matrix a block of rows at a time,
takes from each row what the loss needs, and forgets it; the backward pass makes each block again.
So memory is linear in the batch, and a loss is written as the function of a row that it is.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.numerics import Measure, full_precision

Value = Callable[[Tensor, slice], Tensor]
"""Of a block of comparisons [r, m] and where its anchors stand: [r] or [r, k], row by row."""

BLOCK = 1 << 20  # comparisons at a time: 4 MB of float32, which the second-level cache about holds


def each_row(x: Tensor, y: Tensor, measure: Measure, value: Value) -> Tensor:
    """`value` of every row of the comparisons of x with y, never held as a whole.

    Args:
        x: [n, d] prepared anchors.
        y: [m, d] prepared rows.
        measure: how two rows compare, the one that prepared them.
        value: of each row of a block; it may read any state but may not change it, since it is
            called a second time for the gradient.

    Returns:
        [n] or [n, k], differentiable with respect to x and y.
    """
    result: Tensor = _EachRow.apply(x, y, measure, value)
    return result


def log_sum_exp(values: Tensor, chosen: Tensor) -> Tensor:
    """Log of the sum of exp of the chosen values of each row. [r, m], bool [r, m] -> [r].

    A row with nothing chosen has -inf and gradient zero.
    """
    kept = values.masked_fill(~chosen, -torch.inf)
    top = kept.detach().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).min)
    total = (kept - top).exp().sum(1)
    return torch.where(total > 0, total, 1).log().where(total > 0, -torch.inf) + top[:, 0]


def log_1_plus_sum_exp(values: Tensor, chosen: Tensor) -> Tensor:
    """Log of 1 plus the sum of exp of the chosen values of each row. [r, m], bool -> [r]."""
    kept = values.masked_fill(~chosen, -torch.inf)
    top = kept.detach().amax(1, keepdim=True).clamp_min(0)
    return ((kept - top).exp().sum(1) + (-top[:, 0]).exp()).log() + top[:, 0]


class _EachRow(torch.autograd.Function):
    """Blocks of rows forward, the same blocks again backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, measure: Measure, value: Value) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.measure, ctx.value = measure, value
        with full_precision(x):
            return torch.cat(
                [value(measure.values(x[part], y), part) for part in parts(len(x), len(y))]
            )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y = ctx.saved_tensors
        to_x, to_y = torch.empty_like(x), torch.zeros_like(y)
        for part in parts(len(x), len(y)):
            with full_precision(x):
                block = ctx.measure.values(x[part], y)
                with torch.enable_grad():
                    found = ctx.value(block.requires_grad_(), part)
                (gradient,) = torch.autograd.grad(found, block, gradients[0][part])
                to_x[part], of_y = ctx.measure.pull(gradient, block.detach(), x[part], y)
                to_y += of_y
        return to_x, to_y, None, None


def parts(n: int, m: int) -> list[slice]:
    """Blocks of n rows of m comparisons each, as many rows as `BLOCK` allows."""
    rows = max(1, BLOCK // max(1, m))
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]


Triplets = tuple[Tensor, Tensor, Tensor]
"""Indices [t] of anchors, positives and negatives."""


class Pairs(NamedTuple):
    """Chosen pairs: indices of anchors and positives [t], and of anchors and negatives [u]."""

    anchor: Tensor
    positive: Tensor
    other_anchor: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Relations:
    """Which rows are positives and which are negatives of which anchors.

    labels: [m] integers.
    anchors: the first so many rows are anchors; the rest, a memory behind the batch, are only
        compared with. None: all.
    pairs: where given, only these count.
    """

    labels: Tensor
    anchors: int | None = None
    pairs: Pairs | None = None

    @property
    def n(self) -> int:
        """How many anchors there are."""
        return len(self.labels) if self.anchors is None else self.anchors

    def sides(self, part: slice) -> tuple[Tensor, Tensor]:
        """Positives and negatives of a block of anchors, never an anchor itself: bool [r, m]."""
        if self.pairs is not None:
            return (
                self._chosen(part, self.pairs.anchor, self.pairs.positive),
                self._chosen(part, self.pairs.other_anchor, self.pairs.negative),
            )
        same = self.labels[part, None] == self.labels
        positive = same.clone()
        own = torch.arange(len(same), device=same.device)
        positive[own, part.start + own] = False
        return positive, ~same

    def _chosen(self, part: slice, anchor: Tensor, other: Tensor) -> Tensor:
        inside = (anchor >= part.start) & (anchor < part.stop)
        mask = torch.zeros(
            part.stop - part.start, len(self.labels), dtype=torch.bool, device=self.labels.device
        )
        mask[anchor[inside] - part.start, other[inside]] = True
        return mask

    def counts(self) -> tuple[Tensor, Tensor]:
        """How many positives and how many negatives each anchor has: int64 [n], [n]."""
        if self.pairs is not None:
            return (
                self.pairs.anchor.bincount(minlength=self.n),
                self.pairs.other_anchor.bincount(minlength=self.n),
            )
        _, index, size = self.labels.unique(return_inverse=True, return_counts=True)
        of_class = size[index[: self.n]]
        return of_class - 1, len(self.labels) - of_class

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """Every anchor with every positive of it: index tensors [t], [t], anchors ascending."""
        found = [
            self.sides(part)[0].nonzero() + torch.tensor([part.start, 0], device=self.labels.device)
            for part in self.parts()
        ]
        anchor, positive = torch.cat(found).unbind(1)
        return anchor, positive

    def parts(self) -> list[slice]:
        """Blocks of anchors."""
        return parts(self.n, len(self.labels))

    def blocks(self, z: Tensor, measure: Measure) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Of each block: where, its values [r, m], its positives and its negatives [r, m]."""
        for part in self.parts():
            with full_precision(z):
                values = measure.values(z[part], z)
            yield part, values, *self.sides(part)


def join(found: list[Triplets]) -> Triplets:
    """The triplets of several blocks, one after the other."""
    a, p, n = (torch.cat(column) for column in zip(*found, strict=True))
    return a, p, n


def columns_of(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row of a mask is true, as many columns as the fullest row has.

    bool [r, m] -> int64 [r, most] and whether each is such a place, bool [r, most].
    """
    most = int(mask.sum(1).max()) if len(mask) else 0
    chosen, column = mask.to(torch.uint8).topk(most, dim=1)
    return column, chosen.bool()


def mean_of(values: Tensor, valid: Tensor, what: str) -> Tensor:
    """Mean of the values of valid rows. [n], bool [n] -> scalar.

    Raises:
        ValueError: none is valid; the text says what was needed.
    """
    if not valid.any():
        raise ValueError(f"no anchor of the batch has {what}")
    return values[valid].mean()
