"""Exact nearest rows on a CPU: quick products find candidates, float32 sums in one order rank them.

Quick products are bfloat16 where the processor has it, else float32 by BLAS; each comes with a
bound on its error. Candidates that the bound cannot exclude are rescored with a float32 sum in one
fixed order, so that a pair has the same value whatever is around it. If there are too many of them,
the query is repeated in float32, and at last with every row of the bank. `README.md` in this folder
has the argument with numbers.

Shape letters: n rows of the bank, q queries, r queries of a block, d width, k neighbours, c room of
a buffer.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.core.threads import job_slices, map_ordered, run_blocks
from selfsup.search.products import Neighbours, products, row_blocks
from selfsup.search.selection import rescore, set_threshold, shrink, take

QUERY_BLOCK = 1024  # its products with a tile stay in the cache
TILE = 512  # rows of the bank at a time
SAMPLE = 1024, 64  # rows that the first threshold is taken from: at least, and one of so many
OPEN = 1.4  # rows that bfloat16 leaves open for each neighbour, or fewer as a rule
EPSILON = 2.0**-22  # relative error of an addition in float32: four times the most
TINY, HUGE = 1e-15, 1e38  # lengths whose squares float32 still has; more than any bound


class Precision(NamedTuple):
    """Rows rounded to one precision, how they are multiplied, and how far products can be off."""

    multiply: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Products of some queries and some of the bank, written to the third tensor."""
    queries: Tensor
    bank: Tensor
    dtype: torch.dtype
    """Of the products."""
    error_bound: Tensor
    """float32 [q], twice the most that a product is off; see `selection.keep`."""


