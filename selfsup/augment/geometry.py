"""Rotation and erasing of a batch, each image by its own draws.

Shape letters: k images, c channels, s side in pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """Rotate to the left about the centre, bilinear; what comes from outside is black.

    As torchvision's `rotate(x, degrees, BILINEAR)`.

    Args:
        x: [k, c, s, s].
        degrees: [k].
    """
    angle = degrees * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = torch.stack([torch.stack([cos, -sin, zero], -1), torch.stack([sin, cos, zero], -1)], 1)
    grid = F.affine_grid(rows.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def erase(x: Tensor, boxes: Tensor) -> Tensor:
    """Set a box of each image to 0.

    Args:
        x: [k, c, s, s].
        boxes: int64 [k, 4] as top, left, height, width.
    """
    top, left, height, width = boxes[:, :, None].unbind(1)  # [k, 1]
    place = torch.arange(x.shape[-1], device=x.device)
    rows = (place >= top) & (place < top + height)  # [k, s]
    columns = (place >= left) & (place < left + width)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)
