"""Several sources as one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.data.sources import Columns, Crops, Source


class Mixture:
    """Sources one after the other; labels are by the names of their classes."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None) -> None:
        """Mix `sources`, in a batch by `weights` if there are any, else as their images are."""
        self.sources = sources
        self.weights = weights
        self.sizes = [len(source) for source in sources]
        self.starts = np.cumsum([0, *self.sizes])
        self.in_memory = all(source.in_memory for source in sources)
        self.classes: Sequence[str] = sorted(
            {name for source in sources for name in source.classes}
        )
        self.labels = self._labels()
        names = set.intersection(*(set(source.columns) for source in sources))
        self.columns: Columns = {
            name: [word for source in sources for word in source.columns[name]] for name in names
        }

    def _labels(self) -> Tensor | None:
        """None unless all have labels."""
        number = {name: i for i, name in enumerate(self.classes)}
        found = []
        for source in self.sources:
            if source.labels is None:
                return None
            new = torch.tensor([number[name] for name in source.classes])
            found.append(new[source.labels])
        return torch.cat(found)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _of(self, position: int) -> tuple[Source, int]:
        which = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.sources[which], position - int(self.starts[which])

    def count_per_source(self, positions: Sequence[int]) -> list[int]:
        """How many of these, which ascend, are of each source."""
        places = np.searchsorted(np.asarray(positions), self.starts)
        return [int(count) for count in np.diff(places)]

    def name(self, position: int) -> str:
        """As its source calls it."""
        source, own = self._of(position)
        return source.name(own)

    def pixels(self, position: int) -> np.ndarray:
        """As its source has it."""
        source, own = self._of(position)
        return source.pixels(own)

    def stored(self, position: int) -> bytes | None:
        """As its source has it."""
        source, own = self._of(position)
        return source.stored(own)

    def crops(self, positions: Sequence[int], *cuts: CropSpec) -> Crops:
        """Of each source at once, and in the order asked for."""
        place = np.asarray(positions)
        which = np.searchsorted(self.starts, place, side="right") - 1
        bad: dict[int, str] = {}
        found: list[tuple[Tensor, ...]] = []
        order = []
        for i in np.unique(which).tolist():
            rows = np.flatnonzero(which == i)
            start = int(self.starts[i])
            part = [cut._replace(boxes=cut.boxes.rows(torch.from_numpy(rows))) for cut in cuts]
            crops = self.sources[i].crops((place[rows] - start).tolist(), *part)
            bad |= {position + start: why for position, why in crops.bad.items()}
            found.append(crops.images)
            order.append(rows)
        back = torch.from_numpy(np.concatenate(order)).argsort()
        images = (torch.cat(views)[back] for views in zip(*found, strict=True))
        return Crops(tuple(images), bad)
