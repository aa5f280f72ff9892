"""Choosing the nearest by numba, while a tile of similarities is still in the cache.

Each query keeps a buffer of rows above a threshold; when it is full, the k largest stay and the
threshold rises. It starts where a sample of the bank says that a little more than k will pass; a
query for which that was too high is asked again without one.

Shape letters: n rows of the bank, r queries of a piece, d width, c room of a buffer.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.compiled import in_parts, kernel
from selfsup.evaluate.nearest import Neighbours, pieces, products

QUERIES = 1024  # a piece; its products with a tile fill the cache
TILE = 512  # rows of the bank at a time
SAMPLE = 1024  # rows of the bank that the first threshold is taken from
EXTRA = 1.3  # candidates for each of the k that are wanted, of those that are looked at again
Product = Callable[[Tensor, Tensor, Tensor], Tensor]


def exact(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """float32 products of all pairs."""
    for rows in pieces(len(queries), _at_once(k, memory)):
        similar, places = _largest(queries[rows], bank, k, _product)
        yield Neighbours(rows, similar, places.long())


def reranked(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Products of bytes first, then the exact ones of the best."""
    coarse = min(len(bank), int(EXTRA * k) + 16)
    of_bank, of_queries = _bytes(bank), _bytes(queries)
    for rows in pieces(len(queries), _at_once(coarse, memory)):
        _, places = _largest(of_queries[rows], of_bank, coarse, _byte_product)
        similar = torch.empty(len(places), k)
        chosen = torch.empty(len(places), k, dtype=torch.int32)
        _by_rows(_rerank, queries[rows], places, similar, chosen, same=(bank.numpy(),))
        yield Neighbours(rows, similar, chosen.long())


