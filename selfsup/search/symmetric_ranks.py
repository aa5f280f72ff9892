"""Ranks of rows among themselves, by numba: each pair is multiplied once and serves both its rows.

Shape letters: n rows, d width, m matches of a row at most, t rows of a tile.
"""

from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.core.compiled import kernel
from selfsup.core.threads import run_jobs, single_threaded
from selfsup.search.products import pieces, products
from selfsup.search.sides import Ranked

TILE = 512


def ranked_among_themselves(x: Tensor, labels: Tensor) -> Ranked:
    """As `ranks.ranked`, of rows whose products are symmetric.

    With rows in the order of their labels, matches lie along the diagonal; all other products are
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
    with (
        single_threaded()
    ):  # all products by one thread of torch each, so that equal rows stay equal
        own = _own(x, start, stop, int(counts.max()) - 1)  # [n, m]
        passed = _passed(x, start, stop, own)
    step = torch.arange(own.shape[1])
    ranks = torch.where(step < (stop - start - 1)[:, None], passed + step + 1, 0)
    found = torch.empty_like(ranks)
    found[order] = ranks
    return Ranked(slice(0, len(x)), found)


def _own(x: Tensor, start: Tensor, stop: Tensor, most: int) -> Tensor:
    """Products of each row with its matches, descending; infinite where there are no more."""
    own = torch.full((len(x), most), torch.inf)
    for rows in pieces(len(x), TILE):
        first, last = int(start[rows].min()), int(stop[rows].max())
        similar = products(x[rows], x[first:last])
        places = start[rows, None] - first + torch.arange(most + 1)
        there = places < (stop[rows, None] - first)
        there &= places != (torch.arange(rows.start, rows.stop) - first)[:, None]
        found = similar.gather(1, places.clamp(max=last - first - 1))
        ranked = found.masked_fill(~there, -torch.inf).sort(dim=1, descending=True).values[:, :most]
        own[rows] = ranked.masked_fill(ranked == -torch.inf, torch.inf)
    return own


def _passed(x: Tensor, start: Tensor, stop: Tensor, own: Tensor) -> Tensor:
    """How many rivals are not below each of a row's own products, int32 [n, m]."""
    passed = torch.zeros(own.shape, dtype=torch.int32)
    tiles, one_at_a_time = list(pieces(len(x), TILE)), Lock()
    starts, stops, bars = start.numpy(), stop.numpy(), own.numpy()

    def along(i: int) -> None:
        """A row of tiles from the diagonal on: by rows, and off the diagonal by columns."""
        rows = tiles[i]
        found = np.zeros(bars[rows].shape, np.int32)
        room = torch.empty((rows.stop - rows.start) * TILE)
        for columns in tiles[i:]:
            shape = rows.stop - rows.start, columns.stop - columns.start
            similar = products(x[rows], x[columns], room[: shape[0] * shape[1]].view(shape))
            tile = similar.numpy()
            _strike(tile, starts[rows] - columns.start, stops[rows] - columns.start)
            _by_rows(tile, bars[rows], found)
            if rows == columns:
                continue
            least = np.ascontiguousarray(bars[columns].T)
            counted = np.zeros(least.shape, np.int32)
            _by_columns(tile, least, counted)
            with one_at_a_time:
                passed[columns] += torch.from_numpy(counted.T)
        with one_at_a_time:
            passed[rows] += torch.from_numpy(found)

    run_jobs(range(len(tiles)), along)
    return passed


@kernel
def _strike(tile, start, stop):  # type: ignore[no-untyped-def]
    """Rows of the same label, and the row itself, are no rivals."""
    for i in range(len(tile)):
        for j in range(max(0, start[i]), min(tile.shape[1], stop[i])):
            tile[i, j] = LOWEST


@kernel
def _by_rows(tile, least, passed):  # type: ignore[no-untyped-def]
    for i in range(len(tile)):
        row = tile[i]
        for p in range(least.shape[1]):
            bar, n = least[i, p], np.int32(0)
            for j in range(len(row)):
                n += row[j] >= bar
            passed[i, p] += n


@kernel
def _by_columns(tile, least, passed):  # type: ignore[no-untyped-def]
    for i in range(len(tile)):
        row = tile[i]
        for p in range(len(least)):
            bar, n = least[p], passed[p]
            for j in range(len(row)):
                n[j] += row[j] >= bar[j]


LOWEST: Any = np.finfo(np.float32).min
