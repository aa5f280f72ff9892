"""Values of rows: what a loss needs of a matrix that is too large to keep.

Most losses are a mean over anchors, and each anchor's term needs one row of the matrix that
compares every embedding with every other. `each_row` makes that matrix a block of rows at a time,
takes from each row what the loss needs, and forgets it; the backward pass makes each block again.
So memory is linear in the batch, and a loss is written as the function of a row that it is.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.numerics import Measure, full_precision

Value = Callable[[Tensor, slice], Tensor]
"""Of a block of comparisons [r, m] and where its anchors stand: [r], row by row; or [r, k], whose
first column has a gradient and whose others are figures beside it."""

BLOCK = 1 << 17  # comparisons at a time: half a megabyte of float32, which stays in a cache
LEAST = 32  # rows at a time: of fewer, products are slow


def each_row(x: Tensor, y: Tensor, measure: Measure, value: Value, *, ahead: bool = True) -> Tensor:
    """`value` of every row of the comparisons of x with y, never held as a whole.

    Args:
        x: [n, d] prepared anchors.
        y: [m, d] prepared rows.
        measure: how two rows compare, the one that prepared them.
        value: of each row of a block; it may read any state but may not change it, since it may be
            called a second time for the gradient.
        ahead: make the gradient along with the value, as if all rows weigh the same, which they do
            in a mean. Where they do not, blocks are made again.

    Returns:
        [n] or [n, k], differentiable with respect to x and y in its first column.
    """
    result: Tensor = _EachRow.apply(x, None if y is x else y, measure, value, ahead)
    return result


def log_sum_exp(values: Tensor) -> Tensor:
    """Log of the sum of exp of each row, some of it -inf. [r, m] -> [r].

    A row of nothing but -inf has -inf and gradient zero.
    """
    top = values.detach().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).min)
    total = (values - top).exp().sum(1)
    return torch.where(total > 0, total, 1).log().where(total > 0, -torch.inf) + top[:, 0]


def log_1_plus_sum_exp(values: Tensor) -> Tensor:
    """Log of 1 plus the sum of exp of each row, some or all of it -inf. [r, m] -> [r]."""
    top = values.detach().amax(1, keepdim=True).clamp_min(0)
    return ((values - top).exp().sum(1) + (-top[:, 0]).exp()).log() + top[:, 0]


class _EachRow(torch.autograd.Function):
    """Blocks of rows forward and, where their weights differ, once more backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor | None, measure: Measure, value: Value, ahead: bool
    ) -> Tensor:
        rows = [x] if other is None else [x, other]  # one place for gradients where they are one
        ctx.ahead = ahead and any(ctx.needs_input_grad)
        ctx.block = partial(_block, x, rows[-1], measure, value)
        ends = [torch.zeros_like(end) for end in rows] if ctx.ahead else []
        whole = x.new_empty(0)
        for part in parts(len(x), len(rows[-1])):
            found = ctx.block(part, None, ends)
            if part.start == 0:
                whole = found.new_empty(len(x), *found.shape[1:])
            whole[part] = found  # at once: small pieces kept for later would fragment the memory
        ctx.save_for_backward(*rows, *ends)
        ctx.rows = len(rows)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        rows, ends = saved[: ctx.rows], saved[ctx.rows :]
        weight = gradients[0] if gradients[0].ndim == 1 else gradients[0][:, 0]
        if ctx.ahead and bool((weight == weight[:1]).all()):
            ends = [end * weight[0] for end in ends]
        else:
            ends = [torch.zeros_like(end) for end in rows]
            for part in parts(len(rows[0]), len(rows[-1])):
                ctx.block(part, weight[part], ends)
        return (*ends, *[None] * (5 - len(ends)))


