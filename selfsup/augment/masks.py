"""Drawing masks of patches: which patches of a view a method hides, for the global batch.

Shape letters: n images of the global batch, v views, m masked views, p patches of a view.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 4  # patches that a block should have, as in the code of BEiT, iBOT and DINOv2
RATIO = 0.3  # smallest height / width of a block; the largest is its reciprocal
TRIES = 10  # blocks in a row that do not fit, until the rest is filled patch by patch


class Grid(NamedTuple):
    """Rows and columns of the patches of a view."""

    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Number of patches."""
        return self.rows * self.columns


def view_masks(
    shape: tuple[int, int],
    grid: Grid,
    g: torch.Generator,
    *,
    masked: float,
    fraction: tuple[float, float],
) -> Tensor:
    """Draw the masks of a batch: blocks in some of the views, nothing in the others.

    Source: Oquab et al. 2023, https://arxiv.org/abs/2304.07193, and its code: exactly the fraction
    `masked` of all views, each with a fraction of its patches that is drawn uniformly.

    Args:
        shape: (n, v).
        grid: patches of a view.
        g: the source of all random numbers.
        masked: fraction of the views that are masked; at least one is.
        fraction: smallest and largest fraction of the patches of a masked view.

    Returns:
        bool [n, v, p]: True where a patch is masked; at least one in a masked view.
    """
    views = shape[0] * shape[1]
    chosen = torch.randperm(views, generator=g)[: max(1, int(views * masked))]
    low, high = fraction
    fractions = low + (high - low) * torch.rand(len(chosen), generator=g)
    counts = (fractions * grid.patches).long().clamp(min=1)
    masks = torch.zeros(views, grid.patches, dtype=torch.bool)
    masks[chosen] = block_masks(counts, grid, g)
    return masks.view(*shape, grid.patches)


def block_masks(counts: Tensor, grid: Grid, g: torch.Generator) -> Tensor:
    """Mask an exact number of patches of each view, in rectangles. [m] -> bool [m, p].

    A block has an area from 4 patches to all that are left to mask, and a height / width from 0.3
    to 3.3 whose logarithm is uniform. It is laid where it adds a patch and none too many. Once 10
    in a row did not fit, single patches fill the rest, as in the code of DINOv3: with BEiT's own
    algorithm a view may end with fewer.

    Source: Bao et al. 2022, https://arxiv.org/abs/2106.08254, algorithm 1.
    """
    m = len(counts)
    masks = torch.zeros(m, *grid, dtype=torch.bool)
    failures = torch.zeros(m, dtype=torch.long)
    while True:
        missing = counts - masks.sum((1, 2))
        active = (missing > 0) & (failures < TRIES)
        if not active.any():
            break
        area = SMALLEST + (missing - SMALLEST) * torch.rand(m, generator=g)
        ratio = ((2 * torch.rand(m, generator=g) - 1) * math.log(RATIO)).exp()
        height, rows = _interval((area * ratio).sqrt(), grid.rows, g)
        width, columns = _interval((area / ratio).sqrt(), grid.columns, g)
        added = rows[:, :, None] & columns[:, None, :] & ~masks
        count = added.sum((1, 2))
        smaller = (height < grid.rows) & (width < grid.columns)
        fits = active & smaller & (count > 0) & (count <= missing)
        masks |= added & fits[:, None, None]
        failures = torch.where(fits, 0, failures + 1)
    flat = masks.flatten(1)
    noise = torch.rand(m, grid.patches, generator=g).masked_fill(flat, 2.0)  # masked ones come last
    rank = noise.argsort(1).argsort(1)
    return flat | (rank < missing[:, None])


def _interval(length: Tensor, side: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Place intervals of a rounded length on a side at random: lengths [m], bool [m, side]."""
    length = length.round()
    start = (torch.rand(len(length), generator=g) * (side - length + 1).clamp(min=1)).floor()
    place = torch.arange(side)
    inside = (place >= start[:, None]) & (place < (start + length)[:, None])
    return length, inside


def patch_orders(n: int, patches: int, g: torch.Generator) -> Tensor:
    """Draw a random order of the patches of each image. -> [n, p].

    The first of them are visible to MAE, the others are masked.
    """
    return torch.rand(n, patches, generator=g).argsort(1)
