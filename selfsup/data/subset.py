"""A part of a source: some of its images, in an order of one's own."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.seeds import generator
from selfsup.data.sources import Columns, Crops, Source


class Part:
    """Some images of a source."""

    def __init__(self, whole: Source, positions: Sequence[int]) -> None:
        """Those at `positions`, in that order."""
        self.whole = whole
        self.positions = list(positions)
        self.labels: Tensor | None = None if whole.labels is None else whole.labels[self.positions]
        self.classes = whole.classes
        self.columns: Columns = {
            name: [words[i] for i in self.positions] for name, words in whole.columns.items()
        }
        self.in_memory = whole.in_memory

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, position: int) -> str:
        """As the whole calls it."""
        return self.whole.name(self.positions[position])

    def crops(self, positions: Sequence[int], *cuts: CropSpec) -> Crops:
        """Of the whole; where an image cannot be read, a neighbour there stands in its place."""
        theirs = [self.positions[int(i)] for i in positions]
        found = self.whole.crops(theirs, *cuts)
        own = dict(zip(theirs, (int(i) for i in positions), strict=True))
        return Crops(found.images, {own[i]: why for i, why in found.bad.items() if i in own})

    def pixels(self, position: int) -> np.ndarray:
        """Of the whole."""
        return self.whole.pixels(self.positions[position])

    def stored(self, position: int) -> bytes | None:
        """Of the whole."""
        return self.whole.stored(self.positions[position])


def random_subset(source: Source, most: int, *, seed: int) -> Source:
    """The source itself, or `most` of its images at random, in their order."""
    if len(source) <= most:
        return source
    drawn = torch.randperm(len(source), generator=generator(seed, 0, "part"))[:most]
    return Part(source, sorted(drawn.tolist()))
