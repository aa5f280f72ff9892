"""Resized crops of arrays, compiled by numba for a CPU; `resample.py` has the form in torch.

Shape letters: b images, v views, h, w and c of an image, s side of the result.
"""

import numpy as np
import torch
from torch import Tensor

from selfsup.config import Interpolation
from selfsup.core.compiled import kernel
from selfsup.core.threads import run_blocks

LOW, HALF, HIGH = np.float32(0), np.float32(0.5), np.float32(255)


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
    out = torch.empty(b, v, images.shape[3], size, size, dtype=torch.uint8)
    fields = images.numpy(), boxes.numpy(), out.numpy()
    bicubic = interpolation == "bicubic"
    run_blocks(b, lambda block: _crops(*(field[block] for field in fields), bicubic))
    return out


@kernel
def _crops(images, boxes, out, bicubic):  # type: ignore[no-untyped-def]
    """Resize sideways, then downwards, rounded to levels after each.

    The kernel of a box depends only on its length, so that each length is computed once: result
    pixel x is the sum over t < counts[length] of weights[length, t, x] times the pixel at
    places[length, t, x] of the box.
    """
    b, h, w, channels = images.shape
    v, size = boxes.shape[1], out.shape[3]
    longest = max(h, w)
    most = int(2 * (2 if bicubic else 1) * max(1.0, longest / size)) + 2
    counts = np.zeros(longest + 1, np.int64)  # 0 where not yet computed
    weights = np.empty((longest + 1, most, size), np.float32)
    places = np.empty((longest + 1, most, size), np.uint32)
    transposed = np.empty((w, h * channels), np.float32)  # each column is one run of memory
    columns = np.empty((size, h * channels), np.float32)
    lines = np.empty((h, channels * size), np.float32)
    sums = np.empty(channels * size, np.float32)
    for i in range(b):
        for y in range(h):
            for x in range(w):
                for c in range(channels):
                    transposed[x, y * channels + c] = np.float32(images[i, y, x, c])
        for j in range(v):
            top, left, height, width = boxes[i, j]
            for length in (height, width):
                if counts[length] == 0:
                    counts[length] = _kernel(length, size, bicubic, places[length], weights[length])
            rows = slice(top * channels, (top + height) * channels)
            for x in range(size):
                column = columns[x, : height * channels]
                _set_scaled(
                    column, weights[width, 0, x], transposed[left + places[width, 0, x], rows]
                )
                for t in range(1, counts[width]):
                    _add_scaled(
                        column, weights[width, t, x], transposed[left + places[width, t, x], rows]
                    )
                for q in range(len(column)):
                    column[q] = _level(column[q])
            for y in range(height):
                for c in range(channels):
                    line, at = lines[y, c * size : (c + 1) * size], y * channels + c
                    for x in range(size):
                        line[x] = columns[x, at]
            for y in range(size):
                _set_scaled(sums, weights[height, 0, y], lines[places[height, 0, y]])
                for t in range(1, counts[height]):
                    _add_scaled(sums, weights[height, t, y], lines[places[height, t, y]])
                for c in range(channels):
                    row, values = out[i, j, c, y], sums[c * size : (c + 1) * size]
                    for x in range(size):
                        row[x] = np.uint8(np.int32(_level(values[x])))  # directly is slower


@kernel
def _add_scaled(out, weight, values):  # type: ignore[no-untyped-def]
    for x in range(len(out)):
        out[x] += weight * values[x]


@kernel
def _set_scaled(out, weight, values):  # type: ignore[no-untyped-def]
    for x in range(len(out)):
        out[x] = weight * values[x]


@kernel
def _level(x):  # type: ignore[no-untyped-def]
    """Round to a level; halves go up, as in Pillow."""
    return min(max(np.floor(x + HALF), LOW), HIGH)


@kernel
def _kernel(length, size, bicubic, place, weight):  # type: ignore[no-untyped-def]
    """Fill place [t, s] and weight [t, s] for a box of that length; return the kernel's size."""
    scale = length / size
    stretch = max(scale, 1.0)  # shrinking widens the filter, enlarging does not narrow it
    radius = (2 if bicubic else 1) * stretch
    count = int(np.ceil(2 * radius))
    for x in range(size):
        centre = (x + 0.5) * scale
        first = int(np.floor(centre - radius + 0.5))
        total = 0.0
        for t in range(count):
            at = first + t
            distance = abs(at + 0.5 - centre) / stretch
            value = 0.0
            if 0 <= at < length:
                value = _cubic(distance) if bicubic else max(1 - distance, 0.0)
            weight[t, x] = value
            place[t, x] = min(max(at, 0), length - 1)
            total += value
        for t in range(count):
            weight[t, x] = weight[t, x] / total
    return count


@kernel
def _cubic(x):  # type: ignore[no-untyped-def]
    """Keys' cubic with a = -0.5, Pillow's."""
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    if x < 2:
        return ((-0.5 * x + 2.5) * x - 4) * x + 2
    return 0.0
