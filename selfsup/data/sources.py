"""Sources: images and, if they have them, labels, by position.

Every source has `__len__`, `labels`, `classes` and `crops(...)`; nothing else asks where images
come from.

Shape letters: b images, v views, h, w and c of an array's images.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup.boxes import Boxes
from selfsup.config import Interpolation
from selfsup.data.decode import BadImage, decode
from selfsup.data.resample import resized_crops


class Crops(NamedTuple):
    """Cut and resized images, and those that could not be read."""

    images: Tensor
    """uint8 [b, v, 3, size, size]."""
    bad: dict[int, str]
    """Position of each unreadable image met, and why; the next good one stands in its place."""


class Source(Protocol):
    """Images by position, from 0."""

    labels: Tensor | None
    """int64 [n], or None where there are none."""
    classes: Sequence[str]
    """The name of each label."""
    in_memory: bool
    """Whether reading is so quick that worker processes would only be in the way."""

    def __len__(self) -> int:
        """How many images there are."""

    def name(self, position: int) -> str:
        """What a person would call the image at `position`."""

    def crops(
        self, positions: Sequence[int], boxes: Boxes, size: int, interpolation: Interpolation
    ) -> Crops:
        """Cut each image's boxes from the full resolution and resize them to `size` pixels."""


class ArraySource:
    """Images that lie in memory, all of one size."""

    in_memory = True

    def __init__(self, images: np.ndarray, labels: Tensor | None, classes: Sequence[str]) -> None:
        """Take uint8 images [n, h, w, c] with c of 1, 3 or 4; alpha is dropped."""
        self.images = images
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def name(self, position: int) -> str:
        """The position, for want of a file name."""
        return f"image {position}"

    def crops(
        self, positions: Sequence[int], boxes: Boxes, size: int, interpolation: Interpolation
    ) -> Crops:
        """The whole batch at once."""
        images = torch.from_numpy(self.images[np.asarray(positions)])
        box = boxes.resolve(images.shape[1], images.shape[2])
        out = resized_crops(images[..., :3], box, size, interpolation)
        return Crops(out.expand(-1, -1, 3, -1, -1), {})


class ImageSource:
    """Images that are loaded one at a time."""

    in_memory = False

    def __init__(
        self,
        load: Callable[[int], Image.Image],
        names: Sequence[str],
        labels: Tensor | None,
        classes: Sequence[str],
    ) -> None:
        """`load(position)` gives an RGB image or raises BadImage."""
        self.load = load
        self.names = names
        self.labels = labels
        self.classes = classes

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """The path, or what stands for it."""
        return self.names[position]

    def crops(
        self, positions: Sequence[int], boxes: Boxes, size: int, interpolation: Interpolation
    ) -> Crops:
        """Each image is decoded once and cut as often as it has boxes."""
        bad: dict[int, str] = {}
        cut = [
            self._cut(int(position), boxes.row(i), size, interpolation, bad)
            for i, position in enumerate(positions)
        ]
        return Crops(torch.stack(cut), bad)

    def _cut(
        self, position: int, boxes: Boxes, size: int, kind: Interpolation, bad: dict[int, str]
    ) -> Tensor:
        image = self._good(position, bad)
        method = Image.Resampling.BICUBIC if kind == "bicubic" else Image.Resampling.BILINEAR
        views = []
        for top, left, height, width in boxes.resolve(image.height, image.width)[0].tolist():
            crop = image.crop((left, top, left + width, top + height))
            if crop.size != (size, size):
                # sideways first, in two steps: Pillow 13 chooses the order by the shape
                crop = crop.resize((size, crop.height), method).resize((size, size), method)
            views.append(np.asarray(crop))
        return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)

    def _good(self, position: int, bad: dict[int, str]) -> Image.Image:
        """The image at `position`, or the next one, in order of position, that can be read."""
        for offset in range(min(len(self), 1000)):
            candidate = (position + offset) % len(self)
            if candidate in bad:
                continue
            try:
                return self.load(candidate)
            except BadImage as error:
                bad[candidate] = str(error)
        return Image.new("RGB", (8, 8))  # so many bad ones stop the run where they are counted


def file_source(
    root: Path, paths: Sequence[str], labels: Tensor | None, classes: Sequence[str]
) -> ImageSource:
    """Image files below `root`, read with a closed list of formats."""

    def load(position: int) -> Image.Image:
        return decode(root / paths[position])

    return ImageSource(load, paths, labels, classes)


def encode_labels(words: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Label words as integers in sorted order, and the words."""
    classes, index = np.unique(np.asarray(words, dtype=str), return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), classes.tolist()
