"""Cutting boxes out of images and resizing them, antialiased.

Shape letters: b images, v views, h, w and c of an image, s side of the result in pixels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.config import Interpolation
from selfsup.core import compiled


def resized_crops(
    image: Tensor, boxes: Sequence[Sequence[int]], size: int, interpolation: Interpolation
) -> Tensor:
    """Cut boxes (top, left, height, width) out of one image: uint8 [h, w, c] -> [v, c, s, s].

    torch's resampling of uint8 is Pillow's to a level, and several times faster.
    """
    channels, views = image.permute(2, 0, 1), []
    for top, left, h, w in boxes:
        crop = channels[None, :, top : top + h, left : left + w]
        if (h, w) != (size, size):
            crop = F.interpolate(crop, (size, size), mode=interpolation, antialias=True)
        views.append(crop)
    return torch.cat(views).contiguous()


def resized_array_crops(
    images: Tensor, boxes: Tensor, size: int, interpolation: Interpolation
) -> Tensor:
    """Cut boxes [b, v, 4] out of images of one size: uint8 [b, h, w, c] -> [b, v, c, s, s].

    Arrays hold small images by the thousand, so that calls would cost more than pixels: with numba
    they are cropped in one compiled loop, within two levels of `resized_crops`.
    """
    if compiled.available():
        from selfsup.augment.compiled_resample import resized_crops as compiled_crops

        return compiled_crops(images, boxes, size, interpolation)
    pairs = zip(images, boxes.tolist(), strict=True)
    return torch.stack([resized_crops(image, b, size, interpolation) for image, b in pairs])
