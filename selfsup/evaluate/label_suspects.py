"""Label suspects: images whose neighbours agree on another label than theirs.

How many neighbours are asked follows from the size of the class that they agree on. A class of 16
images cannot fill 16 of 20 places, so that with 20 neighbours for all no image could be suspect:

    class of 16 images: 8 neighbours, of which 80 %, 7 or 8, must have its label
    class of 40 images or more: 20 neighbours, of which 16
    class of 4 images or fewer: too small to tell

Shape letters: n images, k neighbours, s suspects.
"""

from typing import NamedTuple

import torch
from torch import Tensor

AGREEMENT = 0.8  # fraction of the neighbours with one other label that makes a label suspect
FEWEST, MOST = 5, 20  # neighbours
SMALLEST = 5  # images of a class that can be told: a suspect itself is none of them
CHUNK_IMAGES = 4096


class LabelSuspects(NamedTuple):
    """Images that are perhaps labelled wrongly, the most certain first."""

    rows: Tensor
    """int64 [s]."""
    suggested: Tensor
    """int64 [s], the label on which neighbours agree."""
    agreement: Tensor
    """float64 [s], the fraction of neighbours that have it."""
    neighbours: Tensor
    """int64 [s], how many were asked."""
    classes: int
    """Classes that are large enough to be told."""
    small_classes: int
    """Classes that are too small: an image of another class that belongs there is no suspect."""
    own: float
    """Fraction of the nearest five that have their image's label, in classes that are large enough.
    Where it is low, that there are no suspects says nothing."""


def label_suspects(labels: Tensor, indices: Tensor) -> LabelSuspects:
    """Find images whose neighbours agree on one other label.

    Args:
        labels: int64 [n]; below 0 for none, which neither votes nor is suspect.
        indices: int64 [n, k] neighbours of each image in order, 20 of them if there are so many.
    """
    sizes = torch.bincount(labels[labels >= 0])
    asked = (sizes // 2).clamp(FEWEST, MOST).clamp(max=indices.shape[1])
    asked[(sizes < SMALLEST) | (indices.shape[1] < FEWEST)] = 0
    agreement, suggested = torch.zeros(len(labels), dtype=torch.float64), labels.clone()
    for rows in torch.arange(len(labels)).split(CHUNK_IMAGES):
        fractions, voted = _agreement(labels, indices[rows], asked)
        fractions[(voted == labels[rows, None]) | (labels[rows, None] < 0)] = 0
        agreement[rows], place = fractions.max(1)
        suggested[rows] = voted.gather(1, place[:, None])[:, 0]
    rows = (agreement >= AGREEMENT).nonzero()[:, 0]
    rows = rows[agreement[rows].argsort(descending=True, stable=True)]
    large = (labels >= 0) & (asked[labels.clamp(min=0)] > 0)
    own = (labels[indices[:, :FEWEST]] == labels[:, None])[large]
    return LabelSuspects(
        rows,
        suggested[rows],
        agreement[rows],
        asked[suggested[rows]],
        classes=int((asked > 0).sum()),
        small_classes=int(((asked == 0) & (sizes > 0)).sum()),
        own=float(own.double().mean()) if len(own) else 0.0,
    )


def _agreement(labels: Tensor, indices: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """For each neighbour the fraction with its label among as many as its class asks, [n, k]."""
    voted = labels[indices]  # [n, k]
    counted = torch.where(voted >= 0, asked[voted.clamp(min=0)], 0)
    first = torch.arange(indices.shape[1]) < counted[:, :, None]  # [n, k, k]
    same = (voted[:, :, None] == voted[:, None, :]) & first
    return same.sum(2).double() / counted.clamp(min=1), voted
