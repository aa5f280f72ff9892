"""Some images of a source, in any order."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.seeds import generator
from selfsup.data.sources import Columns, Crops, Source


class Subset:
    """The images of a source at some positions."""

    def __init__(self, source: Source, positions: Sequence[int]) -> None:
        """Take those at `positions`, in that order."""
        self.source = source
        self.positions = list(positions)
        self.labels: Tensor | None = (
            None if source.labels is None else source.labels[self.positions]
        )
        self.classes = source.classes
        self.columns: Columns = {
            name: [words[i] for i in self.positions] for name, words in source.columns.items()
        }
        self.in_memory = source.in_memory

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, position: int) -> str:
        """Its name in the source."""
        return self.source.name(self.positions[position])

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Crops of the source; its next good image stands in for one that cannot be read."""
        in_source = [self.positions[int(i)] for i in positions]
        crops = self.source.crops(in_source, *specs)
        here = dict(zip(in_source, (int(i) for i in positions), strict=True))
        return Crops(crops.images, {here[i]: why for i, why in crops.bad.items() if i in here})

    def pixels(self, position: int) -> np.ndarray:
        """Its pixels in the source."""
        return self.source.pixels(self.positions[position])

    def stored(self, position: int) -> bytes | None:
        """Its bytes in the source."""
        return self.source.stored(self.positions[position])


def random_subset(source: Source, most: int, *, seed: int) -> Source:
    """Return the source itself, or `most` of its images at random, in their order."""
    if len(source) <= most:
        return source
    drawn = torch.randperm(len(source), generator=generator(seed, 0, "part"))[:most]
    return Subset(source, sorted(drawn.tolist()))
