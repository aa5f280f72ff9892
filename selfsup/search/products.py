"""Products of queries with a bank, the same bits whatever blocks they come in, and their results.

Shape letters: n rows of the bank, q queries, r queries of a block, d width.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize

Metric = Literal["cosine", "euclidean"]


THIN = 16  # rows


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


def pieces(total: int, size: int) -> Iterator[slice]:
    """Slices that cover `total` rows, of `size` each."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
