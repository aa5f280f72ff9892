"""The k nearest rows of a bank, exactly, in pieces that fit in memory.

With numba (`pip install 'selfsup[fast]'`) rows are chosen while a piece of the product is still in
the processor's cache; without it by torch alone. Both give the same but for float32's last bits.

Shape letters: n rows of the bank, q queries, r queries of a piece, d width.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup import compiled
from selfsup.errors import UserError
from selfsup.numerics import normalize
from selfsup.threads import in_turn, shares

Metric = Literal["cosine", "euclidean"]
GROUP = 16  # similarities of which only the largest is looked at first
TILE = 2048  # rows of the bank that are multiplied at a time: a product that stays in the cache
BLOCK = 64 * TILE  # rows of the bank whose products are held
THIN = 16  # rows
QUERIES, SMALL = 1024, 128  # a job, and how many of its queries are multiplied at a time
MEMORY = 1 << 30
"""Bytes that a search may hold beside the features, unless told otherwise."""


def bytes_of(text: str) -> int:
    """A size like 2GB or 500MB.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not found or not float(found[1]):
        raise UserError(f"--memory must read like 2GB or 500MB, not {text!r}")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


class Neighbours(NamedTuple):
    """Of some of the queries."""

    rows: slice
    """Which queries."""
    similar: Tensor
    """float32 [r, k], the nearest first."""
    places: Tensor
    """int64 [r, k], rows of the bank, equally near ones ascending; some that are as near as the
    last may have been left out."""


def comparable(queries: Tensor, bank: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Rows whose product ranks like the metric; larger is nearer.

    Euclidean: q . b - |b|^2 / 2, as one more column, of rows moved near 0, where float32 is finest.

    Raises:
        ValueError: a feature is not finite, which no comparison could tell.
    """
    for name, rows in (("bank", bank), ("queries", queries)):
        broken = len(rows) - int(torch.linalg.vector_norm(rows.float(), dim=1).isfinite().sum())
        if broken:
            raise ValueError(f"features of {broken} of {len(rows)} images ({name}) are not finite")
    if metric == "cosine":
        z = normalize(bank.float())
        return (z if queries is bank else normalize(queries.float())), z
    y = bank.double()
    spread = y.std(0, correction=0).max().clamp(min=1e-30)
    step = 2 ** spread.log2().ceil()  # moved by whole steps, small whole numbers stay such
    centre = (y.mean(0) / step).round() * step
    y = y - centre
    b = torch.cat([y, -y.square().sum(1, keepdim=True) / 2], dim=1).float()
    x = y if queries is bank else queries.double() - centre
    return torch.cat([x, torch.ones(len(x), 1)], dim=1).float(), b


def products(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """X y^T, with the same bits for each pair whatever pieces the rows come in. [r, d], [n, d].

    BLAS adds up products of a few rows in another order than others, which would tell equal rows
    apart: those are made wider by zeros.
    """
    rows, columns = (max(0, THIN - len(side)) for side in (x, y))
    if not rows and not columns:
        return torch.mm(x, y.T, out=out)
    # padding by nothing is a copy too
    left = F.pad(x, (0, 0, 0, rows)) if rows else x
    right = F.pad(y, (0, 0, 0, columns)) if columns else y
    wide = left @ right.T
    found = wide[: len(x), : len(y)]
    return found.contiguous() if out is None else out.copy_(found)


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
        from selfsup.evaluate import fast

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


def pieces(total: int, size: int) -> Iterator[slice]:
    """Slices that cover `total` rows, of `size` each."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


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
    return in_turn(shares(len(queries), QUERIES, memory // each, least=SMALL // 2), search)


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
