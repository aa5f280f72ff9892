"""Queries and a gallery, and what ranking them gives.

Shape letters: q queries, g gallery rows, r queries of a block, m matches of a query at most.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Side(NamedTuple):
    """Queries or a gallery."""

    x: Tensor
    """float32 [n, d] features."""
    labels: Tensor
    """int64 [n]."""
    cameras: Tensor | None = None
    """int64 [n]: a query does not meet its label under its own camera, which would be too easy."""
    sequences: Tensor | None = None
    """int64 [n]: a query meets nothing of its own sequence, whatever the label."""


class Ranked(NamedTuple):
    """Of some of the queries."""

    rows: slice
    """Which."""
    ranks: Tensor
    """int64 [r, m], ascending from 1; 0 where a query has fewer matches."""

    @property
    def matches(self) -> Tensor:
        """How many each has, int64 [r]."""
        return (self.ranks > 0).sum(1)


@dataclass(frozen=True)
class Members:
    """Gallery rows by their label, or by another word, as a list for each."""

    order: Tensor
    """Rows, those of one word together."""
    starts: Tensor
    counts: Tensor
    most: int

    @classmethod
    def of(cls, words: Tensor, asked: Tensor) -> "Members":
        """Lists of the rows with each query's word. [g], [q]."""
        known, index, counts = words.unique(return_inverse=True, return_counts=True)
        place = torch.searchsorted(known, asked).clamp(max=len(known) - 1)
        there = known[place] == asked
        starts = counts.cumsum(0) - counts
        of_query = torch.where(there, counts[place], 0)
        most = max(1, int(of_query.max())) if len(asked) else 1
        return cls(index.argsort(stable=True), starts[place], of_query, most)

    def of_rows(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Gallery rows of each query, and which of the list are any. [r, most] both."""
        step = torch.arange(self.most)
        there = step < self.counts[rows, None]
        places = (self.starts[rows, None] + step).clamp(max=len(self.order) - 1)
        return self.order[places], there
