"""Thumbnails: what near duplicates are compared by. 1.5 KB an image, whatever its size.

Shape letters: n images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 32
"""Height and width of the brightness, in pixels."""
COLOUR_SIDE = 16
LARGE = 128  # pixels of a side, of what is computed in floats
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)
SHAPES = 40.0  # steps of the stored shape for a factor of e between width and height
BYTES = SIDE**2 + 2 * COLOUR_SIDE**2 + 1


class Thumbnails(NamedTuple):
    """The thumbnails of many images."""

    brightness: Tensor
    """uint8 [n, SIDE, SIDE]."""
    colour: Tensor
    """uint8 [n, 2, COLOUR_SIDE, COLOUR_SIDE]: half of red and of blue minus brightness, plus 128.
    128 everywhere in images without colours."""
    shape: Tensor
    """uint8 [n]: 128 for a square, more where an image is wider than high."""

    def rows(self, positions: Tensor) -> "Thumbnails":
        """Select some images."""
        return Thumbnails(*(table[positions] for table in self))


def thumbnail(image: np.ndarray) -> bytes:
    """Shrink an image, uint8 [h, w, c]: brightness, two differences of colour, and the shape."""
    height, width, channels = image.shape
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    if height * width > LARGE**2:  # in bytes: floats of a large image take ten times as long
        x = _resize(x, (min(height, LARGE), min(width, LARGE)))
    x = x.float()
    if channels == 3:
        y = (x * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        colour = torch.cat([x[:, :1] - y, x[:, 2:] - y], 1) / 2 + 128
    else:
        y = x.mean(1, keepdim=True)
        colour = torch.full((1, 2, 1, 1), 128.0)
    shape = np.clip(round(128 + SHAPES * np.log(width / height)), 0, 255)
    parts = (_shrink(y, SIDE), _shrink(colour, COLOUR_SIDE), np.uint8(shape))
    return b"".join(part.tobytes() for part in parts)


def _shrink(x: Tensor, side: int) -> np.ndarray:
    return _resize(x, (side, side)).round().clamp(0, 255).to(torch.uint8).numpy()


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)


def stack(thumbnails: Sequence[bytes]) -> Thumbnails:
    """Lay n thumbnails out as tables; an empty one, of an unreadable image, is an even black."""
    table = np.zeros((len(thumbnails), BYTES), np.uint8)
    for row, content in zip(table, thumbnails, strict=True):
        if content:
            row[:] = np.frombuffer(content, np.uint8)
    x = torch.from_numpy(table)
    brightness, colour, shape = x.split([SIDE**2, 2 * COLOUR_SIDE**2, 1], 1)
    return Thumbnails(
        brightness.reshape(-1, SIDE, SIDE),
        colour.reshape(-1, 2, COLOUR_SIDE, COLOUR_SIDE),
        shape[:, 0].contiguous(),
    )
