"""Crop boxes, drawn before the size of an image is known and resolved when it is.

Shape letters: n images, v views.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from selfsup.config import Interpolation


class Boxes(Protocol):
    """Where each view of each image of a batch is cropped."""

    def rows(self, which: slice | Tensor) -> "Boxes":
        """Select images: a slice of them, or those at positions [k]."""

    def resolve(self, height: int, width: int) -> Tensor:
        """Boxes of images of that size: int64 [n, v, 4] as top, left, height, width in pixels."""


class CropSpec(NamedTuple):
    """What is read of each image: boxes, resized to squares of one size."""

    boxes: Boxes
    size: int
    interpolation: Interpolation
    draft: bool = False
    """Whether a JPEG may be decoded smaller, where its crops stay twice as large as their views."""


class RandomBoxes(NamedTuple):
    """Random resized crops (Szegedy et al. 2015) as torchvision defines them.

    tries: [n, v, 10, 2], ten proposals of a fraction of the area and width / height.
    place: [n, v, 2], in [0, 1): 0 is at the top or left, towards 1 at the bottom or right.
    limits: the smallest and largest width / height of the fallback.
    """

    tries: Tensor
    place: Tensor
    limits: tuple[float, float]

    def rows(self, which: slice | Tensor) -> "RandomBoxes":
        """Select images."""
        return RandomBoxes(self.tries[which], self.place[which], self.limits)

    def resolve(self, height: int, width: int) -> Tensor:
        """Take the first proposal that fits the image; if none does, the largest centred crop."""
        if len(self.tries) == 1:
            return torch.tensor([self._resolve_one_image(height, width)])
        box, fits = self.first_fitting(height, width)
        fallback = torch.tensor(self._fallback(height, width))
        return torch.where(fits[..., None], box, fallback)

    def _resolve_one_image(self, height: int, width: int) -> list[list[int]]:
        """`resolve` of one image, number by number: a tenth of the time of such small tensors.

        numpy's float32 has the arithmetic of tensors, so that the boxes are equal.
        """
        boxes = []
        whole = np.float32(height * width)
        for tries, place in zip(self.tries[0].numpy(), self.place[0].numpy(), strict=True):
            box = self._fallback(height, width)
            for fraction, ratio in tries:
                area = fraction * whole
                w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
                if 0 < w <= width and 0 < h <= height:
                    room = np.array([height - h + 1, width - w + 1], np.float32)
                    top, left = np.minimum(np.floor(place * room), room - 1)
                    box = [int(top), int(left), int(h), int(w)]
                    break
            boxes.append(box)
        return boxes

    def first_fitting(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Find the first proposal that fits, and whether any does: [n, v, 4] and bool [n, v]."""
        area = self.tries[..., 0] * (height * width)  # [n, v, 10]
        ratio = self.tries[..., 1]
        w = (area * ratio).sqrt().round()
        h = (area / ratio).sqrt().round()
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.to(torch.uint8).argmax(-1, keepdim=True)
        size = torch.stack([h.gather(-1, first), w.gather(-1, first)], -1)[..., 0, :]  # [n, v, 2]
        room = torch.tensor([height, width]) - size + 1
        corner = (self.place * room).floor().clamp(max=room - 1)
        return torch.cat([corner, size], -1).long(), fits.any(-1)

    def _fallback(self, height: int, width: int) -> list[int]:
        narrow, wide = self.limits
        h, w = height, width
        if width / height < narrow:
            h = round(width / narrow)
        elif width / height > wide:
            w = round(height * wide)
        return [(height - h) // 2, (width - w) // 2, h, w]


class CenterBoxes(NamedTuple):
    """The evaluation view: a centred square, its side a fraction of the image's shorter side.

    To half a pixel of the original this is resizing the shorter side to size / fraction and
    cropping the centre; a fraction of 1 is the whole of a square image. Squashed, it is that
    fraction of both sides, so that resizing makes a square of the whole width and height.
    """

    images: int
    fraction: float
    squash: bool = False

    def rows(self, which: slice | Tensor) -> "CenterBoxes":
        """Select images."""
        return self._replace(images=len(torch.arange(self.images)[which]))

    def resolve(self, height: int, width: int) -> Tensor:
        """Take the same box of each image."""
        sides = (height, width) if self.squash else (min(height, width),) * 2
        h, w = (max(1, round(side * self.fraction)) for side in sides)
        box = torch.tensor([(height - h) // 2, (width - w) // 2, h, w])
        return box.expand(self.images, 1, 4)
