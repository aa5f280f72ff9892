"""Resizing a batch of crops at once, antialiased, by two small matrices for each crop.

Shape letters: m crops, s side of the result in pixels, h and w of the image.
"""

import torch
from torch import Tensor

from selfsup.config import Interpolation


def resized_crops(images: Tensor, boxes: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Cut each image's boxes and resize them to squares, sideways first, then downwards.

    Args:
        images: uint8 [b, h, w, c].
        boxes: int64 [b, v, 4] as top, left, height, width.
        size: side of the squares, in pixels.
        interpolation: the filter, widened when it shrinks (antialiasing).

    Returns:
        uint8 [b, v, c, size, size]; at most two levels from Pillow's fixed-point result for the
        same two steps (which of them comes first depends on the shape since Pillow 13).
    """
    b, v = boxes.shape[:2]
    _, h, w, c = images.shape
    top, left, height, width = boxes.flatten(0, 1).unbind(-1)
    rows = _weights(top, height, h, size, interpolation).unflatten(0, (b, v))  # [b, v, s, h]
    columns = _weights(left, width, w, size, interpolation).unflatten(0, (b, v))  # [b, v, s, w]
    x = images.transpose(2, 3).float().reshape(b, h * c, w)
    x = torch.bmm(x, columns.flatten(1, 2).mT)  # [b, hc, vs], sideways first
    x = _eight_bits(x).view(b, h, c, v, size).permute(0, 3, 1, 2, 4)
    x = torch.bmm(rows.flatten(0, 1), x.reshape(b * v, h, c * size))  # [bv, s, cs]
    x = _eight_bits(x).to(torch.uint8)
    return x.view(b, v, size, c, size).transpose(2, 3).contiguous()


def _eight_bits(x: Tensor) -> Tensor:
    """Whole levels, in place; halves go up, as Pillow rounds."""
    return x.add_(0.5).floor_().clamp_(0, 255)


def _weights(start: Tensor, length: Tensor, full: int, size: int, kind: Interpolation) -> Tensor:
    """One direction as matrices. [m], [m] -> [m, size, full]; rows sum to 1 over the box."""
    scale = length.float()[:, None, None] / size
    wide = scale.clamp(min=1)  # shrinking widens the filter, enlarging does not narrow it
    place = torch.arange(full) - start[:, None, None] + 0.5  # [m, 1, full], pixel centres
    centre = (torch.arange(size)[:, None] + 0.5) * scale  # [m, size, 1]
    weight = _FILTERS[kind]((place - centre) / wide)
    inside = (place > 0) & (place < length[:, None, None])
    weight = torch.where(inside, weight, 0)
    return weight / weight.sum(-1, keepdim=True)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, Pillow's."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}
