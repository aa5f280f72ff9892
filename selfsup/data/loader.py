"""The loader: each process's slice of every step's batch, read ahead in order, from any step."""

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from selfsup.augment.boxes import CropSpec
from selfsup.config import ViewsConfig
from selfsup.core.errors import require
from selfsup.core.notices import notice
from selfsup.core.processors import cores
from selfsup.core.stopping import in_reader
from selfsup.data.readers import begin
from selfsup.data.samplers import PKSampler, Sampler
from selfsup.data.sources import Crops, Source
from selfsup.data.stand_ins import stand_ins

MOST_WORKERS = 12
AHEAD = 2
"""Batches that each reader has ready: torch's default."""
SHARED = "/dev/shm"
GREY = 128  # level of a row that no image can fill


@dataclass(frozen=True)
class Batch:
    """The slice of a step's global batch that one process reads."""

    step: int
    positions: Tensor
    """[b], of the images in the source: of those that are seen, so that stand-ins count."""
    crops: tuple[Tensor, ...]
    """uint8 [b, v, 3, s, s] of each size."""
    draws: tuple[Any, ...]
    """Draws of these crops, for each size: the rows of those of the global batch."""
    labels: Tensor | None
    """[b], of the images that are seen; -1 for an image without label."""
    bad: dict[int, str]
    """Position of each unreadable image, and why; `stand_ins` has what is seen instead."""

    def pin_memory(self) -> "Batch":
        """Copy what goes to a GPU into memory from which it is read while the GPU works on.

        A loader calls it; draws stay as they are, since the CPU reads them.
        """
        return replace(
            self,
            crops=tuple(x.pin_memory() for x in self.crops),
            labels=None if self.labels is None else self.labels.pin_memory(),
        )


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
        chosen = self.sampler(step)
        draws = self.draw(len(chosen), step=step)
        rank, processes = self.world
        size = len(chosen) // processes
        local = slice(rank * size, (rank + 1) * size)
        positions, draws = chosen[local], tuple(group.rows(local) for group in draws)
        specs = [
            CropSpec(group.boxes, views.size, views.resampling, views.draft)
            for group, views in zip(draws, self.views.by_size(), strict=True)
        ]
        crops = self.source.crops(positions.tolist(), *specs)
        seen = self._seen(step, local.start, chosen, positions, specs, crops)
        labels = None if self.source.labels is None else self.source.labels[seen.positions]
        if labels is not None and not isinstance(self.sampler, PKSampler):
            labels[seen.blank] = -1
        return Batch(step, seen.positions, seen.images, draws, labels, seen.bad)

    def _seen(
        self,
        step: int,
        start: int,
        chosen: Tensor,
        positions: Tensor,
        specs: Sequence[CropSpec],
        crops: Crops,
    ) -> "_Seen":
        """Replace the rows of unreadable images; `start` is the first row in the global batch."""
        bad = dict(crops.bad)
        rows = [i for i, position in enumerate(positions.tolist()) if position in bad]
        if not rows:
            return _Seen(positions, crops.images, [], bad)
        positions, images = positions.clone(), tuple(x.clone() for x in crops.images)
        blank = []
        for i in rows:
            row_specs = [s._replace(boxes=s.boxes.rows(slice(i, i + 1))) for s in specs]
            for other in stand_ins(self.sampler, step, start + i, chosen, self.source.labels):
                found = None if other in bad else self.source.crops([other], *row_specs)
                if found is not None and other not in found.bad:
                    positions[i] = other
                    for x, replacement in zip(images, found.images, strict=True):
                        x[i] = replacement[0]
                    break
                bad |= {} if found is None else found.bad
            else:
                blank.append(i)
                for x in images:
                    x[i] = GREY
        return _Seen(positions, images, blank, bad)


class _Seen(NamedTuple):
    """What is seen in a batch, stand-ins included."""

    positions: Tensor
    images: tuple[Tensor, ...]
    blank: list[int]
    """Rows without any image: all that may stand in are in the batch, or cannot be read."""
    bad: dict[int, str]


def read_ahead(batches: Batches, steps: Sequence[int], *, workers: int | None) -> Iterator[Batch]:
    """Read the batches of `steps` in order by `workers` processes (None: `default_workers`).

    Raises:
        UserError: worker processes are wanted and the images cannot be sent to them.
    """
    pin = torch.cuda.is_available()
    if workers is None:
        workers = default_workers(in_memory=batches.source.in_memory, gpu=pin)
    require(
        workers == 0 or can_be_sent(batches),
        "the images cannot be sent to reader processes, since their data set cannot be pickled: "
        "give --workers 0, or define its class and functions in a module",
    )
    if workers and len(steps):
        workers = _fitting_readers(workers, _bytes_of(batches, steps[0]))
    # batch_size=None passes whole batches through: a worker reads one step at a time
    loader = DataLoader(
        batches,
        sampler=steps,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=in_reader,
        prefetch_factor=AHEAD if workers else None,
    )
    return begin(loader)


def default_workers(*, in_memory: bool, gpu: bool) -> int:
    """Return how many reader processes each training process has where none are given.

    Beside a CPU that trains: 0 for arrays, else 2. A GPU waits for a single reader most of the
    time, so that each has the machine's cores in equal shares, at most 12: one core cuts some 600
    crops of 224 pixels a second and decodes 200 JPEGs, and a GPU of a data centre takes 1,500.
    """
    if not gpu:
        return 0 if in_memory else 2
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(2, min(MOST_WORKERS, cores() // here - 1))


def _bytes_of(batches: Batches, step: int) -> int:
    """Bytes of the crops that one process reads at a step."""
    images = len(batches.sampler(step)) // batches.world[1]
    channels = batches.views.channels
    crops = (group.views * group.size**2 for group in batches.views.by_size())
    return images * channels * sum(crops)


def _fitting_readers(workers: int, size: int) -> int:
    """Return how many readers fit in shared memory, through which they send batches of `size`.

    A reader has AHEAD batches ready, and one is in use. Without room it would die, or the machine
    would end it by SIGBUS.
    """
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:  # not on this system
        return workers
    fitting = max(0, min(workers, (free // max(1, size) - 1) // AHEAD))
    if fitting < workers:
        notice(
            f"{SHARED} has {free / 1e6:.1f} MB free, and {workers} readers need "
            f"{(workers * AHEAD + 1) * size / 1e6:.1f} MB: reading with {fitting}. In Docker, "
            "--shm-size 8g gives more"
        )
    return int(fitting)


def can_be_sent(value: Any) -> bool:
    """Whether worker processes can have it: forked ones have all, others what can be pickled."""
    if multiprocessing.get_start_method() == "fork":
        return True
    try:
        pickle.dumps(value)
    except Exception:  # pickle raises several kinds
        return False
    return True
