"""The nearest rows by numba: quick products tell the candidates, exact ones choose among them.

Quick products are bfloat16 where the processor has it, each with a bound on how far it is off; what
the bounds leave open is looked at again, so nothing is missed. Queries for which that would be too
much are asked in float32. A first threshold comes from a sample of the bank; a query for which that
was too high is asked again without one.

Shape letters: n rows of the bank, r queries of a piece, d width, k wanted.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from selfsup.evaluate.nearest import Neighbours, pieces, products
from selfsup.evaluate.selection import rerank, shrink, take, threshold
from selfsup.threads import in_turn, shares

QUERIES = 1024  # a piece; its products with a tile stay in the cache
TILE = 512  # rows of the bank at a time
SAMPLE = 1024, 64  # rows that the first threshold is taken from: at least, and one of so many
SPARE = 16  # candidates more than wanted, of products that are off in their last bits alone
BYTES_SPARE = 1.3  # candidates for each that is wanted, of products of bytes
EPSILON = 2.0**-22  # of an addition in float32, four times the most that it is off
Result = TypeVar("Result")


class Way(NamedTuple):
    """Rows in the form that quick products take."""

    product: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Of some queries and some of the bank, written to memory that is given."""
    queries: Tensor
    bank: Tensor
    kind: torch.dtype
    """Of the products."""
    wanted: int
    """Candidates."""
    reach: Tensor
    """float32 [q]; see `selection.keep`."""
    sampled: bool = True
    """Whether a threshold comes from a sample."""


def exact(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Those with the largest float32 products."""
    slow = _floats(queries, bank, k)
    ways = [slow, slow._replace(sampled=False)]
    if _halves_pay(queries, bank, k, memory):
        ways.insert(0, _halves(queries, bank, k))
        memory -= ways[0].bank.nbytes
    return _search(queries, bank, k, ways, memory)


def reranked(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Of those with the largest products of bytes."""
    quick = _bytes(queries, bank, k)
    return _search(queries, bank, k, [quick, quick._replace(sampled=False)], memory)


def _halves_pay(queries: Tensor, bank: Tensor, k: int, memory: int) -> bool:
    """Whether the processor multiplies bfloat16, and enough that the bank's copy is worth it."""
    n, d = bank.shape
    many = n >= 16 * k and d >= 32 and len(queries) >= 256
    return many and bank.nbytes <= memory and torch.cpu._is_avx512_bf16_supported()


def _halves(queries: Tensor, bank: Tensor, k: int) -> Way:
    """As bfloat16, the bank moved to its mean, which changes a query's products all alike.

    With q = q' + e and b = b' + f, |q b - q' b'| <= |q| |f| + |e| |b'| (Cauchy and Schwarz); a sum
    in float32 is off by d epsilon |q| |b| at most, here as for the product that is compared.
    """
    mean, halves = bank.mean(0), torch.empty(bank.shape, dtype=torch.bfloat16)

    def round_off(rows: slice) -> Tensor:
        moved = bank[rows] - mean
        halves[rows] = moved
        off = moved - halves[rows]
        return torch.stack([x.square().sum(1).max() for x in (bank[rows], moved, off)])

    longest, moved, off = torch.stack(_over(len(bank), round_off)).amax(0).sqrt()
    short = queries.bfloat16()
    length, lost = queries.norm(dim=1), (queries - short).norm(dim=1)
    summed = queries.shape[1] * EPSILON * length * (longest + moved)
    apart = length * off + lost * (moved + off) + summed

    def product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        out = room.view(torch.bfloat16).view(len(x), len(y))
        return torch.mm(x, y.T, out=out).view(torch.int16)

    return Way(product, short, halves, torch.int16, k, 2.001 * apart)


def _floats(queries: Tensor, bank: Tensor, k: int) -> Way:
    """As they are."""

    def product(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        return products(x, y, room.view(len(x), len(y)))

    wanted = min(len(bank), k + SPARE)
    return Way(product, queries, bank, torch.float32, wanted, torch.full((len(queries),), -1.0))


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

    wanted = min(len(bank), int(BYTES_SPARE * k) + SPARE)
    none = torch.full((len(queries),), -1.0)
    return Way(product, levels(queries), levels(bank), torch.int32, wanted, none)


def _over(n: int, work: Callable[[slice], Result]) -> list[Result]:
    """Results for pieces of n rows that stay in the cache."""

    def job(rows: slice) -> list[Result]:
        parts = pieces(rows.stop - rows.start, 1024)
        return [work(slice(rows.start + part.start, rows.start + part.stop)) for part in parts]

    return [result for results in in_turn(shares(n), job) for result in results]


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
        return Neighbours(rows, similar, chosen.long())

    room = 8 * max(_room(way.wanted) for way in ways)
    each = 4 * (TILE + _sample(len(bank))) + room + 48 * k  # bytes of a query
    return in_turn(shares(len(queries), QUERIES, max(1, memory) // each), search)


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
    share = (1.4 if way.kind == torch.int16 else 1) * way.wanted * len(sample) / len(bank)
    rank = int(share + 4.5 * share**0.5) + 2  # as good as always enough rows are above it
    if way.sampled and rank < len(sample) < len(bank):
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
