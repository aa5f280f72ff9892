"""The nearest rows by numba: quick products tell the candidates, slow ones choose among them.

A slow product is a sum in float32 in one fixed order, so that a pair has the same value whatever is
around it. Quick ones are bfloat16 where the processor has it, else float32 by BLAS, each with a
bound on how far it is off. What the bounds leave open is looked at again: nothing is missed. Where
that would be too much, or the first threshold, which comes from a sample of the bank, was too high,
a query is asked in the next way, and at last by slow products alone.

Shape letters: n rows of the bank, q queries, r of a piece, d width, k wanted, c room of a buffer.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.core.threads import job_slices, map_ordered, run_blocks
from selfsup.search.products import Neighbours, pieces, products
from selfsup.search.selection import rerank, shrink, take, threshold

QUERIES = 1024  # a piece; its products with a tile stay in the cache
TILE = 512  # rows of the bank at a time
SAMPLE = 1024, 64  # rows that the first threshold is taken from: at least, and one of so many
OPEN = 1.4  # rows that bfloat16 leaves open for each that is wanted, or fewer as a rule
SPARE = 1.3, 16  # candidates of products of bytes: so many times k, and so many more
EPSILON = 2.0**-22  # of an addition in float32: four times the most that it is off, as a share
TINY, HUGE = 1e-15, 1e38  # lengths whose squares float32 still has; more than any bound


class Way(NamedTuple):
    """Rows in the form that quick products take."""

    product: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Of some queries and some of the bank, written to memory that is given."""
    queries: Tensor
    bank: Tensor
    kind: torch.dtype
    """Of the products."""
    wanted: int
    """Candidates at least."""
    reach: Tensor
    """float32 [q]; see `selection.keep`."""


