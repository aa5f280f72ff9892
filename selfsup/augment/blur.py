"""Gaussian blur of a batch, each image by its own width.

Shape letters: k images, c channels, h and w in pixels, r radius of the kernel in pixels.
"""

import math

import torch
from torch import Tensor

CUTOFF = 4.5
"""Weights further than so many sigmas are left out: their sum is below 7e-6."""


def kernel_radius(side: int, sigma: float) -> int:
    """Pixels on one side of the middle that have a weight, for that sigma."""
    return min(_kernel_size(side) // 2, max(1, math.ceil(CUTOFF * sigma)))


def _kernel_size(side: int) -> int:
    """A tenth of the side, made odd."""
    return max(3, side // 10 | 1)


def kernel_weights(sigma: Tensor, side: int) -> Tensor:
    """Weights of the middle and of each further pixel on one side. [k] -> [k, r + 1].

    r is that of the kernel for images of that side, whatever the sigmas, so that no image's weights
    depend on the others'; pixels beyond the cutoff weigh nothing.
    """
    place, width = torch.arange(1.0 + _kernel_size(side) // 2), sigma[:, None]
    weight = torch.exp(-0.5 * (place / width) ** 2)
    weight = torch.where(place <= (CUTOFF * width).ceil().clamp(min=1), weight, 0)
    return weight / (2 * weight.sum(1, keepdim=True) - 1)


def blur(x: Tensor, weights: Tensor) -> Tensor:
    """Blur sideways, then downwards, with mirrored borders.

    Args:
        x: [k, c, h, w], contiguous, with sides of 2 r or more.
        weights: [k, r + 1] of `kernel_weights`.

    Returns:
        [k, c, h, w].
    """
    return _blur_along(_blur_along(x, weights, 3), weights, 2)


def _blur_along(x: Tensor, weights: Tensor, dim: int) -> Tensor:
    """One direction: sums of the images shifted both ways, the borders separately.

    Several times faster on a CPU than a convolution, since shifted images are runs of memory.
    """
    size, stride = x.shape[dim], x.stride(dim)
    images = x.view(1, -1) if dim == 3 else x.view(-1, x.shape[2] * x.shape[3])
    weight = weights[:, :, None, None, None]
    out, both = x * weight[:, 0], torch.empty_like(x)
    pairs = both.view(images.shape)
    for j in range(1, weights.shape[1]):
        shift = j * stride
        torch.add(images[:, : -2 * shift], images[:, 2 * shift :], out=pairs[:, shift:-shift])
        first, last = x.narrow(dim, 1, j), x.narrow(dim, size - 1 - j, j)
        inner = x.narrow(dim, j, j), x.narrow(dim, size - 2 * j, j)
        torch.add(first.flip(dim), inner[0], out=both.narrow(dim, 0, j))
        torch.add(last.flip(dim), inner[1], out=both.narrow(dim, size - j, j))
        out.addcmul_(both, weight[:, j])
    return out
