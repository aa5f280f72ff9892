"""The k nearest rows of a bank, exactly, in pieces that fit in memory.

With numba (`pip install 'selfsup[fast]'`) rows are chosen while a piece of the product is still in
the processor's cache; without it by torch alone. Both give the same but for float32's last bits.

Shape letters: n rows of the bank, q queries, r queries of a piece, d width.
"""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from selfsup.core import compiled
from selfsup.core.threads import job_slices, map_ordered
from selfsup.search.products import MEMORY, Neighbours, pieces, products

GROUP = 16  # similarities of which only the largest is looked at first
TILE = 2048  # rows of the bank that are multiplied at a time: a product that stays in the cache
BLOCK = 64 * TILE  # rows of the bank whose products are held
QUERIES, SMALL = 1024, 128  # a job, and how many of its queries are multiplied at a time


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    *,
    alone: bool = False,
    precision: Literal["float32", "int8"] = "float32",
    memory: int = MEMORY,
) -> Iterator[Neighbours]:
    """The rows of the bank with the largest products with each query, in order.

    Args:
        queries: float32 [q, d], of `comparable`.
        bank: float32 [n, d], of `comparable`.
        k: how many, clipped to what there is.
        alone: query i is row i of the bank, and is not its own neighbour.
        precision: int8 looks first at products of bytes, a third more than k, and then at the exact
            ones of those: several times faster, and what lies below can be missed. Needs numba.
        memory: bytes to hold beside the features.

    Raises:
        ValueError: the bank is too small for one neighbour, or numba is missing.
    """
    k = min(k, len(bank) - alone)
    if k < 1:
        raise ValueError(f"{len(bank)} images are too few to find a neighbour")
    if precision == "int8" and not compiled.available():
        raise ValueError("int8 needs numba: pip install 'selfsup[fast]'")
    wanted = k + alone
    if not compiled.available():
        found = _by_torch(queries, bank, wanted, memory)
    else:
        from selfsup.search import bounded as fast

        exact = precision == "float32"
        found = (fast.exact if exact else fast.reranked)(queries, bank, wanted, memory)
    for part in found:
        yield _without_self(part) if alone else part


def _without_self(part: Neighbours) -> Neighbours:
    """Drop each query itself, or the last where equal rows have taken its place."""
    rows, similar, places = part
    own = torch.arange(rows.start, rows.stop)[:, None]
    last = torch.arange(places.shape[1]) == places.shape[1] - 1
    itself = places == own  # [r, k + 1]
    drop = torch.where(itself.any(1, keepdim=True), itself, last)
    left = len(similar), places.shape[1] - 1
    return Neighbours(rows, similar[~drop].view(left), places[~drop].view(left))


def _by_torch(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """A block of the bank after another, and the k largest of what those have."""
    n = len(bank)

    def search(rows: slice) -> Neighbours:
        room = torch.empty(min(SMALL, rows.stop - rows.start), min(BLOCK, n))
        found = []
        for x in queries[rows].split(SMALL):
            blocks = [_of_block(x, bank[block], k, room) for block in pieces(n, BLOCK)]
            similar = torch.cat([near for near, _ in blocks], dim=1)
            places = torch.cat([where + i * BLOCK for i, (_, where) in enumerate(blocks)], dim=1)
            near, which = similar.topk(k, dim=1, sorted=False)
            found.append(_ordered(near, places.gather(1, which)))
        return Neighbours(rows, *map(torch.cat, zip(*found, strict=True)))

    each = 6 * min(BLOCK, n) + 12 * k * (n // BLOCK)  # bytes of a query
    return map_ordered(job_slices(len(queries), QUERIES, memory // each, least=SMALL // 2), search)


def _of_block(x: Tensor, bank: Tensor, k: int, room: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest products, or all; maxima of groups tell which groups they lie in. [r, k]."""
    n = len(bank)
    similar = room[: len(x), :n]
    tiles = n // TILE if n >= 8 * k else 0  # else there is nothing to gain by groups
    largest = torch.empty(len(x), tiles * (TILE // GROUP))
    for tile in pieces(n, TILE):
        part = products(x, bank[tile], similar[:, tile])
        if tile.start < tiles * TILE:
            group = slice(tile.start // GROUP, tile.stop // GROUP)
            torch.amax(part.unflatten(1, (GROUP, -1)), 1, out=largest[:, group])
    places = torch.arange(n).expand(len(x), -1)
    if tiles:
        places = _candidates(largest, k, n)
    near, which = similar.gather(1, places).topk(min(k, n), dim=1, sorted=False)
    return near, places.gather(1, which)


def _candidates(largest: Tensor, k: int, n: int) -> Tensor:
    """Members of the k groups with the largest maxima, and the rows of no group. [r, c]."""
    groups = largest.topk(min(k, largest.shape[1]), dim=1, sorted=False).indices
    width = TILE // GROUP
    first = groups // width * TILE + groups % width
    places = (first[:, :, None] + torch.arange(GROUP) * width).flatten(1)
    rest = torch.arange(largest.shape[1] * GROUP, n).expand(len(places), -1)
    return torch.cat([places, rest], dim=1)


def _ordered(similar: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest first; equal ones by their place."""
    places, order = places.sort(dim=1)
    similar, ranked = similar.gather(1, order).sort(dim=1, descending=True, stable=True)
    return similar, places.gather(1, ranked)
