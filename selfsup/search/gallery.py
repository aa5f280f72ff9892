"""Queries, the gallery that they search, and the ranks that a search gives.

Shape letters: q queries, g gallery rows, r queries of a block, m matches of a query at most.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.labels import class_labels


class Gallery(NamedTuple):
    """Labelled features that are searched, or (as `Queries`) that search."""

    x: Tensor
    """float32 [n, d] features."""
    labels: Tensor
    """[n] integers."""
    cameras: Tensor | None = None
    """int64 [n]: images of the query's label and camera are skipped, they would be too easy."""
    sequences: Tensor | None = None
    """int64 [n]: images of the query's own sequence are skipped, whatever their label."""

    def to(self, device: torch.device) -> "Gallery":
        """The same on another device, with labels as int64."""
        cameras = None if self.cameras is None else self.cameras.to(device)
        sequences = None if self.sequences is None else self.sequences.to(device)
        return Gallery(self.x.to(device), class_labels(self.labels).to(device), cameras, sequences)


Queries = Gallery
"""The same fields, of the images that are searched with."""


class Ranking(NamedTuple):
    """Ranks of the matches of a block of queries."""

    rows: slice
    """Which queries."""
    ranks: Tensor
    """int64 [r, m], ascending from 1; 0 where a query has fewer matches."""

    @property
    def match_counts(self) -> Tensor:
        """Matches of each query, int64 [r]."""
        return (self.ranks > 0).sum(1)


@dataclass(frozen=True)
class Members:
    """The gallery rows of each query's group: of its label, or of its sequence."""

    order: Tensor
    """Gallery rows, sorted by group."""
    starts: Tensor
    """int64 [q], where the query's group begins in `order`."""
    counts: Tensor
    """int64 [q], how many rows the group has; 0 for a group that the gallery lacks."""
    most: int
    """Rows of the largest group, at least 1."""

    @classmethod
    def build(cls, groups: Tensor, wanted: Tensor) -> "Members":
        """Find the rows of each query's group. `groups` of the gallery [g], `wanted` [q]."""
        names, index, counts = groups.unique(return_inverse=True, return_counts=True)
        place = torch.searchsorted(names, wanted).clamp(max=len(names) - 1)
        starts = counts.cumsum(0) - counts
        wanted_counts = torch.where(names[place] == wanted, counts[place], 0)
        most = max(1, int(wanted_counts.max())) if len(wanted) else 1
        return cls(index.argsort(stable=True), starts[place], wanted_counts, most)

    def rows(self, queries: slice) -> tuple[Tensor, Tensor]:
        """Gallery rows of each query's group, and which entries are real. [r, most] both."""
        step = torch.arange(self.most, device=self.order.device)
        real = step < self.counts[queries, None]
        places = (self.starts[queries, None] + step).clamp(max=len(self.order) - 1)
        return self.order[places], real
