"""Relations: which rows of a batch are positives and which are negatives of which anchors.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block, k images
of the largest class, t and u pairs or triplets.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.labels import class_labels
from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Measure
from selfsup.losses.row_blocks import split_rows

Triplets = tuple[Tensor, Tensor, Tensor]
"""Indices [t] of anchors, positives and negatives."""
Anchors = int | None
"""How many of the first rows of a batch are anchors; None: all. The remaining rows, a memory after
the batch, are only compared with."""


class Pairs(NamedTuple):
    """Chosen pairs: indices of anchors and positives [t], and of anchors and negatives [u].

    Anchors ascend in both.
    """

    positive_anchor: Tensor
    positive: Tensor
    negative_anchor: Tensor
    negative: Tensor


@dataclass(frozen=True)
class Relations:
    """Which rows are positives and which are negatives of which anchors.

    labels: [m] integers of any type; rows of one label are positives of each other.
    anchors: how many of the first rows are anchors.
    pairs: if given, only these pairs count.
    """

    labels: Tensor
    anchors: Anchors = None
    pairs: Pairs | None = None

    def __post_init__(self) -> None:
        """Convert the labels to int64.

        Raises:
            ValueError: see `class_labels`.
        """
        object.__setattr__(self, "labels", class_labels(self.labels))

    @property
    def anchor_count(self) -> int:
        """Number of anchors, n."""
        return len(self.labels) if self.anchors is None else self.anchors

    def anchor_rows(self, z: Tensor) -> Tensor:
        """Select the rows of the anchors. [m, d] -> [n, d]."""
        return z if self.anchor_count == len(z) else z[: self.anchor_count]

    def masks(self, block: slice) -> tuple[Tensor, Tensor]:
        """Masks of the positives and negatives of a block of anchors, both bool [r, m].

        An anchor is neither its own positive nor its own negative.
        """
        if self.pairs is not None:
            return (
                self._pair_mask(block, self.pairs.positive_anchor, self.pairs.positive),
                self._pair_mask(block, self.pairs.negative_anchor, self.pairs.negative),
            )
        same = self.labels[block, None] == self.labels
        positive = same.clone()
        row = torch.arange(len(same), device=same.device)
        positive[row, block.start + row] = False
        return positive, ~same

    def _pair_mask(self, block: slice, anchor: Tensor, partner: Tensor) -> Tensor:
        ends = torch.tensor([block.start, block.stop], device=anchor.device)
        inside = slice(*torch.searchsorted(anchor.contiguous(), ends).tolist())  # anchors ascend
        mask = torch.zeros(
            block.stop - block.start, len(self.labels), dtype=torch.bool, device=self.labels.device
        )
        mask[anchor[inside] - block.start, partner[inside]] = True
        return mask

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows sorted by class [m], and for each row its class's size and first place there [m]."""
        _, index, size = self.labels.unique(return_inverse=True, return_counts=True)
        return index.argsort(stable=True), size[index], (size.cumsum(0) - size)[index]

    @property
    def largest_class(self) -> int:
        """Number of images of the largest class."""
        return int(self._by_class[1].max())

    def class_members(self, block: slice) -> tuple[Tensor, Tensor]:
        """List the rows of each anchor's class, the anchor among them, and which are its positives.

        int64 [r, k] and bool [r, k], with k the size of the largest class that an anchor of the
        block has, counted over all rows. Smaller classes are padded with the anchor, which is no
        positive of itself. `pairs` are not considered. For labels (0, 0, 0, 1) the first anchor has
        columns (0, 1, 2) and (False, True, True), the last one (3, 3, 3) and all False.
        """
        order, size, start = self._by_class
        size, start = size[block], start[block]
        anchor = torch.arange(block.start, block.stop, device=order.device)[:, None]
        place = torch.arange(int(size.max()), device=order.device)
        column = order[(start[:, None] + place).clamp(max=len(order) - 1)]
        column = torch.where(place < size[:, None], column, anchor)
        return column, column != anchor

    def positive_values(self, values: Tensor, block: slice) -> tuple[Tensor, Tensor]:
        """Narrow the values of a block to few columns that hold all positives, with their mask.

        [r, m] -> [r, k], bool [r, k], with k the size of the largest class.
        """
        if self.pairs is not None:
            mask = self._pair_mask(block, self.pairs.positive_anchor, self.pairs.positive)
            return values, mask
        column, positive = self.class_members(block)
        return values.gather(1, column), positive

    def negative_values(self, values: Tensor, block: slice, *, fill: float) -> Tensor:
        """Replace the values of all rows that are no negatives by `fill`. [r, m] -> [r, m]."""
        if self.pairs is not None:
            mask = self._pair_mask(block, self.pairs.negative_anchor, self.pairs.negative)
            return values.masked_fill(~mask, fill)
        return values.scatter(1, self.class_members(block)[0], fill)

    def mask_self(self, values: Tensor, block: slice, *, fill: float) -> Tensor:
        """Replace the value of each anchor with itself by `fill`. [r, m] -> [r, m]."""
        anchor = torch.arange(block.start, block.stop, device=values.device)[:, None]
        return values.scatter(1, anchor, fill)

    def counts(self) -> tuple[Tensor, Tensor]:
        """Count the positives and the negatives of each anchor: int64 [n], [n]."""
        if self.pairs is not None:
            return (
                self.pairs.positive_anchor.bincount(minlength=self.anchor_count),
                self.pairs.negative_anchor.bincount(minlength=self.anchor_count),
            )
        size = self._by_class[1][: self.anchor_count]
        return size - 1, len(self.labels) - size

    def positive_pairs(self) -> tuple[Tensor, Tensor]:
        """List every anchor with each of its positives: indices [t], [t], anchors ascending."""
        pairs = []
        for block in self.blocks():
            column, positive = self.class_members(block)
            row, place = positive.nonzero().unbind(1)
            pairs.append(torch.stack([block.start + row, column[row, place]]))
        anchor, positive = torch.cat(pairs, 1)
        return anchor, positive

    def blocks(self) -> list[slice]:
        """Split the anchors into blocks."""
        return split_rows(self.anchor_count, len(self.labels), self.labels.device)

    def compare_blocks(
        self, z: Tensor, measure: Measure
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Yield of each block of anchors its slice, values, positives and negatives, all [r, m]."""
        for block in self.blocks():
            with full_precision(z):
                values = measure.values(z[block], z)
            yield block, values, *self.masks(block)


def join_triplets(blocks: list[Triplets]) -> Triplets:
    """Concatenate the triplets of several blocks."""
    a, p, n = (torch.cat(column) for column in zip(*blocks, strict=True))
    return a, p, n


def masked_mean(values: Tensor, valid: Tensor, needed: str) -> Tensor:
    """Mean of the values of valid rows. [n], bool [n] -> scalar.

    Raises:
        ValueError: no row is valid; the message says what was needed.
    """
    if not valid.any():
        raise ValueError(f"no anchor of the batch has {needed}")
    return values[valid].mean()
