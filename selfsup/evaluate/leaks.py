"""Leakage: images that are asked about and are known already, by their bytes or by their looks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.core.progress import bar
from selfsup.data.audit import ImageFacts, inspect_image
from selfsup.data.near_duplicates import near_pairs
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.evaluate.features import Features
from selfsup.evaluate.model import Subject

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

    def look(item: tuple[Source, int]) -> ImageFacts:
        found = inspect_image(*item)
        progress(1)
        return found

    items = [(source, i) for source in (known, asked) for i in range(len(source))]
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(look, items))
    first = {found.sha256 for found in seen[: len(known)] if found.sha256}
    exact = torch.tensor([found.sha256 in first for found in seen[len(known) :]])
    return Leaks(exact, exact | _alike(seen, len(known)))


def _alike(seen: Sequence[ImageFacts], cut: int) -> Tensor:
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


class KnownImages:
    """Those among the images that are asked about."""

    def __init__(self, config: EvaluateConfig, asked: str, split: str) -> None:
        """Of the images `asked`, or of that split of the data; none where both are empty."""
        self.config, self.asked, self.split = config, asked, split
        self.found: Leaks | None = None
        self.channels = 3

    def of(self, subject: Subject) -> None:
        """Images are opened with the channels that this model takes."""
        self.channels = subject.views.channels

    def clean(self, queries: Features) -> tuple[Tensor | None, dict[str, Any]]:
        """Which queries are in train neither by bytes nor by looks, bool [q], and what to say."""
        if not self.config.leaks or not (self.asked or self.split):
            return None, {}
        if self.found is None:
            config = self.config
            first, second = (
                open_source(data, split=split, labels=config.labels, channels=self.channels)
                for data, split in (
                    (config.data, config.split),
                    (self.asked or config.data, self.split),
                )
            )
            with bar("leakage", len(first) + len(second), shown=True) as advance:
                self.found = leaks(first, second, progress=advance)
        return ~self.found.near[queries.positions], self.found.facts()
