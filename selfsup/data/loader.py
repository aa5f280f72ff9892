"""The loader: each process's slice of every step's batch, read ahead in order, from any step."""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsup.augment.boxes import CropSpec
from selfsup.config import ViewsConfig
from selfsup.core.errors import require
from selfsup.data.sources import Source


class Sampler(Protocol):
    """Chooses the images of a step's global batch."""

    steps_per_epoch: int

    def __call__(self, step: int) -> Tensor:
        """Return the positions [n] of the global batch of `step`."""


@dataclass(frozen=True)
class Batch:
    """The slice of a step's global batch that one process reads."""

    step: int
    positions: Tensor
    """[b], of the images in the source."""
    crops: tuple[Tensor, ...]
    """uint8 [b, v, 3, s, s] of each size."""
    draws: tuple[Any, ...]
    """Draws of these crops, for each size: the rows of those of the global batch."""
    labels: Tensor | None
    """[b]."""
    bad: dict[int, str]
    """Position of each unreadable image, and why."""


class Batches(Dataset[Batch]):
    """Step -> Batch, a pure function: workers, processes and restarts cannot change it."""

    def __init__(
        self,
        source: Source,
        sampler: Sampler,
        views: ViewsConfig,
        *,
        draw: Callable[..., Any],
        world: tuple[int, int],
    ) -> None:
        """Read the crops of what `sampler` chooses, by the boxes of `draw`.

        Args:
            source: the images.
            sampler: positions of each step's global batch.
            views: sizes and interpolation of the crops.
            draw: draw(n, step=...) returns the draws of n images for each size of views, with
                `boxes` and `rows(slice)`.
            world: (rank, processes): which contiguous slice of each global batch to read.
        """
        self.source = source
        self.sampler = sampler
        self.views = views
        self.draw = draw
        self.world = world

    def __getitem__(self, step: int) -> Batch:
        positions = self.sampler(step)
        draws = self.draw(len(positions), step=step)
        rank, processes = self.world
        size = len(positions) // processes
        local = slice(rank * size, (rank + 1) * size)
        positions, draws = positions[local], tuple(group.rows(local) for group in draws)
        specs = [
            CropSpec(group.boxes, views.size, views.interpolation)
            for group, views in zip(draws, self.views.by_size(), strict=True)
        ]
        crops = self.source.crops(positions.tolist(), *specs)
        labels = None if self.source.labels is None else self.source.labels[positions]
        return Batch(step, positions, crops.images, draws, labels, crops.bad)


def read_ahead(batches: Batches, steps: Sequence[int], *, workers: int | None) -> Iterator[Batch]:
    """Read the batches of `steps` in order by `workers` processes (None: 0 in memory, else 2).

    Raises:
        UserError: worker processes are wanted and the images cannot be sent to them.
    """
    if workers is None:
        workers = 0 if batches.source.in_memory else 2
    require(
        workers == 0 or can_be_sent(batches),
        "the images cannot be sent to reader processes, since their data set cannot be pickled: "
        "give --workers 0, or define its class and functions in a module",
    )
    pin = torch.cuda.is_available()
    # batch_size=None passes whole batches through: a worker reads one step at a time
    loader = DataLoader(
        batches, sampler=steps, batch_size=None, num_workers=workers, pin_memory=pin and workers > 0
    )
    return iter(loader)


def can_be_sent(value: Any) -> bool:
    """Whether worker processes can have it: forked ones have all, others what can be pickled."""
    if multiprocessing.get_start_method() == "fork":
        return True
    try:
        pickle.dumps(value)
    except Exception:  # pickle raises several kinds
        return False
    return True