def _at_once(k: int, memory: int) -> int:
    """Queries of a piece."""
    return max(1, min(QUERIES, memory // (4 * (TILE + SAMPLE) + 8 * _room(k))))


def _room(k: int) -> int:
    """Of a query's buffer."""
    return 4 * k + 64


def _product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
    return products(x, y, room[: len(x) * len(y)].view(len(x), len(y)))


def _byte_product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
    return torch._int_mm(x, y.T, out=room[: len(x) * len(y)].view(len(x), len(y)))


def _bytes(x: Tensor) -> Tensor:
    """Rows as whole numbers up to 127 of one scale, as wide as `_int_mm` wants."""
    scale = x.abs().amax().clamp(min=1e-30) / 127
    levels = x.div(scale).round_().to(torch.int8)
    return torch.nn.functional.pad(levels, (0, -x.shape[1] % 8))


def _largest(x: Tensor, bank: Tensor, k: int, product: Product) -> tuple[Tensor, Tensor]:
    """Values and places of the k largest products of each row, floats in order. [r, k] both."""
    whole = x.dtype == torch.int8
    kind = torch.int32 if whole else torch.float32
    lowest = torch.iinfo(kind).min if whole else torch.finfo(kind).min
    low = torch.full((len(x),), lowest, dtype=kind)
    sample = bank[:: max(1, len(bank) // SAMPLE)][:SAMPLE]
    share = k * len(sample) / len(bank)
    rank = int(share + 4 * share**0.5) + 2  # as good as always enough rows are above it
    if rank < len(sample) < len(bank):
        similar = product(x, sample, torch.empty(len(x) * len(sample), dtype=kind))
        _by_rows(_threshold, similar, low, same=(rank,))
    values, places, count = _scan(x, bank, k, product, low)
    missed = (count < k).nonzero()[:, 0]
    if len(missed):
        again = low[missed].fill_(lowest)
        values[missed], places[missed], _ = _scan(x[missed], bank, k, product, again)
    return values, places


def _scan(
    x: Tensor, bank: Tensor, k: int, product: Product, low: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Once through the bank; also how many each row found, k at least if all is well. [r, k]."""
    tile = torch.empty(len(x) * TILE, dtype=low.dtype)
    values = torch.empty(len(x), _room(k), dtype=low.dtype)
    places = torch.empty(len(x), _room(k), dtype=torch.int32)
    count = torch.zeros(len(x), dtype=torch.int64)
    for part in pieces(len(bank), TILE):
        similar = product(x, bank[part], tile)
        _by_rows(_take, similar, low, values, places, count, same=(part.start, k))
    best = torch.empty(len(x), k, dtype=low.dtype)
    where = torch.empty(len(x), k, dtype=torch.int32)
    finish = _in_order if low.is_floating_point() else _in_any_order
    _by_rows(finish, values, places, count, best, where)
    return best, where, count


def _by_rows(work: Any, *arrays: Tensor, same: tuple[Any, ...] = ()) -> None:
    """A kernel on a share of the rows of each array for each thread."""
    fields = [x.numpy() for x in arrays]
    in_parts(len(arrays[0]), lambda rows: work(*(x[rows] for x in fields), *same))


@kernel
def _take(similar, low, values, places, count, start, k):  # type: ignore[no-untyped-def]
    """Put what is not below the threshold into the buffers; flags first, eight at a time."""
    width, room = similar.shape[1], values.shape[1]
    work = np.empty(room, values.dtype)
    flags = np.zeros((width + 7) // 8 * 8, np.uint8)
    eights = flags.view(np.uint64)
    for r in range(len(similar)):
        row, value, place = similar[r], values[r], places[r]
        least, n = low[r], count[r]
        for j in range(width):
            flags[j] = row[j] >= least
        for e in range(len(eights)):
            if eights[e] == 0:
                continue
            if n > room - 8:
                least, n = _keep(value, place, n, k, work), k
            for j in range(8 * e, min(8 * e + 8, width)):
                value[n], place[n] = row[j], start + j
                n += row[j] >= least
        if n > room - 8:
            least, n = _keep(value, place, n, k, work), k
        low[r], count[r] = least, n


@kernel
def _keep(value, place, n, k, work):  # type: ignore[no-untyped-def]
    """The k largest of n come to the front, the first of equal ones; the smallest of them."""
    for i in range(n):
        work[i] = value[i]
    least = _kth_largest(work[:n], k)
    above = 0
    for i in range(n):
        above += value[i] > least
    equal, kept = k - above, 0
    for i in range(n):
        if value[i] > least or (value[i] == least and equal > 0):
            equal -= value[i] == least
            value[kept], place[kept] = value[i], place[i]
            kept += 1
    return least


@kernel
def _kth_largest(x, k):  # type: ignore[no-untyped-def]
    """Hoare's selection (1961), in place."""
    low, high = 0, len(x) - 1
    while low < high:
        pivot, i, j = x[(low + high) // 2], low, high
        while i <= j:
            while x[i] > pivot:
                i += 1
            while x[j] < pivot:
                j -= 1
            if i <= j:
                x[i], x[j] = x[j], x[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return x[k - 1]


@kernel
def _threshold(similar, low, rank):  # type: ignore[no-untyped-def]
    work = np.empty(similar.shape[1], similar.dtype)
    for r in range(len(similar)):
        for j in range(len(work)):
            work[j] = similar[r, j]
        low[r] = _kth_largest(work, rank)


@kernel
def _in_order(values, places, count, best, where):  # type: ignore[no-untyped-def]
    """The best of each buffer, the largest first and equal ones by their place."""
    k = best.shape[1]
    work = np.empty(values.shape[1], values.dtype)
    keys = np.empty(k, np.int64)
    for r in range(len(values)):
        if count[r] < k:
            continue  # will be asked again
        if count[r] > k:
            _keep(values[r], places[r], count[r], k, work)
        bits = values[r].view(np.int32)
        for j in range(k):
            keys[j] = (np.int64(~_ordered(bits[j])) << 32) | np.int64(places[r, j])
        keys.sort()
        row = best[r].view(np.int32)
        for j in range(k):
            where[r, j] = np.int32(keys[j] & 0xFFFFFFFF)
            row[j] = _ordered(~np.int32(keys[j] >> 32))


@kernel
def _ordered(bits):  # type: ignore[no-untyped-def]
    """A float's bits as a whole number of the same order; its own inverse."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel
def _in_any_order(values, places, count, best, where):  # type: ignore[no-untyped-def]
    """The best of each buffer, as they come."""
    k = best.shape[1]
    work = np.empty(values.shape[1], values.dtype)
    for r in range(len(values)):
        if count[r] > k:
            _keep(values[r], places[r], count[r], k, work)
        best[r], where[r] = values[r, :k], places[r, :k]


@kernel
def _rerank(queries, places, similar, chosen, bank):  # type: ignore[no-untyped-def]
    """The exact products of each query with its candidates, and the best of them in order."""
    candidates = places.shape[1]
    values = np.empty((1, candidates), np.float32)
    count = np.full(1, candidates)
    for r in range(len(queries)):
        query, near = queries[r], places[r]
        for c in range(candidates):
            total, row = np.float32(0), bank[near[c]]
            for j in range(len(query)):
                total += query[j] * row[j]
            values[0, c] = total
        best, where = similar[r : r + 1], chosen[r : r + 1]
        _in_order(values, places[r : r + 1], count, best, where)