def exact(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Those with the largest float32 products."""
    length, longest = _lengths(queries), float(_lengths(bank).max())
    ways = [_floats(queries, bank, k, length * longest)]
    copies = (queries.numel() + bank.numel()) * torch.bfloat16.itemsize
    if _halves_pay(queries, bank, k) and 2 * copies <= memory and TINY < longest < 1 / TINY:
        ways.insert(0, _halves(queries, bank, k, length, longest))
        memory -= copies
    return _search(queries, bank, k, ways, memory)


def reranked(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Of those with the largest products of bytes."""
    memory -= queries.numel() + bank.numel()
    return _search(queries, bank, k, [_bytes(queries, bank, k)], memory)


def _lengths(x: Tensor, rounded: Tensor | None = None) -> Tensor:
    """Of all rows, or of what they lost when they were rounded. [n, d] -> [n]."""
    out = torch.empty(len(x))

    def fill(rows: slice) -> None:
        part = x[rows] if rounded is None else x[rows] - rounded[rows]
        torch.linalg.vector_norm(part, dim=1, out=out[rows])

    _over(len(x), fill)
    return out


def _halves_pay(queries: Tensor, bank: Tensor, k: int) -> bool:
    """Whether the processor multiplies bfloat16, and enough that the bank's copy is worth it."""
    n, d = bank.shape
    many = n >= 16 * k and d >= 32 and len(queries) >= 256
    return many and torch.cpu._is_avx512_bf16_supported()


def _halves(queries: Tensor, bank: Tensor, k: int, length: Tensor, longest: float) -> Way:
    """As bfloat16, the bank moved to its mean, which changes a query's products all alike.

    With q = q' + e and b = b' + f, |q b - q' b'| <= |q| |f| + |e| |b'| (Cauchy and Schwarz); a sum
    in float32 is off by d epsilon |q| |b| at most, here as for the product that is compared.
    """
    mean, halves = bank.mean(0), torch.empty(bank.shape, dtype=torch.bfloat16)
    lengths = torch.empty(2, len(bank))

    def round_off(rows: slice) -> None:
        moved = bank[rows] - mean
        halves[rows] = moved
        torch.linalg.vector_norm(moved, dim=1, out=lengths[0, rows])
        torch.linalg.vector_norm(moved.sub_(halves[rows]), dim=1, out=lengths[1, rows])

    _over(len(bank), round_off)
    moved, off = lengths.amax(1)
    short = queries.bfloat16()
    lost = _lengths(queries, short)
    summed = queries.shape[1] * EPSILON * length * (longest + moved)
    apart = length * off + lost * (moved + off) + summed

    def product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        out = room.view(torch.bfloat16).view(len(x), len(y))
        return torch.mm(x, y.T, out=out).view(torch.int16)

    return Way(product, short, halves, torch.int16, k, _finite(2.001 * apart))


def _floats(queries: Tensor, bank: Tensor, k: int, largest: Tensor) -> Way:
    """As they are: two orders of the same sum are apart by 2 d epsilon |q| |b| at most.

    `largest` is |q| |b| for the longest b, [q].
    """

    def product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        return products(x, y, room.view(len(x), len(y)))

    reach = 4 * queries.shape[1] * EPSILON * largest
    return Way(product, queries, bank, torch.float32, k, _finite(reach))


def _finite(reach: Tensor) -> Tensor:
    """So far that everything is open, where a bound overflows."""
    return reach.nan_to_num(nan=HUGE, posinf=HUGE)


def _bytes(queries: Tensor, bank: Tensor, k: int) -> Way:
    """As whole numbers up to 127 of one scale, as wide as `_int_mm` wants."""

    def levels(x: Tensor) -> Tensor:
        low, high = x.aminmax()
        scale = torch.maximum(-low, high).clamp(min=1e-30) / 127
        whole = torch.zeros(len(x), x.shape[1] + -x.shape[1] % 8, dtype=torch.int8)

        def fill(rows: slice) -> None:
            whole[rows, : x.shape[1]] = (x[rows] / scale).round_()

        _over(len(x), fill)
        return whole

    def product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        return torch._int_mm(x, y.T, out=room.view(len(x), len(y)))

    wanted = min(len(bank), int(SPARE[0] * k) + SPARE[1])
    none = torch.full((len(queries),), -1.0)
    return Way(product, levels(queries), levels(bank), torch.int32, wanted, none)


def _over(n: int, work: Callable[[slice], None]) -> None:
    """Call `work` on pieces of n rows that stay in the cache.

    What it finds it writes to memory that is there: small results that are kept among large ones
    that are freed would pin the memory of all.
    """

    def job(rows: slice) -> None:
        for part in pieces(rows.stop - rows.start, 1024):
            work(slice(rows.start + part.start, rows.start + part.stop))

    run_blocks(n, job)


def _search(
    queries: Tensor, bank: Tensor, k: int, ways: list[Way], memory: int
) -> Iterator[Neighbours]:
    """Of the candidates of the first way, or the next for queries that it has too few for."""

    def search(rows: slice) -> Neighbours:
        similar = torch.empty(rows.stop - rows.start, k)
        chosen = torch.empty(similar.shape, dtype=torch.int32)
        left = torch.arange(len(similar))
        for way in ways:
            which = left + rows.start
            places, count = _candidates(way, which)
            near, found = torch.empty(len(left), k), torch.empty(len(left), k, dtype=torch.int32)
            _run(rerank, queries[which], bank, places, count, near, found)
            similar[left], chosen[left] = near, found
            left = left[count < way.wanted]
            if not len(left):
                break
        for i in left.tolist():
            one, query = slice(i, i + 1), queries[rows.start + i][None]
            every = torch.arange(len(bank), dtype=torch.int32)[None]
            count = torch.tensor([len(bank)])
            _run(rerank, query, bank, every, count, similar[one], chosen[one])
        return Neighbours(rows, similar, chosen.long())

    d, room = bank.shape[1], 8 * max(_room(way.wanted) for way in ways)
    each = 4 * (TILE + _sample(len(bank))) + room + 48 * k + 8 * d  # bytes of a query
    return map_ordered(job_slices(len(queries), QUERIES, max(1, memory) // each, least=64), search)


def _sample(n: int) -> int:
    """How many rows of the bank the first threshold is taken from, at most."""
    return max(SAMPLE[0], n // SAMPLE[1])


def _room(wanted: int) -> int:
    """Of a query's buffer."""
    return 5 * wanted + 64


def _candidates(way: Way, which: Tensor) -> tuple[Tensor, Tensor]:
    """Places of what may be among the k largest of some queries, int32 [r, c], and how many."""
    x, bank, r = way.queries[which], way.bank, len(which)
    lowest = torch.finfo if way.kind.is_floating_point else torch.iinfo
    low = torch.full((r,), lowest(way.kind).min, dtype=way.kind)
    values = torch.empty(r, _room(way.wanted), dtype=way.kind)
    places = torch.empty(values.shape, dtype=torch.int32)
    count, reach = torch.zeros(r, dtype=torch.int64), way.reach[which]
    most = _sample(len(bank))
    sample = bank[:: max(1, len(bank) // most)][:most]
    # what bfloat16 leaves open has to be above the threshold too
    share = (OPEN if way.kind == torch.int16 else 1) * way.wanted * len(sample) / len(bank)
    rank = int(share + 4.5 * share**0.5) + 2  # as good as always enough rows are above it
    if rank < len(sample) < len(bank):
        similar = way.product(x, sample, torch.empty(r * len(sample), dtype=way.kind))
        _run(threshold, similar, low, rank)
    tile = torch.empty(r * TILE, dtype=way.kind)
    for part in pieces(len(bank), TILE):
        similar = way.product(x, bank[part], tile[: r * (part.stop - part.start)])
        _run(take, similar, low, values, places, count, part.start, way.wanted, reach)
    _run(shrink, values, places, count, low, way.wanted, reach)
    return places, count


def _run(work: Any, *of: Any) -> None:
    """A kernel, on the memory of tensors."""
    work(*(x.numpy() if isinstance(x, Tensor) else x for x in of))
