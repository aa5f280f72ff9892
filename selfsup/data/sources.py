"""Sources: images and, if they have them, labels, by position.

Every source has `__len__`, `labels`, `classes`, `columns` and `crops(...)`; nothing else asks where
images come from.

Shape letters: b images, v views, h, w and c of an image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.data.decode import BadImage, decode_bytes
from selfsup.data.resample import resized_array_crops, resized_crops

AT_ONCE = 128  # images of an array that are resized together
Columns = Mapping[str, Sequence[str]]
"""What else is known of each image: camera, group..., a word for each position."""


class Crops(NamedTuple):
    """Cut and resized images, and those that could not be read."""

    images: tuple[Tensor, ...]
    """uint8 [b, v, c, size, size] of each cut."""
    bad: dict[int, str]
    """Position of each unreadable image met, and why; the next good one stands in its place."""


class Source(Protocol):
    """Images by position, from 0."""

    labels: Tensor | None
    """int64 [n], or None where there are none."""
    classes: Sequence[str]
    """The name of each label."""
    columns: Columns
    """Other columns, each with n words."""
    in_memory: bool
    """Whether reading is so quick that worker processes would only be in the way."""

    def __len__(self) -> int:
        """How many images there are."""

    def name(self, position: int) -> str:
        """What a person would call the image at `position`."""

    def crops(self, positions: Sequence[int], *cuts: CropSpec) -> Crops:
        """Cut each image's boxes from the full resolution and resize them, for each cut."""

    def pixels(self, position: int) -> np.ndarray:
        """The image itself, uint8 [h, w, c].

        Raises:
            BadImage: it cannot be read.
        """

    def stored(self, position: int) -> bytes | None:
        """The bytes of its file; None where there are only pixels.

        Raises:
            BadImage: they cannot be read.
        """


class ArraySource:
    """Images that lie in memory or in a mapped file, all of one size."""

    in_memory = True

    def __init__(
        self,
        images: np.ndarray,
        labels: Tensor | None,
        classes: Sequence[str],
        *,
        channels: int = 3,
        columns: Columns | None = None,
    ) -> None:
        """Take uint8 images [n, h, w, c]: 1 channel stands for 3, and of 4 alpha is dropped."""
        self.images = images
        self.labels = labels
        self.classes = classes
        self.channels = channels
        self.columns = columns or {}

    def __len__(self) -> int:
        return len(self.images)

    def name(self, position: int) -> str:
        """The position, for want of a file name."""
        return f"image {position}"

    def pixels(self, position: int) -> np.ndarray:
        """As asked of the channels."""
        image = self.images[position, :, :, : self.channels]
        return np.array(np.broadcast_to(image, (*image.shape[:2], self.channels)))

    def stored(self, position: int) -> None:
        """Only pixels."""

    def crops(self, positions: Sequence[int], *cuts: CropSpec) -> Crops:
        """A few hundred images at once: floats of a batch of thousands would take gigabytes."""
        place = np.asarray(positions)
        height, width = self.images.shape[1:3]
        boxes = [cut.boxes.resolve(height, width) for cut in cuts]
        if all(_whole(box, cut, height, width) for box, cut in zip(boxes, cuts, strict=True)):
            images = torch.from_numpy(self.images[place])[..., : self.channels]
            view = images.permute(0, 3, 1, 2)[:, None].expand(-1, -1, self.channels, -1, -1)
            return Crops((view,) * len(cuts), {})
        rows = []
        for part in range(0, len(place), AT_ONCE):
            chosen = slice(part, part + AT_ONCE)
            images = torch.from_numpy(self.images[place[chosen]])[..., : self.channels]
            rows.append(
                [
                    resized_array_crops(images, box[chosen], cut.size, cut.interpolation)
                    for box, cut in zip(boxes, cuts, strict=True)
                ]
            )
        found = (torch.cat(crops) for crops in zip(*rows, strict=True))
        return Crops(tuple(x.expand(-1, -1, self.channels, -1, -1) for x in found), {})


def _whole(boxes: Tensor, cut: CropSpec, height: int, width: int) -> bool:
    """Whether nothing is cut and nothing resized: evaluation at the images' own size."""
    same = cut.size == height == width and boxes.shape[1] == 1
    return same and bool((boxes == torch.tensor([0, 0, height, width])).all())


class ImageSource:
    """Images that are loaded one at a time."""

    in_memory = False

    def __init__(
        self,
        load: Callable[[int], np.ndarray | bytes],
        names: Sequence[str],
        labels: Tensor | None,
        classes: Sequence[str],
        *,
        channels: int = 3,
        columns: Columns | None = None,
    ) -> None:
        """Images that `load` gives, or whose files it does.

        `load(position)` is uint8 [h, w, channels], or the bytes of a file, or raises BadImage.
        """
        self.load = load
        self.names = names
        self.labels = labels
        self.classes = classes
        self.channels = channels
        self.columns = columns or {}

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """The path, or what stands for it."""
        return self.names[position]

    def pixels(self, position: int) -> np.ndarray:
        """Decoded now."""
        loaded = self.load(position)
        return decode_bytes(loaded, self.channels) if isinstance(loaded, bytes) else loaded

    def stored(self, position: int) -> bytes | None:
        """As loaded."""
        loaded = self.load(position)
        return loaded if isinstance(loaded, bytes) else None

    def crops(self, positions: Sequence[int], *cuts: CropSpec) -> Crops:
        """Each image is decoded once and cut as often as it has boxes."""
        bad: dict[int, str] = {}
        rows = []
        boxes = [_Boxes(cut) for cut in cuts]
        for i, position in enumerate(positions):
            image = torch.from_numpy(self._good(int(position), bad))
            rows.append([own.crop(i, image) for own in boxes])
        return Crops(tuple(map(torch.stack, zip(*rows, strict=True))), bad)

    def _good(self, position: int, bad: dict[int, str]) -> np.ndarray:
        """The image at `position`, or the next one, in order of position, that can be read."""
        for offset in range(min(len(self), 1000)):
            candidate = (position + offset) % len(self)
            if candidate in bad:
                continue
            try:
                return self.pixels(candidate)
            except BadImage as error:
                bad[candidate] = str(error)
        # so many bad ones stop the run where they are counted
        return np.zeros((8, 8, self.channels), np.uint8)


class _Boxes:
    """Boxes of a batch of images whose sizes come to light one by one; of one camera all agree."""

    def __init__(self, cut: CropSpec) -> None:
        self.cut = cut
        self.known: dict[tuple[int, int], list[list[list[int]]]] = {}

    def crop(self, i: int, image: Tensor) -> Tensor:
        """The crops of image i: [h, w, c] -> uint8 [v, c, size, size]."""
        return resized_crops(image, self.of(i, image), self.cut.size, self.cut.interpolation)

    def of(self, i: int, image: Tensor) -> list[list[int]]:
        """Those of image i, [h, w, c]; from the second of a size on, all are made at once."""
        size = image.shape[0], image.shape[1]
        if size not in self.known:
            self.known[size] = []
            return self.cut.boxes.rows(slice(i, i + 1)).resolve(*size)[0].tolist()
        self.known[size] = self.known[size] or self.cut.boxes.resolve(*size).tolist()
        return self.known[size][i]
