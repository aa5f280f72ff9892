"""Ranks of rows among themselves, compiled: each pair is multiplied once and serves both its rows.

Shape letters: n rows, d width, m matches of a row at most, t rows of a tile.
"""

from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.core.compiled import kernel_with_infinities as kernel
from selfsup.core.threads import run_jobs, single_threaded
from selfsup.search.gallery import Ranking
from selfsup.search.products import products, row_blocks

TILE = 512
LOWEST: Any = np.finfo(np.float32).min


def rank_among_themselves(x: Tensor, labels: Tensor) -> Ranking:
    """Compute what `ranks.rank_matches` does for rows whose products are symmetric.

    With rows in the order of their labels, matches lie along the diagonal. All other products are
    compared with those of the row's matches, and with those of the column's.

    Args:
        x: float32 [n, d] of length 1.
        labels: int64 [n], classes of more than one row among them.
    """
    order = labels.argsort(stable=True)
    x = x[order].contiguous()
    _, counts = labels[order].unique_consecutive(return_counts=True)
    stop = counts.cumsum(0).repeat_interleave(counts)
    start = stop - counts.repeat_interleave(counts)
    with single_threaded():  # one thread a product, so that equal rows get equal values
        own = _own_products(x, start, stop, int(counts.max()) - 1)  # [n, m]
        passed = _count_not_below(x, start, stop, own)
    step = torch.arange(own.shape[1])
    sorted_ranks = torch.where(step < (stop - start - 1)[:, None], passed + step + 1, 0)
    ranks = torch.empty_like(sorted_ranks)
    ranks[order] = sorted_ranks
    return Ranking(slice(0, len(x)), ranks)


def _own_products(x: Tensor, start: Tensor, stop: Tensor, most: int) -> Tensor:
    """Products of each row with its matches, descending; infinite where there are no more."""
    own = torch.full((len(x), most), torch.inf)
    for rows in row_blocks(len(x), TILE):
        first, last = int(start[rows].min()), int(stop[rows].max())
        similarity = products(x[rows], x[first:last])
        places = start[rows, None] - first + torch.arange(most + 1)
        real = places < (stop[rows, None] - first)
        real &= places != (torch.arange(rows.start, rows.stop) - first)[:, None]
        matching = similarity.gather(1, places.clamp(max=last - first - 1))
        matching = matching.masked_fill(~real, -torch.inf)
        descending = matching.sort(dim=1, descending=True).values[:, :most]
        own[rows] = descending.masked_fill(descending == -torch.inf, torch.inf)
    return own


def _count_not_below(x: Tensor, start: Tensor, stop: Tensor, own: Tensor) -> Tensor:
    """Count rows of other labels that are not below each of a row's own products, int32 [n, m]."""
    passed = torch.zeros(own.shape, dtype=torch.int32)
    tiles, adding = list(row_blocks(len(x), TILE)), Lock()
    starts, stops, bars = start.numpy(), stop.numpy(), own.numpy()

    def count_row_of_tiles(i: int) -> None:
        """From the diagonal on: by rows, and off the diagonal by columns too."""
        rows = tiles[i]
        by_rows = np.zeros(bars[rows].shape, np.int32)
        room = torch.empty((rows.stop - rows.start) * TILE)
        for columns in tiles[i:]:
            shape = rows.stop - rows.start, columns.stop - columns.start
            similarity = products(x[rows], x[columns], room[: shape[0] * shape[1]].view(shape))
            tile = similarity.numpy()
            _remove_own_label(tile, starts[rows] - columns.start, stops[rows] - columns.start)
            _count_by_rows(tile, bars[rows], by_rows)
            if rows == columns:
                continue
            least = np.ascontiguousarray(bars[columns].T)
            by_columns = np.zeros(least.shape, np.int32)
            _count_by_columns(tile, least, by_columns)
            with adding:
                passed[columns] += torch.from_numpy(by_columns.T)
        with adding:
            passed[rows] += torch.from_numpy(by_rows)

    run_jobs(range(len(tiles)), count_row_of_tiles)
    return passed


@kernel
def _remove_own_label(tile, start, stop):  # type: ignore[no-untyped-def]
    """Write the lowest number to rows of the same label, and to the row itself."""
    for i in range(len(tile)):
        for j in range(max(0, start[i]), min(tile.shape[1], stop[i])):
            tile[i, j] = LOWEST


@kernel
def _count_by_rows(tile, least, passed):  # type: ignore[no-untyped-def]
    """Count, for each row, its products that are not below its own ones."""
    for i in range(len(tile)):
        row = tile[i]
        for p in range(least.shape[1]):
            bar, n = least[i, p], np.int32(0)
            for j in range(len(row)):
                n += row[j] >= bar
            passed[i, p] += n


@kernel
def _count_by_columns(tile, least, passed):  # type: ignore[no-untyped-def]
    """Count the same for each column."""
    for i in range(len(tile)):
        row = tile[i]
        for p in range(len(least)):
            bar, n = least[p], passed[p]
            for j in range(len(row)):
                n[j] += row[j] >= bar[j]
