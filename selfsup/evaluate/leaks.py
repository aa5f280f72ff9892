"""Leakage: images that are asked about and are known already, by their bytes or by their looks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.data.audit import Seen, see
from selfsup.data.near import near_pairs
from selfsup.data.sources import Source

ALIKE = 2  # bits of 64 in which the hashes of two images that look the same may differ


class Leaks(NamedTuple):
    """Which images of a second source lie in a first one too."""

    exact: Tensor
    """bool [n]: the same file, or the same pixels."""
    near: Tensor
    """bool [n]: the same looks; exact ones are too."""

    def facts(self) -> dict[str, int]:
        """For a table."""
        exact = int(self.exact.sum())
        return {"leaked files": exact, "leaked by looks": int(self.near.sum()) - exact}


def leaks(
    known: Source,
    asked: Source,
    *,
    threads: int = 2,
    progress: Callable[[int], None] = lambda images: None,
) -> Leaks:
    """Read both and compare their bytes and their difference hashes."""

    def look(item: tuple[Source, int]) -> Seen:
        found = see(*item)
        progress(1)
        return found

    items = [(source, i) for source in (known, asked) for i in range(len(source))]
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(look, items))
    first = {found.sha256 for found in seen[: len(known)] if found.sha256}
    exact = torch.tensor([found.sha256 in first for found in seen[len(known) :]])
    return Leaks(exact, exact | _alike(seen, len(known)))


def _alike(seen: Sequence[Seen], cut: int) -> Tensor:
    """Which of the images from `cut` on look like one before it."""
    hashes = np.array([found.hash for found in seen], np.uint64)
    each, index = np.unique(hashes, return_inverse=True)
    known = np.zeros(len(each), bool)
    known[index[:cut]] = True
    near = known.copy()
    for i, j in near_pairs(each, ALIKE):
        near[i] |= known[j]
        near[j] |= known[i]
    near[each == 0] = False  # of even images, and of those that cannot be read
    return torch.from_numpy(near[index[cut:]])
