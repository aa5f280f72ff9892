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
from selfsup.core.transfers import send
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

    Labels are known before a step, the rows that they belong to are not. So what follows from
    labels alone (sizes of classes, counts, whether there is a pair) is computed on the host, and a
    GPU that has the rows is not waited for.

    labels: [m] integers of any type; rows of one label are positives of each other. Given on a GPU,
        they are copied to the host, which waits for it once.
    anchors: how many of the first rows are anchors.
    pairs: if given, only these pairs count.
    device: of the rows; None: that of the labels.
    """

    labels: Tensor
    anchors: Anchors = None
    pairs: Pairs | None = None
    device: torch.device | None = None

    def __post_init__(self) -> None:
        """Convert the labels to int64 on the host.

        Raises:
            ValueError: see `class_labels`.
        """
        object.__setattr__(self, "device", self.device or self.labels.device)
        object.__setattr__(self, "labels", class_labels(self.labels.cpu()))

    def send(self, x: Tensor) -> Tensor:
        """Copy what was computed on the host to the device of the rows, without a wait."""
        assert self.device is not None
        return send(x, self.device)

    @property
    def anchor_count(self) -> int:
        """Number of anchors, n."""
        return len(self.labels) if self.anchors is None else self.anchors

    def anchor_rows(self, z: Tensor) -> Tensor:
        """Select the rows of the anchors. [m, d] -> [n, d]."""
        return z if self.anchor_count == len(z) else z[: self.anchor_count]

    @cached_property
    def sent_labels(self) -> Tensor:
        """The labels on the device of the rows, [m]."""
        return self.send(self.labels)

    def masks(self, block: slice) -> tuple[Tensor, Tensor]:
        """Masks of the positives and negatives of a block of anchors, both bool [r, m].

        An anchor is neither its own positive nor its own negative.
        """
        if self.pairs is not None:
            return self._pair_mask(block, positive=True), self._pair_mask(block, positive=False)
        same = self.sent_labels[block, None] == self.sent_labels
        positive = same.clone()
        row = torch.arange(len(same), device=same.device)
        positive[row, block.start + row] = False
        return positive, ~same

    def _pair_mask(self, block: slice, *, positive: bool) -> Tensor:
        assert self.pairs is not None
        anchor, partner = self.pairs[:2] if positive else self.pairs[2:]
        first = self._first_pairs[0 if positive else 1]
        inside = slice(first[block.start], first[block.stop])
        mask = torch.zeros(
            block.stop - block.start, len(self.labels), dtype=torch.bool, device=anchor.device
        )
        mask[anchor[inside] - block.start, partner[inside]] = True
        return mask

    @cached_property
    def _first_pairs(self) -> list[list[int]]:
        """Where the positive and the negative pairs of each anchor begin: two of [n + 1]."""
        ends = torch.stack(self.counts()).cumsum(1)
        return [[0, *row] for row in ends.tolist()]  # anchors ascend

    @cached_property
    def _by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows sorted by class [m], and for each row its class's size and first place there [m]."""
        _, index, size = self.labels.unique(return_inverse=True, return_counts=True)
        return index.argsort(stable=True), size[index], (size.cumsum(0) - size)[index]

    @cached_property
    def _sent_by_class(self) -> tuple[Tensor, Tensor, Tensor]:
        order, size, start = (self.send(x) for x in self._by_class)
        return order, size, start

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
        order, size, start = self._sent_by_class
        size, start = size[block], start[block]
        anchor = torch.arange(block.start, block.stop, device=order.device)[:, None]
        place = torch.arange(int(self._by_class[1][block].max()), device=order.device)
        column = order[(start[:, None] + place).clamp(max=len(order) - 1)]
        column = torch.where(place < size[:, None], column, anchor)
        return column, column != anchor

    def positive_values(self, values: Tensor, block: slice) -> tuple[Tensor, Tensor]:
        """Narrow the values of a block to few columns that hold all positives, with their mask.

        [r, m] -> [r, k], bool [r, k], with k the size of the largest class.
        """
        if self.pairs is not None:
            return values, self._pair_mask(block, positive=True)
        column, positive = self.class_members(block)
        return values.gather(1, column), positive

    def negative_values(self, values: Tensor, block: slice, *, fill: float) -> Tensor:
        """Replace the values of all rows that are no negatives by `fill`. [r, m] -> [r, m]."""
        if self.pairs is not None:
            return values.masked_fill(~self._pair_mask(block, positive=False), fill)
        return values.scatter(1, self.class_members(block)[0], fill)

    def counts(self) -> tuple[Tensor, Tensor]:
        """Count the positives and the negatives of each anchor: int64 [n], [n], on the host."""
        if self.pairs is not None:
            return self._pair_counts
        size = self._by_class[1][: self.anchor_count]
        return size - 1, len(self.labels) - size

    @cached_property
    def _pair_counts(self) -> tuple[Tensor, Tensor]:
        """Of chosen pairs: what a device has chosen is waited for, once."""
        assert self.pairs is not None
        anchors = (self.pairs.positive_anchor, self.pairs.negative_anchor)
        counts = torch.zeros(2, self.anchor_count, dtype=torch.int64, device=anchors[0].device)
        for row, anchor in zip(counts, anchors, strict=True):
            row.index_add_(0, anchor, torch.ones_like(anchor))
        positive, negative = counts.cpu()
        return positive, negative

    def complete_anchors(self, block: slice = slice(None)) -> Tensor:
        """List the anchors, of a block or all, with both a positive and a negative: [t]."""
        positives, negatives = self.counts()
        valid = ((positives > 0) & (negatives > 0))[block]
        return self.send(torch.arange(self.anchor_count)[block][valid])

    def positive_pairs(self, block: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """List every anchor with each of its positives: indices [t], [t], both ascending.

        Of a block of anchors, or of all. `pairs` are not considered.
        """
        order = self._by_class[0]
        size, start = (x[: self.anchor_count][block] for x in self._by_class[1:])
        anchor = torch.arange(self.anchor_count)[block].repeat_interleave(size)
        first = (size.cumsum(0) - size).repeat_interleave(size)
        place = torch.arange(len(anchor)) - first  # of the other row in the anchor's class
        other = order[start.repeat_interleave(size) + place]
        chosen = (other != anchor).nonzero()[:, 0]
        return self.send(anchor[chosen]), self.send(other[chosen])

    def blocks(self) -> list[slice]:
        """Split the anchors into blocks."""
        assert self.device is not None
        return split_rows(self.anchor_count, len(self.labels), self.device)

    def compare_blocks(
        self, z: Tensor, measure: Measure
    ) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
        """Yield of each block of anchors its slice, values, positives and negatives, all [r, m]."""
        for block in self.blocks():
            with full_precision(z):
                values = measure.values(z[block], z)
            yield block, values, *self.masks(block)


def mask_self(values: Tensor, block: slice, *, fill: float) -> Tensor:
    """Replace the value of each anchor of a block with itself by `fill`. [r, m] -> [r, m]."""
    anchor = torch.arange(block.start, block.stop, device=values.device)[:, None]
    return values.scatter(1, anchor, fill)


def join_triplets(blocks: list[Triplets]) -> Triplets:
    """Concatenate the triplets of several blocks."""
    a, p, n = (torch.cat(column) for column in zip(*blocks, strict=True))
    return a, p, n


def masked_mean(values: Tensor, valid: Tensor, needed: str) -> Tensor:
    """Mean of the values of valid rows. [n], bool [n] on the host -> scalar.

    Raises:
        ValueError: no row is valid; the message says what was needed.
    """
    if not valid.any():
        raise ValueError(f"no anchor of the batch has {needed}")
    if valid.all():
        return values.mean()
    return values[send(valid.nonzero()[:, 0], values.device)].mean()
