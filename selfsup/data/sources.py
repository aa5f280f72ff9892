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

from selfsup import compiled
from selfsup.boxes import Cut
from selfsup.data.decode import BadImage, decode
from selfsup.data.resample import resized_crops

AT_ONCE = 128  # images of an array that are resized together


class Crops(NamedTuple):
    """Cut and resized images, and those that could not be read."""

    images: tuple[Tensor, ...]
    """uint8 [b, v, 3, size, size] of each cut."""
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

    def crops(self, positions: Sequence[int], *cuts: Cut) -> Crops:
        """Cut each image's boxes from the full resolution and resize them, for each cut."""


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

    def crops(self, positions: Sequence[int], *cuts: Cut) -> Crops:
        """A few hundred images at once: floats of a batch of thousands would take gigabytes."""
        place = np.asarray(positions)
        height, width = self.images.shape[1:3]
        boxes = [cut.boxes.resolve(height, width) for cut in cuts]
        resize = _resizer()
        rows = []
        for part in range(0, len(place), AT_ONCE):
            chosen = slice(part, part + AT_ONCE)
            images = torch.from_numpy(self.images[place[chosen]])[..., :3]
            rows.append(
                [
                    resize(images, box[chosen], cut.size, cut.interpolation)
                    for box, cut in zip(boxes, cuts, strict=True)
                ]
            )
        out = (torch.cat(crops).expand(-1, -1, 3, -1, -1) for crops in zip(*rows, strict=True))
        return Crops(tuple(out), {})


def _resizer() -> Callable[..., Tensor]:
    """The compiled form where there is one."""
    if not compiled.available():
        return resized_crops
    from selfsup.data.fast import resized_crops as by_numba

    return by_numba


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

    def crops(self, positions: Sequence[int], *cuts: Cut) -> Crops:
        """Each image is decoded once and cut as often as it has boxes."""
        bad: dict[int, str] = {}
        rows = []
        for i, position in enumerate(positions):
            image = self._good(int(position), bad)
            rows.append([_resized(image, cut, i) for cut in cuts])
        return Crops(tuple(map(torch.stack, zip(*rows, strict=True))), bad)

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


def _resized(image: Image.Image, cut: Cut, i: int) -> Tensor:
    """The crops of image i of a batch: uint8 [v, 3, size, size]."""
    size = cut.size
    bicubic = cut.interpolation == "bicubic"
    method = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    views = []
    for top, left, height, width in cut.boxes.row(i).resolve(image.height, image.width)[0].tolist():
        crop = image.crop((left, top, left + width, top + height))
        if crop.size != (size, size):
            # sideways first, in two steps: Pillow 13 chooses the order by the shape
            crop = crop.resize((size, crop.height), method).resize((size, size), method)
        views.append(np.asarray(crop))
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


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
