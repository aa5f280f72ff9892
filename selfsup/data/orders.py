"""Orders of images: one permutation an epoch and stream, in memory that stays small at any size.

    up to LARGE images      torch.randperm, kept as int32: 4 bytes an image
    above                   a keyed permutation that is computed place by place: no memory

Shape letter: b places.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.core.seeds import generator

LARGE = 1 << 24
"""Up to so many images an order is kept: 67 MB."""
ROUNDS = 6


class Orders:
    """The order of each epoch of one stream, a pure function of seed and epoch.

    >>> Orders(6, seed=0)(0, 0, 6).sort().values.tolist()
    [0, 1, 2, 3, 4, 5]
    """

    def __init__(self, n: int, *, seed: int, stream: str = "shuffle") -> None:
        """Shuffle n images."""
        self.n, self.seed, self.stream = n, seed, stream
        self._kept: dict[int, Tensor] = {}

    def __call__(self, epoch: int, first: int, last: int) -> Tensor:
        """Positions of the images at the places from `first` to before `last`, int64 [b]."""
        if self.n > LARGE:
            places = np.arange(first, last, dtype=np.uint64)
            key = generator(self.seed, epoch, self.stream)
            return torch.from_numpy(permuted(places, self.n, key).astype(np.int64))
        return self._order(epoch)[first:last].long()

    def __reduce__(self) -> tuple[Any, ...]:
        """Send a reader process no orders: it makes its own."""
        return _orders, (self.n, self.seed, self.stream)

    def _order(self, epoch: int) -> Tensor:
        """Keep two: who looks for stand-ins at the end of an epoch looks into the next one."""
        if epoch not in self._kept:
            for old in list(self._kept)[:-1]:
                del self._kept[old]
            key = generator(self.seed, epoch, self.stream)
            self._kept[epoch] = torch.randperm(self.n, generator=key, dtype=torch.int32)
        return self._kept[epoch]


def _orders(n: int, seed: int, stream: str) -> Orders:
    return Orders(n, seed=seed, stream=stream)


def permuted(places: np.ndarray, n: int, key: torch.Generator) -> np.ndarray:
    """Map places below n to positions below n, each to another, in an order that `key` draws.

    A Feistel network: a place is a row and a column of a table. Each is moved in turn, around its
    side, by a hash of the other; each such move can be taken back, so that no two places meet. The
    table is the smallest with about equal sides, and where the end of a walk lies behind n, the
    walk goes on until it is below. With n = 10 the table has 4 rows of 3:

        place 5 = (1, 2); row 1 + hash(2) = 1 + 6 -> 3; column 2 + hash(3) = 2 + 2 -> 1; 10 is
        not below 10, and goes the same way: (3, 1); ... -> (0, 2) = 2

    Source: Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains, sections 4 and 5.

    Args:
        places: uint64 [b].
        n: images, 2 or more.
        key: its next draws are the keys of the rounds.

    Returns:
        uint64 [b].
    """
    rows = math.isqrt(n - 1) + 1
    columns = -(-n // rows)
    keys = torch.randint(2**62, (ROUNDS, 2), generator=key).numpy().astype(np.uint64)

    def walk(x: np.ndarray) -> np.ndarray:
        row, column = np.divmod(x, np.uint64(columns))
        for one, two in keys:
            row = (row + _hashed(column + one) % np.uint64(rows)) % np.uint64(rows)
            column = (column + _hashed(row + two) % np.uint64(columns)) % np.uint64(columns)
        place: np.ndarray = row * np.uint64(columns) + column
        return place

    positions = walk(places)
    while (behind := positions >= n).any():
        positions[behind] = walk(positions[behind])
    return positions


def _hashed(x: np.ndarray) -> np.ndarray:
    """Mix 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014, figure 17)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed
