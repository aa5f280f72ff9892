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
    usable = length > SMALLEST_NORM
    return torch.where(usable, x, 0) / torch.where(usable, length, 1)


def _sqrt(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 by definition, not infinite."""
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1).sqrt(), 0)


@dataclass(frozen=True)
class Distance:
    """How far apart two embeddings are: one object for miner and loss, so that they agree.

    kind: euclidean |x - y|, squared |x - y|^2, or cosine 1 - cos(x, y).
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
            if self.kind == "cosine":
                return 1 - x @ y.T
            apart = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
            return apart if self.kind == "euclidean" else apart.square()

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of row i of x to row i of y, differentiable. [n, d], [n, d] -> [n]."""
        with full_precision(x):
            x, y = self._prepare(x), self._prepare(y)
            if self.kind == "cosine":
                return 1 - (x * y).sum(1)
            square = (x - y).square().sum(1)
            return square if self.kind == "squared" else _sqrt(square)
