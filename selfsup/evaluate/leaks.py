"""Leaks: test images that are in train too, by their bytes or by their looks."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selfsup.config import EvaluateConfig
from selfsup.core.notices import notice
from selfsup.core.progress import bar
from selfsup.data.alignment import Limits
from selfsup.data.audit import ImageFacts, image_digest, inspect_image
from selfsup.data.decode import BadImage
from selfsup.data.embedding_parts import has_images
from selfsup.data.near_duplicates import copies_between
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.data.subset import only_labelled
from selfsup.evaluate.features import Features
from selfsup.evaluate.model import EvaluatedModel


class Leaks(NamedTuple):
    """Which test images lie in train too."""

    exact: Tensor
    """bool [n]: the same file, or the same pixels."""
    near: Tensor
    """bool [n]: the same looks; exact ones are included."""

    def facts(self) -> dict[str, int]:
        """Count both kinds, for a table."""
        exact = int(self.exact.sum())
        return {"leaked files": exact, "leaked by looks": int(self.near.sum()) - exact}


def find_leaks(
    train: Source,
    test: Source,
    *,
    threads: int = 2,
    progress: Callable[[int], None] = lambda images: None,
) -> Leaks:
    """Read both sources and compare their bytes and, aligned, their thumbnails."""

    def read(item: tuple[Source, int]) -> ImageFacts:
        image = inspect_image(*item)
        progress(1)
        return image

    items = [(source, i) for source in (train, test) for i in range(len(source))]
    with ThreadPoolExecutor(threads) as pool:
        images = list(pool.map(read, items))
    in_train = {image.sha256 for image in images[: len(train)] if image.sha256}
    exact = torch.tensor([image.sha256 in in_train for image in images[len(train) :]])
    return Leaks(exact, exact | _near_duplicates(images, len(train)))


def leaks_by_file(train: Source, test: Source) -> Leaks:
    """Compare files alone, by the sha256 that a folder of embeddings keeps."""

    def digests(source: Source) -> Iterator[str]:
        for i in range(len(source)):
            try:
                yield image_digest(source, i)
            except BadImage:
                yield ""

    in_train = set(digests(train)) - {""}
    exact = torch.tensor([digest in in_train for digest in digests(test)])
    return Leaks(exact, exact)


def _near_duplicates(images: Sequence[ImageFacts], train: int) -> Tensor:
    """Which images after the first `train` ones are copies of one of those. bool."""
    near = torch.zeros(len(images), dtype=torch.bool)
    side = [int(i >= train) for i in range(len(images))]
    near[copies_between([image.thumbnail for image in images], side, Limits()).flatten()] = True
    return near[train:]


class LeakCheck:
    """Finds leaked test images once, for the model and all baselines."""

    def __init__(self, config: EvaluateConfig, test: str, split: str) -> None:
        """Take the test images `test`, or that split of the data; if both are empty, check none."""
        self.config, self.test, self.split = config, test, split
        self.leaks: Leaks | None = None
        self.channels = 3

    def open_for(self, model: EvaluatedModel) -> None:
        """Open images with the channels that this model takes."""
        self.channels = model.views.channels

    def sources(self) -> tuple[Source, Source]:
        """Open the labelled images of train and of test, which features have positions in."""
        config = self.config
        train, test = (
            only_labelled(
                open_source(
                    data,
                    split=split,
                    labels=config.labels,
                    channels=self.channels,
                    cache=config.cache,
                )
            )
            for data, split in ((config.data, config.split), (self.test or config.data, self.split))
        )
        return train, test

    def without_leaks(self, queries: Features) -> tuple[Tensor | None, dict[str, Any]]:
        """Which queries are not in train, bool [q], and counts for the table."""
        if not self.config.leaks or not (self.test or self.split):
            return None, {}
        if self.leaks is None and not all(map(has_images, (self.config.data, self.test))):
            notice("images of embeddings are gone: leaks are looked for by file, not by looks")
            self.leaks = leaks_by_file(*self.sources())
        if self.leaks is None:
            train, test = self.sources()
            what = "comparing with the images of training"
            with bar(what, len(train) + len(test)) as advance:
                self.leaks = find_leaks(train, test, progress=advance)
        return ~self.leaks.near[queries.positions], self.leaks.facts()