def bounded_search(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Find the k rows of the bank with the largest products with each query, exactly, on a CPU.

    Quick products choose candidates; a row leaves only if the bound on their error excludes it from
    the k largest. What is left is multiplied again in float32.

    Args:
        queries: float32 [q, d], made by `comparable`.
        bank: float32 [n, d], made by `comparable`.
        k: neighbours of each query, 1 to n; not checked here (`nearest` clips it).
        memory: bytes to hold besides queries and bank.

    Yields:
        Blocks of queries, in their order; each query's largest product first, equal ones by row.
    """
    length, longest = _lengths(queries), float(_lengths(bank).max())
    precisions = [_float32(queries, bank, length * longest)]
    copies = (queries.numel() + bank.numel()) * torch.bfloat16.itemsize
    if _bfloat16_pays(queries, bank, k) and 2 * copies <= memory and TINY < longest < 1 / TINY:
        precisions.insert(0, _bfloat16(queries, bank, length, longest))
        memory -= copies
    return _search(queries, bank, k, precisions, memory)


def _lengths(x: Tensor, rounded: Tensor | None = None) -> Tensor:
    """Lengths of rows, or of what they lost when they were rounded. [n, d] -> [n]."""
    out = torch.empty(len(x))

    def fill(rows: slice) -> None:
        block = x[rows] if rounded is None else x[rows] - rounded[rows]
        torch.linalg.vector_norm(block, dim=1, out=out[rows])

    _run_row_blocks(len(x), fill)
    return out


def _bfloat16_pays(queries: Tensor, bank: Tensor, k: int) -> bool:
    """Whether the processor multiplies bfloat16, and enough that the bank's copy is worth it."""
    n, d = bank.shape
    return n >= 16 * k and d >= 32 and len(queries) >= 256 and multiplies_bfloat16()


def multiplies_bfloat16() -> bool:
    """Whether the processor has AVX-512 products of bfloat16; False where torch cannot tell."""
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        return bool(capabilities().get("avx512_bf16", False))
    older = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return older is not None and bool(older())


def _bfloat16(queries: Tensor, bank: Tensor, length: Tensor, longest: float) -> Precision:
    """Round to bfloat16, after moving the bank to its mean.

    Moving changes all products of a query by the same amount, so that their order stays. With
    q = q' + e and b = b' + f, where q' and b' are rounded, |q b - q' b'| <= |q| |f| + |e| |b'|
    (Cauchy and Schwarz); a sum in float32 is off by d EPSILON |q| |b| at most, here and in the
    product that it is compared with. For example:

        q = (0.6, 0.8)    q' = (0.6016, 0.8008)    |q| = 1        |e| = 0.0017
        b = (0.3, 0.95)   b' = (0.3008, 0.9492)    |b'| = 0.9957  |f| = 0.0011
        q b = 0.9400      q' b' = 0.9411, off by 0.0011; the bound is 0.0011 + 0.0017 = 0.0028
    """
    mean, rounded = bank.mean(0), torch.empty(bank.shape, dtype=torch.bfloat16)
    lengths = torch.empty(2, len(bank))

    def round_off(rows: slice) -> None:
        moved = bank[rows] - mean
        rounded[rows] = moved
        torch.linalg.vector_norm(moved, dim=1, out=lengths[0, rows])
        torch.linalg.vector_norm(moved.sub_(rounded[rows]), dim=1, out=lengths[1, rows])

    _run_row_blocks(len(bank), round_off)
    longest_moved, bank_error = lengths.amax(1)
    short = queries.bfloat16()
    query_error = _lengths(queries, short)
    sum_error = queries.shape[1] * EPSILON * length * (longest + longest_moved)
    error = length * bank_error + query_error * (longest_moved + bank_error) + sum_error

    def multiply(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        out = room.view(torch.bfloat16).view(len(x), len(y))
        return torch.mm(x, y.T, out=out).view(torch.int16)

    return Precision(multiply, short, rounded, torch.int16, _finite(2.001 * error))


def _float32(queries: Tensor, bank: Tensor, largest: Tensor) -> Precision:
    """Take rows as they are: BLAS and the fixed order differ by 2 d EPSILON |q| |b| at most.

    `largest` is |q| |b| for the longest b, [q].
    """

    def multiply(x: Tensor, y: Tensor, room: Tensor) -> Tensor:
        return products(x, y, room.view(len(x), len(y)))

    error_bound = _finite(4 * queries.shape[1] * EPSILON * largest)
    return Precision(multiply, queries, bank, torch.float32, error_bound)


def _finite(error_bound: Tensor) -> Tensor:
    """Replace a bound that overflows by one that excludes nothing."""
    return error_bound.nan_to_num(nan=HUGE, posinf=HUGE)


def _run_row_blocks(n: int, work: Callable[[slice], None]) -> None:
    """Call `work` on blocks of n rows that stay in the cache.

    It writes its results to memory that is there: small results that are kept among large ones that
    are freed would pin the memory of all.
    """

    def job(rows: slice) -> None:
        for block in row_blocks(rows.stop - rows.start, 1024):
            work(slice(rows.start + block.start, rows.start + block.stop))

    run_blocks(n, job)


def _search(
    queries: Tensor, bank: Tensor, k: int, precisions: list[Precision], memory: int
) -> Iterator[Neighbours]:
    """Search in the first precision, and in the next for queries with too many open candidates."""

    def search(rows: slice) -> Neighbours:
        similarity = torch.empty(rows.stop - rows.start, k)
        indices = torch.empty(similarity.shape, dtype=torch.int32)
        remaining = torch.arange(len(similarity))
        for precision in precisions:
            which = remaining + rows.start
            places, count = _candidates(precision, which, k)
            best = torch.empty(len(which), k), torch.empty(len(which), k, dtype=torch.int32)
            _run(rescore, queries[which], bank, places, count, *best)
            similarity[remaining], indices[remaining] = best
            remaining = remaining[count < k]
            if not len(remaining):
                break
        for i in remaining.tolist():
            row, query = slice(i, i + 1), queries[rows.start + i][None]
            every = torch.arange(len(bank), dtype=torch.int32)[None]
            count = torch.tensor([len(bank)])
            _run(rescore, query, bank, every, count, similarity[row], indices[row])
        return Neighbours(rows, similarity, indices.long())

    d = bank.shape[1]
    bytes_a_query = 4 * (TILE + _sample_size(len(bank))) + 8 * _room(k) + 48 * k + 8 * d
    room = max(1, memory) // bytes_a_query
    return map_ordered(job_slices(len(queries), QUERY_BLOCK, room, least=64), search)


def _sample_size(n: int) -> int:
    """How many rows of the bank the first threshold is taken from, at most."""
    return max(SAMPLE[0], n // SAMPLE[1])


def _room(k: int) -> int:
    """Candidates that a query's buffer holds."""
    return 5 * k + 64


def _candidates(precision: Precision, which: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows that may be among the k largest of some queries, int32 [r, c], and how many."""
    x, bank, r = precision.queries[which], precision.bank, len(which)
    dtype = precision.dtype
    lowest = torch.finfo if dtype.is_floating_point else torch.iinfo
    threshold = torch.full((r,), lowest(dtype).min, dtype=dtype)
    values = torch.empty(r, _room(k), dtype=dtype)
    places = torch.empty(values.shape, dtype=torch.int32)
    count, error_bound = torch.zeros(r, dtype=torch.int64), precision.error_bound[which]
    most = _sample_size(len(bank))
    sample = bank[:: max(1, len(bank) // most)][:most]
    # what bfloat16 leaves open has to be above the threshold too
    expected = (OPEN if dtype == torch.int16 else 1) * k * len(sample) / len(bank)
    rank = int(expected + 4.5 * expected**0.5) + 2  # nearly always enough rows are above it
    if rank < len(sample) < len(bank):
        room = torch.empty(r * len(sample), dtype=dtype)
        _run(set_threshold, precision.multiply(x, sample, room), threshold, rank)
    tile = torch.empty(r * TILE, dtype=dtype)
    for rows in row_blocks(len(bank), TILE):
        values_of_tile = precision.multiply(x, bank[rows], tile[: r * (rows.stop - rows.start)])
        buffers = threshold, values, places, count
        _run(take, values_of_tile, *buffers, rows.start, k, error_bound)
    _run(shrink, values, places, count, threshold, k, error_bound)
    return places, count


def _run(kernel: Any, *arguments: Any) -> None:
    """Call a compiled loop on the memory of tensors."""
    kernel(*(x.numpy() if isinstance(x, Tensor) else x for x in arguments))
