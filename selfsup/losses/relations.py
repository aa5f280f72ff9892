"""Relations: which rows of a batch are positives and which are negatives of which anchors.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block, k images
of the largest class, t triplets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Measure
from selfsup.losses.row_blocks import parts

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
        ends = torch.tensor([part.start, part.stop], device=anchor.device)
        inside = slice(*torch.searchsorted(anchor.contiguous(), ends).tolist())  # anchors ascend
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
            return values, self._chosen(part, self.pairs.anchor, self.pairs.positive)
        column, positive = self.members(part)
        return values.gather(1, column), positive

    def negatives(self, values: Tensor, part: slice, *, fill: float) -> Tensor:
        """The values, but `fill` where there is no negative of the anchor: [r, m] -> [r, m]."""
        if self.pairs is not None:
            chosen = self._chosen(part, self.pairs.other_anchor, self.pairs.negative)
            return values.masked_fill(~chosen, fill)
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
