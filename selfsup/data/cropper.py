"""Crops of images that are decoded one at a time, perhaps smaller than they are.

A JPEG of 4,000 x 2,700 pixels takes 60 ms to decode, at a quarter of its sides a third of that. Its
crops are drawn for the full size, so that the same part is seen. Example: a crop of 1,000 pixels, a
view of 224:

    factor 2   the crop has 500 pixels, more than 2 x 224: may be
    factor 4   it has 250: the view would be blurred or shifted by the rounding of the box
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.augment.resample import resized_crops
from selfsup.data.decode import Decoded

ROOM = 2  # times the sides of a view that a crop of a smaller image has at least


class Cropper:
    """Crops of a batch of images whose sizes are known only when they are decoded."""

    def __init__(self, spec: CropSpec) -> None:
        """Crop by the boxes of the batch, to one size."""
        self.spec = spec
        self.boxes: dict[tuple[int, int], list[list[list[int]]]] = {}
        """Boxes of all images of the batch, for each size that came twice."""
        self.latest: tuple[int, tuple[int, int], list[list[int]]] = -1, (0, 0), []
        """An image, its size and its boxes."""

    def shrink(self, i: int, height: int, width: int) -> int:
        """Return how many times smaller image i of the batch may be decoded."""
        if not self.spec.draft:
            return 1
        shortest = min(min(box[2:]) for box in self._boxes(i, (height, width)))
        return max(
            factor
            for factor in (1, 2, 4, 8)
            if factor == 1 or shortest >= factor * ROOM * self.spec.size
        )

    def crop(self, i: int, image: Decoded) -> Tensor:
        """Crop image i of the batch: uint8 [v, c, size, size]."""
        pixels = torch.from_numpy(image.pixels)
        boxes = self._boxes(i, image.sides)
        if pixels.shape[:2] != image.sides:
            boxes = [_smaller(box, image.sides, pixels.shape) for box in boxes]
        return resized_crops(pixels, boxes, self.spec.size, self.spec.interpolation)

    def _boxes(self, i: int, size: tuple[int, int]) -> list[list[int]]:
        if self.latest[:2] != (i, size):
            self.latest = i, size, self._resolve(i, size)
        return self.latest[2]

    def _resolve(self, i: int, size: tuple[int, int]) -> list[list[int]]:
        """Resolve image i alone; from the second of a size on, resolve the whole batch once."""
        if size not in self.boxes:
            self.boxes[size] = []
            boxes: list[list[int]] = (
                self.spec.boxes.rows(slice(i, i + 1)).resolve(*size)[0].tolist()
            )
            return boxes
        self.boxes[size] = self.boxes[size] or self.spec.boxes.resolve(*size).tolist()
        return self.boxes[size][i]


def _smaller(box: Sequence[int], sides: tuple[int, int], shape: Sequence[int]) -> list[int]:
    """The box [top, left, height, width] of an image in one of that shape, which shows the same."""
    top, bottom = (round(y * shape[0] / sides[0]) for y in (box[0], box[0] + box[2]))
    left, right = (round(x * shape[1] / sides[1]) for x in (box[1], box[1] + box[3]))
    return [top, left, bottom - top, right - left]
