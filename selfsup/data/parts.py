"""Parts of labelled images: to train on, to choose by, and to judge by, which nothing else sees."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.seeds import generator
from selfsup.data.held_out import ENOUGH, searchable
from selfsup.data.sources import Source
from selfsup.data.subset import Subset

OF_CLASSES = 10
"""One class in so many for each of two parts."""
OF_IMAGES = 5
"""One image in so many of each class, where classes are few."""
PAIR = 2
"""Images of a class in a part: one to search for the other."""


class Parts(NamedTuple):
    """Three sources without a common image."""

    train: Source
    choice: Source
    verdict: Source | None
    unseen: bool
    """Whether the classes of the last two are never trained on; else only their images are not."""

    def __str__(self) -> str:
        """Say how much is in each part."""
        held = [part for part in (self.choice, self.verdict) if part is not None]
        count = _classes if self.unseen else len
        kind = "classes" if self.unseen else "images of the same classes"
        numbers = [count(part) for part in (self.train, *held)]
        ends = ("to train on", "to choose by", "to judge by")
        first, *rest = [f"{n} {end}" for n, end in zip(numbers, ends, strict=False)]
        return ", ".join([first.replace(" ", f" {kind} ", 1), *rest])


def _classes(source: Source) -> int:
    return 0 if source.labels is None else len(source.labels.unique())


def divide(source: Source, name: str, *, seed: int, verdict: bool = True) -> Parts:
    """Divide labelled images: a tenth of the classes to choose by, and a tenth to judge by.

    With fewer than 80 classes that have two images, a fifth of the images of each class for either.
    The parts are a function of labels and seed.

    Args:
        source: images that all have labels.
        name: what they are called, for the message.
        seed: of the drawing.
        verdict: False where other images judge: then there is no such part.

    Raises:
        UserError: classes are few and have few images.

    >>> from selfsup.data.sources import ArraySource
    >>> images = torch.zeros(400, 8, 8, 3, dtype=torch.uint8).numpy()
    >>> labels = torch.arange(100).repeat_interleave(4)
    >>> parts = divide(ArraySource(images, labels, [str(i) for i in range(100)]), "x", seed=0)
    >>> len(parts.train), len(parts.choice), len(parts.verdict), parts.unseen
    (320, 40, 40, True)
    """
    assert source.labels is not None
    labels = source.labels
    classes = searchable(labels)
    unseen = len(classes) >= ENOUGH
    part = _of_classes(labels, classes, seed) if unseen else _of_images(labels, seed)
    if not verdict:
        part[part == 2] = 0
    sources = [Subset(source, (part == i).nonzero()[:, 0].tolist()) for i in range(2 + verdict)]
    if _classes(sources[-1]) < PAIR:
        counts = labels.unique(return_counts=True)[1]
        raise UserError(
            f"{name} has {len(counts)} classes of up to {int(counts.max())} images, too few to "
            f"keep some apart: {ENOUGH} classes, or two of {3 * PAIR} images, are needed"
        )
    train, choice, *rest = sources
    return Parts(train, choice, rest[0] if rest else None, unseen)


def _of_classes(labels: Tensor, classes: Tensor, seed: int) -> Tensor:
    """The part of each image: those of a tenth of the classes for each of the last two."""
    order = torch.randperm(len(classes), generator=generator(seed, 0, "parts"))
    each = len(classes) // OF_CLASSES
    part_of = torch.zeros(int(labels.max()) + 1, dtype=torch.int64)
    part_of[classes[order[:each]]] = 1
    part_of[classes[order[each : 2 * each]]] = 2
    return part_of[labels]


def _of_images(labels: Tensor, seed: int) -> Tensor:
    """The part of each image: of classes with 6 images or more, a fifth and 2 at least for each."""
    part = torch.zeros(len(labels), dtype=torch.int64)
    for rows in _shuffled_classes(labels, generator(seed, 0, "parts")):
        each = max(PAIR, len(rows) // OF_IMAGES)
        if len(rows) >= 3 * PAIR:
            part[rows[:each]] = 1
            part[rows[each : 2 * each]] = 2
    return part


def _shuffled_classes(labels: Tensor, draw: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of each class in random order."""
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero()[:, 0]
        yield rows[torch.randperm(len(rows), generator=draw)]


def halve(source: Source, *, seed: int) -> tuple[Source, Source]:
    """Divide the images of each class in two halves at random; one of an odd number goes first."""
    assert source.labels is not None
    first, second = [], []
    for rows in _shuffled_classes(source.labels, generator(seed, 0, "halves")):
        first += rows[::2].tolist()
        second += rows[1::2].tolist()
    return Subset(source, sorted(first)), Subset(source, sorted(second))
