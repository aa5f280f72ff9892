"""The loader: the local part of each step's batch, read ahead, in order, from any step on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsup.augment.boxes import CropSpec
from selfsup.config import ViewsConfig
from selfsup.data.sources import Source


class Sampler(Protocol):
    """Positions of the global batch of a step."""

    steps_per_epoch: int

    def __call__(self, step: int) -> Tensor:
        """Positions [n] of the global batch of `step`."""


@dataclass(frozen=True)
class Batch:
    """What one process reads of a step's batch."""

    step: int
    positions: Tensor
    """[b], of the images in the source."""
    crops: tuple[Tensor, ...]
    """uint8 [b, v, 3, s, s] of each size."""
    draws: tuple[Any, ...]
    """What else is done to these crops: the rows of what `draw` gave for the global batch."""
    labels: Tensor | None
    """[b]."""
    bad: dict[int, str]
    """Unreadable images met, and why."""


class Batches(Dataset[Batch]):
    """Step -> Batch, a pure function: workers, processes and restarts cannot change it."""

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        views: ViewsConfig,
        *,
        draw: Callable[..., Any],
        part: tuple[int, int],
    ) -> None:
        """Read what `sampler` names and `draw` cuts.

        Args:
            source: the images.
            sampler: positions of each step's global batch.
            views: sizes and interpolation of the crops.
            draw: draw(n, step=...) gives the draws of n images for each size of views, with
                `boxes` and `rows(slice)`.
            part: (rank, processes): which contiguous share of each global batch to read.
        """
        self.source = source
        self.sampler = sampler
        self.views = views
        self.draw = draw
        self.part = part

    def __getitem__(self, step: int) -> Batch:
        positions = self.sampler(step)
        draws = self.draw(len(positions), step=step)
        rank, processes = self.part
        own = len(positions) // processes
        mine = slice(rank * own, (rank + 1) * own)
        positions, draws = positions[mine], tuple(group.rows(mine) for group in draws)
        cuts = [
            CropSpec(group.boxes, views.size, views.interpolation)
            for group, views in zip(draws, self.views.by_size(), strict=True)
        ]
        crops = self.source.crops(positions.tolist(), *cuts)
        labels = None if self.source.labels is None else self.source.labels[positions]
        return Batch(step, positions, crops.images, draws, labels, crops.bad)


def read_ahead(batches: Batches, steps: Sequence[int], *, workers: int | None) -> Iterator[Batch]:
    """The batches of `steps` in order, read by `workers` processes (None: 0 in memory, else 2)."""
    if workers is None:
        workers = 0 if batches.source.in_memory else 2
    pin = torch.cuda.is_available()
    # a batch_size of None hands whole batches through: a worker reads one step at a time
    loader = DataLoader(
        batches, sampler=steps, batch_size=None, num_workers=workers, pin_memory=pin and workers > 0
    )
    return iter(loader)
