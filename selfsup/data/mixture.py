"""Several sources as one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.notices import notice
from selfsup.data.sources import Columns, Crops, Source
from selfsup.data.texts import texts


class Mixture:
    """Sources one after the other; labels are by the names of their classes."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float] | None) -> None:
        """Mix `sources`: in a batch by `weights`, or without weights as their images are."""
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
            name: texts(word for source in sources for word in source.columns[name])
            for name in names
        }

    def _labels(self) -> Tensor | None:
        """Number the classes of all sources; -1 in one without labels, None if none has any."""
        number = {name: i for i, name in enumerate(self.classes)}
        labels = []
        if all(source.labels is None for source in self.sources):
            return None
        for source in self.sources:
            if source.labels is None:
                labels.append(torch.full((len(source),), -1))
                continue
            renumbered = torch.tensor([*(number[name] for name in source.classes), -1])
            labels.append(renumbered[source.labels])
        every = torch.cat(labels)
        unlabelled = sum(len(source) for source in self.sources if source.labels is None)
        if unlabelled:
            notice(f"{unlabelled} of {len(every)} images of the mixture have no label")
        return every

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _locate(self, position: int) -> tuple[Source, int]:
        """The source of an image, and its position there."""
        which = int(np.searchsorted(self.starts, position, side="right")) - 1
        return self.sources[which], position - int(self.starts[which])

    def count_per_source(self, positions: Sequence[int]) -> list[int]:
        """Count how many of these positions, which ascend, are of each source."""
        places = np.searchsorted(np.asarray(positions), self.starts)
        return [int(count) for count in np.diff(places)]

    def name(self, position: int) -> str:
        """Its name in its source."""
        source, local = self._locate(position)
        return source.name(local)

    def pixels(self, position: int) -> np.ndarray:
        """Its pixels in its source."""
        source, local = self._locate(position)
        return source.pixels(local)

    def stored(self, position: int) -> bytes | None:
        """Its bytes in its source."""
        source, local = self._locate(position)
        return source.stored(local)

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Read all crops of one source, then of the next, and restore the order of `positions`."""
        place = np.asarray(positions)
        which = np.searchsorted(self.starts, place, side="right") - 1
        bad: dict[int, str] = {}
        images: list[tuple[Tensor, ...]] = []
        order = []
        for i in np.unique(which).tolist():
            rows = np.flatnonzero(which == i)
            start = int(self.starts[i])
            selected = [s._replace(boxes=s.boxes.rows(torch.from_numpy(rows))) for s in specs]
            crops = self.sources[i].crops((place[rows] - start).tolist(), *selected)
            bad |= {position + start: why for position, why in crops.bad.items()}
            images.append(crops.images)
            order.append(rows)
        inverse = torch.from_numpy(np.concatenate(order)).argsort()
        return Crops(tuple(torch.cat(x)[inverse] for x in zip(*images, strict=True)), bad)
