"""Resizing a batch of crops at once, antialiased, each pixel a weighted sum of few.

Shape letters: m = b * v crops, s side of the result in pixels, h, w and c of an image, t taps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.config import Interpolation

RADIUS = {"bilinear": 1, "bicubic": 2}  # of the filters, in pixels of the larger grid


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
    m, image = b * v, torch.arange(b).repeat_interleave(v)
    top, left, height, width = boxes.flatten(0, 1).unbind(-1)
    columns = images.permute(0, 2, 3, 1).reshape(b * w, c * h).float()
    place, weight = _taps(left, width, size, interpolation)  # [m, s, t]
    x = _sums(columns, place + (image * w)[:, None, None], weight)  # [ms, ch]
    lines = x.view(m, size, c, h).permute(0, 3, 2, 1).reshape(m * h, c * size)
    place, weight = _taps(top, height, size, interpolation)
    x = _sums(lines, place + (torch.arange(m) * h)[:, None, None], weight)  # [ms, cs]
    x = x.view(m, size, c, size).transpose(1, 2).contiguous()
    return x.int().to(torch.uint8).view(b, v, c, size, size)  # from floats at once is slower


def _sums(rows: Tensor, place: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of rows as whole levels; halves go up, as Pillow rounds."""
    place, weight = place.flatten(0, 1), weight.flatten(0, 1)
    x = F.embedding_bag(place, rows, per_sample_weights=weight, mode="sum")
    return x.add_(0.5).floor_().clamp_(0, 255)


def _taps(start: Tensor, length: Tensor, size: int, kind: Interpolation) -> tuple[Tensor, Tensor]:
    """One direction: which pixels make up each of the result, and how much. [m] -> [m, size, t]."""
    lengths, which = length.unique(return_inverse=True)
    place, weight = _taps_within(lengths, size, kind)
    return place[which] + start[:, None, None], weight[which]


def _taps_within(length: Tensor, size: int, kind: Interpolation) -> tuple[Tensor, Tensor]:
    """Of boxes of these lengths, counted from their edge.

    Weights of a pixel of the result sum to 1; places beyond the box weigh nothing.
    """
    scale = length.float()[:, None, None] / size
    wide = scale.clamp(min=1)  # shrinking widens the filter, enlarging does not narrow it
    radius = RADIUS[kind] * wide
    centre = (torch.arange(size)[:, None] + 0.5) * scale  # [m, s, 1]
    first = (centre - radius + 0.5).floor()
    place = first + torch.arange(math.ceil(2 * float(radius.max())))  # [m, s, t]
    weight = _FILTERS[kind]((place + 0.5 - centre) / wide)
    last = length[:, None, None] - 1
    weight = torch.where((place >= 0) & (place <= last), weight, 0)
    place = place.long().clamp_(min=0).minimum(last)
    total = weight.cumsum(-1)[..., -1:]  # one after the other: more taps, of other boxes, add 0
    return place, weight / total


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic with a = -0.5, Pillow's."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


_FILTERS = {"bilinear": _bilinear, "bicubic": _bicubic}
