"""Arithmetic that losses, miners and metrics share: precision, normalising, distances.

Shape letters: n and m rows, d embedding width.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SMALLEST_NORM = 1e-8  # a shorter row has no direction that float32 can tell


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off: half precision blurs similarities, and `.float()` alone is undone."""
    return torch.autocast(like.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def normalize(x: Tensor) -> Tensor:
    """Rows scaled to length 1. [n, d] -> [n, d].

    A row shorter than 1e-8 becomes zeros with gradient zero, where dividing by a tiny norm would
    send gradients of 1e11 backward.
    """
    length = _sqrt((x * x).sum(1, keepdim=True))
    short = length <= SMALLEST_NORM  # false of a row with nan, which has to show
    return torch.where(short, 0, x) / torch.where(short, 1, length)


def _sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 by definition, not infinite."""
    zero = square == 0
    return torch.where(zero, 0, torch.where(zero, 1, square).sqrt())


@dataclass(frozen=True)
class Distance:
    """How far apart two embeddings are: one object for miner and loss, so that they agree.

    kind: euclidean |x - y|, squared |x - y|^2, or cosine 1 - cos(x, y), formed as half the square
        so that equal rows are at exactly 0; a row of zeros is at 1/2 from all others.
    normalize: scale rows to length 1 first (cosine always does).
    """

    kind: Literal["euclidean", "squared", "cosine"] = "euclidean"
    normalize: bool = True

    def _prepare(self, x: Tensor) -> Tensor:
        x = at_least_float32(x)
        return normalize(x) if self.normalize or self.kind == "cosine" else x

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """Every distance. [n, d], [m, d] -> [n, m].

        Differences are formed one by one: the product form of `torch.cdist` gives identical rows
        distances up to 7e-4 in float32, which would break ties and duplicates.
        """
        with full_precision(x):
            x, y = self._prepare(x), self._prepare(y)
            apart = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
            return apart if self.kind == "euclidean" else self._of_square(apart.square())

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of row i of x to row i of y, differentiable. [n, d], [n, d] -> [n]."""
        with full_precision(x):
            x, y = self._prepare(x), self._prepare(y)
            square = (x - y).square().sum(1)
            return _sqrt(square) if self.kind == "euclidean" else self._of_square(square)

    def _of_square(self, square: Tensor) -> Tensor:
        return square / 2 if self.kind == "cosine" else square
