"""Colour changes of a batch, each image by its own amounts, in place.

The definitions are torchvision's functions on floats in [0, 1]: brightness scales, contrast blends
with the mean of the grey image, saturation with the grey image, each clamped to [0, 1]; hue turns
the wheel of HSV. `README.md` beside this file lists where others differ.

Shape letters: k images, c channels, p pixels.
"""

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of grey, of torchvision and TensorFlow (Pillow and kornia: .299 .587 .114)."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def luma(x: Tensor) -> Tensor:
    """Grey values. [k, 3, p] -> [k, p]."""
    r, g, b = x.unbind(1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def blend(x: Tensor, factor: Tensor, grey: Tensor, mean: Tensor) -> None:
    """Change brightness, contrast or saturation of each image, in place.

    All three are x * factor + y * grey + mean(y) * mean, with y the grey image, clamped to [0, 1]:
    `grey` is 1 - factor for a change of saturation, `mean` is that for one of contrast, and both
    are 0 otherwise. Where channels are not red, green and blue there is no grey image, and contrast
    changes each about its own mean.

    Args:
        x: [k, c, p] in [0, 1].
        factor: [k].
        grey: [k].
        mean: [k].
    """
    if x.shape[1] != 3:
        shift = x.mean(2) * mean[:, None]  # [k, c]
        x.mul_(factor[:, None, None]).add_(shift[:, :, None]).clamp_(0, 1)
        return
    y = luma(x)
    y = y.mul(grey[:, None]).add_((y.mean(1) * mean)[:, None])
    x.mul_(factor[:, None, None]).add_(y[:, None]).clamp_(0, 1)


def turn_hue(x: Tensor, shift: Tensor) -> None:
    """Turn the colour wheel, in place.

    With h the hue in turns, m the smallest channel and c the chroma, red is
    m + c * clamp(6 |h - 1/2| - 1, 0, 1), green m + c * clamp(2 - 6 |h - 1/3|, 0, 1), and blue the
    same about 2/3 (Smith 1978, as one formula without cases).

    Args:
        x: [k, 3, p] in [0, 1].
        shift: [k], in turns.
    """
    r, g, b = x.unbind(1)
    high = torch.maximum(torch.maximum(r, g), b)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = (high - low).mul_(6)
    # masks of 0 and 1 as floats: a choice by bool is ten times slower than arithmetic on a CPU
    at_red = torch.eq(high, r, out=torch.empty_like(high))
    at_green = torch.eq(high, g, out=torch.empty_like(high))
    difference = torch.lerp(torch.lerp(r - g, b - r, at_green), g - b, at_red)
    hue = torch.rsub(at_green, 2 / 3, alpha=1 / 3)
    hue.addcmul_(hue, at_red, value=-1).add_(shift[:, None])
    hue.addcdiv_(difference, chroma.clamp(min=1e-12))  # greys have no chroma, so any hue is right
    hue.sub_(torch.floor(hue, out=difference))
    below = torch.sub(low, chroma, alpha=1 / 6)
    above = torch.add(low, chroma, alpha=1 / 3)
    distance = torch.sub(hue, 1 / 2, out=difference).abs_().clamp_(1 / 6, 1 / 3)
    torch.addcmul(below, chroma, distance, out=r)
    distance = torch.sub(hue, 1 / 3, out=difference).abs_().clamp_(1 / 6, 1 / 3)
    torch.addcmul(above, chroma, distance, value=-1, out=g)
    distance = torch.sub(hue, 2 / 3, out=difference).abs_().clamp_(1 / 6, 1 / 3)
    torch.addcmul(above, chroma, distance, value=-1, out=b)
