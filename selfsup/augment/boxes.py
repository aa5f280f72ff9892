"""Crop boxes, drawn before the size of an image is known and resolved when it is.

Shape letters: n images, v views.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from selfsup.config import Interpolation


class Boxes(Protocol):
    """Something that knows where to cut each view of each image of a batch."""

    def rows(self, part: slice | Tensor) -> "Boxes":
        """The boxes of some of the images: a slice of them, or those at positions [k]."""

    def resolve(self, height: int, width: int) -> Tensor:
        """Boxes of images of that size: int64 [n, v, 4] as top, left, height, width in pixels."""


class Cut(NamedTuple):
    """What to read of each image: boxes, resized to one size."""

    boxes: Boxes
    size: int
    interpolation: Interpolation


class RandomBoxes(NamedTuple):
    """Random resized crops (Szegedy et al. 2015) as torchvision defines them.

    tries: [n, v, 10, 2], ten proposals of area share and width / height.
    place: [n, v, 2], where in the room that is left, vertically and horizontally, in [0, 1).
    limits: the smallest and largest width / height of the fallback.
    """

    tries: Tensor
    place: Tensor
    limits: tuple[float, float]

    def rows(self, part: slice | Tensor) -> "RandomBoxes":
        """The boxes of some of the images."""
        return RandomBoxes(self.tries[part], self.place[part], self.limits)

    def resolve(self, height: int, width: int) -> Tensor:
        """The first proposal that fits the image; where none does, the largest centred crop."""
        if len(self.tries) == 1:
            return torch.tensor([self._views_of_one(height, width)])
        box, fits = self.proposed(height, width)
        fallback = torch.tensor(self._fallback(height, width))
        return torch.where(fits[..., None], box, fallback)

    def _views_of_one(self, height: int, width: int) -> list[list[int]]:
        """The boxes of one image, number by number: a tenth of the time of tensors so small.

        In numpy's float32, whose arithmetic is that of tensors.
        """
        found = []
        whole = np.float32(height * width)
        for tries, place in zip(self.tries[0].numpy(), self.place[0].numpy(), strict=True):
            box = self._fallback(height, width)
            for share, ratio in tries:
                area = share * whole
                w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
                if 0 < w <= width and 0 < h <= height:
                    room = np.array([height - h + 1, width - w + 1], np.float32)
                    top, left = np.minimum(np.floor(place * room), room - 1)
                    box = [int(top), int(left), int(h), int(w)]
                    break
            found.append(box)
        return found

    def proposed(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The first proposal that fits, and whether any does: [n, v, 4] and bool [n, v]."""
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
    """The evaluation view: a centred square whose side is `share` of the image's shorter side.

    Cutting this square and resizing it is resizing the short side to size / share and cutting the
    centre, to half a pixel of the original; share 1 is the whole of a square image.
    """

    images: int
    share: float

    def rows(self, part: slice | Tensor) -> "CenterBoxes":
        """The boxes of some of the images."""
        return CenterBoxes(len(torch.arange(self.images)[part]), self.share)

    def resolve(self, height: int, width: int) -> Tensor:
        """The same square for each image."""
        side = max(1, round(min(height, width) * self.share))
        box = torch.tensor([(height - side) // 2, (width - side) // 2, side, side])
        return box.expand(self.images, 1, 4)
