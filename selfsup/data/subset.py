"""Some images of a source, in any order."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.errors import UserError
from selfsup.core.notices import notice
from selfsup.core.seeds import generator
from selfsup.data.sources import Columns, Crops, Source
from selfsup.data.texts import texts


class Subset:
    """The images of a source at some positions."""

    def __init__(self, source: Source, positions: Sequence[int]) -> None:
        """Take those at `positions`, in that order."""
        self.source = source
        self.positions = list(positions)
        self.labels: Tensor | None = (
            None if source.labels is None else source.labels[self.positions]
        )
        self.classes = source.classes
        self.columns: Columns = {
            name: texts(words[i] for i in self.positions) for name, words in source.columns.items()
        }
        self.in_memory = source.in_memory

    def __len__(self) -> int:
        return len(self.positions)

    def name(self, position: int) -> str:
        """Its name in the source."""
        return self.source.name(self.positions[position])

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Crops of the source; its next good image stands in for one that cannot be read."""
        in_source = [self.positions[int(i)] for i in positions]
        crops = self.source.crops(in_source, *specs)
        here = dict(zip(in_source, (int(i) for i in positions), strict=True))
        return Crops(crops.images, {here[i]: why for i, why in crops.bad.items() if i in here})

    def pixels(self, position: int) -> np.ndarray:
        """Its pixels in the source."""
        return self.source.pixels(self.positions[position])

    def stored(self, position: int) -> bytes | None:
        """Its bytes in the source."""
        return self.source.stored(self.positions[position])


USUAL_NAMES = ("class", "category", "target", "y", "species", "cls", "labels", "class_name", "id")
"""What tables often call their column of labels."""


def labelled_images(source: Source, data: str) -> Source:
    """Return the images that have a label, and print how many others were left out.

    Args:
        source: the images.
        data: what they are called, for messages.

    Raises:
        UserError: no image has a label.
    """
    if source.labels is None:
        columns = [name for name in source.columns if name != "split"]
        usual = next((name for name in USUAL_NAMES if name in columns), "COLUMN")
        cure = (
            f"name one of its columns ({', '.join(columns)}) as in --labels {usual}"
            if columns
            else "put each class in a sub-folder, or name a manifest's column with --labels"
        )
        raise UserError(f"{data} has no labels: {cure}")
    labelled = only_labelled(source)
    if len(labelled) < len(source):
        left_out = len(source) - len(labelled)
        notice(f"{data}: left out {left_out} of {len(source)} images without label")
    return labelled


def searchable_images(source: Source, data: str) -> Source:
    """Return the labelled images of a source in which one image can find another of its class.

    Args:
        source: the images.
        data: what they are called, for messages.

    Raises:
        UserError: no image has a label, there is one class only, or each class has one image.
    """
    labelled = labelled_images(source, data)
    require_classes(labelled, data, repeated=True)
    return labelled


def only_labelled(source: Source) -> Source:
    """Return the images of a source that have a label, or all if none has."""
    if source.labels is None or bool((source.labels >= 0).all()):
        return source
    return Subset(source, (source.labels >= 0).nonzero()[:, 0].tolist())


def require_classes(source: Source, data: str, *, repeated: bool) -> None:
    """Refuse labels from which nothing can be told apart.

    Args:
        source: images that all have labels.
        data: what they are called, for messages.
        repeated: whether some class has to have two images.

    Raises:
        UserError: there is one class only, or each class has one image.
    """
    assert source.labels is not None
    _, counts = source.labels.unique(return_counts=True)
    if len(counts) < 2:
        name = source.classes[int(source.labels[0])]
        raise UserError(
            f"{data}: all labels are the same ({name!r}), and two classes are needed; if folders "
            "are the labels, --labels folder:-1 takes the last of each path and folder:1 the first"
        )
    if repeated and int(counts.max()) < 2:
        raise UserError(
            f"each of the {len(counts)} classes of {data} has one image, and two are needed; "
            "choose other labels with --labels"
        )


def random_subset(source: Source, most: int, *, seed: int) -> Source:
    """Return the source itself, or `most` of its images at random, in their order."""
    if len(source) <= most:
        return source
    drawn = torch.randperm(len(source), generator=generator(seed, 0, "part"))[:most]
    return Subset(source, sorted(drawn.tolist()))
