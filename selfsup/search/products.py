"""Products of queries with a bank, the same bits whatever blocks they come in.

Shape letters: n rows of the bank, q queries, r queries of a block, d width.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.numerics import exponent_of, normalize

Metric = Literal["cosine", "euclidean"]

THIN = 16
"""Rows below which BLAS adds up a product in another order."""
MEMORY = 1 << 30
"""Bytes that a search may hold besides the features, by default."""


def parse_bytes(text: str) -> int:
    """Parse a size like 2GB or 500MB.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"--memory must read like 2GB or 500MB, not {text!r}")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


class Neighbours(NamedTuple):
    """The nearest rows of a block of queries, on the CPU."""

    rows: slice
    """Which queries."""
    similarity: Tensor
    """float32 [r, k], the nearest first."""
    indices: Tensor
    """int64 [r, k], rows of the bank; of equally near ones the first, in ascending order."""


def comparable(queries: Tensor, bank: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """Transform rows so that a larger product is a smaller distance.

    Cosine: rows of length 1. Euclidean: q . b - |b|^2 / 2, as one more column. With the row
    b = (1, 2) and the query q = (3, 1): b becomes (1, 2, -2.5), q becomes (3, 1, 1), their product
    is 2.5, and the squared distance is |q|^2 - 2 * 2.5 = 5. Rows are moved near 0 first, where
    float32 is finest, and divided by a power of two.

    Raises:
        ValueError: a feature is not finite, so that no order exists.
    """
    for name, rows in (("bank", bank), ("queries", queries)):
        broken = len(rows) - int(rows.isfinite().all(1).sum())
        if broken:
            raise ValueError(f"features of {broken} of {len(rows)} images ({name}) are not finite")
    if metric == "cosine":
        z = normalize(bank.float())
        return (z if queries is bank else normalize(queries.float())), z
    y = bank.double()
    spread = y.std(0, correction=0).max().clamp(min=1e-30)
    step = 2 ** spread.log2().ceil()  # moved by whole steps, small whole numbers stay whole
    centre = (y.mean(0) / step).round() * step
    y = y - centre
    x = y if queries is bank else queries.double() - centre
    exponent = exponent_of(x, y)  # without it the squares of 1e25 and 1e-30 leave float32
    x, y = torch.ldexp(x, -exponent), torch.ldexp(y, -exponent)
    b = torch.cat([y, -y.square().sum(1, keepdim=True) / 2], dim=1).float()
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1).float(), b


def products(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """Multiply rows: x y^T, with the same bits for each pair in any block. [r, d], [n, d].

    BLAS adds up products of a few rows in another order than others, so that equal rows would get
    different values: blocks of fewer than `THIN` rows are padded with zeros.
    """
    missing_rows, missing_columns = (max(0, THIN - len(side)) for side in (x, y))
    if not missing_rows and not missing_columns:
        return torch.mm(x, y.T, out=out)
    # only what is thin is padded: padding by nothing copies too
    left = F.pad(x, (0, 0, 0, missing_rows)) if missing_rows else x
    right = F.pad(y, (0, 0, 0, missing_columns)) if missing_columns else y
    similarity = (left @ right.T)[: len(x), : len(y)]
    return similarity.contiguous() if out is None else out.copy_(similarity)


def row_blocks(total: int, size: int) -> Iterator[slice]:
    """Slices that cover `total` rows, `size` rows each."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
