"""Gaussian blur of a batch, each image by its own width.

Shape letters: k images, c channels, h and w in pixels, r taps on one side.
"""

import math

import torch
from torch import Tensor

FAR = 4.5
"""Taps beyond so many widths are left out: together they weigh less than 7e-6."""


def reach(side: int, sigma: float) -> int:
    """Taps on one side, as far as any weighs for that width."""
    return min(_kernel(side) // 2, max(1, math.ceil(FAR * sigma)))


def _kernel(side: int) -> int:
    """A tenth of the side, made odd."""
    return max(3, side // 10 | 1)


def taps(sigma: Tensor, side: int) -> Tensor:
    """Weights of the middle and of each further pixel on one side. [k] -> [k, r + 1].

    r is the kernel's of images of that side, whatever the widths, so that no image's weights depend
    on the others'; what is too far for it weighs nothing.
    """
    place, width = torch.arange(1.0 + _kernel(side) // 2), sigma[:, None]
    weight = torch.exp(-0.5 * (place / width) ** 2)
    weight = torch.where(place <= (FAR * width).ceil().clamp(min=1), weight, 0)
    return weight / (2 * weight.sum(1, keepdim=True) - 1)


def blur(x: Tensor, weights: Tensor) -> Tensor:
    """Blur sideways, then downwards, with mirrored borders.

    Args:
        x: [k, c, h, w] in one piece, with sides of 2 r or more.
        weights: [k, r + 1] of `taps`.

    Returns:
        [k, c, h, w].
    """
    return _along(_along(x, weights, 3), weights, 2)


def _along(x: Tensor, weights: Tensor, dim: int) -> Tensor:
    """One direction: sums of the images shifted both ways, the borders by themselves.

    Several times faster on a CPU than a convolution, since shifted images are runs of memory.
    """
    size, stride = x.shape[dim], x.stride(dim)
    images = x.view(1, -1) if dim == 3 else x.view(-1, x.shape[2] * x.shape[3])
    weight = weights[:, :, None, None, None]
    out, both = x * weight[:, 0], torch.empty_like(x)
    pairs = both.view(images.shape)
    for j in range(1, weights.shape[1]):
        far = j * stride
        torch.add(images[:, : -2 * far], images[:, 2 * far :], out=pairs[:, far:-far])
        first, last = x.narrow(dim, 1, j), x.narrow(dim, size - 1 - j, j)
        near = x.narrow(dim, j, j), x.narrow(dim, size - 2 * j, j)
        torch.add(first.flip(dim), near[0], out=both.narrow(dim, 0, j))
        torch.add(last.flip(dim), near[1], out=both.narrow(dim, size - j, j))
        out.addcmul_(both, weight[:, j])
    return out