def _block(
    x: Tensor,
    y: Tensor,
    measure: Measure,
    value: Value,
    part: slice,
    weight: Tensor | None,
    ends: Sequence[Tensor],
) -> Tensor:
    """The values of the rows `part` of x; adds their gradient to the ends if there are any.

    The gradient of the rows' sum, or of their sum by `weight` [r].
    """
    with full_precision(x):
        block = measure.values(x[part], y)
        with torch.set_grad_enabled(bool(ends)):
            found = value(block.requires_grad_(bool(ends)), part)
            first = found if found.ndim == 1 else found[:, 0]
        if ends:
            weight = torch.ones_like(first) if weight is None else weight
            (gradient,) = torch.autograd.grad(first, block, weight)
            block = block.detach()
            measure.pull(gradient, block, x[part], y, to_x=ends[0][part], to_y=ends[-1])
    return found.detach()


def parts(n: int, m: int, *, times: int = 1) -> list[slice]:
    """Blocks of n rows of m comparisons each: about `BLOCK` of these, `LEAST` rows or more.

    Of work that holds little beside a block, larger ones are faster: `times` as many rows.
    """
    rows = times * max(LEAST, BLOCK // max(1, m))
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

    def of(self, z: Tensor) -> Tensor:
        """The anchors among the rows z."""
        return z if self.n == len(z) else z[: self.n]

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

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows sorted by class [m], and for each row its class's size and first place there [m]."""
        _, index, size = self.labels.unique(return_inverse=True, return_counts=True)
        return index.argsort(stable=True), size[index], (size.cumsum(0) - size)[index]

    @property
    def largest(self) -> int:
        """Images of the class that has most."""
        return int(self._by_class[1].max())

    def members(self, part: slice) -> tuple[Tensor, Tensor]:
        """The columns of each anchor's class, filled up with its own, and which are positives.

        int64 [r, k] and bool [r, k], with k the size of the largest class.
        """
        order, size, start = self._by_class
        size, start = size[part], start[part]
        own = torch.arange(part.start, part.stop, device=order.device)[:, None]
        place = torch.arange(int(size.max()), device=order.device)
        column = order[(start[:, None] + place).clamp(max=len(order) - 1)]
        column = torch.where(place < size[:, None], column, own)
        return column, column != own

    def positives(self, values: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Values of each block's row among which are its positives, and which they are.

        [r, m] -> [r, k], bool [r, k], with k the size of the largest class.
        """
        if self.pairs is not None:
            return values, self.sides(part)[0]
        column, positive = self.members(part)
        return values.gather(1, column), positive

    def negatives(self, values: Tensor, part: slice, *, fill: float) -> Tensor:
        """The values, but `fill` where there is no negative of the anchor: [r, m] -> [r, m]."""
        if self.pairs is not None:
            return values.masked_fill(~self.sides(part)[1], fill)
        return values.scatter(1, self.members(part)[0], fill)

    def others(self, values: Tensor, part: slice, *, fill: float) -> Tensor:
        """The values, but `fill` at each anchor itself: [r, m] -> [r, m]."""
        own = torch.arange(part.start, part.stop, device=values.device)[:, None]
        return values.scatter(1, own, fill)

    def counts(self) -> tuple[Tensor, Tensor]:
        """How many positives and how many negatives each anchor has: int64 [n], [n]."""
        if self.pairs is not None:
            return (
                self.pairs.anchor.bincount(minlength=self.n),
                self.pairs.other_anchor.bincount(minlength=self.n),
            )
        of_class = self._by_class[1][: self.n]
        return of_class - 1, len(self.labels) - of_class

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """Every anchor with every positive of it: index tensors [t], [t], anchors ascending."""
        found = []
        for part in self.parts():
            column, positive = self.members(part)
            row, place = positive.nonzero().unbind(1)
            found.append(torch.stack([part.start + row, column[row, place]]))
        anchor, positive = torch.cat(found, 1)
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


def mean_of(values: Tensor, valid: Tensor, what: str) -> Tensor:
    """Mean of the values of valid rows. [n], bool [n] -> scalar.

    Raises:
        ValueError: none is valid; the text says what was needed.
    """
    if not valid.any():
        raise ValueError(f"no anchor of the batch has {what}")
    return values[valid].mean()
