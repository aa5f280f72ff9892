"""The k nearest rows of a bank, exactly, in blocks that fit in memory.

On a CPU compiled loops choose rows while a block of products is still in the processor's cache
(`bounded.py`). On a GPU, or where numba has no wheel, torch multiplies and sorts blocks. Both give
the same neighbours; the similarities differ in float32's last bits.

Shape letters: n rows of the bank, q queries, r queries of a block, d width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from selfsup.core import compiled
from selfsup.search.products import MEMORY, THIN, Neighbours, products, row_blocks

BANK_BLOCK = 1 << 16  # rows of the bank that are multiplied at a time
CPU_BLOCK, GPU_BLOCK = 64, 1024  # queries at a time
BYTES_A_PRODUCT = 40  # float32, its int64 key, and what making and sorting keys holds besides


def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    *,
    exclude_self: bool = False,
    first: int = 0,
    memory: int = MEMORY,
) -> Iterator[Neighbours]:
    """Find the rows of the bank with the largest products with each query, in order.

    Rows that are equally near are in ascending order, and of those that tie for the last place the
    first ones are taken. The work is done on the tensors' device.

    Args:
        queries: float32 [q, d], made by `comparable`.
        bank: float32 [n, d], made by `comparable`.
        k: neighbours of each query, clipped to the bank.
        exclude_self: query i is row first + i of the bank, and is not its own neighbour.
        first: see `exclude_self`.
        memory: bytes to hold besides the features.

    Raises:
        ValueError: the bank is too small for one neighbour.
    """
    k = min(k, len(bank) - exclude_self)
    if k < 1:
        raise ValueError(f"{len(bank)} images are too few to find a neighbour")
    if queries.device.type == "cpu" and compiled.available():
        from selfsup.search.bounded import bounded_search

        blocks = bounded_search(queries, bank, k + exclude_self, memory)
    else:
        blocks = chunked_search(queries, bank, k + exclude_self, memory)
    for block in blocks:
        yield _without_self(block, first) if exclude_self else block


def _without_self(block: Neighbours, first: int) -> Neighbours:
    """Drop each query itself, or the last neighbour where equal rows have taken its place."""
    rows, similarity, indices = block
    itself = indices == first + torch.arange(rows.start, rows.stop)[:, None]  # [r, k + 1]
    last = torch.arange(indices.shape[1]) == indices.shape[1] - 1
    drop = torch.where(itself.any(1, keepdim=True), itself, last)
    shape = len(similarity), indices.shape[1] - 1
    return Neighbours(rows, similarity[~drop].view(shape), indices[~drop].view(shape))


def chunked_search(queries: Tensor, bank: Tensor, k: int, memory: int) -> Iterator[Neighbours]:
    """Multiply blocks and keep the k largest keys (`_keys`), on any device.

    All blocks of the bank have one shape, the last one padded: a device may add up products of
    another shape in another order, and equal rows have to get equal values.
    """
    width = min(BANK_BLOCK, len(bank))
    most = CPU_BLOCK if queries.device.type == "cpu" else GPU_BLOCK
    block_rows = max(THIN, min(most, memory // (BYTES_A_PRODUCT * width)))
    for rows in row_blocks(len(queries), block_rows):
        best = torch.empty(rows.stop - rows.start, 0, dtype=torch.int64, device=queries.device)
        for columns in row_blocks(len(bank), width):
            block, size = bank[columns], columns.stop - columns.start
            if size < width:
                block = pad(block, (0, 0, 0, width - size))
            similarity = products(queries[rows], block)[:, :size]
            keys = _keys(similarity, columns.start)
            keys = torch.cat([best, keys.topk(min(k, keys.shape[1]), dim=1).values], dim=1)
            best = keys.topk(min(k, keys.shape[1]), dim=1).values
        yield Neighbours(rows, *(field.cpu() for field in _from_keys(best)))


def _keys(similarity: Tensor, first: int) -> Tensor:
    """Whole numbers in the order of neighbours: by similarity, equal ones by their row.

    The upper 32 bits are the bits of the similarity, the lower ones the row counted backwards.
    Three products 0.5, 1.0, 0.5 of rows 0, 1, 2: the bits of 0.5 are 0x3F000000 and of 1.0
    0x3F800000, so the keys are 0x3F000000_00000000, 0x3F800000_00000000 - 1 and
    0x3F000000_00000000 - 2, and the order is row 1, row 0, row 2. Bits of negative numbers count
    backwards and are turned over. `first` is the row that the block begins with.
    """
    bits = (similarity + 0.0).view(torch.int32)  # + 0.0 makes 0.0 of -0.0, which equals it
    keys = bits.bitwise_xor_((bits >> 31) & 0x7FFFFFFF).long().bitwise_left_shift_(32)
    return keys.sub_(torch.arange(first, first + keys.shape[1], device=keys.device))


def _from_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Similarities and rows of keys."""
    rows = -keys & 0xFFFFFFFF
    ordered = ((keys + rows) >> 32).int()
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.view(torch.float32), rows
